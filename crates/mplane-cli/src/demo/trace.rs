//! The way each message went: exchanges over HTTPS as the programs log them.

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mplane_runtime::http::client::EXCHANGE;
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter, Layer};
use tracing_subscriber::registry::LookupSpan;

use crate::output::{counted, table};

/// Exchanges kept: a demo has dozens.
const EXCHANGES: usize = 10_000;

/// Collects exchanges from the log.
#[derive(Clone, Debug)]
pub(super) struct Trace {
    started: Instant,
    exchanges: Arc<Mutex<Vec<Exchange>>>,
}

/// One request and its answer.
#[derive(Clone, Debug, Default)]
struct Exchange {
    /// When the request was sent, since the start.
    at: Duration,
    from: String,
    to: String,
    method: String,
    path: String,
    sends: String,
    gets: String,
    error: String,
    status: u64,
    took_us: u64,
}

impl Trace {
    /// Starts with nothing.
    pub(super) fn new(started: Instant) -> Self {
        Self { started, exchanges: Arc::default() }
    }

    /// Returns the layer of the log that collects.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        Collect(self.clone()).with_filter(Exchanges)
    }

    /// Shows what was collected, in the order of sending. Polls that brought nothing are
    /// counted, not listed.
    pub(super) fn show(&self) -> String {
        let mut exchanges =
            self.exchanges.lock().unwrap_or_else(PoisonError::into_inner).clone();
        exchanges.sort_by_key(|exchange| exchange.at);
        let (polls, exchanges): (Vec<_>, Vec<_>) =
            exchanges.into_iter().partition(Exchange::is_idle_poll);
        let rows = exchanges.iter().map(|exchange| {
            [
                format!("{:+.3} s", exchange.at.as_secs_f64()),
                format!("{} -> {}", short(&exchange.from), short(&exchange.to)),
                format!("{} {}", exchange.method, exchange.path),
                exchange.sends.clone(),
                if exchange.error.is_empty() {
                    format!("{} {}", exchange.status, exchange.gets)
                } else {
                    format!("failed: {}", exchange.error)
                },
                format!(
                    "{:.1} ms",
                    Duration::from_micros(exchange.took_us).as_secs_f64() * 1e3
                ),
            ]
        });
        let header = ["sent at", "from -> to", "request", "sends", "gets", "took"];
        let mut text = table(&header, rows);
        if !polls.is_empty() {
            let polls = counted(polls.len(), "request", "requests");
            write!(text, "\n{polls} that brought nothing new not shown")
                .expect("writing to text does not fail");
        }
        text
    }
}

impl Exchange {
    /// Says whether this was a request that brought nothing.
    fn is_idle_poll(&self) -> bool {
        self.error.is_empty()
            && (self.gets == "empty envelope"
                || (self.sends.starts_with("redemption")
                    && self.gets.starts_with("receipt")))
    }
}

/// Returns the last part of an identity.
fn short(identity: &str) -> &str {
    if identity.starts_with("https://") {
        return identity;
    }
    identity.rsplit('.').next().unwrap_or(identity)
}

/// Lets exchanges through, and nothing else.
struct Exchanges;

impl<S> Filter<S> for Exchanges {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        metadata.target() == EXCHANGE
    }
}

/// The layer that collects.
struct Collect(Trace);

impl<S: Subscriber> Layer<S> for Collect {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut exchange = Exchange::default();
        event.record(&mut exchange);
        let took = Duration::from_micros(exchange.took_us);
        exchange.at = self.0.started.elapsed().saturating_sub(took);
        let mut known = self.0.exchanges.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < EXCHANGES {
            known.push(exchange);
        }
    }
}

impl Visit for Exchange {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "status" => self.status = value,
            "took_us" => self.took_us = value,
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let place = match field.name() {
            "from" => &mut self.from,
            "to" => &mut self.to,
            "method" => &mut self.method,
            "path" => &mut self.path,
            "sends" => &mut self.sends,
            "gets" => &mut self.gets,
            "error" => &mut self.error,
            _ => return,
        };
        value.clone_into(place);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}
