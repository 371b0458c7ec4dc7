//! Round-trip delay and loss by ICMP echo.
//!
//! [`run()`] measures; [`Strategy`] is its logic without socket and clock, [`Summary`]
//! the aggregate.
//!
//! Units: delays in nanoseconds ([`Duration`](std::time::Duration)), or whole
//! microseconds where the name says so. Clocks: moments are UTC, delays monotonic.

mod echo;
mod jitter;
mod run;
mod schedule;
mod strategy;
mod summary;

pub use echo::{Echo, EchoError, Outcome, Reply};
pub(crate) use run::check_destination;
pub use run::{
    DEFAULT_PAYLOAD_BYTES, DEFAULT_TIMEOUT, MAX_DSCP, PingError, PingOptions, PingReport,
    run,
};
pub use schedule::{End, MIN_PERIOD, PeriodTooShortError, Schedule};
pub use strategy::{
    MAX_OUTSTANDING, STOP_GRACE, Settings, SettingsError, Strategy, Strays, Transmit,
};
pub(crate) use summary::Samples;
pub use summary::{Delays, PERCENTILES, Summary, Summation, whole_microseconds};
