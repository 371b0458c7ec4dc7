//! The life of a specification within a supervisor, as one pure step.
//!
//! The store makes each step within a transaction: it reads the state, asks [`step`], and
//! writes the new state with what happened. There is no other copy of the state.

use std::time::Duration;

use jiff::Timestamp;

/// How far a specification is, and what the store needs to know of its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// How far it is.
    pub state: State,
    /// How often it was handed out.
    pub epoch: u32,
    /// Whether the component is to be told to stop.
    pub interrupt: Stop,
}

/// How far a specification is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Accepted, waiting to be fetched by the component.
    Queued,
    /// Fetched by the component, which has not answered. After the lease it is queued
    /// again; without one, a hand-out that is lost on the way is not made again.
    Handed {
        /// When it is queued again, UTC.
        lease: Option<Timestamp>,
    },
    /// The component has promised a result.
    Receipted,
    /// It has ended.
    Settled(End),
}

/// How a specification ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With a result, or several.
    Result,
    /// With an exception of the component.
    Exception,
    /// It was interrupted before the component fetched it.
    Interrupted,
    /// Its time is over and nothing has come.
    Lost,
}

/// Whether a component is to be told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// No.
    Unasked,
    /// It is to fetch the interrupt.
    Queued,
    /// It has fetched it.
    Sent,
}

/// What happens to a specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The component fetches what is queued for it.
    Fetched {
        /// How long the hand-out may stay without an answer before it is made again.
        lease: Option<Duration>,
    },
    /// The component promises a result.
    Promised,
    /// The component delivers a result or an exception.
    Delivered(End),
    /// The client does not want it any more.
    Interrupted,
    /// The lease of a hand-out is over.
    LeaseOver,
    /// Its time is over.
    TimeOver,
}

/// What follows from a step, besides the new state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing happened: the event came too late, or says nothing new.
    Nothing,
    /// It is noted.
    Noted,
    /// The specification is handed to the component.
    HandOut,
    /// The interrupt is handed to the component.
    HandInterrupt,
    /// The component has something to fetch.
    Wake,
    /// It has ended: who waits is to be told.
    Settle(End),
    /// Something was delivered after the end: it is noted, and not shown.
    TooLate,
}

impl Life {
    /// The life of what was just accepted.
    pub const BEGIN: Self =
        Self { state: State::Queued, epoch: 0, interrupt: Stop::Unasked };
}

/// Makes one step. The first result wins: what comes later changes nothing.
pub fn step(life: Life, event: Event, now: Timestamp) -> (Life, Effect) {
    let to = |state| Life { state, ..life };
    match (life.state, event) {
        (State::Settled(_), Event::Delivered(_)) => (life, Effect::TooLate),
        (State::Settled(_), _) | (State::Receipted, Event::Promised) => {
            (life, Effect::Nothing)
        }
        (State::Queued, Event::Fetched { lease }) => {
            let lease = lease.and_then(|lease| now.checked_add(lease).ok());
            let epoch = life.epoch.saturating_add(1);
            (Life { state: State::Handed { lease }, epoch, ..life }, Effect::HandOut)
        }
        (_, Event::Fetched { .. }) => match life.interrupt {
            Stop::Queued => {
                (Life { interrupt: Stop::Sent, ..life }, Effect::HandInterrupt)
            }
            Stop::Unasked | Stop::Sent => (life, Effect::Nothing),
        },
        (State::Queued | State::Handed { .. }, Event::Promised) => {
            (to(State::Receipted), Effect::Noted)
        }
        (_, Event::Delivered(end)) => (to(State::Settled(end)), Effect::Settle(end)),
        (_, Event::TimeOver) => {
            (to(State::Settled(End::Lost)), Effect::Settle(End::Lost))
        }
        (State::Queued, Event::Interrupted) if life.epoch == 0 => {
            (to(State::Settled(End::Interrupted)), Effect::Settle(End::Interrupted))
        }
        // One that was handed out before may run.
        (_, Event::Interrupted) => match life.interrupt {
            Stop::Unasked => (Life { interrupt: Stop::Queued, ..life }, Effect::Wake),
            Stop::Queued | Stop::Sent => (life, Effect::Nothing),
        },
        (State::Handed { lease: Some(lease) }, Event::LeaseOver) if lease <= now => {
            (to(State::Queued), Effect::Wake)
        }
        (_, Event::LeaseOver) => (life, Effect::Nothing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp::UNIX_EPOCH;
    const LEASE: Duration = Duration::from_secs(30);

    fn live(events: impl IntoIterator<Item = Event>) -> (Life, Effect) {
        let begin = (Life::BEGIN, Effect::Nothing);
        events.into_iter().fold(begin, |(life, _), event| step(life, event, NOON))
    }

    const FETCHED: Event = Event::Fetched { lease: Some(LEASE) };

    #[test]
    fn the_first_result_wins() {
        let (life, effect) = live([
            FETCHED,
            Event::Promised,
            Event::Delivered(End::Result),
            Event::TimeOver,
            Event::Delivered(End::Exception),
        ]);
        assert_eq!((life.state, effect), (State::Settled(End::Result), Effect::TooLate));
    }

    #[test]
    fn a_result_may_overtake_its_receipt() {
        let (life, effect) =
            live([FETCHED, Event::Delivered(End::Result), Event::Promised]);
        assert_eq!((life.state, effect), (State::Settled(End::Result), Effect::Nothing));
    }

    #[test]
    fn an_interrupt_ends_what_waits_and_is_passed_on_once_for_what_runs() {
        let (life, effect) = live([Event::Interrupted]);
        assert_eq!(life.state, State::Settled(End::Interrupted));
        assert_eq!(effect, Effect::Settle(End::Interrupted));
        let events = [FETCHED, Event::Interrupted];
        let (life, effect) = live(events);
        assert_eq!((life.interrupt, effect), (Stop::Queued, Effect::Wake));
        let (_, effect) = step(life, Event::Interrupted, NOON);
        assert_eq!(effect, Effect::Nothing);
        let (life, effect) = step(life, FETCHED, NOON);
        assert_eq!((life.interrupt, effect), (Stop::Sent, Effect::HandInterrupt));
        assert_eq!(step(life, FETCHED, NOON).1, Effect::Nothing);
    }

    #[test]
    fn what_is_handed_out_and_not_answered_is_queued_again_after_its_lease() {
        let (life, effect) = live([FETCHED]);
        assert_eq!((life.epoch, effect), (1, Effect::HandOut));
        assert_eq!(step(life, Event::LeaseOver, NOON).1, Effect::Nothing, "not yet");
        let later = NOON + LEASE;
        let (life, effect) = step(life, Event::LeaseOver, later);
        assert_eq!((life.state, effect), (State::Queued, Effect::Wake));
        let (life, _) = step(life, FETCHED, later);
        assert_eq!(life.epoch, 2);
        let (promised, _) = step(life, Event::Promised, later);
        let over = step(promised, Event::LeaseOver, later + LEASE);
        assert_eq!(over, (promised, Effect::Nothing));
        // It may run, although it is queued again.
        let (again, _) = step(life, Event::LeaseOver, later + LEASE);
        let (life, effect) = step(again, Event::Interrupted, later + LEASE);
        assert_eq!((life.interrupt, effect), (Stop::Queued, Effect::Wake));
    }

    #[test]
    fn without_a_lease_nothing_is_handed_out_twice() {
        let (life, _) = live([Event::Fetched { lease: None }]);
        let (life, effect) = step(life, Event::LeaseOver, NOON + LEASE);
        assert_eq!(
            (life.state, effect),
            (State::Handed { lease: None }, Effect::Nothing)
        );
    }
}
