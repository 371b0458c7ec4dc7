//! How each program is started: the functions behind the four `main`s, and behind the
//! demo.

mod component;
#[cfg(test)]
mod documents_tests;
mod supervisor;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Parser;
use mplane::access::Identity;
use mplane_probe::service::ServiceConfig;
use mplane_runtime::client::Client;
use mplane_runtime::config::{self, ListenerConfig, LoadConfigError};
use mplane_runtime::http::client::BaseUrl;
use mplane_runtime::http::server::Transport;
use mplane_runtime::shutdown::{HangUp, on_signal};
use mplane_runtime::tls::Credentials;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub(crate) use self::component::load_external;
pub use self::component::start_component;
use self::component::{run_component, section as component_section};
use self::supervisor::run_supervisor;
pub use self::supervisor::start_supervisor;
use crate::Failure;
use crate::logging::LogArgs;

/// The configuration of a program, with the services of this platform.
pub type Config = config::Config<ServiceConfig>;

/// The arguments of a program that runs until it is told to end.
#[derive(Clone, Debug, Parser)]
pub struct DaemonArgs {
    /// The configuration, in TOML or in a form of the reference implementation
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Check the configuration and the files that it names, and exit
    #[arg(long)]
    pub check: bool,
    /// How to log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// A program that runs in tasks, until its shutdown.
#[derive(Debug)]
pub struct Running {
    /// Where peers reach it, if they can.
    pub address: Option<SocketAddr>,
    tasks: JoinSet<()>,
}

impl Running {
    /// Waits for the end. A task that panics ends the program.
    pub async fn ended(mut self) -> Result<(), Failure> {
        while let Some(ended) = self.tasks.join_next().await {
            ended?;
        }
        Ok(())
    }
}

/// Returns how a listener is spoken at, and warns of plain HTTP.
fn transport(
    listener: &ListenerConfig,
    credentials: Option<&Arc<Credentials>>,
    path: &Path,
) -> Result<Transport, Failure> {
    if let Some(plain) = listener.plain_http {
        warn!(address = %listener.address, "listens in plain HTTP: {UNSAFE}");
        return Ok(Transport::Plain(plain));
    }
    let credentials = credentials.ok_or_else(|| no(path, "tls"))?;
    Ok(Transport::Tls(Arc::clone(credentials)))
}

/// Warns of a peer who is spoken to in plain HTTP.
pub(crate) fn warn_of_plain(url: &BaseUrl) {
    if url.is_plain() {
        warn!(%url, "speaks plain HTTP: {UNSAFE}");
    }
}

/// What plain HTTP means.
const UNSAFE: &str = "nobody is authenticated, and whoever is on the way can read and change \
                      all that is said";

/// Returns whom a certificate stands for.
fn identity(credentials: Option<&Credentials>) -> Identity {
    credentials.map_or_else(Identity::unauthenticated, |known| known.identity().clone())
}

/// Tells where metrics are.
fn tell_metrics(listener: &TcpListener) -> Result<(), Failure> {
    let address = listener.local_addr()?;
    info!(%address, "tells metrics and health");
    Ok(())
}

/// Makes a client.
pub fn make_client(config: &Config, path: &Path) -> Result<Client, Failure> {
    let section = config.client.as_ref().ok_or_else(|| no(path, "client"))?;
    let credentials = config.credentials()?;
    let registries = config.registries.load()?;
    warn_of_plain(&section.url);
    Ok(Client::new(credentials, section.url.clone(), registries))
}

/// Which program a daemon is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// `mpcom`
    Component,
    /// `mpsup`
    Supervisor,
}

/// Runs a component or a supervisor until a signal ends it.
pub async fn run_daemon(daemon: Daemon, args: &DaemonArgs) -> Result<(), Failure> {
    args.log.start("info")?;
    let shutdown = CancellationToken::new();
    on_signal(shutdown.clone(), HangUp::Reloads)?;
    let path = args.config.as_path();
    let config = load(path)?;
    if args.check {
        return check(daemon, &config, path);
    }
    match daemon {
        Daemon::Component => run_component(&config, path, shutdown).await,
        Daemon::Supervisor => run_supervisor(&config, path, shutdown).await,
    }
}

/// Loads a configuration, and logs what has no meaning in it.
pub fn load(path: &Path) -> Result<Config, LoadConfigError> {
    let config = Config::load(path)?;
    for note in &config.notes {
        warn!(file = %path.display(), "{note}");
    }
    Ok(config)
}

/// Checks a configuration and the files that it names, as far as that goes without
/// opening sockets.
fn check(daemon: Daemon, config: &Config, path: &Path) -> Result<(), Failure> {
    let component = match daemon {
        Daemon::Component => Some(component_section(config, path)?),
        Daemon::Supervisor => {
            supervisor::section(config, path)?;
            None
        }
    };
    config.credentials()?;
    let registries = config.registries.load()?;
    if let Some(section) = component {
        load_external(section, &registries)?;
    }
    Ok(())
}

/// Says that a section is missing.
fn no(path: &Path, section: &'static str) -> LoadConfigError {
    LoadConfigError::NoSection { path: path.to_owned(), section }
}
