//! The signals that end a program.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// Cancels the token when the process is asked to end by SIGINT, SIGTERM or SIGHUP.
///
/// The handlers are installed at once: the first process of a container (pid 1) would
/// otherwise ignore the signals.
pub fn on_signal(shutdown: CancellationToken) -> Result<(), InstallHandlerError> {
    let install = |kind: SignalKind| signal(kind).map_err(InstallHandlerError);
    let mut interrupt = install(SignalKind::interrupt())?;
    let mut terminate = install(SignalKind::terminate())?;
    let mut hang_up = install(SignalKind::hangup())?;
    tokio::spawn(async move {
        let name = tokio::select! {
            () = received(&mut interrupt) => "SIGINT",
            () = received(&mut terminate) => "SIGTERM",
            () = received(&mut hang_up) => "SIGHUP",
        };
        info!(signal = name, "shutting down");
        shutdown.cancel();
    });
    Ok(())
}

/// Waits for a signal.
async fn received(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// A signal handler that cannot be installed.
#[derive(Debug, thiserror::Error)]
#[error("cannot install a signal handler")]
pub struct InstallHandlerError(#[source] io::Error);
