//! How a component keeps its time and answers, beside the reference component in the same
//! run where that can do it at all.
//!
//! Four scenes: starts of repeated measurements ([`starts`]), a specification and its
//! result ([`latency`]), many specifications at once ([`queue`]), and doing nothing
//! ([`idle`]). Each component is a process of its own, over loopback, one after the other.
//! Figures of different runs and machines do not compare; the ratios of one run do. What
//! is measured is repeated, and the median of the rounds is told with the least and the
//! greatest.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![expect(clippy::cast_precision_loss, reason = "figures are small")]

mod asker;
mod domain;
mod echo;
mod figures;
mod idle;
mod latency;
mod queue;
mod reference;
mod starts;
#[expect(dead_code, reason = "each user needs its part")]
#[path = "../../tests/support/mod.rs"]
mod support;

use std::time::Instant;

use domain::Domain;
use reference::Reference;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        // A component, or what stands beside it, as a process of its own.
        ["starts", repeats, order, spool] => starts::component(repeats, order, spool),
        ["echo", folder] => echo::server(folder),
        _ => play(&words),
    }
}

/// Plays the scenes that are named, or all of them.
fn play(words: &[&str]) {
    let started = Instant::now();
    let domain = Domain::new();
    let reference = Reference::install();
    let scenes: [(&str, Scene); 4] = [
        ("starts", starts::scene),
        ("latency", latency::scene),
        ("queue", queue::scene),
        ("idle", idle::scene),
    ];
    // `cargo bench` adds arguments of its own.
    let names_some = scenes.iter().any(|(name, _)| words.contains(name));
    for (name, scene) in scenes {
        if !names_some || words.contains(&name) {
            scene(&domain, reference.as_ref());
        }
    }
    println!("\nall of it took {:.0} s", started.elapsed().as_secs_f64());
}

/// Plays a scene in a domain, beside the reference if it is there.
type Scene = fn(&Domain, Option<&Reference>);
