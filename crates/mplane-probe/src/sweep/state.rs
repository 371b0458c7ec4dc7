//! What a sweep knows of one target. Pure.

use std::net::IpAddr;
use std::time::Duration;

use super::cookie::Mark;
use crate::packet::{Obstacle, ReceiveStamp, StampSource, TransmitStamp, round_trip};
use crate::ping::EchoError;

/// What became of the requests to one target. `sent` is `received` and `lost`, and one more
/// if the sweep was stopped while it was on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetReport {
    /// Whom they went to.
    pub address: IpAddr,
    /// Requests that left.
    pub sent: u32,
    /// Those answered in time.
    pub received: u32,
    /// Those not answered in time, or by an error.
    pub lost: u32,
    /// Requests that did not leave this machine.
    pub unsent: u32,
    /// The shortest delay.
    pub min: Option<Duration>,
    /// The mean delay, cut to whole nanoseconds.
    pub mean: Option<Duration>,
    /// The longest delay.
    pub max: Option<Duration>,
    /// The latest error.
    pub problem: Option<EchoError>,
}

/// What is known of one target.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    sent: u32,
    received: u32,
    lost: u32,
    unsent: u32,
    /// The shortest, all, and the longest delay.
    min: Duration,
    sum: Duration,
    max: Duration,
    /// The request on its way.
    pub(super) flight: Option<Flight>,
    /// The attempt at the present request.
    pub(super) attempt: u8,
    /// A bit for each round that was answered.
    answered: u128,
    /// The latest error.
    problem: Option<EchoError>,
}

/// A request on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flight {
    /// Its number among all that were sent.
    pub(super) number: u64,
    /// When it left.
    pub(super) sent: TransmitStamp,
    /// Its round.
    pub(super) round: u8,
}

/// What a reply is to its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrived {
    /// The first, in time; with a delay from this clock.
    InTime(StampSource),
    /// The first, to a request that was given up.
    Late,
    /// A further one.
    Again,
}

impl State {
    /// Takes note that a request left. A repeated one counts once.
    pub(super) fn depart(&mut self, flight: Flight) {
        self.sent += u32::from(self.attempt == 0);
        self.flight = Some(flight);
    }

    /// Takes note that a request did not leave this machine.
    pub(super) fn fail_to_depart(&mut self, obstacle: Obstacle) {
        let problem = Some(EchoError::NotSent(obstacle));
        if self.attempt == 0 {
            self.unsent += 1;
            self.problem = problem;
        } else {
            self.lose(problem);
        }
    }

    /// Takes note that a request is lost, perhaps since somebody said so.
    pub(super) fn lose(&mut self, problem: Option<EchoError>) {
        self.lost += 1;
        self.attempt = 0;
        self.problem = problem.or(self.problem);
    }

    /// Takes a genuine reply.
    pub(super) fn arrive(
        &mut self,
        mark: Mark,
        stamp: &ReceiveStamp,
        timeout: Duration,
    ) -> Arrived {
        let bit = 1_u128.checked_shl(mark.round.into()).unwrap_or_default();
        if self.answered & bit != 0 {
            return Arrived::Again;
        }
        let is_it = |flight: &mut Flight| flight.round == mark.round;
        let attempt = self.attempt;
        let is_this = |it: &mut Flight| is_it(it) && attempt == mark.attempt;
        let Some(flight) = self.flight.take_if(is_this) else {
            // A reply to an attempt that is being repeated leaves the repetition its own.
            let is_repeated =
                self.flight.as_mut().is_some_and(is_it) || attempt > mark.attempt;
            self.answered |= if is_repeated { 0 } else { bit };
            return Arrived::Late;
        };
        self.answered |= bit;
        let (rtt, sources) = round_trip(&flight.sent, stamp);
        // The reply counts by when it came, not by when we got round to it.
        if rtt > timeout {
            self.lose(None);
            return Arrived::Late;
        }
        self.attempt = 0;
        self.min = if self.received == 0 { rtt } else { self.min.min(rtt) };
        self.max = self.max.max(rtt);
        self.sum += rtt;
        self.received += 1;
        Arrived::InTime(sources.delay)
    }

    /// Returns what became of the requests; `None` if there were none.
    pub(super) fn report(&self, address: IpAddr) -> Option<TargetReport> {
        let of = |delay| (self.received > 0).then_some(delay);
        (self.sent + self.unsent > 0).then(|| TargetReport {
            address,
            sent: self.sent,
            received: self.received,
            lost: self.lost,
            unsent: self.unsent,
            min: of(self.min),
            mean: of(self.sum / self.received.max(1)),
            max: of(self.max),
            problem: self.problem,
        })
    }
}
