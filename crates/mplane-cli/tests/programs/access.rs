//! Roles: what programs hide and refuse, and whom they serve.

use std::net::SocketAddr;

use crate::domain::{
    Domain, MPCOM, MPSUP, TCP, address_in, check_result, daemon, initiator, measure,
};
use crate::support::{Output, Program, Stream, run};

/// Rules for clients `cli-1`, who has no role, and `ops-1`, who may measure, by way of
/// others too.
const ACCESS: &str = "[access.roles]\n\
    admin = [\"Test.Clients.ops-1\", [\"Test\", \"Supervisors\", \"sup-1\"]]\n\
    probe = [\"Test.Components.com-1\"]\n\
    guest = [\"unauthenticated\"]\n\
    [access.authorizations]\n\
    tcp-connect-ip4 = [\"admin\", \"probe\"]\n\
    tcp = [\"guest\"]\n\n";

/// Makes a domain with one client more.
fn domain() -> Domain {
    let domain = Domain::new();
    domain.pki(&["issue", "pki", "client", "ops-1"]).expect(0);
    domain
}

/// Runs commands in the shell of a member.
fn shell(domain: &Domain, member: &str, peer: SocketAddr, commands: &str) -> Output {
    let mut shell = domain.shell_of(member, peer);
    shell.args(["-c", commands]);
    let finished = run(shell);
    let code = finished.status.code().expect("no signal ends it");
    finished.expect(code)
}

/// Checks that a peer hides from one client what it does for another.
fn check_roles(domain: &Domain, peer: SocketAddr) {
    let seen = shell(domain, "cli-1", peer, "listcap");
    assert!(!seen.out.contains("tcp-connect-ip4"), "{seen:#?}");
    let seen = shell(domain, "ops-1", peer, "listcap");
    assert!(seen.out.contains("Capability tcp-connect-ip4 "), "{seen:#?}");
    let commands = format!("{}; wait", measure(peer.port(), "now + 1s / 1s"));
    let refused = shell(domain, "cli-1", peer, &commands);
    assert!(refused.out.is_empty(), "{refused:#?}");
    check_result(&shell(domain, "ops-1", peer, &commands));
}

#[test]
fn a_listening_component_shows_and_does_what_the_role_of_a_client_permits() {
    let domain = domain();
    let section =
        format!("{ACCESS}[component.listener]\naddress = \"127.0.0.1:0\"\n\n{TCP}");
    let config = domain.configure("component.toml", "com-1", &section);
    let mut component = Program::start(daemon(MPCOM, &config));
    let event = component.wait_for(Stream::Err, &["\"offers services\""]);
    check_roles(&domain, address_in(&event));
}

#[test]
fn a_supervisor_shows_and_relays_what_the_role_of_a_client_permits() {
    let domain = domain();
    let section = format!("{ACCESS}[supervisor.listener]\naddress = \"127.0.0.1:0\"\n");
    let config = domain.configure("supervisor.toml", "sup-1", &section);
    let mut supervisor = Program::start(daemon(MPSUP, &config));
    let address = address_in(&supervisor.wait_for(Stream::Err, &["\"supervises\""]));
    // The component has rules of its own, by which the supervisor is an administrator.
    let section = format!("{ACCESS}{}{TCP}", initiator(address));
    let config = domain.configure("component.toml", "com-1", &section);
    let mut component = Program::start(daemon(MPCOM, &config));
    component.wait_for(Stream::Err, &["\"registered\"", "Test.Supervisors.sup-1"]);
    check_roles(&domain, address);
}

#[test]
fn a_component_without_role_registers_nothing() {
    let domain = domain();
    let access = ACCESS.replace("Test.Components.com-1", "Test.Components.com-2");
    let section = format!("{access}[supervisor.listener]\naddress = \"127.0.0.1:0\"\n");
    let config = domain.configure("supervisor.toml", "sup-1", &section);
    let mut supervisor = Program::start(daemon(MPSUP, &config));
    let address = address_in(&supervisor.wait_for(Stream::Err, &["\"supervises\""]));
    let section = initiator(address) + TCP;
    let config = domain.configure("component.toml", "com-1", &section);
    let mut component = Program::start(daemon(MPCOM, &config));
    let denied = "Test.Components.com-1 has no role that [access.authorizations] lists \
                  for tcp-connect-ip4";
    component.wait_for(Stream::Err, &["\"cannot register\"", denied]);
    supervisor.wait_for(Stream::Err, &["\"refused a capability\"", denied]);
}

#[test]
fn a_component_offers_nothing_to_a_supervisor_without_role() {
    let domain = domain();
    let (_supervisor, address) = domain.supervisor();
    let access = ACCESS.replace("\"sup-1\"", "\"sup-2\"");
    let section = format!("{access}{}{TCP}", initiator(address));
    let config = domain.configure("component.toml", "com-1", &section);
    let mut component = Program::start(daemon(MPCOM, &config));
    let denied = "Test.Supervisors.sup-1 has no role";
    component.wait_for(Stream::Err, &["\"cannot register\"", denied]);
}
