//! Constraints against answers recorded from the reference implementation.
//!
//! `vectors/constraints.json` records what constraints read as and which values meet
//! them, and how parameters take values. A question that the reference fails on counts as
//! "no": the value is not taken.

use mplane::constraint::Constraint;
use mplane::message::{Specification, Statement};
use mplane::primitive::{Primitive, Value};
use mplane::registry::Registries;
use mplane::when::When;
use mplane_testbed::vectors::{self, Comparison, REFUSED};
use serde_json::Value as Json;

fn array(value: &Json) -> &Vec<Json> {
    value.as_array().unwrap_or_else(|| panic!("{value} is no array"))
}

fn text(value: &Json) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// Returns the text that stands for a value, as the reference reads it.
fn value_text(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Null => "*".to_owned(),
        other => other.to_string(),
    }
}

/// Says whether JSON stands for a value of a primitive, as a fraction does not for a
/// natural.
fn is_value_of(primitive: Primitive, json: &Json) -> bool {
    match primitive {
        Primitive::Natural => json.is_null() || json.is_u64(),
        Primitive::Real => json.is_null() || json.is_number(),
        Primitive::Bool => !json.is_number(),
        _ => true,
    }
}

/// Returns the recorded constraint: the members of a set sorted, since the reference
/// prints them in the order of a hash table.
fn recorded(case: &Json) -> String {
    match case["type"].as_str() {
        None => REFUSED.to_owned(),
        Some("set") => {
            let members: Vec<_> =
                array(&case["members_sorted"]).iter().map(text).collect();
            members.join(",")
        }
        Some(_) => text(&case["canonical"]).to_owned(),
    }
}

#[test]
fn reads_and_prints_constraints_as_recorded() {
    let mut comparison = Comparison::with("constraints");
    let mut cases = 0;
    for (name, recorded_cases) in vectors::load("constraints.json")["constraints"]
        .as_object()
        .expect("constraints by primitive")
    {
        let primitive: Primitive = name.parse().unwrap();
        for case in array(recorded_cases) {
            let input = text(&case["input"]);
            let read = Constraint::parse(primitive, input);
            let found = match &read {
                Ok(Constraint::Set(members)) => {
                    let mut members: Vec<_> =
                        members.iter().map(ToString::to_string).collect();
                    members.sort();
                    members.join(",")
                }
                Ok(constraint) => constraint.to_string(),
                Err(_) => REFUSED.to_owned(),
            };
            comparison.check(&format!("{name} {input}"), &recorded(case), &found);
            cases += 1;
            let (Ok(constraint), Some(rows)) = (read, case["met_by"].as_array()) else {
                continue;
            };
            let single = constraint.single_value().map(ToString::to_string);
            let expected = case["single_value"].as_str();
            comparison.check(
                &format!("{name} {input} single"),
                expected.unwrap_or("none"),
                single.as_deref().unwrap_or("none"),
            );
            cases += 1;
            for row in rows {
                // The reference also tried what is no value of the primitive.
                if !is_value_of(primitive, &row[0]) {
                    continue;
                }
                let value = Value::parse(primitive, &value_text(&row[0])).unwrap();
                let met = constraint.is_met_by(value.as_ref());
                let expected = row[1] == true;
                comparison.check(
                    &format!("{name} {input} met by {}", row[0]),
                    &expected.to_string(),
                    &met.to_string(),
                );
                cases += 1;
            }
        }
    }
    assert!(cases > 300, "{cases}");
    comparison.finish(cases);
}

#[test]
fn parameters_take_values_as_recorded() {
    let registries = Registries::embedded();
    let mut comparison = Comparison::with("constraints-parameters");
    for case in array(&vectors::load("constraints.json")["parameters"]) {
        let (element, constraint) = (text(&case["element"]), text(&case["constraint"]));
        let value = value_text(&case["value"]);
        let name = format!("{element} {constraint} = {}", case["value"]);
        let statement = Statement::measure(When::now())
            .parameter(&registries, element, constraint)
            .unwrap();
        let mut specification = Specification::new(statement);
        let outcome = specification.set_parameter(element, &value);
        let found = match (&outcome, specification.value(element)) {
            (Ok(()), Some(value)) => value.to_string(),
            (Ok(()), None) => "no value".to_owned(),
            (Err(_), _) => REFUSED.to_owned(),
        };
        let recorded = match (case["set_value"] == "ok", case["stored"].as_str()) {
            (true, Some(stored)) => stored,
            (true, None) => "no value",
            (false, _) => REFUSED,
        };
        comparison.check(&name, recorded, &found);
        // Whether a value can be set, apart from taking it back.
        if value != "*" {
            let can = case["can_set_value"] == true;
            assert_eq!(can, recorded != REFUSED, "{name}");
        }
    }
    comparison.finish(26);
}
