//! The supervisor over HTTP, mostly with TLS: one port for components and clients.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::routing::{get, post};
use http::header::HeaderValue;
use http::{Response, StatusCode};
use jiff::Timestamp;
use mplane::access::{Act, Policy, permit};
use mplane::json::{self, MEDIA_TYPE, Unreadable};
use mplane::message::{Capability, Envelope, Message, Redemption};
use mplane::registry::Registries;
use mplane_runtime::http::routes::{
    Responder, answer, client_routes, read_messages, read_parts,
};
use mplane_runtime::http::{Peer, path, preferred_wait};
use mplane_runtime::tls::fresh_token;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::directory::Dialect;
use crate::relay::{Relay, Reply};

/// A supervisor that serves components and clients.
pub struct Supervisor {
    registries: Registries,
    relay: Mutex<Relay>,
    /// The relay's news, for who waits.
    news: watch::Sender<u64>,
    shutdown: CancellationToken,
}

impl Supervisor {
    /// Makes a supervisor, which peers may use as far as the policy permits. It works until
    /// `shutdown`.
    pub fn new(
        registries: Registries,
        policy: Policy,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        let mut relay = Relay::default();
        relay.set_policy(policy);
        let supervisor = Arc::new(Self {
            registries,
            relay: Mutex::new(relay),
            news: watch::Sender::new(0),
            shutdown,
        });
        tokio::spawn(keep_time(Arc::clone(&supervisor)));
        supervisor
    }

    /// Returns its routes: those that components use and those that clients use.
    pub fn router(self: &Arc<Self>) -> Router {
        let clients: Arc<dyn Responder> = Arc::new(Facing(Arc::clone(self)));
        Router::new()
            .route(path::REGISTER_CAPABILITY, post(register_capability))
            .route(path::SHOW_SPECIFICATION, get(show_specification))
            .route(path::REGISTER_RESULT, post(register_result))
            .with_state(Arc::clone(self))
            .merge(client_routes(clients))
    }

    /// Sets who may offer and use which capability from now on.
    pub fn set_policy(&self, policy: Policy) {
        self.relay().set_policy(policy);
    }

    /// Changes the relay, and tells who waits if there is news.
    fn change<T>(&self, change: impl FnOnce(&mut Relay) -> T) -> T {
        let mut relay = self.relay();
        let changed = change(&mut relay);
        let news = relay.news();
        drop(relay);
        self.news.send_if_modified(|known| std::mem::replace(known, news) != news);
        changed
    }

    /// Locks the relay. A panic elsewhere leaves it whole: every change is one call.
    fn relay(&self) -> MutexGuard<'_, Relay> {
        self.relay.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives up specifications whose time is over.
async fn keep_time(supervisor: Arc<Supervisor>) {
    let mut news = supervisor.news.subscribe();
    loop {
        let deadline = supervisor.relay().poll_timeout();
        let sleep = async {
            match deadline {
                Some(deadline) => {
                    let wait = deadline.duration_since(Timestamp::now());
                    tokio::time::sleep(wait.try_into().unwrap_or_default()).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep => supervisor.change(|relay| relay.handle_timeout(Timestamp::now())),
            changed = news.changed() => if changed.is_err() { return },
            () = supervisor.shutdown.cancelled() => return,
        }
    }
}

/// Takes capabilities of components. The answer is always 200: references give up on any
/// other.
async fn register_capability(
    State(supervisor): State<Arc<Supervisor>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response<Body> {
    let parts = match read_parts(request, &supervisor.registries).await {
        Ok(parts) => parts,
        Err(refused) => return refused.answer(&peer),
    };
    let dialect = if parts.is_array { Dialect::Array } else { Dialect::Envelope };
    let permitted = permit(&peer.identity, Act::Serve);
    let mut outcome = serde_json::Map::new();
    for (index, message) in parts.messages.into_iter().enumerate() {
        let (name, registered) = match message {
            Err(Unreadable { label, error }) => {
                (label.unwrap_or_else(|| index.to_string()), Err(error.to_string()))
            }
            Ok(message) => {
                let name = message.label().map_or_else(
                    || message.token().map_or_else(String::new, |t| t.to_string()),
                    ToOwned::to_owned,
                );
                let now = Timestamp::now();
                let registered = match &permitted {
                    Err(denied) => Err(denied.to_string()),
                    Ok(()) => supervisor
                        .change(|relay| {
                            let (from, features) = (&peer.identity, peer.features);
                            relay.register(from, message, features, dialect, now)
                        })
                        .map_err(|error| error.to_string()),
                };
                (name, registered)
            }
        };
        let word = match registered {
            Ok(()) => {
                info!(component = %peer.identity, capability = name, "registered");
                json!({"registered": "ok"})
            }
            Err(reason) => {
                warn!(component = %peer.identity, capability = name, reason,
                    "refused a capability");
                json!({"registered": "no", "reason": reason})
            }
        };
        outcome.insert(name, word);
    }
    let body = serde_json::Value::Object(outcome).to_string().into_bytes();
    answer(StatusCode::OK, MEDIA_TYPE, body)
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
    let mut news = supervisor.news.subscribe();
    let (mut messages, dialect) = loop {
        let now = Timestamp::now();
        let fetched = supervisor.change(|relay| {
            let dialect = relay.directory().component(&peer.identity)?.dialect;
            Some((relay.fetch(&peer.identity, now)?, dialect))
        });
        let Some((messages, dialect)) = fetched else {
            return plain(
                StatusCode::NOT_FOUND,
                "this component is not registered; register its capabilities first",
            );
        };
        if !messages.is_empty() {
            break (messages, dialect);
        }
        tokio::select! {
            waited = tokio::time::timeout_at(deadline, news.changed()) => {
                if !matches!(waited, Ok(Ok(()))) {
                    break (messages, dialect);
                }
            }
            () = supervisor.shutdown.cancelled() => break (messages, dialect),
        }
    };
    let link = own_link(&peer, request.headers());
    for message in &mut messages {
        if let Message::Specification(specification) = message {
            specification.set_link(link.clone());
        }
        info!(
            component = %peer.identity,
            kind = %message.kind(),
            label = message.label(),
            "handed out"
        );
    }
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
    let messages = match read_messages(request, &supervisor.registries).await {
        Ok(messages) => messages,
        Err(refused) => return refused.answer(&peer),
    };
    let mut refused = None;
    for message in reports(messages) {
        let kind = message.kind();
        let now = Timestamp::now();
        match supervisor.change(|relay| relay.report(&peer.identity, message, now)) {
            Ok(()) => info!(component = %peer.identity, %kind, "reported"),
            Err(error) => {
                warn!(component = %peer.identity, %kind, reason = %error,
                    "refused a report");
                refused = Some(error.to_string());
            }
        }
    }
    match refused {
        None => plain(StatusCode::OK, ""),
        Some(reason) => plain(StatusCode::FORBIDDEN, &reason),
    }
}

/// Makes an answer of plain text.
fn plain(status: StatusCode, text: &str) -> Response<Body> {
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
    fn capabilities(&self, peer: &Peer) -> Vec<Capability> {
        self.0.relay().capabilities(&peer.identity, peer.features)
    }

    fn respond<'a>(
        &'a self,
        peer: &'a Peer,
        message: Message,
        wait: Duration,
    ) -> Pin<Box<dyn Future<Output = Message> + Send + 'a>> {
        Box::pin(async move {
            info!(client = %peer.identity, kind = %message.kind(), label = message.label(),
                "received");
            let mut news = self.0.news.subscribe();
            let mut reply = self.handle(peer, message);
            let deadline = tokio::time::Instant::now() + wait;
            while reply.pending
                && !wait.is_zero()
                && let Some(token) = reply.message.token()
            {
                tokio::select! {
                    waited = tokio::time::timeout_at(deadline, news.changed()) => {
                        if !matches!(waited, Ok(Ok(()))) {
                            break;
                        }
                    }
                    () = self.0.shutdown.cancelled() => break,
                }
                reply =
                    self.handle(peer, Redemption::token_only("measure", token).into());
            }
            reply.message
        })
    }

    fn registries(&self) -> &Registries {
        &self.0.registries
    }
}

impl Facing {
    /// Answers a message without waiting.
    fn handle(&self, peer: &Peer, message: Message) -> Reply {
        let fresh = [fresh_token(), fresh_token()];
        let now = Timestamp::now();
        let reply =
            self.0.change(|relay| relay.handle(&peer.identity, message, fresh, now));
        if let Some(withheld) = &reply.withheld {
            warn!(client = %peer.identity, %withheld, "refused by the access rules");
        }
        reply
    }
}
