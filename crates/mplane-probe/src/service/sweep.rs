//! Ping sweep: a row for each of very many destinations.
//!
//! Destinations are hosts and networks, up to 65,536 addresses together. Delays are whole
//! microseconds; a target that does not answer has a row without them. An interrupted sweep
//! has rows for the targets that were asked.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mplane::address::Address;
use mplane::message::{BuildError, Capability, Specification, Statement};
use mplane::primitive::Value;
use mplane::registry::{PLATFORM, Registries};
use mplane_runtime::service::{Completed, Run, RunError, Service, Work};

use super::metadata::Metadata;
use super::probe::{Choice, Probe, number};
use super::{OPEN_SCOPE, Stamps, address, suffix};
use crate::packet::Family;
use crate::ping::{Summary, whole_microseconds};
use crate::sweep::{
    COOKIE_BYTES, INTERVAL, MAX_COUNT, SweepOptions, TargetReport, Targets, run,
};

/// The parameter for the number of packets to each destination.
const COUNT: &str = "probe.count";

/// The parameter for the number of packets a second.
const RATE: &str = "probe.rate";

/// How long sending may take where the temporal scope is one instant: the rest of the time
/// that a service has beyond its scope is for replies.
const INSTANT: Duration = Duration::from_secs(1);

/// A sweep service: one capability.
struct Sweep {
    capability: Capability,
    family: Family,
    metadata: Metadata,
    _stamps: Stamps,
}

/// Makes the services of one family that send from an address, at `rate` packets a second
/// at most.
pub(super) fn services(
    source: IpAddr,
    rate: u32,
    stamps: &Stamps,
    registries: &Registries,
) -> Result<[Arc<dyn Service>; 2], BuildError> {
    let make =
        |choice| Sweep::new(choice, source, rate, stamps, registries).map(Arc::new);
    Ok([make(Choice::Fixed)?, make(Choice::Custom)?])
}

impl Sweep {
    /// Makes a service.
    fn new(
        choice: Choice,
        source: IpAddr,
        rate: u32,
        stamps: &Stamps,
        registries: &Registries,
    ) -> Result<Self, BuildError> {
        let family = Family::of(source);
        let suffix = suffix(family);
        let scope = OPEN_SCOPE.parse().expect("the scope is a constant");
        let destination = format!("destination.{suffix}");
        let statement = Statement::new("measure", PLATFORM, scope)
            .labelled(choice.label("ping-sweep", suffix))
            .parameter(registries, &format!("source.{suffix}"), &source.to_string())?
            .parameter(registries, &destination, "[*]")?;
        let count = choice.constraint(1, 1..=MAX_COUNT.into());
        let rate = choice.constraint(rate.into(), 1..=rate.into());
        let mut statement =
            Probe::declare(statement, family, choice, COOKIE_BYTES, registries)?
                .parameter(registries, COUNT, &count)?
                .parameter(registries, RATE, &rate)?;
        for column in [
            destination.as_str(),
            "packets.sent",
            "packets.received",
            "packets.lost",
            "packets.unsent",
            "delay.twoway.icmp.us.min",
            "delay.twoway.icmp.us.mean",
            "delay.twoway.icmp.us.max",
            "probe.problem",
        ] {
            statement = statement.column(registries, column)?;
        }
        Ok(Self {
            capability: Capability::new(statement),
            family,
            metadata: Metadata::new(PLATFORM, registries)?,
            _stamps: stamps.clone(),
        })
    }

    /// Measures, and pushes rows.
    async fn measure(&self, work: Work) -> Result<Completed, RunError> {
        let options = options(&work.specification, self.family, work.duration)?;
        let report = run(options, work.stop.clone())
            .await
            .map_err(|error| RunError(mplane_runtime::report(&error)))?;
        for target in &report.targets {
            work.rows.push(row(target))?;
        }
        let stamps = Summary {
            kernel_stamped: report.kernel_stamped,
            user_stamped: report.user_stamped,
            ..Summary::default()
        };
        Ok(Completed { metadata: self.metadata.of(&stamps, report.socket) })
    }
}

impl Service for Sweep {
    fn capability(&self) -> Capability {
        self.capability.clone()
    }

    fn run(&self, work: Work) -> Run<'_> {
        Box::pin(self.measure(work))
    }
}

/// Returns what a specification asks for, if that fits into its scope.
fn options(
    specification: &Specification,
    family: Family,
    duration: Option<Duration>,
) -> Result<SweepOptions, RunError> {
    let suffix = suffix(family);
    let destination = format!("destination.{suffix}");
    let value = specification.value(&destination);
    let value = value.ok_or_else(|| RunError(format!("{destination} has no value")))?;
    let targets = Targets::new(family, value.members().iter().filter_map(as_address))
        .map_err(|error| RunError(format!("{destination}: {error}")))?;
    let count: u8 = number(specification, COUNT)?;
    let rate: u32 = number(specification, RATE)?;
    let needed = time_needed(targets.len(), count, rate);
    let given = duration.map(|duration| duration.max(INSTANT));
    if let Some(given) = given.filter(|given| *given < needed) {
        return Err(RunError(format!(
            "{} targets, {count} times, at {rate} packets a second take {:.1} s, and the \
             temporal scope allows {:.1} s: choose a longer one, or fewer targets",
            targets.len(),
            needed.as_secs_f64(),
            given.as_secs_f64(),
        )));
    }
    let probe = Probe::of(specification, family)?;
    Ok(SweepOptions {
        source: Some(address(specification, &format!("source.{suffix}"))?),
        count,
        rate,
        end: given,
        payload_bytes: probe.payload_bytes,
        ttl: Some(probe.ttl),
        dscp: probe.dscp,
        ..SweepOptions::new(targets)
    })
}

/// Returns how long sending takes: rounds are [`INTERVAL`] apart at least.
fn time_needed(targets: usize, count: u8, rate: u32) -> Duration {
    let packets = u32::try_from(targets).unwrap_or(u32::MAX);
    let round = Duration::from_secs(1) * packets / rate.max(1);
    round.max(INTERVAL) * u32::from(count.saturating_sub(1)) + round
}

/// Returns the address that a value is.
fn as_address(value: &Value) -> Option<&Address> {
    match value {
        Value::Address(address) => Some(address),
        _ => None,
    }
}

/// Returns the row of a target.
fn row(target: &TargetReport) -> [Option<Value>; 9] {
    let count = |count: u32| Some(Value::Natural(count.into()));
    let delay = |delay: Option<Duration>| {
        delay.map(|delay| Value::Natural(whole_microseconds(delay)))
    };
    [
        Some(Value::Address(target.address.into())),
        count(target.sent),
        count(target.received),
        count(target.lost),
        count(target.unsent),
        delay(target.min),
        delay(target.mean),
        delay(target.max),
        target.problem.map(|problem| Value::String(problem.to_string().into())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Obstacle;
    use crate::ping::EchoError;

    /// The short specification of a component with a rate of 10,000.
    fn short(destinations: &str) -> Specification {
        let registries = Registries::embedded();
        let source = "192.0.2.1".parse().expect("an address");
        let stamps = Stamps { _socket: None };
        let sweep = Sweep::new(Choice::Fixed, source, 10_000, &stamps, &registries);
        let sweep = sweep.expect("all elements are there");
        let mut specification = Specification::of(&sweep.capability());
        specification.set_parameter("destination.ip4", destinations).expect("addresses");
        assert_eq!(specification.missing().count(), 0);
        specification
    }

    #[test]
    fn a_short_specification_needs_destinations_only() {
        let specification = short("192.0.2.7 10.0.0.0/16");
        let error = options(&specification, Family::V4, None).expect_err("one too many");
        assert_eq!(
            error.to_string(),
            "destination.ip4: these are more than 65536 addresses: give fewer, or smaller \
             networks"
        );
        let specification = short("10.0.0.0/16");
        let options =
            options(&specification, Family::V4, None).expect("as many as can be");
        assert_eq!((options.targets.len(), options.count), (65_536, 1));
        assert_eq!(
            (options.rate, options.payload_bytes, options.end),
            (10_000, 56, None)
        );
    }

    #[test]
    fn a_scope_that_is_too_short_is_refused_with_what_is_needed() {
        let specification = short("10.0.0.0/16");
        let of = |seconds| {
            let duration = Some(Duration::from_secs(seconds));
            options(&specification, Family::V4, duration)
                .map_err(|error| error.to_string())
        };
        let expected = "65536 targets, 1 times, at 10000 packets a second take 6.6 s, and \
                        the temporal scope allows 6.0 s: choose a longer one, or fewer \
                        targets";
        assert_eq!(of(6).map(|options| options.rate), Err(expected.into()));
        assert_eq!(of(7).map(|options| options.rate), Ok(10_000));
        // An instant is enough for what takes a second.
        let instant = Some(Duration::ZERO);
        let some = short("10.0.0.0/19");
        let options = options(&some, Family::V4, instant).expect("8,192 targets");
        assert_eq!(options.end, Some(INSTANT));
        assert_eq!(time_needed(1, 5, 10), Duration::from_millis(4_100));
        assert_eq!(time_needed(40, 2, 10), Duration::from_secs(8));
    }

    #[test]
    fn the_row_of_a_silent_target_has_no_delays() {
        let problem = EchoError::NotSent(Obstacle::InterfaceDown);
        let silent = TargetReport {
            address: "192.0.2.7".parse().expect("an address"),
            sent: 2,
            received: 0,
            lost: 2,
            unsent: 1,
            min: None,
            mean: None,
            max: None,
            problem: Some(problem),
        };
        let texts = row(&silent).map(|value| value.map(|value| value.to_string()));
        let texts = texts.each_ref().map(|text| text.as_deref().unwrap_or("*"));
        let problem = "not sent: network interface is down";
        assert_eq!(texts, ["192.0.2.7", "2", "0", "2", "1", "*", "*", "*", problem]);
    }
}
