//! Specifications: what a component is to do.

use std::fmt::{self, Display};
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use jiff::Timestamp;

use super::{Capability, Parameter, Statement};
use crate::primitive::{ParseValueError, Value, quote};
use crate::token::{self, Token};
use crate::when::{When, display_duration};

/// What a component is to do: a capability with its parameters filled in.
///
/// A specification *is* a statement, so it dereferences to one.
#[derive(Clone, Debug, PartialEq)]
pub struct Specification(Statement);

impl Specification {
    /// Makes a specification of a statement whose parameters have values.
    pub const fn new(statement: Statement) -> Self {
        Self(statement)
    }

    /// Makes the specification that a capability asks for. Parameters that allow a
    /// single value have it; the others are still to be set.
    pub fn of(capability: &Capability) -> Self {
        let mut statement = Statement::clone(capability);
        statement.set_token(None);
        for parameter in statement.parameters_mut() {
            parameter.choose_single_value();
        }
        Self(statement)
    }

    /// Sets the parameter `name` to the value that `text` stands for, of a parameter that
    /// allows several to those that it contains with blanks between. `*` takes the value
    /// back.
    pub fn set_parameter(
        &mut self,
        name: &str,
        text: &str,
    ) -> Result<(), SetParameterError> {
        let parameter = self.parameter_mut(name)?;
        let value = parameter
            .constraint()
            .parse_value(parameter.element().primitive(), text)
            .map_err(|source| SetParameterError::Value {
                name: name.to_owned(),
                source,
            })?;
        choose(parameter, value)
    }

    /// Sets the parameter `name` to a value, or takes its value back.
    pub fn set_value(
        &mut self,
        name: &str,
        value: Option<Value>,
    ) -> Result<(), SetParameterError> {
        choose(self.parameter_mut(name)?, value)
    }

    /// Returns the parameter with this name to change it.
    fn parameter_mut(&mut self, name: &str) -> Result<&mut Parameter, SetParameterError> {
        let known: Vec<_> =
            self.0.parameters().map(|known| known.element().name()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        self.0
            .parameters_mut()
            .find(|parameter| parameter.element().name() == name)
            .ok_or_else(|| SetParameterError::Unknown { name: name.to_owned(), known })
    }

    /// Returns the names of the parameters that have no value yet.
    pub fn missing(&self) -> impl Iterator<Item = &str> {
        self.parameters()
            .filter(|parameter| parameter.value().is_none())
            .map(|parameter| parameter.element().name())
    }

    /// Returns the token: the one received or set, else the hash of the content.
    pub fn token(&self) -> Token {
        self.stated_token().cloned().unwrap_or_else(|| token::specification_token(self))
    }

    /// Returns the token that a client of the reference implementation gives this, if it
    /// gives any: it sends none where the temporal scope is definite. Elsewhere the token
    /// depends on the time at which it was sent.
    pub fn reference_client_token(&self, now: Timestamp) -> Option<Token> {
        (!self.when().is_definite()).then(|| token::reference_client_token(self, now))
    }

    /// Returns the specifications that a repeated one stands for, each with an absolute
    /// temporal scope and the token of this one; `None` if it is not repeated.
    ///
    /// There may be very many: take those that are due.
    pub fn occurrences(&self, now: Timestamp) -> Option<impl Iterator<Item = Self>> {
        let token = self.token();
        let occurrences = self.when().occurrences(now)?;
        Some(occurrences.map(move |when| {
            let mut occurrence = self.clone();
            occurrence.set_token(Some(token.clone()));
            occurrence.set_when(when);
            occurrence
        }))
    }

    /// Says whether this can be done with a capability, and if not, why: the schema and
    /// the verb are the same, every value is allowed, the temporal scope follows.
    pub fn fulfills(
        &self,
        capability: &Capability,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        if self.schema() != capability.schema() {
            return Err(Refusal::Schema);
        }
        if self.verb() != capability.verb() {
            return Err(Refusal::Verb(capability.verb().to_owned()));
        }
        for offered in capability.parameters() {
            let name = offered.element().name();
            let value = self.value(name);
            if value.is_none() {
                return Err(Refusal::Missing(name.to_owned()));
            }
            if !offered.constraint().is_met_by(value) {
                return Err(Refusal::NotAllowed {
                    name: name.to_owned(),
                    constraint: offered.constraint().to_string(),
                });
            }
        }
        if !self.when().follows(capability.when(), now) {
            return Err(Refusal::Scope(ScopeMismatch::of(
                self.when(),
                capability.when(),
            )));
        }
        Ok(())
    }

    /// Returns the statement.
    pub fn into_statement(self) -> Statement {
        self.0
    }
}

impl Deref for Specification {
    type Target = Statement;

    fn deref(&self) -> &Statement {
        &self.0
    }
}

impl DerefMut for Specification {
    fn deref_mut(&mut self) -> &mut Statement {
        &mut self.0
    }
}

impl Display for Specification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_summary(f, "specification", &self.token())?;
        write!(
            f,
            " p(v)/m/r {}({})/{}/{}>",
            self.parameters().len(),
            self.parameters().filter(|parameter| parameter.value().is_some()).count(),
            self.metadata().len(),
            self.distinct_columns()
        )
    }
}

/// Gives a parameter a value that it allows, or none.
fn choose(
    parameter: &mut Parameter,
    value: Option<Value>,
) -> Result<(), SetParameterError> {
    let refused = value.as_ref().filter(|value| {
        value.primitive() != parameter.element().primitive()
            || !parameter.allows(Some(value))
    });
    if let Some(value) = refused {
        return Err(SetParameterError::NotAllowed {
            name: parameter.element().name().to_owned(),
            value: quote(&value.to_string()),
            constraint: parameter.constraint().to_string(),
        });
    }
    parameter.set_value(value);
    Ok(())
}

/// A parameter that cannot be set this way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetParameterError {
    /// There is no such parameter.
    #[error("there is no parameter {name}; the parameters are {known}")]
    Unknown {
        /// The name given.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The text is no value.
    #[error("parameter {name}: {source}")]
    Value {
        /// The parameter.
        name: String,
        /// What is wrong.
        source: ParseValueError,
    },
    /// The value is not allowed.
    #[error("parameter {name} cannot be {value}: allowed is {constraint}")]
    NotAllowed {
        /// The parameter.
        name: String,
        /// The value.
        value: String,
        /// What is allowed.
        constraint: String,
    },
}

/// Why a specification cannot be done with a capability.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Other parameters or result columns.
    #[error("its parameters and result columns are not those of the capability")]
    Schema,
    /// Another verb.
    #[error("its verb is not {0}")]
    Verb(String),
    /// A parameter without value.
    #[error("parameter {0} has no value")]
    Missing(String),
    /// A value that is not allowed.
    #[error("the value of parameter {name} is not allowed: allowed is {constraint}")]
    NotAllowed {
        /// The parameter.
        name: String,
        /// What is allowed.
        constraint: String,
    },
    /// Another temporal scope.
    #[error("its temporal scope {0}")]
    Scope(ScopeMismatch),
}

/// Two temporal scopes of which one does not follow the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeMismatch {
    asked: String,
    offered: String,
    missed_period: Option<Duration>,
}

impl ScopeMismatch {
    /// Describes how the scope asked for misses the one offered.
    pub(crate) fn of(asked: &When, offered: &When) -> Self {
        Self {
            asked: asked.to_string(),
            offered: offered.to_string(),
            missed_period: asked.missed_period(offered),
        }
    }
}

impl Display for ScopeMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, offered, missed_period } = self;
        write!(f, "{asked} does not follow the capability's, {offered}")?;
        if let Some(period) = missed_period {
            let period = display_duration(*period);
            write!(
                f,
                "; it needs a period of at least {period}, as in now + 30s / {period}"
            )?;
        }
        Ok(())
    }
}
