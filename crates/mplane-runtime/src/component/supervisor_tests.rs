//! The initiating side against supervisors that do only what a test tells them, over real
//! sockets in plain HTTP.

use std::collections::VecDeque;

use axum::Router;
use axum::extract::{Request, State as Shared};
use http::{Method, Response, StatusCode, header};
use http_body_util::BodyExt;
use mplane::exchange::component::ComponentExchange;
use mplane::message::{Specification, Statement};
use mplane::primitive::Value;
use tokio::net::TcpListener;

use super::*;
use crate::http::PlainHttp;
use crate::http::client::{BaseUrl, HttpClient};
use crate::http::server::{Transport, serve};
use crate::initiator::{Initiator, initiate};
use crate::service::{Completed, Run, Work};

/// How long a condition may take. Only a failing test waits so long.
const DEADLINE: Duration = Duration::from_secs(30);

/// A service with this label that yields one row of this column.
struct OneRow(&'static str, &'static str);

impl Service for OneRow {
    fn capability(&self) -> Capability {
        let registries = Registries::embedded();
        let statement = Statement::measure("now ... future / 1s".parse().unwrap())
            .labelled(self.0)
            .column(&registries, self.1)
            .unwrap();
        Capability::new(statement)
    }

    fn run(&self, work: Work) -> Run<'_> {
        Box::pin(async move {
            work.rows.push([Some(Value::Natural(1))])?;
            Ok(Completed::default())
        })
    }
}

/// What a supervisor answers: status, content type and body.
type Answer = (u16, &'static str, String);

/// A supervisor with the answers that it is told to give, and otherwise friendly ones.
#[derive(Default)]
struct Script {
    registrations: Mutex<VecDeque<Answer>>,
    specifications: Mutex<VecDeque<Answer>>,
    results: Mutex<VecDeque<Answer>>,
    /// Requests as they came: method and path, and body.
    requests: Mutex<Vec<(String, String)>>,
    came: Notify,
}

impl Script {
    /// Waits until so many requests have come that contain these texts; returns the body
    /// of the last of them.
    async fn wait_for(&self, count: usize, request: &str, text: &str) -> String {
        let wait = async {
            loop {
                let came = self.came.notified();
                let bodies: Vec<_> = self
                    .requests
                    .lock()
                    .unwrap()
                    .iter()
                    .filter(|(known, body)| known == request && body.contains(text))
                    .map(|(_, body)| body.clone())
                    .collect();
                if let Some(body) = bodies.into_iter().nth(count - 1) {
                    return body;
                }
                came.await;
            }
        };
        let Ok(body) = tokio::time::timeout(DEADLINE, wait).await else {
            panic!("no {request} with {text:?} came: {:#?}", self.requests.lock());
        };
        body
    }
}

/// Answers a request as the script says.
async fn answer(
    Shared(script): Shared<Arc<Script>>,
    request: Request,
) -> Response<axum::body::Body> {
    let name = format!("{} {}", request.method(), request.uri().path());
    let is_get = request.method() == Method::GET;
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let body = String::from_utf8_lossy(&body).into_owned();
    let (queue, otherwise) = match name.rsplit('/').next() {
        Some("capability") => (&script.registrations, "{}"),
        Some("specification") if is_get => (
            &script.specifications,
            r#"{"envelope":"message","version":1,"contents":[]}"#,
        ),
        _ => (&script.results, ""),
    };
    let told = queue.lock().unwrap().pop_front();
    let (status, content_type, text) =
        told.unwrap_or_else(|| (200, "application/x-mplane+json", otherwise.into()));
    script.requests.lock().unwrap().push((name, body));
    script.came.notify_waiters();
    let mut response = Response::new(text.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    let headers: &mut http::HeaderMap = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type.parse().unwrap());
    if (300..400).contains(&status) {
        headers.insert(header::LOCATION, "https://127.0.0.1:1/".parse().unwrap());
    }
    response
}

/// A component and its scripted supervisor.
struct Pair {
    script: Arc<Script>,
    component: Arc<Component>,
    shutdown: CancellationToken,
    end: CancellationToken,
}

impl Pair {
    /// Starts both; the component polls this often.
    async fn new(script: Script, poll: Duration) -> Self {
        let (script, shutdown) = (Arc::new(script), CancellationToken::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&script));
        let transport = Transport::Plain(PlainHttp::Loopback);
        // It outlives the component.
        tokio::spawn(serve(listener, transport, router, CancellationToken::new()));
        let component = Component::new(
            vec![offered(SCRIPTED)],
            Registries::embedded(),
            ComponentExchange::default(),
            None,
            shutdown.clone(),
        )
        .unwrap();
        let end = CancellationToken::new();
        let pair = Self { script, component, shutdown, end };
        pair.initiate(&url, poll);
        pair
    }

    fn initiate(&self, url: &str, poll: Duration) {
        let supervisor = BaseUrl::parse(url, Some(PlainHttp::Loopback)).unwrap();
        let client = Arc::new(HttpClient::new(None));
        let component = Arc::clone(&self.component);
        let initiator = Initiator { supervisor, poll };
        tokio::spawn(initiate(component, client, initiator, self.end.clone()));
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// The service that is asked for.
const SCRIPTED: OneRow = OneRow("scripted", "packets.lost");

fn offered(service: OneRow) -> Offered {
    Offered { service: Arc::new(service), budget: Budget::default() }
}

/// Returns an envelope with a specification of the service, and what comes before it.
fn envelope(before: &str, token: &str) -> Answer {
    let mut specification = Specification::of(&SCRIPTED.capability());
    specification.set_when("now + 1s / 1s".parse().unwrap());
    specification.set_token(Some(token.parse().unwrap()));
    let form = mplane::features::Features::NONE.form();
    let specification = mplane::json::encode(&specification.into(), form);
    let specification = String::from_utf8(specification).unwrap();
    let contents = format!(
        r#"{{"envelope":"message","version":1,"contents":[{before}{specification}]}}"#
    );
    (200, "application/x-mplane+json", contents)
}

const OFTEN: Duration = Duration::from_millis(10);
const HARDLY_EVER: Duration = Duration::from_secs(3_600);
const FETCH: &str = "GET /show/specification";
const REPORT: &str = "POST /register/result";
const REGISTER: &str = "POST /register/capability";

/// Answers that make no sense.
fn nonsense() -> VecDeque<Answer> {
    let html = "<!doctype html><title>Login</title>";
    VecDeque::from([
        (200, "text/html", html.into()),
        (200, "application/x-mplane+json", "\u{0}\u{1}garbage".into()),
        (200, "application/x-mplane+json", "{\"envelope\":\"message\"".into()),
        (200, "application/x-mplane+json", "[[[[42]]]]".into()),
        (200, "application/x-mplane+json", String::new()),
        (302, "text/html", html.into()),
        (500, "text/html", "boom".into()),
        (204, "text/plain", String::new()),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_that_hands_out_nonsense_is_asked_again() {
    let mut specifications = nonsense();
    specifications.push_back(envelope("", "after-nonsense"));
    let script =
        Script { specifications: Mutex::new(specifications), ..Script::default() };
    let pair = Pair::new(script, OFTEN).await;
    pair.script.wait_for(1, REPORT, "after-nonsense").await;
    let result = pair.script.wait_for(1, REPORT, "\"result\"").await;
    assert!(result.contains("after-nonsense"), "{result}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_that_does_not_take_registrations_is_asked_again() {
    let mut registrations = VecDeque::from([
        (500, "text/html", "boom".into()),
        (302, "text/html", "elsewhere".into()),
        (404, "text/html", "<html>".into()),
    ]);
    // What references answer: no JSON, which counts as consent.
    let unescaped = r#"{"a"b":{"registered":"ok"}}"#;
    registrations.push_back((200, "application/x-mplane+json", unescaped.into()));
    let script = Script { registrations: Mutex::new(registrations), ..Script::default() };
    let pair = Pair::new(script, OFTEN).await;
    pair.script.wait_for(1, FETCH, "").await;
    let offers = pair.script.wait_for(4, REGISTER, "scripted").await;
    assert!(offers.contains("now ... future / 1s"), "{offers}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_that_says_nothing_is_asked_again() {
    let shutdown = CancellationToken::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let component = Component::new(
        vec![offered(SCRIPTED)],
        Registries::embedded(),
        ComponentExchange::default(),
        None,
        shutdown.clone(),
    )
    .unwrap();
    let initiator = Initiator {
        supervisor: BaseUrl::parse(&url, Some(PlainHttp::Loopback)).unwrap(),
        poll: OFTEN,
    };
    let client = Arc::new(HttpClient::new(None));
    let end = CancellationToken::new();
    let offerer = Arc::clone(&component);
    tokio::spawn(initiate(offerer, client, initiator, end));
    // Connections that close without a word.
    for _ in 0..3 {
        let accepted = tokio::time::timeout(DEADLINE, listener.accept()).await;
        drop(accepted.expect("it tries again").unwrap());
    }
    shutdown.cancel();
    tokio::time::timeout(DEADLINE, component.ended()).await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_says_when_to_come_again() {
    let callback = r#"{"specification":"measure","version":1,"label":"callback",
        "registry":"http://ict-mplane.eu/registry/core","when":"now + 0s"},"#;
    let by_verb =
        callback.replace("measure", "callback").replace("\"callback\",\n", "\"x\",\n");
    let script = Script {
        specifications: Mutex::new(VecDeque::from([
            envelope(callback, "first"),
            envelope(&by_verb, "second"),
        ])),
        ..Script::default()
    };
    // Nobody would come again in this test without being called.
    let pair = Pair::new(script, HARDLY_EVER).await;
    pair.script.wait_for(3, FETCH, "").await;
    pair.script.wait_for(2, REPORT, "first").await;
    pair.script.wait_for(2, REPORT, "second").await;
    let offered = pair.script.wait_for(1, REGISTER, "\"callback\"").await;
    assert!(!offered.contains("scripted"), "it is told by itself: {offered}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_hears_of_what_comes_and_goes() {
    let pair = Pair::new(Script::default(), OFTEN).await;
    pair.script.wait_for(1, FETCH, "").await;
    pair.component.set_services(vec![offered(OneRow("other", "hops.ip"))]);
    let withdrawal = pair.script.wait_for(1, REGISTER, "\"withdrawal\"").await;
    assert!(withdrawal.contains("scripted"), "{withdrawal}");
    let offer = pair.script.wait_for(1, REGISTER, "other").await;
    assert!(!offer.contains("scripted"), "{offer}");
    // What is asked for nevertheless is refused.
    pair.script.specifications.lock().unwrap().push_back(envelope("", "too-late"));
    let refusal = pair.script.wait_for(1, REPORT, "too-late").await;
    assert!(refusal.contains("has withdrawn the capability scripted"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn results_outlast_a_supervisor_that_does_not_take_them() {
    let results = VecDeque::from([
        (503, "text/plain", "later".into()),
        (302, "text/html", "elsewhere".into()),
        (500, "text/html", "boom".into()),
    ]);
    let script = Script {
        specifications: Mutex::new(VecDeque::from([envelope("", "precious")])),
        results: Mutex::new(results),
        ..Script::default()
    };
    let pair = Pair::new(script, OFTEN).await;
    // The receipt is refused three times, then taken; then comes the result.
    pair.script.wait_for(5, REPORT, "precious").await;
    let delivered = || pair.component.metrics().delivered.get() == 1;
    let wait = async {
        while !delivered() {
            tokio::time::sleep(OFTEN).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect("it is delivered");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_behind_another_letter_is_delivered_at_the_end() {
    let two = envelope("", "second");
    let first = envelope("", "first").2;
    let first = first.split_once('[').and_then(|(_, rest)| rest.strip_suffix("]}"));
    let both =
        two.2.replace("\"contents\":[", &format!("\"contents\":[{},", first.unwrap()));
    let script = Script {
        specifications: Mutex::new(VecDeque::from([(two.0, two.1, both)])),
        results: Mutex::new(VecDeque::from([(500, "text/plain", "boom".into())])),
        ..Script::default()
    };
    let pair = Pair::new(script, OFTEN).await;
    pair.script.wait_for(1, REPORT, "first").await;
    // Both are taken, and their receipts are on their way.
    let both = async {
        while pair.component.metrics().accepted.get() < 2 {
            tokio::time::sleep(OFTEN).await;
        }
    };
    tokio::time::timeout(DEADLINE, both).await.expect("both are accepted");
    pair.shutdown.cancel();
    // The receipt in hand once more, the other receipt, and both results.
    for (count, token) in [(3, "first"), (2, "second")] {
        pair.script.wait_for(count, REPORT, token).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_specification_that_cannot_be_read_is_refused_and_costs_no_other() {
    let odd = r#"{"specification":"measure","version":1,"token":"odd","when":"now",
        "registry":"http://ict-mplane.eu/registry/core","parameters":{"no.such":"1"}},"#;
    let script = Script {
        specifications: Mutex::new(VecDeque::from([envelope(odd, "sound")])),
        ..Script::default()
    };
    let pair = Pair::new(script, OFTEN).await;
    let refused = pair.script.wait_for(1, REPORT, "odd").await;
    assert!(refused.contains("no.such"), "{refused}");
    pair.script.wait_for(2, REPORT, "sound").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_that_is_not_served_any_more_gets_nothing() {
    let pair = Pair::new(Script::default(), OFTEN).await;
    pair.script.wait_for(1, FETCH, "").await;
    pair.end.cancel();
    let closed = async {
        while !pair.component.state().outboxes.is_empty() {
            tokio::time::sleep(OFTEN).await;
        }
    };
    tokio::time::timeout(DEADLINE, closed).await.expect("its outbox is closed");
}
