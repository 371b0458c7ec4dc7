//! What any store must do, whatever it is made of: each test says one thing that the relay
//! relies on.

use jiff::SignedDuration;
use mplane::message::{ResultStatement, Specification, Statement, Table};
use mplane::primitive::Value;
use mplane::registry::Registries;
use mplane::when::When;

use super::*;
use crate::life::End;

pub(super) const NOON: Timestamp = Timestamp::UNIX_EPOCH;

const ROOM: Room = Room { queue: 150, client: 1_000 };

pub(super) fn after(seconds: i64) -> Timestamp {
    NOON + SignedDuration::from_secs(seconds)
}

fn probe(name: &str) -> Identity {
    Identity::new(["Demo", "Components", name].map(Into::into), Some("Components"))
}

fn client(name: &str) -> Identity {
    Identity::new(["Demo", "Clients", name].map(Into::into), Some("Clients"))
}

pub(super) fn token(text: &str) -> Token {
    text.parse().unwrap()
}

fn capability(label: &str) -> Capability {
    let registries = Registries::embedded();
    let statement = Statement::measure("now ... future / 1s".parse().unwrap())
        .labelled(label)
        .column(&registries, "packets.lost")
        .unwrap();
    Capability::new(statement)
}

fn result(value: u64) -> Message {
    let specification = Specification::of(&capability("counted"));
    let mut table = Table::new(specification.columns());
    table.push([Some(Value::Natural(value))]);
    ResultStatement::of(&specification, When::at(NOON), table).into()
}

/// A store in a folder of its own.
pub(super) struct Bench {
    pub(super) store: Store,
    pub(super) folder: tempfile::TempDir,
}

impl Bench {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { store: Store::open(folder.path()).unwrap(), folder }
    }

    /// Ends, and opens the store again.
    async fn restart(self) -> Self {
        let Self { store, folder } = self;
        drop(store);
        loop {
            match Store::open(folder.path()) {
                Ok(store) => return Self { store, folder },
                // The thread that writes has not ended yet.
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    pub(super) async fn accept(
        &self,
        who: &str,
        name: &str,
        component: &str,
    ) -> (Id, Acceptance) {
        let specification = Specification::of(&capability("counted"));
        let id = self.store.next_id();
        let new = New {
            id,
            client: client(who),
            token: token(name),
            label: Some(format!("counted-{name}")),
            component: probe(component),
            handed_token: token(&format!("handed-{}", id.0)),
            capability: CapabilityName::of(&capability("counted")),
            asked: specification.clone().into(),
            handed: specification.into(),
            deadline: Some(after(100)),
        };
        (id, self.store.accept(new, ROOM, NOON).await.unwrap())
    }

    pub(super) async fn fetch(&self, component: &str, at: Timestamp) -> Vec<Id> {
        let lease = Some(Duration::from_secs(30));
        let (handed, _) = self.store.fetch(&probe(component), lease, at).await.unwrap();
        handed
            .into_iter()
            .map(|handed| match handed {
                Handed::Specification { id, .. }
                | Handed::Interrupt { id, .. }
                | Handed::Redemption { id, .. } => id,
            })
            .collect()
    }

    pub(super) async fn deliver(
        &self,
        id: Id,
        component: &str,
        message: Message,
    ) -> Effect {
        let handed = token(&format!("handed-{}", id.0));
        let reported = self.store.reported(&probe(component), &handed).await.unwrap();
        let reported = reported.expect("it was handed to it");
        let event = match message {
            Message::Exception(_) => Event::Delivered(End::Exception),
            Message::Envelope(_) => Event::DeliveredSeveral { are_all: false },
            _ => Event::Delivered(End::Result),
        };
        self.store.delivered(&reported, event, &message, NOON).await.unwrap().effect
    }

    async fn steps(&self, name: &str) -> Vec<String> {
        let stories = self.store.stories(name.into(), None).await.unwrap().stories;
        stories.first().map_or_else(Vec::new, |story| {
            story.steps.iter().map(|step| step.what.clone()).collect()
        })
    }
}

#[tokio::test]
async fn a_token_of_a_client_is_accepted_once_and_is_no_other_clients() {
    let bench = Bench::new();
    assert_eq!(bench.accept("me", "t", "a").await.1, Acceptance::New);
    assert_eq!(bench.accept("me", "t", "a").await.1, Acceptance::Known);
    assert_eq!(bench.accept("other", "t", "a").await.1, Acceptance::New);
    assert!(bench.store.told(&client("third"), &token("t")).await.unwrap().is_none());
}

#[tokio::test]
async fn what_is_queued_is_handed_out_in_order_in_parts_and_once() {
    let bench = Bench::new();
    let mut accepted = Vec::new();
    for number in 0..150 {
        accepted.push(bench.accept("me", &number.to_string(), "a").await.0);
    }
    assert_eq!(bench.accept("me", "more", "a").await.1, Acceptance::QueueFull);
    assert_eq!(bench.accept("me", "more", "b").await.1, Acceptance::New);
    let mut fetched = bench.fetch("a", NOON).await;
    assert_eq!(fetched.len(), 100);
    fetched.extend(bench.fetch("a", NOON).await);
    assert_eq!(fetched, accepted);
    assert!(bench.fetch("a", NOON).await.is_empty());
    assert_eq!(bench.fetch("b", NOON).await.len(), 1);
}

#[tokio::test]
async fn the_first_delivery_is_kept_and_another_one_noted() {
    let bench = Bench::new();
    let (id, _) = bench.accept("me", "t", "a").await;
    bench.fetch("a", NOON).await;
    assert_eq!(bench.deliver(id, "a", result(1)).await, Effect::Settle(End::Result));
    assert_eq!(bench.deliver(id, "a", result(1)).await, Effect::TooLate);
    assert_eq!(bench.deliver(id, "a", result(2)).await, Effect::TooLate);
    let kept = bench.store.result(id).await.unwrap().unwrap();
    assert_eq!(kept, message_text(&result(1)));
    let noted = ["accepted", "handed", "delivered", "something else delivered, not kept"];
    assert_eq!(bench.steps("t").await, noted);
    let unknown = bench.store.promised(&probe("b"), &token("handed-1"), NOON).await;
    assert_eq!(unknown.unwrap(), None, "it was handed to another component");
}

#[tokio::test]
async fn all_that_was_told_is_there_after_a_restart() {
    let bench = Bench::new();
    let offered = capability("counted");
    let (features, dialect) = (Features::OURS, Dialect::Envelope);
    bench.store.register(&probe("a"), &offered, features, dialect, NOON).await.unwrap();
    let (done, _) = bench.accept("me", "done", "a").await;
    let (handed, _) = bench.accept("me", "handed", "a").await;
    bench.fetch("a", NOON).await;
    bench.deliver(done, "a", result(7)).await;
    let (queued, _) = bench.accept("me", "queued", "a").await;
    bench.store.seen(vec![(probe("a"), after(5))]).await.unwrap();

    let bench = bench.restart().await;
    assert!(bench.store.next_id() > queued);
    let components = bench.store.components().await.unwrap();
    let [component] = components.as_slice() else { panic!("{components:?}") };
    assert_eq!(component.identity, probe("a"));
    assert_eq!((component.first_seen, component.last_seen), (NOON, after(5)));
    assert_eq!(component.capabilities, [message_text(&offered.into())]);
    assert!(component.is_pending);
    let told = bench.store.told(&client("me"), &token("done")).await.unwrap();
    let Some(Told::Ended(_, Some(text))) = told else { panic!("{told:?}") };
    assert_eq!(text, message_text(&result(7)));
    assert_eq!(bench.store.next_deadline().await.unwrap(), Some(after(30)), "its lease");
    assert_eq!(bench.fetch("a", NOON).await, [queued]);
    let outstanding = bench.store.outstanding(&probe("a")).await.unwrap();
    assert_eq!(outstanding.len(), 2, "{handed:?} and {queued:?}");
}

#[tokio::test]
async fn a_capability_is_replaced_by_its_label_and_gone_when_it_is_withdrawn() {
    let bench = Bench::new();
    let (features, dialect) = (Features::OURS, Dialect::Envelope);
    for (label, scope) in
        [("one", "now ... future / 1s"), ("one", "now ... future / 2s"), ("two", "now")]
    {
        let mut offered = capability(label);
        offered.set_when(scope.parse().unwrap());
        bench
            .store
            .register(&probe("a"), &offered, features, dialect, NOON)
            .await
            .unwrap();
    }
    let count = async || {
        let components = bench.store.components().await.unwrap();
        components.iter().map(|component| component.capabilities.len()).sum::<usize>()
    };
    assert_eq!(count().await, 2);
    let mut two = capability("two");
    two.set_when("now".parse().unwrap());
    bench.store.withdraw(&probe("a"), &two.token(), "withdrawn", NOON).await.unwrap();
    assert_eq!(count().await, 1);
}

#[tokio::test]
async fn time_takes_leases_and_gives_up_what_is_over() {
    let bench = Bench::new();
    let (id, _) = bench.accept("me", "t", "a").await;
    bench.fetch("a", NOON).await;
    let (overdue, next) = bench.store.expire(after(29)).await.unwrap();
    assert!(overdue.is_empty());
    assert_eq!(next, Some(after(30)));
    let (overdue, next) = bench.store.expire(after(30)).await.unwrap();
    assert_eq!((overdue[0].id, overdue[0].effect), (id, Effect::Wake));
    assert_eq!(next, Some(after(100)));
    let (overdue, next) = bench.store.expire(after(100)).await.unwrap();
    assert_eq!(overdue[0].effect, Effect::Settle(End::Lost));
    assert_eq!(next, None);
}

#[tokio::test]
async fn an_interrupt_is_handed_out_once_to_who_has_the_specification() {
    let bench = Bench::new();
    let (id, _) = bench.accept("me", "t", "a").await;
    bench.fetch("a", NOON).await;
    let effect = async || {
        bench.store.interrupted(id, NOON).await.unwrap().map(|stepped| stepped.effect)
    };
    assert_eq!(effect().await, Some(Effect::Wake));
    assert_eq!(effect().await, Some(Effect::Nothing));
    assert_eq!(bench.fetch("a", NOON).await, [id]);
    assert!(bench.fetch("a", NOON).await.is_empty());
    let (queued, _) = bench.accept("me", "u", "a").await;
    let stepped = bench.store.interrupted(queued, NOON).await.unwrap().unwrap();
    assert_eq!(stepped.effect, Effect::Settle(End::Interrupted));
    assert!(bench.store.result(queued).await.unwrap().is_none(), "nothing came of it");
}

#[tokio::test]
async fn measurements_are_listed_by_page_and_condition() {
    let bench = Bench::new();
    for number in 0..5 {
        let (id, _) = bench.accept("me", &format!("t{number}"), "a").await;
        if number % 2 == 0 {
            bench.fetch("a", NOON).await;
            bench.deliver(id, "a", result(1)).await;
        }
    }
    bench.accept("other", "x", "b").await;
    let list = async |filter: Filter, before, limit| {
        let page = bench.store.measurements(filter, before, limit).await.unwrap();
        let tokens: Vec<_> =
            page.measurements.into_iter().map(|known| known.token).collect();
        (tokens, page.before)
    };
    let (tokens, before) = list(Filter::default(), None, 4).await;
    assert_eq!(tokens, ["x", "t4", "t3", "t2"]);
    let (tokens, before) = list(Filter::default(), before, 4).await;
    assert_eq!((tokens, before), (vec!["t1".to_owned(), "t0".into()], None));
    let mine = Filter {
        client: Some(client("me")),
        state: Some("result".into()),
        label: Some("counted".into()),
        component: Some(probe("a")),
        is_kept: true,
    };
    assert_eq!(list(mine, None, 10).await.0, ["t4", "t2", "t0"]);
}

#[tokio::test]
async fn a_copy_is_a_store_and_what_is_none_is_refused() {
    let bench = Bench::new();
    let (id, _) = bench.accept("me", "t", "a").await;
    bench.fetch("a", NOON).await;
    bench.deliver(id, "a", result(3)).await;
    let copy = bench.folder.path().join("copy");
    assert!(Archive::copy(bench.folder.path(), &copy).unwrap() > 0);
    let archive = Archive::open(&copy).unwrap();
    assert!(archive.result(id).await.unwrap().is_some());
    let nothing = tempfile::tempdir().unwrap();
    let error = Archive::open(nothing.path()).unwrap_err().to_string();
    assert!(error.contains("is no store of a supervisor"), "{error}");
}

#[tokio::test]
async fn a_database_that_another_program_locks_is_waited_for() {
    let bench = Bench::new();
    let (control, _) = files(bench.folder.path());
    let mut other = Connection::open(control).unwrap();
    let held = other.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate);
    let held = held.unwrap();
    let mut accept = Box::pin(bench.accept("me", "t", "a"));
    tokio::select! {
        biased;
        _ = &mut accept => panic!("accepted while the database is locked"),
        () = std::future::ready(()) => {}
    }
    // Reading goes on meanwhile.
    assert!(bench.store.told(&client("me"), &token("t")).await.unwrap().is_none());
    held.rollback().unwrap();
    assert_eq!(accept.await.1, Acceptance::New);
    assert!(bench.store.told(&client("me"), &token("t")).await.unwrap().is_some());
}

#[tokio::test]
async fn a_log_that_ends_early_or_in_rubbish_costs_the_latest_steps_alone() {
    const ACCEPTED: usize = 30;
    let bench = Bench::new();
    for number in 0..ACCEPTED {
        bench.accept("me", &format!("t{number}"), "a").await;
    }
    let (control, results) = files(bench.folder.path());
    let log = |database: &Path| PathBuf::from(format!("{}-wal", database.display()));
    let whole = std::fs::read(log(&control)).unwrap();
    let mut last = 0;
    // Parts of the log as a machine that loses its power may leave it.
    for eighths in 0..=8 {
        let kept = whole.len() * eighths / 8;
        for rubbish in [&b""[..], &[0xa5; 5_000]] {
            let folder = tempfile::tempdir().unwrap();
            let (control_copy, results_copy) = files(folder.path());
            for (from, to) in [(&control, &control_copy), (&results, &results_copy)] {
                std::fs::copy(from, to).unwrap();
            }
            std::fs::copy(log(&results), log(&results_copy)).unwrap();
            std::fs::write(log(&control_copy), [&whole[..kept], rubbish].concat())
                .unwrap();
            let store = Store::open(folder.path()).unwrap();
            let mut found = Vec::new();
            for number in 0..ACCEPTED {
                let name = format!("t{number}");
                let known = store.told(&client("me"), &token(&name)).await.unwrap();
                let stories = store.stories(name, None).await.unwrap().stories;
                let steps: usize = stories.iter().map(|story| story.steps.len()).sum();
                assert_eq!(known.is_some(), steps == 1, "a specification has its story");
                found.push(known.is_some());
            }
            let count = found.iter().take_while(|found| **found).count();
            assert!(!found[count..].contains(&true), "{found:?}");
            assert!(count >= last, "the more is kept of the log, the more is known");
            last = count;
            let bench = Bench { store, folder };
            assert_eq!(bench.accept("me", "next", "a").await.1, Acceptance::New);
        }
    }
    assert_eq!(last, ACCEPTED);
}
