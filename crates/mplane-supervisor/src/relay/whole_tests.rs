//! Specifications for many components through the relay.

use std::time::Duration;

use mplane::features::Features;
use mplane::message::{
    Envelope, Exception, Interrupt, Message, Receipt, Redemption, Specification,
};
use mplane::when::When;

use super::tests::{Bench, client, noon, ping, probe, result_of};
use super::*;
use crate::fan_out;
use crate::store::{Retention, Swept};

/// What a client sends to all components that are called so.
pub(super) fn asked_all(bench: &Bench, called: &str, when: &str) -> Specification {
    let shown =
        bench.relay.capabilities(&client("me"), Features::OURS, 0, noon()).capabilities;
    let all = shown.iter().find(|known| known.label() == Some("ping@*"));
    let mut specification = Specification::of(all.expect("it is offered"));
    specification.set_parameter("component.identity", called).unwrap();
    specification.set_parameter("destination.ip4", "10.0.0.9").unwrap();
    specification.set_label(Some("ping@*-0".into()));
    specification.set_when(when.parse().unwrap());
    specification
}

#[tokio::test]
async fn all_components_are_asked_at_once_and_answer_as_one() {
    let probes = [("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.3")];
    let mut bench = Bench::with(&probes).await;
    let asked = asked_all(&bench, "all", "now + 5s / 1s");
    assert!(asked.find_parameter("source.ip4").is_none(), "each has its own");
    let reply = bench.ask("me", asked).await;
    assert!(reply.pending.is_some(), "{reply:?}");
    let token = reply.message.token().unwrap();
    for (name, source) in probes {
        let handed = bench.fetch_specification(name).await;
        assert_eq!(handed.value("source.ip4").unwrap().to_string(), source);
        assert!(matches!(bench.redeem("me", &token).await, Message::Receipt(_)));
        if name == "c" {
            let failed = Exception::new(Some(handed.token()), "no route");
            bench.report(name, failed).await.unwrap();
        } else {
            bench.report(name, result_of(&handed)).await.unwrap();
        }
    }
    let Message::Result(result) = bench.redeem("me", &token).await else {
        panic!("all have answered")
    };
    assert_eq!(result.label(), Some("ping@*-0"));
    let who: Vec<_> = result
        .table()
        .iter()
        .map(|row| row.value("component.identity").unwrap().to_string())
        .collect();
    assert_eq!(who, ["Demo.Components.a", "Demo.Components.b"]);
    assert_eq!(
        result.find_metadata("measurement.incomplete").unwrap().to_string(),
        "1 of 3 components: Demo.Components.c: no route"
    );
}

#[tokio::test]
async fn components_are_selected_by_pattern_and_end_with_their_deadline() {
    let mut bench = Bench::with(&[("a1", "10.0.0.1"), ("a2", "10.0.0.2")]).await;
    bench.register(&probe("b1"), ping("10.0.0.3")).await;
    let nobody = bench.ask("me", asked_all(&bench, "*.z*", "now + 5s / 1s")).await;
    assert!(nobody.pending.is_none(), "{nobody:?}");
    let asked = asked_all(&bench, "*.a*", "now + 5s / 1s");
    let token = bench.ask("me", asked).await.message.token().unwrap();
    assert!(bench.fetch("b1").await.is_empty());
    let handed = bench.fetch_specification("a1").await;
    bench.report("a1", result_of(&handed)).await.unwrap();
    let bench = bench.restart().await;
    let deadline = "2026-06-01T12:01:05Z".parse().unwrap();
    bench.relay.handle_timeout(deadline).await.unwrap();
    let mut bench = bench;
    let Message::Result(result) = bench.redeem("me", &token).await else {
        panic!("what is there is the result")
    };
    assert_eq!(result.table().rows(), 1);
    let incomplete = result.find_metadata("measurement.incomplete").unwrap().to_string();
    assert!(incomplete.contains("a2: lost: component"), "{incomplete}");
}

#[tokio::test]
async fn an_interrupt_reaches_all_components_that_were_asked() {
    let mut bench = Bench::with(&[("a", "10.0.0.1"), ("b", "10.0.0.2")]).await;
    let asked = asked_all(&bench, "all", "now ... future / 1s");
    let token = bench.ask("me", asked).await.message.token().unwrap();
    let handed = bench.fetch_specification("a").await;
    let interrupt = Interrupt::token_only("measure", token.clone());
    assert!(bench.ask("me", interrupt).await.pending.is_some());
    assert!(bench.fetch("b").await.is_empty(), "it had not fetched it");
    let fetched = bench.fetch("a").await;
    assert!(matches!(fetched.as_slice(), [Message::Interrupt(_)]), "{fetched:?}");
    bench.report("a", result_of(&handed)).await.unwrap();
    let Message::Result(result) = bench.redeem("me", &token).await else {
        panic!("it has ended")
    };
    assert_eq!(result.table().rows(), 1);
}

#[tokio::test]
async fn a_receipt_says_how_many_components_have_not_ended() {
    let mut bench = Bench::with(&[("a", "10.0.0.1"), ("b", "10.0.0.2")]).await;
    let asked = asked_all(&bench, "all", "now + 5s / 1s");
    let token = bench.ask("me", asked).await.message.token().unwrap();
    let handed = bench.fetch_specification("a").await;
    bench.report("a", result_of(&handed)).await.unwrap();
    let Message::Receipt(receipt) = bench.redeem("me", &token).await else {
        panic!("b has not answered")
    };
    let told = receipt.statement().unwrap().find_metadata("measurement.incomplete");
    assert_eq!(told.unwrap().to_string(), "1 of 2 components have not ended");
}

/// What a component has measured in some minutes of a repeat, some milliseconds late.
fn measured(
    handed: &Specification,
    minutes: &[i64],
    late_ms: i64,
    until: Timestamp,
) -> Envelope {
    let results = minutes.iter().map(|minute| {
        let start = noon() + SignedDuration::from_mins(*minute);
        let start = start + SignedDuration::from_millis(late_ms);
        let mut result = result_of(handed);
        result.set_when(When::between(start, start + SignedDuration::from_secs(5)));
        result.into()
    });
    let mut envelope = Envelope::of(results.collect()).with_content("result");
    envelope.set_token(Some(handed.token()));
    envelope.set_when(Some(When::between(noon(), until)));
    envelope
}

#[tokio::test]
async fn repeats_of_many_components_become_a_result_for_each_measurement() {
    let probes = [("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.3")];
    let mut bench = Bench::with(&probes).await;
    let asked = asked_all(&bench, "all", "repeat now + 2m / 1m { now + 5s / 1s }");
    let token = bench.ask("me", asked).await.message.token().unwrap();
    let a = bench.fetch_specification("a").await;
    let b = bench.fetch_specification("b").await;
    let c = bench.fetch_specification("c").await;
    for (name, handed) in [("a", &a), ("b", &b), ("c", &c)] {
        bench.report(name, Receipt::of(handed)).await.unwrap();
    }
    // Who redeems it has all asked for what they have.
    assert!(matches!(bench.redeem("me", &token).await, Message::Receipt(_)));
    let fetched = bench.fetch("a").await;
    assert!(matches!(fetched.as_slice(), [Message::Redemption(_)]), "{fetched:?}");
    bench.report("a", measured(&a, &[0], 50_000, noon())).await.unwrap();
    let reply = bench.ask("me", Redemption::token_only("measure", token.clone())).await;
    let Message::Envelope(so_far) = &reply.message else { panic!("{reply:?}") };
    assert!(so_far.len() == 1 && reply.pending.is_some(), "{reply:?}");
    let end = noon() + SignedDuration::from_mins(2);
    bench.report("a", measured(&a, &[0, 1, 2], 50_000, end)).await.unwrap();
    // One that has all does not make it all of them.
    let reply = bench.ask("me", Redemption::token_only("measure", token.clone())).await;
    let Message::Envelope(so_far) = &reply.message else { panic!("{reply:?}") };
    assert!(!so_far.are_all_of(a.when(), end), "{so_far}");
    bench.report("b", measured(&b, &[0, 2], 0, end)).await.unwrap();
    bench.report("c", Exception::new(Some(c.token()), "no route")).await.unwrap();
    bench.now = end;
    let reply = bench.ask("me", Redemption::token_only("measure", token.clone())).await;
    let Message::Envelope(all) = &reply.message else { panic!("{reply:?}") };
    assert_eq!((all.token(), reply.pending), (Some(&token), None));
    let who = |message: &Message| match message {
        Message::Result(result) => {
            let rows = result.table().iter();
            let names = rows.filter_map(|row| row.value("component.identity"));
            names.map(|name| name.to_string()).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    };
    let all: Vec<_> = all.messages().iter().map(who).collect();
    let both = "Demo.Components.a Demo.Components.b";
    assert_eq!(all[..3], [both, "Demo.Components.a", both]);
    assert!(all.len() == 4 && all[3].contains("no route"), "{all:?}");
}

#[tokio::test]
async fn more_components_than_may_be_asked_at_once_are_refused_with_the_remedy() {
    let mut bench = Bench::with(&[]).await;
    for number in 0..=fan_out::WIDTH {
        let source = format!("10.0.{}.{}", number / 256, number % 256);
        bench.register(&probe(&format!("p{number}")), ping(&source)).await;
    }
    let asked = asked_all(&bench, "all", "now + 5s / 1s");
    let Message::Exception(refused) = bench.ask("me", asked).await.message else {
        panic!("too many")
    };
    assert!(refused.message().contains("narrow component.identity"), "{refused}");
}

#[tokio::test]
async fn each_part_that_is_lost_says_why() {
    let mut bench = Bench::with(&[("a", "10.0.0.1"), ("b", "10.0.0.2")]).await;
    let asked = asked_all(&bench, "all", "now + 5s / 1s");
    let token = bench.ask("me", asked).await.message.token().unwrap();
    bench.fetch_specification("a").await;
    bench.now += SignedDuration::from_mins(2);
    bench.relay.handle_timeout(bench.now).await.unwrap();
    let Message::Exception(lost) = bench.redeem("me", &token).await else {
        panic!("nothing came")
    };
    for reason in ["a: lost: component", "and did not answer", "b: lost", "did not fetch"]
    {
        assert!(lost.message().contains(reason), "{reason}: {lost}");
    }
}

#[tokio::test]
async fn what_cannot_be_joined_while_the_store_fails_is_joined_later() {
    let mut bench = Bench::with(&[("a", "10.0.0.1"), ("b", "10.0.0.2")]).await;
    let asked = asked_all(&bench, "all", "now ... future / 1s");
    let token = bench.ask("me", asked).await.message.token().unwrap();
    let results = bench.folder.path().join("results.db");
    let rename = |from: &str, to: &str| {
        let connection = rusqlite::Connection::open(&results).unwrap();
        let rename = format!("ALTER TABLE {from} RENAME TO {to}");
        connection.execute(&rename, []).unwrap();
    };
    rename("result", "gone");
    let interrupt = Interrupt::token_only("measure", token.clone());
    let fresh = ["x", "y"].map(|token| token.parse().unwrap());
    let (from, now) = (client("me"), bench.now);
    bench.relay.handle(&from, interrupt.into(), fresh, now).await.unwrap_err();
    rename("gone", "result");
    let reply = bench.ask("me", Redemption::token_only("measure", token.clone())).await;
    assert!(reply.pending.is_some(), "{reply:?}");
    bench.relay.handle_timeout(bench.now).await.unwrap();
    let Message::Exception(ended) = bench.redeem("me", &token).await else {
        panic!("all parts have ended")
    };
    assert!(ended.message().contains("nothing came"), "{ended}");
}

#[tokio::test]
async fn what_parts_have_yielded_stays_until_all_is_joined() {
    let mut bench = Bench::with(&[("a", "10.0.0.1"), ("b", "10.0.0.2")]).await;
    let asked = asked_all(&bench, "all", "now + 5s / 1s");
    let token = bench.ask("me", asked).await.message.token().unwrap();
    let handed = bench.fetch_specification("a").await;
    bench.report("a", result_of(&handed)).await.unwrap();
    let nothing = Retention {
        results: Duration::ZERO,
        stories: Duration::from_secs(86_400),
        client_bytes: 0,
        component_bytes: 0,
    };
    let swept = bench.relay.store().sweep(nothing, bench.now).await.unwrap();
    assert_eq!(swept, Swept::default());
    let handed = bench.fetch_specification("b").await;
    bench.report("b", result_of(&handed)).await.unwrap();
    let Message::Result(result) = bench.redeem("me", &token).await else {
        panic!("both have answered")
    };
    assert_eq!(result.table().rows(), 2);
    // Of the components together there is as much as the client may keep.
    let kept = Retention { client_bytes: u64::MAX, results: nothing.stories, ..nothing };
    let swept = bench.relay.store().sweep(kept, bench.now).await.unwrap();
    assert_eq!(swept, Swept { results: 2, stories: 0 }, "those of the parts");
    assert!(matches!(bench.redeem("me", &token).await, Message::Result(_)));
}
