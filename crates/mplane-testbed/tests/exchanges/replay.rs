//! One recorded exchange after the other, sent as recorded to a router of ours.

use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use mplane::access::Identity;
use mplane::exchange::component::without_serial;
use mplane::features::Features;
use mplane::json::MEDIA_TYPE;
use mplane_runtime::http::Peer;
use mplane_testbed::vectors::{self, Comparison};
use serde_json::Value;
use tower_service::Service as _;

use crate::essence::{Answer, Content, Essence};

/// How long a condition may take. Only a failing test waits so long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A request, and how the reference answered it.
#[derive(Debug)]
pub(crate) struct Exchange(Value);

impl Exchange {
    /// Loads the exchanges of a record.
    pub(crate) fn load(record: &str) -> Vec<Self> {
        let mut record = vectors::load(&format!("exchanges/{record}.json"));
        let Value::Array(exchanges) = record["exchanges"].take() else {
            panic!("a list of exchanges")
        };
        exchanges.into_iter().map(Self).collect()
    }

    fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or_default()
    }

    /// Returns the method and the path.
    pub(crate) fn what(&self) -> String {
        format!("{} {}", self.text("method"), self.text("path"))
    }

    /// Returns what was asked.
    pub(crate) fn body(&self) -> &str {
        self.text("body")
    }

    /// Returns the content type of what was asked.
    pub(crate) fn content_type(&self) -> String {
        text(&self.0["headers"], "content-type")
    }

    /// Returns what was answered.
    pub(crate) fn answer(&self) -> Answer {
        Answer {
            status: self.0["status"].as_u64().expect("a status"),
            content_type: self.text("type").to_owned(),
            body: self.text("answer").to_owned(),
        }
    }

    /// Returns the message that was answered, if there was one.
    pub(crate) fn answered(&self) -> Option<Value> {
        serde_json::from_str(self.text("answer")).ok()
    }

    /// Returns the messages of the envelope that was answered.
    pub(crate) fn handed(&self) -> Vec<Value> {
        contents(&self.answered().unwrap_or_default())
    }

    /// Says whether it is at a place for components, where tokens and labels are those of
    /// the supervisor.
    fn is_towards_components(&self) -> bool {
        ["/register/", "/show/"].iter().any(|place| self.text("path").starts_with(place))
    }

    /// Says whether who asked is a component of the reference, which all let their
    /// supervisor say when they come again.
    pub(crate) fn is_of_component(&self) -> bool {
        self.peer().identity.unit().is_none_or(|unit| unit == "Components")
    }

    /// Returns who asked.
    fn peer(&self) -> Peer {
        Peer { identity: identity(self.text("who")), features: Features::NONE }
    }
}

/// Returns the messages of an envelope.
fn contents(envelope: &Value) -> Vec<Value> {
    envelope["contents"].as_array().cloned().unwrap_or_default()
}

/// Returns who has this certificate: its names with dots; who has none, has none.
pub(crate) fn identity(names: &str) -> Identity {
    let names: Vec<_> = names.split('.').filter(|name| !name.is_empty()).collect();
    let Some(unit) = names.iter().rev().nth(1) else {
        return Identity::unauthenticated();
    };
    Identity::new(names.iter().map(|name| (*name).into()), Some(unit))
}

/// A decision that is seen in many answers: what is recorded becomes what holds here.
pub(crate) struct Decision {
    /// The decision.
    pub(crate) why: &'static str,
    /// Makes it hold; says whether it makes a difference to this answer.
    pub(crate) apply: fn(&Exchange, &mut Essence) -> bool,
}

/// How long to wait for a result.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wait {
    /// Not at all.
    Not,
    /// As long as may be.
    Long,
}

/// A replay of a record.
pub(crate) struct Replay {
    router: Router,
    record: &'static str,
    comparison: Comparison,
    decisions: &'static [Decision],
    used: Vec<bool>,
    /// Names in the record, and those that stand for them here.
    names: Vec<(String, String)>,
    cases: usize,
}

impl Replay {
    /// Starts to send what is recorded to a router.
    pub(crate) fn new(
        record: &'static str,
        router: Router,
        decisions: &'static [Decision],
    ) -> Self {
        Self {
            router,
            record,
            comparison: Comparison::with(&format!("exchanges-{record}")),
            decisions,
            used: vec![false; decisions.len()],
            names: Vec::new(),
            cases: 0,
        }
    }

    /// Sends a request; returns the answer.
    pub(crate) async fn send(&mut self, request: &Exchange) -> Answer {
        let names = self.names.iter().filter(|_| request.is_towards_components());
        let body = names.fold(request.body().to_owned(), |body, (theirs, ours)| {
            body.replace(&quoted(theirs), &quoted(ours))
        });
        ask(&mut self.router, request.peer(), &request.0, body).await
    }

    /// Sends a message that is not recorded, as a client without certificate; returns the
    /// answer at once, or with the result.
    pub(crate) async fn post(&mut self, message: &Value, wait: Wait) -> Answer {
        let wait = match wait {
            Wait::Not => "wait=0",
            Wait::Long => "wait=20",
        };
        let headers = serde_json::json!({"content-type": MEDIA_TYPE, "prefer": wait});
        let request =
            serde_json::json!({"method": "POST", "path": "/", "headers": headers});
        let peer = Peer { identity: identity(""), features: Features::NONE };
        ask(&mut self.router, peer, &request, message.to_string()).await
    }

    /// Compares something with what was recorded.
    pub(crate) fn check(&mut self, case: &str, recorded: &str, found: &str) {
        self.comparison.check(case, recorded, found);
        self.cases += 1;
    }

    /// Sends a recorded request and compares the answer with the recorded one. What asks
    /// for something that is to come is sent until it is there.
    pub(crate) async fn exchange(&mut self, exchange: &Exchange) {
        let case = format!("{} {}", self.cases, exchange.what());
        let mut recorded = Essence::of(&exchange.answer(), exchange.body());
        for (decision, used) in self.decisions.iter().zip(&mut self.used) {
            *used |= (decision.apply)(exchange, &mut recorded);
        }
        let recorded = recorded.to_string();
        let expected = self.comparison.expected(&case, &recorded).to_owned();
        let is_redemption = exchange.body().contains("\"redemption\"");
        let started = Instant::now();
        let found = loop {
            let answer = self.send(exchange).await;
            self.learn(exchange, &answer);
            let names = self.names.iter().filter(|_| exchange.is_towards_components());
            let body = names.fold(answer.body.clone(), |body, (theirs, ours)| {
                body.replace(&quoted(ours), &quoted(theirs))
            });
            let found = Essence::of(&Answer { body, ..answer }, exchange.body());
            let found = found.to_string();
            if found == expected || !is_redemption || started.elapsed() > DEADLINE {
                break found;
            }
            pause().await;
        };
        self.check(&case, &recorded, &found);
    }

    /// Learns the names of what is handed out: tokens are our own, and serials.
    fn learn(&mut self, exchange: &Exchange, answer: &Answer) {
        let answer = serde_json::from_str(&answer.body).unwrap_or_default();
        let mut ours = contents(&answer);
        for theirs in exchange.handed() {
            let scope = |message: &Value| {
                message["when"].as_str().map(|when| when.trim_end().to_owned())
            };
            let is_same = |ours: &Value| {
                ["specification", "parameters", "results"]
                    .iter()
                    .all(|key| ours[key] == theirs[key])
                    && scope(ours) == scope(&theirs)
            };
            if theirs["specification"].is_null() {
                continue;
            }
            let Some(index) = ours.iter().position(is_same) else { continue };
            let ours = ours.remove(index);
            let theirs = (text(&theirs, "token"), text(&theirs, "label"));
            let ours = (text(&ours, "token"), text(&ours, "label"));
            self.names.push((theirs.0, ours.0));
            if without_serial(&theirs.1) == without_serial(&ours.1) {
                self.names.push((theirs.1, ours.1));
            }
        }
        for other in ours {
            if !other["specification"].is_null() {
                self.names.push(("another".to_owned(), text(&other, "token")));
            }
        }
    }

    /// Ends the replay.
    pub(crate) fn finish(self) {
        for (decision, used) in self.decisions.iter().zip(self.used) {
            assert!(used, "{}: no difference: {}", self.record, decision.why);
        }
        self.comparison.finish(self.cases);
    }
}

/// Waits a little in real time, whatever the clock of the test says.
pub(crate) async fn pause() {
    let pause = || std::thread::sleep(Duration::from_millis(10));
    tokio::task::spawn_blocking(pause).await.expect("it does not panic");
}

/// Returns the text of a message at a key.
fn text(message: &Value, key: &str) -> String {
    message[key].as_str().expect("it has this key").to_owned()
}

/// Returns text as it stands in JSON.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Asks a router.
pub(crate) async fn ask(
    router: &mut Router,
    peer: Peer,
    request: &Value,
    body: impl Into<Body>,
) -> Answer {
    let mut builder = Request::builder()
        .method(text(request, "method").as_str())
        .uri(text(request, "path"))
        .extension(peer);
    for (name, value) in request["headers"].as_object().into_iter().flatten() {
        builder = builder.header(name, value.as_str().expect("a header is text"));
    }
    let request = builder.body(body.into()).expect("a request");
    let response = router.call(request).await.expect("it answers always");
    let status = u64::from(response.status().as_u16());
    let content_type = response.headers().get(http::header::CONTENT_TYPE);
    let content_type = content_type.map_or("", |value| value.to_str().expect("text"));
    let content_type = content_type.to_owned();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    let body = String::from_utf8_lossy(&body).into_owned();
    Answer { status, content_type, body }
}

/// Applies to the messages in an answer; says whether to one at least.
pub(crate) fn each(
    essence: &mut Essence,
    mut apply: impl FnMut(&mut Value) -> bool,
) -> bool {
    let Content::Json(json) = &mut essence.content else { return false };
    let mut applied = apply(json);
    let contents = json.get_mut("contents").and_then(Value::as_array_mut);
    for content in contents.into_iter().flatten() {
        applied |= apply(content);
    }
    applied
}

/// Capabilities are used where they were found.
pub(crate) const NO_LINK: Decision = Decision {
    why: "capabilities have no link: clients ask where they have found them, section 7",
    apply: |_, recorded| {
        each(recorded, |message| {
            !message["capability"].is_null()
                && message.as_object_mut().is_some_and(|it| it.remove("link").is_some())
        })
    },
};

/// The blank after an inner scope.
pub(crate) const NO_BLANK: Decision = Decision {
    why: "the blank after an inner scope is for hashes only, section 5",
    apply: |_, recorded| {
        each(recorded, |message| {
            let Some(when) = message["when"].as_str() else { return false };
            let trimmed = when.trim_end().to_owned();
            let is_longer = trimmed != when;
            if is_longer {
                message["when"] = trimmed.into();
            }
            is_longer
        })
    },
};

/// What envelopes say of themselves.
pub(crate) const KIND_OF_RESULTS: Decision = Decision {
    why: "an envelope of results says so, as the specification writes it",
    apply: |_, recorded| {
        each(recorded, |message| {
            let is_of_results = !message["contents"][0]["result"].is_null();
            if is_of_results {
                message["envelope"] = "result".into();
            }
            is_of_results
        })
    },
};
