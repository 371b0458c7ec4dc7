//! A supervisor at a port of the loopback interface, in plain HTTP, with clients and
//! components of ours.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use mplane::access::{Identity, Policy};
use mplane::features::Features;
use mplane::message::{Capability, Statement};
use mplane::registry::Registries;
use mplane_runtime::client::Client;
use mplane_runtime::http::PlainHttp;
use mplane_runtime::http::client::BaseUrl;
use mplane_runtime::http::server::{Transport, listen, serve};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::directory::Dialect;
use crate::server::{Settings, Supervisor};
use crate::store::{Retention, Room, Store};

/// A supervisor and where it listens.
struct Bench {
    supervisor: Arc<Supervisor>,
    url: BaseUrl,
    _folder: TempDir,
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
        Self { supervisor, url, _folder: folder }
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
