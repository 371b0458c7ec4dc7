//! A component of ours that registers with a supervisor which answers as it was recorded.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mplane::access::Policy;
use mplane::json::{self, MEDIA_TYPE};
use mplane::message::{Capability, Message};
use mplane_runtime::http::client::HttpClient;
use mplane_runtime::http::path;
use mplane_runtime::initiator::{Initiator, initiate};
use mplane_testbed::vectors::{self, Comparison};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::component::{Script, component};
use crate::essence::{self, Answer};
use crate::peer::{Came, Scripted};

/// How often it comes when it is not told: the reference takes 5 s.
const POLL: Duration = Duration::from_millis(50);

/// What is there when the script is over.
const EMPTY: &str = r#"{"envelope":"message","version":1,"contents":[]}"#;

/// The supervisor of the record, and another that specifications name.
const RECORDED: [&str; 2] = ["127.0.0.1:18895", "127.0.0.1:18896"];

/// Returns the text at a key.
fn text(step: &Value, key: &str) -> String {
    step[key].as_str().unwrap_or_default().to_owned()
}

/// Returns the steps that lead to a step, and itself.
fn steps<'a>(record: &'a Value, step: &'a Value) -> Vec<&'a Value> {
    let known = record["steps"].as_array().into_iter().flatten();
    let before = known.filter(|other| other["name"] == step["after"]);
    before.chain([step]).collect()
}

/// Returns the capabilities in an envelope.
fn capabilities(envelope: &str) -> Vec<Value> {
    let envelope: Value = serde_json::from_str(envelope).expect("an envelope");
    envelope["contents"].as_array().expect("capabilities").clone()
}

/// Returns how long the last specification of an answer says to wait: `now + N s`.
fn told(answer: &str) -> Option<Duration> {
    let answer: Value = serde_json::from_str(answer).ok()?;
    let last = answer["contents"].as_array()?.last()?;
    let when = last["when"].as_str().filter(|_| last["label"] == "callback")?;
    let seconds = when.strip_prefix("now + ")?.strip_suffix('s')?;
    seconds.parse().ok().map(Duration::from_secs)
}

/// Says what was posted, and what was asked for then.
fn tell(posts: impl IntoIterator<Item = (String, String)>, then: &str) -> String {
    let mut lines: Vec<_> = posts
        .into_iter()
        .map(|(what, body)| {
            let json = serde_json::from_str(&body).expect("a message");
            format!("{what} {}", essence::message(json, ""))
        })
        .collect();
    lines.push(format!("then {then}"));
    lines.join("; ")
}

/// Says whether a request delivers something.
fn delivers(came: &Came) -> bool {
    came.what.starts_with("POST") && !came.what.ends_with(path::REGISTER_CAPABILITY)
}

/// Lets a component of ours get the answers of a step; returns what it registers, and what
/// it does after the last of them.
async fn run(record: Value, step: Value, expected: String) -> (Vec<Value>, String) {
    let registers = text(&record, "registers");
    let steps: Vec<_> = steps(&record, &step).into_iter().cloned().collect();
    let (elsewhere, _listening) = Scripted::start(|_, _| Answer {
        status: 200,
        content_type: "text/html".to_owned(),
        body: String::new(),
    })
    .await;
    let other = elsewhere.authority().to_owned();
    let fetched = AtomicUsize::new(0);
    let count = steps.len();
    let answers = steps.clone();
    let (supervisor, _listening) = Scripted::start(move |came, authority| {
        let is_fetch = came.what == format!("GET {}", path::SHOW_SPECIFICATION);
        let step = is_fetch.then(|| answers.get(fetched.fetch_add(1, Ordering::Relaxed)));
        let (status, content_type, body) = match step {
            Some(Some(step)) => (
                step["status"].as_u64().expect("a status"),
                text(step, "type"),
                text(step, "answer")
                    .replace(RECORDED[0], authority)
                    .replace(RECORDED[1], &other),
            ),
            Some(None) => (200, MEDIA_TYPE.to_owned(), EMPTY.to_owned()),
            None => (200, MEDIA_TYPE.to_owned(), "{}".to_owned()),
        };
        Answer { status, content_type, body }
    })
    .await;

    let registries = vectors::registries();
    let offered = capabilities(&registers).into_iter().filter_map(|capability| {
        match json::decode(capability.to_string().as_bytes(), &registries) {
            // Supervisors are offered it by who initiates, not by who measures.
            Ok(Message::Capability(known)) if known.label() == Some("callback") => None,
            Ok(Message::Capability(known)) => Some(known),
            other => panic!("{other:?}"),
        }
    });
    let offered: Vec<Capability> = offered.collect();
    let posts = record["steps"].as_array().into_iter().flatten();
    let posts = posts.flat_map(|step| step["posts"].as_array().into_iter().flatten());
    let script = Script::of(posts.map(|post| text(post, "body"))).always();
    let component = component(offered, &script, Policy::default());
    let initiator = Initiator { supervisor: supervisor.url("/"), poll: POLL };
    let (client, end) = (Arc::new(HttpClient::new(None)), CancellationToken::new());
    tokio::spawn(initiate(component, client, initiator, end.clone()));

    // All that is to be delivered, and the request for specifications that follows.
    let fetches = |came: &[Came]| {
        let places = came.iter().enumerate();
        let fetches = places.filter(|(_, came)| came.what.starts_with("GET"));
        fetches.map(|(index, _)| index).collect::<Vec<_>>()
    };
    let posted = expected.matches("POST ").count();
    let registers_again =
        expected.contains(&format!("then POST {}", path::REGISTER_CAPABILITY));
    let posted = posted - usize::from(registers_again);
    let came = supervisor
        .wait_for(|came| {
            let fetches = fetches(came);
            let last = fetches.get(count - 1).copied().unwrap_or(came.len());
            let delivered = came.iter().skip(last).filter(|came| delivers(came)).count();
            fetches.len() > count && delivered >= posted
        })
        .await;
    end.cancel();

    let fetches = fetches(&came);
    assert!(fetches.len() > count, "{step}: {came:#?}");
    let [first, last, next] = [fetches[0], fetches[count - 1], fetches[count]];
    let registered: Vec<_> =
        came.iter().take(first).flat_map(|came| capabilities(&came.body)).collect();
    let after = came.iter().skip(last + 1);
    let then = after.clone().find(|came| !delivers(came)).expect("it goes on");
    if let Some(pause) = told(&text(&steps[count - 1], "answer"))
        && text(&steps[count - 1], "type") == MEDIA_TYPE
    {
        assert!(came[next].at - came[last].at >= pause, "{step}: it came too early");
    }
    assert_eq!(elsewhere.came().len(), 0, "{step}: nobody else gets anything");
    let posts = after.filter(|came| delivers(came));
    let posts = posts.map(|came| (came.what.clone(), came.body.clone()));
    (registered, tell(posts, &then.what))
}

#[tokio::test]
async fn a_component_does_what_recorded_supervisors_say_as_recorded() {
    let record = vectors::load("exchanges/component-supervisor.json");
    let mut comparison = Comparison::with("exchanges-component-supervisor");
    let mut cases = 0;
    let steps = record["steps"].as_array().expect("steps");
    let fetch = format!("GET {}", path::SHOW_SPECIFICATION);
    let mut running = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        let posts = step["posts"].as_array().expect("a list");
        let posts = posts
            .iter()
            .map(|post| (format!("POST {}", text(post, "path")), text(post, "body")));
        let then = if index + 1 < steps.len() { fetch.as_str() } else { "nothing" };
        let recorded = tell(posts, then);
        let case = text(step, "name");
        let expected = comparison.expected(&case, &recorded).to_owned();
        let run = tokio::spawn(run(record.clone(), step.clone(), expected));
        running.push((case, recorded, run));
    }
    let mut registered = BTreeMap::new();
    for (case, recorded, run) in running {
        let (capabilities, found) = run.await.expect("it does not panic");
        comparison.check(&case, &recorded, &found);
        cases += 1;
        registered = capabilities
            .into_iter()
            .map(|known| (text(&known, "label"), known))
            .collect();
    }
    for mut capability in capabilities(&text(&record, "registers")) {
        let label = text(&capability, "label");
        // Nobody reads a link without a place in it.
        let fields = capability.as_object_mut().expect("a capability");
        let link = fields.remove("link");
        assert!(link.is_none_or(|link| link == ""), "{label}");
        let found = registered
            .remove(&label)
            .map_or_else(|| "nothing".into(), |it| it.to_string());
        comparison.check(&format!("registers {label}"), &capability.to_string(), &found);
        cases += 1;
    }
    assert_eq!(registered, BTreeMap::new(), "more is registered");
    comparison.finish(cases);
}
