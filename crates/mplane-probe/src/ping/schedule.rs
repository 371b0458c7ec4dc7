//! When to send: the schedule all periodic measurements of this crate share.
//!
//! Units: [`Duration`] since the start of the run, monotonic clock. Slot `n` is due at
//! `n` times the period after the start, however late earlier slots were used: there
//! is no drift. Pure: the caller says what time it is.
//!
//! Source: RFC 2330 section 11.1 (periodic sampling) and RFC 3432 section 3.

use std::time::Duration;

/// Shortest period: 100 µs. Timers of the runtime tick at 1 ms, so anything shorter
/// would come in bursts of more than ten.
pub const MIN_PERIOD: Duration = Duration::from_micros(100);

/// How late a slot may be used; later ones, if also later than a period, are skipped.
///
/// A process that was stopped for a minute must not send a burst of sixty packets: it
/// would measure its own queue. 20 ms allows for timers and a busy machine.
const CATCH_UP: Duration = Duration::from_millis(20);

/// Nanoseconds in a second.
const NANOSECONDS: u128 = 1_000_000_000;

/// When a run stops sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// After so many packets.
    Count(u64),
    /// So long after the start; a slot due exactly then is not used. Ten seconds with a
    /// period of one second are ten packets.
    After(Duration),
    /// When told to.
    Never,
}

/// The period cannot be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("period of {period:?} is too short: choose {MIN_PERIOD:?} or longer")]
pub struct PeriodTooShortError {
    /// The period asked for.
    pub period: Duration,
}

/// A periodic schedule: the first slot at once, then one every period.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Time between slots.
    period: Duration,
    /// When to stop.
    end: End,
    /// The next slot to use.
    slot: u64,
    /// Slots used so far.
    used: u64,
    /// Slots that passed unused since the caller was late.
    skipped: u64,
    /// Whether [`Schedule::stop`] was called.
    is_stopped: bool,
}

impl Schedule {
    /// Makes a schedule whose first slot is due at zero.
    pub fn new(period: Duration, end: End) -> Result<Self, PeriodTooShortError> {
        if period < MIN_PERIOD {
            return Err(PeriodTooShortError { period });
        }
        Ok(Self { period, end, slot: 0, used: 0, skipped: 0, is_stopped: false })
    }

    /// Returns when the next slot is due, or `None` when there is none left.
    pub fn due(&self) -> Option<Duration> {
        let due = self.due_of(self.slot);
        let is_open = !self.is_stopped
            && match self.end {
                End::Count(count) => self.used < count,
                End::After(end) => due < end,
                End::Never => true,
            };
        is_open.then_some(due)
    }

    /// Uses the next slot if it is due, and returns when it was due.
    ///
    /// Slots missed by too much are skipped and counted. `End::Count` counts slots
    /// used, so a late run takes longer but sends as many packets.
    pub fn take(&mut self, now: Duration) -> Option<Duration> {
        let due = self.due()?;
        let lateness = now.checked_sub(due)?;
        if lateness > self.period.max(CATCH_UP) {
            let current = u64::try_from(now.as_nanos() / self.period.as_nanos())
                .unwrap_or(u64::MAX);
            self.skipped += current - self.slot;
            self.slot = current;
        }
        let due = self.due()?;
        self.slot += 1;
        self.used += 1;
        Some(due)
    }

    /// Ends the schedule now.
    pub fn stop(&mut self) {
        self.is_stopped = true;
    }

    /// Returns how many slots were used.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Returns how many slots passed unused since the caller came too late.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Returns when `slot` is due; the end of time if that does not fit.
    fn due_of(&self, slot: u64) -> Duration {
        let nanoseconds = self.period.as_nanos().saturating_mul(slot.into());
        let rest = u32::try_from(nanoseconds % NANOSECONDS)
            .expect("a remainder of 10⁹ fits in 32 bits");
        u64::try_from(nanoseconds / NANOSECONDS)
            .map_or(Duration::MAX, |seconds| Duration::new(seconds, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds as a duration.
    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn first_slot_is_due_at_once_and_the_others_every_period() {
        let mut schedule = Schedule::new(ms(100), End::Count(3)).expect("valid");
        assert_eq!(schedule.take(ms(0)), Some(ms(0)));
        assert_eq!(schedule.take(ms(99)), None);
        assert_eq!(schedule.due(), Some(ms(100)));
        assert_eq!(schedule.take(ms(101)), Some(ms(100)));
        assert_eq!(schedule.take(ms(200)), Some(ms(200)));
        assert_eq!(schedule.due(), None);
    }

    #[test]
    fn does_not_drift_over_ten_thousand_slots_taken_late() {
        let period = Duration::from_micros(333);
        let mut schedule = Schedule::new(period, End::Count(10_000)).expect("valid");
        let mut last = Duration::ZERO;
        while let Some(due) = schedule.due() {
            last = due;
            let lateness = Duration::from_micros(schedule.used() * 37 % 997);
            assert_eq!(schedule.take(due + lateness), Some(due));
        }
        assert_eq!(last, period * 9_999);
        assert_eq!((schedule.used(), schedule.skipped()), (10_000, 0));
    }

    #[test]
    fn an_end_time_excludes_the_slot_due_at_that_time() {
        let mut schedule =
            Schedule::new(ms(1000), End::After(ms(10_000))).expect("valid");
        let mut count = 0;
        while let Some(due) = schedule.due() {
            assert!(schedule.take(due).is_some());
            count += 1;
        }
        assert_eq!(count, 10);
        assert_eq!(Schedule::new(ms(1), End::After(ms(0))).expect("valid").due(), None);
        assert_eq!(Schedule::new(ms(1), End::Count(0)).expect("valid").due(), None);
    }

    #[test]
    fn skips_what_was_missed_instead_of_sending_a_burst() {
        let mut schedule = Schedule::new(ms(100), End::Count(3)).expect("valid");
        assert_eq!(schedule.take(ms(0)), Some(ms(0)));
        assert_eq!(schedule.take(ms(1_050)), Some(ms(1_000)));
        assert_eq!(schedule.take(ms(1_050)), None);
        assert_eq!(schedule.take(ms(1_100)), Some(ms(1_100)));
        assert_eq!((schedule.used(), schedule.skipped()), (3, 9));
        let mut ended = Schedule::new(ms(100), End::After(ms(500))).expect("valid");
        assert_eq!(ended.take(ms(1_050)), None);
    }

    #[test]
    fn catches_up_when_a_timer_was_coarser_than_the_period() {
        let mut schedule = Schedule::new(MIN_PERIOD, End::Never).expect("valid");
        let burst = std::iter::from_fn(|| schedule.take(ms(1))).count();
        assert_eq!((burst, schedule.skipped()), (11, 0));
    }

    #[test]
    fn refuses_a_period_that_cannot_be_kept() {
        let error = Schedule::new(Duration::ZERO, End::Never).expect_err("too short");
        assert_eq!(
            error.to_string(),
            "period of 0ns is too short: choose 100µs or longer"
        );
    }

    #[test]
    fn endless_periods_do_not_overflow() {
        let mut schedule = Schedule::new(Duration::MAX, End::Never).expect("valid");
        assert_eq!(schedule.take(ms(0)), Some(ms(0)));
        assert_eq!(schedule.due(), Some(Duration::MAX));
        schedule.stop();
        assert_eq!(schedule.due(), None);
    }
}
