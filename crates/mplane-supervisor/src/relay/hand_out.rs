//! Which hand-outs are made again, and when.

use std::time::Duration;

use mplane::access::Identity;

use super::Shared;
use crate::directory::Component;
use crate::pattern::matches;

/// How long a hand-out may stay without an answer before it is made again: our components
/// answer at once, and start nothing twice.
const LEASE: Duration = Duration::from_secs(10);

/// What the operator has set for some components.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandOut {
    /// A pattern of their identities, in which `*` stands for any text.
    pub components: String,
    /// How long a hand-out may stay without an answer before it is made again; `None` if it is
    /// never made again.
    pub lease: Option<Duration>,
}

impl Shared {
    /// Returns how long a hand-out to a component may stay without an answer before it is made
    /// again; `None` if it is made once. What is not set depends on whether the component
    /// starts a specification twice that it gets twice, as references do.
    pub(super) fn lease(
        &self,
        identity: &Identity,
        component: &Component,
    ) -> Option<Duration> {
        let by_default = || component.starts_nothing_twice().then_some(LEASE);
        if self.limits.hand_outs.is_empty() {
            return by_default();
        }
        let name = identity.to_string();
        let set =
            self.limits.hand_outs.iter().find(|set| matches(&set.components, &name));
        set.map_or_else(by_default, |set| set.lease)
    }
}
