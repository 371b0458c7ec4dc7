//! A run of a service: its rows are kept while it goes on, and what it says at its end
//! becomes the outcome of the job.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mplane::exchange::component::{JobId, Outcome};
use mplane::message::{Specification, Table};
use mplane::primitive::Value;
use mplane::registry::{PLATFORM, Registries};
use mplane::when::{Instant, When};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::Component;
use crate::service::{Completed, Rows, RunError, Service, Work};
use crate::spool::{FLUSH_INTERVAL, Spool};

impl Component {
    /// Runs a service that was due at a time; a service that panics fails alone. It is
    /// `None` if it was withdrawn in the very moment of starting.
    pub(super) async fn run(
        &self,
        job: JobId,
        service: Option<Arc<dyn Service>>,
        specification: Specification,
        due: Timestamp,
        duration: Option<Duration>,
        stop: CancellationToken,
    ) -> Outcome {
        let Some(service) = service else {
            return Outcome::Failed("the component has withdrawn the capability".into());
        };
        let rows = Rows::new(&specification);
        // What a query yields is about the time that was asked for.
        let asked = specification.when().clone();
        let is_about =
            (!specification.is_schedulable() && asked.is_definite()).then_some(asked);
        let work = Work { specification, duration, rows: rows.clone(), stop };
        let started = Timestamp::now();
        let ended = tokio::select! {
            ended = catch_panic(service.run(work)) => ended,
            never = keep_rows(self.spool.as_ref(), job, &rows) => match never {},
        };
        let when = is_about.unwrap_or_else(|| When::between(started, Timestamp::now()));
        let table = rows.take();
        let mut outcome = match ended {
            Ok(_) if self.shutdown.is_cancelled() => {
                incomplete(&self.registries, when, table, "the component was shut down")
            }
            Ok(Completed { metadata }) => Outcome::Measured { when, table, metadata },
            Err(RunError(reason)) => incomplete(&self.registries, when, table, &reason),
        };
        if let Outcome::Measured { metadata, .. } = &mut outcome {
            let element = self.registries.element(PLATFORM, "measurement.start.intended");
            let intended = Value::Time(Instant::At(due));
            metadata.extend(element.ok().map(|e| (Arc::clone(e), Some(intended))));
        }
        outcome
    }
}

/// Returns the outcome of a run that ended before it was complete. What was measured is a
/// result; what kept it from being more stands beside it. Nothing measured is a failure.
pub(super) fn incomplete(
    registries: &Registries,
    when: When,
    table: Table,
    reason: &str,
) -> Outcome {
    if table.rows() == 0 {
        return Outcome::Failed(reason.to_owned());
    }
    warn!(reason, rows = table.rows(), "a measurement is incomplete");
    let element = registries.element(PLATFORM, "measurement.incomplete");
    let value = Value::String(reason.into());
    let metadata = element.map(|element| (Arc::clone(element), Some(value)));
    Outcome::Measured { when, table, metadata: metadata.into_iter().collect() }
}

/// Writes rows down as they come, if there is a spool.
async fn keep_rows(
    spool: Option<&Spool>,
    job: JobId,
    rows: &Rows,
) -> std::convert::Infallible {
    let Some(spool) = spool else { return std::future::pending().await };
    let mut kept = 0;
    loop {
        tokio::select! {
            () = tokio::time::sleep(FLUSH_INTERVAL) => {}
            () = rows.many() => {}
        }
        let Some((json, count)) = rows.since(kept) else { continue };
        match spool.append_rows(job, kept, json).await {
            Ok(()) => kept = count,
            // They are still in memory, and tried again.
            Err(error) => warn!(%job, %error, "rows cannot be stored yet"),
        }
    }
}

/// Turns a panic of a future into an error.
async fn catch_panic<T>(
    mut future: Pin<Box<dyn Future<Output = Result<T, RunError>> + Send + '_>>,
) -> Result<T, RunError> {
    std::future::poll_fn(move |context| {
        let poll = || future.as_mut().poll(context);
        std::panic::catch_unwind(AssertUnwindSafe(poll)).unwrap_or_else(|panic| {
            let reason = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("without a reason");
            error!(reason, "a service panicked");
            std::task::Poll::Ready(Err(RunError("the service failed inside".into())))
        })
    })
    .await
}
