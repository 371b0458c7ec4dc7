//! Who may offer, see and use what: the one place where the relay asks its policy.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use mplane::access::{CapabilityName, Identity, Policy, Withheld};
use mplane::message::{Capability, Specification};

use super::{Limits, Relay, Reply, Shared, exception};
use crate::directory::{ChooseError, Component, May};
use crate::store::{Known, Offered};

/// The answer to a specification that fits nothing which the client may use.
const NOTHING_PERMITTED: &str = "no capability that you may use here has these parameters \
     and result columns; the operator of this supervisor grants access";

impl Relay {
    /// Sets who may offer and use which capability from now on. What is on its way goes on.
    pub fn set_policy(&self, policy: Policy) {
        self.shared().policy = policy;
        self.offers_changed();
    }

    /// Sets what else holds from now on.
    pub fn set_limits(&self, limits: Limits) {
        let mut shared = self.shared();
        shared.directory.set_expiry(limits.expiry);
        shared.limits = limits;
    }

    /// Says whether a client may still use the capability of a specification. One for many
    /// components is of none of them.
    pub(crate) fn permit_known(
        &self,
        client: &Identity,
        known: &Known,
    ) -> Result<(), Withheld> {
        let shared = self.shared();
        if known.is_whole {
            return shared.policy.permit(client, &known.capability);
        }
        shared.permit(client, &known.component, &known.capability)
    }

    /// Returns what a client may use with the component that offers it: at most so much.
    pub fn offers_by_component(
        &self,
        client: &Identity,
        most: usize,
        now: Timestamp,
    ) -> Vec<(Identity, Arc<Capability>)> {
        let shared = self.shared();
        let may = shared.may(client);
        let offers = shared.directory.all(&may, now);
        offers.take(most).map(|choice| (choice.component, choice.capability)).collect()
    }

    /// Says whether a component offers something under a label that a client may use.
    pub fn is_offered(
        &self,
        client: &Identity,
        component: &Identity,
        label: &str,
    ) -> bool {
        let shared = self.shared();
        let may = shared.may(client);
        let known = shared.directory.component(component);
        known.is_some_and(|known| {
            let mut offered = known.capabilities().filter(|it| it.label() == Some(label));
            offered.any(|capability| may(component, capability))
        })
    }

    /// Says whether a client may use what a component offers or has offered.
    pub fn may_use(
        &self,
        client: &Identity,
        component: &Identity,
        offered: &Offered,
    ) -> bool {
        let Ok(token) = offered.token.parse() else { return false };
        let name = CapabilityName::new(offered.label.as_deref(), token);
        self.shared().permit(client, component, &name).is_ok()
    }

    /// Returns the component of which a client may use something, by its identity as text.
    pub fn component_named(&self, client: &Identity, name: &str) -> Option<Identity> {
        let shared = self.shared();
        let may = shared.may(client);
        let mut components = shared.directory.called(name);
        let found = components.find(|(identity, known)| {
            known.capabilities().any(|capability| may(identity, capability))
        });
        found.map(|(identity, _)| identity.clone())
    }

    /// Looks at a component with what a client may use of it.
    pub fn look_at<T>(
        &self,
        client: &Identity,
        component: &Identity,
        look: impl FnOnce(&Component, SignedDuration, &May<'_>) -> T,
    ) -> Option<T> {
        let shared = self.shared();
        let known = shared.directory.component(component)?;
        Some(look(known, shared.directory.expiry(), &shared.may(client)))
    }

    /// Looks at what a client may use of the directory, by the text of the identities of the
    /// components: those after one. Gone components are there too. What `look` returns is
    /// collected until that is enough; also says whether there is more.
    pub fn look_over<T>(
        &self,
        client: &Identity,
        after: &str,
        enough: usize,
        mut look: impl FnMut(&Identity, &Component, &May<'_>) -> Option<T>,
    ) -> (Vec<T>, bool) {
        let shared = self.shared();
        let may = shared.may(client);
        let mut found =
            shared.directory.components_after(after).filter_map(|(identity, known)| {
                known.capabilities().find(|it| may(identity, it))?;
                look(identity, known, &may)
            });
        let some = found.by_ref().take(enough).collect();
        (some, found.next().is_some())
    }
}

impl Shared {
    /// Says whether a client may see and use a capability of a component, and what has
    /// come of it. All that clients ask for comes by here.
    pub(super) fn permit(
        &self,
        client: &Identity,
        component: &Identity,
        capability: &CapabilityName,
    ) -> Result<(), Withheld> {
        self.policy.permit_offer(component, capability)?;
        self.policy.permit_of(client, capability, component)
    }

    /// Returns the check whether a client may use a capability of a component.
    pub(super) fn may<'a>(
        &'a self,
        client: &'a Identity,
    ) -> impl Fn(&Identity, &Capability) -> bool + 'a {
        |component, capability| {
            // Without rules nobody needs the names of all capabilities.
            !self.policy.is_restricting()
                || self.permit(client, component, &CapabilityName::of(capability)).is_ok()
        }
    }

    /// Makes the answer to a specification for which the client may use nothing. What is
    /// withheld and what is not there are answered alike.
    pub(super) fn refuse(
        &self,
        from: &Identity,
        asked: &Specification,
        reason: &ChooseError,
        now: Timestamp,
    ) -> Reply {
        let token = asked.token();
        if !self.policy.is_restricting() {
            return exception(token, reason.to_string());
        }
        let text = match reason {
            ChooseError::Refused { .. } => reason.to_string(),
            ChooseError::NoCapability => NOTHING_PERMITTED.into(),
        };
        let mut reply = exception(token, text);
        let elsewhere = self.directory.choose(&|_, _| true, asked, now);
        reply.withheld = elsewhere.ok().and_then(|choice| {
            let capability = CapabilityName::of(&choice.capability);
            self.permit(from, &choice.component, &capability).err()
        });
        reply
    }
}
