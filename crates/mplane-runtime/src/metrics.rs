//! Metrics and health of a program, on a port of their own.
//!
//! `GET /metrics` answers in the `OpenMetrics` text format, which Prometheus reads, and
//! `GET /healthz` with 200 as long as the program answers at all; `GET /readyz` with 503 and
//! the reason while it cannot do its work. The port speaks plain
//! HTTP and tells nothing but counts: it is meant for the loopback interface.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use http::{StatusCode, header};
use hyper_util::rt::TokioIo;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;
use tracing::{debug, warn};

/// The content type of metrics.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics of a component.
#[derive(Debug, Default)]
pub struct ComponentMetrics {
    /// Specifications accepted.
    pub accepted: Counter,
    /// Messages answered with an exception.
    pub refused: Counter,
    /// Jobs that wait or run.
    pub active: Gauge,
    /// Jobs that have ended, by outcome.
    pub finished: Family<OutcomeLabel, Counter>,
    /// Results posted to a supervisor.
    pub delivered: Counter,
    /// Results given up, because their receiver refused them.
    pub dead_letters: Counter,
    /// Registrations with a supervisor that succeeded.
    pub registrations: Counter,
    /// Writes to the spool that failed.
    pub spool_failures: Counter,
}

/// The label of what became of a job.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// What became of it.
    pub outcome: OutcomeKind,
}

/// What became of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are those of label values")]
pub enum OutcomeKind {
    /// A result, or several.
    result,
    /// An exception.
    exception,
}

impl ComponentMetrics {
    /// Counts a job that has ended.
    pub(crate) fn count_finished(&self, is_result: bool) {
        let outcome =
            if is_result { OutcomeKind::result } else { OutcomeKind::exception };
        self.finished.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// Registers the metrics to be shown.
    pub fn register(&self, registry: &mut Registry) {
        let counters = [
            ("specifications_accepted", "Specifications accepted", &self.accepted),
            ("messages_refused", "Messages answered with an exception", &self.refused),
            ("results_delivered", "Results posted to a supervisor", &self.delivered),
            (
                "results_given_up",
                "Results that their receiver refused",
                &self.dead_letters,
            ),
            ("registrations", "Registrations with a supervisor", &self.registrations),
            ("spool_failures", "Writes to the spool that failed", &self.spool_failures),
        ];
        let registry = registry.sub_registry_with_prefix("mplane_component");
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        registry.register("jobs_active", "Jobs that wait or run", self.active.clone());
        registry.register("jobs_finished", "Jobs that have ended", self.finished.clone());
    }
}

/// Says whether a program can do its work; if not, why.
pub type Ready = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Connections at once to who asks for metrics: a few programs look after one, and they must
/// not take the descriptors of those who measure.
const CONNECTIONS: usize = 64;

/// How long such a connection may last; who asks regularly connects again.
const LONGEST: std::time::Duration = std::time::Duration::from_secs(600);

/// Serves metrics, health and readiness until `shutdown`.
pub async fn serve(
    listener: TcpListener,
    registry: Registry,
    ready: Ready,
    shutdown: CancellationToken,
) {
    let shown = Arc::new(Mutex::new(registry));
    let router = Router::new()
        .route("/metrics", get(show))
        .with_state(shown)
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(tell_ready))
        .with_state(ready);
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            next = next => next,
            () = shutdown.cancelled() => return,
        };
        let (stream, address): (_, SocketAddr) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "cannot accept a connection for metrics");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let (router, shutdown) = (router.clone(), shutdown.clone());
        tokio::spawn(async move {
            let service =
                hyper::service::service_fn(move |request| router.clone().call(request));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(hyper_util::rt::TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    debug!(%address, %error, "a connection for metrics ended early");
                },
                () = tokio::time::sleep(LONGEST) => {}
                () = shutdown.cancelled() => {}
            }
            drop(slot);
        });
    }
}

/// Says whether the program can do its work.
async fn tell_ready(State(ready): State<Ready>) -> (StatusCode, String) {
    match ready() {
        Ok(()) => (StatusCode::OK, "ready\n".into()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
    }
}

/// Shows the metrics.
async fn show(
    State(registry): State<Arc<Mutex<Registry>>>,
) -> (StatusCode, [(header::HeaderName, &'static str); 1], String) {
    let mut text = String::new();
    let registry = registry.lock().unwrap_or_else(PoisonError::into_inner);
    let status = match encode(&mut text, &registry) {
        Ok(()) => StatusCode::OK,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, [(header::CONTENT_TYPE, OPEN_METRICS)], text)
}
