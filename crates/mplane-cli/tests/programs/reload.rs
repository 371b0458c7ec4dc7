//! A component reads its configuration again when it is sent SIGHUP, and what runs goes on.

use std::fs;
use std::net::SocketAddr;

use nix::sys::signal::Signal;

use crate::domain::{
    Domain, MPCOM, TCP, address_in, check_result, daemon, initiator, measure,
};
use crate::support::{Program, Stream, run};

/// Sends SIGHUP and waits for what the component says to it.
fn reload(component: &mut Program, said: &str) {
    component.signal(Signal::SIGHUP);
    component.wait_for(Stream::Err, &[said]);
}

const DONE: &str = "has read its configuration again";

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
    reload(&mut component, DONE);
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
    reload(&mut component, "goes on with the configuration that it had");
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
    reload(&mut component, "restart the program to be somebody else");
    domain.shell(address, "listcap").expect(0);

    fs::write(&file_of, text.replace("\"pki/", "\"renewed/")).expect("it is ours");
    reload(&mut component, DONE);
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
    reload(&mut component, DONE);
    component.wait_for(Stream::Err, &["is not served any more", &first.to_string()]);
    component.wait_for_nth(Stream::Err, &["\"registered\"", "Test.Supervisors.sup-1"], 2);
    let commands = format!("{}; wait", measure(second.port(), "now + 1s / 1s"));
    check_result(&domain.shell(second, &commands).expect(0));
}
