//! What capabilities, specifications and results share.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::constraint::{Constraint, ParseConstraintError};
use crate::limits;
use crate::primitive::{ParseValueError, Value, quote};
use crate::registry::{CORE, Element, Registries, UnknownElement};
use crate::token::{self, Schema, Token};
use crate::when::{Delays, When};

/// A schema with a temporal scope: the content of every statement.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    verb: Arc<str>,
    registry: Arc<str>,
    label: Option<String>,
    when: When,
    parameters: Vec<Parameter>,
    metadata: Vec<(Arc<Element>, Option<Value>)>,
    columns: Vec<Arc<Element>>,
    export: Option<String>,
    link: Option<String>,
    token: Option<Token>,
}

/// A parameter: which values are allowed and, once chosen, which one it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    element: Arc<Element>,
    constraint: Constraint,
    value: Option<Value>,
}

impl Parameter {
    /// Makes a parameter without a value.
    pub const fn new(element: Arc<Element>, constraint: Constraint) -> Self {
        Self { element, constraint, value: None }
    }

    /// Makes a parameter with a value, as it stands in a received specification, where
    /// the constraint is not known.
    pub const fn with_value(element: Arc<Element>, value: Option<Value>) -> Self {
        Self { element, constraint: Constraint::Any, value }
    }

    /// Returns what it is.
    pub const fn element(&self) -> &Arc<Element> {
        &self.element
    }

    /// Returns which values are allowed.
    pub const fn constraint(&self) -> &Constraint {
        &self.constraint
    }

    /// Returns the value chosen, if any.
    pub const fn value(&self) -> Option<&Value> {
        self.value.as_ref()
    }

    /// Says whether a value, or having none, is allowed.
    pub fn allows(&self, value: Option<&Value>) -> bool {
        self.constraint.is_met_by(value)
    }

    /// Sets the value; the caller has checked that it is allowed.
    pub(super) fn set_value(&mut self, value: Option<Value>) {
        self.value = value;
    }

    /// Chooses the value where only one is allowed.
    pub(super) fn choose_single_value(&mut self) {
        if self.value.is_none() {
            self.value = self.constraint.single_value().cloned();
        }
    }

    /// Forgets which values were allowed, as results do.
    pub(super) fn drop_constraint(&mut self) {
        self.constraint = Constraint::Any;
    }
}

impl Statement {
    /// Makes an empty statement.
    pub fn new(verb: &str, registry: &str, when: When) -> Self {
        Self {
            verb: verb.into(),
            registry: registry.into(),
            label: None,
            when,
            parameters: Vec::new(),
            metadata: Vec::new(),
            columns: Vec::new(),
            export: None,
            link: None,
            token: None,
        }
    }

    /// Makes an empty statement with the verb `measure` and the core registry.
    pub fn measure(when: When) -> Self {
        Self::new("measure", CORE, when)
    }

    /// Sets the label.
    #[must_use]
    pub fn labelled(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Adds a parameter with the constraint that `text` stands for.
    pub fn parameter(
        mut self,
        registries: &Registries,
        name: &str,
        text: &str,
    ) -> Result<Self, BuildError> {
        let element = Arc::clone(registries.element(&self.registry, name)?);
        let constraint = Constraint::parse(element.primitive(), text)
            .map_err(|source| BuildError::Constraint { name: name.to_owned(), source })?;
        self.add_parameter(Parameter::new(element, constraint))?;
        Ok(self)
    }

    /// Adds a piece of metadata with the value that `text` stands for.
    pub fn metavalue(
        mut self,
        registries: &Registries,
        name: &str,
        text: &str,
    ) -> Result<Self, BuildError> {
        let element = Arc::clone(registries.element(&self.registry, name)?);
        let value = Value::parse(element.primitive(), text)
            .map_err(|source| BuildError::Value { name: name.to_owned(), source })?;
        self.add_metadata(element, value)?;
        Ok(self)
    }

    /// Adds a result column.
    pub fn column(
        mut self,
        registries: &Registries,
        name: &str,
    ) -> Result<Self, BuildError> {
        let element = Arc::clone(registries.element(&self.registry, name)?);
        self.add_column(element)?;
        Ok(self)
    }

    /// Adds a parameter.
    pub fn add_parameter(&mut self, parameter: Parameter) -> Result<(), BuildError> {
        let name = parameter.element.name();
        if self.find_parameter(name).is_some() {
            return Err(BuildError::Twice { name: name.to_owned() });
        }
        self.parameters.push(within_section(self.parameters.len(), parameter)?);
        Ok(())
    }

    /// Adds a piece of metadata.
    pub fn add_metadata(
        &mut self,
        element: Arc<Element>,
        value: Option<Value>,
    ) -> Result<(), BuildError> {
        if self.metadata.iter().any(|(known, _)| known.name() == element.name()) {
            return Err(BuildError::Twice { name: element.name().to_owned() });
        }
        self.metadata.push(within_section(self.metadata.len(), (element, value))?);
        Ok(())
    }

    /// Adds a result column. A name may stand twice, as the reference allows.
    pub fn add_column(&mut self, element: Arc<Element>) -> Result<(), BuildError> {
        self.columns.push(within_section(self.columns.len(), element)?);
        Ok(())
    }

    /// Returns the verb: what is done, such as `measure` or `query`.
    pub fn verb(&self) -> &str {
        &self.verb
    }

    /// Returns the URI of the registry that the message names.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Returns the label, a name for people.
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// Sets or removes the label.
    pub fn set_label(&mut self, label: Option<String>) {
        self.label = label;
    }

    /// Returns the temporal scope.
    pub const fn when(&self) -> &When {
        &self.when
    }

    /// Sets the temporal scope.
    pub fn set_when(&mut self, when: When) {
        self.when = when;
    }

    /// Sets a temporal scope that lies within the present one, as a client does that fills
    /// in what a capability allows.
    pub fn narrow_when(
        &mut self,
        when: When,
        now: Timestamp,
    ) -> Result<(), OutsideScope> {
        if !when.lies_within(&self.when, now) {
            let (when, scope) = (when.to_string(), self.when.to_string());
            return Err(OutsideScope { when, scope });
        }
        self.when = when;
        Ok(())
    }

    /// Returns the parameters in the order of the message.
    pub fn parameters(&self) -> impl ExactSizeIterator<Item = &Parameter> {
        self.parameters.iter()
    }

    /// Returns the parameters to change them.
    pub(super) fn parameters_mut(&mut self) -> impl Iterator<Item = &mut Parameter> {
        self.parameters.iter_mut()
    }

    /// Returns the parameter with this name.
    pub fn find_parameter(&self, name: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|parameter| parameter.element.name() == name)
    }

    /// Returns the value of the parameter with this name, if it has one.
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.find_parameter(name).and_then(Parameter::value)
    }

    /// Returns the metadata in the order of the message.
    pub fn metadata(
        &self,
    ) -> impl ExactSizeIterator<Item = (&Arc<Element>, Option<&Value>)> {
        self.metadata.iter().map(|(element, value)| (element, value.as_ref()))
    }

    /// Returns the piece of metadata with this name, if it has a value.
    pub fn find_metadata(&self, name: &str) -> Option<&Value> {
        self.metadata()
            .find(|(element, _)| element.name() == name)
            .and_then(|(_, value)| value)
    }

    /// Returns the result columns in the order of the message.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = &Arc<Element>> {
        self.columns.iter()
    }

    /// Returns where results are exported to, if not in-band.
    pub fn export(&self) -> Option<&str> {
        self.export.as_deref()
    }

    /// Sets where results are exported to.
    pub fn set_export(&mut self, export: Option<String>) {
        self.export = export;
    }

    /// Returns where the next message about this statement is sent to.
    pub fn link(&self) -> Option<&str> {
        self.link.as_deref()
    }

    /// Sets where the next message about this statement is sent to.
    pub fn set_link(&mut self, link: Option<String>) {
        self.link = link;
    }

    /// Returns the token that was set or received.
    pub const fn stated_token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// Sets the token.
    pub fn set_token(&mut self, token: Option<Token>) {
        self.token = token;
    }

    /// Says whether the temporal scope is when to work, as opposed to the time that a
    /// query is about.
    pub fn is_schedulable(&self) -> bool {
        self.verb() != "query"
    }

    /// Returns how long to wait before starting and stopping, as [`When::delays`] does. A
    /// query about a time that is over is not too late: it is served at once.
    pub fn delays(&self, now: Timestamp) -> Option<Delays> {
        let is_over = self.when.bounds(now).end.is_some_and(|end| end <= now);
        if is_over && !self.is_schedulable() {
            let end = Some(Duration::ZERO);
            return Some(Delays { start: Duration::ZERO, end });
        }
        self.when.delays(now)
    }

    /// Returns the schema hash.
    pub fn schema(&self) -> Schema {
        token::schema(self)
    }

    /// Writes what stands between `kind:` and the counts of a summary.
    pub(super) fn write_summary(
        &self,
        f: &mut fmt::Formatter<'_>,
        kind: &str,
        token: &Token,
    ) -> fmt::Result {
        write!(f, "<{kind}: {}", self.verb)?;
        if let Some(label) = &self.label {
            write!(f, " ({label})")?;
        }
        write!(
            f,
            " when {} token {} schema {}",
            self.when.hash_text(),
            token.short(),
            self.schema().short()
        )
    }

    /// Returns the number of distinct result columns.
    pub(super) fn distinct_columns(&self) -> usize {
        self.columns.iter().map(|element| element.name()).collect::<BTreeSet<_>>().len()
    }
}

/// A temporal scope that does not lie within the one to narrow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("temporal scope {when} does not lie within {scope}, or its period is shorter")]
pub struct OutsideScope {
    when: String,
    scope: String,
}

/// A statement that cannot be built this way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// No such element.
    #[error(transparent)]
    UnknownElement(#[from] UnknownElement),
    /// A constraint that is none.
    #[error("parameter {name}: {source}")]
    Constraint {
        /// The parameter.
        name: String,
        /// What is wrong.
        source: ParseConstraintError,
    },
    /// A value that is none.
    #[error("{name}: {source}")]
    Value {
        /// The parameter or piece of metadata.
        name: String,
        /// What is wrong.
        source: ParseValueError,
    },
    /// The name stands there already.
    #[error("{} is there already", quote(name))]
    Twice {
        /// The name.
        name: String,
    },
    /// The section is full.
    #[error("a section has at most {} entries", limits::SECTION_ENTRIES)]
    TooMany,
}

/// Passes an entry on if the section has room for it.
fn within_section<T>(length: usize, entry: T) -> Result<T, BuildError> {
    if length < limits::SECTION_ENTRIES { Ok(entry) } else { Err(BuildError::TooMany) }
}
