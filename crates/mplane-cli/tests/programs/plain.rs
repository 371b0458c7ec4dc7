//! Plain HTTP: what it does where it is configured, and what is refused where it is not.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::check;
use crate::domain::{
    Domain, MPCLI, MPCOM, MPLANE, MPSUP, TCP, address_in, check_result, daemon, get,
    initiator, measure,
};
use crate::support::{Finished, Program, Stream, command, folder, run};

/// What allows plain HTTP.
const PLAIN: &str = "plain-http = \"loopback\"\n";

/// What tells that a peer reads capabilities of any registry.
const READS_ALL: &str = "MPlane-Features: native-values registries";

/// Rules by which who has no certificate may do less than an administrator.
const ACCESS: &str = "[access.roles]\n\
    admin = [\"Test.Clients.ops-1\"]\n\
    guest = [\"unauthenticated\"]\n\
    [access.authorizations]\n\
    tcp-connect-ip4 = [\"admin\"]\n\n";

/// Writes a configuration.
fn write(folder: &TempDir, file: &str, text: &str) -> PathBuf {
    let path = folder.path().join(file);
    fs::write(&path, text).expect("the folder is ours");
    path
}

/// Returns the section of a listener in plain HTTP.
fn listener(section: &str, address: &str) -> String {
    format!("[{section}]\naddress = \"{address}\"\n{PLAIN}\n")
}

/// Starts a component that listens in plain HTTP; returns it with its address.
fn listening_component(folder: &TempDir, access: &str) -> (Program, SocketAddr) {
    let text = access.to_owned() + &listener("component.listener", "127.0.0.1:0") + TCP;
    let config = write(folder, "component.toml", &text);
    let mut component = Program::start(daemon(MPCOM, &config));
    let event = component.wait_for(Stream::Err, &["\"offers services\""]);
    (component, address_in(&event))
}

/// Runs commands in the shell of a client without certificate.
fn shell(folder: &TempDir, peer: SocketAddr, commands: &str) -> Finished {
    let text = format!("[client]\nurl = \"http://{peer}/\"\n{PLAIN}");
    let config = write(folder, "client.toml", &text);
    let mut shell = command(MPCLI);
    shell.arg("--config").arg(config).args(["-c", commands]);
    run(shell)
}

/// Returns the value of a header in an answer.
fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split("\r\n\r\n").next()?;
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.into_iter().find(|(known, _)| *known == name).map(|(_, value)| value)
}

#[test]
fn a_listening_component_is_asked_in_plain_http() {
    let folder = folder();
    let (mut component, address) = listening_component(&folder, "");
    component.wait_for(Stream::Err, &["WARN", "listens in plain HTTP", "authenticated"]);
    let commands = format!("listcap; {}; wait", measure(address.port(), "now + 1s / 1s"));
    let output = shell(&folder, address, &commands).expect(0);
    check_result(&output);
    assert!(output.out.contains("Capability tcp-connect-ip4 "), "{output:#?}");
    assert!(output.err.contains("speaks plain HTTP"), "{output:#?}");
    component.signal(Signal::SIGTERM);
    component.finish().expect(0);
}

#[test]
fn the_pages_of_a_component_lead_to_its_capabilities() {
    let folder = folder();
    let (_component, address) = listening_component(&folder, "");
    let host = format!("Host: {address}\r\n{READS_ALL}");
    for path in ["/", "/capability", "/capability/"] {
        let page = get(address, path, &host);
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
        assert_eq!(header(&page, "content-type"), Some("text/html"), "{page}");
        assert!(page.contains("Welcome"), "{page}");
        let links: Vec<_> = page.split("href=\"").skip(1).collect();
        let [link] = links[..] else { panic!("one for each capability: {page}") };
        let (link, rest) = link.split_once('"').expect("it ends");
        assert!(rest.starts_with(">tcp-connect-ip4</a>"), "{page}");

        let one = get(address, link, &host);
        assert!(one.starts_with("HTTP/1.1 200 OK\r\n"), "{one}");
        assert_eq!(header(&one, "content-type"), Some("application/x-mplane+json"));
        let body = one.split("\r\n\r\n").nth(1).expect("it has a body");
        let capability = write(&folder, "capability.json", body);
        let mut check = command(MPLANE);
        check.arg("check").arg(capability);
        let told = run(check).expect(0).out;
        let token = link.rsplit('/').next().expect("it names one");
        assert!(told.contains("capability\n") && told.contains(token), "{told}");
    }
    // The reference would stumble over elements that it does not know.
    let page = get(address, "/", &format!("Host: {address}"));
    assert!(page.contains("Welcome") && !page.contains("href"), "{page}");
    for path in ["/capability/0cb9cff17300728cbd2b925332c9fe79", "/capability/%3Cb%3E"] {
        let nothing = get(address, path, &host);
        assert!(nothing.starts_with("HTTP/1.1 404 Not Found\r\n"), "{nothing}");
        assert!(nothing.contains("there is no such capability for you"), "{nothing}");
        assert_eq!(header(&nothing, "content-type"), Some("application/x-mplane+json"));
    }
}

#[test]
fn nobody_becomes_somebody_by_a_header() {
    let folder = folder();
    let (component, address) = listening_component(&folder, ACCESS);
    let forged = format!(
        "Host: {address}\r\n{READS_ALL}\r\nForged-MPlane-Identity: Test.Clients.ops-1"
    );
    let page = get(address, "/capability", &forged);
    assert!(page.contains("Welcome") && !page.contains("href"), "{page}");
    let capabilities = get(address, "/capabilities", &forged);
    assert!(capabilities.starts_with("HTTP/1.1 200 OK\r\n"), "{capabilities}");
    assert!(!capabilities.contains("tcp-connect-ip4"), "{capabilities}");
    let commands = measure(address.port(), "now + 1s / 1s");
    shell(&folder, address, &commands).expect(1);
    component.signal(Signal::SIGTERM);
    component.finish().expect(0);

    let (_component, address) =
        listening_component(&folder, &ACCESS.replace("[\"admin\"]", "[\"guest\"]"));
    assert!(get(address, "/capability", &forged).contains("href"));
    check_result(&shell(&folder, address, &format!("{commands}; wait")).expect(0));
}

#[test]
fn a_port_of_this_machine_is_not_asked_for_by_another_name() {
    let folder = folder();
    let (_component, address) = listening_component(&folder, "");
    for host in ["Host: rebound.example", "Host: rebound.example:80", "Host: /"] {
        let refused = get(address, "/capability", &format!("{host}\r\n{READS_ALL}"));
        assert!(refused.starts_with("HTTP/1.1 421 Misdirected Request"), "{refused}");
        assert!(!refused.contains("tcp-connect-ip4"), "{refused}");
    }
    for host in ["Host: localhost:1", "Host: [::1]:1", "Accept: */*"] {
        let page = get(address, "/capability", &format!("{host}\r\n{READS_ALL}"));
        assert!(page.contains("tcp-connect-ip4"), "{page}");
    }
}

#[test]
fn the_three_roles_measure_in_plain_http() {
    let folder = folder();
    let config = write(
        &folder,
        "supervisor.toml",
        &listener("supervisor.listener", "127.0.0.1:0"),
    );
    let mut supervisor = Program::start(daemon(MPSUP, &config));
    let event = supervisor.wait_for(Stream::Err, &["\"supervises\"", "unauthenticated"]);
    let address = address_in(&event);
    let text = initiator(address).replace("https", "http").trim_end().to_owned();
    let config = write(&folder, "component.toml", &format!("{text}\n{PLAIN}{TCP}"));
    check(MPCOM, &config).expect(0);
    let mut component = Program::start(daemon(MPCOM, &config));
    component.wait_for(Stream::Err, &["WARN", "speaks plain HTTP"]);
    component.wait_for(Stream::Err, &["\"registered\"", "\"unauthenticated\""]);
    let commands = format!("listcap; {}; wait", measure(address.port(), "now + 1s / 1s"));
    let output = shell(&folder, address, &commands).expect(0);
    check_result(&output);
    assert!(output.err.contains("component.identity: unauthenticated"), "{output:#?}");
    let page = get(address, "/", &format!("Host: {address}\r\n{READS_ALL}"));
    assert!(
        page.contains(">tcp-connect-ip4</a>"),
        "a supervisor has the page too: {page}"
    );
    for program in [component, supervisor] {
        program.signal(Signal::SIGTERM);
        program.finish().expect(0);
    }
}

#[test]
fn components_in_plain_http_and_clients_over_tls_share_a_supervisor() {
    let domain = Domain::new();
    let section = "[supervisor.listener]\naddress = \"127.0.0.1:0\"\n\n".to_owned()
        + &listener("supervisor.component-listener", "127.0.0.1:0");
    let config = domain.configure("supervisor.toml", "sup-1", &section);
    let mut supervisor = Program::start(daemon(MPSUP, &config));
    let clients =
        address_in(&supervisor.wait_for(Stream::Err, &["\"supervises\"", "sup-1"]));
    let second = supervisor.wait_for(Stream::Err, &["at a second address"]);
    let components = address_in(&second.replace("\"components\"", "\"address\""));
    let text = initiator(components).replace("https", "http").trim_end().to_owned();
    let config =
        write(&domain.folder, "component.toml", &format!("{text}\n{PLAIN}{TCP}"));
    let mut component = Program::start(daemon(MPCOM, &config));
    component.wait_for(Stream::Err, &["\"registered\""]);
    let commands = format!("{}; wait", measure(clients.port(), "now + 1s / 1s"));
    check_result(&domain.shell(clients, &commands).expect(0));
}

#[test]
fn who_speaks_tls_to_plain_http_or_plain_http_to_tls_is_told() {
    let domain = Domain::new();
    let (mut supervisor, over_tls) = domain.supervisor();
    let output = shell(&domain.folder, over_tls, "getcap").expect(1);
    assert!(output.err.contains("400 Bad Request: this port speaks TLS"), "{output:#?}");
    assert!(output.err.contains("https://"), "{output:#?}");
    supervisor.wait_for(Stream::Err, &["WARN", "refused plain HTTP", "speaks TLS"]);
    let text = initiator(over_tls).replace("https", "http").trim_end().to_owned();
    let config = write(&domain.folder, "lost.toml", &format!("{text}\n{PLAIN}{TCP}"));
    let mut component = Program::start(daemon(MPCOM, &config));
    component.wait_for(Stream::Err, &["\"cannot register\"", "this port speaks TLS"]);

    let (mut component, plain) = listening_component(&domain.folder, "");
    let output = domain.shell(plain, "getcap").expect(1);
    assert!(output.err.contains("the peer does not speak TLS"), "{output:#?}");
    assert!(output.err.contains("http://"), "{output:#?}");
    component.wait_for(Stream::Err, &["WARN", "this port speaks no TLS"]);
}

#[test]
fn plain_http_that_no_key_allows_is_refused() {
    let folder = folder();
    let far = "other machines reach 0.0.0.0:0";
    let listener = "[supervisor.listener]\naddress = \"0.0.0.0:0\"\n";
    let initiator = "[[component.initiator]]\nurl = \"http://192.0.2.1:1/\"\n";
    for (program, text, reason) in [
        (MPSUP, format!("{listener}{PLAIN}"), far),
        (
            MPCOM,
            format!("{}{PLAIN}{TCP}", listener.replace("supervisor", "component")),
            far,
        ),
        (
            MPSUP,
            listener.to_owned(),
            "no section [tls], which [supervisor.listener] needs",
        ),
        (
            MPCOM,
            format!("{initiator}{TCP}"),
            "only where plain-http = \"loopback\" allows",
        ),
        (
            MPCOM,
            format!("{initiator}{PLAIN}{TCP}"),
            "only where plain-http = \"anywhere\" allows",
        ),
    ] {
        let config = write(&folder, "refused.toml", &text);
        for finished in [run(daemon(program, &config)), check(program, &config)] {
            let output = finished.expect(1);
            assert!(output.err.contains(reason), "{text}\n{reason}: {output:#?}");
        }
    }
    let text = "[client]\nurl = \"http://127.0.0.1:1/\"\n";
    let mut shell = command(MPCLI);
    shell.arg("--config").arg(write(&folder, "client.toml", text)).args(["-c", "help"]);
    let output = run(shell).expect(1);
    assert!(output.err.contains("plain-http = \"loopback\" allows it"), "{output:#?}");
    assert!(output.out.is_empty(), "{output:#?}");
}

#[test]
fn the_shell_goes_to_plain_http_only_if_it_may() {
    let domain = Domain::new();
    let (_component, plain) = listening_component(&domain.folder, "");
    let (_supervisor, over_tls) = domain.supervisor();
    let commands = format!("seturl http://{plain}/; listcap");
    let refused = domain.shell(over_tls, &commands).expect(1);
    assert!(refused.err.contains("plain-http = \"loopback\" allows it"), "{refused:#?}");
    assert!(refused.out.is_empty(), "{refused:#?}");

    let commands = format!("seturl https://{over_tls}/; listcap");
    let refused = shell(&domain.folder, plain, &commands).expect(1);
    assert!(refused.err.contains("this program needs a certificate"), "{refused:#?}");

    let section = format!("[client]\nurl = \"https://{over_tls}/\"\n{PLAIN}");
    let config = domain.configure("both.toml", "cli-1", &section);
    let commands = format!("getcap; seturl http://{plain}/; getcap; listcap");
    let mut shell = command(MPCLI);
    shell.arg("--config").arg(config).args(["-c", &commands]);
    let output = run(shell).expect(0);
    assert!(output.out.contains("Capability tcp-connect-ip4 "), "{output:#?}");
}

#[test]
fn files_of_the_reference_without_tls_mean_plain_http_within_this_machine() {
    let folder = folder();
    let sections = "[client]\nworkflow = component-initiated\nlisten-port = 0\n\n\
                    [component]\nworkflow = client-initiated\nlisten-port = 0\n";
    let config = write(&folder, "supervisor.conf", sections);
    let mut check = command(MPLANE);
    check.arg("check").arg(&config);
    let told = run(check).expect(0).out;
    assert!(told.contains("TLS is missing: plain HTTP is spoken"), "{told}");
    let mut supervisor = Program::start(daemon(MPSUP, &config));
    supervisor.wait_for(Stream::Err, &["WARN", "TLS is missing: plain HTTP is spoken"]);
    let event = supervisor.wait_for(Stream::Err, &["\"supervises\""]);
    let address = address_in(&event);
    assert!(address.ip().is_loopback(), "{event}");

    let initiator = initiator(address).replace("https", "http").trim_end().to_owned();
    let config = write(&folder, "component.toml", &format!("{initiator}\n{PLAIN}{TCP}"));
    let mut component = Program::start(daemon(MPCOM, &config));
    component.wait_for(Stream::Err, &["\"registered\""]);
    let text = format!(
        r#"{{"Client": {{"Initiator": {{"capability-url": "http://{address}/"}}}}}}"#
    );
    let config = write(&folder, "client.json", &text);
    let mut shell = command(MPCLI);
    shell.arg("--config").arg(config).args(["-c", "listcap"]);
    let output = run(shell).expect(0);
    assert!(output.out.contains("Capability tcp-connect-ip4 "), "{output:#?}");

    let far =
        sections.replace("listen-port = 0\n\n", "listen-port = 0\nlisten-host = ::\n\n");
    let output = run(daemon(MPSUP, &write(&folder, "far.conf", &far))).expect(1);
    assert!(
        output.err.contains("client.listen-host: other machines reach"),
        "{output:#?}"
    );
}
