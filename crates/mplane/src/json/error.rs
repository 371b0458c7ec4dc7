//! What is wrong with a message, and where.

use std::cell::RefCell;
use std::fmt::{self, Display};

use serde_json::error::Category;

use crate::limits;
use crate::primitive::quote;

/// Input that is no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct DecodeError {
    place: Place,
    problem: String,
}

impl DecodeError {
    /// Returns where the problem is.
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// Returns what the problem is.
    pub fn problem(&self) -> &str {
        &self.problem
    }

    /// Describes a problem at a JSON pointer.
    pub(super) fn at(pointer: &str, problem: impl Display) -> Self {
        Self { place: Place::Pointer(pointer.to_owned()), problem: problem.to_string() }
    }

    /// Describes a problem with the bytes at an offset.
    pub(super) fn at_byte(byte: usize, problem: impl Display) -> Self {
        Self { place: Place::Byte(byte), problem: problem.to_string() }
    }

    /// Describes a problem that the JSON reader has found in the message at a pointer,
    /// after following a trail into it.
    pub(super) fn json(error: &serde_json::Error, pointer: &str, trail: &Trail) -> Self {
        let message = error.to_string();
        let (line, column) = (error.line(), error.column());
        let suffix = format!(" at line {line} column {column}");
        let place = match error.classify() {
            Category::Data => Place::Pointer(trail.pointer(pointer)),
            Category::Io | Category::Syntax | Category::Eof => {
                Place::Line { line, column }
            }
        };
        let problem = message.strip_suffix(&suffix).unwrap_or(&message).to_owned();
        Self { place, problem }
    }
}

/// The way from the outer object to where reading failed: left behind on the way back, so
/// that it costs nothing where reading succeeds.
#[derive(Debug, Default)]
pub(super) struct Trail(RefCell<Vec<String>>);

impl Trail {
    /// Notes that an error came from this entry of an object or array, and passes it on.
    #[inline]
    pub(super) fn mark<T, E>(
        &self,
        outcome: Result<T, E>,
        entry: impl Display,
    ) -> Result<T, E> {
        if outcome.is_err() {
            self.push(&entry);
        }
        outcome
    }

    /// Notes an entry; apart, since it is rare.
    #[cold]
    fn push(&self, entry: &dyn Display) {
        self.0.borrow_mut().push(escaped(&entry.to_string()));
    }

    /// Returns the JSON pointer of where the trail begins, in the message at another one.
    fn pointer(&self, message: &str) -> String {
        let mut pointer = message.to_owned();
        for entry in self.0.borrow().iter().rev() {
            pointer.push('/');
            pointer.push_str(entry);
        }
        pointer
    }
}

/// Escapes a name for a JSON pointer (RFC 6901), cut to a readable length.
pub(super) fn escaped(name: &str) -> String {
    let name = name.replace('~', "~0").replace('/', "~1");
    match name.char_indices().nth(limits::QUOTE_BYTES) {
        Some((end, _)) => quote(name.get(..end).unwrap_or_default()),
        None => name,
    }
}

/// Where a problem is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A byte offset from the start of the input.
    Byte(usize),
    /// A line and a column in bytes, both from 1, from the start of the message or, in
    /// an array or envelope, of the message within.
    Line {
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// A JSON pointer (RFC 6901); empty for the whole message.
    Pointer(String),
}

impl Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Byte(byte) => write!(f, "at byte {byte}"),
            Self::Line { line, column } => write!(f, "at line {line} column {column}"),
            Self::Pointer(pointer) if pointer.is_empty() => f.write_str("in the message"),
            Self::Pointer(pointer) => write!(f, "at {pointer}"),
        }
    }
}
