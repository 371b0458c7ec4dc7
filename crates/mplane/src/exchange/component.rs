//! A component: capabilities offered, specifications accepted, results kept.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::{self, Display};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::access::Identity;
use crate::limits;
use crate::message::{
    Capability, Exception, Message, Receipt, ResultStatement, Specification, Table,
};
use crate::primitive::Value;
use crate::registry::Element;
use crate::token::Token;
use crate::when::When;

/// How long after the end of its scope a service may still run.
const SCOPE_GRACE: SignedDuration = SignedDuration::from_secs(limits::SCOPE_GRACE_S);

/// A component, without its services: those are the driver's.
#[derive(Debug, Default)]
pub struct ComponentExchange {
    capabilities: Vec<Capability>,
    jobs: BTreeMap<JobId, Job>,
    /// Tokens are names between two peers, never global.
    by_token: BTreeMap<(Identity, Token), JobId>,
    /// When a job starts or its scope ends, UTC.
    deadlines: BTreeSet<(Timestamp, JobId)>,
    /// Finished jobs, the oldest first.
    finished: VecDeque<JobId>,
    actions: VecDeque<Action>,
    last_job: u64,
}

/// Names an accepted specification within one component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(u64);

impl Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names a capability, and the service behind it, within one component: its position in
/// the order of [`ComponentExchange::offer`].
pub type ServiceIndex = usize;

/// An accepted specification.
#[derive(Debug)]
struct Job {
    owner: Identity,
    specification: Specification,
    service: ServiceIndex,
    state: JobState,
    /// When the temporal scope ends, UTC.
    end: Option<Timestamp>,
    /// When it is next looked at, UTC: to start it, or to stop it if it does not end.
    deadline: Option<Timestamp>,
}

/// How far a job is.
#[derive(Debug)]
enum JobState {
    /// Its temporal scope has not started.
    Waiting,
    /// Its service runs.
    Running,
    /// Its result or exception is there.
    Finished(Box<Message>),
}

/// What the driver is to do.
#[derive(Debug)]
pub enum Action {
    /// Start the service.
    Start {
        /// The job to report about.
        job: JobId,
        /// Which service.
        service: ServiceIndex,
        /// What to do.
        specification: Box<Specification>,
        /// How long the temporal scope lasts from now on; `None` without end.
        duration: Option<Duration>,
    },
    /// Stop the service; it still reports what it has.
    Stop {
        /// The job.
        job: JobId,
    },
    /// The result or exception is there: deliver it, wake who waits for it.
    Deliver {
        /// The job.
        job: JobId,
        /// Who asked for it.
        owner: Identity,
        /// The specification, for its link.
        specification: Box<Specification>,
        /// The result or exception.
        message: Box<Message>,
    },
}

/// The answer to a message.
#[derive(Debug)]
pub struct Reply {
    /// What to send back now.
    pub message: Message,
    /// The job whose result is not there yet: a driver may wait for it.
    pub pending: Option<JobId>,
}

impl Reply {
    /// Makes an answer that is final.
    fn finally(message: impl Into<Message>) -> Self {
        Self { message: message.into(), pending: None }
    }

    /// Makes an exception about a token.
    fn exception(token: Option<Token>, text: impl Into<String>) -> Self {
        Self::finally(Exception::new(token, text))
    }
}

/// What became of a job.
#[derive(Debug)]
pub enum Outcome {
    /// The service has measured.
    Measured {
        /// What was really done: an absolute temporal scope.
        when: When,
        /// The rows; none is an outcome too.
        table: Table,
        /// How the result came about.
        metadata: Vec<(std::sync::Arc<Element>, Option<Value>)>,
    },
    /// The service could not measure, and why, for people.
    Failed(String),
}

impl ComponentExchange {
    /// Offers a capability.
    pub fn offer(&mut self, capability: Capability) -> ServiceIndex {
        self.capabilities.push(capability);
        self.capabilities.len() - 1
    }

    /// Returns the capabilities offered.
    pub fn capabilities(&self) -> &[Capability] {
        &self.capabilities
    }

    /// Answers a message. `fresh` becomes the token of a specification that needs one.
    pub fn handle(
        &mut self,
        from: &Identity,
        message: Message,
        fresh: Token,
        now: Timestamp,
    ) -> Reply {
        match message {
            Message::Specification(specification) => {
                self.accept(from, specification, fresh, now)
            }
            Message::Redemption(redemption) => self.state_of(from, redemption.token()),
            Message::Interrupt(interrupt) => {
                let token = interrupt.token();
                if let Some(job) = self.by_token.get(&(from.clone(), token.clone())) {
                    self.stop(*job, now);
                }
                self.state_of(from, token)
            }
            other => Reply::exception(
                Some(other.token().unwrap_or(fresh)),
                format!(
                    "a component takes specifications, redemptions and interrupts, not \
                     a message of kind {}",
                    other.kind()
                ),
            ),
        }
    }

    /// Takes note of what became of a job.
    pub fn job_ended(&mut self, id: JobId, outcome: Outcome) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if matches!(job.state, JobState::Finished(_)) {
            return;
        }
        let token = job.specification.token();
        let message: Message = match outcome {
            Outcome::Failed(reason) => Exception::new(Some(token), reason).into(),
            Outcome::Measured { when, table, metadata } => {
                let mut result = ResultStatement::of(&job.specification, when, table);
                for (element, value) in metadata {
                    // A full section keeps what it has: metadata is no measurement.
                    if result.add_metadata(element, value).is_err() {
                        break;
                    }
                }
                result.into()
            }
        };
        job.state = JobState::Finished(Box::new(message.clone()));
        if let Some(deadline) = job.deadline.take() {
            self.deadlines.remove(&(deadline, id));
        }
        self.actions.push_back(Action::Deliver {
            job: id,
            owner: job.owner.clone(),
            specification: Box::new(job.specification.clone()),
            message: Box::new(message),
        });
        self.finished.push_back(id);
        if self.finished.len() > limits::FINISHED_JOBS
            && let Some(oldest) = self.finished.pop_front()
        {
            self.forget(oldest);
        }
    }

    /// Returns the next thing to do. Call it after every `handle…` and `job_ended` until
    /// there is nothing.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Returns when to call [`handle_timeout`](Self::handle_timeout), UTC.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Starts jobs whose time has come, and stops those that have not ended with their
    /// scope.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        while let Some(&(deadline, id)) = self.deadlines.first()
            && deadline <= now
        {
            self.deadlines.pop_first();
            match self.jobs.get(&id).map(|job| &job.state) {
                Some(JobState::Waiting) => self.start(id, now),
                Some(JobState::Running) => {
                    self.actions.push_back(Action::Stop { job: id });
                }
                Some(JobState::Finished(_)) | None => {}
            }
        }
    }

    /// Returns the number of jobs that wait or run.
    pub fn active_jobs(&self) -> usize {
        self.jobs.len() - self.finished.len()
    }

    /// Accepts or refuses a specification.
    fn accept(
        &mut self,
        from: &Identity,
        mut specification: Specification,
        fresh: Token,
        now: Timestamp,
    ) -> Reply {
        let token = match specification.stated_token() {
            Some(token) => token.clone(),
            None if specification.when().is_definite() => specification.token(),
            // The same specification, sent again, asks for another measurement.
            None => fresh,
        };
        if self.by_token.contains_key(&(from.clone(), token.clone())) {
            return self.state_of(from, &token);
        }
        specification.set_token(Some(token.clone()));
        let service = match self.service_for(&specification, now) {
            Ok(service) => service,
            Err(reason) => return Reply::exception(Some(token), reason),
        };
        if specification.when().is_repeated() {
            return Reply::exception(
                Some(token),
                "this component runs no repeated scopes; send a simple one",
            );
        }
        let Some(delays) = specification.when().delays(now) else {
            return Reply::exception(
                Some(token),
                format!(
                    "the temporal scope {} ended before {}",
                    specification.when(),
                    crate::when::display_timestamp(now)
                ),
            );
        };
        if self.jobs.len() >= limits::JOBS {
            return Reply::exception(
                Some(token),
                format!(
                    "this component holds {} jobs, as many as it takes; try again later",
                    self.jobs.len()
                ),
            );
        }
        self.last_job += 1;
        let id = JobId(self.last_job);
        let start = now.checked_add(delays.start).ok();
        let job = Job {
            owner: from.clone(),
            specification,
            service,
            state: JobState::Waiting,
            end: delays.end.and_then(|delay| now.checked_add(delay).ok()),
            deadline: start,
        };
        self.by_token.insert((from.clone(), token.clone()), id);
        self.jobs.insert(id, job);
        if delays.start.is_zero() {
            self.start(id, now);
        } else {
            self.deadlines.extend(start.map(|start| (start, id)));
        }
        self.state_of(from, &token)
    }

    /// Finds the service for a specification: one with the capability that its label
    /// names or, if it names none, any whose capability it fulfils.
    fn service_for(
        &self,
        specification: &Specification,
        now: Timestamp,
    ) -> Result<ServiceIndex, String> {
        let named = |capability: &Capability| {
            let label = specification.label().unwrap_or_default();
            capability.label().is_some_and(|known| known == without_serial(label))
        };
        let (named_ones, others): (Vec<_>, Vec<_>) =
            self.capabilities.iter().enumerate().partition(|(_, known)| named(known));
        let mut refusal = "no capability of this component has these parameters and \
                           result columns"
            .to_owned();
        // A label that names something decides: it tells equal schemas apart.
        for (index, capability) in if named_ones.is_empty() { others } else { named_ones }
        {
            match specification.fulfills(capability, now) {
                Ok(()) => return Ok(index),
                Err(reason) if named(capability) => {
                    refusal = format!(
                        "the specification does not fulfil capability {}: {reason}",
                        capability.label().unwrap_or_default()
                    );
                }
                Err(_) => {}
            }
        }
        Err(refusal)
    }

    /// Starts a job's service.
    fn start(&mut self, id: JobId, now: Timestamp) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.state = JobState::Running;
        let duration =
            job.end.map(|end| end.duration_since(now).try_into().unwrap_or_default());
        job.deadline = job.end.and_then(|end| end.checked_add(SCOPE_GRACE).ok());
        self.deadlines.extend(job.deadline.map(|deadline| (deadline, id)));
        self.actions.push_back(Action::Start {
            job: id,
            service: job.service,
            specification: Box::new(job.specification.clone()),
            duration,
        });
    }

    /// Stops a job: one that runs reports what it has, one that waits has nothing.
    fn stop(&mut self, id: JobId, now: Timestamp) {
        let Some(job) = self.jobs.get(&id) else { return };
        match job.state {
            JobState::Running => self.actions.push_back(Action::Stop { job: id }),
            JobState::Waiting => {
                let outcome = Outcome::Measured {
                    when: When::at(now),
                    table: Table::new(job.specification.columns()),
                    metadata: Vec::new(),
                };
                self.job_ended(id, outcome);
            }
            JobState::Finished(_) => {}
        }
    }

    /// Answers with what there is: the result, or a receipt.
    fn state_of(&self, from: &Identity, token: &Token) -> Reply {
        let job = self
            .by_token
            .get(&(from.clone(), token.clone()))
            .and_then(|id| Some((id, self.jobs.get(id)?)));
        match job {
            None => Reply::exception(
                Some(token.clone()),
                format!("no specification of yours has token {token}"),
            ),
            Some((_, Job { state: JobState::Finished(message), .. })) => {
                Reply::finally(Message::clone(message))
            }
            Some((id, job)) => Reply {
                message: Receipt::of(&job.specification).into(),
                pending: Some(*id),
            },
        }
    }

    /// Forgets a finished job.
    fn forget(&mut self, id: JobId) {
        if let Some(job) = self.jobs.remove(&id) {
            self.by_token.remove(&(job.owner, job.specification.token()));
        }
    }
}

/// Returns a label without the `-<digits>` that clients append to tell runs apart.
pub fn without_serial(label: &str) -> &str {
    match label.rsplit_once('-') {
        Some((name, serial))
            if !serial.is_empty() && serial.bytes().all(|b| b.is_ascii_digit()) =>
        {
            name
        }
        _ => label,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Interrupt, Redemption, Statement};
    use crate::registry::Registries;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    const NOON: &str = "2026-06-01T12:00:00Z";

    fn client(name: &str) -> Identity {
        Identity::new(["Demo", "Clients", name].map(Into::into), Some("Clients"))
    }

    fn fresh(number: u8) -> Token {
        Token::from_random([number; 16])
    }

    fn component() -> (ComponentExchange, Specification) {
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
        component.offer(capability);
        (component, specification)
    }

    fn measured(specification: &Specification) -> Outcome {
        let mut table = Table::new(specification.columns());
        table.push([None, Some(Value::Natural(42))]);
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
        let Some(Action::Start { duration, .. }) = component.poll_action() else {
            panic!("it starts at once");
        };
        assert_eq!(duration, Some(Duration::from_secs(5)));
        assert_eq!(component.poll_timeout(), Some(time("2026-06-01T12:00:07Z")));
        component.job_ended(job, measured(&specification));
        assert!(matches!(component.poll_action(), Some(Action::Deliver { .. })));
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
        specification.set_when(
            "2026-06-01 13:00:00 ... 2026-06-01 14:00:00 / 1s".parse().unwrap(),
        );
        component.handle(&client("a"), specification.into(), fresh(1), time(NOON));
        assert!(component.poll_action().is_none());
        let start = component.poll_timeout().unwrap();
        assert_eq!(start, time("2026-06-01T13:00:00Z"));
        component.handle_timeout(start);
        assert!(matches!(component.poll_action(), Some(Action::Start { .. })));
        let end = component.poll_timeout().unwrap();
        assert_eq!(end, time("2026-06-01T14:00:02Z"));
        component.handle_timeout(end);
        assert!(matches!(component.poll_action(), Some(Action::Stop { .. })));
        assert!(component.poll_timeout().is_none());
    }

    #[test]
    fn a_definite_specification_sent_twice_runs_once() {
        let (mut component, mut specification) = component();
        specification.set_when(
            "2026-06-01 13:00:00 ... 2026-06-01 14:00:00 / 1s".parse().unwrap(),
        );
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
        component.poll_action();
        let thief = client("b");
        for message in [
            Message::from(Redemption::token_only("measure", fresh(1))),
            Interrupt::token_only("measure", fresh(1)).into(),
        ] {
            let reply = component.handle(&thief, message, fresh(3), time(NOON));
            assert!(matches!(reply.message, Message::Exception(_)));
            assert!(component.poll_action().is_none());
        }
    }

    #[test]
    fn an_interrupt_stops_what_runs_and_ends_what_waits() {
        let (mut component, mut specification) = component();
        let me = client("a");
        specification.set_when("now ... future / 1s".parse().unwrap());
        component.handle(&me, specification.clone().into(), fresh(1), time(NOON));
        component.poll_action();
        let interrupt = Interrupt::token_only("measure", fresh(1));
        component.handle(&me, interrupt.into(), fresh(9), time(NOON));
        assert!(matches!(component.poll_action(), Some(Action::Stop { .. })));

        specification.set_when("2026-06-01 13:00:00 + 1h / 1s".parse().unwrap());
        specification.set_token(Some(fresh(2)));
        component.handle(&me, specification.into(), fresh(9), time(NOON));
        let interrupt = Interrupt::token_only("measure", fresh(2));
        let reply = component.handle(&me, interrupt.into(), fresh(9), time(NOON));
        let Message::Result(result) = reply.message else { panic!("it has ended") };
        assert_eq!(result.table().rows(), 0);
        assert!(matches!(component.poll_action(), Some(Action::Deliver { .. })));
        assert_eq!(component.poll_timeout(), None);
    }

    #[test]
    fn refusals_name_the_reason() {
        let (mut component, specification) = component();
        let mut refused = |change: &dyn Fn(&mut Specification)| {
            let mut specification = specification.clone();
            change(&mut specification);
            let reply = component.handle(
                &client("a"),
                specification.into(),
                fresh(7),
                time(NOON),
            );
            let Message::Exception(exception) = reply.message else {
                panic!("it is refused");
            };
            assert!(exception.token().is_some());
            exception.message().to_owned()
        };
        assert_eq!(
            refused(&|s| s.set_when("2020-01-01 + 5s / 1s".parse().unwrap())),
            "the specification does not fulfil capability ping-detail-ip4: its temporal \
             scope does not follow the capability's, now ... future / 1s"
        );
        assert_eq!(
            refused(&|s| s.set_when(
                "repeat now ... future / 1h { now + 5s / 1s }".parse().unwrap()
            )),
            "this component runs no repeated scopes; send a simple one"
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
            component.job_ended(reply.pending.unwrap(), measured(&specification));
        }
        assert_eq!(component.jobs.len(), limits::FINISHED_JOBS);
        assert_eq!(component.by_token.len(), limits::FINISHED_JOBS);
        assert_eq!(component.active_jobs(), 0);
    }
}
