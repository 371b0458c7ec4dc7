//! Services that are programs of their own, as authors test them and as clients use them.

#[path = "support/machine.rs"]
#[expect(dead_code, reason = "not every program of tests needs all of it")]
mod machine;
#[expect(dead_code, reason = "not every program of tests needs all of it")]
mod support;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Instant;

use nix::sys::signal::Signal;
use support::{DEADLINE, Finished, LOOK_AGAIN, Program, Stream, command, folder, run};
use tempfile::TempDir;

/// The everyday tool.
const MPLANE: &str = env!("CARGO_BIN_EXE_mplane");

/// The component.
const MPCOM: &str = env!("CARGO_BIN_EXE_mpcom");

/// The shell.
const MPCLI: &str = env!("CARGO_BIN_EXE_mpcli");

/// What a service of these tests offers.
const CAPABILITY: &str = r#"{"capability": "measure", "version": 1, "label": "service",
    "registry": "http://ict-mplane.eu/registry/core", "when": "now ... future",
    "parameters": {"destination.device": "*"}, "results": ["packets.ip"]}"#;

/// Returns a path of the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// Makes a service that runs a script.
fn service(place: &Path, script: &str, keys: &str) {
    let write = |name, text: String| {
        fs::write(place.join(name), text).expect("the folder is ours");
    };
    write("capability.json", CAPABILITY.into());
    write("service.toml", format!("command = [\"sh\", \"run.sh\"]\n{keys}\n"));
    write("run.sh", format!("{script}\n"));
}

/// Runs `mplane service test`.
fn service_test(folder: &Path, arguments: &[&str]) -> Finished {
    let mut test = command(MPLANE);
    test.args(["service", "test"]).arg(folder).args(arguments);
    run(test)
}

/// Tests a script with a short scope; returns the checks with their results.
fn checks_of(script: &str, keys: &str, code: i32) -> serde_json::Value {
    let folder = folder();
    service(folder.path(), script, keys);
    let arguments = ["-o", "json", "-p", "destination.device=x", "--when", "now + 1s"];
    let output = service_test(folder.path(), &arguments).expect(code);
    serde_json::from_str(&output.out)
        .unwrap_or_else(|error| panic!("{error}: {output:#?}"))
}

/// Returns what a check has seen, if its result is this one.
#[track_caller]
fn seen<'a>(checks: &'a serde_json::Value, check: &str, result: &str) -> &'a str {
    let mut all = checks["checks"].as_array().expect("there are checks").iter();
    let found = all.find(|found| found["check"] == check && found["result"] == result);
    let found = found.unwrap_or_else(|| panic!("{check} is not {result}: {checks:#}"));
    assert_eq!(found["remedy"].is_string(), result == "failed", "{found}");
    found["seen"].as_str().expect("it is text")
}

#[test]
fn the_example_of_the_shell_keeps_the_contract() {
    let registry = repository("registry/loopback.json");
    let registry = registry.to_str().expect("it is UTF-8");
    for text in ["hello", r#"a "quoted" \ text, with ü and $(id)"#] {
        let parameter = format!("test.input={text}");
        let arguments = ["--registry", registry, "-p", &parameter];
        let folder = repository("examples/services/echo-sh");
        let output = service_test(&folder, &arguments).expect(0);
        assert!(output.out.contains("2 lines, 1 row"), "{output:#?}");
    }
}

#[test]
fn the_example_in_python_keeps_the_contract() {
    let folder = repository("examples/services/load-average-python");
    let places = ["/usr/local/bin", "/usr/bin", "/bin"];
    if !places.iter().any(|place| Path::new(place).join("python3").exists()) {
        return machine::skip("there is no python3");
    }
    let output = service_test(&folder, &["--when", "now + 2s / 1s"]).expect(0);
    assert!(output.out.contains("5 lines, 3 rows"), "{output:#?}");
}

#[test]
fn a_test_tells_what_a_service_does_wrong() {
    let keeps = "the run keeps the contract";
    let checks = checks_of("echo '{\"row\": [1, 2]}'", "", 1);
    assert_eq!(
        seen(&checks, keeps, "failed"),
        "1 line, 0 rows; line 1 of its output: expected a value for each of the columns \
         packets.ip, found 2 values"
    );
    seen(&checks, "it refuses what is no specification", "failed");

    // Both runs of a service that ignores SIGTERM have to be killed.
    let stubborn = "trap '' TERM; echo '{\"row\": [1]}'; while :; do sleep 1; done";
    let checks = checks_of(stubborn, "stop-grace = \"0.2s\"", 1);
    assert!(seen(&checks, keeps, "failed").contains("with its temporal scope"));
    seen(&checks, "it ends with its temporal scope", "failed");
    assert!(seen(&checks, "its exit status is 0", "failed").contains("signal: 9"));
    assert!(
        seen(&checks, "it stops when told to by SIGTERM", "failed").contains("killed")
    );

    let checks = checks_of("sleep 1000 & echo '{\"done\": true}'", "", 1);
    seen(&checks, keeps, "ok");
    // The shell's child may not have become `sleep` yet.
    let left = seen(&checks, "it leaves no process behind", "failed");
    assert!(left.contains("(sleep)") || left.contains("(sh)"), "{left}");

    let checks = checks_of("", "time-limit = \"0s\"", 1);
    assert!(seen(&checks, "the folder describes a service", "failed").contains("zero"));
}

#[test]
fn limits_hold_from_the_first_instruction() {
    let script = r#"
        read -r specification
        files=$(ulimit -n) core=$(ulimit -c)
        privileges=$(sed -n 's/NoNewPrivs:[[:space:]]*//p' /proc/self/status)
        if dd if=/dev/zero of=/dev/null bs=200M count=1 2>/dev/null
        then memory=there; else memory=missing; fi
        echo "{\"failed\": \"files $files core $core nnp $privileges memory $memory\"}""#;
    let told = |keys| {
        let checks = checks_of(script, keys, 1);
        seen(&checks, "the run keeps the contract", "failed").to_owned()
    };
    let limited = "0 rows; files 1024 core 0 nnp 1 memory missing";
    assert!(told("memory-limit-bytes = 67108864").ends_with(limited));
    let enough = "memory there";
    assert!(told("memory-limit-bytes = 536870912").ends_with(enough));
    let privileged = told("allow-new-privileges = true");
    assert!(!privileged.contains("nnp 1") || nnp_is_inherited(), "{privileged}");
}

/// Says whether these tests run without the way to new privileges already.
fn nnp_is_inherited() -> bool {
    fs::read_to_string("/proc/self/status")
        .is_ok_and(|status| status.contains("NoNewPrivs:\t1"))
}

/// A component that listens, and its client, with certificates.
struct Pair {
    folder: TempDir,
}

impl Pair {
    /// Makes certificates and configurations for a component with these sections.
    fn new(sections: &str) -> Self {
        let pair = Self { folder: folder() };
        let pki = |arguments: &[&str]| {
            let mut pki = command(MPLANE);
            pki.arg("pki").args(arguments).current_dir(pair.folder.path());
            run(pki).expect(0);
        };
        pki(&["init", "pki"]);
        pki(&["issue", "pki", "component", "com-1", "--host", "127.0.0.1"]);
        pki(&["issue", "pki", "client", "cli-1"]);
        let listener = "[component.listener]\naddress = \"127.0.0.1:0\"\n";
        pair.configure("component.toml", "com-1", &format!("{listener}{sections}"));
        pair
    }

    /// Writes a configuration.
    fn configure(&self, file: &str, member: &str, sections: &str) -> PathBuf {
        let registry = repository("registry/loopback.json");
        let registry = registry.display();
        let text = format!(
            "[tls]\nca-chain = \"pki/ca.crt\"\ncert = \"pki/{member}.crt\"\n\
             key = \"pki/{member}.key\"\n[registries]\npreload = [\"{registry}\"]\n{sections}"
        );
        let path = self.folder.path().join(file);
        fs::write(&path, text).expect("the folder is ours");
        path
    }

    /// Prepares the component.
    fn component(&self) -> Command {
        let mut component = command(MPCOM);
        component.arg("--config").arg(self.folder.path().join("component.toml"));
        component.args(["--log-format", "json"]);
        component
    }

    /// Starts the component; returns it with its address.
    fn start(&self) -> (Program, SocketAddr) {
        let mut component = Program::start(self.component());
        let event = component.wait_for(Stream::Err, &["\"offers services\""]);
        let (_, rest) = event.split_once("\"address\":\"").expect("it has an address");
        let (address, _) = rest.split_once('"').expect("it is text");
        (component, address.parse().expect("it is an address"))
    }

    /// Runs commands in the client's shell.
    fn shell(&self, peer: SocketAddr, commands: &str) -> Finished {
        let section = format!("[client]\nurl = \"https://{peer}/\"\n");
        let config = self.configure("client.toml", "cli-1", &section);
        let mut shell = command(MPCLI);
        shell.arg("--config").arg(config).args(["-c", commands]);
        run(shell)
    }
}

/// Returns the section of a service.
fn section(folder: &Path) -> String {
    let folder = folder.display();
    format!("[[component.service]]\ntype = \"external\"\nfolder = \"{folder}\"\n")
}

#[test]
fn a_component_offers_a_service_to_its_clients() {
    let pair = Pair::new(&section(&repository("examples/services/echo-sh")));
    let mut check = pair.component();
    check.arg("--check");
    run(check).expect(0);
    let (component, address) = pair.start();
    let commands = "set test.input \"hello there\"; when now + 1s; runcap echo; wait";
    let output = pair.shell(address, commands).expect(0);
    assert!(output.out.contains("hello there"), "{output:#?}");
    component.signal(Signal::SIGTERM);
    component.finish().expect(0);
}

#[test]
fn a_client_hears_what_a_service_did_wrong_and_the_component_goes_on() {
    let pair = Pair::new(&section(Path::new("service")));
    let place = pair.folder.path().join("service");
    fs::create_dir(&place).expect("the folder is ours");
    service(&place, "echo what >&2; echo '{\"row\": [1]}'; echo rubbish", "");
    let (mut component, address) = pair.start();
    let commands = "set destination.device x; when now + 1s; runcap service; wait";
    for _ in 0..2 {
        let output = pair.shell(address, commands).expect(0);
        assert!(output.err.contains("measurement.incomplete"), "{output:#?}");
        assert!(
            output.err.contains("service service: line 2 of its output"),
            "{output:#?}"
        );
    }
    component.wait_for(Stream::Err, &["\"text\":\"what\"", "\"service\":\"service\""]);
    component.signal(Signal::SIGTERM);
    component.finish().expect(0);
}

#[test]
fn a_folder_that_describes_no_service_is_refused() {
    let pair = Pair::new(&section(Path::new("nowhere")));
    let mut check = pair.component();
    check.arg("--check");
    let mut tool = command(MPLANE);
    tool.arg("check").arg(pair.folder.path().join("component.toml"));
    for program in [check, tool, pair.component()] {
        let output = run(program).expect(1);
        assert!(
            output.err.contains("cannot open the folder of a service"),
            "{output:#?}"
        );
    }
}

#[test]
fn a_component_that_ends_leaves_no_process_behind() {
    let pair = Pair::new(&section(Path::new("service")));
    let place = pair.folder.path().join("service");
    fs::create_dir(&place).expect("the folder is ours");
    service(&place, "trap '' TERM; echo $$ >&2; while :; do sleep 1; done", "");
    let (mut component, address) = pair.start();
    let commands = "set destination.device x; when now + 1h; runcap service";
    pair.shell(address, commands).expect(0);
    let event = component.wait_for(Stream::Err, &["\"says\""]);
    let (_, rest) = event.split_once("\"text\":\"").expect("it has a text");
    let (process, _) = rest.split_once('"').expect("it is text");
    let process = Path::new("/proc").join(process);
    component.signal(Signal::SIGTERM);
    component.finish().expect(0);
    let started = Instant::now();
    while fs::read_to_string(process.join("stat")).is_ok_and(|stat| !stat.contains(") Z"))
    {
        assert!(started.elapsed() < DEADLINE, "{} is there", process.display());
        sleep(LOOK_AGAIN);
    }
}
