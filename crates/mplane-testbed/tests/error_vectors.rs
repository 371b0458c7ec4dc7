//! Damaged and unusual messages against answers recorded from the reference
//! implementation: whether they are read, and what is made of them.

use mplane::json::{Form, decode, encode};
use mplane_testbed::vectors::{self, Comparison, REFUSED};
use serde_json::Value as Json;

/// Returns the input of a case. Deeply nested ones are recorded by name only.
fn input(case: &Json) -> String {
    if let Some(input) = case["json"].as_str() {
        return input.to_owned();
    }
    let name = case["name"].as_str().expect("a name");
    let depth = name.split(' ').find_map(|word| word.parse().ok()).expect("a depth");
    let nested = if name.starts_with("envelopes") {
        let inner = r#"{"envelope":"message","contents":[]}"#;
        let (open, close) = (r#"{"envelope":"message","contents":["#, "]}");
        // The innermost envelope is one of those counted.
        format!("{}{inner}{}", open.repeat(depth - 1), close.repeat(depth - 1))
    } else {
        let head = r#"{"capability":"measure","registry":"http://ict-mplane.eu/registry/core","when":"now","label":"#;
        format!("{head}{}{}}}", "[".repeat(depth), "]".repeat(depth))
    };
    let length = case["json"]["length"].as_u64().expect("a length");
    assert_eq!(nested.len() as u64, length, "{name}");
    let prefix = case["json"]["prefix"].as_str().expect("a prefix");
    assert!(nested.starts_with(prefix), "{name}");
    nested
}

#[test]
fn accepts_and_refuses_what_is_recorded() {
    let registries = vectors::registries();
    let mut comparison = Comparison::with("errors");
    let (mut tokens, mut summaries) = (0, 0);
    for case in vectors::load("errors.json")["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let recorded = if case["parse"] == "accepted" { "read" } else { REFUSED };
        let read = decode(input(case).as_bytes(), &registries);
        let found = if read.is_ok() { "read" } else { REFUSED };
        comparison.check(name, recorded, found);
        let (Ok(message), "read") = (read, recorded) else { continue };

        assert_eq!(case["kind"], message.kind().key(), "{name}");
        if let Some(token) = case["token"].as_str() {
            let found =
                message.token().map_or_else(String::new, |token| token.to_string());
            comparison.check(&format!("{name}: token"), token, &found);
            tokens += 1;
        }
        if let Some(summary) = case["repr"].as_str() {
            let found = message.to_string();
            // Long ones were cut when they were recorded.
            let found = found.get(..summary.len()).unwrap_or(&found);
            comparison.check(&format!("{name}: summary"), summary, found);
            summaries += 1;
        }
        let written = encode(&message, Form::REFERENCE);
        let again = decode(&written, &registries).expect("what was written");
        assert_eq!(encode(&again, Form::REFERENCE), written, "{name}");
    }
    assert!(tokens > 30 && summaries > 30, "{tokens} {summaries}");
    comparison.finish(137 + tokens + summaries);
}
