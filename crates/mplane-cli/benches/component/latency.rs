//! How long it takes from a specification to its result, over loopback with mutual TLS on
//! connections that are kept.
//!
//! Our component connects to a TCP port that refuses, which is its shortest measurement;
//! the reference's service does nothing at all. The floor is a bare axum server that sends
//! the specification back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mplane_cli::block_on;
use tokio::task::JoinSet;

use crate::asker::Asker;
use crate::domain::{ADDRESS, Domain, free_port, spool_line, spool_word};
use crate::figures::{Clock, Rounds, headline, percentile};
use crate::reference::Reference;
use crate::support::{Program, Stream, command};

/// How many rounds there are.
const ROUNDS: usize = 3;

/// How many runs one client makes in a round, one after the other.
const RUNS: usize = 2_000;

/// How many clients there are at once.
const CLIENTS: usize = 64;

/// How long they run.
const TOGETHER: Duration = Duration::from_secs(2);

/// The component.
pub(super) const MPCOM: &str = env!("CARGO_BIN_EXE_mpcom");

/// Plays the scene.
pub(super) fn scene(domain: &Domain, reference: Option<&Reference>) {
    headline("specification to result, mutual TLS on kept connections");
    block_on(async {
        for has_spool in [false, true] {
            let (component, asker) = ours(domain, has_spool, "").await;
            if !has_spool {
                floor(domain, &asker).await;
            }
            let name = format!("mpcom {}", spool_word(has_spool));
            measure(&name, &component, &asker, RUNS, CLIENTS).await;
        }
        if let Some(reference) = reference {
            let (component, url) = reference.listening(domain);
            let asker = theirs(domain, &url).await;
            // It answers nobody else meanwhile, and looks every 250 ms.
            measure("reference", &component, &asker, 8, 8).await;
        }
    });
}

/// Starts our component with these keys for its service; returns it with a client.
pub(super) async fn ours(
    domain: &Domain,
    has_spool: bool,
    keys: &str,
) -> (Program, Asker) {
    let section = format!(
        "[component]\n{}\n[component.listener]\naddress = \"{ADDRESS}:0\"\n\n\
         [[component.service]]\ntype = \"tcp-connect\"\nip4 = \"{ADDRESS}\"\n{keys}",
        spool_line(has_spool)
    );
    let (component, log) = domain.start(MPCOM, "com-1", &section);
    let url = format!("https://{}/", log.address("\"offers services\""));
    // Nobody listens there.
    let port = free_port().to_string();
    let parameters = [("destination.ip4", ADDRESS), ("destination.port", port.as_str())];
    let asker =
        Asker::discover(domain.client(), &url, "tcp-connect-ip4", &parameters).await;
    (component, asker)
}

/// Makes a client of a reference component.
pub(super) async fn theirs(domain: &Domain, url: &str) -> Asker {
    let parameters = [("destination.ip4", ADDRESS)];
    Asker::discover(domain.client(), url, "peer-echo", &parameters).await
}

/// Measures the floor with the requests of a client.
async fn floor(domain: &Domain, asker: &Asker) {
    let program = std::env::current_exe().expect("the kernel knows it");
    let mut program = command(&program.display().to_string());
    program.arg("echo").arg(domain.path().join("pki"));
    let mut server = Program::start(program);
    let url = server.wait_for(Stream::Out, &["https://"]);
    let asker = asker.another().at_echo(&url);
    measure("bare axum, echo", &server, &asker, RUNS, CLIENTS).await;
}

/// Measures one client and then many at once.
async fn measure(
    name: &str,
    server: &Program,
    asker: &Asker,
    runs: usize,
    clients: usize,
) {
    // The handshake and the first use of everything.
    asker.run().await;
    let (mut p50, mut p99, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let clock = Clock::start(server.id());
        let mut took_us = Vec::with_capacity(runs);
        for _ in 0..runs {
            took_us.push(asker.run().await.as_secs_f64() * 1e6);
        }
        cpu.push(clock.used().as_secs_f64() * 1e6 / runs as f64);
        took_us.sort_by(f64::total_cmp);
        p50.push(percentile(&took_us, 50.0));
        p99.push(percentile(&took_us, 99.0));
    }
    println!(
        "  {name}\n    {runs} runs, one after the other: p50 {}   p99 {} us   CPU {} us each",
        Rounds::new(p50),
        Rounds::new(p99),
        Rounds::new(cpu)
    );

    let askers: Vec<_> = (0..clients).map(|_| Arc::new(asker.another())).collect();
    let (mut rates, mut p50, mut p99, mut cpu) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let clock = Clock::start(server.id());
        let until = Instant::now() + TOGETHER;
        let mut running = JoinSet::new();
        for asker in &askers {
            let asker = Arc::clone(asker);
            running.spawn(async move {
                let mut took_us = Vec::new();
                while Instant::now() < until {
                    took_us.push(asker.run().await.as_secs_f64() * 1e6);
                }
                took_us
            });
        }
        let mut took_us = running.join_all().await.concat();
        rates.push(took_us.len() as f64 / clock.passed().as_secs_f64());
        cpu.push(clock.used().as_secs_f64() * 1e6 / took_us.len() as f64);
        took_us.sort_by(f64::total_cmp);
        p50.push(percentile(&took_us, 50.0));
        p99.push(percentile(&took_us, 99.0));
    }
    println!(
        "    {clients} clients: {} runs/s   p50 {}   p99 {} us   CPU {} us each",
        Rounds::new(rates),
        Rounds::new(p50),
        Rounds::new(p99),
        Rounds::new(cpu)
    );
}
