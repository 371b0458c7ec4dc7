//! What a component writes down, so that a restart loses nothing that it accepted.

use jiff::Timestamp;

use super::JobId;
use crate::access::{CapabilityName, Identity};
use crate::message::{Message, Specification, Table};

/// Something to be written down before what depends on it is done.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A specification was accepted. Its reply waits for this.
    Accepted {
        /// The job.
        job: JobId,
        /// The repeated job of which it is one measurement.
        parent: Option<JobId>,
        /// Who asked for it.
        owner: Identity,
        /// What is asked for, with its token.
        specification: Box<Specification>,
        /// What the capability is called that it was accepted for, for the policy.
        capability: Option<CapabilityName>,
        /// When it was accepted, UTC: relative scopes count from here.
        accepted: Timestamp,
    },
    /// Its service starts. It is never started again.
    Started {
        /// The job.
        job: JobId,
        /// When, UTC.
        started: Timestamp,
    },
    /// Its result or exception is there. Its delivery waits for this.
    Finished {
        /// The job.
        job: JobId,
        /// The result, the results or the exception.
        message: Box<Message>,
        /// When, UTC.
        finished: Timestamp,
    },
    /// Who asked for it has it.
    Delivered {
        /// The job.
        job: JobId,
    },
    /// Nobody can ask for it any more.
    Forgotten {
        /// The job, and the measurements that it is made of.
        job: JobId,
        /// Why: for the dead letters, if its owner is not known to have it.
        reason: &'static str,
    },
}

impl Record {
    /// Returns the job that somebody has asked for and that this accepts.
    pub const fn accepted(&self) -> Option<JobId> {
        match self {
            Self::Accepted { job, parent: None, .. } => Some(*job),
            _ => None,
        }
    }
}

/// A job as it was written down.
#[derive(Clone, Debug)]
pub struct Saved {
    /// The job.
    pub job: JobId,
    /// The repeated job of which it is one measurement.
    pub parent: Option<JobId>,
    /// Who asked for it.
    pub owner: Identity,
    /// What is asked for, with its token.
    pub specification: Specification,
    /// What the capability was called that it was accepted for, if that was written.
    pub capability: Option<CapabilityName>,
    /// When it was accepted, UTC.
    pub accepted: Timestamp,
    /// When its service was started, UTC.
    pub started: Option<Timestamp>,
    /// What was measured until the end came.
    pub table: Table,
    /// What came of it.
    pub finished: Option<Message>,
    /// When, UTC, if that was written.
    pub finished_at: Option<Timestamp>,
    /// Whether who asked for it has it.
    pub is_delivered: bool,
}

/// A job whose service ran when the component ended. The driver says what became of it,
/// as of any other, with [`job_ended`](super::ComponentExchange::job_ended).
#[derive(Clone, Debug)]
pub struct Cut {
    /// The job.
    pub job: JobId,
    /// When its service was started, UTC.
    pub started: Timestamp,
    /// What was measured until the end came.
    pub table: Table,
}
