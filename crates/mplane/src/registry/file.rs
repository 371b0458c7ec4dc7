//! Registry files.
//!
//! A file says which registries it includes, depth first: what it defines itself comes
//! later and wins. Strings that start with `COMMENT:` may stand between the elements, and
//! keys of elements that have no meaning here are kept.
//!
//! Source: mPlane protocol specification, "Element Registry"; file format `mplane-0`.
//!
//! Differences: registries that include one another in a circle are an error that names
//! the circle; includes are taken from known files only.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::{Element, Registries, Registry};
use crate::limits;
use crate::primitive::{ParsePrimitiveError, quote};

impl Registry {
    /// Reads a registry file. What it includes is taken from `known`.
    pub fn parse(file: &[u8], known: &Registries) -> Result<Self, ParseRegistryError> {
        build(read(file)?, known, &[])
    }
}

/// Reads files that may include one another and, if they do not, known registries.
/// Returns the registries in the order of the files.
pub(super) fn parse_all(
    files: &[&[u8]],
    known: &Registries,
) -> Result<Vec<Registry>, ParseRegistryError> {
    let files: Vec<_> = files.iter().map(|file| read(file)).collect::<Result<_, _>>()?;
    let order: Vec<_> = files.iter().map(|file| file.uri.clone()).collect();
    let mut loading = Loading {
        waiting: files.into_iter().map(|file| (file.uri.clone(), file)).collect(),
        path: Vec::new(),
        built: Vec::new(),
        known,
    };
    for uri in &order {
        loading.build(uri)?;
    }
    let mut built = loading.built;
    built.sort_by_key(|registry| order.iter().position(|uri| **uri == *registry.uri));
    Ok(built)
}

/// Files that are being read in the order in which they include each other.
struct Loading<'a> {
    /// Those not begun, by URI.
    waiting: BTreeMap<String, RegistryFile<'a>>,
    /// The URIs of those begun and not done, each included by the one before.
    path: Vec<String>,
    /// Those done.
    built: Vec<Registry>,
    known: &'a Registries,
}

impl Loading<'_> {
    /// Builds the registry with this URI, after those that it includes.
    fn build(&mut self, uri: &str) -> Result<(), ParseRegistryError> {
        if let Some(start) = self.path.iter().position(|begun| begun == uri) {
            let mut circle: Vec<_> =
                self.path.iter().skip(start).map(|uri| quote(uri)).collect();
            circle.push(quote(uri));
            return Err(ParseRegistryError::IncludeLoop(circle.join(" includes ")));
        }
        let Some(file) = self.waiting.remove(uri) else {
            // It is done, or one of the known registries, or `build` will miss it.
            return Ok(());
        };
        if self.path.len() == limits::REGISTRY_DEPTH {
            return Err(ParseRegistryError::TooDeep);
        }
        self.path.push(uri.to_owned());
        for include in &file.includes {
            self.build(include)?;
        }
        self.path.pop();
        let registry = build(file, self.known, &self.built)?;
        self.built.push(registry);
        Ok(())
    }
}

/// Reads a file without looking at what it includes.
fn read(file: &[u8]) -> Result<RegistryFile<'_>, ParseRegistryError> {
    if file.len() > limits::REGISTRY_BYTES {
        return Err(ParseRegistryError::TooLarge);
    }
    let file: RegistryFile<'_> =
        serde_json::from_slice(file).map_err(ParseRegistryError::Json)?;
    if file.format != "mplane-0" {
        return Err(ParseRegistryError::Format(quote(&file.format)));
    }
    if file.elements.len() > limits::REGISTRY_ELEMENTS {
        return Err(ParseRegistryError::TooManyElements);
    }
    if file.includes.contains(&file.uri) {
        let uri = quote(&file.uri);
        return Err(ParseRegistryError::IncludeLoop(format!("{uri} includes {uri}")));
    }
    Ok(file)
}

/// Puts together what a file includes and what it defines itself.
fn build(
    file: RegistryFile<'_>,
    known: &Registries,
    further: &[Registry],
) -> Result<Registry, ParseRegistryError> {
    let mut registry = Registry::new(file.uri.into(), file.revision);
    for include in &file.includes {
        let included = further
            .iter()
            .find(|registry| registry.uri() == include)
            .or_else(|| known.registry(include).map(AsRef::as_ref))
            .ok_or_else(|| ParseRegistryError::UnknownInclude { uri: quote(include) })?;
        for element in included.elements() {
            registry.define(Arc::clone(element));
        }
    }
    for (index, entry) in file.elements.into_iter().enumerate() {
        let element = match entry {
            ElementEntry::Element(element) => element,
            ElementEntry::Comment(text) if text.starts_with("COMMENT:") => continue,
            ElementEntry::Comment(text) => {
                let text = quote(&text);
                return Err(ParseRegistryError::NoElement { index, text });
            }
        };
        if element.name.is_empty() || element.name.contains(char::is_whitespace) {
            let name = quote(&element.name);
            return Err(ParseRegistryError::Name { index, name });
        }
        let primitive = element
            .primitive
            .parse()
            .map_err(|source| ParseRegistryError::Primitive { index, source })?;
        registry.define(Arc::new(Element {
            name: element.name.into(),
            primitive,
            description: element.description.into(),
            namespace: Arc::clone(&registry.uri),
            annotations: element
                .annotations
                .into_iter()
                .map(|(key, value)| (key.into(), value.to_string().into()))
                .collect(),
        }));
    }
    Ok(registry)
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
    /// Registries that include one another in a circle.
    #[error("registries must not include one another in a circle: {0}")]
    IncludeLoop(String),
    /// Registries that include one another too deep.
    #[error("registries include one another at most {} deep", limits::REGISTRY_DEPTH)]
    TooDeep,
    /// An include that is not known.
    #[error("include {uri} is not known; add the file of that registry too")]
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
    format: Cow<'a, str>,
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
    #[serde(flatten)]
    annotations: BTreeMap<String, serde_json::Value>,
}
