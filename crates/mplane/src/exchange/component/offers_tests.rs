//! The component that is busy, full, or offers something else than before.

use super::tests::{NOON, client, component, fresh, poll, time};
use super::*;
use crate::message::{Redemption, Statement};
use crate::registry::Registries;

/// A component with one capability of this budget, and a specification of it.
fn with(budget: Budget) -> (ComponentExchange, Specification) {
    let (mut component, mut specification) = component();
    component.set_budget(0, budget);
    specification.set_when("now + 5s / 1s".parse().unwrap());
    (component, specification)
}

fn shared(most: usize) -> Budget {
    let most = NonZeroUsize::new(most).unwrap();
    Budget { concurrency: Concurrency::Shared(most), ..Budget::default() }
}

fn exclusive() -> Budget {
    Budget { concurrency: Concurrency::Exclusive, ..Budget::default() }
}

fn send(
    component: &mut ComponentExchange,
    specification: &Specification,
    number: u8,
    now: &str,
) -> Reply {
    let message = specification.clone().into();
    component.handle(&client("a"), message, fresh(number), time(now))
}

/// Returns the jobs that start now and how long each lasts.
fn starts(component: &mut ComponentExchange) -> Vec<(JobId, Option<Duration>)> {
    std::iter::from_fn(|| component.poll_action())
        .filter_map(|action| match action {
            Action::Start { job, duration, .. } => Some((job, duration)),
            _ => None,
        })
        .collect()
}

fn end(component: &mut ComponentExchange, job: JobId, now: &str) {
    component.job_ended(job, Outcome::Failed("ended".into()), time(now));
}

fn text(reply: &Reply) -> &str {
    match &reply.message {
        Message::Exception(exception) => exception.message(),
        other => panic!("expected an exception, got {other}"),
    }
}

#[test]
fn what_has_no_place_waits_with_a_receipt_and_lasts_as_long_as_asked() {
    let (mut component, specification) = with(shared(2));
    for number in 1..=4 {
        let reply = send(&mut component, &specification, number, NOON);
        assert!(matches!(reply.message, Message::Receipt(_)), "{reply:?}");
    }
    let running = starts(&mut component);
    assert_eq!(running.len(), 2);
    end(&mut component, running[0].0, "2026-06-01T12:01:00Z");
    let next = starts(&mut component);
    assert_eq!(next.len(), 1, "one place became free");
    assert_eq!(
        next[0].1,
        Some(Duration::from_secs(5)),
        "it asked for 5 s from its start"
    );
    end(&mut component, running[1].0, "2026-06-01T12:01:00Z");
    end(&mut component, next[0].0, "2026-06-01T12:01:00Z");
    assert_eq!(starts(&mut component).len(), 1);
}

#[test]
fn an_exclusive_service_runs_alone_and_in_its_turn() {
    let (mut component, specification) = with(exclusive());
    let other = component.offer(other_capability(), shared(9));
    let mut others = specification_of(&component, other);
    others.set_when("now + 5s / 1s".parse().unwrap());
    send(&mut component, &others, 1, NOON);
    let first = starts(&mut component);
    assert_eq!(first.len(), 1);
    send(&mut component, &specification, 2, NOON);
    send(&mut component, &others, 3, NOON);
    assert_eq!(starts(&mut component), [], "the exclusive one came before the third");
    end(&mut component, first[0].0, NOON);
    let second = starts(&mut component);
    assert_eq!(second.len(), 1, "alone");
    end(&mut component, second[0].0, NOON);
    assert_eq!(starts(&mut component).len(), 1);
}

#[test]
fn what_has_no_place_is_refused_where_that_is_set() {
    let (mut component, specification) =
        with(Budget { when_busy: WhenBusy::Refuse, ..exclusive() });
    send(&mut component, &specification, 1, NOON);
    let running = starts(&mut component);
    let reply = send(&mut component, &specification, 2, NOON);
    assert_eq!(
        text(&reply),
        "this component is busy: it runs alone, and another measurement runs; try again \
         later"
    );
    end(&mut component, running[0].0, NOON);
    let reply = send(&mut component, &specification, 2, NOON);
    assert!(matches!(reply.message, Message::Receipt(_)), "it was not kept: {reply:?}");
}

#[test]
fn what_waits_beyond_its_scope_fails_and_what_is_stopped_waits_no_more() {
    let (mut component, mut specification) = with(exclusive());
    send(&mut component, &specification, 1, NOON);
    let running = starts(&mut component);
    let scope = "2026-06-01 12:00:00 ... 2026-06-01 12:00:10 / 1s";
    specification.set_when(scope.parse().unwrap());
    send(&mut component, &specification, 2, NOON);
    specification.set_when("now + 5s / 1s".parse().unwrap());
    let third = send(&mut component, &specification, 3, NOON).pending.unwrap();
    component.handle_timeout(time("2026-06-01T12:00:12Z"));
    let Some(Action::Stop { .. }) = poll(&mut component) else { panic!("the first") };
    let Some(Action::Deliver { message, .. }) = poll(&mut component) else {
        panic!("the second is over")
    };
    assert!(message.to_string().contains("missed: other measurements"), "{message}");
    component.stop(third, time(NOON));
    assert!(matches!(poll(&mut component), Some(Action::Deliver { .. })));
    end(&mut component, running[0].0, NOON);
    assert_eq!(starts(&mut component), []);
    assert_eq!(component.active_jobs(), 0);
}

#[test]
fn periods_and_durations_beyond_the_budget_are_refused() {
    let budget = Budget {
        min_period: Some(Duration::from_secs(10)),
        max_duration: Some(Duration::from_secs(60)),
        ..Budget::default()
    };
    let (mut component, mut specification) = with(budget);
    for (scope, expected) in [
        ("now + 30s / 1s", Some("has a period of 1s, the shortest here is 10s")),
        ("now + 61s / 10s", Some("lasts 1m1s, a measurement lasts at most 1m here")),
        ("now ... future / 10s", Some("has no end, a measurement lasts at most 1m here")),
        ("repeat now ... future / 5s { now + 20s / 10s }", Some("has a period of 5s")),
        ("repeat now ... future / 1h { now + 2m / 10s }", Some("lasts 2m,")),
        (
            "repeat now ... future cron 0,55 * * * * * { now + 1s / 10s }",
            Some("has a period of 5s"),
        ),
        ("repeat now ... future cron 0,30 0 * * * * { now + 1s / 10s }", None),
        ("repeat now ... future / 1h { now + 1m / 10s }", None),
        ("now + 1m / 10s", None),
    ] {
        specification.set_when(scope.parse().unwrap());
        let reply = send(&mut component, &specification, 1, NOON);
        if let Some(expected) = expected {
            assert!(text(&reply).contains(expected), "{reply:?}");
        } else {
            assert!(!matches!(reply.message, Message::Exception(_)), "{reply:?}");
            component.take_back(reply.pending.unwrap(), time(NOON));
        }
    }
}

#[test]
fn a_capability_tells_the_period_of_its_budget() {
    let (mut component, _) = component();
    let least = Some(Duration::from_secs(10));
    let budget = Budget { min_period: least, ..Budget::default() };
    let service = component.offer(other_capability(), budget);
    let (_, shown) =
        component.capabilities().find(|(known, _)| *known == service).unwrap();
    assert_eq!(shown.when().period(), least);
}

#[test]
fn repeats_are_spread_by_their_tokens() {
    let (mut component, mut specification) = component();
    component.set_spread(Duration::from_secs(1));
    specification.set_when("repeat now + 1h / 1s { now + 0s / 1s }".parse().unwrap());
    let mut dues = BTreeSet::new();
    let mut in_hundredth = BTreeMap::<_, u32>::new();
    for number in 0_u16..1_000 {
        let mut bits = [0; 16];
        bits[..2].copy_from_slice(&number.to_be_bytes());
        let token = Token::from_random(bits);
        let message = specification.clone().into();
        component.handle(&client("a"), message, token, time(NOON));
        while component.poll_action().is_some() {}
        let job = component.jobs.values().next_back().unwrap();
        let JobState::Repeating(repetition) = &job.state else { panic!("{job:?}") };
        let due = repetition.next_due().unwrap();
        *in_hundredth.entry(due.as_millisecond() / 10).or_default() += 1;
        dues.insert(due);
    }
    assert!(dues.len() > 990, "{} of 1,000 differ", dues.len());
    assert!(*dues.first().unwrap() >= time(NOON));
    assert!(*dues.last().unwrap() < time("2026-06-01T12:00:01Z"));
    // 10 on average; three times as many is beyond what chance does.
    let most = in_hundredth.values().max().unwrap();
    assert!(*most < 30, "{most} of 1,000 start within the same 10 ms");
}

#[test]
fn who_says_when_a_repeat_starts_gets_it_then() {
    let (mut component, mut specification) = component();
    component.set_spread(Duration::from_secs(1));
    let scope = "repeat 2026-06-01 13:00:00 + 1h / 1m { now + 1s / 1s }";
    specification.set_when(scope.parse().unwrap());
    send(&mut component, &specification, 1, NOON);
    assert_eq!(component.poll_timeout(), Some(time("2026-06-01T13:00:00Z")));
}

#[test]
fn who_asks_for_what_was_withdrawn_hears_of_it() {
    let (mut component, mut specification) = component();
    specification.set_when("now + 5s / 1s".parse().unwrap());
    let (service, gone) =
        component.capabilities().map(|(s, c)| (s, c.clone())).next().unwrap();
    component.withdraw(service, time(NOON)).unwrap();
    assert_eq!(component.capabilities().count(), 0);
    let reply = send(&mut component, &specification, 1, NOON);
    let Message::Withdrawal(withdrawal) = &reply.message else { panic!("{reply:?}") };
    assert_eq!(withdrawal.label(), Some("ping-detail-ip4"));
    assert_eq!(*withdrawal.token(), gone.token());
    component.offer(gone, Budget::default());
    let reply = send(&mut component, &specification, 1, NOON);
    assert!(matches!(reply.message, Message::Receipt(_)), "it is back: {reply:?}");
}

#[test]
fn what_runs_when_its_capability_is_withdrawn_goes_on_and_what_waits_ends() {
    let (mut component, mut specification) = component();
    specification.set_when("now + 5s / 1s".parse().unwrap());
    let running = send(&mut component, &specification, 1, NOON).pending.unwrap();
    let scope = "2026-06-01 13:00:00 ... 2026-06-01 14:00:00 / 1s";
    specification.set_when(scope.parse().unwrap());
    send(&mut component, &specification, 2, NOON);
    specification
        .set_when("repeat now ... future / 1h { now + 5s / 1s }".parse().unwrap());
    send(&mut component, &specification, 3, NOON);
    let started = starts(&mut component);
    assert_eq!(started.len(), 2);
    component.withdraw(0, time(NOON));
    let told: Vec<_> = std::iter::from_fn(|| poll(&mut component)).collect();
    let [Action::Deliver { message, .. }] = told.as_slice() else { panic!("{told:?}") };
    assert!(message.to_string().contains("has withdrawn the capability"), "{message}");
    assert_eq!(component.active_jobs(), 3, "what runs, and the repeat with what runs");
    assert_eq!(started[0].0, running);
    end(&mut component, running, NOON);
    end(&mut component, started[1].0, NOON);
    assert_eq!(component.active_jobs(), 0);
    assert_eq!(component.poll_timeout(), None);
}

#[test]
fn what_waits_is_taken_over_by_what_replaces_its_capability() {
    let (mut component, mut specification) = component();
    let scope = "2026-06-01 13:00:00 ... 2026-06-01 14:00:00 / 20s";
    specification.set_when(scope.parse().unwrap());
    send(&mut component, &specification, 1, NOON);
    let least = Some(Duration::from_secs(10));
    let budget = Budget { min_period: least, ..Budget::default() };
    let capability = component.capabilities().next().unwrap().1.clone();
    let replacement = component.offer(capability, budget);
    component.withdraw(0, time(NOON));
    component.handle_timeout(time("2026-06-01T13:00:00Z"));
    while let Some(action) = component.poll_action() {
        if let Action::Start { service, .. } = action {
            assert_eq!(service, replacement);
            return;
        }
    }
    panic!("it starts");
}

#[test]
fn a_full_component_takes_nothing_new_and_forgets_first_what_its_owners_have() {
    let (mut component, specification) = with(Budget::default());
    for number in [1, 2, 3] {
        let job = send(&mut component, &specification, number, NOON).pending.unwrap();
        end(&mut component, job, NOON);
    }
    component.set_full(Some("the spool is full".into()));
    let reply = send(&mut component, &specification, 4, NOON);
    assert_eq!(text(&reply), "the spool is full");
    let redeem = |component: &mut ComponentExchange, number| {
        let redemption = Redemption::token_only("measure", fresh(number));
        let reply =
            component.handle(&client("a"), redemption.into(), fresh(9), time(NOON));
        text(&reply).to_owned()
    };
    assert_eq!(redeem(&mut component, 2), "ended");
    assert!(component.make_room(false) && !component.make_room(false));
    assert!(redeem(&mut component, 2).starts_with("no specification of yours"));
    assert_eq!(redeem(&mut component, 1), "ended");
    assert!(component.make_room(false) && component.make_room(true));
    assert!(!component.make_room(true));
    component.set_full(None);
    let reply = send(&mut component, &specification, 5, NOON);
    assert!(matches!(reply.message, Message::Receipt(_)));
}

#[test]
fn results_are_forgotten_when_they_are_too_old() {
    let (mut component, specification) = with(Budget::default());
    component.set_max_age(Duration::from_secs(3_600));
    for (number, now) in [(1, NOON), (2, "2026-06-01T12:30:00Z")] {
        let job = send(&mut component, &specification, number, now).pending.unwrap();
        end(&mut component, job, now);
    }
    while component.poll_action().is_some() {}
    let timeout = component.poll_timeout().unwrap();
    assert_eq!(timeout, time("2026-06-01T13:00:00Z"));
    component.handle_timeout(timeout);
    let Some(Action::Persist(Record::Forgotten { reason, .. })) = component.poll_action()
    else {
        panic!("one is forgotten")
    };
    assert_eq!(reason, "it has become too old");
    assert_eq!(component.poll_timeout(), Some(time("2026-06-01T13:30:00Z")));
}

/// Another capability than that of [`component`].
fn other_capability() -> Capability {
    let registries = Registries::embedded();
    let statement = Statement::measure("now ... future / 1s".parse().unwrap())
        .labelled("other")
        .column(&registries, "time")
        .unwrap();
    Capability::new(statement)
}

fn specification_of(
    component: &ComponentExchange,
    service: ServiceIndex,
) -> Specification {
    let mut capabilities = component.capabilities();
    let (_, capability) = capabilities.find(|(known, _)| *known == service).unwrap();
    let mut specification = Specification::of(capability);
    specification.set_label(Some("other-1".into()));
    specification
}
