//! The rows of a result, read straight into typed columns.

use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess,
    SeqAccess, Visitor,
};
use serde_json::value::RawValue;

use super::error::{DecodeError, Trail};
use super::value::value;
use super::wire::{Scalar, too_many};
use crate::limits;
use crate::message::{Cells, Column, Table};

/// Reads the rows of the message at a pointer into a table without rows.
pub(super) fn read_rows(
    rows: &RawValue,
    table: Table,
    pointer: &str,
) -> Result<Table, DecodeError> {
    let trail = Trail::default();
    let mut deserializer = serde_json::Deserializer::from_str(rows.get());
    let read = Rows { table, trail: &trail }.deserialize(&mut deserializer);
    trail
        .mark(read, "resultvalues")
        .map_err(|error| DecodeError::json(&error, pointer, &trail))
}

/// Reads an array of rows into a table without rows.
pub(super) struct Rows<'t> {
    pub(super) table: Table,
    pub(super) trail: &'t Trail,
}

impl<'de> DeserializeSeed<'de> for Rows<'_> {
    type Value = Table;

    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Table, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Rows<'_> {
    type Value = Table;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<Table, A::Error> {
        let Self { mut table, trail } = self;
        loop {
            let row = rows.next_element_seed(RowCells { table: &mut table, trail });
            if trail.mark(row, table.rows())?.is_none() {
                return Ok(table);
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
            let cell = row.next_element_seed(CellReader { column });
            if trail.mark(cell, index)?.is_none() {
                return Ok(());
            }
        }
        if row.next_element::<IgnoredAny>()?.is_some() {
            return Err(A::Error::custom("more values than there are result columns"));
        }
        Ok(())
    }
}

/// Reads one cell into a column.
struct CellReader<'t> {
    column: &'t mut Column,
}

impl CellReader<'_> {
    /// Reads what is not simply a value of the column's type or text.
    fn read<E: serde::de::Error>(self, scalar: &Scalar<'_>) -> Result<(), E> {
        let primitive = self.column.element().primitive();
        let value = value(primitive, scalar, &String::new)
            .map_err(|error| self.refuse(error.problem()))?;
        self.column.cells_mut().push(value);
        Ok(())
    }

    /// Says what is wrong with the cell.
    fn refuse<E: serde::de::Error>(&self, problem: impl fmt::Display) -> E {
        E::custom(format_args!("{}: {problem}", self.column.element()))
    }
}

impl<'de> DeserializeSeed<'de> for CellReader<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for CellReader<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value of type {}", self.column.element().primitive())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        let pushed = self.column.cells_mut().push_text(text);
        pushed.map_err(|error| self.refuse(error))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<(), E> {
        match self.column.cells_mut() {
            Cells::Natural(cells) => cells.push(Some(number)),
            _ => return self.read(&Scalar::Natural(number)),
        }
        Ok(())
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<(), E> {
        match self.column.cells_mut() {
            Cells::Real(cells) => cells.push(Some(number)),
            _ => return self.read(&Scalar::Real(number)),
        }
        Ok(())
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<(), E> {
        self.read(&Scalar::Negative(number))
    }

    fn visit_bool<E: serde::de::Error>(self, truth: bool) -> Result<(), E> {
        self.read(&Scalar::Bool(truth))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.read(&Scalar::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, array: A) -> Result<(), A::Error> {
        let array = Scalar::deserialize(SeqAccessDeserializer::new(array))?;
        self.read(&array)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let object = Scalar::deserialize(MapAccessDeserializer::new(map))?;
        self.read(&object)
    }
}
