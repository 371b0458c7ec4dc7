//! A supervisor of ours calls a listening component of the reference, recorded.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use mplane_supervisor::caller::{Callee, call};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::essence::{Answer, Essence, message};
use crate::peer::Scripted;
use crate::replay::{DEADLINE, Exchange, Replay, Wait, pause};
use crate::supervisor::supervisor;

const RECORD: &str = "supervisor-calls";

/// Returns what is said of something that is not there.
fn nothing() -> Answer {
    Answer { status: 404, content_type: "text/html".to_owned(), body: String::new() }
}

#[tokio::test]
async fn a_supervisor_asks_a_recorded_component_that_listens_as_recorded() {
    let exchanges = Exchange::load(RECORD);
    let Some(posted) = exchanges.iter().find(|exchange| !exchange.body().is_empty())
    else {
        panic!("a specification")
    };
    let asked: Value = serde_json::from_str(posted.body()).expect("a specification");
    let answers: Vec<_> =
        exchanges.iter().map(|exchange| (exchange.what(), exchange.answer())).collect();
    let recorded_token = asked["token"].as_str().expect("a token").to_owned();
    let (component, _listening) = Scripted::start(move |came, authority| {
        let answer = answers.iter().find(|(what, _)| *what == came.what);
        let Some((_, answer)) = answer else { return nothing() };
        let token = serde_json::from_str::<Value>(&came.body);
        let token = token.map_or(Value::Null, |message| message["token"].clone());
        let body = answer
            .body
            .replace("127.0.0.1:18890", authority)
            .replace(&recorded_token, token.as_str().unwrap_or_default());
        Answer { body, ..answer.clone() }
    })
    .await;

    let folder = tempfile::tempdir().expect("a folder");
    let supervisor = supervisor(&folder).await;
    let callee = Callee { url: component.url("/"), credentials: None };
    let end = CancellationToken::new();
    tokio::spawn(call(Arc::clone(&supervisor), callee, end.clone()));
    let links =
        exchanges.iter().filter(|exchange| exchange.what().contains("/capability/"));
    let links = links.count();
    let fetched = |came: &[crate::peer::Came]| {
        came.iter().filter(|came| came.what.contains("/capability/")).count() == links
    };
    let came = component.wait_for(fetched).await;

    let mut replay = Replay::new(RECORD, supervisor.router(), &[]);
    // What it asks for to know what there is.
    let got: BTreeSet<_> =
        came.iter().filter(|came| came.body.is_empty()).map(|came| &came.what).collect();
    for recorded in exchanges.iter().filter(|exchange| exchange.body().is_empty()) {
        let found = if got.contains(&recorded.what()) { "asked" } else { "not asked" };
        replay.check(&recorded.what(), "asked", found);
    }
    let what = "GET /capabilities".to_owned();
    let found = if got.contains(&what) { "asked" } else { "not asked" };
    replay.check(&what, "not asked", found);

    // It is offered to clients as soon as it is registered.
    let is_slow = |exchange: &&Exchange| {
        exchange.answered().is_some_and(|known| known["label"] == "peer-slow")
    };
    let slow = exchanges.iter().find(is_slow).expect("the capability that was asked for");
    let started = Instant::now();
    while replay.send(slow).await.status != 200 {
        assert!(started.elapsed() < DEADLINE, "it is not registered");
        pause().await;
    }

    // A client asks for what was recorded; the component gets it, and the client the result.
    let mut specification = asked.clone();
    specification["token"] = "the-token-of-a-client".into();
    let answer = replay.post(&specification, Wait::Long).await;
    let came = component.wait_for(|came| came.iter().any(|it| !it.body.is_empty())).await;
    let came = came.into_iter().find(|came| !came.body.is_empty()).expect("it came");
    let essence = |message_text: &str, names: &[(&str, &str)]| {
        let text = names.iter().fold(message_text.to_owned(), |text, (from, to)| {
            text.replace(&format!("{from:?}"), &format!("{to:?}"))
        });
        let json = serde_json::from_str(&text).expect("JSON");
        message(json, "").to_string()
    };
    let sent: Value = serde_json::from_str(&came.body).expect("a message");
    let (token, label) =
        (sent["token"].as_str().expect("one"), sent["label"].as_str().expect("one"));
    assert_ne!(token, "the-token-of-a-client", "there is one for each side");
    let recorded_token = asked["token"].as_str().expect("a token");
    replay.check(
        "POST /",
        &format!("{} {}", posted.content_type(), essence(posted.body(), &[])),
        &format!(
            "{} {}",
            came.content_type,
            essence(&came.body, &[(token, recorded_token), (label, "peer-slow-0")])
        ),
    );
    assert_eq!(label.rsplit_once('-').map(|(label, _)| label), Some("peer-slow"));
    let recorded = Essence::of(&posted.answer(), "").to_string();
    let found = Essence::of(&answer, "").to_string();
    let found = found.replace("the-token-of-a-client", recorded_token);
    replay.check("the result that the client gets", &recorded, &found);
    replay.finish();
    end.cancel();
}
