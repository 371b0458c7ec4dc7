//! Components that ask for work, and there is none.

use std::time::Duration;

use axum::body::Bytes;
use mplane_cli::pki::Role;

use crate::Stage;
use crate::actors::{poll, post, register, registration};
use crate::figures::{Clock, Rounds, headline, verdict};
use crate::peer::{Ask, Peer, each};
use crate::registering::tell;
use crate::servers::{Supervisor, floor};

/// How many components there are.
const COMPONENTS: usize = 64;

/// How often each asks in a round.
const POLLS: usize = 500;

/// How many rounds there are.
const ROUNDS: usize = 3;

/// How often each asks the reference.
const AT_REFERENCE: usize = 20;

/// How much more a poll may cost than an echo, and how much time in microseconds.
const MOST: (f64, f64) = (1.5, 15.0);

/// Plays the scene.
pub(super) async fn scene(stage: &Stage) {
    headline(&format!("polls of {COMPONENTS} components that find nothing"));
    let supervisor = Supervisor::start(stage);
    let components =
        stage.members.peers(Role::Component, 0..COMPONENTS, supervisor.address);
    let mut components = register(components, COMPONENTS).await;
    let first = components.first_mut().expect("there are some");
    let nothing = first.must(poll(0)).await;
    let (server, address) = floor(&stage.domain);
    let echoing = stage.members.peers(Role::Component, 0..COMPONENTS, address);
    let (mut bare, mut ours, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    // The handshakes are made before the first round.
    let mut echoing = repeat(echoing, 1, &nothing).await;
    for _ in 0..ROUNDS {
        let clock = Clock::start(server.id());
        echoing = repeat(echoing, POLLS, &nothing).await;
        bare.push(each_us(clock.used(), POLLS));
        let clock = Clock::start(supervisor.id());
        components = repeat(components, POLLS, &Bytes::new()).await;
        ours.push(each_us(clock.used(), POLLS));
        rates.push((COMPONENTS * POLLS) as f64 / clock.passed().as_secs_f64());
    }
    let (bare, ours) = (Rounds::new(bare), Rounds::new(ours));
    println!("  bare axum, echo of the same answer   CPU {bare} us each");
    println!("  mpsup   {} /s   CPU {ours} us each", Rounds::new(rates));
    verdict("CPU", ours.median(), MOST.1, "us");
    verdict("ratio to the floor", ours.median() / bare.median(), MOST.0, "");
    drop((components, supervisor));

    if let Some(reference) = &stage.reference {
        let relay = reference.supervisor(&stage.domain);
        let components =
            stage.members.peers(Role::Component, 0..COMPONENTS, relay.components);
        let asks = components.into_iter().map(|peer| (registration(&peer.name), peer));
        let components = each(asks.collect(), COMPONENTS, |(ask, mut peer)| async move {
            drop(peer.must(ask).await);
            peer
        })
        .await;
        let clock = Clock::start(relay.id());
        drop(repeat(components, AT_REFERENCE, &Bytes::new()).await);
        let theirs = tell("reference", &clock, COMPONENTS * AT_REFERENCE);
        println!("    {:.0} times ours", theirs / ours.median());
    }
}

/// Returns what each request of all components cost, in microseconds.
fn each_us(used: Duration, times: usize) -> f64 {
    used.as_secs_f64() * 1e6 / (COMPONENTS * times) as f64
}

/// Has all peers ask so often, one after the other: with something to be sent back, or for
/// something to do.
pub(super) async fn repeat(peers: Vec<Peer>, times: usize, body: &Bytes) -> Vec<Peer> {
    let (at_once, body) = (peers.len(), body.clone());
    each(peers, at_once, move |mut peer| {
        let body = body.clone();
        async move {
            for _ in 0..times {
                let body = body.clone();
                let ask: Ask = if body.is_empty() { poll(0) } else { post("/", 0, body) };
                drop(peer.must(ask).await);
            }
            peer
        }
    })
    .await
}
