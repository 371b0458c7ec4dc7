//! Components and supervisors read their configuration again when they are sent SIGHUP, and what
//! runs goes on.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use crate::domain::{
    Domain, MPCOM, MPSUP, TCP, address_in, check_result, daemon, initiator, measure,
};
use crate::story::tool;
use crate::support::{Program, Stream, run};

/// Sends SIGHUP and waits for what the program says to it, the nth time.
fn reload(program: &mut Program, said: &str, nth: usize) {
    program.signal(Signal::SIGHUP);
    program.wait_for_nth(Stream::Err, &[said], nth);
}

const DONE: &str = "has read its configuration again";

const KEPT: &str = "goes on with the configuration that it had";

const OTHER: &str = "restart the program to be somebody else";

/// Starts a component that listens; returns it with its address.
fn listening(domain: &Domain, sections: &str) -> (Program, SocketAddr) {
    let text = format!("[component.listener]\naddress = \"127.0.0.1:0\"\n\n{sections}");
    let config = domain.configure("component.toml", "com-1", &text);
    let mut component = Program::start(daemon(MPCOM, &config));
    let address = address_in(&component.wait_for(Stream::Err, &["\"offers services\""]));
    (component, address)
}

#[test]
fn a_component_offers_what_has_changed_and_what_runs_goes_on() {
    let domain = Domain::new();
    let (_supervisor, address) = domain.supervisor();
    let mut component = domain.component(address);
    let mut shell = domain.shell_of("cli-1", address);
    let commands = format!("{}; wait", measure(address.port(), "now + 4s / 1s"));
    shell.args(["-c", &commands]);
    let shell = Program::start(shell);
    component.wait_for(Stream::Err, &["accepted a specification"]);

    let section = format!("{}{TCP}min-period = \"10s\"\n", initiator(address));
    domain.configure("component.toml", "com-1", &section);
    reload(&mut component, DONE, 1);
    component.wait_for(Stream::Err, &["withdraws a capability", "tcp-connect-ip4"]);
    let deadline = std::time::Instant::now() + crate::support::DEADLINE;
    loop {
        let output = domain.shell(address, "showcap tcp-connect-ip4").expect(0);
        if output.out.contains("now ... future / 10s") {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{output:#?}");
    }
    let output = shell.finish().expect(0);
    check_result(&output);
    assert!(!output.err.contains("incomplete"), "{output:#?}");
}

#[test]
fn a_configuration_that_is_wrong_changes_nothing() {
    let domain = Domain::new();
    let (mut component, address) = listening(&domain, TCP);
    let text =
        format!("[component.listener]\naddress = \"127.0.0.1:0\"\n\n{TCP}pols = 1\n");
    domain.configure("component.toml", "com-1", &text);
    reload(&mut component, KEPT, 1);
    let commands = format!("{}; wait", measure(address.port(), "now + 1s / 1s"));
    check_result(&domain.shell(address, &commands).expect(0));
    // What cannot change without a restart is named.
    let text = format!("[component.listener]\naddress = \"127.0.0.2:0\"\n\n{TCP}");
    domain.configure("component.toml", "com-1", &text);
    component.signal(Signal::SIGHUP);
    component.wait_for(Stream::Err, &["component.listener", "restarted"]);
    component.signal(Signal::SIGTERM);
    component.finish().expect(0);
}

#[test]
fn certificates_are_renewed_while_a_component_runs() {
    let domain = Domain::new();
    domain.pki(&["init", "renewed", "--organization", "Test"]).expect(0);
    for (role, name) in [("component", "com-1"), ("client", "cli-1")] {
        domain.pki(&["issue", "renewed", role, name, "--host", "127.0.0.1"]).expect(0);
    }
    let (mut component, address) = listening(&domain, TCP);
    let mut renewed = domain.shell_of("cli-1", address);
    renewed.args(["-c", "listcap"]);
    let file = domain.path("shell-cli-1.toml");
    let before = fs::read_to_string(&file).expect("it was written");
    domain.shell(address, "listcap").expect(0);

    // The other authority's certificate is of somebody else.
    let file_of = domain.path("component.toml");
    let text = fs::read_to_string(&file_of).expect("it was written");
    fs::write(&file_of, text.replace("\"pki/", "\"other/")).expect("it is ours");
    reload(&mut component, OTHER, 1);
    domain.shell(address, "listcap").expect(0);

    fs::write(&file_of, text.replace("\"pki/", "\"renewed/")).expect("it is ours");
    reload(&mut component, DONE, 1);
    domain.shell(address, "listcap").expect(1);
    fs::write(&file, before.replace("\"pki/", "\"renewed/")).expect("it is ours");
    let output = run(renewed).expect(0);
    assert!(output.out.contains("Capability tcp-connect-ip4"), "{output:#?}");
}

#[test]
fn supervisors_come_and_go_while_a_component_runs() {
    let domain = Domain::new();
    let (_first, first) = domain.supervisor();
    let (_second, second) = domain.supervisor();
    let mut component = domain.component(first);
    let section = initiator(second) + TCP;
    domain.configure("component.toml", "com-1", &section);
    reload(&mut component, DONE, 1);
    component.wait_for(Stream::Err, &["is not served any more", &first.to_string()]);
    component.wait_for_nth(Stream::Err, &["\"registered\"", "Test.Supervisors.sup-1"], 2);
    let commands = format!("{}; wait", measure(second.port(), "now + 1s / 1s"));
    check_result(&domain.shell(second, &commands).expect(0));
}

/// Writes the configuration of a supervisor with these keys and sections.
fn configure_supervisor(domain: &Domain, keys: &str, sections: &str) -> PathBuf {
    let text = format!(
        "[supervisor]\ndata = \"store\"\n{keys}\n[supervisor.listener]\n\
         address = \"127.0.0.1:0\"\n\n{sections}"
    );
    domain.configure("supervisor.toml", "sup-1", &text)
}

/// Starts a supervisor; returns it with its address and its configuration.
fn supervisor(
    domain: &Domain,
    keys: &str,
    sections: &str,
) -> (Program, SocketAddr, PathBuf) {
    let config = configure_supervisor(domain, keys, sections);
    let mut supervisor = Program::start(daemon(MPSUP, &config));
    let address = address_in(&supervisor.wait_for(Stream::Err, &["\"supervises\""]));
    (supervisor, address, config)
}

#[test]
fn a_supervisor_takes_over_changed_limits_and_refuses_a_file_that_is_wrong() {
    let domain = Domain::new();
    let (mut supervisor, address, _) =
        supervisor(&domain, "client-specifications = 2", "");
    let _component = domain.component(address);
    let run = |count: usize| {
        let more = "; runcap tcp-connect-ip4".repeat(count - 1);
        domain.shell(address, &format!("{}{more}", measure(1, "now + 1h / 1s")))
    };
    run(2).expect(0);
    let full = "2 specifications of one client may be open, and yours are as many";
    let output = run(1).expect(1);
    assert!(output.err.contains(full), "{output:#?}");

    // A file that is wrong changes nothing, not even what is right in it.
    configure_supervisor(&domain, "client-specifications = 3\nquue = 1", "");
    reload(&mut supervisor, KEPT, 1);
    let output = run(1).expect(1);
    assert!(output.err.contains(full), "{output:#?}");
    configure_supervisor(&domain, "client-specifications = 3", "");
    reload(&mut supervisor, DONE, 1);
    run(1).expect(0);
    let output = run(1).expect(1);
    assert!(output.err.contains("3 specifications of one client"), "{output:#?}");
    supervisor.signal(Signal::SIGTERM);
    supervisor.finish().expect(0);
}

#[test]
fn components_that_listen_come_and_go_while_a_supervisor_runs() {
    let domain = Domain::new();
    let (_component, component) = listening(&domain, TCP);
    let (mut supervisor, address, config) = supervisor(&domain, "", "");
    assert!(domain.shell(address, "listcap").expect(0).out.is_empty());
    let call = format!("[[supervisor.component]]\nurl = \"https://{component}/\"\n");
    configure_supervisor(&domain, "", &call);
    reload(&mut supervisor, DONE, 1);
    supervisor.wait_for(Stream::Err, &["\"registered\"", "Test.Components.com-1"]);
    let commands = format!("{}; wait", measure(address.port(), "now + 1s / 1s"));
    check_result(&domain.shell(address, &commands).expect(0));

    // One that is not called any more is not offered. What it was asked for before is its
    // when it is called again.
    let mut shell = domain.shell_of("cli-1", address);
    let commands = format!("{}; wait", measure(address.port(), "now + 2s / 1s"));
    shell.args(["-c", &commands]);
    let mut shell = Program::start(shell);
    let receipt = shell.wait_for(Stream::Err, &["Receipt tcp-connect-ip4-0"]);
    configure_supervisor(&domain, "", "");
    reload(&mut supervisor, DONE, 2);
    supervisor.wait_for(Stream::Err, &["is not called any more, and not offered"]);
    assert!(domain.shell(address, "listcap").expect(0).out.is_empty());
    let token = receipt.split("(token ").nth(1).and_then(|rest| rest.split(')').next());
    let token = token.expect("it has one");
    let story = || tool(&["why", token], &config).expect(0).out;
    configure_supervisor(&domain, "", &call);
    reload(&mut supervisor, DONE, 3);
    check_result(&shell.finish().expect(0));
    assert_eq!(story().matches("hand-out").count(), 1, "{}", story());
}

#[test]
fn certificates_are_renewed_while_a_supervisor_runs() {
    let domain = Domain::new();
    domain.pki(&["init", "renewed", "--organization", "Test"]).expect(0);
    for (role, name) in
        [("supervisor", "sup-1"), ("component", "com-1"), ("client", "cli-1")]
    {
        domain.pki(&["issue", "renewed", role, name, "--host", "127.0.0.1"]).expect(0);
    }
    let (mut supervisor, address, config) = supervisor(&domain, "", "");
    domain.shell(address, "listcap").expect(0);
    let rewrite = |path: &Path, authority: &str| {
        let text = fs::read_to_string(path).expect("it was written");
        let text = text.replace("\"pki/", &format!("\"{authority}/"));
        fs::write(path, text).expect("it is ours");
    };
    rewrite(&config, "other");
    reload(&mut supervisor, OTHER, 1);
    domain.shell(address, "listcap").expect(0);

    configure_supervisor(&domain, "", "");
    rewrite(&config, "renewed");
    reload(&mut supervisor, DONE, 1);
    domain.shell(address, "listcap").expect(1);
    let section = initiator(address) + TCP;
    let component = domain.configure("component.toml", "com-1", &section);
    rewrite(&component, "renewed");
    let mut component = Program::start(daemon(MPCOM, &component));
    component.wait_for(Stream::Err, &["\"registered\"", "Test.Supervisors.sup-1"]);
    let mut shell = domain.shell_of("cli-1", address);
    rewrite(&domain.path("shell-cli-1.toml"), "renewed");
    let commands = format!("{}; wait", measure(address.port(), "now + 1s / 1s"));
    shell.args(["-c", &commands]);
    check_result(&run(shell).expect(0));
}
