//! Identities: distinguished names of certificates.

use std::fmt::{self, Display};

/// Who a peer is: the values of its certificate's subject, in the certificate's order.
///
/// Two identities are equal if the lists are; the text with dots is for people.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    names: Vec<Box<str>>,
    unit: Option<Box<str>>,
}

impl Identity {
    /// Makes an identity of the first value of each relative distinguished name, at least
    /// one, and the organizational unit, which says what the peer is.
    pub fn new(names: impl IntoIterator<Item = Box<str>>, unit: Option<&str>) -> Self {
        Self { names: names.into_iter().collect(), unit: unit.map(Into::into) }
    }

    /// Makes the identity of a peer without certificate. It arises only where plain HTTP
    /// is configured explicitly: at a listener, or by the URL of who answers.
    pub const fn unauthenticated() -> Self {
        Self { names: Vec::new(), unit: None }
    }

    /// Says whether a certificate proves it.
    pub const fn is_authenticated(&self) -> bool {
        !self.names.is_empty()
    }

    /// Returns the values of the subject.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.names.iter().map(AsRef::as_ref)
    }

    /// Returns the last value, mostly the common name.
    pub fn common_name(&self) -> &str {
        self.names.last().map_or("unauthenticated", AsRef::as_ref)
    }

    /// Returns the organizational unit.
    pub fn unit(&self) -> Option<&str> {
        self.unit.as_deref()
    }

    /// Returns what the peer is, after its organizational unit.
    pub fn class(&self) -> Class {
        match self.unit.as_deref() {
            _ if !self.is_authenticated() => Class::Unauthenticated,
            Some("Clients") => Class::Client,
            Some("Components") => Class::Component,
            Some("Supervisors") => Class::Supervisor,
            _ => Class::Unknown,
        }
    }
}

impl Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.names.is_empty() {
            return f.write_str("unauthenticated");
        }
        f.write_str(&self.names.join("."))
    }
}

/// What a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It uses capabilities.
    Client,
    /// It offers capabilities.
    Component,
    /// It does both.
    Supervisor,
    /// Its certificate does not say.
    Unknown,
    /// It has shown no certificate, because none was asked for.
    Unauthenticated,
}

impl Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "a client",
            Self::Component => "a component",
            Self::Supervisor => "a supervisor",
            Self::Unknown => "of no known class",
            Self::Unauthenticated => "without certificate",
        })
    }
}
