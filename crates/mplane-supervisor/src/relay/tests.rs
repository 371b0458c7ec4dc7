//! The relay with a clock of its own: components and clients are lines of the test.

use std::time::Duration;

use mplane::access::{Identity, IdentityRule, Policy};
use mplane::features::Features;
use mplane::message::{
    CALLBACK, Capability, Interrupt, Message, Receipt, Redemption, ResultStatement,
    Specification, Statement, Table,
};
use mplane::primitive::Value;
use mplane::registry::{CORE, Registries};
use mplane::token::Token;
use mplane::when::When;

use super::whole_tests::asked_all;
use super::*;
use crate::store::{Filter, Retention, Room, Swept};

const NOON: &str = "2026-06-01T12:00:00Z";

pub(super) fn noon() -> Timestamp {
    NOON.parse().unwrap()
}

pub(super) fn probe(name: &str) -> Identity {
    Identity::new(["Demo", "Components", name].map(Into::into), Some("Components"))
}

pub(super) fn client(name: &str) -> Identity {
    Identity::new(["Demo", "Clients", name].map(Into::into), Some("Clients"))
}

pub(super) fn ping(source: &str) -> Capability {
    let registries = Registries::embedded();
    let statement = Statement::measure("now ... future / 1s".parse().unwrap())
        .labelled("ping")
        .parameter(&registries, "source.ip4", source)
        .and_then(|s| s.parameter(&registries, "destination.ip4", "*"))
        .and_then(|s| s.column(&registries, "time"))
        .and_then(|s| s.column(&registries, "delay.twoway.icmp.us"))
        .unwrap();
    Capability::new(statement)
}

fn archive(label: &str) -> Capability {
    let statement = Statement::new("query", CORE, "past ... now".parse().unwrap())
        .labelled(label)
        .column(&Registries::embedded(), "time")
        .unwrap();
    Capability::new(statement)
}

/// Specifications that may wait here: few, so that a test is short.
const QUEUE: u64 = 20;

const ROOM: Room = Room { queue: QUEUE, client: 30 };

/// Opens a relay with its store in a folder.
async fn open(folder: &tempfile::TempDir) -> Relay {
    // The files are free once the thread that writes has ended.
    let store = loop {
        match Store::open(folder.path()) {
            Ok(store) => break store,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let (registries, policy) = (Registries::embedded(), Policy::default());
    let expiry = SignedDuration::from_mins(10);
    let limits = Limits { expiry, room: ROOM, hand_outs: Vec::new() };
    Relay::new(store, registries, policy, limits, noon()).await.unwrap()
}

/// A relay with its clock and the tokens it is given.
pub(super) struct Bench {
    pub(super) relay: Relay,
    pub(super) now: Timestamp,
    tokens: u128,
    pub(super) folder: tempfile::TempDir,
}

impl Bench {
    pub(super) async fn with(probes: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let relay = open(&folder).await;
        let mut bench = Self { relay, now: noon(), tokens: 0, folder };
        for (name, source) in probes {
            bench.register(&probe(name), ping(source)).await;
        }
        bench
    }

    /// Ends, and goes on with what is written.
    pub(super) async fn restart(self) -> Self {
        let Self { relay, now, tokens, folder } = self;
        relay.write_seen().await.unwrap();
        drop(relay);
        let relay = open(&folder).await;
        Self { relay, now, tokens, folder }
    }

    pub(super) async fn register(&mut self, from: &Identity, capability: Capability) {
        self.relay
            .register(
                from,
                capability.into(),
                Features::OURS,
                Dialect::Envelope,
                self.now,
            )
            .await
            .unwrap();
    }

    fn fresh(&mut self) -> Token {
        self.tokens += 1;
        Token::from_random(self.tokens.to_be_bytes())
    }

    pub(super) async fn ask(&mut self, from: &str, message: impl Into<Message>) -> Reply {
        let fresh = [self.fresh(), self.fresh()];
        let client = client(from);
        self.relay.handle(&client, message.into(), fresh, self.now).await.unwrap()
    }

    pub(super) async fn fetch(&mut self, name: &str) -> Vec<Message> {
        let fetched = self.relay.fetch(&probe(name), self.now).await.unwrap();
        fetched.expect("it is registered")
    }

    pub(super) async fn fetch_specification(&mut self, name: &str) -> Specification {
        match self.fetch(name).await.pop() {
            Some(Message::Specification(specification)) => specification,
            other => panic!("expected a specification, got {other:?}"),
        }
    }

    pub(super) async fn report(
        &mut self,
        name: &str,
        message: impl Into<Message>,
    ) -> Result<(), ReportError> {
        self.relay.report(&probe(name), message.into(), self.now).await
    }

    pub(super) async fn redeem(&mut self, from: &str, token: &Token) -> Message {
        self.ask(from, Redemption::token_only("measure", token.clone())).await.message
    }
}

/// What a client sends, with the label of the capability and a serial.
pub(super) fn asked(label: &str, when: &str) -> Specification {
    let mut specification = Specification::of(&ping("10.0.0.1"));
    specification.set_parameter("destination.ip4", "10.0.0.9").unwrap();
    specification.set_label(Some(label.into()));
    specification.set_when(when.parse().unwrap());
    specification
}

pub(super) fn result_of(specification: &Specification) -> ResultStatement {
    let mut table = Table::new(specification.columns());
    table.push([None, Some(Value::Natural(42))]);
    ResultStatement::of(specification, When::at(noon()), table)
}

#[tokio::test]
async fn a_result_comes_back_under_the_clients_token_and_label() {
    let mut bench = Bench::with(&[("a", "10.0.0.1")]).await;
    let reply = bench.ask("me", asked("ping-7", "now + 5s / 1s")).await;
    assert!(reply.pending.is_some() && matches!(reply.message, Message::Receipt(_)));
    let token = reply.message.token().unwrap();

    let handed = bench.fetch_specification("a").await;
    assert_ne!(handed.token(), token, "tokens are names between two peers");
    assert_eq!(handed.label(), Some("ping-1"));
    assert!(bench.fetch("a").await.is_empty(), "it is handed out once");

    bench.report("a", Receipt::of(&handed)).await.unwrap();
    assert!(matches!(bench.redeem("me", &token).await, Message::Receipt(_)));
    bench.report("a", result_of(&handed)).await.unwrap();
    for _ in 0..2 {
        let Message::Result(result) = bench.redeem("me", &token).await else {
            panic!("it is there, and stays");
        };
        assert_eq!(result.token(), token);
        assert_eq!(result.label(), Some("ping-7"));
        assert_eq!(result.table().rows(), 1);
        let who = result.find_metadata("component.identity").unwrap();
        assert_eq!(who.to_string(), "Demo.Components.a");
    }
    bench.report("a", result_of(&handed)).await.expect("a duplicate is no error");
}

#[tokio::test]
async fn others_can_neither_redeem_nor_report() {
    let mut bench = Bench::with(&[("a", "10.0.0.1"), ("b", "10.0.0.2")]).await;
    let reply = bench.ask("me", asked("ping@a-0", "now + 5s / 1s")).await;
    let token = reply.message.token().unwrap();
    assert!(matches!(bench.redeem("thief", &token).await, Message::Exception(_)));
    let handed = bench.fetch_specification("a").await;
    let error = bench.report("b", result_of(&handed)).await.unwrap_err();
    assert!(matches!(error, ReportError::Unexpected(_)), "{error}");
    assert!(matches!(bench.redeem("me", &token).await, Message::Receipt(_)));
}

#[tokio::test]
async fn equal_labels_are_told_apart_by_component() {
    let mut bench = Bench::with(&[("a", "10.0.0.1"), ("b", "10.0.0.1")]).await;
    let shown =
        bench.relay.capabilities(&client("c"), Features::OURS, 0, noon()).capabilities;
    let labels: Vec<_> = shown.iter().filter_map(|known| known.label()).collect();
    assert_eq!(labels, ["ping@a", "ping@b", "ping@*"]);
    assert_ne!(shown[0].token(), shown[1].token());
    bench.ask("me", asked("ping@b-0", "now + 5s / 1s")).await;
    assert!(bench.fetch("a").await.is_empty());
    assert_eq!(bench.fetch_specification("b").await.label(), Some("ping-1"));
}

#[tokio::test]
async fn equal_common_names_are_told_apart_by_the_whole_identity() {
    let mut bench = Bench::with(&[("a", "10.0.0.1")]).await;
    let other = Identity::new(
        ["Elsewhere", "Components", "a"].map(Into::into),
        Some("Components"),
    );
    bench.register(&other, ping("10.0.0.1")).await;
    let shown =
        bench.relay.capabilities(&client("c"), Features::OURS, 0, noon()).capabilities;
    let labels: Vec<_> = shown.iter().filter_map(|known| known.label()).collect();
    let whole = ["ping@Demo.Components.a", "ping@Elsewhere.Components.a", "ping@*"];
    assert_eq!(labels, whole);
}

#[tokio::test]
async fn a_named_component_that_cannot_is_not_replaced_by_another() {
    let mut bench = Bench::with(&[("a", "10.0.0.1"), ("b", "10.0.0.2")]).await;
    let reply = bench.ask("me", asked("ping@b-0", "now + 5s / 1s")).await;
    let Message::Exception(exception) = reply.message else { panic!("it is refused") };
    assert_eq!(
        exception.message(),
        "the specification does not fulfil capability ping@b: the value of parameter \
         source.ip4 is not allowed: allowed is 10.0.0.2"
    );
}

#[tokio::test]
async fn a_definite_specification_sent_twice_is_handed_out_once() {
    let mut bench = Bench::with(&[("a", "10.0.0.1")]).await;
    let scope = "2026-06-01 13:00:00 ... 2026-06-01 14:00:00 / 1s";
    let first = bench.ask("me", asked("ping-0", scope)).await.message.token();
    let second = bench.ask("me", asked("ping-0", scope)).await.message.token();
    assert_eq!(first, second);
    assert_eq!(bench.fetch("a").await.len(), 1);
}

#[tokio::test]
async fn an_interrupt_before_the_hand_out_ends_it_and_one_after_reaches_the_component() {
    let mut bench = Bench::with(&[("a", "10.0.0.1")]).await;
    let reply = bench.ask("me", asked("ping-0", "now + 5s / 1s")).await;
    let token = reply.message.token().unwrap();
    let interrupt = Interrupt::token_only("measure", token);
    let reply = bench.ask("me", interrupt).await;
    assert!(matches!(reply.message, Message::Exception(_)) && reply.pending.is_none());
    assert!(bench.fetch("a").await.is_empty());

    let reply = bench.ask("me", asked("ping-1", "now ... future / 1s")).await;
    let token = reply.message.token().unwrap();
    let handed = bench.fetch_specification("a").await;
    for _ in 0..2 {
        let interrupt = Interrupt::token_only("measure", token.clone());
        assert!(bench.ask("me", interrupt).await.pending.is_some());
    }
    let fetched = bench.fetch("a").await;
    let [Message::Interrupt(interrupt)] = fetched.as_slice() else {
        panic!("one interrupt says it all: {fetched:?}");
    };
    assert_eq!(*interrupt.token(), handed.token());
    bench.report("a", result_of(&handed)).await.unwrap();
    assert!(matches!(bench.redeem("me", &token).await, Message::Result(_)));
}

#[tokio::test]
async fn what_never_comes_is_lost_with_the_reason() {
    let mut bench = Bench::with(&[("a", "10.0.0.1")]).await;
    let mut tokens = Vec::new();
    for serial in 0..3 {
        let asked = asked(&format!("ping-{serial}"), "now + 5s / 1s");
        tokens.push(bench.ask("me", asked).await.message.token().unwrap());
    }
    // The component fetches two and promises one.
    let fetched = bench.fetch("a").await;
    let Message::Specification(handed) = &fetched[1] else { panic!("a specification") };
    bench.report("a", Receipt::of(handed)).await.unwrap();
    bench.ask("me", asked("ping-9", "now + 5s / 1s")).await;
    let last = bench.ask("me", asked("ping-10", "now + 5s / 1s")).await.message.token();
    let deadline = "2026-06-01T12:01:05Z".parse().unwrap();
    bench.now = deadline;
    bench.relay.handle_timeout(deadline).await.unwrap();
    assert_eq!(bench.relay.poll_timeout(), None);
    for (token, reason) in [
        (&tokens[0], "fetched the specification and did not answer"),
        (&tokens[1], "promised a result and did not deliver it"),
        (&last.unwrap(), "did not fetch the specification"),
    ] {
        let told = bench.redeem("me", token).await;
        let Message::Exception(exception) = told else { panic!("it is lost: {told:?}") };
        let expected = format!("lost: component Demo.Components.a {reason}");
        assert_eq!(exception.message(), expected);
    }
    assert!(bench.fetch("a").await.is_empty(), "what is lost is not handed out");
}

#[tokio::test]
async fn a_registration_replaces_what_had_its_label_and_a_withdrawal_removes_it() {
    let mut bench = Bench::with(&[("a", "10.0.0.1")]).await;
    bench.register(&probe("a"), ping("10.0.0.2")).await;
    let shown =
        bench.relay.capabilities(&client("c"), Features::OURS, 0, noon()).capabilities;
    assert_eq!(shown.len(), 1);
    let source = shown[0].find_parameter("source.ip4").unwrap();
    assert_eq!(source.constraint().to_string(), "10.0.0.2");
    let withdrawal = mplane::message::Withdrawal::of(&ping("10.0.0.2"));
    bench
        .relay
        .register(
            &probe("a"),
            withdrawal.into(),
            Features::OURS,
            Dialect::Envelope,
            noon(),
        )
        .await
        .unwrap();
    assert!(
        bench
            .relay
            .capabilities(&client("c"), Features::OURS, 0, noon())
            .capabilities
            .is_empty()
    );
}

#[tokio::test]
async fn the_callback_capability_is_hidden_from_clients() {
    let mut bench = Bench::with(&[]).await;
    let scope: When = "now ... future".parse().unwrap();
    let statement = Statement::measure(scope).labelled("callback");
    bench.register(&probe("a"), Capability::new(statement)).await;
    assert!(
        bench
            .relay
            .capabilities(&client("c"), Features::OURS, 0, noon())
            .capabilities
            .is_empty()
    );
    assert_eq!(bench.relay.look(Directory::len), 1);
}

#[tokio::test]
async fn a_queue_has_an_end() {
    let mut bench = Bench::with(&[("a", "10.0.0.1")]).await;
    for serial in 0..QUEUE {
        let mut specification = asked("ping-0", "now + 5s / 1s");
        specification.set_token(Some(serial.to_string().parse().unwrap()));
        assert!(bench.ask("me", specification).await.pending.is_some());
    }
    let reply = bench.ask("me", asked("ping-0", "now + 5s / 1s")).await;
    let Message::Exception(exception) = reply.message else { panic!("it is full") };
    assert_eq!(
        exception.message(),
        "20 specifications wait for component Demo.Components.a, as many as are kept; \
         try again later"
    );
}

#[tokio::test]
async fn a_client_has_a_share_of_the_room_until_its_specifications_have_ended() {
    let probes = ["a", "b", "c"].map(|name| (name, "10.0.0.1"));
    let mut bench = Bench::with(&probes).await;
    let mut first = None;
    for serial in 0..ROOM.client {
        let label = ["ping@a-0", "ping@b-0"][usize::from(serial % 2 == 1)];
        let mut specification = asked(label, "now + 5s / 1s");
        specification.set_token(Some(serial.to_string().parse().unwrap()));
        first.get_or_insert_with(|| specification.clone());
        assert!(bench.ask("me", specification).await.pending.is_some(), "{serial}");
    }
    let full = "30 specifications of one client may be open, and yours are as many; wait \
                until some have ended, or interrupt them";
    let scope = "now + 5s / 1s";
    for specification in [asked("ping@c-0", scope), asked_all(&bench, "all", scope)] {
        let label = specification.label().map(ToOwned::to_owned);
        let reply = bench.ask("me", specification).await;
        let Message::Exception(exception) = reply.message else { panic!("it is full") };
        assert_eq!(exception.message(), full, "{label:?}");
    }
    // It costs nobody else anything, and what has ended makes room.
    assert!(bench.ask("you", asked("ping@c-0", "now + 5s / 1s")).await.pending.is_some());
    let interrupt = Interrupt::of(&first.unwrap());
    bench.ask("me", interrupt).await;
    let mut again = asked("ping@c-0", "now + 5s / 1s");
    again.set_token(Some("again".parse().unwrap()));
    assert!(bench.ask("me", again).await.pending.is_some());
}

/// Lets the named probes offer and the named clients use `ping`, and nobody else anything.
fn only(probes: &[&str], clients: &[&str]) -> Policy {
    let rule = |who: Identity| IdentityRule::Text(who.to_string());
    let probes = probes.iter().map(|name| rule(probe(name)));
    let rules: Vec<_> =
        probes.chain(clients.iter().map(|name| rule(client(name)))).collect();
    let roles = ["admin".to_owned()];
    Policy::new([("admin", &rules[..])], [("ping", &roles[..])]).unwrap()
}

#[tokio::test]
async fn a_component_offers_only_what_the_policy_lists_for_it() {
    let mut bench = Bench::with(&[]).await;
    bench.relay.set_policy(only(&["a"], &["me"]));
    bench.register(&probe("a"), ping("10.0.0.1")).await;
    let capability = ping("10.0.0.1").into();
    let (features, dialect) = (Features::OURS, Dialect::Envelope);
    let refused =
        bench.relay.register(&probe("b"), capability, features, dialect, bench.now).await;
    assert_eq!(
        refused.unwrap_err().to_string(),
        "Demo.Components.b has no role that [access.authorizations] lists for ping"
    );
    bench.relay.set_policy(only(&["a"], &["me"]).with_open_offering());
    bench.register(&probe("b"), ping("10.0.0.1")).await;
}

#[tokio::test]
async fn what_is_withheld_leaves_no_trace() {
    let mut bench = Bench::with(&[("a", "10.0.0.1"), ("b", "10.0.0.1")]).await;
    bench.relay.set_policy(only(&["a"], &["me"]));
    let shown =
        bench.relay.capabilities(&client("me"), Features::OURS, 0, noon()).capabilities;
    let labels: Vec<_> = shown.iter().filter_map(|known| known.label()).collect();
    assert_eq!(labels, ["ping"], "the one of b is not there, not even as a suffix");
    assert!(
        bench
            .relay
            .capabilities(&client("other"), Features::OURS, 0, noon())
            .capabilities
            .is_empty()
    );

    let told = |reply: &Reply| match &reply.message {
        Message::Exception(exception) => exception.message().to_owned(),
        other => panic!("expected an exception, got {other}"),
    };
    let withheld = bench.ask("other", asked("ping-0", "now + 5s / 1s")).await;
    assert!(withheld.withheld.is_some());
    let mut empty = Bench::with(&[]).await;
    empty.relay.set_policy(only(&["a"], &["me"]));
    let absent = empty.ask("other", asked("ping-0", "now + 5s / 1s")).await;
    assert!(absent.withheld.is_none());
    assert_eq!(told(&withheld), told(&absent));
    assert!(bench.fetch("a").await.is_empty());

    bench.ask("me", asked("ping-0", "now + 5s / 1s")).await;
    assert_eq!(bench.fetch_specification("a").await.label(), Some("ping-1"));
}

#[tokio::test]
async fn a_new_policy_holds_for_what_was_accepted_before() {
    let mut bench = Bench::with(&[("a", "10.0.0.1")]).await;
    let token =
        bench.ask("me", asked("ping-0", "now + 1h / 1s")).await.message.token().unwrap();
    let handed = bench.fetch_specification("a").await;
    bench.relay.set_policy(only(&["a"], &["other"]));
    assert!(matches!(bench.redeem("me", &token).await, Message::Exception(_)));
    let mut mine = asked("ping-0", "now + 1h / 1s");
    mine.set_token(Some(token.clone()));
    assert!(bench.ask("me", Interrupt::of(&mine)).await.withheld.is_some());
    assert!(bench.fetch("a").await.is_empty(), "nothing is interrupted");
    bench.report("a", result_of(&handed)).await.unwrap();
    bench.relay.set_policy(only(&["a"], &["me"]));
    assert!(matches!(bench.redeem("me", &token).await, Message::Result(_)));
}

#[tokio::test]
async fn a_hand_out_without_answer_is_made_again_to_those_who_start_nothing_twice() {
    let mut bench = Bench::with(&[("a", "10.0.0.1")]).await;
    let token = bench.ask("me", asked("ping-0", "now + 5m / 1s")).await.message.token();
    let first = bench.fetch_specification("a").await;
    let lease = bench.relay.poll_timeout().unwrap();
    assert_eq!(lease, "2026-06-01T12:00:10Z".parse().unwrap());
    assert!(bench.fetch("a").await.is_empty());
    bench.relay.handle_timeout(lease).await.unwrap();
    bench.now = lease;
    let again = bench.fetch_specification("a").await;
    assert_eq!(again.token(), first.token());
    bench.report("a", Receipt::of(&again)).await.unwrap();
    bench.relay.handle_timeout("2026-06-01T12:02:00Z".parse().unwrap()).await.unwrap();
    assert!(bench.fetch("a").await.is_empty(), "it has answered");
    let stories = bench.relay.store().stories(token.unwrap().to_string(), None).await;
    let steps: Vec<_> =
        stories.unwrap().stories[0].steps.iter().map(|step| step.what.clone()).collect();
    assert_eq!(steps, ["accepted", "handed", "queued again", "handed", "promised"]);
}

#[tokio::test]
async fn what_may_not_have_arrived_is_handed_out_again_when_either_side_comes_back() {
    let mut bench = Bench::with(&[("a", "10.0.0.1")]).await;
    bench.ask("me", asked("ping-0", "now + 5m / 1s")).await;
    let first = bench.fetch_specification("a").await;
    bench.relay.registered_again(&probe("a"), bench.now).await.unwrap();
    let again = bench.fetch_specification("a").await;
    let mut bench = bench.restart().await;
    let once_more = bench.fetch_specification("a").await;
    assert_eq!([again.token(), once_more.token()], [first.token(), first.token()]);
    bench.report("a", Receipt::of(&once_more)).await.unwrap();
    bench.relay.registered_again(&probe("a"), bench.now).await.unwrap();
    assert!(bench.fetch("a").await.is_empty(), "it has answered");
}

#[tokio::test]
async fn references_are_handed_nothing_twice() {
    let mut bench = Bench::with(&[]).await;
    let (from, capability) = (probe("a"), ping("10.0.0.1").into());
    let (features, dialect) = (Features::NONE, Dialect::Envelope);
    let registered =
        bench.relay.register(&from, capability, features, dialect, bench.now).await;
    registered.unwrap();
    bench.ask("me", asked("ping-0", "now + 5m / 1s")).await;
    bench.fetch_specification("a").await;
    bench.now = "2026-06-01T12:02:00Z".parse().unwrap();
    bench.relay.handle_timeout(bench.now).await.unwrap();
    bench.relay.registered_again(&from, bench.now).await.unwrap();
    assert!(bench.fetch("a").await.is_empty());
    let mut bench = bench.restart().await;
    assert!(bench.fetch("a").await.is_empty());
}

#[tokio::test]
async fn a_restart_forgets_nothing() {
    let mut bench = Bench::with(&[("a", "10.0.0.1"), ("b", "10.0.0.2")]).await;
    let done = bench.ask("me", asked("ping@a-0", "now + 5s / 1s")).await.message.token();
    let handed = bench.fetch_specification("a").await;
    bench.report("a", result_of(&handed)).await.unwrap();
    let promised =
        bench.ask("me", asked("ping@a-1", "now + 5s / 1s")).await.message.token();
    let running = bench.fetch_specification("a").await;
    bench.report("a", Receipt::of(&running)).await.unwrap();
    bench.ask("me", asked("ping@a-2", "now + 5s / 1s")).await;

    let mut bench = bench.restart().await;
    let shown =
        bench.relay.capabilities(&client("c"), Features::OURS, 0, noon()).capabilities;
    assert_eq!(shown.len(), 3, "nobody has to register again");
    let (done, promised) = (done.unwrap(), promised.unwrap());
    assert!(matches!(bench.redeem("me", &done).await, Message::Result(_)));
    assert!(matches!(bench.redeem("me", &promised).await, Message::Receipt(_)));
    bench.report("a", result_of(&running)).await.unwrap();
    assert!(matches!(bench.redeem("me", &promised).await, Message::Result(_)));
    let waited = bench.fetch_specification("a").await;
    assert_eq!(waited.label(), Some("ping-3"));
    assert!(bench.fetch("b").await.is_empty());
    let deadline = bench.relay.poll_timeout().unwrap();
    assert!(deadline <= "2026-06-01T12:01:05Z".parse().unwrap());
}

#[tokio::test]
async fn a_component_that_is_gone_is_not_offered_until_it_comes_back() {
    let mut bench = Bench::with(&[("a", "10.0.0.1")]).await;
    bench.now = "2026-06-01T13:00:00Z".parse().unwrap();
    let shown = |bench: &Bench| {
        bench
            .relay
            .capabilities(&client("c"), Features::OURS, 0, bench.now)
            .capabilities
            .len()
    };
    assert_eq!(shown(&bench), 0);
    let reply = bench.ask("me", asked("ping-0", "now + 5s / 1s")).await;
    assert!(matches!(reply.message, Message::Exception(_)), "{reply:?}");
    bench.fetch("a").await;
    assert_eq!(shown(&bench), 1);
}

#[tokio::test]
async fn what_was_refused_has_a_story_too() {
    let mut bench = Bench::with(&[("a", "10.0.0.1")]).await;
    let mut specification = asked("ping@b-0", "2020-01-01 + 5s / 1s");
    specification.set_token(Some("mine".parse().unwrap()));
    bench.ask("me", specification).await;
    let stories = bench.relay.store().stories("mine".into(), None).await.unwrap();
    assert_eq!(stories.refused.len(), 1);
    assert_eq!(stories.refused[0].client, "Demo.Clients.me");
    let of_others =
        bench.relay.store().stories("mine".into(), Some(client("other"))).await;
    assert!(of_others.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_not_kept_any_more_says_so() {
    let mut bench = Bench::with(&[("a", "10.0.0.1")]).await;
    let token =
        bench.ask("me", asked("ping-0", "now + 5s / 1s")).await.message.token().unwrap();
    let handed = bench.fetch_specification("a").await;
    bench.report("a", result_of(&handed)).await.unwrap();
    let day = Duration::from_secs(86_400);
    let retention = Retention {
        results: day,
        stories: 2 * day,
        client_bytes: u64::MAX,
        component_bytes: u64::MAX,
    };
    let swept = async |bench: &Bench, hours: i64| {
        let now = noon() + SignedDuration::from_hours(hours);
        bench.relay.store().sweep(retention, now).await.unwrap()
    };
    assert_eq!(swept(&bench, 23).await, Swept::default());
    assert_eq!(swept(&bench, 25).await, Swept { results: 1, stories: 0 });
    let Message::Exception(exception) = bench.redeem("me", &token).await else {
        panic!("a tombstone")
    };
    assert!(exception.message().contains("is not kept any more"), "{exception}");
    bench.report("a", result_of(&handed)).await.expect("a late duplicate is no error");
    assert_eq!(swept(&bench, 49).await, Swept { results: 0, stories: 1 });
    let Message::Exception(exception) = bench.redeem("me", &token).await else {
        panic!("forgotten")
    };
    assert!(exception.message().starts_with("no specification of yours"), "{exception}");
}

#[tokio::test]
async fn who_keeps_more_than_is_set_keeps_the_latest() {
    let mut bench = Bench::with(&[("a", "10.0.0.1")]).await;
    let mut tokens = Vec::new();
    for serial in 0..5 {
        let asked = asked(&format!("ping-{serial}"), "now + 5s / 1s");
        tokens.push(bench.ask("me", asked).await.message.token().unwrap());
        let handed = bench.fetch_specification("a").await;
        bench.now = noon() + SignedDuration::from_secs(serial);
        bench.report("a", result_of(&handed)).await.unwrap();
    }
    let page =
        bench.relay.store().measurements(Filter::default(), None, 10).await.unwrap();
    let bytes = page.measurements[0].result_bytes.unsigned_abs();
    let long = Duration::from_secs(86_400);
    let retention = Retention {
        results: long,
        stories: long,
        client_bytes: 2 * bytes,
        component_bytes: u64::MAX,
    };
    let swept = bench.relay.store().sweep(retention, bench.now).await.unwrap();
    assert_eq!(swept, Swept { results: 3, stories: 0 });
    for (serial, token) in tokens.iter().enumerate() {
        let is_kept = matches!(bench.redeem("me", token).await, Message::Result(_));
        assert_eq!(is_kept, serial >= 3, "{serial}");
    }
    let stories = bench.relay.store().stories(tokens[0].to_string(), None).await.unwrap();
    let last = stories.stories[0].steps.last().unwrap();
    assert_eq!(last.detail.as_deref(), Some("its client has more than is kept"));
    // One after the other, and of a component likewise.
    let retention =
        Retention { client_bytes: u64::MAX, component_bytes: bytes, ..retention };
    let swept = bench.relay.store().sweep(retention, bench.now).await.unwrap();
    assert_eq!(swept, Swept { results: 1, stories: 0 });
    assert!(matches!(bench.redeem("me", &tokens[4]).await, Message::Result(_)));
}

#[tokio::test]
async fn hand_outs_are_made_again_as_is_set() {
    let mut bench = Bench::with(&[("a", "10.0.0.1"), ("b", "10.0.0.1")]).await;
    let set = |components: &str, lease: Option<u64>| HandOut {
        components: components.into(),
        lease: lease.map(Duration::from_secs),
    };
    let hand_outs = vec![set("*.a", None), set("Demo.*", Some(3)), set("*", None)];
    let expiry = SignedDuration::from_mins(10);
    bench.relay.set_limits(Limits { expiry, room: ROOM, hand_outs });
    for name in ["a", "b"] {
        let asked = asked(&format!("ping@{name}-0"), "now + 50s / 1s");
        assert!(bench.ask("me", asked).await.pending.is_some());
        bench.fetch_specification(name).await;
    }
    bench.now += SignedDuration::from_secs(4);
    bench.relay.handle_timeout(bench.now).await.unwrap();
    assert!(bench.fetch("a").await.is_empty(), "it is handed nothing twice");
    bench.fetch_specification("b").await;
}

#[tokio::test]
async fn what_is_not_registered_again_with_the_others_is_gone() {
    let mut bench = Bench::with(&[("a", "10.0.0.1")]).await;
    let labels = |bench: &Bench| {
        let shown = bench.relay.capabilities(&client("me"), Features::OURS, 0, bench.now);
        let labels = shown.capabilities.iter();
        labels.filter_map(|it| it.label().map(ToOwned::to_owned)).collect::<Vec<_>>()
    };
    bench.register(&probe("a"), archive("archive")).await;
    let mut bench = bench.restart().await;
    assert_eq!(labels(&bench).len(), 2);
    let round = bench.relay.registration(&probe("a"), true);
    bench.register(&probe("a"), ping("10.0.0.1")).await;
    // One that ends late knows nothing of what came since.
    bench.relay.registration(&probe("a"), true);
    bench.relay.registration_ends(&probe("a"), round, bench.now).await.unwrap();
    assert_eq!(labels(&bench), ["ping"]);
    let bench = bench.restart().await;
    assert_eq!(labels(&bench), ["ping"]);
    let history = bench.relay.store().history(&probe("a")).await.unwrap();
    let gone = history.iter().find(|it| it.label.as_deref() == Some("archive"));
    assert_eq!(gone.and_then(|it| it.gone.as_deref()), Some("not offered any more"));
}

#[tokio::test]
async fn who_was_not_heard_of_for_very_long_is_forgotten_and_leaves_its_history() {
    let mut bench = Bench::with(&[("a", "10.0.0.1"), ("b", "10.0.0.2")]).await;
    let day = Duration::from_secs(86_400);
    bench.now += SignedDuration::from_hours(20);
    bench.fetch("b").await;
    bench.now += SignedDuration::from_hours(10);
    bench.relay.forget_gone(day, bench.now).await.unwrap();
    let known = |bench: &Bench, name: &str| {
        bench.relay.look(|directory| directory.component(&probe(name)).is_some())
    };
    assert!(!known(&bench, "a") && known(&bench, "b"));
    assert_eq!(bench.relay.fetch(&probe("a"), bench.now).await.unwrap(), None);
    let history = bench.relay.store().history(&probe("a")).await.unwrap();
    assert_eq!(history[0].gone.as_deref(), Some("the component is gone"));
    bench.register(&probe("a"), ping("10.0.0.1")).await;
    assert!(known(&bench, "a"));
}

#[tokio::test]
async fn labels_that_mean_many_components_are_not_for_one() {
    let bench = Bench::with(&[]).await;
    let mut capability = ping("10.0.0.1");
    capability.set_label(Some("ping@*".into()));
    let (features, dialect) = (Features::OURS, Dialect::Envelope);
    let from = probe("a");
    let offered =
        bench.relay.register(&from, capability.into(), features, dialect, bench.now);
    let error = offered.await.unwrap_err().to_string();
    assert!(error.starts_with("labels that end in @* mean all components"), "{error}");
}

#[tokio::test]
async fn queries_about_the_past_are_handed_out_and_lost_in_time() {
    let mut bench = Bench::with(&[]).await;
    let capability = archive("archive");
    bench.register(&probe("a"), capability.clone()).await;
    let mut asked = Specification::of(&capability);
    asked.set_when("2015-03-01 ... 2015-03-02".parse().unwrap());
    let reply = bench.ask("me", asked.clone()).await;
    assert!(matches!(reply.message, Message::Receipt(_)), "{reply:?}");
    assert_eq!(bench.fetch_specification("a").await.when(), asked.when());
    bench.now += GRACE + SignedDuration::from_secs(1);
    bench.relay.handle_timeout(bench.now).await.unwrap();
    let lost = bench.redeem("me", &asked.token()).await;
    assert!(matches!(lost, Message::Exception(_)), "{lost}");
}

#[tokio::test]
async fn a_supervisor_is_not_handed_what_comes_from_itself() {
    let mut bench = Bench::with(&[("a", "10.0.0.1")]).await;
    let names = ["Demo", "Supervisors", "below"].map(Into::into);
    let below = Identity::new(names, Some("Supervisors"));
    bench.register(&below, ping("10.0.0.1")).await;
    for serial in 0..4 {
        let fresh = [format!("c{serial}"), format!("h{serial}")];
        let fresh = fresh.map(|token| token.parse().unwrap());
        let message = asked(&format!("ping-{serial}"), "now + 5s / 1s").into();
        let reply = bench.relay.handle(&below, message, fresh, bench.now).await.unwrap();
        assert!(reply.pending.is_some(), "{reply:?}");
    }
    assert_eq!(bench.fetch("a").await.len(), 4, "all for the other one");
    let offered = bench.relay.offered_upward(&below, bench.now);
    let labels: Vec<_> = offered.iter().filter_map(|it| it.label()).collect();
    assert_eq!(labels, ["ping"]);
}

#[tokio::test]
async fn components_that_let_the_supervisor_say_when_come_spread_over_time() {
    let mut bench = Bench::with(&[]).await;
    let scope: When = "now ... future".parse().unwrap();
    let mut seconds = BTreeMap::<_, u32>::new();
    for number in 0..50 {
        let from = probe(&format!("probe-{number}"));
        let callback =
            Capability::new(Statement::measure(scope.clone()).labelled(CALLBACK));
        bench.register(&from, callback).await;
        let Some(Message::Specification(told)) = bench.relay.callback(&from, noon())
        else {
            panic!("it is told")
        };
        assert_eq!(told.label(), Some(CALLBACK));
        let pause = told.when().duration(noon()).unwrap().as_secs();
        assert!((3..=7).contains(&pause), "{pause}");
        *seconds.entry(pause).or_default() += 1;
    }
    assert_eq!(seconds.len(), 5, "{seconds:?}");
    bench.register(&probe("other"), ping("10.0.0.1")).await;
    assert_eq!(bench.relay.callback(&probe("other"), noon()), None);
}

#[tokio::test]
async fn a_component_for_which_more_waits_comes_again_soon() {
    let mut bench = Bench::with(&[("a", "10.0.0.1")]).await;
    let callback = Statement::measure("now ... future".parse().unwrap());
    bench.register(&probe("a"), Capability::new(callback.labelled(CALLBACK))).await;
    let room = Room { queue: 200, client: 200 };
    let expiry = SignedDuration::from_mins(10);
    bench.relay.set_limits(Limits { expiry, room, hand_outs: Vec::new() });
    for serial in 0..101 {
        let asked = asked(&format!("ping-{serial}"), "now + 5s / 1s");
        assert!(bench.ask("me", asked).await.pending.is_some());
    }
    let pause = |bench: &Bench| match bench.relay.callback(&probe("a"), bench.now) {
        Some(Message::Specification(told)) => told.when().duration(bench.now),
        other => panic!("{other:?}"),
    };
    assert_eq!(bench.fetch("a").await.len(), 100, "as much as is handed out at once");
    assert_eq!(pause(&bench), Some(Duration::from_secs(1)));
    assert_eq!(bench.fetch("a").await.len(), 1);
    assert!(pause(&bench) >= Some(Duration::from_secs(3)));
}
