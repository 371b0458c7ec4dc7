//! `mplane lab` as users run it: labs in the background, commands in hosts, and nothing
//! left behind, however a lab ends.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::domain::MPLANE;
use crate::machine::{AS_NOBODY, give_away, inside, networks_work, reachable, works};
use crate::support::{DEADLINE, LOOK_AGAIN, Program, Stream, command, folder};

/// Two hosts, and a program in one of them.
const PAIR: &str = r#"
    host = [{ name = "a" }, { name = "b", run = [["sleep", "600"]] }]
    [[link]]
    between = ["a", "b"]
    both = { delay = "1ms" }
"#;

/// Labs of a test: a folder with a registry and a topology of its own.
struct Labs {
    folder: TempDir,
}

impl Labs {
    /// Makes it, if this machine lets labs run.
    fn new() -> Option<Self> {
        if !networks_work() {
            return None;
        }
        let labs = Self { folder: folder() };
        fs::write(labs.folder.path().join("pair.toml"), PAIR).expect("a file");
        Some(labs)
    }

    /// Prepares `mplane lab` with arguments.
    fn lab(&self, arguments: &[&str]) -> Command {
        let mut command = command(MPLANE);
        let registry = self.folder.path().join("registry");
        command.current_dir(self.folder.path());
        command.env("MPLANE_LAB_FOLDER", registry).arg("lab").args(arguments);
        command
    }

    /// Runs `mplane lab` with arguments.
    fn run(&self, arguments: &[&str]) -> Output {
        self.lab(arguments).output().expect("the program is built")
    }

    /// Runs `mplane lab` with arguments, which must succeed, and returns what it says.
    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Returns the process that holds a lab.
    fn holder(&self, lab: &str) -> i32 {
        let rows: serde_json::Value =
            serde_json::from_str(&self.done(&["list", "-o", "json"])).expect("JSON");
        let rows = rows.as_array().expect("rows");
        let row = rows.iter().find(|row| row["lab"] == lab).expect("a lab");
        row["process"].as_i64().and_then(|pid| pid.try_into().ok()).expect("a process")
    }

    /// Returns the identifier of a lab, which marks its programs.
    fn id(&self, lab: &str) -> String {
        let id = self.done(&["exec", lab, "a", "--", "printenv", "MPLANE_LAB_ID"]);
        id.trim().to_owned()
    }

    /// Waits until a registry has no files.
    fn wait_until_empty(&self) {
        let registry = self.folder.path().join("registry");
        wait(|| fs::read_dir(&registry).expect("a folder").count() == 0);
    }
}

/// Waits for a condition.
fn wait(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "it takes too long");
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Counts the programs that a lab has marked.
fn marked(id: &str) -> usize {
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let mark = format!("MPLANE_LAB_ID={id}");
    let is_marked = |path: &Path| {
        let environment = fs::read(path.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|one| one == mark.as_bytes())
    };
    processes.filter(|process| is_marked(&process.path())).count()
}

#[test]
fn a_lab_goes_on_in_the_background_until_it_is_told_to_end() {
    let Some(labs) = Labs::new() else { return };
    let said = labs.done(&["up", "pair.toml", "--log", "packets"]);
    assert!(said.contains("10.0.1.1 fd00:0:0:1::1  /proc/"), "{said}");
    assert!(labs.done(&["list"]).contains("pair.toml"));
    let route = ["exec", "pair", "b", "--", "ip", "route", "get", "10.0.1.1"];
    assert!(labs.done(&route).contains("dev to-a"));
    let second = labs.run(&["up", "pair.toml"]);
    let errors = String::from_utf8_lossy(&second.stderr);
    assert!(
        !second.status.success() && errors.contains("lab pair runs already"),
        "{errors}"
    );
    labs.done(&["up", "pair.toml", "--name", "other"]);
    assert_eq!(labs.done(&["list", "-o", "ndjson"]).lines().count(), 2);
    let id = labs.id("pair");
    assert_eq!(marked(&id), 1, "the program of host b");
    labs.done(&["down", "pair"]);
    assert_eq!(marked(&id), 0);
    assert_eq!(
        labs.done(&["list", "-o", "csv"]).lines().count(),
        2,
        "header and one lab"
    );
    labs.done(&["down", "other"]);
    labs.wait_until_empty();
    let summary = labs.done(&["log", "packets", "--summary", "-o", "csv"]);
    assert!(summary.starts_with("from,to,arrived,delivered,lost,"), "{summary}");
    let none = labs.run(&["down", "pair"]);
    assert!(String::from_utf8_lossy(&none.stderr).contains("no lab pair runs"));
}

#[test]
fn a_command_runs_in_a_host_and_its_exit_status_is_passed_on() {
    let Some(labs) = Labs::new() else { return };
    let first = labs.done(&["run", "pair.toml", "--", "printenv", "MPLANE_LAB_HOST"]);
    assert_eq!(first, "a\n");
    let route = ["run", "pair.toml", "-H", "b", "--", "ip", "route", "get", "10.0.1.1"];
    assert!(labs.done(&route).contains("dev to-a"));
    let script = "nsenter --net=$MPLANE_LAB_NS_B ip route get 10.0.1.1";
    let outside = ["run", "pair.toml", "--outside", "--", "sh", "-c", script];
    assert!(labs.done(&outside).contains("dev to-a"));
    let failed = labs.run(&["run", "pair.toml", "--", "sh", "-c", "exit 7"]);
    assert_eq!(failed.status.code(), Some(7));
    let killed = labs.run(&["run", "pair.toml", "--", "sh", "-c", "kill -TERM $$"]);
    assert_eq!(killed.status.code(), Some(143));
    let missing = labs.run(&["run", "pair.toml", "--", "/there/is/none"]);
    assert_eq!(missing.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&missing.stderr);
    assert!(errors.contains("cannot execute /there/is/none"), "{errors}");
    let host = labs.run(&["run", "pair.toml", "-H", "c", "--", "true"]);
    let errors = String::from_utf8_lossy(&host.stderr);
    assert!(errors.contains("pair.toml has no host c; it has a, b"), "{errors}");
    labs.wait_until_empty();
}

#[test]
fn nothing_is_left_of_a_lab_that_is_killed() {
    let Some(labs) = Labs::new() else { return };
    labs.done(&["up", "pair.toml"]);
    let (id, holder) = (labs.id("pair"), labs.holder("pair"));
    assert_eq!(marked(&id), 1);
    kill(Pid::from_raw(holder), Signal::SIGKILL).expect("it runs");
    // Nobody has to ask: a second process waits for this.
    labs.wait_until_empty();
    assert_eq!(marked(&id), 0);
}

#[test]
fn what_is_left_when_all_was_killed_is_removed_by_whoever_looks() {
    let Some(labs) = Labs::new() else { return };
    labs.done(&["up", "pair.toml"]);
    let (id, holder) = (labs.id("pair"), labs.holder("pair"));
    for process in [watcher(holder), holder] {
        kill(Pid::from_raw(process), Signal::SIGKILL).expect("it runs");
    }
    wait(|| labs.done(&["list", "-o", "ndjson"]).is_empty());
    assert_eq!(marked(&id), 0);
    labs.wait_until_empty();
}

/// Returns the process that waits for the end of a lab.
fn watcher(holder: i32) -> i32 {
    let children = format!("/proc/{holder}/task/{holder}/children");
    let children = fs::read_to_string(children).expect("children");
    let is_watch = |pid: &&str| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.windows(7).any(|part| part == b"\0watch\0")
    };
    let pid = children.split_whitespace().find(is_watch).expect("a process that waits");
    pid.parse().expect("a number")
}

#[test]
fn signals_end_a_lab_and_what_runs_in_it() {
    let Some(labs) = Labs::new() else { return };
    for (signal, status) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
        let script = "echo $MPLANE_LAB_ID; sleep 600";
        let lab = labs.lab(&["run", "pair.toml", "--", "sh", "-c", script]);
        let mut program = Program::start(lab);
        let id = program.wait_for(Stream::Out, &["-"]);
        assert!(marked(&id) >= 2);
        program.signal(signal);
        let finished = program.finish();
        assert_eq!(finished.status.code(), Some(status), "{:?}", finished.output);
        assert_eq!(marked(&id), 0);
    }
    labs.wait_until_empty();
}

/// Lets everyone make devices, in a view of the files that is its own. The device of a
/// system may be for root alone.
const TUN_FOR_ALL: &str = "mount --make-rprivate /
    mknod -m 666 tun c 10 200
    mount --bind tun /dev/net/tun
    exec \"$@\"";

#[test]
fn users_without_rights_have_labs_in_a_user_namespace() {
    let Some(labs) = Labs::new() else { return };
    let with_namespaces =
        [AS_NOBODY.as_slice(), &["unshare", "--user", "--net"]].concat();
    if !works(&with_namespaces) {
        return;
    }
    let place = labs.folder.path();
    fs::create_dir(place.join("tmp")).expect("a folder");
    give_away(place);
    let program = reachable(place, &labs.lab(&[]));
    let lab = |arguments: &[&str]| {
        let mut command = inside(&AS_NOBODY, &program);
        command.args(arguments);
        let outer = ["unshare", "--mount", "sh", "-e", "-c", TUN_FOR_ALL, "sh"];
        let mut command = inside(&outer, &command);
        let output = command.current_dir(place).output().expect("unshare is there");
        fs::remove_file(place.join("tun")).expect("the device was made");
        output
    };
    let ran = lab(&["run", "pair.toml", "--", "sh", "-c", "id -u; getent ahostsv4 b"]);
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{errors}");
    assert!(errors.contains("run without real-time priority"), "{errors}");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(said.starts_with("0\n10.0.1.2 "), "{said}");
    let up = lab(&["up", "pair.toml"]);
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    let route = lab(&["exec", "pair", "b", "--", "ip", "route", "get", "10.0.1.1"]);
    let said = String::from_utf8_lossy(&route.stdout);
    assert!(
        said.contains("dev to-a"),
        "{said} {}",
        String::from_utf8_lossy(&route.stderr)
    );
    assert!(lab(&["down", "pair"]).status.success());
}

#[test]
fn a_wrong_topology_is_refused_with_its_place() {
    let labs = Labs { folder: folder() };
    let path = labs.folder.path().join("bad.toml");
    fs::write(&path, "[[host]]\nname = \"a\"\nruoter = true\n").expect("a file");
    for task in [&["up", "bad.toml"][..], &["run", "bad.toml", "--", "true"]] {
        let refused = labs.run(task);
        assert_eq!(refused.status.code(), Some(1));
        let errors = String::from_utf8_lossy(&refused.stderr);
        assert!(errors.contains("bad.toml:3:1: unknown field `ruoter`"), "{errors}");
    }
}
