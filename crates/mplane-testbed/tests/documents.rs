//! What the documents say is so.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Returns the root of the repository.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Adds the names of the functions in all sources of a folder.
fn functions(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            functions(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = std::fs::read_to_string(&path).expect("a source");
            let declared =
                source.lines().filter_map(|line| line.trim().split_once("fn "));
            names.extend(declared.filter_map(|(_, rest)| {
                rest.split_once('(').map(|(name, _)| name.to_owned())
            }));
        }
    }
}

#[test]
fn compatibility_names_tests_that_exist_for_every_feature() {
    let mut names = BTreeSet::new();
    for name in [
        "crates/mplane/src",
        "crates/mplane-cli/src",
        "crates/mplane-cli/tests",
        "crates/mplane-probe/src",
        "crates/mplane-runtime/src",
        "crates/mplane-supervisor/src",
        "crates/mplane-testbed/tests",
    ] {
        functions(&root().join(name), &mut names);
    }
    let document = std::fs::read_to_string(root().join("docs/compatibility.md"))
        .expect("the document is part of the repository");
    let mut features = 0;
    for line in document.lines() {
        let cells: Vec<_> = line.split(" | ").collect();
        let [id, _, _, tests] = cells.as_slice() else { continue };
        if !id.contains('-') || id.contains("---") {
            continue;
        }
        features += 1;
        let named: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "{line}");
        for test in named.iter().filter(|test| !test.contains('/')) {
            assert!(names.contains(*test), "{id}: no test is called {test}");
        }
    }
    assert_eq!(features, 118);
}
