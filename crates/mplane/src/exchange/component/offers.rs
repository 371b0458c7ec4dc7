//! What a component offers: capabilities with their budgets, which come and go while it
//! runs.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Budget, ComponentExchange, JobId, JobState, Outcome, ServiceIndex, without_serial,
};
use crate::access::Identity;
use crate::limits;
use crate::message::{Capability, Exception, Specification, Withdrawal};

/// A capability with what its service may use.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) capability: Capability,
    budget: Budget,
}

impl ComponentExchange {
    /// Offers a capability whose service has a budget. Returns what the service is called
    /// from now on.
    pub fn offer(&mut self, mut capability: Capability, budget: Budget) -> ServiceIndex {
        budget.narrow(&mut capability);
        let service = self.next_service;
        self.next_service += 1;
        self.withdrawn.retain(|known| known.token() != capability.token());
        self.offers.insert(service, Offer { capability, budget });
        service
    }

    /// Withdraws a capability, and returns it. What runs goes on; what has not started is
    /// taken over by another capability that it fulfils, or ends with an exception.
    pub fn withdraw(
        &mut self,
        service: ServiceIndex,
        now: Timestamp,
    ) -> Option<Capability> {
        let Offer { capability, .. } = self.offers.remove(&service)?;
        self.withdrawn.push_back(capability.clone());
        if self.withdrawn.len() > limits::WITHDRAWN_CAPABILITIES {
            self.withdrawn.pop_front();
        }
        let bound: Vec<_> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.service == Some(service) && !job.has_begun())
            .map(|(id, _)| *id)
            .collect();
        for id in bound {
            self.bind_again(id, &capability, now);
        }
        Some(capability)
    }

    /// Finds another service for a job that has not started, or ends it.
    fn bind_again(&mut self, id: JobId, gone: &Capability, now: Timestamp) {
        let Some(job) = self.jobs.get(&id) else { return };
        let found =
            self.service_for(Some(&job.owner), &job.specification, job.accepted).ok();
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.service = found;
        match (&job.state, found) {
            // It had asked for a place of the service that is gone.
            (&JobState::Queued { due }, Some(_)) => {
                job.state = JobState::Waiting;
                self.free_place(id, now);
                self.start(id, due, now);
            }
            (_, Some(_)) => {}
            (JobState::Repeating(_), None) => {
                let token = Some(job.specification.token());
                if let Some(repetition) = self.repetition(id) {
                    repetition.stop();
                    let exception = Exception::new(token, withdrawn(gone));
                    self.keep_result(id, None, exception.into());
                    self.look_again(id, None);
                    self.conclude_if_over(id, now);
                }
            }
            (_, None) => self.job_ended(id, Outcome::Failed(withdrawn(gone)), now),
        }
    }

    /// Returns the capabilities offered, to whomever, and the services behind them.
    pub fn capabilities(&self) -> impl Iterator<Item = (ServiceIndex, &Capability)> {
        self.offers.iter().map(|(service, offer)| (*service, &offer.capability))
    }

    /// Sets what a service may use from now on.
    pub fn set_budget(&mut self, service: ServiceIndex, budget: Budget) {
        if let Some(offer) = self.offers.get_mut(&service) {
            offer.budget = budget;
        }
    }

    /// Returns what a service may use; one that is gone only finishes what runs.
    pub(super) fn budget(&self, service: ServiceIndex) -> Budget {
        self.offers.get(&service).map(|offer| offer.budget).unwrap_or_default()
    }

    /// Returns what tells a peer that the capability it asks for was withdrawn, if it was
    /// and the peer might use it.
    pub(super) fn withdrawal_for(
        &self,
        peer: &Identity,
        specification: &Specification,
        now: Timestamp,
    ) -> Option<Withdrawal> {
        let label = without_serial(specification.label().unwrap_or_default());
        let mut withdrawn = self.withdrawn.iter().rev();
        let gone = withdrawn.find(|gone| {
            let is_meant = gone.label() == Some(label) || label.is_empty();
            is_meant && specification.fulfills(gone, now).is_ok()
        })?;
        self.permit(peer, gone).ok()?;
        Some(Withdrawal::of(gone))
    }

    /// Sets over how much time the starts of repeats are spread: those that start `now`
    /// and have a period start up to so much later, each at a phase of its own, which its
    /// token decides. Zero, the default, does not spread them. At most
    /// [`limits::LONGEST_SPREAD`].
    pub fn set_spread(&mut self, spread: Duration) {
        self.spread = spread.min(limits::LONGEST_SPREAD);
    }
}

/// Says that a capability is gone.
fn withdrawn(capability: &Capability) -> String {
    let label = capability.label().unwrap_or_default();
    format!("the component has withdrawn the capability {label}")
}
