//! The supervisor of the reference at the same work, as far as it can be put to it.
//!
//! It sleeps for up to 5 s after each specification of a client, and serves nobody in the
//! meantime: neither components nor other clients. From components it takes ten messages a
//! second, and looks for a result once a second. Of several components with the same kind of
//! capability it asks the last, and waits for the first. So there is one component, and one
//! life after the other; more at once would not be faster.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use http::Method;
use mplane_cli::pki::Role;
use mplane_runtime::http::path;

use crate::Stage;
use crate::actors::{CAPABILITIES, Client, Ledger, Whose, register};
use crate::figures::Clock;
use crate::lives::{Life, live, work};
use crate::peer::{Ask, Peer};
use crate::reference::Relay;
use crate::support::DEADLINE;

/// How many lives there are.
const LIVES: usize = 4;

/// Why a life takes it so long, and there are not more of them at once.
pub(super) const WHY: &str = "its only loop sleeps for up to 5 s after each specification, \
     and a result is looked for once a second";

/// How often is looked whether clients are offered all capabilities.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Lives through the supervisor of the reference.
pub(super) struct Relayed {
    /// One after the other.
    pub(super) lives: Vec<Life>,
    /// How many there were in a second.
    pub(super) rate: f64,
    /// How much processor time each took, in microseconds.
    pub(super) cpu_us: f64,
}

/// Lives some lives, where there is a reference.
pub(super) async fn lives(stage: &Stage) -> Option<Relayed> {
    let relay = stage.reference.as_ref()?.supervisor(&stage.domain);
    let components = stage.members.peers(Role::Component, 0..1, relay.components);
    let components = register(components, 1).await;
    let name = components.first().map(|peer| peer.name.clone()).expect("there is one");
    let mut peer = client(stage, &relay);
    offered(&mut peer, CAPABILITIES).await;
    let ledger = Arc::<Ledger>::default();
    let _working = work(components, &ledger, Whose::Reference);
    let mut client = Client { peer, ledger, whose: Whose::Reference };
    let clock = Clock::start(relay.id());
    let mut lives = Vec::new();
    for _ in 0..LIVES {
        lives.push(live(&mut client, &name).await);
    }
    let count = LIVES as f64;
    Some(Relayed {
        lives,
        rate: count / clock.passed().as_secs_f64(),
        cpu_us: clock.used().as_secs_f64() * 1e6 / count,
    })
}

/// Makes the client that may use everything.
pub(super) fn client(stage: &Stage, relay: &Relay) -> Peer {
    let mut clients = stage.members.peers(Role::Client, 0..1, relay.clients);
    clients.pop().expect("there is one")
}

/// Waits until a client is offered so many capabilities, a tenth of a second for each.
pub(super) async fn offered(client: &mut Peer, count: usize) {
    let started = Instant::now();
    let patience =
        DEADLINE + Duration::from_millis(100) * u32::try_from(count).unwrap_or(0);
    loop {
        let (method, path) = (Method::GET, path::CAPABILITY_PAGE);
        let page = client.must(Ask { method, path, wait: 0, body: Bytes::new() }).await;
        let listed = String::from_utf8_lossy(&page).matches("<a href").count();
        if listed >= count {
            return;
        }
        assert!(
            started.elapsed() < patience,
            "{listed} of {count} capabilities are offered"
        );
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
