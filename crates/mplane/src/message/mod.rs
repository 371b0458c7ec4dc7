//! Messages: what components and clients say to each other.
//!
//! *Statements* carry a schema: a [`Capability`] says what a component can do, a
//! [`Specification`] what it is to do, a [`ResultStatement`] what came of it.
//! *Notifications* refer to a statement: a [`Receipt`] promises a result, a
//! [`Redemption`] asks for it, an [`Interrupt`] stops the work, a [`Withdrawal`] takes a
//! capability back, an [`Indirection`] names another component. An [`Exception`] says that something failed; an [`Envelope`] carries
//! other messages.
//!
//! [`Display`] writes the one-line summary that the reference shows for each kind.
//!
//! Source: mPlane protocol specification, "Message Types" and "Message Sections".

mod capability;
mod envelope;
mod exception;
mod indirection;
mod notification;
mod render;
mod result;
mod specification;
mod statement;
mod table;
#[cfg(test)]
mod tests;

use std::fmt::{self, Display};

pub use capability::Capability;
pub use envelope::Envelope;
pub use exception::Exception;
pub use indirection::Indirection;
pub use notification::{Interrupt, Notification, Receipt, Redemption, Withdrawal};
pub use result::ResultStatement;
pub use specification::{Refusal, ScopeMismatch, SetParameterError, Specification};
pub use statement::{BuildError, OutsideScope, Parameter, Statement};
pub use table::{Cells, Column, Row, SetCellError, Table};

use crate::token::Token;

/// The verb, and at references the label, of the capability by which a component lets its
/// supervisor say when to come again, and of the specification that says it.
pub const CALLBACK: &str = "callback";

/// The kind of a message, in the order in which keys decide it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// What a component can do.
    Capability,
    /// What a component is to do.
    Specification,
    /// What came of it.
    Result,
    /// A promise of a result.
    Receipt,
    /// A request for a promised result.
    Redemption,
    /// A capability taken back.
    Withdrawal,
    /// A request to stop.
    Interrupt,
    /// Word that another component does what was asked.
    Indirection,
    /// A failure.
    Exception,
    /// A list of messages.
    Envelope,
}

impl Kind {
    /// Every kind, in the order in which keys decide it.
    pub const ALL: [Self; 10] = [
        Self::Capability,
        Self::Specification,
        Self::Result,
        Self::Receipt,
        Self::Redemption,
        Self::Withdrawal,
        Self::Interrupt,
        Self::Indirection,
        Self::Exception,
        Self::Envelope,
    ];

    /// Returns the key that stands for it in a message.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Capability => "capability",
            Self::Specification => "specification",
            Self::Result => "result",
            Self::Receipt => "receipt",
            Self::Redemption => "redemption",
            Self::Withdrawal => "withdrawal",
            Self::Interrupt => "interrupt",
            Self::Indirection => "indirection",
            Self::Exception => "exception",
            Self::Envelope => "envelope",
        }
    }

    /// Returns the kind that a key stands for.
    pub fn from_key(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.key() == key)
    }
}

impl Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())
    }
}

/// Any message.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each variant is documented at its type")]
pub enum Message {
    Capability(Capability),
    Specification(Specification),
    Result(ResultStatement),
    Receipt(Receipt),
    Redemption(Redemption),
    Withdrawal(Withdrawal),
    Interrupt(Interrupt),
    Indirection(Indirection),
    Exception(Exception),
    Envelope(Envelope),
}

impl Message {
    /// Returns its kind.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Capability(_) => Kind::Capability,
            Self::Specification(_) => Kind::Specification,
            Self::Result(_) => Kind::Result,
            Self::Receipt(_) => Kind::Receipt,
            Self::Redemption(_) => Kind::Redemption,
            Self::Withdrawal(_) => Kind::Withdrawal,
            Self::Interrupt(_) => Kind::Interrupt,
            Self::Indirection(_) => Kind::Indirection,
            Self::Exception(_) => Kind::Exception,
            Self::Envelope(_) => Kind::Envelope,
        }
    }

    /// Returns the number of values in its result rows, those of contained messages
    /// included: what its size is measured by in memory.
    pub fn value_count(&self) -> usize {
        match self {
            Self::Result(result) => result.table().value_count(),
            Self::Envelope(envelope) => {
                envelope.messages().iter().map(Self::value_count).sum()
            }
            _ => 0,
        }
    }

    /// Returns the token that it carries or, for statements without one, the token that
    /// its content stands for.
    pub fn token(&self) -> Option<Token> {
        match self {
            Self::Capability(capability) => Some(capability.token()),
            Self::Specification(specification) => Some(specification.token()),
            Self::Result(result) => Some(result.token()),
            Self::Receipt(receipt) => Some(receipt.token().clone()),
            Self::Redemption(redemption) => Some(redemption.token().clone()),
            Self::Withdrawal(withdrawal) => Some(withdrawal.token().clone()),
            Self::Interrupt(interrupt) => Some(interrupt.token().clone()),
            Self::Indirection(indirection) => Some(indirection.token()),
            Self::Exception(exception) => exception.token().cloned(),
            Self::Envelope(envelope) => envelope.token().cloned(),
        }
    }

    /// Returns the statement that it is or contains.
    pub fn statement(&self) -> Option<&Statement> {
        match self {
            Self::Capability(capability) => Some(capability),
            Self::Specification(specification) => Some(specification),
            Self::Result(result) => Some(result),
            Self::Indirection(indirection) => Some(indirection),
            Self::Receipt(receipt) => receipt.statement(),
            Self::Redemption(redemption) => redemption.statement(),
            Self::Withdrawal(withdrawal) => withdrawal.statement(),
            Self::Interrupt(interrupt) => interrupt.statement(),
            Self::Exception(_) | Self::Envelope(_) => None,
        }
    }

    /// Returns the verb, of an envelope what it says it contains.
    pub fn verb(&self) -> Option<&str> {
        match self {
            Self::Receipt(receipt) => Some(receipt.verb()),
            Self::Redemption(redemption) => Some(redemption.verb()),
            Self::Withdrawal(withdrawal) => Some(withdrawal.verb()),
            Self::Interrupt(interrupt) => Some(interrupt.verb()),
            Self::Envelope(envelope) => Some(envelope.content()),
            other => other.statement().map(Statement::verb),
        }
    }

    /// Returns the label that it carries.
    pub fn label(&self) -> Option<&str> {
        match self {
            Self::Capability(capability) => capability.label(),
            Self::Specification(specification) => specification.label(),
            Self::Result(result) => result.label(),
            Self::Receipt(receipt) => receipt.label(),
            Self::Redemption(redemption) => redemption.label(),
            Self::Withdrawal(withdrawal) => withdrawal.label(),
            Self::Interrupt(interrupt) => interrupt.label(),
            Self::Indirection(indirection) => indirection.label(),
            Self::Exception(_) => None,
            Self::Envelope(envelope) => envelope.label(),
        }
    }
}

impl Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capability(capability) => capability.fmt(f),
            Self::Specification(specification) => specification.fmt(f),
            Self::Result(result) => result.fmt(f),
            Self::Receipt(receipt) => receipt.fmt(f),
            Self::Redemption(redemption) => redemption.fmt(f),
            Self::Withdrawal(withdrawal) => withdrawal.fmt(f),
            Self::Interrupt(interrupt) => interrupt.fmt(f),
            Self::Indirection(indirection) => indirection.fmt(f),
            Self::Exception(exception) => exception.fmt(f),
            Self::Envelope(envelope) => envelope.fmt(f),
        }
    }
}

/// Declares that a message type is a variant of [`Message`].
macro_rules! is_message {
    ($($kind:ident => $variant:ident),* $(,)?) => {$(
        impl From<$kind> for Message {
            fn from(message: $kind) -> Self {
                Self::$variant(message)
            }
        }
    )*};
}

is_message! {
    Capability => Capability,
    Specification => Specification,
    ResultStatement => Result,
    Receipt => Receipt,
    Redemption => Redemption,
    Withdrawal => Withdrawal,
    Interrupt => Interrupt,
    Indirection => Indirection,
    Exception => Exception,
    Envelope => Envelope,
}
