//! What any store must do, whatever it is made of: each test says one thing that the relay
//! relies on.

use jiff::SignedDuration;
use mplane::features::Features;
use mplane::message::{Capability, ResultStatement, Specification, Statement, Table};
use mplane::primitive::Value;
use mplane::registry::Registries;
use mplane::when::When;

use super::*;
use crate::directory::Dialect;
use crate::life::End;

pub(super) const NOON: Timestamp = Timestamp::UNIX_EPOCH;

const ROOM: Room = Room { queue: 150, client: 1_000 };

pub(super) fn after(seconds: i64) -> Timestamp {
    NOON + SignedDuration::from_secs(seconds)
}

pub(super) fn probe(name: &str) -> Identity {
    Identity::new(["Demo", "Components", name].map(Into::into), Some("Components"))
}

pub(super) fn client(name: &str) -> Identity {
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
        let stepped = bench.store.interrupted(vec![id], NOON).await.unwrap();
        stepped.first().map(|stepped| stepped.effect)
    };
    assert_eq!(effect().await, Some(Effect::Wake));
    assert_eq!(effect().await, Some(Effect::Nothing));
    assert_eq!(bench.fetch("a", NOON).await, [id]);
    assert!(bench.fetch("a", NOON).await.is_empty());
    let (queued, _) = bench.accept("me", "u", "a").await;
    let stepped = bench.store.interrupted(vec![queued], NOON).await.unwrap();
    assert_eq!(stepped[0].effect, Effect::Settle(End::Interrupted));
    assert!(bench.store.result(queued).await.unwrap().is_none(), "nothing came of it");
}

#[tokio::test]
async fn measurements_are_listed_by_page_and_condition() {
    let bench = Bench::new();
    let (features, dialect) = (Features::OURS, Dialect::Envelope);
    let offered = capability("counted");
    bench.store.register(&probe("a"), &offered, features, dialect, NOON).await.unwrap();
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
        client_part: None,
        component_part: Some("Components.a".into()),
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

/// A specification for components together, with a part for each.
async fn accept_all(bench: &Bench, name: &str, components: &[&str]) -> (Id, Vec<Id>) {
    let specification = Specification::of(&capability("counted"));
    let new = |id: Id, name: String, component: Identity| New {
        id,
        client: client("me"),
        token: token(&name),
        label: Some(format!("counted-{name}")),
        component,
        handed_token: token(&format!("handed-{}", id.0)),
        capability: CapabilityName::of(&capability("counted")),
        asked: specification.clone().into(),
        handed: specification.clone().into(),
        deadline: Some(after(100)),
    };
    let whole = bench.store.next_id();
    let everybody = Identity::new(["*".into()], None);
    let parts = components.iter().map(|component| {
        let id = bench.store.next_id();
        new(id, format!("{name}-{component}"), probe(component))
    });
    let parts: Vec<_> = parts.collect();
    let ids = parts.iter().map(|part| part.id).collect();
    let new = New { deadline: None, ..new(whole, name.into(), everybody) };
    let accepted = bench.store.accept_all(new, parts, ROOM, NOON).await.unwrap();
    assert_eq!(accepted, Acceptance::New);
    (whole, ids)
}

#[tokio::test]
async fn one_for_many_is_complete_when_its_last_part_has_ended() {
    let bench = Bench::new();
    let (whole, parts) = accept_all(&bench, "w", &["a", "b"]).await;
    let complete = async |one| {
        let complete = bench.store.complete(one).await.unwrap();
        complete.iter().map(|whole| whole.reported.id).collect::<Vec<_>>()
    };
    for (component, part) in ["a", "b"].into_iter().zip(&parts) {
        assert!(
            complete(None).await.is_empty() && complete(Some(whole)).await.is_empty()
        );
        assert_eq!(bench.fetch(component, NOON).await, [*part]);
        bench.deliver(*part, component, result(1)).await;
        assert_eq!(bench.store.parent(*part).await.unwrap(), Some(whole));
    }
    assert_eq!(complete(Some(whole)).await, [whole]);
    assert_eq!(complete(None).await, [whole], "also after a restart");
    assert!(complete(Some(parts[0])).await.is_empty(), "it is none itself");
    let told = bench.store.parts(whole).await.unwrap();
    assert!(told.iter().all(|(_, _, has_ended)| *has_ended), "{told:?}");
    let stories = bench.store.stories("w".into(), Some(client("me"))).await.unwrap();
    let states: Vec<_> = stories.stories[0].parts.iter().map(|it| &*it.state).collect();
    assert_eq!(states, ["result", "result"]);
}

#[tokio::test]
async fn results_so_far_are_kept_and_told_until_others_come() {
    let bench = Bench::new();
    let (id, _) = bench.accept("me", "t", "a").await;
    bench.fetch("a", NOON).await;
    assert!(bench.store.is_unanswered(&probe("a")).await.unwrap());
    let handed = token(&format!("handed-{}", id.0));
    bench.store.promised(&probe("a"), &handed, NOON).await.unwrap().unwrap();
    assert!(!bench.store.is_unanswered(&probe("a")).await.unwrap());
    assert_eq!(bench.store.ask_progress(vec![id], NOON).await.unwrap(), [id]);
    assert_eq!(
        bench.store.ask_progress(vec![id], NOON).await.unwrap(),
        [],
        "it is asked"
    );
    assert_eq!(bench.fetch("a", NOON).await, [id]);
    // What it was asked for may not have arrived.
    assert!(bench.store.is_unanswered(&probe("a")).await.unwrap());
    let restarted = bench.store.restarted(vec![probe("a")], "again", NOON).await.unwrap();
    assert_eq!(restarted, [probe("a")]);
    assert_eq!(bench.fetch("a", NOON).await, [id]);
    for count in 1..3 {
        let so_far = (0..count).map(result).collect();
        let so_far = mplane::message::Envelope::of(so_far).into();
        assert_eq!(bench.deliver(id, "a", so_far).await, Effect::Progress);
        let told = bench.store.told(&client("me"), &token("t")).await.unwrap();
        let Some(Told::Pending(known, Some(_))) = told else { panic!("{told:?}") };
        assert!(known.life.has_results);
    }
    assert!(!bench.store.has_ended(&client("me"), &token("t")).await.unwrap());
    bench.deliver(id, "a", result(9)).await;
    assert!(bench.store.has_ended(&client("me"), &token("t")).await.unwrap());
    let unredeemed = bench.store.unredeemed(&client("me")).await.unwrap();
    assert_eq!(unredeemed, [(id, token("t"))]);
    bench.store.redeemed(id, NOON);
    bench.store.redeemed(id, NOON);
    // The next write is behind them.
    bench.accept("me", "u", "a").await;
    let steps = bench.steps("t").await;
    assert_eq!(steps.iter().filter(|step| *step == "redeemed").count(), 1);
}

#[tokio::test]
async fn each_client_has_its_refusals_and_the_latest_of_them() {
    let bench = Bench::new();
    let refuse = async |who: &str, serial: i64| {
        let (client, name) = (client(who), token(&format!("t{serial}")));
        let label = Some("counted");
        bench.store.refuse(&client, &name, label, "no".into(), NOON).await.unwrap();
    };
    refuse("you", 0).await;
    for serial in 0..=REFUSALS + 1 {
        refuse("me", serial).await;
    }
    let refused = async |who: &str, serial: i64| {
        let stories = bench.store.stories(format!("t{serial}"), Some(client(who))).await;
        stories.unwrap().refused.len()
    };
    assert_eq!(refused("you", 0).await, 1, "others do not cost it");
    assert_eq!((refused("me", 0).await, refused("me", 1).await), (0, 0));
    assert_eq!(refused("me", REFUSALS + 1).await, 1);
}

#[tokio::test]
async fn why_something_is_lost_does_not_cover_what_came_after_all() {
    let bench = Bench::new();
    let (id, _) = bench.accept("me", "t", "a").await;
    bench.fetch("a", NOON).await;
    let handed = token(&format!("handed-{}", id.0));
    let reported = bench.store.reported(&probe("a"), &handed).await.unwrap().unwrap();
    // Its time runs out while the result is on its way into the store.
    bench.store.expire(after(101)).await.unwrap();
    let event = Event::Delivered(End::Result);
    let stepped = bench.store.delivered(&reported, event, &result(1), after(101)).await;
    assert_eq!(stepped.unwrap().effect, Effect::TooLate);
    bench.store.keep_reason(id, &result(2), after(101)).await.unwrap();
    let kept = bench.store.result(id).await.unwrap();
    assert_eq!(kept, Some(message_text(&result(1))));
    assert_eq!(bench.steps("t").await.last().unwrap(), "delivered too late");
}
