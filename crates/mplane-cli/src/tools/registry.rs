//! `mplane registry`: shows element registries.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Subcommand;
use mplane::registry::{CORE, FILES, Registries, Registry};
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
        match self {
            Self::List => {
                let rows = named().into_iter().map(|(name, registry)| {
                    [
                        name.to_owned(),
                        registry.uri().to_owned(),
                        registry.revision().to_string(),
                        registry.elements().len().to_string(),
                    ]
                });
                output.line(table(&["name", "uri", "revision", "elements"], rows));
            }
            Self::Show { name } => show(&name, output)?,
            Self::Check { files } => {
                RegistriesConfig { preload: files }.load()?;
            }
            Self::Table { name } => output.line(find(&name)?.to_markdown()),
        }
        Ok(())
    }
}

/// Shows an element, wherever it is defined, or all elements of a registry.
fn show(name: &str, output: &mut Output) -> Result<(), Failure> {
    if let Ok(registry) = find(name) {
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
    let registries = Registries::embedded();
    let element = registries.element(CORE, name)?;
    output.line(format_args!(
        "name     : {}\ntype     : {}\nregistry : {}\nmeaning  : {}",
        element.name(),
        element.primitive(),
        element.namespace(),
        element.description()
    ));
    Ok(())
}

/// Returns the embedded registries with their names.
fn named() -> Vec<(&'static str, Arc<Registry>)> {
    let (embedded, ri) = (Registries::embedded(), Registries::ri());
    let known = |name: &str| match name {
        "ri" => ri.core().map(Arc::clone),
        name => embedded.iter().find(|known| last_part(known.uri()) == name).cloned(),
    };
    FILES.iter().filter_map(|(name, _)| Some((*name, known(name)?))).collect()
}

/// Finds a registry by its name or URI.
fn find(name: &str) -> Result<Arc<Registry>, Told> {
    let named = named();
    let is_it = |known: &&(&str, Arc<Registry>)| known.0 == name || known.1.uri() == name;
    named.iter().find(is_it).map(|(_, registry)| Arc::clone(registry)).ok_or_else(|| {
        let names: Vec<_> = named.iter().map(|(name, _)| *name).collect();
        Told(format!("there is no registry {name}; there are {}", names.join(", ")))
    })
}

/// Returns the last part of a URI.
fn last_part(uri: &str) -> &str {
    uri.rsplit(['/', ':']).next().unwrap_or(uri)
}
