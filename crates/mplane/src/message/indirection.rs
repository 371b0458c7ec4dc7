//! Indirections: word that another component does what was asked.

use std::fmt::{self, Display};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::{Parameter, Specification, Statement};
use crate::constraint::Constraint;
use crate::token::{self, Token};

/// A component's word that another one does what a specification asks for.
///
/// It has the sections of a capability: what was asked, as constraints, with the URL of
/// the other component as link. An indirection *is* a statement, so it dereferences to
/// one.
#[derive(Clone, Debug, PartialEq)]
pub struct Indirection(Statement);

impl Indirection {
    /// Makes an indirection of a statement, which says where the other component is by its
    /// link.
    pub const fn new(statement: Statement) -> Self {
        Self(statement)
    }

    /// Sends a specification on to the component at a URL.
    pub fn of(specification: &Specification, link: impl Into<String>) -> Self {
        let mut statement = Statement::clone(specification);
        statement.set_token(Some(specification.token()));
        statement.set_link(Some(link.into()));
        for parameter in statement.parameters_mut() {
            if let Some(value) = parameter.value() {
                let only = Constraint::only(value.clone());
                *parameter = Parameter::new(Arc::clone(parameter.element()), only);
            }
        }
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

impl Deref for Indirection {
    type Target = Statement;

    fn deref(&self) -> &Statement {
        &self.0
    }
}

impl DerefMut for Indirection {
    fn deref_mut(&mut self) -> &mut Statement {
        &mut self.0
    }
}

impl Display for Indirection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_summary(f, "indirection", &self.token())?;
        write!(f, " link {}>", self.link().unwrap_or("none"))
    }
}
