//! Messages against the vectors recorded from the reference implementation.
//!
//! Every message that the reference wrote is read; schema hash, token, summary and the
//! message written again are compared with what the reference recorded. Where our
//! decisions differ, the case stands in a list with its reason and what is asserted
//! instead.

use mplane::json::{Form, decode, encode};
use mplane::message::Message;
use mplane_testbed::vectors;
use serde_json::Value;

/// Cases whose token the reference computes differently after reading, since it reads
/// `export` as link. Ours is the one that the sender computed.
const EXPORTS: [&str; 3] = ["collect", "export", "link-and-export"];

fn cases(kind: &str) -> Vec<Value> {
    let file = vectors::load(&format!("messages/{kind}.json"));
    file["messages"].as_array().expect("a list of cases").clone()
}

fn read(json: &str) -> Message {
    decode(json.as_bytes(), &vectors::registries())
        .unwrap_or_else(|error| panic!("{error} in {json}"))
}

/// Cells that the reference writes in a way that it cannot read itself.
const UNREADABLE_TIME: (&str, &str, &str) = ("missing-time-cell", "None", "*");

/// Reads and compares every case of a kind; returns how many there were.
fn check(kind: &str) -> usize {
    let mut checked = 0;
    let mut failures = Vec::new();
    for case in cases(kind) {
        let name = case["name"].as_str().expect("a name");
        // Cases that record a refusal of the reference's constructor have no message.
        let Some(json) = case["json"].as_str() else { continue };
        if let Err(panic) = std::panic::catch_unwind(|| compare(kind, name, &case, json))
        {
            let text = panic.downcast_ref::<String>().map_or("", String::as_str);
            failures.push(format!("{name}: {text}"));
        }
        checked += 1;
    }
    assert!(failures.is_empty(), "{kind}:\n{}", failures.join("\n"));
    checked
}

/// Compares one case with what was recorded.
fn compare(kind: &str, name: &str, case: &Value, json: &str) {
    let message = read(json);
    assert_eq!(message.kind().key(), kind, "{name}");

    let written: Value =
        serde_json::from_slice(&encode(&message, Form::REFERENCE)).expect("JSON");
    let mut expected = case["object"].clone();
    adjust(&mut expected, &written);
    if name == UNREADABLE_TIME.0 {
        let cell = &mut expected["resultvalues"][0][0];
        assert_eq!(*cell, UNREADABLE_TIME.1);
        *cell = UNREADABLE_TIME.2.into();
    }
    assert_eq!(written, expected, "{kind} {name}");

    if let Some(schema) = case["schema_hash"].as_str()
        && let Some(found) = schema_of(&message)
    {
        assert_eq!(found, schema, "{kind} {name}");
    }
    if let Some(token) = case["token"].as_str() {
        let found = message.token().expect("a token").to_string();
        assert_eq!(found, token, "{kind} {name}");
    }
    if let Some(summary) = case["parsed_repr"].as_str() {
        assert_eq!(message.to_string(), summary, "{kind} {name}");
    }
    if matches!(kind, "capability" | "specification" | "result") {
        let recorded = if EXPORTS.contains(&name) {
            "default_token"
        } else {
            "parsed_default_token"
        };
        let Some(token) = case[recorded].as_str() else { return };
        let mut bare = case["object"].clone();
        bare.as_object_mut().expect("an object").remove("token");
        let found = read(&bare.to_string()).token().expect("a token").to_string();
        assert_eq!(found, token, "{kind} {name}");
    }
}

/// Where our form differs from the reference's: statements always state their token,
/// results their values; temporal scopes are written without a trailing blank and with
/// `*` where a crontab lists everything (their hashed text is compared by the token).
fn adjust(expected: &mut Value, written: &Value) {
    let Some(object) = expected.as_object_mut() else { return };
    if let Some(when) = object.get_mut("when") {
        let scope: mplane::when::When =
            when.as_str().expect("text").parse().expect("a temporal scope");
        *when = scope.to_string().into();
    }
    for key in ["token", "resultvalues", "when"] {
        if let Some(value) = written.get(key)
            && !object.contains_key(key)
        {
            object.insert(key.into(), value.clone());
        }
    }
    if let Some(contents) = object.get_mut("contents").and_then(Value::as_array_mut) {
        for (index, message) in contents.iter_mut().enumerate() {
            adjust(message, &written["contents"][index]);
        }
    }
    for values in ["parameters", "metadata"] {
        if object
            .get(values)
            .is_some_and(|v| v.as_object().is_some_and(serde_json::Map::is_empty))
        {
            object.remove(values);
        }
    }
}

fn schema_of(message: &Message) -> Option<String> {
    Some(match message {
        Message::Capability(capability) => capability.schema().to_string(),
        Message::Specification(specification) => specification.schema().to_string(),
        Message::Result(result) => result.schema().to_string(),
        Message::Receipt(receipt) => receipt.statement()?.schema().to_string(),
        Message::Redemption(redemption) => redemption.statement()?.schema().to_string(),
        Message::Interrupt(interrupt) => interrupt.statement()?.schema().to_string(),
        Message::Withdrawal(withdrawal) => withdrawal.statement()?.schema().to_string(),
        Message::Indirection(indirection) => indirection.schema().to_string(),
        Message::Exception(_) | Message::Envelope(_) => return None,
    })
}

#[test]
fn capabilities_read_hash_and_write_as_recorded() {
    assert!(check("capability") >= 30);
}

#[test]
fn specifications_read_hash_and_write_as_recorded() {
    assert!(check("specification") >= 28);
}

#[test]
fn results_read_hash_and_write_as_recorded() {
    assert!(check("result") >= 5);
}

#[test]
fn notifications_read_hash_and_write_as_recorded() {
    let checked: usize =
        ["receipt", "redemption", "interrupt", "withdrawal"].map(check).iter().sum();
    assert!(checked >= 20, "{checked}");
}

#[test]
fn exceptions_and_envelopes_read_and_write_as_recorded() {
    assert!(check("exception") + check("envelope") >= 8);
}
