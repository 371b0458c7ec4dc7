//! What clients are answered: they see what is offered, specify, redeem and interrupt.

use jiff::Timestamp;
use mplane::access::{CapabilityName, Identity, Withheld};
use mplane::features::Features;
use mplane::json;
use mplane::message::{Capability, Exception, Message, Receipt, Specification};
use mplane::token::Token;
use mplane_runtime::at_length;
use mplane_runtime::http::routes::Page;
use tracing::{info, warn};

use super::{GRACE, Relay};
use crate::directory::Component;
use crate::fan_out;
use crate::life::{Asked, Effect, End, State};
use crate::metrics::{RefusedLabel, RefusedReason, Transaction};
use crate::store::{Acceptance, Id, Known, New, Room, Stepped, StoreError, Told};

/// Capabilities told at once: some hundred kilobytes, and few enough for every envelope.
const PAGE: usize = 1_000;

/// The answer to a client.
#[derive(Debug)]
pub struct Reply {
    /// What to send back now.
    pub message: Message,
    /// The specification whose result is still to come: a server may wait for it.
    pub pending: Option<Id>,
    /// What the policy withheld, to be logged; the message does not tell it.
    pub withheld: Option<Withheld>,
    /// The specification of which this is what came: the client has it with this answer.
    pub ended: Option<Id>,
}

impl Reply {
    /// Returns the number of the specification that it is about, if it is about one.
    pub(crate) fn about(&self) -> Option<u64> {
        self.pending.or(self.ended).map(|id| id.0)
    }

    /// Makes an answer that is final.
    pub(super) fn finally(message: impl Into<Message>) -> Self {
        Self { message: message.into(), pending: None, withheld: None, ended: None }
    }
}

impl Relay {
    /// Returns a part of the capabilities that a client may use, and can read with these
    /// features: from the first, or from where an earlier part ended.
    pub fn capabilities(
        &self,
        client: &Identity,
        features: Features,
        after: u64,
        now: Timestamp,
    ) -> Page {
        let listing = {
            let shared = self.shared();
            shared.directory.list(&shared.may(client), after, PAGE, now)
        };
        let wholes = listing
            .wholes
            .into_iter()
            .filter_map(|(label, alike)| fan_out::join(&label, &alike, &self.registries));
        let offers = listing.offers.into_iter().map(|offer| offer.shown);
        let mut capabilities: Vec<_> = offers.chain(wholes).collect();
        capabilities.retain(|capability| features.can_read(capability));
        Page { capabilities, next: listing.next }
    }

    /// Returns what another supervisor may use as one of its components: what comes from it
    /// is not offered back to it.
    pub fn offered_upward(
        &self,
        supervisor: &Identity,
        now: Timestamp,
    ) -> Vec<Capability> {
        let shared = self.shared();
        let may = shared.may(supervisor);
        let is_meant = |component: &Identity, capability: &Capability| {
            !is_itself(component, supervisor) && may(component, capability)
        };
        let listing = shared.directory.list(&is_meant, 0, usize::MAX, now);
        listing.offers.into_iter().map(|offer| offer.shown).collect()
    }

    /// Returns the capability that a client sees under a token.
    pub fn capability(
        &self,
        client: &Identity,
        features: Features,
        token: &str,
        now: Timestamp,
    ) -> Option<Capability> {
        let shared = self.shared();
        let may = shared.may(client);
        let offer = shared.directory.find_offer(token, &may, now);
        let found = offer.map(|offer| offer.shown).or_else(|| {
            let label = fan_out::label_in(token)?;
            let alike = shared.directory.alike(label, &may, now);
            let alike: Vec<_> = alike.into_iter().map(|it| it.capability).collect();
            let joined = fan_out::join(label, &alike, &self.registries)?;
            (joined.token().as_str() == token).then_some(joined)
        });
        found.filter(|capability| features.can_read(capability))
    }

    /// Answers a client, and notes if it gets what it has asked for with that. `fresh` become
    /// tokens where new ones are needed: between the client and us, and between us and the
    /// component. If the store fails, a specification is not accepted; anything else may be
    /// asked again.
    pub async fn handle(
        &self,
        from: &Identity,
        message: Message,
        fresh: [Token; 2],
        now: Timestamp,
    ) -> Result<Reply, StoreError> {
        let specified = match &message {
            Message::Specification(_) => Some(message.token()),
            _ => None,
        };
        let answered = self.try_answer(from, message, fresh, now).await;
        let reply = answered.or_else(|error| -> Result<_, StoreError> {
            self.failed(&error);
            warn!(client = %from, %error, "the store does not work");
            let token = specified.ok_or_else(|| error.clone())?;
            let text = format!("this supervisor cannot store what it accepts: {error}");
            Ok(Reply::finally(Exception::new(token, text)))
        })?;
        self.redeemed(reply.ended, now);
        Ok(reply)
    }

    /// Notes that a client has what came of a specification.
    pub fn redeemed(&self, ended: Option<Id>, now: Timestamp) {
        if let Some(id) = ended {
            self.metrics.redeemed.inc();
            self.store.redeemed(id, now);
        }
    }

    /// Answers a client, unless the store fails.
    pub async fn try_answer(
        &self,
        from: &Identity,
        message: Message,
        fresh: [Token; 2],
        now: Timestamp,
    ) -> Result<Reply, StoreError> {
        match message {
            Message::Specification(specification) => {
                self.accept(from, specification, None, fresh, now).await
            }
            Message::Redemption(redemption) => {
                self.redeem(from, redemption.token(), now).await
            }
            Message::Interrupt(interrupt) => {
                self.interrupt(from, interrupt.token(), now).await
            }
            other => {
                let [fresh, _] = fresh;
                let text = format!(
                    "a supervisor takes specifications, redemptions and interrupts from \
                     clients, not a message of kind {}",
                    other.kind()
                );
                Ok(exception(other.token().unwrap_or(fresh), text))
            }
        }
    }

    /// Answers a specification for one component, named by its identity as text.
    pub async fn handle_for(
        &self,
        from: &Identity,
        specification: Specification,
        component: &str,
        fresh: [Token; 2],
        now: Timestamp,
    ) -> Result<Reply, StoreError> {
        let reply = self.accept(from, specification, Some(component), fresh, now).await?;
        self.redeemed(reply.ended, now);
        Ok(reply)
    }

    /// Accepts or refuses a specification, for one component if that is said.
    async fn accept(
        &self,
        from: &Identity,
        mut asked: Specification,
        only: Option<&str>,
        [fresh, handed_token]: [Token; 2],
        now: Timestamp,
    ) -> Result<Reply, StoreError> {
        let token = match asked.stated_token() {
            Some(token) => token.clone(),
            None if asked.when().is_definite() => asked.token(),
            None => fresh,
        };
        asked.set_token(Some(token.clone()));
        if let Some(label) = fan_out::base_label(asked.label().unwrap_or_default()) {
            let label = label.to_owned();
            return self.accept_whole(from, asked, &label, now).await;
        }
        let chosen = {
            let shared = self.shared();
            let may = shared.may(from);
            let is_meant = |component: &Identity, capability: &Capability| {
                !is_itself(component, from)
                    && only.is_none_or(|only| component.to_string() == only)
                    && may(component, capability)
            };
            let chosen = shared.directory.choose(&is_meant, &asked, now);
            chosen.map_err(|reason| shared.refuse(from, &asked, &reason, now))
        };
        let choice = match chosen {
            Ok(choice) => choice,
            Err(refused) => {
                let reason = RefusedReason::capability;
                return self.refuse(from, &asked, refused, reason, now).await;
            }
        };
        let Some(delays) = asked.delays(now) else {
            let text = format!("the temporal scope {} is over", asked.when());
            let (refused, reason) = (exception(token, text), RefusedReason::scope);
            return self.refuse(from, &asked, refused, reason, now).await;
        };
        let id = self.store.next_id();
        let mut handed = asked.clone();
        handed.set_link(None);
        // Reference components compute the token of a definite scope themselves, and
        // answer with the one that they got otherwise.
        handed.set_token(Some(handed_token.clone()));
        let label = choice.capability.label().map(|label| format!("{label}-{}", id.0));
        handed.set_label(label);
        let end = delays.end.and_then(|delay| now.checked_add(delay).ok());
        let deadline = end.and_then(|end| end.checked_add(GRACE).ok());
        let label = asked.label().map(ToOwned::to_owned);
        let new = New {
            id,
            client: from.clone(),
            token: token.clone(),
            label,
            component: choice.component.clone(),
            handed_token,
            capability: CapabilityName::of(&choice.capability),
            asked: asked.clone().into(),
            handed: handed.into(),
            deadline,
        };
        let room = self.shared().limits.room;
        let accepting = self.store.accept(new, room, now);
        match self.timed(Transaction::accept, accepting).await? {
            Acceptance::Known => self.known(from, &asked, now).await,
            Acceptance::QueueFull => {
                let text = format!(
                    "{} specifications wait for component {}, as many as are kept; try \
                     again later",
                    room.queue, choice.component
                );
                let (refused, reason) = (exception(token, text), RefusedReason::queue);
                self.refuse(from, &asked, refused, reason, now).await
            }
            Acceptance::ClientFull => {
                let (refused, reason) = client_full(token, room);
                self.refuse(from, &asked, refused, reason, now).await
            }
            Acceptance::New => {
                self.metrics.accepted.inc();
                info!(specification = id.0, client = %from, component = %choice.component,
                    "accepted");
                self.look_before(deadline);
                self.wake(&choice.component);
                let message = Receipt::of(&asked).into();
                Ok(Reply { message, pending: Some(id), withheld: None, ended: None })
            }
        }
    }

    /// Refuses a specification, unless it is one that was accepted before: then its
    /// capability may be gone, and what came of it still counts.
    pub(super) async fn refuse(
        &self,
        from: &Identity,
        asked: &Specification,
        refused: Reply,
        why: RefusedReason,
        now: Timestamp,
    ) -> Result<Reply, StoreError> {
        let token = asked.token();
        if self.store.told(from, &token).await?.is_some() {
            return self.known(from, asked, now).await;
        }
        if let Message::Exception(exception) = &refused.message {
            let reason = exception.message().to_owned();
            self.note_refused(from, asked, reason, why, now).await?;
        }
        Ok(refused)
    }

    /// Counts and writes down that a specification was refused.
    pub(crate) async fn note_refused(
        &self,
        from: &Identity,
        asked: &Specification,
        reason: String,
        why: RefusedReason,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        info!(client = %from, label = asked.label(), reason, "refused a specification");
        self.metrics.refused.get_or_create(&RefusedLabel { reason: why }).inc();
        self.store.refuse(from, &asked.token(), asked.label(), reason, now).await
    }

    /// Answers a client that waits with what there is, and notes if it gets what it has asked
    /// for with that. Components are not asked again for each look.
    pub async fn look_again(
        &self,
        from: &Identity,
        token: &Token,
        now: Timestamp,
    ) -> Result<Reply, StoreError> {
        let reply = self.state_of(from, token, now).await?;
        self.redeemed(reply.ended, now);
        Ok(reply)
    }

    /// Answers a specification that was accepted before: with a receipt, or what came of it.
    /// The results so far are for who redeems: others would take them for all.
    pub(super) async fn known(
        &self,
        from: &Identity,
        asked: &Specification,
        now: Timestamp,
    ) -> Result<Reply, StoreError> {
        self.state(from, &asked.token(), Wants::Receipt, now).await
    }

    /// Answers a redemption, and has the results so far of a repeat asked for, which the next
    /// redemption finds.
    async fn redeem(
        &self,
        from: &Identity,
        token: &Token,
        now: Timestamp,
    ) -> Result<Reply, StoreError> {
        let reply = self.state_of(from, token, now).await?;
        if let Some(id) = reply.pending
            && let Err(error) = self.ask_progress(from, token, now).await
        {
            // What there is can be told all the same.
            warn!(specification = id.0, %error, "is not asked for its results so far");
        }
        Ok(reply)
    }

    /// Answers a client with what there is: the result, or a receipt.
    pub(crate) async fn state_of(
        &self,
        from: &Identity,
        token: &Token,
        now: Timestamp,
    ) -> Result<Reply, StoreError> {
        self.state(from, token, Wants::Results, now).await
    }

    /// Answers a client with what there is, as far as it wants it.
    async fn state(
        &self,
        from: &Identity,
        token: &Token,
        wants: Wants,
        now: Timestamp,
    ) -> Result<Reply, StoreError> {
        let Some(told) = self.store.told(from, token).await? else {
            let text = format!("no specification of yours has token {token}");
            return Ok(exception(token.clone(), text));
        };
        let (Told::Pending(known, _) | Told::Ended(known, _)) = &told;
        if let Err(withheld) = self.permit_known(from, known) {
            let text = format!(
                "you may not use the capability of the specification with token {token} \
                 any more"
            );
            let mut reply = exception(token.clone(), text);
            reply.withheld = Some(withheld);
            return Ok(reply);
        }
        let unreadable = |what: &str| {
            let text =
                format!("what came of the specification with token {token} {what}");
            exception(token.clone(), text)
        };
        Ok(match told {
            Told::Pending(known, so_far) => {
                let registries = self.registries_of(&known.component);
                let asked = known.asked.as_deref().unwrap_or_default();
                let asked = json::decode(asked.as_bytes(), registries);
                let Ok(Message::Specification(asked)) = asked else {
                    return Ok(unreadable("cannot be told: its registry is not here"));
                };
                let message = if wants == Wants::Receipt {
                    Receipt::of(&asked).into()
                } else if known.is_whole {
                    self.whole_so_far(known.id, &asked, now).await?
                } else {
                    let so_far = so_far
                        .and_then(|text| json::decode(text.as_bytes(), registries).ok());
                    so_far.unwrap_or_else(|| Receipt::of(&asked).into())
                };
                Reply { message, pending: Some(known.id), withheld: None, ended: None }
            }
            Told::Ended(known, Some(text)) => {
                let registries = self.registries_of(&known.component);
                let decode = || json::decode(text.as_bytes(), registries);
                match at_length(text.len(), decode) {
                    Ok(message) => {
                        Reply { ended: Some(known.id), ..Reply::finally(message) }
                    }
                    Err(error) => {
                        warn!(specification = known.id.0, %error, "cannot be read");
                        unreadable("cannot be read: its registry is not here")
                    }
                }
            }
            Told::Ended(known, None) => {
                Reply::finally(Exception::new(Some(token.clone()), ended(&known)))
            }
        })
    }

    /// Takes an interrupt of a client.
    async fn interrupt(
        &self,
        from: &Identity,
        token: &Token,
        now: Timestamp,
    ) -> Result<Reply, StoreError> {
        if let Some(Told::Pending(known, _)) = self.store.told(from, token).await?
            && self.permit_known(from, &known).is_ok()
        {
            let parts = if known.is_whole {
                self.store.parts(known.id).await?
            } else {
                vec![(known.id, known.component, false)]
            };
            let open = open(&parts);
            let stepped = self.store.interrupted(open, now).await?;
            // A failure at one must not cost the others.
            let mut failed = None;
            for Stepped { id, effect } in stepped {
                match effect {
                    Effect::Wake => self.wake_for(id, &parts),
                    Effect::Settle(end) => {
                        failed = failed.or(self.settled(id, end, now).await.err());
                    }
                    _ => {}
                }
            }
            if let Some(error) = failed {
                return Err(error);
            }
        }
        // What runs may yield something more.
        self.state(from, token, Wants::Receipt, now).await
    }

    /// Has the component of a part fetch what is queued for it.
    fn wake_for(&self, id: Id, parts: &[(Id, Identity, bool)]) {
        // They are in the order of their names.
        if let Ok(at) = parts.binary_search_by_key(&id, |(part, _, _)| *part)
            && let Some((_, component, _)) = parts.get(at)
        {
            self.wake(component);
        }
    }

    /// Has components asked for the results so far of a repeat. References are not: they
    /// know no redemptions that they fetch.
    async fn ask_progress(
        &self,
        from: &Identity,
        token: &Token,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let Some(Told::Pending(known, _)) = self.store.told(from, token).await? else {
            return Ok(());
        };
        // Most are not repeated, and need not be read for that.
        if known.asked.is_none_or(|asked| !asked.contains("\"repeat ")) {
            return Ok(());
        }
        let is_free = known.life.progress == Asked::Unasked;
        let mut parts = if known.is_whole {
            self.store.parts(known.id).await?
        } else if known.life.state == State::Receipted && is_free {
            vec![(known.id, known.component, false)]
        } else {
            return Ok(());
        };
        self.look(|directory| {
            parts.retain(|(_, component, _)| {
                let component = directory.component(component);
                component.is_some_and(Component::starts_nothing_twice)
            });
        });
        for id in self.store.ask_progress(open(&parts), now).await? {
            self.wake_for(id, &parts);
        }
        Ok(())
    }
}

/// Returns the parts that have not ended.
fn open(parts: &[(Id, Identity, bool)]) -> Vec<Id> {
    let open = parts.iter().filter(|(_, _, has_ended)| !has_ended);
    open.map(|(id, _, _)| *id).collect()
}

/// What a client wants to be told of what has not ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wants {
    /// That it is here.
    Receipt,
    /// The results so far, if there are some.
    Results,
}

/// Says how a specification ended of which nothing is kept.
fn ended(known: &Known) -> String {
    let component = &known.component;
    match known.life.state {
        State::Settled(End::Lost) => {
            format!("lost: nothing came from component {component} in time")
        }
        State::Settled(End::Interrupted) => {
            "interrupted before the component fetched it".into()
        }
        _ => format!(
            "what component {component} delivered is not kept any more; mplane why tells \
             when it went"
        ),
    }
}

/// Says whether a component is its own client: a supervisor, which is not handed what comes
/// from itself. In plain HTTP all have one name, and are others.
pub(super) fn is_itself(component: &Identity, client: &Identity) -> bool {
    component == client && client.is_authenticated()
}

/// Makes the answer to a client of whom as many specifications are open as may be.
pub(super) fn client_full(token: Token, room: Room) -> (Reply, RefusedReason) {
    let text = format!(
        "{} specifications of one client may be open, and yours are as many; wait until some \
         have ended, or interrupt them",
        room.client
    );
    (exception(token, text), RefusedReason::client)
}

/// Makes an answer that is an exception.
pub(super) fn exception(token: Token, text: impl Into<String>) -> Reply {
    Reply::finally(Exception::new(Some(token), text))
}
