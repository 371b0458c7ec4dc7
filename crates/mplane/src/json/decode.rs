//! JSON to messages.

use std::sync::Arc;

use serde::de::DeserializeSeed;
use serde_json::value::RawValue;

use super::error::{DecodeError, Trail, escaped};
use super::rows::read_rows;
use super::value::{Budget, constraint, parameter, value};
use super::wire::{List, ResultValues, Scalar, Wire};
use crate::limits;
use crate::message::{
    Capability, Envelope, Exception, Indirection, Interrupt, Kind, Message, Notification,
    Parameter, Receipt, Redemption, ResultStatement, Specification, Statement, Table,
    Withdrawal,
};
use crate::registry::{CORE, Element, Registries};
use crate::token::Token;
use crate::when::When;

/// The highest protocol version that is understood. What is lower is read as version 1:
/// its early drafts wrote 0, and the reference implementation takes any number.
const HIGHEST_VERSION: f64 = 2.0;

/// Reads one message.
pub fn decode(input: &[u8], registries: &Registries) -> Result<Message, DecodeError> {
    let text = text(input)?;
    Decoder::new(registries).message(text, "", 0)
}

/// Reads messages as some supervisors and components send them: one message, or an array
/// of them.
pub fn decode_all(
    input: &[u8],
    registries: &Registries,
) -> Result<Vec<Message>, DecodeError> {
    let text = text(input)?;
    if !text.trim_start().starts_with('[') {
        return Ok(vec![Decoder::new(registries).message(text, "", 0)?]);
    }
    let items = array(text)?;
    let decoder = Decoder::new(registries);
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
    /// The token that it states, if that much can be read.
    pub token: Option<Token>,
    /// Why it cannot be read.
    pub error: DecodeError,
}

/// Reads messages that are independent of each other, such as the capabilities of a
/// component: from an envelope, an array, or one alone. One that cannot be read, because
/// it names elements that nobody here knows, does not cost the others.
pub fn decode_parts(input: &[u8], registries: &Registries) -> Result<Parts, DecodeError> {
    let text = text(input)?;
    let is_array = text.trim_start().starts_with('[');
    let (items, pointer) = if is_array {
        (array(text)?, "")
    } else {
        match Wire::read(text, "", registries)? {
            Wire {
                kind: Some((Kind::Envelope, _)), contents: Some(contents), ..
            } => (contents, "/contents"),
            _ => (vec![raw(text)?], ""),
        }
    };
    let decoder = Decoder::new(registries);
    let read = |(index, item): (usize, &RawValue)| {
        let pointer = format!("{pointer}/{index}");
        decoder.message(item.get(), &pointer, 1).map_err(|error| {
            let wire = Wire::read(item.get(), &pointer, registries).ok();
            let label = wire.as_ref().and_then(|wire| {
                optional(wire.label.as_ref(), "label", "", limits::LABEL_BYTES).ok()?
            });
            let token = wire.as_ref().and_then(|wire| {
                let text =
                    optional(wire.token.as_ref(), "token", "", limits::TOKEN_BYTES);
                text.ok()??.parse().ok()
            });
            Unreadable { label, token, error }
        })
    };
    Ok(Parts { messages: items.into_iter().enumerate().map(read).collect(), is_array })
}

/// Reads rows that [`encode_rows`](super::encode_rows) wrote, behind those of a table.
pub fn decode_rows(json: &[u8], table: Table) -> Result<Table, DecodeError> {
    read_rows(raw(text(json)?)?, table, "")
}

/// Returns the messages of an array, unread.
fn array(text: &str) -> Result<Vec<&RawValue>, DecodeError> {
    let trail = Trail::default();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    List::messages(&trail)
        .deserialize(&mut deserializer)
        .and_then(|items| deserializer.end().map(|()| items))
        .map_err(|error| DecodeError::json(&error, "", &trail))
}

/// Returns a JSON value, unread.
fn raw(text: &str) -> Result<&RawValue, DecodeError> {
    serde_json::from_str(text)
        .map_err(|error| DecodeError::json(&error, "", &Trail::default()))
}

/// Returns the input as text, if it has a size that is read at all.
fn text(input: &[u8]) -> Result<&str, DecodeError> {
    if input.len() > limits::MESSAGE_BYTES {
        return Err(DecodeError::at_byte(
            limits::MESSAGE_BYTES,
            format!("a message has at most {} bytes", limits::MESSAGE_BYTES),
        ));
    }
    str::from_utf8(input).map_err(|error| {
        DecodeError::at_byte(error.valid_up_to(), "messages are UTF-8, this is not")
    })
}

/// Understands messages with the elements of some registries.
struct Decoder<'r> {
    registries: &'r Registries,
    budget: Budget,
}

impl<'r> Decoder<'r> {
    /// Makes a decoder for one input.
    const fn new(registries: &'r Registries) -> Self {
        Self { registries, budget: Budget::new() }
    }

    /// Reads a message at a JSON pointer, within so many envelopes.
    fn message(
        &self,
        json: &str,
        pointer: &str,
        depth: usize,
    ) -> Result<Message, DecodeError> {
        let mut wire = Wire::read(json, pointer, self.registries)?;
        let Some((kind, verb)) = &wire.kind else {
            return Err(DecodeError::at(
                pointer,
                "no key says what kind of message this is; one of capability, \
                 specification, result, receipt, redemption, withdrawal, interrupt, \
                 indirection, exception or envelope does",
            ));
        };
        if *kind == Kind::Exception {
            return Ok(exception(&wire, pointer)?.into());
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
                let table = match wire.resultvalues.take() {
                    Some(ResultValues::Table(table)) => table,
                    Some(ResultValues::Raw(rows)) => {
                        read_rows(rows, Table::new(statement.columns()), pointer)?
                    }
                    None => Table::new(statement.columns()),
                };
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
            Kind::Indirection => {
                let statement = self.statement(&verb, &wire, pointer, Values::Allowed)?;
                if statement.link().is_none_or(str::is_empty) {
                    return Err(DecodeError::at(
                        pointer,
                        "an indirection has a link, the URL of the other component",
                    ));
                }
                Ok(Indirection::new(statement).into())
            }
            Kind::Envelope => self.envelope(&verb, &wire, pointer, depth).map(Into::into),
            Kind::Exception => Ok(exception(&wire, pointer)?.into()),
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
        let complete =
            wire.when.is_some() || wire.parameters.is_some() || wire.results.is_some();
        if let Some(token) = token.as_ref().filter(|_| !complete) {
            let token = token.clone();
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
            let (primitive, budget) = (element.primitive(), &self.budget);
            let parameter = match values {
                Values::Allowed => {
                    let constraint = constraint(primitive, scalar, budget, &place)?;
                    Parameter::new(element, constraint)
                }
                Values::Chosen => {
                    let value = parameter(primitive, scalar, budget, &place)?;
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
fn exception(wire: &Wire<'_>, pointer: &str) -> Result<Exception, DecodeError> {
    let token = wire.kind.as_ref().map(|(_, token)| token);
    let token = optional(token, "exception", pointer, limits::TOKEN_BYTES)?
        .map(|text| text.parse().expect("its length has been checked"));
    let message =
        optional(wire.message.as_ref(), "message", pointer, limits::MESSAGE_BYTES)?
            .ok_or_else(|| {
                DecodeError::at(
                    pointer,
                    "an exception has a message, which says what failed",
                )
            })?;
    Ok(Exception::new(token, message))
}

/// Refuses protocol versions that are not understood.
fn version(version: Option<&Scalar<'_>>, pointer: &str) -> Result<(), DecodeError> {
    let number = match version {
        None => return Ok(()),
        Some(Scalar::Natural(0..=2) | Scalar::Negative(_) | Scalar::Bool(_)) => {
            return Ok(());
        }
        Some(Scalar::Real(number)) => Some(*number),
        Some(Scalar::Text(text)) => text.parse().ok(),
        Some(_) => None,
    };
    match number {
        Some(number) if number.trunc() <= HIGHEST_VERSION => Ok(()),
        _ => Err(DecodeError::at(
            &format!("{pointer}/version"),
            "protocol versions 1 and 2 are spoken here, as a number",
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
