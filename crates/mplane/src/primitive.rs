//! Primitives, the types of elements, and the values they take.
//!
//! A [`Value`] that exists is valid for its primitive. Its [`Display`] form is the
//! canonical text that tokens are computed from and tables show; [`Value::parse`] reads
//! that text and everything the reference implementation writes.
//!
//! Source: mPlane protocol specification, "Primitive Types".
//!
//! Differences: negative naturals are refused (the reference lets them through);
//! naturals are exact to 2^64-1 (the reference rounds beyond 2^53); `*` and `None` both
//! mean "no value" for times; addresses may be networks; `object` is of version 2. Digits
//! are ASCII (the reference takes those of every script).

use std::cmp::Ordering;
use std::fmt::{self, Display};
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use crate::address::{Address, ParseAddressError};
use crate::limits;
use crate::when::{Instant, ParseInstantError};

/// The type of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Primitive {
    /// Any text.
    String,
    /// An unsigned integer, exact to 2^64-1.
    Natural,
    /// An IEEE 754 double.
    Real,
    /// True or false.
    Bool,
    /// A point in time, UTC, or one of `past`, `now`, `future`.
    Time,
    /// An IPv4 or IPv6 address or network.
    Address,
    /// An absolute or partial URL.
    Url,
    /// A JSON object (version 2).
    Object,
}

impl Primitive {
    /// Returns the name that registries use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Natural => "natural",
            Self::Real => "real",
            Self::Bool => "boolean",
            Self::Time => "time",
            Self::Address => "address",
            Self::Url => "url",
            Self::Object => "object",
        }
    }

    /// Says whether values are numbers.
    pub const fn is_number(self) -> bool {
        matches!(self, Self::Natural | Self::Real)
    }

    /// Returns how the reference writes "no value" of this primitive in hash input.
    pub(crate) const fn no_value(self) -> &'static str {
        match self {
            Self::Time => "None",
            _ => NO_VALUE,
        }
    }
}

impl Display for Primitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Primitive {
    type Err = ParsePrimitiveError;

    fn from_str(name: &str) -> Result<Self, ParsePrimitiveError> {
        Ok(match name {
            "string" => Self::String,
            "natural" => Self::Natural,
            "real" => Self::Real,
            "bool" | "boolean" => Self::Bool,
            "time" => Self::Time,
            "address" => Self::Address,
            "url" => Self::Url,
            "object" => Self::Object,
            _ => return Err(ParsePrimitiveError { name: quote(name) }),
        })
    }
}

/// A name that is no primitive's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no primitive is called {name}; there are string, natural, real, boolean, time, \
     address, url and object"
)]
pub struct ParsePrimitiveError {
    name: String,
}

/// How "no value" is written in messages.
pub const NO_VALUE: &str = "*";

/// A value of some primitive.
///
/// Values order within their primitive: numbers by size, text by code point, addresses
/// by number (IPv4 first), `false` before `true`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// A text.
    String(Box<str>),
    /// An unsigned integer.
    Natural(u64),
    /// A double.
    Real(Real),
    /// A truth value.
    Bool(bool),
    /// A point in time, UTC.
    Time(Instant),
    /// A host or network.
    Address(Address),
    /// A URL, as it was given.
    Url(Box<str>),
    /// A JSON object in its canonical text: compact, keys sorted.
    Object(Box<str>),
    /// Several values of one type: what a parameter has whose constraint allows several.
    List(List),
}

impl Value {
    /// Reads a value of `primitive`; `None` where the text says that there is none.
    pub fn parse(
        primitive: Primitive,
        text: &str,
    ) -> Result<Option<Self>, ParseValueError> {
        if text == NO_VALUE || (primitive == Primitive::Time && text == "None") {
            return Ok(None);
        }
        let value = match primitive {
            Primitive::String => Ok(Self::String(text.into())),
            Primitive::Url => Ok(Self::Url(text.into())),
            Primitive::Natural => parse_natural(text).map(Self::Natural),
            Primitive::Real => parse_float(text)
                .map(|real| Self::Real(Real(real)))
                .ok_or(Problem::Expected("a number such as 47.5, 1e3, inf or nan")),
            Primitive::Bool => match text {
                "True" | "true" | "1" => Ok(Self::Bool(true)),
                "False" | "false" | "0" => Ok(Self::Bool(false)),
                _ => Err(Problem::Expected("one of True, False, 1 and 0")),
            },
            Primitive::Time => text.parse().map(Self::Time).map_err(Problem::Time),
            Primitive::Address => {
                text.parse().map(Self::Address).map_err(Problem::Address)
            }
            Primitive::Object => parse_object(text).map(Self::Object),
        };
        value.map(Some).map_err(|problem| ParseValueError {
            primitive,
            text: quote(text).into(),
            problem: Box::new(problem),
        })
    }

    /// Returns the members of a list, the value itself otherwise.
    pub const fn members(&self) -> &[Self] {
        match self {
            Self::List(list) => list.members(),
            one => std::slice::from_ref(one),
        }
    }

    /// Returns the type of this value, of a list that of its members.
    pub const fn primitive(&self) -> Primitive {
        match self {
            Self::String(_) => Primitive::String,
            Self::Natural(_) => Primitive::Natural,
            Self::Real(_) => Primitive::Real,
            Self::Bool(_) => Primitive::Bool,
            Self::Time(_) => Primitive::Time,
            Self::Address(_) => Primitive::Address,
            Self::Url(_) => Primitive::Url,
            Self::Object(_) => Primitive::Object,
            Self::List(list) => list.primitive,
        }
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String(text) | Self::Url(text) | Self::Object(text) => {
                f.write_str(text)
            }
            Self::Natural(number) => number.fmt(f),
            Self::Real(real) => real.fmt(f),
            Self::Bool(true) => f.write_str("True"),
            Self::Bool(false) => f.write_str("False"),
            Self::Time(instant) => instant.fmt(f),
            Self::Address(address) => address.fmt(f),
            Self::List(list) => list.fmt(f),
        }
    }
}

/// Several values of one type, at least one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct List {
    primitive: Primitive,
    members: Box<[Value]>,
}

impl List {
    /// Makes a list; `None` without members, with too many of them, or if they are of
    /// different types or lists themselves.
    pub fn new(members: Vec<Value>) -> Option<Self> {
        let primitive = members.first()?.primitive();
        let fits = members.len() <= limits::LIST_MEMBERS
            && members.iter().all(|member| {
                !matches!(member, Value::List(_)) && member.primitive() == primitive
            });
        fits.then(|| Self { primitive, members: members.into() })
    }

    /// Returns the values in order.
    pub const fn members(&self) -> &[Value] {
        &self.members
    }
}

impl Display for List {
    /// Writes the members with single blanks between.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, member) in self.members.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            member.fmt(f)?;
        }
        Ok(())
    }
}

/// Text that is no value of its primitive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text} is not of type {primitive}: {problem}")]
pub struct ParseValueError {
    primitive: Primitive,
    text: Box<str>,
    problem: Box<Problem>,
}

/// Why a text is no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Problem {
    #[error("expected {0}")]
    Expected(&'static str),
    #[error("objects nest at most {} deep", limits::OBJECT_DEPTH)]
    TooDeep,
    #[error("naturals are not negative")]
    Negative,
    #[error("naturals go up to 18446744073709551615")]
    TooLarge,
    #[error("{0}")]
    Time(ParseInstantError),
    #[error("{0}")]
    Address(ParseAddressError),
}

/// A double that can be compared, hashed and printed as the reference prints it.
///
/// Order and equality are IEEE 754 `totalOrder`, so that a value equals itself, `nan`
/// included.
#[derive(Clone, Copy, Debug)]
pub struct Real(pub f64);

impl PartialEq for Real {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Real {}

impl PartialOrd for Real {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Real {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl Hash for Real {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

impl Display for Real {
    /// Writes the shortest text that reads back as the same number: positional from
    /// 1e-4 up to 1e16 with at least one fraction digit, scientific with a two-digit
    /// exponent elsewhere.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let real = self.0;
        if real.is_nan() {
            return f.write_str("nan");
        }
        if real.is_infinite() {
            return f.write_str(if real > 0.0 { "inf" } else { "-inf" });
        }
        let magnitude = real.abs();
        if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
            let scientific = format!("{real:e}");
            let (digits, exponent) =
                scientific.split_once('e').expect("{:e} always writes an e");
            let exponent: i32 = exponent.parse().expect("the exponent is an integer");
            let sign = if exponent < 0 { '-' } else { '+' };
            write!(f, "{digits}e{sign}{:02}", exponent.abs())
        } else {
            write!(f, "{real:?}")
        }
    }
}

/// Reads a natural: an integer exactly, any other number with its fraction cut off.
fn parse_natural(text: &str) -> Result<u64, Problem> {
    // Nearly all are plain digits, few enough not to overflow.
    if (1..20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let digits = text.bytes().map(|digit| u64::from(digit - b'0'));
        return Ok(digits.fold(0, |number, digit| number * 10 + digit));
    }
    let plain = without_separators(text).ok_or(EXPECTED_NATURAL)?;
    let digits = plain.strip_prefix(['+', '-']).unwrap_or(&plain);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let number: u64 = digits.parse().map_err(|_| Problem::TooLarge)?;
        return if plain.starts_with('-') && number > 0 {
            Err(Problem::Negative)
        } else {
            Ok(number)
        };
    }
    let real = parse_float(&plain).ok_or(EXPECTED_NATURAL)?.trunc();
    if real.is_nan() {
        Err(EXPECTED_NATURAL)
    } else if real < 0.0 {
        Err(Problem::Negative)
    } else if real >= TWO_TO_64 {
        Err(Problem::TooLarge)
    } else {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked to be an integer from 0 to 2^64-1"
        )]
        Ok(real as u64)
    }
}

/// The first number that is no natural.
const TWO_TO_64: f64 = 18_446_744_073_709_551_616.0;

/// What is said of text that is no number at all.
const EXPECTED_NATURAL: Problem =
    Problem::Expected("an integer that is not negative, such as 42");

/// Reads a double as the reference does: surrounding blanks and single underscores
/// between digits are ignored, what exceeds the range becomes infinite.
fn parse_float(text: &str) -> Option<f64> {
    // Nearly all have neither.
    text.parse().ok().or_else(|| without_separators(text)?.parse().ok())
}

/// Removes surrounding blanks and single underscores between digits; `None` if an
/// underscore stands elsewhere.
fn without_separators(text: &str) -> Option<String> {
    let text = text.trim();
    let bytes = text.as_bytes();
    let digit = |index: Option<usize>| {
        index.and_then(|index| bytes.get(index)).is_some_and(u8::is_ascii_digit)
    };
    let misplaced = bytes.iter().enumerate().any(|(index, byte)| {
        *byte == b'_' && !(digit(index.checked_sub(1)) && digit(index.checked_add(1)))
    });
    (!misplaced).then(|| text.replace('_', ""))
}

/// Reads a JSON object and returns it compact, with sorted keys.
fn parse_object(text: &str) -> Result<Box<str>, Problem> {
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(object @ serde_json::Value::Object(_)) => {
            canonical_object(&object).ok_or(Problem::TooDeep)
        }
        _ => Err(Problem::Expected("a JSON object such as {\"key\": 1}")),
    }
}

/// Returns the canonical text of a JSON object; `None` if it nests too deep.
pub(crate) fn canonical_object(object: &serde_json::Value) -> Option<Box<str>> {
    fn fits(value: &serde_json::Value, levels: usize) -> bool {
        match value {
            serde_json::Value::Array(items) => {
                levels > 0 && items.iter().all(|item| fits(item, levels - 1))
            }
            serde_json::Value::Object(entries) => {
                levels > 0 && entries.values().all(|entry| fits(entry, levels - 1))
            }
            _ => true,
        }
    }
    fits(object, limits::OBJECT_DEPTH).then(|| object.to_string().into())
}

/// Quotes input for an error message, cut to a readable length.
pub(crate) fn quote(text: &str) -> String {
    let mut end = limits::QUOTE_BYTES.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let shown = text.get(..end).expect("end is a character boundary");
    if end < text.len() { format!("{shown:?}…") } else { format!("{text:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asserts what `text` reads as: canonical text, `*` for no value, or an error.
    fn check(primitive: Primitive, text: &str, expected: &str) {
        let read = match Value::parse(primitive, text) {
            Ok(Some(value)) => value.to_string(),
            Ok(None) => NO_VALUE.into(),
            Err(error) => error.to_string(),
        };
        assert_eq!(read, expected, "{primitive} {text:?}");
    }

    #[test]
    fn naturals_are_exact_and_never_negative() {
        check(Primitive::Natural, "18446744073709551615", "18446744073709551615");
        check(Primitive::Natural, " 4_2 ", "42");
        check(Primitive::Natural, "10E2", "1000");
        check(Primitive::Natural, "1.9", "1");
        check(Primitive::Natural, "*", "*");
        check(
            Primitive::Natural,
            "-5",
            "\"-5\" is not of type natural: naturals are not negative",
        );
        check(
            Primitive::Natural,
            "18446744073709551616",
            "\"18446744073709551616\" is not of type natural: naturals go up to \
             18446744073709551615",
        );
        check(
            Primitive::Natural,
            "4__2",
            "\"4__2\" is not of type natural: expected an integer that is not negative, \
             such as 42",
        );
    }

    #[test]
    fn reals_print_as_the_reference_prints_them() {
        for (text, canonical) in [
            ("1e16", "1e+16"),
            ("9999999999999998", "9999999999999998.0"),
            ("0.00001", "1e-05"),
            ("0.0001", "0.0001"),
            ("-0", "-0.0"),
            ("47.5", "47.5"),
            ("123e-7", "1.23e-05"),
            ("1e309", "inf"),
            ("NaN", "nan"),
        ] {
            check(Primitive::Real, text, canonical);
        }
    }

    #[test]
    fn objects_are_compact_with_sorted_keys() {
        check(Primitive::Object, "{\"b\": 1, \"a\": [2]}", "{\"a\":[2],\"b\":1}");
        check(
            Primitive::Object,
            "[]",
            "\"[]\" is not of type object: expected a JSON object such as {\"key\": 1}",
        );
    }

    #[test]
    fn long_input_is_quoted_in_part() {
        let text = "é".repeat(100);
        let quoted = quote(&text);
        assert!(quoted.len() < 80 && quoted.ends_with('…'), "{quoted}");
    }
}
