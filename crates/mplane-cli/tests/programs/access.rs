//! Roles: what programs hide and refuse, and whom they serve. And configurations of the
//! reference, most of which have roles.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use nix::sys::signal::Signal;

use crate::domain::{
    Domain, MPCOM, MPLANE, MPSUP, TCP, address_in, check_result, daemon, initiator,
    measure,
};
use crate::machine::skip;
use crate::support::{Output, Program, Stream, command, run};

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

/// What clients ask components from configurations of the reference.
const PING: &str = "set destination.ip4 127.0.0.1; when now + 1s / 1s; \
    runcap ping-detail-ip4; wait";

/// Says whether this user may ping, which is all that those configurations know.
fn may_ping() -> bool {
    let family = mplane_probe::packet::Family::V4;
    let availability = mplane_cli::block_on(mplane_probe::socket::detect(family));
    if !availability.is_usable() {
        skip(&availability.to_string());
    }
    availability.is_usable()
}

/// Writes a configuration.
fn write(domain: &Domain, name: &str, text: &str) -> PathBuf {
    let path = domain.path(name);
    fs::write(&path, text).expect("the folder is ours");
    path
}

/// Starts a component from a configuration, waits until it has registered, and has it
/// measure.
fn check_component(domain: &Domain, config: &PathBuf, supervisor: SocketAddr) {
    check(domain, config, "configuration, and the files that it names");
    let mut component = Program::start(daemon(MPCOM, config));
    component.wait_for(Stream::Err, &["\"registered\"", "Test.Supervisors.sup-1"]);
    component.wait_for(Stream::Err, &["gui has no meaning here"]);
    check_result(&shell(domain, "ops-1", supervisor, PING));
    let output = shell(domain, "cli-1", supervisor, PING);
    assert!(output.out.is_empty(), "{output:#?}");
}

/// Checks what `mplane check` says about a configuration.
fn check(domain: &Domain, config: &PathBuf, told: &str) {
    let mut check = command(MPLANE);
    check.arg("check").arg(config).current_dir(domain.folder.path());
    let output = run(check).expect(0);
    assert!(output.out.contains(told), "{output:#?}");
}

/// Starts a supervisor from an INI file in which `ops-1` may ping.
fn reference_supervisor(domain: &Domain) -> (Program, SocketAddr) {
    let config = write(
        domain,
        "supervisor.conf",
        "[TLS]\ncert = pki/sup-1.crt\nkey = pki/sup-1.key\nca-chain = pki/ca.crt\n\n\
         [Roles]\nTest.Clients.ops-1 = admin\n\n\
         [Authorizations]\nping-average-ip4 = admin\nping-detail-ip4 = admin,guest\n\n\
         [client]\nworkflow = component-initiated\nlisten-host = 127.0.0.1\n\
         listen-port = 0\nregistration-path = register/capability\n\n\
         [component]\nworkflow = client-initiated\nlisten-host = 127.0.0.1\n\
         listen-port = 0\n",
    );
    let mut supervisor = Program::start(daemon(MPSUP, &config));
    let address = address_in(&supervisor.wait_for(Stream::Err, &["\"supervises\""]));
    supervisor.wait_for(Stream::Err, &["nobody has the role guest"]);
    (supervisor, address)
}

#[test]
fn a_component_measures_with_an_ini_file_of_the_reference() {
    if !may_ping() {
        return;
    }
    let domain = domain();
    let (_supervisor, address) = reference_supervisor(&domain);
    let text = format!(
        "[TLS]\ncert = pki/com-1.crt\nkey = pki/com-1.key\nca-chain = pki/ca.crt\n\n\
         [Roles]\nTest.Supervisors.sup-1 = admin\n\n\
         [Authorizations]\nping-average-ip4 = admin\nping-detail-ip4 = admin\n\n\
         [module_ping]\nmodule = mplane.components.ping\nip4addr = 127.0.0.1\n\n\
         [component]\nscheduler_max_results = 20\nworkflow = component-initiated\n\
         client_host = {}\nclient_port = {}\nregistration_path = register/capability\n\
         [gui]\nport = 8080\n",
        address.ip(),
        address.port()
    );
    check_component(&domain, &write(&domain, "component.conf", &text), address);
}

#[test]
fn a_component_measures_with_a_json_file_of_the_reference() {
    if !may_ping() {
        return;
    }
    let domain = domain();
    let (_supervisor, address) = reference_supervisor(&domain);
    let text = format!(
        r#"{{
            "TLS": {{
                "cert": "pki/com-1.crt", "key": "pki/com-1.key", "ca-chain": "pki/ca.crt"
            }},
            "Access": {{
                "Roles": {{"admin": ["Test.Supervisors.sup-1"]}},
                "Authorizations": {{"ping-detail-ip4": ["admin"]}}
            }},
            "Component": {{
                "Modules": {{"mplane.components.ping": {{"ip4addr": "127.0.0.1"}}}},
                "Initiator": {{"capability-url": "https://{address}/register/capability"}},
                "scheduler_max_results": "20"
            }},
            "gui": {{"port": 8080}}
        }}"#
    );
    check_component(&domain, &write(&domain, "component.json", &text), address);
}

#[test]
fn a_supervisor_calls_the_components_that_a_file_of_the_reference_lists() {
    let domain = Domain::new();
    let section = format!("[component.listener]\naddress = \"127.0.0.1:0\"\n\n{TCP}");
    let config = domain.configure("component.toml", "com-1", &section);
    let mut component = Program::start(daemon(MPCOM, &config));
    let event = component.wait_for(Stream::Err, &["\"offers services\""]);
    let listening = address_in(&event);
    // Nobody listens at the first: the others are called all the same.
    let config = write(
        &domain,
        "supervisor.conf",
        &format!(
            "[TLS]\ncert = pki/sup-1.crt\nkey = pki/sup-1.key\nca-chain = pki/ca.crt\n\n\
             [client]\nworkflow = client-initiated\n\
             component-urls = 127.0.0.1:9/, {listening}/\n\n\
             [component]\nworkflow = client-initiated\nlisten-host = 127.0.0.1\n\
             listen-port = 0\n"
        ),
    );
    let mut supervisor = Program::start(daemon(MPSUP, &config));
    let address = address_in(&supervisor.wait_for(Stream::Err, &["\"supervises\""]));
    supervisor.wait_for(Stream::Err, &["https://127.0.0.1:9/", "cannot be called"]);
    supervisor.wait_for(Stream::Err, &["\"registered\"", "Test.Components.com-1"]);
    let commands = format!("{}; wait", measure(listening.port(), "now + 1s / 1s"));
    check_result(&domain.shell(address, &commands).expect(0));
}

#[test]
fn a_module_that_is_not_known_is_told() {
    let domain = domain();
    let config = write(
        &domain,
        "component.conf",
        "[TLS]\ncert = pki/com-1.crt\nkey = pki/com-1.key\nca-chain = pki/ca.crt\n\
         [module_tstat]\nmodule = mplane.components.tstat\n[component]\n",
    );
    let mut component = daemon(MPCOM, &config);
    component.arg("--check");
    let output = run(component).expect(1);
    let told = "module mplane.components.tstat: it is not known here, known is \
                mplane.components.ping";
    assert!(output.err.contains("error: cannot use the configuration"), "{output:#?}");
    assert!(output.err.contains(told), "{output:#?}");
}

#[test]
fn a_supervisor_starts_with_the_options_and_files_of_the_client_supervisor_probe_system()
{
    let domain = Domain::new();
    let file = |name: &str, text: &str| {
        fs::write(domain.path(name), text).expect("the folder is ours");
    };
    let certs =
        "# files\ncert= pki/sup-1.crt\nkey= pki/sup-1.key\nca-chain= pki/ca.crt\n";
    file("supervisor-certs.conf", certs);
    file("users.conf", "Test.Clients.cli-1: guest\n");
    file("caps.conf", "tcp-connect-ip4, Test.Components.com-1: guest, admin\n");
    let supervisor = |arguments: &[&str]| {
        let mut supervisor = command(MPSUP);
        supervisor.arg("-c").arg(domain.path("supervisor-certs.conf")).args(arguments);
        supervisor.args(["--log-format", "json"]).env("MPLANE_CONF_DIR", domain.path(""));
        supervisor.env("HOME", "/nonexistent");
        supervisor
    };
    run(supervisor(&["--check"])).expect(0);
    let mut running = Program::start(supervisor(&["-s", "127.0.0.1", "-p", "0"]));
    let address = address_in(&running.wait_for(Stream::Err, &["\"supervises\""]));
    let _component = domain.component(address);
    let listed = domain.shell(address, "listcap").expect(0).out;
    assert!(listed.contains("tcp-connect-ip4"), "{listed}");
    // Another component's capability of that label is another one.
    file("caps.conf", "tcp-connect-ip4, Test.Components.com-2: guest\n");
    running.signal(Signal::SIGHUP);
    running.wait_for(Stream::Err, &["has read its configuration again"]);
    let listed = domain.shell(address, "listcap").expect(0).out;
    assert!(!listed.contains("tcp-connect-ip4"), "{listed}");
    fs::remove_file(domain.path("users.conf")).expect("it is there");
    let missing = run(supervisor(&["--check"])).expect(1);
    assert!(missing.err.contains("there is no users.conf in"), "{missing:?}");
}
