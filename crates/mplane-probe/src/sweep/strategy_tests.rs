//! Scripted sweeps: every time is chosen by the test.

use mplane::address::Address;

use super::*;
use crate::packet::{EchoReply, Family, Problem};

/// The identifier of the scripted sweeps.
const IDENTIFIER: u16 = 0x1234;

/// Milliseconds as a duration.
fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// The two clocks `now` after the start.
fn user(now: Duration) -> UserStamp {
    let start = Timestamp::from_second(1_700_000_000).expect("in range");
    UserStamp { monotonic: now, utc: start + now }
}

/// A scripted sweep: a strategy, and a network of which the test plays every part.
struct Script {
    strategy: Strategy,
    key: CookieKey,
    sent: Vec<Transmit>,
}

impl Script {
    /// A sweep of a network, a packet each 10 ms, with a timeout of 500 ms.
    fn new(network: &str, count: u8) -> Self {
        let key = CookieKey::random();
        let network: Address = network.parse().expect("a network");
        let targets = Targets::new(Family::V4, [&network]).expect("few targets");
        let strategy = Strategy::new(Settings {
            targets,
            identifier: IDENTIFIER,
            key: key.clone(),
            payload_bytes: 20,
            count,
            rate: 100,
            timeout: ms(500),
            end: None,
        });
        Self { strategy, key, sent: Vec::new() }
    }

    /// Does what is due at `now`, every request leaving without error.
    fn at(&mut self, now: Duration) -> &mut Self {
        self.strategy.handle_timeout(now);
        while let Some(transmit) = self.strategy.poll_transmit(now) {
            self.sent.push(transmit);
            self.strategy.handle_sent(user(now));
        }
        self
    }

    /// Does everything that becomes due until nothing is left to wait for.
    fn run_to_the_end(&mut self) -> &mut Self {
        while let Some(deadline) = self.strategy.poll_timeout() {
            self.at(deadline);
        }
        assert!(self.strategy.is_finished());
        self
    }

    /// The reply to a request arrives.
    fn reply(&mut self, now: Duration, request: usize) -> &mut Self {
        let Transmit { mark, destination, .. } = self.sent[request];
        self.reply_from(destination, now, mark, 20)
    }

    /// A reply arrives, with a payload of so many bytes.
    fn reply_from(
        &mut self,
        source: IpAddr,
        now: Duration,
        mark: Mark,
        length: usize,
    ) -> &mut Self {
        let mut payload = self.key.write(mark).to_vec();
        payload.resize(length, 0);
        let reply = EchoReply { identifier: IDENTIFIER, sequence: 0, payload: &payload };
        let stamp = ReceiveStamp { user: user(now), kernel: None };
        self.strategy.handle_receive(Some(source), &Message::EchoReply(reply), stamp);
        self
    }

    /// What became of targets: sent/received/lost/unsent of each.
    fn story(&self) -> String {
        let of = |it: TargetReport| {
            assert_eq!(it.min.is_some(), it.received > 0);
            format!("{}/{}/{}/{}", it.sent, it.received, it.lost, it.unsent)
        };
        self.strategy.reports().map(of).collect::<Vec<_>>().join(" ")
    }
}

#[test]
fn asks_each_target_once_at_the_rate_and_is_over_with_the_last_reply() {
    let mut script = Script::new("192.0.2.0/30", 1);
    script.at(ms(0)).at(ms(9)).at(ms(10));
    assert_eq!(script.sent.len(), 2);
    assert_eq!(script.strategy.poll_timeout(), Some(ms(20)));
    script.at(ms(20)).at(ms(30));
    let order: Vec<_> = script.sent.iter().map(|it| it.destination.to_string()).collect();
    assert_eq!(order, ["192.0.2.0", "192.0.2.1", "192.0.2.2", "192.0.2.3"]);
    for request in [3, 0, 2, 1] {
        assert!(!script.strategy.is_finished());
        script.reply(ms(42), request);
    }
    assert!(script.strategy.is_finished());
    assert_eq!(script.story(), "1/1/0/0 1/1/0/0 1/1/0/0 1/1/0/0");
    let first = script.strategy.reports().next().expect("a target");
    assert_eq!([first.min, first.mean, first.max], [Some(ms(42)); 3]);
    assert_eq!(script.strategy.strays(), Strays::default());
}

#[test]
fn what_is_late_moves_everything_behind_it_and_causes_no_burst() {
    let mut script = Script::new("192.0.2.0/26", 1);
    script.at(ms(0)).at(ms(300));
    // One that was due, and none that would have been.
    assert_eq!(script.sent.len(), 2);
    assert_eq!(script.strategy.poll_timeout(), Some(ms(305)));
    script.at(ms(305)).at(ms(314));
    assert_eq!(script.sent.len(), 3);
}

#[test]
fn silence_is_loss_and_replies_beyond_the_timeout_are_late() {
    let mut script = Script::new("192.0.2.0/31", 1);
    script.at(ms(0)).at(ms(10)).reply(ms(505), 0);
    script.run_to_the_end();
    script.reply(ms(600), 1).reply(ms(601), 1);
    assert_eq!(script.story(), "1/0/1/0 1/0/1/0");
    let strays = Strays { late: 2, duplicates: 1, forged: 0 };
    assert_eq!(script.strategy.strays(), strays);
}

#[test]
fn duplicates_and_forgeries_are_told_apart() {
    let mut script = Script::new("192.0.2.0/30", 1);
    script.run_to_the_end();
    let mut script = Script::new("192.0.2.0/30", 1);
    script.at(ms(0)).at(ms(10)).reply(ms(20), 0).reply(ms(21), 0);
    let Transmit { mark, destination, .. } = script.sent[1];
    let stranger = "192.0.2.3".parse().expect("an address");
    script.reply_from(stranger, ms(22), mark, 20); // of another sender
    script.reply_from(destination, ms(22), mark, 19); // cut short
    let other = Mark { target: 77, ..mark };
    script.reply_from(destination, ms(22), other, 20); // of no target
    script.key = CookieKey::random();
    script.reply_from(destination, ms(22), mark, 20); // a guess
    assert_eq!(script.story(), "1/1/0/0 1/0/0/0");
    let strays = Strays { duplicates: 1, late: 0, forged: 4 };
    assert_eq!(script.strategy.strays(), strays);
}

#[test]
fn rounds_are_an_interval_apart_and_their_replies_not_mixed_up() {
    let mut script = Script::new("192.0.2.0/31", 2);
    script.at(ms(0)).at(ms(10)).reply(ms(15), 0);
    assert_eq!(script.strategy.poll_timeout(), Some(ms(510)), "the second is waited for");
    script.at(ms(510));
    assert_eq!(script.strategy.poll_timeout(), Some(INTERVAL));
    script.at(ms(999));
    assert_eq!(script.sent.len(), 2);
    script.at(ms(1000)).at(ms(1010));
    // The reply of the first round comes now: it is late, and no reply of the second.
    script.reply(ms(1012), 1).reply(ms(1030), 2);
    script.run_to_the_end();
    assert_eq!(script.story(), "2/2/0/0 2/0/2/0");
    let first = script.strategy.reports().next().expect("a target");
    assert_eq!(
        [first.min, first.mean, first.max],
        [15, 22, 30].map(|it| {
            Some(if it == 22 { Duration::from_micros(22_500) } else { ms(it) })
        })
    );
    assert_eq!(script.strategy.strays().late, 1);
}

#[test]
fn a_request_is_decided_before_the_next_to_its_target() {
    let mut script = Script::new("192.0.2.1", 2);
    script.at(ms(0));
    // The caller is late, and has not looked at the timeouts.
    assert_eq!(script.strategy.poll_transmit(INTERVAL), None);
    script.at(INTERVAL).reply(ms(1001), 1);
    assert_eq!(script.story(), "2/1/1/0");
}

#[test]
fn what_this_machine_dropped_is_asked_for_again_and_counts_once() {
    let mut script = Script::new("192.0.2.0/31", 1);
    script.at(ms(0)).at(ms(10)).reply(ms(15), 0);
    script.strategy.handle_overflow(ms(20));
    script.at(ms(510));
    assert_eq!(script.strategy.repeated(), 1);
    assert_eq!(script.sent.len(), 3);
    assert_eq!((script.sent[2].mark.target, script.sent[2].mark.attempt), (1, 1));
    script.reply(ms(512), 1); // the reply to what was given up has no delay any more
    assert_eq!(script.story(), "1/1/0/0 1/0/0/0");
    script.reply(ms(530), 2);
    assert!(script.strategy.is_finished());
    assert_eq!(script.story(), "1/1/0/0 1/1/0/0");
    let max = script.strategy.reports().nth(1).expect("a target").max;
    assert_eq!(max, Some(ms(20)));
    // Without a drop since it was sent, silence is loss.
    let mut script = Script::new("192.0.2.0/31", 1);
    script.strategy.handle_overflow(ms(0));
    script.at(ms(1)).run_to_the_end();
    assert_eq!(script.story(), "1/0/1/0 1/0/1/0");
}

#[test]
fn a_drop_that_goes_on_is_no_endless_repetition() {
    let mut script = Script::new("192.0.2.1", 1);
    while let Some(deadline) = script.strategy.poll_timeout() {
        script.at(deadline);
        script.strategy.handle_overflow(deadline);
    }
    assert_eq!(script.sent.len(), usize::from(MAX_ATTEMPTS));
    assert_eq!(script.story(), "1/0/1/0");
}

#[test]
fn a_full_queue_is_waited_for_and_other_obstacles_are_outcomes() {
    let mut script = Script::new("192.0.2.0/31", 1);
    let strategy = &mut script.strategy;
    let first = strategy.poll_transmit(ms(0)).expect("due");
    assert_eq!(strategy.poll_transmit(ms(0)), None, "one at a time");
    strategy.handle_send_error(ms(0), Obstacle::NoBufferSpace);
    assert_eq!(strategy.poll_timeout(), Some(BACK_OFF));
    assert_eq!(strategy.poll_transmit(BACK_OFF), Some(first));
    strategy.handle_send_error(ms(1), Obstacle::InterfaceDown);
    script.run_to_the_end();
    assert_eq!(script.story(), "0/0/0/1 1/0/1/0");
    let target = script.strategy.reports().next().expect("a target");
    assert_eq!(target.problem, Some(EchoError::NotSent(Obstacle::InterfaceDown)));
    // It is not waited for forever.
    let mut strategy = Script::new("192.0.2.1", 1).strategy;
    let mut attempts = 0;
    while let Some(now) = strategy.poll_timeout() {
        assert!(strategy.poll_transmit(now).is_some());
        strategy.handle_send_error(now, Obstacle::NoBufferSpace);
        attempts += 1;
    }
    assert_eq!(attempts, MAX_BACK_OFFS + 1);
}

/// An error about a request, quoting so much of its payload.
fn report(script: &mut Script, request: usize, quoted: usize, with_address: bool) {
    let Transmit { mark, destination, wire_sequence, .. } = script.sent[request];
    let payload = script.key.write(mark);
    let quoted = QuotedEcho {
        destination: with_address.then_some(destination),
        identifier: IDENTIFIER,
        sequence: wire_sequence,
        payload: &payload[..quoted],
    };
    let problem = Problem::HostUnreachable;
    script.strategy.handle_report(None, Report { problem, quoted });
}

#[test]
fn errors_are_attributed_by_address_or_by_mark() {
    let mut script = Script::new("192.0.2.0/30", 1);
    for now in [0, 10, 20, 30] {
        script.at(ms(now));
    }
    report(&mut script, 0, 0, true); // eight bytes of the message, as of old
    report(&mut script, 1, 12, true);
    report(&mut script, 2, 16, false);
    assert_eq!(script.story(), "1/0/1/0 1/0/1/0 1/0/1/0 1/0/0/0");
    report(&mut script, 3, 12, false); // nothing tells whose it is
    script.sent[3].wire_sequence ^= 1;
    report(&mut script, 3, 0, true); // of another request
    script.key = CookieKey::random();
    script.sent[3].wire_sequence ^= 1;
    report(&mut script, 3, 8, true); // a guess
    assert_eq!(script.story(), "1/0/1/0 1/0/1/0 1/0/1/0 1/0/0/0");
    assert_eq!(script.strategy.strays().forged, 2);
    script.run_to_the_end();
    assert_eq!(script.story(), "1/0/1/0 1/0/1/0 1/0/1/0 1/0/1/0");
}

#[test]
fn stop_reports_what_was_asked_and_leaves_the_rest_out() {
    let mut script = Script::new("192.0.2.0/24", 1);
    script.at(ms(0)).at(ms(10)).reply(ms(15), 0);
    script.strategy.stop(ms(15));
    script.at(ms(20));
    assert_eq!(script.strategy.poll_timeout(), Some(ms(15) + STOP_GRACE));
    script.run_to_the_end();
    assert_eq!(script.story(), "1/1/0/0 1/0/0/0");
}

#[test]
fn the_end_of_the_scope_ends_sending_and_not_waiting() {
    let mut script = Script::new("192.0.2.0/24", 1);
    script.strategy.settings.end = Some(ms(15));
    script.at(ms(0)).at(ms(10)).at(ms(20)).reply(ms(400), 1);
    script.run_to_the_end();
    assert_eq!(script.story(), "1/0/1/0 1/1/0/0");
}

#[test]
fn all_addresses_of_the_largest_sweep_are_told_apart() {
    let mut script = Script::new("10.0.0.0/16", 2);
    script.strategy.settings.rate = 1_000_000;
    while let Some(deadline) = script.strategy.poll_timeout() {
        let sent = script.sent.len();
        script.at(deadline);
        for request in sent..script.sent.len() {
            script.reply(deadline, request);
        }
    }
    assert_eq!(script.sent.len(), 131_072);
    assert!(script.strategy.reports().all(|target| target.received == 2));
    assert_eq!(script.strategy.strays(), Strays::default());
    assert!(script.strategy.window.is_empty() && script.strategy.is_finished());
}
