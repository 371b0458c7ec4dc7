//! The reference implementation's configuration files, translated into ours.
//!
//! Two forms are known: INI files of the SDK up to 0.9.0, and JSON files of 0.9.9; besides, the
//! files of the client-supervisor-probe system ([`RiOptions`], [`RiClientOptions`],
//! [`RiProbeOptions`]). Nothing outside this module knows them: both become a [`Config`](super::Config). What cannot
//! work here is an error that names the key and the remedy; keys without meaning become
//! notes, which the programs log.
//!
//! *Differences*: rules are for a label to the letter (the reference: for every label that
//! contains it); blanks around roles do not count; relative paths are relative to the file
//! (the reference: to the working directory).

mod ini;
mod json;
mod lines;
mod ri;
mod section;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;

use mplane::access::{IdentityRule, Policy, PolicyError};
use mplane::registry::CORE;

pub(super) use ini::translate as translate_ini;
pub(super) use json::translate as translate_json;
pub use lines::ParseIniError;
pub use ri::{RiClientOptions, RiError, RiOptions, RiProbeOptions};
use section::Section;

use super::access::make_policy;
use super::{
    CalleeConfig, ListenerConfig, RegistriesConfig, TlsConfig, check_max_results,
};
use crate::http::client::BaseUrl;
use crate::http::{PlainHttp, path};

/// A service that can be what a module of the reference's components is.
pub trait FromModule: Sized {
    /// Makes the services that a module with these arguments becomes.
    fn from_module(
        module: &str,
        arguments: &[(String, String)],
    ) -> Result<Vec<Self>, ModuleError>;
}

/// A module that cannot be translated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModuleError {
    /// Nobody knows it.
    #[error(
        "it is not known here, known is {}; remove it, or offer what it measures as an \
         external service",
        known.join(", ")
    )]
    Unknown {
        /// The modules that are known.
        known: &'static [&'static str],
    },
    /// Nobody knows an argument.
    #[error("it has no argument {argument}, but {}; remove it", known.join(", "))]
    Argument {
        /// The argument.
        argument: String,
        /// The arguments that are known.
        known: &'static [&'static str],
    },
    /// An argument has a value that cannot be used.
    #[error("{argument}: {problem}")]
    Value {
        /// The argument.
        argument: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// A configuration of the reference that cannot work here.
#[derive(Debug, thiserror::Error)]
pub enum TranslateError {
    /// The file is no JSON.
    #[error("it is no JSON")]
    Json(#[from] serde_json::Error),
    /// The file is no INI file.
    #[error(transparent)]
    Ini(#[from] ParseIniError),
    /// Something is missing.
    #[error("{place} is missing; {remedy}")]
    Missing {
        /// What.
        place: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A value cannot be used.
    #[error("{place}: {problem}")]
    Value {
        /// Whose value.
        place: String,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// A path is not the one that is served and asked for here.
    #[error("{place} has the path {path}, which here is always {standard}; write that")]
    Path {
        /// Whose value.
        place: String,
        /// The path.
        path: String,
        /// The path that is known.
        standard: &'static str,
    },
    /// The rules make no policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A module cannot be translated.
    #[error("module {module}")]
    Module {
        /// The module.
        module: String,
        /// Why.
        source: ModuleError,
    },
}

/// What it means that there is no section `TLS`.
const NO_TLS: &str = "TLS is missing: plain HTTP is spoken, within this machine only, and \
                      nobody is authenticated; add it with ca-chain, cert and key";

/// What to do where a path of it is missing.
const NO_FILE: &str = "name the PEM file";

/// What to do where a port is missing.
const NO_PORT: &str = "write the port";

/// Takes how many results repeats keep: the reference's documents write it both ways.
fn max_results(section: &mut Section) -> Result<Option<NonZeroUsize>, TranslateError> {
    let mut found = None;
    for key in ["scheduler_max_results", "scheduler-max-results"] {
        let Some(text) = section.text(key)? else { continue };
        let results = text.parse().map_err(|_| format!("{text} is no number"));
        let wrong =
            |problem| TranslateError::Value { place: section.place(key), problem };
        found = Some(results.and_then(check_max_results).map_err(wrong)?);
    }
    Ok(found)
}

/// How peers are spoken to, which the whole file decides: with TLS, or without a section
/// for it in plain HTTP within this machine.
#[derive(Clone, Copy, Debug)]
struct Speech(Option<PlainHttp>);

impl Speech {
    /// Returns the scheme of URLs without one.
    const fn scheme(self) -> &'static str {
        if self.0.is_some() { "http" } else { "https" }
    }

    /// Returns the address listened on where none is written.
    const fn host(self) -> &'static str {
        if self.0.is_some() { "127.0.0.1" } else { "0.0.0.0" }
    }
}

/// Joins an address of this machine and a port.
fn listener(
    speech: Speech,
    place: &str,
    host: Option<&str>,
    port: &str,
) -> Result<ListenerConfig, TranslateError> {
    let wrong = |problem| TranslateError::Value { place: place.into(), problem };
    let host = host.unwrap_or_else(|| speech.host());
    let host = host.parse().map_err(|_| {
        wrong(format!("{host} is no address; write one of this machine, or 0.0.0.0"))
    })?;
    let port = port.parse().map_err(|_| wrong(format!("{port} is no port")))?;
    ListenerConfig::new(SocketAddr::new(host, port), speech.0)
        .map_err(|error| wrong(format!("{error}{IN_TOML}")))
}

/// How to say what the reference's files have no key for.
const IN_TOML: &str = "; only TOML has that key";

/// Takes the section `TLS`. Without it the reference speaks plain HTTP, and so do we, but
/// within this machine.
fn tls(
    root: &mut Section,
    notes: &mut Vec<String>,
) -> Result<(Option<TlsConfig>, Speech), TranslateError> {
    let Some(mut section) = root.section("TLS")? else {
        notes.push(NO_TLS.into());
        return Ok((None, Speech(Some(PlainHttp::Loopback))));
    };
    let tls = TlsConfig {
        ca_chain: section.required("ca-chain", NO_FILE)?.into(),
        cert: section.required("cert", NO_FILE)?.into(),
        key: section.required("key", NO_FILE)?.into(),
    };
    Ok((Some(tls), Speech(None)))
}

/// Takes the registries from two keys of a section: the one that elements come from, and
/// those beside it.
fn registries(
    section: &mut Section,
    [default, preload]: [&str; 2],
    notes: &mut Vec<String>,
) -> Result<RegistriesConfig, TranslateError> {
    let place = section.place(default);
    let mut files = section.list(preload)?;
    match section.text(default)? {
        Some(uri) if uri.contains("://") && uri != CORE => notes.push(format!(
            "{place}: registries are not fetched from {uri}; name a file in {preload} if \
             its elements are needed"
        )),
        Some(file) if file != CORE => files.insert(0, file),
        _ => {}
    }
    Ok(RegistriesConfig { preload: files.into_iter().map(Into::into).collect() })
}

/// Makes the policy of who has a role, and of which roles may use a label.
fn policy(
    mut roles: BTreeMap<String, Vec<IdentityRule>>,
    authorizations: &BTreeMap<String, Vec<String>>,
    notes: &mut Vec<String>,
) -> Result<Policy, TranslateError> {
    for (label, listed) in authorizations {
        for role in listed {
            if !roles.contains_key(role) {
                notes.push(format!("nobody has the role {role} that {label} is for"));
                roles.insert(role.clone(), Vec::new());
            }
        }
    }
    // The rules of the reference are for those who use capabilities, not for components.
    Ok(make_policy(&roles, authorizations)?.with_open_offering())
}

/// Translates a module of a component.
fn module<S: FromModule>(
    name: &str,
    arguments: Section,
) -> Result<Vec<S>, TranslateError> {
    let arguments = arguments.texts()?;
    S::from_module(name, &arguments)
        .map_err(|source| TranslateError::Module { module: name.into(), source })
}

/// Reads a URL of the reference, which may lack the scheme. Its path must be one of those
/// that it can have.
fn base_url(
    speech: Speech,
    place: &str,
    text: &str,
    paths: &[&'static str],
) -> Result<BaseUrl, TranslateError> {
    let wrong = |problem| TranslateError::Value { place: place.into(), problem };
    let url = if text.contains("://") {
        text.to_owned()
    } else {
        format!("{}://{text}", speech.scheme())
    };
    // Says what is wrong with scheme, host and port.
    let parse = |url: &str| {
        let hint = if url.starts_with("http://") { IN_TOML } else { "" };
        BaseUrl::parse(url, speech.0).map_err(|error| wrong(format!("{error}{hint}")))
    };
    parse(&url)?;
    let uri: http::Uri = url.parse().map_err(|_| wrong("it is not a URL".into()))?;
    let path = uri.path().trim_end_matches('/');
    if !paths.iter().any(|known| known.trim_end_matches('/') == path) {
        return Err(TranslateError::Path {
            place: place.into(),
            path: uri.path().into(),
            standard: paths.first().copied().unwrap_or("/"),
        });
    }
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let scheme = uri.scheme_str().unwrap_or_else(|| speech.scheme());
    parse(&format!("{scheme}://{authority}/"))
}

/// The paths that capabilities are asked for at.
const CAPABILITY_PATHS: [&str; 3] = ["/", path::CAPABILITY_PAGE, path::CAPABILITIES];

/// Takes the components that a supervisor calls: at least one, each once.
fn callees(
    speech: Speech,
    section: &mut Section,
    key: &str,
) -> Result<Vec<CalleeConfig>, TranslateError> {
    let place = section.place(key);
    let mut callees: Vec<CalleeConfig> = Vec::new();
    for text in section.list(key)? {
        let url = base_url(speech, &place, &text, &CAPABILITY_PATHS)?;
        let name = url.to_string();
        if callees.iter().all(|known| known.url.to_string() != name) {
            callees.push(CalleeConfig { url });
        }
    }
    if callees.is_empty() {
        let remedy = "write https://HOST:PORT/ of each component that listens";
        return Err(TranslateError::Missing { place, remedy });
    }
    Ok(callees)
}

/// Takes keys whose values are paths: those that are not the usual ones cannot work.
fn standard_paths(section: &mut Section, keys: [&str; 3]) -> Result<(), TranslateError> {
    let standard =
        [path::REGISTER_CAPABILITY, path::SHOW_SPECIFICATION, path::REGISTER_RESULT];
    for (key, standard) in keys.into_iter().zip(standard) {
        let place = section.place(key);
        match section.text(key)? {
            Some(path) if path.trim_matches('/') != standard.trim_matches('/') => {
                return Err(TranslateError::Path { place, path, standard });
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
