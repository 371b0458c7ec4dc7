//! The aggregate of a run.
//!
//! Units: delays in nanoseconds, as [`Duration`], or whole microseconds where the name
//! says so, rounded half up.
//!
//! Source: RFC 2681 section 4 (minimum, median, percentiles of round-trip delay over
//! the packets that returned; undefined, not zero, when none did); RFC 2330 section 11.3
//! (percentiles); RFC 3357 (loss runs).

use std::time::Duration;

use super::echo::{Echo, EchoError, Outcome};
use crate::packet::StampSource;

/// Most delays kept for the median: 512 KiB. Longer runs keep an evenly spaced part.
const MAX_SAMPLES: usize = 1 << 16;

/// Shares of the delays in percent that [`Delays::percentiles`] has values for.
pub const PERCENTILES: [usize; 4] = [25, 75, 95, 99];

/// What became of all requests of a run.
///
/// `sent` = `received` + `lost` + `pending`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Requests the kernel accepted.
    pub sent: u64,
    /// Requests answered within the timeout. Duplicates do not count.
    pub received: u64,
    /// Requests not answered within the timeout, `reported` ones included.
    pub lost: u64,
    /// Most requests lost one after another, in the order of sending. Requests that did
    /// not leave this machine are no part of that order.
    pub longest_loss_run: u64,
    /// Requests a router or the destination reported an ICMP error about; part of
    /// `lost`.
    pub reported: u64,
    /// Requests still unanswered when the run was stopped before their timeout.
    pub pending: u64,
    /// Requests that did not leave this machine; not part of `sent`.
    pub not_sent: u64,
    /// Replies whose delay is from kernel stamps; part of `received`.
    pub kernel_stamped: u64,
    /// Replies whose delay is from the clock of this process; part of `received`.
    pub user_stamped: u64,
    /// The delays; `None` when nothing was received.
    pub delays: Option<Delays>,
}

/// The distribution of the delays of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delays {
    /// Shortest delay.
    pub min: Duration,
    /// Arithmetic mean, cut to whole nanoseconds.
    pub mean: Duration,
    /// Middle delay, or the mean of the two in the middle.
    ///
    /// Exact up to 65,536 replies; beyond, the median of an evenly spaced part of at
    /// least 32,768.
    pub median: Duration,
    /// Longest delay.
    pub max: Duration,
    /// The least delay that so many of all do not exceed, for each of [`PERCENTILES`].
    /// As exact as the median.
    pub percentiles: [Duration; PERCENTILES.len()],
    /// Standard deviation, estimated from the sample (divided by one less than the
    /// number of delays) and rounded to whole nanoseconds; `None` of a single delay.
    pub deviation: Option<Duration>,
}

impl Delays {
    /// Returns the shortest delay in whole microseconds, rounded half up.
    pub fn min_us(&self) -> u64 {
        whole_microseconds(self.min)
    }

    /// Returns the mean delay in whole microseconds, rounded half up.
    pub fn mean_us(&self) -> u64 {
        whole_microseconds(self.mean)
    }

    /// Returns the median delay in whole microseconds, rounded half up.
    pub fn median_us(&self) -> u64 {
        whole_microseconds(self.median)
    }

    /// Returns the longest delay in whole microseconds, rounded half up.
    pub fn max_us(&self) -> u64 {
        whole_microseconds(self.max)
    }
}

/// Returns `delay` in whole microseconds, rounded half up.
pub fn whole_microseconds(delay: Duration) -> u64 {
    let microseconds = (delay.as_nanos() + 500) / 1000;
    u64::try_from(microseconds).unwrap_or(u64::MAX)
}

/// Adds up the requests of a run, one at a time, in bounded memory.
#[derive(Debug, Clone, Default)]
pub struct Summation {
    /// The counts so far; `delays` stays `None` here.
    counts: Summary,
    /// The delays so far.
    samples: Samples,
    /// How many of the latest requests are lost.
    loss_run: u64,
}

impl Summation {
    /// Adds one request.
    pub fn add(&mut self, echo: &Echo) {
        let counts = &mut self.counts;
        match echo.outcome {
            Outcome::Error(EchoError::NotSent(_)) => {
                counts.not_sent += 1;
                return;
            }
            Outcome::Error(EchoError::Reported { .. }) => {
                counts.reported += 1;
                counts.lost += 1;
            }
            Outcome::Lost => counts.lost += 1,
            Outcome::Pending => counts.pending += 1,
            Outcome::Reply(reply) => {
                counts.received += 1;
                match reply.stamps.delay {
                    StampSource::Kernel => counts.kernel_stamped += 1,
                    StampSource::User => counts.user_stamped += 1,
                }
                self.samples.add(reply.rtt);
            }
        }
        counts.sent += 1;
        let is_lost = matches!(echo.outcome, Outcome::Lost | Outcome::Error(_));
        self.loss_run = if is_lost { self.loss_run + 1 } else { 0 };
        counts.longest_loss_run = counts.longest_loss_run.max(self.loss_run);
    }

    /// Returns the aggregate of the requests added so far.
    pub fn summary(&self) -> Summary {
        Summary { delays: self.samples.delays(), ..self.counts }
    }
}

/// Delays, for their distribution.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples {
    /// How many delays were added.
    count: u64,
    /// Their sum in nanoseconds.
    sum: u128,
    /// Their mean in nanoseconds, carried along for `squares`.
    mean: f64,
    /// The sum of the squares of their distances from the mean (Welford's algorithm).
    squares: f64,
    /// The shortest.
    min: Duration,
    /// The longest.
    max: Duration,
    /// Every `1 << thinning`th delay.
    kept: Vec<Duration>,
    /// How often every other kept delay was dropped.
    thinning: u32,
}

impl Samples {
    /// Adds one delay.
    pub(crate) fn add(&mut self, delay: Duration) {
        self.min = if self.count == 0 { delay } else { self.min.min(delay) };
        self.max = self.max.max(delay);
        self.sum += delay.as_nanos();
        if self.count.is_multiple_of(1 << self.thinning) {
            if self.kept.len() == MAX_SAMPLES {
                let mut is_kept = false;
                self.kept.retain(|_| {
                    is_kept = !is_kept;
                    is_kept
                });
                self.thinning += 1;
            }
            // The count is 2^16 times the old step here: a multiple of the new step.
            self.kept.push(delay);
        }
        self.count += 1;
        let nanoseconds = delay.as_secs_f64() * 1e9;
        let distance = nanoseconds - self.mean;
        self.mean += distance / as_real(self.count);
        self.squares += distance * (nanoseconds - self.mean);
    }

    /// Returns the distribution, `None` when there are no delays.
    pub(crate) fn delays(&self) -> Option<Delays> {
        let count = u128::from(self.count);
        let mean = self.sum.checked_div(count)?;
        let mut sorted = self.kept.clone();
        sorted.sort_unstable();
        let others = self.count.checked_sub(1).filter(|others| *others > 0);
        let deviation = others
            .map(|others| (self.squares / as_real(others)).max(0.0).sqrt())
            .and_then(|ns| Duration::try_from_secs_f64(ns / 1e9).ok());
        Some(Delays {
            min: self.min,
            mean: Duration::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX)),
            median: median(&sorted)?,
            max: self.max,
            percentiles: PERCENTILES
                .map(|percent| percentile(&sorted, percent).unwrap_or(self.max)),
            deviation,
        })
    }
}

/// Returns a number of delays as a real number.
fn as_real(count: u64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "no run has more than 2⁵³ delays, and a mean bears the rounding"
    )]
    let real = count as f64;
    real
}

/// Returns the least of the sorted delays that at least `percent` of all do not exceed.
fn percentile(delays: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (delays.len() * percent).div_ceil(100);
    delays.get(rank.checked_sub(1)?).copied()
}

/// Returns the median of sorted delays; of an even number, the mean of the two in the
/// middle.
fn median(delays: &[Duration]) -> Option<Duration> {
    let upper = *delays.get(delays.len() / 2)?;
    if delays.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *delays.get((delays.len() / 2).checked_sub(1)?)?;
    Some(lower + upper.saturating_sub(lower) / 2)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::packet::{Obstacle, Problem, StampSources};
    use crate::ping::Reply;

    /// Adds up requests with these outcomes.
    fn summary(outcomes: impl IntoIterator<Item = Outcome>) -> Summary {
        let mut summation = Summation::default();
        for (sequence, outcome) in (0..).zip(outcomes) {
            let sent_utc = Timestamp::UNIX_EPOCH;
            summation.add(&Echo { sequence, sent_utc, outcome });
        }
        summation.summary()
    }

    /// A reply after `ns` nanoseconds.
    fn reply(ns: u64) -> Outcome {
        let kernel = StampSource::Kernel;
        let stamps = StampSources { transmit: kernel, receive: kernel, delay: kernel };
        Outcome::Reply(Reply { rtt: Duration::from_nanos(ns), stamps, hop_limit: None })
    }

    #[test]
    fn of_nothing_received_has_no_delays_rather_than_zero() {
        let of_losses = summary([Outcome::Lost, Outcome::Lost]);
        let expected = Summary { sent: 2, lost: 2, ..Summary::default() };
        assert_eq!(of_losses, Summary { longest_loss_run: 2, ..expected });
        assert_eq!(of_losses.delays, None);
        assert_eq!(summary([]), Summary::default());
    }

    #[test]
    fn counts_each_fate_apart_and_sent_is_their_sum() {
        let reported =
            EchoError::Reported { from: None, problem: Problem::HopLimitExceeded };
        let summary = summary([
            reply(1000),
            Outcome::Lost,
            Outcome::Pending,
            Outcome::Error(reported),
            Outcome::Error(EchoError::NotSent(Obstacle::Prohibited)),
        ]);
        assert_eq!((summary.sent, summary.received, summary.lost), (4, 1, 2));
        assert_eq!((summary.reported, summary.pending, summary.not_sent), (1, 1, 1));
        assert_eq!((summary.kernel_stamped, summary.user_stamped), (1, 0));
    }

    #[test]
    fn rounds_half_a_microsecond_up() {
        let delays = summary([reply(1499), reply(2500), reply(3500), reply(10_000)])
            .delays
            .expect("replies came");
        assert_eq!(delays.min_us(), 1);
        assert_eq!(delays.median_us(), 3);
        assert_eq!(delays.mean, Duration::from_nanos(4374));
        assert_eq!(delays.mean_us(), 4);
        assert_eq!(delays.max_us(), 10);
        assert_eq!(whole_microseconds(Duration::from_nanos(500)), 1);
    }

    #[test]
    fn median_of_an_odd_number_is_the_one_in_the_middle() {
        let delays = summary([reply(9), reply(1), reply(5)]).delays.expect("replies");
        assert_eq!(delays.median, Duration::from_nanos(5));
    }

    #[test]
    fn percentiles_are_delays_that_were_measured() {
        let of = |delays: &mut dyn Iterator<Item = u64>| {
            let delays = summary(delays.map(reply)).delays.expect("replies");
            delays.percentiles.map(|delay| delay.as_nanos())
        };
        assert_eq!(of(&mut (1..=100)), [25, 75, 95, 99]);
        assert_eq!(of(&mut (1..=101)), [26, 76, 96, 100]);
        assert_eq!(of(&mut (1..=4)), [1, 3, 4, 4]);
        assert_eq!(of(&mut [7].into_iter()), [7; 4]);
    }

    #[test]
    fn deviation_is_that_of_the_sample() {
        let of = |delays: &[u64]| {
            let delays = summary(delays.iter().map(|ns| reply(*ns))).delays;
            delays.expect("replies").deviation.map(|deviation| deviation.as_nanos())
        };
        assert_eq!(of(&[5000]), None, "a single delay has none");
        assert_eq!(of(&[5000, 5000, 5000]), Some(0));
        // Squares of 3000, 1000, 1000, 3000 over 3: the root of 6,666,666.6.
        assert_eq!(of(&[7000, 9000, 11_000, 13_000]), Some(2582));
        // Far from zero, where sums of squares would lose the difference.
        let far = 4_000_000_000_000;
        assert_eq!(of(&[far, far + 1000]), Some(707));
    }

    #[test]
    fn the_longest_loss_run_is_of_requests_that_left() {
        let not_sent = Outcome::Error(EchoError::NotSent(Obstacle::Prohibited));
        let outcomes =
            [Outcome::Lost, reply(1), Outcome::Lost, not_sent, Outcome::Lost, reply(1)];
        assert_eq!(summary(outcomes).longest_loss_run, 2);
        assert_eq!(summary([reply(1)]).longest_loss_run, 0);
    }

    #[test]
    fn keeps_a_bounded_number_of_delays() {
        let mut samples = Samples::default();
        let count = 5 * MAX_SAMPLES as u64;
        for nanoseconds in 0..count {
            samples.add(Duration::from_nanos(nanoseconds));
        }
        assert!((MAX_SAMPLES / 2..=MAX_SAMPLES).contains(&samples.kept.len()));
        let delays = samples.delays().expect("samples");
        let error = delays.median.abs_diff(Duration::from_nanos(count / 2));
        assert!(error <= Duration::from_nanos(8), "{error:?}");
        assert_eq!(delays.max, Duration::from_nanos(count - 1));
        assert_eq!(delays.min, Duration::ZERO);
    }
}
