//! Repeats: whether results are all of them or those so far, and results that come one by
//! one.

use jiff::Timestamp;
use mplane::access::Identity;
use mplane::json;
use mplane::limits;
use mplane::message::{Envelope, Message, ResultStatement};
use mplane::when::When;

use super::Relay;
use crate::life::{Effect, End, Event};
use crate::store::{Reported, Stepped, StoreError};

impl Relay {
    /// Takes what a component delivers, as the client is to see it.
    pub(super) async fn delivered(
        &self,
        reported: &Reported,
        from: &Identity,
        message: Message,
        now: Timestamp,
    ) -> Result<Stepped, StoreError> {
        let repeat = self.repeat_of(reported, from);
        let event = match (&message, repeat) {
            (Message::Result(result), Some(repeat)) if !reported.life.is_settled() => {
                return self.join(reported, from, result, &repeat, now).await;
            }
            (Message::Envelope(results), Some(repeat)) => {
                Event::DeliveredSeveral { are_all: are_all(&repeat, results, now) }
            }
            (Message::Envelope(_), None) => Event::DeliveredSeveral { are_all: true },
            (Message::Exception(_), _) => Event::Delivered(End::Exception),
            _ => Event::Delivered(End::Result),
        };
        self.store.delivered(reported, event, &message, now).await
    }

    /// Returns the temporal scope of what is reported about, if it is repeated.
    fn repeat_of(&self, reported: &Reported, from: &Identity) -> Option<When> {
        // Most are not, and need not be read for that.
        let text =
            reported.handed.as_deref().filter(|text| text.contains("\"repeat "))?;
        match json::decode(text.as_bytes(), self.registries_of(from)) {
            Ok(Message::Specification(asked)) if asked.when().is_repeated() => {
                Some(asked.when().clone())
            }
            _ => None,
        }
    }

    /// Adds one result to those of a repeat: some components deliver each when it is there.
    /// The first of each occurrence wins. The end of the temporal scope ends them.
    async fn join(
        &self,
        reported: &Reported,
        from: &Identity,
        result: &ResultStatement,
        repeat: &When,
        now: Timestamp,
    ) -> Result<Stepped, StoreError> {
        let _one_by_one = self.joining.lock().await;
        let id = reported.id;
        let kept = self.store.result(id).await?;
        let kept = kept.and_then(|text| {
            json::decode(text.as_bytes(), self.registries_of(from)).ok()
        });
        let mut results = match kept {
            Some(Message::Envelope(results)) => results.into_messages(),
            _ => Vec::new(),
        };
        let same = results.iter().find_map(|known| match known {
            Message::Result(known) if known.when() == result.when() => Some(known),
            _ => None,
        });
        match same {
            Some(same) if same == result => {
                return Ok(Stepped { id, effect: Effect::Nothing });
            }
            Some(_) => {
                let what = "something else delivered, not kept";
                let detail = format!("the result of {}", result.when());
                self.store.noted(id, what, detail, now).await?;
                return Ok(Stepped { id, effect: Effect::TooLate });
            }
            None => results.push(result.clone().into()),
        }
        let envelope = together(reported, results, repeat, now);
        let event = Event::DeliveredSeveral { are_all: false };
        self.store.delivered(reported, event, &envelope.into(), now).await
    }
}

/// Puts results of a repeat together, in the order of their starts.
fn together(
    reported: &Reported,
    mut results: Vec<Message>,
    repeat: &When,
    now: Timestamp,
) -> Envelope {
    results.sort_by_key(|result| start_of(result, now));
    let starts = results.iter().filter_map(|result| start_of(result, now));
    let (first, last) = (starts.clone().min(), starts.max());
    let mut envelope = Envelope::of(results).with_content("result");
    envelope.keep_last(limits::ENVELOPE_CONTENTS);
    envelope.set_token(Some(reported.token.clone()));
    envelope.set_label(reported.label.clone());
    let scope = When::between(first.unwrap_or(now), last.unwrap_or(now));
    envelope.set_when(Some(scope.with_period(repeat.period())));
    envelope
}

/// Returns when the measurement began whose result a message is.
fn start_of(message: &Message, now: Timestamp) -> Option<Timestamp> {
    match message {
        Message::Result(result) => result.when().bounds(now).start,
        _ => None,
    }
}

/// Says whether results of a repeat are all of them: their scope reaches its end or, of one
/// without end, beyond the start of the latest. Results so far reach to that start. Who does
/// not say how far they are has all, as references do.
pub(crate) fn are_all(repeat: &When, results: &Envelope, now: Timestamp) -> bool {
    let bounds = results.when().map(|when| when.bounds(now));
    let Some((start, end)) = bounds.and_then(|it| Some((it.start?, it.end?))) else {
        return true;
    };
    let reaches_the_end = repeat.bounds(start).end.is_some_and(|last| end >= last);
    let latest = results.messages().iter().filter_map(|it| start_of(it, now)).max();
    reaches_the_end || end > latest.unwrap_or(start)
}

#[cfg(test)]
mod tests {
    use mplane::message::{Capability, Specification, Statement, Table};

    use super::*;

    fn time(minutes: i64) -> Timestamp {
        Timestamp::from_second(minutes * 60).unwrap()
    }

    fn results(starts: &[i64], from: i64, until: i64) -> Envelope {
        let scope = "now ... future".parse().unwrap();
        let specification =
            Specification::of(&Capability::new(Statement::measure(scope)));
        let result = |start: &i64| {
            let when = When::between(time(*start), time(*start + 1));
            let table = Table::new(specification.columns());
            ResultStatement::of(&specification, when, table).into()
        };
        let mut envelope = Envelope::of(starts.iter().map(result).collect());
        envelope.set_when(Some(When::between(time(from), time(until))));
        envelope
    }

    #[test]
    fn results_are_all_where_their_scope_reaches_the_end() {
        for (repeat, starts, from, until, expected) in [
            ("repeat now + 1h / 10m", &[0, 10][..], 0, 10, false),
            ("repeat now + 1h / 10m", &[0, 10], 0, 60, true),
            ("repeat now + 1h / 10m", &[0, 60], 0, 60, true),
            // Interrupted, and so far.
            ("repeat now ... future / 10m", &[0, 10], 0, 10, false),
            ("repeat now ... future / 10m", &[0, 10], 0, 12, true),
            ("repeat now ... future / 10m", &[], 0, 0, false),
            // It began late.
            ("repeat 1970-01-01 00:00 ... 1970-01-01 01:00 / 10m", &[10], 5, 10, false),
            ("repeat 1970-01-01 00:00 ... 1970-01-01 01:00 / 10m", &[10], 5, 60, true),
        ] {
            let repeat: When = repeat.parse().unwrap();
            let are_all = are_all(&repeat, &results(starts, from, until), time(1_000));
            assert_eq!(are_all, expected, "{repeat}: {starts:?} until {until}");
        }
        let repeat = "repeat now + 1h / 10m".parse().unwrap();
        assert!(
            are_all(&repeat, &Envelope::of(Vec::new()), time(0)),
            "nobody says how far"
        );
    }
}
