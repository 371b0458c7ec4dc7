//! Ping: ICMP echo to one destination, each packet or their aggregate.
//!
//! Columns are the reference's: `time` is when the request was sent (UTC), delays are
//! whole microseconds. A lost packet is a row without delay; an aggregate without replies
//! has a count of 0 and no delays.

use std::net::IpAddr;
use std::sync::Arc;

use mplane::message::{BuildError, Capability, Statement};
use mplane::primitive::Value;
use mplane::registry::Registries;
use mplane::when::Instant;
use mplane_runtime::service::{Completed, Run, RunError, Service, Work};

use super::metadata::Metadata;
use super::{SCOPE, Stamps, address, pace, push, suffix};
use crate::packet::Family;
use crate::ping::{Echo, Outcome, PingOptions, run, whole_microseconds};

/// What a result contains.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    /// One row: minimum, mean, maximum and count of the delays.
    Average,
    /// A row for each packet.
    Detail,
}

/// A ping service: one capability.
struct Ping {
    capability: Capability,
    content: Content,
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
    let make = |content| Ping::new(content, source, stamps, registries).map(Arc::new);
    Ok([make(Content::Average)?, make(Content::Detail)?])
}

impl Ping {
    /// Makes a service.
    fn new(
        content: Content,
        source: IpAddr,
        stamps: &Stamps,
        registries: &Registries,
    ) -> Result<Self, BuildError> {
        let family = Family::of(source);
        let suffix = suffix(family);
        let (name, columns): (_, &[&str]) = match content {
            Content::Average => (
                "average",
                &[
                    "delay.twoway.icmp.us.min",
                    "delay.twoway.icmp.us.mean",
                    "delay.twoway.icmp.us.max",
                    "delay.twoway.icmp.count",
                ],
            ),
            Content::Detail => ("detail", &["time", "delay.twoway.icmp.us"]),
        };
        let scope = SCOPE.parse().expect("the scope is a constant");
        let mut statement = Statement::measure(scope)
            .labelled(format!("ping-{name}-{suffix}"))
            .parameter(registries, &format!("source.{suffix}"), &source.to_string())?
            .parameter(registries, &format!("destination.{suffix}"), "*")?;
        for column in columns {
            statement = statement.column(registries, column)?;
        }
        Ok(Self {
            capability: Capability::new(statement),
            content,
            family,
            metadata: Metadata::new(mplane::registry::CORE, registries)?,
            _stamps: stamps.clone(),
        })
    }

    /// Measures, and pushes rows.
    async fn measure(&self, work: Work) -> Result<Completed, RunError> {
        let suffix = suffix(self.family);
        let destination = address(&work.specification, &format!("destination.{suffix}"))?;
        let source = address(&work.specification, &format!("source.{suffix}"))?;
        let (period, end) = pace(&work);
        let mut options = PingOptions::new(destination, period, end);
        options.source = Some(source);
        let content = self.content;
        let mut overflow = None;
        let note = |echo: &Echo| {
            // A request whose fate is unknown was neither lost nor answered.
            if content == Content::Average || echo.outcome == Outcome::Pending {
                return;
            }
            let time = Value::Time(Instant::At(echo.sent_utc));
            let delay = echo.rtt().map(|rtt| Value::Natural(whole_microseconds(rtt)));
            push([Some(time), delay], &work, &mut overflow);
        };
        let report = run(options, note, work.stop.clone())
            .await
            .map_err(|error| RunError(mplane_runtime::report(&error)))?;
        overflow.map_or(Ok(()), Err)?;
        if content == Content::Average {
            let delays = report.summary.delays;
            work.rows.push([
                delays.map(|delays| Value::Natural(delays.min_us())),
                delays.map(|delays| Value::Natural(delays.mean_us())),
                delays.map(|delays| Value::Natural(delays.max_us())),
                Some(Value::Natural(report.summary.received)),
            ])?;
        }
        Ok(Completed { metadata: self.metadata.of(&report.summary, report.socket) })
    }
}

impl Service for Ping {
    fn capability(&self) -> Capability {
        self.capability.clone()
    }

    fn run(&self, work: Work) -> Run<'_> {
        Box::pin(self.measure(work))
    }
}
