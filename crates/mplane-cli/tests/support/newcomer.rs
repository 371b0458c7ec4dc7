//! Demos: how they are started, what they show and what they leave.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::machine::user;
use crate::support::{Output, Program, Stream, check_row, command, rows};

/// The program.
const MPLANE: &str = env!("CARGO_BIN_EXE_mplane");

/// What a demo says while it measures.
pub(crate) const MEASURES: &str = "measuring:";

/// What a demo says on its way when all is well.
const STEPS: [&str; 6] = [
    "1. private PKI",
    "2. ",
    "3. supervisor: serves",
    "4. component: registered",
    "5. client: discovered",
    "6. client: asks for",
];

/// Prepares a demo whose home and temporary folder are in `place`.
pub(crate) fn demo(place: &Path, arguments: &[&str]) -> Command {
    let temporary = place.join("tmp");
    fs::create_dir_all(&temporary).expect("the folder is ours");
    let mut demo = command(MPLANE);
    demo.arg("demo").args(arguments).env("HOME", place).env("TMPDIR", temporary);
    demo
}

/// Returns the folders that demos with a home in `place` have now.
pub(crate) fn states(place: &Path) -> Vec<PathBuf> {
    let user = user();
    [".local/state/mplane", &format!("tmp/mplane-{user}")]
        .iter()
        .filter_map(|folder| fs::read_dir(place.join(folder)).ok())
        .flat_map(|folders| folders.map(|folder| folder.expect("it is there").path()))
        .filter(|path| path.file_name().is_some_and(is_state))
        .collect()
}

/// Checks that no demo with a home in `place` has left anything.
#[track_caller]
pub(crate) fn check_nothing_is_left(place: &Path) {
    let states = states(place);
    assert!(states.is_empty(), "left are {states:?}");
}

/// Says whether a folder is a demo's.
fn is_state(name: &OsStr) -> bool {
    name.to_string_lossy().starts_with("demo-")
}

/// Returns the folder that a demo says it uses.
pub(crate) fn told_state(stderr: &str) -> PathBuf {
    let (_, path) = stderr
        .lines()
        .find_map(|line| line.split_once("certificates in "))
        .expect("the first step names the folder");
    PathBuf::from(path)
}

/// Checks what a demo shows that measured with success; returns its delays.
#[track_caller]
pub(crate) fn check(output: &Output) -> Vec<Option<u64>> {
    let Output { out, err } = output;
    for step in STEPS {
        assert!(err.lines().any(|line| line.starts_with(step)), "{step}: {output:#?}");
    }
    let delays: Vec<_> = rows(out).iter().map(|row| check_row(row)).collect();
    assert!(delays.iter().any(Option::is_some), "something was answered: {output:#?}");
    let answered = delays.iter().flatten().count();
    let counts = format!(
        "{} sent, {answered} answered, {} lost; delay min {} µs, mean ",
        delays.len(),
        delays.len() - answered,
        delays.iter().flatten().min().expect("something was answered"),
    );
    assert!(out.contains(&counts), "{counts}: {output:#?}");
    let (_, way) = out.split_once("The way of each message").expect("it is told");
    for parts in [
        ["probe-1 -> supervisor-1", "POST /register/capability", "capabilit"],
        ["client-1 -> supervisor-1", "GET /capabilities", "capabilit"],
        ["client-1 -> supervisor-1", "POST /", "specification"],
        ["probe-1 -> supervisor-1", "GET /show/specification", "specification"],
        ["probe-1 -> supervisor-1", "POST /register/result", "receipt"],
        ["probe-1 -> supervisor-1", "POST /register/result", "result"],
        ["client-1 -> supervisor-1", "POST /", "200 result"],
    ] {
        let is_there = |line: &str| parts.iter().all(|part| line.contains(part));
        assert!(way.lines().any(is_there), "{parts:?}: {output:#?}");
    }
    delays
}

/// Starts a demo that is kept, and waits until it has said all.
pub(crate) fn kept(place: &Path) -> Program {
    let mut demo = Program::start(demo(place, &["--duration", "1s", "--keep"]));
    demo.wait_for(Stream::Out, &["The domain runs until Ctrl-C"]);
    demo.wait_for(Stream::Out, &["in a checkout"]);
    demo
}
