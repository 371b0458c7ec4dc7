//! The client-supervisor-probe system as peer: what its supervisor was recorded to answer,
//! asked again of ours. What ours answers otherwise stands with the reason in the record.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, header};
use http_body_util::BodyExt;
use jiff::SignedDuration;
use mplane::access::{Identity, Policy};
use mplane::features::Features;
use mplane::registry::Registries;
use mplane_runtime::http::Peer;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

use crate::server::{Settings, Supervisor};
use crate::store::{Retention, Room, Store};

const RECORD: &str = include_str!("../vectors/client-supervisor-probe.json");

/// Makes a supervisor with a store of its own.
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
        is_428: true,
    };
    let store = Store::open(folder.path()).unwrap();
    let (registries, policy) = (Registries::embedded(), Policy::default());
    let shutdown = CancellationToken::new();
    Supervisor::new(store, registries, policy, settings, shutdown).await.unwrap()
}

/// Who asks, by the organizational unit of the record.
pub(crate) fn peer(unit: &str) -> Peer {
    let name = if unit == "Components" { "Component-1" } else { "Client-1" };
    let names = ["org", "mplane", "Test", unit, name].map(Into::into);
    let identity = Identity::new(names, Some(unit));
    Peer { identity, features: Features::NONE }
}

/// Returns the text at a key.
fn text<'a>(exchange: &'a Value, key: &str) -> &'a str {
    exchange[key].as_str().unwrap_or_default()
}

#[tokio::test]
async fn the_recorded_exchanges_of_the_client_supervisor_probe_system() {
    let folder = tempfile::tempdir().unwrap();
    let mut router = supervisor(&folder).await.router();
    let record: Value = serde_json::from_str(RECORD).unwrap();
    let mut handed: Option<(String, String)> = None;
    for (index, exchange) in record["exchanges"].as_array().unwrap().iter().enumerate() {
        let why = text(exchange, "why");
        if why.starts_with("not replayed") {
            continue;
        }
        let mut body = text(exchange, "body").to_owned();
        if let Some((label, token)) = &handed
            && text(exchange, "who") == "Components"
        {
            // What it was handed has names of its own here.
            body =
                body.replace("TOK1", token).replace("\"pinger\"", &format!("{label:?}"));
        }
        let mut request = Request::builder()
            .method(text(exchange, "method"))
            .uri(text(exchange, "path"))
            .extension(peer(text(exchange, "who")));
        if let Some(content_type) = exchange["content_type"].as_str() {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let response =
            router.call(request.body(Body::from(body)).unwrap()).await.unwrap();
        let status = u64::from(response.status().as_u16());
        let answer = response.into_body().collect().await.unwrap().to_bytes();
        let answer = String::from_utf8(answer.to_vec()).unwrap();
        let expected = exchange["ours"].as_u64().or_else(|| exchange["status"].as_u64());
        assert_eq!(Some(status), expected, "{index} {exchange:#}\n{answer}");
        if text(exchange, "path") == "/show/specification" && answer.contains("token") {
            let fetched: Value = serde_json::from_str(&answer).unwrap();
            let [specification] = fetched.as_array().unwrap().as_slice() else {
                panic!("one: {answer}")
            };
            let own = |key: &str| specification[key].as_str().unwrap().to_owned();
            handed = Some((own("label"), own("token")));
        }
        if !why.is_empty() || status == 405 {
            continue;
        }
        let recorded = text(exchange, "answer");
        match (serde_json::from_str::<Value>(recorded), serde_json::from_str(&answer)) {
            (Ok(recorded), Ok(answer)) => {
                let answer: Value = answer;
                assert_eq!(answer, recorded, "{index}");
            }
            _ if index == 0 => assert!(answer.contains("register"), "{answer}"),
            _ => assert_eq!(answer, recorded, "{index}"),
        }
    }
    assert!(handed.is_some());
}

/// Returns a response of a router: status and body.
async fn ask(
    router: &mut axum::Router,
    who: Peer,
    exchange: &Value,
    body: Vec<u8>,
) -> (u16, String) {
    let path = text(exchange, "path");
    let path = if path.len() > 1 { path.trim_end_matches('/') } else { path };
    let mut request =
        Request::builder().method(text(exchange, "method")).uri(path).extension(who);
    if let Some(content_type) = exchange["content_type"].as_str() {
        request = request.header(header::CONTENT_TYPE, content_type);
    }
    let request = request.header("prefer", "wait=0").body(Body::from(body)).unwrap();
    let response = router.call(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

/// Requests that have made programs of the reference fail.
const HOSTILE: &str = include_str!("../vectors/hostile.json");

#[tokio::test]
async fn hostile_requests_are_answered_with_a_reason_while_service_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut router = supervisor(&folder).await.router();
    let record: Value = serde_json::from_str(HOSTILE).unwrap();
    let requests = record["requests"].as_array().unwrap();
    assert!(requests.len() > 90, "{}", requests.len());
    for (index, exchange) in requests.iter().enumerate() {
        let body = exchange["hex"].as_str().map_or_else(
            || text(exchange, "body").as_bytes().to_vec(),
            |hex| {
                let digits: Vec<_> = hex.chars().collect();
                let byte = |pair: &[char]| {
                    u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()
                };
                digits.chunks(2).map(byte).collect()
            },
        );
        for unit in ["Components", "Clients"] {
            let (status, answer) =
                ask(&mut router, peer(unit), exchange, body.clone()).await;
            let name = text(exchange, "name");
            assert!(status < 500, "{index} {name} as one of {unit}: {status} {answer}");
            if (400..500).contains(&status) && status != 405 {
                assert!(!answer.is_empty(), "{index} {name} as one of {unit}: no reason");
            }
            let still = serde_json::json!({"method": "GET", "path": "/capabilities"});
            let (status, _) = ask(&mut router, peer("Clients"), &still, Vec::new()).await;
            assert_eq!(status, 200, "{index} {name}");
        }
    }
}
