//! TCP connect: how long handshakes with one port take, a row for each.
//!
//! A refusal is an answer too: it has a delay, and `tcp.connect.outcome` says so. Delays
//! are whole microseconds of the monotonic clock of this process.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mplane::message::{BuildError, Capability, Statement};
use mplane::primitive::Value;
use mplane::registry::{Element, PLATFORM, Registries};
use mplane::when::Instant;
use mplane_runtime::service::{Completed, Run, RunError, Service, Work};

use super::{SCOPE, address, pace, push};
use crate::ping::whole_microseconds;
use crate::tcp::{Attempt, ConnectOptions, ConnectOutcome, run};

/// How long to wait for each connection: shorter than the first repetition of a lost SYN,
/// which would be measured otherwise.
const TIMEOUT: Duration = Duration::from_millis(900);

/// The service `tcp-connect-ip4`.
struct TcpConnect {
    capability: Capability,
    timestamp_source: Arc<Element>,
    socket_kind: Arc<Element>,
}

/// Makes the service that connects from an address.
pub(super) fn service(
    source: IpAddr,
    registries: &Registries,
) -> Result<Arc<dyn Service>, BuildError> {
    let scope = SCOPE.parse().expect("the scope is a constant");
    let statement = Statement::new("measure", PLATFORM, scope)
        .labelled("tcp-connect-ip4")
        .parameter(registries, "source.ip4", &source.to_string())?
        .parameter(registries, "destination.ip4", "*")?
        .parameter(registries, "destination.port", "1 ... 65535")?
        .column(registries, "time")?
        .column(registries, "delay.twoway.tcp.connect.us")?
        .column(registries, "tcp.connect.outcome")?;
    let element = |name| registries.element(PLATFORM, name).map(Arc::clone);
    Ok(Arc::new(TcpConnect {
        capability: Capability::new(statement),
        timestamp_source: element("timestamp.source")?,
        socket_kind: element("socket.kind")?,
    }))
}

impl TcpConnect {
    /// Measures, and pushes rows.
    async fn measure(&self, work: Work) -> Result<Completed, RunError> {
        let destination = address(&work.specification, "destination.ip4")?;
        let source = address(&work.specification, "source.ip4")?;
        let port = match work.specification.value("destination.port") {
            Some(Value::Natural(port)) => u16::try_from(*port).ok(),
            _ => None,
        }
        .ok_or_else(|| RunError("destination.port is no port".into()))?;
        let (period, end) = pace(&work);
        let options = ConnectOptions {
            destination: SocketAddr::new(destination, port),
            source: Some(source),
            period,
            end,
            timeout: TIMEOUT,
        };
        let mut overflow = None;
        let note = |attempt: &Attempt| {
            let outcome = match attempt.outcome {
                ConnectOutcome::Pending => return,
                ConnectOutcome::Connected { .. } => "connected",
                ConnectOutcome::Refused { .. } => "refused",
                ConnectOutcome::Timeout => "timeout",
                ConnectOutcome::Unreachable(_) => "unreachable",
            };
            let row = [
                Some(Value::Time(Instant::At(attempt.sent_utc))),
                attempt.delay().map(|delay| Value::Natural(whole_microseconds(delay))),
                Some(Value::String(outcome.into())),
            ];
            push(row, &work, &mut overflow);
        };
        run(options, note, work.stop.clone())
            .await
            .map_err(|error| RunError(mplane_runtime::report(&error)))?;
        overflow.map_or(Ok(()), Err)?;
        let text = |text: &str| Some(Value::String(text.into()));
        Ok(Completed {
            metadata: vec![
                (Arc::clone(&self.timestamp_source), text("user")),
                (Arc::clone(&self.socket_kind), text("stream")),
            ],
        })
    }
}

impl Service for TcpConnect {
    fn capability(&self) -> Capability {
        self.capability.clone()
    }

    fn run(&self, work: Work) -> Run<'_> {
        Box::pin(self.measure(work))
    }
}
