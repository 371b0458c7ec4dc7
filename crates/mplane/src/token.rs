//! What identifies messages: schema hashes and tokens.
//!
//! Statements with equal parameters and result columns have equal schema hashes: their
//! results compare. A token names one statement between two peers. Both are MD5 over a
//! text that is bit-exact with the reference; MD5 is a name here, never a protection.
//!
//! Source: protocol notes, "Identity"; vectors recorded from the reference.

use std::fmt::{self, Debug, Display};
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::Offset;
use md5::{Digest, Md5};

use crate::limits;
use crate::message::Statement;
use crate::primitive::quote;

/// The name of one statement between two peers: any text, ours are 32 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(Box<str>);

impl Token {
    /// Makes a token that nobody can guess from 128 random bits.
    pub fn from_random(bits: [u8; 16]) -> Self {
        Self(hexadecimal(bits))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns a duration from zero to below a window that differs from token to token:
    /// over many, all parts of the window are hit alike.
    pub(crate) fn phase(&self, window: Duration) -> Duration {
        let hash = Md5::digest(self.0.as_bytes());
        let part = hash.iter().take(4).fold(0, |part, byte| part << 8 | u32::from(*byte));
        // To the microsecond, as all times in scopes are.
        let microseconds = (window.as_micros() * u128::from(part)) >> 32;
        Duration::from_micros(u64::try_from(microseconds).unwrap_or_default())
    }

    /// Returns the first eight characters, for people.
    pub fn short(&self) -> &str {
        let end = self.0.char_indices().nth(8).map_or(self.0.len(), |(end, _)| end);
        self.0.get(..end).unwrap_or_default()
    }
}

impl FromStr for Token {
    type Err = ParseTokenError;

    fn from_str(text: &str) -> Result<Self, ParseTokenError> {
        if text.len() > limits::TOKEN_BYTES {
            return Err(ParseTokenError { text: quote(text) });
        }
        Ok(Self(text.into()))
    }
}

impl Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.0)
    }
}

/// Text that is too long for a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("token {text} is longer than {} bytes", limits::TOKEN_BYTES)]
pub struct ParseTokenError {
    text: String,
}

/// The hash of a schema: registry, parameter names and result columns.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Schema([u8; 16]);

impl Schema {
    /// Returns the first eight digits, for people.
    pub fn short(&self) -> String {
        let text = self.to_string();
        text.chars().take(8).collect()
    }
}

impl Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hexadecimal(self.0))
    }
}

impl Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schema({self})")
    }
}

/// Returns the schema hash of a statement.
pub(crate) fn schema(statement: &Statement) -> Schema {
    Schema(md5(&schema_text(statement)))
}

/// Returns the token of a specification: a hash over what is to be done.
pub(crate) fn specification_token(statement: &Statement) -> Token {
    Token(hexadecimal(md5(&specification_text(statement))))
}

/// Returns the token of any other statement: a hash over all of it.
pub(crate) fn statement_token(statement: &Statement) -> Token {
    Token(hexadecimal(md5(&statement_text(statement))))
}

/// Returns the token that a client of the reference implementation gives a specification
/// with an indefinite temporal scope: a hash over what is to be done and when that is, seen
/// from the time at which it is sent.
pub(crate) fn reference_client_token(statement: &Statement, now: Timestamp) -> Token {
    let bounds = statement.when().bounds(now);
    let text = format!(
        "{}({}, {})",
        specification_text(statement),
        python_datetime(bounds.start),
        python_datetime(bounds.end)
    );
    Token(hexadecimal(md5(&text)))
}

/// Writes a time as the reference implementation's language shows it to programmers.
fn python_datetime(timestamp: Option<Timestamp>) -> String {
    let Some(timestamp) = timestamp else { return "None".to_owned() };
    let civil = Offset::UTC.to_datetime(timestamp);
    let (second, micros) = (civil.second(), civil.subsec_nanosecond() / 1_000);
    let fraction = match (second, micros) {
        (0, 0) => String::new(),
        (_, 0) => format!(", {second}"),
        _ => format!(", {second}, {micros}"),
    };
    format!(
        "datetime.datetime({}, {}, {}, {}, {}{fraction})",
        civil.year(),
        civil.month(),
        civil.day(),
        civil.hour(),
        civil.minute()
    )
}

/// Returns the text that is hashed into a schema.
fn schema_text(statement: &Statement) -> String {
    format!(
        "{} p {} r {}",
        statement.registry(),
        names(statement),
        result_columns(statement)
    )
}

/// Returns the text that is hashed into the token of a specification.
fn specification_text(statement: &Statement) -> String {
    format!(
        "{}{} w {} pk {} pv {} r {}",
        statement.registry(),
        statement.verb(),
        statement.when().hash_text(),
        names(statement),
        values(statement),
        result_columns(statement)
    )
}

/// Returns the text that is hashed into the token of any other statement.
fn statement_text(statement: &Statement) -> String {
    let constraints = joined(
        sorted(statement.parameters().map(|parameter| {
            (parameter.element().name(), parameter.constraint().to_string())
        }))
        .into_iter()
        .map(|(_, constraint)| constraint),
    );
    let metadata = sorted(statement.metadata().map(|(element, value)| {
        let none = || element.primitive().no_value().to_owned();
        (element.name(), value.map_or_else(none, ToString::to_string))
    }));
    format!(
        "{}{} w {} pk {} pc {} pv {} mk {} mv {} r {} ex {}",
        statement.registry(),
        statement.verb(),
        statement.when().hash_text(),
        names(statement),
        constraints,
        values(statement),
        joined(metadata.iter().map(|(name, _)| (*name).to_owned())),
        joined(metadata.iter().map(|(_, value)| value.clone())),
        result_columns(statement),
        statement.export().unwrap_or("None"),
    )
}

/// Returns the parameter names, sorted.
fn names(statement: &Statement) -> String {
    let mut names: Vec<_> =
        statement.parameters().map(|parameter| parameter.element().name()).collect();
    names.sort_unstable();
    names.join(" ")
}

/// Returns the parameter values in the order of their names.
fn values(statement: &Statement) -> String {
    joined(
        sorted(statement.parameters().map(|parameter| {
            let element = parameter.element();
            let none = || element.primitive().no_value().to_owned();
            let value = parameter.value().map_or_else(none, ToString::to_string);
            (element.name(), value)
        }))
        .into_iter()
        .map(|(_, value)| value),
    )
}

/// Returns the distinct names of the result columns, sorted.
fn result_columns(statement: &Statement) -> String {
    let mut names: Vec<_> = statement.columns().map(|element| element.name()).collect();
    names.sort_unstable();
    names.dedup();
    names.join(" ")
}

/// Sorts entries by name.
fn sorted<'a>(
    entries: impl Iterator<Item = (&'a str, String)>,
) -> Vec<(&'a str, String)> {
    let mut entries: Vec<_> = entries.collect();
    entries.sort_by_key(|(name, _)| *name);
    entries
}

/// Joins texts by single blanks.
fn joined(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join(" ")
}

/// Returns the MD5 hash of a text.
fn md5(text: &str) -> [u8; 16] {
    Md5::digest(text.as_bytes()).into()
}

/// Writes bytes as lower-case hexadecimal digits.
fn hexadecimal(bytes: [u8; 16]) -> Box<str> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|nibble| char::from(DIGITS[usize::from(nibble)]))
        .collect::<String>()
        .into()
}
