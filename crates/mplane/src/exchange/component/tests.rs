//! The component with a clock of its own.

use super::*;
use crate::message::{Interrupt, Redemption, Statement};
use crate::registry::{CORE, Registries};

pub(super) fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(super) const NOON: &str = "2026-06-01T12:00:00Z";

pub(super) fn client(name: &str) -> Identity {
    Identity::new(["Demo", "Clients", name].map(Into::into), Some("Clients"))
}

pub(super) fn fresh(number: u8) -> Token {
    Token::from_random([number; 16])
}

pub(super) fn component() -> (ComponentExchange, Specification) {
    let registries = Registries::embedded();
    let statement = Statement::measure("now ... future / 1s".parse().unwrap())
        .labelled("ping-detail-ip4")
        .parameter(&registries, "source.ip4", "127.0.0.1")
        .and_then(|s| s.parameter(&registries, "destination.ip4", "*"))
        .and_then(|s| s.column(&registries, "time"))
        .and_then(|s| s.column(&registries, "delay.twoway.icmp.us"))
        .unwrap();
    let capability = Capability::new(statement);
    let mut specification = Specification::of(&capability);
    specification.set_parameter("destination.ip4", "127.0.0.1").unwrap();
    specification.set_label(Some("ping-detail-ip4-0".into()));
    let mut component = ComponentExchange::default();
    component.offer(capability, Budget::default());
    (component, specification)
}

fn measured(specification: &Specification) -> Outcome {
    measured_rows(specification, 1)
}

fn measured_rows(specification: &Specification, rows: usize) -> Outcome {
    let mut table = Table::new(specification.columns());
    for _ in 0..rows {
        table.push([None, Some(Value::Natural(42))]);
    }
    let when = When::between(time(NOON), time("2026-06-01T12:00:05Z"));
    Outcome::Measured { when, table, metadata: Vec::new() }
}

#[test]
fn runs_an_immediate_specification_and_keeps_its_result() {
    let (mut component, mut specification) = component();
    specification.set_when("now + 5s / 1s".parse().unwrap());
    let now = time(NOON);
    let me = client("a");
    let reply = component.handle(&me, specification.clone().into(), fresh(1), now);
    assert!(matches!(reply.message, Message::Receipt(_)));
    let job = reply.pending.unwrap();
    let Some(Action::Start { duration, .. }) = poll(&mut component) else {
        panic!("it starts at once");
    };
    assert_eq!(duration, Some(Duration::from_secs(5)));
    assert_eq!(component.poll_timeout(), Some(time("2026-06-01T12:00:07Z")));
    component.job_ended(job, measured(&specification), now);
    assert!(matches!(poll(&mut component), Some(Action::Deliver { .. })));
    assert_eq!(component.poll_timeout(), None);
    for _ in 0..2 {
        let redemption = Redemption::token_only("measure", fresh(1));
        let reply = component.handle(&me, redemption.into(), fresh(9), now);
        let Message::Result(result) = reply.message else { panic!("it is there") };
        assert_eq!(result.table().rows(), 1);
        assert_eq!(result.token(), fresh(1));
    }
}

#[test]
fn starts_later_and_stops_what_does_not_end_with_its_scope() {
    let (mut component, mut specification) = component();
    specification
        .set_when("2026-06-01 13:00:00 ... 2026-06-01 14:00:00 / 1s".parse().unwrap());
    component.handle(&client("a"), specification.into(), fresh(1), time(NOON));
    assert!(poll(&mut component).is_none());
    let start = component.poll_timeout().unwrap();
    assert_eq!(start, time("2026-06-01T13:00:00Z"));
    component.handle_timeout(start);
    assert!(matches!(poll(&mut component), Some(Action::Start { .. })));
    let end = component.poll_timeout().unwrap();
    assert_eq!(end, time("2026-06-01T14:00:02Z"));
    component.handle_timeout(end);
    assert!(matches!(poll(&mut component), Some(Action::Stop { .. })));
    assert!(component.poll_timeout().is_none());
}

#[test]
fn queries_about_the_past_are_served_at_once() {
    let registries = Registries::embedded();
    let statement = Statement::new("query", CORE, "past ... now".parse().unwrap())
        .column(&registries, "time")
        .unwrap();
    let capability = Capability::new(statement);
    for scope in ["2015-03-01 ... 2015-03-02", "past ... 2015-03-02", "2015-03-01"] {
        let mut component = ComponentExchange::default();
        component.offer(capability.clone(), Budget::default());
        let mut specification = Specification::of(&capability);
        specification.set_when(scope.parse().unwrap());
        let (me, now) = (client("a"), time(NOON));
        let reply = component.handle(&me, specification.into(), fresh(1), now);
        assert!(matches!(reply.message, Message::Receipt(_)), "{scope}: {reply:?}");
        let Some(Action::Start { duration, .. }) = poll(&mut component) else {
            panic!("{scope}: it starts at once");
        };
        assert_eq!(duration, Some(Duration::ZERO), "{scope}");
        assert_eq!(component.poll_timeout(), Some(time("2026-06-01T12:00:02Z")));
    }
}

#[test]
fn a_definite_specification_sent_twice_runs_once() {
    let (mut component, mut specification) = component();
    specification
        .set_when("2026-06-01 13:00:00 ... 2026-06-01 14:00:00 / 1s".parse().unwrap());
    let me = client("a");
    for number in [1, 2] {
        let message = specification.clone().into();
        component.handle(&me, message, fresh(number), time(NOON));
    }
    assert_eq!(component.active_jobs(), 1);
    component.handle(&client("b"), specification.into(), fresh(3), time(NOON));
    assert_eq!(component.active_jobs(), 2, "tokens are names between two peers");
}

#[test]
fn an_indefinite_specification_sent_twice_runs_twice() {
    let (mut component, mut specification) = component();
    specification.set_when("now + 5s / 1s".parse().unwrap());
    for number in [1, 2] {
        let message = specification.clone().into();
        component.handle(&client("a"), message, fresh(number), time(NOON));
    }
    assert_eq!(component.active_jobs(), 2);
}

#[test]
fn others_can_neither_redeem_nor_interrupt() {
    let (mut component, mut specification) = component();
    specification.set_when("now + 5s / 1s".parse().unwrap());
    specification.set_token(Some(fresh(1)));
    component.handle(&client("a"), specification.into(), fresh(2), time(NOON));
    poll(&mut component);
    let thief = client("b");
    for message in [
        Message::from(Redemption::token_only("measure", fresh(1))),
        Interrupt::token_only("measure", fresh(1)).into(),
    ] {
        let reply = component.handle(&thief, message, fresh(3), time(NOON));
        assert!(matches!(reply.message, Message::Exception(_)));
        assert!(poll(&mut component).is_none());
    }
}

#[test]
fn an_interrupt_stops_what_runs_and_ends_what_waits() {
    let (mut component, mut specification) = component();
    let me = client("a");
    specification.set_when("now ... future / 1s".parse().unwrap());
    component.handle(&me, specification.clone().into(), fresh(1), time(NOON));
    poll(&mut component);
    let interrupt = Interrupt::token_only("measure", fresh(1));
    component.handle(&me, interrupt.into(), fresh(9), time(NOON));
    assert!(matches!(poll(&mut component), Some(Action::Stop { .. })));

    specification.set_when("2026-06-01 13:00:00 + 1h / 1s".parse().unwrap());
    specification.set_token(Some(fresh(2)));
    component.handle(&me, specification.into(), fresh(9), time(NOON));
    let interrupt = Interrupt::token_only("measure", fresh(2));
    let reply = component.handle(&me, interrupt.into(), fresh(9), time(NOON));
    let Message::Result(result) = reply.message else { panic!("it has ended") };
    assert_eq!(result.table().rows(), 0);
    assert!(matches!(poll(&mut component), Some(Action::Deliver { .. })));
    assert_eq!(component.poll_timeout(), None);
}

#[test]
fn refusals_name_the_reason() {
    let (mut component, specification) = component();
    let mut refused = |change: &dyn Fn(&mut Specification)| {
        let mut specification = specification.clone();
        change(&mut specification);
        let reply =
            component.handle(&client("a"), specification.into(), fresh(7), time(NOON));
        let Message::Exception(exception) = reply.message else {
            panic!("it is refused");
        };
        assert!(exception.token().is_some());
        exception.message().to_owned()
    };
    assert_eq!(
        refused(&|s| s.set_when("2020-01-01 + 5s / 1s".parse().unwrap())),
        "the specification does not fulfil capability ping-detail-ip4: its temporal \
         scope 2020-01-01 00:00:00.000000 + 5s / 1s does not follow the capability's, \
         now ... future / 1s"
    );
    assert_eq!(
        refused(&|s| s.set_when("now + 5s".parse().unwrap())),
        "the specification does not fulfil capability ping-detail-ip4: its temporal \
         scope now + 5s does not follow the capability's, now ... future / 1s; it needs \
         a period of at least 1s, as in now + 30s / 1s"
    );
    assert_eq!(
        refused(&|s| *s = Specification::new(Statement::measure(When::now()))),
        "no capability of this component has these parameters and result columns"
    );
}

#[test]
fn finished_jobs_are_bounded() {
    let (mut component, mut specification) = component();
    specification.set_when("now + 5s / 1s".parse().unwrap());
    for number in 0..=limits::FINISHED_JOBS {
        specification.set_token(Some(number.to_string().parse().unwrap()));
        let reply = component.handle(
            &client("a"),
            specification.clone().into(),
            fresh(1),
            time(NOON),
        );
        component.job_ended(reply.pending.unwrap(), measured(&specification), time(NOON));
    }
    assert_eq!(component.jobs.len(), limits::FINISHED_JOBS);
    assert_eq!(component.by_token.len(), limits::FINISHED_JOBS);
    assert_eq!(component.active_jobs(), 0);
}

#[test]
fn the_values_of_finished_jobs_are_bounded() {
    let (mut component, mut specification) = component();
    specification.set_when("now + 5s / 1s".parse().unwrap());
    // Two columns each: two of them are a little too many.
    let rows = limits::FINISHED_VALUES / 4 + 1;
    for token in ["first", "second"] {
        specification.set_token(Some(token.parse().unwrap()));
        let message = specification.clone().into();
        let reply = component.handle(&client("a"), message, fresh(1), time(NOON));
        let job = reply.pending.unwrap();
        component.job_ended(job, measured_rows(&specification, rows), time(NOON));
        assert_eq!(component.finished.values, 2 * rows);
    }
    let tokens: Vec<_> = component.by_token.keys().map(|(token, _)| token).collect();
    assert_eq!(tokens.len(), 1);
    assert_eq!(tokens[0].as_str(), "second");
    let forgotten = std::iter::from_fn(|| component.poll_action())
        .filter(|action| matches!(action, Action::Persist(Record::Forgotten { .. })));
    assert_eq!(forgotten.count(), 1);
}

#[test]
fn the_values_that_a_repeat_keeps_are_bounded() {
    let (mut component, mut specification) = component();
    specification.set_when("repeat now + 3h / 1h { now + 5s / 1s }".parse().unwrap());
    let me = client("a");
    let reply = component.handle(&me, specification.clone().into(), fresh(1), time(NOON));
    let whole = reply.pending.unwrap();
    let rows = limits::REPEAT_VALUES / 4 + 1;
    let mut forgotten = 0;
    for hour in ["12", "13", "14"] {
        let now = time(&format!("2026-06-01T{hour}:00:00Z"));
        component.handle_timeout(now);
        while let Some(action) = component.poll_action() {
            match action {
                Action::Start { job, specification, .. } => {
                    component.job_ended(job, measured_rows(&specification, rows), now);
                }
                Action::Persist(Record::Forgotten { .. }) => forgotten += 1,
                _ => {}
            }
        }
    }
    assert_eq!(forgotten, 2, "one of three is kept");
    let repetition = component.repetition(whole).expect("it goes on until three");
    let so_far = repetition.so_far(&specification, time(NOON)).unwrap();
    assert_eq!(so_far.messages().len(), 1);
}

/// Returns the next action, except what is to be written down.
pub(super) fn poll(component: &mut ComponentExchange) -> Option<Action> {
    loop {
        match component.poll_action() {
            Some(Action::Persist(_)) => {}
            action => return action,
        }
    }
}

/// A job that starts, with its temporal scope.
fn started(component: &mut ComponentExchange) -> (JobId, String) {
    match poll(component) {
        Some(Action::Start { job, specification, .. }) => {
            (job, specification.when().to_string())
        }
        other => panic!("expected a start, got {other:?}"),
    }
}

#[test]
fn a_repeat_measures_at_each_occurrence_and_returns_an_envelope() {
    let (mut component, mut specification) = component();
    let me = client("a");
    specification.set_when("repeat now + 2h / 1h { now + 5s / 1s }".parse().unwrap());
    let reply = component.handle(&me, specification.clone().into(), fresh(1), time(NOON));
    assert!(matches!(reply.message, Message::Receipt(_)));
    let (job, scope) = started(&mut component);
    assert_eq!(scope, "2026-06-01 12:00:00.000000 + 5s / 1s");
    component.job_ended(job, measured(&specification), time(NOON));
    assert!(poll(&mut component).is_none(), "results are delivered at the end");
    let redemption = Redemption::token_only("measure", fresh(1));
    let reply = component.handle(&me, redemption.into(), fresh(9), time(NOON));
    let Message::Envelope(so_far) = reply.message else {
        panic!("what was measured can be had meanwhile");
    };
    assert_eq!(so_far.messages().len(), 1);
    // Who sends it once more hears that it is here, and nothing that would look like all.
    specification.set_token(Some(fresh(1)));
    let again = component.handle(&me, specification.clone().into(), fresh(8), time(NOON));
    assert!(matches!(again.message, Message::Receipt(_)), "{:?}", again.message);

    for hour in [13, 14] {
        let due = time(&format!("2026-06-01T{hour}:00:00Z"));
        assert_eq!(component.poll_timeout(), Some(due));
        component.handle_timeout(due);
        let (job, scope) = started(&mut component);
        assert_eq!(scope, format!("2026-06-01 {hour}:00:00.000000 + 5s / 1s"));
        component.job_ended(job, measured(&specification), due);
    }
    assert_eq!(component.poll_timeout(), None);
    let Some(Action::Deliver { message, .. }) = poll(&mut component) else {
        panic!("it is over");
    };
    let Message::Envelope(envelope) = *message else { panic!("an envelope") };
    assert_eq!(envelope.token(), Some(&fresh(1)));
    assert_eq!(envelope.label(), Some("ping-detail-ip4-0"));
    assert_eq!(
        envelope.when().unwrap().to_string(),
        "2026-06-01 12:00:00.000000 ... 2026-06-01 14:00:00.000000 / 1h"
    );
    assert_eq!(envelope.messages().len(), 3);
    assert_eq!(component.active_jobs(), 0);
}

#[test]
fn a_repeat_keeps_as_many_results_as_are_set() {
    let (mut component, mut specification) = component();
    component.set_max_results(NonZeroUsize::new(2));
    specification.set_when("repeat now + 4h / 1h { now + 5s / 1s }".parse().unwrap());
    let message = specification.clone().into();
    component.handle(&client("a"), message, fresh(1), time(NOON));
    let mut delivered = None;
    for hour in 12..=16 {
        let now = time(&format!("2026-06-01T{hour}:00:00Z"));
        component.handle_timeout(now);
        while let Some(action) = component.poll_action() {
            match action {
                Action::Start { job, specification, .. } => {
                    component.job_ended(job, measured(&specification), now);
                }
                Action::Deliver { message, .. } => delivered = Some(message),
                _ => {}
            }
        }
    }
    let Some(Message::Envelope(results)) = delivered.map(|message| *message) else {
        panic!("it ends with an envelope");
    };
    assert_eq!(results.len(), 2);
}

#[test]
fn a_repeat_runs_an_hour_every_second_without_drift() {
    let (mut component, mut specification) = component();
    specification.set_when("repeat now + 1h / 1s { now + 1s / 1s }".parse().unwrap());
    component.handle(&client("a"), specification.clone().into(), fresh(1), time(NOON));
    let mut runs = 0;
    loop {
        while let Some(action) = poll(&mut component) {
            if let Action::Start { job, .. } = action {
                runs += 1;
                component.job_ended(job, measured(&specification), time(NOON));
            }
        }
        // The driver is always a little late.
        let Some(due) = component.poll_timeout() else { break };
        component.handle_timeout(due + Duration::from_micros(700));
    }
    assert_eq!(runs, 3601, "both ends included");
}

#[test]
fn as_many_repeats_as_it_takes_have_room_to_measure() {
    let (mut component, mut specification) = component();
    specification
        .set_when("repeat now ... future / 1s { now + 0s / 1s }".parse().unwrap());
    let mut now = time(NOON);
    for number in 0..limits::JOBS {
        specification.set_token(Some(number.to_string().parse().unwrap()));
        let message = specification.clone().into();
        let reply = component.handle(&client("a"), message, fresh(1), now);
        assert!(matches!(reply.message, Message::Receipt(_)), "{number}: {reply:?}");
    }
    let mut started = 0;
    for _ in 0..2 {
        while component.poll_timeout().is_some_and(|timeout| timeout <= now) {
            component.handle_timeout(now);
        }
        while let Some(action) = component.poll_action() {
            if let Action::Start { job, is_after_record, .. } = action {
                assert!(!is_after_record);
                started += 1;
                component.job_ended(job, measured(&specification), now);
            }
        }
        now += Duration::from_secs(1);
    }
    assert_eq!(started, 2 * limits::JOBS);
    assert_eq!(component.repeat_results, 2 * limits::JOBS);
    assert_eq!(component.measurements, 0);
}

#[test]
fn a_clock_that_is_set_during_a_run_costs_no_rows_and_no_word() {
    let (mut component, mut specification) = component();
    let me = client("a");
    specification.set_when("now + 1m / 1s".parse().unwrap());
    let message = specification.clone().into();
    let running = component.handle(&me, message, fresh(1), time(NOON)).pending.unwrap();
    started(&mut component);
    let later = "2026-06-01 13:00:00 ... 2026-06-01 13:30:00 / 1s";
    specification.set_when(later.parse().unwrap());
    component.handle(&me, specification.clone().into(), fresh(2), time(NOON));

    // Back: nothing happens twice, and what waits still waits.
    component.handle_timeout(time("2026-06-01T11:00:00Z"));
    assert!(poll(&mut component).is_none());
    assert_eq!(component.poll_timeout(), Some(time("2026-06-01T12:01:02Z")));

    // Forth, beyond all: what runs ends with its rows, what waited says that it was missed.
    component.handle_timeout(time("2026-06-01T15:00:00Z"));
    let Some(Action::Stop { job }) = poll(&mut component) else { panic!("it runs") };
    assert_eq!(job, running);
    let Some(Action::Deliver { message, .. }) = poll(&mut component) else {
        panic!("it is told")
    };
    assert!(message.to_string().contains("missed: the temporal scope"), "{message}");
    component.job_ended(running, measured(&specification), time("2026-06-01T15:00:00Z"));
    let Some(Action::Deliver { message, .. }) = poll(&mut component) else {
        panic!("it has rows")
    };
    assert!(matches!(*message, Message::Result(_)), "{message}");
}

#[test]
fn what_was_slept_through_is_not_made_up_for() {
    let (mut component, mut specification) = component();
    specification.set_when("repeat now + 1d / 1m { now + 5s / 1s }".parse().unwrap());
    component.handle(&client("a"), specification.into(), fresh(1), time(NOON));
    started(&mut component);
    let mut starts_at = |now: &str| {
        component.handle_timeout(time(now));
        let mut scopes = Vec::new();
        while let Some(action) = poll(&mut component) {
            if let Action::Start { specification, .. } = action {
                scopes.push(specification.when().to_string());
            }
        }
        scopes
    };
    assert_eq!(starts_at("2026-06-01T15:00:30Z"), [""; 0], "it was over at 15:00:05");
    assert_eq!(
        starts_at("2026-06-01T15:09:02Z"),
        ["2026-06-01 15:09:00.000000 + 5s / 1s"],
        "the last one is not over yet"
    );
}

#[test]
fn an_interrupt_ends_a_repeat_with_what_was_measured() {
    let (mut component, mut specification) = component();
    let me = client("a");
    specification
        .set_when("repeat now ... future / 1h { now + 5s / 1s }".parse().unwrap());
    component.handle(&me, specification.clone().into(), fresh(1), time(NOON));
    let (running, _) = started(&mut component);
    let interrupt = Interrupt::token_only("measure", fresh(1));
    component.handle(&me, interrupt.into(), fresh(9), time(NOON));
    let Some(Action::Stop { job }) = poll(&mut component) else {
        panic!("what runs is stopped");
    };
    assert_eq!(job, running);
    component.job_ended(job, measured(&specification), time(NOON));
    assert!(matches!(poll(&mut component), Some(Action::Deliver { .. })));
    assert_eq!(component.poll_timeout(), None);
}

#[test]
fn a_repeat_in_which_all_failed_is_a_failure() {
    let (mut component, mut specification) = component();
    specification.set_when("repeat now + 1m / 1h { now + 5s / 1s }".parse().unwrap());
    component.handle(&client("a"), specification.into(), fresh(1), time(NOON));
    let (job, _) = started(&mut component);
    component.job_ended(job, Outcome::Failed("no route".into()), time(NOON));
    let Some(Action::Deliver { message, .. }) = poll(&mut component) else {
        panic!("it is over");
    };
    assert_eq!(message.to_string(), format!("<Exception: {} no route>", fresh(1)));
}

/// What is written down, kept as a spool keeps it.
#[derive(Default)]
struct Spool(BTreeMap<JobId, Saved>);

impl Spool {
    /// Takes the actions of a component: writes down what is to be, returns the others.
    /// Whatever an action depends on is written before it.
    fn carry_out(&mut self, component: &mut ComponentExchange) -> Vec<Action> {
        let mut others = Vec::new();
        while let Some(action) = component.poll_action() {
            match action {
                Action::Persist(record) => self.write(record),
                Action::Start { job, .. } => {
                    assert!(self.0[&job].started.is_some(), "written before it starts");
                    others.push(action);
                }
                Action::Deliver { job, .. } => {
                    assert!(self.0[&job].finished.is_some(), "written before delivery");
                    others.push(action);
                }
                Action::Stop { .. } => others.push(action),
            }
        }
        others
    }

    fn write(&mut self, record: Record) {
        match record {
            Record::Accepted {
                job,
                parent,
                owner,
                specification,
                capability,
                accepted,
            } => {
                let table = Table::new(specification.columns());
                let saved = Saved {
                    job,
                    parent,
                    owner,
                    specification: *specification,
                    capability,
                    accepted,
                    started: None,
                    table,
                    finished: None,
                    finished_at: None,
                    is_delivered: false,
                };
                self.0.insert(job, saved);
            }
            Record::Started { job, started } => self.at(job).started = Some(started),
            Record::Finished { job, message, finished } => {
                let saved = self.at(job);
                saved.finished = Some(*message);
                saved.finished_at = Some(finished);
            }
            Record::Delivered { job } => self.at(job).is_delivered = true,
            Record::Forgotten { job, .. } => {
                self.0.retain(|id, saved| *id != job && saved.parent != Some(job));
            }
        }
    }

    fn at(&mut self, job: JobId) -> &mut Saved {
        self.0.get_mut(&job).expect("accepted before anything else")
    }

    /// Returns a component that goes on with what is written.
    fn restart(&self, now: &str) -> (ComponentExchange, Vec<Cut>) {
        let (mut component, _) = component();
        let cut = component.restore(self.0.values().cloned().collect(), time(now));
        (component, cut)
    }
}

#[test]
fn a_restart_keeps_results_and_delivers_what_was_not() {
    let (mut component, mut specification) = component();
    let mut spool = Spool::default();
    specification.set_when("now + 5s / 1s".parse().unwrap());
    let me = client("a");
    for number in [1, 2] {
        let message = specification.clone().into();
        let reply = component.handle(&me, message, fresh(number), time(NOON));
        let job = reply.pending.unwrap();
        component.job_ended(job, measured(&specification), time(NOON));
        if number == 1 {
            component.job_delivered(job);
        }
    }
    spool.carry_out(&mut component);

    let (mut component, cut) = spool.restart("2026-06-01T13:00:00Z");
    assert!(cut.is_empty());
    let actions = spool.carry_out(&mut component);
    let [Action::Deliver { message, .. }] = actions.as_slice() else {
        panic!("the one that was not delivered: {actions:?}");
    };
    assert_eq!(message.token(), Some(fresh(2)));
    for number in [1, 2] {
        let redemption = Redemption::token_only("measure", fresh(number));
        let reply = component.handle(&me, redemption.into(), fresh(9), time(NOON));
        assert!(matches!(reply.message, Message::Result(_)));
    }
}

#[test]
fn a_restart_starts_what_waited_and_never_what_ran() {
    let (mut component, mut specification) = component();
    let mut spool = Spool::default();
    for (number, when) in [
        (1, "now + 1d / 1s"),
        (2, "2026-06-01 13:00:00 ... 2026-06-01 14:00:00 / 1s"),
        (3, "2026-06-01 12:10:00 ... 2026-06-01 12:20:00 / 1s"),
    ] {
        specification.set_when(when.parse().unwrap());
        let message = specification.clone().into();
        component.handle(&client("a"), message, fresh(number), time(NOON));
    }
    spool.carry_out(&mut component);

    let (mut component, cut) = spool.restart("2026-06-01T12:30:00Z");
    let [Cut { job, started, .. }] = cut.as_slice() else { panic!("{cut:?}") };
    assert_eq!(*started, time(NOON));
    component.job_ended(*job, measured(&specification), time(NOON));
    let told: Vec<_> = spool
        .carry_out(&mut component)
        .into_iter()
        .map(|action| match action {
            Action::Deliver { message, .. } => message.to_string(),
            other => panic!("nothing starts yet: {other:?}"),
        })
        .collect();
    let missed = "this component was not running during the temporal scope>";
    assert!(told[0].ends_with(missed), "{told:?}");
    assert!(told[1].starts_with("<result: measure (ping-detail-ip4-0)"), "{told:?}");
    let start = component.poll_timeout().unwrap();
    assert_eq!(start, time("2026-06-01T13:00:00Z"));
    component.handle_timeout(start);
    assert!(matches!(spool.carry_out(&mut component).as_slice(), [Action::Start { .. }]));
}

#[test]
fn a_restart_goes_on_in_the_rhythm_of_a_repeat() {
    let (mut component, mut specification) = component();
    let mut spool = Spool::default();
    specification.set_when("repeat now + 4h / 1h { now + 5s / 1s }".parse().unwrap());
    let message = specification.clone().into();
    component.handle(&client("a"), message, fresh(1), time(NOON));
    let actions = spool.carry_out(&mut component);
    let [Action::Start { job, .. }] = actions.as_slice() else { panic!("{actions:?}") };
    component.job_ended(*job, measured(&specification), time(NOON));
    component.handle_timeout(time("2026-06-01T13:00:00Z"));
    spool.carry_out(&mut component);

    let (mut component, cut) = spool.restart("2026-06-01T14:20:00Z");
    let [Cut { job, .. }] = cut.as_slice() else { panic!("the second ran: {cut:?}") };
    let outcome = Outcome::Failed("restarted".into());
    component.job_ended(*job, outcome, time("2026-06-01T14:20:00Z"));
    for hour in [15, 16] {
        let due = time(&format!("2026-06-01T{hour}:00:00Z"));
        assert_eq!(component.poll_timeout(), Some(due));
        component.handle_timeout(due);
        let actions = spool.carry_out(&mut component);
        let [Action::Start { job, .. }] = actions.as_slice() else {
            panic!("{actions:?}");
        };
        component.job_ended(*job, measured(&specification), due);
    }
    let actions = spool.carry_out(&mut component);
    let [Action::Deliver { message, .. }] = actions.as_slice() else {
        panic!("{actions:?}");
    };
    let Message::Envelope(envelope) = &**message else { panic!("an envelope") };
    let kinds: Vec<_> =
        envelope.messages().iter().map(|message| message.kind().key()).collect();
    assert_eq!(kinds, ["result", "exception", "result", "result"]);
}

#[test]
fn what_could_not_be_written_down_was_never_accepted() {
    let (mut component, mut specification) = component();
    specification.set_when("now + 5s / 1s".parse().unwrap());
    let me = client("a");
    let reply = component.handle(&me, specification.into(), fresh(1), time(NOON));
    component.take_back(reply.pending.unwrap(), time(NOON));
    assert_eq!(component.active_jobs(), 0);
    assert_eq!(component.poll_timeout(), None);
    let redemption = Redemption::token_only("measure", fresh(1));
    let reply = component.handle(&me, redemption.into(), fresh(9), time(NOON));
    assert!(matches!(reply.message, Message::Exception(_)));
}
