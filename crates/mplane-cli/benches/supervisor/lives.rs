//! Whole lives: a client specifies, the component fetches, promises and delivers, the client
//! redeems.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mplane_cli::pki::Role;
use tokio::task::JoinSet;

use crate::Stage;
use crate::actors::{Client, Component, Ledger, register};
use crate::figures::{Clock, headline, percentile, verdict};
use crate::peer::Peer;
use crate::servers::{Supervisor, stored_bytes};

/// How many components and clients there are at once.
pub(super) const PAIRS: usize = 50;

/// How long they work.
const TOGETHER: Duration = Duration::from_secs(4);

/// How many lives there are to be in a second.
const GOAL: f64 = 2_000.0;

/// How many components are connected while the latency is measured.
const CONNECTED: usize = 1_000;

/// How many specifications one client sends, one after the other.
const RUNS: usize = 1_000;

/// How often each of many clients specifies: 200 a second in all.
const PACE: Duration = Duration::from_millis(250);

/// How long a specification may take to its component, p50 and p99 in milliseconds.
const MOST: [f64; 2] = [5.0, 50.0];

/// Plays the scene.
pub(super) async fn scene(stage: &Stage) {
    headline(&format!("whole lives, {PAIRS} components and {PAIRS} clients at once"));
    let supervisor = Supervisor::start(stage);
    let components = stage.members.peers(Role::Component, 0..PAIRS, supervisor.address);
    let names: Vec<_> = components.iter().map(|peer| peer.name.clone()).collect();
    let ledger = Arc::<Ledger>::default();
    let components = register(components, PAIRS).await;
    let _working = work(components, &ledger);
    let clients = clients(stage, PAIRS, &supervisor, &ledger);
    let stored = stored_bytes(&stage.domain);
    let clock = Clock::start(supervisor.id());
    let (mut took_ms, _) = together(clients, &names, TOGETHER).await;
    let count = took_ms.len() as f64;
    let rate = count / clock.passed().as_secs_f64();
    let cpu = clock.used().as_secs_f64() * 1e6 / count;
    let stored = stored_bytes(&stage.domain).saturating_sub(stored);
    took_ms.sort_by(f64::total_cmp);
    println!(
        "  {rate:.0} /s   p50 {:.1} p99 {:.1} ms   CPU {cpu:.1} us each, both processors \
         would do {:.0} /s   store grows by {:.0} bytes each",
        percentile(&took_ms, 50.0),
        percentile(&took_ms, 99.0),
        2e6 / cpu,
        stored as f64 / count,
    );
    let word = if rate >= GOAL { "reached" } else { "MISSED" };
    println!("    {rate:.0} of at least {GOAL} /s: {word}");
}

/// Plays the scene of latency.
pub(super) async fn latency(stage: &Stage) {
    headline(&format!(
        "from a client's specification to its component, {CONNECTED} components connected"
    ));
    let supervisor = Supervisor::start(stage);
    let components =
        stage.members.peers(Role::Component, 0..CONNECTED, supervisor.address);
    let names: Vec<_> = components.iter().map(|peer| peer.name.clone()).collect();
    let ledger = Arc::<Ledger>::default();
    let components = register(components, 32).await;
    let _working = work(components, &ledger);
    let mut alone = clients(stage, 1, &supervisor, &ledger).pop().expect("there is one");
    let (mut waited_ms, mut name) = (Vec::with_capacity(RUNS), names.iter().cycle());
    for _ in 0..RUNS {
        let name = name.next().expect("there are some");
        waited_ms.push(arrival_ms(&mut alone, name).await);
    }
    tell("one client, one after the other", waited_ms);

    let mut asking = JoinSet::new();
    for (index, mut client) in
        clients(stage, PAIRS, &supervisor, &ledger).into_iter().enumerate()
    {
        let names: Vec<_> = names.iter().skip(index).step_by(PAIRS).cloned().collect();
        asking.spawn(async move {
            // Not all at the same instant.
            let phase = PACE * u32::try_from(index).unwrap_or(0)
                / u32::try_from(PAIRS).unwrap_or(1);
            let mut pace =
                tokio::time::interval_at(tokio::time::Instant::now() + phase, PACE);
            let mut waited_ms = Vec::new();
            for name in names {
                pace.tick().await;
                waited_ms.push(arrival_ms(&mut client, &name).await);
            }
            waited_ms
        });
    }
    let waited_ms = asking.join_all().await.concat();
    tell(&format!("{PAIRS} clients, 200 specifications a second in all"), waited_ms);
}

/// Prints how long specifications took.
fn tell(name: &str, mut waited_ms: Vec<f64>) {
    waited_ms.sort_by(f64::total_cmp);
    let [p50, p99, max] = [50.0, 99.0, 100.0].map(|at| percentile(&waited_ms, at));
    println!("  {name}: p50 {p50:.2}   p99 {p99:.2}   max {max:.2} ms");
    verdict("p50", p50, MOST[0], "ms");
    verdict("p99", p99, MOST[1], "ms");
}

/// Lives a life; returns how long it took from the specification to its component.
async fn arrival_ms(client: &mut Client, component: &str) -> f64 {
    let sent = Instant::now();
    let accepted = client.specify(component).await;
    let accepted = accepted.unwrap_or_else(|refused| panic!("refused: {refused}"));
    drop(client.redeem(&accepted).await);
    let arrival = client.ledger.arrival(accepted.number).expect("it has a result");
    arrival.at.duration_since(sent).as_secs_f64() * 1e3
}

/// Sets registered components to work, until what is returned is dropped.
pub(super) fn work(components: Vec<Peer>, ledger: &Arc<Ledger>) -> JoinSet<()> {
    let mut working = JoinSet::new();
    for peer in components {
        working.spawn(Component { peer, ledger: Arc::clone(ledger) }.work());
    }
    working
}

/// Makes clients.
pub(super) fn clients(
    stage: &Stage,
    count: usize,
    supervisor: &Supervisor,
    ledger: &Arc<Ledger>,
) -> Vec<Client> {
    let peers = stage.members.peers(Role::Client, 0..count, supervisor.address);
    let clients = peers.into_iter();
    clients.map(|peer| Client { peer, ledger: Arc::clone(ledger) }).collect()
}

/// Has clients live lives for a while, each with one component after the other; returns
/// how long each took in milliseconds, and the clients.
pub(super) async fn together(
    clients: Vec<Client>,
    names: &[String],
    how_long: Duration,
) -> (Vec<f64>, Vec<Client>) {
    let until = Instant::now() + how_long;
    let names: Arc<[String]> = names.into();
    let mut living = JoinSet::new();
    for (index, mut client) in clients.into_iter().enumerate() {
        let names = Arc::clone(&names);
        living.spawn(async move {
            let mut took_ms = Vec::new();
            for name in names.iter().cycle().skip(index) {
                let started = Instant::now();
                if started >= until {
                    break;
                }
                client.live(name).await;
                took_ms.push(started.elapsed().as_secs_f64() * 1e3);
            }
            (took_ms, client)
        });
    }
    let (took_ms, clients): (Vec<_>, Vec<_>) =
        living.join_all().await.into_iter().unzip();
    (took_ms.concat(), clients)
}
