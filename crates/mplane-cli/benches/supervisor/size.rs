//! What many components take: memory, and whether each costs more the more there are.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use http::Method;
use mplane_cli::pki::Role;
use mplane_runtime::http::path;
use tokio::task::JoinSet;

use crate::Stage;
use crate::actors::{CAPABILITIES, Ledger, Whose, poll, register, register_and_leave};
use crate::descriptors::fitting;
use crate::figures::{Clock, Memory, headline, verdict};
use crate::lives::{PAIRS, clients, together, work};
use crate::peer::{Ask, Peer};
use crate::polling::repeat;
use crate::relayed;
use crate::servers::{Supervisor, floor};

/// How many components there are, one step after the other.
const SIZES: [usize; 3] = [100, 1_000, 10_000];

/// How many connect with the floor.
const AT_FLOOR: usize = 1_000;

/// How many register with the reference, whose clients see one component more each second.
const AT_REFERENCE: usize = 20;

/// How many register or connect at once.
const AT_ONCE: usize = 32;

/// How long a supervisor has been idle when its memory is looked at.
const IDLE: Duration = Duration::from_secs(1);

/// How much a connection that waits may take, in KB of 1,000 bytes.
const MOST_KB: f64 = 35.0;

/// How often each of the components polls whose cost is measured.
const POLLS: usize = 400;

/// How long lives are lived at each step.
const TOGETHER: Duration = Duration::from_secs(2);

/// How much more a poll and a life may cost at the last step than at the first.
const STEEPEST: f64 = 1.25;

/// Plays the scene of memory.
pub(super) async fn memory(stage: &Stage) {
    headline("memory of components that have registered, and that wait");
    let bare_kb = floor_kb(stage).await;
    let supervisor = Supervisor::start(stage);
    // What everything takes when it is first used is not of the components.
    let first = register_more(stage, &supervisor, 0..100).await;
    drop(waiting(first).await);
    let mut from = 100;
    let mut ours_kb = [0.0; 2];
    for size in sizes().into_iter().skip(1) {
        let before = settled(supervisor.id()).await;
        let numbers = from..from + size;
        let components =
            stage.members.peers(Role::Component, numbers, supervisor.address);
        let components = register_and_leave(components, AT_ONCE).await;
        from += size;
        let registered = settled(supervisor.id()).await;
        let waiting = waiting(components).await;
        let connected = settled(supervisor.id()).await;
        ours_kb = [(before, registered), (registered, connected)]
            .map(|(before, after)| each_kb(before, after, size));
        println!("  mpsup, {size} more components: {before}, registered {registered}");
        println!("    each {:.1} KB, without connection", ours_kb[0]);
        println!("    all connected and waiting: {connected}");
        verdict("each", ours_kb[1], MOST_KB, "KB");
        println!("    {:.1} times the floor", ours_kb[1] / bare_kb);
        drop(waiting);
    }
    drop(supervisor);
    reference(stage, ours_kb).await;
}

/// Looks at the memory of a bare server that many are connected with; returns what each
/// connection takes.
async fn floor_kb(stage: &Stage) -> f64 {
    let (server, address) = floor(&stage.domain);
    let body = Bytes::from_static(b"{}");
    let peers = |numbers| stage.members.peers(Role::Component, numbers, address);
    // What everything takes when it is first used is not of the connections.
    drop(repeat(peers(0..100), 1, &body).await);
    let before = settled(server.id()).await;
    let connected = repeat(peers(0..AT_FLOOR), 1, &body).await;
    let after = settled(server.id()).await;
    let each = each_kb(before, after, AT_FLOOR);
    println!("  bare axum, {AT_FLOOR} more connected: {before}, then {after}");
    println!("    each {each:.1} KB");
    drop(connected);
    each
}

/// Looks at the memory of the reference, if it is there, beside what a component that has
/// registered, and its connection, take of ours.
async fn reference(stage: &Stage, ours_kb: [f64; 2]) {
    let Some(reference) = &stage.reference else { return };
    let relay = reference.supervisor(&stage.domain);
    let mut client = relayed::client(stage, &relay);
    let component =
        |numbers| stage.members.peers(Role::Component, numbers, relay.components);
    // What everything takes when it is first used is not of the components.
    let first = register_and_leave(component(0..1), 1).await;
    relayed::offered(&mut client, CAPABILITIES).await;
    let before = settled(relay.id()).await;
    let components = register_and_leave(component(1..1 + AT_REFERENCE), 1).await;
    relayed::offered(&mut client, CAPABILITIES * (1 + AT_REFERENCE)).await;
    let registered = settled(relay.id()).await;
    let waiting = repeat(components, 1, &Bytes::new()).await;
    let connected = settled(relay.id()).await;
    let each = [(before, registered), (registered, connected)]
        .map(|(before, after)| each_kb(before, after, AT_REFERENCE));
    println!(
        "  reference, {AT_REFERENCE} more components: {before}, registered {registered}"
    );
    println!(
        "    each {:.1} KB, without connection, {:.1} times ours",
        each[0],
        each[0] / ours_kb[0]
    );
    println!("    all connected: {connected}");
    println!("    each {:.1} KB, {:.1} times ours", each[1], each[1] / ours_kb[1]);
    drop((first, waiting));
}

/// Returns by how much memory has grown with each component.
fn each_kb(before: Memory, after: Memory, components: usize) -> f64 {
    (after.all - before.all) * 1e3 / components as f64
}

/// Looks at the memory of a process that has nothing to do.
async fn settled(process: u32) -> Memory {
    tokio::time::sleep(IDLE).await;
    Memory::of(process)
}

/// Returns how many components there are, as far as the machine allows it.
fn sizes() -> Vec<usize> {
    let mut sizes: Vec<_> = SIZES.into_iter().map(fitting).collect();
    sizes.dedup();
    sizes
}

/// Registers components with these numbers.
async fn register_more(
    stage: &Stage,
    supervisor: &Supervisor,
    numbers: Range<usize>,
) -> Vec<Peer> {
    let peers = stage.members.peers(Role::Component, numbers, supervisor.address);
    register(peers, AT_ONCE).await
}

/// Has components wait for something to do, until what is returned is dropped.
async fn waiting(components: Vec<Peer>) -> JoinSet<()> {
    // Their connections are made first, not all at once.
    let components = crate::peer::each(components, AT_ONCE, |mut peer| async move {
        drop(peer.must(poll(0)).await);
        peer
    })
    .await;
    let mut waiting = JoinSet::new();
    for mut peer in components {
        waiting.spawn(async move { drop(peer.must(poll(30)).await) });
    }
    waiting
}

/// Plays the scene of scale.
pub(super) async fn scale(stage: &Stage) {
    headline(&format!(
        "cost by the number of components: polls of {PAIRS} that find nothing, lives of \
         {PAIRS} with {PAIRS} clients"
    ));
    let supervisor = Supervisor::start(stage);
    let ledger = Arc::<Ledger>::default();
    let (mut components, mut registered) = (Vec::new(), 0);
    let mut costs = Vec::new();
    for size in sizes() {
        let more = registered..size;
        components.extend(register_more(stage, &supervisor, more).await);
        // Those that the clients ask are spread over all.
        let step = components.len() / PAIRS;
        let mut others = Vec::new();
        let mut busy = Vec::new();
        for (index, peer) in components.into_iter().enumerate() {
            if index % step == 0 { busy.push(peer) } else { others.push(peer) }
        }
        let busy = repeat(busy, 1, &Bytes::new()).await;
        let clock = Clock::start(supervisor.id());
        let busy = repeat(busy, POLLS, &Bytes::new()).await;
        let poll_us = clock.used().as_secs_f64() * 1e6 / (busy.len() * POLLS) as f64;

        let names: Vec<_> = busy.iter().map(|peer| peer.name.clone()).collect();
        let working = work(busy, &ledger, Whose::Ours);
        let clients = clients(stage, PAIRS, &supervisor, &ledger);
        let clock = Clock::start(supervisor.id());
        let (took_ms, mut clients) = together(clients, &names, TOGETHER).await;
        let life_us = clock.used().as_secs_f64() * 1e6 / took_ms.len() as f64;
        let rate = took_ms.len() as f64 / clock.passed().as_secs_f64();
        drop(working);

        let clock = Clock::start(supervisor.id());
        let started = Instant::now();
        let client = clients.first_mut().expect("there are some");
        let (method, path) = (Method::GET, path::CAPABILITIES);
        let ask = Ask { method, path, wait: 0, body: Bytes::new() };
        let (status, listed) = client.peer.ask(ask).await.expect("the supervisor runs");
        println!(
            "  {size:5} components: a poll {poll_us:.1} us of CPU, a life {life_us:.1} us \
             ({rate:.0} /s)   the list of all capabilities: {} of {:.1} MB in {:.2} s, CPU {:.2} s",
            status.as_u16(),
            listed.len() as f64 / 1e6,
            started.elapsed().as_secs_f64(),
            clock.used().as_secs_f64(),
        );
        costs.push((poll_us, life_us));
        // The busy ones lose their connections; the others stay connected.
        components = others;
        registered = size;
    }
    if let [(first_poll, first_life), .., (last_poll, last_life)] = costs[..] {
        verdict("a poll, last to first", last_poll / first_poll, STEEPEST, "");
        verdict("a life, last to first", last_life / first_life, STEEPEST, "");
    }
}
