//! JSON to messages.

use std::fmt::{self, Display};
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::wire::{Scalar, Wire, too_many};
use crate::constraint::Constraint;
use crate::limits;
use crate::message::{
    Capability, Envelope, Exception, Interrupt, Kind, Message, Notification, Parameter,
    Receipt, Redemption, ResultStatement, Specification, Statement, Table, Withdrawal,
};
use crate::primitive::{Primitive, Real, Value, quote};
use crate::registry::{CORE, Element, Registries};
use crate::token::Token;
use crate::when::When;

/// The protocol versions that are understood: 1, and 0 as its early drafts wrote it.
const VERSIONS: std::ops::RangeInclusive<u64> = 0..=1;

/// Reads one message.
pub fn decode(input: &[u8], registries: &Registries) -> Result<Message, DecodeError> {
    let text = text(input)?;
    Decoder { registries }.message(text, "", 0)
}

/// Reads messages as some supervisors and components send them: one message, or an array
/// of them.
pub fn decode_all(
    input: &[u8],
    registries: &Registries,
) -> Result<Vec<Message>, DecodeError> {
    let text = text(input)?;
    if !text.trim_start().starts_with('[') {
        return Ok(vec![Decoder { registries }.message(text, "", 0)?]);
    }
    let items: Vec<&RawValue> = serde_json::from_str(text).map_err(DecodeError::json)?;
    if items.len() > limits::ENVELOPE_CONTENTS {
        return Err(DecodeError::at(
            "",
            format!("there are at most {} messages", limits::ENVELOPE_CONTENTS),
        ));
    }
    let decoder = Decoder { registries };
    items
        .into_iter()
        .enumerate()
        .map(|(index, item)| decoder.message(item.get(), &format!("/{index}"), 1))
        .collect()
}

/// Messages that arrived together, each read by itself.
#[derive(Debug)]
pub struct Parts {
    /// Each message, or why it cannot be read.
    pub messages: Vec<Result<Message, Unreadable>>,
    /// Whether they came as an array, not in an envelope or alone.
    pub is_array: bool,
}

/// A message among others that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The label that it states, if that much can be read.
    pub label: Option<String>,
    /// Why it cannot be read.
    pub error: DecodeError,
}

/// Reads messages that are independent of each other, such as the capabilities of a
/// component: from an envelope, an array, or one alone. One that cannot be read, because
/// it names elements that nobody here knows, does not cost the others.
pub fn decode_parts(input: &[u8], registries: &Registries) -> Result<Parts, DecodeError> {
    let text = text(input)?;
    let is_array = text.trim_start().starts_with('[');
    let (items, pointer): (Vec<&RawValue>, _) = if is_array {
        (serde_json::from_str(text).map_err(DecodeError::json)?, "")
    } else {
        let wire: Wire<'_> = serde_json::from_str(text).map_err(DecodeError::json)?;
        match wire {
            Wire {
                kind: Some((Kind::Envelope, _)), contents: Some(contents), ..
            } => (contents, "/contents"),
            _ => (vec![serde_json::from_str(text).map_err(DecodeError::json)?], ""),
        }
    };
    if items.len() > limits::ENVELOPE_CONTENTS {
        return Err(DecodeError::at(
            pointer,
            format!("there are at most {} messages", limits::ENVELOPE_CONTENTS),
        ));
    }
    let decoder = Decoder { registries };
    let read = |(index, item): (usize, &RawValue)| {
        let pointer = format!("{pointer}/{index}");
        decoder.message(item.get(), &pointer, 1).map_err(|error| {
            let wire: Option<Wire<'_>> = serde_json::from_str(item.get()).ok();
            let label = wire.and_then(|wire| {
                optional(wire.label.as_ref(), "label", "", limits::LABEL_BYTES).ok()?
            });
            Unreadable { label, error }
        })
    };
    Ok(Parts { messages: items.into_iter().enumerate().map(read).collect(), is_array })
}

/// Returns the input as text, if it has a size that is read at all.
fn text(input: &[u8]) -> Result<&str, DecodeError> {
    if input.len() > limits::MESSAGE_BYTES {
        return Err(DecodeError {
            place: Place::Byte(limits::MESSAGE_BYTES),
            problem: format!("a message has at most {} bytes", limits::MESSAGE_BYTES),
        });
    }
    str::from_utf8(input).map_err(|error| DecodeError {
        place: Place::Byte(error.valid_up_to()),
        problem: "messages are UTF-8, this is not".into(),
    })
}

/// Input that is no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct DecodeError {
    place: Place,
    problem: String,
}

impl DecodeError {
    /// Returns where the problem is.
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// Returns what the problem is.
    pub fn problem(&self) -> &str {
        &self.problem
    }

    /// Describes a problem at a JSON pointer.
    fn at(pointer: &str, problem: impl Display) -> Self {
        Self { place: Place::Pointer(pointer.to_owned()), problem: problem.to_string() }
    }

    /// Describes a problem that the JSON reader has found.
    #[expect(clippy::needless_pass_by_value, reason = "it is used with map_err")]
    fn json(error: serde_json::Error) -> Self {
        let message = error.to_string();
        let suffix = format!(" at line {} column {}", error.line(), error.column());
        Self {
            place: Place::Line { line: error.line(), column: error.column() },
            problem: message.strip_suffix(&suffix).unwrap_or(&message).to_owned(),
        }
    }
}

/// Where a problem is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A byte offset from the start of the input.
    Byte(usize),
    /// A line and a column in bytes, both from 1, from the start of the message or, in
    /// an array or envelope, of the message within.
    Line {
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// A JSON pointer (RFC 6901); empty for the whole message.
    Pointer(String),
}

impl Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Byte(byte) => write!(f, "at byte {byte}"),
            Self::Line { line, column } => write!(f, "at line {line} column {column}"),
            Self::Pointer(pointer) if pointer.is_empty() => f.write_str("in the message"),
            Self::Pointer(pointer) => write!(f, "at {pointer}"),
        }
    }
}

/// Understands messages with the elements of some registries.
struct Decoder<'r> {
    registries: &'r Registries,
}

impl Decoder<'_> {
    /// Reads a message at a JSON pointer, within so many envelopes.
    fn message(
        &self,
        json: &str,
        pointer: &str,
        depth: usize,
    ) -> Result<Message, DecodeError> {
        let wire: Wire<'_> = serde_json::from_str(json).map_err(DecodeError::json)?;
        let Some((kind, verb)) = &wire.kind else {
            return Err(DecodeError::at(
                pointer,
                "no key says what kind of message this is; one of capability, \
                 specification, result, receipt, redemption, withdrawal, interrupt, \
                 exception or envelope does",
            ));
        };
        if *kind == Kind::Exception {
            return Ok(exception(verb, &wire, pointer)?.into());
        }
        version(wire.version.as_ref(), pointer)?;
        let verb = required(Some(verb), kind.key(), pointer, limits::VERB_BYTES)?;
        match kind {
            Kind::Capability => {
                let statement = self.statement(&verb, &wire, pointer, Values::Allowed)?;
                Ok(Capability::new(statement).into())
            }
            Kind::Specification => {
                let statement = self.statement(&verb, &wire, pointer, Values::Chosen)?;
                Ok(Specification::new(statement).into())
            }
            Kind::Result => {
                let statement = self.statement(&verb, &wire, pointer, Values::Chosen)?;
                let mut table = Table::new(statement.columns());
                if let Some(rows) = wire.resultvalues {
                    read_rows(rows, &mut table, pointer)?;
                }
                Ok(ResultStatement::new(statement, table).into())
            }
            Kind::Receipt => {
                let notification =
                    self.notification(&verb, &wire, pointer, Values::Chosen)?;
                Ok(Receipt::new(notification).into())
            }
            Kind::Redemption => {
                let notification =
                    self.notification(&verb, &wire, pointer, Values::Chosen)?;
                Ok(Redemption::new(notification).into())
            }
            Kind::Interrupt => {
                let notification =
                    self.notification(&verb, &wire, pointer, Values::Chosen)?;
                Ok(Interrupt::new(notification).into())
            }
            Kind::Withdrawal => {
                let notification =
                    self.notification(&verb, &wire, pointer, Values::Allowed)?;
                Ok(Withdrawal::new(notification).into())
            }
            Kind::Envelope => self.envelope(&verb, &wire, pointer, depth).map(Into::into),
            Kind::Indirection | Kind::Exception => Err(DecodeError::at(
                pointer,
                "indirections are not understood; address the other component directly",
            )),
        }
    }

    /// Reads the messages of an envelope.
    fn envelope(
        &self,
        content: &str,
        wire: &Wire<'_>,
        pointer: &str,
        depth: usize,
    ) -> Result<Envelope, DecodeError> {
        if depth == limits::ENVELOPE_DEPTH {
            return Err(DecodeError::at(
                pointer,
                format!("envelopes nest at most {} deep", limits::ENVELOPE_DEPTH),
            ));
        }
        let contents = wire.contents.as_ref().ok_or_else(|| {
            DecodeError::at(pointer, "an envelope has contents, an array of messages")
        })?;
        let messages = contents
            .iter()
            .enumerate()
            .map(|(index, json)| {
                self.message(
                    json.get(),
                    &format!("{pointer}/contents/{index}"),
                    depth + 1,
                )
            })
            .collect::<Result<_, _>>()?;
        let mut envelope = Envelope::of(messages).with_content(content);
        envelope.set_token(token(wire, pointer)?);
        envelope.set_label(optional(
            wire.label.as_ref(),
            "label",
            pointer,
            limits::LABEL_BYTES,
        )?);
        envelope.set_when(when(wire, pointer)?);
        Ok(envelope)
    }

    /// Reads a notification: with its statement, or the token alone.
    fn notification(
        &self,
        verb: &str,
        wire: &Wire<'_>,
        pointer: &str,
        values: Values,
    ) -> Result<Notification, DecodeError> {
        let token = token(wire, pointer)?;
        // A notification with any of these is complete, one without is its token.
        if wire.when.is_none() && wire.parameters.is_none() && wire.results.is_none() {
            let token = token.ok_or_else(|| {
                DecodeError::at(pointer, "a notification without statement needs a token")
            })?;
            let label =
                optional(wire.label.as_ref(), "label", pointer, limits::LABEL_BYTES)?;
            return Ok(Notification::token_only(verb, token, label));
        }
        let statement = self.statement(verb, wire, pointer, values)?;
        let token = token.unwrap_or_else(|| match values {
            Values::Allowed => Capability::new(statement.clone()).token(),
            Values::Chosen => Specification::new(statement.clone()).token(),
        });
        Ok(Notification::about(statement, token))
    }

    /// Reads the sections of a statement.
    fn statement(
        &self,
        verb: &str,
        wire: &Wire<'_>,
        pointer: &str,
        values: Values,
    ) -> Result<Statement, DecodeError> {
        let registry =
            optional(wire.registry.as_ref(), "registry", pointer, limits::URL_BYTES)?
                .unwrap_or_else(|| CORE.to_owned());
        let when = when(wire, pointer)?.unwrap_or_else(When::past_to_future);
        let mut statement = Statement::new(verb, &registry, when);
        statement.set_label(optional(
            wire.label.as_ref(),
            "label",
            pointer,
            limits::LABEL_BYTES,
        )?);
        statement.set_token(token(wire, pointer)?);
        for (section, name, set) in [
            (&wire.link, "link", Statement::set_link as fn(&mut Statement, _)),
            (&wire.export, "export", Statement::set_export),
        ] {
            let url = optional(section.as_ref(), name, pointer, limits::URL_BYTES)?;
            set(&mut statement, url);
        }
        for (name, scalar) in wire.parameters.iter().flatten() {
            let place = || format!("{pointer}/parameters/{}", escaped(name));
            let element = self.element(&registry, name, &place)?;
            let parameter = match values {
                Values::Allowed => {
                    let text = constraint_text(scalar, &place)?;
                    let constraint = Constraint::parse(element.primitive(), &text)
                        .map_err(|error| DecodeError::at(&place(), error))?;
                    Parameter::new(element, constraint)
                }
                Values::Chosen => {
                    let value = value(element.primitive(), scalar, &place)?;
                    Parameter::with_value(element, value)
                }
            };
            statement
                .add_parameter(parameter)
                .map_err(|error| DecodeError::at(&place(), error))?;
        }
        for (name, scalar) in wire.metadata.iter().flatten() {
            let place = || format!("{pointer}/metadata/{}", escaped(name));
            let element = self.element(&registry, name, &place)?;
            let value = value(element.primitive(), scalar, &place)?;
            statement
                .add_metadata(element, value)
                .map_err(|error| DecodeError::at(&place(), error))?;
        }
        for (index, name) in wire.results.iter().flatten().enumerate() {
            let place = || format!("{pointer}/results/{index}");
            let Scalar::Text(name) = name else {
                return Err(DecodeError::at(
                    &place(),
                    format!("expected the name of an element, found {}", name.describe()),
                ));
            };
            let element = self.element(&registry, name, &place)?;
            statement
                .add_column(element)
                .map_err(|error| DecodeError::at(&place(), error))?;
        }
        Ok(statement)
    }

    /// Looks an element up.
    fn element(
        &self,
        registry: &str,
        name: &str,
        place: &dyn Fn() -> String,
    ) -> Result<Arc<Element>, DecodeError> {
        match self.registries.element(registry, name) {
            Ok(element) => Ok(Arc::clone(element)),
            Err(error) => Err(DecodeError::at(&place(), error)),
        }
    }
}

/// What the parameters of a message contain.
#[derive(Clone, Copy)]
enum Values {
    /// Constraints: which values are allowed.
    Allowed,
    /// The values chosen.
    Chosen,
}

/// Reads an exception. Its key holds the token.
fn exception(
    token: &Scalar<'_>,
    wire: &Wire<'_>,
    pointer: &str,
) -> Result<Exception, DecodeError> {
    let token = optional(Some(token), "exception", pointer, limits::TOKEN_BYTES)?
        .map(|text| text.parse().expect("its length has been checked"));
    let message =
        optional(wire.message.as_ref(), "message", pointer, limits::MESSAGE_BYTES)?;
    Ok(Exception::new(token, message.unwrap_or_else(|| "unspecified exception".into())))
}

/// Refuses protocol versions that are not understood.
fn version(version: Option<&Scalar<'_>>, pointer: &str) -> Result<(), DecodeError> {
    let number = match version {
        None | Some(Scalar::Null) => return Ok(()),
        Some(Scalar::Natural(number)) => Some(*number),
        Some(Scalar::Text(text)) => text.parse().ok(),
        Some(_) => None,
    };
    match number {
        Some(number) if VERSIONS.contains(&number) => Ok(()),
        _ => Err(DecodeError::at(
            &format!("{pointer}/version"),
            "only protocol version 1 is spoken here",
        )),
    }
}

/// Reads the temporal scope.
fn when(wire: &Wire<'_>, pointer: &str) -> Result<Option<When>, DecodeError> {
    let text = match &wire.when {
        None | Some(Scalar::Null) => return Ok(None),
        Some(Scalar::Text(text)) => text,
        Some(other) => {
            return Err(DecodeError::at(
                &format!("{pointer}/when"),
                format!("expected a temporal scope as text, found {}", other.describe()),
            ));
        }
    };
    text.parse()
        .map(Some)
        .map_err(|error| DecodeError::at(&format!("{pointer}/when"), error))
}

/// Reads the token.
fn token(wire: &Wire<'_>, pointer: &str) -> Result<Option<Token>, DecodeError> {
    let text = optional(wire.token.as_ref(), "token", pointer, limits::TOKEN_BYTES)?;
    Ok(text.map(|text| text.parse().expect("its length has been checked")))
}

/// Reads a section that is text, if it is there. Numbers are taken as their text.
fn optional(
    section: Option<&Scalar<'_>>,
    name: &str,
    pointer: &str,
    limit: usize,
) -> Result<Option<String>, DecodeError> {
    let text = match section {
        None | Some(Scalar::Null) => return Ok(None),
        Some(Scalar::Text(text)) => text.clone().into_owned(),
        Some(Scalar::Natural(number)) => number.to_string(),
        Some(other) => {
            return Err(DecodeError::at(
                &format!("{pointer}/{name}"),
                format!("expected text, found {}", other.describe()),
            ));
        }
    };
    if text.len() > limit {
        return Err(DecodeError::at(
            &format!("{pointer}/{name}"),
            format!("there are at most {limit} bytes here"),
        ));
    }
    Ok(Some(text))
}

/// Reads a section that must be there.
fn required(
    section: Option<&Scalar<'_>>,
    name: &str,
    pointer: &str,
    limit: usize,
) -> Result<String, DecodeError> {
    optional(section, name, pointer, limit)?.ok_or_else(|| {
        DecodeError::at(&format!("{pointer}/{name}"), "expected text, found null")
    })
}

/// Returns the text of a constraint, which may be given as a native value.
fn constraint_text(
    scalar: &Scalar<'_>,
    place: &dyn Fn() -> String,
) -> Result<String, DecodeError> {
    Ok(match scalar {
        Scalar::Text(text) => text.clone().into_owned(),
        Scalar::Null => "*".into(),
        Scalar::Bool(truth) => truth.to_string(),
        Scalar::Natural(number) => number.to_string(),
        Scalar::Negative(number) => number.to_string(),
        Scalar::Real(number) => Real(*number).to_string(),
        Scalar::Object(object) => object.to_string(),
        Scalar::Array => {
            return Err(DecodeError::at(
                &place(),
                "expected a constraint as text, found an array",
            ));
        }
    })
}

/// Reads a value of some type, given natively or as text.
fn value(
    primitive: Primitive,
    scalar: &Scalar<'_>,
    place: &dyn Fn() -> String,
) -> Result<Option<Value>, DecodeError> {
    match (primitive, scalar) {
        (_, Scalar::Null) => Ok(None),
        (Primitive::Natural, Scalar::Natural(number)) => {
            Ok(Some(Value::Natural(*number)))
        }
        (Primitive::Real, Scalar::Real(number)) => Ok(Some(Value::Real(Real(*number)))),
        (Primitive::Bool, Scalar::Bool(truth)) => Ok(Some(Value::Bool(*truth))),
        (Primitive::Object, Scalar::Object(object)) => {
            Ok(Some(Value::Object(object.clone())))
        }
        (_, Scalar::Object(_) | Scalar::Array) => Err(DecodeError::at(
            &place(),
            format!("expected a value of type {primitive}, found {}", scalar.describe()),
        )),
        (_, Scalar::Text(text)) => Value::parse(primitive, text)
            .map_err(|error| DecodeError::at(&place(), error)),
        (_, other) => Value::parse(primitive, &constraint_text(other, place)?)
            .map_err(|error| DecodeError::at(&place(), error)),
    }
}

/// Escapes a name for a JSON pointer (RFC 6901).
fn escaped(name: &str) -> String {
    let name = name.replace('~', "~0").replace('/', "~1");
    match name.char_indices().nth(limits::QUOTE_BYTES) {
        Some((end, _)) => quote(name.get(..end).unwrap_or_default()),
        None => name,
    }
}

/// Reads rows that [`encode_rows`](super::encode_rows) wrote, behind those of a table.
pub fn decode_rows(json: &[u8], table: &mut Table) -> Result<(), DecodeError> {
    let rows: &RawValue = serde_json::from_str(text(json)?).map_err(DecodeError::json)?;
    read_rows(rows, table, "")
}

/// Reads rows straight into the columns of a table.
fn read_rows(
    rows: &RawValue,
    table: &mut Table,
    pointer: &str,
) -> Result<(), DecodeError> {
    let mut deserializer = serde_json::Deserializer::from_str(rows.get());
    Rows { table }.deserialize(&mut deserializer).map_err(|error| DecodeError {
        place: Place::Pointer(format!("{pointer}/resultvalues")),
        problem: error.to_string(),
    })
}

/// Reads an array of rows.
struct Rows<'t> {
    table: &'t mut Table,
}

impl<'de> DeserializeSeed<'de> for Rows<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Rows<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<(), A::Error> {
        while rows.next_element_seed(RowCells { table: self.table })?.is_some() {
            self.table.end_row();
            if self.table.rows() > limits::RESULT_ROWS {
                return Err(too_many("rows in a result", limits::RESULT_ROWS));
            }
        }
        Ok(())
    }
}

/// Reads one row: an array of cells, in the order of the columns.
struct RowCells<'t> {
    table: &'t mut Table,
}

impl<'de> DeserializeSeed<'de> for RowCells<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for RowCells<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row, which is an array of values")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut row: A) -> Result<(), A::Error> {
        let index = self.table.rows();
        for column in self.table.columns_mut() {
            let Some(scalar) = row.next_element::<Scalar<'_>>()? else {
                return Ok(());
            };
            let element = Arc::clone(column.element());
            let value = value(element.primitive(), &scalar, &String::new)
                .map_err(|error| in_cell(index, &element, &error))?;
            column.cells_mut().push(value);
        }
        if row.next_element::<serde::de::IgnoredAny>()?.is_some() {
            return Err(A::Error::custom(format_args!(
                "row {index} has more values than there are result columns"
            )));
        }
        Ok(())
    }
}

/// Says in which cell a value is wrong.
fn in_cell<E: serde::de::Error>(
    index: usize,
    element: &Element,
    error: &DecodeError,
) -> E {
    E::custom(format_args!("row {index}, column {element}: {}", error.problem()))
}
