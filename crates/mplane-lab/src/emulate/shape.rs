//! What one direction of a link does to packets.
//!
//! A packet meets, in this order: the silent limit on its size, the queue before the line,
//! the line itself (rate), loss, delay with jitter, duplication. So a packet that is lost
//! has used the line, and one that the queue refuses has not.

use std::num::NonZeroU64;
use std::time::Duration;

/// What one direction of a link does to packets.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// How long a packet takes at least, once it has left the queue.
    pub delay: Duration,
    /// How much longer it may take.
    pub jitter: Duration,
    /// How the jitter is distributed.
    pub jitter_distribution: Distribution,
    /// How probable it is that a packet is lost, each for itself.
    pub loss: Probability,
    /// Losses that come in bursts, besides `loss`.
    pub burst_loss: Option<BurstLoss>,
    /// How probable it is that a packet arrives twice.
    pub duplicate: Probability,
    /// Packets that others overtake. Without it packets keep their order.
    pub reorder: Option<Reorder>,
    /// Bits of IP packets that the line takes in a second; without it, any number at once.
    pub rate_bps: Option<NonZeroU64>,
    /// What waits for the line at most. Without a rate nothing waits.
    pub queue: QueueLimit,
    /// Packets longer than this vanish without a word, as in a path MTU black hole.
    pub silent_mtu: Option<u32>,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            jitter_distribution: Distribution::Uniform,
            loss: Probability::NEVER,
            burst_loss: None,
            duplicate: Probability::NEVER,
            reorder: None,
            rate_bps: None,
            queue: QueueLimit::default(),
            silent_mtu: None,
        }
    }
}

/// How the jitter of a direction is distributed. It is never negative: `delay` is what no
/// packet falls below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Distribution {
    /// Evenly between zero and `jitter`.
    Uniform,
    /// Exponentially with `jitter` as its mean, as behind a queue; at most ten times it.
    Exponential,
}

/// A probability: from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, serde::Deserialize)]
#[serde(try_from = "f64")]
pub struct Probability(f64);

impl Probability {
    /// What never happens.
    pub const NEVER: Self = Self(0.0);
    /// What always happens.
    pub const ALWAYS: Self = Self(1.0);

    /// Returns whether it happens when `drawn`, from 0 to less than 1, was drawn.
    pub(super) fn happens(self, drawn: f64) -> bool {
        drawn < self.0
    }
}

impl TryFrom<f64> for Probability {
    type Error = ProbabilityError;

    fn try_from(value: f64) -> Result<Self, ProbabilityError> {
        (0.0..=1.0).contains(&value).then_some(Self(value)).ok_or(ProbabilityError(value))
    }
}

/// A number that is no probability.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("a probability is a number from 0 to 1, not {0}")]
pub struct ProbabilityError(f64);

/// Loss after Gilbert and Elliott: the direction is good or bad, and each packet may
/// change that before it is lost or not.
///
/// Source: E. O. Elliott, "Estimates of Error Rates for Codes on Burst-Noise Channels",
/// Bell System Technical Journal 42 (1963). A burst has 1 / `leave` packets in the mean.
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BurstLoss {
    /// How probable it is that a packet makes a good direction bad.
    pub enter: Probability,
    /// How probable it is that a packet makes a bad direction good.
    pub leave: Probability,
    /// How probable loss is while the direction is bad.
    #[serde(default = "always")]
    pub loss: Probability,
}

/// All packets of a burst are lost unless another probability is given.
fn always() -> Probability {
    Probability::ALWAYS
}

/// Packets that are held back, so that those behind them may overtake.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reorder {
    /// How probable it is that a packet is held back.
    pub probability: Probability,
    /// How much later it departs.
    pub by: Duration,
}

/// What may wait for the line. A packet beyond it is dropped (tail drop); the packet on
/// the line does not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimit {
    /// How many packets.
    pub packets: u64,
    /// How many bytes of packets.
    pub bytes: u64,
}

impl Default for QueueLimit {
    /// As many packets as Linux lets wait for a network interface, of any size.
    fn default() -> Self {
        Self { packets: 1000, bytes: u64::MAX }
    }
}

/// A change of a shape: what is given replaces what was.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// Replaces [`Shape::delay`].
    pub delay: Option<Duration>,
    /// Replaces [`Shape::jitter`].
    pub jitter: Option<Duration>,
    /// Replaces [`Shape::jitter_distribution`].
    pub jitter_distribution: Option<Distribution>,
    /// Replaces [`Shape::loss`].
    pub loss: Option<Probability>,
    /// Replaces [`Shape::burst_loss`]. The direction stays good or bad.
    pub burst_loss: Option<BurstLoss>,
    /// Replaces [`Shape::duplicate`].
    pub duplicate: Option<Probability>,
    /// Replaces [`Shape::reorder`].
    pub reorder: Option<Reorder>,
    /// Replaces [`Shape::rate_bps`]; the inner `None` is "unlimited". What waits already
    /// departs as was decided when it came.
    pub rate_bps: Option<Option<NonZeroU64>>,
    /// Replaces the number of packets in [`Shape::queue`].
    pub queue_packets: Option<u64>,
    /// Replaces the number of bytes in [`Shape::queue`].
    pub queue_bytes: Option<u64>,
    /// Replaces [`Shape::silent_mtu`].
    pub silent_mtu: Option<u32>,
}

impl Change {
    /// Changes a shape.
    pub fn apply(&self, shape: &mut Shape) {
        /// Replaces a value if there is another.
        fn replace<T: Clone>(value: &mut T, other: Option<&T>) {
            if let Some(other) = other {
                value.clone_from(other);
            }
        }
        replace(&mut shape.delay, self.delay.as_ref());
        replace(&mut shape.jitter, self.jitter.as_ref());
        replace(&mut shape.jitter_distribution, self.jitter_distribution.as_ref());
        replace(&mut shape.loss, self.loss.as_ref());
        replace(&mut shape.duplicate, self.duplicate.as_ref());
        replace(&mut shape.rate_bps, self.rate_bps.as_ref());
        replace(&mut shape.queue.packets, self.queue_packets.as_ref());
        replace(&mut shape.queue.bytes, self.queue_bytes.as_ref());
        shape.burst_loss = self.burst_loss.or(shape.burst_loss);
        shape.reorder = self.reorder.or(shape.reorder);
        shape.silent_mtu = self.silent_mtu.or(shape.silent_mtu);
    }
}
