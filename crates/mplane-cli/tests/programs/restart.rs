//! What a component with a spool has accepted outlives it.

use std::fs;

use nix::sys::signal::Signal;

use crate::domain::{
    Domain, MPCOM, MPLANE, TCP, check_result, daemon, initiator, measure,
};
use crate::support::{Program, Stream, command, rows, run};

/// Starts a component with a spool, and waits until it has registered.
fn component(domain: &Domain, supervisor: std::net::SocketAddr) -> Program {
    let section = format!(
        "[component]\nspool = \"component.spool\"\n\n{}{TCP}",
        initiator(supervisor)
    );
    let config = domain.configure("component.toml", "com-1", &section);
    let mut component = Program::start(daemon(MPCOM, &config));
    component.wait_for(Stream::Err, &["\"registered\"", "Test.Supervisors.sup-1"]);
    component
}

/// Waits until a component has stored rows of what runs.
fn wait_for_rows(domain: &Domain) {
    let started = std::time::Instant::now();
    let file = domain.path("component.spool-wal");
    let size = || fs::metadata(&file).map_or(0, |file| file.len());
    // The specification is there; what makes the file grow are rows.
    let before = size();
    let mut growths = 0;
    let mut last = before;
    while growths < 2 {
        assert!(started.elapsed() < crate::support::DEADLINE, "no rows are stored");
        if size() > last {
            last = size();
            growths += 1;
        }
        std::thread::sleep(crate::support::LOOK_AGAIN);
    }
}

#[test]
fn a_measurement_cut_by_sigkill_ends_with_its_rows_and_the_reason() {
    let domain = Domain::new();
    let (_supervisor, address) = domain.supervisor();
    let victim = component(&domain, address);
    let commands = format!("{}; wait", measure(address.port(), "now + 1h / 1s"));
    let mut shell = domain.shell_of("cli-1", address);
    shell.args(["-c", &commands]);
    let mut shell = Program::start(shell);
    shell.wait_for(Stream::Err, &["Receipt tcp-connect-ip4-0"]);
    wait_for_rows(&domain);
    victim.signal(Signal::SIGKILL);
    assert!(!victim.finish().status.success());

    let _component = component(&domain, address);
    let output = shell.finish().expect(0);
    check_result(&output);
    assert!(output.err.contains("measurement.incomplete: restarted"), "{output:#?}");
    assert!(rows(&output.out).len() < 60, "it was not run again: {output:#?}");
}

#[test]
fn what_waited_starts_after_a_restart() {
    let domain = Domain::new();
    let (_supervisor, address) = domain.supervisor();
    let victim = component(&domain, address);
    let start = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(3);
    let end = start + jiff::SignedDuration::from_secs(2);
    let scope = format!(
        "{} ... {} / 1s",
        mplane::when::display_timestamp(start),
        mplane::when::display_timestamp(end)
    );
    let mut shell = domain.shell_of("cli-1", address);
    let commands = format!("{}; wait", measure(address.port(), &scope));
    shell.args(["-c", &commands]);
    let mut shell = Program::start(shell);
    shell.wait_for(Stream::Err, &["Receipt tcp-connect-ip4-0"]);
    // The receipt of the supervisor: the component has it once it says so.
    let mut victim = victim;
    victim.wait_for(Stream::Err, &["accepted a specification"]);
    victim.signal(Signal::SIGKILL);
    victim.finish();
    let _component = component(&domain, address);
    let output = shell.finish().expect(0);
    check_result(&output);
    assert!(!output.err.contains("measurement.incomplete"), "{output:#?}");
}

#[test]
fn two_components_on_one_spool_are_one_too_many() {
    let domain = Domain::new();
    let (_supervisor, address) = domain.supervisor();
    let _component = component(&domain, address);
    let second = run(daemon(MPCOM, &domain.path("component.toml"))).expect(1);
    assert!(second.err.contains("is used by another program"), "{second:#?}");
}

#[test]
fn a_spool_tells_what_it_holds() {
    let domain = Domain::new();
    let (_supervisor, address) = domain.supervisor();
    let mut victim = component(&domain, address);
    let commands = measure(address.port(), "now + 1h / 1s");
    domain.shell(address, &commands).expect(0);
    victim.wait_for(Stream::Err, &["accepted a specification"]);
    let mut spool = command(MPLANE);
    spool.arg("spool").arg(domain.path("component.spool"));
    let output = run(spool).expect(0);
    assert!(output.out.contains("tcp-connect-ip4"), "{output:#?}");
}
