//! The clocks of this process.
//!
//! Source: Linux manual page `clock_gettime(2)`: `CLOCK_MONOTONIC` and
//! `CLOCK_REALTIME`.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::packet::UserStamp;

/// Within how long both clocks must be read to count as read together.
const TOGETHER: Duration = Duration::from_micros(20);

/// How often reading both clocks together is tried; a busy machine may never succeed.
const READ_ATTEMPTS: u32 = 4;

/// A monotonic clock that starts at zero, and UTC beside it.
#[derive(Debug, Clone, Copy)]
pub struct UserClock {
    /// When the clock was started.
    start: Instant,
}

impl UserClock {
    /// Starts a clock at zero.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Returns the monotonic time since the start.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Returns the moment `elapsed` after the start, `None` beyond what the system's
    /// clock can hold.
    pub fn instant(&self, elapsed: Duration) -> Option<Instant> {
        self.start.checked_add(elapsed)
    }

    /// Reads both clocks.
    ///
    /// UTC is read between two readings of the monotonic clock, again if the process
    /// was interrupted in between.
    pub fn read(&self) -> UserStamp {
        let mut attempts = 0;
        loop {
            let before = self.elapsed();
            let utc = Timestamp::now();
            let monotonic = self.elapsed();
            attempts += 1;
            if monotonic.saturating_sub(before) <= TOGETHER || attempts == READ_ATTEMPTS {
                return UserStamp { monotonic, utc };
            }
        }
    }
}
