//! A repeated job: which measurement comes next, and what the earlier ones have yielded.

use std::collections::{BTreeSet, VecDeque};
use std::num::NonZeroUsize;

use jiff::Timestamp;

use std::time::Duration;

use super::{ComponentExchange, Job, JobId, JobState, Record, SCOPE_GRACE};
use crate::limits;
use crate::message::{Envelope, Exception, Message, Specification};
use crate::when::{Bounds, Occurrence, When};

/// The state of a repeated job.
#[derive(Debug)]
pub(super) struct Repetition {
    /// The outer scope, with absolute ends where it has ends.
    outer: When,
    next: Option<Occurrence>,
    running: BTreeSet<JobId>,
    /// Results and exceptions with the measurement that yielded each, the oldest first.
    kept: VecDeque<(Option<JobId>, Message)>,
    kept_values: usize,
    /// How many are kept.
    max_results: usize,
}

/// How repeats run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// How many results each keeps.
    max_results: usize,
    /// Over how much time their starts are spread.
    spread: Duration,
}

impl Repetition {
    /// Makes the state of a specification that was accepted now; `None` if its scope is
    /// not repeated.
    pub(super) fn of(
        specification: &Specification,
        now: Timestamp,
        Pace { max_results, spread }: Pace,
    ) -> Option<Self> {
        let when = specification.when();
        if !when.is_repeated() {
            return None;
        }
        // Who says when wants it then.
        let period = when.period().filter(|_| when.is_immediate()).unwrap_or_default();
        let phase = specification.token().phase(spread.min(period));
        let outer = when.resolve(now.checked_add(phase).unwrap_or(now));
        let start = outer.bounds(now).start.map_or(now, |start| start.max(now));
        let next = outer.next_occurrence(start);
        let running = BTreeSet::new();
        let kept = VecDeque::new();
        Some(Self { outer, next, running, kept, kept_values: 0, max_results })
    }

    /// Makes the state of a specification that was accepted before a restart: the rhythm
    /// goes on as it was, from now on.
    pub(super) fn resume(
        specification: &Specification,
        accepted: Timestamp,
        now: Timestamp,
        pace: Pace,
    ) -> Option<Self> {
        let mut repetition = Self::of(specification, accepted, pace)?;
        let start = repetition.next_due()?;
        repetition.next = repetition.outer.resumed_occurrence(start, now);
        Some(repetition)
    }

    /// Returns when the next measurement starts.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.next.as_ref().map(|next| next.due)
    }

    /// Takes the scope of the measurement that is due. If several are, because nobody
    /// looked for so long, it is the last of them, and none if that is over too: what was
    /// missed cannot be measured any more.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Option<When> {
        self.next.as_ref().filter(|next| next.due <= now)?;
        let mut due = self.next.take()?;
        loop {
            let next = due.following.and_then(|from| self.outer.next_occurrence(from));
            match next {
                Some(later) if later.due <= now => due = later,
                next => {
                    self.next = next;
                    let end = due.scope.bounds(now).end;
                    let limit = end.and_then(|end| end.checked_add(SCOPE_GRACE).ok());
                    return limit.is_none_or(|limit| now <= limit).then_some(due.scope);
                }
            }
        }
    }

    /// Takes note that a measurement runs.
    pub(super) fn started(&mut self, measurement: JobId) {
        self.running.insert(measurement);
    }

    /// Takes note that a measurement does not run any more.
    pub(super) fn ended(&mut self, measurement: JobId) {
        self.running.remove(&measurement);
    }

    /// Returns the number of results and exceptions kept.
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Drops the oldest result, unless it is the only one; says whether it did.
    fn drop_oldest(&mut self, dropped: &mut Vec<JobId>) -> bool {
        if self.kept.len() < 2 {
            return false;
        }
        if let Some((measurement, message)) = self.kept.pop_front() {
            self.kept_values -= message.value_count();
            dropped.extend(measurement);
        }
        true
    }

    /// Keeps a result or exception; returns the measurements that are dropped for it.
    fn keep(&mut self, measurement: Option<JobId>, message: Message) -> Vec<JobId> {
        self.kept_values += message.value_count();
        self.kept.push_back((measurement, message));
        let mut dropped = Vec::new();
        while self.kept.len() > self.max_results
            || self.kept_values > limits::REPEAT_VALUES
        {
            // The latest result stays, of whatever size.
            if !self.drop_oldest(&mut dropped) {
                break;
            }
        }
        dropped
    }

    /// Starts nothing any more; returns what runs and is to be stopped.
    pub(super) fn stop(&mut self) -> Vec<JobId> {
        self.next = None;
        self.running.iter().copied().collect()
    }

    /// Says whether nothing runs and nothing follows.
    pub(super) fn is_over(&self) -> bool {
        self.next.is_none() && self.running.is_empty()
    }

    /// Returns the results so far; `None` if there are none. Its scope says how far that is:
    /// who asks for a repeat to its end knows that it has all when the scope ends there.
    pub(super) fn so_far(
        &self,
        specification: &Specification,
        now: Timestamp,
    ) -> Option<Envelope> {
        // Until the start of the latest: one that runs is not there yet.
        let start = |message: &Message| match message {
            Message::Result(result) => result.when().bounds(now).start,
            _ => None,
        };
        let latest = self.kept.iter().filter_map(|(_, kept)| start(kept)).max();
        let begin = self.outer.bounds(now).start.unwrap_or(now);
        self.until(specification, latest.unwrap_or(begin), now)
    }

    /// Returns the results until a time; `None` if there are none.
    fn until(
        &self,
        specification: &Specification,
        until: Timestamp,
        now: Timestamp,
    ) -> Option<Envelope> {
        if self.kept.is_empty() {
            return None;
        }
        let mut envelope =
            Envelope::of(self.kept.iter().map(|(_, kept)| kept.clone()).collect());
        envelope = envelope.with_content("result");
        envelope.set_token(Some(specification.token()));
        envelope.set_label(specification.label().map(ToOwned::to_owned));
        // Reference peers need a scope with absolute ends.
        let start = self.outer.bounds(now).start.unwrap_or(now);
        let scope = When::between(start, until);
        envelope.set_when(Some(scope.with_period(self.outer.period())));
        Some(envelope)
    }

    /// Returns what came of all of it: the results, or an exception if there are none.
    pub(super) fn conclusion(
        &self,
        specification: &Specification,
        now: Timestamp,
    ) -> Message {
        let has_result =
            self.kept.iter().any(|(_, kept)| matches!(kept, Message::Result(_)));
        let end = self.outer.bounds(now).end.unwrap_or(now);
        match (self.kept.back(), self.until(specification, end, now)) {
            (Some(_), Some(envelope)) if has_result => envelope.into(),
            (Some((_, failure)), _) => failure.clone(),
            (None, _) => Exception::new(
                Some(specification.token()),
                "the repeat ended before its first measurement",
            )
            .into(),
        }
    }
}

impl ComponentExchange {
    /// Sets how many results each repeated measurement keeps, the oldest go first. The
    /// default, and the most, is [`limits::REPEAT_RESULTS`]. It holds for what is accepted
    /// or restored from now on.
    pub const fn set_max_results(&mut self, results: Option<NonZeroUsize>) {
        self.max_results = results;
    }

    /// Returns how repeats run.
    pub(super) fn pace(&self) -> Pace {
        let most = limits::REPEAT_RESULTS;
        let max_results =
            self.max_results.map_or(most, |results| results.get().min(most));
        Pace { max_results, spread: self.spread }
    }

    /// Returns the repetition of a repeated job.
    pub(super) fn repetition(&mut self, id: JobId) -> Option<&mut Repetition> {
        match &mut self.jobs.get_mut(&id)?.state {
            JobState::Repeating(repetition) => Some(repetition),
            _ => None,
        }
    }

    /// Starts the measurements of a repeated job that are due, and looks again when the
    /// next one is.
    pub(super) fn repeat(&mut self, id: JobId, now: Timestamp) {
        while let Some(repetition) = self.repetition(id)
            && let Some(scope) = repetition.take_due(now)
        {
            if self.measurements >= limits::MEASUREMENTS {
                // What the component has no room for is reported, not forgotten.
                let word = "not started: this component holds as many jobs as it takes";
                let Some(job) = self.jobs.get(&id) else { return };
                let token = Some(job.specification.token());
                self.keep_result(id, None, Exception::new(token, word).into());
                continue;
            }
            let Some(job) = self.jobs.get(&id) else { return };
            let mut specification = job.specification.clone();
            let Bounds { start, end } = scope.bounds(now);
            let due = start.unwrap_or(now);
            specification.set_when(scope);
            let measurement = Job {
                owner: job.owner.clone(),
                specification,
                accepted: now,
                capability: job.capability.clone(),
                service: job.service,
                state: JobState::Waiting,
                end,
                deadline: None,
                parent: Some(id),
            };
            let owner = measurement.owner.clone();
            let specification = Box::new(measurement.specification.clone());
            let capability = measurement.capability.clone();
            let measurement = self.add(measurement);
            self.persist(Record::Accepted {
                job: measurement,
                parent: Some(id),
                owner,
                specification,
                capability,
                accepted: now,
            });
            if let Some(repetition) = self.repetition(id) {
                repetition.started(measurement);
            }
            self.start(measurement, due, now);
        }
        let next = self.repetition(id).and_then(|repetition| repetition.next_due());
        self.look_again(id, next);
        self.conclude_if_over(id, now);
    }

    /// Ends a repeated job when nothing runs any more and nothing follows.
    pub(super) fn conclude_if_over(&mut self, id: JobId, now: Timestamp) {
        let Some(job) = self.jobs.get(&id) else { return };
        let JobState::Repeating(repetition) = &job.state else { return };
        if repetition.is_over() {
            let message = repetition.conclusion(&job.specification, now);
            self.finish(id, message, now);
        }
    }

    /// Keeps a result or exception of a repeat. If all repeats together keep too many, it is
    /// at the cost of its own oldest one.
    pub(super) fn keep_result(
        &mut self,
        parent: JobId,
        measurement: Option<JobId>,
        message: Message,
    ) {
        let total = self.repeat_results;
        let Some(repetition) = self.repetition(parent) else { return };
        let before = repetition.len();
        let mut dropped = repetition.keep(measurement, message);
        let mut now = total - before + repetition.len();
        while now > limits::ALL_REPEAT_RESULTS && repetition.drop_oldest(&mut dropped) {
            now -= 1;
        }
        self.repeat_results = now;
        self.forget_measurements(dropped);
    }

    /// Forgets measurements of a repeat, whose results are not kept any more.
    pub(super) fn forget_measurements(&mut self, dropped: Vec<JobId>) {
        for job in dropped {
            let reason = "later results of the repeat took its place";
            self.persist(Record::Forgotten { job, reason });
        }
    }
}
