//! Specifications for many components at once: they are split when they come, and what the
//! parts have yielded is joined when the last has ended.

use std::sync::Arc;

use jiff::Timestamp;
use mplane::access::{CapabilityName, Identity};
use mplane::json;
use mplane::message::{Exception, Message, Receipt, Specification};
use mplane::token::Token;
use mplane_runtime::tls::fresh_token;
use tracing::{info, warn};

use super::clients::{client_full, is_itself};
use super::{GRACE, Relay, Reply, exception};
use crate::directory::{Choice, Dialect};
use crate::fan_out;
use crate::life::{Effect, End};
use crate::metrics::RefusedReason;
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
            components.push(choice.component.clone());
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
        let room = self.shared().room;
        match self.store.accept_all(whole, parts, room, now).await? {
            Acceptance::Known => self.state_of(from, &token, now).await,
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
                for component in &components {
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
            let mut yielded = Vec::new();
            for (part, component, _) in self.store.parts(id).await? {
                let text = self.store.result(part).await?;
                let message = text.and_then(|text| {
                    json::decode(text.as_bytes(), &self.registries).ok()
                });
                yielded.push((component, message));
            }
            let merged = fan_out::merge(&asked, yielded, &self.registries, now);
            let (end, message): (End, Message) = match merged {
                Ok(mut result) => {
                    result.set_label(asked.label().map(ToOwned::to_owned));
                    (End::Result, result.into())
                }
                Err(reason) => {
                    (End::Exception, Exception::new(Some(token), reason).into())
                }
            };
            let stepped =
                self.store.delivered(&whole.reported, end, &message, now).await?;
            if let Effect::Settle(_) = stepped.effect {
                self.redeeming.wake(&id);
            }
        }
        Ok(())
    }
}
