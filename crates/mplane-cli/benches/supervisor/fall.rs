//! A supervisor that is killed: how long until it goes on, and whether it keeps its word.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use jiff::Timestamp;
use mplane::message::Message;
use mplane_cli::pki::Role;
use tokio::task::JoinSet;

use crate::Stage;
use crate::actors::{Accepted, Client, Ledger, Whose, is_right, post, register};
use crate::descriptors::fitting;
use crate::figures::{Clock, headline, verdict};
use crate::lives::{PAIRS, clients, work};
use crate::peer::each;
use crate::servers::{Supervisor, floor};

/// How many components are connected when it is killed.
const CONNECTED: usize = 10_000;

/// How long it may take until all poll again, in seconds: as long as a poll waits.
const MOST: f64 = 20.0;

/// How often it is killed under load.
const KILLS: usize = 3;

/// How long it works in between: so long, and up to as long again.
const BETWEEN: Duration = Duration::from_millis(700);

/// How long is waited for everybody to poll again.
const BACK: Duration = Duration::from_secs(120);

/// How often is looked whether they do.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Plays the scene of the restart.
pub(super) async fn restart(stage: &Stage) {
    headline(&format!("killed and started again, {CONNECTED} components connected"));
    let connected = fitting(CONNECTED);
    let (server, address) = floor(&stage.domain);
    let components = stage.members.peers(Role::Component, 0..connected, address);
    let clock = Clock::start(server.id());
    let mut components = each(components, connected, |mut peer| async move {
        drop(peer.insist(|| post("/", 0, Bytes::from_static(b"{}"))).await);
        peer
    })
    .await;
    let (bare_s, bare_cpu_s) = (clock.passed().as_secs_f64(), clock.used().as_secs_f64());
    println!(
        "  bare axum: {connected} connect at once, and all have an answer after \
         {bare_s:.2} s   CPU {bare_cpu_s:.2} s"
    );
    let supervisor = Supervisor::start(stage);
    for component in &mut components {
        component.move_to(supervisor.address);
    }
    drop(server);
    let ledger = Arc::<Ledger>::default();
    let components = register(components, 32).await;
    let _working = work(components, &ledger, Whose::Ours);
    all_polled(&ledger, connected).await;
    let started = Instant::now();
    let supervisor = supervisor.kill().start(stage);
    let clock = Clock::start(supervisor.id());
    all_polled(&ledger, 2 * connected).await;
    let (took_s, cpu_s) = (started.elapsed().as_secs_f64(), clock.used().as_secs_f64());
    println!(
        "  mpsup: all {connected} poll again after {took_s:.2} s, {:.1} times the floor   CPU \
         {cpu_s:.2} s, {:.1} times   {} had to register again",
        took_s / bare_s,
        cpu_s / bare_cpu_s,
        ledger.forgotten.load(Ordering::Relaxed),
    );
    verdict("all poll again after", took_s, MOST, "s");
}

/// Waits until components have been answered so often on new connections.
async fn all_polled(ledger: &Ledger, count: usize) {
    let started = Instant::now();
    while ledger.polls.load(Ordering::Relaxed) < count {
        let polls = ledger.polls.load(Ordering::Relaxed);
        assert!(started.elapsed() < BACK, "{polls} of {count} polls after {BACK:?}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// What became of the specifications of one client.
#[derive(Default)]
struct Kept {
    accepted: Vec<(Accepted, Message)>,
    refused: Vec<Message>,
}

/// Plays the scene of the crashes; says whether nothing is missing.
pub(super) async fn crash(stage: &Stage) -> bool {
    headline(&format!(
        "killed {KILLS} times under whole lives of {PAIRS} components and {PAIRS} clients"
    ));
    let mut supervisor = Supervisor::start(stage);
    let components = stage.members.peers(Role::Component, 0..PAIRS, supervisor.address);
    let names: Arc<[_]> = components.iter().map(|peer| peer.name.clone()).collect();
    let ledger = Arc::<Ledger>::default();
    let components = register(components, PAIRS).await;
    let _working = work(components, &ledger, Whose::Ours);
    let stop = Arc::new(AtomicBool::new(false));
    let mut living = JoinSet::new();
    for (index, mut client) in
        clients(stage, PAIRS, &supervisor, &ledger).into_iter().enumerate()
    {
        let (names, stop) = (Arc::clone(&names), Arc::clone(&stop));
        living.spawn(async move {
            let mut kept = Kept::default();
            for name in names.iter().cycle().skip(index) {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                match client.specify(name).await {
                    Ok(accepted) => {
                        let settled = client.redeem(&accepted).await;
                        kept.accepted.push((accepted, settled));
                    }
                    Err(refused) => kept.refused.push(refused),
                }
            }
            (client, kept)
        });
    }
    for _ in 0..KILLS {
        // Any moment will do, as long as it is another one each time.
        let more = Timestamp::now().subsec_nanosecond().unsigned_abs() % 700_000_000;
        tokio::time::sleep(BETWEEN + Duration::from_nanos(more.into())).await;
        supervisor = supervisor.kill().start(stage);
    }
    tokio::time::sleep(BETWEEN).await;
    stop.store(true, Ordering::Relaxed);
    let draining = Instant::now();
    let kept = living.join_all().await;
    let drained = draining.elapsed();

    // All that was ever accepted is redeemed again, of a supervisor that remembers nothing
    // else than its disk.
    let supervisor = supervisor.kill().start(stage);
    let mut redeeming = JoinSet::new();
    for (client, kept) in kept {
        redeeming.spawn(count(client, kept));
    }
    let counts = redeeming.join_all().await;
    let sum = |which: fn(&Counts) -> usize| counts.iter().map(which).sum::<usize>();
    let (accepted, lost, differ) =
        (sum(|it| it.accepted), sum(|it| it.lost), sum(|it| it.differ));
    println!(
        "  {accepted} accepted, {} delivered and redeemed after {} kills   {lost} lost   \
         {differ} answered differently the second time",
        accepted - lost,
        KILLS + 1,
    );
    println!(
        "    refused: {}   handed out under two tokens: {}   reports not wanted: {}   \
         registered again: {}   the last came {:.1} s after the load",
        sum(|it| it.refused),
        ledger.twice.load(Ordering::Relaxed),
        ledger.unwanted.load(Ordering::Relaxed),
        ledger.forgotten.load(Ordering::Relaxed),
        drained.as_secs_f64(),
    );
    for example in counts.iter().filter_map(|it| it.example.as_ref()).take(3) {
        println!("    for example: {example}");
    }
    drop(supervisor);
    let is_sound = accepted > 0
        && lost + differ == 0
        && ledger.twice.load(Ordering::Relaxed) == 0
        && ledger.unwanted.load(Ordering::Relaxed) == 0;
    println!("    {}", if is_sound { "nothing is missing" } else { "WORD NOT KEPT" });
    is_sound
}

/// What was found of the specifications of one client.
struct Counts {
    accepted: usize,
    /// Without the result that the component has delivered.
    lost: usize,
    /// With another answer than before.
    differ: usize,
    refused: usize,
    /// An answer that is wrong.
    example: Option<String>,
}

/// Redeems all of a client again.
async fn count(mut client: Client, kept: Kept) -> Counts {
    let mut counts = Counts {
        accepted: kept.accepted.len(),
        lost: 0,
        differ: 0,
        refused: kept.refused.len(),
        example: kept.refused.first().map(ToString::to_string),
    };
    for (accepted, before) in kept.accepted {
        let again = client.redeem_again(&accepted).await;
        if !is_right(&client.ledger, accepted.number, &again) {
            counts.lost += 1;
            counts.example.get_or_insert_with(|| again.to_string());
        }
        if again != before {
            counts.differ += 1;
            counts.example.get_or_insert_with(|| format!("{before}, then {again}"));
        }
    }
    counts
}
