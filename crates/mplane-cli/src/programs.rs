//! How each program is started: the functions behind the four `main`s, and behind the
//! demo.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Parser;
use mplane::access::Identity;
use mplane::exchange::component::ComponentExchange;
use mplane::registry::Registries;
use mplane_probe::service::{ServiceConfig, SetUpError};
use mplane_runtime::client::Client;
use mplane_runtime::component::initiator::{Initiator, initiate};
use mplane_runtime::component::{Component, Listening};
use mplane_runtime::config::{
    self, ComponentConfig, ListenerConfig, LoadConfigError, ServiceEntry,
};
use mplane_runtime::external::{Definition, External, Launcher, LoadServiceError};
use mplane_runtime::http::client::{BaseUrl, HttpClient};
use mplane_runtime::http::routes::client_routes;
use mplane_runtime::http::server::{Transport, listen, serve};
use mplane_runtime::metrics;
use mplane_runtime::service::Service;
use mplane_runtime::shutdown::on_signal;
use mplane_runtime::spool::Spool;
use mplane_runtime::tls::Credentials;
use mplane_supervisor::server::Supervisor;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::logging::LogArgs;
use crate::{Failure, Told};

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

/// Starts a supervisor. It runs until `shutdown`.
pub async fn start_supervisor(
    config: &Config,
    path: &Path,
    shutdown: CancellationToken,
) -> Result<Running, Failure> {
    let section = config.supervisor.as_ref().ok_or_else(|| no(path, "supervisor"))?;
    let credentials = config.credentials()?;
    let registries = config.registries.load()?;
    let transport = transport(&section.listener, credentials.as_ref(), path)?;
    let listener = listen(section.listener.address).await?;
    let address = listener.local_addr()?;
    let second = match &section.component_listener {
        Some(second) => {
            let transport = self::transport(second, credentials.as_ref(), path)?;
            Some((listen(second.address).await?, transport))
        }
        None => None,
    };
    let supervisor = Supervisor::new(registries, config.access.clone(), shutdown.clone());
    info!(%address, identity = %identity(credentials.as_deref()), "supervises");
    let mut tasks = JoinSet::new();
    if let Some(metrics) = &config.metrics {
        let listener = listen(metrics.address).await?;
        tell_metrics(&listener)?;
        let registry = prometheus_client::registry::Registry::default();
        tasks.spawn(metrics::serve(listener, registry, shutdown.clone()));
    }
    if let Some((second, transport)) = second {
        info!(components = %second.local_addr()?, "supervises at a second address");
        tasks.spawn(serve(second, transport, supervisor.router(), shutdown.clone()));
    }
    tasks.spawn(serve(listener, transport, supervisor.router(), shutdown));
    Ok(Running { address: Some(address), tasks })
}

/// Starts a component. It runs until `shutdown`.
pub async fn start_component(
    config: &Config,
    path: &Path,
    shutdown: CancellationToken,
) -> Result<Running, Failure> {
    let section = component_section(config, path)?;
    let credentials = config.credentials()?;
    let registries = config.registries.load()?;
    let services = services(section, &registries).await?;
    let listener = match &section.listener {
        Some(listener) => {
            let transport = transport(listener, credentials.as_ref(), path)?;
            Some((listen(listener.address).await?, transport))
        }
        None => None,
    };
    let address = match &listener {
        Some((listener, _)) => Some(listener.local_addr()?),
        None => None,
    };
    let identity = identity(credentials.as_deref());
    if let Some(address) = address {
        info!(%identity, %address, "offers services");
    } else {
        info!(%identity, "offers services");
    }
    let spool = match &section.spool {
        Some(path) => Some(Spool::open(path, &registries)?),
        None => None,
    };
    let mut exchange = ComponentExchange::default();
    exchange.set_policy(config.access.clone());
    if let Some(results) = section.max_results {
        exchange.set_max_results(results);
    }
    let component =
        Component::new(services, registries, exchange, spool, shutdown.clone())?;
    let mut tasks = JoinSet::new();
    if let Some(metrics) = &config.metrics {
        let listener = listen(metrics.address).await?;
        tell_metrics(&listener)?;
        let mut registry = prometheus_client::registry::Registry::default();
        component.metrics().register(&mut registry);
        tasks.spawn(metrics::serve(listener, registry, shutdown.clone()));
    }
    if let Some((listener, transport)) = listener {
        let router = client_routes(Arc::new(Listening(Arc::clone(&component))));
        tasks.spawn(serve(listener, transport, router, shutdown));
    }
    let client = Arc::new(HttpClient::new(credentials.as_deref()));
    for initiator in &section.initiator {
        warn_of_plain(&initiator.url);
        let initiator =
            Initiator { supervisor: initiator.url.clone(), poll: initiator.poll };
        tasks.spawn(initiate(Arc::clone(&component), Arc::clone(&client), initiator));
    }
    tasks.spawn(async move { component.ended().await });
    Ok(Running { address, tasks })
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

/// Makes the services of a component: those within the program that work here, and those
/// that are programs of their own.
async fn services(
    section: &ComponentConfig<ServiceConfig>,
    registries: &Registries,
) -> Result<Vec<Arc<dyn Service>>, Failure> {
    let (mut external, mut native) = (Vec::<Arc<dyn Service>>::new(), Vec::new());
    for definition in load_external(section, registries)? {
        let launcher = Some(Launcher::this_program());
        external.push(Arc::new(External::new(definition, registries, launcher)));
    }
    for service in &section.service {
        if let ServiceEntry::Native(service) = service {
            native.push(service.clone());
        }
    }
    match mplane_probe::service::services(&native, registries).await {
        Ok(mut services) => {
            services.append(&mut external);
            Ok(services)
        }
        Err(SetUpError::Nothing) if !external.is_empty() => Ok(external),
        Err(error) => Err(error.into()),
    }
}

/// Loads the folders of the services that are programs of their own.
pub(crate) fn load_external(
    section: &ComponentConfig<ServiceConfig>,
    registries: &Registries,
) -> Result<Vec<Definition>, LoadServiceError> {
    let folders = section.service.iter().filter_map(|service| match service {
        ServiceEntry::External(external) => Some(&external.folder),
        ServiceEntry::Native(_) => None,
    });
    folders.map(|folder| Definition::load(folder, registries)).collect()
}

/// Makes a client.
pub fn make_client(config: &Config, path: &Path) -> Result<Client, Failure> {
    let section = config.client.as_ref().ok_or_else(|| no(path, "client"))?;
    let credentials = config.credentials()?;
    let registries = config.registries.load()?;
    warn_of_plain(&section.url);
    Ok(Client::new(credentials.as_deref(), section.url.clone(), registries))
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
    on_signal(shutdown.clone())?;
    let path = args.config.as_path();
    let config = load(path)?;
    if args.check {
        return check(daemon, &config, path);
    }
    let running = match daemon {
        Daemon::Component => start_component(&config, path, shutdown).await?,
        Daemon::Supervisor => start_supervisor(&config, path, shutdown).await?,
    };
    running.ended().await
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
            config.supervisor.as_ref().ok_or_else(|| no(path, "supervisor"))?;
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

/// Returns the section of a component, if it makes sense.
fn component_section<'a>(
    config: &'a Config,
    path: &Path,
) -> Result<&'a ComponentConfig<ServiceConfig>, Failure> {
    let section = config.component.as_ref().ok_or_else(|| no(path, "component"))?;
    if section.initiator.is_empty() && section.listener.is_none() {
        return Err(Told(format!(
            "the component in {} neither registers anywhere nor listens: it needs \
             [[component.initiator]] or [component.listener]",
            path.display()
        ))
        .into());
    }
    for service in &section.service {
        if let ServiceEntry::Native(service) = service {
            service.check()?;
        }
    }
    Ok(section)
}

/// Says that a section is missing.
fn no(path: &Path, section: &'static str) -> LoadConfigError {
    LoadConfigError::NoSection { path: path.to_owned(), section }
}
