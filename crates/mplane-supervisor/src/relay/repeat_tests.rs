//! Repeats through the relay.

use std::time::Duration;

use mplane::message::{
    Envelope, Exception, Interrupt, Message, Receipt, Redemption, ResultStatement,
    Specification, Table,
};
use mplane::primitive::Value;
use mplane::when::When;

use super::tests::{Bench, asked, noon, result_of};
use super::*;
use crate::store::{Retention, Swept};

#[tokio::test]
async fn the_results_so_far_of_a_repeat_come_while_it_goes_on() {
    let mut bench = Bench::with(&[("a", "10.0.0.1")]).await;
    let scope = "repeat now + 1h / 1m { now + 5s / 1s }";
    let token = bench.ask("me", asked("ping-0", scope)).await.message.token().unwrap();
    let handed = bench.fetch_specification("a").await;
    bench.report("a", Receipt::of(&handed)).await.unwrap();
    assert!(matches!(bench.redeem("me", &token).await, Message::Receipt(_)));
    let fetched = bench.fetch("a").await;
    let [Message::Redemption(redemption)] = fetched.as_slice() else {
        panic!("the component is asked once: {fetched:?}")
    };
    assert_eq!(*redemption.token(), handed.token());
    let results = |count: usize, until: Timestamp| {
        let results = (0..count).map(|_| result_of(&handed).into()).collect();
        let mut envelope = Envelope::of(results).with_content("result");
        envelope.set_token(Some(handed.token()));
        envelope.set_when(Some(When::between(noon(), until)));
        envelope
    };
    // What is posted may arrive twice, and nobody need have asked.
    for _ in 0..2 {
        bench.report("a", results(1, noon())).await.unwrap();
    }
    let redemption = Redemption::token_only("measure", token.clone());
    let reply = bench.ask("me", redemption).await;
    let Message::Envelope(so_far) = &reply.message else { panic!("{reply:?}") };
    assert_eq!((so_far.len(), so_far.token()), (1, Some(&token)));
    assert!(reply.pending.is_some(), "more is to come");
    // It is asked again, and then ends before it has answered.
    assert_eq!(bench.fetch("a").await.len(), 1);
    let end = noon() + SignedDuration::from_hours(1);
    bench.report("a", results(3, end)).await.unwrap();
    bench.report("a", results(2, noon())).await.unwrap();
    let reply = bench.ask("me", Redemption::token_only("measure", token.clone())).await;
    let Message::Envelope(all) = &reply.message else { panic!("{reply:?}") };
    assert_eq!((all.len(), reply.pending), (3, None));
    for result in all.messages() {
        let names = (result.token(), result.label());
        assert_eq!(names, (Some(token.clone()), Some("ping-0")), "they are the client's");
    }
}

#[tokio::test]
async fn the_results_so_far_of_a_repeat_are_its_result_if_nothing_else_comes() {
    let mut bench = Bench::with(&[("a", "10.0.0.1")]).await;
    let scope = "repeat now + 1h / 1m { now + 5s / 1s }";
    let repeat = asked("ping-0", scope);
    let token = bench.ask("me", repeat.clone()).await.message.token().unwrap();
    let handed = bench.fetch_specification("a").await;
    bench.report("a", Receipt::of(&handed)).await.unwrap();
    bench.redeem("me", &token).await;
    assert_eq!(bench.fetch("a").await.len(), 1);
    let mut so_far = Envelope::of(vec![result_of(&handed).into()]).with_content("result");
    so_far.set_token(Some(handed.token()));
    so_far.set_when(Some(When::at(noon())));
    bench.report("a", so_far).await.unwrap();
    // Who sends it once more is told that it is here, and not what would look like all.
    let mut again = repeat;
    again.set_token(Some(token.clone()));
    let reply = bench.ask("me", again).await;
    assert!(matches!(reply.message, Message::Receipt(_)), "{reply:?}");
    while let Some(over) = bench.relay.poll_timeout() {
        bench.relay.handle_timeout(over).await.unwrap();
    }
    let reply = bench.ask("me", Redemption::token_only("measure", token)).await;
    let Message::Envelope(all) = &reply.message else { panic!("{reply:?}") };
    assert_eq!((all.len(), reply.pending), (1, None));
}

/// The result of one measurement of a repeat.
fn measured(handed: &Specification, minute: i64) -> ResultStatement {
    let start = noon() + SignedDuration::from_mins(minute);
    let when = When::between(start, start + SignedDuration::from_secs(5));
    let mut table = Table::new(handed.columns());
    let value = Value::Natural(minute.unsigned_abs());
    table.push([None, Some(value)]);
    ResultStatement::of(handed, when, table)
}

#[tokio::test]
async fn an_interrupted_repeat_has_the_results_until_its_end() {
    let mut bench = Bench::with(&[("a", "10.0.0.1")]).await;
    let scope = "repeat now ... future / 1m { now + 5s / 1s }";
    let token = bench.ask("me", asked("ping-0", scope)).await.message.token().unwrap();
    let handed = bench.fetch_specification("a").await;
    bench.report("a", Receipt::of(&handed)).await.unwrap();
    let results = |minutes: &[i64], until: Timestamp| {
        let results = minutes.iter().map(|minute| measured(&handed, *minute).into());
        let mut envelope = Envelope::of(results.collect()).with_content("result");
        envelope.set_token(Some(handed.token()));
        envelope.set_when(Some(When::between(noon(), until)));
        envelope
    };
    bench.ask("me", Interrupt::token_only("measure", token.clone())).await;
    let fetched = bench.fetch("a").await;
    assert!(matches!(fetched.as_slice(), [Message::Interrupt(_)]), "{fetched:?}");
    // What it answers at once is what it has, one more is on its way.
    let minute = |minute| noon() + SignedDuration::from_mins(minute);
    bench.report("a", results(&[0, 1], minute(1))).await.unwrap();
    assert!(
        bench
            .ask("me", Redemption::token_only("measure", token.clone()))
            .await
            .pending
            .is_some()
    );
    bench.report("a", results(&[0, 1, 2], minute(3))).await.unwrap();
    let reply = bench.ask("me", Redemption::token_only("measure", token)).await;
    let Message::Envelope(all) = &reply.message else { panic!("{reply:?}") };
    assert_eq!((all.len(), reply.pending), (3, None));
}

#[tokio::test]
async fn results_that_come_one_by_one_are_put_together_and_the_first_of_each_wins() {
    let mut bench = Bench::with(&[("a", "10.0.0.1")]).await;
    let scope = "repeat now + 5m / 1m { now + 5s / 1s }";
    let token = bench.ask("me", asked("ping-0", scope)).await.message.token().unwrap();
    let handed = bench.fetch_specification("a").await;
    for minute in [0, 2, 1, 2] {
        bench.report("a", measured(&handed, minute)).await.unwrap();
    }
    let mut differs = measured(&handed, 1);
    differs.table_mut().set("delay.twoway.icmp.us", 0, Some(Value::Natural(9))).unwrap();
    bench.report("a", differs).await.unwrap();
    let reply = bench.ask("me", Redemption::token_only("measure", token.clone())).await;
    assert!(reply.pending.is_some(), "{reply:?}");
    let mut bench = bench.restart().await;
    bench.report("a", measured(&handed, 3)).await.unwrap();
    bench.relay.handle_timeout(noon() + SignedDuration::from_mins(7)).await.unwrap();
    let reply = bench.ask("me", Redemption::token_only("measure", token.clone())).await;
    let Message::Envelope(all) = &reply.message else { panic!("{reply:?}") };
    assert_eq!((all.label(), reply.pending), (Some("ping-0"), None));
    let values: Vec<_> = all
        .messages()
        .iter()
        .map(|message| match message {
            Message::Result(result) => {
                let column = result.table().column("delay.twoway.icmp.us").unwrap();
                column.value(0).unwrap().to_string()
            }
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(values, ["0", "1", "2", "3"]);
    let told = bench.relay.store().stories(token.to_string(), None).await.unwrap();
    let steps: Vec<_> = told.stories[0].steps.iter().map(|step| &*step.what).collect();
    let expected = ["accepted", "handed", "something else delivered, not kept", "ended"];
    assert_eq!(steps[..4], expected);
}

#[tokio::test]
async fn a_repeat_that_goes_on_keeps_its_results_however_much_there_is() {
    let mut bench = Bench::with(&[("a", "10.0.0.1")]).await;
    let scope = "repeat now + 1h / 1m { now + 5s / 1s }";
    let token = bench.ask("me", asked("ping-0", scope)).await.message.token().unwrap();
    let handed = bench.fetch_specification("a").await;
    bench.report("a", measured(&handed, 0)).await.unwrap();
    let nothing = Retention {
        results: Duration::ZERO,
        stories: Duration::ZERO,
        client_bytes: 0,
        component_bytes: 0,
    };
    let swept = bench.relay.store().sweep(nothing, bench.now).await.unwrap();
    assert_eq!(swept, Swept::default());
    let told = bench.redeem("me", &token).await;
    assert!(matches!(told, Message::Envelope(_)), "{told}");
    assert!(
        !bench
            .ask("me", Interrupt::token_only("measure", token))
            .await
            .message
            .to_string()
            .is_empty()
    );
    let fetched = bench.fetch("a").await;
    assert!(fetched.iter().any(|it| matches!(it, Message::Interrupt(_))), "{fetched:?}");
}

#[tokio::test]
async fn an_exception_ends_a_repeat_and_costs_none_of_its_results() {
    let mut bench = Bench::with(&[("a", "10.0.0.1")]).await;
    let scope = "repeat now + 1h / 1m { now + 5s / 1s }";
    let token = bench.ask("me", asked("ping-0", scope)).await.message.token().unwrap();
    let handed = bench.fetch_specification("a").await;
    bench.report("a", measured(&handed, 0)).await.unwrap();
    let gone = Exception::new(Some(handed.token()), "no specification of yours");
    bench.report("a", gone).await.unwrap();
    let reply = bench.ask("me", Redemption::token_only("measure", token)).await;
    let Message::Envelope(all) = &reply.message else { panic!("{reply:?}") };
    assert!(reply.pending.is_none(), "{reply:?}");
    let kinds: Vec<_> = all.messages().iter().map(|it| it.kind().key()).collect();
    assert_eq!(kinds, ["result", "exception"]);
    assert_eq!(all.say_all_of(handed.when(), noon()), Some(true), "its scope says so");
}

#[tokio::test]
async fn a_repeat_without_end_that_was_interrupted_ends_some_time() {
    let mut bench = Bench::with(&[("a", "10.0.0.1")]).await;
    let scope = "repeat now ... future / 1m { now + 5s / 1s }";
    let token = bench.ask("me", asked("ping-0", scope)).await.message.token().unwrap();
    let handed = bench.fetch_specification("a").await;
    bench.report("a", measured(&handed, 0)).await.unwrap();
    assert_eq!(bench.relay.poll_timeout(), Some(noon() + SignedDuration::from_secs(10)));
    let reply = bench.ask("me", Interrupt::token_only("measure", token.clone())).await;
    assert!(matches!(reply.message, Message::Receipt(_)), "more may come: {reply:?}");
    assert_eq!(bench.fetch("a").await.len(), 1);
    bench.report("a", measured(&handed, 1)).await.unwrap();
    bench.now += crate::store::AFTER_INTERRUPT;
    bench.relay.handle_timeout(bench.now).await.unwrap();
    let reply = bench.ask("me", Redemption::token_only("measure", token)).await;
    let Message::Envelope(all) = &reply.message else { panic!("{reply:?}") };
    assert_eq!((all.len(), reply.pending), (2, None));
}
