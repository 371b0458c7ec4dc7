//! Components that deliver results, which are on disk when they are answered.

use std::sync::Arc;

use axum::body::Bytes;
use mplane_cli::pki::Role;
use mplane_runtime::http::path;

use crate::Stage;
use crate::actors::{
    Client, Ledger, Whose, fetched, poll, post, register, result, specification,
};
use crate::figures::{Clock, headline};
use crate::peer::{Peer, each};
use crate::registering::tell;
use crate::servers::{Supervisor, floor, stored_bytes};

/// How many components deliver at once.
const COMPONENTS: usize = 64;

/// How many results of so many rows each component delivers.
const RESULTS: [(usize, usize); 2] = [(1, 200), (1_000, 10)];

/// How many results of one row each component delivers to the reference.
const AT_REFERENCE: u64 = 20;

/// How many results of one row are to be taken in a second.
const GOAL: f64 = 10_000.0;

/// Plays the scene.
pub(super) async fn scene(stage: &Stage) {
    headline(&format!("durable results of {COMPONENTS} components at once"));
    let (server, floor_address) = floor(&stage.domain);
    let supervisor = Supervisor::start(stage);
    let components =
        stage.members.peers(Role::Component, 0..COMPONENTS, supervisor.address);
    let mut components = register(components, COMPONENTS).await;
    let clients = stage.members.peers(Role::Client, 0..COMPONENTS, supervisor.address);
    let ledger = Arc::<Ledger>::default();
    let mut clients: Vec<_> = clients
        .into_iter()
        .map(|peer| Client { peer, ledger: Arc::clone(&ledger), whose: Whose::Ours })
        .collect();
    let mut ours = 0.0;
    for (rows, count) in RESULTS {
        let pairs = clients.into_iter().zip(components).collect();
        let prepared = each(pairs, COMPONENTS, move |(client, component)| {
            prepare(client, component, count, rows)
        })
        .await;
        let mut deliveries = Vec::new();
        clients = Vec::new();
        for (client, component, results) in prepared {
            clients.push(client);
            deliveries.push((component, results));
        }
        let of = format!("{rows} rows");
        let bytes = deliveries.first().and_then(|(_, results)| results.first());
        let bytes = bytes.map_or(0, Bytes::len);
        let all = COMPONENTS * count;

        let echoing = stage.members.peers(Role::Component, 0..COMPONENTS, floor_address);
        let echoing = echoing.into_iter().zip(&deliveries);
        let echoing = echoing.map(|(peer, (_, results))| (peer, results.clone()));
        let echoing = deliver(echoing.collect(), "/", 1).await;
        let clock = Clock::start(server.id());
        drop(deliver(echoing, "/", usize::MAX).await);
        let bare = clock.used().as_secs_f64() * 1e6 / all as f64;
        println!("  bare axum, echo of {of:10} ({bytes} bytes)   CPU {bare:.1} us each");

        let stored = stored_bytes(&stage.domain);
        let clock = Clock::start(supervisor.id());
        let delivered = deliver(deliveries, path::REGISTER_RESULT, usize::MAX).await;
        let rate = all as f64 / clock.passed().as_secs_f64();
        let cpu = clock.used().as_secs_f64() * 1e6 / all as f64;
        let stored = stored_bytes(&stage.domain).saturating_sub(stored);
        println!(
            "  mpsup, {of:10} {rate:.0} /s   CPU {cpu:.1} us each, {:.1} times the floor   \
             both processors would do {:.0} /s   store grows by {:.0} bytes each",
            cpu / bare,
            2e6 / cpu,
            stored as f64 / all as f64,
        );
        if rows == 1 {
            ours = cpu;
            let word = if rate >= GOAL { "reached" } else { "MISSED" };
            println!("    {rate:.0} of at least {GOAL} /s: {word}");
        }
        components = delivered.into_iter().map(|(component, _)| component).collect();
    }
    drop((components, clients, supervisor));
    reference(stage, ours).await;
}

/// Has components deliver to the reference, if it is there, of which each result of ours
/// took so many microseconds. Nobody has asked for them: it takes whatever comes.
async fn reference(stage: &Stage, ours: f64) {
    let Some(reference) = &stage.reference else { return };
    let relay = reference.supervisor(&stage.domain);
    let components =
        stage.members.peers(Role::Component, 0..COMPONENTS, relay.components);
    let deliveries = components.into_iter().map(|component| {
        let made = |number| specification(&component.name, number, Whose::Reference);
        let results = (1..=AT_REFERENCE).map(|number| result(&made(number), 17, 1));
        let results = results.collect();
        (component, results)
    });
    // The handshakes are made first.
    let deliveries = deliver(deliveries.collect(), path::REGISTER_RESULT, 1).await;
    let clock = Clock::start(relay.id());
    drop(deliver(deliveries, path::REGISTER_RESULT, usize::MAX).await);
    let count = COMPONENTS * usize::try_from(AT_REFERENCE).unwrap_or(0);
    let theirs = tell("reference, 1 row, not on disk", &clock, count);
    println!(
        "    {:.1} times ours   of these it relays 10 /s: it takes one message and then \
         sleeps 0.1 s",
        theirs / ours,
    );
}

/// Has a client specify, and its component fetch; returns the results too.
async fn prepare(
    mut client: Client,
    mut component: Peer,
    count: usize,
    rows: usize,
) -> (Client, Peer, Vec<Bytes>) {
    for _ in 0..count {
        let accepted = client.specify(&component.name).await;
        drop(accepted.unwrap_or_else(|refused| panic!("refused: {refused}")));
    }
    let mut results = Vec::new();
    while results.len() < count {
        let answer = component.must(poll(20)).await;
        results.extend(fetched(&answer).iter().map(|it| result(it, 17, rows)));
    }
    (client, component, results)
}

/// Has components post results, so many at most.
async fn deliver(
    deliveries: Vec<(Peer, Vec<Bytes>)>,
    path: &'static str,
    most: usize,
) -> Vec<(Peer, Vec<Bytes>)> {
    each(deliveries, COMPONENTS, move |(mut peer, results)| async move {
        for result in results.iter().take(most) {
            drop(peer.must(post(path, 0, result.clone())).await);
        }
        (peer, results)
    })
    .await
}
