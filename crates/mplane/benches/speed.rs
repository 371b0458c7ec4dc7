//! How fast messages are read and written, beside bare `serde_json` in the same run.
//!
//! Figures of different runs and machines do not compare; the ratios of one run do. Each
//! is the least of several samples, taken in turns so that both sides see the same load.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![expect(clippy::cast_precision_loss, reason = "row numbers are small")]

mod bare;
mod common;
mod statements;

use std::hint::black_box;
use std::time::{Duration, Instant};

use mplane::json::{Form, decode, encode};
use mplane::message::Message;
use mplane::registry::Registries;
use mplane::when::When;

/// How many samples are taken of each side.
const SAMPLES: usize = 15;

/// How long one sample takes at least.
const SAMPLE_TIME: Duration = Duration::from_millis(20);

fn main() {
    let registries = Registries::embedded();
    let capability = common::bytes(statements::capability(&registries), Form::REFERENCE);
    let specification =
        common::bytes(statements::specification(&registries), Form::REFERENCE);
    small("capability", &capability, &registries);
    small("specification", &specification, &registries);
    for rows in [1, 1_000, 100_000] {
        let result = common::result(&registries, rows);
        for (name, form) in [("text", Form::REFERENCE), ("native", Form::NATIVE)] {
            let input = common::bytes(result.clone(), form);
            large(&format!("result of {rows} rows, {name}"), &input, &registries, form);
        }
    }
    scopes();
}

/// Compares messages without rows.
fn small(name: &str, input: &[u8], registries: &Registries) {
    println!("\n{name}, {} B", input.len());
    let message = decode(input, registries).expect("a message");
    let owned: bare::Owned = serde_json::from_slice(input).expect("a message");
    let [ours, value, owned_time, borrowed] = in_turns([
        &mut || drop(black_box(decode(black_box(input), registries))),
        &mut || {
            drop(black_box(serde_json::from_slice::<serde_json::Value>(black_box(
                input,
            ))));
        },
        &mut || drop(black_box(serde_json::from_slice::<bare::Owned>(black_box(input)))),
        &mut || {
            drop(black_box(serde_json::from_slice::<bare::Borrowed<'_>>(black_box(
                input,
            ))));
        },
    ]);
    line(
        "decode",
        ours,
        &[("Value", value), ("owned", owned_time), ("borrowed", borrowed)],
    );
    verdict("decode", ours, owned_time, 2.0);
    encoding(&message, Form::REFERENCE, &owned);
}

/// Compares results.
fn large(name: &str, input: &[u8], registries: &Registries, form: Form) {
    println!("\n{name}, {} B", input.len());
    let message = decode(input, registries).expect("a message");
    let owned: bare::Owned = serde_json::from_slice(input).expect("a message");
    let [ours, value, owned_time, borrowed, columnar] = in_turns([
        &mut || drop(black_box(decode(black_box(input), registries))),
        &mut || {
            drop(black_box(serde_json::from_slice::<serde_json::Value>(black_box(
                input,
            ))));
        },
        &mut || drop(black_box(serde_json::from_slice::<bare::Owned>(black_box(input)))),
        &mut || {
            drop(black_box(serde_json::from_slice::<bare::Borrowed<'_>>(black_box(
                input,
            ))));
        },
        &mut || {
            drop(black_box(serde_json::from_slice::<bare::Columnar>(black_box(input))));
        },
    ]);
    line(
        "decode",
        ours,
        &[
            ("Value", value),
            ("owned", owned_time),
            ("borrowed", borrowed),
            ("columnar", columnar),
        ],
    );
    if input.len() > 1_000_000 {
        verdict("decode", ours, columnar, 2.0);
    }
    encoding(&message, form, &owned);
}

/// Compares writing.
fn encoding(message: &Message, form: Form, owned: &bare::Owned) {
    let [ours, bare] = in_turns([
        &mut || drop(black_box(encode(black_box(message), form))),
        &mut || drop(black_box(serde_json::to_vec(black_box(owned)))),
    ]);
    line("encode", ours, &[("owned", bare)]);
}

/// Measures temporal scopes, to which nothing compares.
fn scopes() {
    println!("\ntemporal scopes");
    for text in [
        "now",
        "now + 30s / 1s",
        "2015-06-01 10:20:30.123456 ... 2015-06-01 10:20:31.654321 / 1s",
        "repeat now ... future / 1h { now + 5m / 1s }",
        "repeat now ... future cron 0 0 * 1,2,3,4,5,6,7 1 * { now + 5m }",
    ] {
        let [parse] =
            in_turns([&mut || drop(black_box(black_box(text).parse::<When>()))]);
        println!("  {:>10}  {text}", duration(parse));
    }
}

/// Returns how long each of several works takes, sampled in turns.
fn in_turns<const N: usize>(mut works: [&mut dyn FnMut(); N]) -> [Duration; N] {
    let repeats = works.each_mut().map(|work| {
        let mut repeats = 1_u32;
        loop {
            let took = time(repeats, work);
            if took >= SAMPLE_TIME {
                return repeats;
            }
            let factor = SAMPLE_TIME.as_nanos() / took.as_nanos().max(1) + 1;
            repeats =
                repeats.saturating_mul(u32::try_from(factor.min(100)).unwrap_or(100));
        }
    });
    let mut least = [Duration::MAX; N];
    for _ in 0..SAMPLES {
        for ((work, repeats), least) in works.iter_mut().zip(repeats).zip(&mut least) {
            *least = (*least).min(time(repeats, work) / repeats);
        }
    }
    least
}

/// Returns how long a work takes, repeated.
fn time(repeats: u32, work: &mut dyn FnMut()) -> Duration {
    let start = Instant::now();
    for _ in 0..repeats {
        work();
    }
    start.elapsed()
}

/// Prints a figure beside others, with the ratios.
fn line(what: &str, ours: Duration, others: &[(&str, Duration)]) {
    print!("  {what:8} {:>10}", duration(ours));
    for (name, other) in others {
        print!("   {name} {} ({:.2}x)", duration(*other), ratio(ours, *other));
    }
    println!();
}

/// Says whether a figure stays below a multiple of another one.
fn verdict(what: &str, ours: Duration, other: Duration, threshold: f64) {
    let ratio = ratio(ours, other);
    let word = if ratio <= threshold { "kept" } else { "EXCEEDED" };
    println!("  {what} at {ratio:.2}x of at most {threshold:.2}x: {word}");
}

/// Returns how many times longer one duration is than another.
fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64()
}

/// Writes a duration in a unit that fits.
fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 1e-3 {
        format!("{:.3} us", seconds * 1e6)
    } else {
        format!("{:.3} ms", seconds * 1e3)
    }
}
