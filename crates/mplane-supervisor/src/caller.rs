//! Components that listen: the supervisor calls them, instead of waiting for them to come.
//!
//! For the relay they are components as any others: what they offer is registered, what is
//! queued for them is fetched on their behalf and posted to them, and what they answer is
//! reported. A receipt is redeemed until the result is there.
//!
//! What is fetched is in hand until it has ended: it is posted until it is answered, and has
//! no lease. What was in hand before a restart is taken up again once, from the store.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use mplane::access::{Act, Identity, permit};
use mplane::features::Features;
use mplane::json;
use mplane::message::{
    Capability, Envelope, Exception, Message, Redemption, Specification, Withdrawal,
};
use mplane::token::Token;
use mplane::when::When;
use mplane_runtime::client::{Client, ClientError};
use mplane_runtime::http::client::BaseUrl;
use mplane_runtime::initiator::LATER;
use mplane_runtime::report;
use mplane_runtime::tls::Credentials;
use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::directory::{About, Component, Dialect};
use crate::fan_out::is_of_many;
use crate::life::{Asked, Life};
use crate::relay::{GRACE, OfferError, Relay};
use crate::server::Supervisor;
use crate::store::{Filter, Reported};

/// How often a component is asked what it offers.
const DISCOVERY: Duration = Duration::from_secs(60);

/// How long one redemption lets the component wait for a result.
const WAIT: Duration = Duration::from_secs(20);

/// The pause between two requests to a component that does not wait.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest pause after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Redemptions that wait for their results at a component at once: each takes a connection, of
/// which a component takes some hundreds.
const WAITING: usize = 200;

/// Other messages that are posted to a component at once: they are answered at once, and do not
/// wait behind those.
const ASKING: usize = 50;

/// How long before a repeat is given up its results so far are taken for all, if the component
/// does not say that they are: some never do.
const SHORTLY: SignedDuration = SignedDuration::from_secs(30);

/// A component that listens.
pub struct Callee {
    /// Where.
    pub url: BaseUrl,
    /// What the supervisor shows it.
    pub credentials: Option<Arc<Credentials>>,
}

/// Calls a component until `end`.
pub async fn call(supervisor: Arc<Supervisor>, callee: Callee, end: CancellationToken) {
    let caller = Arc::new(Caller::new(supervisor, callee));
    let mut hands = Hands::default();
    let work = async {
        let mut pause = PAUSE;
        loop {
            match caller.serve(&mut hands, &mut pause).await {
                Ok(never) => match never {},
                Err(error) => {
                    let problem = report(&error);
                    warn!(component = %caller.callee.url, problem, "cannot be called, tries again");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    };
    tokio::select! {
        () = work => {}
        () = end.cancelled() => {}
    }
    let Some(component) = hands.component.take() else { return };
    if !caller.supervisor.is_ending()
        && let Err(error) = caller.relay().leave(&component, Timestamp::now()).await
    {
        warn!(%component, %error, "is not called any more, and could not be written down");
    }
}

/// Who calls a component.
struct Caller {
    supervisor: Arc<Supervisor>,
    callee: Callee,
    /// Posts what is for the component.
    client: Client,
    /// What it offers, as far as that is registered, by token.
    known: Mutex<BTreeMap<Token, Capability>>,
    /// Held while an answer is judged and reported: what it means depends on those before.
    reporting: tokio::sync::Mutex<()>,
    /// Room for redemptions that wait.
    waiting: Semaphore,
    /// Room for what does not.
    asking: Semaphore,
}

/// What is in hand for a component: each is a task, which ends with this.
#[derive(Default)]
struct Hands {
    /// For whom.
    component: Option<Identity>,
    tasks: JoinSet<()>,
}

impl Caller {
    /// Makes one who has not called yet.
    fn new(supervisor: Arc<Supervisor>, callee: Callee) -> Self {
        let client = client(&supervisor, &callee);
        let (known, reporting) = (Mutex::default(), tokio::sync::Mutex::default());
        let (waiting, asking) = (Semaphore::new(WAITING), Semaphore::new(ASKING));
        Self { supervisor, callee, client, known, reporting, waiting, asking }
    }

    /// Returns the relay of the supervisor.
    fn relay(&self) -> &Relay {
        self.supervisor.relay()
    }

    /// Locks what is known to be offered. A panic elsewhere leaves it whole.
    fn known(&self) -> MutexGuard<'_, BTreeMap<Token, Capability>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves the component until something fails. What is in hand is not concerned.
    async fn serve(
        self: &Arc<Self>,
        hands: &mut Hands,
        pause: &mut Duration,
    ) -> Result<Infallible, CallError> {
        let identity = self.discover(None).await?;
        if hands.component.as_ref() != Some(&identity) {
            *hands = self.take_up(&identity).await?;
        }
        let mut discovery = tokio::time::interval(DISCOVERY);
        discovery.reset();
        loop {
            let waiter = self.relay().wait_for_queue(&identity);
            let news = waiter.news();
            loop {
                let now = Timestamp::now();
                let fetched = self.relay().fetch_for_caller(&identity, now).await?;
                let fetched = fetched.ok_or(CallError::Forgotten)?;
                *pause = PAUSE;
                if fetched.is_empty() {
                    break;
                }
                for message in fetched {
                    hands.tasks.spawn(Arc::clone(self).carry(identity.clone(), message));
                }
            }
            tokio::select! {
                () = news => {}
                Some(ended) = hands.tasks.join_next() => {
                    if let Err(error) = ended {
                        error!(component = %identity, %error, "not carried to its end");
                    }
                }
                _ = discovery.tick() => {
                    let now = self.discover(Some(&identity)).await?;
                    if now != identity {
                        return Err(CallError::Other { identity: now });
                    }
                }
            }
        }
    }

    /// Takes up again what the component was handed and has not answered for good: what was
    /// promised is still to be redeemed, and what was not answered may not have arrived.
    /// Interrupts of it are queued again by the relay.
    async fn take_up(self: &Arc<Self>, identity: &Identity) -> Result<Hands, CallError> {
        let mut hands = Hands { component: Some(identity.clone()), ..Hands::default() };
        let why = "the component is called again";
        let (component, now) = (vec![identity.clone()], Timestamp::now());
        self.relay().handed_again(component, why, now).await?;
        for (text, is_promised) in self.relay().store().outstanding(identity).await? {
            let read = json::decode(text.as_bytes(), self.relay().registries());
            if let Ok(Message::Specification(handed)) = read {
                let (caller, identity) = (Arc::clone(self), identity.clone());
                hands.tasks.spawn(async move {
                    if is_promised {
                        caller.redeem(&identity, &handed).await;
                    } else {
                        caller.carry(identity, handed.into()).await;
                    }
                });
            }
        }
        Ok(hands)
    }

    /// Registers what the component offers, and withdraws what it does not offer any more;
    /// returns who it is. One that is not `served` yet registers all.
    async fn discover(&self, served: Option<&Identity>) -> Result<Identity, CallError> {
        let relay = self.relay();
        let mut client = client(&self.supervisor, &self.callee);
        client.discover().await?;
        let found = client.known().capabilities();
        // What is of all components of a supervisor is not of one here: it would be taken for
        // all of this one.
        let found = found.filter(|(_, what)| !what.label().is_some_and(is_of_many));
        let found: Vec<_> =
            found.map(|(who, what)| (who.clone(), what.clone())).collect();
        let Some((identity, _)) = found.first().cloned() else {
            return Err(CallError::Nothing);
        };
        permit(&identity, Act::Serve).map_err(CallError::Denied)?;
        let offered: BTreeMap<_, _> =
            found.into_iter().map(|(_, offered)| (offered.token(), offered)).collect();
        let mut known = self.known().clone();
        // Without certificates others have the same name.
        if served.is_none() && identity.is_authenticated() {
            known = relay.look(|directory| registered(directory.component(&identity)));
        }
        let features = client.features();
        let mut taken = BTreeMap::new();
        for (token, capability) in offered.clone() {
            if served != Some(&identity) || known.get(&token) != Some(&capability) {
                let label = capability.label().unwrap_or_default().to_owned();
                let message = capability.clone().into();
                if !self.register(&identity, message, features).await? {
                    // It is offered again the next time.
                    continue;
                }
                info!(component = %identity, capability = label, "registered");
            }
            taken.insert(token, capability);
        }
        let about =
            About { address: Some(self.callee.url.to_string()), ..About::default() };
        relay.describe(&identity, about).await?;
        for (token, capability) in &known {
            let is_replaced =
                offered.values().any(|offered| offered.label() == capability.label());
            if !offered.contains_key(token) && !is_replaced {
                let withdrawal = Withdrawal::of(capability).into();
                self.register(&identity, withdrawal, features).await?;
            }
        }
        *self.known() = taken;
        Ok(identity)
    }

    /// Registers a capability or a withdrawal. Says whether it is taken.
    async fn register(
        &self,
        identity: &Identity,
        message: Message,
        features: Features,
    ) -> Result<bool, CallError> {
        let (dialect, now) = (Dialect::Envelope, Timestamp::now());
        match self.relay().register(identity, message, features, dialect, now).await {
            Err(OfferError::Store(error)) => Err(CallError::Store(error)),
            // One that is not taken does not cost the others.
            Err(error) => {
                warn!(component = %identity, reason = %error, "refused a capability");
                Ok(false)
            }
            Ok(()) => Ok(true),
        }
    }

    /// Posts a specification, an interrupt or a redemption to the component, and reports
    /// what it answers; a specification to its end.
    async fn carry(self: Arc<Self>, identity: Identity, message: Message) {
        let Some(token) = message.token() else { return };
        // A specification is promised before its result is waited for: who interrupts it or
        // asks what became of it must not wait so long.
        let is_redemption = matches!(message, Message::Redemption(_));
        for answer in self.post(&identity, &token, &message, Duration::ZERO).await {
            // What comes after an answer that the relay took for the results so far is of no
            // use, and would be taken for all results.
            let is_wanted = |life: &Life, _: &Envelope| {
                !is_redemption || life.progress == Asked::Sent
            };
            self.report(&identity, &token, answer, is_wanted).await;
        }
        if let Message::Specification(specification) = &message {
            self.redeem(&identity, specification).await;
        }
    }

    /// Redeems a specification until it has ended.
    async fn redeem(&self, identity: &Identity, specification: &Specification) {
        let token = specification.token();
        let Some(open) = self.open(identity, &token).await else { return };
        let repeat = if specification.when().is_repeated() {
            Some(self.repeat(&open, specification.when()).await)
        } else {
            None
        };
        let redemption =
            Message::from(Redemption::token_only(specification.verb(), token.clone()));
        while self.open(identity, &token).await.is_some() {
            let started = tokio::time::Instant::now();
            for answer in self.post(identity, &token, &redemption, WAIT).await {
                // That it is promised is known.
                if matches!(answer, Message::Receipt(_)) {
                    continue;
                }
                let is_all = |life: &Life, results: &Envelope| {
                    let now = Timestamp::now();
                    life.interrupt == Asked::Sent
                        || repeat
                            .as_ref()
                            .is_none_or(|repeat| repeat.is_all(results, now))
                };
                self.report(identity, &token, answer, is_all).await;
            }
            if self.open(identity, &token).await.is_some() {
                // Some do not wait before they answer.
                tokio::time::sleep(PAUSE.saturating_sub(started.elapsed())).await;
            }
        }
    }

    /// Returns what there is to know of a repeat.
    async fn repeat(&self, open: &Reported, when: &When) -> Repeat {
        let now = Timestamp::now();
        // It may have begun before a restart.
        let before = open.id.0.saturating_add(1);
        let listed = self.relay().store();
        let listed = listed.measurements(Filter::default(), Some(before), 1).await;
        let written = listed.ok().and_then(|page| {
            let mut measurements = page.measurements.into_iter();
            let deadline: When =
                measurements.find(|it| it.id == open.id.0)?.deadline?.parse().ok()?;
            deadline.bounds(now).end
        });
        let deadline = written.or_else(|| when.bounds(now).end?.checked_add(GRACE).ok());
        Repeat { when: when.clone(), deadline }
    }

    /// Returns what is known of a specification that has not ended.
    async fn open(&self, identity: &Identity, token: &Token) -> Option<Reported> {
        loop {
            match self.relay().store().reported(identity, token).await {
                Ok(reported) => return reported.filter(|it| !it.life.is_settled()),
                Err(error) => {
                    // That it cannot be told now does not say that it has ended.
                    warn!(component = %identity, %error, "it is not known how far it is");
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Takes a place to post something, which may wait so long for its answer; less if others
    /// wait for such a place.
    async fn place(
        &self,
        wait: Duration,
    ) -> (Result<SemaphorePermit<'_>, AcquireError>, Duration) {
        if wait.is_zero() {
            return (self.asking.acquire().await, wait);
        }
        match self.waiting.try_acquire() {
            Ok(place) => (Ok(place), wait),
            Err(_) => (self.waiting.acquire().await, wait.min(PAUSE)),
        }
    }

    /// Posts a message until it is answered, or its specification has ended; returns the
    /// answers. The component starts nothing twice that has the same token.
    async fn post(
        &self,
        identity: &Identity,
        token: &Token,
        message: &Message,
        wait: Duration,
    ) -> Vec<Message> {
        let mut pause = PAUSE;
        loop {
            let (place, wait) = self.place(wait).await;
            if self.open(identity, token).await.is_none() {
                return Vec::new();
            }
            let answered = self.client.post(message.clone(), wait).await;
            drop(place);
            match answered {
                Ok((who, answers)) if who == *identity => return answers,
                Ok((who, _)) => {
                    warn!(component = %identity, now = %who, "somebody else answers");
                }
                Err(ClientError::Refused { status, reason })
                    if status.is_client_error() && !LATER.contains(&status) =>
                {
                    warn!(component = %identity, %status, reason, "refused what it was handed");
                    let text = format!("the component answered {status}: {reason}");
                    return vec![Exception::new(message.token(), text).into()];
                }
                Err(error) => {
                    let problem = report(&error);
                    warn!(component = %identity, problem, "cannot be called, tries again");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Reports an answer about a specification; envelopes if they are wanted as things are.
    async fn report(
        &self,
        identity: &Identity,
        token: &Token,
        answer: Message,
        is_wanted: impl Fn(&Life, &Envelope) -> bool,
    ) {
        let _one = self.reporting.lock().await;
        let answer = match answer {
            Message::Withdrawal(withdrawal) => {
                self.withdraw(identity, &withdrawal).await;
                let label = withdrawal.label().unwrap_or_default();
                let text = format!("the component has withdrawn the capability {label}");
                Exception::new(Some(token.clone()), text).into()
            }
            Message::Envelope(results) => {
                let open = self.open(identity, token).await;
                if open.is_some_and(|open| !is_wanted(&open.life, &results)) {
                    return;
                }
                results.into()
            }
            other => other,
        };
        let reported = self.relay().report(identity, answer, Timestamp::now()).await;
        if let Err(error) = reported {
            warn!(component = %identity, reason = %error, "refused a report");
        }
    }

    /// Withdraws a capability that the component says it does not offer any more.
    async fn withdraw(&self, identity: &Identity, withdrawal: &Withdrawal) {
        let is_meant = |known: &Capability| {
            known.token() == *withdrawal.token()
                || (known.label().is_some() && known.label() == withdrawal.label())
        };
        // Should it come back, it is registered again.
        let gone: Vec<_> =
            self.known().extract_if(.., |_, known| is_meant(known)).collect();
        for (_, capability) in gone {
            let message = Withdrawal::of(&capability).into();
            let features = self.client.features();
            if let Err(error) = self.register(identity, message, features).await {
                warn!(component = %identity, %error, "a capability is not withdrawn");
            }
        }
    }
}

/// Makes a client that asks a component.
fn client(supervisor: &Supervisor, callee: &Callee) -> Client {
    let registries = supervisor.relay().registries().clone();
    Client::new(callee.credentials.clone(), callee.url.clone(), registries)
}

/// Returns what a component offers, by token.
fn registered(component: Option<&Component>) -> BTreeMap<Token, Capability> {
    let offered = component.into_iter().flat_map(Component::capabilities);
    offered.map(|offered| (offered.token(), offered.clone())).collect()
}

/// What there is to know of a repeated measurement, to tell its results so far from all.
struct Repeat {
    /// What is asked for.
    when: When,
    /// When it is given up, UTC; `None` if it goes on for ever.
    deadline: Option<Timestamp>,
}

impl Repeat {
    /// Says whether these results are all. Ours say how far they are by their scope, whose
    /// clock may be another; others are believed once the time is over.
    fn is_all(&self, results: &Envelope, now: Timestamp) -> bool {
        let says_all = results.say_all_of(&self.when, now) == Some(true);
        let Some(deadline) = self.deadline else { return says_all };
        let left = deadline.duration_since(now);
        // An exception may have ended it.
        let has_ended = left <= GRACE || results.has_exception();
        left <= SHORTLY || has_ended && says_all
    }
}

/// Why a component cannot be called.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("it offers nothing that this supervisor may use")]
    Nothing,
    #[error("its certificate is not one of a component")]
    Denied(#[source] mplane::access::Denied),
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    #[error("now {identity} answers")]
    Other { identity: Identity },
    #[error("it was forgotten, and is asked anew what it offers")]
    Forgotten,
}
