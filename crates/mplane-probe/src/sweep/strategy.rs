//! What a sweep sends when, and what became of it: without socket and without clock.
//!
//! The caller drives it as it does [`ping::Strategy`](crate::ping::Strategy), and passes
//! times as [`Duration`] since the start (monotonic clock). Targets are asked one after the
//! other, [`Settings::count`] times over; a target never has more than one request on its
//! way. Packets leave at [`Settings::rate`] at most.
//!
//! A request that is unanswered although this machine has dropped packets in the meantime
//! ([`Strategy::handle_overflow`]) is not lost: it is sent again, and counts once.
//!
//! Source: as for ping.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;

use super::cookie::{CookieKey, Mark};
use super::state::{Arrived, Flight, State, TargetReport};
use super::targets::Targets;
use crate::packet::{
    Message, Obstacle, QuotedEcho, ReceiveStamp, Report, StampSource, TransmitStamp,
    UserStamp,
};
use crate::ping::{EchoError, STOP_GRACE};

/// Most requests to one target.
pub const MAX_COUNT: u8 = 100;

/// Time between two requests to one target, at least; and how long each is waited for.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// How much sending may lag behind its rate and still catch up: what timers of 1 ms and a
/// busy machine cost. What is later moves everything behind it.
const CATCH_UP: Duration = Duration::from_millis(5);

/// How long to wait when the system has no room for a packet.
const BACK_OFF: Duration = Duration::from_millis(1);

/// How often in a row to wait so for one packet.
const MAX_BACK_OFFS: u32 = 1_000;

/// How often a request is sent at most: twice again after packets were dropped here.
const MAX_ATTEMPTS: u8 = 3;

/// What a sweep measures.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whom to ask.
    pub targets: Targets,
    /// The identifier that requests bear on the wire.
    pub identifier: u16,
    /// What proves that replies are to our requests.
    pub key: CookieKey,
    /// Bytes behind the ICMP header.
    pub payload_bytes: usize,
    /// Requests to each target, 1 to [`MAX_COUNT`].
    pub count: u8,
    /// Packets a second, at least 1.
    pub rate: u32,
    /// How long to wait for each reply, at most [`INTERVAL`].
    pub timeout: Duration,
    /// When to stop sending; `None` when all is sent.
    pub end: Option<Duration>,
}

/// A request to be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// Its number among all that are sent.
    pub number: u64,
    /// Its sequence number on the wire: the low 16 bits.
    pub wire_sequence: u16,
    /// Whom it goes to.
    pub destination: IpAddr,
    /// What stands at the start of its payload.
    pub mark: Mark,
}

/// What came besides first replies in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Strays {
    /// Further replies to answered requests.
    pub duplicates: u64,
    /// First replies to requests that were given up.
    pub late: u64,
    /// Replies and errors with our identifier that our requests did not cause.
    pub forged: u64,
}

/// The state of a sweep.
#[derive(Debug)]
pub struct Strategy {
    /// What is measured.
    settings: Settings,
    /// What is known of each target, by its place.
    states: Vec<State>,
    /// The round that is being sent.
    round: u8,
    /// The place of the next target in it.
    next: u32,
    /// Places and rounds of requests that are to be sent again.
    again: VecDeque<(u32, u8)>,
    /// When this round began.
    round_began: Option<Duration>,
    /// When the next packet may leave.
    due: Duration,
    /// The request handed out and not yet reported.
    in_hand: Option<Transmit>,
    /// How often in a row the system had no room for it.
    back_offs: u32,
    /// Places of targets that were sent to, from the oldest request undecided on.
    window: VecDeque<u32>,
    /// The number of the first request in `window`.
    first: u64,
    /// When this machine last dropped packets for us, as far as is known.
    overflowed: Option<Duration>,
    /// What did not count.
    strays: Strays,
    /// Delays from stamps of the kernel.
    kernel_stamped: u64,
    /// Delays from the clock of this process.
    user_stamped: u64,
    /// Requests sent again.
    repeated: u64,
    /// When an interrupted sweep gives up waiting.
    grace_end: Option<Duration>,
    /// Whether nothing more is sent.
    is_stopped: bool,
}

/// A request that comes next.
struct Upcoming {
    /// When it may leave.
    due: Duration,
    /// The place of its target.
    place: u32,
    /// Its round.
    round: u8,
}

impl Strategy {
    /// Prepares a sweep that starts at time zero.
    pub fn new(settings: Settings) -> Self {
        let states = vec![State::default(); settings.targets.len()];
        Self {
            settings,
            states,
            round: 0,
            next: 0,
            again: VecDeque::new(),
            round_began: None,
            due: Duration::ZERO,
            in_hand: None,
            back_offs: 0,
            window: VecDeque::new(),
            first: 0,
            overflowed: None,
            strays: Strays::default(),
            kernel_stamped: 0,
            user_stamped: 0,
            repeated: 0,
            grace_end: None,
            is_stopped: false,
        }
    }

    /// Returns the next request if it may leave.
    ///
    /// The caller sends it and reports with [`Strategy::handle_sent`] or
    /// [`Strategy::handle_send_error`]; until then there is no other.
    pub fn poll_transmit(&mut self, now: Duration) -> Option<Transmit> {
        if self.settings.end.is_some_and(|end| end <= now) {
            self.is_stopped = true;
        }
        let Upcoming { due, place, round } = self.upcoming()?;
        // Whether the one before is lost is decided by `handle_timeout`.
        if due > now || self.state(place)?.flight.is_some() {
            return None;
        }
        let gap = Duration::from_secs(1) / self.settings.rate.max(1);
        self.due = due.max(now.saturating_sub(CATCH_UP)) + gap;
        if self.again.pop_front().is_none() {
            if place == 0 {
                self.round_began = Some(now);
            }
            self.next += 1;
        }
        let number = self.number();
        let attempt = self.state(place)?.attempt;
        let transmit = Transmit {
            number,
            wire_sequence: wire(number),
            destination: *self.settings.targets.addresses().get(index(place))?,
            mark: Mark { target: place, round, attempt },
        };
        self.in_hand = Some(transmit);
        Some(transmit)
    }

    /// Takes note that the request in hand was handed to the kernel, `stamp` read
    /// immediately before.
    pub fn handle_sent(&mut self, stamp: UserStamp) {
        let Some(transmit) = self.in_hand.take() else { return };
        self.back_offs = 0;
        self.window.push_back(transmit.mark.target);
        if let Some(state) = self.state_mut(transmit.mark.target) {
            let sent = TransmitStamp { user: stamp, kernel: None };
            let round = transmit.mark.round;
            state.depart(Flight { number: transmit.number, sent, round });
        }
        self.advance();
    }

    /// Takes note that the request in hand did not leave. If the system had no room for
    /// it, it is tried again a little later.
    pub fn handle_send_error(&mut self, now: Duration, obstacle: Obstacle) {
        let Some(transmit) = self.in_hand.take() else { return };
        let place = transmit.mark.target;
        let is_full = obstacle == Obstacle::NoBufferSpace;
        if is_full && self.back_offs < MAX_BACK_OFFS && !self.is_stopped {
            self.back_offs += 1;
            self.again.push_front((place, transmit.mark.round));
            self.due = now + BACK_OFF;
            return;
        }
        self.back_offs = 0;
        if let Some(state) = self.state_mut(place) {
            state.fail_to_depart(obstacle);
        }
        self.advance();
    }

    /// Takes note of when the kernel says it sent the request `number`.
    pub fn handle_transmit_stamp(&mut self, number: u64, kernel: Timestamp) {
        let Some(at) = number.checked_sub(self.first) else { return };
        let place = usize::try_from(at).ok().and_then(|at| self.window.get(at)).copied();
        let flight = place.and_then(|place| self.state_mut(place)?.flight.as_mut());
        if let Some(flight) = flight.filter(|flight| flight.number == number) {
            flight.sent.kernel = Some(kernel);
        }
    }

    /// Takes a received ICMP message; whatever is not about our requests is ignored.
    pub fn handle_receive(
        &mut self,
        source: Option<IpAddr>,
        message: &Message<'_>,
        stamp: ReceiveStamp,
    ) {
        match message {
            Message::EchoReply(reply) if reply.identifier == self.settings.identifier => {
                self.handle_reply(source, reply.payload, stamp);
            }
            Message::Report(report) => self.handle_report(source, *report),
            Message::EchoReply(_) | Message::Other { .. } => {}
        }
    }

    /// Takes an ICMP error, also one that came by a socket's error queue.
    pub fn handle_report(&mut self, from: Option<IpAddr>, report: Report<'_>) {
        if report.quoted.identifier != self.settings.identifier {
            return;
        }
        let Some(place) = self.resolve_quoted(report.quoted) else {
            self.strays.forged += 1;
            return;
        };
        let wire_sequence = report.quoted.sequence;
        if let Some(state) = self.state_mut(place)
            && state.flight.take_if(|it| wire(it.number) == wire_sequence).is_some()
        {
            let problem = report.problem;
            state.lose(Some(EchoError::Reported { from, problem }));
        }
        self.forget_decided();
    }

    /// Takes note that this machine has dropped packets that were for us.
    pub fn handle_overflow(&mut self, now: Duration) {
        self.overflowed = Some(now);
    }

    /// Gives up requests whose time is over.
    pub fn handle_timeout(&mut self, now: Duration) {
        let is_over = self.grace_end.is_some_and(|end| end <= now);
        let overflowed = self.overflowed;
        let timeout = self.settings.timeout;
        while let Some(place) = self.window.front().copied() {
            let number = self.first;
            let is_sending = !self.is_stopped;
            let mut to_repeat = None;
            if let Some(state) = self.state_mut(place)
                && let Some(flight) = state.flight.filter(|it| it.number == number)
            {
                let sent = flight.sent.user.monotonic;
                if sent.saturating_add(timeout) <= now {
                    state.flight = None;
                    let is_ours = overflowed.is_some_and(|moment| sent <= moment);
                    let left = state.attempt + 1 < MAX_ATTEMPTS;
                    if is_ours && left && is_sending {
                        state.attempt += 1;
                        to_repeat = Some(flight.round);
                    } else {
                        state.lose(None);
                    }
                } else if is_over {
                    state.flight = None;
                } else {
                    break;
                }
            }
            if let Some(round) = to_repeat {
                self.repeated += 1;
                self.again.push_back((place, round));
            }
            self.window.pop_front();
            self.first += 1;
        }
    }

    /// Returns when something has to be done next. Ask again after every other call.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let end = self.settings.end;
        let due = self.upcoming().map(|it| end.map_or(it.due, |end| it.due.min(end)));
        let oldest = self.window.front().and_then(|place| self.state(*place)?.flight);
        let expiry = oldest.map(|flight| {
            let deadline =
                flight.sent.user.monotonic.saturating_add(self.settings.timeout);
            self.grace_end.map_or(deadline, |grace_end| deadline.min(grace_end))
        });
        [due, expiry].into_iter().flatten().min()
    }

    /// Ends early: sends nothing more and waits for outstanding replies until their
    /// timeout, but at most [`STOP_GRACE`]. The first call counts.
    pub fn stop(&mut self, now: Duration) {
        self.is_stopped = true;
        self.grace_end.get_or_insert_with(|| now.saturating_add(STOP_GRACE));
    }

    /// Returns whether nothing is left to send or to wait for.
    pub fn is_finished(&self) -> bool {
        self.in_hand.is_none() && self.upcoming().is_none() && self.window.is_empty()
    }

    /// Returns what is known of each target that was asked, in their order.
    pub fn reports(&self) -> impl Iterator<Item = TargetReport> {
        let all = self.settings.targets.addresses().iter().zip(&self.states);
        all.filter_map(|(address, state)| state.report(*address))
    }

    /// Returns what came besides first replies in time.
    pub fn strays(&self) -> Strays {
        self.strays
    }

    /// Returns how many delays are of stamps of the kernel and of this process.
    pub fn stamped(&self) -> [u64; 2] {
        [self.kernel_stamped, self.user_stamped]
    }

    /// Returns how many requests were sent again since packets were dropped here.
    pub fn repeated(&self) -> u64 {
        self.repeated
    }

    /// Returns whom to ask next, and when that may be: after all requests that are to be
    /// sent again, the targets of the round in their order.
    fn upcoming(&self) -> Option<Upcoming> {
        if self.is_stopped || self.in_hand.is_some() {
            return None;
        }
        if let Some((place, round)) = self.again.front().copied() {
            return Some(Upcoming { due: self.due, place, round });
        }
        let state = self.state(self.next)?;
        let mut due = self.due;
        if self.next == 0
            && let Some(began) = self.round_began
        {
            due = due.max(began + INTERVAL);
        }
        if let Some(flight) = state.flight {
            due = due.max(flight.sent.user.monotonic + self.settings.timeout);
        }
        Some(Upcoming { due, place: self.next, round: self.round })
    }

    /// Goes on to the next round once a target of each place was asked.
    fn advance(&mut self) {
        let is_over = index(self.next) == self.states.len() && self.again.is_empty();
        if is_over && self.round + 1 < self.settings.count {
            self.round += 1;
            self.next = 0;
        }
        self.forget_decided();
    }

    /// Decides the request that a reply answers.
    fn handle_reply(
        &mut self,
        source: Option<IpAddr>,
        payload: &[u8],
        stamp: ReceiveStamp,
    ) {
        let mark = self.settings.key.read(payload).filter(|mark| {
            let address = self.settings.targets.addresses().get(index(mark.target));
            let is_whole = payload.len() == self.settings.payload_bytes;
            is_whole && source.is_none_or(|source| address == Some(&source))
        });
        let timeout = self.settings.timeout;
        let strays = &mut self.strays;
        let state = mark.and_then(|mark| self.states.get_mut(index(mark.target)));
        let Some((mark, state)) = mark.zip(state) else {
            strays.forged += 1;
            return;
        };
        match state.arrive(mark, &stamp, timeout) {
            Arrived::Again => strays.duplicates += 1,
            Arrived::Late => strays.late += 1,
            Arrived::InTime(StampSource::Kernel) => self.kernel_stamped += 1,
            Arrived::InTime(StampSource::User) => self.user_stamped += 1,
        }
        self.forget_decided();
    }

    /// Returns the place of the target of a request that an ICMP error quotes, if it can be
    /// ours: by its address, or where that is missing by its mark.
    fn resolve_quoted(&self, quoted: QuotedEcho<'_>) -> Option<u32> {
        let key = &self.settings.key;
        let place = match quoted.destination {
            Some(destination) => self.settings.targets.place(destination)?,
            None => key.read(quoted.payload)?.target,
        };
        let state = self.state(place)?;
        let round = state.flight.map_or(self.round, |flight| flight.round);
        let mark = Mark { target: place, round, attempt: state.attempt };
        // An error that is late, of an earlier round, is genuine if its mark can be read.
        let is_genuine = key.fits_start_of(mark, quoted.payload)
            || key.read(quoted.payload).is_some_and(|mark| mark.target == place);
        is_genuine.then_some(place)
    }

    /// Forgets requests at the front of the window that are decided.
    fn forget_decided(&mut self) {
        while let Some(place) = self.window.front() {
            let flight = self.state(*place).and_then(|state| state.flight);
            if flight.is_some_and(|flight| flight.number == self.first) {
                break;
            }
            self.window.pop_front();
            self.first += 1;
        }
    }

    /// Returns the number of the next request.
    fn number(&self) -> u64 {
        self.first + self.window.len() as u64
    }

    /// Returns what is known of the target at a place.
    fn state(&self, place: u32) -> Option<&State> {
        self.states.get(index(place))
    }

    /// Returns what is known of the target at a place.
    fn state_mut(&mut self, place: u32) -> Option<&mut State> {
        self.states.get_mut(index(place))
    }
}

/// Returns a place as an index.
fn index(place: u32) -> usize {
    usize::try_from(place).unwrap_or(usize::MAX)
}

/// Returns the sequence number of a request on the wire: the low 16 bits.
fn wire(number: u64) -> u16 {
    u16::try_from(number % (1 << u16::BITS)).expect("the remainder fits in 16 bits")
}

#[cfg(test)]
#[path = "strategy_tests.rs"]
mod tests;
