//! What to send when, and what became of it: the whole logic of ping, without socket
//! and without clock.
//!
//! The caller passes times as [`Duration`] since the start of the run (monotonic
//! clock) and drives the machine with six verbs:
//!
//! 1. [`Strategy::poll_transmit`] until `None`, reporting each request with
//!    [`Strategy::handle_sent`] or [`Strategy::handle_send_error`];
//! 2. [`Strategy::handle_transmit_stamp`], [`Strategy::handle_receive`] and
//!    [`Strategy::handle_report`] for what the socket tells;
//! 3. [`Strategy::handle_timeout`] when [`Strategy::poll_timeout`] has come;
//! 4. [`Strategy::poll_echo`] until `None`, after any of these;
//! 5. [`Strategy::stop`] to end early; [`Strategy::is_finished`] says when it is over.
//!
//! A request is decided once: by its reply, by an ICMP error about it, by its timeout.
//! Whatever comes later is only counted ([`Strays`]).
//!
//! Source: RFC 792 (matching by identifier and sequence number); RFC 2681 section 2
//! (round-trip delay, loss as "undefined", never zero); RFC 5560 (duplicates).

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;

use super::echo::{Echo, EchoError, Outcome, Reply};
use super::jitter::Jitter;
use super::schedule::{End, PeriodTooShortError, Schedule};
use crate::packet::{
    EchoReply, Message, Obstacle, Payload, QuotedEcho, ReceiveStamp, Report,
    TransmitStamp, UserStamp, round_trip,
};

/// Most requests without a decision, or waiting for an earlier one, at a time.
///
/// A quarter of the sequence numbers, so that a late reply is never taken for the
/// reply to a newer request. Some 2 MB.
pub const MAX_OUTSTANDING: usize = 16_384;

/// How long an interrupted run waits for outstanding replies.
pub const STOP_GRACE: Duration = Duration::from_millis(200);

/// Number of different sequence numbers on the wire.
const SEQUENCES: usize = 1 << u16::BITS;

/// What a run measures.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whom to send to.
    pub destination: IpAddr,
    /// The identifier the requests bear on the wire.
    pub identifier: u16,
    /// The payload of all requests.
    pub payload: Payload,
    /// Time between requests.
    pub period: Duration,
    /// When to stop sending.
    pub end: End,
    /// How long to wait for each reply.
    pub timeout: Duration,
}

/// Settings that cannot be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The period is too short.
    #[error(transparent)]
    Period(#[from] PeriodTooShortError),
    /// Too many requests would be on their way at the same time.
    #[error(
        "a timeout of {timeout:?} with a period of {period:?} leaves more than \
         {MAX_OUTSTANDING} requests unanswered: choose a longer period or a shorter timeout"
    )]
    TooManyOutstanding {
        /// The timeout asked for.
        timeout: Duration,
        /// The period asked for.
        period: Duration,
    },
}

/// A request to be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// Number of the request within the run.
    pub sequence: u64,
    /// Its sequence number on the wire: the low 16 bits.
    pub wire_sequence: u16,
    /// When it was due.
    pub due: Duration,
}

/// Replies that did not decide a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Strays {
    /// Further replies to an answered request.
    pub duplicates: u64,
    /// First replies to requests already lost or failed.
    pub late: u64,
    /// Replies overtaken by the reply to a later request (RFC 4737 section 3). These did
    /// decide theirs.
    pub reordered: u64,
    /// Replies and errors with our identifier that our requests did not cause: wrong
    /// nonce, length, sender or sequence number.
    pub forged: u64,
}

/// The state of one run against one destination.
#[derive(Debug)]
pub struct Strategy {
    /// What is measured.
    settings: Settings,
    /// When to send.
    schedule: Schedule,
    /// The request handed out by `poll_transmit` and not yet reported.
    in_hand: Option<Transmit>,
    /// Number of the first request in `window`.
    first: u64,
    /// All requests from the oldest not yet given to `poll_echo` on.
    window: VecDeque<Slot>,
    /// Which wire sequence numbers were answered when last used.
    answered: AnsweredSet,
    /// The highest request answered so far.
    highest_answered: Option<u64>,
    /// How much delays differ from reply to reply.
    jitter: Jitter,
    /// What did not decide anything.
    strays: Strays,
    /// When an interrupted run gives up waiting.
    grace_end: Option<Duration>,
}

/// A request on its way, or decided but behind one that is not.
#[derive(Debug)]
struct Slot {
    /// When it left.
    sent: TransmitStamp,
    /// What became of it; `Pending` while undecided.
    outcome: Outcome,
    /// Whether the outcome is final.
    is_decided: bool,
}

impl Strategy {
    /// Prepares a run that starts at time zero.
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        let schedule = Schedule::new(settings.period, settings.end)?;
        let outstanding = settings.timeout.as_nanos() / settings.period.as_nanos();
        if outstanding >= MAX_OUTSTANDING as u128 {
            let Settings { timeout, period, .. } = settings;
            return Err(SettingsError::TooManyOutstanding { timeout, period });
        }
        Ok(Self {
            settings,
            schedule,
            in_hand: None,
            first: 0,
            window: VecDeque::new(),
            answered: AnsweredSet::default(),
            highest_answered: None,
            jitter: Jitter::default(),
            strays: Strays::default(),
            grace_end: None,
        })
    }

    /// Returns the next request if it is due.
    ///
    /// The caller sends it and reports with [`Strategy::handle_sent`] or
    /// [`Strategy::handle_send_error`]; until then there is no other.
    pub fn poll_transmit(&mut self, now: Duration) -> Option<Transmit> {
        if self.in_hand.is_some() || self.window.len() >= MAX_OUTSTANDING {
            return None;
        }
        let due = self.schedule.take(now)?;
        let sequence = self.next();
        let transmit = Transmit { sequence, wire_sequence: wire(sequence), due };
        self.in_hand = Some(transmit);
        Some(transmit)
    }

    /// Takes note that the request in hand was handed to the kernel.
    ///
    /// `stamp` is read immediately before. Ignored if `sequence` is not in hand.
    pub fn handle_sent(&mut self, sequence: u64, stamp: UserStamp) {
        self.put_in_window(sequence, stamp, None);
    }

    /// Takes note that the request in hand did not leave this machine.
    ///
    /// Ignored if `sequence` is not in hand.
    pub fn handle_send_error(
        &mut self,
        sequence: u64,
        stamp: UserStamp,
        obstacle: Obstacle,
    ) {
        self.put_in_window(sequence, stamp, Some(obstacle));
    }

    /// Takes note of when the kernel says it sent `sequence`.
    ///
    /// Comes after [`Strategy::handle_sent`] and before the reply; ignored if the
    /// request is no longer waiting.
    pub fn handle_transmit_stamp(&mut self, sequence: u64, kernel: Timestamp) {
        if let Some(slot) = self.slot(sequence)
            && !slot.is_decided
        {
            slot.sent.kernel = Some(kernel);
        }
    }

    /// Takes a received ICMP message; whatever is not about our requests is ignored.
    ///
    /// `source` is who sent the message, where known.
    pub fn handle_receive(
        &mut self,
        source: Option<IpAddr>,
        hop_limit: Option<u8>,
        message: &Message<'_>,
        stamp: ReceiveStamp,
    ) {
        match message {
            Message::EchoReply(reply) if reply.identifier == self.settings.identifier => {
                self.handle_reply(source, hop_limit, *reply, stamp);
            }
            Message::Report(report) => self.handle_report(source, *report),
            Message::EchoReply(_) | Message::Other { .. } => {}
        }
    }

    /// Takes an ICMP error, also one that came by a socket's error queue.
    ///
    /// Ignored if it is not about our identifier; `from` is who reported, where known.
    pub fn handle_report(&mut self, from: Option<IpAddr>, report: Report<'_>) {
        if report.quoted.identifier != self.settings.identifier {
            return;
        }
        let Some(sequence) = self.resolve_quoted(report.quoted) else {
            self.strays.forged += 1;
            return;
        };
        if let Some(slot) = self.slot(sequence).filter(|slot| !slot.is_decided) {
            let problem = report.problem;
            slot.decide(Outcome::Error(EchoError::Reported { from, problem }));
        }
    }

    /// Gives up requests whose time is over.
    pub fn handle_timeout(&mut self, now: Duration) {
        let timeout = self.settings.timeout;
        let is_over = self.grace_end.is_some_and(|end| end <= now);
        for slot in &mut self.window {
            if slot.is_decided {
                continue;
            }
            if slot.deadline(timeout) <= now {
                slot.decide(Outcome::Lost);
            } else if is_over {
                slot.decide(Outcome::Pending);
            } else {
                break; // later ones were sent later
            }
        }
    }

    /// Returns when something has to be done next: a request is due
    /// ([`Strategy::poll_transmit`]) or its time is over
    /// ([`Strategy::handle_timeout`]). Ask again after every other call.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let can_send = self.in_hand.is_none() && self.window.len() < MAX_OUTSTANDING;
        let due = self.schedule.due().filter(|_| can_send);
        let oldest = self.window.iter().find(|slot| !slot.is_decided);
        let expiry = oldest.map(|slot| {
            let deadline = slot.deadline(self.settings.timeout);
            self.grace_end.map_or(deadline, |grace_end| deadline.min(grace_end))
        });
        [due, expiry].into_iter().flatten().min()
    }

    /// Returns the next decided request, in the order of sending.
    ///
    /// A decided request waits for all earlier ones.
    pub fn poll_echo(&mut self) -> Option<Echo> {
        let slot = self.window.pop_front_if(|slot| slot.is_decided)?;
        let sequence = self.first;
        self.first += 1;
        let sent_utc = slot.sent.user.utc;
        Some(Echo { sequence, sent_utc, outcome: slot.outcome })
    }

    /// Ends the run early: sends nothing more and waits for outstanding replies until
    /// their timeout, but at most [`STOP_GRACE`]. The first call counts.
    ///
    /// What is unanswered then is reported as [`Outcome::Pending`].
    pub fn stop(&mut self, now: Duration) {
        self.schedule.stop();
        self.grace_end.get_or_insert_with(|| now.saturating_add(STOP_GRACE));
    }

    /// Returns whether nothing is left to send, to wait for or to report.
    pub fn is_finished(&self) -> bool {
        self.schedule.due().is_none() && self.in_hand.is_none() && self.window.is_empty()
    }

    /// Returns the replies that decided nothing so far.
    pub fn strays(&self) -> Strays {
        self.strays
    }

    /// Returns the interarrival jitter of the replies so far, `None` before the second.
    pub fn jitter(&self) -> Option<Duration> {
        self.jitter.estimate()
    }

    /// Returns how many requests were not sent since the caller came too late.
    pub fn skipped(&self) -> u64 {
        self.schedule.skipped()
    }

    /// Decides the request a reply answers.
    fn handle_reply(
        &mut self,
        source: Option<IpAddr>,
        hop_limit: Option<u8>,
        reply: EchoReply<'_>,
        stamp: ReceiveStamp,
    ) {
        let is_genuine = self.settings.payload.returned_by(reply.payload)
            && source.is_none_or(|source| source == self.settings.destination);
        let Some(sequence) = self.resolve(reply.sequence).filter(|_| is_genuine) else {
            self.strays.forged += 1;
            return;
        };
        if !self.answered.insert(reply.sequence) {
            self.strays.duplicates += 1;
            return;
        }
        let timeout = self.settings.timeout;
        let Some(slot) = self.slot(sequence).filter(|slot| !slot.is_decided) else {
            self.strays.late += 1;
            return;
        };
        let (rtt, stamps) = round_trip(&slot.sent, &stamp);
        // The reply counts by when it came, not by when we got round to it.
        if rtt > timeout {
            slot.decide(Outcome::Lost);
            self.strays.late += 1;
            return;
        }
        slot.decide(Outcome::Reply(Reply { rtt, stamps, hop_limit }));
        self.jitter.add(rtt);
        if self.highest_answered.is_some_and(|highest| sequence < highest) {
            self.strays.reordered += 1;
        }
        self.highest_answered = self.highest_answered.max(Some(sequence));
    }

    /// Returns the request an ICMP error quotes, if it can be ours.
    fn resolve_quoted(&self, quoted: QuotedEcho<'_>) -> Option<u64> {
        let Settings { destination, payload, .. } = &self.settings;
        let is_genuine = quoted.destination.is_none_or(|quoted| quoted == *destination)
            && payload.nonce().fits_start_of(quoted.payload);
        self.resolve(quoted.sequence).filter(|_| is_genuine)
    }

    /// Returns the latest request with `wire_sequence` that was sent.
    fn resolve(&self, wire_sequence: u16) -> Option<u64> {
        let newest = self.next().checked_sub(1)?;
        let age = wire(newest).wrapping_sub(wire_sequence);
        newest.checked_sub(age.into())
    }

    /// Adds the request in hand to the window.
    fn put_in_window(
        &mut self,
        sequence: u64,
        stamp: UserStamp,
        obstacle: Option<Obstacle>,
    ) {
        let Some(transmit) = self.in_hand.take_if(|it| it.sequence == sequence) else {
            return;
        };
        self.answered.remove(transmit.wire_sequence);
        let mut slot = Slot {
            sent: TransmitStamp { user: stamp, kernel: None },
            outcome: Outcome::Pending,
            is_decided: false,
        };
        if let Some(obstacle) = obstacle {
            slot.decide(Outcome::Error(EchoError::NotSent(obstacle)));
        }
        self.window.push_back(slot);
    }

    /// Returns the number of the next request.
    fn next(&self) -> u64 {
        self.first + self.window.len() as u64
    }

    /// Returns the request `sequence`, if it is still in the window.
    fn slot(&mut self, sequence: u64) -> Option<&mut Slot> {
        let at = sequence.checked_sub(self.first)?;
        self.window.get_mut(usize::try_from(at).ok()?)
    }
}

impl Slot {
    /// Returns when the request counts as lost.
    fn deadline(&self, timeout: Duration) -> Duration {
        self.sent.user.monotonic.saturating_add(timeout)
    }

    /// Makes the outcome final.
    fn decide(&mut self, outcome: Outcome) {
        self.outcome = outcome;
        self.is_decided = true;
    }
}

/// A set of wire sequence numbers: one bit each, 8 KiB when all were used.
#[derive(Debug, Default)]
struct AnsweredSet {
    /// The bits, as far as they were needed.
    words: Vec<u64>,
}

impl AnsweredSet {
    /// Adds `sequence` and returns whether it was absent.
    fn insert(&mut self, sequence: u16) -> bool {
        let (word, bit) = Self::place(sequence);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let was_absent = self.words[word] & bit == 0;
        self.words[word] |= bit;
        was_absent
    }

    /// Removes `sequence`.
    fn remove(&mut self, sequence: u16) {
        let (word, bit) = Self::place(sequence);
        if let Some(word) = self.words.get_mut(word) {
            *word &= !bit;
        }
    }

    /// Returns the word of `sequence` and its bit in there.
    fn place(sequence: u16) -> (usize, u64) {
        let sequence = u32::from(sequence);
        ((sequence / u64::BITS) as usize, 1 << (sequence % u64::BITS))
    }
}

/// Returns the sequence number of a request on the wire: the low 16 bits.
fn wire(sequence: u64) -> u16 {
    u16::try_from(sequence % SEQUENCES as u64).expect("the remainder fits in 16 bits")
}

#[cfg(test)]
#[path = "strategy_tests.rs"]
mod tests;
