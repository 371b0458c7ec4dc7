//! Messages as bare `serde_json` reads and writes them, without understanding them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// Any message, owned, rows as vectors of values.
#[derive(Deserialize, Serialize)]
pub(crate) struct Owned {
    #[serde(skip_serializing_if = "Option::is_none")]
    capability: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    parameters: BTreeMap<String, String>,
    registry: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<String>,
    results: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    resultvalues: Vec<Vec<OwnedCell>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    specification: Option<String>,
    token: String,
    version: u32,
    when: String,
}

/// A cell, owned.
#[derive(Serialize)]
#[serde(untagged)]
enum OwnedCell {
    Text(String),
    Natural(u64),
    Real(f64),
}

/// A cell, borrowed from the input.
#[expect(dead_code, reason = "it is read, and nothing is done with it")]
enum BorrowedCell<'a> {
    Text(&'a str),
    Natural(u64),
    Real(f64),
}

/// Any message, borrowed from the input.
#[derive(Deserialize)]
#[expect(dead_code, reason = "it is read, and nothing is done with it")]
pub(crate) struct Borrowed<'a> {
    #[serde(borrow)]
    capability: Option<Cow<'a, str>>,
    #[serde(borrow)]
    label: Option<Cow<'a, str>>,
    #[serde(borrow)]
    link: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    metadata: BTreeMap<&'a str, &'a str>,
    #[serde(borrow, default)]
    parameters: BTreeMap<&'a str, &'a str>,
    registry: &'a str,
    results: Vec<&'a str>,
    #[serde(borrow, default)]
    resultvalues: Vec<Vec<BorrowedCell<'a>>>,
    token: &'a str,
    version: u32,
    when: &'a str,
}

/// A result with its values side by side by column: texts one after the other, numbers as
/// such, nothing validated.
#[derive(Deserialize)]
#[expect(dead_code, reason = "it is read, and nothing is done with it")]
pub(crate) struct Columnar {
    registry: String,
    results: Vec<String>,
    resultvalues: Columns,
    token: String,
    when: String,
}

/// The columns that the results of the benchmark have.
#[derive(Default)]
struct Columns {
    times: Texts,
    addresses: Texts,
    delays: Vec<u64>,
    hops: Vec<u64>,
    ratios: Vec<f64>,
}

/// Texts one after the other.
#[derive(Default)]
struct Texts {
    text: String,
    ends: Vec<usize>,
}

/// Reads what a visitor takes into a place.
macro_rules! reads_into {
    ($reader:ident, $place:ty, $($visit:ident($value:ident: $type:ty) $read:expr),+) => {
        struct $reader<'c>(&'c mut $place);

        impl<'de> DeserializeSeed<'de> for $reader<'_> {
            type Value = ();

            fn deserialize<D: Deserializer<'de>>(self, cell: D) -> Result<(), D::Error> {
                cell.deserialize_any(self)
            }
        }

        impl Visitor<'_> for $reader<'_> {
            type Value = ();

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a cell")
            }

            $(fn $visit<E: serde::de::Error>(self, $value: $type) -> Result<(), E> {
                let read: fn(&mut $place, $type) -> Option<()> = $read;
                read(self.0, $value).ok_or_else(|| E::custom("no number"))
            })+
        }
    };
}

reads_into!(Text, Texts, visit_str(text: &str) |texts, text| {
    texts.text.push_str(text);
    texts.ends.push(texts.text.len());
    Some(())
});
reads_into!(
    Natural, Vec<u64>,
    visit_u64(number: u64) |numbers, number| { numbers.push(number); Some(()) },
    visit_str(text: &str) |numbers, text| { numbers.push(text.parse().ok()?); Some(()) }
);
reads_into!(
    Real, Vec<f64>,
    visit_f64(number: f64) |numbers, number| { numbers.push(number); Some(()) },
    visit_str(text: &str) |numbers, text| { numbers.push(text.parse().ok()?); Some(()) }
);

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(rows: D) -> Result<Self, D::Error> {
        struct Rows;

        impl<'de> Visitor<'de> for Rows {
            type Value = Columns;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("rows")
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut rows: A,
            ) -> Result<Columns, A::Error> {
                let mut columns = Columns::default();
                while rows.next_element_seed(Row(&mut columns))?.is_some() {}
                Ok(columns)
            }
        }

        rows.deserialize_seq(Rows)
    }
}

/// Reads a row.
struct Row<'c>(&'c mut Columns);

impl<'de> DeserializeSeed<'de> for Row<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, row: D) -> Result<(), D::Error> {
        row.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Row<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut row: A) -> Result<(), A::Error> {
        let columns = self.0;
        row.next_element_seed(Text(&mut columns.times))?;
        row.next_element_seed(Text(&mut columns.addresses))?;
        row.next_element_seed(Natural(&mut columns.delays))?;
        row.next_element_seed(Natural(&mut columns.hops))?;
        row.next_element_seed(Real(&mut columns.ratios))?;
        Ok(())
    }
}

impl<'de> Deserialize<'de> for OwnedCell {
    fn deserialize<D: Deserializer<'de>>(cell: D) -> Result<Self, D::Error> {
        struct Cell;

        impl Visitor<'_> for Cell {
            type Value = OwnedCell;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a cell")
            }

            fn visit_str<E>(self, text: &str) -> Result<OwnedCell, E> {
                Ok(OwnedCell::Text(text.to_owned()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<OwnedCell, E> {
                Ok(OwnedCell::Natural(number))
            }

            fn visit_f64<E>(self, number: f64) -> Result<OwnedCell, E> {
                Ok(OwnedCell::Real(number))
            }
        }

        cell.deserialize_any(Cell)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for BorrowedCell<'a> {
    fn deserialize<D: Deserializer<'de>>(cell: D) -> Result<Self, D::Error> {
        struct Cell;

        impl<'de> Visitor<'de> for Cell {
            type Value = BorrowedCell<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a cell")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(BorrowedCell::Text(text))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
                Ok(BorrowedCell::Natural(number))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
                Ok(BorrowedCell::Real(number))
            }
        }

        cell.deserialize_any(Cell)
    }
}
