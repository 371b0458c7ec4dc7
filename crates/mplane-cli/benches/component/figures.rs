//! Figures: percentiles, medians of rounds, and what the kernel tells of a process.

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use nix::unistd::{SysconfVar, sysconf};

/// A figure of several rounds.
pub(super) struct Rounds(Vec<f64>);

impl Rounds {
    /// Takes the figures of all rounds.
    pub(super) fn new(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        Self(figures)
    }

    /// Returns the median.
    pub(super) fn median(&self) -> f64 {
        percentile(&self.0, 50.0)
    }
}

impl fmt::Display for Rounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (median, width) = (self.median(), f.width().unwrap_or(0));
        let decimals = usize::from(median < 100.0);
        write!(f, "{median:width$.decimals$}")?;
        match self.0[..] {
            [least, .., greatest] => {
                write!(f, " ({least:.decimals$}..{greatest:.decimals$})")
            }
            _ => Ok(()),
        }
    }
}

/// Returns a percentile of sorted figures: the nearest one that is there. 0 of none.
pub(super) fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let last = sorted.len().saturating_sub(1) as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is the index of a figure"
    )]
    let index = (last * percent / 100.0).round() as usize;
    sorted.get(index).copied().unwrap_or_default()
}

/// Prints the headline of a scene, with what else the machine does.
pub(super) fn headline(text: &str) {
    println!("\n{text}\n  1-minute load before: {}", load());
}

/// Says that a goal is kept, or not.
pub(super) fn verdict(what: &str, figure: f64, goal: f64, unit: &str) {
    let word = if figure <= goal { "kept" } else { "EXCEEDED" };
    println!("    {what} {figure:.1} of at most {goal} {unit}: {word}");
}

/// Returns the load of the last minute.
fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").expect("the kernel tells its load");
    load.split(' ').next().unwrap_or_default().to_owned()
}

/// How much time a process has used, and since when that counts.
pub(super) struct Clock {
    process: u32,
    started: Instant,
    used: Duration,
}

impl Clock {
    /// Starts counting.
    pub(super) fn start(process: u32) -> Self {
        Self { process, started: Instant::now(), used: used(process) }
    }

    /// Returns how much processor time was used since the start, user and system.
    pub(super) fn used(&self) -> Duration {
        used(self.process).saturating_sub(self.used)
    }

    /// Returns how much time has passed since the start.
    pub(super) fn passed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Returns how much of one processor was used since the start, in percent.
    pub(super) fn percent(&self) -> f64 {
        self.used().as_secs_f64() * 100.0 / self.passed().as_secs_f64()
    }
}

/// Returns how much processor time a process has used, in ticks of the kernel, which are
/// 10 ms mostly.
fn used(process: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"));
    let stat = stat.expect("the process runs");
    // The name, which may contain blanks, ends with the last bracket.
    let (_, fields) = stat.rsplit_once(") ").expect("the kernel says what it is");
    let ticks: u64 = fields
        .split(' ')
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().expect("it is a number"))
        .sum();
    let second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    Duration::from_secs_f64(ticks as f64 / second as f64)
}

/// How much memory of a process is resident, in megabytes of 10^6 bytes.
#[derive(Clone, Copy)]
pub(super) struct Memory {
    /// All of it.
    pub(super) all: f64,
    /// What it has allocated.
    anonymous: f64,
}

impl Memory {
    /// Asks the kernel.
    pub(super) fn of(process: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{process}/status"));
        let status = status.expect("the process runs");
        let megabytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.split_whitespace().next());
            let kib: f64 = kib.and_then(|kib| kib.parse().ok()).expect("it is a number");
            kib * 1024.0 / 1e6
        };
        Self { all: megabytes("VmRSS:"), anonymous: megabytes("RssAnon:") }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} MB resident ({:.1} MB anonymous)", self.all, self.anonymous)
    }
}
