//! Registries against what was found in the reference's files.

use std::collections::BTreeMap;

use mplane::primitive::Primitive;
use mplane::registry::{CORE, Registries, TSTAT};
use mplane_testbed::vectors::{self, Comparison};
use serde_json::Value as Json;

fn text(value: &Json) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// Returns the primitives of the elements that a registry defines itself, by name.
fn defined(registries: &Registries, uri: &str) -> BTreeMap<String, Primitive> {
    let registry = registries.registry(uri).expect("an embedded registry");
    registry
        .elements()
        .filter(|element| element.namespace() == registry.uri())
        .map(|element| (element.name().to_owned(), element.primitive()))
        .collect()
}

#[test]
fn the_core_registry_has_the_recorded_elements_in_the_recorded_order() {
    let recorded = vectors::load("registry.json")["core_elements_0.9.0"].clone();
    let registries = Registries::embedded();
    let core = registries.core().unwrap();
    let found: Vec<_> =
        core.elements().map(|element| (element.name(), element.primitive())).collect();
    let expected: Vec<_> = recorded
        .as_array()
        .unwrap()
        .iter()
        .map(|element| (text(&element["name"]), text(&element["prim"]).parse().unwrap()))
        .collect();
    assert_eq!(found, expected);
    assert_eq!(found.len(), 113);
}

#[test]
fn the_registry_of_the_ri_dialect_has_the_recorded_elements() {
    let recorded = vectors::load("registry.json");
    let file = &recorded["files"]["stepenta/RI mplane/registry.json"];
    let versus_core = &recorded["vs_core_0.9.0"]["stepenta/RI mplane/registry.json"];
    let theirs = defined(&Registries::ri(), CORE);
    let core = defined(&Registries::embedded(), CORE);
    assert_eq!(theirs.len(), file["distinct_names"]);
    let names = |key: &str| -> Vec<String> {
        let names = versus_core[key].as_array().unwrap();
        names.iter().map(|name| text(name).to_owned()).collect()
    };
    let only: Vec<_> =
        theirs.keys().filter(|name| !core.contains_key(*name)).cloned().collect();
    let missing: Vec<_> =
        core.keys().filter(|name| !theirs.contains_key(*name)).cloned().collect();
    assert_eq!(only, names("only_there"));
    assert_eq!(missing, names("missing_there"));
    let types = [core["duration.ms"].name(), theirs["duration.ms"].name()];
    assert_eq!(versus_core["different_prim"]["duration.ms"], serde_json::json!(types));
}

#[test]
fn elements_of_all_files_have_the_recorded_types() {
    let recorded = vectors::load("registry.json");
    let mut comparison = Comparison::with("registry");
    let (ours, theirs) = (Registries::embedded(), Registries::ri());
    let mut cases = 0;
    for (name, entry) in recorded["element_union"].as_object().unwrap() {
        let files = entry["in"].as_array().unwrap();
        let is_in = |file: &str| files.iter().any(|known| text(known).contains(file));
        let primitives: Vec<_> =
            entry["prim"].as_array().unwrap().iter().map(text).collect();
        let known = |registries: &Registries, uri: &str| {
            let element = registries.registry(uri).unwrap().element(name);
            element.map_or("missing", |element| element.primitive().name()).to_owned()
        };
        if is_in("sdk-0.9.0") {
            comparison.check(
                &format!("core {name}"),
                core_type(&recorded, name),
                &known(&ours, CORE),
            );
            cases += 1;
        }
        if is_in("stepenta/RI") {
            let found = known(&theirs, CORE);
            let recorded = primitives.iter().find(|primitive| **primitive == found);
            comparison.check(
                &format!("ri {name}"),
                recorded.unwrap_or(&primitives[0]),
                &found,
            );
            cases += 1;
        }
        if is_in("tstat-registry") {
            let found = known(&ours, TSTAT);
            let recorded = primitives.iter().find(|primitive| **primitive == found);
            comparison.check(
                &format!("tstat {name}"),
                recorded.unwrap_or(&primitives[0]),
                &found,
            );
            cases += 1;
        }
    }
    assert!(cases > 400, "{cases}");
    comparison.finish(cases);
}

/// Returns the recorded type of an element of the core registry.
fn core_type<'a>(recorded: &'a Json, name: &str) -> &'a str {
    let elements = recorded["core_elements_0.9.0"].as_array().expect("a list");
    let element = elements.iter().find(|element| element["name"] == name);
    text(&element.expect("an element of the core registry")["prim"])
}
