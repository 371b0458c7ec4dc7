//! Constraints: which values a capability accepts for a parameter.
//!
//! The notation is `*` | value | `a,b` | `low ... high` | `[c]`. A network among the
//! members of a set stands for everything inside it. `[c]` allows several values at once,
//! each of which meets `c`.
//!
//! Read on in `algebra`: what two constraints have in common, and whether
//! one allows all that another does.
//!
//! Source: mPlane protocol specification, "Parameters"; protocol notes, "Constraints".
//!
//! Differences: blanks around members are ignored, members are kept sorted so that tokens
//! are reproducible (the reference prints them in the order of its hash table), and
//! `low..high` is accepted on input. The reference has no networks and no lists. Ranges
//! between `past`, `now` and `future` are refused: what lies between moves.

mod algebra;
#[cfg(test)]
mod tests;

use std::fmt::{self, Display};

use crate::limits;
use crate::primitive::{List, NO_VALUE, ParseValueError, Primitive, Real, Value, quote};
use crate::when::Instant;

/// The values that are allowed for one parameter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Constraint {
    /// Every single value, and none.
    Any,
    /// One of these: at least one, sorted, none within another. Networks stand for
    /// everything inside.
    Set(Vec<Value>),
    /// Every value from `low` to `high`, both included, `low` not above `high`, neither a
    /// network.
    Range {
        /// The lowest value allowed.
        low: Value,
        /// The highest value allowed.
        high: Value,
    },
    /// One or several values that each meet a constraint, which is none of this kind.
    Each(Box<Self>),
}

impl Constraint {
    /// Reads a constraint on values of `primitive`.
    pub fn parse(primitive: Primitive, text: &str) -> Result<Self, ParseConstraintError> {
        let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        let single = Self::parse_single(primitive, inner.unwrap_or(text))?;
        if single.looks_like_a_list() {
            return Err(ParseConstraintError::Brackets);
        }
        Ok(match inner {
            Some(_) => Self::Each(Box::new(single)),
            None => single,
        })
    }

    /// Reads a constraint on one value.
    fn parse_single(
        primitive: Primitive,
        text: &str,
    ) -> Result<Self, ParseConstraintError> {
        if text == NO_VALUE {
            return Ok(Self::Any);
        }
        if primitive != Primitive::Object
            && let Some(ends) = split_range(primitive, text)
        {
            let [one, other] =
                ends?.map(|end| parse_member(primitive, end, "an end of a range"));
            return Self::range(&one?, &other?);
        }
        let mut members = Vec::new();
        // A JSON object contains commas of its own.
        if primitive == Primitive::Object {
            members.push(parse_member(primitive, text, "a member")?);
        } else {
            for member in text.split(',') {
                if members.len() == limits::CONSTRAINT_MEMBERS {
                    return Err(ParseConstraintError::TooManyMembers);
                }
                members.push(parse_member(
                    primitive,
                    member.trim_ascii(),
                    "a member of a set",
                )?);
            }
        }
        Ok(Self::set(members))
    }

    /// Allows every value between two, both included, of networks all that is inside.
    pub fn range(one: &Value, other: &Value) -> Result<Self, ParseConstraintError> {
        if !comparable(one, other) {
            return Err(ParseConstraintError::Incomparable {
                low: one.to_string(),
                high: other.to_string(),
            });
        }
        let low = first(one).min(first(other));
        let high = last(one).max(last(other));
        Ok(Self::Range { low, high })
    }

    /// Allows these values only; `None` if there are none.
    pub fn one_of(values: Vec<Value>) -> Option<Self> {
        (!values.is_empty()).then(|| Self::set(values))
    }

    /// Allows these values only, at least one.
    fn set(mut values: Vec<Value>) -> Self {
        values.sort();
        // A network sorts before all that is inside.
        values.dedup_by(|value, kept| value == kept || covers(kept, value));
        Self::Set(values)
    }

    /// Allows this value only.
    pub fn only(value: Value) -> Self {
        Self::Set(vec![value])
    }

    /// Reads a value for a parameter with this constraint: where several are allowed, they
    /// are separated by blanks.
    pub fn parse_value(
        &self,
        primitive: Primitive,
        text: &str,
    ) -> Result<Option<Value>, ParseValueError> {
        if !self.allows_several() || text == NO_VALUE {
            return Value::parse(primitive, text);
        }
        let members: Vec<_> = text
            .split_ascii_whitespace()
            .map(|member| Value::parse(primitive, member))
            .collect::<Result<_, _>>()?;
        let several = members.len() > 1;
        match members.into_iter().collect::<Option<Vec<_>>>() {
            Some(members) if several => match List::new(members) {
                Some(list) => Ok(Some(Value::List(list))),
                None => Value::parse(primitive, text),
            },
            // One value, which may contain blanks, such as a time.
            _ => Value::parse(primitive, text),
        }
    }

    /// Says whether a parameter may have several values at once.
    pub const fn allows_several(&self) -> bool {
        matches!(self, Self::Each(_))
    }

    /// Says whether a value, or having none, is allowed.
    pub fn is_met_by(&self, value: Option<&Value>) -> bool {
        match (self, value) {
            (Self::Each(each), Some(value)) => {
                value.members().iter().all(|member| each.is_met_by(Some(member)))
            }
            (Self::Each(each), None) => each.is_met_by(None),
            (_, Some(Value::List(_))) => false,
            (Self::Any, _) => true,
            (_, None) => false,
            (Self::Set(members), Some(value)) => {
                is_member(members, value)
                    || is_network(value) && algebra::covered(members, value, value)
            }
            (Self::Range { low, high }, Some(value)) => {
                comparable(low, value)
                    && not_above(low, &first(value))
                    && not_above(&last(value), high)
            }
        }
    }

    /// Returns the value, if only one is allowed.
    pub fn single_value(&self) -> Option<&Value> {
        match self {
            Self::Any | Self::Each(_) => None,
            Self::Set(members) => match members.as_slice() {
                [Value::Address(address)] if !address.is_host() => None,
                [value] => Some(value),
                _ => None,
            },
            Self::Range { low, high } => (low == high).then_some(low),
        }
    }

    /// Says whether the text of this constraint on one value would be read as that of a
    /// constraint on several.
    fn looks_like_a_list(&self) -> bool {
        let (first, last) = match self {
            Self::Any | Self::Each(_) => return false,
            Self::Range { low, high } => (Some(low), Some(high)),
            Self::Set(members) => (members.first(), members.last()),
        };
        match (first, last) {
            (
                Some(Value::String(first) | Value::Url(first)),
                Some(Value::String(last) | Value::Url(last)),
            ) => first.starts_with('[') && last.ends_with(']'),
            _ => false,
        }
    }

    /// Says whether a network is among the values, written as one.
    pub fn has_networks(&self) -> bool {
        match self {
            Self::Any | Self::Range { .. } => false,
            Self::Set(members) => members.iter().any(is_network),
            Self::Each(each) => each.has_networks(),
        }
    }

    /// Returns the same constraint as a range if it is one network, for those who do not
    /// know networks; `None` if it contains networks and cannot be written so.
    pub fn without_networks(&self) -> Option<Self> {
        match self {
            Self::Set(members) if self.has_networks() => match members.as_slice() {
                [network] => {
                    Some(Self::Range { low: first(network), high: last(network) })
                }
                _ => None,
            },
            Self::Each(each) => Some(Self::Each(Box::new(each.without_networks()?))),
            other => Some(other.clone()),
        }
    }
}

impl Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str(NO_VALUE),
            Self::Range { low, high } => write!(f, "{low} ... {high}"),
            Self::Set(members) => {
                for (index, member) in members.iter().enumerate() {
                    if index > 0 {
                        f.write_str(",")?;
                    }
                    member.fmt(f)?;
                }
                Ok(())
            }
            Self::Each(each) => write!(f, "[{each}]"),
        }
    }
}

/// Text that is no constraint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseConstraintError {
    /// A member of a set or an end of a range is no value.
    #[error("{part}: {source}")]
    Value {
        /// Which part of the constraint it is.
        part: &'static str,
        /// What is wrong with it.
        source: ParseValueError,
    },
    /// `*` or `None` where a value belongs.
    #[error("{0} is not a value; write * alone to allow every value")]
    NoValue(&'static str),
    /// More than two ends.
    #[error("{0} has more than two ends; a range is written low ... high")]
    Ends(String),
    /// Two ends between which there is nothing, such as an IPv4 and an IPv6 address.
    #[error("there is no range from {low} to {high}")]
    Incomparable {
        /// One end.
        low: String,
        /// The other end.
        high: String,
    },
    /// A set that is too large.
    #[error("a set has at most {} members", limits::CONSTRAINT_MEMBERS)]
    TooManyMembers,
    /// Brackets that would be read as those of a list.
    #[error(
        "[ before the first value and ] after the last enclose a list, and lists do not nest"
    )]
    Brackets,
}

/// Reads one value within a constraint.
fn parse_member(
    primitive: Primitive,
    text: &str,
    part: &'static str,
) -> Result<Value, ParseConstraintError> {
    Value::parse(primitive, text)
        .map_err(|source| ParseConstraintError::Value { part, source })?
        .ok_or(ParseConstraintError::NoValue(part))
}

/// Splits `low ... high` into its ends; `None` if the text is no range.
fn split_range(
    primitive: Primitive,
    text: &str,
) -> Option<Result<[&str; 2], ParseConstraintError>> {
    // `..` may be part of a text, so it separates numbers, times and addresses only.
    let textual = matches!(primitive, Primitive::String | Primitive::Url);
    let (low, high, separator) = if let Some((low, high)) = text.split_once(" ... ") {
        (low, high, " ... ")
    } else if textual {
        return None;
    } else {
        let (low, high) = text.split_once("..")?;
        (low, high, "..")
    };
    if high.contains(separator) {
        return Some(Err(ParseConstraintError::Ends(quote(text))));
    }
    let (low, high) = (low.trim_ascii(), high.trim_ascii());
    let dots = |end: &str| end.starts_with("...") || end.ends_with("...");
    if textual && (dots(low) || dots(high)) {
        return Some(Err(ParseConstraintError::Ends(quote(text))));
    }
    // Nothing is a text too, but not an end that could be read again.
    let textual_end_missing = textual && (low.is_empty() || high.is_empty());
    (!textual_end_missing).then_some(Ok([low, high]))
}

/// Says whether there is an order between two values of one primitive.
fn comparable(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Address(one), Value::Address(other)) => {
            one.ip().is_ipv4() == other.ip().is_ipv4()
        }
        (Value::Real(one), Value::Real(other)) => !one.0.is_nan() && !other.0.is_nan(),
        (Value::Time(one), Value::Time(other)) => {
            matches!((one, other), (Instant::At(_), Instant::At(_)))
        }
        (Value::Object(_) | Value::List(_), _) => false,
        _ => one.primitive() == other.primitive(),
    }
}

/// Says whether a value is not above another one that it compares with.
fn not_above(one: &Value, other: &Value) -> bool {
    match (one, other) {
        // As numbers, since -0.0 sorts before 0.0 and equals it.
        (Value::Real(one), Value::Real(other)) => one.0 <= other.0,
        _ => one <= other,
    }
}

/// Says whether a value is one of the members of a set, or within one.
fn is_member(members: &[Value], value: &Value) -> bool {
    match value {
        // -0.0 sorts before 0.0 and equals it as a number.
        Value::Real(Real(0.0)) => {
            [-0.0, 0.0].into_iter().any(|zero| is_in(members, &Value::Real(Real(zero))))
        }
        value => is_in(members, value),
    }
}

/// Says whether a value is one of the members of a set to the letter, or within one.
fn is_in(members: &[Value], value: &Value) -> bool {
    // A network sorts before all that is inside, and no member lies within another.
    let after = members.partition_point(|member| member <= value);
    let before = after.checked_sub(1).and_then(|index| members.get(index));
    before.is_some_and(|member| member == value || covers(member, value))
}

/// Says whether a member of a set stands for more than itself and `value` is part of it.
fn covers(member: &Value, value: &Value) -> bool {
    match (member, value) {
        (Value::Address(network), Value::Address(address)) => network.covers(address),
        _ => false,
    }
}

/// Says whether a value stands for several hosts.
const fn is_network(value: &Value) -> bool {
    match value {
        Value::Address(address) => !address.is_host(),
        _ => false,
    }
}

/// Returns the lowest value that `value` stands for: the first host of a network.
fn first(value: &Value) -> Value {
    match value {
        Value::Address(address) if !address.is_host() => {
            Value::Address(address.ip().into())
        }
        other => other.clone(),
    }
}

/// Returns the highest value that `value` stands for: the last host of a network.
fn last(value: &Value) -> Value {
    match value {
        Value::Address(address) if !address.is_host() => {
            Value::Address(address.last().into())
        }
        other => other.clone(),
    }
}
