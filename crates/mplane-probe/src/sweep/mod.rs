//! Echo to very many destinations: who answers, and how fast.
//!
//! [`run()`] measures; [`Strategy`] is its logic without socket and clock, [`Targets`] whom
//! it asks.
//!
//! Sequence numbers of 16 bits do not tell so many requests apart. Each carries a number of
//! its own and a cookie that only its target has seen.
//!
//! Units: delays in nanoseconds ([`Duration`](std::time::Duration)). Clocks: delays are
//! monotonic.

mod cookie;
mod run;
mod state;
mod strategy;
mod targets;

pub use cookie::{COOKIE_BYTES, CookieKey, Mark};
pub use run::{DEFAULT_RATE, MAX_RATE, SweepError, SweepOptions, SweepReport, run};
pub use state::TargetReport;
pub use strategy::{INTERVAL, MAX_COUNT, Settings, Strategy, Strays, Transmit};
pub use targets::{MAX_TARGETS, Targets, TargetsError};
