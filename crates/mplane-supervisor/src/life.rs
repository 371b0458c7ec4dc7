//! The life of a specification within a supervisor, as one pure step.

use mplane::message::Message;

/// How far a specification is.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Accepted, waiting to be fetched by the component.
    Queued,
    /// Fetched by the component.
    Handed,
    /// The component has promised a result.
    Receipted,
    /// It has ended: with a result or an exception.
    Settled(Box<Message>),
}

/// What happens to a specification.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The component fetches it.
    Fetched,
    /// The component promises a result.
    Promised,
    /// The component delivers a result or an exception.
    Delivered(Box<Message>),
    /// The client does not want it any more.
    Interrupted(Box<Message>),
    /// Its time is over and nothing has come.
    Lost(Box<Message>),
}

/// What follows from a step, besides the new state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// The component must be told to stop.
    SendInterrupt,
    /// The result or exception is there: who waits is to be told.
    Settle,
}

/// Makes one step. The first result wins: what comes later changes nothing.
pub fn step(state: State, event: Event) -> (State, Effect) {
    match (state, event) {
        (settled @ State::Settled(_), _) => (settled, Effect::None),
        (State::Queued, Event::Fetched) => (State::Handed, Effect::None),
        (State::Queued | State::Handed, Event::Promised) => {
            (State::Receipted, Effect::None)
        }
        (_, Event::Delivered(message) | Event::Lost(message))
        | (State::Queued, Event::Interrupted(message)) => {
            (State::Settled(message), Effect::Settle)
        }
        (running, Event::Interrupted(_)) => (running, Effect::SendInterrupt),
        (state, Event::Fetched | Event::Promised) => (state, Effect::None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mplane::message::Exception;

    fn word(text: &str) -> Box<Message> {
        Box::new(Exception::new(None, text).into())
    }

    fn live(events: impl IntoIterator<Item = Event>) -> (State, Effect) {
        events
            .into_iter()
            .fold((State::Queued, Effect::None), |(state, _), event| step(state, event))
    }

    #[test]
    fn the_first_result_wins() {
        let (state, effect) = live([
            Event::Fetched,
            Event::Promised,
            Event::Delivered(word("first")),
            Event::Delivered(word("second")),
            Event::Lost(word("lost")),
        ]);
        assert_eq!((state, effect), (State::Settled(word("first")), Effect::None));
    }

    #[test]
    fn a_result_may_overtake_its_receipt() {
        let (state, _) =
            live([Event::Fetched, Event::Delivered(word("result")), Event::Promised]);
        assert_eq!(state, State::Settled(word("result")));
    }

    #[test]
    fn an_interrupt_ends_what_waits_and_is_passed_on_for_what_runs() {
        let (state, effect) = live([Event::Interrupted(word("interrupted"))]);
        assert_eq!(
            (state, effect),
            (State::Settled(word("interrupted")), Effect::Settle)
        );
        let (state, effect) =
            live([Event::Fetched, Event::Interrupted(word("interrupted"))]);
        assert_eq!((state, effect), (State::Handed, Effect::SendInterrupt));
    }
}
