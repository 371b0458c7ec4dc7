//! The rows of a result, kept by column.
//!
//! Results may have many rows, so each column holds the values of its element's type side
//! by side; there are no row objects. A cell without a value is `None`: a lost packet has
//! no delay, it has not a delay of zero.

use std::sync::Arc;

use crate::address::Address;
use crate::limits;
use crate::primitive::{NO_VALUE, ParseValueError, Primitive, Real, Value, quote};
use crate::registry::Element;
use crate::when::Instant;

/// Rows of values, kept by column. All columns have equally many cells.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Table {
    columns: Vec<Column>,
    rows: usize,
}

/// One column: the element it is about, and a cell for each row.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    element: Arc<Element>,
    cells: Cells,
}

/// The cells of a column, of its element's type.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each variant is named after its primitive")]
pub enum Cells {
    String(Vec<Option<Box<str>>>),
    Natural(Vec<Option<u64>>),
    Real(Vec<Option<f64>>),
    Bool(Vec<Option<bool>>),
    Time(Vec<Option<Instant>>),
    Address(Vec<Option<Address>>),
    Url(Vec<Option<Box<str>>>),
    Object(Vec<Option<Box<str>>>),
}

/// One row of values, borrowed from its table.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    table: &'a Table,
    index: usize,
}

impl Table {
    /// Makes a table without rows.
    pub fn new<'a>(columns: impl IntoIterator<Item = &'a Arc<Element>>) -> Self {
        let column = |element: &Arc<Element>| Column {
            element: Arc::clone(element),
            cells: Cells::new(element.primitive()),
        };
        Self { columns: columns.into_iter().map(column).collect(), rows: 0 }
    }

    /// Adds a row. Cells that are missing at its end have no value.
    ///
    /// # Panics
    ///
    /// If a value is not of its column's type, or there are more values than columns:
    /// whoever measures knows what.
    pub fn push(&mut self, row: impl IntoIterator<Item = Option<Value>>) {
        let mut row = row.into_iter();
        for column in &mut self.columns {
            let value = row.next().flatten();
            assert!(
                column.cells.push(value),
                "column {} takes values of type {}",
                column.element,
                column.element.primitive()
            );
        }
        assert!(row.next().is_none(), "a row has a value for each column at most");
        self.rows += 1;
    }

    /// Sets a cell. Rows that are missing up to it are added without values.
    pub fn set(
        &mut self,
        name: &str,
        row: usize,
        value: Option<Value>,
    ) -> Result<(), SetCellError> {
        if row >= limits::RESULT_ROWS {
            return Err(SetCellError::TooManyRows);
        }
        let unknown = || SetCellError::Unknown { name: quote(name) };
        let column = self.columns.iter_mut().find(|c| c.element.name() == name);
        let cells = &mut column.ok_or_else(unknown)?.cells;
        cells.resize(cells.len().max(row + 1));
        let rows = cells.len();
        if !cells.set(row, value) {
            let (name, primitive) = (quote(name), cells.primitive());
            cells.resize(self.rows);
            return Err(SetCellError::Type { name, primitive });
        }
        self.rows = rows;
        for column in &mut self.columns {
            column.cells.resize(rows);
        }
        Ok(())
    }

    /// Removes all rows.
    pub fn clear(&mut self) {
        self.rows = 0;
        for column in &mut self.columns {
            column.cells.resize(0);
        }
    }

    /// Returns the number of rows.
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the number of cells, empty ones included.
    pub const fn value_count(&self) -> usize {
        self.rows * self.columns.len()
    }

    /// Returns the columns.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Returns the column of the element with this name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.element.name() == name)
    }

    /// Returns the rows, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Row<'_>> {
        (0..self.rows).map(|index| Row { table: self, index })
    }

    /// Gives cells to a reader that fills them row by row.
    pub(crate) fn columns_mut(&mut self) -> &mut [Column] {
        &mut self.columns
    }

    /// Completes a row that a reader has filled: columns it has not reached get a cell
    /// without value.
    pub(crate) fn end_row(&mut self) {
        self.rows += 1;
        for column in &mut self.columns {
            if column.cells.len() < self.rows {
                column.cells.push(None);
            }
        }
    }
}

impl Column {
    /// Returns the element that it is about.
    pub const fn element(&self) -> &Arc<Element> {
        &self.element
    }

    /// Returns the cells.
    pub const fn cells(&self) -> &Cells {
        &self.cells
    }

    /// Returns the value in a row, if there is one.
    pub fn value(&self, row: usize) -> Option<Value> {
        self.cells.value(row)
    }

    /// Returns the cells to fill them.
    pub(crate) fn cells_mut(&mut self) -> &mut Cells {
        &mut self.cells
    }
}

impl<'a> Row<'a> {
    /// Returns the values in the order of the columns.
    pub fn values(&self) -> impl ExactSizeIterator<Item = Option<Value>> + use<'a> {
        let index = self.index;
        self.table.columns.iter().map(move |column| column.value(index))
    }

    /// Returns the values with the elements that they are of.
    pub fn entries(
        &self,
    ) -> impl ExactSizeIterator<Item = (&'a Arc<Element>, Option<Value>)> + use<'a> {
        let index = self.index;
        let columns = self.table.columns.iter();
        columns.map(move |column| (&column.element, column.value(index)))
    }

    /// Returns the value in the column of the element with this name.
    pub fn value(&self, name: &str) -> Option<Value> {
        self.table.column(name)?.value(self.index)
    }
}

/// A cell that cannot be set this way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetCellError {
    /// There is no such column.
    #[error("there is no result column {name}")]
    Unknown {
        /// The name given.
        name: String,
    },
    /// The value is of another type.
    #[error("result column {name} takes values of type {primitive}")]
    Type {
        /// The column.
        name: String,
        /// Its type.
        primitive: Primitive,
    },
    /// The row is beyond the limit.
    #[error("a result has at most {} rows", limits::RESULT_ROWS)]
    TooManyRows,
}

impl Cells {
    /// Makes a column of this type without cells.
    const fn new(primitive: Primitive) -> Self {
        match primitive {
            Primitive::String => Self::String(Vec::new()),
            Primitive::Natural => Self::Natural(Vec::new()),
            Primitive::Real => Self::Real(Vec::new()),
            Primitive::Bool => Self::Bool(Vec::new()),
            Primitive::Time => Self::Time(Vec::new()),
            Primitive::Address => Self::Address(Vec::new()),
            Primitive::Url => Self::Url(Vec::new()),
            Primitive::Object => Self::Object(Vec::new()),
        }
    }

    /// Returns the number of cells.
    pub const fn len(&self) -> usize {
        match self {
            Self::String(cells) | Self::Url(cells) | Self::Object(cells) => cells.len(),
            Self::Natural(cells) => cells.len(),
            Self::Real(cells) => cells.len(),
            Self::Bool(cells) => cells.len(),
            Self::Time(cells) => cells.len(),
            Self::Address(cells) => cells.len(),
        }
    }

    /// Says whether there are no cells.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the value of a cell, if it has one.
    pub fn value(&self, index: usize) -> Option<Value> {
        match self {
            Self::String(cells) => cells.get(index)?.clone().map(Value::String),
            Self::Natural(cells) => (*cells.get(index)?).map(Value::Natural),
            Self::Real(cells) => cells.get(index)?.map(|real| Value::Real(Real(real))),
            Self::Bool(cells) => (*cells.get(index)?).map(Value::Bool),
            Self::Time(cells) => (*cells.get(index)?).map(Value::Time),
            Self::Address(cells) => cells.get(index)?.clone().map(Value::Address),
            Self::Url(cells) => cells.get(index)?.clone().map(Value::Url),
            Self::Object(cells) => cells.get(index)?.clone().map(Value::Object),
        }
    }

    /// Returns the type of the cells.
    const fn primitive(&self) -> Primitive {
        match self {
            Self::String(_) => Primitive::String,
            Self::Natural(_) => Primitive::Natural,
            Self::Real(_) => Primitive::Real,
            Self::Bool(_) => Primitive::Bool,
            Self::Time(_) => Primitive::Time,
            Self::Address(_) => Primitive::Address,
            Self::Url(_) => Primitive::Url,
            Self::Object(_) => Primitive::Object,
        }
    }

    /// Makes as many cells as given, new ones without value.
    fn resize(&mut self, length: usize) {
        match self {
            Self::String(cells) | Self::Url(cells) | Self::Object(cells) => {
                cells.resize(length, None);
            }
            Self::Natural(cells) => cells.resize(length, None),
            Self::Real(cells) => cells.resize(length, None),
            Self::Bool(cells) => cells.resize(length, None),
            Self::Time(cells) => cells.resize(length, None),
            Self::Address(cells) => cells.resize(length, None),
        }
    }

    /// Sets a cell that there is; says whether the value is of the column's type.
    fn set(&mut self, index: usize, value: Option<Value>) -> bool {
        if !self.push(value) {
            return false;
        }
        match self {
            Self::String(cells) | Self::Url(cells) | Self::Object(cells) => {
                drop(cells.swap_remove(index));
            }
            Self::Natural(cells) => drop(cells.swap_remove(index)),
            Self::Real(cells) => drop(cells.swap_remove(index)),
            Self::Bool(cells) => drop(cells.swap_remove(index)),
            Self::Time(cells) => drop(cells.swap_remove(index)),
            Self::Address(cells) => drop(cells.swap_remove(index)),
        }
        true
    }

    /// Adds a cell that a text stands for. Large results are mostly such cells, so types
    /// that they mostly have are read without a detour.
    pub(crate) fn push_text(&mut self, text: &str) -> Result<(), ParseValueError> {
        match self {
            Self::String(cells) | Self::Url(cells) if text != NO_VALUE => {
                cells.push(Some(text.into()));
                return Ok(());
            }
            Self::Real(cells) => {
                if let Ok(real) = text.parse() {
                    cells.push(Some(real));
                    return Ok(());
                }
            }
            Self::Time(cells) => {
                if let Ok(instant) = text.parse() {
                    cells.push(Some(instant));
                    return Ok(());
                }
            }
            Self::Address(cells) => {
                if let Ok(address) = text.parse() {
                    cells.push(Some(address));
                    return Ok(());
                }
            }
            _ => {}
        }
        let value = Value::parse(self.primitive(), text)?;
        let fits = self.push(value);
        debug_assert!(fits, "it was read as a value of the column's type");
        Ok(())
    }

    /// Adds a cell; says whether the value is of the column's type.
    pub(crate) fn push(&mut self, value: Option<Value>) -> bool {
        match (self, value) {
            (Self::String(cells) | Self::Url(cells) | Self::Object(cells), None) => {
                cells.push(None);
            }
            (Self::Natural(cells), None) => {
                cells.push(None);
            }
            (Self::Real(cells), None) => {
                cells.push(None);
            }
            (Self::Bool(cells), None) => {
                cells.push(None);
            }
            (Self::Time(cells), None) => {
                cells.push(None);
            }
            (Self::Address(cells), None) => {
                cells.push(None);
            }
            (Self::String(cells), Some(Value::String(text)))
            | (Self::Url(cells), Some(Value::Url(text)))
            | (Self::Object(cells), Some(Value::Object(text))) => cells.push(Some(text)),
            (Self::Natural(cells), Some(Value::Natural(natural))) => {
                cells.push(Some(natural));
            }
            (Self::Real(cells), Some(Value::Real(real))) => cells.push(Some(real.0)),
            (Self::Bool(cells), Some(Value::Bool(truth))) => cells.push(Some(truth)),
            (Self::Time(cells), Some(Value::Time(instant))) => cells.push(Some(instant)),
            (Self::Address(cells), Some(Value::Address(address))) => {
                cells.push(Some(address));
            }
            _ => return false,
        }
        true
    }
}
