//! The relay with a clock of its own: components and clients are lines of the test.

use mplane::access::{Identity, IdentityRule, Policy};
use mplane::features::Features;
use mplane::message::{
    Capability, Interrupt, Message, Receipt, Redemption, ResultStatement, Specification,
    Statement, Table,
};
use mplane::primitive::Value;
use mplane::registry::Registries;
use mplane::token::Token;
use mplane::when::When;

use super::*;

const NOON: &str = "2026-06-01T12:00:00Z";

fn noon() -> Timestamp {
    NOON.parse().unwrap()
}

fn probe(name: &str) -> Identity {
    Identity::new(["Demo", "Components", name].map(Into::into), Some("Components"))
}

fn client(name: &str) -> Identity {
    Identity::new(["Demo", "Clients", name].map(Into::into), Some("Clients"))
}

fn ping(source: &str) -> Capability {
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

/// A relay with its clock and the tokens it is given.
struct Bench {
    relay: Relay,
    now: Timestamp,
    tokens: u128,
}

impl Bench {
    fn with(probes: &[(&str, &str)]) -> Self {
        let mut bench = Self { relay: Relay::default(), now: noon(), tokens: 0 };
        for (name, source) in probes {
            bench.register(&probe(name), ping(source));
        }
        bench
    }

    fn register(&mut self, from: &Identity, capability: Capability) {
        self.relay
            .register(
                from,
                capability.into(),
                Features::OURS,
                Dialect::Envelope,
                self.now,
            )
            .unwrap();
    }

    fn fresh(&mut self) -> Token {
        self.tokens += 1;
        Token::from_random(self.tokens.to_be_bytes())
    }

    fn ask(&mut self, from: &str, message: impl Into<Message>) -> Reply {
        let fresh = [self.fresh(), self.fresh()];
        self.relay.handle(&client(from), message.into(), fresh, self.now)
    }

    fn fetch(&mut self, name: &str) -> Vec<Message> {
        self.relay.fetch(&probe(name), self.now).expect("it is registered")
    }

    fn fetch_specification(&mut self, name: &str) -> Specification {
        match self.fetch(name).pop() {
            Some(Message::Specification(specification)) => specification,
            other => panic!("expected a specification, got {other:?}"),
        }
    }

    fn report(
        &mut self,
        name: &str,
        message: impl Into<Message>,
    ) -> Result<(), ReportError> {
        self.relay.report(&probe(name), message.into(), self.now)
    }

    fn redeem(&mut self, from: &str, token: &Token) -> Message {
        self.ask(from, Redemption::token_only("measure", token.clone())).message
    }
}

/// What a client sends, with the label of the capability and a serial.
fn asked(label: &str, when: &str) -> Specification {
    let mut specification = Specification::of(&ping("10.0.0.1"));
    specification.set_parameter("destination.ip4", "10.0.0.9").unwrap();
    specification.set_label(Some(label.into()));
    specification.set_when(when.parse().unwrap());
    specification
}

fn result_of(specification: &Specification) -> ResultStatement {
    let mut table = Table::new(specification.columns());
    table.push([None, Some(Value::Natural(42))]);
    ResultStatement::of(specification, When::at(noon()), table)
}

#[test]
fn a_result_comes_back_under_the_clients_token_and_label() {
    let mut bench = Bench::with(&[("a", "10.0.0.1")]);
    let reply = bench.ask("me", asked("ping-7", "now + 5s / 1s"));
    assert!(reply.pending && matches!(reply.message, Message::Receipt(_)));
    let token = reply.message.token().unwrap();

    let handed = bench.fetch_specification("a");
    assert_ne!(handed.token(), token, "tokens are names between two peers");
    assert_eq!(handed.label(), Some("ping-1"));
    assert!(bench.fetch("a").is_empty(), "it is handed out once");

    bench.report("a", Receipt::of(&handed)).unwrap();
    assert!(matches!(bench.redeem("me", &token), Message::Receipt(_)));
    bench.report("a", result_of(&handed)).unwrap();
    for _ in 0..2 {
        let Message::Result(result) = bench.redeem("me", &token) else {
            panic!("it is there, and stays");
        };
        assert_eq!(result.token(), token);
        assert_eq!(result.label(), Some("ping-7"));
        assert_eq!(result.table().rows(), 1);
        let who = result.find_metadata("component.identity").unwrap();
        assert_eq!(who.to_string(), "Demo.Components.a");
    }
    bench.report("a", result_of(&handed)).expect("a duplicate is no error");
}

#[test]
fn others_can_neither_redeem_nor_report() {
    let mut bench = Bench::with(&[("a", "10.0.0.1"), ("b", "10.0.0.2")]);
    let reply = bench.ask("me", asked("ping@a-0", "now + 5s / 1s"));
    let token = reply.message.token().unwrap();
    assert!(matches!(bench.redeem("thief", &token), Message::Exception(_)));
    let handed = bench.fetch_specification("a");
    let error = bench.report("b", result_of(&handed)).unwrap_err();
    assert!(matches!(error, ReportError::Unexpected(_)), "{error}");
    assert!(matches!(bench.redeem("me", &token), Message::Receipt(_)));
}

#[test]
fn equal_labels_are_told_apart_by_component() {
    let mut bench = Bench::with(&[("a", "10.0.0.1"), ("b", "10.0.0.1")]);
    let shown = bench.relay.capabilities(&client("c"), Features::OURS);
    let labels: Vec<_> = shown.iter().filter_map(|known| known.label()).collect();
    assert_eq!(labels, ["ping@a", "ping@b"]);
    assert_ne!(shown[0].token(), shown[1].token());
    bench.ask("me", asked("ping@b-0", "now + 5s / 1s"));
    assert!(bench.fetch("a").is_empty());
    assert_eq!(bench.fetch_specification("b").label(), Some("ping-1"));
}

#[test]
fn equal_common_names_are_told_apart_by_the_whole_identity() {
    let mut bench = Bench::with(&[("a", "10.0.0.1")]);
    let other = Identity::new(
        ["Elsewhere", "Components", "a"].map(Into::into),
        Some("Components"),
    );
    bench.register(&other, ping("10.0.0.1"));
    let shown = bench.relay.capabilities(&client("c"), Features::OURS);
    let labels: Vec<_> = shown.iter().filter_map(|known| known.label()).collect();
    assert_eq!(labels, ["ping@Demo.Components.a", "ping@Elsewhere.Components.a"]);
}

#[test]
fn a_named_component_that_cannot_is_not_replaced_by_another() {
    let mut bench = Bench::with(&[("a", "10.0.0.1"), ("b", "10.0.0.2")]);
    let reply = bench.ask("me", asked("ping@b-0", "now + 5s / 1s"));
    let Message::Exception(exception) = reply.message else { panic!("it is refused") };
    assert_eq!(
        exception.message(),
        "the specification does not fulfil capability ping@b: the value of parameter \
         source.ip4 is not allowed: allowed is 10.0.0.2"
    );
}

#[test]
fn a_definite_specification_sent_twice_is_handed_out_once() {
    let mut bench = Bench::with(&[("a", "10.0.0.1")]);
    let scope = "2026-06-01 13:00:00 ... 2026-06-01 14:00:00 / 1s";
    let first = bench.ask("me", asked("ping-0", scope)).message.token();
    let second = bench.ask("me", asked("ping-0", scope)).message.token();
    assert_eq!(first, second);
    assert_eq!(bench.fetch("a").len(), 1);
}

#[test]
fn an_interrupt_before_the_hand_out_ends_it_and_one_after_reaches_the_component() {
    let mut bench = Bench::with(&[("a", "10.0.0.1")]);
    let reply = bench.ask("me", asked("ping-0", "now + 5s / 1s"));
    let token = reply.message.token().unwrap();
    let interrupt = Interrupt::token_only("measure", token);
    let reply = bench.ask("me", interrupt);
    assert!(matches!(reply.message, Message::Exception(_)) && !reply.pending);
    assert!(bench.fetch("a").is_empty());

    let reply = bench.ask("me", asked("ping-1", "now ... future / 1s"));
    let token = reply.message.token().unwrap();
    let handed = bench.fetch_specification("a");
    for _ in 0..2 {
        let interrupt = Interrupt::token_only("measure", token.clone());
        assert!(bench.ask("me", interrupt).pending);
    }
    let fetched = bench.fetch("a");
    let [Message::Interrupt(interrupt)] = fetched.as_slice() else {
        panic!("one interrupt says it all: {fetched:?}");
    };
    assert_eq!(*interrupt.token(), handed.token());
    bench.report("a", result_of(&handed)).unwrap();
    assert!(matches!(bench.redeem("me", &token), Message::Result(_)));
}

#[test]
fn what_never_comes_is_lost_with_the_reason() {
    let mut bench = Bench::with(&[("a", "10.0.0.1")]);
    let tokens: Vec<_> = (0..3)
        .map(|serial| {
            let asked = asked(&format!("ping-{serial}"), "now + 5s / 1s");
            bench.ask("me", asked).message.token().unwrap()
        })
        .collect();
    // The component fetches two and promises one.
    let fetched = bench.fetch("a");
    let Message::Specification(handed) = &fetched[1] else { panic!("a specification") };
    bench.report("a", Receipt::of(handed)).unwrap();
    bench.ask("me", asked("ping-9", "now + 5s / 1s"));
    let last = bench.ask("me", asked("ping-10", "now + 5s / 1s")).message.token();
    let deadline = bench.relay.poll_timeout().unwrap();
    assert_eq!(deadline, "2026-06-01T12:01:05Z".parse().unwrap());
    bench.now = deadline;
    bench.relay.handle_timeout(deadline);
    assert_eq!(bench.relay.poll_timeout(), None);
    let mut reason = |token: &Token| match bench.redeem("me", token) {
        Message::Exception(exception) => exception.message().to_owned(),
        other => panic!("it is lost: {other:?}"),
    };
    let lost = "lost: component Demo.Components.a";
    assert_eq!(
        reason(&tokens[0]),
        format!("{lost} fetched the specification and did not answer")
    );
    assert_eq!(
        reason(&tokens[1]),
        format!("{lost} promised a result and did not deliver it")
    );
    assert_eq!(reason(&last.unwrap()), format!("{lost} did not fetch the specification"));
    assert!(bench.fetch("a").is_empty(), "what is lost is not handed out");
}

#[test]
fn a_registration_replaces_what_had_its_label_and_a_withdrawal_removes_it() {
    let mut bench = Bench::with(&[("a", "10.0.0.1")]);
    bench.register(&probe("a"), ping("10.0.0.2"));
    let shown = bench.relay.capabilities(&client("c"), Features::OURS);
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
        .unwrap();
    assert!(bench.relay.capabilities(&client("c"), Features::OURS).is_empty());
}

#[test]
fn the_callback_capability_is_hidden_from_clients() {
    let mut bench = Bench::with(&[]);
    let scope: When = "now ... future".parse().unwrap();
    let statement = Statement::measure(scope).labelled("callback");
    bench.register(&probe("a"), Capability::new(statement));
    assert!(bench.relay.capabilities(&client("c"), Features::OURS).is_empty());
    assert_eq!(bench.relay.directory().len(), 1);
}

#[test]
fn a_queue_has_an_end() {
    let mut bench = Bench::with(&[("a", "10.0.0.1")]);
    for serial in 0..QUEUE {
        let mut specification = asked("ping-0", "now + 5s / 1s");
        specification.set_token(Some(serial.to_string().parse().unwrap()));
        assert!(bench.ask("me", specification).pending);
    }
    let reply = bench.ask("me", asked("ping-0", "now + 5s / 1s"));
    let Message::Exception(exception) = reply.message else { panic!("it is full") };
    assert_eq!(
        exception.message(),
        "1000 specifications wait for component Demo.Components.a, as many as are kept; \
         try again later"
    );
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

#[test]
fn a_component_offers_only_what_the_policy_lists_for_it() {
    let mut bench = Bench::with(&[]);
    bench.relay.set_policy(only(&["a"], &["me"]));
    bench.register(&probe("a"), ping("10.0.0.1"));
    let capability = ping("10.0.0.1").into();
    let (features, dialect) = (Features::OURS, Dialect::Envelope);
    let refused =
        bench.relay.register(&probe("b"), capability, features, dialect, bench.now);
    assert_eq!(
        refused.unwrap_err().to_string(),
        "Demo.Components.b has no role that [access.authorizations] lists for ping"
    );
    bench.relay.set_policy(only(&["a"], &["me"]).with_open_offering());
    bench.register(&probe("b"), ping("10.0.0.1"));
}

#[test]
fn what_is_withheld_leaves_no_trace() {
    let mut bench = Bench::with(&[("a", "10.0.0.1"), ("b", "10.0.0.1")]);
    bench.relay.set_policy(only(&["a"], &["me"]));
    let shown = bench.relay.capabilities(&client("me"), Features::OURS);
    let labels: Vec<_> = shown.iter().filter_map(|known| known.label()).collect();
    assert_eq!(labels, ["ping"], "the one of b is not there, not even as a suffix");
    assert!(bench.relay.capabilities(&client("other"), Features::OURS).is_empty());

    let told = |reply: &Reply| match &reply.message {
        Message::Exception(exception) => exception.message().to_owned(),
        other => panic!("expected an exception, got {other}"),
    };
    let withheld = bench.ask("other", asked("ping-0", "now + 5s / 1s"));
    assert!(withheld.withheld.is_some());
    let mut empty = Bench::with(&[]);
    empty.relay.set_policy(only(&["a"], &["me"]));
    let absent = empty.ask("other", asked("ping-0", "now + 5s / 1s"));
    assert!(absent.withheld.is_none());
    assert_eq!(told(&withheld), told(&absent));
    assert!(bench.fetch("a").is_empty());

    bench.ask("me", asked("ping-0", "now + 5s / 1s"));
    assert_eq!(bench.fetch_specification("a").label(), Some("ping-1"));
}

#[test]
fn a_new_policy_holds_for_what_was_accepted_before() {
    let mut bench = Bench::with(&[("a", "10.0.0.1")]);
    let token =
        bench.ask("me", asked("ping-0", "now + 1h / 1s")).message.token().unwrap();
    let handed = bench.fetch_specification("a");
    bench.relay.set_policy(only(&["a"], &["other"]));
    assert!(matches!(bench.redeem("me", &token), Message::Exception(_)));
    let mut mine = asked("ping-0", "now + 1h / 1s");
    mine.set_token(Some(token.clone()));
    assert!(bench.ask("me", Interrupt::of(&mine)).withheld.is_some());
    assert!(bench.fetch("a").is_empty(), "nothing is interrupted");
    bench.report("a", result_of(&handed)).unwrap();
    bench.relay.set_policy(only(&["a"], &["me"]));
    assert!(matches!(bench.redeem("me", &token), Message::Result(_)));
}
