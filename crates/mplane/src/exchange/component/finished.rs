//! What is kept of jobs that have ended, for those who ask for it again.

use super::{Action, ComponentExchange, JobId, JobState, Record};
use crate::access::Identity;
use crate::limits;
use crate::message::Message;

impl ComponentExchange {
    /// Takes note that who asked for a job has its result.
    pub fn job_delivered(&mut self, id: JobId) {
        if let Some(job) = self.jobs.get_mut(&id)
            && let JobState::Finished { is_delivered, .. } = &mut job.state
        {
            *is_delivered = true;
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
    pub(super) fn finish(&mut self, id: JobId, message: Message) {
        if self.jobs.contains_key(&id) {
            self.persist(Record::Finished {
                job: id,
                message: Box::new(message.clone()),
            });
            self.keep_finished(id, message, false);
        }
    }

    /// Keeps what is written down as the result or exception of a job.
    pub(super) fn keep_finished(
        &mut self,
        id: JobId,
        message: Message,
        is_delivered: bool,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        self.finished_values += message.value_count();
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
        self.finished.push_back(id);
        while (self.finished.len() > limits::FINISHED_JOBS
            || self.finished_values > limits::FINISHED_VALUES)
            // The latest result stays, of whatever size.
            && self.finished.len() > 1
            && let Some(oldest) = self.finished.pop_front()
        {
            self.forget(oldest);
        }
    }

    /// Forgets a job that has ended.
    pub(super) fn forget(&mut self, id: JobId) {
        self.persist(Record::Forgotten { job: id });
        self.remove(id);
    }
}
