//! The relay: what components and clients are answered.
//!
//! What lasts is in the [`Store`]; here is who asks whom, and who waits. The time comes in
//! with each call, as in every exchange.

mod access;
#[cfg(test)]
mod tests;
mod whole;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use mplane::access::{CapabilityName, Identity, Policy, Withheld};
use mplane::features::{Feature, Features};
use mplane::json;
use mplane::message::{
    CALLBACK, Capability, Exception, Interrupt, Message, Receipt, Redemption,
    Specification, Statement,
};
use mplane::primitive::Value;
use mplane::registry::{CORE, Registries};
use mplane::token::Token;
use mplane::when::When;
use tracing::{info, warn};

use crate::directory::{Dialect, Directory, Presence, RegisterError};
use crate::fan_out;
use crate::life::{Asked, Effect, End, State};
use crate::metrics::{
    EndLabel, PresenceLabel, RefusedLabel, RefusedReason, SupervisorMetrics,
};
use crate::store::{
    Acceptance, Handed, Id, Known, New, OpenStoreError, Reported, Store, StoreError, Told,
};
use crate::waiters::{Waiter, Waiters};

/// How long after the end of its temporal scope a specification may still yield a result:
/// components that were away deliver late.
const GRACE: SignedDuration = SignedDuration::from_secs(60);

/// How long a hand-out may stay without an answer before it is made again: our components
/// answer at once, and start nothing twice.
const LEASE: Duration = Duration::from_secs(30);

/// How often components come that are told when, in seconds: as often as references do when
/// nobody tells them.
const CALLBACK_PERIOD_S: u64 = 5;

/// Components of which it is written down at once when they were last heard of.
const SEEN_AT_ONCE: usize = 1_000;

/// A supervisor, without its connections.
#[derive(Debug)]
pub struct Relay {
    store: Store,
    registries: Registries,
    /// Those with which components that write arrays name elements.
    ri: Registries,
    shared: Mutex<Shared>,
    metrics: SupervisorMetrics,
    /// How many specifications may wait for one component: a bound on what one that never
    /// comes back holds.
    queue: AtomicU64,
    /// Components that wait for something to fetch.
    fetching: Waiters<Identity>,
    /// Clients that wait for the end of a specification.
    redeeming: Waiters<Id>,
}

/// What is in memory.
#[derive(Debug, Default)]
struct Shared {
    directory: Directory,
    /// Who may offer and use which capability.
    policy: Policy,
    /// Components for which something is queued: others need not ask the store.
    pending: BTreeSet<Identity>,
    /// When components were heard of, which is not written down yet.
    seen: BTreeMap<Identity, Timestamp>,
    /// When a specification is to be looked at next, UTC.
    deadline: Option<Timestamp>,
    /// Why the store did not work when it was last written to.
    broken: Option<String>,
}

impl Shared {
    /// Takes note that a component was heard of.
    fn heard_of(&mut self, component: &Identity, now: Timestamp) {
        self.directory.seen(component, now);
        if self.directory.component(component).is_some() {
            self.seen.insert(component.clone(), now);
        }
    }
}

/// The answer to a client.
#[derive(Debug)]
pub struct Reply {
    /// What to send back now.
    pub message: Message,
    /// The specification whose result is still to come: a server may wait for it.
    pub pending: Option<Id>,
    /// What the policy withheld, to be logged; the message does not tell it.
    pub withheld: Option<Withheld>,
}

impl Reply {
    /// Makes an answer that is final.
    fn finally(message: impl Into<Message>) -> Self {
        Self { message: message.into(), pending: None, withheld: None }
    }
}

impl Relay {
    /// Makes a relay that goes on with what is in a store.
    pub async fn new(
        store: Store,
        registries: Registries,
        policy: Policy,
        expiry: SignedDuration,
        queue: u64,
        now: Timestamp,
    ) -> Result<Self, OpenRelayError> {
        let mut shared = Shared { policy, ..Shared::default() };
        shared.directory.set_expiry(expiry);
        for saved in store.components().await? {
            let (from, seen) = (&saved.identity, saved.last_seen);
            let (features, dialect) = (saved.features, saved.dialect);
            shared.directory.arrive(from, features, dialect, saved.first_seen, seen);
            for text in saved.capabilities {
                let of_array = Registries::ri();
                let registries = match dialect {
                    Dialect::Array => &of_array,
                    Dialect::Envelope => &registries,
                };
                match json::decode(text.as_bytes(), registries) {
                    Ok(Message::Capability(capability)) => {
                        shared.directory.register(from, capability);
                    }
                    other => warn!(component = %from, ?other, "a capability is left out"),
                }
            }
            if saved.is_pending {
                shared.pending.insert(saved.identity);
            }
        }
        shared.deadline = store.next_deadline().await?;
        info!(components = shared.directory.len(), "goes on with what is in the store");
        let relay = Self {
            store,
            registries,
            ri: Registries::ri(),
            shared: Mutex::new(shared),
            metrics: SupervisorMetrics::default(),
            queue: AtomicU64::new(queue),
            fetching: Waiters::default(),
            redeeming: Waiters::default(),
        };
        // Those whose last part ended just before the end.
        relay.complete(None, now).await?;
        Ok(relay)
    }

    /// Says whether the store worked when it was last written to; if not, why.
    pub fn ready(&self) -> Result<(), String> {
        self.shared().broken.clone().map_or(Ok(()), Err)
    }

    /// Returns what is counted.
    pub const fn metrics(&self) -> &SupervisorMetrics {
        &self.metrics
    }

    /// Counts who is there and who waits.
    pub fn count(&self, now: Timestamp) {
        let mut counts = [Presence::Connected, Presence::Silent, Presence::Gone]
            .map(|presence| (presence, 0));
        let shared = self.shared();
        let expiry = shared.directory.expiry();
        for (_, component) in shared.directory.components() {
            let presence = component.presence(expiry, now);
            for (known, count) in &mut counts {
                *count += i64::from(*known == presence);
            }
        }
        let pending = shared.pending.len();
        drop(shared);
        for (presence, count) in counts {
            let label = PresenceLabel { presence: presence.word() };
            self.metrics.components.get_or_create(&label).set(count);
        }
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.pending.set(gauge(pending));
        self.metrics.fetching.set(gauge(self.fetching.len()));
        self.metrics.redeeming.set(gauge(self.redeeming.len()));
    }

    /// Returns the store, to be asked about what is in it.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Looks at the directory.
    pub fn look<T>(&self, look: impl FnOnce(&Directory) -> T) -> T {
        look(&self.shared().directory)
    }

    /// Returns the registries that other messages are read with.
    pub const fn registries(&self) -> &Registries {
        &self.registries
    }

    /// Returns the registries with which components that write arrays name elements.
    pub const fn ri(&self) -> &Registries {
        &self.ri
    }

    /// Returns the registries that messages of a component are read with.
    pub fn registries_of(&self, component: &Identity) -> &Registries {
        if self.is_of_ri(component) { &self.ri } else { &self.registries }
    }

    /// Says whether a component writes arrays.
    pub fn is_of_ri(&self, component: &Identity) -> bool {
        self.look(|directory| {
            let known = directory.component(component);
            known.is_some_and(|known| known.dialect == Dialect::Array)
        })
    }

    /// Begins to wait for what is queued for a component.
    pub fn wait_for_queue(&self, component: &Identity) -> Waiter<'_, Identity> {
        self.fetching.wait_for(component.clone())
    }

    /// Begins to wait for the end of a specification.
    pub fn wait_for_end(&self, id: Id) -> Waiter<'_, Id> {
        self.redeeming.wait_for(id)
    }

    /// Takes note of a capability or a withdrawal of a component.
    pub async fn register(
        &self,
        from: &Identity,
        message: Message,
        features: Features,
        dialect: Dialect,
        now: Timestamp,
    ) -> Result<(), OfferError> {
        match message {
            Message::Capability(mut capability) => {
                if dialect == Dialect::Array && capability.when().is_moment() {
                    // What they write for "any time".
                    capability.set_when(When::now_to_future());
                }
                {
                    let shared = self.shared();
                    shared.policy.permit_offer(from, &CapabilityName::of(&capability))?;
                    shared.directory.check(from, &capability)?;
                }
                self.store.register(from, &capability, features, dialect, now).await?;
                let mut shared = self.shared();
                shared.directory.arrive(from, features, dialect, now, now);
                shared.directory.register(from, capability);
                self.metrics.registrations.inc();
                Ok(())
            }
            Message::Withdrawal(withdrawal) => {
                let token = withdrawal.token();
                self.store.withdraw(from, token, "withdrawn", now).await?;
                self.shared().directory.withdraw(from, token);
                Ok(())
            }
            other => Err(OfferError::Kind(other.kind().key())),
        }
    }

    /// Hands out what is queued for a component; `None` if it is not registered.
    pub async fn fetch(
        &self,
        from: &Identity,
        now: Timestamp,
    ) -> Result<Option<Vec<Message>>, StoreError> {
        let lease = {
            let mut shared = self.shared();
            let Some(component) = shared.directory.component(from) else {
                return Ok(None);
            };
            // References start a specification twice that they get twice.
            let is_ours = component.features.has(Feature::NativeValues);
            shared.heard_of(from, now);
            if !shared.pending.remove(from) {
                return Ok(Some(Vec::new()));
            }
            is_ours.then_some(LEASE)
        };
        let fetched = self.store.fetch(from, lease, now).await;
        let (handed, is_more) = match fetched {
            Ok(fetched) => fetched,
            Err(error) => {
                self.metrics.store_failures.inc();
                self.shared().pending.insert(from.clone());
                return Err(error);
            }
        };
        let mut shared = self.shared();
        if is_more {
            shared.pending.insert(from.clone());
        }
        if !handed.is_empty() && lease.is_some() {
            let lease = now.checked_add(LEASE).ok();
            shared.deadline = shared.deadline.into_iter().chain(lease).min();
        }
        drop(shared);
        for handed in &handed {
            if let Handed::Specification { accepted, .. } = handed {
                self.metrics.handed.inc();
                let waited = now.duration_since(*accepted).as_secs_f64();
                self.metrics.dispatch.observe(waited.max(0.0));
            }
        }
        let registries = self.registries_of(from);
        let messages = handed.iter().filter_map(|handed| read_handed(registries, handed));
        Ok(Some(messages.collect()))
    }

    /// Returns the specification that tells a component when to come again, if it lets its
    /// supervisor say so: at once when more waits for it, else about [`CALLBACK_PERIOD_S`]
    /// later, at a phase of its own, so that not all come together.
    pub fn callback(&self, component: &Identity, now: Timestamp) -> Option<Message> {
        let shared = self.shared();
        let registered = shared.directory.component(component)?;
        if !registered.has_callback() || registered.dialect == Dialect::Array {
            return None;
        }
        let seconds = if shared.pending.contains(component) {
            1
        } else {
            pause_s(&component.to_string(), now)
        };
        drop(shared);
        let scope = When::now_for(Duration::from_secs(seconds));
        let statement = Statement::measure(scope).labelled(CALLBACK);
        Some(Specification::new(statement).into())
    }

    /// Takes note of a receipt, a result or an exception of a component.
    pub async fn report(
        &self,
        from: &Identity,
        message: Message,
        now: Timestamp,
    ) -> Result<(), ReportError> {
        self.shared().heard_of(from, now);
        let token = message.token().ok_or(ReportError::NoToken)?;
        let unexpected = || ReportError::Unexpected(token.to_string());
        let end = match message {
            Message::Receipt(_) => {
                let stepped = self.store.promised(from, &token, now).await?;
                return stepped.map(drop).ok_or_else(unexpected);
            }
            Message::Result(_) | Message::Envelope(_) => End::Result,
            Message::Exception(_) => End::Exception,
            other => return Err(ReportError::Kind(other.kind().key())),
        };
        let reported = self.store.reported(from, &token)?.ok_or_else(unexpected)?;
        let message = self.to_client(&reported, from, message);
        let stepped = self.store.delivered(&reported, end, &message, now).await?;
        match stepped.effect {
            Effect::Settle(end) => self.settled(stepped.id, end, now).await?,
            Effect::Progress => self.redeeming.wake(&stepped.id),
            Effect::TooLate => {
                self.metrics.too_late.inc();
                info!(specification = stepped.id.0, component = %from, "delivered once more");
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns the capabilities that a client may use, and can read with these features.
    pub fn capabilities(
        &self,
        client: &Identity,
        features: Features,
        now: Timestamp,
    ) -> Vec<Capability> {
        let shared = self.shared();
        let offers = shared.directory.offers(&shared.may(client), now);
        drop(shared);
        let wholes = fan_out::capabilities(&offers, &self.registries);
        let mut shown: Vec<_> = offers.into_iter().map(|offer| offer.shown).collect();
        shown.extend(wholes);
        shown.retain(|capability| features.can_read(capability));
        shown
    }

    /// Answers a client. `fresh` become tokens where new ones are needed: between the
    /// client and us, and between us and the component.
    pub async fn handle(
        &self,
        from: &Identity,
        message: Message,
        fresh: [Token; 2],
        now: Timestamp,
    ) -> Reply {
        let token = message.token();
        let handled = match message {
            Message::Specification(specification) => {
                self.accept(from, specification, None, fresh, now).await
            }
            Message::Redemption(redemption) => {
                self.state_of(from, redemption.token(), now).await
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
                return exception(other.token().unwrap_or(fresh), text);
            }
        };
        handled.unwrap_or_else(|error| {
            self.metrics.store_failures.inc();
            self.shared().broken = Some(error.to_string());
            warn!(client = %from, %error, "the store does not work");
            let text = format!("this supervisor cannot store what it accepts: {error}");
            Reply::finally(Exception::new(token, text))
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
            let word = "interrupted before the component fetched it";
            let word = Exception::new(Some(token.clone()), word).into();
            for (id, component, is_settled) in parts {
                if is_settled {
                    continue;
                }
                match self.store.interrupted(id, &word, now).await?.map(|it| it.effect) {
                    Some(Effect::Wake) => self.wake(&component),
                    Some(Effect::Settle(end)) => self.settled(id, end, now).await?,
                    _ => {}
                }
            }
        }
        self.state_of(from, token, now).await
    }

    /// Returns how many specifications may wait for one component.
    fn queue(&self) -> u64 {
        self.queue.load(Ordering::Relaxed)
    }

    /// Has it looked at the deadlines before a time.
    fn look_before(&self, deadline: Option<Timestamp>) {
        let mut shared = self.shared();
        shared.deadline = shared.deadline.into_iter().chain(deadline).min();
    }

    /// Returns when to call [`handle_timeout`](Self::handle_timeout), UTC.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.shared().deadline
    }

    /// Gives up specifications whose time is over and from which nothing has come, and
    /// offers again what was handed out and got no answer.
    pub async fn handle_timeout(&self, now: Timestamp) -> Result<(), StoreError> {
        if self.poll_timeout().is_none_or(|deadline| deadline > now) {
            return Ok(());
        }
        // What comes meanwhile sets its own.
        self.shared().deadline = None;
        let expired = self.store.expire(now).await;
        let (overdue, next) = match expired {
            Ok(expired) => expired,
            Err(error) => {
                self.shared().deadline = Some(now);
                return Err(error);
            }
        };
        for overdue in overdue {
            match overdue.effect {
                Effect::Wake => {
                    self.metrics.handed_again.inc();
                    self.wake(&overdue.component);
                }
                Effect::Settle(end) => {
                    let text = format!(
                        "lost: component {} {}",
                        overdue.component, overdue.reason
                    );
                    let word = Exception::new(Some(overdue.token), text).into();
                    self.store.keep(overdue.id, &word, now).await?;
                    self.settled(overdue.id, end, now).await?;
                }
                _ => {}
            }
        }
        let mut shared = self.shared();
        shared.deadline = shared.deadline.into_iter().chain(next).min();
        Ok(())
    }

    /// Writes down when components were last heard of, and takes note of whether that works.
    pub async fn write_seen(&self) -> Result<(), StoreError> {
        let written = self.try_write_seen().await;
        self.shared().broken = written.as_ref().err().map(ToString::to_string);
        written
    }

    /// Writes down when components were last heard of.
    async fn try_write_seen(&self) -> Result<(), StoreError> {
        loop {
            let seen: Vec<_> = {
                let mut shared = self.shared();
                std::iter::from_fn(|| shared.seen.pop_first())
                    .take(SEEN_AT_ONCE)
                    .collect()
            };
            let is_last = seen.len() < SEEN_AT_ONCE;
            // Also if there is nothing to write: whether it works is to be known.
            self.store.seen(seen).await?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// Tells who waits that a specification has ended. If it was the last part of one for
    /// many components, that has ended too.
    async fn settled(&self, id: Id, end: End, now: Timestamp) -> Result<(), StoreError> {
        self.metrics.settled.get_or_create(&EndLabel { end: end.word() }).inc();
        self.redeeming.wake(&id);
        match self.store.parent(id)? {
            Some(whole) => self.complete(Some(whole), now).await,
            None => Ok(()),
        }
    }

    /// Has a component fetch what is queued for it.
    fn wake(&self, component: &Identity) {
        self.shared().pending.insert(component.clone());
        self.fetching.wake(component);
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
        self.accept(from, specification, Some(component), fresh, now).await
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
                only.is_none_or(|only| component.to_string() == only)
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
        let Some(delays) = asked.when().delays(now) else {
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
            queue: self.queue(),
        };
        let started = Instant::now();
        let accepted = self.store.accept(new, now).await?;
        self.metrics.store.observe(started.elapsed().as_secs_f64());
        match accepted {
            Acceptance::Known => self.state_of(from, &token, now).await,
            Acceptance::QueueFull => {
                let text = format!(
                    "{} specifications wait for component {}, as many as are kept; try \
                     again later",
                    self.queue(),
                    choice.component
                );
                let (refused, reason) = (exception(token, text), RefusedReason::queue);
                self.refuse(from, &asked, refused, reason, now).await
            }
            Acceptance::New => {
                self.metrics.accepted.inc();
                info!(specification = id.0, client = %from, component = %choice.component,
                    "accepted");
                let mut shared = self.shared();
                shared.deadline = shared.deadline.into_iter().chain(deadline).min();
                drop(shared);
                self.wake(&choice.component);
                let message = Receipt::of(&asked).into();
                Ok(Reply { message, pending: Some(id), withheld: None })
            }
        }
    }

    /// Refuses a specification, unless it is one that was accepted before: then its
    /// capability may be gone, and what came of it still counts.
    async fn refuse(
        &self,
        from: &Identity,
        asked: &Specification,
        refused: Reply,
        why: RefusedReason,
        now: Timestamp,
    ) -> Result<Reply, StoreError> {
        let token = asked.token();
        if self.store.told(from, &token).await?.is_some() {
            return self.state_of(from, &token, now).await;
        }
        self.metrics.refused.get_or_create(&RefusedLabel { reason: why }).inc();
        if let Message::Exception(exception) = &refused.message {
            let reason = exception.message().to_owned();
            self.store.refuse(from, &token, asked.label(), reason, now).await?;
        }
        Ok(refused)
    }

    /// Answers a client with what there is: the result, or a receipt.
    async fn state_of(
        &self,
        from: &Identity,
        token: &Token,
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
                if asked.when().is_repeated() {
                    self.ask_progress(&known, now).await?;
                }
                let so_far = so_far
                    .and_then(|text| json::decode(text.as_bytes(), registries).ok());
                let message = so_far.unwrap_or_else(|| Receipt::of(&asked).into());
                Reply { message, pending: Some(known.id), withheld: None }
            }
            Told::Ended(known, Some(text)) => {
                let registries = self.registries_of(&known.component);
                match json::decode(text.as_bytes(), registries) {
                    Ok(message) => {
                        self.metrics.redeemed.inc();
                        self.store.redeemed(known.id, now);
                        Reply::finally(message)
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

    /// Has a component asked for the results so far of a repeat. References are not: they
    /// know no redemptions that they fetch.
    async fn ask_progress(
        &self,
        known: &Known,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let is_ours = self.look(|directory| {
            let component = directory.component(&known.component);
            component.is_some_and(|it| it.features.has(Feature::NativeValues))
        });
        let is_free =
            known.life.state == State::Receipted && known.life.progress == Asked::Unasked;
        if is_ours
            && is_free
            && self.store.ask_progress(known.id, now).await? == Effect::Wake
        {
            self.wake(&known.component);
        }
        Ok(())
    }

    /// Gives a message of a component the token and label that the client knows, and says
    /// which component it comes from.
    fn to_client(
        &self,
        reported: &Reported,
        component: &Identity,
        message: Message,
    ) -> Message {
        let (token, label) = (Some(reported.token.clone()), reported.label.clone());
        match message {
            Message::Result(mut result) => {
                result.set_token(token);
                result.set_label(label);
                result.set_link(None);
                if let Ok(element) = self.registries.element(CORE, "component.identity") {
                    let value = Some(Value::String(component.to_string().into()));
                    // A component that says so itself, or a full section, stays as it is.
                    let _unchanged =
                        result.add_metadata(Arc::clone(element), value).is_err();
                }
                result.into()
            }
            Message::Exception(mut exception) => {
                exception.set_token(token);
                exception.into()
            }
            Message::Envelope(mut envelope) => {
                envelope.set_token(token);
                envelope.set_label(label);
                envelope.into()
            }
            other => other,
        }
    }

    /// Locks what is in memory. A panic elsewhere leaves it whole: every change is one
    /// call.
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads what is handed to a component.
fn read_handed(registries: &Registries, handed: &Handed) -> Option<Message> {
    let (Handed::Specification { id, text, .. }
    | Handed::Interrupt { id, text }
    | Handed::Redemption { id, text }) = handed;
    match json::decode(text.as_bytes(), registries) {
        Ok(Message::Specification(specification)) => Some(match handed {
            Handed::Specification { .. } => specification.into(),
            Handed::Interrupt { .. } => Interrupt::of(&specification).into(),
            Handed::Redemption { .. } => Redemption::of(&specification).into(),
        }),
        other => {
            warn!(specification = id.0, ?other, "cannot be read, and is not handed out");
            None
        }
    }
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

/// Returns how many seconds a component is to pause: until the next time that is its phase,
/// between half a period and one and a half.
fn pause_s(name: &str, now: Timestamp) -> u64 {
    let phase = name
        .bytes()
        .fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)))
        % CALLBACK_PERIOD_S;
    let now = now.as_second().unsigned_abs() % CALLBACK_PERIOD_S;
    let pause = (phase + CALLBACK_PERIOD_S - now) % CALLBACK_PERIOD_S;
    if pause < CALLBACK_PERIOD_S.div_ceil(2) { pause + CALLBACK_PERIOD_S } else { pause }
}

/// Makes an answer that is an exception.
fn exception(token: Token, text: impl Into<String>) -> Reply {
    Reply::finally(Exception::new(Some(token), text))
}

/// A relay that cannot go on with what is in its store.
#[derive(Debug, thiserror::Error)]
pub enum OpenRelayError {
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenStoreError),
    /// It cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
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
    /// It could not be written down.
    #[error(transparent)]
    Store(#[from] StoreError),
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
    /// It could not be written down: it is to be delivered again.
    #[error(transparent)]
    Store(#[from] StoreError),
}
