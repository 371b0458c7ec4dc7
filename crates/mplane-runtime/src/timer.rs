//! An alarm at an absolute time of the UTC clock, to the microsecond.
//!
//! The runtime's own timers tick in milliseconds and count from now; measurements start at
//! times of the day. The alarm also rings when the clock is set, so that no deadline is
//! missed or waited for in vain.
//!
//! Source: `timerfd_create(2)`, `TFD_TIMER_ABSTIME` and `TFD_TIMER_CANCEL_ON_SET`.

use std::io;
use std::os::fd::OwnedFd;

use jiff::Timestamp;
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec,
    timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// An alarm; it rings once for each time it is set.
#[derive(Debug)]
pub(crate) struct Alarm {
    timer: AsyncFd<OwnedFd>,
    /// What it is set to.
    at: Option<Timestamp>,
}

/// Why an alarm rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ring {
    /// Its time has come.
    Due,
    /// The clock was set.
    ClockSet,
}

/// A time that is never reached: an alarm that is not set still tells of clock changes.
const NEVER: Timestamp = Timestamp::MAX;

impl Alarm {
    /// Makes an alarm that is not set.
    #[expect(
        deprecated,
        reason = "its successor is an unsafe function that asks for what holds here: the \
                  descriptor is owned and never changed"
    )]
    pub(crate) fn new() -> Result<Self, OpenAlarmError> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Realtime, flags)
            .map_err(|error| OpenAlarmError(error.into()))?;
        let timer =
            AsyncFd::with_interest(timer, Interest::READABLE).map_err(OpenAlarmError)?;
        let mut alarm = Self { timer, at: Some(Timestamp::MIN) };
        alarm.set(None).map_err(OpenAlarmError)?;
        Ok(alarm)
    }

    /// Sets the time to ring; `None` for only when the clock is set. A time that has
    /// passed rings at once.
    pub(crate) fn set(&mut self, at: Option<Timestamp>) -> io::Result<()> {
        if self.at == at {
            return Ok(());
        }
        // Zero would switch the timer off.
        let at_ns = at.unwrap_or(NEVER).as_nanosecond().max(1);
        let value = Timespec {
            tv_sec: i64::try_from(at_ns / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: (at_ns % 1_000_000_000).try_into().unwrap_or_default(),
        };
        let once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        let new = Itimerspec { it_interval: once, it_value: value };
        timerfd_settime(self.timer.get_ref(), flags, &new)?;
        self.at = at;
        Ok(())
    }

    /// Waits until it rings.
    pub(crate) async fn ring(&mut self) -> Ring {
        loop {
            let Ok(mut ready) = self.timer.readable_mut().await else {
                // The runtime ends.
                return std::future::pending().await;
            };
            let mut expirations = [0; 8];
            let read = rustix::io::read(ready.get_inner(), &mut expirations);
            let ring = match read {
                Ok(_) => Ring::Due,
                Err(Errno::CANCELED) => Ring::ClockSet,
                Err(_) => {
                    ready.clear_ready();
                    continue;
                }
            };
            // It must be set anew to ring again.
            self.at = Some(Timestamp::MIN);
            return ring;
        }
    }
}

/// An alarm that cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gives no timer")]
pub struct OpenAlarmError(#[source] io::Error);

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

    /// Sets an alarm and waits until it is due: a test beside this one sets the clock.
    async fn wait(alarm: &mut Alarm, at: Timestamp) {
        loop {
            alarm.set(Some(at)).unwrap();
            if alarm.ring().await == Ring::Due {
                return;
            }
        }
    }

    #[tokio::test]
    async fn rings_at_the_time_and_not_before() {
        let mut alarm = Alarm::new().unwrap();
        for delay_ms in [20, 5, 0] {
            let at = Timestamp::now() + SignedDuration::from_millis(delay_ms);
            wait(&mut alarm, at).await;
            assert!(Timestamp::now() >= at);
        }
    }

    #[tokio::test]
    async fn rings_at_once_for_what_has_passed_and_once_only() {
        let mut alarm = Alarm::new().unwrap();
        wait(&mut alarm, Timestamp::UNIX_EPOCH).await;
        let again =
            tokio::time::timeout(std::time::Duration::from_millis(50), alarm.ring());
        assert!(!matches!(again.await, Ok(Ring::Due)));
        wait(&mut alarm, Timestamp::UNIX_EPOCH).await;
    }

    #[tokio::test]
    async fn rings_when_the_clock_is_set() {
        use rustix::time::{ClockId, clock_gettime, clock_settime};
        // Nobody's clock is touched without having been asked: only where all is ours.
        if std::env::var("CI").is_ok_and(|value| value == "true") {
            let mut alarm = Alarm::new().unwrap();
            alarm.set(Some(Timestamp::now() + SignedDuration::from_hours(1))).unwrap();
            let now = clock_gettime(ClockId::Realtime);
            clock_settime(ClockId::Realtime, now).expect("CI may set its clock");
            assert_eq!(alarm.ring().await, Ring::ClockSet);
        } else {
            eprintln!("SKIPPED: sets the clock, which only CI=true allows");
        }
    }
}
