//! A client: capabilities known, specifications sent, results collected.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::component::without_serial;
use crate::access::Identity;
use crate::message::{
    Capability, Envelope, Exception, Message, Receipt, Redemption, ResultStatement,
    ScopeMismatch, SetParameterError, Specification, Withdrawal,
};
use crate::token::Token;
use crate::when::When;

/// A client, without its connections: those are the driver's.
#[derive(Debug, Default)]
pub struct ClientExchange {
    /// By who offers it and its token.
    capabilities: BTreeMap<(Identity, Token), Capability>,
    /// By who runs it and its token, in the order of sending.
    measurements: Vec<Measurement>,
    /// What was appended to the last label.
    serial: u64,
}

/// A specification that was sent, and what has come of it.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// Whom it was sent to.
    pub peer: Identity,
    /// What was sent.
    pub specification: Specification,
    /// When its last measurement may start, if it is a repeat with an end, UTC.
    pub repeats_until: Option<Timestamp>,
    /// When it was interrupted, UTC, if it was.
    pub interrupted: Option<Timestamp>,
    /// What has come back.
    pub state: MeasurementState,
}

/// How long after its end a repeat is still waited for, if who runs it does not say that all
/// is there.
const REPEAT_GRACE: SignedDuration = SignedDuration::from_secs(60);

/// What has come of a specification.
#[derive(Clone, Debug)]
pub enum MeasurementState {
    /// Nothing yet.
    Sent,
    /// A promise.
    Promised(Receipt),
    /// The result.
    Result(ResultStatement),
    /// The results of a repeated measurement.
    Results(Envelope),
    /// It failed.
    Failed(Exception),
}

impl Measurement {
    /// Returns the message that asks for the result; `None` once it is there.
    pub fn redemption(&self) -> Option<Redemption> {
        match &self.state {
            MeasurementState::Promised(receipt) => Some(Redemption::of_receipt(receipt)),
            MeasurementState::Sent | MeasurementState::Results(_) => {
                Some(Redemption::of(&self.specification))
            }
            _ => None,
        }
    }

    /// Says whether nothing more is to come. The results of a repeat are those so far until
    /// its time is over or it was interrupted.
    pub fn is_settled(&self, now: Timestamp) -> bool {
        match &self.state {
            MeasurementState::Sent | MeasurementState::Promised(_) => false,
            MeasurementState::Results(results) => {
                let is_over = |end: Timestamp| {
                    let scope = results.when().and_then(|when| when.bounds(now).end);
                    let is_all = scope.is_some_and(|until| until >= end);
                    // Some do not say how far their results are, or that they reach to the end
                    // from the beginning on. An exception may end it before.
                    let has_ended = end <= now || results.has_exception();
                    has_ended && is_all || now.duration_since(end) > REPEAT_GRACE
                };
                let says_all =
                    || results.say_all_of(self.specification.when(), now) == Some(true);
                // What was running then may still yield something.
                let has_stopped = |at: Timestamp| {
                    results.are_all_of(self.specification.when(), now)
                        || now.duration_since(at) > REPEAT_GRACE
                };
                !self.specification.when().is_repeated()
                    || self.interrupted.is_some_and(has_stopped)
                    || self.repeats_until.map_or_else(says_all, is_over)
            }
            MeasurementState::Result(_) | MeasurementState::Failed(_) => true,
        }
    }
}

impl ClientExchange {
    /// Takes note of a message from a peer.
    pub fn handle(&mut self, from: &Identity, message: Message) {
        match message {
            Message::Capability(capability) => {
                self.capabilities.insert((from.clone(), capability.token()), capability);
            }
            Message::Withdrawal(withdrawal) => {
                self.capabilities.remove(&(from.clone(), withdrawal.token().clone()));
                self.fail_withdrawn(from, &withdrawal);
            }
            Message::Receipt(receipt) => {
                let token = receipt.token().clone();
                self.settle(from, &token, |state| {
                    if matches!(
                        state,
                        MeasurementState::Sent | MeasurementState::Promised(_)
                    ) {
                        *state = MeasurementState::Promised(receipt);
                    }
                });
            }
            Message::Result(result) => {
                let token = result.token();
                self.settle(from, &token, |state| {
                    *state = MeasurementState::Result(result);
                });
            }
            Message::Exception(exception) => {
                if let Some(token) = exception.token().cloned() {
                    self.settle(from, &token, |state| {
                        *state = MeasurementState::Failed(exception);
                    });
                }
            }
            Message::Envelope(envelope) => match envelope.token().cloned() {
                Some(token) => self.settle(from, &token, |state| {
                    *state = MeasurementState::Results(envelope);
                }),
                None => {
                    for message in envelope.into_messages() {
                        self.handle(from, message);
                    }
                }
            },
            Message::Specification(_)
            | Message::Redemption(_)
            | Message::Interrupt(_)
            | Message::Indirection(_) => {}
        }
    }

    /// Forgets the capabilities of a peer, before they are fetched anew.
    pub fn forget_capabilities(&mut self, of: &Identity) {
        self.capabilities.retain(|(peer, _), _| peer != of);
    }

    /// Returns the capabilities known and who offers them.
    pub fn capabilities(&self) -> impl Iterator<Item = (&Identity, &Capability)> {
        self.capabilities.iter().map(|((peer, _), capability)| (peer, capability))
    }

    /// Finds a capability by its label or token.
    pub fn capability(
        &self,
        token_or_label: &str,
    ) -> Result<(&Identity, &Capability), UnknownCapability> {
        let is_named = |capability: &Capability| {
            capability.label() == Some(token_or_label)
                || capability.token().as_str() == token_or_label
        };
        self.capabilities().find(|(_, capability)| is_named(capability)).ok_or_else(
            || {
                let mut known: Vec<_> =
                    self.capabilities().filter_map(|(_, known)| known.label()).collect();
                known.sort_unstable();
                known.dedup();
                UnknownCapability {
                    name: token_or_label.to_owned(),
                    known: if known.is_empty() {
                        "none is known".into()
                    } else {
                        format!("known are {}", known.join(", "))
                    },
                }
            },
        )
    }

    /// Makes a specification of a capability, ready to be sent, and takes note of it.
    /// `fresh` becomes its token if its temporal scope is relative, so that running the
    /// same thing twice yields two results.
    pub fn specify<'a>(
        &mut self,
        token_or_label: &str,
        when: When,
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
        fresh: Token,
        now: Timestamp,
    ) -> Result<Measurement, SpecifyError> {
        let (peer, capability) = self.capability(token_or_label)?;
        if !when.lies_within(capability.when(), now) {
            return Err(SpecifyError::Scope(ScopeMismatch::of(&when, capability.when())));
        }
        let mut specification = Specification::of(capability);
        specification.set_when(when);
        for (name, value) in parameters {
            specification.set_parameter(name, value)?;
        }
        let missing: Vec<_> = specification.missing().map(ToOwned::to_owned).collect();
        if !missing.is_empty() {
            return Err(SpecifyError::Missing(missing.join(", ")));
        }
        if let Some(label) = capability.label() {
            specification.set_label(Some(format!("{label}-{}", self.serial)));
        }
        let token = if specification.when().is_definite() {
            specification.token()
        } else {
            fresh
        };
        specification.set_token(Some(token));
        let peer = peer.clone();
        let when = specification.when();
        let end = when.bounds(now).end.filter(|_| when.is_repeated());
        let measurement = Measurement {
            peer,
            repeats_until: end,
            interrupted: None,
            specification,
            state: MeasurementState::Sent,
        };
        self.serial += 1;
        self.measurements.push(measurement.clone());
        Ok(measurement)
    }

    /// Takes note that a measurement was interrupted.
    pub fn interrupted(&mut self, of: &Identity, token: &Token, now: Timestamp) {
        for known in &mut self.measurements {
            if known.peer == *of && known.specification.token() == *token {
                known.interrupted.get_or_insert(now);
            }
        }
    }

    /// Returns the measurements in the order of sending.
    pub fn measurements(&self) -> &[Measurement] {
        &self.measurements
    }

    /// Finds a measurement by its label or token; the latest of equal ones.
    pub fn measurement(&self, token_or_label: &str) -> Option<&Measurement> {
        self.measurements.iter().rev().find(|known| {
            known.specification.label() == Some(token_or_label)
                || known.specification.token().as_str() == token_or_label
        })
    }

    /// Takes a withdrawal for the answer to what was sent for its capability and not
    /// promised: there is no other.
    fn fail_withdrawn(&mut self, from: &Identity, withdrawal: &Withdrawal) {
        let Some(label) = withdrawal.label() else { return };
        let reason = format!("the component has withdrawn the capability {label}");
        for sent in &mut self.measurements {
            let is_meant = sent.specification.label().map(without_serial) == Some(label);
            if sent.peer == *from
                && is_meant
                && matches!(sent.state, MeasurementState::Sent)
            {
                let token = sent.specification.token();
                let exception = Exception::new(Some(token), reason.clone());
                sent.state = MeasurementState::Failed(exception);
            }
        }
    }

    /// Changes the state of the latest measurement with this token.
    fn settle(
        &mut self,
        from: &Identity,
        token: &Token,
        change: impl FnOnce(&mut MeasurementState),
    ) {
        if let Some(measurement) =
            self.measurements.iter_mut().rev().find(|known| {
                known.peer == *from && known.specification.token() == *token
            })
        {
            change(&mut measurement.state);
        }
    }
}

/// No such capability.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no capability {name}; {known}")]
pub struct UnknownCapability {
    name: String,
    known: String,
}

/// A specification that cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecifyError {
    /// No such capability.
    #[error(transparent)]
    UnknownCapability(#[from] UnknownCapability),
    /// A parameter that cannot be set.
    #[error(transparent)]
    Parameter(#[from] SetParameterError),
    /// Parameters without value.
    #[error("no value is given for {0}")]
    Missing(String),
    /// A scope the capability does not offer.
    #[error("the temporal scope {0}")]
    Scope(ScopeMismatch),
}
