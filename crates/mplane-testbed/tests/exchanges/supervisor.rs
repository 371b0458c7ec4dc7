//! Components and clients of the reference, recorded, ask a supervisor of ours.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use mplane::access::Policy;
use mplane_runtime::http::path;
use mplane_supervisor::server::{Settings, Supervisor};
use mplane_supervisor::store::{Retention, Room, Store};
use mplane_testbed::vectors;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::essence::Content;
use crate::replay::{Decision, Exchange, NO_BLANK, NO_LINK, Replay, Wait, each};

/// Makes a supervisor with a store in a folder.
pub(crate) async fn supervisor(folder: &tempfile::TempDir) -> Arc<Supervisor> {
    let settings = Settings {
        expiry: SignedDuration::from_hours(1),
        hand_outs: Vec::new(),
        retention: Retention {
            results: Duration::from_secs(3_600),
            stories: Duration::from_secs(3_600),
            client_bytes: u64::MAX,
            component_bytes: u64::MAX,
        },
        room: Room { queue: 100, client: 1_000 },
        is_428: false,
    };
    let store = Store::open(folder.path()).expect("a store");
    let (registries, policy) = (vectors::registries(), Policy::default());
    let shutdown = CancellationToken::new();
    Supervisor::new(store, registries, policy, settings, shutdown)
        .await
        .expect("a supervisor")
}

/// Says whether this is the request of a component for specifications.
fn is_fetch(exchange: &Exchange) -> bool {
    exchange.what() == format!("GET {}", path::SHOW_SPECIFICATION)
}

/// What a delivery is answered.
const PLAIN: Decision = Decision {
    why: "an answer without content has another type, which nobody reads",
    apply: |_, recorded| {
        let is_empty = matches!(recorded.content, Content::Nothing);
        if is_empty {
            recorded.content_type = "text/plain".into();
        }
        is_empty
    },
};

/// Where components deliver.
const RESULT_LINK: Decision = Decision {
    why: "a specification says to which path its result is posted, section 7",
    apply: |exchange, recorded| {
        each(recorded, |message| {
            let link = message.get_mut("link").filter(|_| is_fetch(exchange));
            let Some(link) = link else { return false };
            let base = link.as_str().expect("a link is text").trim_end_matches('/');
            *link = format!("{base}{}", path::REGISTER_RESULT).into();
            true
        })
    },
};

/// When components come again.
const CALLBACK: Decision = Decision {
    why: "the last specification of each answer says when to come again, section 7",
    apply: |exchange, recorded| {
        let Content::Json(json) = &mut recorded.content else { return false };
        let contents = json.get_mut("contents").and_then(Value::as_array_mut);
        let Some(contents) = contents else { return false };
        let is_fetched = is_fetch(exchange) && exchange.is_of_component();
        if is_fetched {
            contents.push(json!({
                "label": "callback",
                "registry": "http://ict-mplane.eu/registry/core",
                "specification": "measure",
                "token": "…",
                "version": 1,
                "when": "…",
            }));
        }
        is_fetched
    },
};

/// Replays what components, clients and a supervisor said.
async fn replay(record: &'static str, decisions: &'static [Decision]) -> Replay {
    let folder = tempfile::tempdir().expect("a folder");
    let router = supervisor(&folder).await.router();
    let mut replay = Replay::new(record, router, decisions);
    for exchange in &Exchange::load(record) {
        if record == "component-client" && is_fetch(exchange) {
            // The supervisor was the client itself: what it asked for is asked by one now.
            for mut message in exchange.handed() {
                let fields = message.as_object_mut().expect("a message");
                fields.remove("link");
                let answer = replay.post(&message, Wait::Not).await;
                let answer: Value = serde_json::from_str(&answer.body).expect("JSON");
                assert!(!answer["receipt"].is_null(), "{message}: {answer}");
            }
        }
        replay.exchange(exchange).await;
    }
    replay
}

#[tokio::test(start_paused = true)]
async fn a_recorded_component_is_answered_by_a_supervisor_as_by_a_client() {
    let decisions = &[NO_BLANK, PLAIN, RESULT_LINK, CALLBACK];
    replay("component-client", decisions).await.finish();
}

#[tokio::test(start_paused = true)]
async fn a_recorded_component_and_client_are_answered_by_a_supervisor_as_recorded() {
    let decisions = &[NO_LINK, NO_BLANK, PLAIN, RESULT_LINK, CALLBACK];
    replay("supervisor", decisions).await.finish();
}

#[tokio::test(start_paused = true)]
async fn recorded_peers_with_certificates_are_answered_by_a_supervisor_as_recorded() {
    let decisions = &[NO_LINK, PLAIN, RESULT_LINK, CALLBACK];
    replay("supervisor-tls", decisions).await.finish();
}
