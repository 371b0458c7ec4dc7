//! Components that register, each with a connection and an identity of its own.

use std::net::SocketAddr;

use mplane_cli::pki::Role;
use mplane_runtime::http::path;

use crate::Stage;
use crate::actors::{CAPABILITIES, register, registration};
use crate::figures::{Clock, headline};
use crate::peer::{Ask, Peer, each};
use crate::servers::{Supervisor, floor};

/// How many components there are.
const COMPONENTS: usize = 1_000;

/// How many register at once.
const AT_ONCE: usize = 32;

/// How many register with the reference.
const AT_REFERENCE: usize = 50;

/// How much more a registration may cost than the same request to the floor.
const MOST: f64 = 1.15;

/// Plays the scene.
pub(super) async fn scene(stage: &Stage) {
    headline(&format!(
        "registrations of {COMPONENTS} components with {CAPABILITIES} capabilities each"
    ));
    let (server, address) = floor(&stage.domain);
    let components = components(stage, COMPONENTS, address);
    let clock = Clock::start(server.id());
    let mut components = post_all(components, "/").await;
    let bare = tell("bare axum, echo over a new connection", &clock, COMPONENTS);

    let supervisor = Supervisor::start(stage);
    for component in &mut components {
        component.move_to(supervisor.address);
    }
    let clock = Clock::start(supervisor.id());
    let components = register(components, AT_ONCE).await;
    let new = tell("mpsup, over a new connection", &clock, COMPONENTS);
    let ratio = new / bare;
    println!(
        "    {ratio:.2} times the floor, of which {MOST} is the goal for a connection \
         without its message"
    );
    let clock = Clock::start(supervisor.id());
    let components = register(components, AT_ONCE).await;
    tell("mpsup, again, with nothing new", &clock, COMPONENTS);
    drop((components, supervisor));

    if let Some(reference) = &stage.reference {
        let relay = reference.supervisor(&stage.domain);
        let components = self::components(stage, AT_REFERENCE, relay.components);
        let clock = Clock::start(relay.id());
        drop(post_all(components, path::REGISTER_CAPABILITY).await);
        let theirs = tell("reference, over a new connection", &clock, AT_REFERENCE);
        println!("    {:.0} times ours", theirs / new);
    }
}

/// Makes components.
fn components(stage: &Stage, count: usize, address: SocketAddr) -> Vec<Peer> {
    stage.members.peers(Role::Component, 0..count, address)
}

/// Has components send what registers them, and does not look at the answers.
async fn post_all(components: Vec<Peer>, path: &'static str) -> Vec<Peer> {
    let asks = components.into_iter().map(|peer| (registration(&peer.name), peer));
    let asks = asks.map(|(ask, peer)| (Ask { path, ..ask }, peer));
    each(asks.collect(), AT_ONCE, |(ask, mut peer)| async move {
        drop(peer.must(ask).await);
        peer
    })
    .await
}

/// Prints how many there were in a second and what each cost; returns that.
pub(super) fn tell(name: &str, clock: &Clock, count: usize) -> f64 {
    let rate = count as f64 / clock.passed().as_secs_f64();
    let cpu = clock.used().as_secs_f64() * 1e6 / count as f64;
    println!("  {name:40} {rate:8.0} /s   CPU {cpu:7.1} us each");
    cpu
}
