//! What a component takes that has registered with a supervisor and waits for work: the one
//! of the example configuration.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use crate::domain::{ADDRESS, Domain, SPOOL, spool_word};
use crate::figures::{Clock, Memory, headline, verdict};
use crate::latency::MPCOM;
use crate::reference::Reference;

/// The supervisor.
const MPSUP: &str = env!("CARGO_BIN_EXE_mpsup");

/// How long a component has been idle when it is looked at.
const IDLE: Duration = Duration::from_secs(3);

/// How much memory an idle component may take, in megabytes.
const MOST_MB: f64 = 15.0;

/// Plays the scene.
pub(super) fn scene(domain: &Domain, reference: Option<&Reference>) {
    headline("idle, registered with a supervisor");
    for has_spool in [false, true] {
        let (_supervisor, port) = supervisor(domain);
        let (component, log) = domain.start_as(MPCOM, "com-1", &example(port, has_spool));
        log.wait_for(&["\"registered\""]);
        let memory = look(&format!("mpcom {}", spool_word(has_spool)), component.id());
        verdict("resident", memory.all, MOST_MB, "MB");
    }
    if let Some(reference) = reference {
        let (_supervisor, port) = supervisor(domain);
        let component = reference.registering(domain, port);
        look("reference", component.id());
    }
}

/// Looks at a process that has been idle for a while.
fn look(name: &str, process: u32) -> Memory {
    // What registering leaves behind is gone soon.
    sleep(IDLE);
    let clock = Clock::start(process);
    sleep(IDLE);
    let memory = Memory::of(process);
    println!("  {name:20} {memory}   {:.1} % of one processor", clock.percent());
    memory
}

/// Starts a supervisor; returns it with its port.
fn supervisor(domain: &Domain) -> (crate::support::Program, u16) {
    let section = format!("[supervisor.listener]\naddress = \"{ADDRESS}:0\"\n");
    let (supervisor, log) = domain.start(MPSUP, "sup-1", &section);
    (supervisor, log.address("\"supervises\"").port())
}

/// Returns the example configuration with the certificate of the component and the
/// supervisor at a port.
fn example(port: u16, has_spool: bool) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../etc/component.toml");
    let text = fs::read_to_string(path).expect("it is in the repository");
    let text = text
        .replace("../pki/", "pki/")
        .replace("probe-1.", "com-1.")
        .replace("127.0.0.1:8890", &format!("{ADDRESS}:{port}"));
    let spool = format!("spool = \"{SPOOL}\"");
    let with_spool = text.replace(&format!("#{spool}"), &spool);
    assert_ne!(text, with_spool, "the example has a line for a spool");
    if has_spool { with_spool } else { text }
}
