//! Whole lives: a client specifies, the component fetches, promises and delivers, the client
//! redeems. The floor is a bare server that sends each of these messages back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use mplane::message::Receipt;
use mplane_cli::pki::Role;
use tokio::task::JoinSet;

use crate::Stage;
use crate::actors::{
    Client, Component, Ledger, Whose, is_right, post, register, result, specification,
    written,
};
use crate::figures::{Clock, headline, percentile};
use crate::peer::{Peer, each};
use crate::relayed::{self, WHY};
use crate::servers::{Supervisor, floor, stored_bytes};

/// How many components and clients there are at once.
pub(super) const PAIRS: usize = 50;

/// How long they work.
const TOGETHER: Duration = Duration::from_secs(4);

/// How many lives there are to be in a second.
const GOAL: f64 = 2_000.0;

/// How many lives each peer of the floor lives.
const AT_FLOOR: usize = 100;

/// Plays the scene.
pub(super) async fn scene(stage: &Stage) {
    headline(&format!("whole lives, {PAIRS} components and {PAIRS} clients at once"));
    let bare = floor_us(stage).await;
    let supervisor = Supervisor::start(stage);
    let components = stage.members.peers(Role::Component, 0..PAIRS, supervisor.address);
    let names: Vec<_> = components.iter().map(|peer| peer.name.clone()).collect();
    let ledger = Arc::<Ledger>::default();
    let components = register(components, PAIRS).await;
    let working = work(components, &ledger, Whose::Ours);
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
        "  mpsup   {rate:.0} /s   p50 {:.1} p99 {:.1} ms   CPU {cpu:.1} us each, {:.1} times \
         the floor   both processors would do {:.0} /s   store grows by {:.0} bytes each",
        percentile(&took_ms, 50.0),
        percentile(&took_ms, 99.0),
        cpu / bare,
        2e6 / cpu,
        stored as f64 / count,
    );
    let word = if rate >= GOAL { "reached" } else { "MISSED" };
    println!("    {rate:.0} of at least {GOAL} /s: {word}");
    drop((working, supervisor));

    if let Some(theirs) = relayed::lives(stage).await {
        let took_ms = sorted(theirs.lives.iter().map(|life| life.whole_ms));
        println!(
            "  reference, {} lives one after the other: {:.2} /s   p50 {:.0} ms   CPU {:.0} us \
             each\n    ours are {:.0} times as many in a second, theirs cost {:.0} times as much: \
             {WHY}",
            took_ms.len(),
            theirs.rate,
            percentile(&took_ms, 50.0),
            theirs.cpu_us,
            rate / theirs.rate,
            theirs.cpu_us / cpu,
        );
    }
}

/// Measures the floor: peers of a bare server, as many as components and clients, that get
/// the messages of a life sent back. Returns what a life costs, in microseconds.
async fn floor_us(stage: &Stage) -> f64 {
    let (server, address) = floor(&stage.domain);
    let messages: Arc<[Bytes]> = messages().into();
    let echoing = stage.members.peers(Role::Component, 0..2 * PAIRS, address);
    let echoing = echo(echoing, 1, Arc::clone(&messages)).await;
    let clock = Clock::start(server.id());
    drop(echo(echoing, AT_FLOOR, Arc::clone(&messages)).await);
    let count = (2 * PAIRS * AT_FLOOR) as f64;
    let cpu = clock.used().as_secs_f64() * 1e6 / count;
    println!(
        "  bare axum, echoes of the {} messages of a life: {:.0} /s   CPU {cpu:.1} us each",
        messages.len(),
        count / clock.passed().as_secs_f64(),
    );
    cpu
}

/// Returns what is said in a life: the specification twice, the receipt, and the result
/// twice.
fn messages() -> [Bytes; 5] {
    let specification = specification("com-0", 1, Whose::Ours);
    let receipt = written(&Receipt::of(&specification).into());
    let result = result(&specification, 17, 1);
    let specification = written(&specification.into());
    [specification.clone(), specification, receipt, result.clone(), result]
}

/// Has all peers send the messages so often, one after the other.
async fn echo(peers: Vec<Peer>, times: usize, messages: Arc<[Bytes]>) -> Vec<Peer> {
    each(peers, 2 * PAIRS, move |mut peer| {
        let messages = Arc::clone(&messages);
        async move {
            for _ in 0..times {
                for message in messages.iter() {
                    drop(peer.must(post("/", 0, message.clone())).await);
                }
            }
            peer
        }
    })
    .await
}

/// Sorts figures.
pub(super) fn sorted(figures: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures
}

/// Returns a time in milliseconds.
pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// How long a life took.
pub(super) struct Life {
    /// From the specification to its component, in milliseconds.
    pub(super) arrival_ms: f64,
    /// From the specification to its result, in milliseconds.
    pub(super) whole_ms: f64,
}

/// Lives a life.
pub(super) async fn live(client: &mut Client, component: &str) -> Life {
    let sent = Instant::now();
    let accepted = client.specify(component).await;
    let accepted = accepted.unwrap_or_else(|refused| panic!("refused: {refused}"));
    let settled = client.redeem(&accepted).await;
    let whole_ms = milliseconds(sent.elapsed());
    assert!(is_right(&client.ledger, accepted.number, &settled), "{settled}");
    let arrival = client.ledger.arrival(accepted.number).expect("it has a result");
    Life { arrival_ms: milliseconds(arrival.at.duration_since(sent)), whole_ms }
}

/// Sets registered components to work, until what is returned is dropped.
pub(super) fn work(
    components: Vec<Peer>,
    ledger: &Arc<Ledger>,
    whose: Whose,
) -> JoinSet<()> {
    let mut working = JoinSet::new();
    for peer in components {
        working.spawn(Component { peer, ledger: Arc::clone(ledger), whose }.work());
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
    let client = |peer| Client { peer, ledger: Arc::clone(ledger), whose: Whose::Ours };
    clients.map(client).collect()
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
                took_ms.push(milliseconds(started.elapsed()));
            }
            (took_ms, client)
        });
    }
    let (took_ms, clients): (Vec<_>, Vec<_>) =
        living.join_all().await.into_iter().unzip();
    (took_ms.concat(), clients)
}
