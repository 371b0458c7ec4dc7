//! Capabilities: what a component can do.

use std::fmt::{self, Display};
use std::ops::{Deref, DerefMut};

use super::Statement;
use crate::token::{self, Token};

/// What a component can do: a statement whose parameters have constraints, not values.
///
/// A capability *is* a statement, so it dereferences to one.
#[derive(Clone, Debug, PartialEq)]
pub struct Capability(Statement);

impl Capability {
    /// Makes a capability of a statement; values that its parameters may have are left
    /// out of messages.
    pub const fn new(statement: Statement) -> Self {
        Self(statement)
    }

    /// Returns the token: the one received or set, else the hash of the content.
    pub fn token(&self) -> Token {
        self.stated_token().cloned().unwrap_or_else(|| token::statement_token(self))
    }

    /// Returns the statement.
    pub fn into_statement(self) -> Statement {
        self.0
    }
}

impl Deref for Capability {
    type Target = Statement;

    fn deref(&self) -> &Statement {
        &self.0
    }
}

impl DerefMut for Capability {
    fn deref_mut(&mut self) -> &mut Statement {
        &mut self.0
    }
}

impl Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_summary(f, "capability", &self.token())?;
        write!(
            f,
            " p/m/r {}/{}/{}>",
            self.parameters().len(),
            self.metadata().len(),
            self.distinct_columns()
        )
    }
}
