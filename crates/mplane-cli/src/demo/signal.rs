//! The signals that end a demo: the first one, and one more while what was measured is fetched.

use std::pin::Pin;

use mplane_runtime::shutdown::{HangUp, InstallHandlerError, Received, on_signal};
use tokio_util::sync::CancellationToken;

use crate::Failure;

/// A signal that will have come.
pub(super) struct Signal {
    arrived: CancellationToken,
    received: Received,
}

impl Signal {
    /// Listens for the next one.
    pub(super) fn next() -> Result<Self, InstallHandlerError> {
        let arrived = CancellationToken::new();
        let received = on_signal(arrived.clone(), HangUp::Ends)?;
        Ok(Self { arrived, received })
    }

    /// Waits for it; returns the failure that it is.
    pub(super) async fn arrival(&self) -> Failure {
        self.arrived.cancelled().await;
        // The number is there before the token is cancelled.
        Failure::Signal(self.received.number().unwrap_or_default())
    }

    /// Does something until it comes. What it cuts off may fail in many ways: those failures
    /// are its own.
    pub(super) fn cuts<'a, T: 'a>(
        &'a self,
        work: impl Future<Output = Result<T, Failure>> + 'a,
    ) -> Pin<Box<dyn Future<Output = Result<T, Failure>> + 'a>> {
        // The steps of a demo are large futures: they stay in one place.
        Box::pin(async {
            tokio::select! {
                biased;
                failure = self.arrival() => Err(failure),
                done = work => done,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{Signal as Number, raise};

    #[tokio::test]
    async fn each_signal_cuts_off_what_was_begun_before_it() {
        let first = Signal::next().unwrap();
        assert!(matches!(first.cuts(async { Ok(1) }).await, Ok(1)));
        raise(Number::SIGINT).unwrap();
        let endless = || std::future::pending::<Result<(), Failure>>();
        let number = Number::SIGINT as i32;
        let cut = first.cuts(endless()).await;
        assert!(matches!(cut, Err(Failure::Signal(known)) if known == number));

        let again = Signal::next().unwrap();
        assert!(matches!(again.cuts(async { Ok(2) }).await, Ok(2)), "it is the next one");
        raise(Number::SIGTERM).unwrap();
        let number = Number::SIGTERM as i32;
        let cut = again.cuts(endless()).await;
        assert!(matches!(cut, Err(Failure::Signal(known)) if known == number));
    }
}
