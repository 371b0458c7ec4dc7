//! What clients of the client-supervisor-probe system ask for: the same things at other
//! paths, in other words.
//!
//! Source: protocol notes, section 7; recorded exchanges with its supervisor.
//!
//! *Differences*: a result may be redeemed more than once; a specification that is sent
//! twice is answered with its state; whoever may not use a capability can neither list it
//! nor run it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::routing::{get, post};
use http::{Response, StatusCode};
use jiff::Timestamp;
use mplane::access::{Act, permit};
use mplane::exchange::component::without_serial;
use mplane::json::{self, MEDIA_TYPE};
use mplane::message::{Capability, Message, Specification};
use mplane_runtime::http::Peer;
use mplane_runtime::http::routes::{Refused, answer, message_answer, read_body};
use mplane_runtime::tls::fresh_token;
use serde_json::value::RawValue;
use tracing::warn;

use crate::life::State as LifeState;
use crate::metrics::RefusedReason;
use crate::server::{INSIDE, Supervisor, plain, to_its_end};
use crate::store::Told;

/// Capabilities shown at once.
const MOST: usize = 10_000;

/// The answer to who is no client.
const CLIENTS_ONLY: &str = "Not Authorized. Only Clients can use this function";

/// The answer to what cannot be understood.
const INVALID: &str = "Invalid format";

/// Makes the routes.
pub(crate) fn ri_routes(supervisor: Arc<Supervisor>) -> Router {
    Router::new()
        .route("/show/capability", get(show_capability))
        .route("/register/specification", post(register_specification))
        .route("/show/result", post(show_result))
        .with_state(supervisor)
}

/// Answers a request whose body was not taken in.
fn not_taken(refused: &Refused, peer: &Peer) -> Response<Body> {
    if refused.status() == StatusCode::SERVICE_UNAVAILABLE {
        return refused.answer(peer);
    }
    plain(StatusCode::BAD_REQUEST, INVALID)
}

/// Shows capabilities by the identity of their component.
async fn show_capability(
    State(supervisor): State<Arc<Supervisor>>,
    Extension(peer): Extension<Peer>,
) -> Response<Body> {
    if permit(&peer.identity, Act::Use).is_err() {
        return plain(StatusCode::UNAUTHORIZED, CLIENTS_ONLY);
    }
    let relay = supervisor.relay();
    let offers = relay.offers_by_component(&peer.identity, MOST + 1, Timestamp::now());
    if offers.len() > MOST {
        // Nothing is cut in silence, and who asks here knows no pages.
        let text = format!(
            "more than {MOST} capabilities are offered here; GET /capabilities shows them \
             page by page"
        );
        return plain(StatusCode::SERVICE_UNAVAILABLE, &text);
    }
    let mut shown: BTreeMap<String, Vec<Message>> = BTreeMap::new();
    for (component, capability) in offers {
        // Who asks here has the elements of who writes arrays.
        let is_of_ri = relay.is_of_ri(&component);
        if is_of_ri || peer.features.can_read(&capability) {
            let capability = Capability::clone(&capability);
            shown.entry(component.to_string()).or_default().push(capability.into());
        }
    }
    let form = peer.features.form();
    let written: BTreeMap<String, Box<RawValue>> = shown
        .into_iter()
        .filter_map(|(component, capabilities)| {
            let text = String::from_utf8(json::encode_array(&capabilities, form)).ok()?;
            Some((component, RawValue::from_string(text).ok()?))
        })
        .collect();
    match serde_json::to_vec(&written) {
        Ok(body) => answer(StatusCode::OK, MEDIA_TYPE, body),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// Takes a specification for a component: an object of one entry, with the identity of the
/// component as key.
async fn register_specification(
    State(supervisor): State<Arc<Supervisor>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response<Body> {
    if permit(&peer.identity, Act::Use).is_err() {
        return plain(StatusCode::UNAUTHORIZED, CLIENTS_ONLY);
    }
    let body = match read_body(request).await {
        Ok(body) => body,
        Err(refused) => return not_taken(&refused, &peer),
    };
    let read: Result<BTreeMap<String, Box<RawValue>>, _> = serde_json::from_slice(&body);
    let Some((component, text)) = read.ok().and_then(|mut read| {
        let first = read.pop_first()?;
        read.is_empty().then_some(first)
    }) else {
        return plain(StatusCode::BAD_REQUEST, INVALID);
    };
    let relay = supervisor.relay();
    let Some(known) = relay.component_named(&peer.identity, &component) else {
        // Whichever registry it is of: that it was refused is on record.
        let read = json::decode(text.get().as_bytes(), relay.ri())
            .or_else(|_| json::decode(text.get().as_bytes(), relay.registries()));
        if let Ok(Message::Specification(asked)) = read {
            let reason = format!("there is no component {component} for it");
            note_refused(&supervisor, &peer, &asked, reason).await;
        }
        return plain(
            StatusCode::SERVICE_UNAVAILABLE,
            "Specification is unavailable. The component for the requested measure was not \
             found",
        );
    };
    let registries = relay.registries_of(&known);
    let read = json::decode(text.get().as_bytes(), registries);
    let Ok(Message::Specification(specification)) = read else {
        return plain(StatusCode::BAD_REQUEST, INVALID);
    };
    // The label says which capability is meant, and nothing else does.
    let label = without_serial(specification.label().unwrap_or_default());
    if !relay.is_offered(&peer.identity, &known, label) {
        let reason = format!("component {component} does not offer {label}");
        note_refused(&supervisor, &peer, &specification, reason).await;
        return plain(StatusCode::FORBIDDEN, "This measure doesn't exist");
    }
    let (asker, identity) = (Arc::clone(&supervisor), peer.identity.clone());
    let fresh = [fresh_token(), fresh_token()];
    let handled = to_its_end(async move {
        let now = Timestamp::now();
        asker.relay().handle_for(&identity, specification, &component, fresh, now).await
    });
    match handled.await {
        None => plain(StatusCode::SERVICE_UNAVAILABLE, INSIDE),
        Some(Err(error)) => plain(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
        Some(Ok(reply)) => match reply.message {
            Message::Exception(exception) if reply.pending.is_none() => {
                plain(StatusCode::FORBIDDEN, exception.message())
            }
            Message::Receipt(mut receipt) => {
                receipt.set_label(None);
                message_answer(StatusCode::OK, &receipt.into(), &peer)
            }
            other => message_answer(StatusCode::OK, &other, &peer),
        },
    }
}

/// Writes down that a specification was refused.
async fn note_refused(
    supervisor: &Supervisor,
    peer: &Peer,
    asked: &Specification,
    reason: String,
) {
    let (client, why) = (&peer.identity, RefusedReason::capability);
    let (relay, now) = (supervisor.relay(), Timestamp::now());
    if let Err(error) = relay.note_refused(client, asked, reason, why, now).await {
        warn!(%client, %error, "a refusal is not on record");
    }
}

/// Answers a redemption: with the result, or with a receipt, or with the specification while
/// that waits for its component.
async fn show_result(
    State(supervisor): State<Arc<Supervisor>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response<Body> {
    if permit(&peer.identity, Act::Use).is_err() {
        return plain(StatusCode::UNAUTHORIZED, CLIENTS_ONLY);
    }
    let body = match read_body(request).await {
        Ok(body) => body,
        Err(refused) => return not_taken(&refused, &peer),
    };
    // It may have the elements of either dialect; only its token counts.
    let relay = supervisor.relay();
    let read = json::decode(&body, relay.registries())
        .or_else(|_| json::decode(&body, relay.ri()));
    let Ok(Message::Redemption(redemption)) = read else {
        return plain(StatusCode::BAD_REQUEST, INVALID);
    };
    let token = redemption.token().clone();
    match relay.store().told(&peer.identity, &token).await {
        Err(error) => {
            return plain(StatusCode::SERVICE_UNAVAILABLE, &error.to_string());
        }
        Ok(None) => return plain(StatusCode::FORBIDDEN, "Unexpected Redemption"),
        Ok(Some(Told::Pending(known, _)))
            if known.life.state == LifeState::Queued
                && relay.permit_known(&peer.identity, &known).is_ok() =>
        {
            let registries = relay.registries_of(&known.component);
            let asked = known.asked.unwrap_or_default();
            if let Ok(specification) = json::decode(asked.as_bytes(), registries) {
                return message_answer(StatusCode::OK, &specification, &peer);
            }
        }
        Ok(Some(_)) => {}
    }
    let (asker, identity) = (Arc::clone(&supervisor), peer.identity.clone());
    let handled = to_its_end(async move {
        let fresh = [fresh_token(), fresh_token()];
        let now = Timestamp::now();
        asker.relay().handle(&identity, redemption.into(), fresh, now).await
    });
    match handled.await {
        None => plain(StatusCode::SERVICE_UNAVAILABLE, INSIDE),
        Some(Err(error)) => plain(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
        Some(Ok(reply)) => match reply.message {
            Message::Receipt(mut receipt) => {
                receipt.set_label(None);
                message_answer(StatusCode::OK, &receipt.into(), &peer)
            }
            other => message_answer(StatusCode::OK, &other, &peer),
        },
    }
}
