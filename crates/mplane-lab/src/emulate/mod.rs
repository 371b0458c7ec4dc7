//! What becomes of packets on a link: pure decisions, without device and clock.
//!
//! A [`Direction`] is asked once for each packet, in the order of their arrival, and says
//! what becomes of it. Times are counted from the start of the lab. The same seed, packets
//! and times give the same answers; without a rate and without changes the fates depend on
//! the order of the packets alone.
//!
//! Each purpose (loss, bursts, duplication, reordering, jitter) draws from a stream of its
//! own, one number for each packet whether it is used or not. So a change of one parameter
//! does not change what the others do.

mod shape;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

pub use shape::{
    BurstLoss, Change, Distribution, Probability, ProbabilityError, QueueLimit, Reorder,
    Shape,
};

/// The longest exponential jitter, in means: one packet in 22,000 would take longer.
const LONGEST_EXPONENTIAL: f64 = 10.0;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does not arrive.
    Dropped(Reason),
    /// It arrives.
    Passed {
        /// When it departs from the link, from the start of the lab.
        at: Duration,
        /// Whether it was held back for others to overtake.
        is_held: bool,
        /// Whether a copy follows at once.
        is_duplicated: bool,
    },
}

/// Why a packet does not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Lost on the line, for itself.
    Random,
    /// Lost on the line, in a burst.
    Burst,
    /// The queue before the line was full.
    QueueFull,
    /// It was longer than the silent limit.
    TooLong,
}

/// One direction of a link.
#[derive(Clone, Debug)]
pub struct Direction {
    shape: Shape,
    /// What is still to change, and when; the earliest first.
    changes: VecDeque<(Duration, Change)>,
    streams: Streams,
    /// Whether a burst of losses goes on.
    is_bad: bool,
    /// When the line has sent what it has accepted.
    free_at: Duration,
    /// What waits for the line: when its transmission starts, and its bytes.
    waiting: VecDeque<(Duration, u64)>,
    /// The bytes of what waits.
    waiting_bytes: u64,
    /// The latest departure so far of a packet that keeps its place.
    last: Duration,
}

impl Direction {
    /// Makes a direction. `seed` is the lab's, `number` tells the directions of a lab
    /// apart; `changes` are in the order of their times.
    pub fn new(
        shape: Shape,
        changes: impl IntoIterator<Item = (Duration, Change)>,
        seed: u64,
        number: usize,
    ) -> Self {
        Self {
            shape,
            changes: changes.into_iter().collect(),
            streams: Streams::new(seed, number),
            is_bad: false,
            free_at: Duration::ZERO,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            last: Duration::ZERO,
        }
    }

    /// Says what becomes of a packet of `bytes` that arrives at `now`, which must not be
    /// earlier than that of the packet before.
    pub fn accept(&mut self, bytes: u32, now: Duration) -> Verdict {
        while let Some((_, change)) = self.changes.pop_front_if(|(at, _)| *at <= now) {
            change.apply(&mut self.shape);
        }
        // Drawn for every packet, whatever becomes of it.
        let drawn = self.streams.draw();
        let in_burst = self.is_in_burst(&drawn);
        if self.shape.silent_mtu.is_some_and(|most| bytes > most) {
            return Verdict::Dropped(Reason::TooLong);
        }
        let Some(sent) = self.transmit(u64::from(bytes), now) else {
            return Verdict::Dropped(Reason::QueueFull);
        };
        if in_burst {
            return Verdict::Dropped(Reason::Burst);
        }
        if self.shape.loss.happens(drawn.loss) {
            return Verdict::Dropped(Reason::Random);
        }
        let at = sent + self.shape.delay + self.jitter(drawn.jitter);
        let is_duplicated = self.shape.duplicate.happens(drawn.duplicate);
        let held =
            self.shape.reorder.filter(|held| held.probability.happens(drawn.reorder));
        if let Some(Reorder { by, .. }) = held {
            return Verdict::Passed { at: at + by, is_held: true, is_duplicated };
        }
        self.last = at.max(self.last);
        Verdict::Passed { at: self.last, is_held: false, is_duplicated }
    }

    /// Moves between good and bad, and says whether the packet is lost in a burst.
    fn is_in_burst(&mut self, drawn: &Drawn) -> bool {
        let Some(burst) = self.shape.burst_loss else { return false };
        let turn = if self.is_bad { burst.leave } else { burst.enter };
        self.is_bad ^= turn.happens(drawn.burst_turn);
        self.is_bad && burst.loss.happens(drawn.burst_loss)
    }

    /// Queues a packet and puts it on the line. Returns when it is sent wholly, or nothing
    /// if the queue is full.
    fn transmit(&mut self, bytes: u64, now: Duration) -> Option<Duration> {
        while let Some((_, sent)) = self.waiting.pop_front_if(|(start, _)| *start <= now)
        {
            self.waiting_bytes -= sent;
        }
        let Some(rate) = self.shape.rate_bps else {
            // Nothing waits for an unlimited line but what waited before it became so.
            return Some(now.max(self.free_at));
        };
        let start = now.max(self.free_at);
        if start > now {
            let limit = self.shape.queue;
            let packets = u64::try_from(self.waiting.len()).unwrap_or(u64::MAX);
            if packets >= limit.packets || self.waiting_bytes + bytes > limit.bytes {
                return None;
            }
            self.waiting.push_back((start, bytes));
            self.waiting_bytes += bytes;
        }
        let nanos = (u128::from(bytes) * 8 * 1_000_000_000).div_ceil(rate.get().into());
        // 64 KiB at 1 bit/s are 6 days.
        let took = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.free_at = start + took;
        Some(self.free_at)
    }

    /// Returns the jitter that belongs to a drawn number.
    fn jitter(&self, drawn: f64) -> Duration {
        let factor = match self.shape.jitter_distribution {
            Distribution::Uniform => drawn,
            Distribution::Exponential => (-(1.0 - drawn).ln()).min(LONGEST_EXPONENTIAL),
        };
        self.shape.jitter.mul_f64(factor)
    }
}

/// The numbers drawn for one packet, each from 0 to less than 1.
#[derive(Debug)]
struct Drawn {
    loss: f64,
    burst_turn: f64,
    burst_loss: f64,
    duplicate: f64,
    reorder: f64,
    jitter: f64,
}

/// The streams of random numbers of a direction, one for each purpose.
///
/// All streams of a lab are parts of one sequence, 2^128 numbers apart.
#[derive(Clone, Debug)]
struct Streams([Xoshiro256PlusPlus; 6]);

impl Streams {
    /// Makes the streams of the direction with this number.
    fn new(seed: u64, number: usize) -> Self {
        let mut next = Xoshiro256PlusPlus::seed_from_u64(seed);
        for _ in 0..number {
            next.long_jump();
        }
        Self(std::array::from_fn(|_| {
            let stream = next.clone();
            next.jump();
            stream
        }))
    }

    /// Draws the numbers for one packet.
    fn draw(&mut self) -> Drawn {
        let [loss, burst_turn, burst_loss, duplicate, reorder, jitter] =
            self.0.each_mut().map(unit);
        Drawn { loss, burst_turn, burst_loss, duplicate, reorder, jitter }
    }
}

/// Draws a number from 0 to less than 1: the upper 53 bits, as many as an `f64` holds.
fn unit(stream: &mut Xoshiro256PlusPlus) -> f64 {
    let bits = stream.next_u64() >> 11;
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    let number = bits as f64;
    number / 9_007_199_254_740_992.0
}
