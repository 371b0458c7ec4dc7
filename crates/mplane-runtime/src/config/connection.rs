//! Who is listened for and who is asked, and whether that is with TLS or in plain HTTP.
//!
//! What is read here is what may be spoken: plain HTTP that no key allows is refused with
//! the line and the remedy.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::{Config, LoadConfigError, default_poll, duration};
use crate::http::PlainHttp;
use crate::http::client::{BaseUrl, ParseUrlError};

/// Where peers reach a program.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "WrittenListener")]
pub struct ListenerConfig {
    /// Address and port; port 0 lets the system choose.
    pub address: SocketAddr,
    /// How far plain HTTP may go there; without it TLS is spoken.
    pub plain_http: Option<PlainHttp>,
}

/// A listener as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct WrittenListener {
    address: SocketAddr,
    plain_http: Option<PlainHttp>,
}

impl ListenerConfig {
    /// Makes a listener, in plain HTTP as far as that may go.
    pub fn new(
        address: SocketAddr,
        plain_http: Option<PlainHttp>,
    ) -> Result<Self, TooFarError> {
        if plain_http.is_some_and(|plain| !plain.reaches(address.ip())) {
            return Err(TooFarError { address });
        }
        Ok(Self { address, plain_http })
    }
}

impl TryFrom<WrittenListener> for ListenerConfig {
    type Error = TooFarError;

    fn try_from(written: WrittenListener) -> Result<Self, TooFarError> {
        Self::new(written.address, written.plain_http)
    }
}

/// A port for plain HTTP that other machines can reach.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "other machines reach {address}, and plain HTTP authenticates nobody: listen on \
     127.0.0.1 or [::1], or use TLS; plain-http = \"anywhere\" lets everybody in"
)]
pub struct TooFarError {
    address: SocketAddr,
}

/// A supervisor that a component registers with, or another supervisor.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "WrittenInitiator")]
pub struct InitiatorConfig {
    /// The supervisor's base URL.
    pub url: BaseUrl,
    /// The pause between two requests for specifications, if the supervisor does not
    /// keep them open.
    pub poll: Duration,
}

/// A supervisor as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct WrittenInitiator {
    url: String,
    plain_http: Option<PlainHttp>,
    /// In the protocol's notation of durations.
    #[serde(default = "default_poll", deserialize_with = "duration")]
    poll: Duration,
}

impl TryFrom<WrittenInitiator> for InitiatorConfig {
    type Error = ParseUrlError;

    fn try_from(written: WrittenInitiator) -> Result<Self, ParseUrlError> {
        let WrittenInitiator { url, plain_http, poll } = written;
        Ok(Self { url: BaseUrl::parse(&url, plain_http)?, poll })
    }
}

/// A component that a supervisor calls.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "WrittenClient")]
pub struct CalleeConfig {
    /// The component's base URL.
    pub url: BaseUrl,
}

impl TryFrom<WrittenClient> for CalleeConfig {
    type Error = ParseUrlError;

    fn try_from(written: WrittenClient) -> Result<Self, ParseUrlError> {
        let WrittenClient { url, plain_http } = written;
        Ok(Self { url: BaseUrl::parse(&url, plain_http)? })
    }
}

/// What a client does.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "WrittenClient")]
pub struct ClientConfig {
    /// The component or supervisor to ask.
    pub url: BaseUrl,
    /// How far plain HTTP may go; without it only TLS is spoken.
    pub plain_http: Option<PlainHttp>,
}

/// A client as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct WrittenClient {
    url: String,
    plain_http: Option<PlainHttp>,
}

impl TryFrom<WrittenClient> for ClientConfig {
    type Error = ParseUrlError;

    fn try_from(written: WrittenClient) -> Result<Self, ParseUrlError> {
        let WrittenClient { url, plain_http } = written;
        Ok(Self { url: BaseUrl::parse(&url, plain_http)?, plain_http })
    }
}

/// Checks that there are certificates for all who are spoken to over TLS, that no component
/// and no supervisor has two peers that look the same.
pub(super) fn check<S>(config: &Config<S>, path: &Path) -> Result<(), LoadConfigError> {
    if let Some(component) = &config.component {
        let listener = component.listener.iter();
        let listener = listener.filter(|listener| listener.plain_http.is_some());
        let initiators = component.initiator.iter();
        let initiators = initiators.filter(|initiator| initiator.url.is_plain());
        if listener.count() + initiators.count() > 1 {
            return Err(LoadConfigError::PlainPeers { path: path.to_owned() });
        }
    }
    if let Some(supervisor) = &config.supervisor {
        let listeners =
            [Some(&supervisor.listener), supervisor.component_listener.as_ref()];
        let mut listeners = listeners.into_iter().flatten();
        let mut initiators = supervisor.initiator.iter().filter(|it| it.url.is_plain());
        if initiators.next().is_some()
            && (initiators.next().is_some()
                || listeners.any(|it| it.plain_http.is_some()))
        {
            return Err(LoadConfigError::PlainClients { path: path.to_owned() });
        }
        let callees = supervisor.component.iter();
        if callees.filter(|callee| callee.url.is_plain()).count() > 1 {
            return Err(LoadConfigError::PlainCallees { path: path.to_owned() });
        }
    }
    match (&config.tls, first_over_tls(config)) {
        (None, Some(section)) => {
            Err(LoadConfigError::NoTls { path: path.to_owned(), section })
        }
        _ => Ok(()),
    }
}

/// Returns the first section that asks for TLS.
fn first_over_tls<S>(config: &Config<S>) -> Option<&'static str> {
    let listens = |listener: &Option<ListenerConfig>| {
        listener.as_ref().is_some_and(|listener| listener.plain_http.is_none())
    };
    if let Some(supervisor) = &config.supervisor {
        if supervisor.listener.plain_http.is_none() {
            return Some("[supervisor.listener]");
        }
        if listens(&supervisor.component_listener) {
            return Some("[supervisor.component-listener]");
        }
        if supervisor.component.iter().any(|callee| !callee.url.is_plain()) {
            return Some("[[supervisor.component]]");
        }
        if supervisor.initiator.iter().any(|initiator| !initiator.url.is_plain()) {
            return Some("[[supervisor.initiator]]");
        }
    }
    if let Some(component) = &config.component {
        if listens(&component.listener) {
            return Some("[component.listener]");
        }
        if component.initiator.iter().any(|initiator| !initiator.url.is_plain()) {
            return Some("[[component.initiator]]");
        }
    }
    let client = config.client.as_ref().filter(|client| !client.url.is_plain());
    client.map(|_| "[client]")
}
