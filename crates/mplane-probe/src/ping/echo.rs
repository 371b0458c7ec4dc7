//! What became of each echo request.
//!
//! Units: delays in nanoseconds, as [`Duration`]. Clocks: the moment of sending is UTC;
//! the delay is monotonic, see [`StampSources`].

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;

use crate::packet::{Obstacle, Problem, StampSources};

/// One echo request and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo {
    /// Number of the request within the run, from 0. Never wraps.
    pub sequence: u64,
    /// When it was handed to the kernel (UTC, clock of this process).
    pub sent_utc: Timestamp,
    /// What became of it.
    pub outcome: Outcome,
}

impl Echo {
    /// Returns the round-trip delay, `None` if no reply came in time.
    pub fn rtt(&self) -> Option<Duration> {
        match self.outcome {
            Outcome::Reply(reply) => Some(reply.rtt),
            Outcome::Pending | Outcome::Lost | Outcome::Error(_) => None,
        }
    }
}

/// What became of an echo request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Unknown: the run was stopped before the timeout. Neither lost nor answered.
    Pending,
    /// Answered within the timeout.
    Reply(Reply),
    /// Not answered within the timeout.
    Lost,
    /// Known to have failed.
    Error(EchoError),
}

/// The answer to an echo request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// Round-trip delay.
    pub rtt: Duration,
    /// Who took the stamps behind `rtt`.
    pub stamps: StampSources,
    /// Hops the reply could still have gone, if known.
    pub hop_limit: Option<u8>,
}

/// How an echo request is known to have failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EchoError {
    /// It never left this machine.
    NotSent(Obstacle),
    /// A router or the destination reported an error.
    Reported {
        /// Who reported, if known.
        from: Option<IpAddr>,
        /// What was reported.
        problem: Problem,
    },
}

impl fmt::Display for EchoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent(obstacle) => write!(f, "not sent: {obstacle}"),
            Self::Reported { from: Some(from), problem } => {
                write!(f, "{problem}, says {from}")
            }
            Self::Reported { from: None, problem } => problem.fmt(f),
        }
    }
}
