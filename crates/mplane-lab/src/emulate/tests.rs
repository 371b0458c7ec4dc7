//! Laws of the emulation, on made-up times.

use std::num::NonZeroU64;

use proptest::prelude::*;

use super::*;

/// A probability.
fn probability(value: f64) -> Probability {
    Probability::try_from(value).expect("a probability")
}

/// Milliseconds.
const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A direction of a lab with seed 1.
fn direction(shape: Shape) -> Direction {
    Direction::new(shape, [], 1, 0)
}

/// What becomes of packets of `bytes`, one each `period`.
fn run(
    mut direction: Direction,
    count: u32,
    bytes: u32,
    period: Duration,
) -> Vec<Verdict> {
    (0..count).map(|index| direction.accept(bytes, period * index)).collect()
}

/// Counts verdicts.
fn count(verdicts: &[Verdict], is_it: impl Fn(&Verdict) -> bool) -> usize {
    verdicts.iter().filter(|verdict| is_it(verdict)).count()
}

/// A packet that departs in its place, alone.
fn passed(at: Duration) -> Verdict {
    Verdict::Passed { at, is_held: false, is_duplicated: false }
}

#[test]
fn an_empty_shape_passes_everything_at_once() {
    let verdicts = run(direction(Shape::default()), 3, 1500, ms(1));
    assert_eq!(verdicts, [passed(ms(0)), passed(ms(1)), passed(ms(2))]);
}

#[test]
fn the_line_takes_time_for_each_byte_and_the_queue_has_an_end() {
    // 1000 bytes at 1 Mbit/s take 8 ms. One is on the line, two wait, the fourth is refused.
    let shape = Shape {
        rate_bps: NonZeroU64::new(1_000_000),
        queue: QueueLimit { packets: 2, bytes: u64::MAX },
        delay: ms(5),
        ..Shape::default()
    };
    let mut line = direction(shape);
    let at_once: Vec<_> = (0..4).map(|_| line.accept(1000, ms(0))).collect();
    let full = Verdict::Dropped(Reason::QueueFull);
    assert_eq!(at_once, [passed(ms(13)), passed(ms(21)), passed(ms(29)), full]);
    // After 8 ms the second is on the line, so one place is free.
    assert_eq!(line.accept(1000, ms(8)), passed(ms(37)));
    assert_eq!(line.accept(1000, ms(8)), full);
    // An idle line takes a packet that no queue would hold.
    let shape = Shape {
        rate_bps: NonZeroU64::new(1_000_000),
        queue: QueueLimit { packets: 0, bytes: 0 },
        ..Shape::default()
    };
    let mut line = direction(shape);
    assert_eq!(line.accept(1000, ms(1)), passed(ms(9)));
    assert_eq!(line.accept(1, ms(2)), full);
    assert_eq!(line.accept(1000, ms(9)), passed(ms(17)));
}

#[test]
fn a_queue_may_be_limited_in_bytes() {
    let shape = Shape {
        rate_bps: NonZeroU64::new(1_000_000),
        queue: QueueLimit { packets: u64::MAX, bytes: 1500 },
        ..Shape::default()
    };
    let mut line = direction(shape);
    assert_eq!(line.accept(1000, ms(0)), passed(ms(8)));
    assert_eq!(line.accept(1000, ms(0)), passed(ms(16)));
    assert_eq!(line.accept(1000, ms(0)), Verdict::Dropped(Reason::QueueFull));
    assert_eq!(line.accept(500, ms(0)), passed(ms(20)));
    assert_eq!(line.accept(1, ms(0)), Verdict::Dropped(Reason::QueueFull));
}

#[test]
fn a_line_that_becomes_unlimited_still_keeps_the_order() {
    let shape = Shape { rate_bps: NonZeroU64::new(1_000_000), ..Shape::default() };
    let unlimited = Change { rate_bps: Some(None), ..Change::default() };
    let mut line = Direction::new(shape, [(ms(1), unlimited)], 1, 0);
    assert_eq!(line.accept(1000, ms(0)), passed(ms(8)));
    assert_eq!(line.accept(1000, ms(1)), passed(ms(8)));
    assert_eq!(line.accept(1000, ms(9)), passed(ms(9)));
}

#[test]
fn packets_longer_than_the_silent_limit_vanish() {
    let shape = Shape { silent_mtu: Some(1400), ..Shape::default() };
    let mut line = direction(shape);
    assert_eq!(line.accept(1400, ms(0)), passed(ms(0)));
    assert_eq!(line.accept(1401, ms(0)), Verdict::Dropped(Reason::TooLong));
}

#[test]
fn losses_are_as_frequent_as_asked() {
    let shape = Shape { loss: probability(0.1), ..Shape::default() };
    let verdicts = run(direction(shape), 100_000, 100, ms(1));
    let lost = count(&verdicts, |verdict| *verdict == Verdict::Dropped(Reason::Random));
    // Five standard deviations are 474.
    assert!((9_500..=10_500).contains(&lost), "{lost}");
}

#[test]
fn bursts_are_as_long_as_asked() {
    let burst =
        BurstLoss { enter: probability(0.01), leave: probability(0.25), loss: always() };
    let shape = Shape { burst_loss: Some(burst), ..Shape::default() };
    let verdicts = run(direction(shape), 200_000, 100, ms(1));
    let is_lost = |verdict: &Verdict| *verdict == Verdict::Dropped(Reason::Burst);
    let bursts = verdicts.chunk_by(|one, two| is_lost(one) == is_lost(two));
    let lengths: Vec<_> =
        bursts.filter(|run| run.iter().all(is_lost)).map(<[_]>::len).collect();
    let lost: usize = lengths.iter().sum();
    // A burst has 4 packets in the mean; 1/26 of all packets are in bursts.
    assert!((35..=45).contains(&(lost * 10 / lengths.len())), "{lost} {}", lengths.len());
    assert!((6_700..=8_700).contains(&lost), "{lost}");
}

/// What always happens.
fn always() -> Probability {
    Probability::ALWAYS
}

#[test]
fn held_packets_are_overtaken_and_only_they() {
    let reorder = Reorder { probability: probability(0.1), by: ms(5) };
    let shape = Shape { delay: ms(10), reorder: Some(reorder), ..Shape::default() };
    let verdicts = run(direction(shape), 1000, 100, ms(1));
    let mut held = 0;
    for (verdict, index) in verdicts.iter().zip(0..) {
        let Verdict::Passed { at, is_held, .. } = *verdict else { panic!("{verdict:?}") };
        let late = if is_held { ms(15) } else { ms(10) };
        assert_eq!(at, ms(index) + late);
        held += usize::from(is_held);
    }
    assert!((50..=150).contains(&held), "{held}");
}

#[test]
fn changes_come_at_their_times() {
    let later = Change { delay: Some(ms(50)), ..Change::default() };
    let down = Change { loss: Some(Probability::ALWAYS), ..Change::default() };
    let changes = [(ms(10), later), (ms(20), down)];
    let mut line = Direction::new(Shape::default(), changes, 1, 0);
    assert_eq!(line.accept(1, ms(9)), passed(ms(9)));
    assert_eq!(line.accept(1, ms(10)), passed(ms(60)));
    assert_eq!(line.accept(1, ms(20)), Verdict::Dropped(Reason::Random));
}

#[test]
fn exponential_jitter_has_its_mean_and_an_end() {
    let shape = Shape {
        jitter: ms(1),
        jitter_distribution: Distribution::Exponential,
        ..Shape::default()
    };
    // So far apart that no packet waits for the one before.
    let verdicts = run(direction(shape), 100_000, 100, ms(100));
    let jitter: Vec<_> = verdicts
        .iter()
        .zip(0..)
        .map(|(verdict, index)| match verdict {
            Verdict::Passed { at, .. } => at.saturating_sub(ms(100) * index),
            Verdict::Dropped(_) => panic!("nothing is lost"),
        })
        .collect();
    let mean = jitter.iter().sum::<Duration>() / 100_000;
    assert!(mean > Duration::from_micros(980) && mean < Duration::from_micros(1020));
    assert!(jitter.iter().max() <= Some(&ms(10)));
}

#[test]
fn the_streams_are_fixed() {
    // A change of these numbers changes what every seed means.
    let shape = Shape { loss: probability(0.5), ..Shape::default() };
    let fates = |seed, number| -> String {
        let mut line = Direction::new(shape.clone(), [], seed, number);
        let fate = |index| match line.accept(1, ms(index)) {
            Verdict::Dropped(_) => 'x',
            Verdict::Passed { .. } => '.',
        };
        (0..24).map(fate).collect()
    };
    let all = [fates(1, 0), fates(1, 1), fates(2, 0)];
    assert_eq!(all, FIXED);
}

/// What seeds 1 and 2 lose at a probability of one half.
const FIXED: [&str; 3] =
    ["..x.x...xx.xxxxx.x..x.xx", ".x.xxxxx...x.xx.x.xxx.x.", "...xx.x.x......x.xxx...."];

prop_compose! {
    /// Any shape.
    fn shapes()(
        delay in 0_u64..50,
        jitter in 0_u64..20,
        is_exponential in any::<bool>(),
        [loss, enter, leave, duplicate, held] in prop::array::uniform5(0.0..0.3),
        by in 0_u64..30,
        rate in prop::option::of(10_000_u64..100_000_000),
        packets in 0_u64..20,
        silent_mtu in prop::option::of(100_u32..1500),
    ) -> Shape {
        let distribution = [Distribution::Uniform, Distribution::Exponential];
        Shape {
            delay: ms(delay),
            jitter: ms(jitter),
            jitter_distribution: distribution[usize::from(is_exponential)],
            loss: probability(loss),
            burst_loss: Some(BurstLoss {
                enter: probability(enter),
                leave: probability(leave),
                loss: always(),
            }),
            duplicate: probability(duplicate),
            reorder: Some(Reorder { probability: probability(held), by: ms(by) }),
            rate_bps: rate.and_then(NonZeroU64::new),
            queue: QueueLimit { packets, bytes: 20_000 },
            silent_mtu,
        }
    }
}

/// Packets: the pause before each, in microseconds, and its bytes.
fn packets() -> impl Strategy<Value = Vec<(u64, u32)>> {
    prop::collection::vec((0_u64..5_000, 20_u32..1500), 1..200)
}

/// What becomes of packets, with the time of each.
fn verdicts(
    shape: &Shape,
    seed: u64,
    packets: &[(u64, u32)],
) -> Vec<(Duration, Verdict)> {
    let mut line = Direction::new(shape.clone(), [], seed, 3);
    let mut now = Duration::ZERO;
    let mut verdicts = Vec::new();
    for (pause, bytes) in packets {
        now += Duration::from_micros(*pause);
        verdicts.push((now, line.accept(*bytes, now)));
    }
    verdicts
}

proptest! {
    #[test]
    fn the_same_seed_and_packets_have_the_same_fate(
        shape in shapes(), seed in any::<u64>(), packets in packets(),
    ) {
        let first = verdicts(&shape, seed, &packets);
        prop_assert_eq!(first, verdicts(&shape, seed, &packets));
    }

    #[test]
    fn no_packet_is_faster_than_the_delay_and_only_held_ones_are_overtaken(
        shape in shapes(), seed in any::<u64>(), packets in packets(),
    ) {
        let mut last = Duration::ZERO;
        for (now, verdict) in verdicts(&shape, seed, &packets) {
            let Verdict::Passed { at, is_held, .. } = verdict else { continue };
            prop_assert!(at >= now + shape.delay);
            if !is_held {
                prop_assert!(at >= last);
                last = at;
            }
        }
    }

    #[test]
    fn a_line_carries_no_more_than_its_rate(
        rate in 10_000_u64..10_000_000, seed in any::<u64>(), packets in packets(),
    ) {
        let shape = Shape { rate_bps: NonZeroU64::new(rate), ..Shape::default() };
        let mut end = Duration::ZERO;
        let mut bits = 0;
        for ((_, verdict), (_, bytes)) in
            verdicts(&shape, seed, &packets).into_iter().zip(&packets)
        {
            if let Verdict::Passed { at, .. } = verdict {
                bits += u128::from(*bytes) * 8;
                end = at;
            }
        }
        prop_assert!(bits * 1_000_000_000 <= u128::from(rate) * end.as_nanos());
    }

    #[test]
    fn what_is_lost_does_not_depend_on_other_parameters(
        shape in shapes(), seed in any::<u64>(), packets in packets(),
    ) {
        // Without a limit on queue and size, which drop first.
        let shape = Shape { rate_bps: None, silent_mtu: None, ..shape };
        let plain = Shape {
            loss: shape.loss,
            burst_loss: shape.burst_loss,
            ..Shape::default()
        };
        let reasons = |shape| -> Vec<_> {
            let all = verdicts(shape, seed, &packets).into_iter();
            all.map(|(_, verdict)| match verdict {
                Verdict::Dropped(reason) => Some(reason),
                Verdict::Passed { .. } => None,
            })
            .collect()
        };
        prop_assert_eq!(reasons(&shape), reasons(&plain));
    }
}
