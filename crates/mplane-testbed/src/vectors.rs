//! Golden vectors: what the reference implementation does, recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use mplane::registry::{Registries, Registry};

/// Loads a file of vectors.
///
/// # Panics
///
/// If the file is missing or no JSON: both are part of the repository.
pub fn load(name: &str) -> serde_json::Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors").join(name);
    let file = std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&file)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the embedded registries and the one that some vectors name.
///
/// # Panics
///
/// If that registry is damaged: it is part of the repository.
pub fn registries() -> Registries {
    let mut registries = Registries::embedded();
    let loopback = load("loopback-registry.json").to_string();
    let loopback = Registry::parse(loopback.as_bytes(), &registries)
        .expect("a registry that is part of the repository");
    registries.add(loopback);
    registries
}

/// What is said of input that is refused, and of questions that the reference fails on.
pub const REFUSED: &str = "refused";

/// Compares the answers that hold here with those of a file of vectors, case by case.
///
/// `differences-NAME.json` lists the cases that are decided otherwise: for each decision
/// its text, and the answer that holds here by the name of the case. An answer must be
/// the recorded one or stand there, and what stands there must be a difference.
#[derive(Debug)]
pub struct Comparison {
    name: String,
    differences: BTreeMap<String, String>,
    seen: BTreeSet<String>,
    used: BTreeSet<String>,
    failures: Vec<String>,
}

impl Comparison {
    /// Starts the comparison with a file of vectors.
    ///
    /// # Panics
    ///
    /// If the list of differences is damaged: it is part of the repository.
    pub fn with(name: &str) -> Self {
        let list = load(&format!("differences-{name}.json"));
        let mut differences = BTreeMap::new();
        for entry in list.as_array().expect("a list of decisions") {
            let decision = entry["decision"].as_str().expect("a decision is text");
            assert!(!decision.is_empty(), "{name}: a difference follows a decision");
            for (case, answer) in entry["cases"].as_object().expect("answers by case") {
                let answer = answer.as_str().expect("an answer is text").to_owned();
                let before = differences.insert(case.clone(), answer);
                assert_eq!(before, None, "{name}: {case} stands there twice");
            }
        }
        Self {
            name: name.to_owned(),
            differences,
            seen: BTreeSet::new(),
            used: BTreeSet::new(),
            failures: Vec::new(),
        }
    }

    /// Returns the answer to a case that holds here.
    pub fn expected<'a>(&'a self, case: &str, recorded: &'a str) -> &'a str {
        self.differences.get(case).map_or(recorded, String::as_str)
    }

    /// Compares the answer to one case with the recorded one.
    ///
    /// # Panics
    ///
    /// If a case of this name has been compared already.
    pub fn check(&mut self, case: &str, recorded: &str, found: &str) {
        assert!(self.seen.insert(case.to_owned()), "{}: {case} again", self.name);
        let expected = self.differences.get(case).map(String::as_str);
        if let Some(expected) = expected {
            self.used.insert(case.to_owned());
            if expected == recorded {
                self.failures.push(format!("{case}: no difference: {recorded}"));
            }
        }
        if found != expected.unwrap_or(recorded) {
            let case = serde_json::Value::from(case);
            let found = serde_json::Value::from(found);
            let failure = format!("{case}: {found}, recorded: {recorded}");
            self.failures.push(failure);
        }
    }

    /// Ends the comparison of so many cases.
    ///
    /// # Panics
    ///
    /// If an answer is neither the recorded one nor a difference that is listed, if a
    /// difference is of no case, or if there were more or fewer cases.
    pub fn finish(mut self, cases: usize) {
        for case in self.differences.keys().filter(|case| !self.used.contains(*case)) {
            self.failures.push(format!("{case}: listed, but no case"));
        }
        let Self { name, failures, .. } = &self;
        assert!(
            failures.is_empty(),
            "{name}, {}:\n{}",
            failures.len(),
            failures.join("\n")
        );
        assert_eq!(self.seen.len(), cases, "{name}");
    }
}
