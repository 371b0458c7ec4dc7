//! Which specifications fulfil which capabilities, against answers recorded from the
//! reference implementation.

use std::collections::BTreeMap;

use mplane::json::decode;
use mplane::message::{Capability, Message, Specification};
use mplane::when::{Instant, display_timestamp};
use mplane_testbed::vectors::{self, Comparison};

/// Returns the messages of a file of vectors that could be built, by their names.
fn messages(kind: &str) -> BTreeMap<String, Message> {
    let registries = vectors::registries();
    let file = vectors::load(&format!("messages/{kind}.json"));
    let cases = file["messages"].as_array().expect("a list of cases").iter();
    cases
        .filter_map(|case| {
            let message = decode(case["json"].as_str()?.as_bytes(), &registries);
            let message = message.expect("a message of the reference");
            Some((case["name"].as_str()?.to_owned(), message))
        })
        .collect()
}

/// Returns the time at which the answers were recorded.
fn now() -> mplane::Timestamp {
    match "2015-06-01 12:00:00".parse() {
        Ok(Instant::At(now)) => now,
        other => panic!("{other:?} is no time"),
    }
}

fn specification(
    messages: &BTreeMap<String, Message>,
    name: &str,
) -> Option<Specification> {
    match messages.get(name)? {
        Message::Specification(specification) => Some(specification.clone()),
        other => panic!("{other}"),
    }
}

fn capability(messages: &BTreeMap<String, Message>, name: &str) -> Capability {
    match &messages[name] {
        Message::Capability(capability) => capability.clone(),
        other => panic!("{other}"),
    }
}

#[test]
fn specifications_fulfil_the_recorded_capabilities() {
    let (specifications, capabilities) =
        (messages("specification"), messages("capability"));
    let mut comparison = Comparison::with("fulfills");
    let mut unset = 0;
    let mut cases = 0;
    for row in vectors::load("messages/fulfills.json")["rows"].as_array().unwrap() {
        let (spec, cap) = (row[0].as_str().unwrap(), row[1].as_str().unwrap());
        // One specification without values could be built, but not written.
        let Some(specification) = specification(&specifications, spec) else {
            assert_eq!(spec, "time-parameter-unset");
            unset += 1;
            continue;
        };
        let capability = capability(&capabilities, cap);
        let same = specification.schema() == capability.schema();
        assert_eq!(row[2], same, "{spec} {cap}");
        let recorded = row[3] == true;
        let found = specification.fulfills(&capability, now());
        comparison.check(
            &format!("{spec} {cap}"),
            &recorded.to_string(),
            &found.is_ok().to_string(),
        );
        cases += 1;
    }
    assert_eq!((cases + unset, unset), (683, 19));
    comparison.finish(cases);
}

#[test]
fn tokens_of_reference_clients_are_recognized() {
    let specifications = messages("specification");
    let mut indefinite = 0;
    for row in vectors::load("messages/retoken.json")["rows"].as_array().unwrap() {
        let name = row["name"].as_str().unwrap();
        let mut specification = specification(&specifications, name).unwrap();
        specification.set_token(None);
        let token = specification.reference_client_token(now());
        let token = token.map(|token| token.to_string());
        assert_eq!(row["token_after_retoken"].as_str(), token.as_deref(), "{name}");
        assert_eq!(row["definite"], specification.when().is_definite(), "{name}");
        indefinite += usize::from(token.is_some());
    }
    assert_eq!(indefinite, 3, "at {}", display_timestamp(now()));
}
