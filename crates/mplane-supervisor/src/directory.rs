//! The directory: which component offers which capability.

use std::collections::BTreeMap;

use jiff::Timestamp;
use mplane::access::Identity;
use mplane::exchange::component::without_serial;
use mplane::features::Features;
use mplane::message::{CALLBACK, Capability, Refusal, Specification};
use mplane::token::Token;

/// Components held at once: a bound on memory, far above the largest platform known.
pub const COMPONENTS: usize = 100_000;

/// Capabilities of one component.
pub const CAPABILITIES: usize = 1_000;

/// How a component writes and reads lists of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Envelopes, as the SDK does.
    Envelope,
    /// JSON arrays, as the client-supervisor-probe system does.
    Array,
}

/// A registered component.
#[derive(Clone, Debug)]
pub struct Component {
    /// What it offers, by token.
    capabilities: BTreeMap<Token, Capability>,
    /// What it understands.
    pub features: Features,
    /// How it writes lists.
    pub dialect: Dialect,
    /// When it was last heard of, UTC.
    pub last_seen: Timestamp,
}

/// Which component offers which capability.
#[derive(Debug, Default)]
pub struct Directory {
    components: BTreeMap<Identity, Component>,
}

/// A capability as clients see it: with a name that nothing else has.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Who offers it.
    pub component: Identity,
    /// It, as the component registered it.
    pub registered: Capability,
    /// It, as clients see it.
    pub shown: Capability,
}

impl Directory {
    /// Takes note of a capability. One with the same token is replaced.
    pub fn register(
        &mut self,
        from: &Identity,
        capability: Capability,
        features: Features,
        dialect: Dialect,
        now: Timestamp,
    ) -> Result<(), RegisterError> {
        let is_new = !self.components.contains_key(from);
        if is_new && self.components.len() >= COMPONENTS {
            return Err(RegisterError::Components);
        }
        let component = self.components.entry(from.clone()).or_insert_with(|| {
            Component { capabilities: BTreeMap::new(), features, dialect, last_seen: now }
        });
        component.features = features;
        component.dialect = dialect;
        component.last_seen = now;
        let token = capability.token();
        if component.capabilities.len() >= CAPABILITIES
            && !component.capabilities.contains_key(&token)
        {
            return Err(RegisterError::Capabilities);
        }
        // A label names one capability of a component: a new one under it replaces.
        if let Some(label) = capability.label() {
            component.capabilities.retain(|_, known| known.label() != Some(label));
        }
        component.capabilities.insert(token, capability);
        Ok(())
    }

    /// Takes a capability back.
    pub fn withdraw(&mut self, from: &Identity, token: &Token) {
        if let Some(component) = self.components.get_mut(from) {
            component.capabilities.remove(token);
        }
    }

    /// Returns a component, if it is registered.
    pub fn component(&self, identity: &Identity) -> Option<&Component> {
        self.components.get(identity)
    }

    /// Takes note that a component was heard of.
    pub fn seen(&mut self, identity: &Identity, now: Timestamp) {
        if let Some(component) = self.components.get_mut(identity) {
            component.last_seen = now;
        }
    }

    /// Returns the number of components.
    pub fn len(&self) -> usize {
        self.components.len()
    }

    /// Says whether no component is registered.
    pub fn is_empty(&self) -> bool {
        self.components.is_empty()
    }

    /// Returns what a client can use, of that which it may: the rest leaves no trace.
    /// Labels that several components have get the common name of the component appended,
    /// or its full identity if that is still ambiguous.
    pub fn offers(&self, may: &dyn Fn(&Identity, &Capability) -> bool) -> Vec<Offer> {
        let permitted: Vec<_> =
            self.registered().filter(|(identity, known)| may(identity, known)).collect();
        let mut labels: BTreeMap<&str, usize> = BTreeMap::new();
        let mut common: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for &(identity, capability) in &permitted {
            let label = capability.label().unwrap_or_default();
            *labels.entry(label).or_default() += 1;
            *common.entry((label, identity.common_name())).or_default() += 1;
        }
        let suffix = |identity: &Identity, label: &str| {
            if labels.get(label).is_none_or(|count| *count == 1) {
                None
            } else if common.get(&(label, identity.common_name())) == Some(&1) {
                Some(identity.common_name().to_owned())
            } else {
                Some(identity.to_string())
            }
        };
        permitted
            .iter()
            .map(|&(identity, capability)| {
                let mut shown = capability.clone();
                shown.set_link(None);
                let token = capability.token();
                let label = capability.label().unwrap_or_default();
                if let Some(suffix) = suffix(identity, label) {
                    if !label.is_empty() {
                        shown.set_label(Some(format!("{label}@{suffix}")));
                    }
                    // A name too long for a token leaves the label to tell them apart.
                    let unique = format!("{token}@{suffix}").parse().unwrap_or(token);
                    shown.set_token(Some(unique));
                } else {
                    shown.set_token(Some(token));
                }
                Offer {
                    component: identity.clone(),
                    registered: capability.clone(),
                    shown,
                }
            })
            .collect()
    }

    /// Chooses the component for a specification, of those that the client may use: one
    /// with the capability that its label names or, if it names none, any whose capability
    /// it fulfils.
    pub fn choose(
        &self,
        may: &dyn Fn(&Identity, &Capability) -> bool,
        specification: &Specification,
        now: Timestamp,
    ) -> Result<Offer, ChooseError> {
        let label = specification.label().unwrap_or_default();
        let is_named = |offer: &Offer| {
            let names = [offer.shown.label(), offer.registered.label()];
            names.into_iter().flatten().any(|n| n == label || n == without_serial(label))
        };
        let (named, others): (Vec<_>, Vec<_>) =
            self.offers(may).into_iter().partition(is_named);
        let mut refusal = ChooseError::NoCapability;
        // A label that names something decides: nobody wants the same from elsewhere.
        for offer in if named.is_empty() { others } else { named } {
            match specification.fulfills(&offer.registered, now) {
                Ok(()) => return Ok(offer),
                Err(reason) if is_named(&offer) => {
                    let label = offer.shown.label().unwrap_or_default().to_owned();
                    refusal = ChooseError::Refused { label, reason };
                }
                Err(_) => {}
            }
        }
        Err(refusal)
    }

    /// Returns the capabilities that clients may see, with who offers them. The callback
    /// capability is between components and their supervisor.
    fn registered(&self) -> impl Iterator<Item = (&Identity, &Capability)> {
        self.components.iter().flat_map(|(identity, component)| {
            component
                .capabilities
                .values()
                .filter(|known| !is_callback(known))
                .map(move |capability| (identity, capability))
        })
    }
}

/// Says whether a capability is the one by which a supervisor sets the pace of polls.
fn is_callback(capability: &Capability) -> bool {
    capability.verb() == CALLBACK || capability.label() == Some(CALLBACK)
}

/// A capability that is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// Too many components.
    #[error("this supervisor holds {COMPONENTS} components, as many as it takes")]
    Components,
    /// Too many capabilities.
    #[error("a component has at most {CAPABILITIES} capabilities")]
    Capabilities,
}

/// A specification for which there is no component.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChooseError {
    /// No capability is like it.
    #[error("no registered capability has these parameters and result columns")]
    NoCapability,
    /// The capability that it names refuses it.
    #[error("the specification does not fulfil capability {label}: {reason}")]
    Refused {
        /// The capability.
        label: String,
        /// Why.
        reason: Refusal,
    },
}
