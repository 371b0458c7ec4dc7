//! The rows of a result, read straight into typed columns.

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor,
};
use serde_json::value::RawValue;

use super::error::{DecodeError, Trail};
use super::value::value;
use super::wire::{Scalar, too_many};
use crate::limits;
use crate::message::Table;

/// Reads the rows of the message at a pointer.
pub(super) fn read_rows(
    rows: &RawValue,
    table: &mut Table,
    pointer: &str,
) -> Result<(), DecodeError> {
    let trail = Trail::default();
    let mut deserializer = serde_json::Deserializer::from_str(rows.get());
    let read = Rows { table, trail: &trail }.deserialize(&mut deserializer);
    trail
        .mark(read, "resultvalues")
        .map_err(|error| DecodeError::json(&error, pointer, &trail))
}

/// Reads an array of rows.
struct Rows<'t> {
    table: &'t mut Table,
    trail: &'t Trail,
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
        let Self { table, trail } = self;
        loop {
            let row = rows.next_element_seed(RowCells { table, trail });
            if trail.mark(row, table.rows())?.is_none() {
                return Ok(());
            }
            table.end_row();
            if table.rows() > limits::RESULT_ROWS {
                return Err(too_many("rows in a result", limits::RESULT_ROWS));
            }
        }
    }
}

/// Reads one row: an array of cells, in the order of the columns.
struct RowCells<'t> {
    table: &'t mut Table,
    trail: &'t Trail,
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
        let trail = self.trail;
        for (index, column) in self.table.columns_mut().iter_mut().enumerate() {
            let Some(scalar) = trail.mark(row.next_element::<Scalar<'_>>(), index)?
            else {
                return Ok(());
            };
            let primitive = column.element().primitive();
            let value = value(primitive, &scalar, &String::new).map_err(|error| {
                A::Error::custom(format_args!(
                    "{}: {}",
                    column.element(),
                    error.problem()
                ))
            });
            column.cells_mut().push(trail.mark(value, index)?);
        }
        if row.next_element::<IgnoredAny>()?.is_some() {
            return Err(A::Error::custom("more values than there are result columns"));
        }
        Ok(())
    }
}
