//! What a message looks like before it is understood: its sections, borrowed from the
//! input where possible.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess};
use serde::de::{DeserializeSeed, Visitor};
use serde_json::value::RawValue;

use crate::limits;
use crate::message::Kind;

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
    /// Kept raw until the columns are known.
    pub(super) resultvalues: Option<&'a RawValue>,
    pub(super) contents: Option<Vec<&'a RawValue>>,
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
    Array,
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
            Self::Array => "an array",
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
        while array.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Array)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Scalar<'de>, A::Error> {
        let object =
            serde_json::Map::deserialize(de::value::MapAccessDeserializer::new(map))?;
        Ok(Scalar::Object(serde_json::Value::Object(object).to_string().into()))
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

impl<'de: 'a, 'a> Deserialize<'de> for Wire<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(WireVisitor)
    }
}

/// Reads a [`Wire`].
struct WireVisitor;

impl<'de> Visitor<'de> for WireVisitor {
    type Value = Wire<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message, which is an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Wire<'de>, A::Error> {
        let mut wire = Wire::default();
        let mut kinds: Vec<Kind> = Vec::new();
        while let Some(Text(key)) = map.next_key()? {
            match &*key {
                "version" => set(&mut wire.version, &key, &mut map)?,
                "registry" => set(&mut wire.registry, &key, &mut map)?,
                "label" => set(&mut wire.label, &key, &mut map)?,
                "when" => set(&mut wire.when, &key, &mut map)?,
                "token" => set(&mut wire.token, &key, &mut map)?,
                "link" => set(&mut wire.link, &key, &mut map)?,
                "export" => set(&mut wire.export, &key, &mut map)?,
                "message" => set(&mut wire.message, &key, &mut map)?,
                "resultvalues" => set(&mut wire.resultvalues, &key, &mut map)?,
                "parameters" => set_seed(&mut wire.parameters, &key, &mut map, Pairs)?,
                "metadata" => set_seed(&mut wire.metadata, &key, &mut map, Pairs)?,
                "results" => set_seed(
                    &mut wire.results,
                    &key,
                    &mut map,
                    List::new("result column names", limits::SECTION_ENTRIES),
                )?,
                "contents" => set_seed(
                    &mut wire.contents,
                    &key,
                    &mut map,
                    List::new("messages", limits::ENVELOPE_CONTENTS),
                )?,
                _ => match Kind::from_key(&key) {
                    None => {
                        map.next_value::<IgnoredAny>()?;
                    }
                    Some(kind) if kinds.contains(&kind) => return Err(twice(&key)),
                    Some(kind) => {
                        kinds.push(kind);
                        let value = map.next_value()?;
                        if wire.kind.as_ref().is_none_or(|(known, _)| kind < *known) {
                            wire.kind = Some((kind, value));
                        }
                    }
                },
            }
        }
        Ok(wire)
    }
}

/// Reads a section that may stand there once.
fn set<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
    section: &mut Option<T>,
    key: &str,
    map: &mut A,
) -> Result<(), A::Error> {
    set_seed(section, key, map, std::marker::PhantomData)
}

/// Reads a section that may stand there once, in a special way.
fn set_seed<'de, S: DeserializeSeed<'de>, A: MapAccess<'de>>(
    section: &mut Option<S::Value>,
    key: &str,
    map: &mut A,
    seed: S,
) -> Result<(), A::Error> {
    if section.is_some() {
        return Err(twice(key));
    }
    *section = Some(map.next_value_seed(seed)?);
    Ok(())
}

/// Refuses a key that stands there already.
fn twice<E: de::Error>(key: &str) -> E {
    E::custom(format_args!("key {key:?} stands there twice"))
}

/// Reads an object of names and single values.
struct Pairs;

impl<'de> DeserializeSeed<'de> for Pairs {
    type Value = Vec<(Cow<'de, str>, Scalar<'de>)>;

    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Pairs {
    type Value = Vec<(Cow<'de, str>, Scalar<'de>)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of element names and values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs: Self::Value = Vec::new();
        while let Some((Text(name), value)) = map.next_entry()? {
            if pairs.len() == limits::SECTION_ENTRIES {
                return Err(too_many("entries of a section", limits::SECTION_ENTRIES));
            }
            pairs.push((name, value));
        }
        Ok(pairs)
    }
}

/// Reads an array of limited length.
struct List<T> {
    what: &'static str,
    limit: usize,
    item: std::marker::PhantomData<T>,
}

impl<T> List<T> {
    /// Makes a reader of at most `limit` items.
    const fn new(what: &'static str, limit: usize) -> Self {
        Self { what, limit, item: std::marker::PhantomData }
    }
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for List<T> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of {}", self.what)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = array.next_element()? {
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
