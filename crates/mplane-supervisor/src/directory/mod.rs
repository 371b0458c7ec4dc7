//! The directory: which component offers which capability.
//!
//! It lives in memory, as long as the store says what is in it. What a specification costs
//! to place does not grow with the number of components: labels and schemas are indexed.

mod listing;
#[cfg(test)]
mod tests;

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use mplane::access::{Class, Identity};
use mplane::exchange::component::without_serial;
use mplane::features::{Feature, Features};
use mplane::message::{CALLBACK, Capability, Refusal, Specification};
use mplane::token::{Schema, Token};

pub use self::listing::{Listing, May, Offer};
use crate::fan_out::is_of_many;

/// Components held at once: a bound on memory, far above the largest platform known.
pub const COMPONENTS: usize = 100_000;

/// Capabilities of one component.
pub const CAPABILITIES: usize = 1_000;

/// Capabilities of a supervisor that offers those of its components: as many as one may show.
pub const CAPABILITIES_OF_SUPERVISOR: usize = 100 * CAPABILITIES;

/// How long a component may be unheard of and still be called connected: references poll
/// every 5 s, ours keep a request open for 20 s.
const CONNECTED: SignedDuration = SignedDuration::from_secs(60);

/// How a component writes and reads lists of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Envelopes, as the SDK does.
    Envelope,
    /// JSON arrays, as the client-supervisor-probe system does.
    Array,
}

impl Dialect {
    /// Returns how it is written.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Envelope => "envelope",
            Self::Array => "array",
        }
    }

    /// Reads how it is written; what is not known is the SDK's.
    pub fn read(word: &str) -> Self {
        if word == Self::Array.word() { Self::Array } else { Self::Envelope }
    }
}

/// A registered component.
#[derive(Clone, Debug)]
pub struct Component {
    /// What it offers, by token.
    capabilities: BTreeMap<Token, Registered>,
    /// How often it has begun to register all that it offers.
    round: u64,
    /// Whether something of this round could not be written down.
    has_failed: bool,
    /// Whether it lets its supervisor say when it comes again.
    has_callback: bool,
    /// What it understands.
    pub features: Features,
    /// How it writes lists.
    pub dialect: Dialect,
    /// What else is known of it.
    pub about: About,
    /// When it was first heard of, UTC.
    pub first_seen: Timestamp,
    /// When it was last heard of, UTC.
    pub last_seen: Timestamp,
}

/// What else is known of a component, as of its last registration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Where it came from, or is called at.
    pub address: Option<String>,
    /// Which program it says it is.
    pub version: Option<String>,
    /// How far its clock was ahead of the supervisor's, in whole seconds.
    pub clock_ahead_s: Option<i64>,
}

/// A capability of a component.
#[derive(Clone, Debug)]
struct Registered {
    /// The number by which it is listed: what comes later has a higher one.
    order: u64,
    /// The round in which it was registered last.
    round: u64,
    capability: Arc<Capability>,
}

/// Whether a component is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It was heard of within the last minute.
    Connected,
    /// It was not, and is still offered.
    Silent,
    /// It was not for so long that it is not offered any more, until it comes back.
    Gone,
}

impl Presence {
    /// Returns the word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Silent => "silent",
            Self::Gone => "gone",
        }
    }
}

impl Component {
    /// Returns what it offers.
    pub fn capabilities(&self) -> impl ExactSizeIterator<Item = &Capability> {
        self.capabilities.values().map(|registered| &*registered.capability)
    }

    /// Returns what it offers to clients: the capability by which a supervisor sets the pace
    /// of polls is between the two.
    pub fn offered(&self) -> impl Iterator<Item = &Capability> {
        self.capabilities().filter(|capability| !is_callback(capability))
    }

    /// Says whether it lets its supervisor say when it comes again.
    pub const fn has_callback(&self) -> bool {
        self.has_callback
    }

    /// Says whether it starts a specification once that it gets twice. References do not.
    pub fn starts_nothing_twice(&self) -> bool {
        self.features.has(Feature::NativeValues)
    }

    /// Says whether it is there, if it is offered for so long after it was heard of.
    pub fn presence(&self, expiry: SignedDuration, now: Timestamp) -> Presence {
        presence(self.last_seen, expiry, now)
    }
}

/// Says whether a component is there that was last heard of then, if it is offered for so
/// long after it.
pub fn presence(
    last_seen: Timestamp,
    expiry: SignedDuration,
    now: Timestamp,
) -> Presence {
    let silent = now.duration_since(last_seen);
    if silent <= CONNECTED {
        Presence::Connected
    } else if silent <= expiry {
        Presence::Silent
    } else {
        Presence::Gone
    }
}

/// Where a capability is.
type Place = (Identity, Token);

/// Which component offers which capability.
#[derive(Debug)]
pub struct Directory {
    components: BTreeMap<Identity, Component>,
    /// By their identities as text.
    by_name: BTreeMap<String, BTreeSet<Identity>>,
    /// By label and the common name of the component.
    by_label: BTreeMap<String, BTreeMap<String, BTreeSet<Place>>>,
    by_schema: BTreeMap<Schema, BTreeSet<Place>>,
    /// By token, as the components call it.
    by_token: BTreeMap<String, BTreeSet<Place>>,
    /// In the order of registration, in which they are listed part by part: what stays as it
    /// is comes once. One that changes moves to the end.
    by_order: BTreeMap<u64, Place>,
    /// The highest number given so far.
    last_order: u64,
    /// How long a component is offered after it was heard of.
    expiry: SignedDuration,
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            components: BTreeMap::new(),
            by_name: BTreeMap::new(),
            by_label: BTreeMap::new(),
            by_schema: BTreeMap::new(),
            by_token: BTreeMap::new(),
            by_order: BTreeMap::new(),
            last_order: 0,
            expiry: SignedDuration::MAX,
        }
    }
}

/// The component for a specification.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Who does it.
    pub component: Identity,
    /// The capability, as the component registered it.
    pub capability: Arc<Capability>,
}

impl Directory {
    /// Sets how long a component is offered after it was heard of.
    pub const fn set_expiry(&mut self, expiry: SignedDuration) {
        self.expiry = expiry;
    }

    /// Returns how long a component is offered after it was heard of.
    pub const fn expiry(&self) -> SignedDuration {
        self.expiry
    }

    /// Says whether a capability of a component would be taken, while so many others of it are
    /// on their way. If so, returns whether it takes a place of its own: one that is known, or
    /// has the label of another, does not.
    pub fn check(
        &self,
        from: &Identity,
        capability: &Capability,
        others: usize,
    ) -> Result<bool, RegisterError> {
        if capability.label().is_some_and(is_of_many) {
            return Err(RegisterError::OfMany);
        }
        let component = self.components.get(from);
        if component.is_none() && self.components.len() >= COMPONENTS {
            return Err(RegisterError::Components);
        }
        let offered = component.map(|component| &component.capabilities);
        let has_token = offered.is_some_and(|it| it.contains_key(&capability.token()));
        if has_token || self.same_label(from, capability).is_some() {
            return Ok(false);
        }
        let most = match from.class() {
            Class::Supervisor => CAPABILITIES_OF_SUPERVISOR,
            _ => CAPABILITIES,
        };
        if offered.map_or(0, BTreeMap::len) + others >= most {
            return Err(RegisterError::Capabilities { most });
        }
        Ok(true)
    }

    /// Returns the token under which a component offers something with the label of a
    /// capability.
    fn same_label(&self, from: &Identity, capability: &Capability) -> Option<&Token> {
        let of_label = self.by_label.get(capability.label()?)?;
        let mut of_name = of_label.get(from.common_name())?.iter();
        of_name.find(|(who, _)| who == from).map(|(_, token)| token)
    }

    /// Takes note of a component.
    pub fn arrive(
        &mut self,
        from: &Identity,
        features: Features,
        dialect: Dialect,
        first_seen: Timestamp,
        now: Timestamp,
    ) {
        if !self.components.contains_key(from) {
            self.by_name.entry(from.to_string()).or_default().insert(from.clone());
        }
        let component =
            self.components.entry(from.clone()).or_insert_with(|| Component {
                capabilities: BTreeMap::new(),
                round: 0,
                has_failed: false,
                has_callback: false,
                features,
                dialect,
                about: About::default(),
                first_seen,
                last_seen: now,
            });
        component.features = features;
        component.dialect = dialect;
        component.last_seen = now;
    }

    /// Takes note of what else is known of a component. Returns whether that is new.
    pub fn describe(&mut self, from: &Identity, about: About) -> bool {
        let component = self.components.get_mut(from);
        component.is_some_and(|component| {
            let is_new = component.about != about;
            component.about = about;
            is_new
        })
    }

    /// Takes note of a capability of a component that has arrived. One with the same token
    /// or label is replaced. Returns whether that changes anything.
    pub fn register(&mut self, from: &Identity, capability: Capability) -> bool {
        let Some(component) = self.components.get_mut(from) else { return false };
        let token = capability.token();
        // Components register all they have again and again: what is known stays.
        let round = component.round;
        if let Some(known) = component.capabilities.get_mut(&token)
            && *known.capability == capability
        {
            known.round = round;
            return false;
        }
        // A label names one capability of a component: a new one under it replaces.
        self.withdraw(from, &token);
        if let Some(same) = self.same_label(from, &capability).cloned() {
            self.withdraw(from, &same);
        }
        let Some(component) = self.components.get_mut(from) else { return false };
        let capability = Arc::new(capability);
        self.last_order += 1;
        let order = self.last_order;
        let registered = Registered { order, round, capability: Arc::clone(&capability) };
        component.capabilities.insert(token.clone(), registered);
        // The callback capability is between components and their supervisor.
        if is_callback(&capability) {
            component.has_callback = true;
            return false;
        }
        let place = (from.clone(), token);
        self.by_order.insert(order, place.clone());
        let of_token = self.by_token.entry(place.1.as_str().to_owned()).or_default();
        of_token.insert(place.clone());
        self.by_schema.entry(capability.schema()).or_default().insert(place.clone());
        if let Some(label) = capability.label() {
            let of_label = self.by_label.entry(label.to_owned()).or_default();
            of_label.entry(from.common_name().to_owned()).or_default().insert(place);
        }
        true
    }

    /// Takes a capability back. Returns whether that changes anything.
    pub fn withdraw(&mut self, from: &Identity, token: &Token) -> bool {
        let Some(component) = self.components.get_mut(from) else { return false };
        let Some(registered) = component.capabilities.remove(token) else { return false };
        let Registered { order, capability, .. } = registered;
        let has_callback = component.capabilities().any(is_callback);
        component.has_callback = has_callback;
        let place = (from.clone(), token.clone());
        self.by_order.remove(&order);
        remove_place(&mut self.by_token, token.as_str(), &place);
        remove_place(&mut self.by_schema, &capability.schema(), &place);
        if let Some(label) = capability.label()
            && let Some(of_label) = self.by_label.get_mut(label)
        {
            remove_place(of_label, from.common_name(), &place);
            if of_label.is_empty() {
                self.by_label.remove(label);
            }
        }
        true
    }

    /// Takes note that a component registers something, and `begins` to register all that it
    /// offers if that is so. Returns the round in which it is.
    pub fn registration(&mut self, from: &Identity, begins: bool) -> u64 {
        self.components.get_mut(from).map_or(0, |component| {
            component.round += u64::from(begins);
            component.has_failed &= !begins;
            component.round
        })
    }

    /// Takes note that something that a component has registered could not be written down: it
    /// is offered all the same.
    pub fn registration_failed(&mut self, from: &Identity) {
        if let Some(component) = self.components.get_mut(from) {
            component.has_failed = true;
        }
    }

    /// Returns what a component has last registered before a round began; nothing if something
    /// of it could not be written down.
    pub fn before_round(&self, from: &Identity, round: u64) -> Vec<Token> {
        let known = self.components.get(from).filter(|known| !known.has_failed);
        let offered = known.map(|known| &known.capabilities);
        let offered = offered.into_iter().flatten();
        let before = offered.filter(|(_, registered)| registered.round < round);
        before.map(|(token, _)| token.clone()).collect()
    }

    /// Returns what a component offers under a token, and how it speaks.
    pub fn offers(
        &self,
        from: &Identity,
        token: &Token,
    ) -> Option<(Arc<Capability>, Features, Dialect)> {
        let known = self.components.get(from)?;
        let registered = known.capabilities.get(token)?;
        Some((Arc::clone(&registered.capability), known.features, known.dialect))
    }

    /// Says whether a component has last registered something before a round began.
    pub fn is_before_round(&self, from: &Identity, token: &Token, round: u64) -> bool {
        let known = self.components.get(from).and_then(|it| it.capabilities.get(token));
        known.is_some_and(|registered| registered.round < round)
    }

    /// Forgets a component, with all that it offers.
    pub fn forget(&mut self, identity: &Identity) {
        let offered = self.components.get(identity);
        let offered = offered.into_iter().flat_map(|known| known.capabilities.keys());
        let offered: Vec<_> = offered.cloned().collect();
        for token in &offered {
            self.withdraw(identity, token);
        }
        self.components.remove(identity);
        let name = identity.to_string();
        if let Some(called) = self.by_name.get_mut(&name) {
            called.remove(identity);
            if called.is_empty() {
                self.by_name.remove(&name);
            }
        }
    }

    /// Returns the components with a text as identity: mostly one.
    pub fn called<'a>(
        &'a self,
        name: &str,
    ) -> impl Iterator<Item = (&'a Identity, &'a Component)> {
        self.by_name.get(name).into_iter().flatten().filter_map(|it| self.known(it))
    }

    /// Returns the components whose identities come after a text, in the order of their texts.
    pub fn components_after<'a>(
        &'a self,
        name: &str,
    ) -> impl Iterator<Item = (&'a Identity, &'a Component)> {
        let after = (Bound::Excluded(name), Bound::Unbounded);
        let called = self.by_name.range::<str, _>(after);
        called.flat_map(|(_, called)| called).filter_map(|it| self.known(it))
    }

    /// Returns a component with its identity.
    fn known(&self, identity: &Identity) -> Option<(&Identity, &Component)> {
        self.components.get_key_value(identity)
    }

    /// Returns a component, if it is registered.
    pub fn component(&self, identity: &Identity) -> Option<&Component> {
        self.components.get(identity)
    }

    /// Returns all components.
    pub fn components(&self) -> impl ExactSizeIterator<Item = (&Identity, &Component)> {
        self.components.iter()
    }

    /// Takes note that a component was heard of. Returns whether it is registered.
    pub fn seen(&mut self, identity: &Identity, now: Timestamp) -> bool {
        let component = self.components.get_mut(identity);
        component.map(|component| component.last_seen = now).is_some()
    }

    /// Returns the number of components.
    pub fn len(&self) -> usize {
        self.components.len()
    }

    /// Says whether no component is registered.
    pub fn is_empty(&self) -> bool {
        self.components.is_empty()
    }

    /// Chooses the component for a specification, of those that the client may use: one
    /// with the capability that its label names or, if it names none, any whose capability
    /// it fulfils.
    pub fn choose(
        &self,
        may: &May<'_>,
        specification: &Specification,
        now: Timestamp,
    ) -> Result<Choice, ChooseError> {
        let label = specification.label().unwrap_or_default();
        let mut refusal = None;
        // A label that names something decides: nobody wants the same from elsewhere.
        for name in [label, without_serial(label)] {
            for place in self.named(name) {
                let Some(choice) = self.offered(place, may, now) else { continue };
                match specification.fulfills(&choice.capability, now) {
                    Ok(()) => return Ok(choice),
                    Err(reason) => {
                        let label = name.to_owned();
                        refusal.get_or_insert(ChooseError::Refused { label, reason });
                    }
                }
            }
        }
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        self.by_schema
            .get(&specification.schema())
            .into_iter()
            .flatten()
            .filter_map(|place| self.offered(place, may, now))
            .find(|choice| specification.fulfills(&choice.capability, now).is_ok())
            .ok_or(ChooseError::NoCapability)
    }

    /// Returns where the capabilities are that a name may mean: a label, or one with the
    /// common name or the whole identity of a component.
    fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Place> {
        let whole = self.by_label.get(name);
        let whole = whole.into_iter().flat_map(|of_label| of_label.values().flatten());
        // Labels and names may contain the sign that joins them.
        let splits = name.match_indices('@');
        let joined = splits.flat_map(move |(at, sign)| {
            let (label, rest) = name.split_at(at);
            let suffix = rest.strip_prefix(sign).unwrap_or(rest);
            let of_label = self.by_label.get(label);
            let common = of_label.and_then(|of_label| of_label.get(suffix));
            let common = common.into_iter().flatten();
            let others = of_label.filter(|of_label| !of_label.contains_key(suffix));
            let others = others.into_iter().flat_map(|known| known.values().flatten());
            common.chain(others.filter(move |(who, _)| who.to_string() == suffix))
        });
        whole.chain(joined)
    }
}

/// Removes a place from an index, and its key with the last one.
fn remove_place<K, Q>(index: &mut BTreeMap<K, BTreeSet<Place>>, key: &Q, place: &Place)
where
    K: Borrow<Q> + Ord,
    Q: Ord + ?Sized,
{
    if let Some(places) = index.get_mut(key) {
        places.remove(place);
        if places.is_empty() {
            index.remove(key);
        }
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
    /// A label that means many components.
    #[error(
        "labels that end in @* mean all components that offer something; ask each of them, \
         or give it another label"
    )]
    OfMany,
    /// Too many capabilities.
    #[error("a component has at most {most} capabilities")]
    Capabilities {
        /// How many it may have.
        most: usize,
    },
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
