//! Configuration of all programs: one TOML format, each program reads its sections. The
//! reference implementation's files are read too ([`legacy`]).
//!
//! Relative paths are relative to the file that contains them. Unknown keys are errors:
//! a typing mistake must not silently change what a component measures.

mod access;
mod connection;
pub mod legacy;
mod service;
mod supervisor;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mplane::access::Policy;
use mplane::limits;
use mplane::registry::{ParseRegistryError, Registries, Registry};
use mplane::when::display_duration;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

pub use self::connection::{
    CalleeConfig, ClientConfig, InitiatorConfig, ListenerConfig, TooFarError,
};
use self::legacy::{FromModule, TranslateError};
pub use self::service::{NamesFiles, ServiceEntry, ServiceKind};
pub use self::supervisor::{HandOutConfig, SupervisorConfig, UnknownComponent};
use crate::spool;
use crate::tls::{Credentials, LoadCredentialsError};

/// The configuration of a program. `S` is the configuration of one service within the
/// program, which the crates that measure define.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, bound = "S: DeserializeOwned")]
pub struct Config<S> {
    /// Certificate, key and authorities; without it all is in plain HTTP.
    pub tls: Option<TlsConfig>,
    /// Registries beyond the embedded ones.
    #[serde(default)]
    pub registries: RegistriesConfig,
    /// Where metrics and health are told; without it nowhere.
    pub metrics: Option<MetricsConfig>,
    /// Who may use which capability; without it the class of a peer alone decides.
    #[serde(default, deserialize_with = "access::policy")]
    pub access: Policy,
    /// What a component does.
    pub component: Option<ComponentConfig<S>>,
    /// What a supervisor does.
    pub supervisor: Option<SupervisorConfig>,
    /// What a client does.
    pub client: Option<ClientConfig>,
    /// What a file of the reference says that has no meaning here, to be logged.
    #[serde(skip)]
    pub notes: Vec<String>,
}

/// Certificate, key and authorities, as PEM files.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TlsConfig {
    /// The authorities' certificates.
    pub ca_chain: PathBuf,
    /// One's own certificate, intermediate ones behind it.
    pub cert: PathBuf,
    /// Its key, unencrypted.
    pub key: PathBuf,
}

/// Registries beyond the embedded ones.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RegistriesConfig {
    /// Registry files, each after those that it includes.
    #[serde(default)]
    pub preload: Vec<PathBuf>,
}

/// What a component does.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, bound = "S: DeserializeOwned")]
pub struct ComponentConfig<S> {
    /// The supervisors that it registers with.
    #[serde(default)]
    pub initiator: Vec<InitiatorConfig>,
    /// Where clients reach it.
    pub listener: Option<ListenerConfig>,
    /// The file that keeps what it has accepted over a restart; without it that is lost.
    pub spool: Option<PathBuf>,
    /// How many results each repeated measurement keeps, the oldest go first; without it
    /// [`limits::REPEAT_RESULTS`], which is also the most.
    #[serde(default, deserialize_with = "max_results")]
    pub max_results: Option<NonZeroUsize>,
    /// How large the spool may become, in bytes.
    #[serde(default = "default_spool_bytes", deserialize_with = "spool_bytes")]
    pub spool_max_bytes: u64,
    /// How long results and exceptions are kept.
    #[serde(default = "default_max_age", deserialize_with = "duration")]
    pub max_age: Duration,
    /// Over how much time the starts of repeats are spread, at most
    /// [`limits::LONGEST_SPREAD`].
    #[serde(default = "default_spread", deserialize_with = "spread")]
    pub spread: Duration,
    /// What it measures.
    pub service: Vec<ServiceEntry<S>>,
}

impl<S> ComponentConfig<S> {
    /// Makes a component that has these services and else only defaults.
    const fn new(service: Vec<ServiceEntry<S>>) -> Self {
        Self {
            initiator: Vec::new(),
            listener: None,
            spool: None,
            spool_max_bytes: default_spool_bytes(),
            max_results: None,
            max_age: default_max_age(),
            spread: default_spread(),
            service,
        }
    }
}

/// The size of a spool, in bytes.
const fn default_spool_bytes() -> u64 {
    spool::DEFAULT_BYTES
}

/// A month: who was away so long has other sources.
const fn default_max_age() -> Duration {
    Duration::from_secs(30 * 24 * 3_600)
}

/// Ten thousand repeats start ten a millisecond then, and nobody waits for long.
const fn default_spread() -> Duration {
    Duration::from_secs(1)
}

/// Reads how large the spool may become.
fn spool_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let bytes = u64::deserialize(deserializer)?;
    if bytes >= spool::LEAST_BYTES {
        return Ok(bytes);
    }
    let (least, mebibytes) = (spool::LEAST_BYTES, spool::LEAST_BYTES >> 20);
    Err(serde::de::Error::custom(format_args!(
        "a spool has at least {least} bytes ({mebibytes} MiB), so that the largest message \
         fits in, not {bytes}"
    )))
}

/// Reads over how much time starts are spread.
fn spread<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let spread = duration(deserializer)?;
    if spread <= limits::LONGEST_SPREAD {
        return Ok(spread);
    }
    let longest = display_duration(limits::LONGEST_SPREAD);
    Err(serde::de::Error::custom(format_args!(
        "starts are spread over {longest} at most: supervisors would take what starts later \
         for lost"
    )))
}

/// Reads how many results repeats keep.
fn max_results<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<NonZeroUsize>, D::Error> {
    let results = usize::deserialize(deserializer)?;
    check_max_results(results).map(Some).map_err(serde::de::Error::custom)
}

/// Checks how many results repeats are to keep.
fn check_max_results(results: usize) -> Result<NonZeroUsize, String> {
    let most = limits::REPEAT_RESULTS;
    NonZeroUsize::new(results)
        .filter(|results| results.get() <= most)
        .ok_or_else(|| format!("a repeat keeps 1 to {most} results, not {results}"))
}

/// Where metrics and health are told.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MetricsConfig {
    /// Address and port; port 0 lets the system choose.
    pub address: SocketAddr,
}

impl<S: DeserializeOwned + FromModule + NamesFiles> Config<S> {
    /// Loads a file of ours or of the reference. Relative paths in it become relative to
    /// its folder.
    pub fn load(path: &Path) -> Result<Self, LoadConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| LoadConfigError::Read { path: path.to_owned(), source })?;
        let translate_error = |source| LoadConfigError::Translate {
            path: path.to_owned(),
            source: Box::new(source),
        };
        let mut config: Self = match Form::of(path, &text) {
            Form::Toml => toml::from_str(&text).map_err(|source| {
                LoadConfigError::Parse { path: path.to_owned(), source: Box::new(source) }
            })?,
            Form::Json => legacy::translate_json(&text).map_err(translate_error)?,
            Form::Ini => legacy::translate_ini(&text).map_err(translate_error)?,
        };
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        let mut files: Vec<&mut PathBuf> = Vec::new();
        if let Some(tls) = &mut config.tls {
            files.extend([&mut tls.ca_chain, &mut tls.cert, &mut tls.key]);
        }
        files.extend(&mut config.registries.preload);
        if let Some(component) = &mut config.component {
            files.extend(&mut component.spool);
            files.extend(component.service.iter_mut().flat_map(|entry| {
                match &mut entry.service {
                    ServiceKind::External(external) => vec![&mut external.folder],
                    ServiceKind::Native(service) => service.files(),
                }
            }));
        }
        if let Some(supervisor) = &mut config.supervisor {
            files.extend(&mut supervisor.data);
        }
        for file in files {
            *file = folder.join(&file);
        }
        connection::check(&config, path)?;
        Ok(config)
    }
}

impl<S> Config<S> {
    /// Loads the certificate, key and authorities, if there are any: without them nobody is
    /// spoken to over TLS.
    pub fn credentials(&self) -> Result<Option<Arc<Credentials>>, LoadCredentialsError> {
        self.tls.as_ref().map(|tls| tls.credentials().map(Arc::new)).transpose()
    }
}

/// How a configuration is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Ours.
    Toml,
    /// The reference's, version 0.9.9.
    Json,
    /// The reference's, versions before that.
    Ini,
}

impl Form {
    /// Tells how a file is written: by its name, or by its content if that says more.
    fn of(path: &Path, text: &str) -> Self {
        let extension = path.extension().and_then(|extension| extension.to_str());
        match extension {
            Some("toml") => Self::Toml,
            Some("json") => Self::Json,
            _ if text.trim_start().starts_with('{') => Self::Json,
            Some("conf" | "ini" | "cfg") => {
                // Ours may have any name; it always has this section or this key.
                let table: Option<toml::Table> = toml::from_str(text).ok();
                let is_ours = table.is_some_and(|table| {
                    table.contains_key("tls") || text.contains("plain-http")
                });
                if is_ours { Self::Toml } else { Self::Ini }
            }
            _ => Self::Toml,
        }
    }
}

impl TlsConfig {
    /// Loads the certificate, key and authorities.
    pub fn credentials(&self) -> Result<Credentials, LoadCredentialsError> {
        Credentials::load(&self.ca_chain, &self.cert, &self.key)
    }
}

impl RegistriesConfig {
    /// Loads the registries, behind the embedded ones.
    pub fn load(&self) -> Result<Registries, LoadRegistryError> {
        let mut registries = Registries::embedded();
        for path in &self.preload {
            let file = std::fs::read(path).map_err(|source| LoadRegistryError::Read {
                path: path.clone(),
                source,
            })?;
            let registry = Registry::parse(&file, &registries).map_err(|source| {
                LoadRegistryError::Parse { path: path.clone(), source }
            })?;
            registries.add(registry);
        }
        Ok(registries)
    }
}

/// A configuration that cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// The file does not say what it should.
    #[error("cannot understand the configuration {path}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// A file of the reference asks for what is not possible here.
    #[error("cannot use the configuration {path}")]
    Translate {
        /// The file.
        path: PathBuf,
        /// What, and what to do.
        source: Box<TranslateError>,
    },
    /// TLS is asked for, without certificates.
    #[error(
        "the configuration {path} has no section [tls], which {section} needs; add it with \
         ca-chain, cert and key, or write plain-http = \"loopback\" there"
    )]
    NoTls {
        /// The file.
        path: PathBuf,
        /// The section that needs it.
        section: &'static str,
    },
    /// A component has several peers in plain HTTP.
    #[error(
        "the component in {path} has several peers in plain HTTP, which it cannot tell \
         apart: results for one would go to another; leave one, and use TLS for the others"
    )]
    PlainPeers {
        /// The file.
        path: PathBuf,
    },
    /// A supervisor registers with another one in plain HTTP, and has others there too.
    #[error(
        "the supervisor in {path} registers in plain HTTP and has other clients in plain \
         HTTP, which it cannot tell apart: results for one would go to another; leave one, \
         and use TLS for the others"
    )]
    PlainClients {
        /// The file.
        path: PathBuf,
    },
    /// A supervisor calls several components in plain HTTP.
    #[error(
        "the supervisor in {path} calls several components in plain HTTP, which it cannot \
         tell apart: specifications for one would go to another; leave one, and use TLS for \
         the others"
    )]
    PlainCallees {
        /// The file.
        path: PathBuf,
    },
    /// Files of the client-supervisor-probe system that make no configuration.
    #[error(transparent)]
    Ri(#[from] legacy::RiError),
    /// A section that the program needs is missing.
    #[error("the configuration {path} has no section [{section}]")]
    NoSection {
        /// The file.
        path: PathBuf,
        /// The section.
        section: &'static str,
    },
}

/// A registry that cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadRegistryError {
    /// The file cannot be read.
    #[error("cannot read the registry {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// The file is no registry.
    #[error("cannot understand the registry {path}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: ParseRegistryError,
    },
}

/// The reference polls as often.
const fn default_poll() -> Duration {
    Duration::from_secs(5)
}

/// Reads a duration in the protocol's notation, such as `1m30s`.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    mplane::when::parse_duration(&text).map_err(serde::de::Error::custom)
}

/// Reads a duration that may be left out.
pub(crate) fn optional_duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service within the program.
    #[derive(Debug, Deserialize)]
    #[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
    enum Native {
        /// The only one.
        Ping {
            /// Its only key.
            ip4: String,
        },
        /// One that names a file.
        File {
            /// The file.
            path: PathBuf,
        },
    }

    impl NamesFiles for Native {
        fn files(&mut self) -> Vec<&mut PathBuf> {
            match self {
                Self::Ping { .. } => Vec::new(),
                Self::File { path } => vec![path],
            }
        }
    }

    impl FromModule for Native {
        fn from_module(
            _: &str,
            _: &[(String, String)],
        ) -> Result<Vec<Self>, legacy::ModuleError> {
            Ok(Vec::new())
        }
    }

    fn load(services: &str) -> Result<Config<Native>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("component.toml");
        let tls = "[tls]\nca-chain = \"ca\"\ncert = \"cert\"\nkey = \"key\"\n";
        std::fs::write(&path, format!("{tls}{services}")).unwrap();
        Config::load(&path).map_err(|error| crate::report(&error))
    }

    #[test]
    fn services_are_programs_of_their_own_or_within_the_program() {
        let config = load(
            "[[component.service]]\ntype = \"external\"\nfolder = \"services/echo\"\n\
             [[component.service]]\ntype = \"ping\"\nip4 = \"auto\"\n\
             [[component.service]]\ntype = \"file\"\npath = \"a/b\"\n",
        )
        .unwrap();
        let services = config.component.unwrap().service;
        let services: Vec<_> = services.into_iter().map(|it| it.service).collect();
        let [
            ServiceKind::External(external),
            ServiceKind::Native(Native::Ping { ip4 }),
            ServiceKind::Native(Native::File { path }),
        ] = services.as_slice()
        else {
            panic!("{services:?}")
        };
        assert!(path.is_absolute() && path.ends_with("a/b"), "{path:?}");
        assert!(external.folder.is_absolute(), "it is relative to the file");
        assert!(external.folder.ends_with("services/echo"));
        assert_eq!(ip4, "auto");
    }

    #[test]
    fn the_form_of_a_file_is_told_by_name_and_content() {
        let of = |name: &str, text| Form::of(Path::new(name), text);
        assert_eq!(of("a.toml", "{"), Form::Toml);
        assert_eq!(of("a.json", ""), Form::Json);
        assert_eq!(of("a.conf", "\n{}"), Form::Json);
        assert_eq!(of("a.conf", "[TLS]\ncert = a/b.crt\n"), Form::Ini);
        assert_eq!(of("a.conf", "[tls]\ncert = \"b.crt\"\n"), Form::Toml);
        assert_eq!(of("a", "[tls]\n"), Form::Toml);
        let plain = "[supervisor.listener]\naddress = \"[::1]:1\"\n\
                     plain-http = \"loopback\"\n";
        assert_eq!(of("a.conf", plain), Form::Toml);
    }

    /// Loads a file without `[tls]`.
    fn load_plain(text: &str) -> Result<Config<Native>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plain.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(&path).map_err(|error| crate::report(&error))
    }

    const HERE: &str = "plain-http = \"loopback\"\n";
    const FAR: &str = "plain-http = \"anywhere\"\n";
    const SERVICE: &str = "[[component.service]]\ntype = \"ping\"\nip4 = \"auto\"\n";

    #[test]
    fn plain_http_needs_a_word_and_another_to_leave_this_machine() {
        let listens = |address: &str, word: &str| {
            load_plain(&format!(
                "[supervisor.listener]\naddress = \"{address}:1\"\n{word}"
            ))
        };
        let asks = |host: &str, word: &str| {
            load_plain(&format!("[client]\nurl = \"http://{host}:1/\"\n{word}"))
        };
        for host in ["127.0.0.1", "127.3.2.1", "[::1]"] {
            let config = listens(host, HERE).unwrap();
            assert!(config.tls.is_none() && config.credentials().unwrap().is_none());
            assert!(asks(host, HERE).unwrap().client.unwrap().url.is_plain(), "{host}");
            let refusal = listens(host, "").unwrap_err();
            assert!(refusal.contains("no section [tls], which [supervisor.listener]"));
            let refusal = asks(host, "").unwrap_err();
            assert!(
                refusal.contains("only where plain-http = \"loopback\""),
                "{refusal}"
            );
        }
        for host in ["0.0.0.0", "192.0.2.1", "[::]", "[2001:db8::1]"] {
            let refusal = listens(host, HERE).unwrap_err();
            assert!(refusal.contains("plain-http = \"anywhere\" lets"), "{refusal}");
            assert!(refusal.contains("line 1"), "{refusal}");
            let refusal = asks(host, HERE).unwrap_err();
            assert!(
                refusal.contains("only where plain-http = \"anywhere\""),
                "{refusal}"
            );
            listens(host, FAR).unwrap();
            asks(host, FAR).unwrap();
        }
        let refusal = asks("127.0.0.1", "plain-http = true\n").unwrap_err();
        assert!(refusal.contains("line 3"), "{refusal}");
    }

    #[test]
    fn tls_and_plain_http_may_stand_side_by_side() {
        let listener = format!("[component.listener]\naddress = \"[::1]:1\"\n{HERE}");
        let initiator = "[[component.initiator]]\nurl = \"https://sup:1/\"\n";
        let both = format!("{listener}{initiator}{SERVICE}");
        load(&both).unwrap();
        let refusal = load_plain(&both).unwrap_err();
        assert!(refusal.contains("which [[component.initiator]] needs"), "{refusal}");
        let client = "[client]\nurl = \"https://sup:1/\"\n";
        let refusal = load_plain(client).unwrap_err();
        assert!(refusal.contains("which [client] needs"), "{refusal}");
        assert!(load(&format!("{client}{HERE}")).unwrap().client.is_some());
        let second = "[supervisor.component-listener]\naddress = \"[::1]:2\"\n";
        let first = format!("[supervisor.listener]\naddress = \"[::1]:1\"\n{HERE}");
        let refusal = load_plain(&format!("{first}{second}")).unwrap_err();
        assert!(refusal.contains("which [supervisor.component-listener]"), "{refusal}");
    }

    #[test]
    fn a_component_has_one_peer_in_plain_http_at_most() {
        let listener = format!("[component.listener]\naddress = \"[::1]:1\"\n{HERE}");
        let initiator =
            format!("[[component.initiator]]\nurl = \"http://[::1]:2/\"\n{HERE}");
        for peers in [&listener, &initiator] {
            load_plain(&format!("{peers}{SERVICE}")).unwrap();
        }
        for peers in [format!("{listener}{initiator}"), initiator.repeat(2)] {
            let refusal = load_plain(&format!("{peers}{SERVICE}")).unwrap_err();
            assert!(refusal.contains("cannot tell apart"), "{refusal}");
        }
    }

    #[test]
    fn a_supervisor_registers_in_plain_http_only_where_it_has_no_other_clients_there() {
        let initiator =
            format!("[[supervisor.initiator]]\nurl = \"http://[::1]:2/\"\n{HERE}");
        let plain = format!("[supervisor.listener]\naddress = \"[::1]:1\"\n{HERE}");
        let refusal = load_plain(&format!("{plain}{initiator}")).unwrap_err();
        assert!(refusal.contains("cannot tell apart"), "{refusal}");
        let tls = "[supervisor.listener]\naddress = \"[::1]:1\"\n";
        let refusal = load_plain(&format!(
            "{plain}[[supervisor.initiator]]\nurl = \"https://h:1/\"\n"
        ));
        assert!(refusal.unwrap_err().contains("which [[supervisor.initiator]] needs"));
        let two = load_plain(&format!("{tls}{}", initiator.repeat(2))).unwrap_err();
        assert!(two.contains("cannot tell apart"), "{two}");
    }

    #[test]
    fn a_supervisor_calls_one_component_in_plain_http_at_most() {
        let listener = format!("[supervisor.listener]\naddress = \"[::1]:1\"\n{HERE}");
        let calls = |url: &str| format!("[[supervisor.component]]\nurl = \"{url}\"\n");
        let plain = |port| calls(&format!("http://[::1]:{port}/")) + HERE;
        let one = load_plain(&format!("{listener}{}", plain(2))).unwrap();
        assert_eq!(one.supervisor.unwrap().component.len(), 1);
        let refusal =
            load_plain(&format!("{listener}{}{}", plain(2), plain(3))).unwrap_err();
        assert!(refusal.contains("calls several components in plain HTTP"), "{refusal}");
        let over_tls = format!("{listener}{}", calls("https://probe.example:2/"));
        let refusal = load_plain(&over_tls).unwrap_err();
        assert!(refusal.contains("which [[supervisor.component]] needs"), "{refusal}");
        load(&over_tls).unwrap();
    }

    #[test]
    fn access_is_a_policy_that_makes_sense() {
        assert!(!load("").unwrap().access.is_restricting());
        let section = "[access.roles]\nadmin = [\"Demo.Clients.a\", \
                       [\"Demo\", \"Clients\", \"b.2\"]]\n\
                       [access.authorizations]\nping = [\"admin\"]\n";
        assert!(load(section).unwrap().access.is_restricting());
        for (section, problem) in [
            ("[access.roles]\n", "missing field `authorizations`"),
            (
                "[access]\nroles = { admin = [1] }\nauthorizations = {}\n",
                "an identity is text with dots, or the list of its names",
            ),
            (
                "[access]\nroles = {}\nauthorizations = { ping = [\"admin\"] }\n",
                "ping is for role admin, which [access.roles] does not define",
            ),
            (
                "[access]\nroles = { admin = [\"a..b\"] }\nauthorizations = {}\n",
                "role admin has an identity with an empty name, \"a..b\"",
            ),
            ("[access]\nrules = {}\n", "unknown field `rules`"),
        ] {
            let error = load(section).unwrap_err();
            assert!(error.contains(problem), "{section}: {error}");
            assert!(error.contains(" at line "), "{section}: {error}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_service_is_told() {
        for (keys, problem) in [
            (
                "type = \"pong\"",
                "unknown variant `pong`, expected `ping` or `file` or `external`",
            ),
            ("type = \"external\"", "missing field `folder`"),
            (
                "type = \"external\"\nfolder = \"a\"\nshell = true",
                "unknown field `shell`, expected `folder`",
            ),
            ("type = \"ping\"\nip6 = \"auto\"", "unknown field `ip6`, expected `ip4`"),
        ] {
            let error = load(&format!("[[component.service]]\n{keys}\n")).unwrap_err();
            assert!(error.contains(problem), "{keys}: {error}");
            assert!(error.contains("line 5"), "{keys}: {error}");
        }
    }
}
