//! A line of `log_tcp_complete` as cells.
//!
//! The first line is a header, `#15#c_ip:1 c_port:2 …`: names with their position from 1
//! on. Which names there are depends on the sets that are on, so that only the header
//! says where a value stands. Fields have a single blank between them; an empty one, `-`
//! and `---` are no value.

use std::borrow::Cow;
use std::net::Ipv4Addr;
use std::str::FromStr as _;

use jiff::Timestamp;
use mplane::address::Address;
use mplane::limits;
use mplane::primitive::{Primitive, Value};
use mplane::when::Instant;

use super::Column;

/// The column with the time of the last packet of a flow.
const END: &str = "last";

/// How the names of columns end that say the opposite of their element.
const OPPOSITES: &str = "_syn_retx";

/// Where the values of result columns stand in the lines of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// For each result column its field and how that is read; `None` if the file has none.
    cells: Vec<Option<(usize, Reading)>>,
    /// The field with the end of the flow.
    end: usize,
    /// How many fields a line has.
    fields: usize,
}

/// How a field becomes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// As the text of a value of this type.
    Text(Primitive),
    /// As milliseconds since 1970.
    Moment,
    /// As the address of an IPv4 host: the elements are of no other.
    Ip4,
    /// As a truth value that stands for the opposite.
    Opposite,
}

/// A flow of a log.
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    /// When its last packet was seen, UTC.
    pub end: Timestamp,
    /// The values of the result columns, in order.
    pub row: Vec<Option<Value>>,
    /// Whether every field could be read; one that could not has no value.
    pub is_readable: bool,
}

impl Layout {
    /// Reads a header. Each result column comes with the type of its element.
    pub fn parse(
        header: &[u8],
        columns: &[(Column, Primitive)],
    ) -> Result<Self, LineProblem> {
        let header = text(header);
        let (_, names) = header.rsplit_once('#').ok_or(LineProblem::Header)?;
        let mut known = Vec::new();
        for word in names.split_ascii_whitespace() {
            let (name, position) = word.rsplit_once(':').ok_or(LineProblem::Header)?;
            let position: usize = position.parse().map_err(|_| LineProblem::Header)?;
            if !(1..=limits::SECTION_ENTRIES).contains(&position)
                || known.len() == limits::SECTION_ENTRIES
            {
                return Err(LineProblem::Fields);
            }
            known.push((name, position - 1));
        }
        let find = |wanted: &str| {
            let mut found = known.iter().filter(|(name, _)| *name == wanted);
            found.next().map(|(_, position)| *position)
        };
        let cell = |(column, primitive): &(Column, Primitive)| {
            let (name, field) =
                column.log.iter().find_map(|name| Some((*name, find(name)?)))?;
            Some((field, Reading::of(name, *primitive)))
        };
        Ok(Self {
            cells: columns.iter().map(cell).collect(),
            end: find(END).ok_or(LineProblem::NoEnd)?,
            fields: known.iter().map(|(_, position)| position + 1).max().unwrap_or(0),
        })
    }

    /// Reads a line.
    pub fn read(&self, line: &[u8]) -> Result<Flow, LineProblem> {
        let line = text(line);
        let mut fields: Vec<&str> = line.split(' ').collect();
        if fields.len() == self.fields + 1 && fields.last() == Some(&"") {
            // The line ends with a blank.
            fields.pop();
        }
        if fields.len() != self.fields {
            let (found, expected) = (fields.len(), self.fields);
            return Err(LineProblem::Count { found, expected });
        }
        let end = fields.get(self.end).and_then(|field| moment(field));
        let end = end.ok_or(LineProblem::End)?;
        let mut is_readable = true;
        let mut cell = |place: &Option<(usize, Reading)>| {
            let (field, reading) = (*place)?;
            let field = *fields.get(field)?;
            if matches!(field, "" | "-" | "---") {
                return None;
            }
            let value = reading.read(field);
            is_readable &= value.is_some();
            value
        };
        let row = self.cells.iter().map(&mut cell).collect();
        Ok(Flow { end, row, is_readable })
    }
}

impl Reading {
    /// Returns how fields of a column are read.
    fn of(name: &str, primitive: Primitive) -> Self {
        match primitive {
            Primitive::Time => Self::Moment,
            Primitive::Address => Self::Ip4,
            Primitive::Bool if name.ends_with(OPPOSITES) => Self::Opposite,
            other => Self::Text(other),
        }
    }

    /// Reads a field; `None` if it is no such value.
    fn read(self, field: &str) -> Option<Value> {
        match self {
            Self::Text(primitive) => Value::parse(primitive, field).ok().flatten(),
            Self::Moment => moment(field).map(|moment| Value::Time(Instant::At(moment))),
            Self::Ip4 => {
                let address = Ipv4Addr::from_str(field).ok()?;
                Some(Value::Address(Address::host(address.into())))
            }
            Self::Opposite => match Value::parse(Primitive::Bool, field).ok()?? {
                Value::Bool(is_so) => Some(Value::Bool(!is_so)),
                _ => None,
            },
        }
    }
}

/// Returns a line as text, without its end.
fn text(line: &[u8]) -> Cow<'_, str> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line))
}

/// Reads milliseconds since 1970 with a fraction, to the nanosecond; what is finer is cut.
fn moment(field: &str) -> Option<Timestamp> {
    /// Digits of a fraction of a millisecond that are nanoseconds.
    const DIGITS: usize = 6;
    let (whole, fraction) = field.split_once('.').unwrap_or((field, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let fraction: String =
        fraction.chars().chain(std::iter::repeat('0')).take(DIGITS).collect();
    let milliseconds: i64 = whole.parse().ok()?;
    let nanoseconds: i128 = fraction.parse().ok()?;
    let nanoseconds = i128::from(milliseconds) * 1_000_000 + nanoseconds;
    Timestamp::from_nanosecond(nanoseconds).ok()
}

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineProblem {
    /// A line that begins with `#` does not name columns.
    #[error("a header is not of the form #15#c_ip:1 c_port:2")]
    Header,
    /// A header names too many columns.
    #[error("a header names more than {} columns", limits::SECTION_ENTRIES)]
    Fields,
    /// A header does not name the end of flows.
    #[error("a header does not name the column {END}")]
    NoEnd,
    /// No header has come before.
    #[error("a line has no header before it")]
    NoHeader,
    /// A line is too long.
    #[error("a line has more than {bytes} bytes")]
    TooLong {
        /// How many it may have.
        bytes: usize,
    },
    /// A line does not have the columns of its header.
    #[error("a line has {found} fields, its header names {expected}")]
    Count {
        /// How many it has.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// The end of a flow is no time.
    #[error("the column {END} of a line is no time in milliseconds since 1970")]
    End,
    /// A field is not of its type.
    #[error("a field is not of the type of its column")]
    Field,
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
