//! How late repeated measurements start: 10,000 a second of a service that does nothing.
//!
//! The component is the one of the library, in a process of its own, with a service that
//! notes the time: no service of the programs does so little. The error of a start is the
//! time at which the service is called less the start of its temporal scope. Beside it the
//! reference's scheduler, in the same way.

use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use mplane::access::Identity;
use mplane::exchange::component::{Budget, ComponentExchange};
use mplane::features::Features;
use mplane::limits;
use mplane::message::{Capability, Message, Specification, Statement};
use mplane::primitive::Value;
use mplane::registry::Registries;
use mplane::when::{self, When};
use mplane_cli::block_on;
use mplane_runtime::component::{Component, Listening, Offered};
use mplane_runtime::http::Peer;
use mplane_runtime::http::routes::Responder as _;
use mplane_runtime::service::{Completed, Run, Service, Work};
use mplane_runtime::spool::{DEFAULT_BYTES, Spool};
use mplane_runtime::tls::fresh_token;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::domain::{Domain, SPOOL, spool_word};
use crate::figures::{Clock, Memory, Rounds, headline, percentile, verdict};
use crate::reference::Reference;

/// How many rounds there are.
const WINDOWS: usize = 3;

/// How long a round is.
const WINDOW: Duration = Duration::from_secs(2);

/// How long a start may take until it is missed in its round.
const LATEST: Duration = Duration::from_millis(500);

/// Their phases are spread over a second, by their tokens.
const SPREAD: &str = "spread";

/// They are all due at the same time: an absolute one.
const TOGETHER: &str = "together";

/// No spool.
const NO_SPOOL: &str = "-";

/// What a process tells of its starts.
#[derive(Deserialize, Serialize)]
struct Told {
    accepted: usize,
    accepting_s: f64,
    /// By how much each start was late, in microseconds, by round.
    windows: Vec<Vec<f64>>,
    cpu_percent: f64,
    /// What is resident when all are accepted.
    first_mb: f64,
    /// What is resident in the end, with the results that are kept.
    last_mb: f64,
    #[serde(default)]
    threads: Option<usize>,
    #[serde(default)]
    refused: Option<String>,
}

/// Plays the scene.
pub(super) fn scene(domain: &Domain, reference: Option<&Reference>) {
    headline("starts of repeated measurements at 1 Hz, late by");
    for (repeats, order, has_spool) in [
        (10_000, SPREAD, false),
        (10_000, SPREAD, true),
        (10_000, TOGETHER, false),
        // Repeats and their measurements are jobs; there may be so many.
        (limits::JOBS, TOGETHER, false),
        (limits::JOBS, TOGETHER, true),
        (1_000, TOGETHER, false),
        (1_000, TOGETHER, true),
    ] {
        let how = if order == SPREAD { "spread over 1 s" } else { "at one instant" };
        let name = format!("{how}, {}", spool_word(has_spool));
        let spool = domain.path().join(format!("{repeats}-{order}-{SPOOL}"));
        let spool = if has_spool { spool.display().to_string() } else { NO_SPOOL.into() };
        let program = std::env::current_exe().expect("the kernel knows it");
        let mut program = Command::new(program);
        program.args(["starts", &repeats.to_string(), order, &spool]);
        let output = program.output().expect("it is this program");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let line = String::from_utf8(output.stdout).expect("it writes UTF-8");
        let ours = tell(&name, repeats, &line);
        if repeats == 10_000 && order == SPREAD {
            verdict("p50", ours[0], 100.0, "us");
            verdict("p99", ours[1], 1_000.0, "us");
        }
    }
    let Some(reference) = reference else { return };
    for repeats in [100, 1_000] {
        // It starts what begins now at the next full seconds.
        let name = "at one instant, the scheduler of the reference";
        match reference.starts(domain, repeats) {
            Some(line) => drop(tell(name, repeats, &line)),
            None => println!("  {repeats} {name}: it does not get to its end"),
        }
    }
}

/// Prints what a process has told; returns p50 and p99.
fn tell(name: &str, repeats: usize, line: &str) -> [f64; 2] {
    let mut told: Told = serde_json::from_str(line).expect("it is what was agreed");
    assert!(told.accepted > 0, "all were refused: {:?}", told.refused);
    let rounds = told.windows.len();
    let expected = told.accepted as f64 * rounds as f64 * WINDOW.as_secs_f64();
    let started: usize = told.windows.iter().map(Vec::len).sum();
    for window in &mut told.windows {
        window.sort_by(f64::total_cmp);
    }
    if started == 0 {
        println!("  {repeats} {name}: {} accepted, NONE STARTED", told.accepted);
        return [f64::INFINITY; 2];
    }
    let at =
        |percent| Rounds::new(told.windows.iter().map(|late| percentile(late, percent)));
    let (p50, p99) = (at(50.0), at(99.0));
    println!(
        "  {repeats} {name}: {} accepted in {:.2} s",
        told.accepted, told.accepting_s
    );
    println!(
        "    p50 {p50}   p90 {}   p99 {p99}   max {} us   started {:.1} %",
        at(90.0),
        at(100.0),
        started as f64 * 100.0 / expected,
    );
    print!(
        "    {:.1} % of one processor   {:.1} MB resident, {:.1} MB in the end",
        told.cpu_percent, told.first_mb, told.last_mb
    );
    if let Some(threads) = told.threads {
        print!("   {threads} threads");
    }
    println!();
    if let Some(refused) = told.refused {
        println!("    refused the others: {refused}");
    }
    [p50.median(), p99.median()]
}

/// Runs a component with repeated measurements, and tells how late they start.
pub(super) fn component(repeats: &str, order: &str, spool: &str) {
    let repeats = repeats.parse().expect("the parent writes a number");
    let told = block_on(run(repeats, order == TOGETHER, spool));
    println!("{}", serde_json::to_string(&told).expect("it can be written"));
}

/// Runs the component.
async fn run(repeats: usize, is_together: bool, spool: &str) -> Told {
    let registries = Registries::embedded();
    let nothing = Arc::new(Nothing::new(&registries));
    let mut exchange = ComponentExchange::default();
    exchange.set_spread(Duration::from_secs(1));
    let spool = (spool != NO_SPOOL).then(|| {
        let opened = Spool::open(spool.as_ref(), DEFAULT_BYTES, &registries);
        opened.expect("the folder is ours")
    });
    let service: Arc<dyn Service> = Arc::<Nothing>::clone(&nothing);
    let services = vec![Offered { service, budget: Budget::default() }];
    let shutdown = CancellationToken::new();
    let component = Component::new(services, registries, exchange, spool, shutdown);
    let component = Arc::new(Listening(component.expect("there are timers")));

    let accepting = Instant::now();
    let specification = nothing.specification(is_together);
    let replies: Vec<_> = (0..repeats)
        .map(|_| {
            let (component, mut specification) =
                (Arc::clone(&component), specification.clone());
            specification.set_token(Some(fresh_token()));
            tokio::spawn(async move {
                let names = ["Bench", "Clients", "cli-1"].map(Into::into);
                let identity = Identity::new(names, Some("Clients"));
                let peer = Peer { identity, features: Features::OURS };
                component
                    .respond(&peer, specification.into(), Duration::ZERO)
                    .await
                    .expect("it answers")
            })
        })
        .collect();
    let (mut accepted, mut refused) = (0, None);
    for reply in replies {
        match reply.await.expect("it does not panic") {
            Message::Exception(exception) => {
                refused = Some(exception.message().to_owned());
            }
            _ => accepted += 1,
        }
    }
    let accepting_s = accepting.elapsed().as_secs_f64();

    // By then all have started once.
    tokio::time::sleep(if is_together { AHEAD } else { Duration::ZERO } + SETTLE).await;
    let process = std::process::id();
    let first_mb = Memory::of(process).all;
    let (first, clock) = (Timestamp::now(), Clock::start(process));
    let all = WINDOW * u32::try_from(WINDOWS).expect("there are few");
    tokio::time::sleep(all).await;
    let (cpu_percent, last_mb) = (clock.percent(), Memory::of(process).all);
    tokio::time::sleep(LATEST).await;
    let mut windows = vec![Vec::new(); WINDOWS];
    for (due, late) in
        nothing.starts.lock().unwrap_or_else(PoisonError::into_inner).iter()
    {
        let since = Duration::try_from(due.duration_since(first)).ok();
        let window = since.map(|since| since.as_nanos() / WINDOW.as_nanos());
        let window = window.and_then(|window| usize::try_from(window).ok());
        if let Some(window) = window.and_then(|window| windows.get_mut(window)) {
            window.push(late.as_secs_f64() * 1e6);
        }
    }
    Told {
        accepted,
        accepting_s,
        windows,
        cpu_percent,
        first_mb,
        last_mb,
        threads: None,
        refused,
    }
}

/// How far ahead measurements start that start together.
const AHEAD: Duration = Duration::from_secs(3);

/// How long the component goes on before it is measured.
const SETTLE: Duration = Duration::from_secs(2);

/// A service that notes when it is started.
struct Nothing {
    capability: Capability,
    /// When each run was due, and by how much it was late.
    starts: Mutex<Vec<(Timestamp, Duration)>>,
}

impl Nothing {
    fn new(registries: &Registries) -> Self {
        let scope = "now ... future".parse().expect("the scope is a constant");
        let statement = Statement::measure(scope).labelled("nothing");
        let statement = statement.column(registries, "time").expect("there is one");
        Self { capability: Capability::new(statement), starts: Mutex::default() }
    }

    /// Returns a specification of repeated measurements, all together or not.
    fn specification(&self, is_together: bool) -> Specification {
        let from = Timestamp::now() + AHEAD;
        let scope = if is_together {
            let until = from + Duration::from_secs(3_600);
            let (from, until) =
                (when::display_timestamp(from), when::display_timestamp(until));
            format!("repeat {from} ... {until} / 1s {{ now + 0s }}")
        } else {
            "repeat now + 1h / 1s { now + 0s }".to_owned()
        };
        let mut specification = Specification::of(&self.capability);
        specification.set_when(scope.parse::<When>().expect("it is a scope"));
        specification
    }
}

impl Service for Nothing {
    fn capability(&self) -> Capability {
        self.capability.clone()
    }

    fn run(&self, work: Work) -> Run<'_> {
        let now = Timestamp::now();
        let due = work.specification.when().bounds(now).start.unwrap_or(now);
        let late = Duration::try_from(now.duration_since(due)).unwrap_or_default();
        self.starts.lock().unwrap_or_else(PoisonError::into_inner).push((due, late));
        Box::pin(async move {
            work.rows.push([Some(Value::Time(when::Instant::At(now)))])?;
            Ok(Completed::default())
        })
    }
}
