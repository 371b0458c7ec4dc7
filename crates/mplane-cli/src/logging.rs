//! Logs: structured events on standard error, as text or JSON.

use std::io;

use clap::{Args, ValueEnum};
use tracing::Subscriber;
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// How a program logs.
#[derive(Args, Clone, Debug)]
pub struct LogArgs {
    /// What to log: error, warn, info, debug or trace, also by module, such as
    /// `info,mplane::exchange=debug` to see every message on its way
    #[arg(long, value_name = "FILTER", global = true)]
    log: Option<String>,
    /// How to write logs
    #[arg(long, value_name = "FORMAT", default_value = "text", global = true)]
    log_format: LogFormat,
}

/// How log events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object for each event.
    Json,
}

impl LogArgs {
    /// Starts logging, with `default` as the filter if none was given.
    pub fn start(&self, default: &str) -> Result<(), StartLogError> {
        self.start_with(default, tracing_subscriber::layer::Identity::new())
    }

    /// Starts logging, and hands all events to another layer too.
    pub fn start_with<L>(&self, default: &str, other: L) -> Result<(), StartLogError>
    where
        L: Layer<tracing_subscriber::Registry> + Send + Sync + 'static,
    {
        let filter = EnvFilter::try_new(self.log.as_deref().unwrap_or(default))?;
        tracing_subscriber::registry()
            .with(other)
            .with(self.layer().with_filter(filter))
            .try_init()
            .map_err(StartLogError::Init)
    }

    /// Makes the layer that writes.
    fn layer<S>(&self) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(false)
            .log_internal_errors(false);
        match self.log_format {
            LogFormat::Text => layer.boxed(),
            LogFormat::Json => layer.json().flatten_event(true).boxed(),
        }
    }
}

/// Logging that cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartLogError {
    /// The filter is none.
    #[error("the filter of --log cannot be understood; write a level such as info")]
    Filter(#[from] ParseError),
    /// It was started before.
    #[error("logging has been started before")]
    Init(#[source] TryInitError),
}
