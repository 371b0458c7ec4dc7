//! Topologies as they are written: TOML, unknown keys are errors.
//!
//! Durations are written as `10ms`, `1.5s` or `250us`; rates as a number of bits in a
//! second or as `10Mbit/s`; probabilities as numbers from 0 to 1.

use std::num::NonZeroU64;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use super::prefix::Prefix;
use crate::emulate::{BurstLoss, Change, Distribution, Probability, Reorder};

/// A topology.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct TopologyFile {
    /// What the lab is called, unless a program is told otherwise.
    pub(super) name: Option<Spanned<String>>,
    /// Where the random numbers start.
    #[serde(default = "first_seed")]
    pub(super) seed: u64,
    /// Which addresses are assigned.
    #[serde(default = "both_families")]
    pub(super) families: Vec<Family>,
    /// Whether the emulator never sleeps.
    #[serde(default)]
    pub(super) busy: bool,
    /// The hosts; the first is where commands run.
    pub(super) host: Vec<HostFile>,
    /// The links between them.
    pub(super) link: Vec<LinkFile>,
}

/// The seed where none is given.
const fn first_seed() -> u64 {
    1
}

/// The families where none are given.
fn both_families() -> Vec<Family> {
    vec![Family::Ip4, Family::Ip6]
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Family {
    /// IPv4.
    Ip4,
    /// IPv6.
    Ip6,
}

/// A host.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct HostFile {
    /// Its name.
    pub(super) name: Spanned<String>,
    /// Whether it forwards packets of others.
    #[serde(default)]
    pub(super) router: bool,
    /// Networks all of whose addresses it answers for, besides those of its links.
    #[serde(default)]
    pub(super) prefixes: Vec<Spanned<Text<Prefix>>>,
    /// Programs that run in it, each with its arguments.
    #[serde(default)]
    pub(super) run: Vec<Spanned<Vec<String>>>,
}

/// A link.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct LinkFile {
    /// The hosts that it joins.
    pub(super) between: Spanned<[Spanned<String>; 2]>,
    /// The addresses of either end, instead of automatic ones.
    pub(super) addresses: Option<Spanned<[Vec<Text<Prefix>>; 2]>>,
    /// The longest packet that its interfaces send.
    pub(super) mtu: Option<Spanned<u32>>,
    /// What it does in both directions.
    #[serde(default)]
    pub(super) both: ShapeFile,
    /// What it does from the first host to the second, over what `both` says.
    #[serde(default)]
    pub(super) forth: ShapeFile,
    /// What it does from the second host to the first, over what `both` says.
    #[serde(default)]
    pub(super) back: ShapeFile,
    /// What changes later.
    #[serde(default)]
    pub(super) change: Vec<ChangeFile>,
}

/// A change of a link.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct ChangeFile {
    /// When, from the start of the lab.
    pub(super) at: Spanned<Time>,
    /// What changes in both directions.
    #[serde(default)]
    pub(super) both: ShapeFile,
    /// What changes from the first host to the second.
    #[serde(default)]
    pub(super) forth: ShapeFile,
    /// What changes from the second host to the first.
    #[serde(default)]
    pub(super) back: ShapeFile,
}

/// What one direction does, or how that changes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct ShapeFile {
    delay: Option<Time>,
    jitter: Option<Time>,
    jitter_distribution: Option<Distribution>,
    loss: Option<Probability>,
    burst_loss: Option<BurstLoss>,
    duplicate: Option<Probability>,
    reorder: Option<ReorderFile>,
    rate: Option<Rate>,
    queue_packets: Option<u64>,
    queue_bytes: Option<u64>,
    silent_mtu: Option<u32>,
}

/// Packets that are held back.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct ReorderFile {
    probability: Probability,
    by: Time,
}

impl From<&ShapeFile> for Change {
    fn from(file: &ShapeFile) -> Self {
        Self {
            delay: file.delay.map(|time| time.0),
            jitter: file.jitter.map(|time| time.0),
            jitter_distribution: file.jitter_distribution,
            loss: file.loss,
            burst_loss: file.burst_loss,
            duplicate: file.duplicate,
            reorder: file
                .reorder
                .map(|held| Reorder { probability: held.probability, by: held.by.0 }),
            rate_bps: file.rate.map(|rate| rate.0),
            queue_packets: file.queue_packets,
            queue_bytes: file.queue_bytes,
            silent_mtu: file.silent_mtu,
        }
    }
}

/// The longest time that is taken: an hour of delay is no network, a day of changes no lab.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// A duration, such as `10ms`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time(pub(super) Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parser = jiff::fmt::friendly::SpanParser::new();
        let time = parser.parse_unsigned_duration(&text).map_err(|_| {
            D::Error::custom(format_args!("{text:?} is no duration such as 10ms or 1.5s"))
        })?;
        if time > LONGEST {
            return Err(D::Error::custom(format_args!("{text} is longer than a day")));
        }
        Ok(Self(time))
    }
}

/// The slowest line: a packet of 1500 bytes takes 12 s.
const SLOWEST_BPS: u64 = 1_000;

/// Bits in a second, such as `10Mbit/s`, or `unlimited`.
#[derive(Clone, Copy, Debug)]
struct Rate(Option<NonZeroU64>);

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "unlimited" {
            return Ok(Self(None));
        }
        let rate = parse_rate(&text).ok_or_else(|| {
            D::Error::custom(format_args!(
                "{text:?} is no rate such as 10Mbit/s, 512kbit/s or unlimited"
            ))
        })?;
        if rate.get() < SLOWEST_BPS {
            return Err(D::Error::custom(format_args!(
                "{text} is too slow, 1kbit/s is the least"
            )));
        }
        Ok(Self(Some(rate)))
    }
}

/// Parses a rate with its unit.
fn parse_rate(text: &str) -> Option<NonZeroU64> {
    let text = text.strip_suffix("bit/s")?.trim_end();
    let units = [("G", 1_000_000_000), ("M", 1_000_000), ("k", 1_000), ("", 1)];
    let (number, unit) = units
        .into_iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)))?;
    let number: u64 = number.trim_end().parse().ok()?;
    NonZeroU64::new(number.checked_mul(unit)?)
}

/// A value that is written as text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<T>(pub(super) T);

impl<'de, T> Deserialize<'de> for Text<T>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(D::Error::custom)
    }
}
