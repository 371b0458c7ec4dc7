//! A supervisor at a port of the loopback interface, in plain HTTP, with clients and
//! components of ours.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use mplane::access::{Identity, Policy};
use mplane::exchange::client::{Measurement, MeasurementState};
use mplane::features::Features;
use mplane::message::{
    Capability, Message, Receipt, ResultStatement, Specification, Statement, Table,
    Withdrawal,
};
use mplane::primitive::Value;
use mplane::registry::Registries;
use mplane::when::When;
use mplane_runtime::client::Client;
use mplane_runtime::http::client::{Ask, BaseUrl, HttpClient};
use mplane_runtime::http::server::{Transport, listen, serve};
use mplane_runtime::http::{PlainHttp, path};
use mplane_runtime::initiator::{Initiator, initiate};
use rusqlite::TransactionBehavior;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::directory::Dialect;
use crate::server::{Settings, Supervisor, WAITING};
use crate::store::{Filter, Id, Retention, Room, Store};
use crate::upward::Upward;

/// A supervisor and where it listens.
pub(crate) struct Bench {
    pub(crate) supervisor: Arc<Supervisor>,
    url: BaseUrl,
    shutdown: CancellationToken,
    folder: TempDir,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::open(tempfile::tempdir().unwrap()).await
    }

    /// Opens the store in a folder once nobody else has it.
    async fn open(folder: TempDir) -> Self {
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
        let store = until("the store", async || Store::open(folder.path()).ok()).await;
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
        let router = supervisor.router();
        tokio::spawn(serve(listener, transport, router, shutdown.clone()));
        Self { supervisor, url, shutdown, folder }
    }

    pub(crate) fn client(&self) -> Client {
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
    // Each is there under its token, of one component or of all that have it.
    let http = HttpClient::new(None);
    for (_, known) in client.known().capabilities().step_by(97) {
        let path = format!("/capability/{}", known.token());
        let ask =
            Ask { method: Method::GET, path: &path, messages: &[], wait: Duration::ZERO };
        let answer = http.ask(&bench.url, ask).await.unwrap();
        let messages = answer.messages(&Registries::embedded()).unwrap();
        assert_eq!(messages, [known.clone().into()], "{path}");
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

/// How long a condition may take. Only a failing test waits so long.
const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until something is there.
pub(crate) async fn until<T, A: Future<Output = Option<T>>>(
    what: &str,
    mut look: impl FnMut() -> A,
) -> T {
    let waiting = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let found = tokio::time::timeout(DEADLINE, waiting).await;
    found.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

impl Bench {
    /// Registers a capability of a component.
    async fn offer(&self, from: &Identity, offered: impl Into<Message>) {
        let (features, dialect) = (Features::OURS, Dialect::Envelope);
        let (relay, now) = (self.supervisor.relay(), Timestamp::now());
        relay.register(from, offered.into(), features, dialect, now).await.unwrap();
    }

    /// Fetches a specification for a component.
    async fn fetch(&self, component: &Identity) -> Specification {
        until("something to fetch", async || {
            let relay = self.supervisor.relay();
            let mut fetched = relay.fetch(component, Timestamp::now()).await.unwrap()?;
            match fetched.pop()? {
                Message::Specification(specification) => Some(specification),
                other => panic!("unexpected: {other}"),
            }
        })
        .await
    }

    /// Reports something of a component.
    async fn report(&self, component: &Identity, report: impl Into<Message>) {
        let relay = self.supervisor.relay();
        relay.report(component, report.into(), Timestamp::now()).await.unwrap();
    }

    /// Registers with another supervisor until the end of what is returned.
    fn register_with(&self, above: &Self) -> CancellationToken {
        let client = Arc::new(HttpClient::new(None));
        let supervisor = Arc::clone(&self.supervisor);
        // In plain HTTP all are called the same.
        let identity = probe("supervisor");
        let upward = Upward::new(supervisor, identity, self.shutdown.clone());
        let poll = Duration::from_secs(1);
        let initiator = Initiator { supervisor: above.url.clone(), poll };
        let end = CancellationToken::new();
        tokio::spawn(initiate(upward, client, initiator, end.clone()));
        end
    }

    /// Ends as a cut does, and begins again with the same store.
    pub(crate) async fn restart(self) -> Self {
        self.shutdown.cancel();
        let Self { supervisor, folder, .. } = self;
        drop(supervisor);
        Self::open(folder).await
    }
}

/// Returns what a supervisor offers clients.
async fn offered(bench: &Bench) -> Vec<String> {
    let mut client = bench.client();
    client.discover().await.unwrap();
    let known = client.known().capabilities();
    known.filter_map(|(_, it)| it.label().map(ToOwned::to_owned)).collect()
}

fn result_of(specification: &Specification) -> ResultStatement {
    let mut table = Table::new(specification.columns());
    table.push([Some(Value::Natural(42))]);
    ResultStatement::of(specification, When::at(Timestamp::now()), table)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_offers_what_its_components_offer_to_another_one() {
    let (above, below) = (Bench::new().await, Bench::new().await);
    let (a, b) = (probe("a"), probe("b"));
    let end = below.register_with(&above);
    // It registers before it has anything, and tells what comes and goes.
    below.offer(&a, capability("ping", "10.0.0.1")).await;
    until("the first", async || (offered(&above).await == ["ping"]).then_some(())).await;
    below.offer(&b, capability("ping", "10.0.0.2")).await;
    until("both", async || {
        let mut labels = offered(&above).await;
        labels.sort();
        (labels == ["ping@a", "ping@b"]).then_some(())
    })
    .await;

    let mut client = above.client();
    client.discover().await.unwrap();
    let run = async |client: &mut Client, label: &str| {
        let parameters = [("destination.ip4", "10.0.0.9")];
        let when = "now + 30s / 1s".parse().unwrap();
        client.run(label, when, parameters, Duration::ZERO).await.unwrap()
    };
    let settled = async |client: &mut Client, measurement: Measurement| {
        let mut measurement = measurement;
        loop {
            measurement =
                client.redeem(measurement, Duration::from_secs(5)).await.unwrap();
            if measurement.is_settled(Timestamp::now()) {
                return measurement;
            }
        }
    };
    // What the other supervisor hands out reaches the component, and its result the client.
    let first = run(&mut client, "ping@b").await;
    let handed = below.fetch(&b).await;
    below.report(&b, Receipt::of(&handed)).await;
    below.report(&b, result_of(&handed)).await;
    let first = settled(&mut client, first).await;
    let MeasurementState::Result(result) = &first.state else { panic!("{first:?}") };
    assert_eq!(result.table().rows(), 1);
    let of = result.find_metadata("component.identity");
    assert_eq!(of, Some(&Value::String("Demo.Components.b".into())));

    // What was promised is kept over a restart of the supervisor between.
    let second = run(&mut client, "ping@a").await;
    let handed = below.fetch(&a).await;
    below.report(&a, Receipt::of(&handed)).await;
    end.cancel();
    let below = below.restart().await;
    below.report(&a, result_of(&handed)).await;
    let end = below.register_with(&above);
    let second = settled(&mut client, second).await;
    assert!(matches!(second.state, MeasurementState::Result(_)), "{second:?}");
    let store = below.supervisor.relay().store();
    until("all is noted as delivered", async || {
        let unredeemed = store.unredeemed(&Identity::unauthenticated()).await.unwrap();
        unredeemed.is_empty().then_some(())
    })
    .await;

    // An interrupt goes the same way, and what it ends is told.
    let third = run(&mut client, "ping@a").await;
    until("it waits below", async || {
        let all = store.measurements(Filter::default(), None, 10).await.unwrap();
        (all.measurements.len() == 3).then_some(())
    })
    .await;
    let third = client.interrupt(third).await.unwrap();
    let third = settled(&mut client, third).await;
    let MeasurementState::Failed(exception) = &third.state else { panic!("{third:?}") };
    assert_eq!(exception.message(), "interrupted before the component fetched it");

    // What a component does not offer any more is not offered above either.
    let gone = capability("ping", "10.0.0.1");
    below.offer(&a, Withdrawal::of(&gone)).await;
    until("one is left", async || (offered(&above).await == ["ping"]).then_some(()))
        .await;
    end.cancel();
}
