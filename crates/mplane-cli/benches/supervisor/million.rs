//! Very many results, most of which are not kept any more in the end: memory stays what it
//! was.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mplane_cli::pki::Role;
use tokio::task::JoinSet;

use crate::Stage;
use crate::actors::{Ledger, Whose, register};
use crate::domain::Domain;
use crate::figures::{Clock, Memory, headline, verdict};
use crate::lives::{PAIRS, clients, work};
use crate::servers::{Supervisor, stored_bytes};

/// How many results there are if the scene is asked for by its name.
pub(super) const NAMED: usize = 1_000_000;

/// How many there are if all scenes are played.
pub(super) const AMONG_ALL: usize = 50_000;

/// What is kept: so little that each sweep, one a minute, takes almost all.
const KEEPS: &str =
    "result-age = \"30s\"\nstory-age = \"1m\"\nclient-max-bytes = 1000000\n";

/// How often is looked.
const LOOKS: usize = 10;

/// How often is looked whether it is time to look.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How much more memory there may be at the end than at the first look, in megabytes: the
/// first sweep comes after it in a long run, and has taken up to 30 MB.
const SINCE_FIRST_MB: f64 = 40.0;

/// How much more there may be than half-way, in megabytes, if sweeps had begun by then. 20
/// bytes of each result that stay in memory exceed it in a run of a million.
const SINCE_HALF_MB: f64 = 10.0;

/// Plays the scene.
pub(super) async fn scene(stage: &Stage, results: usize) {
    headline(&format!(
        "memory over {results} results of {PAIRS} components and {PAIRS} clients"
    ));
    let supervisor = Supervisor::start_keeping(stage, KEEPS);
    let components = stage.members.peers(Role::Component, 0..PAIRS, supervisor.address);
    let names: Arc<[_]> = components.iter().map(|peer| peer.name.clone()).collect();
    let ledger = Arc::<Ledger>::default();
    let components = register(components, PAIRS).await;
    let _working = work(components, &ledger, Whose::Ours);
    let (begun, ended) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let mut living = JoinSet::new();
    for (index, mut client) in
        clients(stage, PAIRS, &supervisor, &ledger).into_iter().enumerate()
    {
        let (names, begun, ended) =
            (Arc::clone(&names), Arc::clone(&begun), Arc::clone(&ended));
        living.spawn(async move {
            for name in names.iter().cycle().skip(index) {
                if begun.fetch_add(1, Ordering::Relaxed) >= results {
                    break;
                }
                client.live(name).await;
                ended.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let mut looks = Vec::new();
    for look in 1..=LOOKS {
        let clock = Clock::start(supervisor.id());
        let before = ended.load(Ordering::Relaxed);
        while ended.load(Ordering::Relaxed) < results * look / LOOKS {
            if let Some(client) = living.try_join_next() {
                client.expect("clients live to the end");
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let done = ended.load(Ordering::Relaxed);
        let memory = Memory::of(supervisor.id());
        let swept = swept(&stage.domain);
        let count = (done - before) as f64;
        println!(
            "  {done:8} results: {memory}   CPU {:.1} us each   {:.0} /s   store {:.0} MB   \
             {swept} not kept any more",
            clock.used().as_secs_f64() * 1e6 / count,
            count / clock.passed().as_secs_f64(),
            stored_bytes(&stage.domain) as f64 / 1e6,
        );
        looks.push((memory.all, swept));
    }
    let at = |look: usize| looks.get(look - 1).copied().expect("so often was looked");
    let ((first, _), (half, swept), (last, _)) = (at(1), at(LOOKS / 2), at(LOOKS));
    verdict("more than at the first look", last - first, SINCE_FIRST_MB, "MB");
    if swept == 0 {
        println!(
            "    too few to be compared with half-way: a minute passes before a sweep"
        );
    } else {
        verdict("more than half-way", last - half, SINCE_HALF_MB, "MB");
    }
    living.join_all().await;
}

/// Returns how many results the supervisor has logged that it does not keep any more.
fn swept(domain: &Domain) -> usize {
    let log = fs::read_to_string(domain.path().join("sup-1.log"));
    let log = log.expect("the folder is ours");
    let lines = log.lines().filter(|line| line.contains("\"not kept any longer\""));
    let counts = lines.filter_map(|line| {
        let (_, rest) = line.split_once("\"results\":")?;
        rest.split([',', '}']).next()?.parse::<usize>().ok()
    });
    counts.sum()
}
