//! Whatever fails while a domain works: what was accepted is measured, kept and told.
//!
//! `MPLANE_FAULTS=N` plays N faults instead of each kind once, for a long run.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rusqlite::TransactionBehavior;
use serde_json::Value;

use crate::domain::{Domain, MPCOM, TCP, daemon, initiator};
use crate::story::{supervisor, tool};
use crate::support::{DEADLINE, LOOK_AGAIN, Program, Stream};

/// Something that goes wrong.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The supervisor is killed and started again.
    Supervisor,
    /// A component is killed and started again.
    Component(usize),
    /// Both are, the component first.
    Both(usize),
    /// The supervisor stands still for a while.
    Standstill,
    /// Another program holds the lock of the store for a while.
    Lock,
    /// It holds it for longer than a write waits.
    LongLock,
}

/// Each of them. Clients are killed all the time.
const FAULTS: [Fault; 7] = [
    Fault::Supervisor,
    Fault::Component(0),
    Fault::Standstill,
    Fault::Lock,
    Fault::Both(1),
    Fault::LongLock,
    Fault::Supervisor,
];

/// How long the supervisor stands still, and the lock of its store is held.
const WHILE: Duration = Duration::from_millis(1_500);

/// How long a lock is held that writes do not wait for.
const LONG: Duration = Duration::from_secs(7);

/// How long it works between two faults: so long, and up to as long again.
const BETWEEN: Duration = Duration::from_millis(400);

/// Every so many measurements their client is killed once it has the receipt.
const KILLED: usize = 4;

/// What clients may be told instead of a receipt.
const OUTAGES: [&str; 4] =
    ["cannot reach", "cannot store", "there was no answer", "did not arrive whole"];

/// The members that work.
const COMPONENTS: [&str; 2] = ["com-1", "com-2"];
const CLIENTS: [&str; 3] = ["cli-1", "cli-2", "cli-3"];

#[test]
fn whatever_fails_what_was_accepted_is_measured_kept_and_told() {
    let domain = Arc::new(Domain::new());
    for (role, name) in [("component", "com-2"), ("client", "cli-2"), ("client", "cli-3")]
    {
        domain.pki(&["issue", "pki", role, name]).expect(0);
    }
    let (first, address, config) = supervisor(&domain, "127.0.0.1:0");
    let mut above = Some(first);
    let component = |index: usize| {
        let name = COMPONENTS[index];
        let section = format!(
            "[component]\nspool = \"{name}.spool\"\n\n{}{TCP}",
            initiator(address)
        );
        let config = domain.configure(&format!("{name}.toml"), name, &section);
        Program::start(daemon(MPCOM, &config))
    };
    let mut components = [0, 1].map(component);
    for component in &mut components {
        component.wait_for(Stream::Err, &["\"registered\"", "Test.Supervisors.sup-1"]);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let clients = CLIENTS.map(|name| {
        let (domain, stop) = (Arc::clone(&domain), Arc::clone(&stop));
        spawn(move || measure_until(&domain, name, address, &stop))
    });

    let faults = std::env::var("MPLANE_FAULTS").ok();
    let faults = faults.map_or(FAULTS.len(), |it| it.parse().expect("it is a number"));
    for fault in FAULTS.into_iter().cycle().take(faults) {
        // Any moment will do, as long as it is another one each time.
        let now = jiff::Timestamp::now().subsec_nanosecond().unsigned_abs();
        sleep(BETWEEN + BETWEEN.mul_f64(f64::from(now) / 1e9));
        if let Fault::Component(index) | Fault::Both(index) = fault {
            components[index].signal(Signal::SIGKILL);
        }
        if let Fault::Supervisor | Fault::Both(_) = fault {
            let victim = above.take().expect("it runs");
            victim.signal(Signal::SIGKILL);
            victim.finish();
            above = Some(supervisor(&domain, &address.to_string()).0);
        }
        if let Fault::Component(index) | Fault::Both(index) = fault {
            components[index] = component(index);
        }
        match fault {
            Fault::Standstill => {
                let standing = above.as_ref().expect("it runs");
                standing.signal(Signal::SIGSTOP);
                sleep(WHILE);
                standing.signal(Signal::SIGCONT);
            }
            Fault::Lock => hold_lock(&domain.path("store"), WHILE),
            Fault::LongLock => hold_lock(&domain.path("store"), LONG),
            _ => {}
        }
    }
    stop.store(true, Ordering::Relaxed);
    let counts = clients.map(JoinHandle::join).map(|counts| counts.expect("it ends"));
    let sum = |which: fn(&Counts) -> usize| counts.iter().map(which).sum::<usize>();
    println!(
        "{faults} faults: {} accepted, {} told, {} clients killed, {} not accepted",
        sum(|it| it.tokens.len()),
        sum(|it| it.told),
        sum(|it| it.killed),
        sum(|it| it.refused),
    );
    for Counts { refusal, .. } in counts.iter().filter(|it| !it.refusal.is_empty()) {
        println!("not accepted, for example: {refusal}");
    }
    check_store(&config, &counts);
}

/// What became of the measurements of one client.
#[derive(Default)]
struct Counts {
    /// Those of which it has a receipt.
    tokens: BTreeSet<String>,
    /// How many results it was told.
    told: usize,
    /// How often it was killed with a receipt.
    killed: usize,
    /// How many were not accepted.
    refused: usize,
    /// What was said of the last that was not.
    refusal: String,
}

/// Has a client measure again and again.
fn measure_until(
    domain: &Domain,
    name: &str,
    supervisor: std::net::SocketAddr,
    stop: &AtomicBool,
) -> Counts {
    let mut counts = Counts::default();
    for serial in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let component = COMPONENTS[serial % COMPONENTS.len()];
        let port = supervisor.port();
        let mut shell = domain.shell_of(name, supervisor);
        shell.args([
            "-c",
            &format!(
                "set destination.ip4 127.0.0.1; set destination.port {port}; \
                 when now + 1s / 1s; runcap tcp-connect-ip4@{component}; wait"
            ),
        ]);
        let mut shell = Program::start(shell);
        let is_killed = serial % KILLED == KILLED - 1;
        while is_killed && !shell.has_ended() {
            if shell.has_said(Stream::Err, &["Receipt "]) {
                shell.signal(Signal::SIGKILL);
                break;
            }
            sleep(LOOK_AGAIN);
        }
        let finished = shell.finish();
        let output = &finished.output;
        let Some(token) = token_in(&output.err) else {
            counts.refused += 1;
            let is_outage = OUTAGES.iter().any(|outage| output.err.contains(outage));
            assert!(!finished.status.success() && is_outage, "{finished:#?}");
            counts.refusal.clone_from(&output.err);
            continue;
        };
        counts.tokens.insert(token);
        if finished.status.code().is_none() {
            counts.killed += 1;
        } else {
            // With its receipt a client gets the result, whatever happens.
            assert_eq!(finished.status.code(), Some(0), "{finished:#?}");
            counts.told += 1;
        }
    }
    counts
}

/// Returns the token of the receipt that a shell tells of.
fn token_in(told: &str) -> Option<String> {
    let receipt = told.lines().find(|line| line.contains("Receipt "))?;
    let (_, rest) = receipt.split_once("(token ")?;
    Some(rest.split_once(')')?.0.to_owned())
}

/// Holds the lock of a store.
fn hold_lock(store: &Path, time: Duration) {
    let mut locker =
        rusqlite::Connection::open(store.join("control.db")).expect("it is there");
    locker.busy_timeout(DEADLINE).expect("it is a time");
    let lock = locker.transaction_with_behavior(TransactionBehavior::Immediate);
    let lock = lock.expect("the lock comes free");
    sleep(time);
    drop(lock);
}

/// Checks that all has ended with a result, and that what clients have receipts of is
/// among it.
fn check_store(config: &std::path::PathBuf, counts: &[Counts]) {
    let started = Instant::now();
    for state in ["queued", "handed", "promised"] {
        while !measurements(config, state).is_empty() {
            assert!(started.elapsed() < 2 * DEADLINE, "some are still {state}");
            sleep(LOOK_AGAIN);
        }
    }
    for state in ["lost", "exception", "interrupted"] {
        let ended = measurements(config, state);
        assert!(ended.is_empty(), "{state}: {ended:#?}");
    }
    let done = measurements(config, "result");
    let done: BTreeSet<&str> =
        done.iter().filter_map(|measurement| measurement["token"].as_str()).collect();
    let mut accepted = 0;
    for token in counts.iter().flat_map(|counts| &counts.tokens) {
        accepted += 1;
        let is_done = done.iter().any(|done| done.starts_with(&**token));
        assert!(is_done, "{token} was promised and is not done");
    }
    assert!(accepted > 0 && done.len() >= accepted, "{accepted} of {}", done.len());
    for name in COMPONENTS {
        let label = format!("tcp-connect-ip4@{name}-0");
        let stories = tool(&["why", &label], config).expect(0).out;
        assert!(!stories.contains("something else delivered"), "{stories}");
    }
}

/// Returns all measurements in a state.
fn measurements(config: &std::path::PathBuf, state: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut before = None::<String>;
    loop {
        let mut arguments =
            vec!["measurements", "--state", state, "-n", "500", "-o", "json"];
        if let Some(before) = &before {
            arguments.extend(["--before", before]);
        }
        let text = tool(&arguments, config).expect(0).out;
        let page: Value = serde_json::from_str(&text).expect("it is JSON");
        let rows = page["measurements"].as_array().expect("there is a list");
        all.extend(rows.iter().cloned());
        match page["before"].as_u64() {
            Some(next) => before = Some(next.to_string()),
            None => return all,
        }
    }
}
