//! Components and supervisors whose disk is full: they refuse what they cannot keep, and go on
//! with what they have.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::domain::{
    Domain, MPCOM, MPSUP, TCP, address_in, check_result, daemon, get, measure,
};
use crate::machine::{inside, works};
use crate::support::{DEADLINE, LOOK_AGAIN, Program, Stream};

/// Makes a file system of one megabyte under a folder, for this program alone.
const SMALL_DISK: &str =
    "set -e; mount -t tmpfs -o size=1m tmpfs \"$1\"; shift; exec \"$@\"";

#[test]
fn a_component_whose_disk_is_full_refuses_what_is_new_and_loses_nothing() {
    let domain = Domain::new();
    let disk = domain.path("disk");
    std::fs::create_dir(&disk).expect("the folder is ours");
    let disk = disk.to_str().expect("it is text");
    let own = ["unshare", "--mount", "sh", "-c", SMALL_DISK, "sh", disk];
    if !works(&own) {
        return;
    }
    let sections = format!(
        "[component]\nspool = \"disk/component.spool\"\n\n[component.listener]\n\
         address = \"127.0.0.1:0\"\n\n{TCP}"
    );
    let config = domain.configure("component.toml", "com-1", &sections);
    let mut component = Program::start(inside(&own, &daemon(MPCOM, &config)));
    let address = address_in(&component.wait_for(Stream::Err, &["\"offers services\""]));
    let mut first = domain.shell_of("cli-1", address);
    let commands = format!("{}; wait", measure(address.port(), "now + 6s / 1s"));
    first.args(["-c", &commands]);
    let mut first = Program::start(first);
    first.wait_for(Stream::Err, &["Receipt tcp-connect-ip4-0"]);
    let more = "runcap tcp-connect-ip4; ".repeat(400);
    let flood = format!("{}; {more}", measure(address.port(), "now + 1h / 1s"));
    let output = domain.shell(address, &flood).expect(1);
    let refusal = "this component cannot store what it accepts";
    assert!(output.err.contains(refusal), "{output:#?}");
    component.wait_for(Stream::Err, &["the spool cannot be written"]);
    // What was accepted while there was room is measured and answered.
    check_result(&first.finish().expect(0));
    component.signal(Signal::SIGTERM);
    component.finish().expect(0);
}

/// Makes a file system of four megabytes under a folder, half of it filled, for this program
/// alone.
const FILLED_DISK: &str = "set -e; mount -t tmpfs -o size=4m tmpfs \"$1\"; \
     head -c 2000000 /dev/zero > \"$1/filler\"; shift; exec \"$@\"";

#[test]
fn a_supervisor_whose_disk_is_full_goes_on_when_there_is_room() {
    let domain = Domain::new();
    let disk = domain.path("disk");
    std::fs::create_dir(&disk).expect("the folder is ours");
    let disk = disk.to_str().expect("it is text");
    let own = ["unshare", "--mount", "sh", "-c", FILLED_DISK, "sh", disk];
    if !works(&own) {
        return;
    }
    let section = "[metrics]\naddress = \"127.0.0.1:0\"\n\n[supervisor]\ndata = \
                   \"disk/store\"\n\n[supervisor.listener]\naddress = \"127.0.0.1:0\"\n";
    let config = domain.configure("supervisor.toml", "sup-1", section);
    let mut supervisor = Program::start(inside(&own, &daemon(MPSUP, &config)));
    let address = address_in(&supervisor.wait_for(Stream::Err, &["\"supervises\""]));
    let told = supervisor.wait_for(Stream::Err, &["\"tells metrics and health\""]);
    let health = address_in(&told);
    until_ready(health, "200");
    let mut component = domain.component(address);
    let mut first = domain.shell_of("cli-1", address);
    let commands = format!("{}; wait", measure(address.port(), "now + 3s / 1s"));
    first.args(["-c", &commands]);
    let mut first = Program::start(first);
    first.wait_for(Stream::Err, &["Receipt tcp-connect-ip4-0"]);
    let more = "runcap tcp-connect-ip4; ".repeat(3_000);
    let flood = format!("{}; {more}", measure(address.port(), "now + 1h / 1s"));
    let output = domain.shell(address, &flood).expect(1);
    let refusal = "this supervisor cannot store what it accepts";
    assert!(output.err.contains(refusal), "{output:#?}");
    // It cannot take the result either: the component keeps it and comes again.
    component.wait_for(Stream::Err, &["cannot deliver, tries again", "503"]);
    until_ready(health, "503");
    let filler = format!("/proc/{}/root{disk}/filler", supervisor.id());
    std::fs::remove_file(filler).expect("it is on the disk of the supervisor");
    check_result(&first.finish().expect(0));
    let again = format!("{}; wait", measure(address.port(), "now + 1s / 1s"));
    check_result(&domain.shell(address, &again).expect(0));
    until_ready(health, "200");
    supervisor.signal(Signal::SIGTERM);
    supervisor.finish().expect(0);
}

/// Looks until a program says with this status whether it can do its work.
fn until_ready(health: SocketAddr, status: &str) {
    let started = Instant::now();
    loop {
        let answer = get(health, "/readyz", "Host: health");
        if answer.starts_with(&format!("HTTP/1.1 {status} ")) {
            return;
        }
        assert!(started.elapsed() < 2 * DEADLINE, "{answer}");
        sleep(LOOK_AGAIN);
    }
}
