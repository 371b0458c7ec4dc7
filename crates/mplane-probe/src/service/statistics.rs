//! Ping statistics: one row that says all about echo to one destination.
//!
//! Delays are whole microseconds, their standard deviation and jitter real ones. Without
//! replies there are counts and no delays. An interrupted run has the row so far; requests
//! whose fate is unknown then are neither received nor lost.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use mplane::message::{BuildError, Capability, Specification, Statement};
use mplane::primitive::{Real, Value};
use mplane::registry::{PLATFORM, Registries};
use mplane_runtime::service::{Completed, Run, RunError, Service, Work};

use super::metadata::Metadata;
use super::probe::{Choice, Probe, number};
use super::{OPEN_SCOPE, Stamps, address, end, suffix};
use crate::packet::{Family, NONCE_BYTES};
use crate::ping::{PingOptions, PingReport, run, whole_microseconds};

/// How long duplicates of the last reply are waited for. Copies made on the way follow
/// each other within milliseconds.
const LINGER: Duration = Duration::from_millis(100);

/// The parameter for the time between two packets, in microseconds.
const INTERVAL: &str = "probe.interval.us";

/// Time between packets unless chosen: ten a second, 7 kbit/s.
const DEFAULT_INTERVAL_US: u64 = 100_000;

/// Times between packets that may be chosen: timers tick at 1 ms.
const INTERVALS_US: RangeInclusive<u64> = 1_000..=3_600_000_000;

/// The result columns, in the order of [`row`].
const COLUMNS: [&str; 20] = [
    "packets.sent",
    "packets.received",
    "packets.lost",
    "packets.lost.run.max",
    "packets.duplicate",
    "packets.outoforder",
    "packets.late",
    "packets.forged",
    "packets.unsent",
    "delay.twoway.icmp.us.min",
    "delay.twoway.icmp.us.mean",
    "delay.twoway.icmp.us.25pct",
    "delay.twoway.icmp.us.50pct",
    "delay.twoway.icmp.us.75pct",
    "delay.twoway.icmp.us.95pct",
    "delay.twoway.icmp.us.99pct",
    "delay.twoway.icmp.us.max",
    "delay.twoway.icmp.us.stddev",
    "delay.twoway.icmp.us.jitter",
    "probe.problem",
];

/// A statistics service: one capability.
struct Statistics {
    capability: Capability,
    family: Family,
    metadata: Metadata,
    _stamps: Stamps,
}

/// Makes the services of one family that send from an address.
pub(super) fn services(
    source: IpAddr,
    stamps: &Stamps,
    registries: &Registries,
) -> Result<[Arc<dyn Service>; 2], BuildError> {
    let make = |choice| Statistics::new(choice, source, stamps, registries).map(Arc::new);
    Ok([make(Choice::Fixed)?, make(Choice::Custom)?])
}

impl Statistics {
    /// Makes a service.
    fn new(
        choice: Choice,
        source: IpAddr,
        stamps: &Stamps,
        registries: &Registries,
    ) -> Result<Self, BuildError> {
        let family = Family::of(source);
        let suffix = suffix(family);
        let scope = OPEN_SCOPE.parse().expect("the scope is a constant");
        let statement = Statement::new("measure", PLATFORM, scope)
            .labelled(choice.label("ping-statistics", suffix))
            .parameter(registries, &format!("source.{suffix}"), &source.to_string())?
            .parameter(registries, &format!("destination.{suffix}"), "*")?;
        let interval = choice.constraint(DEFAULT_INTERVAL_US, INTERVALS_US);
        let mut statement =
            Probe::declare(statement, family, choice, NONCE_BYTES, registries)?
                .parameter(registries, INTERVAL, &interval)?;
        for column in COLUMNS {
            statement = statement.column(registries, column)?;
        }
        Ok(Self {
            capability: Capability::new(statement),
            family,
            metadata: Metadata::new(PLATFORM, registries)?,
            _stamps: stamps.clone(),
        })
    }

    /// Measures, and pushes the row.
    async fn measure(&self, work: Work) -> Result<Completed, RunError> {
        let suffix = suffix(self.family);
        let specification = &work.specification;
        let destination = address(specification, &format!("destination.{suffix}"))?;
        let source = address(specification, &format!("source.{suffix}"))?;
        let probe = Probe::of(specification, self.family)?;
        let options = PingOptions {
            source: Some(source),
            payload_bytes: probe.payload_bytes,
            ttl: Some(probe.ttl),
            dscp: probe.dscp,
            linger: LINGER,
            ..PingOptions::new(destination, interval(specification)?, end(&work))
        };
        let report = run(options, |_| {}, work.stop.clone())
            .await
            .map_err(|error| RunError(mplane_runtime::report(&error)))?;
        work.rows.push(row(&report))?;
        Ok(Completed { metadata: self.metadata.of(&report.summary, report.socket) })
    }
}

impl Service for Statistics {
    fn capability(&self) -> Capability {
        self.capability.clone()
    }

    fn run(&self, work: Work) -> Run<'_> {
        Box::pin(self.measure(work))
    }
}

/// Returns the time between packets: that of the parameter, or the period of the scope if
/// it is longer, as where a component demands one.
fn interval(specification: &Specification) -> Result<Duration, RunError> {
    let interval = Duration::from_micros(number(specification, INTERVAL)?);
    Ok(interval.max(specification.when().period().unwrap_or_default()))
}

/// Returns the row of a run, in the order of [`COLUMNS`].
fn row(report: &PingReport) -> [Option<Value>; COLUMNS.len()] {
    let PingReport { summary, strays, .. } = report;
    let count = |count: u64| Some(Value::Natural(count));
    let delays = summary.delays.as_ref();
    let whole = |delay: Duration| Value::Natural(whole_microseconds(delay));
    let [p25, p75, p95, p99] = match delays {
        Some(delays) => delays.percentiles.map(|delay| Some(whole(delay))),
        None => [const { None }; 4],
    };
    [
        count(summary.sent),
        count(summary.received),
        count(summary.lost),
        count(summary.longest_loss_run),
        count(strays.duplicates),
        count(strays.reordered),
        count(strays.late),
        count(strays.forged),
        count(summary.not_sent),
        delays.map(|delays| whole(delays.min)),
        delays.map(|delays| whole(delays.mean)),
        p25,
        delays.map(|delays| whole(delays.median)),
        p75,
        p95,
        p99,
        delays.map(|delays| whole(delays.max)),
        delays.and_then(|delays| delays.deviation).map(real_microseconds),
        report.jitter.map(real_microseconds),
        report.problem.map(|problem| Value::String(problem.to_string().into())),
    ]
}

/// Returns a time in microseconds.
fn real_microseconds(time: Duration) -> Value {
    Value::Real(Real(time.as_secs_f64() * 1e6))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Problem;
    use crate::ping::{Delays, EchoError, Strays, Summary};
    use crate::socket::SocketKind;

    /// The capability of a source.
    fn capability(choice: Choice, source: &str) -> Capability {
        let registries = Registries::embedded();
        let source = source.parse().expect("an address");
        let stamps = Stamps { _socket: None };
        Statistics::new(choice, source, &stamps, &registries)
            .expect("all elements are there")
            .capability()
    }

    #[test]
    fn a_short_specification_needs_a_destination_only() {
        for (source, element) in
            [("192.0.2.1", "destination.ip4"), ("2001:db8::1", "destination.ip6")]
        {
            let short = Specification::of(&capability(Choice::Fixed, source));
            assert_eq!(short.missing().collect::<Vec<_>>(), [element]);
        }
        let short = Specification::of(&capability(Choice::Fixed, "192.0.2.1"));
        let probe = Probe::of(&short, Family::V4).expect("values");
        assert_eq!((probe.payload_bytes, probe.ttl, probe.dscp), (56, 64, 0));
        assert_eq!(interval(&short), Ok(Duration::from_millis(100)));
    }

    #[test]
    fn a_custom_specification_chooses_within_bounds() {
        let mut custom = Specification::of(&capability(Choice::Custom, "2001:db8::1"));
        assert_eq!(custom.missing().count(), 5);
        for (name, good, bad) in [
            ("probe.length.bytes", "56", "55"),
            ("probe.ttl", "255", "0"),
            ("probe.dscp", "46", "64"),
            ("probe.interval.us", "1000", "999"),
        ] {
            assert!(custom.set_parameter(name, bad).is_err(), "{name} {bad}");
            custom.set_parameter(name, good).expect("within bounds");
        }
        let probe = Probe::of(&custom, Family::V6).expect("values");
        assert_eq!((probe.payload_bytes, probe.ttl, probe.dscp), (8, 255, 46));
        // The period of a scope holds if it is longer.
        custom.set_when("now + 10s / 2s".parse().expect("a scope"));
        assert_eq!(interval(&custom), Ok(Duration::from_secs(2)));
    }

    /// A report of nothing received.
    fn silence() -> PingReport {
        PingReport {
            summary: Summary {
                sent: 3,
                lost: 3,
                longest_loss_run: 3,
                ..Summary::default()
            },
            socket: SocketKind::Raw,
            strays: Strays::default(),
            jitter: None,
            problem: None,
            skipped: 0,
        }
    }

    /// The cells of a row that are not empty.
    fn cells(report: &PingReport) -> Vec<(&'static str, String)> {
        let row = COLUMNS.into_iter().zip(row(report));
        row.filter_map(|(name, value)| Some((name, value?.to_string()))).collect()
    }

    #[test]
    fn a_row_without_replies_has_counts_and_no_delays() {
        let cells = cells(&silence());
        assert_eq!(cells.len(), 9);
        for (name, value) in cells {
            let is_loss = ["packets.sent", "packets.lost", "packets.lost.run.max"];
            let expected = if is_loss.contains(&name) { "3" } else { "0" };
            assert_eq!(value, expected, "{name}");
        }
    }

    #[test]
    fn every_figure_stands_in_its_column() {
        let us = Duration::from_micros;
        let problem = Problem::HostUnreachable;
        let report = PingReport {
            summary: Summary {
                sent: 10,
                received: 7,
                lost: 2,
                longest_loss_run: 1,
                not_sent: 4,
                delays: Some(Delays {
                    min: us(11),
                    mean: us(12),
                    median: us(14),
                    max: us(18),
                    percentiles: [us(13), us(15), us(16), us(17)],
                    deviation: Some(Duration::from_nanos(1500)),
                }),
                ..Summary::default()
            },
            strays: Strays { duplicates: 21, late: 22, reordered: 23, forged: 24 },
            jitter: Some(Duration::from_nanos(2250)),
            problem: Some(EchoError::Reported { from: None, problem }),
            ..silence()
        };
        let expected = [
            "10", "7", "2", "1", "21", "23", "22", "24", "4", "11", "12", "13", "14",
            "15", "16", "17", "18", "1.5", "2.25",
        ];
        let texts: Vec<_> = cells(&report).into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts[..19], expected);
        assert_eq!(texts[19], problem.to_string());
        assert_eq!(texts.len(), COLUMNS.len());
    }
}
