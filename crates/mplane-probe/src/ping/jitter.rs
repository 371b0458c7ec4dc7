//! How much delays differ from one reply to the next.
//!
//! Unit: nanoseconds. Pure.
//!
//! Source: RFC 3550 section 6.4.1 and appendix A.8.
//! *Differences*: the round-trip delay takes the place of the relative transit time, of
//! which only differences count; the estimate is no integer.

use std::time::Duration;

/// The part by which each difference changes the estimate.
const GAIN: f64 = 1.0 / 16.0;

/// The interarrival jitter, estimated reply by reply.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Jitter {
    /// The delay of the latest reply.
    latest: Option<Duration>,
    /// The estimate in nanoseconds, once there were two replies.
    estimate: Option<f64>,
}

impl Jitter {
    /// Takes the delay of the next reply, in the order of arrival.
    pub(super) fn add(&mut self, delay: Duration) {
        if let Some(latest) = self.latest.replace(delay) {
            let difference = delay.abs_diff(latest).as_secs_f64() * 1e9;
            let estimate = self.estimate.unwrap_or_default();
            self.estimate = Some(estimate + GAIN * (difference - estimate));
        }
    }

    /// Returns the estimate; `None` before the second reply.
    pub(super) fn estimate(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.estimate? / 1e9).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The jitter after replies with these delays in microseconds, in nanoseconds.
    fn after(delays_us: &[u64]) -> Option<u128> {
        let mut jitter = Jitter::default();
        for us in delays_us {
            jitter.add(Duration::from_micros(*us));
        }
        jitter.estimate().map(|estimate| estimate.as_nanos())
    }

    #[test]
    fn is_none_before_the_second_reply() {
        assert_eq!(after(&[]), None);
        assert_eq!(after(&[500]), None);
        assert_eq!(after(&[500, 500]), Some(0));
    }

    #[test]
    fn moves_a_sixteenth_towards_each_difference() {
        assert_eq!(after(&[1000, 1160]), Some(10_000));
        // 10 + (80 - 10) / 16, whichever delay is longer.
        assert_eq!(after(&[1000, 1160, 1080]), Some(14_375));
        assert_eq!(after(&[1080, 1000, 1160]), Some(14_687));
    }

    #[test]
    fn of_a_steady_difference_becomes_that_difference() {
        let delays: Vec<u64> = (0..400).map(|number| 1000 + number % 2 * 32).collect();
        let jitter = after(&delays).expect("replies");
        assert!((31_999..=32_000).contains(&jitter), "{jitter}");
    }
}
