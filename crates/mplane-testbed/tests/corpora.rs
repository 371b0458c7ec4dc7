//! The inputs that fuzzing has kept, on every run of the tests.

use std::path::PathBuf;

use mplane_testbed::fuzz;

/// Runs a target over its corpus.
fn run(name: &str, target: fn(&[u8])) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).expect("the corpus is part of the repository")
    {
        let path = entry.expect("a file").path();
        target(&std::fs::read(&path).expect("it can be read"));
        count += 1;
    }
    assert!(count >= 10, "{name}: {count}");
}

#[test]
fn messages_are_read_and_written_alike() {
    run("json", fuzz::json);
}

#[test]
fn temporal_scopes_are_read_and_printed_alike() {
    run("when", fuzz::when);
}

#[test]
fn constraints_are_read_and_printed_alike() {
    run("constraint", fuzz::constraint);
}

#[test]
fn registries_are_read() {
    run("registry", fuzz::registry);
}

#[test]
fn replies_are_read_or_refused() {
    run("reply", fuzz::reply);
}
