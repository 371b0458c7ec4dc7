//! What is kept of jobs that have ended, for those who ask for it again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::{Action, ComponentExchange, JobId, JobState, Record};
use crate::access::Identity;
use crate::limits;
use crate::message::Message;

/// Jobs that have ended, in the order of forgetting them.
#[derive(Debug, Default)]
pub(super) struct Finished {
    /// What their owners have goes first, then the oldest.
    order: BTreeSet<(IsMissed, Timestamp, JobId)>,
    jobs: BTreeMap<JobId, Entry>,
    /// Values in all of them.
    pub(super) values: usize,
    /// How long they are kept; `None` for ever.
    max_age: Option<Duration>,
}

/// Whether the owner would miss it: is not known to have it.
type IsMissed = bool;

/// A job that has ended.
#[derive(Clone, Copy, Debug)]
struct Entry {
    is_missed: IsMissed,
    finished: Timestamp,
    values: usize,
}

impl Finished {
    /// Returns the number of jobs.
    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Adds a job.
    fn add(&mut self, id: JobId, entry: Entry) {
        self.values += entry.values;
        self.order.insert((entry.is_missed, entry.finished, id));
        self.jobs.insert(id, entry);
    }

    /// Removes a job.
    pub(super) fn remove(&mut self, id: JobId) {
        let Some(entry) = self.jobs.remove(&id) else { return };
        self.values -= entry.values;
        self.order.remove(&(entry.is_missed, entry.finished, id));
    }

    /// Takes note that the owner of a job has its result.
    fn told(&mut self, id: JobId) {
        if let Some(mut entry) = self.jobs.get(&id).copied() {
            self.remove(id);
            entry.is_missed = false;
            self.add(id, entry);
        }
    }

    /// Returns the job to be forgotten first.
    fn first(&self) -> Option<JobId> {
        self.order.first().map(|(_, _, id)| *id)
    }

    /// Returns the oldest job.
    fn oldest(&self) -> Option<(Timestamp, JobId)> {
        let of = |is_missed| {
            let from = (is_missed, Timestamp::MIN, JobId(0));
            let first = self.order.range(from..).next();
            first.filter(|first| first.0 == is_missed).map(|first| (first.1, first.2))
        };
        of(false).into_iter().chain(of(true)).min()
    }

    /// Returns when the oldest job has become too old, UTC.
    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        self.oldest()?.0.checked_add(self.max_age?).ok()
    }

    /// Says whether there are more than are kept. The latest result stays, of whatever
    /// size.
    fn is_over(&self) -> bool {
        self.len() > limits::FINISHED_JOBS
            || self.values > limits::FINISHED_VALUES && self.len() > 1
    }
}

impl ComponentExchange {
    /// Sets how long results and exceptions are kept; without it, which is the default,
    /// until others take their place.
    pub const fn set_max_age(&mut self, age: Duration) {
        self.finished.max_age = Some(age);
    }

    /// Takes note that who asked for a job has its result.
    pub fn job_delivered(&mut self, id: JobId) {
        if let Some(job) = self.jobs.get_mut(&id)
            && let JobState::Finished { is_delivered, .. } = &mut job.state
        {
            *is_delivered = true;
            self.finished.told(id);
            self.persist(Record::Delivered { job: id });
        }
    }

    /// Returns the results that a peer asked for and is not known to have.
    pub fn undelivered(
        &self,
        owner: &Identity,
    ) -> impl Iterator<Item = (JobId, &Message)> {
        self.jobs.iter().filter_map(move |(id, job)| match &job.state {
            JobState::Finished { message, is_delivered: false }
                if job.owner == *owner =>
            {
                Some((*id, message.as_ref()))
            }
            _ => None,
        })
    }

    /// Keeps the result or exception of a job, and has it delivered.
    pub(super) fn finish(&mut self, id: JobId, message: Message, now: Timestamp) {
        if self.jobs.contains_key(&id) {
            self.persist(Record::Finished {
                job: id,
                message: Box::new(message.clone()),
                finished: now,
            });
            self.keep_finished(id, message, false, now);
        }
    }

    /// Keeps what is written down as the result or exception of a job.
    pub(super) fn keep_finished(
        &mut self,
        id: JobId,
        message: Message,
        is_delivered: bool,
        finished: Timestamp,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if let JobState::Repeating(repetition) = &job.state {
            self.repeat_results -= repetition.len();
        }
        let values = message.value_count();
        job.state =
            JobState::Finished { message: Box::new(message.clone()), is_delivered };
        if let Some(deadline) = job.deadline.take() {
            self.deadlines.remove(&(deadline, id));
        }
        if !is_delivered {
            self.actions.push_back(Action::Deliver {
                job: id,
                owner: job.owner.clone(),
                specification: Box::new(job.specification.clone()),
                message: Box::new(message),
            });
        }
        self.finished.add(id, Entry { is_missed: !is_delivered, finished, values });
        while self.finished.is_over() {
            self.forget_first("too many results are kept");
        }
    }

    /// Takes note that the owner of a job has asked for its result and was answered. It
    /// may have been lost on the way, so it stays; others are kept rather.
    pub(super) fn job_redeemed(&mut self, id: JobId) {
        self.finished.told(id);
    }

    /// Forgets a result so that there is room for others: one that its owner has or, if
    /// they may be forgotten too, one that its owner is not known to have. Says whether
    /// there was any.
    pub fn make_room(&mut self, is_missed_too: bool) -> bool {
        let first = self.finished.order.first();
        first.is_some_and(|(is_missed, ..)| is_missed_too || !is_missed)
            && self.forget_first("there was no room for it any more")
    }

    /// Accepts nothing new, and says why, until it is called with `None`.
    pub fn set_full(&mut self, reason: Option<String>) {
        self.full = reason;
    }

    /// Forgets what has become too old.
    pub(super) fn forget_old(&mut self, now: Timestamp) {
        while self.finished.poll_timeout().is_some_and(|timeout| timeout <= now)
            && let Some((_, oldest)) = self.finished.oldest()
        {
            self.forget(oldest, "it has become too old");
        }
    }

    /// Forgets the job that is to be forgotten first; says whether there was one.
    fn forget_first(&mut self, reason: &'static str) -> bool {
        let first = self.finished.first();
        first.map(|id| self.forget(id, reason)).is_some()
    }

    /// Forgets a job that has ended.
    fn forget(&mut self, id: JobId, reason: &'static str) {
        self.persist(Record::Forgotten { job: id, reason });
        self.remove(id);
    }
}
