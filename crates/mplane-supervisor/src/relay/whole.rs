//! Specifications for many components at once: they are split when they come, and what the
//! parts have yielded is joined when the last has ended.

use std::sync::Arc;

use jiff::Timestamp;
use mplane::access::{CapabilityName, Identity};
use mplane::json;
use mplane::message::{Exception, Message, Receipt, Specification};
use mplane::primitive::Value;
use mplane::registry::PLATFORM;
use mplane::token::Token;
use mplane_runtime::at_length;
use mplane_runtime::tls::fresh_token;
use tracing::{info, warn};

use super::clients::{client_full, is_itself};
use super::{GRACE, Relay, Reply, exception};
use crate::directory::{Choice, Dialect};
use crate::fan_out::{self, Yield};
use crate::life::{Effect, End, Event};
use crate::metrics::{EndLabel, RefusedReason, Transaction};
use crate::store::{Acceptance, Id, New, StoreError};

/// Whom a specification for many components is for.
fn everybody() -> Identity {
    Identity::new(["*".into()], None)
}

impl Relay {
    /// Accepts or refuses a specification for all components that offer a label.
    pub(super) async fn accept_whole(
        &self,
        from: &Identity,
        asked: Specification,
        label: &str,
        now: Timestamp,
    ) -> Result<Reply, StoreError> {
        let token = asked.token();
        let (joined, parts) = match self.split(from, &asked, label, now) {
            Ok(split) => split,
            Err(text) => {
                let (refused, why) = (exception(token, text), RefusedReason::capability);
                return self.refuse(from, &asked, refused, why, now).await;
            }
        };
        let Some(delays) = asked.delays(now) else {
            let text = format!("the temporal scope {} is over", asked.when());
            let (refused, why) = (exception(token, text), RefusedReason::scope);
            return self.refuse(from, &asked, refused, why, now).await;
        };
        let end = delays.end.and_then(|delay| now.checked_add(delay).ok());
        let deadline = end.and_then(|end| end.checked_add(GRACE).ok());
        let whole = New {
            id: self.store.next_id(),
            client: from.clone(),
            token: token.clone(),
            label: asked.label().map(ToOwned::to_owned),
            component: everybody(),
            handed_token: fresh_token(),
            capability: CapabilityName::new(Some(label), joined),
            asked: asked.clone().into(),
            handed: asked.clone().into(),
            // It ends with its parts.
            deadline: None,
        };
        let mut components = Vec::with_capacity(parts.len());
        let parts = parts.into_iter().map(|(choice, mut part)| {
            let id = self.store.next_id();
            let (own_token, handed_token) = (fresh_token(), fresh_token());
            let own_label = format!("{label}-{}", id.0);
            part.set_label(Some(own_label.clone()));
            let mut handed = part.clone();
            part.set_token(Some(own_token.clone()));
            handed.set_token(Some(handed_token.clone()));
            components.push((id, choice.component.clone()));
            New {
                id,
                client: from.clone(),
                token: own_token,
                label: Some(own_label),
                component: choice.component,
                handed_token,
                capability: CapabilityName::of(&choice.capability),
                asked: part.into(),
                handed: handed.into(),
                deadline,
            }
        });
        let parts: Vec<_> = parts.collect();
        let (id, width) = (whole.id, parts.len());
        let room = self.shared().limits.room;
        let accepting = self.store.accept_all(whole, parts, room, now);
        match self.timed(Transaction::accept, accepting).await? {
            Acceptance::Known => self.known(from, &asked, now).await,
            Acceptance::QueueFull => {
                let text = "as many specifications as are kept wait for one of the components; \
                            try again later, or narrow component.identity";
                let (refused, why) = (exception(token, text), RefusedReason::queue);
                self.refuse(from, &asked, refused, why, now).await
            }
            Acceptance::ClientFull => {
                let (refused, why) = client_full(token, room);
                self.refuse(from, &asked, refused, why, now).await
            }
            Acceptance::New => {
                self.metrics().accepted.inc();
                info!(specification = id.0, client = %from, components = width, "accepted");
                self.look_before(deadline);
                for (part, component) in &components {
                    info!(specification = part.0, %component, whole = id.0, "is a part");
                    self.wake(component);
                }
                let message = Receipt::of(&asked).into();
                Ok(Reply { message, pending: Some(id), withheld: None, ended: None })
            }
        }
    }

    /// Finds out what each component is to do, and the token of what they offer together; if
    /// nothing can be done, says why.
    fn split(
        &self,
        from: &Identity,
        asked: &Specification,
        label: &str,
        now: Timestamp,
    ) -> Result<(Token, Vec<(Choice, Specification)>), String> {
        let choices = {
            let shared = self.shared();
            let may = shared.may(from);
            let is_meant = |component: &Identity, capability: &_| {
                let known = shared.directory.component(component);
                let is_other = known.is_some_and(|it| it.dialect == Dialect::Array);
                !is_other && !is_itself(component, from) && may(component, capability)
            };
            shared.directory.alike(label, &is_meant, now)
        };
        let alike: Vec<_> = choices.iter().map(|it| Arc::clone(&it.capability)).collect();
        let joined = fan_out::join(label, &alike, &self.registries).ok_or_else(|| {
            format!("there are not several components that offer the same under {label}")
        })?;
        asked.fulfills(&joined, now).map_err(|reason| {
            format!("the specification does not fulfil capability {label}@*: {reason}")
        })?;
        let parts =
            fan_out::split(asked, choices, now).map_err(|error| error.to_string())?;
        Ok((joined.token(), parts))
    }

    /// Ends specifications for many components whose parts have all ended: one, or all.
    pub(super) async fn complete(
        &self,
        one: Option<Id>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        for whole in self.store.complete(one).await? {
            let (id, token) = (whole.reported.id, whole.reported.token.clone());
            let asked = whole.asked.unwrap_or_default();
            let asked = match json::decode(asked.as_bytes(), &self.registries) {
                Ok(Message::Specification(asked)) => asked,
                other => {
                    warn!(specification = id.0, ?other, "cannot be read");
                    continue;
                }
            };
            let yielded = self.yielded(id).await?;
            let merged = if asked.when().is_repeated() {
                let merged = fan_out::merge_repeats(&asked, yielded, now);
                merged.map(Message::from)
            } else {
                let merged = fan_out::merge(&asked, yielded, &self.registries, now);
                merged.map(Message::from)
            };
            let (event, message) = match merged {
                Ok(results @ Message::Envelope(_)) => {
                    (Event::DeliveredSeveral { are_all: true }, results)
                }
                Ok(result) => (Event::Delivered(End::Result), result),
                Err(reason) => {
                    let exception = Exception::new(Some(token), reason);
                    (Event::Delivered(End::Exception), exception.into())
                }
            };
            let stepped =
                self.store.delivered(&whole.reported, event, &message, now).await?;
            if let Effect::Settle(end) = stepped.effect {
                info!(specification = id.0, end = end.word(), "has ended");
                let label = EndLabel { end: end.word() };
                self.metrics().settled.get_or_create(&label).inc();
                self.redeeming.wake(&id);
            }
        }
        Ok(())
    }

    /// Returns what the parts of a specification for many components have yielded so far.
    async fn yielded(&self, whole: Id) -> Result<Vec<Yield>, StoreError> {
        let mut yielded = Vec::new();
        let mut room = fan_out::MERGED_BYTES;
        for (part, component, _) in self.store.parts(whole).await? {
            let text = self.store.result(part).await?;
            let bytes = text.as_ref().map_or(0, String::len);
            // What has no room in one result is not held here either.
            let text = text.filter(|_| bytes <= room);
            let has_room = text.is_some() || bytes == 0;
            room -= text.as_ref().map_or(0, String::len);
            let decode = |text: String| {
                let decode = || json::decode(text.as_bytes(), &self.registries).ok();
                at_length(bytes, decode)
            };
            let message = text.and_then(decode);
            yielded.push(Yield { component, message, bytes, has_room });
        }
        Ok(yielded)
    }

    /// Returns what a client is told of a specification for many components that has not
    /// ended: the results so far of a repeat, or a receipt that says how many have not
    /// answered yet.
    pub(super) async fn whole_so_far(
        &self,
        whole: Id,
        asked: &Specification,
        now: Timestamp,
    ) -> Result<Message, StoreError> {
        if asked.when().is_repeated() {
            let yielded = self.yielded(whole).await?;
            if let Some(results) = fan_out::so_far(asked, yielded, now) {
                return Ok(results.into());
            }
        }
        let parts = self.store.parts(whole).await?;
        let open = parts.iter().filter(|(_, _, has_ended)| !has_ended).count();
        let mut asked = asked.clone();
        if let Ok(element) = self.registries.element(PLATFORM, "measurement.incomplete") {
            let text = format!("{open} of {} components have not ended", parts.len());
            let value = Some(Value::String(text.into()));
            let _unchanged = asked.add_metadata(Arc::clone(element), value).is_err();
        }
        Ok(Receipt::of(&asked).into())
    }
}
