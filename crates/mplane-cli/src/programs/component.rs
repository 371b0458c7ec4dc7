//! How a component is started, and what it takes over when its configuration changes.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use mplane::exchange::component::ComponentExchange;
use mplane::registry::Registries;
use mplane_probe::service::{ServiceConfig, services};
use mplane_runtime::component::{Component, Listening, Offered};
use mplane_runtime::config::{ComponentConfig, ServiceKind};
use mplane_runtime::external::{Definition, External, Launcher, LoadServiceError};
use mplane_runtime::http::client::HttpClient;
use mplane_runtime::http::routes::client_routes;
use mplane_runtime::http::server::{listen, serve};
use mplane_runtime::initiator::{Initiator, initiate};
use mplane_runtime::metrics;
use mplane_runtime::service::Service;
use mplane_runtime::shutdown::Reloads;
use mplane_runtime::spool::Spool;
use mplane_runtime::tls::Credentials;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Config, Entries, Running, Source, identity, no, tell_metrics, tell_reload, transport,
    warn_of_plain,
};
use crate::{Failure, Told};

/// A component that runs, and what it was configured to be.
struct Live {
    source: Source,
    config: Config,
    credentials: Option<Arc<Credentials>>,
    registries: Registries,
    component: Arc<Component>,
    client: Arc<HttpClient>,
    /// The registrations with supervisors.
    initiators: Entries,
    tasks: JoinSet<()>,
}

/// Starts a component. It runs until `shutdown`.
pub async fn start_component(
    config: &Config,
    path: &Path,
    shutdown: CancellationToken,
) -> Result<Running, Failure> {
    let source = Source::File(path.to_owned());
    let (live, address) = start(config, source, &shutdown).await?;
    Ok(Running { address, tasks: live.tasks })
}

/// Runs a component until `shutdown`, and reads its configuration again when it is asked
/// to.
pub(super) async fn run_component(
    config: &Config,
    source: Source,
    shutdown: CancellationToken,
) -> Result<(), Failure> {
    let mut reloads = Reloads::listen()?;
    let (mut live, _) = start(config, source, &shutdown).await?;
    loop {
        tokio::select! {
            () = reloads.next() => tell_reload(live.reload().await)?,
            ended = live.tasks.join_next() => match ended {
                // One that is not served any more.
                Some(ended) => ended?,
                None => return Ok(()),
            },
        }
    }
}

/// Starts a component; returns where clients reach it, if they can.
async fn start(
    config: &Config,
    source: Source,
    shutdown: &CancellationToken,
) -> Result<(Live, Option<SocketAddr>), Failure> {
    let path = source.path();
    let section = section(config, path)?;
    let credentials = config.credentials()?;
    let registries = config.registries.load()?;
    let services = offered(section, &registries).await?;
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
        Some(path) => Some(Spool::open(path, section.spool_max_bytes, &registries)?),
        None => None,
    };
    let mut exchange = ComponentExchange::default();
    exchange.set_policy(config.access.clone());
    set_pace(&mut exchange, section);
    let component =
        Component::new(services, registries.clone(), exchange, spool, shutdown.clone())?;
    let mut tasks = JoinSet::new();
    let ready = Arc::clone(&component);
    let ready: metrics::Ready = Arc::new(move || ready.ready());
    let register = |registry: &mut _| component.metrics().register(registry);
    tell_metrics(config, &mut tasks, register, ready, shutdown).await?;
    if let Some((listener, transport)) = listener {
        let router = client_routes(Arc::new(Listening(Arc::clone(&component))));
        tasks.spawn(serve(listener, transport, router, shutdown.clone()));
    }
    let client = Arc::new(HttpClient::new(credentials.clone()));
    tasks.spawn({
        let component = Arc::clone(&component);
        async move { component.ended().await }
    });
    let mut live = Live {
        source,
        config: config.clone(),
        credentials,
        registries,
        component,
        client,
        initiators: Entries::default(),
        tasks,
    };
    live.set_initiators(section);
    Ok((live, address))
}

impl Live {
    /// Reads the configuration again and takes over what can change while the component
    /// runs. If anything in it is wrong, nothing changes.
    async fn reload(&mut self) -> Result<(), Failure> {
        let config = self.source.load()?;
        let section = section(&config, self.source.path())?;
        let credentials = config.credentials()?;
        let services = offered(section, &self.registries).await?;
        match (&self.credentials, credentials) {
            (Some(current), Some(new)) => current.replace(&new)?,
            (None, None) => {}
            _ => warn_of_restart("tls"),
        }
        self.component.change_settings(|exchange| set_pace(exchange, section));
        self.component.set_policy(config.access.clone());
        self.component.set_services(services);
        self.set_initiators(section);
        self.warn_of_restarts(&config, section);
        self.config = config;
        Ok(())
    }

    /// Registers with these supervisors and no others from now on.
    fn set_initiators(&mut self, section: &ComponentConfig<ServiceConfig>) {
        let initiators = section.initiator.iter();
        let initiators = initiators.map(|it| (format!("{} {:?}", it.url, it.poll), it));
        self.initiators.set(initiators, |config| {
            warn_of_plain(&config.url);
            let end = CancellationToken::new();
            let initiator =
                Initiator { supervisor: config.url.clone(), poll: config.poll };
            let (component, client) =
                (Arc::clone(&self.component), Arc::clone(&self.client));
            self.tasks.spawn(initiate(component, client, initiator, end.clone()));
            end
        });
    }

    /// Says what has changed and is not taken over.
    fn warn_of_restarts(
        &self,
        config: &Config,
        section: &ComponentConfig<ServiceConfig>,
    ) {
        let Some(before) = &self.config.component else { return };
        let listens = |section: &ComponentConfig<ServiceConfig>| {
            section.listener.as_ref().map(|known| (known.address, known.plain_http))
        };
        let tells = |config: &Config| config.metrics.as_ref().map(|known| known.address);
        for (key, has_changed) in [
            ("component.listener", listens(before) != listens(section)),
            ("component.spool", before.spool != section.spool),
            (
                "component.spool-max-bytes",
                before.spool_max_bytes != section.spool_max_bytes,
            ),
            ("metrics", tells(&self.config) != tells(config)),
            (
                "registries.preload",
                self.config.registries.preload != config.registries.preload,
            ),
        ] {
            if has_changed {
                warn_of_restart(key);
            }
        }
    }
}

/// Says that a key has changed and is not taken over.
fn warn_of_restart(key: &str) {
    warn!(key, "has changed, which takes effect when the component is restarted");
}

/// Sets how repeats run and how long results are kept.
fn set_pace(exchange: &mut ComponentExchange, section: &ComponentConfig<ServiceConfig>) {
    exchange.set_max_results(section.max_results);
    exchange.set_max_age(section.max_age);
    exchange.set_spread(section.spread);
}

/// Makes the services of a component: those within the program that work here, and those
/// that are programs of their own.
async fn offered(
    section: &ComponentConfig<ServiceConfig>,
    registries: &Registries,
) -> Result<Vec<Offered>, Failure> {
    let mut offered = Vec::new();
    for entry in &section.service {
        let of_entry: Vec<Arc<dyn Service>> = match &entry.service {
            ServiceKind::Native(config) => services(config, registries).await?,
            ServiceKind::External(config) => {
                let definition = Definition::load(&config.folder, registries)?;
                let launcher = Some(Launcher::this_program());
                vec![Arc::new(External::new(definition, registries, launcher))]
            }
        };
        let budget = entry.budget;
        offered.extend(of_entry.into_iter().map(|service| Offered { service, budget }));
    }
    if offered.is_empty() {
        let text =
            "none of the configured services can run here; the log says why for each";
        return Err(Told(text.into()).into());
    }
    Ok(offered)
}

/// Loads the folders of the services that are programs of their own.
pub(crate) fn load_external(
    section: &ComponentConfig<ServiceConfig>,
    registries: &Registries,
) -> Result<Vec<Definition>, LoadServiceError> {
    let folders = section.service.iter().filter_map(|entry| match &entry.service {
        ServiceKind::External(external) => Some(&external.folder),
        ServiceKind::Native(_) => None,
    });
    folders.map(|folder| Definition::load(folder, registries)).collect()
}

/// Returns the section of a component, if it makes sense.
pub(super) fn section<'a>(
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
    for entry in &section.service {
        if let ServiceKind::Native(service) = &entry.service {
            service.check()?;
        }
    }
    Ok(section)
}
