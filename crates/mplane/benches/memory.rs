//! How much memory it takes to read a large result, beyond the input, beside the columns
//! that it becomes.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![expect(clippy::cast_precision_loss, reason = "sizes are small")]

mod common;

use mplane::json::{Form, decode};
use mplane::registry::Registries;
use peak_alloc::PeakAlloc;

/// Counts what is allocated.
#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// How many times the columns the peak may take.
const THRESHOLD: f64 = 2.5;

fn main() {
    let registries = Registries::embedded();
    for (name, form) in [("text", Form::REFERENCE), ("native", Form::NATIVE)] {
        let input = common::bytes(common::result(&registries, 100_000), form);
        let before = ALLOCATED.current_usage();
        ALLOCATED.reset_peak_usage();
        let message = decode(&input, &registries).expect("a message");
        let peak = ALLOCATED.peak_usage() - before;
        let columns = ALLOCATED.current_usage() - before;
        drop(message);
        let ratio = peak as f64 / columns as f64;
        let word = if ratio <= THRESHOLD { "kept" } else { "EXCEEDED" };
        println!(
            "result of 100000 rows, {name}, {} B: columns {columns} B, peak {peak} B",
            input.len()
        );
        println!("  peak at {ratio:.2}x of at most {THRESHOLD:.2}x: {word}");
    }
}
