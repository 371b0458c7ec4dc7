//! What a supervisor costs and keeps, under components and clients with mutual TLS over
//! loopback, beside a bare axum server with the same TLS and, where it can do it at all, the
//! reference supervisor in the same run ([`relayed`]).
//!
//! The supervisor is the program, a process of its own with its store on disk. Components
//! and clients are tasks of this process, each with an identity and a connection of its
//! own ([`peer`]); what they say is made and read by the library ([`actors`]). They share
//! the processors with the supervisor: rates of one run tell less than processor time for
//! each operation and its ratio to the floor.
//!
//! Scenes: [`registering`], [`polling`], [`delivering`], [`lives`], [`latency`],
//! [`size`] (memory, and cost with many components), [`million`] (memory over very many
//! results; `-- million 100000` says how many), and [`fall`]: the supervisor is killed, and
//! nothing that it has accepted may be missing afterwards. That is the one scene that makes
//! the program fail.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![expect(clippy::cast_precision_loss, reason = "figures are small")]

mod actors;
mod delivering;
mod descriptors;
#[expect(dead_code, reason = "each bench needs its part")]
#[path = "../component/domain.rs"]
mod domain;
#[path = "../component/echo.rs"]
mod echo;
mod fall;
#[expect(dead_code, reason = "each bench needs its part")]
#[path = "../component/figures.rs"]
mod figures;
mod latency;
mod lives;
mod million;
mod peer;
mod polling;
mod reference;
mod registering;
mod relayed;
mod servers;
mod size;
#[expect(dead_code, reason = "each user needs its part")]
#[path = "../../tests/support/mod.rs"]
mod support;

use std::process::ExitCode;
use std::time::Instant;

use mplane_cli::block_on;
use peer::Members;
use reference::Reference;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        // The floor, as a process of its own.
        ["echo", folder] => {
            echo::server(folder);
            ExitCode::SUCCESS
        }
        _ => play(&words),
    }
}

/// What the scenes play in.
struct Stage {
    domain: domain::Domain,
    members: Members,
    reference: Option<Reference>,
}

/// Plays the scenes that are named, or all of them.
fn play(words: &[&str]) -> ExitCode {
    let started = Instant::now();
    descriptors::raise();
    let names_some = SCENES.iter().any(|name| words.contains(name));
    let is_played = |name: &str| !names_some || words.contains(&name);
    let domain = domain::Domain::new();
    let members = Members::new(&domain);
    let compares = COMPARING.into_iter().any(is_played);
    let reference = if compares { Reference::install() } else { None };
    let count = words.iter().find_map(|word| word.parse().ok());
    let is_named = words.contains(&"million");
    let results =
        count.unwrap_or(if is_named { million::NAMED } else { million::AMONG_ALL });
    let stage = Stage { domain, members, reference };
    let mut is_sound = true;
    block_on(async {
        for name in SCENES.into_iter().filter(|name| is_played(name)) {
            match name {
                "registrations" => registering::scene(&stage).await,
                "polls" => polling::scene(&stage).await,
                "results" => delivering::scene(&stage).await,
                "lives" => lives::scene(&stage).await,
                "latency" => latency::scene(&stage).await,
                "memory" => size::memory(&stage).await,
                "scale" => size::scale(&stage).await,
                "million" => million::scene(&stage, results).await,
                "restart" => fall::restart(&stage).await,
                _ => is_sound &= fall::crash(&stage).await,
            }
        }
    });
    println!("\nall of it took {:.0} s", started.elapsed().as_secs_f64());
    if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The scenes, in their order. `cargo bench` adds arguments of its own.
const SCENES: [&str; 10] = [
    "registrations",
    "polls",
    "results",
    "lives",
    "latency",
    "memory",
    "scale",
    "million",
    "restart",
    "crash",
];

/// The scenes in which the reference plays.
const COMPARING: [&str; 6] =
    ["registrations", "polls", "results", "lives", "latency", "memory"];
