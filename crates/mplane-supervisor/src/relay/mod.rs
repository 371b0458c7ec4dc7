//! The relay: what components and clients are answered.
//!
//! What lasts is in the [`Store`]; here is who asks whom, and who waits. The time comes in
//! with each call, as in every exchange.

mod access;
mod clients;
mod components;
#[cfg(test)]
mod tests;
mod whole;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use mplane::access::{Identity, Policy};
use mplane::json;
use mplane::message::{Exception, Message};
use mplane::registry::Registries;
use tokio::sync::watch;
use tracing::{info, warn};

pub use self::clients::Reply;
use self::clients::exception;
pub use self::components::{OfferError, ReportError};
use crate::directory::{Dialect, Directory, Presence};
use crate::life::{Effect, End};
use crate::metrics::{EndLabel, PresenceLabel, SupervisorMetrics};
use crate::store::{Id, OpenStoreError, Overdue, Room, Store, StoreError};
use crate::waiters::{Waiter, Waiters};

/// How long after the end of its temporal scope a specification may still yield a result:
/// components that were away deliver late.
pub(crate) const GRACE: SignedDuration = SignedDuration::from_secs(60);

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
    /// Components that wait for something to fetch.
    fetching: Waiters<Identity>,
    /// Clients that wait for the end of a specification.
    redeeming: Waiters<Id>,
    /// Counts changes of what is offered, or to whom.
    offers: watch::Sender<u64>,
}

/// What is in memory.
#[derive(Debug)]
struct Shared {
    directory: Directory,
    /// How many specifications may be open.
    room: Room,
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
    /// Whether specifications for many components may have ended that are not joined.
    is_incomplete: bool,
    /// Components that are not offered any more, as of the last look.
    gone: BTreeSet<Identity>,
}

impl Shared {
    /// Takes note that a component was heard of.
    fn heard_of(&mut self, component: &Identity, now: Timestamp) {
        if !self.directory.seen(component, now) {
            return;
        }
        // Most are there already: they come every few seconds.
        if let Some(at) = self.seen.get_mut(component) {
            *at = now;
        } else {
            self.seen.insert(component.clone(), now);
        }
    }
}

impl Relay {
    /// Makes a relay that goes on with what is in a store.
    pub async fn new(
        store: Store,
        registries: Registries,
        policy: Policy,
        expiry: SignedDuration,
        room: Room,
        now: Timestamp,
    ) -> Result<Self, OpenRelayError> {
        let mut shared = Shared {
            directory: Directory::default(),
            room,
            policy,
            pending: BTreeSet::new(),
            seen: BTreeMap::new(),
            deadline: None,
            broken: None,
            is_incomplete: false,
            gone: BTreeSet::new(),
        };
        shared.directory.set_expiry(expiry);
        for saved in store.components().await? {
            let (from, seen) = (&saved.identity, saved.last_seen);
            let (features, dialect) = (saved.features, saved.dialect);
            shared.directory.arrive(from, features, dialect, saved.first_seen, seen);
            shared.directory.describe(from, saved.about);
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
            fetching: Waiters::default(),
            redeeming: Waiters::default(),
            offers: watch::Sender::new(0),
        };
        // Those whose last part ended just before the end.
        relay.complete(None, now).await?;
        let ours = relay.look(|directory| {
            let known = directory.components();
            let ours = known.filter(|(_, component)| component.starts_nothing_twice());
            ours.map(|(identity, _)| identity.clone()).collect()
        });
        relay.handed_again(ours, "the supervisor was started again", now).await?;
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
        let mut shared = self.shared();
        let expiry = shared.directory.expiry();
        let mut gone = BTreeSet::new();
        for (identity, component) in shared.directory.components() {
            let presence = component.presence(expiry, now);
            for (known, count) in &mut counts {
                *count += i64::from(*known == presence);
            }
            gone.extend((presence == Presence::Gone).then(|| identity.clone()));
        }
        let has_changed = shared.gone != gone;
        shared.gone = gone;
        let pending = shared.pending.len();
        drop(shared);
        if has_changed {
            self.offers_changed();
        }
        for (presence, count) in counts {
            let label = PresenceLabel { presence: presence.word() };
            self.metrics.components.get_or_create(&label).set(count);
        }
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.pending.set(gauge(pending));
        self.metrics.writes.set(gauge(self.store.waiting()));
        self.metrics.fetching.set(gauge(self.fetching.len()));
        self.metrics.redeeming.set(gauge(self.redeeming.len()));
    }

    /// Counts what components are to fetch.
    pub async fn count_queued(&self, now: Timestamp) -> Result<(), StoreError> {
        let (queued, since) = self.store.queued().await?;
        let age = since.map_or(0, |since| now.duration_since(since).as_secs().max(0));
        self.metrics.queued.set(i64::try_from(queued).unwrap_or(i64::MAX));
        self.metrics.queued_age.set(age);
        Ok(())
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

    /// Counts changes of what is offered, or to whom.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.offers.subscribe()
    }

    /// Takes note that something else is offered, or to others.
    fn offers_changed(&self) {
        self.offers.send_modify(|changes| *changes += 1);
    }

    /// Begins to wait for what is queued for a component.
    pub fn wait_for_queue(&self, component: &Identity) -> Waiter<'_, Identity> {
        self.fetching.wait_for(component.clone())
    }

    /// Begins to wait for the end of a specification.
    pub fn wait_for_end(&self, id: Id) -> Waiter<'_, Id> {
        self.redeeming.wait_for(id)
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
        if std::mem::take(&mut self.shared().is_incomplete)
            && let Err(error) = self.complete(None, now).await
        {
            let mut shared = self.shared();
            (shared.is_incomplete, shared.deadline) = (true, Some(now));
            return Err(error);
        }
        let expired = self.store.expire(now).await;
        let (overdue, next) = match expired {
            Ok(expired) => expired,
            Err(error) => {
                self.shared().deadline = Some(now);
                return Err(error);
            }
        };
        self.look_before(next);
        // A failure at one must not cost the others.
        let mut failed = None;
        for overdue in overdue {
            match overdue.effect {
                Effect::Wake => {
                    self.metrics.handed_again.inc();
                    self.wake(&overdue.component);
                }
                Effect::Settle(end) => {
                    if let Err(error) = self.give_up(overdue, end, now).await {
                        failed.get_or_insert(error);
                    }
                }
                _ => {}
            }
        }
        failed.map_or(Ok(()), |error| {
            let mut shared = self.shared();
            (shared.is_incomplete, shared.deadline) = (true, Some(now));
            Err(error)
        })
    }

    /// Tells of a specification whose time was over. What came until then is its result.
    async fn give_up(
        &self,
        overdue: Overdue,
        end: End,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let Overdue { id, token, component, reason, .. } = overdue;
        if end == End::Lost {
            let text = format!("lost: component {component} {reason}");
            let word = Exception::new(Some(token), text).into();
            // It can be made again from the end alone, should it not be kept.
            if let Err(error) = self.store.keep(id, &word, now).await {
                warn!(specification = id.0, %error, "the reason is not kept");
            }
        }
        self.settled(id, end, now).await
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

    /// Locks what is in memory. A panic elsewhere leaves it whole: every change is one
    /// call.
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
