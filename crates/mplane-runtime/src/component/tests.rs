//! The component driver with services that do only what a test tells them.

use mplane::features::Features;
use mplane::message::{Interrupt, Specification, Statement};
use mplane::primitive::Value;

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
        let shutdown = CancellationToken::new();
        let service: Arc<dyn Service> = Arc::new(Scripted(script));
        let services = vec![Offered { service, budget: Budget::default() }];
        let (registries, exchange) =
            (Registries::embedded(), ComponentExchange::default());
        let component =
            Component::new(services, registries, exchange, None, shutdown.clone())
                .unwrap();
        let names = ["Demo", "Clients", "me"].map(Into::into);
        let identity = Identity::new(names, Some("Clients"));
        let peer = Peer { identity, features: Features::OURS };
        Self { listening: Listening(component), peer, shutdown }
    }

    async fn ask(&self, message: impl Into<Message>, wait: Duration) -> Message {
        self.listening.respond(&self.peer, message.into(), wait).await
    }

    fn specification(&self, when: &str) -> Specification {
        let capability = self.listening.capabilities(&self.peer).remove(0);
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
    assert!(guarded.capabilities(&bench.peer).is_empty());
    let reply = guarded.respond(&bench.peer, specification.into(), PATIENCE).await;
    let Message::Exception(exception) = reply else { panic!("unexpected: {reply}") };
    assert!(
        exception.message().contains("is a component and may not use"),
        "{exception}"
    );
}
