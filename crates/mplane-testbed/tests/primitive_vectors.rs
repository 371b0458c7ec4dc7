//! Values against answers recorded from the reference implementation.
//!
//! `vectors/primitives.json` records what each primitive reads and writes, and what
//! becomes of native JSON values in the places where messages have values.

use mplane::json::{Form, decode, encode};
use mplane::message::Message;
use mplane::primitive::{Primitive, Value};
use mplane::registry::{CORE, Registries};
use mplane_testbed::vectors::{self, Comparison, REFUSED};
use serde_json::{Value as Json, json};

fn array(value: &Json) -> &Vec<Json> {
    value.as_array().unwrap_or_else(|| panic!("{value} is no array"))
}

fn text(value: &Json) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// Returns what a text reads as, in canonical text.
fn canonical(primitive: Primitive, text: &str) -> String {
    match Value::parse(primitive, text) {
        Ok(Some(value)) => value.to_string(),
        Ok(None) => "no value".to_owned(),
        Err(_) => REFUSED.to_owned(),
    }
}

#[test]
fn reads_and_writes_text_as_recorded() {
    let mut comparison = Comparison::with("primitives-text");
    for (name, recorded) in vectors::load("primitives.json")["primitives"]
        .as_object()
        .expect("primitives by name")
    {
        let primitive: Primitive = name.parse().unwrap();
        for case in array(&recorded["parse"]) {
            let input = text(&case["input"]);
            let expected = match (case.get("error"), &case["value"]) {
                (Some(_), _) => REFUSED,
                (None, Json::Null) => "no value",
                (None, _) => text(&case["unparse"]),
            };
            let found = canonical(primitive, input);
            comparison.check(&format!("{name} {input}"), expected, &found);
        }
        // The reference writes values of any type for any primitive. A value here is of
        // its primitive, so what is written must read as itself or be refused.
        for case in array(&recorded["unparse_native"]) {
            let output = text(&case["output"]);
            let found = canonical(primitive, output);
            if found != REFUSED {
                assert_eq!(canonical(primitive, &found), found, "{name} {output}");
            }
        }
    }
    comparison.finish(123);
}

/// Returns a message with a native JSON value in some place.
fn message(place: &str, element: &str, value: &Json) -> Json {
    let mut message = json!({"version": 1, "registry": CORE, "when": "now"});
    match place {
        "specification parameter" => {
            message["specification"] = "measure".into();
            message["parameters"] = json!({ element: value });
        }
        "capability constraint" => {
            message["capability"] = "measure".into();
            message["parameters"] = json!({ element: value });
        }
        "metadata" => {
            message["capability"] = "measure".into();
            message["metadata"] = json!({ element: value });
        }
        "resultvalue" => {
            message["result"] = "measure".into();
            message["results"] = json!([element]);
            message["resultvalues"] = json!([[value]]);
        }
        other => panic!("no place is called {other}"),
    }
    message
}

/// Returns the value of a message written again for a reference peer.
fn rewritten(message: &Message, place: &str, element: &str) -> Json {
    let written: Json =
        serde_json::from_slice(&encode(message, Form::REFERENCE)).expect("JSON");
    match place {
        "metadata" => written["metadata"][element].clone(),
        "resultvalue" => written["resultvalues"][0][0].clone(),
        _ => written["parameters"][element].clone(),
    }
}

#[test]
fn reads_native_values_in_messages_as_recorded() {
    let registries = Registries::embedded();
    let mut comparison = Comparison::with("primitives-json");
    for case in array(&vectors::load("primitives.json")["json_typed_values"]) {
        let (place, element) = (text(&case["where"]), text(&case["element"]));
        let value = &case["json"];
        // A value that is not set is refused when it is written, which is later.
        let recorded = match (case["parse"] == "ok", &case["reserialised"]) {
            (true, Json::String(text)) => text.clone(),
            (true, _) => "*".to_owned(),
            (false, _) => REFUSED.to_owned(),
        };
        let input = message(place, element, value).to_string();
        let found = match decode(input.as_bytes(), &registries) {
            Ok(message) => match rewritten(&message, place, element) {
                Json::String(text) => text,
                other => other.to_string(),
            },
            Err(_) => REFUSED.to_owned(),
        };
        let primitive = text(&case["primitive"]);
        comparison.check(&format!("{primitive} {place} {value}"), &recorded, &found);
    }
    comparison.finish(332);
}
