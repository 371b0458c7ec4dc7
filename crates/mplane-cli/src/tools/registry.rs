//! `mplane registry`: shows element registries.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Subcommand;
use mplane::registry::{Registries, Registry};
use mplane_runtime::config::RegistriesConfig;

use crate::output::{Output, table};
use crate::{Failure, Told};

/// The tasks of `mplane registry`.
#[derive(Clone, Debug, Subcommand)]
pub enum RegistryCommand {
    /// List the embedded registries
    List,
    /// Show an element, or all elements of a registry, by name or URI
    Show {
        /// An element such as delay.twoway.icmp.us, or a registry such as core
        name: String,
    },
    /// Check a registry file
    Check {
        /// The file; what it includes is taken from the embedded registries and the files
        /// before it
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Print the documentation table of a registry, in Markdown
    Table {
        /// The registry, by name or URI
        #[arg(default_value = "core")]
        name: String,
    },
}

impl RegistryCommand {
    /// Carries the task out.
    pub fn run(self, output: &mut Output) -> Result<(), Failure> {
        let registries = Registries::embedded();
        match self {
            Self::List => {
                let rows = registries.iter().map(|registry| {
                    [
                        short(registry.uri()).to_owned(),
                        registry.uri().to_owned(),
                        registry.revision().to_string(),
                        registry.elements().len().to_string(),
                    ]
                });
                output.line(table(&["name", "uri", "revision", "elements"], rows));
            }
            Self::Show { name } => show(&registries, &name, output)?,
            Self::Check { files } => {
                RegistriesConfig { preload: files }.load()?;
            }
            Self::Table { name } => output.line(markdown(find(&registries, &name)?)),
        }
        Ok(())
    }
}

/// Shows an element, wherever it is defined, or all elements of a registry.
fn show(registries: &Registries, name: &str, output: &mut Output) -> Result<(), Failure> {
    if let Ok(registry) = find(registries, name) {
        let rows = registry.elements().map(|element| {
            [
                element.name().to_owned(),
                element.primitive().name().to_owned(),
                element.description().to_owned(),
            ]
        });
        output.line(table(&["name", "type", "meaning"], rows));
        return Ok(());
    }
    let element = registries.element(mplane::registry::CORE, name)?;
    output.line(format_args!(
        "name     : {}\ntype     : {}\nregistry : {}\nmeaning  : {}",
        element.name(),
        element.primitive(),
        element.namespace(),
        element.description()
    ));
    Ok(())
}

/// Finds a registry by its URI, or the last part of it.
fn find<'a>(registries: &'a Registries, name: &str) -> Result<&'a Registry, Told> {
    let mut known = registries.iter();
    known
        .find(|registry| registry.uri() == name || short(registry.uri()) == name)
        .map(AsRef::as_ref)
        .ok_or_else(|| {
            let names: Vec<_> =
                registries.iter().map(|known| short(known.uri())).collect();
            Told(format!("there is no registry {name}; there are {}", names.join(", ")))
        })
}

/// Returns the last part of a URI.
fn short(uri: &str) -> &str {
    uri.rsplit(['/', ':']).next().unwrap_or(uri)
}

/// Writes the documentation table of a registry.
fn markdown(registry: &Registry) -> String {
    let mut text = String::from("| name | type | meaning |\n|---|---|---|");
    for element in registry.elements() {
        let meaning = element.description().replace('|', "\\|");
        let (name, primitive) = (element.name(), element.primitive());
        write!(text, "\n| `{name}` | {primitive} | {meaning} |")
            .expect("writing to text does not fail");
    }
    text
}
