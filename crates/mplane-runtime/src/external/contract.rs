//! What a service says: lines of its standard output as events.
//!
//! One line is one JSON object with one thing in it. Everything else is refused, with what
//! was expected: a service that says something unexpected may mean anything by it.
//! `docs/external-services.md` is the contract for people.

use std::fmt;
use std::sync::Arc;

use mplane::constraint::Constraint;
use mplane::message::Capability;
use mplane::primitive::{Primitive, Real, Value};
use mplane::registry::{Element, Registries};
use mplane::when::Instant;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;

/// Metadata that says what this platform knows, and not what a service says.
const RESERVED_METADATA: [&str; 2] = ["measurement.incomplete", "component.identity"];

/// What the lines of one service may contain.
#[derive(Clone, Debug)]
pub struct Contract {
    columns: Vec<Column>,
    registry: String,
    registries: Registries,
}

/// A result column.
#[derive(Clone, Debug)]
struct Column {
    element: Arc<Element>,
    /// What the capability allows, if the element is a parameter of it too.
    allowed: Constraint,
}

/// What a line says.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Something was measured: a value for each result column.
    Row(Vec<Option<Value>>),
    /// How far the run is, from 0 to 1.
    Progress(f64),
    /// A text for the log.
    Log(Level, String),
    /// How the result came about.
    Metadata(Vec<(Arc<Element>, Option<Value>)>),
    /// The run is complete.
    Done,
    /// The run could not measure, and why.
    Failed(String),
}

/// How important a text for the log is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "each is the level of that name")]
pub enum Level {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
}

impl Contract {
    /// Returns what a service with this capability may say.
    pub fn new(capability: &Capability, registries: &Registries) -> Self {
        let column = |element: &Arc<Element>| Column {
            element: Arc::clone(element),
            allowed: capability
                .find_parameter(element.name())
                .map_or(Constraint::Any, |parameter| parameter.constraint().clone()),
        };
        Self {
            columns: capability.columns().map(column).collect(),
            registry: capability.registry().to_owned(),
            registries: registries.clone(),
        }
    }

    /// Reads a line.
    pub fn read(&self, line: &[u8]) -> Result<Event, BadLine> {
        if !line.trim_ascii_start().starts_with(b"{") {
            return Err(BadLine::Json);
        }
        let said: Said = serde_json::from_slice(line).map_err(|error| {
            if error.is_data() { BadLine::Keys(problem(&error)) } else { BadLine::Json }
        })?;
        let level = said.level;
        let mut events = [
            said.row.map(|row| self.row(row)),
            said.progress.map(progress),
            said.log.map(|text| Ok(Event::Log(level.unwrap_or_default(), text))),
            said.metadata.map(|Pairs(pairs)| self.metadata(pairs)),
            said.done.map(|done| if done { Ok(Event::Done) } else { Err(BadLine::Done) }),
            said.failed.map(|reason| Ok(Event::Failed(reason))),
        ]
        .into_iter()
        .flatten();
        let event = events.next().ok_or(BadLine::Count)?;
        if events.next().is_some() {
            return Err(BadLine::Count);
        }
        if level.is_some() && !matches!(event, Ok(Event::Log(..))) {
            return Err(BadLine::Level);
        }
        event
    }

    /// Reads a row.
    fn row(&self, row: Row) -> Result<Event, BadLine> {
        let cells = match row {
            Row::InOrder(cells) => cells,
            Row::ByName(Pairs(named)) => self.in_order(named)?,
        };
        if cells.len() != self.columns.len() {
            return Err(BadLine::Cells { found: cells.len(), columns: self.names() });
        }
        let cell = |(column, cell): (&Column, Json)| column.cell(&cell);
        let row: Result<_, _> = self.columns.iter().zip(cells).map(cell).collect();
        Ok(Event::Row(row?))
    }

    /// Brings the cells of a row into the order of the columns.
    fn in_order(&self, named: Vec<(String, Json)>) -> Result<Vec<Json>, BadLine> {
        let mut cells = vec![None; self.columns.len()];
        for (name, cell) in named {
            let is_it = |column: &Column| column.element.name() == name;
            // A name may stand for two columns: the first that is free takes the value.
            let free = self
                .columns
                .iter()
                .zip(&mut cells)
                .find(|(column, cell)| is_it(column) && cell.is_none());
            match free {
                Some((_, free)) => *free = Some(cell),
                None if self.columns.iter().any(is_it) => {
                    return Err(BadLine::Twice(short(&name)));
                }
                None => {
                    return Err(BadLine::Column {
                        name: short(&name),
                        columns: self.names(),
                    });
                }
            }
        }
        let columns = self.columns.iter().zip(cells);
        columns
            .map(|(column, cell)| {
                cell.ok_or_else(|| BadLine::Missing(column.element.name().to_owned()))
            })
            .collect()
    }

    /// Reads metadata.
    fn metadata(&self, pairs: Vec<(String, Json)>) -> Result<Event, BadLine> {
        let mut metadata = Vec::with_capacity(pairs.len());
        for (name, value) in pairs {
            if RESERVED_METADATA.contains(&name.as_str()) {
                return Err(BadLine::Reserved(name));
            }
            let element = self
                .registries
                .element(&self.registry, &name)
                .map_err(|error| BadLine::Metadata(error.to_string()))?;
            let value = cell(element, &value)?;
            metadata.push((Arc::clone(element), value));
        }
        Ok(Event::Metadata(metadata))
    }

    /// Names the columns, for errors.
    fn names(&self) -> String {
        let names: Vec<_> =
            self.columns.iter().map(|column| column.element.name()).collect();
        names.join(", ")
    }
}

impl Column {
    /// Reads a cell.
    fn cell(&self, json: &Json) -> Result<Option<Value>, BadLine> {
        let value = cell(&self.element, json)?;
        // A value that was lost breaks no rule.
        if value.is_some() && !self.allowed.is_met_by(value.as_ref()) {
            return Err(BadLine::NotAllowed {
                name: self.element.name().to_owned(),
                value: short(&value.map_or_else(String::new, |value| value.to_string())),
                allowed: short(&self.allowed.to_string()),
            });
        }
        Ok(value)
    }
}

/// Reads a value of an element. Unlike messages of peers, what a service of this very
/// component says is read strictly: it is being written, not in use for ten years.
fn cell(element: &Element, json: &Json) -> Result<Option<Value>, BadLine> {
    let primitive = element.primitive();
    let wrong =
        |problem: String| BadLine::Cell { name: element.name().to_owned(), problem };
    let unexpected = |json: &Json| {
        wrong(format!(
            "expected {}, found {}",
            expected(primitive),
            short(&json.to_string())
        ))
    };
    match (primitive, json) {
        (_, Json::Null) => Ok(None),
        (Primitive::Natural, Json::Number(number)) => number
            .as_u64()
            .map(|natural| Some(Value::Natural(natural)))
            .ok_or_else(|| unexpected(json)),
        (Primitive::Real, Json::Number(number)) => number
            .as_f64()
            .map(|real| Some(Value::Real(Real(real))))
            .ok_or_else(|| unexpected(json)),
        (Primitive::Bool, Json::Bool(truth)) => Ok(Some(Value::Bool(*truth))),
        (Primitive::Object, Json::Object(_)) => {
            Value::parse(primitive, &json.to_string())
                .map_err(|error| wrong(error.to_string()))
        }
        (
            Primitive::String | Primitive::Url | Primitive::Time | Primitive::Address,
            Json::String(text),
        ) => match Value::parse(primitive, text) {
            Ok(Some(Value::Time(Instant::Past | Instant::Now | Instant::Future))) => {
                Err(unexpected(json))
            }
            Ok(value) => Ok(value),
            Err(error) => Err(wrong(error.to_string())),
        },
        _ => Err(unexpected(json)),
    }
}

/// Says how a value of a primitive is written.
const fn expected(primitive: Primitive) -> &'static str {
    match primitive {
        Primitive::String => "a text, or null",
        Primitive::Natural => "an integer from 0 to 18446744073709551615, or null",
        Primitive::Real => "a number, or null",
        Primitive::Bool => "true, false or null",
        Primitive::Time => {
            "a time in UTC such as \"2026-11-20 09:42:15.065311\", or null"
        }
        Primitive::Address => "an address such as \"192.0.2.1\", or null",
        Primitive::Url => "a URL as text, or null",
        Primitive::Object => "an object, or null",
    }
}

/// Reads how far a run is.
fn progress(progress: f64) -> Result<Event, BadLine> {
    if (0.0..=1.0).contains(&progress) {
        Ok(Event::Progress(progress))
    } else {
        Err(BadLine::Progress(progress))
    }
}

/// A line that breaks the contract.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BadLine {
    /// Not JSON.
    #[error(
        "expected a JSON object such as {{\"row\": [...]}}; what is for people goes to \
         standard error"
    )]
    Json,
    /// Another object.
    #[error("{0}")]
    Keys(String),
    /// None or several things.
    #[error(
        "expected one of the keys row, progress, log, metadata, done and failed, with a \
         value"
    )]
    Count,
    /// A level of something else.
    #[error("level belongs to log only")]
    Level,
    /// Not done.
    #[error(
        "expected {{\"done\": true}}; a run that failed says {{\"failed\": \"why\"}}"
    )]
    Done,
    /// A number that is no progress.
    #[error("expected a progress from 0 to 1, found {0}")]
    Progress(f64),
    /// Too few or too many cells.
    #[error("expected a value for each of the columns {columns}, found {found} values")]
    Cells {
        /// How many there are.
        found: usize,
        /// The columns.
        columns: String,
    },
    /// A column that there is not.
    #[error("there is no column {name}; the columns are {columns}")]
    Column {
        /// The name given.
        name: String,
        /// The columns.
        columns: String,
    },
    /// A column that is missing.
    #[error("column {0} is missing; a value that was lost is null")]
    Missing(String),
    /// A column with two values.
    #[error("column {0} stands there twice")]
    Twice(String),
    /// A value of another type.
    #[error("{name}: {problem}")]
    Cell {
        /// The element.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// A value that the capability does not allow.
    #[error("{name}: {value} is not allowed, the capability allows {allowed}")]
    NotAllowed {
        /// The element.
        name: String,
        /// The value.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// Metadata that is no element.
    #[error("metadata: {0}")]
    Metadata(String),
    /// Metadata that a service does not set.
    #[error("metadata: {0} is set by the component, not by a service")]
    Reserved(String),
}

/// What the reader of JSON says is wrong, without the place: a line is short.
fn problem(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let end = text.rfind(" at line ").unwrap_or(text.len());
    short(text.get(..end).unwrap_or_default())
}

/// Cuts a text to what fits into an error.
fn short(text: &str) -> String {
    super::printable(text.as_bytes(), 200)
}

/// A line as JSON has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    row: Option<Row>,
    progress: Option<f64>,
    log: Option<String>,
    level: Option<Level>,
    metadata: Option<Pairs>,
    done: Option<bool>,
    failed: Option<String>,
}

/// The cells of a row.
enum Row {
    /// In the order of the columns.
    InOrder(Vec<Json>),
    /// By the names of the columns.
    ByName(Pairs),
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// Reads either.
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Row;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a row: an array of values, or an object of columns")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Row, A::Error> {
                let mut cells = Vec::new();
                while let Some(cell) = seq.next_element()? {
                    cells.push(cell);
                }
                Ok(Row::InOrder(cells))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Row, A::Error> {
                PairsVisitor.visit_map(map).map(Row::ByName)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// Names and values, in the order of the line, names that stand twice included.
struct Pairs(Vec<(String, Json)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor)
    }
}

/// Reads [`Pairs`].
struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = Pairs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of element names and values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Pairs(pairs))
    }
}

#[cfg(test)]
#[path = "contract_tests.rs"]
mod tests;
