//! Values and constraints within messages: natively JSON, or their text.

use std::cell::Cell;

use super::error::DecodeError;
use super::wire::Scalar;
use crate::constraint::Constraint;
use crate::limits;
use crate::primitive::{List, Primitive, Real, Value};

/// How many members sets and lists of one message may still have.
pub(super) struct Budget(Cell<usize>);

impl Budget {
    /// Returns the budget of a message.
    pub(super) const fn new() -> Self {
        Self(Cell::new(limits::MESSAGE_MEMBERS))
    }

    /// Takes members from it.
    fn spend(
        &self,
        members: usize,
        place: &dyn Fn() -> String,
    ) -> Result<(), DecodeError> {
        let left = self.0.get().checked_sub(members).ok_or_else(|| {
            DecodeError::at(
                &place(),
                format!(
                    "sets and lists of one message have at most {} members in all",
                    limits::MESSAGE_MEMBERS
                ),
            )
        })?;
        self.0.set(left);
        Ok(())
    }
}

/// Reads a constraint, which is text or a single native value.
pub(super) fn constraint(
    primitive: Primitive,
    scalar: &Scalar<'_>,
    budget: &Budget,
    place: &dyn Fn() -> String,
) -> Result<Constraint, DecodeError> {
    let text = match scalar {
        Scalar::Text(text) if &**text == "*" => return Ok(Constraint::Any),
        Scalar::Text(text) => {
            budget.spend(1 + text.matches(',').count(), place)?;
            Constraint::parse(primitive, text)
        }
        Scalar::Null => return Ok(Constraint::Any),
        Scalar::Array(_) => {
            return Err(DecodeError::at(
                &place(),
                "expected a constraint as text such as [1,2], found an array",
            ));
        }
        single => {
            return match value(primitive, single, place)? {
                Some(value) => Ok(Constraint::only(value)),
                None => Ok(Constraint::Any),
            };
        }
    };
    text.map_err(|error| DecodeError::at(&place(), error))
}

/// Reads the value of a parameter, whose constraint is not known: one value, or several as
/// an array or with blanks between.
pub(super) fn parameter(
    primitive: Primitive,
    scalar: &Scalar<'_>,
    budget: &Budget,
    place: &dyn Fn() -> String,
) -> Result<Option<Value>, DecodeError> {
    match scalar {
        Scalar::Array(items) => {
            budget.spend(items.len(), place)?;
            let members: Option<Vec<_>> = items
                .iter()
                .enumerate()
                .map(|(index, item)| {
                    let place = || format!("{}/{index}", place());
                    value(primitive, item, &place)
                })
                .collect::<Result<_, _>>()?;
            let list = members.and_then(List::new).map(Value::List).ok_or_else(|| {
                DecodeError::at(&place(), "a list has at least one value and no null")
            })?;
            Ok(Some(list))
        }
        Scalar::Text(text) if contains_several(primitive, text) => {
            budget.spend(1 + text.matches(' ').count(), place)?;
            let several = Constraint::Each(Box::new(Constraint::Any));
            several
                .parse_value(primitive, text)
                .map_err(|error| DecodeError::at(&place(), error))
        }
        single => value(primitive, single, place),
    }
}

/// Says whether a text is several values of a type that never contains blanks.
fn contains_several(primitive: Primitive, text: &str) -> bool {
    let blankless = matches!(
        primitive,
        Primitive::Natural | Primitive::Real | Primitive::Bool | Primitive::Address
    );
    blankless && text.trim().contains(' ')
}

/// Reads a value of some type, given natively or as text.
pub(super) fn value(
    primitive: Primitive,
    scalar: &Scalar<'_>,
    place: &dyn Fn() -> String,
) -> Result<Option<Value>, DecodeError> {
    let text = match (primitive, scalar) {
        (_, Scalar::Null) => return Ok(None),
        (Primitive::Natural, Scalar::Natural(number)) => {
            return Ok(Some(Value::Natural(*number)));
        }
        (Primitive::Real, Scalar::Real(number)) => {
            return Ok(Some(Value::Real(Real(*number))));
        }
        (Primitive::Bool, Scalar::Bool(truth)) => return Ok(Some(Value::Bool(*truth))),
        (Primitive::Object, Scalar::Object(object)) => {
            return Ok(Some(Value::Object(object.clone())));
        }
        (_, Scalar::Object(_) | Scalar::Array(_)) => {
            return Err(DecodeError::at(
                &place(),
                format!(
                    "expected a value of type {primitive}, found {}",
                    scalar.describe()
                ),
            ));
        }
        (_, Scalar::Text(text)) => Value::parse(primitive, text),
        (_, Scalar::Natural(number)) => Value::parse(primitive, &number.to_string()),
        (_, Scalar::Negative(number)) => Value::parse(primitive, &number.to_string()),
        (_, Scalar::Real(number)) => Value::parse(primitive, &Real(*number).to_string()),
        (_, Scalar::Bool(truth)) => {
            Value::parse(primitive, &Value::Bool(*truth).to_string())
        }
    };
    text.map_err(|error| DecodeError::at(&place(), error))
}
