//! Constraints: which values a capability accepts for a parameter.
//!
//! Source: mPlane protocol specification, "Parameters"; the notation is
//! `*` | value | `a,b` | `low ... high`. A network among the members of a set stands for
//! everything inside it.
//!
//! Differences: blanks around members are ignored, members are kept sorted so that tokens
//! are reproducible (the reference prints them in the order of its hash table), and
//! `low..high` is accepted on input. The reference has no networks.

use std::fmt::{self, Display};

use crate::limits;
use crate::primitive::{NO_VALUE, ParseValueError, Primitive, Value, quote};

/// The values that are allowed for one parameter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Constraint {
    /// Every value, and none.
    Any,
    /// One of these: at least one, sorted, without repetition. Networks stand for
    /// everything inside.
    Set(Vec<Value>),
    /// Every value from `low` to `high`, both included, `low` not above `high`.
    Range {
        /// The lowest value allowed.
        low: Value,
        /// The highest value allowed.
        high: Value,
    },
}

impl Constraint {
    /// Reads a constraint on values of `primitive`.
    pub fn parse(primitive: Primitive, text: &str) -> Result<Self, ParseConstraintError> {
        if text == NO_VALUE {
            return Ok(Self::Any);
        }
        let ordered = !matches!(primitive, Primitive::Url | Primitive::Object);
        if ordered && let Some(ends) = split_range(primitive, text) {
            let [low, high] =
                ends?.map(|end| parse_member(primitive, end, "an end of a range"));
            let (low, high) = (low?, high?);
            if !comparable(&low, &high) {
                return Err(ParseConstraintError::Incomparable {
                    low: low.to_string(),
                    high: high.to_string(),
                });
            }
            let (low, high) = if low <= high { (low, high) } else { (high, low) };
            return Ok(Self::Range { low, high });
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
                    member.trim(),
                    "a member of a set",
                )?);
            }
        }
        Ok(Self::set(members))
    }

    /// Allows these values only; `None` if there are none.
    pub fn one_of(values: Vec<Value>) -> Option<Self> {
        (!values.is_empty()).then(|| Self::set(values))
    }

    /// Allows these values only, at least one.
    fn set(mut values: Vec<Value>) -> Self {
        values.sort();
        values.dedup();
        Self::Set(values)
    }

    /// Allows this value only.
    pub fn only(value: Value) -> Self {
        Self::Set(vec![value])
    }

    /// Says whether a value, or having none, is allowed.
    pub fn is_met_by(&self, value: Option<&Value>) -> bool {
        match (self, value) {
            (Self::Any, _) => true,
            (_, None) => false,
            (Self::Set(members), Some(value)) => {
                members.binary_search(value).is_ok()
                    || members.iter().any(|member| covers(member, value))
            }
            (Self::Range { low, high }, Some(value)) => {
                comparable(low, value) && low <= value && last(value) <= *high
            }
        }
    }

    /// Returns the value, if only one is allowed.
    pub fn single_value(&self) -> Option<&Value> {
        match self {
            Self::Any => None,
            Self::Set(members) => match members.as_slice() {
                [Value::Address(address)] if !address.is_host() => None,
                [value] => Some(value),
                _ => None,
            },
            Self::Range { low, high } => (low == high).then_some(low),
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
    let (low, high, separator) = if let Some((low, high)) = text.split_once(" ... ") {
        (low, high, " ... ")
    } else if primitive == Primitive::String {
        return None;
    } else {
        let (low, high) = text.split_once("..")?;
        (low, high, "..")
    };
    if low.trim().is_empty() && primitive == Primitive::String {
        return None;
    }
    Some(if high.contains(separator) {
        Err(ParseConstraintError::Ends(quote(text)))
    } else {
        Ok([low.trim(), high.trim()])
    })
}

/// Says whether there is an order between two values of one primitive.
fn comparable(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Address(one), Value::Address(other)) => {
            one.ip().is_ipv4() == other.ip().is_ipv4()
        }
        (Value::Real(one), Value::Real(other)) => !one.0.is_nan() && !other.0.is_nan(),
        _ => one.primitive() == other.primitive(),
    }
}

/// Says whether a member of a set stands for more than itself and `value` is part of it.
fn covers(member: &Value, value: &Value) -> bool {
    match (member, value) {
        (Value::Address(network), Value::Address(address)) => network.covers(address),
        _ => false,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn constraint(primitive: Primitive, text: &str) -> Constraint {
        Constraint::parse(primitive, text).unwrap()
    }

    fn meets(primitive: Primitive, text: &str, value: &str) -> bool {
        let value = Value::parse(primitive, value).unwrap();
        constraint(primitive, text).is_met_by(value.as_ref())
    }

    #[test]
    fn sets_are_sorted_and_blanks_around_members_ignored() {
        let set = constraint(Primitive::Natural, "10, 9,9");
        assert_eq!(set.to_string(), "9,10");
        assert_eq!(constraint(Primitive::String, "foo, bar").to_string(), "bar,foo");
    }

    #[test]
    fn ranges_include_both_ends_and_may_be_reversed() {
        assert_eq!(constraint(Primitive::Natural, "5 ... 1").to_string(), "1 ... 5");
        assert_eq!(constraint(Primitive::Natural, "0..32").to_string(), "0 ... 32");
        assert!(meets(Primitive::Natural, "1 ... 5", "5"));
        assert!(!meets(Primitive::Natural, "1 ... 5", "6"));
        assert!(!meets(Primitive::Address, "10.0.0.1 ... 10.0.0.9", "::1"));
        assert!(meets(Primitive::Address, "10.0.0.0 ... 10.255.255.255", "10.1.0.0/16"));
        assert!(!meets(Primitive::Address, "10.0.0.0 ... 10.1.0.0", "10.0.0.0/8"));
    }

    #[test]
    fn networks_in_sets_stand_for_what_is_inside() {
        assert!(meets(Primitive::Address, "10.0.0.0/8,192.0.2.7", "10.3.4.5"));
        assert!(meets(Primitive::Address, "10.0.0.0/8,192.0.2.7", "192.0.2.7"));
        assert!(!meets(Primitive::Address, "10.0.0.0/8", "192.0.2.7"));
        assert_eq!(constraint(Primitive::Address, "10.0.0.0/8").single_value(), None);
    }

    #[test]
    fn only_the_unconstrained_allow_no_value() {
        assert!(Constraint::Any.is_met_by(None));
        assert!(!constraint(Primitive::Natural, "1").is_met_by(None));
    }

    #[test]
    fn errors_name_the_part() {
        for (primitive, text, message) in [
            (
                Primitive::Natural,
                "1,x",
                "a member of a set: \"x\" is not of type natural: expected an integer that \
                 is not negative, such as 42",
            ),
            (
                Primitive::Natural,
                "* ... 5",
                "an end of a range is not a value; write * alone to allow every value",
            ),
            (
                Primitive::Natural,
                "1 ... 2 ... 3",
                "\"1 ... 2 ... 3\" has more than two ends; a range is written low ... high",
            ),
            (
                Primitive::Address,
                "10.0.0.1 ... ::1",
                "there is no range from 10.0.0.1 to ::1",
            ),
        ] {
            let error = Constraint::parse(primitive, text).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }
}
