//! Elements and the registries that define them.
//!
//! An element is a named type of data with a meaning; a registry is a list of elements
//! with a URI. Messages name elements and their registry, so that equal names mean equal
//! things.
//!
//! Read on in [`Registry::parse`], which reads a file, and [`Registries::element`], which
//! finds what a message names.
//!
//! Source: mPlane protocol specification, "Element Registry"; file format `mplane-0`.
//!
//! Differences: elements are looked up in the registry that the message names, then in
//! the others in order (the reference takes the first loaded); an include loop is an
//! error; nothing is ever fetched because a message names it.

mod file;

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::sync::{Arc, LazyLock};

pub use file::ParseRegistryError;

use crate::primitive::{ParseValueError, Primitive, Value, quote};

/// The URI of the core registry.
pub const CORE: &str = "http://ict-mplane.eu/registry/core";

/// The URI of the registry of this platform's own elements.
pub const PLATFORM: &str = "urn:mplane:registry:platform";

/// The URI of the registry of tStat's elements.
pub const TSTAT: &str = "urn:mplane:registry:tstat";

/// The URI that programs of the RI dialect use for their registry, and their files for
/// the core registry.
const CORE_FILE: &str = "http://ict-mplane.eu/registry/core.json";

/// The URI that configurations shipped with the reference name: core and tStat's names.
const DEMO: &str = "http://ict-mplane.eu/registry/demo";

/// The registry files that are part of this crate, by the name they are offered under.
pub const FILES: [(&str, &str); 4] = [
    ("core", include_str!("../../../../registry/core.json")),
    ("tstat", include_str!("../../../../registry/tstat.json")),
    ("platform", include_str!("../../../../registry/platform.json")),
    ("ri", include_str!("../../../../registry/ri.json")),
];

/// A named type of data with a meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    name: Box<str>,
    primitive: Primitive,
    description: Box<str>,
    namespace: Arc<str>,
    /// What else the file says, as JSON.
    annotations: BTreeMap<Box<str>, Box<str>>,
}

/// The IPFIX Information Element that an element corresponds to (RFC 7011).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipfix {
    /// The number of the element.
    pub element: u64,
    /// The private enterprise that defines it; `None` for IANA's own.
    pub enterprise: Option<u64>,
}

impl Element {
    /// Returns the name, such as `delay.twoway.icmp.us.min`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the type of its values.
    pub const fn primitive(&self) -> Primitive {
        self.primitive
    }

    /// Returns what it means; empty if the registry does not say.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Returns the URI of the registry that defines it.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Returns the registry's URI and the name, joined by `#`.
    pub fn qualified_name(&self) -> String {
        format!("{}#{}", self.namespace, self.name)
    }

    /// Returns the units of its values, if the registry names them.
    pub fn units(&self) -> Option<String> {
        serde_json::from_str(self.annotation("units")?).ok()
    }

    /// Returns the corresponding element of IPFIX, if the registry names it.
    pub fn ipfix(&self) -> Option<Ipfix> {
        let number = |key| self.annotation(key)?.trim_matches('"').parse().ok();
        let element = number("ipfix-eid")?;
        Some(Ipfix { element, enterprise: number("ipfix-pen") })
    }

    /// Returns what the registry file says under a key that this crate gives no meaning,
    /// as JSON.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(AsRef::as_ref)
    }

    /// Reads a value of this element; `None` where the text says that there is none.
    pub fn parse(&self, text: &str) -> Result<Option<Value>, ParseValueError> {
        Value::parse(self.primitive, text)
    }

    /// Says whether values of this element can be used as values of another one: by name,
    /// whichever registry defines it.
    pub fn is_compatible_with(&self, other: &Self) -> bool {
        self.name == other.name && self.primitive == other.primitive
    }

    /// Returns the function that turns values of this element into values of another one;
    /// `None` if they are not compatible.
    ///
    /// Names do not yet say how units convert, so it is the identity.
    pub fn transformation_to(&self, other: &Self) -> Option<fn(Value) -> Value> {
        self.is_compatible_with(other).then_some(std::convert::identity)
    }
}

impl Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A list of elements with a URI, what it includes merged in.
#[derive(Clone, Debug)]
pub struct Registry {
    uri: Arc<str>,
    revision: u64,
    /// In the order of the file, included elements first.
    elements: Vec<Arc<Element>>,
    by_name: BTreeMap<Box<str>, usize>,
}

impl Registry {
    /// Makes a registry without elements.
    fn new(uri: Arc<str>, revision: u64) -> Self {
        Self { uri, revision, elements: Vec::new(), by_name: BTreeMap::new() }
    }

    /// Adds an element; a later definition of a name wins.
    fn define(&mut self, element: Arc<Element>) {
        let index = self.elements.len();
        if let Some(&known) = self.by_name.get(&element.name) {
            self.elements[known] = element;
        } else {
            self.by_name.insert(element.name.clone(), index);
            self.elements.push(element);
        }
    }

    /// Returns the URI.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Returns the revision.
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns the element with this name.
    pub fn element(&self, name: &str) -> Option<&Arc<Element>> {
        self.by_name.get(name).map(|index| &self.elements[*index])
    }

    /// Returns the elements, included ones first, in the order of the files.
    pub fn elements(&self) -> impl ExactSizeIterator<Item = &Arc<Element>> {
        self.elements.iter()
    }

    /// Returns a table of the elements for people, in Markdown.
    pub fn to_markdown(&self) -> String {
        let mut table = format!(
            "| {} | type | units | meaning |\n|---|---|---|---|\n",
            escaped(&self.uri)
        );
        for element in &self.elements {
            let row = format!(
                "| `{}` | {} | {} | {} |\n",
                element.name,
                element.primitive,
                escaped(&element.units().unwrap_or_default()),
                escaped(&element.description),
            );
            table.push_str(&row);
        }
        table
    }
}

/// Writes text so that it stays within a cell of a Markdown table.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace(['\r', '\n'], " ")
}

/// The registries that a program knows, in order of search.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    known: Vec<Arc<Registry>>,
    /// Further URIs of known registries.
    aliases: Vec<(Box<str>, Arc<str>)>,
}

/// The registries that are part of this crate, read once.
static EMBEDDED: LazyLock<Registries> = LazyLock::new(|| {
    let mut registries = embedded(&["core", "tstat", "platform"]);
    registries.add_alias(CORE_FILE, CORE);
    registries.add_alias(DEMO, TSTAT);
    registries
});

/// The registries for peers of the RI dialect, read once.
static RI: LazyLock<Registries> = LazyLock::new(|| {
    let mut registries = embedded(&["ri", "core", "tstat", "platform"]);
    registries.add_alias(CORE, CORE_FILE);
    registries.add_alias(DEMO, TSTAT);
    registries
});

/// Reads some of the files that are part of this crate.
fn embedded(names: &[&str]) -> Registries {
    let files: Vec<_> = names
        .iter()
        .filter_map(|name| FILES.iter().find(|(known, _)| known == name))
        .map(|(_, file)| file.as_bytes())
        .collect();
    let mut registries = Registries::default();
    registries.load(&files).expect("embedded registries are tested");
    registries
}

impl Registries {
    /// Returns the registries that are part of this crate: core, tStat's and platform.
    pub fn embedded() -> Self {
        EMBEDDED.clone()
    }

    /// Returns the registries for messages of peers of the RI dialect, which use the URI
    /// of the core registry for another one.
    pub fn ri() -> Self {
        RI.clone()
    }

    /// Reads registry files that may include one another, in any order, and adds them in
    /// the order given. None is added if one of them cannot be read.
    pub fn load(&mut self, files: &[&[u8]]) -> Result<(), ParseRegistryError> {
        for registry in file::parse_all(files, self)? {
            self.add(registry);
        }
        Ok(())
    }

    /// Adds a registry, searched after the others; one with the same URI is replaced.
    pub fn add(&mut self, registry: Registry) {
        let registry = Arc::new(registry);
        match self.known.iter_mut().find(|known| known.uri == registry.uri) {
            Some(known) => *known = registry,
            None => self.known.push(registry),
        }
    }

    /// Lets a further URI stand for a registry. It goes before a registry of that URI.
    pub fn add_alias(&mut self, alias: &str, uri: &str) {
        self.aliases.retain(|(known, _)| **known != *alias);
        self.aliases.push((alias.into(), uri.into()));
    }

    /// Returns the registry with this URI or alias.
    pub fn registry(&self, uri: &str) -> Option<&Arc<Registry>> {
        let alias = self.aliases.iter().find(|(alias, _)| **alias == *uri);
        let uri = alias.map_or(uri, |(_, uri)| uri);
        self.known.iter().find(|registry| registry.uri() == uri)
    }

    /// Returns the core registry.
    pub fn core(&self) -> Option<&Arc<Registry>> {
        self.registry(CORE)
    }

    /// Returns the element with this name from the registry with this URI or, if it has
    /// none, from the first other one that has.
    ///
    /// A registry that is not known at all is an error: what its names mean can only be
    /// guessed.
    pub fn element(
        &self,
        uri: &str,
        name: &str,
    ) -> Result<&Arc<Element>, UnknownElement> {
        let Some(registry) = self.registry(uri) else {
            return Err(UnknownElement { name: quote(name), registry: Some(quote(uri)) });
        };
        registry
            .element(name)
            .or_else(|| self.known.iter().find_map(|registry| registry.element(name)))
            .ok_or_else(|| UnknownElement { name: quote(name), registry: None })
    }

    /// Returns the registries in order of search.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Registry>> {
        self.known.iter()
    }
}

/// An element that no known registry defines, or of a registry that is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownElement {
    name: String,
    /// The registry, if that is what is not known.
    registry: Option<String>,
}

impl std::error::Error for UnknownElement {}

impl Display for UnknownElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match &self.registry {
            Some(registry) => write!(
                f,
                "registry {registry} of element {name} is not known; preload its file"
            ),
            None => write!(
                f,
                "no element is called {name} in any known registry; preload the registry \
                 that defines it"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_core_registry_is_complete_and_described() {
        let registries = Registries::embedded();
        let core = registries.core().unwrap();
        assert_eq!(core.elements().len(), 113);
        for element in core.elements() {
            assert!(!element.description().is_empty(), "{element}");
            assert_eq!(element.namespace(), CORE);
        }
    }

    #[test]
    fn elements_missing_from_the_named_registry_are_found_in_the_others() {
        let registries = Registries::embedded();
        let element = registries.element(CORE, "timestamp.source").unwrap();
        assert_eq!(element.namespace(), PLATFORM);
        let error = |uri, name| registries.element(uri, name).unwrap_err().to_string();
        assert_eq!(
            error(CORE, "no.such"),
            "no element is called \"no.such\" in any known registry; preload the registry \
             that defines it"
        );
        assert_eq!(
            error("urn:x", "time"),
            "registry \"urn:x\" of element \"time\" is not known; preload its file"
        );
    }

    #[test]
    fn every_embedded_registry_is_described() {
        for registry in Registries::embedded().iter().chain(Registries::ri().iter()) {
            for element in registry.elements() {
                assert!(!element.description().is_empty(), "{element}");
            }
        }
    }

    #[test]
    fn some_uris_stand_for_other_registries() {
        let registries = Registries::embedded();
        let uri = |uri| registries.registry(uri).map(|registry| registry.uri());
        assert_eq!(uri(CORE_FILE), Some(CORE));
        assert_eq!(uri(DEMO), Some(TSTAT));
        assert_eq!(uri("urn:x"), None);
    }

    #[test]
    fn peers_of_the_ri_dialect_mean_another_registry_by_the_core_uri() {
        let primitive = |registries: &Registries, name| {
            registries.element(CORE, name).unwrap().primitive()
        };
        let (ours, theirs) = (Registries::embedded(), Registries::ri());
        assert_eq!(primitive(&ours, "duration.ms"), Primitive::Natural);
        assert_eq!(primitive(&theirs, "duration.ms"), Primitive::Time);
        assert_eq!(theirs.core().unwrap().elements().len(), 224);
        assert_eq!(primitive(&theirs, "delay.twoway.icmp.count"), Primitive::Natural);
        assert!(ours.iter().all(|registry| registry.uri() != CORE_FILE));
    }

    #[test]
    fn later_definitions_win_and_comments_are_skipped() {
        let file = br#"{"registry-format": "mplane-0", "registry-uri": "urn:x",
            "registry-revision": 1, "includes": ["http://ict-mplane.eu/registry/core"],
            "elements": ["COMMENT: ours", {"name": "duration.ms", "prim": "real"}]}"#;
        let registry = Registry::parse(file, &Registries::embedded()).unwrap();
        assert_eq!(registry.element("duration.ms").unwrap().primitive(), Primitive::Real);
        assert_eq!(registry.elements().len(), 113);
    }

    #[test]
    fn keys_without_meaning_here_are_kept() {
        let file = br#"{"registry-format": "mplane-0", "registry-uri": "urn:x",
            "registry-revision": 1, "owner": "us", "elements": [{"name": "a|b",
            "prim": "bool", "units": "bits", "ipfix-eid": 7, "ipfix-pen": 9, "see": [1]}]}"#;
        let registry = Registry::parse(file, &Registries::default()).unwrap();
        let element = registry.element("a|b").unwrap();
        assert_eq!(element.units().as_deref(), Some("bits"));
        assert_eq!(element.ipfix(), Some(Ipfix { element: 7, enterprise: Some(9) }));
        assert_eq!(element.annotation("see"), Some("[1]"));
        assert_eq!(
            registry.to_markdown(),
            "| urn:x | type | units | meaning |\n|---|---|---|---|\n\
             | `a|b` | boolean | bits |  |\n"
        );
    }

    #[test]
    fn elements_convert_into_themselves_only() {
        let registries = Registries::embedded();
        let element = |name| registries.element(CORE, name).unwrap();
        let (ms, us) = (element("rtt.ms"), element("rtt.us"));
        let value = ms.parse("42").unwrap().unwrap();
        let same = ms.transformation_to(ms).unwrap();
        assert_eq!(same(value.clone()), value);
        assert!(ms.transformation_to(us).is_none());
        assert_eq!(ms.qualified_name(), "http://ict-mplane.eu/registry/core#rtt.ms");
    }

    /// Returns a registry file.
    fn file(uri: &str, includes: &str, elements: &str) -> String {
        format!(
            r#"{{"registry-format": "mplane-0", "registry-uri": "{uri}",
                "includes": [{includes}], "elements": [{elements}]}}"#
        )
    }

    #[test]
    fn includes_are_read_depth_first_in_any_order() {
        let element = |prim| format!(r#"{{"name": "x", "prim": "{prim}"}}"#);
        let files = [
            file("urn:c", r#""urn:b", "urn:a""#, r#"{"name": "z", "prim": "url"}"#),
            file("urn:a", "", &element("natural")),
            file("urn:b", r#""urn:a""#, &element("real")),
        ];
        let mut registries = Registries::default();
        registries.load(&files.each_ref().map(String::as_bytes)).unwrap();
        let uris: Vec<_> = registries.iter().map(|registry| registry.uri()).collect();
        assert_eq!(uris, ["urn:c", "urn:a", "urn:b"]);
        let primitive = |uri| registries.element(uri, "x").unwrap().primitive();
        assert_eq!(primitive("urn:b"), Primitive::Real);
        assert_eq!(primitive("urn:c"), Primitive::Natural);
    }

    #[test]
    fn include_loops_are_named() {
        let files = [
            file("urn:a", r#""urn:b""#, ""),
            file("urn:b", r#""urn:c""#, ""),
            file("urn:c", r#""urn:b""#, ""),
        ];
        let mut registries = Registries::default();
        let error = registries.load(&files.each_ref().map(String::as_bytes));
        assert_eq!(
            error.unwrap_err().to_string(),
            "registries must not include one another in a circle: \"urn:b\" includes \
             \"urn:c\" includes \"urn:b\""
        );
        assert_eq!(registries.iter().count(), 0);
    }

    #[test]
    fn refuses_what_is_no_registry() {
        for (file, message) in [
            (
                r#"{"registry-format": "x", "registry-uri": "u", "elements": []}"#,
                "registry format \"x\" is not known, only \"mplane-0\" is",
            ),
            (
                r#"{"registry-format": "mplane-0", "registry-uri": "u", "elements": [],
                    "includes": ["u"]}"#,
                "registries must not include one another in a circle: \"u\" includes \"u\"",
            ),
            (
                r#"{"registry-format": "mplane-0", "registry-uri": "u", "elements": [],
                    "includes": ["v"]}"#,
                "include \"v\" is not known; add the file of that registry too",
            ),
            (
                r#"{"registry-format": "mplane-0", "registry-uri": "u",
                    "elements": [{"name": "a", "prim": "float"}]}"#,
                "/elements/0: no primitive is called \"float\"; there are string, natural, \
                 real, boolean, time, address, url and object",
            ),
            (
                r#"{"registry-format": "mplane-0", "registry-uri": "u",
                    "elements": [{"name": "a b", "prim": "url"}]}"#,
                "/elements/0: \"a b\" is no element name: it is empty or has blanks",
            ),
            (
                r#"{"registry-format": "mplane-0", "registry-uri": "u",
                    "elements": ["a"]}"#,
                "/elements/0: \"a\" is no element; comments start with COMMENT:",
            ),
        ] {
            let error = Registry::parse(file.as_bytes(), &Registries::embedded());
            assert_eq!(error.unwrap_err().to_string(), message);
        }
    }
}
