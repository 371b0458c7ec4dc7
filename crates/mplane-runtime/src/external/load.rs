//! The folder of a service: its capability and how it is run.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mplane::json::{DecodeError, decode};
use mplane::message::{Capability, Message};
use mplane::registry::Registries;
use serde::Deserialize;

use super::limits::{BadLimit, FILE_BYTES, Limits};
use crate::config::optional_duration;

/// Where programs are looked for, unless the environment of the service says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The beginning of variables that the component sets.
const OUR_VARIABLES: &str = "MPLANE_";

/// A service as its folder describes it.
#[derive(Clone, Debug)]
pub struct Definition {
    /// The folder, absolute.
    pub(super) folder: PathBuf,
    /// What it offers.
    pub(super) capability: Capability,
    /// The program, absolute.
    pub(super) program: PathBuf,
    /// Its arguments.
    pub(super) arguments: Vec<String>,
    /// All variables of its environment, but those of a run.
    pub(super) environment: BTreeMap<String, String>,
    /// What a run may use.
    pub(super) limits: Limits,
    /// Whether programs with more privileges than the component may be started.
    pub(super) may_gain_privileges: bool,
}

/// `service.toml`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct ServiceFile {
    command: Vec<String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    allow_new_privileges: bool,
    #[serde(default, deserialize_with = "optional_duration")]
    time_limit: Option<Duration>,
    memory_limit_bytes: Option<u64>,
    output_limit_bytes: Option<u64>,
    row_limit: Option<usize>,
    parallel_limit: Option<usize>,
    #[serde(default, deserialize_with = "optional_duration")]
    stop_grace: Option<Duration>,
}

impl ServiceFile {
    /// Returns the limits, where none is written the default.
    fn limits(&self) -> Limits {
        let default = Limits::default();
        Limits {
            time: self.time_limit.unwrap_or(default.time),
            memory_bytes: self.memory_limit_bytes.unwrap_or(default.memory_bytes),
            output_bytes: self.output_limit_bytes.unwrap_or(default.output_bytes),
            rows: self.row_limit.unwrap_or(default.rows),
            parallel: self.parallel_limit.unwrap_or(default.parallel),
            stop_grace: self.stop_grace.unwrap_or(default.stop_grace),
        }
    }
}

impl Definition {
    /// Loads a folder, and checks everything that can be checked without a run.
    pub fn load(
        folder: &Path,
        registries: &Registries,
    ) -> Result<Self, LoadServiceError> {
        let folder = fs::canonicalize(folder).map_err(|source| {
            LoadServiceError::Folder { folder: folder.to_owned(), source }
        })?;
        let capability = load_capability(&folder, registries)?;
        let path = folder.join("service.toml");
        let text = read(&path)?;
        let file: ServiceFile = toml::from_str(&text).map_err(|source| {
            LoadServiceError::Toml { path: path.clone(), source: Box::new(source) }
        })?;
        let limits = file.limits();
        limits
            .check()
            .map_err(|source| LoadServiceError::Limit { path: path.clone(), source })?;
        let environment = environment(file.environment, &path)?;
        let mut command = file.command.into_iter();
        let program = command.next().filter(|program| !program.is_empty());
        let program = program.ok_or_else(|| LoadServiceError::NoCommand(path.clone()))?;
        let program = find(&program, &folder, &environment, path)?;
        Ok(Self {
            folder,
            capability,
            program,
            arguments: command.collect(),
            environment,
            limits,
            may_gain_privileges: file.allow_new_privileges,
        })
    }

    /// Returns the folder, absolute.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns what the service offers.
    pub const fn capability(&self) -> &Capability {
        &self.capability
    }

    /// Returns what a run may use.
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Returns the name of the service: its label or, without one, its folder.
    pub fn name(&self) -> String {
        self.capability.label().map_or_else(
            || self.folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            ToOwned::to_owned,
        )
    }
}

/// Loads what a service offers, from `capability.json` or `capability.toml`.
fn load_capability(
    folder: &Path,
    registries: &Registries,
) -> Result<Capability, LoadServiceError> {
    let [json, toml] =
        ["capability.json", "capability.toml"].map(|name| folder.join(name));
    let (path, text) = match (json.exists(), toml.exists()) {
        (true, true) => return Err(LoadServiceError::TwoCapabilities(folder.to_owned())),
        (false, false) => return Err(LoadServiceError::NoCapability(folder.to_owned())),
        (true, false) => (json.clone(), read(&json)?),
        (false, true) => {
            let text = read(&toml)?;
            let value: serde_json::Value = toml::from_str(&text).map_err(|source| {
                LoadServiceError::Toml { path: toml.clone(), source: Box::new(source) }
            })?;
            (toml, value.to_string())
        }
    };
    let message = decode(text.as_bytes(), registries)
        .map_err(|source| LoadServiceError::Decode { path: path.clone(), source })?;
    let refuse = |problem| LoadServiceError::Capability { path: path.clone(), problem };
    let Message::Capability(mut capability) = message else {
        return Err(refuse("it is another message; the first key is capability"));
    };
    if capability.columns().len() == 0 {
        return Err(refuse("it has no result columns; name them in results"));
    }
    if capability.link().is_some() || capability.export().is_some() {
        return Err(refuse("link and export are not for external services; remove them"));
    }
    // It names a capability of a component, which may change it.
    capability.set_token(None);
    Ok(capability)
}

/// Returns the environment of a service: nothing of the component's own.
fn environment(
    configured: BTreeMap<String, String>,
    path: &Path,
) -> Result<BTreeMap<String, String>, LoadServiceError> {
    let mut environment = BTreeMap::from(
        [("LANG", "C"), ("PATH", PATH)].map(|(name, value)| (name.into(), value.into())),
    );
    for (name, value) in configured {
        let is_possible =
            !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0');
        if !is_possible || name.starts_with(OUR_VARIABLES) {
            return Err(LoadServiceError::Variable { path: path.to_owned(), name });
        }
        environment.insert(name, value);
    }
    Ok(environment)
}

/// Finds the program of a command, as a shell would: by its path, relative to the folder,
/// if it has a slash, else in the folders of PATH.
fn find(
    program: &str,
    folder: &Path,
    environment: &BTreeMap<String, String>,
    path: PathBuf,
) -> Result<PathBuf, LoadServiceError> {
    let is_executable = |path: &PathBuf| {
        fs::metadata(path)
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    let candidates: Vec<_> = if program.contains('/') {
        vec![folder.join(program)]
    } else {
        let folders = environment.get("PATH").map_or("", String::as_str);
        folders.split(':').map(|place| folder.join(place).join(program)).collect()
    };
    let found = candidates.into_iter().find(is_executable);
    found.ok_or_else(|| LoadServiceError::Program { path, program: program.to_owned() })
}

/// Reads a file of a folder.
fn read(path: &Path) -> Result<String, LoadServiceError> {
    let refuse = |source| LoadServiceError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = fs::File::open(path).map_err(refuse)?;
    let read = file.take(FILE_BYTES + 1).read_to_string(&mut text).map_err(refuse)?;
    if u64::try_from(read).unwrap_or(u64::MAX) > FILE_BYTES {
        return Err(LoadServiceError::Large(path.to_owned()));
    }
    Ok(text)
}

/// A folder that describes no service.
#[derive(Debug, thiserror::Error)]
pub enum LoadServiceError {
    /// There is no such folder.
    #[error("cannot open the folder of a service, {folder}")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// A file is too large.
    #[error("{0} is larger than {FILE_BYTES} bytes")]
    Large(PathBuf),
    /// A file is not the TOML that it should be.
    #[error("cannot understand {path}")]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// A capability cannot be read.
    #[error("cannot understand the capability in {path}")]
    Decode {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: DecodeError,
    },
    /// A capability is not one for a service.
    #[error("the capability in {path} cannot be offered: {problem}")]
    Capability {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// There is no capability.
    #[error("{0} has no capability.json or capability.toml, which says what it offers")]
    NoCapability(PathBuf),
    /// There are two.
    #[error("{0} has both capability.json and capability.toml; remove one")]
    TwoCapabilities(PathBuf),
    /// There is no command.
    #[error("command in {0} is empty; it is a list such as [\"./run.sh\"]")]
    NoCommand(PathBuf),
    /// The program cannot be executed.
    #[error(
        "the program {program:?} of {path} is not there or not executable; write a path \
         relative to the folder, such as \"./run.sh\", or a program in PATH, and chmod +x it"
    )]
    Program {
        /// The file that names it.
        path: PathBuf,
        /// The program.
        program: String,
    },
    /// A variable that cannot be set.
    #[error(
        "{path} cannot set the variable {name:?}: names are not empty, without = and not \
         MPLANE_…, which are the component's"
    )]
    Variable {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// A limit that cannot be kept.
    #[error("a limit in {path} cannot be kept")]
    Limit {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: BadLimit,
    },
}
