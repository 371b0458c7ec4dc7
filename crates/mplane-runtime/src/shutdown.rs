//! The signals that end a program.

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

/// Cancels the token when the process is asked to end by SIGINT, SIGTERM or SIGHUP.
///
/// The handlers are installed at once: the first process of a container (pid 1) would
/// otherwise ignore the signals. A second signal ends nothing faster: what is left to do
/// takes seconds at most.
pub fn on_signal(shutdown: CancellationToken) -> Result<Received, InstallHandlerError> {
    let install = |kind: SignalKind| signal(kind).map_err(InstallHandlerError);
    let (int, term, hup) =
        (SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup());
    let mut interrupt = install(int)?;
    let mut terminate = install(term)?;
    let mut hang_up = install(hup)?;
    let received = Received::default();
    let note = received.clone();
    tokio::spawn(async move {
        let kind = tokio::select! {
            () = arrival(&mut interrupt) => int,
            () = arrival(&mut terminate) => term,
            () = arrival(&mut hang_up) => hup,
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
