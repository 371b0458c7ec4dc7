//! Services: what a component can measure.
//!
//! A service binds a capability to code. To write one, implement [`Service`]: return the
//! capability, and in `run` push rows as they are measured until the work is done or
//! [`Work::stop`] says so.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mplane::json::encode_rows;
use mplane::limits;
use mplane::message::{Capability, Specification, Table};
use mplane::primitive::Value;
use mplane::registry::Element;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::spool::FLUSH_ROWS;
/// The worked example of the documents, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/component-development.md")]
struct ComponentDevelopment;

/// Something that a component can measure.
pub trait Service: Send + Sync + 'static {
    /// Returns what it offers. It is asked once, when the component starts.
    fn capability(&self) -> Capability;

    /// Runs one specification that fulfils the capability. Rows are pushed to
    /// [`Work::rows`] as they appear and count even if the run fails to say more.
    fn run(&self, work: Work) -> Run<'_>;
}

/// A run of a service.
pub type Run<'a> = Pin<Box<dyn Future<Output = Result<Completed, RunError>> + Send + 'a>>;

/// What a service is given to do.
#[derive(Debug)]
pub struct Work {
    /// What to do. Every parameter has a value that the capability allows.
    pub specification: Specification,
    /// How long the temporal scope lasts from now on (monotonic clock); `None` without
    /// end. A service measures nothing beyond it and ends by itself; waiting for the last
    /// replies may take a little longer.
    pub duration: Option<Duration>,
    /// Where rows go.
    pub rows: Rows,
    /// Cancelled when the run is to end early: it was interrupted, did not end with its
    /// scope, or the component shuts down. What was measured is returned.
    pub stop: CancellationToken,
}

/// What a run says at its end, besides its rows.
#[derive(Debug, Default)]
pub struct Completed {
    /// How the result came about.
    pub metadata: Vec<(Arc<Element>, Option<Value>)>,
}

/// Why a service could not measure, for people at the other side.
///
/// A target that does not answer is no error but a result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RunError(pub String);

/// The rows of a run, shared between the service that pushes and the component that
/// keeps them.
#[derive(Clone, Debug)]
pub struct Rows(Arc<Shared>);

/// Rows, and word that many of them are new.
#[derive(Debug)]
struct Shared {
    table: Mutex<Table>,
    /// Told whenever so many rows more are there.
    many: Notify,
}

impl Rows {
    /// Makes rows for the result columns of a specification.
    pub fn new(specification: &Specification) -> Self {
        let table = Mutex::new(Table::new(specification.columns()));
        Self(Arc::new(Shared { table, many: Notify::new() }))
    }

    /// Adds a row: the values in the order of the result columns. Fails when there are as
    /// many rows as a result may have.
    ///
    /// # Panics
    ///
    /// If a value is not of its column's type.
    pub fn push(
        &self,
        row: impl IntoIterator<Item = Option<Value>>,
    ) -> Result<(), RunError> {
        let mut table = self.table();
        if table.rows() == limits::RESULT_ROWS {
            return Err(RunError(format!(
                "a result has at most {} rows; ask for a shorter or coarser measurement",
                limits::RESULT_ROWS
            )));
        }
        table.push(row);
        if table.rows().is_multiple_of(FLUSH_ROWS) {
            self.0.many.notify_one();
        }
        Ok(())
    }

    /// Waits until many rows are new.
    pub(crate) async fn many(&self) {
        self.0.many.notified().await;
    }

    /// Returns the rows from `first` on as JSON, and how many there are in all; `None` if
    /// there are no such rows.
    pub(crate) fn since(&self, first: usize) -> Option<(Vec<u8>, usize)> {
        let table = self.table();
        let rows = table.rows();
        (first < rows).then(|| (encode_rows(&table, first..rows), rows))
    }

    /// Takes the rows out.
    pub(crate) fn take(&self) -> Table {
        std::mem::take(&mut *self.table())
    }

    /// Locks the rows. A panic elsewhere leaves them whole: every change is one call.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
