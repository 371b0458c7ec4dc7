//! Who may see and use what, and which service a specification is for: the one place where
//! the component asks its policy.

use jiff::Timestamp;

use super::{ComponentExchange, JobId, ServiceIndex, without_serial};
use crate::access::{CapabilityName, Identity, Policy, Withheld};
use crate::message::{Capability, Specification};

/// The answer to a specification that fits nothing.
const NO_CAPABILITY: &str =
    "no capability of this component has these parameters and result columns";

/// The answer to a specification that fits nothing which the peer may use.
const NOTHING_PERMITTED: &str = "this component has no capability that you may use with \
     these parameters and result columns; its operator grants access";

/// Why a specification is not accepted.
pub(super) struct Refused {
    /// What the peer is told.
    pub(super) reason: String,
    /// What the policy withheld.
    pub(super) withheld: Option<Withheld>,
}

impl ComponentExchange {
    /// Sets who may use which capability from now on. Measurements that run go on.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Returns who may use which capability.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Returns the capabilities that a peer may use.
    pub fn capabilities_for(&self, peer: &Identity) -> impl Iterator<Item = &Capability> {
        let all = self.capabilities().map(|(_, known)| known);
        all.filter(|known| self.permit(peer, known).is_ok())
    }

    /// Says whether a peer may see and use a capability, and what it has come of. All
    /// that peers ask for comes by here.
    pub(super) fn permit(
        &self,
        peer: &Identity,
        capability: &Capability,
    ) -> Result<(), Withheld> {
        if !self.policy.is_restricting() {
            return Ok(());
        }
        self.policy.permit(peer, &CapabilityName::of(capability))
    }

    /// Finds the service for a specification among those that a peer may use, or among
    /// all: one with the capability that its label names or, if it names none, any whose
    /// capability it fulfils.
    pub(super) fn service_for(
        &self,
        peer: Option<&Identity>,
        specification: &Specification,
        now: Timestamp,
    ) -> Result<ServiceIndex, Refused> {
        let named = |capability: &Capability| {
            let label = specification.label().unwrap_or_default();
            capability.label().is_some_and(|known| known == without_serial(label))
        };
        let may = |capability: &Capability| {
            peer.is_none_or(|peer| self.permit(peer, capability).is_ok())
        };
        let known = self.capabilities().filter(|(_, known)| may(known));
        let (named_ones, others): (Vec<_>, Vec<_>) =
            known.partition(|(_, known)| named(known));
        let mut refusal = None;
        // A label that names something decides: it tells equal schemas apart.
        for (index, capability) in if named_ones.is_empty() { others } else { named_ones }
        {
            match specification.fulfills(capability, now) {
                Ok(()) => return Ok(index),
                Err(reason) if named(capability) => {
                    refusal = Some(format!(
                        "the specification does not fulfil capability {}: {reason}",
                        capability.label().unwrap_or_default()
                    ));
                }
                Err(_) => {}
            }
        }
        let Some(peer) = peer.filter(|_| self.policy.is_restricting()) else {
            let reason = refusal.unwrap_or_else(|| NO_CAPABILITY.into());
            return Err(Refused { reason, withheld: None });
        };
        // What is withheld and what is not there are answered alike.
        let reason = refusal.unwrap_or_else(|| NOTHING_PERMITTED.into());
        let withheld = self.service_for(None, specification, now).ok();
        let withheld = withheld.and_then(|service| self.offers.get(&service));
        let withheld = withheld.and_then(|it| self.permit(peer, &it.capability).err());
        Err(Refused { reason, withheld })
    }

    /// Says whether a peer may still use the capability that a job is of.
    pub(super) fn permit_job(
        &self,
        peer: &Identity,
        job: JobId,
    ) -> Result<(), Option<Withheld>> {
        let job = self.jobs.get(&job);
        match job.and_then(|job| job.capability.as_ref()) {
            Some(capability) => self.policy.permit(peer, capability).map_err(Some),
            // What has no name is in no rule.
            None if self.policy.is_restricting() => Err(None),
            None => Ok(()),
        }
    }
}
