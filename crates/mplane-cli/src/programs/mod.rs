//! How each program is started: the functions behind the four `main`s, and behind the
//! demo.

mod component;
#[cfg(test)]
mod documents_tests;
mod options;
mod supervisor;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{ArgGroup, Parser};
use mplane::access::Identity;
use mplane_probe::service::ServiceConfig;
use mplane_runtime::client::Client;
use mplane_runtime::config::legacy::{RiOptions, RiProbeOptions};
use mplane_runtime::config::{self, ListenerConfig, LoadConfigError};
use mplane_runtime::http::client::BaseUrl;
use mplane_runtime::http::server::{Transport, listen};
use mplane_runtime::shutdown::{HangUp, on_signal};
use mplane_runtime::tls::Credentials;
use mplane_runtime::{metrics, report};
use prometheus_client::registry::Registry;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub(crate) use self::component::load_external;
pub use self::component::start_component;
use self::component::{run_component, section as component_section};
pub use self::options::ComponentArgs;
use self::supervisor::run_supervisor;
pub use self::supervisor::start_supervisor;
use crate::Failure;
use crate::logging::LogArgs;

/// The configuration of a program, with the services of this platform.
pub type Config = config::Config<ServiceConfig>;

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

/// What is done for each entry of a configuration, by the name of the entry. What stays the
/// same goes on when the configuration is read again.
#[derive(Default)]
struct Entries(BTreeMap<String, CancellationToken>);

impl Entries {
    /// Begins what is new, and ends what is not there any more.
    fn set<T>(
        &mut self,
        entries: impl IntoIterator<Item = (String, T)>,
        mut begin: impl FnMut(T) -> CancellationToken,
    ) {
        let mut ended = std::mem::take(&mut self.0);
        for (name, entry) in entries {
            if self.0.contains_key(&name) {
                continue;
            }
            let end = ended.remove(&name).unwrap_or_else(|| begin(entry));
            self.0.insert(name, end);
        }
        for end in ended.into_values() {
            end.cancel();
        }
    }
}

/// Tells metrics and health until `shutdown`, if the configuration says where.
async fn tell_metrics(
    config: &Config,
    tasks: &mut JoinSet<()>,
    register: impl FnOnce(&mut Registry),
    ready: metrics::Ready,
    shutdown: &CancellationToken,
) -> Result<(), Failure> {
    let Some(section) = &config.metrics else { return Ok(()) };
    let listener = listen(section.address).await?;
    info!(address = %listener.local_addr()?, "tells metrics and health");
    let mut registry = Registry::default();
    register(&mut registry);
    tasks.spawn(metrics::serve(listener, registry, ready, shutdown.clone()));
    Ok(())
}

/// Logs whether a configuration was read again: one that is wrong changes nothing.
fn tell_reload(reloaded: Result<(), Failure>) -> Result<(), Failure> {
    match reloaded {
        Ok(()) => info!("has read its configuration again"),
        Err(Failure::Failed(failure)) => {
            let problem = report(&*failure);
            error!(problem, "goes on with the configuration that it had");
        }
        Err(other) => return Err(other),
    }
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

/// The arguments of a supervisor: a configuration, or those of the client-supervisor-probe
/// system.
#[derive(Clone, Debug, Parser)]
#[command(group = ArgGroup::new("source").required(true).args(["config", "certfile", "disable_ssl"]))]
pub struct SupervisorArgs {
    /// The configuration, in TOML or in a form of the reference implementation
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration and the files that it names, and exit
    #[arg(long)]
    check: bool,
    /// The file that names the certificates, instead of a configuration.
    #[arg(
        short,
        long,
        value_name = "FILE",
        help = "File with cert=, key= and ca-chain=, instead of a configuration; users.conf and \
                caps.conf come from /etc/mplane, $HOME or $MPLANE_CONF_DIR"
    )]
    certfile: Option<PathBuf>,
    /// Speak plain HTTP, within this machine (instead of --certfile)
    #[arg(long, conflicts_with = "certfile")]
    disable_ssl: bool,
    /// Address to listen on, with --certfile or --disable-ssl
    #[arg(
        short = 's',
        long,
        value_name = "IP",
        default_value = "127.0.0.1",
        conflicts_with = "config"
    )]
    listen_ipaddr: IpAddr,
    /// Port to listen on, with --certfile or --disable-ssl
    #[arg(
        short = 'p',
        long,
        value_name = "PORT",
        default_value_t = 8888,
        conflicts_with = "config"
    )]
    listen_port: u16,
    /// How to log.
    #[command(flatten)]
    log: LogArgs,
}

/// Where a configuration comes from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A file.
    File(PathBuf),
    /// Files and options of the supervisor of the client-supervisor-probe system.
    Supervisor(RiOptions),
    /// Files and options of its probe.
    Probe(Box<RiProbeOptions<ServiceConfig>>),
}

impl Source {
    /// Loads the configuration.
    fn load(&self) -> Result<Config, LoadConfigError> {
        match self {
            Self::File(path) => load(path),
            Self::Supervisor(options) => Ok(options.supervisor()?),
            Self::Probe(options) => Ok(options.component()?),
        }
    }

    /// Returns the file that errors name.
    fn path(&self) -> &Path {
        let certs = match self {
            Self::File(path) => return path,
            Self::Supervisor(options) => &options.certs,
            Self::Probe(options) => &options.certs,
        };
        certs.as_deref().unwrap_or_else(|| Path::new("--disable-ssl"))
    }
}

/// Runs a component until a signal ends it.
pub async fn run_component_args(args: ComponentArgs) -> Result<(), Failure> {
    args.log.start("info")?;
    let is_check = args.check;
    let source = args.source().map_err(|error| Failure::Usage(Box::new(error)))?;
    let shutdown = CancellationToken::new();
    on_signal(shutdown.clone(), HangUp::Reloads)?;
    let config = source.load()?;
    if is_check {
        check(&config)?;
        let section = component_section(&config, source.path())?;
        load_external(section, &config.registries.load()?)?;
        return Ok(());
    }
    run_component(&config, source, shutdown).await
}

/// Runs a supervisor until a signal ends it.
pub async fn run_supervisor_args(args: SupervisorArgs) -> Result<(), Failure> {
    args.log.start("info")?;
    let shutdown = CancellationToken::new();
    on_signal(shutdown.clone(), HangUp::Reloads)?;
    let source = match args.config {
        Some(path) => Source::File(path),
        None => Source::Supervisor(RiOptions {
            certs: args.certfile,
            address: args.listen_ipaddr,
            port: args.listen_port,
            folders: conf_folders(),
        }),
    };
    let config = source.load()?;
    if args.check {
        supervisor::section(&config, source.path())?;
        return check(&config);
    }
    run_supervisor(&config, source, shutdown).await
}

/// Returns the folders in which the client-supervisor-probe system looks for its files.
fn conf_folders() -> Vec<PathBuf> {
    let of_variable = |name| std::env::var_os(name).map(PathBuf::from);
    let folders = [Some(PathBuf::from("/etc/mplane")), of_variable("HOME")];
    folders.into_iter().chain([of_variable("MPLANE_CONF_DIR")]).flatten().collect()
}

/// Loads a configuration, and logs what has no meaning in it.
pub fn load(path: &Path) -> Result<Config, LoadConfigError> {
    let config = Config::load(path)?;
    for note in &config.notes {
        warn!(file = %path.display(), "{note}");
    }
    Ok(config)
}

/// Checks the files that a configuration names, as far as that goes without opening sockets.
fn check(config: &Config) -> Result<(), Failure> {
    config.credentials()?;
    config.registries.load()?;
    Ok(())
}

/// Says that a section is missing.
fn no(path: &Path, section: &'static str) -> LoadConfigError {
    LoadConfigError::NoSection { path: path.to_owned(), section }
}
