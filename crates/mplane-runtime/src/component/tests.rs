//! The component driver with services that do only what a test tells them.

use mplane::features::Features;
use mplane::message::{Interrupt, Redemption, Specification, Statement};
use mplane::primitive::Value;
use mplane::token::Token;

use super::*;
use crate::http::routes::Guarded;
use crate::service::{Completed, Run, RunError, Work};

/// What a scripted service does.
#[derive(Clone, Copy)]
enum Script {
    /// One row, and done.
    OneRow,
    /// One row, then nothing until it is told to stop.
    UntilStopped,
    /// One row, then a failure.
    FailLate,
    /// A panic.
    Panic,
    /// A thousand rows, and done.
    ManyRows,
}

/// A service that follows a script.
struct Scripted(Script);

impl Service for Scripted {
    fn capability(&self) -> Capability {
        let registries = Registries::embedded();
        let statement = Statement::measure("now ... future / 1s".parse().unwrap())
            .labelled("scripted")
            .column(&registries, "packets.lost")
            .unwrap();
        Capability::new(statement)
    }

    fn run(&self, work: Work) -> Run<'_> {
        Box::pin(async move {
            if !matches!(self.0, Script::Panic) {
                work.rows.push([Some(Value::Natural(1))])?;
            }
            match self.0 {
                Script::OneRow => {}
                Script::ManyRows => {
                    for row in 1..1_000 {
                        work.rows.push([Some(Value::Natural(row))])?;
                    }
                }
                Script::FailLate => return Err(RunError("as scripted".into())),
                Script::UntilStopped => work.stop.cancelled().await,
                Script::Panic => panic!("as scripted"),
            }
            Ok(Completed::default())
        })
    }
}

/// A component with one scripted service, and a client of it.
struct Bench {
    listening: Listening,
    peer: Peer,
    shutdown: CancellationToken,
}

impl Bench {
    fn new(script: Script) -> Self {
        Self::with(script, None)
    }

    fn with(script: Script, spool: Option<(Spool, Vec<Saved>)>) -> Self {
        let shutdown = CancellationToken::new();
        let service: Arc<dyn Service> = Arc::new(Scripted(script));
        let services = vec![Offered { service, budget: Budget::default() }];
        let (registries, exchange) =
            (Registries::embedded(), ComponentExchange::default());
        let component =
            Component::new(services, registries, exchange, spool, shutdown.clone())
                .unwrap();
        let names = ["Demo", "Clients", "me"].map(Into::into);
        let identity = Identity::new(names, Some("Clients"));
        let peer = Peer { identity, features: Features::OURS };
        Self { listening: Listening(component), peer, shutdown }
    }

    async fn ask(&self, message: impl Into<Message>, wait: Duration) -> Message {
        self.listening.respond(&self.peer, message.into(), wait).await.unwrap()
    }

    fn specification(&self, when: &str) -> Specification {
        let capability =
            self.listening.capabilities(&self.peer, 0).capabilities.remove(0);
        let mut specification = Specification::of(&capability);
        specification.set_when(when.parse::<When>().unwrap());
        specification.set_token(Some(fresh_token()));
        specification
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(start_paused = true)]
async fn waits_for_a_result_and_sends_it_instead_of_a_receipt() {
    let bench = Bench::new(Script::OneRow);
    let reply = bench.ask(bench.specification("now + 5s / 1s"), PATIENCE).await;
    let Message::Result(result) = reply else { panic!("a result, not {reply}") };
    assert_eq!(result.table().rows(), 1);
    assert!(result.when().is_definite());
}

#[tokio::test(start_paused = true)]
async fn sends_a_receipt_if_the_result_takes_longer_than_the_wait() {
    let bench = Bench::new(Script::UntilStopped);
    let specification = bench.specification("now ... future / 1s");
    let reply = bench.ask(specification.clone(), Duration::ZERO).await;
    assert!(matches!(reply, Message::Receipt(_)), "{reply}");

    let reply = bench.ask(Interrupt::of(&specification), PATIENCE).await;
    let Message::Result(result) = reply else { panic!("a result, not {reply}") };
    assert_eq!(result.table().rows(), 1, "an interrupt keeps what was measured");
}

#[tokio::test]
async fn what_was_measured_before_a_failure_is_a_result_that_says_so() {
    let bench = Bench::new(Script::FailLate);
    let reply = bench.ask(bench.specification("now + 5s / 1s"), PATIENCE).await;
    let Message::Result(result) = reply else { panic!("unexpected: {reply}") };
    assert_eq!(result.table().rows(), 1);
    let reason = result.find_metadata("measurement.incomplete").unwrap();
    assert_eq!(reason.to_string(), "as scripted");
}

#[tokio::test]
async fn a_service_that_panics_fails_alone() {
    let bench = Bench::new(Script::Panic);
    for _ in 0..2 {
        let reply = bench.ask(bench.specification("now + 5s / 1s"), PATIENCE).await;
        let Message::Exception(exception) = reply else { panic!("unexpected: {reply}") };
        assert_eq!(exception.message(), "the service failed inside");
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_services_and_answers_who_waits() {
    let bench = Bench::new(Script::UntilStopped);
    let specification = bench.specification("now ... future / 1s");
    let waiting = bench.ask(specification, PATIENCE);
    let ending = async {
        tokio::task::yield_now().await;
        bench.shutdown.cancel();
        bench.listening.0.ended().await;
    };
    let (reply, ()) = tokio::join!(waiting, ending);
    assert!(matches!(reply, Message::Receipt(_) | Message::Result(_)), "{reply}");
    assert!(bench.listening.0.runs.is_empty());
}

#[tokio::test]
async fn peers_that_are_no_clients_see_and_get_nothing() {
    let mut bench = Bench::new(Script::OneRow);
    let specification = bench.specification("now + 5s / 1s");
    let names = ["Demo", "Components", "other"].map(Into::into);
    bench.peer.identity = Identity::new(names, Some("Components"));
    // As the routes ask it.
    let guarded = Guarded(Arc::new(bench.listening));
    assert!(guarded.capabilities(&bench.peer, 0).capabilities.is_empty());
    let reply =
        guarded.respond(&bench.peer, specification.into(), PATIENCE).await.unwrap();
    let Message::Exception(exception) = reply else { panic!("unexpected: {reply}") };
    assert!(
        exception.message().contains("is a component and may not use"),
        "{exception}"
    );
}

/// A component with a spool of this size, and a client of it.
fn with_spool(script: Script, folder: &tempfile::TempDir, max_bytes: u64) -> Bench {
    let registries = Registries::embedded();
    let path = folder.path().join("component.spool");
    let spool = Spool::open(&path, max_bytes, &registries).unwrap();
    Bench::with(script, Some(spool))
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_specifications_as_it_takes_at_once_are_all_carried_out() {
    let folder = tempfile::tempdir().unwrap();
    let bench = with_spool(Script::OneRow, &folder, 1 << 30);
    let specification = bench.specification("now + 1s / 1s");
    let bench = Arc::new(bench);
    let asked: Vec<_> = (0..mplane::limits::JOBS)
        .map(|number| {
            let (bench, mut specification) = (Arc::clone(&bench), specification.clone());
            specification.set_token(Some(number.to_string().parse().unwrap()));
            tokio::spawn(async move { bench.ask(specification, Duration::ZERO).await })
        })
        .collect();
    for asked in asked {
        let reply = asked.await.unwrap();
        assert!(matches!(reply, Message::Receipt(_) | Message::Result(_)), "{reply}");
    }
    for number in 0..mplane::limits::JOBS {
        let token: Token = number.to_string().parse().unwrap();
        let redemption = Redemption::token_only("measure", token);
        let reply = bench.ask(redemption, PATIENCE).await;
        assert!(matches!(reply, Message::Result(_)), "{number}: {reply}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_what_it_takes_specifications_are_refused_and_the_others_go_on() {
    let bench = Bench::new(Script::UntilStopped);
    let specification = bench.specification("now ... future / 1s");
    let send = async |number: usize| {
        let mut specification = specification.clone();
        specification.set_token(Some(number.to_string().parse().unwrap()));
        bench.ask(specification, Duration::ZERO).await
    };
    for number in 0..mplane::limits::JOBS {
        assert!(matches!(send(number).await, Message::Receipt(_)));
    }
    let Message::Exception(refusal) = send(mplane::limits::JOBS).await else {
        panic!("one more is too many")
    };
    assert!(refusal.message().contains("as many as it takes; try again later"));
    let interrupt = Interrupt::token_only("measure", "0".parse().unwrap());
    assert!(matches!(bench.ask(interrupt, PATIENCE).await, Message::Result(_)));
    assert!(matches!(send(mplane::limits::JOBS).await, Message::Receipt(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_refuses_what_is_new_until_owners_have_their_results() {
    let folder = tempfile::tempdir().unwrap();
    let bench = with_spool(Script::ManyRows, &folder, 400_000);
    let mut specification = bench.specification("now + 1s / 1s");
    let mut accepted = Vec::new();
    let refusal = loop {
        let token = fresh_token();
        specification.set_token(Some(token.clone()));
        match bench.ask(specification.clone(), Duration::ZERO).await {
            Message::Exception(refusal) => break refusal,
            _ => accepted.push(token),
        }
        // Not before it is finished: what runs is not bounded by what is stored.
        while bench.listening.0.state().exchange.active_jobs() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(accepted.len() < 1_000, "it is full some time");
    };
    assert!(refusal.message().contains("the spool of this component is full"));
    for token in accepted {
        let reply = bench.ask(Redemption::token_only("measure", token), PATIENCE).await;
        assert!(matches!(reply, Message::Result(_)), "none is lost: {reply}");
    }
    let wait = async {
        loop {
            specification.set_token(Some(fresh_token()));
            let reply = bench.ask(specification.clone(), Duration::ZERO).await;
            if !matches!(reply, Message::Exception(_)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("there is room again");
}
