//! As many specifications as a component takes, at once: they wait in a queue of a service
//! that runs four at a time, behind four that run until they are stopped.
//!
//! The reference has no queue and no limit; it answers one after the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mplane::limits;
use mplane::message::Message;
use mplane::token::Token;
use mplane_cli::block_on;
use mplane_runtime::tls::fresh_token;
use tokio::task::JoinSet;

use crate::asker::Asker;
use crate::domain::{Domain, spool_word};
use crate::figures::{Clock, Memory, headline};
use crate::latency::{ours, theirs};
use crate::reference::Reference;

/// How many run at a time.
const PLACES: usize = 4;

/// How many connections the specifications come over.
const CLIENTS: usize = 64;

/// How many the reference gets: it takes a quarter of a second for each.
const FOR_REFERENCE: usize = 40;

/// Plays the scene.
pub(super) fn scene(domain: &Domain, reference: Option<&Reference>) {
    let count = limits::JOBS - PLACES;
    headline(&format!("{count} specifications at once, {PLACES} of which run at a time"));
    block_on(async {
        for has_spool in [false, true] {
            queued(domain, has_spool, count).await;
        }
        if let Some(reference) = reference {
            let (component, url) = reference.listening(domain);
            let asker = theirs(domain, &url).await;
            let before = Memory::of(component.id());
            let (started, askers) = (Instant::now(), connect(&asker));
            let clock = Clock::start(component.id());
            let took = each(&askers, vec![(); FOR_REFERENCE], |asker, ()| async move {
                asker.run().await
            })
            .await;
            println!(
                "  reference, {} of them\n    all results in {:.2} s, CPU {:.2} s   {before}, \
                 then {}",
                took.len(),
                started.elapsed().as_secs_f64(),
                clock.used().as_secs_f64(),
                Memory::of(component.id()),
            );
        }
    });
}

/// Has our component queue specifications, and redeems their results.
async fn queued(domain: &Domain, has_spool: bool, count: usize) {
    let keys = format!("concurrency = {PLACES}\n");
    let (component, asker) = ours(domain, has_spool, &keys).await;
    let blocker = asker.another().over("now + 1h / 1s");
    let mut blocking = Vec::new();
    for _ in 0..PLACES {
        blocking.push(blocker.submit(Duration::ZERO).await.0);
    }
    let askers = connect(&asker);
    // Every connection is there, with its handshake.
    each(&askers, vec![(); CLIENTS], |asker, ()| async move {
        asker.interrupt(fresh_token()).await
    })
    .await;
    let memory = || Memory::of(component.id());

    let (before, clock) = (memory(), Clock::start(component.id()));
    let tokens = each(&askers, vec![(); count], |asker, ()| async move {
        let (token, answer) = asker.submit(Duration::ZERO).await;
        assert!(matches!(answer, Message::Receipt(_)), "{answer}");
        token
    })
    .await;
    println!(
        "  mpcom {}\n    all accepted in {:.2} s, CPU {:.2} s   {before}, then {}",
        spool_word(has_spool),
        clock.passed().as_secs_f64(),
        clock.used().as_secs_f64(),
        memory()
    );

    let clock = Clock::start(component.id());
    for token in blocking {
        asker.interrupt(token).await;
    }
    each(&askers, tokens, |asker, token: Token| async move {
        let mut answer = asker.redeem(token.clone()).await;
        while let Message::Receipt(_) = answer {
            answer = asker.redeem(token.clone()).await;
        }
        assert!(matches!(answer, Message::Result(_)), "{answer}");
    })
    .await;
    println!(
        "    all redeemed in {:.2} s, CPU {:.2} s   {}",
        clock.passed().as_secs_f64(),
        clock.used().as_secs_f64(),
        memory()
    );
}

/// Returns clients with connections of their own.
fn connect(asker: &Asker) -> Vec<Arc<Asker>> {
    (0..CLIENTS).map(|_| Arc::new(asker.another())).collect()
}

/// Does something for each item, shared out among clients that work at the same time.
async fn each<I, O, R>(
    askers: &[Arc<Asker>],
    items: Vec<I>,
    act: impl Fn(Arc<Asker>, I) -> R + Copy + Send + 'static,
) -> Vec<O>
where
    I: Send + 'static,
    O: Send + 'static,
    R: Future<Output = O> + Send,
{
    let mut shares: Vec<Vec<I>> = askers.iter().map(|_| Vec::new()).collect();
    let count = shares.len();
    for (index, item) in items.into_iter().enumerate() {
        if let Some(share) = shares.get_mut(index % count) {
            share.push(item);
        }
    }
    let mut working = JoinSet::new();
    for (asker, share) in askers.iter().map(Arc::clone).zip(shares) {
        working.spawn(async move {
            let mut done = Vec::with_capacity(share.len());
            for item in share {
                done.push(act(Arc::clone(&asker), item).await);
            }
            done
        });
    }
    working.join_all().await.into_iter().flatten().collect()
}
