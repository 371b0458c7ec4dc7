//! Exceptions: word that something failed.

use std::fmt::{self, Display};

use crate::token::Token;

/// Word that something failed, for people to read.
///
/// Exceptions report failures of the protocol. A target that does not answer is a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    token: Option<Token>,
    message: String,
}

impl Exception {
    /// Makes an exception about the statement with this token.
    pub fn new(token: Option<Token>, message: impl Into<String>) -> Self {
        Self { token, message: message.into() }
    }

    /// Returns the token of the statement that failed, if it is known.
    pub const fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// Sets the token, as a relay does.
    pub fn set_token(&mut self, token: Option<Token>) {
        self.token = token;
    }

    /// Returns what happened.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.as_ref().map_or("none", Token::as_str);
        write!(f, "<Exception: {token} {}>", self.message)
    }
}
