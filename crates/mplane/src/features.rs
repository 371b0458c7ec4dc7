//! Features: what a peer understands beyond the reference implementation.
//!
//! Programs of this platform announce features in the header [`HEADER`] of every request
//! and answer. A peer that announces none is a reference peer and gets what those can
//! read.
//!
//! Source: protocol notes, "Features".

use std::fmt::{self, Display};

use crate::json::{Form, Layout};
use crate::message::Statement;
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

    /// What this implementation announces. Parameters with several values are not among
    /// it yet.
    pub const OURS: Self = Self(
        Feature::NativeValues.bit()
            | Feature::Registries.bit()
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
            provenance: self.has(Feature::Provenance),
            layout: Layout::Compact,
        }
    }

    /// Says whether such a peer can read a statement: an element that it does not know
    /// costs a reference peer the whole envelope.
    pub fn can_read(self, statement: &Statement) -> bool {
        let known = |namespace: &str| namespace == CORE || self.has(Feature::Registries);
        known(statement.registry())
            && statement.columns().all(|element| known(element.namespace()))
            && statement.parameters().all(|p| known(p.element().namespace()))
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

    #[test]
    fn announces_what_it_reads() {
        let header = Features::OURS.to_string();
        assert_eq!(header, "native-values registries prefix provenance fractional");
        assert_eq!(Features::parse(&header), Features::OURS);
        assert_eq!(Features::parse("telepathy"), Features::NONE);
    }
}
