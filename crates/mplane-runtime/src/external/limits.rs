//! Every limit on an external service, each with its reason.
//!
//! Those of [`Limits`] are set in `service.toml`; the constants hold for all services.

use std::time::Duration;

use mplane::limits::RESULT_ROWS;

/// Bytes of `service.toml` and of the capability file: both are written by people.
pub(super) const FILE_BYTES: u64 = 1 << 20;

/// Bytes of one line of standard output: a row of the widest schema, 1,024 columns, with
/// a kilobyte in each.
pub(super) const LINE_BYTES: usize = 1 << 20;

/// Bytes of one line that are logged, so that logs stay readable.
pub(super) const LOGGED_BYTES: usize = 1_024;

/// Lines that a run may write to the log, so that one service cannot fill the disk.
pub(super) const LOGGED_LINES: u32 = 1_000;

/// Bytes of the reason for a failure that are passed on: a text for people.
pub(super) const REASON_BYTES: usize = 1_024;

/// How long the output of a process that has ended is still read: it is in the pipe
/// already. Only a process that left the group can keep the pipe open for longer.
pub(super) const DRAIN: Duration = Duration::from_secs(1);

/// How long a killed process may take to be gone; one that waits for a disk may.
pub(super) const REAP: Duration = Duration::from_secs(5);

/// Files that a service may have open, as many as programs usually may.
pub(super) const OPEN_FILES: u64 = 1_024;

/// The least memory limit: with less, programs do not even start.
const LEAST_MEMORY_BYTES: u64 = 8 << 20;

/// The longest grace: a component that ends waits 5 s for its services.
const LONGEST_GRACE: Duration = Duration::from_secs(4);

/// What a run of a service may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a run may take, whatever its temporal scope says.
    pub time: Duration,
    /// Bytes of data that each process of the service may have.
    pub memory_bytes: u64,
    /// Bytes that a run may write to standard output, and as many to standard error.
    pub output_bytes: u64,
    /// Rows that a run may yield.
    pub rows: usize,
    /// Runs at the same time.
    pub parallel: usize,
    /// How long a run may take to end once it was asked to.
    pub stop_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // The temporal scope ends a run; this is for scopes without end.
            time: Duration::from_secs(86_400),
            // Room for an interpreter with libraries, twice over.
            memory_bytes: 512 << 20,
            // The largest message.
            output_bytes: 64 << 20,
            rows: RESULT_ROWS,
            // Processes cost megabytes; one client may ask for many runs.
            parallel: 16,
            // As long as a component waits before it tells a service to stop.
            stop_grace: Duration::from_secs(2),
        }
    }
}

impl Limits {
    /// Checks that every limit is one that can be kept.
    pub(super) fn check(&self) -> Result<(), BadLimit> {
        if self.time.is_zero() {
            return Err(BadLimit::Zero("time-limit"));
        }
        if self.output_bytes == 0 {
            return Err(BadLimit::Zero("output-limit-bytes"));
        }
        if self.parallel == 0 {
            return Err(BadLimit::Zero("parallel-limit"));
        }
        if self.memory_bytes < LEAST_MEMORY_BYTES {
            return Err(BadLimit::Memory);
        }
        if self.rows == 0 || self.rows > RESULT_ROWS {
            return Err(BadLimit::Rows);
        }
        if self.stop_grace > LONGEST_GRACE {
            return Err(BadLimit::Grace);
        }
        Ok(())
    }
}

/// A limit that cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLimit {
    /// Nothing would be allowed.
    #[error("{0} is zero, which allows nothing; leave the key out for the default")]
    Zero(&'static str),
    /// Too little memory.
    #[error(
        "memory-limit-bytes is at least {LEAST_MEMORY_BYTES}: with less, programs do not start"
    )]
    Memory,
    /// No rows, or more than a result may have.
    #[error("row-limit is from 1 to {RESULT_ROWS}, as many as a result may have")]
    Rows,
    /// Too long a grace.
    #[error("stop-grace is at most 4s: a component that ends waits 5s for its services")]
    Grace,
}
