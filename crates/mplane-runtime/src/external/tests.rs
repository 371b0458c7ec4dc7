//! Services that misbehave, each in its own way: small programs of the shell.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use mplane::message::Specification;
use mplane::primitive::Value;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::service::Rows;

/// How long a condition may take. Only a failing test waits so long.
const DEADLINE: Duration = Duration::from_secs(30);

/// What the services of these tests offer.
const CAPABILITY: &str = r#"{"capability": "measure", "version": 1, "label": "bad",
    "registry": "http://ict-mplane.eu/registry/core", "when": "now ... future / 1s",
    "parameters": {"packets.ip": "1 ... 9"},
    "results": ["time", "packets.ip"]}"#;

/// A row that is as it should be.
const ROW: &str = r#"echo '{"row": [null, 3]}'"#;

/// The end that is as it should be.
const DONE: &str = r#"echo '{"done": true}'"#;

/// Makes a folder with a service that runs a script.
fn folder(script: &str, keys: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = |name| folder.path().join(name);
    fs::write(path("capability.json"), CAPABILITY).unwrap();
    fs::write(path("service.toml"), format!("command = [\"sh\", \"run.sh\"]\n{keys}\n"))
        .unwrap();
    // Not executed itself: another test may start a program while this file is open, and
    // what is open for writing cannot be executed.
    fs::write(path("run.sh"), format!("{script}\n")).unwrap();
    folder
}

/// Loads a folder.
fn load(folder: &Path) -> Result<External, String> {
    let registries = Registries::embedded();
    let definition = Definition::load(folder, &registries);
    let definition = definition.map_err(|error| crate::report(&error))?;
    Ok(External::new(definition, &registries, None))
}

/// Returns work for such a service, and where its rows are.
fn work(
    service: &External,
    duration: Option<Duration>,
) -> (Work, Rows, CancellationToken) {
    let mut specification = Specification::of(service.definition.capability());
    specification.set_parameter("packets.ip", "3").unwrap();
    specification.set_when("now + 10s / 1s".parse().unwrap());
    let (rows, stop) = (Rows::new(&specification), CancellationToken::new());
    let work = Work { specification, duration, rows: rows.clone(), stop: stop.clone() };
    (work, rows, stop)
}

/// Remembers what happens, and tells what can be waited for.
struct Notebook(mpsc::UnboundedSender<String>);

impl Watch for Notebook {
    fn note(&self, note: Note<'_>) {
        let text = match note {
            Note::Started { group } => format!("group {group}"),
            Note::Row(_) => "row".into(),
            Note::StandardError(text) | Note::Log(_, text) => {
                printable(text.as_bytes(), 100)
            }
            Note::Progress(progress) => progress.to_string(),
            Note::Ended { .. } => "ended".into(),
        };
        // The test may have ended.
        drop(self.0.send(text));
    }
}

/// A run that a test follows.
struct Followed {
    notes: mpsc::UnboundedReceiver<String>,
    stop: CancellationToken,
    rows: Rows,
    run: tokio::task::JoinHandle<Execution>,
    folder: TempDir,
}

impl Followed {
    /// Starts a script.
    fn start(script: &str, keys: &str) -> Self {
        Self::start_for(Some(Duration::from_secs(10)), script, keys)
    }

    /// Starts a script with a temporal scope of this length.
    fn start_for(duration: Option<Duration>, script: &str, keys: &str) -> Self {
        let folder = folder(script, keys);
        let service = load(folder.path()).unwrap();
        let (work, rows, stop) = work(&service, duration);
        let (sender, notes) = mpsc::unbounded_channel();
        let watch = Arc::new(Notebook(sender));
        let run = tokio::spawn(async move { service.execute(work, watch).await });
        Self { notes, stop, rows, run, folder }
    }

    /// Waits for a note.
    async fn wait_for(&mut self, wanted: &str) -> String {
        let search = async {
            loop {
                let note =
                    self.notes.recv().await.expect("the note comes before the end");
                if note.starts_with(wanted) {
                    return note;
                }
            }
        };
        tokio::time::timeout(DEADLINE, search).await.expect("it comes in time")
    }

    /// Waits for the end.
    async fn end(self) -> (Execution, Rows) {
        let ended = tokio::time::timeout(DEADLINE, self.run).await;
        (ended.expect("it ends in time").unwrap(), self.rows)
    }
}

/// Runs a script to its end; returns what was wrong and how many rows there are.
async fn fault(script: &str, keys: &str) -> (String, usize) {
    let (execution, rows) = Followed::start(script, keys).end().await;
    let fault = execution.fault.map(|fault| crate::report(&fault)).unwrap_or_default();
    assert!(execution.status.is_some(), "it was reaped: {fault}");
    (fault, rows.take().rows())
}

/// Returns the number at the end of a note.
fn number(note: &str) -> i32 {
    note.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Says whether a process exists that is not a zombie.
fn runs(process: i32) -> bool {
    fs::read_to_string(format!("/proc/{process}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").starts_with(" Z"))
}

/// Waits until a process is gone.
async fn wait_until_gone(process: i32) {
    let gone = async {
        while runs(process) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, gone).await.expect("it is gone in time");
}

#[tokio::test]
async fn a_service_is_given_the_specification_and_yields_rows() {
    let script = format!(
        "read -r line; value=$(echo \"$line\" | sed 's/.*\"packets.ip\":\\([0-9]*\\).*/\\1/')\n\
         echo '{{\"metadata\": {{\"measurement.algorithm\": \"none\"}}}}'\n\
         echo \"{{\\\"row\\\": {{\\\"packets.ip\\\": $value, \\\"time\\\": null}}}}\"\n\
         echo \"$MPLANE_DURATION_S $MPLANE_PERIOD_S $GREETING $LANG $HOME $PWD\" >&2\n\
         cat; {DONE}"
    );
    let mut run = Followed::start(&script, "environment = {GREETING = \"hello\"}");
    let environment = run.wait_for("10 1 hello C  /").await;
    assert!(
        environment.contains(run.folder.path().file_name().unwrap().to_str().unwrap())
    );
    let (execution, rows) = run.end().await;
    assert!(execution.fault.is_none(), "{:?}", execution.fault);
    assert_eq!(execution.metadata.len(), 1);
    let table = rows.take();
    let row: Vec<_> = table.iter().next().unwrap().values().collect();
    assert_eq!(row, [None, Some(Value::Natural(3))]);
}

#[tokio::test]
async fn rows_before_a_bad_line_are_kept_and_the_line_is_named() {
    let one =
        "one of the keys row, progress, log, metadata, done and failed, with a value";
    for (line, problem) in [
        (
            "hello".to_owned(),
            "expected a JSON object such as {\"row\": [...]}; what is for people goes to \
             standard error"
                .to_owned(),
        ),
        (
            r#"{"row": [null]}"#.into(),
            "expected a value for each of the columns time, packets.ip, found 1 values".into(),
        ),
        (
            r#"{"row": {"time": null, "delay": 1}}"#.into(),
            "there is no column delay; the columns are time, packets.ip".into(),
        ),
        (
            r#"{"row": [null, "three"]}"#.into(),
            "packets.ip: expected an integer from 0 to 18446744073709551615, or null, \
             found \"three\""
                .into(),
        ),
        (
            r#"{"row": [null, 10]}"#.into(),
            "packets.ip: 10 is not allowed, the capability allows 1 ... 9".into(),
        ),
        ("{}".into(), format!("expected {one}")),
    ] {
        let (fault, rows) = fault(&format!("{ROW}\necho '{line}'\n{DONE}"), "").await;
        assert_eq!(fault, format!("line 2 of its output: {problem}"));
        assert_eq!(rows, 1, "{line}");
    }
}

#[tokio::test]
async fn nothing_follows_the_final_status() {
    let told = fault(&format!("{ROW}; {DONE}; {ROW}"), "").await;
    assert_eq!(
        told,
        ("line 3 of its output: nothing may follow done or failed".into(), 1)
    );
}

#[tokio::test]
async fn crashes_failures_and_silence_are_told() {
    let (told, rows) = fault(&format!("{ROW}; kill -SEGV $$"), "").await;
    assert!(told.starts_with("it ended (signal: 11 (SIGSEGV)"), "{told}");
    assert_eq!(rows, 1);
    let (told, _) = fault("exit 3", "").await;
    assert!(told.starts_with("it ended (exit status: 3) before it said done"), "{told}");
    let (told, rows) =
        fault(&format!("{ROW}; echo '{{\"failed\": \"no route\"}}'"), "").await;
    assert_eq!((told.as_str(), rows), ("no route", 1));
    let (told, _) = fault("exec >&-; sleep 1000", "stop-grace = \"0.1s\"").await;
    assert_eq!(told, "it closed its standard output before it said done or failed");
}

#[tokio::test]
async fn floods_end_the_run() {
    let limit = "output-limit-bytes = 300000\nstop-grace = \"0.1s\"";
    let (told, _) = fault("cat /dev/zero", "stop-grace = \"0.1s\"").await;
    assert_eq!(told, "line 1 of its output is longer than 1048576 bytes");
    let (told, rows) = fault(&format!("while :; do {ROW}; done"), limit).await;
    assert_eq!(
        told,
        "it wrote more than 300000 bytes to standard output; see output-limit-bytes"
    );
    assert!(rows > 10_000, "{rows}");
    let (told, rows) = fault(&format!("while :; do {ROW}; done"), "row-limit = 5").await;
    assert_eq!((told.as_str(), rows), ("it yielded more than 5 rows; see row-limit", 5));
    let (told, _) = fault("cat /dev/zero >&2", limit).await;
    assert_eq!(
        told,
        "it wrote more than 300000 bytes to standard error; see output-limit-bytes"
    );
}

#[tokio::test]
async fn a_run_that_takes_too_long_is_ended_and_its_rows_are_kept() {
    let keys = "time-limit = \"0.3s\"\nstop-grace = \"0.1s\"";
    let (told, rows) = fault(&format!("{ROW}; exec sleep 1000"), keys).await;
    assert_eq!(told, "it took longer than 0.3s; see time-limit");
    assert_eq!(rows, 1);
    let script = format!("trap '' TERM; {ROW}; while :; do sleep 1; done");
    let (execution, _) = Followed::start(&script, keys).end().await;
    assert!(execution.stopped.unwrap().is_forced, "it ignores SIGTERM");
}

#[tokio::test]
async fn an_interrupt_ends_a_run_with_the_rows_so_far() {
    for (script, is_forced) in [
        (format!("{ROW}; exec sleep 1000"), false),
        (format!("trap '{ROW_IN_TRAP}' TERM; {ROW}; sleep 1000 & wait"), false),
        (format!("trap '' TERM; {ROW}; sleep 1000"), true),
    ] {
        let mut run = Followed::start_for(None, &script, "stop-grace = \"0.5s\"");
        run.wait_for("row").await;
        run.stop.cancel();
        let (execution, rows) = run.end().await;
        assert!(execution.fault.is_none(), "{script}: {:?}", execution.fault);
        assert_eq!(execution.stopped.unwrap().is_forced, is_forced, "{script}");
        let expected = if script.contains(ROW_IN_TRAP) { 2 } else { 1 };
        assert_eq!(rows.take().rows(), expected, "{script}");
    }
}

/// What a service says when it is told to end.
const ROW_IN_TRAP: &str = r#"echo "{\"row\": [null, 4]}"; echo "{\"done\": true}"; exit"#;

#[tokio::test]
async fn a_run_that_outlives_its_scope_is_told_apart_from_an_interrupt() {
    let mut run =
        Followed::start_for(Some(Duration::ZERO), &format!("{ROW}; exec sleep 1000"), "");
    run.wait_for("row").await;
    tokio::time::sleep(Duration::from_secs(1)).await; // the scope, and half of the grace
    run.stop.cancel();
    let (execution, rows) = run.end().await;
    assert!(matches!(execution.fault, Some(Fault::Scope)), "{:?}", execution.fault);
    assert_eq!(rows.take().rows(), 1);
}

#[tokio::test]
async fn nothing_of_a_run_survives_it() {
    // Children that ignore SIGTERM, with and without the pipe, after every kind of end.
    let child = "sh -c 'trap \"\" TERM; while :; do sleep 1; done'";
    for end in [DONE, "exit 1", "echo rubbish; sleep 1000"] {
        let script = format!(
            "{child} & echo child $! >&2\n{child} >/dev/null & echo child $! >&2\n{ROW}; {end}"
        );
        let mut run = Followed::start(&script, "stop-grace = \"0.1s\"");
        let group: i32 = number(&run.wait_for("group").await);
        let mut children = Vec::new();
        for _ in 0..2 {
            let told = run.wait_for("child").await;
            children.push(number(&told));
        }
        run.end().await;
        assert!(kill(Pid::from_raw(group), None).is_err(), "the leader was reaped");
        for child in children {
            wait_until_gone(child).await;
        }
    }
}

#[tokio::test]
async fn a_run_that_is_dropped_is_killed() {
    let mut run =
        Followed::start("trap '' TERM; echo ready >&2; while :; do sleep 1; done", "");
    let group: i32 = number(&run.wait_for("group").await);
    run.wait_for("ready").await;
    run.run.abort();
    wait_until_gone(group).await;
}

#[tokio::test]
async fn a_child_that_left_the_group_does_not_keep_a_run_open() {
    let setsid = Command::new("setsid").arg("true").status();
    assert!(setsid.is_ok_and(|status| status.success()), "util-linux is installed");
    let script = format!("setsid sleep 30 & echo child $! >&2; {ROW}; {DONE}");
    let mut run = Followed::start(&script, "");
    run.wait_for("ended").await;
    let (execution, rows) = run.end().await;
    assert!(execution.fault.is_none(), "{:?}", execution.fault);
    assert!(execution.took < Duration::from_secs(20), "{:?}", execution.took);
    assert_eq!(rows.take().rows(), 1);
}

#[tokio::test]
async fn as_many_runs_as_allowed_run_at_once() {
    let folder = folder("exec sleep 1000", "parallel-limit = 1");
    let service = Arc::new(load(folder.path()).unwrap());
    let (first, _, stop) = work(&service, None);
    let (second, ..) = work(&service, None);
    let running = Arc::clone(&service);
    let running = tokio::spawn(async move { running.run(first).await.map(|_| ()) });
    let busy = async {
        while service.free.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, busy).await.unwrap();
    let RunError(reason) = service.run(second).await.unwrap_err();
    assert_eq!(
        reason,
        "service bad runs 1 times already, as often as it may at once; try again later"
    );
    stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_reason_names_the_service() {
    let folder = folder("echo '{\"failed\": \"a\\u001bb\"}'", "");
    let service = load(folder.path()).unwrap();
    let (work, ..) = work(&service, None);
    let RunError(reason) = service.run(work).await.unwrap_err();
    assert_eq!(reason, "service bad: a\u{fffd}b", "nothing that a terminal acts upon");
}

#[test]
fn folders_are_checked_when_they_are_loaded() {
    let remove = |folder: &Path, name| fs::remove_file(folder.join(name)).unwrap();
    let refused = |folder: TempDir| {
        let error = load(folder.path()).unwrap_err();
        error.replace(
            &fs::canonicalize(folder.path()).unwrap().display().to_string(),
            "DIR",
        )
    };
    let empty = folder("", "");
    remove(empty.path(), "capability.json");
    assert_eq!(
        refused(empty),
        "DIR has no capability.json or capability.toml, which says what it offers"
    );
    let no_program = folder("", "");
    let keys = "command = [\"./run.sh\"]";
    fs::write(no_program.path().join("service.toml"), keys).unwrap();
    assert!(
        refused(no_program)
            .starts_with("the program \"./run.sh\" of DIR/service.toml is not")
    );
    for (keys, problem) in [
        ("stop-grace = \"5s\"", "stop-grace is at most 4s"),
        ("row-limit = 1000001", "row-limit is from 1 to 1000000"),
        ("time-limit = \"0s\"", "time-limit is zero"),
        ("memory-limit-bytes = 1", "memory-limit-bytes is at least 8388608"),
        ("environment = {MPLANE_X = \"1\"}", "cannot set the variable \"MPLANE_X\""),
        ("shell = true", "unknown field `shell`"),
        ("time-limit = 5", "invalid type"),
    ] {
        let error = refused(folder("", keys));
        assert!(error.contains(problem), "{keys}: {error}");
    }
    let other = folder("", "");
    let capability =
        CAPABILITY.replace(r#""results": ["time", "packets.ip"]"#, r#""x": 1"#);
    fs::write(other.path().join("capability.json"), capability).unwrap();
    assert!(refused(other).ends_with("it has no result columns; name them in results"));
}

#[test]
fn a_capability_may_be_toml() {
    let folder = folder("", "");
    fs::remove_file(folder.path().join("capability.json")).unwrap();
    let toml = "capability = \"measure\"\nlabel = \"bad\"\nwhen = \"now ... future / 1s\"\n\
        results = [\"time\", \"packets.ip\"]\n[parameters]\n\"packets.ip\" = \"1 ... 9\"\n";
    fs::write(folder.path().join("capability.toml"), toml).unwrap();
    let service = load(folder.path()).unwrap();
    let json =
        mplane::json::decode(CAPABILITY.as_bytes(), &Registries::embedded()).unwrap();
    assert_eq!(Message::Capability(service.capability()), json);
}
