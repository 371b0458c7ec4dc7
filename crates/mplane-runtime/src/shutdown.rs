//! The signals that end a program, or have it read its configuration again.

use std::io;
use std::sync::{Arc, OnceLock};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// Which signal has ended the program, if any.
#[derive(Clone, Debug, Default)]
pub struct Received(Arc<OnceLock<i32>>);

impl Received {
    /// Returns the number of the signal.
    pub fn number(&self) -> Option<i32> {
        self.0.get().copied()
    }
}

/// What SIGHUP asks of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HangUp {
    /// To end: its terminal is gone.
    Ends,
    /// To read its configuration again.
    Reloads,
}

/// Requests to read the configuration again.
#[derive(Debug)]
pub struct Reloads(Signal);

impl Reloads {
    /// Listens for SIGHUP from now on.
    pub fn listen() -> Result<Self, InstallHandlerError> {
        signal(SignalKind::hangup()).map(Self).map_err(InstallHandlerError)
    }

    /// Waits for the next request.
    pub async fn next(&mut self) {
        arrival(&mut self.0).await;
    }
}

/// Cancels the token when the process is asked to end by SIGINT or SIGTERM, or by SIGHUP
/// if that ends it.
///
/// The handlers are installed at once: the first process of a container (pid 1) would
/// otherwise ignore the signals. A second signal ends nothing faster: what is left to do
/// takes seconds at most.
pub fn on_signal(
    shutdown: CancellationToken,
    hang_up: HangUp,
) -> Result<Received, InstallHandlerError> {
    let install = |kind: SignalKind| signal(kind).map_err(InstallHandlerError);
    let (int, term, hup) =
        (SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup());
    let mut interrupt = install(int)?;
    let mut terminate = install(term)?;
    let ends = hang_up == HangUp::Ends;
    let mut hang_up = ends.then(|| install(hup)).transpose()?;
    let received = Received::default();
    let note = received.clone();
    tokio::spawn(async move {
        let kind = tokio::select! {
            () = arrival(&mut interrupt) => int,
            () = arrival(&mut terminate) => term,
            () = async {
                match &mut hang_up {
                    Some(hang_up) => arrival(hang_up).await,
                    None => std::future::pending().await,
                }
            } => hup,
        };
        info!(signal = kind.as_raw_value(), "shutting down");
        note.0.get_or_init(|| kind.as_raw_value());
        shutdown.cancel();
    });
    Ok(received)
}

/// Waits for a signal.
async fn arrival(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// A signal handler that cannot be installed.
#[derive(Debug, thiserror::Error)]
#[error("cannot install a signal handler")]
pub struct InstallHandlerError(#[source] io::Error);
