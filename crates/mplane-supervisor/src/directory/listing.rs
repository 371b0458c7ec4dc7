//! What clients see of the directory: names that tell components apart, in parts of bounded
//! size.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use jiff::Timestamp;
use mplane::access::Identity;
use mplane::message::Capability;
use mplane::token::{Schema, Token};

use super::{Choice, Component, Directory, Place, Presence};

/// A capability as clients see it: with a name that tells it from those of other components.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Who offers it.
    pub component: Identity,
    /// It, as clients see it.
    pub shown: Capability,
}

/// A part of what a client can use, in the order of registration.
#[derive(Debug, Default)]
pub struct Listing {
    /// What single components offer.
    pub offers: Vec<Offer>,
    /// What several components offer under one label, each told with the first of them.
    pub wholes: Vec<(String, Vec<Arc<Capability>>)>,
    /// Where the next part begins, if there is one.
    pub next: Option<u64>,
}

/// Says whether a client may use a capability of a component: the rest leaves no trace.
pub type May<'a> = dyn Fn(&Identity, &Capability) -> bool + 'a;

impl Directory {
    /// Returns what a client can use: at most so many capabilities, from the first, or from
    /// where an earlier part ended.
    ///
    /// Labels that several components have get the common name of the component appended,
    /// or its full identity if that is still ambiguous.
    pub fn list(
        &self,
        may: &May<'_>,
        after: u64,
        most: usize,
        now: Timestamp,
    ) -> Listing {
        let mut listing = Listing::default();
        let mut known = BTreeMap::new();
        let from = (Bound::Excluded(after), Bound::Unbounded);
        let mut places = self.by_order.range(from).filter_map(|(order, place)| {
            Some((*order, place, self.offered(place, may, now)?))
        });
        let mut last = after;
        for (order, place, choice) in places.by_ref().take(most) {
            last = order;
            let names = known
                .entry(NameKey::of(&choice.capability))
                .or_insert_with(|| self.namesakes(&choice.capability, may, now));
            if names.is_several()
                && names.first == Some(order)
                && let Some(label) = choice.capability.label()
            {
                let alike = self.alike(label, may, now);
                let alike = alike.into_iter().map(|choice| choice.capability).collect();
                listing.wholes.push((label.to_owned(), alike));
            }
            listing.offers.push(names.show(place, &choice.capability));
        }
        listing.next = places.next().is_some().then_some(last);
        listing
    }

    /// Returns what a client sees under a token, if it may use it.
    pub fn find_offer(
        &self,
        token: &str,
        may: &May<'_>,
        now: Timestamp,
    ) -> Option<Offer> {
        // A token may have the name of the component behind the sign that joins them.
        let splits = token.match_indices('@').filter_map(|(at, _)| token.get(..at));
        let mut places = std::iter::once(token).chain(splits).flat_map(|own| {
            let of_token = self.by_token.get(own).into_iter().flatten();
            of_token.filter_map(|place| Some((place, self.offered(place, may, now)?)))
        });
        places.find_map(|(place, choice)| {
            let names = self.namesakes(&choice.capability, may, now);
            let offer = names.show(place, &choice.capability);
            let shown = offer.shown.stated_token();
            shown.is_some_and(|shown| shown.as_str() == token).then_some(offer)
        })
    }

    /// Returns what a client can use under a label, as the components call it.
    pub fn alike(&self, label: &str, may: &May<'_>, now: Timestamp) -> Vec<Choice> {
        let of_label = self.by_label.get(label).into_iter();
        let places = of_label.flat_map(|of_label| of_label.values().flatten());
        places.filter_map(|place| self.offered(place, may, now)).collect()
    }

    /// Returns everything that a client can use.
    pub fn all<'a>(
        &'a self,
        may: &'a May<'_>,
        now: Timestamp,
    ) -> impl Iterator<Item = Choice> + 'a {
        self.by_order.values().filter_map(move |place| self.offered(place, may, now))
    }

    /// Returns which others are called like a capability.
    fn namesakes(
        &self,
        capability: &Capability,
        may: &May<'_>,
        now: Timestamp,
    ) -> Namesakes {
        let mut names = Namesakes::default();
        let mut count = |place: &Place| {
            if self.offered(place, may, now).is_none() {
                return;
            }
            *names.by_common_name.entry(place.0.common_name().to_owned()).or_default() +=
                1;
            let order = self.order_of(place);
            names.first = names.first.into_iter().chain(order).min();
        };
        if let Some(label) = capability.label() {
            let of_label = self.by_label.get(label).into_iter();
            of_label
                .flat_map(|of_label| of_label.values().flatten())
                .for_each(&mut count);
        } else {
            let of_schema =
                self.by_schema.get(&capability.schema()).into_iter().flatten();
            for place in of_schema {
                if self.at(place).is_some_and(|other| other.label().is_none()) {
                    count(place);
                }
            }
        }
        names
    }

    /// Returns the capability at a place, if it is offered and the client may use it.
    pub(super) fn offered(
        &self,
        (identity, token): &Place,
        may: &May<'_>,
        now: Timestamp,
    ) -> Option<Choice> {
        let component = self.components.get(identity)?;
        let capability = component.capability(token)?;
        let is_there = component.presence(self.expiry, now) != Presence::Gone;
        (is_there && may(identity, capability)).then(|| Choice {
            component: identity.clone(),
            capability: Arc::clone(capability),
        })
    }

    /// Returns the capability at a place.
    fn at(&self, (identity, token): &Place) -> Option<&Arc<Capability>> {
        self.components.get(identity)?.capability(token)
    }

    /// Returns the number by which the capability at a place is listed.
    fn order_of(&self, (identity, token): &Place) -> Option<u64> {
        Some(self.components.get(identity)?.capabilities.get(token)?.order)
    }
}

impl Component {
    /// Returns the capability with a token.
    fn capability(&self, token: &Token) -> Option<&Arc<Capability>> {
        self.capabilities.get(token).map(|registered| &registered.capability)
    }
}

/// What capabilities are called: those without label are told apart by what they do.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum NameKey {
    Label(String),
    Schema(Schema),
}

impl NameKey {
    fn of(capability: &Capability) -> Self {
        capability.label().map_or_else(
            || Self::Schema(capability.schema()),
            |label| Self::Label(label.to_owned()),
        )
    }
}

/// The capabilities of one name that a client can use.
#[derive(Default)]
struct Namesakes {
    /// How many there are, by the common name of the component.
    by_common_name: BTreeMap<String, usize>,
    /// The number by which the first of them is listed.
    first: Option<u64>,
}

impl Namesakes {
    /// Says whether there are several.
    fn is_several(&self) -> bool {
        self.by_common_name.values().sum::<usize>() > 1
    }

    /// Shows one of them under a name that nothing else has.
    fn show(&self, (component, token): &Place, registered: &Capability) -> Offer {
        let mut shown = registered.clone();
        shown.set_link(None);
        let mut token = token.clone();
        if self.is_several() {
            let common_name = component.common_name();
            let suffix = match self.by_common_name.get(common_name) {
                Some(1) => common_name.to_owned(),
                _ => component.to_string(),
            };
            let label = registered.label().filter(|label| !label.is_empty());
            if let Some(label) = label {
                shown.set_label(Some(format!("{label}@{suffix}")));
            }
            // A name too long for a token leaves the label to tell them apart.
            token = format!("{token}@{suffix}").parse().unwrap_or(token);
        }
        shown.set_token(Some(token));
        Offer { component: component.clone(), shown }
    }
}
