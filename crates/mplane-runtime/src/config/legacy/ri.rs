//! The files of the client-supervisor-probe system: a list of certificate files, users with
//! their roles, and capabilities with the roles that may use them.
//!
//! Source: protocol notes; the files that its users have.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use mplane::access::{IdentityRule, Policy, PolicyError};

use crate::config::access::make_policy;
use crate::config::{
    ClientConfig, ComponentConfig, Config, InitiatorConfig, ListenerConfig,
    RegistriesConfig, ServiceEntry, SupervisorConfig, TlsConfig, TooFarError,
    UnknownComponent, default_poll,
};
use crate::http::PlainHttp;
use crate::http::client::{BaseUrl, ParseUrlError};

/// How its supervisor is started.
#[derive(Clone, Debug)]
pub struct RiOptions {
    /// The file that names certificate, key and authorities; without it plain HTTP is
    /// spoken.
    pub certs: Option<PathBuf>,
    /// Where it listens.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// The folders in which `users.conf` and `caps.conf` are looked for; the first that has
    /// one counts.
    pub folders: Vec<PathBuf>,
}

impl RiOptions {
    /// Makes the configuration of a supervisor that is started so.
    pub fn supervisor<S>(&self) -> Result<Config<S>, RiError> {
        let tls = self.certs.as_deref().map(certs).transpose()?;
        let address = SocketAddr::new(self.address, self.port);
        let plain = tls.is_none().then_some(PlainHttp::Loopback);
        let users = self.find("users.conf")?;
        let mut roles: BTreeMap<String, Vec<IdentityRule>> = BTreeMap::new();
        for (identity, of_identity) in rules(&users)? {
            for role in of_identity {
                let rule = IdentityRule::Text(identity.clone());
                roles.entry(role).or_default().push(rule);
            }
        }
        let caps = self.find("caps.conf")?;
        let mut authorizations: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (capability, of_capability) in rules(&caps)? {
            let Some((label, component)) = capability.split_once(',') else {
                let problem = format!(
                    "{capability:?} names no component; write LABEL, COMPONENT: ROLE, ROLE"
                );
                return Err(RiError::Line { path: caps, problem });
            };
            let name = format!("{}@{}", label.trim(), component.trim());
            // A role that nobody has lets nobody in.
            let known = of_capability.into_iter().filter(|role| roles.contains_key(role));
            authorizations.entry(name).or_default().extend(known);
        }
        let policy = make_policy(&roles, &authorizations)?.with_open_offering();
        let listener = ListenerConfig::new(address, plain)?;
        let supervisor = SupervisorConfig {
            // Its components register once, and again only when they hear so: nothing is
            // kept over a restart here.
            unknown_component: UnknownComponent::PreconditionRequired,
            ..SupervisorConfig::new(listener, None)
        };
        Ok(Config { access: policy, supervisor: Some(supervisor), ..nothing(tls) })
    }

    /// Finds a file in the first folder that has it.
    fn find(&self, name: &str) -> Result<PathBuf, RiError> {
        let mut places = self.folders.iter().map(|folder| folder.join(name));
        places.find(|path| path.is_file()).ok_or_else(|| {
            let folders: Vec<_> =
                self.folders.iter().map(|it| it.display().to_string()).collect();
            RiError::NotFound { name: name.to_owned(), folders: folders.join(", ") }
        })
    }
}

/// How its client is started.
#[derive(Clone, Debug)]
pub struct RiClientOptions {
    /// The file that names certificate, key and authorities; without it plain HTTP is
    /// spoken.
    pub certs: Option<PathBuf>,
    /// The address or name of the supervisor.
    pub host: String,
    /// The port of the supervisor.
    pub port: u16,
}

impl RiClientOptions {
    /// Makes the configuration of a client that is started so.
    pub fn client<S>(&self) -> Result<Config<S>, RiError> {
        let tls = self.certs.as_deref().map(certs).transpose()?;
        let plain_http = tls.is_none().then_some(PlainHttp::Loopback);
        let url = supervisor_url(&self.host, self.port, plain_http)?;
        let client = Some(ClientConfig { url, plain_http });
        Ok(Config { client, ..nothing(tls) })
    }
}

/// How its probe is started.
#[derive(Clone, Debug)]
pub struct RiProbeOptions<S> {
    /// The file that names certificate, key and authorities; without it plain HTTP is
    /// spoken.
    pub certs: Option<PathBuf>,
    /// The address of the supervisor.
    pub address: Ipv4Addr,
    /// The port of the supervisor.
    pub port: u16,
    /// What it measures.
    pub service: S,
}

impl<S: Clone> RiProbeOptions<S> {
    /// Makes the configuration of a component that is started so.
    pub fn component(&self) -> Result<Config<S>, RiError> {
        let tls = self.certs.as_deref().map(certs).transpose()?;
        let plain_http = tls.is_none().then_some(PlainHttp::Loopback);
        let url = supervisor_url(&self.address.to_string(), self.port, plain_http)?;
        let service = vec![ServiceEntry::native(self.service.clone())];
        let component = ComponentConfig {
            initiator: vec![InitiatorConfig { url, poll: default_poll() }],
            ..ComponentConfig::new(service)
        };
        Ok(Config { component: Some(component), ..nothing(tls) })
    }
}

/// Returns the URL of the supervisor that options name.
fn supervisor_url(
    host: &str,
    port: u16,
    plain_http: Option<PlainHttp>,
) -> Result<BaseUrl, RiError> {
    let (scheme, hint) = match plain_http {
        Some(_) => ("http", "; --certfile makes it https, only TOML has that key"),
        None => ("https", ""),
    };
    let host = match host.parse() {
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        _ => host.to_owned(),
    };
    let url = format!("{scheme}://{host}:{port}/");
    BaseUrl::parse(&url, plain_http)
        .map_err(|problem| RiError::Supervisor { problem, hint })
}

/// Makes the configuration of a program that does nothing yet.
fn nothing<S>(tls: Option<TlsConfig>) -> Config<S> {
    Config {
        tls,
        registries: RegistriesConfig::default(),
        metrics: None,
        access: Policy::default(),
        component: None,
        supervisor: None,
        client: None,
        notes: Vec::new(),
    }
}

/// Reads the file that names certificate, key and authorities.
fn certs(path: &Path) -> Result<TlsConfig, RiError> {
    let mut known: BTreeMap<String, PathBuf> = BTreeMap::new();
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    for line in lines(path)? {
        let Some((name, value)) = line.split_once('=') else {
            let problem = format!("{line:?} is not of the form NAME= PATH");
            return Err(RiError::Line { path: path.to_owned(), problem });
        };
        known.insert(name.trim().to_owned(), folder.join(value.trim()));
    }
    let mut take = |name: &str| {
        known.remove(name).ok_or_else(|| {
            let problem = format!("{name} is missing; write {name}= PATH");
            RiError::Line { path: path.to_owned(), problem }
        })
    };
    Ok(TlsConfig { ca_chain: take("ca-chain")?, cert: take("cert")?, key: take("key")? })
}

/// Reads lines of the form `WHO: ROLE, ROLE`.
fn rules(path: &Path) -> Result<Vec<(String, Vec<String>)>, RiError> {
    let rule = |line: String| {
        let Some((who, roles)) = line.rsplit_once(':') else {
            let problem = format!("{line:?} is not of the form WHO: ROLE, ROLE");
            return Err(RiError::Line { path: path.to_owned(), problem });
        };
        let roles = roles.split(',').map(|role| role.trim().to_owned()).collect();
        Ok((who.trim().to_owned(), roles))
    };
    lines(path)?.into_iter().map(rule).collect()
}

/// Reads the lines of a file that say something.
fn lines(path: &Path) -> Result<Vec<String>, RiError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| RiError::Read { path: path.to_owned(), source })?;
    let said = text.lines().map(str::trim);
    let said = said.filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(said.map(ToOwned::to_owned).collect())
}

/// Files that make no configuration.
#[derive(Debug, thiserror::Error)]
pub enum RiError {
    /// A file is nowhere.
    #[error(
        "there is no {name} in {folders}; MPLANE_CONF_DIR names a folder that has it"
    )]
    NotFound {
        /// The file.
        name: String,
        /// Where it was looked for.
        folders: String,
    },
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// A line says nothing that is understood, or one is missing.
    #[error("{path}: {problem}")]
    Line {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The supervisor cannot be asked there.
    #[error("the supervisor of the options: {problem}{hint}")]
    Supervisor {
        /// Why.
        problem: ParseUrlError,
        /// What to do besides.
        hint: &'static str,
    },
    /// The rules make no policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Plain HTTP that other machines could reach.
    #[error(transparent)]
    TooFar(#[from] TooFarError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use mplane::access::{CapabilityName, Identity};

    #[test]
    fn its_files_make_a_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).unwrap();
        };
        write("certs.conf", "# files\ncert= a.crt\nkey= a.key\n\nca-chain= ca.crt\n");
        write("users.conf", "org.mplane.Test.Clients.Client-1: guest, admin\n");
        write("caps.conf", "pinger, org.mplane.Test.Components.Component-1: guest, x\n");
        let mut options = RiOptions {
            certs: Some(folder.path().join("certs.conf")),
            address: "127.0.0.1".parse().unwrap(),
            port: 8888,
            folders: vec!["/nonexistent".into(), folder.path().to_owned()],
        };
        let config = options.supervisor::<()>().unwrap();
        assert_eq!(config.tls.unwrap().cert, folder.path().join("a.crt"));
        let unknown = config.supervisor.unwrap().unknown_component;
        assert_eq!(unknown, UnknownComponent::PreconditionRequired);
        let identity = |unit: &str, name: &str| {
            Identity::new(
                ["org", "mplane", "Test", unit, name].map(Into::into),
                Some(unit),
            )
        };
        let client = identity("Clients", "Client-1");
        let token: mplane::token::Token = "t".parse().unwrap();
        let may = |label: &str, component: &str| {
            let capability = CapabilityName::new(Some(label), token.clone());
            let component = identity("Components", component);
            config.access.permit_of(&client, &capability, &component).is_ok()
        };
        assert!(may("pinger", "Component-1"));
        assert!(!may("pinger", "Component-2") && !may("other", "Component-1"));

        write("caps.conf", "pinger: guest\n");
        let error = options.supervisor::<()>().unwrap_err().to_string();
        assert!(error.contains("names no component; write LABEL, COMPONENT:"), "{error}");
        options.folders.pop();
        let error = options.supervisor::<()>().unwrap_err().to_string();
        assert!(error.contains("MPLANE_CONF_DIR names a folder"), "{error}");
    }

    #[test]
    fn its_options_make_a_client() {
        let folder = tempfile::tempdir().unwrap();
        let certs = folder.path().join("client-certs.conf");
        std::fs::write(&certs, "cert= a.crt\nkey= a.key\nca-chain= ca.crt\n").unwrap();
        let client = |certs: Option<&PathBuf>, host: &str| {
            let (certs, host) = (certs.cloned(), host.to_owned());
            RiClientOptions { certs, host, port: 8888 }
                .client::<()>()
                .map_err(|error| crate::report(&error))
        };
        for (certs, host, url) in [
            (Some(&certs), "127.0.0.1", "https://127.0.0.1:8888/"),
            (Some(&certs), "supervisor-1.example", "https://supervisor-1.example:8888/"),
            (Some(&certs), "2001:db8::1", "https://[2001:db8::1]:8888/"),
            (None, "::1", "http://[::1]:8888/"),
        ] {
            let config = client(certs, host).unwrap();
            let key = folder.path().join("a.key");
            assert_eq!(config.tls.map(|tls| tls.key), certs.map(|_| key));
            let client = config.client.unwrap();
            assert_eq!(client.url.to_string(), url);
            assert_eq!(client.plain_http.is_some(), certs.is_none());
        }
        let far = client(None, "192.0.2.1").unwrap_err();
        assert!(far.starts_with("the supervisor of the options: \"http"), "{far}");
        assert!(far.contains("goes to other machines only where"), "{far}");
        assert!(
            far.ends_with("--certfile makes it https, only TOML has that key"),
            "{far}"
        );
        let wrong = client(Some(&certs), "here and there").unwrap_err();
        assert!(wrong.contains("it is not a URL"), "{wrong}");
        std::fs::write(&certs, "cert= a.crt\n").unwrap();
        let missing = client(Some(&certs), "127.0.0.1").unwrap_err();
        assert!(missing.contains("is missing; write "), "{missing}");
    }

    #[test]
    fn its_options_make_a_component() {
        let folder = tempfile::tempdir().unwrap();
        let certs = folder.path().join("component-certs.conf");
        std::fs::write(&certs, "cert= a.crt\nkey= a.key\nca-chain= ca.crt\n").unwrap();
        let component = |certs: Option<&PathBuf>, address: &str| {
            let (certs, address) = (certs.cloned(), address.parse().unwrap());
            RiProbeOptions { certs, address, port: 8888, service: "tstat" }
                .component()
                .map_err(|error| crate::report(&error))
        };
        for (certs, address, url) in [
            (Some(&certs), "192.0.2.1", "https://192.0.2.1:8888/"),
            (None, "127.0.0.1", "http://127.0.0.1:8888/"),
        ] {
            let config = component(certs, address).unwrap();
            let key = folder.path().join("a.key");
            assert_eq!(config.tls.map(|tls| tls.key), certs.map(|_| key));
            let component = config.component.unwrap();
            let urls: Vec<_> =
                component.initiator.iter().map(|it| it.url.to_string()).collect();
            assert_eq!(urls, [url]);
            assert!(component.listener.is_none() && component.service.len() == 1);
        }
        let far = component(None, "192.0.2.1").unwrap_err();
        assert!(far.contains("goes to other machines only where"), "{far}");
    }
}
