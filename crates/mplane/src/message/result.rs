//! Results: what came of a specification.

use std::fmt::{self, Display};
use std::ops::{Deref, DerefMut};

use super::{Specification, Statement, Table};
use crate::token::{self, Token};
use crate::when::When;

/// What came of a specification: its statement with rows of values.
///
/// The name avoids Rust's `Result`; the protocol's word is *result*. A result *is* a
/// statement, so it dereferences to one.
#[derive(Clone, Debug, PartialEq)]
pub struct ResultStatement {
    statement: Statement,
    table: Table,
}

impl ResultStatement {
    /// Makes a result of a statement and the rows of its columns.
    pub const fn new(statement: Statement, table: Table) -> Self {
        Self { statement, table }
    }

    /// Makes the result of a specification: the same token, what was really done as
    /// temporal scope, and the rows.
    pub fn of(specification: &Specification, when: When, table: Table) -> Self {
        let mut statement = Statement::clone(specification);
        statement.set_token(Some(specification.token()));
        statement.set_when(when);
        statement.set_link(None);
        for parameter in statement.parameters_mut() {
            parameter.drop_constraint();
        }
        Self { statement, table }
    }

    /// Returns the rows.
    pub const fn table(&self) -> &Table {
        &self.table
    }

    /// Returns the rows to add to them.
    pub const fn table_mut(&mut self) -> &mut Table {
        &mut self.table
    }

    /// Returns the token: the one received or set, else the hash of the content.
    pub fn token(&self) -> Token {
        self.stated_token().cloned().unwrap_or_else(|| token::statement_token(self))
    }
}

impl Deref for ResultStatement {
    type Target = Statement;

    fn deref(&self) -> &Statement {
        &self.statement
    }
}

impl DerefMut for ResultStatement {
    fn deref_mut(&mut self) -> &mut Statement {
        &mut self.statement
    }
}

impl Display for ResultStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_summary(f, "result", &self.token())?;
        write!(
            f,
            " p/m/r(r) {}/{}/{}({})>",
            self.parameters().len(),
            self.metadata().len(),
            self.distinct_columns(),
            self.table.rows()
        )
    }
}
