//! A supervisor with a store: what it has accepted outlives it, and everything has a story.

use std::net::SocketAddr;
use std::path::PathBuf;

use nix::sys::signal::Signal;

use crate::domain::{
    Domain, MPCOM, MPLANE, MPSUP, TCP, address_in, check_result, daemon, measure,
};
use crate::support::{Finished, Program, Stream, command, run};

/// Starts a supervisor with a store at an address; returns it with its configuration.
pub(super) fn supervisor(
    domain: &Domain,
    address: &str,
) -> (Program, SocketAddr, PathBuf) {
    let section = format!(
        "[supervisor]\ndata = \"store\"\n\n[supervisor.listener]\naddress = \"{address}\"\n"
    );
    let config = domain.configure("supervisor.toml", "sup-1", &section);
    let mut supervisor = Program::start(daemon(MPSUP, &config));
    let address = address_in(&supervisor.wait_for(Stream::Err, &["\"supervises\""]));
    (supervisor, address, config)
}

/// Runs a tool of `mplane` with a configuration.
pub(super) fn tool(arguments: &[&str], config: &PathBuf) -> Finished {
    let mut tool = command(MPLANE);
    tool.args(arguments).arg("--config").arg(config);
    run(tool)
}

#[test]
fn a_supervisor_that_is_killed_goes_on_with_what_it_had_accepted() {
    let domain = Domain::new();
    let (victim, address, _) = supervisor(&domain, "127.0.0.1:0");
    let mut component = domain.component(address);
    let mut shell = domain.shell_of("cli-1", address);
    let commands = format!("{}; wait", measure(address.port(), "now + 4s / 1s"));
    shell.args(["-c", &commands]);
    let shell = Program::start(shell);
    component.wait_for(Stream::Err, &["accepted a specification"]);
    victim.signal(Signal::SIGKILL);
    assert!(!victim.finish().status.success());

    let (_supervisor, _, config) = supervisor(&domain, &address.to_string());
    // The shell has lost its connection once; what was promised to it is there.
    let output = shell.finish().expect(0);
    check_result(&output);
    let token = output
        .err
        .split("(token ")
        .nth(1)
        .and_then(|rest| rest.split(')').next())
        .unwrap_or_else(|| panic!("{output:#?}"))
        .to_owned();
    component.wait_for(Stream::Err, &["\"finished\"", "result"]);
    let deadline = std::time::Instant::now() + crate::support::DEADLINE;
    let story = loop {
        let story = tool(&["why", &token], &config).expect(0).out;
        if story.contains("delivered") {
            break story;
        }
        assert!(std::time::Instant::now() < deadline, "{story}");
        std::thread::sleep(crate::support::LOOK_AGAIN);
    };
    for step in ["accepted", "handed", "hand-out 1", "promised", "delivered", "4 rows"] {
        assert!(story.contains(step), "{step}: {story}");
    }
    assert!(story.contains("Test.Clients.cli-1 asked Test.Components.com-1"), "{story}");
}

#[test]
fn what_a_client_knows_and_what_an_operator_knows_of_a_measurement() {
    let domain = Domain::new();
    let (_supervisor, address, config) = supervisor(&domain, "127.0.0.1:0");
    let _component = domain.component(address);
    let commands = format!("{}; wait", measure(address.port(), "now + 1s / 1s"));
    check_result(&domain.shell(address, &commands).expect(0));
    domain.shell(address, "set destination.port 99999; when now; runcap x").expect(1);
    let client = domain.path("shell-cli-1.toml");
    for config in [&config, &client] {
        let listed = tool(&["measurements"], config).expect(0).out;
        assert!(listed.contains("tcp-connect-ip4-0  result"), "{listed}");
        let story = tool(&["why", "tcp-connect-ip4-0"], config).expect(0).out;
        assert!(story.contains("it is now done: there is a result"), "{story}");
        assert!(story.contains("redeemed"), "{story}");
        let json =
            tool(&["why", "tcp-connect-ip4-0", "-o", "json"], config).expect(0).out;
        let json: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
        assert_eq!(json["stories"][0]["measurement"]["state"], "result");
        let none = tool(&["measurements", "--state", "lost"], config).expect(0).out;
        assert!(!none.contains("tcp-connect"), "{none}");
        let components = tool(&["components"], config).expect(0).out;
        assert!(components.contains("Test.Components.com-1  connected"), "{components}");
        let known = tool(&["components", "Test.Components.com-1"], config).expect(0).out;
        for part in ["address    127.0.0.1", "program    mPlane/", "as the supervisor's"]
        {
            assert!(known.contains(part), "{part}: {known}");
        }
        assert!(known.contains("tcp-connect-ip4  "), "{known}");
        assert!(known.contains("  offered"), "{known}");
        tool(&["components", "Test.Components.com-9"], config).expect(1);
        let listed = tool(&["results"], config).expect(0).out;
        assert!(listed.contains("tcp-connect-ip4-0  result"), "{listed}");
        let token = json["stories"][0]["measurement"]["token"].as_str().expect("text");
        check_result(&tool(&["results", token], config).expect(0));
        let result = tool(&["results", token, "-o", "json"], config).expect(0).out;
        let result: serde_json::Value = serde_json::from_str(&result).expect("JSON");
        assert_eq!(result["result"], "measure");
        tool(&["results", "no-such-token"], config).expect(1);
        let unknown = tool(&["why", "no-such-token"], config).expect(1);
        assert!(unknown.err.contains("no-such-token") || unknown.err.contains("no spec"));
    }
}

#[test]
fn a_repeat_is_waited_for_to_its_end() {
    let domain = Domain::new();
    let (_supervisor, address, _) = supervisor(&domain, "127.0.0.1:0");
    let _component = domain.component(address);
    let scope = "repeat now + 2s / 1s { now + 0s / 1s }";
    let commands = format!("{}; wait", measure(address.port(), scope));
    let output = domain.shell(address, &commands).expect(0);
    let results = output.out.matches("delay.twoway").count();
    assert_eq!(results, 3, "one at each second, both ends included: {output:#?}");
}

#[test]
fn a_backup_is_made_while_a_supervisor_works_and_can_be_started_from() {
    let domain = Domain::new();
    let (first, address, config) = supervisor(&domain, "127.0.0.1:0");
    let _component = domain.component(address);
    let commands = format!("{}; wait", measure(address.port(), "now + 1s / 1s"));
    check_result(&domain.shell(address, &commands).expect(0));
    let copy = domain.path("copy");
    let folder = copy.to_str().expect("it is text");
    tool(&["backup", folder], &config).expect(0);
    let again = tool(&["backup", folder], &config).expect(1);
    assert!(again.err.contains("cannot make the folder"), "{again:?}");
    first.signal(Signal::SIGTERM);
    first.finish().expect(0);
    std::fs::remove_dir_all(domain.path("store")).expect("nobody uses it");
    std::fs::rename(copy, domain.path("store")).expect("it is ours");
    let (_second, _, config) = supervisor(&domain, "127.0.0.1:0");
    let story = tool(&["why", "tcp-connect-ip4-0"], &config).expect(0).out;
    assert!(story.contains("it is now done: there is a result"), "{story}");
}

#[test]
fn a_supervisor_calls_a_component_that_only_listens() {
    let domain = Domain::new();
    let section = format!("[component.listener]\naddress = \"127.0.0.1:0\"\n\n{TCP}");
    let config = domain.configure("component.toml", "com-1", &section);
    let mut component = Program::start(daemon(MPCOM, &config));
    let listening =
        address_in(&component.wait_for(Stream::Err, &["\"offers services\""]));
    let section = format!(
        "[supervisor]\ndata = \"store\"\n\n[supervisor.listener]\naddress = \
         \"127.0.0.1:0\"\n\n[[supervisor.component]]\nurl = \"https://{listening}/\"\n"
    );
    let config = domain.configure("supervisor.toml", "sup-1", &section);
    let mut supervisor = Program::start(daemon(MPSUP, &config));
    let address = address_in(&supervisor.wait_for(Stream::Err, &["\"supervises\""]));
    supervisor.wait_for(Stream::Err, &["\"registered\"", "Test.Components.com-1"]);
    let port = listening.port();
    let commands = format!("{}; wait", measure(port, "now + 2s / 1s"));
    let output = domain.shell(address, &commands).expect(0);
    check_result(&output);
    assert!(
        output.err.contains("Test.Components.com-1"),
        "who has measured: {output:#?}"
    );
    // An interrupt reaches it too, and what is measured until then comes back.
    let commands =
        format!("{}; stopmeas tcp-connect-ip4-0; wait", measure(port, "now + 1h / 1s"));
    check_result(&domain.shell(address, &commands).expect(0));

    // What was promised before a restart is redeemed after it.
    let mut shell = domain.shell_of("cli-1", address);
    shell.args(["-c", &format!("{}; wait", measure(port, "now + 4s / 1s"))]);
    let mut shell = Program::start(shell);
    shell.wait_for(Stream::Err, &["Receipt tcp-connect-ip4-0"]);
    supervisor.wait_for_nth(Stream::Err, &["handed out"], 3);
    supervisor.signal(Signal::SIGKILL);
    supervisor.finish();
    let again = section.replace("127.0.0.1:0", &address.to_string());
    let config = domain.configure("supervisor.toml", "sup-1", &again);
    let _supervisor = Program::start(daemon(MPSUP, &config));
    check_result(&shell.finish().expect(0));
}

#[test]
fn a_supervisor_registers_with_another_one_and_nothing_is_lost_when_it_is_killed() {
    let domain = Domain::new();
    let host = ["--host", "127.0.0.1"];
    let issue = [&["issue", "pki", "supervisor", "sup-2"][..], &host].concat();
    domain.pki(&issue).expect(0);
    let (mut above, address, above_config) = supervisor(&domain, "127.0.0.1:0");
    let below = |listen: &str| {
        let section = format!(
            "[supervisor]\ndata = \"store-2\"\n\n[supervisor.listener]\naddress = \
             \"{listen}\"\n\n[[supervisor.initiator]]\nurl = \"https://{address}/\"\n"
        );
        let config = domain.configure("supervisor-2.toml", "sup-2", &section);
        let mut supervisor = Program::start(daemon(MPSUP, &config));
        let listens = address_in(&supervisor.wait_for(Stream::Err, &["\"supervises\""]));
        (supervisor, listens, config)
    };
    let (victim, below_address, below_config) = below("127.0.0.1:0");
    let section = crate::domain::initiator(below_address) + TCP;
    let config = domain.configure("component.toml", "com-1", &section);
    let mut component = Program::start(daemon(MPCOM, &config));
    component.wait_for(Stream::Err, &["\"registered\"", "Test.Supervisors.sup-2"]);
    above.wait_for(
        Stream::Err,
        &["\"registered\"", "Test.Supervisors.sup-2", "tcp-connect-ip4"],
    );

    // The client knows the supervisor above alone.
    let mut shell = domain.shell_of("cli-1", address);
    let commands = format!("{}; wait", measure(address.port(), "now + 4s / 1s"));
    shell.args(["-c", &commands]);
    let shell = Program::start(shell);
    component.wait_for(Stream::Err, &["accepted a specification"]);
    victim.signal(Signal::SIGKILL);
    assert!(!victim.finish().status.success());
    let (_below, _, _) = below(&below_address.to_string());
    let output = shell.finish().expect(0);
    check_result(&output);
    assert!(
        output.err.contains("component.identity: Test.Components.com-1"),
        "who has measured: {output:#?}"
    );
    // Each has its part of the story.
    for (config, serial, who) in [
        (&above_config, 0, "Test.Clients.cli-1 asked Test.Supervisors.sup-2"),
        (&below_config, 1, "Test.Supervisors.sup-1 asked Test.Components.com-1"),
    ] {
        let label = format!("tcp-connect-ip4-{serial}");
        let story = tool(&["why", &label], config).expect(0).out;
        assert!(story.contains(who), "{story}");
    }
}
