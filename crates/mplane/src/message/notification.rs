//! Notifications: messages that refer to a statement by its token.

use std::fmt::{self, Display};
use std::ops::{Deref, DerefMut};

use super::{Capability, Kind, Specification, Statement};
use crate::token::Token;

/// What notifications share: a token, and mostly the statement that it stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct Notification {
    verb: String,
    token: Token,
    label: Option<String>,
    statement: Option<Box<Statement>>,
}

impl Notification {
    /// Makes a notification with the statement that it refers to.
    pub fn about(statement: Statement, token: Token) -> Self {
        Self {
            verb: statement.verb().to_owned(),
            token,
            label: statement.label().map(ToOwned::to_owned),
            statement: Some(Box::new(statement)),
        }
    }

    /// Makes a notification that says nothing but the token.
    pub fn token_only(verb: &str, token: Token, label: Option<String>) -> Self {
        Self { verb: verb.to_owned(), token, label, statement: None }
    }

    /// Returns the verb of the statement.
    pub fn verb(&self) -> &str {
        &self.verb
    }

    /// Returns the token of the statement.
    pub const fn token(&self) -> &Token {
        &self.token
    }

    /// Sets the token, as a relay does.
    pub fn set_token(&mut self, token: Token) {
        self.token = token;
    }

    /// Returns the label of the statement.
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// Sets the label, as a relay does.
    pub fn set_label(&mut self, label: Option<String>) {
        if let Some(statement) = &mut self.statement {
            statement.set_label(label.clone());
        }
        self.label = label;
    }

    /// Returns the statement, if the message contains it.
    pub fn statement(&self) -> Option<&Statement> {
        self.statement.as_deref()
    }

    /// Leaves out the statement, so that only the token says what this is about.
    pub fn drop_statement(&mut self) {
        self.statement = None;
    }

    /// Sets where the next message about the statement is sent to.
    pub fn set_link(&mut self, link: Option<String>) {
        if let Some(statement) = &mut self.statement {
            statement.set_link(link);
        }
    }

    /// Writes the one-line summary.
    fn write_summary(&self, f: &mut fmt::Formatter<'_>, kind: Kind) -> fmt::Result {
        match &self.label {
            Some(label) => write!(f, "<{kind}:  ({label}){}>", self.token),
            None => write!(f, "<{kind}: {}>", self.token),
        }
    }
}

/// Declares a kind of notification.
macro_rules! notification {
    ($(#[$doc:meta])* $kind:ident of $statement:ident) => {
        $(#[$doc])*
        ///
        /// It *is* a notification, so it dereferences to one.
        #[derive(Clone, Debug, PartialEq)]
        pub struct $kind(Notification);

        impl $kind {
            /// Makes it of a notification.
            pub const fn new(notification: Notification) -> Self {
                Self(notification)
            }

            /// Makes it of the statement that it refers to. Where that was sent from or to is
            /// not where this goes: it has no link.
            pub fn of(statement: &$statement) -> Self {
                let token = statement.token();
                let mut statement = Statement::clone(statement);
                statement.set_link(None);
                Self(Notification::about(statement, token))
            }

            /// Makes it of a token alone.
            pub fn token_only(verb: &str, token: Token) -> Self {
                Self(Notification::token_only(verb, token, None))
            }
        }

        impl Deref for $kind {
            type Target = Notification;

            fn deref(&self) -> &Notification {
                &self.0
            }
        }

        impl DerefMut for $kind {
            fn deref_mut(&mut self) -> &mut Notification {
                &mut self.0
            }
        }

        impl Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.write_summary(f, Kind::$kind)
            }
        }
    };
}

notification! {
    /// A promise of a component: the result comes later.
    Receipt of Specification
}
notification! {
    /// A client's request for a promised result.
    Redemption of Specification
}
notification! {
    /// A client's request to stop.
    Interrupt of Specification
}
notification! {
    /// A component's word that a capability is gone.
    Withdrawal of Capability
}

impl Redemption {
    /// Makes the redemption of a receipt.
    pub fn of_receipt(receipt: &Receipt) -> Self {
        Self(receipt.0.clone())
    }
}
