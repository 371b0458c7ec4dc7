//! What became of each attempt to connect, and of all of them.

use std::time::Duration;

use jiff::Timestamp;

use crate::packet::Obstacle;
use crate::ping::{Delays, Samples};

/// One attempt to connect and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Number of the attempt within the run, from 0.
    pub sequence: u64,
    /// When the connection was begun (UTC, clock of this process).
    pub sent_utc: Timestamp,
    /// What became of it.
    pub outcome: ConnectOutcome,
}

impl Attempt {
    /// Returns the time until the destination answered, by accepting or by refusing;
    /// `None` if it did not.
    pub fn delay(&self) -> Option<Duration> {
        match self.outcome {
            ConnectOutcome::Connected { delay } | ConnectOutcome::Refused { delay } => {
                Some(delay)
            }
            ConnectOutcome::Pending
            | ConnectOutcome::Timeout
            | ConnectOutcome::Unreachable(_) => None,
        }
    }
}

/// What became of an attempt to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectOutcome {
    /// Unknown: the run was stopped before the timeout.
    Pending,
    /// The handshake was completed.
    Connected {
        /// Time from before the SYN to after the SYN-ACK.
        delay: Duration,
    },
    /// The destination, or a firewall in its name, sent a reset.
    Refused {
        /// Time from before the SYN to after the reset.
        delay: Duration,
    },
    /// No answer within the timeout.
    Timeout,
    /// This machine could not send, or learned that the destination cannot be reached.
    Unreachable(Obstacle),
}

/// The aggregate of a run.
///
/// `attempts` is the sum of the other five counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnectSummary {
    /// Attempts made.
    pub attempts: u64,
    /// Attempts that ended in a connection.
    pub connected: u64,
    /// Attempts that were refused.
    pub refused: u64,
    /// Attempts without an answer.
    pub timed_out: u64,
    /// Attempts that did not leave this machine, or hit an unreachable destination.
    pub unreachable: u64,
    /// Attempts undecided when the run was stopped.
    pub pending: u64,
    /// The delays of the connections; `None` when there was none.
    pub delays: Option<Delays>,
}

/// Adds up attempts, one at a time, in bounded memory.
#[derive(Debug, Default)]
pub(super) struct ConnectSummation {
    /// The counts so far; `delays` stays `None` here.
    counts: ConnectSummary,
    /// The delays of connections so far.
    samples: Samples,
}

impl ConnectSummation {
    /// Adds one attempt.
    pub(super) fn add(&mut self, attempt: &Attempt) {
        let counts = &mut self.counts;
        counts.attempts += 1;
        match attempt.outcome {
            ConnectOutcome::Pending => counts.pending += 1,
            ConnectOutcome::Connected { delay } => {
                counts.connected += 1;
                self.samples.add(delay);
            }
            ConnectOutcome::Refused { .. } => counts.refused += 1,
            ConnectOutcome::Timeout => counts.timed_out += 1,
            ConnectOutcome::Unreachable(_) => counts.unreachable += 1,
        }
    }

    /// Returns the aggregate of the attempts added so far.
    pub(super) fn summary(&self) -> ConnectSummary {
        ConnectSummary { delays: self.samples.delays(), ..self.counts }
    }
}
