//! What probe packets are like: parameters that statistics and sweeps share.
//!
//! A specification needs a value for every parameter. So each of these measurements is
//! offered twice: once with a single value for each, which a client need not write, and
//! once, labelled `custom`, with ranges.

use std::ops::RangeInclusive;

use mplane::message::{BuildError, Specification, Statement};
use mplane::primitive::Value;
use mplane::registry::Registries;
use mplane_runtime::service::RunError;

use crate::packet::Family;
use crate::ping::{DEFAULT_PAYLOAD_BYTES, MAX_DSCP};

/// The length of a packet with its IP header.
const LENGTH: &str = "probe.length.bytes";
/// How many hops a packet may go.
const TTL: &str = "probe.ttl";
/// The differentiated services code point.
const DSCP: &str = "probe.dscp";
/// The longest IP packet (RFC 791): its length is a number of 16 bits.
const MAX_LENGTH_BYTES: usize = 65_535;

/// Hops unless chosen (RFC 1700, "IP time to live parameter").
const DEFAULT_TTL: u8 = 64;

/// Whether parameters have a single value or a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// One value each, which need not be written.
    Fixed,
    /// The client chooses.
    Custom,
}

impl Choice {
    /// Returns the label of a capability.
    pub(super) fn label(self, name: &str, suffix: &str) -> String {
        match self {
            Self::Fixed => format!("{name}-{suffix}"),
            Self::Custom => format!("{name}-custom-{suffix}"),
        }
    }

    /// Writes a constraint.
    pub(super) fn constraint(self, single: u64, range: RangeInclusive<u64>) -> String {
        match self {
            Self::Fixed => single.to_string(),
            Self::Custom => format!("{} ... {}", range.start(), range.end()),
        }
    }
}

/// What probe packets of a measurement are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    /// Bytes behind the ICMP header.
    pub(super) payload_bytes: usize,
    /// Hops they may go.
    pub(super) ttl: u8,
    /// Their code point.
    pub(super) dscp: u8,
}

impl Probe {
    /// Adds the parameters to a statement. Packets are long enough for so many bytes behind
    /// the ICMP header.
    pub(super) fn declare(
        statement: Statement,
        family: Family,
        choice: Choice,
        least_payload_bytes: usize,
        registries: &Registries,
    ) -> Result<Statement, BuildError> {
        let headers = header_bytes(family);
        let length = choice.constraint(
            natural(headers + DEFAULT_PAYLOAD_BYTES),
            natural(headers + least_payload_bytes)..=natural(MAX_LENGTH_BYTES),
        );
        let ttl = choice.constraint(DEFAULT_TTL.into(), 1..=u8::MAX.into());
        let dscp = choice.constraint(0, 0..=MAX_DSCP.into());
        statement
            .parameter(registries, LENGTH, &length)?
            .parameter(registries, TTL, &ttl)?
            .parameter(registries, DSCP, &dscp)
    }

    /// Reads the parameters of a specification.
    pub(super) fn of(
        specification: &Specification,
        family: Family,
    ) -> Result<Self, RunError> {
        let length = number::<usize>(specification, LENGTH)?;
        let payload = length.checked_sub(header_bytes(family));
        Ok(Self {
            payload_bytes: payload
                .ok_or_else(|| RunError(format!("{LENGTH} {length} has no room")))?,
            ttl: number(specification, TTL)?,
            dscp: number(specification, DSCP)?,
        })
    }
}

/// Returns a number in a parameter of a specification.
pub(super) fn number<T: TryFrom<u64>>(
    specification: &Specification,
    name: &str,
) -> Result<T, RunError> {
    match specification.value(name) {
        Some(Value::Natural(number)) => T::try_from(*number)
            .map_err(|_| RunError(format!("{name} {number} is too large"))),
        _ => Err(RunError(format!("{name} has no value"))),
    }
}

/// Returns how long the headers of IP and ICMP are.
const fn header_bytes(family: Family) -> usize {
    match family {
        Family::V4 => 20 + 8,
        Family::V6 => 40 + 8,
    }
}

/// Returns a length as elements have it.
fn natural(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
