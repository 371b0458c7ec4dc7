//! Elements and the registries that define them.
//!
//! An element is a named type of data with a meaning; a registry is a list of elements
//! with a URI. Messages name elements and their registry, so that equal names mean equal
//! things.
//!
//! Source: mPlane protocol specification, "Element Registry"; file format `mplane-0`.
//!
//! Differences: elements are looked up in the registry that the message names, then in
//! the others in order (the reference takes the first loaded); an include loop is an
//! error; nothing is ever fetched because a message names it.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::sync::{Arc, LazyLock};

use serde::Deserialize;

use crate::limits;
use crate::primitive::{ParsePrimitiveError, Primitive, quote};

/// The URI of the core registry.
pub const CORE: &str = "http://ict-mplane.eu/registry/core";

/// The URI of the registry of this platform's own elements.
pub const PLATFORM: &str = "urn:mplane:registry:platform";

/// A named type of data with a meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    name: Box<str>,
    primitive: Primitive,
    description: Box<str>,
    namespace: Arc<str>,
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
    /// Reads a registry file. What it includes is taken from `known`.
    pub fn parse(file: &[u8], known: &Registries) -> Result<Self, ParseRegistryError> {
        if file.len() > limits::REGISTRY_BYTES {
            return Err(ParseRegistryError::TooLarge);
        }
        let file: RegistryFile<'_> =
            serde_json::from_slice(file).map_err(ParseRegistryError::Json)?;
        if file.format != "mplane-0" {
            return Err(ParseRegistryError::Format(quote(&file.format)));
        }
        let uri: Arc<str> = file.uri.into();
        let mut registry = Self {
            uri: Arc::clone(&uri),
            revision: file.revision,
            elements: Vec::new(),
            by_name: BTreeMap::new(),
        };
        for include in &file.includes {
            let included = known.registry(include).ok_or_else(|| {
                ParseRegistryError::UnknownInclude { uri: quote(include) }
            })?;
            for element in &included.elements {
                registry.define(Arc::clone(element));
            }
        }
        if file.elements.len() > limits::REGISTRY_ELEMENTS {
            return Err(ParseRegistryError::TooManyElements);
        }
        for (index, entry) in file.elements.into_iter().enumerate() {
            let element = match entry {
                ElementEntry::Element(element) => element,
                ElementEntry::Comment(text) if text.starts_with("COMMENT:") => continue,
                ElementEntry::Comment(text) => {
                    return Err(ParseRegistryError::NoElement {
                        index,
                        text: quote(&text),
                    });
                }
            };
            if element.name.is_empty() || element.name.contains(char::is_whitespace) {
                return Err(ParseRegistryError::Name {
                    index,
                    name: quote(&element.name),
                });
            }
            let primitive = element
                .primitive
                .parse()
                .map_err(|source| ParseRegistryError::Primitive { index, source })?;
            registry.define(Arc::new(Element {
                name: element.name.into(),
                primitive,
                description: element.description.into(),
                namespace: Arc::clone(&uri),
            }));
        }
        Ok(registry)
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
}

/// The registries that a program knows, in order of search.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    known: Vec<Arc<Registry>>,
}

/// The registries that are part of this crate, read once.
static EMBEDDED: LazyLock<Registries> = LazyLock::new(|| {
    let mut registries = Registries::default();
    for file in [
        include_str!("../../../registry/core.json"),
        include_str!("../../../registry/platform.json"),
    ] {
        let registry = Registry::parse(file.as_bytes(), &registries)
            .expect("embedded registries are tested");
        registries.add(registry);
    }
    registries
});

impl Registries {
    /// Returns the registries that are part of this crate: core and platform.
    pub fn embedded() -> Self {
        EMBEDDED.clone()
    }

    /// Adds a registry, searched after the others; one with the same URI is replaced.
    pub fn add(&mut self, registry: Registry) {
        let registry = Arc::new(registry);
        match self.known.iter_mut().find(|known| known.uri == registry.uri) {
            Some(known) => *known = registry,
            None => self.known.push(registry),
        }
    }

    /// Returns the registry with this URI.
    pub fn registry(&self, uri: &str) -> Option<&Arc<Registry>> {
        self.known.iter().find(|registry| registry.uri() == uri)
    }

    /// Returns the core registry.
    pub fn core(&self) -> Option<&Arc<Registry>> {
        self.registry(CORE)
    }

    /// Returns the element with this name from the registry with this URI or, if it has
    /// none, from the first other one that has.
    pub fn element(
        &self,
        uri: &str,
        name: &str,
    ) -> Result<&Arc<Element>, UnknownElement> {
        self.registry(uri)
            .and_then(|registry| registry.element(name))
            .or_else(|| self.known.iter().find_map(|registry| registry.element(name)))
            .ok_or_else(|| UnknownElement { name: quote(name), registry: quote(uri) })
    }

    /// Returns the registries in order of search.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Registry>> {
        self.known.iter()
    }
}

/// An element that no known registry defines.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no element is called {name} in registry {registry} or any other known one; \
     preload the registry that defines it"
)]
pub struct UnknownElement {
    name: String,
    registry: String,
}

/// A file that is no registry.
#[derive(Debug, thiserror::Error)]
pub enum ParseRegistryError {
    /// Not the JSON of a registry.
    #[error("not a registry: {0}")]
    Json(serde_json::Error),
    /// Another format.
    #[error("registry format {0} is not known, only \"mplane-0\" is")]
    Format(String),
    /// An include that is not known.
    #[error(
        "include {uri} is not known; add that registry first (includes that loop never work)"
    )]
    UnknownInclude {
        /// The URI that was to be included.
        uri: String,
    },
    /// A name that is none.
    #[error("/elements/{index}: {name} is no element name: it is empty or has blanks")]
    Name {
        /// Position in the file.
        index: usize,
        /// The name.
        name: String,
    },
    /// A string that is no comment.
    #[error("/elements/{index}: {text} is no element; comments start with COMMENT:")]
    NoElement {
        /// Position in the file.
        index: usize,
        /// The string.
        text: String,
    },
    /// An unknown primitive.
    #[error("/elements/{index}: {source}")]
    Primitive {
        /// Position in the file.
        index: usize,
        /// What is wrong.
        source: ParsePrimitiveError,
    },
    /// Too large a file.
    #[error("a registry file has at most {} bytes", limits::REGISTRY_BYTES)]
    TooLarge,
    /// Too many elements.
    #[error("a registry has at most {} elements", limits::REGISTRY_ELEMENTS)]
    TooManyElements,
}

/// The file format. Unknown keys are allowed.
#[derive(Deserialize)]
struct RegistryFile<'a> {
    #[serde(rename = "registry-format", borrow)]
    format: std::borrow::Cow<'a, str>,
    #[serde(rename = "registry-uri")]
    uri: String,
    #[serde(rename = "registry-revision", default)]
    revision: u64,
    #[serde(default)]
    includes: Vec<String>,
    elements: Vec<ElementEntry>,
}

/// An entry of the list of elements.
#[derive(Deserialize)]
#[serde(untagged)]
enum ElementEntry {
    Element(ElementObject),
    Comment(String),
}

/// An element in the file.
#[derive(Deserialize)]
struct ElementObject {
    name: String,
    #[serde(rename = "prim")]
    primitive: String,
    #[serde(rename = "desc", default)]
    description: String,
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
        let error = registries.element(CORE, "no.such").unwrap_err();
        assert_eq!(
            error.to_string(),
            "no element is called \"no.such\" in registry \
             \"http://ict-mplane.eu/registry/core\" or any other known one; preload the \
             registry that defines it"
        );
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
    fn refuses_what_is_no_registry() {
        for (file, message) in [
            (
                r#"{"registry-format": "x", "registry-uri": "u", "elements": []}"#,
                "registry format \"x\" is not known, only \"mplane-0\" is",
            ),
            (
                r#"{"registry-format": "mplane-0", "registry-uri": "u", "elements": [],
                    "includes": ["u"]}"#,
                "include \"u\" is not known; add that registry first (includes that loop \
                 never work)",
            ),
            (
                r#"{"registry-format": "mplane-0", "registry-uri": "u",
                    "elements": [{"name": "a", "prim": "float"}]}"#,
                "/elements/0: no primitive is called \"float\"; there are string, natural, \
                 real, boolean, time, address, url and object",
            ),
        ] {
            let error = Registry::parse(file.as_bytes(), &Registries::embedded());
            assert_eq!(error.unwrap_err().to_string(), message);
        }
    }
}
