//! What a message looks like before it is understood: its sections, borrowed from the
//! input where possible.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess};
use serde::de::{DeserializeSeed, Visitor};
use serde_json::value::RawValue;

use super::error::{DecodeError, Trail};
use super::rows::Rows;
use crate::limits;
use crate::message::{Kind, Table};
use crate::primitive::canonical_object;
use crate::registry::Registries;

/// A message's sections.
#[derive(Default)]
pub(super) struct Wire<'a> {
    /// The deciding key and its value.
    pub(super) kind: Option<(Kind, Scalar<'a>)>,
    pub(super) version: Option<Scalar<'a>>,
    pub(super) registry: Option<Scalar<'a>>,
    pub(super) label: Option<Scalar<'a>>,
    pub(super) when: Option<Scalar<'a>>,
    pub(super) token: Option<Scalar<'a>>,
    pub(super) link: Option<Scalar<'a>>,
    pub(super) export: Option<Scalar<'a>>,
    pub(super) message: Option<Scalar<'a>>,
    pub(super) parameters: Option<Vec<(Cow<'a, str>, Scalar<'a>)>>,
    pub(super) metadata: Option<Vec<(Cow<'a, str>, Scalar<'a>)>>,
    pub(super) results: Option<Vec<Scalar<'a>>>,
    pub(super) resultvalues: Option<ResultValues<'a>>,
    pub(super) contents: Option<Vec<&'a RawValue>>,
}

/// The rows of a result.
pub(super) enum ResultValues<'a> {
    /// Read already, since the columns were known.
    Table(Table),
    /// Kept raw until they are.
    Raw(&'a RawValue),
}

/// A JSON value where a single one is expected.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar<'a> {
    Null,
    Bool(bool),
    Natural(u64),
    Negative(i64),
    Real(f64),
    Text(Cow<'a, str>),
    Object(Box<str>),
    Array(Vec<Self>),
}

impl Scalar<'_> {
    /// Names what it is, for errors.
    pub(super) const fn describe(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Natural(_) | Self::Negative(_) | Self::Real(_) => "a number",
            Self::Text(_) => "text",
            Self::Object(_) => "an object",
            Self::Array(_) => "an array",
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

/// Reads a [`Scalar`].
struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Bool(truth))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Natural(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Scalar<'de>, E> {
        Ok(u64::try_from(number).map_or(Scalar::Negative(number), Scalar::Natural))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Real(number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Owned(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Scalar<'de>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = array.next_element()? {
            if items.len() == limits::LIST_MEMBERS {
                return Err(too_many("members of a list", limits::LIST_MEMBERS));
            }
            items.push(item);
        }
        Ok(Scalar::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Scalar<'de>, A::Error> {
        let object =
            serde_json::Map::deserialize(de::value::MapAccessDeserializer::new(map))?;
        canonical_object(&serde_json::Value::Object(object))
            .map(Scalar::Object)
            .ok_or_else(|| too_many("levels of objects", limits::OBJECT_DEPTH))
    }
}

/// Text that borrows from the input where it can.
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_str(ScalarVisitor)? {
            Scalar::Text(text) => Ok(Self(text)),
            other => Err(de::Error::custom(format_args!(
                "expected text, found {}",
                other.describe()
            ))),
        }
    }
}

impl<'a> Wire<'a> {
    /// Reads the sections of the message at a pointer.
    pub(super) fn read(
        json: &'a str,
        pointer: &str,
        registries: &Registries,
    ) -> Result<Self, DecodeError> {
        let trail = Trail::default();
        let mut deserializer = serde_json::Deserializer::from_str(json);
        deserializer
            .deserialize_map(WireVisitor { trail: &trail, registries })
            .and_then(|wire| deserializer.end().map(|()| wire))
            .map_err(|error| DecodeError::json(&error, pointer, &trail))
    }

    /// Returns an empty table of the result columns, if this is a result and they are known
    /// already, as they are where keys are sorted.
    fn table(&self, registries: &Registries) -> Option<Table> {
        let (Some((Kind::Result, _)), Some(Scalar::Text(registry)), Some(results)) =
            (&self.kind, &self.registry, &self.results)
        else {
            return None;
        };
        let element = |name: &Scalar<'_>| match name {
            Scalar::Text(name) => registries.element(registry, name).ok(),
            _ => None,
        };
        let elements: Vec<_> = results.iter().map(element).collect::<Option<_>>()?;
        Some(Table::new(elements))
    }
}

/// Reads a [`Wire`].
struct WireVisitor<'t> {
    trail: &'t Trail,
    registries: &'t Registries,
}

impl<'de> Visitor<'de> for WireVisitor<'_> {
    type Value = Wire<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message, which is an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Wire<'de>, A::Error> {
        let mut wire = Wire::default();
        let mut kinds: Vec<Kind> = Vec::new();
        while let Some(Text(key)) = map.next_key()? {
            let read = self.read_section(&mut wire, &mut kinds, &key, &mut map);
            self.trail.mark(read, &key)?;
        }
        Ok(wire)
    }
}

impl WireVisitor<'_> {
    /// Reads the section that a key names.
    fn read_section<'de, A: MapAccess<'de>>(
        &self,
        wire: &mut Wire<'de>,
        kinds: &mut Vec<Kind>,
        key: &str,
        map: &mut A,
    ) -> Result<(), A::Error> {
        let trail = self.trail;
        match key {
            "version" => set(&mut wire.version, map),
            "registry" => set(&mut wire.registry, map),
            "label" => set(&mut wire.label, map),
            "when" => set(&mut wire.when, map),
            "token" => set(&mut wire.token, map),
            "link" => set(&mut wire.link, map),
            "export" => set(&mut wire.export, map),
            "message" => set(&mut wire.message, map),
            "resultvalues" => {
                if wire.resultvalues.is_some() {
                    return Err(twice());
                }
                let rows = match wire.table(self.registries) {
                    Some(table) => {
                        ResultValues::Table(map.next_value_seed(Rows { table, trail })?)
                    }
                    None => ResultValues::Raw(map.next_value()?),
                };
                wire.resultvalues = Some(rows);
                Ok(())
            }
            "parameters" => set_seed(&mut wire.parameters, map, Pairs { trail }),
            "metadata" => set_seed(&mut wire.metadata, map, Pairs { trail }),
            "results" => set_seed(&mut wire.results, map, List::columns(trail)),
            "contents" => set_seed(&mut wire.contents, map, List::messages(trail)),
            _ => match Kind::from_key(key) {
                None => map.next_value::<IgnoredAny>().map(drop),
                Some(kind) if kinds.contains(&kind) => Err(twice()),
                Some(kind) => {
                    kinds.push(kind);
                    let value = map.next_value()?;
                    if wire.kind.as_ref().is_none_or(|(known, _)| kind < *known) {
                        wire.kind = Some((kind, value));
                    }
                    Ok(())
                }
            },
        }
    }
}

/// Reads a section that may stand there once.
fn set<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
    section: &mut Option<T>,
    map: &mut A,
) -> Result<(), A::Error> {
    set_seed(section, map, PhantomData)
}

/// Reads a section that may stand there once, in a special way.
fn set_seed<'de, S: DeserializeSeed<'de>, A: MapAccess<'de>>(
    section: &mut Option<S::Value>,
    map: &mut A,
    seed: S,
) -> Result<(), A::Error> {
    if section.is_some() {
        return Err(twice());
    }
    *section = Some(map.next_value_seed(seed)?);
    Ok(())
}

/// Refuses a key that stands there already.
fn twice<E: de::Error>() -> E {
    E::custom("this key stands there twice")
}

/// Reads an object of names and single values.
struct Pairs<'t> {
    trail: &'t Trail,
}

impl<'de> DeserializeSeed<'de> for Pairs<'_> {
    type Value = Vec<(Cow<'de, str>, Scalar<'de>)>;

    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Pairs<'_> {
    type Value = Vec<(Cow<'de, str>, Scalar<'de>)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of element names and values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs: Self::Value = Vec::new();
        while let Some(Text(name)) = map.next_key()? {
            if pairs.len() == limits::SECTION_ENTRIES {
                return Err(too_many("entries of a section", limits::SECTION_ENTRIES));
            }
            let value = self.trail.mark(map.next_value(), &name)?;
            pairs.push((name, value));
        }
        Ok(pairs)
    }
}

/// Reads an array of limited length.
pub(super) struct List<'t, T> {
    what: &'static str,
    limit: usize,
    trail: &'t Trail,
    item: PhantomData<T>,
}

impl<'t> List<'t, Scalar<'_>> {
    /// Makes a reader of the names of result columns.
    const fn columns(trail: &'t Trail) -> Self {
        let (what, limit) = ("result columns", limits::SECTION_ENTRIES);
        Self { what, limit, trail, item: PhantomData }
    }
}

impl<'t> List<'t, &RawValue> {
    /// Makes a reader of messages, not yet looked into.
    pub(super) const fn messages(trail: &'t Trail) -> Self {
        let (what, limit) = ("messages", limits::ENVELOPE_CONTENTS);
        Self { what, limit, trail, item: PhantomData }
    }
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for List<'_, T> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for List<'_, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of {}", self.what)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = self.trail.mark(array.next_element(), items.len())? {
            if items.len() == self.limit {
                return Err(too_many(self.what, self.limit));
            }
            items.push(item);
        }
        Ok(items)
    }
}

/// Refuses what exceeds a limit.
pub(super) fn too_many<E: de::Error>(what: &str, limit: usize) -> E {
    E::custom(format_args!("there are at most {limit} {what}"))
}
