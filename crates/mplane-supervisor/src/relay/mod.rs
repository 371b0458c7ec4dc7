//! The relay: what components and clients are answered.
//!
//! What lasts is in the [`Store`]; here is who asks whom, and who waits. The time comes in
//! with each call, as in every exchange.

mod access;
mod clients;
mod components;
mod hand_out;
mod repeat;
#[cfg(test)]
mod repeat_tests;
#[cfg(test)]
mod tests;
mod whole;
#[cfg(test)]
mod whole_tests;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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
pub use self::hand_out::HandOut;
use crate::directory::{Dialect, Directory, Presence};
use crate::life::{Effect, End};
use crate::metrics::{
    EndLabel, PresenceLabel, SupervisorMetrics, Transaction, TransactionLabel,
};
use crate::store::{Id, OpenStoreError, Overdue, Room, Store, StoreError};
use crate::waiters::{Waiter, Waiters};

/// How long after the end of its temporal scope a specification may still yield a result:
/// components that were away deliver late.
pub(crate) const GRACE: SignedDuration = SignedDuration::from_secs(60);

/// Components of which it is written down at once when they were last heard of.
const SEEN_AT_ONCE: usize = 1_000;

/// What the operator has set, which may change while it works.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long a component is offered after it was heard of.
    pub expiry: SignedDuration,
    /// How many specifications may be open.
    pub room: Room,
    /// Which hand-outs are made again; the first that names a component counts.
    pub hand_outs: Vec<HandOut>,
}

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
    /// Of these one is held while the results of a repeat that come one by one are put
    /// together; which, its specification says.
    turns: Vec<tokio::sync::Mutex<()>>,
}

/// Repeats whose results are put together at once, at most.
const TURNS: usize = 64;

/// What is in memory.
#[derive(Debug)]
struct Shared {
    directory: Directory,
    /// What the operator has set.
    limits: Limits,
    /// Capabilities on their way to the directory, by component.
    registering: BTreeMap<Identity, usize>,
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
        limits: Limits,
        now: Timestamp,
    ) -> Result<Self, OpenRelayError> {
        let expiry = limits.expiry;
        let mut shared = Shared {
            directory: Directory::default(),
            limits,
            registering: BTreeMap::new(),
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
            turns: (0..TURNS).map(|_| tokio::sync::Mutex::default()).collect(),
        };
        // Those whose last part ended just before the end.
        relay.complete(None, now).await?;
        let again = {
            let shared = relay.shared();
            let known = shared.directory.components();
            let again = known.filter(|(who, known)| shared.lease(who, known).is_some());
            again.map(|(identity, _)| identity.clone()).collect()
        };
        relay.handed_again(again, "the supervisor was started again", now).await?;
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

    /// Makes a transaction, and counts how long it takes.
    async fn timed<T>(
        &self,
        transaction: Transaction,
        act: impl Future<Output = T>,
    ) -> T {
        let started = Instant::now();
        let done = act.await;
        let took = started.elapsed().as_secs_f64();
        let label = TransactionLabel { transaction };
        self.metrics.store.get_or_create(&label).observe(took);
        done
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
        let before = std::mem::replace(&mut shared.gone, gone.clone());
        let pending = shared.pending.len();
        drop(shared);
        for component in gone.difference(&before) {
            warn!(%component, "was not heard of for long, and is not offered any more");
        }
        for component in before.difference(&gone) {
            info!(%component, "is offered again");
        }
        if before != gone {
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
        // The reasons first: the last part of one for many components joins them all.
        for overdue in &overdue {
            match overdue.effect {
                Effect::Settle(End::Lost) => self.keep_reason(overdue, now).await,
                Effect::Wake => {
                    info!(specification = overdue.id.0, component = %overdue.component,
                        "queued again: the component did not answer");
                    self.metrics.handed_again.inc();
                    self.wake(&overdue.component);
                }
                _ => {}
            }
        }
        // A failure at one must not cost the others.
        let mut failed = None;
        for overdue in overdue {
            if let Effect::Settle(end) = overdue.effect
                && let Err(error) = self.settled(overdue.id, end, now).await
            {
                failed.get_or_insert(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Keeps why a specification is lost. It can be made again from the end alone, should it
    /// not be kept.
    async fn keep_reason(&self, overdue: &Overdue, now: Timestamp) {
        let Overdue { id, token, component, reason, .. } = overdue;
        let text = format!("lost: component {component} {reason}");
        let word = Exception::new(Some(token.clone()), text).into();
        if let Err(error) = self.store.keep_reason(*id, &word, now).await {
            warn!(specification = id.0, %error, "the reason is not kept");
        }
    }

    /// Forgets components that were not heard of for so long: they leave their history, and
    /// register again if they come back.
    pub async fn forget_gone(
        &self,
        age: Duration,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let is_old = |seen: Timestamp| {
            let silent = Duration::try_from(now.duration_since(seen));
            silent.is_ok_and(|silent| silent > age)
        };
        let gone: Vec<_> = self.look(|directory| {
            let gone =
                directory.components().filter(|(_, known)| is_old(known.last_seen));
            gone.map(|(identity, _)| identity.clone()).collect()
        });
        if gone.is_empty() {
            return Ok(());
        }
        self.store.forgotten(gone.clone(), now).await?;
        for component in gone {
            let mut shared = self.shared();
            let known = shared.directory.component(&component);
            // It may have come back meanwhile.
            if known.is_some_and(|known| is_old(known.last_seen)) {
                shared.directory.forget(&component);
                info!(%component, "was not heard of for very long, and is forgotten");
            }
        }
        self.offers_changed();
        Ok(())
    }

    /// Forgets a component that is not called any more: it is not offered, and leaves its
    /// history.
    pub async fn leave(
        &self,
        component: &Identity,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.store.forgotten(vec![component.clone()], now).await?;
        self.shared().directory.forget(component);
        info!(%component, "is not called any more, and not offered");
        self.offers_changed();
        Ok(())
    }

    /// Writes down when components were last heard of, and takes note of whether that works.
    pub async fn write_seen(&self) -> Result<(), StoreError> {
        let mut written = self.try_write_seen().await;
        // A few words fit where nothing else does.
        if written.is_ok() && self.ready().is_err() {
            written = self.store.probe().await;
        }
        self.shared().broken = written.as_ref().err().map(ToString::to_string);
        written
    }

    /// Takes note that the store has not worked.
    pub fn failed(&self, error: &StoreError) {
        self.metrics.store_failures.inc();
        self.shared().broken = Some(error.to_string());
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
        info!(specification = id.0, end = end.word(), "has ended");
        self.redeeming.wake(&id);
        let joined = match self.store.parent(id).await {
            Ok(Some(whole)) => self.complete(Some(whole), now).await,
            // Those that clients have sent are counted, not their parts.
            Ok(None) => {
                self.metrics.settled.get_or_create(&EndLabel { end: end.word() }).inc();
                Ok(())
            }
            Err(error) => Err(error),
        };
        joined.inspect_err(|_| {
            // Nobody may deliver this part once more: it is joined when the store works again.
            let mut shared = self.shared();
            (shared.is_incomplete, shared.deadline) = (true, Some(now));
        })
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
