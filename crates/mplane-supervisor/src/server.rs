//! The supervisor over HTTP, mostly with TLS: one port for components and clients.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::routing::{get, post};
use http::header::HeaderValue;
use http::{Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use mplane::access::{Act, Policy, permit};
use mplane::json::{self, MEDIA_TYPE, Unreadable};
use mplane::message::{Capability, Envelope, Message};
use mplane::registry::Registries;
use mplane::token::Token;
use mplane_runtime::http::routes::{
    Answering, NotNow, Page, Responder, answer, client_routes, later, read_messages,
    read_parts,
};
use mplane_runtime::http::{Origin, Peer, clock_ahead_s, path, preferred_wait};
use mplane_runtime::tls::fresh_token;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::directory::{About, Dialect};
use crate::relay::{HandOut, Limits, OpenRelayError, Relay, Reply, ReportError};
use crate::ri::ri_routes;
use crate::store::{Id, Retention, Room, Store, StoreError, Swept};
use crate::tell::tell_routes;

/// How often it is looked whether the time of something is over.
const TICK: Duration = Duration::from_secs(1);

/// How often it is written down when components were last heard of.
const SEEN_INTERVAL: Duration = Duration::from_secs(30);

/// How often it is counted what waits for components.
const COUNT_INTERVAL: Duration = Duration::from_secs(15);

/// How often it is looked whether something is kept long enough.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Writes that may wait for the store before requests are refused: some seconds of work for a
/// slow disk.
pub(crate) const WAITING: usize = 10_000;

/// Characters of what a program says it is.
const VERSION: usize = 100;

/// How a supervisor works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a component is offered after it was heard of.
    pub expiry: SignedDuration,
    /// Which hand-outs are made again.
    pub hand_outs: Vec<HandOut>,
    /// What is kept how long.
    pub retention: Retention,
    /// How many specifications may be open.
    pub room: Room,
    /// Whether components that are not known are asked to register with 428, as some
    /// dialects want it, and not with 404.
    pub is_428: bool,
}

impl Settings {
    /// Returns what of it is for the relay.
    fn limits(&self) -> Limits {
        let (room, hand_outs) = (self.room, self.hand_outs.clone());
        Limits { expiry: self.expiry, room, hand_outs }
    }
}

/// A supervisor that serves components and clients.
pub struct Supervisor {
    registries: Registries,
    relay: Relay,
    settings: Mutex<Settings>,
    shutdown: CancellationToken,
}

impl Supervisor {
    /// Makes a supervisor that goes on with what is in a store, and which peers may use as
    /// far as the policy permits. It works until `shutdown`.
    pub async fn new(
        store: Store,
        registries: Registries,
        policy: Policy,
        settings: Settings,
        shutdown: CancellationToken,
    ) -> Result<Arc<Self>, OpenRelayError> {
        let (known, limits) = (registries.clone(), settings.limits());
        let relay = Relay::new(store, known, policy, limits, Timestamp::now()).await?;
        let settings = Mutex::new(settings);
        let supervisor = Arc::new(Self { registries, relay, settings, shutdown });
        tokio::spawn(keep_time(Arc::clone(&supervisor)));
        tokio::spawn(keep_house(Arc::clone(&supervisor)));
        Ok(supervisor)
    }

    /// Returns its routes: those that components use and those that clients use.
    pub fn router(self: &Arc<Self>) -> Router {
        let clients: Arc<dyn Responder> = Arc::new(Facing(Arc::clone(self)));
        Router::new()
            .route(path::REGISTER_CAPABILITY, post(register_capability))
            .route(path::SHOW_SPECIFICATION, get(show_specification))
            .route(path::REGISTER_RESULT, post(register_result))
            .with_state(Arc::clone(self))
            .merge(ri_routes(Arc::clone(self)))
            .merge(client_routes(clients))
            .layer(from_fn_with_state(Arc::clone(self), shed))
            // Who looks after it must get through.
            .merge(tell_routes(Arc::clone(self)))
    }

    /// Returns who is answered what.
    pub const fn relay(&self) -> &Relay {
        &self.relay
    }

    /// Says whether it ends.
    pub(crate) fn is_ending(&self) -> bool {
        self.shutdown.is_cancelled()
    }

    /// Returns how a component that is not known is answered.
    fn unknown_status(&self) -> StatusCode {
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        if settings.is_428 {
            StatusCode::PRECONDITION_REQUIRED
        } else {
            StatusCode::NOT_FOUND
        }
    }

    /// Sets who may offer and use which capability from now on.
    pub fn set_policy(&self, policy: Policy) {
        self.relay.set_policy(policy);
    }

    /// Sets how it works from now on.
    pub fn set_settings(&self, settings: Settings) {
        self.relay.set_limits(settings.limits());
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    /// Waits until all is written down, after `shutdown`.
    pub async fn ended(&self) {
        self.shutdown.cancelled().await;
        if let Err(error) = self.relay.write_seen().await {
            warn!(%error, "not all could be written before the end");
        }
    }
}

/// Does something to its end, whether or not who asked for it waits for the answer: what is
/// written down must not be left half done when a connection goes. Returns `None` if it
/// panicked, or the program ends.
pub(crate) async fn to_its_end<T: Send + 'static>(
    act: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    tokio::spawn(act).await.ok()
}

/// Gives up specifications whose time is over.
async fn keep_time(supervisor: Arc<Supervisor>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            () = supervisor.shutdown.cancelled() => return,
        }
        let now = Timestamp::now();
        supervisor.relay.count(now);
        if supervisor.relay.ready().is_err()
            && let Ok(()) = supervisor.relay.write_seen().await
        {
            info!("the store works again");
        }
        if let Err(error) = supervisor.relay.handle_timeout(now).await {
            error!(%error, "cannot give up what is over");
        }
    }
}

/// Writes down who was heard of, and keeps no longer what was kept long enough.
async fn keep_house(supervisor: Arc<Supervisor>) {
    let mut seen = tokio::time::interval(SEEN_INTERVAL);
    let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
    let mut count = tokio::time::interval(COUNT_INTERVAL);
    loop {
        let done = tokio::select! {
            _ = seen.tick() => supervisor.relay.write_seen().await,
            _ = sweep.tick() => self::sweep(&supervisor).await,
            _ = count.tick() => supervisor.relay.count_queued(Timestamp::now()).await,
            () = supervisor.shutdown.cancelled() => return,
        };
        if let Err(error) = done {
            error!(%error, "cannot keep the store in order");
        }
    }
}

/// Keeps no longer what was kept long enough.
async fn sweep(supervisor: &Supervisor) -> Result<(), StoreError> {
    let retention =
        supervisor.settings.lock().unwrap_or_else(PoisonError::into_inner).retention;
    supervisor.relay.forget_gone(retention.stories, Timestamp::now()).await?;
    loop {
        let swept = supervisor.relay.store().sweep(retention, Timestamp::now()).await?;
        if swept == Swept::default() {
            return Ok(());
        }
        let (results, stories) = (swept.results, swept.stories);
        info!(results, stories, "not kept any longer");
    }
}

/// Refuses requests while too many writes wait, so that those in hand are answered in time.
/// Registrations wait their turn: references give up on any answer but 200.
async fn shed(
    State(supervisor): State<Arc<Supervisor>>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let waiting = supervisor.relay.store().waiting();
    if waiting < WAITING || request.uri().path() == path::REGISTER_CAPABILITY {
        return next.run(request).await;
    }
    supervisor.relay.metrics().shed.inc();
    unavailable(&format!("{waiting} writes wait for the store; try again later"))
}

/// Takes capabilities of components. The answer to what can be read is always 200: references
/// give up on any other.
async fn register_capability(
    State(supervisor): State<Arc<Supervisor>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response<Body> {
    let about = about(&request);
    let part = request.uri().query().map(ToOwned::to_owned);
    let known = &supervisor.registries;
    let parts = match read_parts(request, known, supervisor.relay.ri()).await {
        Ok(parts) => parts,
        Err(refused) => return refused.answer(&peer),
    };
    let dialect = if parts.is_array { Dialect::Array } else { Dialect::Envelope };
    let permitted = permit(&peer.identity, Act::Serve);
    let begins = matches!(part.as_deref(), Some(path::FIRST | path::WHOLE));
    let round = supervisor.relay.registration(&peer.identity, begins);
    // All are on their way before the first is waited for: one commit takes them.
    let mut registering = Vec::with_capacity(parts.messages.len());
    for (index, message) in parts.messages.into_iter().enumerate() {
        registering.push(match message {
            Err(Unreadable { label, error, .. }) => {
                let name = label.unwrap_or_else(|| index.to_string());
                (name, Err(error.to_string()))
            }
            Ok(message) => {
                let name = message.label().map_or_else(
                    || message.token().map_or_else(String::new, |t| t.to_string()),
                    ToOwned::to_owned,
                );
                let registering = match &permitted {
                    Err(denied) => Err(denied.to_string()),
                    Ok(()) => Ok(tokio::spawn({
                        let (supervisor, peer) = (Arc::clone(&supervisor), peer.clone());
                        async move {
                            let (from, features) = (&peer.identity, peer.features);
                            let (relay, now) = (&supervisor.relay, Timestamp::now());
                            relay.register(from, message, features, dialect, now).await
                        }
                    })),
                };
                (name, registering)
            }
        });
    }
    let mut outcome = serde_json::Map::new();
    for (name, registering) in registering {
        let registered = match registering {
            Err(reason) => Err(reason),
            Ok(task) => match task.await {
                Ok(registered) => registered.map_err(|error| error.to_string()),
                Err(_) => Err(INSIDE.into()),
            },
        };
        let word = match registered {
            Ok(()) => {
                info!(component = %peer.identity, capability = name, "registered");
                json!({"registered": "ok"})
            }
            Err(reason) => {
                warn!(component = %peer.identity, capability = name, reason,
                    "refused a capability");
                supervisor.relay.metrics().not_taken("capability");
                json!({"registered": "no", "reason": reason})
            }
        };
        outcome.insert(name, word);
    }
    let (again, from) = (Arc::clone(&supervisor), peer.identity.clone());
    let again = to_its_end(async move {
        let now = Timestamp::now();
        again.relay.describe(&from, about).await?;
        if matches!(part.as_deref(), Some(path::LAST | path::WHOLE)) {
            again.relay.registration_ends(&from, round, now).await?;
        }
        again.relay.registered_again(&from, now).await
    });
    if let Some(Err(error)) = again.await {
        warn!(component = %peer.identity, %error, "what is known of it could not be written");
    }
    let body = serde_json::Value::Object(outcome).to_string().into_bytes();
    answer(StatusCode::OK, MEDIA_TYPE, body)
}

/// Reads what a request tells about the component that it comes from.
fn about(request: &Request) -> About {
    let agent = request.headers().get(http::header::USER_AGENT);
    let version = agent.and_then(|agent| agent.to_str().ok());
    let address = request.extensions().get::<Origin>();
    About {
        address: address.map(|Origin(address)| address.ip().to_string()),
        version: version.map(|version| version.chars().take(VERSION).collect()),
        clock_ahead_s: request.headers().get(http::header::DATE).and_then(clock_ahead_s),
    }
}

/// Hands out what is queued for a component. A request that prefers to wait is kept open
/// until there is something.
async fn show_specification(
    State(supervisor): State<Arc<Supervisor>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response<Body> {
    if let Err(denied) = permit(&peer.identity, Act::Serve) {
        info!(%denied, "hands out nothing");
        return plain(StatusCode::FORBIDDEN, &denied.to_string());
    }
    let wait = preferred_wait(request.headers());
    let deadline = tokio::time::Instant::now() + wait.unwrap_or(Duration::ZERO);
    let mut waiter = None;
    let (mut messages, dialect) = loop {
        // What comes after this look is not missed.
        let news = wait.filter(|wait| !wait.is_zero()).map(|_| {
            let begin = || supervisor.relay.wait_for_queue(&peer.identity);
            waiter.get_or_insert_with(begin).news()
        });
        let Some((is_pending, dialect)) =
            supervisor.relay.poll(&peer.identity, Timestamp::now())
        else {
            return unknown(&supervisor);
        };
        if is_pending {
            let (fetcher, identity) = (Arc::clone(&supervisor), peer.identity.clone());
            let fetched = to_its_end(async move {
                fetcher.relay.fetch(&identity, Timestamp::now()).await
            });
            match fetched.await {
                Some(Ok(Some(messages))) if messages.is_empty() => {}
                Some(Ok(Some(messages))) => break (messages, dialect),
                Some(Ok(None)) => return unknown(&supervisor),
                Some(Err(error)) => return unavailable(&error.to_string()),
                None => return unavailable(INSIDE),
            }
        }
        let Some(news) = news else { break (Vec::new(), dialect) };
        tokio::select! {
            waited = tokio::time::timeout_at(deadline, news) => {
                if waited.is_err() {
                    break (Vec::new(), dialect);
                }
            }
            () = supervisor.shutdown.cancelled() => break (Vec::new(), dialect),
        }
    };
    drop(waiter);
    for message in &mut messages {
        // Who writes arrays knows where to, and gets none from its own supervisor.
        if let Message::Specification(specification) = message
            && dialect == Dialect::Envelope
        {
            specification.set_link(own_link(&peer, request.headers()));
        }
    }
    // Last: who reads it stops reading there.
    messages.extend(supervisor.relay.callback(&peer.identity, Timestamp::now()));
    let form = peer.features.form();
    let body = match dialect {
        Dialect::Array => json::encode_array(&messages, form),
        Dialect::Envelope => {
            json::encode(&Envelope::of(messages).with_content("message").into(), form)
        }
    };
    let mut response = answer(StatusCode::OK, MEDIA_TYPE, body);
    if let Some(wait) = wait
        && let Ok(applied) = HeaderValue::try_from(format!("wait={}", wait.as_secs()))
    {
        response.headers_mut().insert("preference-applied", applied);
    }
    response
}

/// Makes the answer to a component that is not registered.
fn unknown(supervisor: &Supervisor) -> Response<Body> {
    let text = "this component is not registered; register its capabilities first";
    plain(supervisor.unknown_status(), text)
}

/// Returns where results are posted to, at the host by which the component reached us:
/// reference components deliver nothing without a link.
fn own_link(peer: &Peer, headers: &http::HeaderMap) -> Option<String> {
    let host = headers.get(http::header::HOST)?.to_str().ok()?;
    let authority: http::uri::Authority = host.parse().ok()?;
    if authority.as_str().contains('@') {
        return None;
    }
    let (scheme, port) = peer.scheme();
    let port = authority.port_u16().unwrap_or(port);
    Some(format!("{scheme}://{}:{port}{}", authority.host(), path::REGISTER_RESULT))
}

/// Takes receipts, results and exceptions of components.
async fn register_result(
    State(supervisor): State<Arc<Supervisor>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response<Body> {
    if let Err(denied) = permit(&peer.identity, Act::Serve) {
        info!(%denied, "takes no result");
        return plain(StatusCode::FORBIDDEN, &denied.to_string());
    }
    let registries = supervisor.relay.registries_of(&peer.identity);
    let messages = match read_messages(request, registries).await {
        Ok(messages) => messages,
        Err(refused) => return refused.answer(&peer),
    };
    let mut refused = None;
    for message in reports(messages) {
        let kind = message.kind();
        let (reporter, identity) = (Arc::clone(&supervisor), peer.identity.clone());
        let reported = to_its_end(async move {
            reporter.relay.report(&identity, message, Timestamp::now()).await
        });
        match reported.await {
            Some(Ok(())) => {}
            Some(Err(ReportError::Store(error))) => {
                supervisor.relay.failed(&error);
                return unavailable(&error.to_string());
            }
            None => return unavailable(INSIDE),
            Some(Err(error)) => {
                warn!(component = %peer.identity, %kind, reason = %error,
                    "refused a report");
                supervisor.relay.metrics().not_taken(kind.key());
                refused = Some(error.to_string());
            }
        }
    }
    match refused {
        None => plain(StatusCode::OK, ""),
        Some(reason) => plain(StatusCode::FORBIDDEN, &reason),
    }
}

/// What a peer hears when the supervisor fails inside.
pub(crate) const INSIDE: &str = "the supervisor failed inside";

/// Makes an answer to what cannot be done now.
fn unavailable(reason: &str) -> Response<Body> {
    error!(reason, "is unavailable");
    later(plain(StatusCode::SERVICE_UNAVAILABLE, reason))
}

/// Makes an answer of plain text.
pub(crate) fn plain(status: StatusCode, text: &str) -> Response<Body> {
    answer(status, "text/plain", text.as_bytes().to_vec())
}

/// Takes reports out of their envelope. One with a token is itself a report: the results
/// of a repeated measurement.
fn reports(messages: Vec<Message>) -> Vec<Message> {
    messages
        .into_iter()
        .flat_map(|message| match message {
            Message::Envelope(envelope) if envelope.token().is_none() => {
                envelope.into_messages()
            }
            other => vec![other],
        })
        .collect()
}

/// A supervisor as its clients see it.
struct Facing(Arc<Supervisor>);

impl Responder for Facing {
    fn capabilities(&self, peer: &Peer, after: u64) -> Page {
        let (client, features) = (&peer.identity, peer.features);
        self.0.relay.capabilities(client, features, after, Timestamp::now())
    }

    fn capability(&self, peer: &Peer, token: &str) -> Option<Capability> {
        let (client, features) = (&peer.identity, peer.features);
        self.0.relay.capability(client, features, token, Timestamp::now())
    }

    fn respond<'a>(
        &'a self,
        peer: &'a Peer,
        message: Message,
        wait: Duration,
    ) -> Answering<'a> {
        Box::pin(async move {
            let (kind, label) = (message.kind(), message.label().map(ToOwned::to_owned));
            let is_redemption = matches!(message, Message::Redemption(_));
            let reply = self.handle(peer, message).await?;
            info!(client = %peer.identity, %kind, label, specification = reply.about(),
                "received");
            let (Some(id), Some(token), false) =
                (reply.pending, reply.message.token(), wait.is_zero())
            else {
                return Ok(reply.message);
            };
            let has_ended = self.wait_for_end(peer, id, &token, wait).await;
            // Results so far are for who redeems: others would take them for all.
            if has_ended || is_redemption {
                return Ok(self.look_again(peer, &token, reply).await.message);
            }
            Ok(reply.message)
        })
    }

    fn registries(&self) -> &Registries {
        &self.0.registries
    }
}

impl Facing {
    /// Answers a message without waiting.
    async fn handle(&self, peer: &Peer, message: Message) -> Result<Reply, NotNow> {
        let fresh = [fresh_token(), fresh_token()];
        let (supervisor, identity) = (Arc::clone(&self.0), peer.identity.clone());
        let handled = to_its_end(async move {
            supervisor.relay.handle(&identity, message, fresh, Timestamp::now()).await
        });
        let not_now = |reason: String| NotNow { reason };
        let handled = handled.await.ok_or_else(|| not_now(INSIDE.into()))?;
        let reply = handled.map_err(|error| not_now(error.to_string()))?;
        if let Some(withheld) = &reply.withheld {
            warn!(client = %peer.identity, %withheld, "refused by the access rules");
        }
        Ok(reply)
    }

    /// Waits until a specification has ended, as long as its client waits; says whether it has.
    async fn wait_for_end(
        &self,
        peer: &Peer,
        id: Id,
        token: &Token,
        wait: Duration,
    ) -> bool {
        let deadline = tokio::time::Instant::now() + wait;
        let (relay, shutdown) = (&self.0.relay, &self.0.shutdown);
        loop {
            let waiter = relay.wait_for_end(id);
            let news = waiter.news();
            // It may have ended since it was asked. What cannot be told has not.
            let has_ended = relay.store().has_ended(&peer.identity, token).await;
            if has_ended.is_ok_and(|has_ended| has_ended) {
                return true;
            }
            let waited = tokio::select! {
                waited = tokio::time::timeout_at(deadline, news) => waited,
                () = shutdown.cancelled() => return false,
            };
            if waited.is_err() {
                return false;
            }
        }
    }

    /// Returns what there is now to answer a client that waits; the answer so far if that
    /// cannot be told.
    async fn look_again(&self, peer: &Peer, token: &Token, reply: Reply) -> Reply {
        let now = Timestamp::now();
        match self.0.relay.look_again(&peer.identity, token, now).await {
            Ok(reply) => reply,
            Err(error) => {
                warn!(client = %peer.identity, %error, "waits, and cannot be told");
                reply
            }
        }
    }
}
