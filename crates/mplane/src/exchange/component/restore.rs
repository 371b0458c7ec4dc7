//! A component goes on after a restart with what it had written down.

use jiff::Timestamp;

use super::access::Refused;
use super::{ComponentExchange, Cut, Job, JobState, Outcome, Repetition, Saved};
use crate::access::CapabilityName;
use crate::message::Exception;

impl ComponentExchange {
    /// Goes on with what was written down. Deliveries that are outstanding are made; jobs
    /// whose service ran are returned: what became of them is the driver's to say.
    pub fn restore(&mut self, mut saved: Vec<Saved>, now: Timestamp) -> Vec<Cut> {
        saved.sort_by_key(|saved| saved.job);
        self.last_job = saved.last().map_or(self.last_job, |last| last.job.0);
        let mut cut = Vec::new();
        for saved in saved {
            self.restore_one(saved, now, &mut cut);
        }
        let repeating: Vec<_> = self
            .jobs
            .iter()
            .filter(|(_, job)| matches!(job.state, JobState::Repeating(_)))
            .map(|(id, _)| *id)
            .collect();
        for id in repeating {
            self.repeat(id, now);
        }
        cut
    }

    /// Goes on with one job. A repeated job comes before its measurements.
    fn restore_one(&mut self, saved: Saved, now: Timestamp, cut: &mut Vec<Cut>) {
        let Saved {
            job: id,
            parent,
            owner,
            specification,
            capability,
            accepted,
            started,
            ..
        } = saved;
        if let Some(parent) = parent
            && let Some(message) = saved.finished
        {
            self.keep_result(parent, Some(id), message);
            return;
        }
        let token = specification.token();
        let service = self.service_for(None, &specification, accepted);
        let delays = specification.delays(accepted);
        let after = |delay| accepted.checked_add(delay).ok();
        let end = match parent {
            Some(_) => specification.when().bounds(accepted).end,
            None => delays.as_ref().and_then(|delays| delays.end).and_then(after),
        };
        let state = match Repetition::resume(&specification, accepted, now, self.pace()) {
            Some(repetition) => JobState::Repeating(Box::new(repetition)),
            None if started.is_some() => JobState::Running,
            None => JobState::Waiting,
        };
        let is_waiting = matches!(state, JobState::Waiting);
        let is_definite = specification.when().is_definite();
        let offer = service.as_ref().ok().and_then(|service| self.offers.get(service));
        let capability =
            capability.or_else(|| Some(CapabilityName::of(&offer?.capability)));
        let job = Job {
            owner: owner.clone(),
            specification,
            accepted,
            capability,
            service: service.as_ref().ok().copied(),
            state,
            end,
            deadline: None,
            parent,
        };
        self.insert(id, job);
        if parent.is_none() {
            self.by_token.insert((token.clone(), owner), id);
        } else if let Some(repetition) = parent.and_then(|parent| self.repetition(parent))
        {
            repetition.started(id);
        }
        if let Some(message) = saved.finished {
            let finished = saved.finished_at.unwrap_or(now);
            self.keep_finished(id, message, saved.is_delivered, finished);
        } else if let Err(Refused { reason, .. }) = service {
            let reason = format!("after a restart of this component: {reason}");
            self.finish(id, Exception::new(Some(token), reason).into(), now);
        } else if let Some(started) = started {
            cut.push(Cut { job: id, started, table: saved.table });
        } else if is_waiting {
            let start = delays.and_then(|delays| after(delays.start));
            // What is relative and has not started waited for its place.
            if is_definite && end.is_some_and(|end| end < now) {
                let reason = "this component was not running during the temporal scope";
                let outcome = Outcome::Failed(reason.into());
                self.job_ended(id, outcome, now);
            } else {
                self.look_again(id, Some(start.unwrap_or(now).max(now)));
            }
        }
    }
}
