//! Identities: distinguished names of certificates.

use std::fmt::{self, Display};
use std::sync::Arc;

/// Who a peer is: the values of its certificate's subject, in the certificate's order.
///
/// Two identities are equal if the lists are; the text with dots is for people. A clone is
/// cheap: all of one identity share what it consists of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(Arc<Subject>);

/// What a certificate says of its subject.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Subject {
    names: Vec<Box<str>>,
    unit: Option<Box<str>>,
}

impl Identity {
    /// Makes an identity of the first value of each relative distinguished name, at least
    /// one, and the organizational unit, which says what the peer is.
    pub fn new(names: impl IntoIterator<Item = Box<str>>, unit: Option<&str>) -> Self {
        let (names, unit) = (names.into_iter().collect(), unit.map(Into::into));
        Self(Arc::new(Subject { names, unit }))
    }

    /// Makes the identity of a peer without certificate. It arises only where plain HTTP
    /// is configured explicitly: at a listener, or by the URL of who answers.
    pub fn unauthenticated() -> Self {
        Self::new([], None)
    }

    /// Says whether a certificate proves it.
    pub fn is_authenticated(&self) -> bool {
        !self.0.names.is_empty()
    }

    /// Returns the values of the subject.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.names.iter().map(AsRef::as_ref)
    }

    /// Returns the last value, mostly the common name.
    pub fn common_name(&self) -> &str {
        self.0.names.last().map_or("unauthenticated", AsRef::as_ref)
    }

    /// Returns the organizational unit.
    pub fn unit(&self) -> Option<&str> {
        self.0.unit.as_deref()
    }

    /// Returns what the peer is, after its organizational unit.
    pub fn class(&self) -> Class {
        match self.0.unit.as_deref() {
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
        if self.0.names.is_empty() {
            return f.write_str("unauthenticated");
        }
        f.write_str(&self.0.names.join("."))
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
