//! A supervisor at a port of the loopback interface, in plain HTTP, with clients and
//! components of ours.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use mplane::access::{Identity, Policy};
use mplane::features::Features;
use mplane::message::{Capability, Statement};
use mplane::registry::Registries;
use mplane_runtime::client::Client;
use mplane_runtime::http::client::{Ask, BaseUrl, HttpClient};
use mplane_runtime::http::server::{Transport, listen, serve};
use mplane_runtime::http::{PlainHttp, path};
use rusqlite::TransactionBehavior;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::directory::Dialect;
use crate::server::{Settings, Supervisor, WAITING};
use crate::store::{Id, Retention, Room, Store};

/// A supervisor and where it listens.
struct Bench {
    supervisor: Arc<Supervisor>,
    url: BaseUrl,
    folder: TempDir,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            expiry: SignedDuration::from_hours(1),
            retention: Retention {
                results: Duration::from_secs(3_600),
                stories: Duration::from_secs(3_600),
                client_bytes: u64::MAX,
                component_bytes: u64::MAX,
            },
            room: Room { queue: 100, client: 1_000 },
            is_428: false,
        };
        let store = Store::open(folder.path()).unwrap();
        let shutdown = CancellationToken::new();
        let (registries, policy) = (Registries::embedded(), Policy::default());
        let supervisor =
            Supervisor::new(store, registries, policy, settings, shutdown.clone())
                .await
                .unwrap();
        let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let url = BaseUrl::parse(&url, Some(PlainHttp::Loopback)).unwrap();
        let transport = Transport::Plain(PlainHttp::Loopback);
        tokio::spawn(serve(listener, transport, supervisor.router(), shutdown));
        Self { supervisor, url, folder }
    }

    fn client(&self) -> Client {
        Client::new(None, self.url.clone(), Registries::embedded())
    }
}

fn probe(name: &str) -> Identity {
    Identity::new(["Demo", "Components", name].map(Into::into), Some("Components"))
}

fn capability(label: &str, source: &str) -> Capability {
    let registries = Registries::embedded();
    let statement = Statement::measure("now ... future / 1s".parse().unwrap())
        .labelled(label)
        .parameter(&registries, "source.ip4", source)
        .and_then(|s| s.parameter(&registries, "destination.ip4", "*"))
        .and_then(|s| s.column(&registries, "delay.twoway.icmp.us"))
        .unwrap();
    Capability::new(statement)
}

#[tokio::test]
async fn a_client_gets_more_capabilities_than_one_answer_holds() {
    let bench = Bench::new().await;
    let relay = bench.supervisor.relay();
    // More than an answer tells at once, from components that offer the same and others.
    let mut registering = Vec::new();
    for number in 0..1_100 {
        let (probe, source) = (
            probe(&format!("p{}", number % 3)),
            format!("10.1.{}.{}", number / 250, number % 250),
        );
        let capability = capability(&format!("ping-{}", number / 3), &source);
        registering.push((probe, capability));
    }
    for (probe, capability) in &registering {
        let (features, dialect, now) =
            (Features::OURS, Dialect::Envelope, Timestamp::now());
        relay
            .register(probe, capability.clone().into(), features, dialect, now)
            .await
            .unwrap();
    }
    let mut client = bench.client();
    let found = client.discover().await.unwrap();
    // Under each label, what its components offer, and that of all together.
    assert_eq!(found, 1_100 + 367);
    let labels: Vec<_> = client
        .known()
        .capabilities()
        .filter_map(|(_, it)| it.label().map(ToOwned::to_owned))
        .collect();
    for label in ["ping-0@p0", "ping-0@*", "ping-366@p1", "ping-366@*", "ping-200@p2"] {
        assert!(labels.iter().any(|it| it == label), "{label}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_with_too_much_to_write_says_when_to_come_again() {
    let bench = Bench::new().await;
    let relay = bench.supervisor.relay();
    // Somebody holds the lock of the store.
    let path = bench.folder.path().join("control.db");
    let mut locker = rusqlite::Connection::open(path).unwrap();
    let lock = locker.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    for _ in 0..=WAITING {
        relay.store().redeemed(Id(1), Timestamp::now());
    }
    let http = HttpClient::new(None);
    let ask =
        |method, path, messages| Ask { method, path, messages, wait: Duration::ZERO };
    let get = |path| http.ask(&bench.url, ask(Method::GET, path, &[]));
    let refused = get("/capabilities").await.unwrap();
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.retry_after, Some(Duration::from_secs(5)));
    let text = String::from_utf8_lossy(&refused.body).into_owned();
    assert!(text.ends_with("writes wait for the store; try again later"), "{text}");
    // Who looks after it gets through, and registrations wait.
    assert_eq!(get("/components").await.unwrap().status, StatusCode::OK);
    let offer = [capability("ping", "10.0.0.1").into()];
    let registering =
        http.ask(&bench.url, ask(Method::POST, path::REGISTER_CAPABILITY, &offer));
    let (registered, ()) = tokio::join!(registering, async { drop(lock) });
    let registered = registered.unwrap();
    assert_eq!(registered.status, StatusCode::OK);
    assert_eq!(&*registered.body, br#"{"ping":{"registered":"ok"}}"#);
    assert_eq!(get("/capabilities").await.unwrap().status, StatusCode::OK);
}
