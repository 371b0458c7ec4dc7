//! Repeats: whether results are all of them or those so far, and results that come one by
//! one.

use jiff::Timestamp;
use mplane::access::Identity;
use mplane::json;
use mplane::limits;
use mplane::message::{Envelope, Message};
use mplane::token::Token;
use mplane::when::When;
use mplane_runtime::stored::message_text;
use tracing::warn;

use super::Relay;
use crate::life::{Effect, End, Event};
use crate::store::{Id, Reported, Stepped, StoreError};

/// Bytes of the results of a repeat that are put together, the oldest go first: the largest
/// message, with room for what it says besides.
const JOINED_BYTES: usize = limits::MESSAGE_BYTES / 8 * 7;

impl Relay {
    /// Takes what a component delivers of what was handed to it with a token, as the client is
    /// to see it.
    pub(super) async fn delivered(
        &self,
        reported: &Reported,
        from: &Identity,
        token: &Token,
        message: Message,
        now: Timestamp,
    ) -> Result<Stepped, StoreError> {
        let Some(repeat) = self.repeat_of(reported, from) else {
            let event = match message {
                Message::Envelope(_) => Event::DeliveredSeveral { are_all: true },
                Message::Exception(_) => Event::Delivered(End::Exception),
                _ => Event::Delivered(End::Result),
            };
            return self.store.delivered(reported, event, &message, now).await;
        };
        // What is there is read, and written again with what comes: one after the other.
        let _turn = self.take_turn(reported.id).await;
        let now_reported = self.store.reported(from, token).await?;
        let reported = now_reported.as_ref().unwrap_or(reported);
        let event = match &message {
            Message::Envelope(results) => {
                let are_all = results.are_all_of(&repeat, now);
                Event::DeliveredSeveral { are_all }
            }
            Message::Exception(_) if !reported.life.has_results => {
                Event::Delivered(End::Exception)
            }
            _ if reported.life.is_settled() => Event::Delivered(End::Result),
            // It is one of several, or why no more come.
            _ => return self.join(reported, from, message, &repeat, now).await,
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

    /// Waits until nobody else puts results of a specification together.
    async fn take_turn(&self, id: Id) -> tokio::sync::MutexGuard<'_, ()> {
        let turns = u64::try_from(self.turns.len()).unwrap_or(1);
        let turn = usize::try_from(id.0 % turns).unwrap_or_default();
        self.turns[turn].lock().await
    }

    /// Adds to the results of a repeat what comes by itself: some components deliver each when
    /// it is there. The first of each measurement wins; the end of the temporal scope ends
    /// them. An exception does so at once, and stands behind the results.
    async fn join(
        &self,
        reported: &Reported,
        from: &Identity,
        message: Message,
        repeat: &When,
        now: Timestamp,
    ) -> Result<Stepped, StoreError> {
        let id = reported.id;
        let text = self.store.result(id).await?;
        let mut bytes = text.as_ref().map_or(0, String::len);
        let kept =
            text.map(|text| json::decode(text.as_bytes(), self.registries_of(from)));
        let mut results = match kept {
            None => Vec::new(),
            Some(Ok(Message::Envelope(kept))) => kept.into_messages(),
            Some(_) if matches!(message, Message::Exception(_)) => {
                let event = Event::Delivered(End::Exception);
                return self.store.delivered(reported, event, &message, now).await;
            }
            Some(other) => {
                warn!(specification = id.0, ?other, "results so far cannot be read");
                let detail = "the results so far cannot be read".to_owned();
                return self.not_kept(id, detail, now).await;
            }
        };
        let start = start_of(&message, now);
        let same =
            results.iter().find(|known| start.is_some() && start_of(known, now) == start);
        if let Some(same) = same {
            if *same == message {
                return Ok(Stepped { id, effect: Effect::Nothing });
            }
            let detail = format!("another result of {}", start.unwrap_or(now));
            return self.not_kept(id, detail, now).await;
        }
        let are_all = matches!(message, Message::Exception(_));
        bytes += message_text(&message).len();
        results.push(message);
        let envelope = together(reported, results, bytes, repeat, now);
        let event = Event::DeliveredSeveral { are_all };
        self.store.delivered(reported, event, &envelope.into(), now).await
    }

    /// Notes that something was delivered that is not kept.
    async fn not_kept(
        &self,
        id: Id,
        detail: String,
        now: Timestamp,
    ) -> Result<Stepped, StoreError> {
        let what = "something else delivered, not kept";
        self.store.noted(id, what, detail, now).await?;
        Ok(Stepped { id, effect: Effect::TooLate })
    }
}

/// Puts what came of a repeat together, in the order of the starts, as much as one message may
/// hold.
fn together(
    reported: &Reported,
    mut results: Vec<Message>,
    bytes: usize,
    repeat: &When,
    now: Timestamp,
) -> Envelope {
    // Exceptions have no start, and stand at the end.
    results.sort_by_key(|result| {
        let start = start_of(result, now);
        (start.is_none(), start)
    });
    let mut most = limits::ENVELOPE_CONTENTS;
    if bytes > JOINED_BYTES {
        let mut room = JOINED_BYTES;
        let fits = |result: &&Message| {
            let bytes = message_text(result).len();
            let fits = bytes <= room;
            room = room.saturating_sub(bytes);
            fits
        };
        // The latest stays, of whatever size.
        most = most.min(results.iter().rev().take_while(fits).count().max(1));
    }
    let starts = results.iter().filter_map(|result| start_of(result, now));
    let (first, last) = (starts.clone().min(), starts.max());
    let begin = first.unwrap_or(now);
    let has_ended = results.iter().any(|it| matches!(it, Message::Exception(_)));
    let end = if has_ended {
        repeat.bounds(begin).end.unwrap_or(now)
    } else {
        last.unwrap_or(begin)
    };
    let mut envelope = Envelope::of(results).with_content("result");
    envelope.keep_last(most);
    envelope.set_token(Some(reported.token.clone()));
    envelope.set_label(reported.label.clone());
    let scope = When::between(begin, end);
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
