//! A client of ours asks components that say what clients of the reference were told.

use std::collections::BTreeSet;

use mplane::exchange::client::MeasurementState;
use mplane::primitive::Value as Cell;
use mplane_runtime::client::Client;
use mplane_testbed::vectors::{self, Comparison};
use serde_json::Value;

use crate::essence::Answer;
use crate::peer::Scripted;

/// Returns an answer as it is written in a case; what is not there is not found.
fn written(answer: &Value, authority: &str, token: &str) -> Answer {
    let text = |key: &str| answer[key].as_str().unwrap_or_default();
    Answer {
        status: answer["status"].as_u64().unwrap_or(404),
        content_type: text("type").to_owned(),
        body: text("answer")
            .replace("HOST", authority)
            .replace("\"T\"", &Value::from(token).to_string()),
    }
}

/// Returns the texts of a list.
fn texts(list: &Value) -> BTreeSet<String> {
    let texts = list.as_array().into_iter().flatten();
    texts.filter_map(|text| text.as_str().map(ToOwned::to_owned)).collect()
}

/// Asks for what is offered, and for a measurement if the case has a reply to it; says what
/// the client asks for, and what it makes of the answers.
async fn run(case: Value) -> String {
    let script = case.clone();
    let (component, _listening) = Scripted::start(move |came, authority| {
        let asked: Value = serde_json::from_str(&came.body).unwrap_or_default();
        let token = asked["token"].as_str().unwrap_or_default();
        let answer = match came.what.as_str() {
            "GET /capabilities" => &script["capabilities"],
            "GET /capability" => &script["page"],
            what if what.starts_with("POST") => &script["reply"],
            what => &script["places"][what.trim_start_matches("GET ")],
        };
        written(answer, authority, token)
    })
    .await;
    let mut client = Client::new(None, component.url("/"), vectors::registries());
    let discovered = client.discover().await;
    let word = if discovered.is_ok() { "goes on" } else { "fails" };
    if case["reply"].is_null() {
        let came = component.came();
        let asked = came.iter().filter_map(|came| came.what.strip_prefix("GET "));
        let asked: BTreeSet<_> =
            asked.filter(|path| !path.starts_with("/capabilit")).collect();
        let known = client.known().capabilities();
        let learned: BTreeSet<_> =
            known.filter_map(|(_, capability)| capability.label()).collect();
        return format!("asks {asked:?}, learns {learned:?}, {word}");
    }
    let when = "now".parse().expect("a scope");
    let parameters = [("destination.ip4", "127.0.0.9"), ("source.port", "5")];
    let wait = std::time::Duration::ZERO;
    let outcome = match client.run("c", when, parameters, wait).await {
        Err(_) => "fails".to_owned(),
        Ok(measurement) => match measurement.state {
            MeasurementState::Sent => "nothing".to_owned(),
            MeasurementState::Promised(_) => "receipt".to_owned(),
            MeasurementState::Failed(_) => "exception".to_owned(),
            MeasurementState::Results(_) => "results".to_owned(),
            MeasurementState::Result(result) => {
                let rows = result.table().iter();
                let cells: Vec<_> =
                    rows.flat_map(|row| row.values()).map(shown).collect();
                format!("result {cells:?}")
            }
        },
    };
    let came = component.came();
    let posted: Vec<_> =
        came.iter().filter_map(|came| came.what.strip_prefix("POST ")).collect();
    format!("posts {posted:?}, {outcome}")
}

/// Returns a cell as the reference shows it.
fn shown(cell: Option<Cell>) -> String {
    let text = cell.map_or_else(|| "None".to_owned(), |cell| cell.to_string());
    text.trim_end_matches(".000000").to_owned()
}

#[tokio::test]
async fn a_client_makes_of_answers_what_recorded_clients_made_of_them() {
    let record = vectors::load("exchanges/client-scripted.json");
    let mut comparison = Comparison::with("exchanges-client-scripted");
    let cases = record["rows"].as_array().expect("a list of cases");
    for case in cases {
        let text = |key: &str| case[key].as_str().expect("it has this key");
        let recorded = if case["reply"].is_null() {
            let (asks, learns) = (texts(&case["asks"]), texts(&case["learns"]));
            format!("asks {asks:?}, learns {learns:?}, {}", text("recorded"))
        } else {
            let posts: Vec<_> = texts(&case["posts"]).into_iter().collect();
            format!("posts {posts:?}, {}", text("recorded"))
        };
        comparison.check(text("name"), &recorded, &run(case.clone()).await);
    }
    comparison.finish(cases.len());
}
