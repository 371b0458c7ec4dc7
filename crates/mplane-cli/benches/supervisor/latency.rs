//! How long a specification takes on its way from a client to its component. The floor is a
//! message that a bare server sends back: as many hops.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mplane_cli::pki::Role;
use tokio::task::JoinSet;

use crate::Stage;
use crate::actors::{Ledger, Whose, post, register, specification, written};
use crate::figures::{headline, percentile, verdict};
use crate::lives::{PAIRS, clients, live, milliseconds, sorted, work};
use crate::relayed::{self, WHY};
use crate::servers::{Supervisor, floor};

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
    headline(&format!(
        "from a client's specification to its component, {CONNECTED} components connected"
    ));
    let supervisor = Supervisor::start(stage);
    let components =
        stage.members.peers(Role::Component, 0..CONNECTED, supervisor.address);
    let names: Vec<_> = components.iter().map(|peer| peer.name.clone()).collect();
    let ledger = Arc::<Ledger>::default();
    let components = register(components, 32).await;
    let working = work(components, &ledger, Whose::Ours);
    let (server, floor_address) = floor(&stage.domain);
    let message = written(&specification("com-0", 1, Whose::Ours).into());
    let echoing = |count| stage.members.peers(Role::Client, 0..count, floor_address);
    let bare = ways("bare axum, echo", echoing(1), echoing(PAIRS), move |mut peer, _| {
        let message = message.clone();
        async move {
            let started = Instant::now();
            drop(peer.must(post("/", 0, message)).await);
            (peer, milliseconds(started.elapsed()))
        }
    })
    .await;
    drop(server);
    let asking = |count| clients(stage, count, &supervisor, &ledger);
    let ours = ways("mpsup", asking(1), asking(PAIRS), move |mut client, which| {
        let name = names.get(which % CONNECTED).cloned().unwrap_or_default();
        async move {
            let life = live(&mut client, &name).await;
            (client, life.arrival_ms)
        }
    })
    .await;
    for ((how, [p50, p99]), [bare, _]) in
        ["alone", "of many"].into_iter().zip(ours).zip(bare)
    {
        println!("  {how}: p50 {:.1} times the floor", p50 / bare);
        verdict("p50", p50, MOST[0], "ms");
        verdict("p99", p99, MOST[1], "ms");
    }
    drop((working, supervisor));

    if let Some(theirs) = relayed::lives(stage).await {
        let waited_ms = sorted(theirs.lives.iter().map(|life| life.arrival_ms));
        let [p50, max] = [50.0, 100.0].map(|at| percentile(&waited_ms, at));
        let [[alone, _], _] = ours;
        println!(
            "  reference, {} specifications one after the other: p50 {p50:.0}   max {max:.0} \
             ms\n    {:.0} times ours: {WHY}",
            waited_ms.len(),
            p50 / alone,
        );
    }
}

/// Measures how long what some do takes in milliseconds: one of them, again and again, and
/// many at their pace. Prints it, and returns p50 and p99 of both.
async fn ways<A, R>(
    name: &str,
    alone: Vec<A>,
    many: Vec<A>,
    act: impl Fn(A, usize) -> R + Clone + Send + 'static,
) -> [[f64; 2]; 2]
where
    A: Send + 'static,
    R: Future<Output = (A, f64)> + Send,
{
    let mut waited_ms = Vec::with_capacity(RUNS);
    for mut one in alone {
        for which in 0..RUNS {
            let took_ms;
            (one, took_ms) = act(one, which).await;
            waited_ms.push(took_ms);
        }
    }
    let first = tell(name, "one client, one after the other", waited_ms);
    let each = CONNECTED / many.len();
    let mut asking = JoinSet::new();
    for (index, mut one) in many.into_iter().enumerate() {
        let act = act.clone();
        asking.spawn(async move {
            // Not all at the same instant.
            let phase = PACE * u32::try_from(index).unwrap_or(0)
                / u32::try_from(PAIRS).unwrap_or(1);
            let mut pace =
                tokio::time::interval_at(tokio::time::Instant::now() + phase, PACE);
            let mut waited_ms = Vec::new();
            for which in 0..each {
                pace.tick().await;
                let took_ms;
                (one, took_ms) = act(one, which * PAIRS + index).await;
                waited_ms.push(took_ms);
            }
            waited_ms
        });
    }
    let waited_ms = asking.join_all().await.concat();
    let how = format!("{PAIRS} clients, 200 a second in all");
    [first, tell(name, &how, waited_ms)]
}

/// Prints how long something took; returns p50 and p99.
fn tell(name: &str, how: &str, waited_ms: Vec<f64>) -> [f64; 2] {
    let waited_ms = sorted(waited_ms);
    let [p50, p99, max] = [50.0, 99.0, 100.0].map(|at| percentile(&waited_ms, at));
    println!("  {name:16} {how}: p50 {p50:.2}   p99 {p99:.2}   max {max:.2} ms");
    [p50, p99]
}
