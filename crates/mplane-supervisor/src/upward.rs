//! A supervisor as a component of another one: it offers there what its own components offer,
//! fetches specifications, and posts what comes of them.
//!
//! For the relay the other supervisor is a client as any others: it may see and use what the
//! policy lets it, and what it has asked for is kept until it has it, over restarts too.

use std::collections::BTreeSet;
use std::future::{Future, ready};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use mplane::access::Identity;
use mplane::message::{Capability, Message};
use mplane::registry::Registries;
use mplane::token::Token;
use mplane_runtime::initiator::{Later, Letter, Offerer, Outbox};
use mplane_runtime::tls::fresh_token;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::relay::{Relay, Reply};
use crate::server::{Supervisor, to_its_end};
use crate::store::{Id, StoreError};

/// Results held in memory until the other supervisor has taken them: further ones stay in the
/// store.
const IN_HAND: usize = 64;

/// The pause after the store could not be read.
const PAUSE: Duration = Duration::from_secs(5);

/// A supervisor, as another one sees it with which it registers.
pub struct Upward {
    deliveries: Arc<Deliveries>,
    /// Who this supervisor is there.
    identity: Identity,
    /// Who gets what was left over from an earlier run.
    resumed: Mutex<BTreeSet<Identity>>,
    shutdown: CancellationToken,
}

impl Upward {
    /// Makes what registers with another supervisor as `identity`, until `shutdown`.
    pub fn new(
        supervisor: Arc<Supervisor>,
        identity: Identity,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        let (awaited, in_hand) = (Mutex::default(), Semaphore::new(IN_HAND));
        let deliveries = Arc::new(Deliveries { supervisor, awaited, in_hand });
        Arc::new(Self { deliveries, identity, resumed: Mutex::default(), shutdown })
    }

    /// Returns who is answered what.
    fn relay(&self) -> &Relay {
        self.deliveries.supervisor.relay()
    }

    /// Answers a message as one of a client. If the store fails, it is tried again: what is
    /// told to the other supervisor instead of a result ends the specification there. `None`
    /// if the supervisor fails inside; the other one hands it out again.
    async fn handle(&self, from: &Identity, message: Message) -> Option<Reply> {
        let (kind, label) = (message.kind(), message.label().map(ToOwned::to_owned));
        let fresh = [fresh_token(), fresh_token()];
        let reply = again(|| async {
            let (supervisor, identity) =
                (Arc::clone(&self.deliveries.supervisor), from.clone());
            let (message, fresh) = (message.clone(), fresh.clone());
            let handled = to_its_end(async move {
                let relay = supervisor.relay();
                relay.try_answer(&identity, message, fresh, Timestamp::now()).await
            });
            handled.await.transpose()
        });
        let reply = reply.await?;
        info!(client = %from, %kind, label, specification = reply.about(), "received");
        if let Some(withheld) = &reply.withheld {
            warn!(client = %from, %withheld, "refused by the access rules");
        }
        Some(reply)
    }
}

/// What the other supervisor is still to get.
struct Deliveries {
    supervisor: Arc<Supervisor>,
    /// Of which specifications the end is waited for.
    awaited: Mutex<BTreeSet<Id>>,
    /// Room for results on their way.
    in_hand: Semaphore,
}

impl Deliveries {
    /// Has what comes of a specification put into an outbox.
    fn begin(self: &Arc<Self>, client: &Identity, id: Id, token: Token, outbox: &Outbox) {
        if !self.awaited().insert(id) {
            return;
        }
        let deliveries = Arc::clone(self);
        let (client, outbox) = (client.clone(), outbox.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = deliveries.deliver(&client, id, &token, &outbox) => {}
                () = outbox.closed() => {}
            }
            deliveries.awaited().remove(&id);
        });
    }

    /// Begins with all that a client has not got.
    async fn resume(self: &Arc<Self>, client: &Identity, outbox: &Outbox) {
        let store = self.supervisor.relay().store();
        let unredeemed = again(|| store.unredeemed(client)).await;
        info!(supervisor = %client, specifications = unredeemed.len(), "goes on for it");
        for (id, token) in unredeemed {
            self.begin(client, id, token, outbox);
        }
    }

    /// Puts what comes of a specification into an outbox once it has ended.
    async fn deliver(&self, client: &Identity, id: Id, token: &Token, outbox: &Outbox) {
        let relay = self.supervisor.relay();
        loop {
            let waiter = relay.wait_for_end(id);
            let news = waiter.news();
            if again(|| relay.store().has_ended(client, token)).await {
                break;
            }
            news.await;
        }
        self.take_place().await;
        let reply = again(|| relay.state_of(client, token, Timestamp::now())).await;
        let (to, message) = (client.clone(), reply.message);
        let letter = Letter { to, about: Some(id.0), message };
        if outbox.send(letter).is_err() {
            debug!(specification = id.0, "is delivered after a restart");
        }
    }

    /// Takes the place of a letter, which is given back when it has arrived.
    async fn take_place(&self) {
        if let Ok(place) = self.in_hand.acquire().await {
            place.forget();
        }
    }

    /// Locks the specifications that are waited for. Every change is one call.
    fn awaited(&self) -> MutexGuard<'_, BTreeSet<Id>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the store until it answers.
async fn again<T, A>(ask: impl Fn() -> A) -> T
where
    A: Future<Output = Result<T, StoreError>>,
{
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => warn!(%error, "cannot deliver, tries again"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl Offerer for Upward {
    fn registries(&self) -> &Registries {
        self.relay().registries()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.relay().changes()
    }

    fn offered_to_all(&self) -> Option<Vec<Capability>> {
        None
    }

    fn offered_to(&self, supervisor: &Identity) -> Vec<Capability> {
        if *supervisor == self.identity {
            warn!(%supervisor, "a supervisor does not register with itself");
            return Vec::new();
        }
        self.relay().offered_upward(supervisor, Timestamp::now())
    }

    fn registered(&self) {}

    fn deliver_to(&self, supervisor: &Identity, outbox: &Outbox) {
        let mut resumed = self.resumed.lock().unwrap_or_else(PoisonError::into_inner);
        if !resumed.insert(supervisor.clone()) {
            return;
        }
        drop(resumed);
        let (deliveries, supervisor, outbox) =
            (Arc::clone(&self.deliveries), supervisor.clone(), outbox.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = deliveries.resume(&supervisor, &outbox) => {}
                () = outbox.closed() => {}
            }
        });
    }

    fn answer<'a>(
        &'a self,
        supervisor: &'a Identity,
        message: Message,
        outbox: &'a Outbox,
    ) -> Later<'a> {
        Box::pin(async move {
            let token = message.token();
            let is_specification = matches!(message, Message::Specification(_));
            let is_interrupt = matches!(message, Message::Interrupt(_));
            let Some(reply) = self.handle(supervisor, message).await else { return };
            // What an interrupt ends is delivered as what it is of.
            let open = reply.pending.or(reply.ended);
            let awaited = match open {
                Some(id)
                    if is_specification && reply.pending.is_some() || is_interrupt =>
                {
                    token.map(|token| (id, token))
                }
                _ => None,
            };
            let is_told = is_interrupt && open.is_some();
            let about = reply.ended.map(|id| id.0);
            if about.is_some() && !is_told {
                self.deliveries.take_place().await;
            }
            let letter = Letter { to: supervisor.clone(), about, message: reply.message };
            if !is_told && outbox.send(letter).is_err() {
                debug!("the end has come before an answer was sent");
            }
            if let Some((id, token)) = awaited {
                self.deliveries.begin(supervisor, id, token, outbox);
            }
        })
    }

    fn delivered(&self, letter: &Letter) {
        if let Some(id) = letter.about {
            self.deliveries.in_hand.add_permits(1);
            self.relay().redeemed(Some(Id(id)), Timestamp::now());
        }
    }

    /// It has been told what it refuses, and is not told again.
    fn give_up<'a>(
        &'a self,
        receiver: &'a Identity,
        letter: Letter,
        reason: String,
    ) -> Later<'a> {
        Box::pin(async move {
            warn!(supervisor = %receiver, specification = letter.about, reason,
                "does not take what came of its specification");
            self.delivered(&letter);
        })
    }

    /// All that its receiver has not got is put into the outbox when it comes back.
    fn take_back(&self, letter: Letter) {
        if letter.about.is_some() {
            self.deliveries.in_hand.add_permits(1);
        }
        let mut resumed = self.resumed.lock().unwrap_or_else(PoisonError::into_inner);
        resumed.remove(&letter.to);
    }

    fn close_outbox(&self, _: &Outbox) {
        // Whoever puts something into it notices.
    }

    fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// What is not in an outbox yet is delivered after a restart.
    fn ended(&self) -> Later<'_> {
        Box::pin(ready(()))
    }
}
