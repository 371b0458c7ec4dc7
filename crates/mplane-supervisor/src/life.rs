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
    pub interrupt: Asked,
    /// Whether the component is to be asked for the results so far.
    pub progress: Asked,
    /// Whether there are results so far.
    pub has_results: bool,
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

/// Whether a component is to be asked for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// No.
    Unasked,
    /// It is to fetch the message that asks.
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
    /// The component delivers an envelope of results: all of them, or those so far.
    DeliveredSeveral {
        /// Whether nothing more is to come. The scope of the envelope tells, not who has
        /// asked: what is posted may be posted twice, and answers may be lost.
        are_all: bool,
    },
    /// The client wants to know the results so far.
    ProgressAsked,
    /// The client does not want it any more.
    Interrupted,
    /// The lease of a hand-out is over.
    LeaseOver,
    /// The component has registered again, or the supervisor was started again: what was handed
    /// out and is not answered may not have arrived. It is for components that start nothing
    /// twice.
    Restarted,
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
    /// The request for the results so far is handed to the component.
    HandRedemption,
    /// There are results so far.
    Progress,
    /// The component has something to fetch.
    Wake,
    /// It has ended: who waits is to be told.
    Settle(End),
    /// Something was delivered after the end: it is noted, and not shown.
    TooLate,
}

impl Asked {
    /// Has it asked again what may not have arrived.
    const fn again(self) -> Self {
        match self {
            Self::Sent => Self::Queued,
            other => other,
        }
    }
}

impl Life {
    /// Says whether it has ended.
    pub const fn is_settled(&self) -> bool {
        matches!(self.state, State::Settled(_))
    }

    /// The life of what was just accepted.
    pub const BEGIN: Self = Self {
        state: State::Queued,
        epoch: 0,
        interrupt: Asked::Unasked,
        progress: Asked::Unasked,
        has_results: false,
    };

    /// The life of what was just accepted for many components: its parts are handed out.
    pub const BEGIN_WHOLE: Self = Self { state: State::Receipted, ..Self::BEGIN };
}

/// Makes one step. The first result wins: what comes later changes nothing.
pub fn step(life: Life, event: Event, now: Timestamp) -> (Life, Effect) {
    let to = |state| Life { state, ..life };
    if matches!(life.state, State::Settled(_)) {
        let is_delivered = matches!(
            event,
            Event::Delivered(_) | Event::DeliveredSeveral { are_all: true }
        );
        let effect = if is_delivered { Effect::TooLate } else { Effect::Nothing };
        return (life, effect);
    }
    match (life.state, event) {
        (_, Event::Promised) if life.progress == Asked::Sent => {
            // It has no results yet, and says so.
            let is_known = life.state == State::Receipted;
            let effect = if is_known { Effect::Nothing } else { Effect::Noted };
            (Life { progress: Asked::Unasked, ..to(State::Receipted) }, effect)
        }
        (State::Queued, Event::Fetched { lease }) => {
            let lease = lease.and_then(|lease| now.checked_add(lease).ok());
            let epoch = life.epoch.saturating_add(1);
            (Life { state: State::Handed { lease }, epoch, ..life }, Effect::HandOut)
        }
        (_, Event::Fetched { .. }) if life.interrupt == Asked::Queued => {
            (Life { interrupt: Asked::Sent, ..life }, Effect::HandInterrupt)
        }
        (_, Event::Fetched { .. }) if life.progress == Asked::Queued => {
            (Life { progress: Asked::Sent, ..life }, Effect::HandRedemption)
        }
        (State::Queued | State::Handed { .. }, Event::Promised) => {
            (to(State::Receipted), Effect::Noted)
        }
        (_, Event::Delivered(end)) => (to(State::Settled(end)), Effect::Settle(end)),
        (_, Event::DeliveredSeveral { are_all: false }) => {
            let life = to(State::Receipted);
            let life = Life { progress: Asked::Unasked, has_results: true, ..life };
            (life, Effect::Progress)
        }
        (_, Event::DeliveredSeveral { are_all: true }) => {
            (to(State::Settled(End::Result)), Effect::Settle(End::Result))
        }
        (State::Receipted, Event::ProgressAsked) if life.progress == Asked::Unasked => {
            (Life { progress: Asked::Queued, ..life }, Effect::Wake)
        }
        // The results so far are all that came.
        (_, Event::TimeOver) if life.has_results => {
            (to(State::Settled(End::Result)), Effect::Settle(End::Result))
        }
        (_, Event::TimeOver) => {
            (to(State::Settled(End::Lost)), Effect::Settle(End::Lost))
        }
        (State::Queued, Event::Interrupted) if life.epoch == 0 => {
            (to(State::Settled(End::Interrupted)), Effect::Settle(End::Interrupted))
        }
        // One that was handed out before may run. Who insists is passed on once more: the
        // first may have been lost on the way.
        (_, Event::Interrupted) => match life.interrupt {
            Asked::Unasked | Asked::Sent => {
                (Life { interrupt: Asked::Queued, ..life }, Effect::Wake)
            }
            Asked::Queued => (life, Effect::Nothing),
        },
        (State::Handed { lease: Some(lease) }, Event::LeaseOver) if lease <= now => (
            Life { interrupt: life.interrupt.again(), ..to(State::Queued) },
            Effect::Wake,
        ),
        (_, Event::Restarted) => {
            let state = match life.state {
                State::Handed { lease: Some(_) } => State::Queued,
                other => other,
            };
            let (interrupt, progress) = (life.interrupt.again(), life.progress.again());
            let again = Life { state, interrupt, progress, ..life };
            let effect = if again == life { Effect::Nothing } else { Effect::Wake };
            (again, effect)
        }
        (
            _,
            Event::Fetched { .. }
            | Event::Promised
            | Event::ProgressAsked
            | Event::LeaseOver,
        ) => (life, Effect::Nothing),
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
        assert_eq!((life.interrupt, effect), (Asked::Queued, Effect::Wake));
        let (_, effect) = step(life, Event::Interrupted, NOON);
        assert_eq!(effect, Effect::Nothing);
        let (life, effect) = step(life, FETCHED, NOON);
        assert_eq!((life.interrupt, effect), (Asked::Sent, Effect::HandInterrupt));
        assert_eq!(step(life, FETCHED, NOON).1, Effect::Nothing);
        // Who insists is heard.
        let (life, effect) = step(life, Event::Interrupted, NOON);
        assert_eq!((life.interrupt, effect), (Asked::Queued, Effect::Wake));
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
        assert_eq!((life.interrupt, effect), (Asked::Queued, Effect::Wake));
    }

    #[test]
    fn what_may_not_have_arrived_is_handed_out_again_after_a_restart() {
        let (handed, _) = live([FETCHED]);
        let (life, effect) = step(handed, Event::Restarted, NOON);
        assert_eq!((life.state, effect), (State::Queued, Effect::Wake));
        let (late, _) = step(life, Event::Promised, NOON);
        assert_eq!(late.state, State::Receipted, "it had arrived");
        // So are interrupts, and requests for the results so far.
        let events = [FETCHED, Event::Promised, Event::ProgressAsked, Event::Interrupted];
        let (told, _) = live(events.into_iter().chain([FETCHED, FETCHED]));
        assert_eq!((told.interrupt, told.progress), (Asked::Sent, Asked::Sent));
        let (life, effect) = step(told, Event::Restarted, NOON);
        assert_eq!((life.state, effect), (State::Receipted, Effect::Wake));
        assert_eq!((life.interrupt, life.progress), (Asked::Queued, Asked::Queued));
        // An interrupt that was lost with its specification is told again with it.
        let (both, _) = live([FETCHED, Event::Interrupted, FETCHED]);
        assert_eq!(both.interrupt, Asked::Sent);
        for event in [Event::Restarted, Event::LeaseOver] {
            let (life, _) = step(both, event, NOON + LEASE);
            assert_eq!((life.state, life.interrupt), (State::Queued, Asked::Queued));
        }
        let (promised, _) = live([FETCHED, Event::Promised]);
        let nothing = (promised, Effect::Nothing);
        assert_eq!(step(promised, Event::Restarted, NOON), nothing);
        let (unleased, _) = live([Event::Fetched { lease: None }]);
        let nothing = (unleased, Effect::Nothing);
        assert_eq!(step(unleased, Event::Restarted, NOON), nothing);
        // Who calls a component goes on with what it has in hand, and is told to interrupt it.
        let unleased = Event::Fetched { lease: None };
        let (told, _) = live([unleased, Event::Interrupted, unleased]);
        let (life, effect) = step(told, Event::Restarted, NOON);
        assert_eq!((life.interrupt, effect), (Asked::Queued, Effect::Wake));
        assert_eq!(life.state, State::Handed { lease: None });
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

    #[test]
    fn results_so_far_end_nothing() {
        let (life, effect) = live([FETCHED, Event::Promised, Event::ProgressAsked]);
        assert_eq!((life.progress, effect), (Asked::Queued, Effect::Wake));
        assert_eq!(step(life, Event::ProgressAsked, NOON).1, Effect::Nothing);
        let (life, effect) = step(life, FETCHED, NOON);
        assert_eq!(effect, Effect::HandRedemption);
        let (none_yet, effect) = step(life, Event::Promised, NOON);
        assert_eq!((none_yet.progress, effect), (Asked::Unasked, Effect::Nothing));
        let so_far = Event::DeliveredSeveral { are_all: false };
        let (life, effect) = step(life, so_far, NOON);
        assert_eq!((life.state, effect), (State::Receipted, Effect::Progress));
        // The same once more, and what was not asked for.
        for event in [so_far, Event::Promised, so_far] {
            assert_eq!(step(life, event, NOON).0, life);
        }
        let (_, over) = step(life, Event::TimeOver, NOON);
        assert_eq!(over, Effect::Settle(End::Result), "what is there is the result");
        let (all, effect) = step(life, Event::DeliveredSeveral { are_all: true }, NOON);
        assert_eq!(effect, Effect::Settle(End::Result));
        assert_eq!(step(all, so_far, NOON).1, Effect::Nothing, "it says nothing new");
    }
}
