//! What the supervisor tells about itself as JSON: who is there, what is on its way, and the
//! story of each specification.
//!
//! A client is told of its own specifications, and of the components whose capabilities it
//! may use. Who can read the files of the store is told all by `mplane why` and the like.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Path, Query, State};
use axum::routing::get;
use http::{Response, StatusCode};
use jiff::Timestamp;
use mplane::access::{Act, Identity, permit};
use mplane::message::Capability;
use mplane_runtime::http::Peer;
use mplane_runtime::http::routes::answer;
use serde::{Deserialize, Serialize};

use crate::directory::{Component, Directory, May};
use crate::relay::Relay;
use crate::server::Supervisor;
use crate::store::{Filter, Offered, PAGE, Saved, StoreError, shown};

/// The content type of what is told.
const JSON: &str = "application/json";

/// Components on one page at most.
const COMPONENTS: usize = 1_000;

/// The description of the routes, as an `OpenAPI` document.
pub(crate) const DESCRIPTION: &str = include_str!("../../../docs/openapi.json");

/// Makes the routes.
pub(crate) fn tell_routes(supervisor: Arc<Supervisor>) -> Router {
    Router::new()
        .route("/components", get(components))
        .route("/components/{identity}", get(component))
        .route("/measurements", get(measurements))
        .route("/measurements/{token}", get(stories))
        .route("/openapi.json", get(describe))
        .with_state(supervisor)
}

/// One line of the list of components.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ComponentLine {
    /// Who it is.
    pub identity: String,
    /// `connected`, `silent` or `gone`.
    pub presence: String,
    /// Labels, or tokens, of what it offers.
    pub capabilities: Vec<String>,
    /// `envelope` or `array`.
    pub dialect: String,
    /// What it reads beyond the reference.
    pub features: String,
    /// Where it came from when it last registered, or where it is called.
    pub address: Option<String>,
    /// Which program it says it is.
    pub version: Option<String>,
    /// How far its clock was ahead of the supervisor's when it last registered, in whole
    /// seconds.
    pub clock_ahead_s: Option<i64>,
    /// When it was first heard of, UTC.
    pub first_seen: String,
    /// When it was last heard of, UTC.
    pub last_seen: String,
}

impl ComponentLine {
    /// Makes the line of a component that is registered, with what a client may use of it.
    fn of(identity: &Identity, known: &Component, presence: &str, may: &May<'_>) -> Self {
        let name = |capability: &Capability| {
            let token = || capability.token().to_string();
            capability.label().map_or_else(token, ToOwned::to_owned)
        };
        let offered = known.offered().filter(|it| may(identity, it));
        Self {
            identity: identity.to_string(),
            presence: presence.to_owned(),
            capabilities: offered.map(name).collect(),
            dialect: known.dialect.word().to_owned(),
            features: known.features.to_string(),
            address: known.about.address.clone(),
            version: known.about.version.clone(),
            clock_ahead_s: known.about.clock_ahead_s,
            first_seen: shown(known.first_seen),
            last_seen: shown(known.last_seen),
        }
    }

    /// Makes the line of a component as it was written down.
    pub fn of_saved(saved: &Saved, presence: &str) -> Self {
        let name = |text: &String| {
            let capability: serde_json::Value = serde_json::from_str(text).ok()?;
            let name = capability.get("label").or_else(|| capability.get("token"));
            name.and_then(|name| name.as_str()).map(ToOwned::to_owned)
        };
        Self {
            identity: saved.identity.to_string(),
            presence: presence.to_owned(),
            capabilities: saved.capabilities.iter().filter_map(name).collect(),
            dialect: saved.dialect.word().to_owned(),
            features: saved.features.to_string(),
            address: saved.about.address.clone(),
            version: saved.about.version.clone(),
            clock_ahead_s: saved.about.clock_ahead_s,
            first_seen: shown(saved.first_seen),
            last_seen: shown(saved.last_seen),
        }
    }
}

/// A component, and what it offers and has offered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ComponentStory {
    /// The component.
    pub component: ComponentLine,
    /// What it offers and has offered, the latest first.
    pub history: Vec<Offered>,
}

/// A page of a list of components.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ComponentPage {
    /// The components, by identity.
    pub components: Vec<ComponentLine>,
    /// What to ask for next: those after this one; `None` at the end.
    pub after: Option<String>,
}

/// What is asked of the list of components.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ComponentQuery {
    /// Part of the identity.
    identity: Option<String>,
    presence: Option<String>,
    after: Option<String>,
}

/// What is asked of the list of measurements.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MeasurementQuery {
    label: Option<String>,
    /// Part of the identity of who does it.
    component: Option<String>,
    state: Option<String>,
    /// Whether something is kept of what came.
    #[serde(default)]
    kept: bool,
    before: Option<u64>,
    limit: Option<u32>,
}

/// Tells the components whose capabilities a client may use.
async fn components(
    State(supervisor): State<Arc<Supervisor>>,
    Extension(peer): Extension<Peer>,
    Query(query): Query<ComponentQuery>,
) -> Response<Body> {
    if let Err(denied) = permit(&peer.identity, Act::Use) {
        return refused(StatusCode::FORBIDDEN, &denied.to_string());
    }
    let now = Timestamp::now();
    let page = list_components(supervisor.relay(), &peer.identity, &query, now);
    told(&page)
}

/// Lists components.
fn list_components(
    relay: &Relay,
    client: &Identity,
    query: &ComponentQuery,
    now: Timestamp,
) -> ComponentPage {
    let expiry = relay.look(Directory::expiry);
    let after = query.after.as_deref().unwrap_or_default();
    let (components, is_more) =
        relay.look_over(client, after, COMPONENTS, |identity, known, may| {
            let presence = known.presence(expiry, now).word();
            let is_asked_for = query.presence.as_ref().is_none_or(|it| presence == *it)
                && query
                    .identity
                    .as_ref()
                    .is_none_or(|part| identity.to_string().contains(part));
            is_asked_for.then(|| ComponentLine::of(identity, known, presence, may))
        });
    let last = components.last().filter(|_| is_more);
    let after = last.map(|last| last.identity.clone());
    ComponentPage { components, after }
}

/// Tells a client of one component, with what it offers and has offered of that which the
/// client may use.
async fn component(
    State(supervisor): State<Arc<Supervisor>>,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
) -> Response<Body> {
    if let Err(denied) = permit(&peer.identity, Act::Use) {
        return refused(StatusCode::FORBIDDEN, &denied.to_string());
    }
    let (relay, now) = (supervisor.relay(), Timestamp::now());
    let line = relay.component_named(&peer.identity, &name).and_then(|identity| {
        let line = relay.look_at(&peer.identity, &identity, |known, expiry, may| {
            let presence = known.presence(expiry, now).word();
            ComponentLine::of(&identity, known, presence, may)
        });
        Some((identity, line?))
    });
    let Some((identity, component)) = line else {
        let text = "no component of which you may use something has this identity";
        return refused(StatusCode::NOT_FOUND, text);
    };
    match relay.store().history(&identity).await {
        Ok(mut history) => {
            history.retain(|offered| relay.may_use(&peer.identity, &identity, offered));
            told(&ComponentStory { component, history })
        }
        Err(error) => failed(&error),
    }
}

/// Tells a client its measurements, the latest first.
async fn measurements(
    State(supervisor): State<Arc<Supervisor>>,
    Extension(peer): Extension<Peer>,
    Query(query): Query<MeasurementQuery>,
) -> Response<Body> {
    if let Err(denied) = permit(&peer.identity, Act::Use) {
        return refused(StatusCode::FORBIDDEN, &denied.to_string());
    }
    let filter = Filter {
        client: Some(peer.identity),
        client_part: None,
        component_part: query.component,
        label: query.label,
        state: query.state,
        is_kept: query.kept,
    };
    let store = supervisor.relay().store();
    let limit = query.limit.unwrap_or(100).clamp(1, PAGE);
    match store.measurements(filter, query.before, limit).await {
        Ok(page) => told(&page),
        Err(error) => failed(&error),
    }
}

/// Tells a client the story of its specifications with a token or label.
async fn stories(
    State(supervisor): State<Arc<Supervisor>>,
    Extension(peer): Extension<Peer>,
    Path(token): Path<String>,
) -> Response<Body> {
    if let Err(denied) = permit(&peer.identity, Act::Use) {
        return refused(StatusCode::FORBIDDEN, &denied.to_string());
    }
    let store = supervisor.relay().store();
    match store.stories(token, Some(peer.identity)).await {
        Ok(stories) if stories.is_empty() => {
            let text = "no specification of yours has this token or label, or what is \
                        known of it is not kept any more";
            refused(StatusCode::NOT_FOUND, text)
        }
        Ok(stories) => told(&stories),
        Err(error) => failed(&error),
    }
}

/// Tells a client what can be asked for.
async fn describe(Extension(peer): Extension<Peer>) -> Response<Body> {
    match permit(&peer.identity, Act::Use) {
        Ok(()) => answer(StatusCode::OK, JSON, DESCRIPTION.into()),
        Err(denied) => refused(StatusCode::FORBIDDEN, &denied.to_string()),
    }
}

/// Answers with JSON.
fn told(what: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec_pretty(what) {
        Ok(json) => answer(StatusCode::OK, JSON, json),
        Err(error) => refused(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// Answers that the store does not work.
fn failed(error: &StoreError) -> Response<Body> {
    refused(StatusCode::SERVICE_UNAVAILABLE, &error.to_string())
}

/// Answers with a reason.
fn refused(status: StatusCode, reason: &str) -> Response<Body> {
    let text = serde_json::json!({ "error": reason }).to_string();
    answer(status, JSON, text.into_bytes())
}
