//! Features: what a peer understands beyond the reference implementation.
//!
//! Programs of this platform announce features in the header [`HEADER`] of every request
//! and answer. A peer that announces none is a reference peer and gets what those can
//! read.
//!
//! Source: protocol notes, "Features".

use std::fmt::{self, Display};

use crate::json::{Form, Layout};
use crate::message::{Parameter, Statement};
use crate::primitive::Value;
use crate::registry::CORE;

/// The HTTP header that announces features, blank-separated.
pub const HEADER: &str = "MPlane-Features";

/// One thing that a peer understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// Numbers, booleans and `null` as JSON has them.
    NativeValues,
    /// Registries other than core.
    Registries,
    /// Parameters with several values.
    Multivalue,
    /// Networks as constraints.
    Prefix,
    /// Metadata that says how a result came about.
    Provenance,
    /// Durations with a fraction of a second.
    Fractional,
}

impl Feature {
    /// Every feature.
    const ALL: [Self; 6] = [
        Self::NativeValues,
        Self::Registries,
        Self::Multivalue,
        Self::Prefix,
        Self::Provenance,
        Self::Fractional,
    ];

    /// Returns the word that announces it.
    const fn word(self) -> &'static str {
        match self {
            Self::NativeValues => "native-values",
            Self::Registries => "registries",
            Self::Multivalue => "multivalue",
            Self::Prefix => "prefix",
            Self::Provenance => "provenance",
            Self::Fractional => "fractional",
        }
    }

    /// Returns the bit that stands for it.
    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The features of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(u8);

impl Features {
    /// What a reference peer understands beyond the reference: nothing.
    pub const NONE: Self = Self(0);

    /// What this implementation announces: everything.
    pub const OURS: Self = Self(
        Feature::NativeValues.bit()
            | Feature::Registries.bit()
            | Feature::Multivalue.bit()
            | Feature::Prefix.bit()
            | Feature::Provenance.bit()
            | Feature::Fractional.bit(),
    );

    /// Reads the header. Unknown words are ignored: the list may grow.
    pub fn parse(header: &str) -> Self {
        let known = |word: &str| Feature::ALL.into_iter().find(|f| f.word() == word);
        let bits = header.split_ascii_whitespace().filter_map(known);
        Self(bits.fold(0, |bits, feature| bits | feature.bit()))
    }

    /// Says whether a feature is among them.
    pub const fn has(self, feature: Feature) -> bool {
        self.0 & feature.bit() != 0
    }

    /// Returns how messages to such a peer are written.
    pub const fn form(self) -> Form {
        Form {
            native_values: self.has(Feature::NativeValues),
            networks: self.has(Feature::Prefix),
            provenance: self.has(Feature::Provenance),
            layout: Layout::Compact,
        }
    }

    /// Says whether such a peer can read a statement: what it does not know, be it an
    /// element or a way to write values, costs a reference peer the whole envelope.
    pub fn can_read(self, statement: &Statement) -> bool {
        let known = |namespace: &str| namespace == CORE || self.has(Feature::Registries);
        known(statement.registry())
            && (self.has(Feature::Fractional) || !statement.when().has_fraction())
            && statement.columns().all(|element| known(element.namespace()))
            && statement.parameters().all(|parameter| {
                known(parameter.element().namespace()) && self.can_read_values(parameter)
            })
    }

    /// Says whether such a peer can read the constraint and the value of a parameter.
    fn can_read_values(self, parameter: &Parameter) -> bool {
        let several = parameter.constraint().allows_several()
            || matches!(parameter.value(), Some(Value::List(_)));
        // A single network among what is allowed is written as a range.
        let network = parameter.constraint().without_networks().is_none()
            || matches!(parameter.value(), Some(Value::Address(one)) if !one.is_host());
        (self.has(Feature::Multivalue) || !several)
            && (self.has(Feature::Prefix) || !network)
    }
}

impl Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for feature in Feature::ALL {
            if self.has(feature) {
                write!(f, "{separator}{}", feature.word())?;
                separator = " ";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registries;

    #[test]
    fn announces_what_it_reads() {
        let header = Features::OURS.to_string();
        assert_eq!(
            header,
            "native-values registries multivalue prefix provenance fractional"
        );
        assert_eq!(Features::parse(&header), Features::OURS);
        assert_eq!(Features::parse("telepathy"), Features::NONE);
    }

    #[test]
    fn reference_peers_are_spared_what_they_cannot_read() {
        let registries = Registries::embedded();
        let readable = |when: &str, name: &str, constraint: &str| {
            let statement = Statement::measure(when.parse().unwrap())
                .parameter(&registries, name, constraint)
                .unwrap();
            assert!(Features::OURS.can_read(&statement));
            Features::NONE.can_read(&statement)
        };
        assert!(readable("now", "destination.ip4", "10.0.0.0/8"));
        assert!(!readable("now", "destination.ip4", "10.0.0.0/8,192.0.2.1"));
        assert!(!readable("now", "destination.ip4", "[*]"));
        assert!(!readable("now + 1.5s", "destination.ip4", "*"));
        assert!(!readable("now", "timestamp.source", "*"));
    }
}
