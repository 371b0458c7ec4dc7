//! A supervisor calls a component that answers by a script, in plain HTTP.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use http::{Method, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use jiff::{SignedDuration, Timestamp};
use mplane::access::Identity;
use mplane::exchange::client::{Measurement, MeasurementState};
use mplane::features::{Features, HEADER};
use mplane::json::{self, MEDIA_TYPE};
use mplane::message::{
    Capability, Envelope, Message, Receipt, ResultStatement, Specification, Statement,
    Table, Withdrawal,
};
use mplane::primitive::Value;
use mplane::registry::Registries;
use mplane::when::When;
use mplane_runtime::client::Client;
use mplane_runtime::http::PlainHttp;
use mplane_runtime::http::client::BaseUrl;
use mplane_runtime::http::server::{Transport, listen, serve};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::caller::{Callee, call};
use crate::server_tests::{Bench, until};
use crate::store::Story;

/// What a component answers to one message.
enum Answer {
    /// What is made of the specification that the message is about.
    Say(fn(&Specification) -> Message),
    /// Something that is no message, as when a connection breaks.
    Garbage,
    /// Nothing until it is told to; then a receipt.
    Held(Arc<Notify>),
}

/// A component that listens and answers by a script.
struct Scripted {
    /// What is answered to the next messages; then always the last.
    script: Mutex<VecDeque<Answer>>,
    /// The messages that came.
    came: Mutex<Vec<Message>>,
    /// The specifications among them.
    specified: Mutex<Vec<Specification>>,
    /// Ends it, and who calls it.
    end: CancellationToken,
}

impl Scripted {
    /// Starts one, which a supervisor calls; returns it once it is offered to clients.
    async fn start(bench: &Bench, script: impl IntoIterator<Item = Answer>) -> Arc<Self> {
        let scripted = Arc::new(Self {
            script: Mutex::new(script.into_iter().collect()),
            came: Mutex::default(),
            specified: Mutex::default(),
            end: CancellationToken::new(),
        });
        let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let url = BaseUrl::parse(&url, Some(PlainHttp::Loopback)).unwrap();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&scripted));
        let (plain, end) = (Transport::Plain(PlainHttp::Loopback), scripted.end.clone());
        tokio::spawn(serve(listener, plain, router, end));
        let callee = Callee { url, credentials: None };
        let (supervisor, end) = (Arc::clone(&bench.supervisor), scripted.end.clone());
        tokio::spawn(call(supervisor, callee, end));
        until("it is offered", async || is_offered(bench).await.then_some(())).await;
        scripted
    }

    /// Returns how many messages of a kind came.
    fn count(&self, is_counted: fn(&Message) -> bool) -> usize {
        self.came.lock().unwrap().iter().filter(|message| is_counted(message)).count()
    }
}

/// Answers a request.
async fn answer(
    State(scripted): State<Arc<Scripted>>,
    request: Request,
) -> Response<Body> {
    let body = if request.method() == Method::GET {
        encode(&Envelope::of(vec![capability().into()]).into())
    } else {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let message = json::decode(&body, &Registries::embedded()).unwrap();
        let specification = {
            let mut specified = scripted.specified.lock().unwrap();
            if let Message::Specification(specification) = &message {
                specified.push(specification.clone());
            }
            let token = message.token();
            let same = specified.iter().find(|known| Some(known.token()) == token);
            same.expect("it is about a specification that came").clone()
        };
        scripted.came.lock().unwrap().push(message);
        let answer = {
            let mut script = scripted.script.lock().unwrap();
            let answer = script.pop_front().unwrap();
            match &answer {
                Answer::Say(say) if script.is_empty() => {
                    script.push_back(Answer::Say(*say));
                }
                _ => {}
            }
            answer
        };
        match answer {
            Answer::Say(say) => encode(&say(&specification)),
            Answer::Garbage => b"{".to_vec(),
            Answer::Held(until) => {
                until.notified().await;
                encode(&promised(&specification))
            }
        }
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(header::CONTENT_TYPE, MEDIA_TYPE.parse().unwrap());
    let features = Features::OURS.to_string().parse().unwrap();
    response.headers_mut().insert(HEADER, features);
    response
}

fn encode(message: &Message) -> Vec<u8> {
    json::encode(message, Features::OURS.form())
}

fn capability() -> Capability {
    let registries = Registries::embedded();
    let statement = Statement::measure("now ... future / 1s".parse().unwrap())
        .labelled("ping")
        .parameter(&registries, "destination.ip4", "*")
        .and_then(|s| s.column(&registries, "delay.twoway.icmp.us"))
        .unwrap();
    Capability::new(statement)
}

fn promised(specification: &Specification) -> Message {
    Receipt::of(specification).into()
}

fn measured(specification: &Specification) -> Message {
    let mut table = Table::new(specification.columns());
    table.push([Some(Value::Natural(42))]);
    ResultStatement::of(specification, When::at(Timestamp::now()), table).into()
}

fn withdrawn(_: &Specification) -> Message {
    Withdrawal::of(&capability()).into()
}

/// Answers with the results of a repeat that has lasted so long.
fn results(specification: &Specification, seconds: i64) -> Message {
    let mut results = Envelope::of(vec![measured(specification)]).with_content("result");
    let start = Timestamp::now();
    let end = start + SignedDuration::from_secs(seconds);
    results.set_when(Some(When::between(start, end)));
    results.set_token(Some(specification.token()));
    results.into()
}

fn is_specification(message: &Message) -> bool {
    matches!(message, Message::Specification(_))
}

async fn is_offered(bench: &Bench) -> bool {
    let mut client = bench.client();
    client.discover().await.unwrap() > 0
}

/// Has a client ask for a measurement.
async fn ask(bench: &Bench, when: &str) -> (Client, Measurement) {
    let mut client = bench.client();
    client.discover().await.unwrap();
    let parameters = [("destination.ip4", "10.0.0.9")];
    let when = when.parse().unwrap();
    let asked = client.run("ping", when, parameters, Duration::ZERO).await.unwrap();
    (client, asked)
}

/// Waits for what comes of a measurement.
async fn outcome(client: &mut Client, mut asked: Measurement) -> MeasurementState {
    while !asked.is_settled(Timestamp::now()) {
        asked = client.redeem(asked, Duration::from_secs(5)).await.unwrap();
    }
    asked.state
}

/// Returns the story of a measurement.
async fn story(bench: &Bench, asked: &Measurement) -> Story {
    let store = bench.supervisor.relay().store();
    let token = asked.specification.token().to_string();
    let stories = store.stories(token, None).await.unwrap().stories;
    let [story] = &stories[..] else { panic!("{stories:?}") };
    story.clone()
}

/// Returns how often something happened in a story.
fn times(story: &Story, what: &str) -> usize {
    story.steps.iter().filter(|step| step.what == what).count()
}

#[tokio::test]
async fn what_a_component_that_is_called_keeps_waiting_is_posted_once() {
    let bench = Bench::new().await;
    let answered = Arc::new(Notify::new());
    let script = [
        Answer::Held(Arc::clone(&answered)),
        Answer::Say(promised),
        Answer::Say(measured),
    ];
    let component = Scripted::start(&bench, script).await;
    let (mut client, asked) = ask(&bench, "now + 1h / 1s").await;
    until("it came", async || (component.count(is_specification) == 1).then_some(()))
        .await;
    // Longer than any lease.
    let later = Timestamp::now() + SignedDuration::from_mins(30);
    let relay = bench.supervisor.relay();
    relay.handle_timeout(later).await.unwrap();
    // Neither is it queued again because the component is heard of.
    let me = Identity::unauthenticated();
    relay.registered_again(&me, later).await.unwrap();
    assert_eq!(relay.fetch(&me, later).await.unwrap().map(|it| it.len()), Some(0));
    answered.notify_one();
    let state = outcome(&mut client, asked.clone()).await;
    assert!(matches!(state, MeasurementState::Result(_)), "{state:?}");
    let story = story(&bench, &asked).await;
    assert_eq!(times(&story, "handed"), 1, "{story:?}");
    assert_eq!(times(&story, "promised"), 1, "{story:?}");
    assert_eq!(component.count(is_specification), 1);
}

#[tokio::test]
async fn what_has_ended_is_not_posted_any_more() {
    let bench = Bench::new().await;
    let script = [Answer::Garbage, Answer::Garbage, Answer::Say(measured)];
    let component = Scripted::start(&bench, script).await;
    let (mut client, dead) = ask(&bench, "now + 1s / 1s").await;
    until("it came", async || (component.count(is_specification) == 1).then_some(()))
        .await;
    let later = Timestamp::now() + SignedDuration::from_hours(1);
    bench.supervisor.relay().handle_timeout(later).await.unwrap();
    let state = outcome(&mut client, dead.clone()).await;
    assert!(matches!(state, MeasurementState::Failed(_)), "lost: {state:?}");
    // When another one has been tried again, it would have been too.
    let (mut client, alive) = ask(&bench, "now + 1h / 1s").await;
    let state = outcome(&mut client, alive).await;
    assert!(matches!(state, MeasurementState::Result(_)), "{state:?}");
    let specified = component.specified.lock().unwrap();
    let labels: Vec<_> = specified.iter().filter_map(|it| it.label()).collect();
    assert_eq!(labels, ["ping-1", "ping-2", "ping-2"]);
}

#[tokio::test]
async fn a_withdrawal_as_answer_ends_the_specification_and_the_offer() {
    let bench = Bench::new().await;
    let component = Scripted::start(&bench, [Answer::Say(withdrawn)]).await;
    let (mut client, asked) = ask(&bench, "now + 1h / 1s").await;
    let state = outcome(&mut client, asked).await;
    let MeasurementState::Failed(exception) = &state else { panic!("{state:?}") };
    let text = "the component has withdrawn the capability ping";
    assert_eq!(exception.message(), text);
    assert!(!is_offered(&bench).await);
    assert_eq!(component.count(is_specification), 1);
}

#[tokio::test]
async fn a_capability_that_goes_while_a_result_is_redeemed_goes_too() {
    let bench = Bench::new().await;
    let script = [Answer::Say(promised), Answer::Say(withdrawn)];
    let _component = Scripted::start(&bench, script).await;
    let (mut client, asked) = ask(&bench, "now + 1h / 1s").await;
    let state = outcome(&mut client, asked).await;
    assert!(matches!(state, MeasurementState::Failed(_)), "{state:?}");
    assert!(!is_offered(&bench).await);
}

#[tokio::test]
async fn results_so_far_of_a_repeat_are_not_taken_for_all() {
    let bench = Bench::new().await;
    let script = [
        Answer::Say(promised),
        Answer::Say(|specification| results(specification, 1)),
        Answer::Say(|specification| results(specification, 2)),
    ];
    let component = Scripted::start(&bench, script).await;
    let (mut client, asked) = ask(&bench, "repeat now + 2s / 1s { now + 1s / 1s }").await;
    let state = outcome(&mut client, asked.clone()).await;
    assert!(matches!(state, MeasurementState::Results(_)), "{state:?}");
    let story = story(&bench, &asked).await;
    let delivered = story.steps.iter().find(|step| step.what == "delivered");
    assert!(delivered.is_some(), "{story:?}");
    let redemptions = component.count(|it| matches!(it, Message::Redemption(_)));
    assert!(redemptions >= 2, "the first has not ended it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_in_hand_before_a_restart_is_taken_up_once() {
    let bench = Bench::new().await;
    let held = Arc::new(Notify::new());
    let component = Scripted::start(&bench, [Answer::Held(Arc::clone(&held))]).await;
    let (_client, asked) = ask(&bench, "now + 1h / 1s").await;
    until("it came", async || (component.count(is_specification) == 1).then_some(()))
        .await;
    component.end.cancel();
    let bench = bench.restart().await;
    let script = [Answer::Say(promised), Answer::Say(measured)];
    let component = Scripted::start(&bench, script).await;
    let settled = async || {
        let story = story(&bench, &asked).await;
        (times(&story, "delivered") == 1).then_some(story)
    };
    let story = until("the result", settled).await;
    assert_eq!(times(&story, "handed"), 1, "{story:?}");
    assert_eq!(times(&story, "queued again"), 0, "{story:?}");
    assert_eq!(component.count(is_specification), 1);
}
