//! What a component serves to its clients, and a supervisor to its own: one set of routes.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Path, Request, State};
use axum::routing::{get, post};
use http::{HeaderMap, Response, StatusCode, Uri, header};
use mplane::access::{Act, permit};
use mplane::features::Features;
use mplane::json::{self, MEDIA_TYPE};
use mplane::message::{Capability, Envelope, Exception, Message};
use mplane::registry::Registries;
use tracing::{debug, info};

use super::intake::{Intake, IntakeError, Received, WithoutRoom};
use super::{DEFAULT_WAIT, Peer, RETRY_AFTER_S, page, path, preferred_wait};
use crate::at_length;
use crate::tls::fresh_token;

/// Whoever answers clients: a component, or a supervisor on behalf of many. It is asked only
/// for peers whose class permits them to use capabilities.
pub trait Responder: Send + Sync + 'static {
    /// Returns the capabilities that this peer may use and can read: all or, if they are
    /// many, a part of them, which begins after an earlier one. The first is after 0.
    fn capabilities(&self, peer: &Peer, after: u64) -> Page;

    /// Returns the capability that this peer sees under a token.
    fn capability(&self, peer: &Peer, token: &str) -> Option<Capability>;

    /// Answers a message; waits at most so long for a result before it sends a receipt.
    fn respond<'a>(
        &'a self,
        peer: &'a Peer,
        message: Message,
        wait: Duration,
    ) -> Answering<'a>;

    /// Returns the registries that messages are read with.
    fn registries(&self) -> &Registries;
}

/// The answer to a message, which may take a while.
pub type Answering<'a> =
    Pin<Box<dyn Future<Output = Result<Message, NotNow>> + Send + 'a>>;

/// A message that cannot be answered now. It changes nothing to send it again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; try again later")]
pub struct NotNow {
    /// Why.
    pub reason: String,
}

/// A part of the capabilities that somebody offers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// These.
    pub capabilities: Vec<Capability>,
    /// What to ask for to get those that follow, if there are more.
    pub next: Option<u64>,
}

/// Makes the routes that clients use.
pub fn client_routes(responder: Arc<dyn Responder>) -> Router {
    Router::new()
        .route("/", get(index).post(respond))
        .route("/capability", get(index).post(respond))
        .route("/capability/{token}", get(one_capability))
        .route("/capability/after/{after}", get(index_after))
        .route(path::CAPABILITIES, get(all_capabilities).post(respond))
        .route("/capabilities/after/{after}", get(all_capabilities_after))
        .route("/specification", post(respond))
        .fallback(nothing_there)
        .with_state(Guarded(responder))
}

/// A responder behind the one question whether a peer may use capabilities at all.
#[derive(Clone)]
pub(crate) struct Guarded(pub(crate) Arc<dyn Responder>);

impl Guarded {
    /// Returns a part of the capabilities that this peer may use and can read.
    pub(crate) fn capabilities(&self, peer: &Peer, after: u64) -> Page {
        if may_see(peer) { self.0.capabilities(peer, after) } else { Page::default() }
    }

    /// Returns the capability that this peer sees under a token.
    fn capability(&self, peer: &Peer, token: &str) -> Option<Capability> {
        may_see(peer).then(|| self.0.capability(peer, token)).flatten()
    }

    /// Answers a message, an exception if the peer may not use capabilities.
    pub(crate) async fn respond(
        &self,
        peer: &Peer,
        message: Message,
        wait: Duration,
    ) -> Result<Message, NotNow> {
        match permit(&peer.identity, Act::Use) {
            Ok(()) => self.0.respond(peer, message, wait).await,
            Err(denied) => {
                info!(%denied, "refused a message");
                let token = message.token().unwrap_or_else(fresh_token);
                Ok(Exception::new(Some(token), denied.to_string()).into())
            }
        }
    }
}

/// Says whether a peer may see capabilities.
fn may_see(peer: &Peer) -> bool {
    let permitted = permit(&peer.identity, Act::Use);
    if let Err(denied) = &permitted {
        info!(%denied, "shows no capabilities");
    }
    permitted.is_ok()
}

type Answerer = State<Guarded>;

/// Lists capabilities as links.
async fn index(responder: Answerer, peer: Extension<Peer>) -> Response<Body> {
    index_after(responder, peer, Path(0)).await
}

/// Lists capabilities as links, those that follow others.
async fn index_after(
    State(responder): Answerer,
    Extension(peer): Extension<Peer>,
    Path(after): Path<u64>,
) -> Response<Body> {
    let page = page::index(&responder.capabilities(&peer, after));
    answer(StatusCode::OK, "text/html", page.into_bytes())
}

/// Returns one capability.
async fn one_capability(
    State(responder): Answerer,
    Extension(peer): Extension<Peer>,
    Path(token): Path<String>,
) -> Response<Body> {
    if let Some(capability) = responder.capability(&peer, &token) {
        return message_answer(StatusCode::OK, &capability.into(), &peer);
    }
    let exception =
        Exception::new(token.parse().ok(), "there is no such capability for you");
    message_answer(StatusCode::NOT_FOUND, &exception.into(), &peer)
}

/// Returns the capabilities.
async fn all_capabilities(responder: Answerer, peer: Extension<Peer>) -> Response<Body> {
    all_capabilities_after(responder, peer, Path(0)).await
}

/// Returns the capabilities that follow others. If there are more, the answer says where
/// (RFC 8288).
async fn all_capabilities_after(
    State(responder): Answerer,
    Extension(peer): Extension<Peer>,
    Path(after): Path<u64>,
) -> Response<Body> {
    let Page { capabilities, next } = responder.capabilities(&peer, after);
    let envelope = Envelope::of(capabilities.into_iter().map(Into::into).collect())
        .with_content("capability");
    let mut response = message_answer(StatusCode::OK, &envelope.into(), &peer);
    let link = next.map(|next| {
        let path = format!("{}/after/{next}", path::CAPABILITIES);
        header::HeaderValue::try_from(format!("<{path}>; rel=\"next\""))
    });
    if let Some(Ok(link)) = link {
        response.headers_mut().insert(header::LINK, link);
    }
    response
}

/// Answers a message.
async fn respond(
    State(responder): Answerer,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response<Body> {
    let wait = preferred_wait(request.headers());
    let mut messages = match read_messages(request, responder.0.registries()).await {
        Ok(messages) => messages,
        Err(refused) => return refused.answer(&peer),
    };
    let answered = match (messages.pop(), messages.pop()) {
        (Some(message), None) => {
            let wait = wait.unwrap_or_else(|| default_wait(&message));
            responder.respond(&peer, message, wait).await
        }
        _ => Ok(Exception::new(Some(fresh_token()), "send one message").into()),
    };
    match answered {
        Ok(answered) => message_answer(StatusCode::OK, &answered, &peer),
        Err(not_now) => {
            let (status, reason) = (StatusCode::SERVICE_UNAVAILABLE, not_now.to_string());
            Refused { status, reason }.answer(&peer)
        }
    }
}

/// Returns how long a message waits for a result when the client does not say. Reference
/// clients redeem to see what is there, and do nothing else meanwhile.
const fn default_wait(message: &Message) -> Duration {
    match message {
        Message::Redemption(_) => Duration::ZERO,
        _ => DEFAULT_WAIT,
    }
}

/// Answers requests for anything else.
async fn nothing_there(Extension(peer): Extension<Peer>, uri: Uri) -> Response<Body> {
    let reason = format!(
        "there is nothing at {}; capabilities are at {}",
        uri.path(),
        path::CAPABILITIES
    );
    Refused { status: StatusCode::NOT_FOUND, reason }.answer(&peer)
}

/// Reads the messages of a request's body.
pub async fn read_messages(
    request: Request,
    registries: &Registries,
) -> Result<Vec<Message>, Refused> {
    let body = read_body(request).await?;
    at_length(body.len(), || json::decode_all(&body, registries))
        .map_err(Refused::no_message)
}

/// Reads the messages of a request's body, each by itself. It waits for room while others
/// arrive.
///
/// Arrays are read with registries of their own: who sends them calls other elements by the
/// same names.
pub async fn read_parts(
    request: Request,
    registries: &Registries,
    of_arrays: &Registries,
) -> Result<json::Parts, Refused> {
    let body = take_body(request, WithoutRoom::Wait).await?;
    let is_array = body.trim_ascii_start().first() == Some(&b'[');
    let registries = if is_array { of_arrays } else { registries };
    at_length(body.len(), || json::decode_parts(&body, registries))
        .map_err(Refused::no_message)
}

/// Reads a request's body, if it is said to hold messages. It is refused if there is no room
/// while others arrive.
pub async fn read_body(request: Request) -> Result<Received, Refused> {
    take_body(request, WithoutRoom::Refuse).await
}

/// Reads a request's body, if it is said to hold messages.
async fn take_body(
    request: Request,
    without_room: WithoutRoom,
) -> Result<Received, Refused> {
    let media_type = request.headers().get(header::CONTENT_TYPE);
    let essence = media_type
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map_or("", str::trim);
    if !essence.eq_ignore_ascii_case(MEDIA_TYPE) {
        return Err(Refused {
            status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            reason: format!("messages have the content type {MEDIA_TYPE}"),
        });
    }
    let (parts, body) = request.into_parts();
    let intake = parts.extensions.get::<Intake>().cloned().unwrap_or_default();
    intake.take(body, without_room).await.map_err(|error| {
        let status = match error {
            IntakeError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            IntakeError::Pause | IntakeError::TooSlow => StatusCode::REQUEST_TIMEOUT,
            IntakeError::Cut(_) => StatusCode::BAD_REQUEST,
            IntakeError::NoRoom => StatusCode::SERVICE_UNAVAILABLE,
        };
        Refused { status, reason: error.to_string() }
    })
}

/// A request that is not understood.
#[derive(Debug)]
pub struct Refused {
    status: StatusCode,
    reason: String,
}

impl Refused {
    /// Refuses a body that holds no message.
    #[expect(clippy::needless_pass_by_value, reason = "it is used with map_err")]
    fn no_message(error: json::DecodeError) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            reason: format!("this is no mPlane message: {error}"),
        }
    }

    /// Returns the status of the answer to it.
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// Makes the answer to it: an exception.
    pub fn answer(&self, peer: &Peer) -> Response<Body> {
        debug!(peer = %peer.identity, status = self.status.as_u16(), reason = self.reason,
            "refused a request");
        let exception = Exception::new(Some(fresh_token()), self.reason.clone());
        let answer = message_answer(self.status, &exception.into(), peer);
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            later(answer)
        } else {
            answer
        }
    }
}

/// Says in an answer when to ask again (RFC 9110, section 10.2.3).
pub fn later(mut answer: Response<Body>) -> Response<Body> {
    let after = header::HeaderValue::from(RETRY_AFTER_S);
    answer.headers_mut().insert(header::RETRY_AFTER, after);
    answer
}

/// Makes an answer of a message, written as the peer can read it.
pub fn message_answer(
    status: StatusCode,
    message: &Message,
    peer: &Peer,
) -> Response<Body> {
    let bytes = 10 * message.value_count();
    let body = at_length(bytes, || json::encode(message, peer.features.form()));
    answer(status, MEDIA_TYPE, body)
}

/// Makes an answer. Every answer announces what we understand.
pub fn answer(
    status: StatusCode,
    content_type: &'static str,
    body: Vec<u8>,
) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    if let Some(features) = OURS.clone() {
        headers.insert(mplane::features::HEADER, features);
    }
    response
}

/// What we understand, as a header: written once.
static OURS: LazyLock<Option<header::HeaderValue>> =
    LazyLock::new(|| Features::OURS.to_string().parse().ok());
