//! Delay and success of TCP connections.
//!
//! [`run()`] opens a connection every period and closes it at once. The schedule is
//! [`ping::Schedule`](crate::ping::Schedule), the same as for ping.
//!
//! Units: delays in nanoseconds ([`Duration`](std::time::Duration)). Clocks: moments
//! are UTC; delays are from the monotonic clock of this process, read before the first
//! SYN is handed to the kernel and after the process was told how it ended. They
//! include the time until the process was scheduled: the kernel stamps no handshakes.
//!
//! Source: RFC 9293 section 3.5 (establishing a connection); Linux manual pages
//! connect(2), tcp(7), socket(7) (`SO_LINGER`).

mod attempt;
mod run;

pub use attempt::{Attempt, ConnectOutcome, ConnectSummary};
pub use run::{ConnectError, ConnectOptions, ConnectReport, MAX_CONCURRENT, run};
