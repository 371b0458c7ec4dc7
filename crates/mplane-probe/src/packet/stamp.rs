//! Times at which a packet was sent and seen, and the delay between them.
//!
//! Units: nanoseconds. Clocks: user stamps carry the monotonic clock, as time since
//! the start of the run, and UTC, read together; kernel stamps are UTC
//! (`CLOCK_REALTIME`), the only clock the kernel stamps packets with.
//!
//! Source: Linux documentation "Timestamping" (`SO_TIMESTAMPING`, software stamps);
//! RFC 3550 and RFC 2681 for what a round-trip delay is: from the first bit sent to
//! the last bit received, as near to the wire as the stamps can be taken.

use std::time::Duration;

use jiff::Timestamp;

/// By how much two pairs of clock readings may disagree and still be one clock.
///
/// Covers the gap between reading the monotonic clock and UTC; a clock step smaller
/// than this is the largest error a kernel-stamped delay can have.
const CLOCK_AGREEMENT: Duration = Duration::from_micros(100);

/// Part of a delay by which UTC may drift from the monotonic clock: one in a
/// thousand, twice what the kernel slews by (500 parts per million).
const CLOCK_DRIFT_DIVISOR: u32 = 1000;

/// Both clocks of this process, read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserStamp {
    /// Monotonic time since the start of the run.
    pub monotonic: Duration,
    /// Wall clock time.
    pub utc: Timestamp,
}

/// When a packet left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransmitStamp {
    /// Read immediately before the packet was handed to the kernel.
    pub user: UserStamp,
    /// When the kernel handed the packet to the network driver, if it told.
    pub kernel: Option<Timestamp>,
}

/// When a packet arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiveStamp {
    /// Read immediately after the packet was taken from the kernel.
    pub user: UserStamp,
    /// When the kernel took the packet from the network driver, if it told.
    pub kernel: Option<Timestamp>,
}

/// Who took a stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StampSource {
    /// The kernel, beside the network driver.
    Kernel,
    /// This process; includes the time until it was scheduled.
    User,
}

/// Where the two stamps of a delay come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StampSources {
    /// The best stamp there was of the request leaving.
    pub transmit: StampSource,
    /// The best stamp there was of the reply arriving.
    pub receive: StampSource,
    /// The clock of the delay: `Kernel` only if both ends have a kernel stamp that
    /// can be trusted, else the monotonic clock of this process at both ends.
    pub delay: StampSource,
}

/// Returns the time from `sent` to `received`, and the stamps it was computed from.
///
/// The two ends are never taken from different clocks. Kernel stamps are not used if
/// UTC was stepped between the ends (UTC and the monotonic clock then disagree on how
/// long the process waited), or if they lie outside the time the process waited
/// (then a stamp belongs to another packet).
pub fn round_trip(
    sent: &TransmitStamp,
    received: &ReceiveStamp,
) -> (Duration, StampSources) {
    let waited = received.user.monotonic.saturating_sub(sent.user.monotonic);
    let kernel = sent
        .kernel
        .zip(received.kernel)
        .and_then(|(left, arrived)| kernel_delay(sent, received, waited, left, arrived));
    let source_of =
        |stamp: Option<_>| stamp.map_or(StampSource::User, |_| StampSource::Kernel);
    let sources = StampSources {
        transmit: source_of(sent.kernel),
        receive: source_of(received.kernel),
        delay: kernel.map_or(StampSource::User, |_| StampSource::Kernel),
    };
    (kernel.unwrap_or(waited), sources)
}

/// Returns the delay between two kernel stamps, unless it is implausible.
fn kernel_delay(
    sent: &TransmitStamp,
    received: &ReceiveStamp,
    waited: Duration,
    left: Timestamp,
    arrived: Timestamp,
) -> Option<Duration> {
    let tolerance = CLOCK_AGREEMENT + waited / CLOCK_DRIFT_DIVISOR;
    let waited_utc = forward(sent.user.utc, received.user.utc, tolerance)?;
    if waited_utc.abs_diff(waited) > tolerance {
        return None;
    }
    forward(sent.user.utc, left, tolerance)?;
    forward(arrived, received.user.utc, tolerance)?;
    forward(left, arrived, Duration::ZERO)
}

/// Returns the time from `earlier` to `later`; `None` if it is negative by more than
/// `tolerance`, zero if by less.
fn forward(
    earlier: Timestamp,
    later: Timestamp,
    tolerance: Duration,
) -> Option<Duration> {
    let elapsed = later.duration_since(earlier);
    let distance = elapsed.unsigned_abs();
    if !elapsed.is_negative() {
        Some(distance)
    } else if distance <= tolerance {
        Some(Duration::ZERO)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A moment of UTC, in microseconds after an arbitrary start.
    fn utc(us: i64) -> Timestamp {
        Timestamp::from_microsecond(1_700_000_000_000_000 + us).expect("in range")
    }

    /// A reading of both clocks that were started together.
    fn user(us: u32) -> UserStamp {
        UserStamp { monotonic: Duration::from_micros(us.into()), utc: utc(us.into()) }
    }

    /// A request sent at `us`, stamped by the kernel at `kernel_us`.
    fn sent(us: u32, kernel_us: Option<i64>) -> TransmitStamp {
        TransmitStamp { user: user(us), kernel: kernel_us.map(utc) }
    }

    /// A reply taken at `us`, stamped by the kernel at `kernel_us`.
    fn received(us: u32, kernel_us: Option<i64>) -> ReceiveStamp {
        ReceiveStamp { user: user(us), kernel: kernel_us.map(utc) }
    }

    /// Checks the delay and the clock it was taken from.
    fn check(
        sent: &TransmitStamp,
        received: &ReceiveStamp,
        us: u64,
        delay: StampSource,
    ) -> StampSources {
        let (rtt, sources) = round_trip(sent, received);
        assert_eq!((rtt, sources.delay), (Duration::from_micros(us), delay));
        sources
    }

    #[test]
    fn takes_the_kernel_clock_when_both_ends_have_it() {
        check(&sent(100, Some(110)), &received(900, Some(870)), 760, StampSource::Kernel);
    }

    #[test]
    fn trusts_the_kernel_when_the_process_was_scheduled_late() {
        let received = received(5_000_100, Some(500));
        check(&sent(100, Some(110)), &received, 390, StampSource::Kernel);
    }

    #[test]
    fn never_mixes_clocks_when_one_stamp_is_missing() {
        let sources =
            check(&sent(100, None), &received(900, Some(870)), 800, StampSource::User);
        assert_eq!(sources.transmit, StampSource::User);
        assert_eq!(sources.receive, StampSource::Kernel);
        check(&sent(100, Some(110)), &received(900, None), 800, StampSource::User);
    }

    #[test]
    fn takes_the_monotonic_clock_when_utc_was_stepped() {
        for step_us in [-3_600_000_000, -1_000_000, -500, 500, 50_000, 3_600_000_000] {
            let mut received = received(900, Some(870 + step_us));
            received.user.utc = utc(900 + step_us);
            check(&sent(100, Some(110)), &received, 800, StampSource::User);
        }
    }

    #[test]
    fn does_not_use_stamps_of_another_packet() {
        let of_an_earlier_packet = sent(1_000_000, Some(110));
        check(
            &of_an_earlier_packet,
            &received(1_000_900, Some(1_000_870)),
            900,
            StampSource::User,
        );
        let of_a_later_packet = sent(100, Some(1_000_110));
        check(&of_a_later_packet, &received(900, Some(870)), 800, StampSource::User);
        check(&sent(100, Some(110)), &received(900, Some(9_000)), 800, StampSource::User);
    }

    #[test]
    fn a_reply_read_before_it_was_sent_has_no_negative_delay() {
        check(&sent(900, None), &received(100, None), 0, StampSource::User);
    }
}
