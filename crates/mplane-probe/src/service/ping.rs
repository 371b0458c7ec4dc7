//! Ping: ICMP echo to one destination, each packet or their aggregate.
//!
//! Columns are the reference's: `time` is when the request was sent (UTC), delays are
//! whole microseconds. A lost packet is a row without delay; an aggregate without replies
//! has a count of 0 and no delays.

use std::net::IpAddr;
use std::sync::Arc;

use mplane::message::{BuildError, Capability, Statement};
use mplane::primitive::Value;
use mplane::registry::{Element, Registries};
use mplane::when::Instant;
use mplane_runtime::service::{Completed, Run, RunError, Service, Work};

use super::{SCOPE, address, pace, push};
use crate::packet::Family;
use crate::ping::{Echo, Outcome, PingOptions, PingReport, run, whole_microseconds};
use crate::socket::EchoSocket;

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
    /// The kernel switches time stamps on a while after the first socket has asked for
    /// them. This one asks as long as the service is there, so that the first packet of
    /// a run has its stamp.
    _stamps: Option<EchoSocket>,
}

/// The elements that say how a result came about.
#[derive(Clone)]
struct Metadata {
    timestamp_source: Arc<Element>,
    socket_kind: Arc<Element>,
}

/// Makes the services of one family that send from an address.
pub(super) fn services(
    source: IpAddr,
    registries: &Registries,
) -> Result<[Arc<dyn Service>; 2], BuildError> {
    Ok([
        Arc::new(Ping::new(Content::Average, source, registries)?),
        Arc::new(Ping::new(Content::Detail, source, registries)?),
    ])
}

impl Ping {
    /// Makes a service.
    fn new(
        content: Content,
        source: IpAddr,
        registries: &Registries,
    ) -> Result<Self, BuildError> {
        let family = Family::of(source);
        let suffix = match family {
            Family::V4 => "ip4",
            Family::V6 => "ip6",
        };
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
        let element = |name| {
            let core = mplane::registry::CORE;
            registries.element(core, name).map(Arc::clone).map_err(BuildError::from)
        };
        let metadata = Metadata {
            timestamp_source: element("timestamp.source")?,
            socket_kind: element("socket.kind")?,
        };
        Ok(Self {
            capability: Capability::new(statement),
            content,
            family,
            metadata,
            _stamps: EchoSocket::open(family, None).ok(),
        })
    }

    /// Measures, and pushes rows.
    async fn measure(&self, work: Work) -> Result<Completed, RunError> {
        let suffix = match self.family {
            Family::V4 => "ip4",
            Family::V6 => "ip6",
        };
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
        Ok(Completed { metadata: self.metadata.of(&report) })
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

impl Metadata {
    /// Says how the result of a run came about.
    fn of(&self, report: &PingReport) -> Vec<(Arc<Element>, Option<Value>)> {
        let summary = &report.summary;
        let stamps = match (summary.kernel_stamped, summary.user_stamped) {
            (0, 0) => None,
            (_, 0) => Some("kernel"),
            (0, _) => Some("user"),
            _ => Some("mixed"),
        };
        let text = |text: &str| Value::String(text.into());
        vec![
            (Arc::clone(&self.timestamp_source), stamps.map(text)),
            (Arc::clone(&self.socket_kind), Some(text(&report.socket.to_string()))),
        ]
    }
}
