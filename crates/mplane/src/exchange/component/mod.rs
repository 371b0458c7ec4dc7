//! A component: capabilities offered, specifications accepted, results kept.

mod access;
#[cfg(test)]
mod access_tests;
mod budget;
mod finished;
mod offers;
#[cfg(test)]
mod offers_tests;
mod record;
mod repetition;
mod restore;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::{self, Display};
use std::num::NonZeroUsize;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::access::{CapabilityName, Identity, Policy, Withheld};
use crate::limits;
use crate::message::{
    Capability, Exception, Message, Receipt, ResultStatement, Specification, Table,
};
use crate::primitive::Value;
use crate::registry::Element;
use crate::token::Token;
use crate::when::When;

use budget::Places;
pub use budget::{Budget, Concurrency, WhenBusy};
use finished::Finished;
use offers::Offer;
pub use record::{Cut, Record, Saved};
use repetition::Repetition;

/// How long after the end of its scope a service may still run.
const SCOPE_GRACE: SignedDuration = SignedDuration::from_secs(limits::SCOPE_GRACE_S);

/// Jobs looked at in one go when their time has come.
const DUE_AT_ONCE: usize = 32;

/// A component, without its services: those are the driver's.
#[derive(Debug, Default)]
pub struct ComponentExchange {
    offers: BTreeMap<ServiceIndex, Offer>,
    next_service: ServiceIndex,
    /// Capabilities that were withdrawn, the latest last, for those who still ask.
    withdrawn: VecDeque<Capability>,
    /// Who may use which of them.
    policy: Policy,
    /// How many results repeats keep; `None`: as many as the limit allows.
    max_results: Option<NonZeroUsize>,
    /// Over how much time starts are spread.
    spread: Duration,
    /// Why nothing new is accepted; `None` if it is.
    full: Option<String>,
    jobs: BTreeMap<JobId, Job>,
    /// Tokens are names between two peers, never global. They come first because they
    /// differ, and identities mostly do not.
    by_token: BTreeMap<(Token, Identity), JobId>,
    /// How many jobs are measurements of repeats.
    measurements: usize,
    /// How many results all repeats keep together.
    repeat_results: usize,
    /// When a job starts or its scope ends, UTC.
    deadlines: BTreeSet<(Timestamp, JobId)>,
    places: Places,
    finished: Finished,
    actions: VecDeque<Action>,
    last_job: u64,
}

/// Names an accepted specification within one component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(u64);

impl JobId {
    /// Makes the name of a job that was written down.
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// Returns the number, to be written down.
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names a capability, and the service behind it, within one run of a component: its
/// position in the order of [`ComponentExchange::offer`].
pub type ServiceIndex = usize;

/// An accepted specification.
#[derive(Debug)]
struct Job {
    owner: Identity,
    specification: Specification,
    /// When it was accepted, UTC.
    accepted: Timestamp,
    /// What the capability was called that it was accepted for; `None` if that is not
    /// known any more.
    capability: Option<CapabilityName>,
    /// `None` if it was accepted for what is not offered any more.
    service: Option<ServiceIndex>,
    state: JobState,
    /// When the temporal scope ends, UTC.
    end: Option<Timestamp>,
    /// When it is next looked at, UTC: to start it, or to stop it if it does not end.
    deadline: Option<Timestamp>,
    /// The repeated job of which this is one measurement.
    parent: Option<JobId>,
}

impl Job {
    /// Returns until when it may run: a little longer than its scope lasts.
    fn limit(&self) -> Option<Timestamp> {
        self.end.and_then(|end| end.checked_add(SCOPE_GRACE).ok())
    }

    /// Counts a relative scope from now: who asks for so long gets so long, however late
    /// it starts. What is asked about the past is asked for now.
    fn count_from(&mut self, now: Timestamp) {
        let when = self.specification.when();
        if when.is_definite() && self.specification.is_schedulable() {
            return;
        }
        self.end = match self.specification.delays(now) {
            Some(delays) => delays.end.and_then(|delay| now.checked_add(delay).ok()),
            None => when.bounds(now).end,
        };
    }

    /// Says whether its service runs or has run.
    const fn has_begun(&self) -> bool {
        matches!(self.state, JobState::Running | JobState::Finished { .. })
    }
}

/// How far a job is.
#[derive(Debug)]
enum JobState {
    /// Its temporal scope has not started.
    Waiting,
    /// It was due at a time, and there is no place for it yet.
    Queued { due: Timestamp },
    /// Its service runs.
    Running,
    /// Its measurements start one after the other, as jobs of their own.
    Repeating(Box<Repetition>),
    /// Its result or exception is there.
    Finished {
        message: Box<Message>,
        /// Whether who asked for it is known to have it.
        is_delivered: bool,
    },
}

/// What the driver is to do.
#[derive(Debug)]
pub enum Action {
    /// Write something down, before any later action and before the reply.
    Persist(Record),
    /// Start the service.
    Start {
        /// The job to report about.
        job: JobId,
        /// Which service.
        service: ServiceIndex,
        /// What to do.
        specification: Box<Specification>,
        /// When it was to start, UTC.
        due: Timestamp,
        /// How long the temporal scope lasts from now on; `None` without end.
        duration: Option<Duration>,
        /// Whether it must be written down before. A measurement of a repeat need not: none
        /// is repeated after a restart, and it is to start when it is due.
        is_after_record: bool,
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
    /// What the policy withheld, to be logged; the message does not tell it.
    pub withheld: Option<Withheld>,
}

impl Reply {
    /// Makes an answer that is final.
    fn finally(message: impl Into<Message>) -> Self {
        Self { message: message.into(), pending: None, withheld: None }
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
            Message::Redemption(redemption) => {
                self.state_of(from, redemption.token(), now)
            }
            Message::Interrupt(interrupt) => {
                let token = interrupt.token();
                if let Some(job) = self.by_token.get(&(token.clone(), from.clone()))
                    && self.permit_job(from, *job).is_ok()
                {
                    self.stop(*job, now);
                }
                self.state_of(from, token, now)
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
    pub fn job_ended(&mut self, id: JobId, outcome: Outcome, now: Timestamp) {
        let Some(job) = self.jobs.get(&id) else { return };
        if matches!(job.state, JobState::Finished { .. }) {
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
        match job.parent {
            None => {
                self.finish(id, message, now);
                self.free_place(id, now);
            }
            Some(parent) => {
                self.persist(Record::Finished {
                    job: id,
                    message: Box::new(message.clone()),
                    finished: now,
                });
                self.remove(id);
                self.free_place(id, now);
                let Some(repetition) = self.repetition(parent) else { return };
                repetition.ended(id);
                self.keep_result(parent, Some(id), message);
                self.conclude_if_over(parent, now);
            }
        }
    }

    /// Takes an acceptance back that could not be written down: it was never promised.
    pub fn take_back(&mut self, id: JobId, now: Timestamp) {
        let measurements: Vec<_> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.parent == Some(id))
            .map(|(measurement, _)| *measurement)
            .collect();
        for id in measurements.into_iter().chain([id]) {
            self.remove(id);
            self.free_place(id, now);
        }
    }

    /// Writes something down.
    fn persist(&mut self, record: Record) {
        self.actions.push_back(Action::Persist(record));
    }

    /// Returns the next thing to do. Call it after every `handle…` and `job_ended` until
    /// there is nothing.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Returns when to call [`handle_timeout`](Self::handle_timeout), UTC.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let deadline = self.deadlines.first().map(|(deadline, _)| *deadline);
        deadline.into_iter().chain(self.finished.poll_timeout()).min()
    }

    /// Starts jobs whose time has come, and stops those that have not ended with their
    /// scope: some of them, so that the first need not wait for the last. The timeout of the
    /// others has passed then.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        for _ in 0..DUE_AT_ONCE {
            let Some(&(deadline, id)) = self.deadlines.first() else { break };
            if deadline > now {
                break;
            }
            self.deadlines.pop_first();
            match self.jobs.get(&id).map(|job| &job.state) {
                Some(JobState::Waiting) => self.start(id, deadline, now),
                Some(JobState::Running) => {
                    self.actions.push_back(Action::Stop { job: id });
                }
                Some(JobState::Queued { .. }) => {
                    let reason = "missed: other measurements took its place until its \
                                  temporal scope was over";
                    self.job_ended(id, Outcome::Failed(reason.into()), now);
                }
                Some(JobState::Repeating(_)) => self.repeat(id, now),
                Some(JobState::Finished { .. }) | None => {}
            }
        }
        self.forget_old(now);
    }

    /// Says whether a job waits or runs.
    pub fn is_active(&self, id: JobId) -> bool {
        let job = self.jobs.get(&id);
        job.is_some_and(|job| !matches!(job.state, JobState::Finished { .. }))
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
        if let Some(id) = self.by_token.get(&(token.clone(), from.clone())).copied() {
            let reply = self.state_of(from, &token, now);
            // Who sends it once more does not know that it is here. What a repeat has yielded
            // so far is for who redeems: others would take it for all.
            return match (reply.pending, self.jobs.get(&id)) {
                (Some(_), Some(job)) => {
                    let message = Receipt::of(&job.specification).into();
                    Reply { message, ..reply }
                }
                _ => reply,
            };
        }
        specification.set_token(Some(token.clone()));
        let service = match self.service_for(Some(from), &specification, now) {
            Ok(service) => service,
            Err(refused) => {
                if let Some(withdrawal) = self.withdrawal_for(from, &specification, now) {
                    return Reply::finally(withdrawal);
                }
                let mut reply = Reply::exception(Some(token), refused.reason);
                reply.withheld = refused.withheld;
                return reply;
            }
        };
        let budget = self.budget(service);
        if let Err(reason) = budget.check(specification.when(), now) {
            return Reply::exception(Some(token), reason);
        }
        let Some(delays) = specification.delays(now) else {
            return Reply::exception(
                Some(token),
                format!(
                    "the temporal scope {} ended before {}",
                    specification.when(),
                    crate::when::display_timestamp(now)
                ),
            );
        };
        // Measurements of repeats have a limit of their own: repeats must have room to measure.
        let held = self.active_jobs() - self.measurements;
        if held >= limits::JOBS {
            return Reply::exception(
                Some(token),
                format!(
                    "this component holds {held} jobs, as many as it takes; try again later"
                ),
            );
        }
        if let Some(reason) = &self.full {
            return Reply::exception(Some(token), reason.clone());
        }
        let state = match Repetition::of(&specification, now, self.pace()) {
            Some(repetition) => JobState::Repeating(Box::new(repetition)),
            None => JobState::Waiting,
        };
        let is_repeating = matches!(state, JobState::Repeating(_));
        if delays.start.is_zero()
            && !is_repeating
            && budget.when_busy == WhenBusy::Refuse
            && self.is_busy(service)
        {
            return Reply::exception(Some(token), budget::busy(budget.concurrency));
        }
        let capability =
            self.offers.get(&service).map(|o| CapabilityName::of(&o.capability));
        let written = Box::new(specification.clone());
        let job = Job {
            owner: from.clone(),
            specification,
            accepted: now,
            capability: capability.clone(),
            service: Some(service),
            state,
            end: delays.end.and_then(|delay| now.checked_add(delay).ok()),
            deadline: None,
            parent: None,
        };
        let id = self.add(job);
        self.by_token.insert((token.clone(), from.clone()), id);
        self.persist(Record::Accepted {
            job: id,
            parent: None,
            owner: from.clone(),
            specification: written,
            capability,
            accepted: now,
        });
        if is_repeating {
            self.repeat(id, now);
        } else if delays.start.is_zero() {
            self.start(id, now, now);
        } else {
            self.look_again(id, now.checked_add(delays.start).ok());
        }
        self.state_of(from, &token, now)
    }

    /// Adds a job.
    fn add(&mut self, job: Job) -> JobId {
        self.last_job += 1;
        let id = JobId(self.last_job);
        self.insert(id, job);
        id
    }

    /// Inserts a job under a name.
    fn insert(&mut self, id: JobId, job: Job) {
        self.measurements += usize::from(job.parent.is_some());
        self.jobs.insert(id, job);
    }

    /// Sets when a job is next looked at.
    fn look_again(&mut self, id: JobId, deadline: Option<Timestamp>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if let Some(before) = std::mem::replace(&mut job.deadline, deadline) {
            self.deadlines.remove(&(before, id));
        }
        self.deadlines.extend(deadline.map(|deadline| (deadline, id)));
    }

    /// Starts a job's service that was due at a time. If the scope is over, because the
    /// clock was set meanwhile or nobody looked for so long, it fails with that reason.
    fn start(&mut self, id: JobId, due: Timestamp, now: Timestamp) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Some(service) = job.service else { return };
        job.count_from(now);
        if job.limit().is_some_and(|limit| limit < now) {
            let reason = format!(
                "missed: the temporal scope {} was over when it was to start, by the clock \
                 of this component",
                job.specification.when()
            );
            self.job_ended(id, Outcome::Failed(reason), now);
            return;
        }
        if self.take_place(id, service, due, now) {
            self.run(id, due, now);
        }
    }

    /// Runs a job's service.
    fn run(&mut self, id: JobId, due: Timestamp, now: Timestamp) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Some(service) = job.service else { return };
        job.count_from(now);
        job.state = JobState::Running;
        let limit = job.limit();
        let duration =
            job.end.map(|end| end.duration_since(now).try_into().unwrap_or_default());
        let start = Action::Start {
            job: id,
            service,
            specification: Box::new(job.specification.clone()),
            due,
            duration,
            is_after_record: job.parent.is_none(),
        };
        self.persist(Record::Started { job: id, started: now });
        self.actions.push_back(start);
        self.look_again(id, limit);
    }

    /// Stops a job: one that runs reports what it has, one that waits has nothing.
    fn stop(&mut self, id: JobId, now: Timestamp) {
        let Some(job) = self.jobs.get(&id) else { return };
        match job.state {
            JobState::Running => self.actions.push_back(Action::Stop { job: id }),
            JobState::Waiting | JobState::Queued { .. } => {
                let outcome = Outcome::Measured {
                    when: When::at(now),
                    table: Table::new(job.specification.columns()),
                    metadata: Vec::new(),
                };
                self.job_ended(id, outcome, now);
            }
            JobState::Repeating(_) => {
                let Some(repetition) = self.repetition(id) else { return };
                for running in repetition.stop() {
                    self.actions.push_back(Action::Stop { job: running });
                }
                self.look_again(id, None);
                self.conclude_if_over(id, now);
            }
            JobState::Finished { .. } => {}
        }
    }

    /// Answers with what there is: the result, the results so far, or a receipt.
    fn state_of(&mut self, from: &Identity, token: &Token, now: Timestamp) -> Reply {
        let job = self.by_token.get(&(token.clone(), from.clone())).copied();
        if let Some(id) = job
            && let Err(withheld) = self.permit_job(from, id)
        {
            let text = format!(
                "you may not use the capability of the specification with token {token} \
                 any more"
            );
            let mut reply = Reply::exception(Some(token.clone()), text);
            reply.withheld = withheld;
            return reply;
        }
        match job.and_then(|id| Some((id, self.jobs.get(&id)?))) {
            None => Reply::exception(
                Some(token.clone()),
                format!("no specification of yours has token {token}"),
            ),
            Some((id, Job { state: JobState::Finished { message, .. }, .. })) => {
                let message = Message::clone(message);
                self.job_redeemed(id);
                Reply::finally(message)
            }
            Some((id, job)) => {
                let so_far = match &job.state {
                    JobState::Repeating(repetition) => {
                        repetition.so_far(&job.specification, now)
                    }
                    _ => None,
                };
                let message = match so_far {
                    Some(results) => results.into(),
                    None => Receipt::of(&job.specification).into(),
                };
                Reply { message, pending: Some(id), withheld: None }
            }
        }
    }

    /// Removes a job from memory.
    fn remove(&mut self, id: JobId) {
        let Some(job) = self.jobs.remove(&id) else { return };
        self.finished.remove(id);
        self.measurements -= usize::from(job.parent.is_some());
        if let JobState::Repeating(repetition) = &job.state {
            self.repeat_results -= repetition.len();
        }
        if let Some(deadline) = job.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        // The measurements of a repeat have the token of the whole.
        if job.parent.is_none() {
            self.by_token.remove(&(job.specification.token(), job.owner));
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
