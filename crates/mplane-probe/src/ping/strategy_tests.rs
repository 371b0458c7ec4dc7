//! Scripted runs of the strategy: every time is chosen by the test.

use std::net::Ipv4Addr;

use super::*;
use crate::packet::{Nonce, Problem, StampSource};

/// Whom the scripted runs send to.
const DESTINATION: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// Somebody else.
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 66));
/// The identifier of the scripted runs.
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

/// A scripted run: a strategy, and a network of which the test plays every part.
struct Script {
    /// The strategy under test.
    strategy: Strategy,
    /// The requests sent so far.
    sent: Vec<Transmit>,
    /// What was decided so far.
    echoes: Vec<Echo>,
    /// The payload of genuine replies.
    payload: Payload,
}

impl Script {
    /// A run with a period of 100 ms and a timeout of one second.
    fn new(end: End) -> Self {
        Self::with(ms(100), ms(1000), end)
    }

    /// A run of chosen timing.
    fn with(period: Duration, timeout: Duration, end: End) -> Self {
        let payload = payload(*b"ownnonce");
        let strategy = Strategy::new(Settings {
            destination: DESTINATION,
            identifier: IDENTIFIER,
            payload: payload.clone(),
            period,
            end,
            timeout,
        });
        let strategy = strategy.expect("settings are valid");
        Self { strategy, sent: Vec::new(), echoes: Vec::new(), payload }
    }

    /// Does what is due at `now`, every request leaving without error.
    fn at(&mut self, now: Duration) -> &mut Self {
        self.strategy.handle_timeout(now);
        while let Some(transmit) = self.strategy.poll_transmit(now) {
            self.sent.push(transmit);
            self.strategy.handle_sent(transmit.sequence, user(now));
        }
        self.collect();
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

    /// A genuine reply to `wire_sequence` arrives.
    fn reply(&mut self, now: Duration, wire_sequence: u16) -> &mut Self {
        let payload = self.payload.clone();
        self.reply_from(DESTINATION, now, wire_sequence, &payload)
    }

    /// A reply arrives, whatever it is.
    fn reply_from(
        &mut self,
        source: IpAddr,
        now: Duration,
        sequence: u16,
        payload: &Payload,
    ) -> &mut Self {
        let payload = payload.as_bytes();
        let reply = EchoReply { identifier: IDENTIFIER, sequence, payload };
        self.receive(source, now, &Message::EchoReply(reply))
    }

    /// A message arrives.
    fn receive(
        &mut self,
        source: IpAddr,
        now: Duration,
        message: &Message<'_>,
    ) -> &mut Self {
        let stamp = ReceiveStamp { user: user(now), kernel: None };
        self.strategy.handle_receive(Some(source), Some(64), message, stamp);
        self.collect();
        self
    }

    /// Keeps what was decided.
    fn collect(&mut self) {
        self.echoes.extend(std::iter::from_fn(|| self.strategy.poll_echo()));
    }

    /// The decided requests in one word each: a delay in ms, or what else happened.
    fn story(&self) -> String {
        let words = self.echoes.iter().map(|echo| match echo.outcome {
            Outcome::Pending => "pending".to_owned(),
            Outcome::Reply(reply) => reply.rtt.as_millis().to_string(),
            Outcome::Lost => "lost".to_owned(),
            Outcome::Error(error) => format!("({error})"),
        });
        words.collect::<Vec<_>>().join(" ")
    }
}

/// A payload of 16 bytes with a chosen nonce.
fn payload(nonce: [u8; 8]) -> Payload {
    Payload::new(Nonce::from_bytes(nonce), 16).expect("16 bytes hold a nonce")
}

#[test]
fn sends_the_first_request_at_once_and_reports_replies_as_they_come() {
    let mut script = Script::new(End::Count(2));
    script.at(ms(0)).reply(ms(20), 0);
    assert_eq!(script.story(), "20");
    assert_eq!(script.strategy.poll_timeout(), Some(ms(100)));
    script.at(ms(100)).reply(ms(130), 1);
    assert_eq!(script.story(), "20 30");
    assert!(script.strategy.is_finished());
    assert_eq!(script.echoes[1].sent_utc, user(ms(100)).utc);
    assert_eq!(script.strategy.strays(), Strays::default());
}

#[test]
fn a_lost_request_is_a_record_without_a_delay() {
    let mut script = Script::new(End::Count(3));
    script.at(ms(0)).at(ms(100)).reply(ms(120), 1).at(ms(200)).reply(ms(230), 2);
    assert_eq!(script.story(), "", "the first is undecided and holds back the others");
    assert_eq!(script.strategy.poll_timeout(), Some(ms(1000)));
    script.at(ms(999));
    assert_eq!(script.story(), "");
    script.at(ms(1000));
    assert_eq!(script.story(), "lost 20 30");
    assert_eq!(script.echoes[0].rtt(), None);
    assert!(script.strategy.is_finished());
}

#[test]
fn loses_everything_and_ends_one_timeout_after_the_last_request() {
    let mut script = Script::new(End::After(ms(300)));
    script.run_to_the_end();
    assert_eq!(script.story(), "lost lost lost");
    assert_eq!(script.sent.last().map(|transmit| transmit.due), Some(ms(200)));
}

#[test]
fn counts_a_late_reply_and_does_not_change_the_record() {
    let mut script = Script::new(End::Count(1));
    script.run_to_the_end().reply(ms(1500), 0);
    assert_eq!(script.story(), "lost");
    assert_eq!(script.strategy.strays(), Strays { late: 1, ..Strays::default() });
    script.reply(ms(1600), 0);
    let strays = Strays { late: 1, duplicates: 1, ..Strays::default() };
    assert_eq!(script.strategy.strays(), strays);
}

#[test]
fn a_reply_read_after_the_timeout_counts_by_its_delay() {
    let mut script = Script::new(End::Count(2));
    script.at(ms(0)).at(ms(100)).reply(ms(1050), 1).reply(ms(1050), 0);
    assert_eq!(script.story(), "lost 950");
    assert_eq!(script.strategy.strays(), Strays { late: 1, ..Strays::default() });
}

#[test]
fn counts_duplicates_also_after_the_record_was_reported() {
    let mut script = Script::new(End::Count(2));
    script.at(ms(0)).at(ms(100));
    script.reply(ms(120), 1).reply(ms(121), 1).reply(ms(130), 0).reply(ms(131), 0);
    script.reply(ms(132), 1);
    assert_eq!(script.story(), "130 20");
    let strays = Strays { duplicates: 3, reordered: 1, ..Strays::default() };
    assert_eq!(script.strategy.strays(), strays);
}

#[test]
fn counts_reordered_replies_and_reports_in_order_of_sending() {
    let mut script = Script::new(End::Count(4));
    script.at(ms(0)).at(ms(100)).at(ms(200)).at(ms(300));
    script.reply(ms(310), 2).reply(ms(311), 0).reply(ms(312), 3).reply(ms(313), 1);
    assert_eq!(script.story(), "311 213 110 12");
    assert_eq!(script.strategy.strays(), Strays { reordered: 2, ..Strays::default() });
}

#[test]
fn tells_forged_replies_apart_and_still_takes_the_genuine_one() {
    let mut script = Script::new(End::Count(1));
    let own = script.payload.clone();
    script.at(ms(0));
    script.reply_from(DESTINATION, ms(1), 0, &payload(*b"guessed!"));
    script.reply_from(STRANGER, ms(2), 0, &own);
    script.reply_from(DESTINATION, ms(3), 1, &own);
    let short = Payload::new(own.nonce(), 8).expect("holds the nonce");
    script.reply_from(DESTINATION, ms(4), 0, &short);
    assert_eq!(script.story(), "");
    script.reply(ms(5), 0);
    assert_eq!(script.story(), "5");
    assert_eq!(script.strategy.strays(), Strays { forged: 4, ..Strays::default() });
}

#[test]
fn ignores_replies_to_other_programs() {
    let mut script = Script::new(End::Count(1));
    let payload = script.payload.clone();
    let payload = payload.as_bytes();
    let reply = EchoReply { identifier: IDENTIFIER + 1, sequence: 0, payload };
    script.at(ms(0)).receive(DESTINATION, ms(1), &Message::EchoReply(reply));
    script.receive(DESTINATION, ms(1), &Message::Other { kind: 8 });
    assert_eq!(script.story(), "");
    assert_eq!(script.strategy.strays(), Strays::default());
}

/// An ICMP error about a request to the destination.
fn report(sequence: u16, payload: &[u8]) -> Message<'_> {
    let destination = Some(DESTINATION);
    let quoted = QuotedEcho { destination, identifier: IDENTIFIER, sequence, payload };
    Message::Report(Report { problem: Problem::HostUnreachable, quoted })
}

#[test]
fn an_icmp_error_decides_the_request_it_quotes() {
    let mut script = Script::new(End::Count(3));
    script.at(ms(0)).at(ms(100)).at(ms(200));
    script.receive(STRANGER, ms(210), &report(1, b""));
    script.receive(STRANGER, ms(211), &report(2, b"ownno"));
    script.reply(ms(220), 0);
    let unreachable = "(host unreachable, says 192.0.2.66)";
    assert_eq!(script.story(), format!("220 {unreachable} {unreachable}"));
    script.reply(ms(230), 1).receive(STRANGER, ms(231), &report(1, b""));
    assert_eq!(script.strategy.strays(), Strays { late: 1, ..Strays::default() });
}

#[test]
fn an_icmp_error_that_quotes_something_else_is_forged() {
    let mut script = Script::new(End::Count(1));
    script.at(ms(0));
    script.receive(STRANGER, ms(1), &report(0, b"othernonce"));
    script.receive(STRANGER, ms(1), &report(7, b""));
    let Message::Report(mut elsewhere) = report(0, b"") else {
        panic!("made as a report");
    };
    elsewhere.quoted.destination = Some(STRANGER);
    script.receive(STRANGER, ms(1), &Message::Report(elsewhere));
    assert_eq!(script.story(), "");
    assert_eq!(script.strategy.strays(), Strays { forged: 3, ..Strays::default() });
}

#[test]
fn a_refusal_to_send_is_the_outcome_of_that_request_only() {
    let mut script = Script::new(End::Count(2));
    let transmit = script.strategy.poll_transmit(ms(0)).expect("due at once");
    assert_eq!(script.strategy.poll_transmit(ms(500)), None, "one at a time");
    let obstacle = Obstacle::NetworkUnreachable;
    script.strategy.handle_send_error(transmit.sequence, user(ms(0)), obstacle);
    script.strategy.handle_sent(transmit.sequence, user(ms(1)));
    script.at(ms(100)).reply(ms(120), 1);
    assert_eq!(script.story(), "(not sent: no route to the network) 20");
}

#[test]
fn stop_waits_a_short_grace_and_leaves_the_rest_pending() {
    let mut script = Script::new(End::Never);
    script.at(ms(0)).at(ms(100)).at(ms(200));
    script.strategy.stop(ms(250));
    assert_eq!(script.strategy.poll_timeout(), Some(ms(250) + STOP_GRACE));
    script.at(ms(300)).reply(ms(310), 1);
    assert_eq!(script.sent.len(), 3);
    assert_eq!(script.story(), "");
    script.run_to_the_end();
    assert_eq!(script.story(), "pending 210 pending");
    assert_eq!(script.echoes[0].rtt(), None);
}

#[test]
fn stop_is_over_at_once_when_nothing_is_outstanding() {
    let mut script = Script::new(End::Never);
    script.at(ms(0)).reply(ms(10), 0);
    script.strategy.stop(ms(20));
    script.strategy.stop(ms(90));
    assert!(script.strategy.is_finished());
    assert_eq!(script.strategy.poll_timeout(), None);
}

#[test]
fn stop_does_not_extend_the_timeout_of_old_requests() {
    let mut script = Script::with(ms(100), ms(150), End::Never);
    script.at(ms(0)).at(ms(100));
    script.strategy.stop(ms(100));
    script.run_to_the_end();
    assert_eq!(script.story(), "lost lost");
}

#[test]
fn stop_does_not_deny_a_decision_that_was_due() {
    let mut script = Script::new(End::Never);
    script.at(ms(0));
    script.strategy.stop(ms(900));
    script.at(ms(2000));
    assert_eq!(script.story(), "lost");
}

#[test]
fn does_not_drift_over_ten_thousand_requests() {
    let mut script = Script::with(ms(7), ms(50), End::Count(10_000));
    let mut number = 0;
    while let Some(deadline) = script.strategy.poll_timeout() {
        // Every wake-up is late, by up to 6.5 ms.
        let now = deadline + Duration::from_micros(number * 37 % 6_500);
        script.at(now);
        if let Some(last) = script.sent.last() {
            let wire_sequence = last.wire_sequence;
            script.reply(now, wire_sequence);
        }
        number += 1;
    }
    assert!(script.strategy.is_finished());
    assert_eq!(script.sent.len(), 10_000);
    for (transmit, due) in script.sent.iter().zip((0..).step_by(7).map(ms)) {
        assert_eq!(transmit.due, due);
    }
    assert_eq!(script.strategy.skipped(), 0);
}

#[test]
fn sequence_numbers_wrap_on_the_wire_and_not_in_the_records() {
    let mut script = Script::with(ms(1), ms(50), End::Count(70_000));
    for number in 0..70_000 {
        script.at(ms(number));
        if number % 3 != 0 {
            let wire_sequence = script.sent.last().expect("sent").wire_sequence;
            script.reply(ms(number), wire_sequence);
        }
    }
    script.run_to_the_end();
    assert_eq!(script.echoes.len(), 70_000);
    for (number, echo) in (0..).zip(&script.echoes) {
        assert_eq!(echo.sequence, number);
        assert_eq!(echo.rtt().is_some(), number % 3 != 0, "request {number}");
    }
    assert_eq!(script.strategy.strays(), Strays::default());
    assert!(script.strategy.window.capacity() < 256, "memory stays bounded");
}

#[test]
fn uses_kernel_stamps_only_of_requests_that_still_wait() {
    let mut script = Script::new(End::Count(1));
    script.at(ms(0));
    script.strategy.handle_transmit_stamp(0, user(ms(1)).utc);
    script.strategy.handle_transmit_stamp(99, user(ms(1)).utc);
    let payload = script.payload.clone();
    let payload = payload.as_bytes();
    let reply = EchoReply { identifier: IDENTIFIER, sequence: 0, payload };
    let stamp = ReceiveStamp { user: user(ms(9)), kernel: Some(user(ms(7)).utc) };
    let message = Message::EchoReply(reply);
    script.strategy.handle_receive(None, Some(57), &message, stamp);
    script.collect();
    script.strategy.handle_transmit_stamp(0, user(ms(1)).utc);
    let Outcome::Reply(reply) = script.echoes[0].outcome else {
        panic!("no reply: {}", script.story());
    };
    assert_eq!(reply.rtt, ms(6));
    assert_eq!(reply.stamps.delay, StampSource::Kernel);
    assert_eq!(reply.hop_limit, Some(57));
}

#[test]
fn never_has_more_outstanding_than_allowed() {
    let payload = payload(*b"ownnonce");
    let settings = |timeout| Settings {
        destination: DESTINATION,
        identifier: IDENTIFIER,
        payload: payload.clone(),
        period: ms(1),
        end: End::Never,
        timeout,
    };
    let error = Strategy::new(settings(ms(16_384))).expect_err("too many");
    assert_eq!(
        error.to_string(),
        "a timeout of 16.384s with a period of 1ms leaves more than 16384 requests \
         unanswered: choose a longer period or a shorter timeout"
    );
    let mut strategy = Strategy::new(settings(ms(16_383))).expect("just fits");
    // A caller that never looks at the timeouts.
    let mut sent = 0;
    for now in (0..20_000).map(ms) {
        while let Some(transmit) = strategy.poll_transmit(now) {
            strategy.handle_sent(transmit.sequence, user(now));
            sent += 1;
        }
    }
    assert_eq!(sent, MAX_OUTSTANDING);
    assert_eq!(strategy.poll_timeout(), Some(ms(16_383)), "not a past sending time");
}

#[test]
fn a_run_of_nothing_is_finished_at_once() {
    let script = Script::new(End::Count(0));
    assert!(script.strategy.is_finished());
    assert_eq!(script.strategy.poll_timeout(), None);
}
