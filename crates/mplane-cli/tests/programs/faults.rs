//! Whatever fails while a domain works: what was accepted is measured, kept and told.
//!
//! `MPLANE_FAULTS=N` plays N faults instead of each kind once, for a long run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use mplane_supervisor::store::{Archive, Story};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use rusqlite::TransactionBehavior;
use serde_json::Value;

use crate::domain::{Domain, MPCOM, TCP, daemon, initiator};
use crate::machine::skip;
use crate::story::{supervisor, tool};
use crate::support::{DEADLINE, LOOK_AGAIN, Program, Stream, command, run};

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
    /// The disk of the store is full for a while.
    FullDisk,
}

/// Each of them. Clients are killed all the time.
const FAULTS: [Fault; 8] = [
    Fault::Supervisor,
    Fault::Component(0),
    Fault::Standstill,
    Fault::Lock,
    Fault::Both(1),
    Fault::FullDisk,
    Fault::LongLock,
    Fault::Supervisor,
];

/// How long the supervisor stands still, the lock of its store is held, and its disk is full.
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

/// What a component says of what it measured when it was killed, if nothing had come of it.
const CUT: &str = "restarted";

/// The members that work.
const COMPONENTS: [&str; 2] = ["com-1", "com-2"];
const CLIENTS: [&str; 3] = ["cli-1", "cli-2", "cli-3"];

/// How large the disk of the store is, in megabytes: enough for a long run, and soon full.
const DISK: usize = 96;

#[test]
fn whatever_fails_what_was_accepted_is_measured_kept_and_told() {
    // What is mounted is seen by this thread alone, and by what it starts.
    let played = spawn(play).join();
    let figures = played.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    println!("{}", figures.join("\n"));
}

/// Plays all faults; returns figures, as lines.
fn play() -> Vec<String> {
    let domain = Arc::new(Domain::new());
    let has_disk = mount(&domain.path("store"));
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
    let mut logs: [Vec<String>; 2] = Default::default();
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
    let possible = FAULTS.iter().filter(|it| has_disk || !matches!(it, Fault::FullDisk));
    for fault in possible.copied().cycle().take(faults) {
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
            let victim = std::mem::replace(&mut components[index], component(index));
            logs[index].push(victim.finish().output.err);
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
            Fault::FullDisk => fill(&domain.path("store"), WHILE),
            _ => {}
        }
    }
    stop.store(true, Ordering::Relaxed);
    let counts = clients.map(JoinHandle::join).map(|counts| counts.expect("it ends"));
    let sum = |which: fn(&Counts) -> usize| counts.iter().map(which).sum::<usize>();
    let mut figures = vec![format!(
        "{faults} faults: {} accepted, {} told, {} clients killed, {} not accepted",
        sum(|it| it.tokens.len()),
        sum(|it| it.told),
        sum(|it| it.killed),
        sum(|it| it.refused),
    )];
    for Counts { refusal, .. } in counts.iter().filter(|it| !it.refusal.is_empty()) {
        figures.push(format!("not accepted, for example: {}", refusal.trim_end()));
    }
    let done = check_store(&config, &counts);
    for (component, logs) in components.into_iter().zip(&mut logs) {
        component.signal(Signal::SIGTERM);
        logs.push(component.finish().expect(0).err);
    }
    // The copy can be read by threads that do not see the disk.
    let copy = domain.path("copy");
    let copied = copy.to_str().expect("it is text");
    tool(&["backup", copied], &config).expect(0);
    figures.push(check_stories(&copy, &done, &logs));
    figures
}

/// Mounts a small file system where it is seen by this thread alone, and by what it starts;
/// says whether that works here.
fn mount(folder: &Path) -> bool {
    std::fs::create_dir(folder).expect("the folder is ours");
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNS) {
        skip(&format!("disks of one's own do not work here: {error}"));
        return false;
    }
    let mount = |arguments: &[&str], folder: &Path| {
        let mut mount = command("mount");
        mount.args(arguments).arg(folder);
        run(mount).status.success()
    };
    let size = format!("size={DISK}m");
    let works = mount(&["--make-rprivate"], Path::new("/"))
        && mount(&["-t", "tmpfs", "-o", &size, "tmpfs"], folder);
    if !works {
        skip("file systems cannot be mounted here");
    }
    works
}

/// Fills a disk for a while.
fn fill(folder: &Path, time: Duration) {
    let path = folder.join("filler");
    let mut filler = File::create(&path).expect("there is room for its name");
    let mut chunk = vec![0; 1 << 20];
    while !chunk.is_empty() {
        // To the last byte.
        if filler.write_all(&chunk).is_err() {
            chunk.truncate(chunk.len() / 2);
        }
    }
    sleep(time);
    std::fs::remove_file(path).expect("it is ours");
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
            // With its receipt a client gets the result, whatever happens; or it hears that
            // the component was killed while it measured.
            let is_cut = output.err.ends_with(&format!("error: {CUT}\n"));
            let expected = i32::from(is_cut);
            assert_eq!(finished.status.code(), Some(expected), "{finished:#?}");
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

/// Checks that all has ended with a result or was cut, and that what clients have receipts of is
/// among it; returns the tokens of all.
fn check_store(config: &std::path::PathBuf, counts: &[Counts]) -> BTreeSet<String> {
    let started = Instant::now();
    for state in ["queued", "handed", "promised"] {
        while !measurements(config, state).is_empty() {
            assert!(started.elapsed() < 2 * DEADLINE, "some are still {state}");
            sleep(LOOK_AGAIN);
        }
    }
    for state in ["lost", "interrupted"] {
        let ended = measurements(config, state);
        assert!(ended.is_empty(), "{state}: {ended:#?}");
    }
    let ended = ["result", "exception"].map(|state| measurements(config, state));
    let done: BTreeSet<_> = ended
        .into_iter()
        .flatten()
        .filter_map(|measurement| measurement["token"].as_str().map(ToOwned::to_owned))
        .collect();
    let mut accepted = 0;
    for token in counts.iter().flat_map(|counts| &counts.tokens) {
        accepted += 1;
        // A receipt may show its beginning alone.
        let next = done.range(token.clone()..).next();
        let is_done = next.is_some_and(|done| done.starts_with(&**token));
        assert!(is_done, "{token} was promised and is not done");
    }
    assert!(accepted > 0 && done.len() >= accepted, "{accepted} of {}", done.len());
    done
}

/// Checks the story of each measurement: it has one end, from which nothing that was delivered
/// later differs, and one component has started it, once. Returns figures, as a line.
fn check_stories(
    store: &Path,
    done: &BTreeSet<String>,
    logs: &[Vec<String>; 2],
) -> String {
    let jobs = logs.each_ref().map(|logs| jobs(logs));
    let archive = Archive::open(store).expect("it is a copy of one");
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("the system gives one");
    let (mut hand_outs, mut handed_again, mut cut) = (0, 0, 0);
    for token in done {
        let stories = archive.stories(token.clone(), None);
        let mut stories = runtime.block_on(stories).expect("it can be read").stories;
        let (Some(story), true) = (stories.pop(), stories.is_empty()) else {
            panic!("{token} has another number of stories than one");
        };
        check_story(&story);
        hand_outs += story.hand_outs;
        cut += u32::from(story.measurement.state == "exception");
        handed_again += u32::from(story.hand_outs > 1);
        let started: Vec<_> =
            jobs.iter().filter_map(|jobs| jobs.get(&story.handed_token)).collect();
        let [numbers] = started[..] else {
            let count = started.len();
            panic!("{count} components have started {story:#?}");
        };
        assert_eq!(numbers.len(), 1, "started once: {numbers:?} {story:#?}");
    }
    format!(
        "{} stories, {cut} of measurements that were cut: {hand_outs} hand-outs, \
         {handed_again} measurements handed out again, each started once and delivered once",
        done.len()
    )
}

/// Checks one story.
fn check_story(story: &Story) {
    let times = |what: &str| story.steps.iter().filter(|it| it.what == what).count();
    for once in ["accepted", "delivered"] {
        assert_eq!(times(once), 1, "{once} once: {story:#?}");
    }
    let told = story.steps.iter().find(|step| step.what == "delivered");
    let is_cut = told.is_some_and(|step| step.detail.as_deref() == Some(CUT));
    assert_eq!(story.measurement.state == "exception", is_cut, "{story:#?}");
    for at_most in ["promised", "redeemed"] {
        assert!(times(at_most) <= 1, "{at_most} at most once: {story:#?}");
    }
    let handed = times("handed");
    assert_eq!(handed, usize::try_from(story.hand_outs).expect("it fits"), "{story:#?}");
    // What is queued again may be answered before it is fetched again.
    assert!((handed - 1..=handed).contains(&times("queued again")), "{story:#?}");
    let is_other = |what: &str| what.starts_with("something else");
    assert!(!story.steps.iter().any(|step| is_other(&step.what)), "{story:#?}");
}

/// Returns the jobs that a component has made of each specification, by its token, from all
/// its logs; checks that it has ended no job twice.
fn jobs(logs: &[String]) -> BTreeMap<String, BTreeSet<String>> {
    let mut jobs = BTreeMap::<_, BTreeSet<_>>::new();
    for log in logs {
        let mut finished = BTreeSet::new();
        for line in log.lines() {
            // The last line of one that was killed may be incomplete.
            let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
            let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            match event["message"].as_str() {
                Some("accepted a specification") => {
                    jobs.entry(text("token")).or_default().insert(text("job"));
                }
                Some("finished") => {
                    assert!(finished.insert(text("job")), "finished twice: {line}");
                }
                _ => {}
            }
        }
    }
    jobs
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
