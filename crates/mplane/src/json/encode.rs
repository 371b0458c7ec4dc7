//! Messages to JSON.

use std::ops::Range;

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::ser::PrettyFormatter;

use crate::constraint::Constraint;
use crate::message::{Cells, Envelope, Message, Notification, Statement, Table};
use crate::primitive::{NO_VALUE, Real, Value};
use crate::registry::PLATFORM;
use crate::token::Token;

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Numbers, booleans and `null` as JSON has them, instead of text.
    pub native_values: bool,
    /// Networks in constraints, instead of ranges.
    pub networks: bool,
    /// Metadata that says how a result came about (elements of the platform registry),
    /// which programs that do not know the registry cannot read.
    pub provenance: bool,
    /// Blanks and lines.
    pub layout: Layout,
}

/// Blanks and lines in written messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// None, for the wire.
    Compact,
    /// An indent of two, for files and people.
    Indented,
}

impl Form {
    /// What everyone can read, the reference included.
    pub const REFERENCE: Self = Self {
        native_values: false,
        networks: false,
        provenance: false,
        layout: Layout::Compact,
    };

    /// What programs of this platform send each other.
    pub const NATIVE: Self = Self {
        native_values: true,
        networks: true,
        provenance: true,
        layout: Layout::Compact,
    };

    /// What files and people get.
    pub const FILE: Self = Self { layout: Layout::Indented, ..Self::NATIVE };
}

/// Writes one message, keys sorted.
pub fn encode(message: &Message, form: Form) -> Vec<u8> {
    write(&Encoded { message, form }, form.layout)
}

/// Writes messages as an array, as some supervisors and components want them.
pub fn encode_array(messages: &[Message], form: Form) -> Vec<u8> {
    let array: Vec<_> =
        messages.iter().map(|message| Encoded { message, form }).collect();
    write(&array, form.layout)
}

/// Writes some rows of a table as an array of arrays, natively: how programs of this
/// platform keep rows that belong to no result yet.
pub fn encode_rows(table: &Table, rows: Range<usize>) -> Vec<u8> {
    let rows = rows.start..rows.end.min(table.rows());
    let written: Vec<_> =
        rows.map(|index| WrittenRow(table, index, Form::NATIVE)).collect();
    write(&written, Layout::Compact)
}

/// Writes anything.
fn write(value: &impl Serialize, layout: Layout) -> Vec<u8> {
    let mut output = Vec::with_capacity(1024);
    let written = match layout {
        Layout::Compact => value.serialize(&mut serde_json::Serializer::new(&mut output)),
        Layout::Indented => {
            let formatter = PrettyFormatter::with_indent(b"  ");
            let mut serializer =
                serde_json::Serializer::with_formatter(&mut output, formatter);
            value.serialize(&mut serializer)
        }
    };
    written.expect("writing to memory does not fail, and keys are text");
    output
}

/// A message with the form to write it in.
struct Encoded<'a> {
    message: &'a Message,
    form: Form,
}

impl Serialize for Encoded<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sections: Vec<(&str, Section<'_>)> = Vec::with_capacity(12);
        let key = self.message.kind().key();
        match self.message {
            Message::Exception(exception) => {
                let token = exception.token().map(Token::as_str);
                sections.push((key, token.map_or(Section::Null, Section::Text)));
                sections.push(("message", Section::Text(exception.message())));
            }
            Message::Envelope(envelope) => {
                sections.push((key, Section::Text(envelope.content())));
                self.envelope(envelope, &mut sections);
            }
            Message::Capability(capability) => {
                sections.push((key, Section::Text(capability.verb())));
                self.statement(capability, Values::Allowed, &mut sections);
                sections.push(("token", Section::Owned(capability.token().to_string())));
            }
            Message::Specification(specification) => {
                sections.push((key, Section::Text(specification.verb())));
                self.statement(specification, Values::Chosen, &mut sections);
                sections
                    .push(("token", Section::Owned(specification.token().to_string())));
            }
            Message::Result(result) => {
                sections.push((key, Section::Text(result.verb())));
                self.statement(result, Values::Chosen, &mut sections);
                sections.push(("token", Section::Owned(result.token().to_string())));
                sections.push(("resultvalues", Section::Rows(result.table(), self.form)));
            }
            Message::Receipt(receipt) => {
                self.notification(key, receipt, Values::Chosen, &mut sections);
            }
            Message::Redemption(redemption) => {
                self.notification(key, redemption, Values::Chosen, &mut sections);
            }
            Message::Interrupt(interrupt) => {
                self.notification(key, interrupt, Values::Chosen, &mut sections);
            }
            Message::Withdrawal(withdrawal) => {
                self.notification(key, withdrawal, Values::Allowed, &mut sections);
            }
            Message::Indirection(indirection) => {
                sections.push((key, Section::Text(indirection.verb())));
                self.statement(indirection, Values::Allowed, &mut sections);
                sections.push(("token", Section::Owned(indirection.token().to_string())));
            }
        }
        if !matches!(self.message, Message::Exception(_)) {
            sections.push(("version", Section::Version(1)));
        }
        sections.sort_by_key(|(key, _)| *key);
        let mut map = serializer.serialize_map(Some(sections.len()))?;
        for (key, section) in &sections {
            map.serialize_entry(key, section)?;
        }
        map.end()
    }
}

impl<'a> Encoded<'a> {
    /// Adds the sections of an envelope.
    fn envelope(&self, envelope: &'a Envelope, sections: &mut Sections<'a>) {
        if let Some(token) = envelope.token() {
            sections.push(("token", Section::Text(token.as_str())));
        }
        if let Some(label) = envelope.label() {
            sections.push(("label", Section::Text(label)));
        }
        if let Some(when) = envelope.when() {
            sections.push(("when", Section::Owned(when.to_string())));
        }
        let contents = envelope.messages();
        sections.push(("contents", Section::Messages(contents, self.form)));
    }

    /// Adds the sections of a notification.
    fn notification(
        &self,
        key: &'static str,
        notification: &'a Notification,
        values: Values,
        sections: &mut Sections<'a>,
    ) {
        sections.push((key, Section::Text(notification.verb())));
        sections.push(("token", Section::Text(notification.token().as_str())));
        match notification.statement() {
            Some(statement) => self.statement(statement, values, sections),
            None => {
                if let Some(label) = notification.label() {
                    sections.push(("label", Section::Text(label)));
                }
            }
        }
    }

    /// Adds the sections of a statement, except kind, version and token.
    fn statement(
        &self,
        statement: &'a Statement,
        values: Values,
        sections: &mut Sections<'a>,
    ) {
        sections.push(("registry", Section::Text(statement.registry())));
        sections.push(("when", Section::Owned(statement.when().to_string())));
        if let Some(label) = statement.label() {
            sections.push(("label", Section::Text(label)));
        }
        if let Some(link) = statement.link() {
            sections.push(("link", Section::Text(link)));
        }
        if let Some(export) = statement.export() {
            sections.push(("export", Section::Text(export)));
        }
        if statement.parameters().len() > 0 {
            sections.push((
                "parameters",
                Section::Pairs(parameters(statement, values, self.form), self.form),
            ));
        }
        let mut metadata: Vec<_> = statement
            .metadata()
            .filter(|(element, _)| {
                self.form.provenance || element.namespace() != PLATFORM
            })
            .map(|(element, value)| (element.name(), Cell::of(value)))
            .collect();
        metadata.sort_by_key(|(name, _)| *name);
        if !metadata.is_empty() {
            sections.push(("metadata", Section::Pairs(metadata, self.form)));
        }
        if statement.columns().len() > 0 {
            let names = statement.columns().map(|element| element.name()).collect();
            sections.push(("results", Section::Names(names)));
        }
    }
}

/// The sections of a message, not yet in order.
type Sections<'a> = Vec<(&'static str, Section<'a>)>;

/// What the parameters of a message contain.
#[derive(Clone, Copy)]
enum Values {
    /// Constraints: which values are allowed.
    Allowed,
    /// The values chosen or, of parameters not yet set, what is allowed.
    Chosen,
}

/// Returns the parameters as they are written.
fn parameters(
    statement: &Statement,
    values: Values,
    form: Form,
) -> Vec<(&str, Cell<'_>)> {
    let mut parameters: Vec<_> = statement
        .parameters()
        .map(|parameter| {
            let cell = match (values, parameter.value()) {
                (Values::Chosen, Some(value)) => Cell::Value(value),
                _ => Cell::Text(constraint_text(parameter.constraint(), form)),
            };
            (parameter.element().name(), cell)
        })
        .collect();
    parameters.sort_by_key(|(name, _)| *name);
    parameters
}

/// Returns the text of a constraint, where networks are not known as a range if it can be
/// one.
fn constraint_text(constraint: &Constraint, form: Form) -> String {
    match constraint.without_networks() {
        Some(range) if !form.networks => range.to_string(),
        _ => constraint.to_string(),
    }
}

/// A value of the outer object.
enum Section<'a> {
    Null,
    Text(&'a str),
    Owned(String),
    Version(u8),
    Pairs(Vec<(&'a str, Cell<'a>)>, Form),
    Names(Vec<&'a str>),
    Rows(&'a Table, Form),
    Messages(&'a [Message], Form),
}

/// A value or constraint within a section.
enum Cell<'a> {
    None,
    Value(&'a Value),
    Text(String),
}

impl<'a> Cell<'a> {
    /// Makes a cell of a value that may be missing.
    const fn of(value: Option<&'a Value>) -> Self {
        match value {
            Some(value) => Self::Value(value),
            None => Self::None,
        }
    }
}

impl Serialize for Section<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Owned(text) => serializer.serialize_str(text),
            Self::Version(version) => serializer.serialize_u8(*version),
            Self::Names(names) => names.serialize(serializer),
            Self::Pairs(pairs, form) => {
                let mut map = serializer.serialize_map(Some(pairs.len()))?;
                for (name, cell) in pairs {
                    match cell {
                        Cell::None => map.serialize_entry(name, &NoValue(*form))?,
                        Cell::Text(text) => map.serialize_entry(name, text)?,
                        Cell::Value(value) => {
                            map.serialize_entry(name, &Written(value, *form))?;
                        }
                    }
                }
                map.end()
            }
            Self::Rows(table, form) => {
                let mut rows = serializer.serialize_seq(Some(table.rows()))?;
                for index in 0..table.rows() {
                    rows.serialize_element(&WrittenRow(table, index, *form))?;
                }
                rows.end()
            }
            Self::Messages(messages, form) => serializer.collect_seq(
                messages.iter().map(|message| Encoded { message, form: *form }),
            ),
        }
    }
}

/// One row as an array.
struct WrittenRow<'a>(&'a Table, usize, Form);

impl Serialize for WrittenRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(table, index, form) = *self;
        let mut row = serializer.serialize_seq(Some(table.columns().len()))?;
        for column in table.columns() {
            row.serialize_element(&WrittenCell(column.cells(), index, form))?;
        }
        row.end()
    }
}

/// One cell of a column.
struct WrittenCell<'a>(&'a Cells, usize, Form);

impl Serialize for WrittenCell<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(cells, index, form) = *self;
        if let Cells::String(cells) | Cells::Url(cells) = cells
            && let Some(Some(text)) = cells.get(index)
        {
            return serializer.serialize_str(text);
        }
        match cells.value(index) {
            None => NoValue(form).serialize(serializer),
            Some(value) => Written(&value, form).serialize(serializer),
        }
    }
}

/// No value: `null` or `*`.
struct NoValue(Form);

impl Serialize for NoValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.native_values {
            serializer.serialize_unit()
        } else {
            serializer.serialize_str(NO_VALUE)
        }
    }
}

/// A value, natively or as text.
struct Written<'a>(&'a Value, Form);

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(value, form) = *self;
        match value {
            Value::String(text) | Value::Url(text) => serializer.serialize_str(text),
            Value::List(list) => serializer
                .collect_seq(list.members().iter().map(|value| Written(value, form))),
            _ if !form.native_values => text(value, serializer),
            Value::Natural(number) => serializer.serialize_u64(*number),
            // serde_json always writes a fraction or an exponent, as hashes need it.
            Value::Real(Real(number)) if number.is_finite() => {
                serializer.serialize_f64(*number)
            }
            Value::Bool(truth) => serializer.serialize_bool(*truth),
            Value::Object(object) => serde_json::from_str::<serde_json::Value>(object)
                .expect("values of type object are JSON")
                .serialize(serializer),
            Value::Real(_) | Value::Time(_) | Value::Address(_) => {
                text(value, serializer)
            }
        }
    }
}

/// Writes the canonical text of a value.
fn text<S: Serializer>(value: &Value, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
