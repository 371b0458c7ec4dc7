//! Tests of reading and writing: what errors say, what limits hold, and properties.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::constraint::Constraint;
use crate::limits;
use crate::message::{
    Capability, Envelope, Exception, Indirection, Interrupt, Message, Parameter, Receipt,
    Redemption, ResultStatement, Specification, Statement, Table, Withdrawal,
};
use crate::primitive::{List, Primitive, Value};
use crate::registry::{CORE, Element, Registries};
use crate::when::When;

fn read(input: &str) -> Result<Message, String> {
    decode(input.as_bytes(), &Registries::embedded()).map_err(|error| error.to_string())
}

fn error(message: &Json) -> String {
    read(&message.to_string()).unwrap_err()
}

#[test]
fn errors_name_the_place_within_the_message() {
    for (message, expected) in [
        (
            json!({"specification": "measure", "parameters": {"source.port": -1}}),
            "at /parameters/source.port: \"-1\" is not of type natural: naturals are not \
             negative",
        ),
        (
            json!({"capability": "measure", "parameters": {"source.port": "1 ... x"}}),
            "at /parameters/source.port: an end of a range: \"x\" is not of type natural: \
             expected an integer that is not negative, such as 42",
        ),
        (
            json!({"capability": "measure", "parameters": {"a/b~c": "*"}}),
            "at /parameters/a~1b~0c: no element is called \"a/b~c\" in any known registry; \
             preload the registry that defines it",
        ),
        (
            json!({"specification": "measure", "parameters": {"source.port": [1, "x"]}}),
            "at /parameters/source.port/1: \"x\" is not of type natural: expected an \
             integer that is not negative, such as 42",
        ),
        (
            json!({"capability": "measure", "when": "now +1s"}),
            "at /when: at byte 3: expected ` ... `, ` + `, ` / ` or the end, found \" +1s\"",
        ),
        (
            json!({"capability": "measure", "metadata": 5}),
            "at /metadata: invalid type: integer `5`, expected an object of element names \
             and values",
        ),
        (
            json!({"capability": "measure", "results": ["time", 5]}),
            "at /results/1: expected the name of an element, found a number",
        ),
        (
            json!({"result": "measure", "results": ["time", "rtt.ms"],
                "resultvalues": [["now", 1], ["now", "x"]]}),
            "at /resultvalues/1/1: rtt.ms: \"x\" is not of type natural: expected an \
             integer that is not negative, such as 42",
        ),
        (
            json!({"result": "measure", "results": ["time"], "resultvalues": [["now", 1]]}),
            "at /resultvalues/0: more values than there are result columns",
        ),
        (
            json!({"result": "measure", "results": ["time"], "resultvalues": [5]}),
            "at /resultvalues/0: invalid type: integer `5`, expected a row, which is an \
             array of values",
        ),
        (
            json!({"envelope": "message", "contents": [{"exception": "t", "message": "m"},
                {"capability": "measure", "label": {}}]}),
            "at /contents/1/label: expected text, found an object",
        ),
        (
            json!({"capability": "measure", "version": 3}),
            "at /version: protocol versions 1 and 2 are spoken here, as a number",
        ),
        (
            json!({"capability": "measure", "registry": "urn:x", "results": ["time"]}),
            "at /results/0: registry \"urn:x\" of element \"time\" is not known; preload \
             its file",
        ),
        (
            json!({"indirection": "measure", "token": "t"}),
            "in the message: an indirection has a link, the URL of the other component",
        ),
        (
            json!({"exception": "t"}),
            "in the message: an exception has a message, which says what failed",
        ),
        (
            json!({"greeting": "hello"}),
            "in the message: no key says what kind of message this is; one of capability, \
             specification, result, receipt, redemption, withdrawal, interrupt, \
             indirection, exception or envelope does",
        ),
        (
            json!([]),
            "in the message: invalid type: sequence, expected a message, which is an object",
        ),
    ] {
        assert_eq!(error(&message), expected, "{message}");
    }
}

#[test]
fn errors_name_the_place_in_broken_json() {
    for (input, expected) in [
        (
            "{\"capability\": \"measure\",\n 5}",
            "at line 2 column 2: key must be a string",
        ),
        (
            "{\"capability\": \"measure\"",
            "at line 1 column 24: EOF while parsing an object",
        ),
        (
            "{\"exception\":null,\"message\":\"m\"} x",
            "at line 1 column 34: trailing characters",
        ),
        (
            "{\"capability\": \"measure\", \"label\": \"\\ud800\"}",
            "at line 1 column 43: unexpected end of hex escape",
        ),
    ] {
        assert_eq!(read(input).unwrap_err(), expected, "{input}");
    }
    let error = decode(b"{\"label\": \"\xff\"}", &Registries::embedded()).unwrap_err();
    assert_eq!(error.to_string(), "at byte 11: messages are UTF-8, this is not");
}

#[test]
fn duplicates_are_refused_wherever_they_stand() {
    for (input, expected) in [
        (
            r#"{"capability":"measure","label":"a","label":"b"}"#,
            "at /label: this key stands there twice",
        ),
        (
            r#"{"capability":"measure","capability":"query"}"#,
            "at /capability: this key stands there twice",
        ),
        (
            r#"{"capability":"measure","parameters":{"time":"*","time":"now"}}"#,
            "at /parameters/time: \"time\" is there already",
        ),
        (
            r#"{"capability":"measure","metadata":{"time":"now","time":"now"}}"#,
            "at /metadata/time: \"time\" is there already",
        ),
    ] {
        assert_eq!(read(input).unwrap_err(), expected, "{input}");
    }
    // Elements may be in several result columns, as the reference allows.
    assert!(read(r#"{"capability":"measure","results":["time","time"]}"#).is_ok());
}

#[test]
fn deep_nesting_is_refused_and_never_overflows() {
    let nested = |depth: usize| {
        let inner = r#"{"envelope":"message","contents":[]}"#;
        let open = r#"{"envelope":"message","contents":["#.repeat(depth);
        read(&format!("{open}{inner}{}", "]}".repeat(depth)))
    };
    assert!(nested(limits::ENVELOPE_DEPTH - 1).is_ok());
    assert!(
        nested(limits::ENVELOPE_DEPTH).unwrap_err().ends_with("nest at most 16 deep")
    );
    assert!(nested(100_000).is_err());
    let arrays = |section: &str, depth: usize| {
        let arrays = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        read(&format!(r#"{{"capability":"measure","{section}":{arrays}}}"#))
    };
    for section in ["label", "parameters", "results", "version"] {
        assert!(arrays(section, 100_000).is_err(), "{section}");
    }
    // What has no meaning, or none in a capability, is skipped, however deep.
    for section in ["comment", "contents", "resultvalues"] {
        assert!(arrays(section, 100_000).is_ok(), "{section}");
    }
    let object = |depth: usize| {
        let object = format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        Value::parse(Primitive::Object, &object)
    };
    assert!(object(limits::OBJECT_DEPTH).is_ok());
    assert!(object(limits::OBJECT_DEPTH + 1).is_err() && object(100_000).is_err());
}

#[test]
fn huge_numbers_are_read_exactly_or_refused() {
    let real = |number: &str| {
        read(&format!(r#"{{"capability":"measure","metadata":{{"snr":{number}}}}}"#))
    };
    assert!(real("1e308").is_ok());
    assert!(real("1e309").unwrap_err().ends_with("number out of range"));
    assert!(real(&"9".repeat(100_000)).unwrap_err().ends_with("number out of range"));
    assert!(real(&format!("0.{}", "9".repeat(100_000))).is_ok());
    let natural = |number: &str| {
        read(&format!(r#"{{"capability":"measure","metadata":{{"rtt.ms":{number}}}}}"#))
    };
    let Ok(Message::Capability(exact)) = natural("18446744073709551615") else {
        panic!()
    };
    assert_eq!(exact.find_metadata("rtt.ms"), Some(&Value::Natural(u64::MAX)));
    assert!(natural("18446744073709551616").unwrap_err().contains("naturals go up to"));
}

#[test]
fn limits_are_named() {
    let registries = Registries::embedded();
    let too_long = vec![b' '; 90 << 20];
    assert_eq!(
        decode(&too_long, &registries).unwrap_err().to_string(),
        "at byte 67108864: a message has at most 67108864 bytes"
    );
    let text = |key: &str, length: usize| {
        let mut message = json!({"capability": "measure"});
        message[key] = "x".repeat(length).into();
        error(&message)
    };
    assert_eq!(text("label", 513), "at /label: there are at most 512 bytes here");
    assert_eq!(text("token", 257), "at /token: there are at most 256 bytes here");
    assert_eq!(text("capability", 65), "at /capability: there are at most 64 bytes here");
    assert_eq!(text("link", 8193), "at /link: there are at most 8192 bytes here");
    let names = vec!["time"; limits::SECTION_ENTRIES + 1];
    assert_eq!(
        error(&json!({"capability": "measure", "results": names})),
        "at /results: there are at most 1024 result columns"
    );
    let list = vec![1; limits::LIST_MEMBERS + 1];
    assert_eq!(
        error(&json!({"specification": "measure", "parameters": {"source.port": list}})),
        "at /parameters/source.port: there are at most 4096 members of a list"
    );
    let contents = vec![json!({}); limits::ENVELOPE_CONTENTS + 1];
    assert_eq!(
        error(&json!({"envelope": "message", "contents": contents})),
        "at /contents: there are at most 16384 messages"
    );
    let set = vec!["1"; limits::CONSTRAINT_MEMBERS].join(",");
    let capability = json!({"capability": "measure", "parameters": {"source.port": set}});
    let envelope = json!({"envelope": "message", "contents": vec![capability; 16]});
    assert_eq!(
        error(&envelope),
        "at /contents/15/parameters/source.port: sets and lists of one message have at \
         most 1000000 members in all"
    );
    let rows = format!(
        r#"{{"result":"measure","results":["time"],"resultvalues":[{}[]]}}"#,
        "[],".repeat(limits::RESULT_ROWS)
    );
    assert_eq!(
        read(&rows).unwrap_err(),
        "at /resultvalues: there are at most 1000000 rows in a result"
    );
}

#[test]
fn reference_peers_get_ranges_for_networks() {
    let registries = Registries::embedded();
    let statement = Statement::measure(When::now_to_future())
        .parameter(&registries, "destination.ip4", "10.0.0.0/8")
        .unwrap();
    let message = Capability::new(statement).into();
    let written = |form| {
        let json: Json = serde_json::from_slice(&encode(&message, form)).unwrap();
        json["parameters"]["destination.ip4"].clone()
    };
    assert_eq!(written(Form::REFERENCE), "10.0.0.0 ... 10.255.255.255");
    assert_eq!(written(Form::NATIVE), "10.0.0.0/8");
}

/// Makes values of an element.
fn values(primitive: Primitive) -> BoxedStrategy<Value> {
    let parsed = move |text: String| Value::parse(primitive, &text).ok().flatten();
    let text = match primitive {
        Primitive::String | Primitive::Url => any::<String>().boxed(),
        Primitive::Natural => any::<u64>().prop_map(|n| n.to_string()).boxed(),
        Primitive::Real => any::<f64>().prop_map(|n| format!("{n:?}")).boxed(),
        Primitive::Bool => any::<bool>().prop_map(|b| b.to_string()).boxed(),
        Primitive::Time => prop_oneof![
            Just("now".to_owned()),
            (1_000..9_000_u16, 1..13_u8, 1..29_u8, 0..1_000_000_u32)
                .prop_map(|(y, m, d, u)| format!("{y:04}-{m:02}-{d:02} 12:00:00.{u:06}")),
        ]
        .boxed(),
        Primitive::Address => prop_oneof![
            any::<std::net::IpAddr>().prop_map(|ip| ip.to_string()),
            any::<u8>().prop_map(|n| format!("{n}.0.0.0/8")),
            any::<u8>().prop_map(|n| format!("fe80::1%eth{n}")),
        ]
        .boxed(),
        Primitive::Object => any::<String>()
            .prop_map(|text| json!({ &text: [text, null, 1.5] }).to_string())
            .boxed(),
    };
    text.prop_filter_map("no value", parsed).boxed()
}

/// Returns elements of every primitive.
fn elements() -> Vec<Arc<Element>> {
    let file =
        br#"{"registry-format": "mplane-0", "registry-uri": "urn:test", "elements":
        [{"name": "object", "prim": "object"}]}"#;
    let mut registries = Registries::embedded();
    registries.load(&[file]).unwrap();
    let core =
        ["measurement.identifier", "source.port", "snr", "connectivity.ip", "time"];
    let more = ["destination.ip4", "destination.url", "object"];
    core.iter()
        .chain(&more)
        .map(|name| Arc::clone(registries.element(CORE, name).unwrap()))
        .collect()
}

/// Makes an element with some values of it, some missing.
fn columns() -> impl Strategy<Value = Vec<(Arc<Element>, Vec<Option<Value>>)>> {
    let columns = elements().into_iter().map(|element| {
        let value = prop::option::of(values(element.primitive()));
        prop::collection::vec(value, 3).prop_map(move |v| (Arc::clone(&element), v))
    });
    columns.collect::<Vec<_>>()
}

/// Makes a message of each kind of the same content.
fn messages() -> impl Strategy<Value = Vec<Message>> {
    let texts = prop::option::of("[a-z0-9 ]{1,20}");
    (columns(), texts.clone(), texts, any::<bool>()).prop_map(
        |(columns, label, link, list)| {
            let when = "repeat now + 1h / 5m { now + 10s / 1s }".parse().unwrap();
            let mut chosen = Statement::new("measure", CORE, when);
            chosen.set_label(label.clone());
            chosen.set_link(link.clone());
            let mut allowed = chosen.clone();
            let mut table = Table::new(columns.iter().map(|(element, _)| element));
            for (element, values) in &columns {
                let set: Vec<_> = values.iter().flatten().cloned().collect();
                let value = match List::new(set.clone()) {
                    Some(several) if list => Some(Value::List(several)),
                    _ => values.first().cloned().flatten(),
                };
                let parameter = Parameter::with_value(Arc::clone(element), value);
                chosen.add_parameter(parameter).unwrap();
                // The notation has no way to write these in texts.
                let special = [',', '[', '*'];
                let plain = |value: &Value| {
                    let text = value.to_string();
                    !text.contains(special) && !text.contains(char::is_whitespace)
                };
                let constraint = Constraint::one_of(set)
                    .filter(|_| values.iter().flatten().all(plain))
                    .filter(|_| element.primitive() != Primitive::Object)
                    .unwrap_or(Constraint::Any);
                let parameter = Parameter::new(Arc::clone(element), constraint);
                allowed.add_parameter(parameter).unwrap();
                let last = values.last().cloned().flatten();
                for statement in [&mut chosen, &mut allowed] {
                    statement.add_metadata(Arc::clone(element), last.clone()).unwrap();
                    statement.add_column(Arc::clone(element)).unwrap();
                }
            }
            for row in 0..3 {
                table.push(columns.iter().map(|(_, values)| values[row].clone()));
            }
            let capability = Capability::new(allowed.clone());
            let specification = Specification::new(chosen.clone());
            allowed.set_link(Some("https://b/".to_owned()));
            let mut envelope = Envelope::of(vec![capability.clone().into()]);
            envelope.set_label(label);
            vec![
                Withdrawal::of(&capability).into(),
                Receipt::of(&specification).into(),
                Redemption::token_only("measure", specification.token()).into(),
                Interrupt::of(&specification).into(),
                Indirection::new(allowed).into(),
                capability.into(),
                specification.into(),
                ResultStatement::new(chosen, table).into(),
                Exception::new(None, link.unwrap_or_default()).into(),
                envelope.into(),
            ]
        },
    )
}

/// Returns a registry for the elements of [`elements`].
fn registries() -> Registries {
    let mut registries = Registries::embedded();
    let file =
        br#"{"registry-format": "mplane-0", "registry-uri": "urn:test", "elements":
        [{"name": "object", "prim": "object"}]}"#;
    registries.load(&[file]).unwrap();
    registries
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn reads_what_it_writes_in_every_form(messages in messages()) {
        let registries = registries();
        for form in [Form::NATIVE, Form::FILE, Form::REFERENCE] {
            for message in &messages {
                let written = encode(message, form);
                let read = decode(&written, &registries).unwrap();
                let text = |bytes| String::from_utf8(bytes).unwrap();
                prop_assert_eq!(text(encode(&read, form)), text(written));
                prop_assert_eq!(read.kind(), message.kind());
                prop_assert_eq!(read.token(), message.token());
                if let (Message::Result(read), Message::Result(sent)) = (&read, message) {
                    prop_assert_eq!(read.table(), sent.table());
                    prop_assert_eq!(read.schema(), sent.schema());
                }
            }
            let all = decode_all(&encode_array(&messages, form), &registries).unwrap();
            prop_assert_eq!(all.len(), messages.len());
        }
    }

    #[test]
    fn refuses_other_bytes_without_failing(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        text in "[\\[\\]{}\":,a-z0-9 .*]{0,80}",
    ) {
        for input in [bytes.as_slice(), text.as_bytes()] {
            drop(decode(input, &registries()));
            drop(decode_all(input, &registries()));
        }
    }

    #[test]
    fn refuses_damaged_messages_without_failing(
        messages in messages(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        for message in &messages {
            let mut written = encode(message, Form::NATIVE);
            let at = at.index(written.len());
            written[at] = byte;
            drop(decode(&written, &registries()));
            written.truncate(at);
            prop_assert!(decode(&written, &registries()).is_err());
        }
    }
}

#[test]
fn one_unreadable_capability_does_not_cost_the_others() {
    let contents = r#"{"capability": "measure", "label": "a", "when": "now",
        "parameters": {"no.such": "*"}}, {"capability": "measure", "label": "b",
        "when": "now", "results": ["packets.lost"]}"#;
    let registries = Registries::embedded();
    for (input, is_array, place) in [
        (format!("[{contents}]"), true, "/0/parameters/no.such"),
        (
            format!(r#"{{"envelope": "capability", "contents": [{contents}]}}"#),
            false,
            "/contents/0/parameters/no.such",
        ),
    ] {
        let parts = decode_parts(input.as_bytes(), &registries).unwrap();
        assert_eq!(parts.is_array, is_array);
        let unreadable = parts.messages[0].as_ref().unwrap_err();
        assert_eq!(unreadable.label.as_deref(), Some("a"));
        assert_eq!(*unreadable.error.place(), Place::Pointer(place.into()));
        assert_eq!(parts.messages[1].as_ref().unwrap().label(), Some("b"));
    }
}
