//! The relay: what components and clients are answered.
//!
//! Like every exchange it does no I/O: messages and the time come in, answers go out.

mod access;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;
use mplane::access::{CapabilityName, Identity, Policy, Withheld};
use mplane::features::Features;
use mplane::message::{
    Capability, Exception, Interrupt, Message, Receipt, Specification,
};
use mplane::primitive::Value;
use mplane::registry::{CORE, Registries};
use mplane::token::Token;

use crate::directory::{Dialect, Directory, RegisterError};
use crate::life::{Effect, Event, State, step};

/// How long after the end of its temporal scope a specification may still yield a result,
/// in seconds: components that were away deliver late.
const GRACE_S: i64 = 60;

/// Messages queued for one component: a bound on what one that never comes back holds.
const QUEUE: usize = 1_000;

/// Specifications held at once, ended ones included.
const MEASUREMENTS: usize = 100_000;

/// Ended specifications kept for repeated redemption, the oldest go first.
const SETTLED: usize = 10_000;

/// A supervisor, without its connections.
#[derive(Debug, Default)]
pub struct Relay {
    directory: Directory,
    /// Who may offer and use which capability.
    policy: Policy,
    measurements: BTreeMap<Id, Measurement>,
    /// Tokens are names between two peers: of the client for what it sent…
    by_client: BTreeMap<(Identity, Token), Id>,
    /// …and of the component for what it was handed.
    by_component: BTreeMap<(Identity, Token), Id>,
    queues: BTreeMap<Identity, VecDeque<Queued>>,
    /// When a specification is given up, UTC.
    deadlines: BTreeSet<(Timestamp, Id)>,
    /// Ended specifications, the oldest first.
    settled: VecDeque<Id>,
    last_id: u64,
    /// Counts what ended and what was queued, so that who waits looks again.
    news: u64,
}

/// Names a specification within one supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(u64);

/// A specification on its way.
#[derive(Debug)]
struct Measurement {
    client: Identity,
    /// As the client sent it, with the token between the client and us.
    asked: Specification,
    component: Identity,
    /// Which capability of the component it is for.
    capability: CapabilityName,
    /// As the component gets it, with the token between us and the component.
    handed: Specification,
    state: State,
    /// When it is given up, UTC.
    deadline: Option<Timestamp>,
}

/// What a component is to fetch.
#[derive(Debug)]
enum Queued {
    Specification(Id),
    Interrupt(Interrupt),
}

/// The answer to a client.
#[derive(Debug)]
pub struct Reply {
    /// What to send back now.
    pub message: Message,
    /// Whether a result is still to come: a server may wait for it.
    pub pending: bool,
    /// What the policy withheld, to be logged; the message does not tell it.
    pub withheld: Option<Withheld>,
}

impl Relay {
    /// Returns the directory of components.
    pub const fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Returns a number that changes when something was queued or ended.
    pub const fn news(&self) -> u64 {
        self.news
    }

    /// Takes note of a capability or a withdrawal of a component.
    pub fn register(
        &mut self,
        from: &Identity,
        message: Message,
        features: Features,
        dialect: Dialect,
        now: Timestamp,
    ) -> Result<(), OfferError> {
        match message {
            Message::Capability(capability) => {
                self.policy.permit_offer(from, &CapabilityName::of(&capability))?;
                self.directory.register(from, capability, features, dialect, now)?;
                Ok(())
            }
            Message::Withdrawal(withdrawal) => {
                self.directory.withdraw(from, withdrawal.token());
                Ok(())
            }
            other => Err(OfferError::Kind(other.kind().key())),
        }
    }

    /// Hands out what is queued for a component; `None` if it is not registered.
    pub fn fetch(&mut self, from: &Identity, now: Timestamp) -> Option<Vec<Message>> {
        self.directory.component(from)?;
        self.directory.seen(from, now);
        let queue = self.queues.remove(from).unwrap_or_default();
        let messages = queue
            .into_iter()
            .filter_map(|queued| match queued {
                Queued::Interrupt(interrupt) => Some(interrupt.into()),
                Queued::Specification(id) => {
                    let measurement = self.measurements.get(&id)?;
                    if measurement.state != State::Queued {
                        return None;
                    }
                    let handed = measurement.handed.clone();
                    self.advance(id, Event::Fetched);
                    Some(handed.into())
                }
            })
            .collect();
        Some(messages)
    }

    /// Takes note of a receipt, a result or an exception of a component.
    pub fn report(
        &mut self,
        from: &Identity,
        message: Message,
        now: Timestamp,
    ) -> Result<(), ReportError> {
        self.directory.seen(from, now);
        let token = message.token().ok_or(ReportError::NoToken)?;
        let id = *self
            .by_component
            .get(&(from.clone(), token.clone()))
            .ok_or_else(|| ReportError::Unexpected(token.to_string()))?;
        let event = match message {
            Message::Receipt(_) => Event::Promised,
            Message::Result(_) | Message::Exception(_) | Message::Envelope(_) => {
                Event::Delivered(Box::new(self.to_client(id, message)))
            }
            other => return Err(ReportError::Kind(other.kind().key())),
        };
        self.advance(id, event);
        Ok(())
    }

    /// Returns the capabilities that a client may use, and can read with these features.
    pub fn capabilities(&self, client: &Identity, features: Features) -> Vec<Capability> {
        let offers = self.directory.offers(&self.may(client));
        let mut shown: Vec<_> = offers.into_iter().map(|offer| offer.shown).collect();
        shown.retain(|capability| features.can_read(capability));
        shown
    }

    /// Answers a client. `fresh` become tokens where new ones are needed: between the
    /// client and us, and between us and the component.
    pub fn handle(
        &mut self,
        from: &Identity,
        message: Message,
        fresh: [Token; 2],
        now: Timestamp,
    ) -> Reply {
        match message {
            Message::Specification(specification) => {
                self.accept(from, specification, fresh, now)
            }
            Message::Redemption(redemption) => self.state_of(from, redemption.token()),
            Message::Interrupt(interrupt) => {
                let token = interrupt.token().clone();
                if let Some(id) = self.by_client.get(&(from.clone(), token.clone()))
                    && self.permit_measurement(*id).is_ok()
                {
                    let word = "interrupted before the component fetched it";
                    let word = Exception::new(Some(token.clone()), word);
                    self.advance(*id, Event::Interrupted(Box::new(word.into())));
                }
                self.state_of(from, &token)
            }
            other => {
                let [token, _] = fresh;
                let token = other.token().unwrap_or(token);
                exception(
                    token,
                    format!(
                        "a supervisor takes specifications, redemptions and interrupts \
                         from clients, not a message of kind {}",
                        other.kind()
                    ),
                )
            }
        }
    }

    /// Returns when to call [`handle_timeout`](Self::handle_timeout), UTC.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Gives up specifications whose time is over and from which nothing has come.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        while let Some(&(deadline, id)) = self.deadlines.first()
            && deadline <= now
        {
            self.deadlines.pop_first();
            let Some(measurement) = self.measurements.get(&id) else { continue };
            let token = measurement.asked.token();
            let reason = match measurement.state {
                State::Queued => "did not fetch the specification",
                State::Handed => "fetched the specification and did not answer",
                _ => "promised a result and did not deliver it",
            };
            let component = &measurement.component;
            let reason = format!("lost: component {component} {reason}");
            let word = Exception::new(Some(token), reason);
            self.advance(id, Event::Lost(Box::new(word.into())));
        }
    }

    /// Accepts or refuses a specification of a client.
    fn accept(
        &mut self,
        from: &Identity,
        mut asked: Specification,
        [fresh, handed_token]: [Token; 2],
        now: Timestamp,
    ) -> Reply {
        let token = match asked.stated_token() {
            Some(token) => token.clone(),
            None if asked.when().is_definite() => asked.token(),
            None => fresh,
        };
        if self.by_client.contains_key(&(from.clone(), token.clone())) {
            return self.state_of(from, &token);
        }
        asked.set_token(Some(token.clone()));
        let chosen = self.directory.choose(&self.may(from), &asked, now);
        let offer = match chosen {
            Ok(offer) => offer,
            Err(reason) => return self.refuse(from, &asked, &reason, now),
        };
        let Some(delays) = asked.when().delays(now) else {
            return exception(
                token,
                format!("the temporal scope {} is over", asked.when()),
            );
        };
        if self.measurements.len() >= MEASUREMENTS {
            return exception(
                token,
                format!(
                    "this supervisor holds {MEASUREMENTS} specifications, as many as it \
                     takes; try again later"
                ),
            );
        }
        let queue = self.queues.entry(offer.component.clone()).or_default();
        if queue.len() >= QUEUE {
            return exception(
                token,
                format!(
                    "{QUEUE} specifications wait for component {}, as many as are kept; \
                     try again later",
                    offer.component
                ),
            );
        }
        self.last_id += 1;
        let id = Id(self.last_id);
        let mut handed = asked.clone();
        handed.set_link(None);
        // Reference components compute the token of a definite scope themselves, and
        // answer with the one that they got otherwise.
        handed.set_token(Some(handed_token.clone()));
        let label = offer.registered.label().map(|label| format!("{label}-{}", id.0));
        handed.set_label(label);
        queue.push_back(Queued::Specification(id));
        self.by_client.insert((from.clone(), token.clone()), id);
        self.by_component.insert((offer.component.clone(), handed_token), id);
        let end = delays.end.and_then(|delay| now.checked_add(delay).ok());
        let grace = jiff::SignedDuration::from_secs(GRACE_S);
        let deadline = end.and_then(|end| end.checked_add(grace).ok());
        self.deadlines.extend(deadline.map(|deadline| (deadline, id)));
        let measurement = Measurement {
            client: from.clone(),
            asked,
            capability: CapabilityName::of(&offer.registered),
            component: offer.component,
            handed,
            state: State::Queued,
            deadline,
        };
        self.measurements.insert(id, measurement);
        self.news += 1;
        self.state_of(from, &token)
    }

    /// Makes a step in the life of a specification and carries its effect out.
    fn advance(&mut self, id: Id, event: Event) {
        let Some(measurement) = self.measurements.get_mut(&id) else { return };
        let state = std::mem::replace(&mut measurement.state, State::Queued);
        let (state, effect) = step(state, event);
        measurement.state = state;
        match effect {
            Effect::None => {}
            Effect::SendInterrupt => {
                let interrupt = Interrupt::of(&measurement.handed);
                let queue = self.queues.entry(measurement.component.clone()).or_default();
                // One interrupt says it all.
                let is_there = queue.iter().any(|queued| {
                    matches!(queued, Queued::Interrupt(known) if known.token() == interrupt.token())
                });
                if !is_there {
                    queue.push_back(Queued::Interrupt(interrupt));
                    self.news += 1;
                }
            }
            Effect::Settle => {
                self.news += 1;
                if let Some(deadline) = measurement.deadline {
                    self.deadlines.remove(&(deadline, id));
                }
                self.settled.push_back(id);
                if self.settled.len() > SETTLED
                    && let Some(oldest) = self.settled.pop_front()
                {
                    self.forget(oldest);
                }
            }
        }
    }

    /// Answers a client with what there is: the result, or a receipt.
    fn state_of(&self, from: &Identity, token: &Token) -> Reply {
        let id = self.by_client.get(&(from.clone(), token.clone()));
        let Some(measurement) = id.and_then(|id| self.measurements.get(id)) else {
            let text = format!("no specification of yours has token {token}");
            return exception(token.clone(), text);
        };
        let permitted =
            self.permit(from, &measurement.component, &measurement.capability);
        if let Err(withheld) = permitted {
            let text = format!(
                "you may not use the capability of the specification with token {token} \
                 any more"
            );
            let mut reply = exception(token.clone(), text);
            reply.withheld = Some(withheld);
            return reply;
        }
        if let State::Settled(message) = &measurement.state {
            let message = Message::clone(message);
            Reply { message, pending: false, withheld: None }
        } else {
            let message = Receipt::of(&measurement.asked).into();
            Reply { message, pending: true, withheld: None }
        }
    }

    /// Gives a message of a component the token and label that the client knows, and says
    /// which component it comes from.
    fn to_client(&self, id: Id, message: Message) -> Message {
        let Some(measurement) = self.measurements.get(&id) else { return message };
        let asked = &measurement.asked;
        let label = asked.label().map(ToOwned::to_owned);
        match message {
            Message::Result(mut result) => {
                result.set_token(Some(asked.token()));
                result.set_label(label);
                result.set_link(None);
                if let Ok(element) =
                    Registries::embedded().element(CORE, "component.identity")
                {
                    let who = measurement.component.to_string();
                    let value = Some(Value::String(who.into()));
                    // A component that says so itself, or a full section, stays as it is.
                    let _unchanged =
                        result.add_metadata(Arc::clone(element), value).is_err();
                }
                result.into()
            }
            Message::Exception(mut exception) => {
                exception.set_token(Some(asked.token()));
                exception.into()
            }
            Message::Envelope(mut envelope) => {
                envelope.set_token(Some(asked.token()));
                envelope.set_label(label);
                envelope.into()
            }
            other => other,
        }
    }

    /// Forgets an ended specification.
    fn forget(&mut self, id: Id) {
        if let Some(measurement) = self.measurements.remove(&id) {
            let asked = (measurement.client, measurement.asked.token());
            self.by_client.remove(&asked);
            let handed = (measurement.component, measurement.handed.token());
            self.by_component.remove(&handed);
        }
    }
}

/// Makes an answer that is an exception.
fn exception(token: Token, text: impl Into<String>) -> Reply {
    let message = Exception::new(Some(token), text).into();
    Reply { message, pending: false, withheld: None }
}

/// An offer of a component that is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// The directory does not take it.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The policy does not let the component offer it.
    #[error(transparent)]
    Withheld(#[from] Withheld),
    /// Something else than a capability or a withdrawal.
    #[error(
        "components offer capabilities and withdrawals here, not messages of kind {0}"
    )]
    Kind(&'static str),
}

/// A report of a component that is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// A message without token.
    #[error("the message has no token, so nobody can know what it is about")]
    NoToken,
    /// Nothing with this token was handed to the component.
    #[error("no specification with token {0} was handed to this component")]
    Unexpected(String),
    /// Something else than a receipt, result or exception.
    #[error(
        "components deliver receipts, results and exceptions here, not messages of kind {0}"
    )]
    Kind(&'static str),
}
