//! The component with rules: who sees, specifies, redeems and interrupts what.

use super::tests::{NOON, client, component, fresh, poll, time};
use super::*;
use crate::access::{IdentityRule, Policy};
use crate::message::{Interrupt, Redemption};

/// Lets the clients of this name use this label, and nobody else anything.
fn only(name: &str, label: &str) -> Policy {
    let rules = [IdentityRule::Text(format!("Demo.Clients.{name}"))];
    let roles = ["admin".to_owned()];
    Policy::new([("admin", &rules[..])], [(label, &roles[..])]).unwrap()
}

fn text(reply: &Reply) -> &str {
    match &reply.message {
        Message::Exception(exception) => exception.message(),
        other => panic!("expected an exception, got {other}"),
    }
}

#[test]
fn what_is_withheld_is_neither_shown_nor_told_from_what_is_not_there() {
    let (mut component, mut specification) = component();
    specification.set_when("now + 5s / 1s".parse().unwrap());
    component.set_policy(only("a", "ping-detail-ip4"));
    assert_eq!(component.capabilities_for(&client("a")).count(), 1);
    assert_eq!(component.capabilities_for(&client("b")).count(), 0);
    let now = time(NOON);
    let there =
        component.handle(&client("b"), specification.clone().into(), fresh(1), now);
    let who = there.withheld.as_ref().unwrap().to_string();
    assert!(who.starts_with("Demo.Clients.b has no role"), "{who}");
    assert!(poll(&mut component).is_none());

    let mut empty = ComponentExchange::default();
    empty.set_policy(only("a", "ping-detail-ip4"));
    let nowhere = empty.handle(&client("b"), specification.clone().into(), fresh(1), now);
    assert!(nowhere.withheld.is_none());
    assert_eq!(text(&there), text(&nowhere));
    assert!(text(&there).contains("no capability that you may use"), "{there:?}");

    let reply = component.handle(&client("a"), specification.into(), fresh(1), now);
    assert!(matches!(reply.message, Message::Receipt(_)), "{reply:?}");
}

#[test]
fn the_capability_is_looked_at_and_not_the_label_that_a_peer_writes() {
    let (mut component, mut specification) = component();
    specification.set_when("now + 5s / 1s".parse().unwrap());
    component.set_policy(only("a", "allowed"));
    for label in [Some("allowed"), Some("allowed-0"), Some("ping-detail-ip4"), None] {
        specification.set_label(label.map(Into::into));
        let message = specification.clone().into();
        let reply = component.handle(&client("a"), message, fresh(1), time(NOON));
        assert!(text(&reply).contains("no capability that you may use"), "{label:?}");
    }
}

#[test]
fn a_new_policy_holds_for_what_was_accepted_before() {
    let (mut component, mut specification) = component();
    specification.set_when("now + 5s / 1s".parse().unwrap());
    let (me, now) = (client("a"), time(NOON));
    component.handle(&me, specification.clone().into(), fresh(1), now);
    assert!(matches!(poll(&mut component), Some(Action::Start { .. })));
    component.set_policy(only("b", "ping-detail-ip4"));
    specification.set_token(Some(fresh(1)));
    let redemption = Redemption::token_only("measure", fresh(1)).into();
    let interrupt = Interrupt::of(&specification).into();
    for message in [redemption, interrupt, specification.into()] {
        let reply = component.handle(&me, message, fresh(9), now);
        assert!(text(&reply).contains("you may not use the capability"), "{reply:?}");
        assert!(reply.withheld.is_some() && reply.pending.is_none());
    }
    assert!(poll(&mut component).is_none(), "nothing is stopped");
    component.set_policy(Policy::default());
    let redemption = Redemption::token_only("measure", fresh(1)).into();
    let reply = component.handle(&me, redemption, fresh(9), now);
    assert!(matches!(reply.message, Message::Receipt(_)), "{reply:?}");
}
