//! How a supervisor is started, and what it takes over when its configuration changes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::SignedDuration;
use mplane_runtime::config::SupervisorConfig;
use mplane_runtime::http::server::{listen, serve};
use mplane_runtime::shutdown::Reloads;
use mplane_runtime::tls::Credentials;
use mplane_runtime::{metrics, report};
use mplane_supervisor::server::{Settings, Supervisor};
use mplane_supervisor::store::{Retention, Store};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Config, Running, identity, load, no, tell_metrics, transport};
use crate::{Failure, Told};

/// A supervisor that runs, and what it was configured to be.
struct Live {
    path: PathBuf,
    config: Config,
    credentials: Option<Arc<Credentials>>,
    supervisor: Arc<Supervisor>,
    tasks: JoinSet<()>,
}

/// Starts a supervisor. It runs until `shutdown`.
pub async fn start_supervisor(
    config: &Config,
    path: &Path,
    shutdown: CancellationToken,
) -> Result<Running, Failure> {
    let (live, address) = start(config, path, &shutdown).await?;
    Ok(Running { address: Some(address), tasks: live.tasks })
}

/// Runs a supervisor until `shutdown`, and reads its configuration again when it is asked
/// to.
pub(super) async fn run_supervisor(
    config: &Config,
    path: &Path,
    shutdown: CancellationToken,
) -> Result<(), Failure> {
    let mut reloads = Reloads::listen()?;
    let (mut live, _) = start(config, path, &shutdown).await?;
    loop {
        tokio::select! {
            () = reloads.next() => match live.reload() {
                Ok(()) => info!("has read its configuration again"),
                Err(Failure::Failed(failure)) => {
                    let problem = report(&*failure);
                    error!(problem, "goes on with the configuration that it had");
                }
                Err(other) => return Err(other),
            },
            ended = live.tasks.join_next() => match ended {
                Some(ended) => ended?,
                None => return Ok(()),
            },
        }
    }
}

/// Starts a supervisor; returns where peers reach it.
async fn start(
    config: &Config,
    path: &Path,
    shutdown: &CancellationToken,
) -> Result<(Live, SocketAddr), Failure> {
    let section = section(config, path)?;
    let credentials = config.credentials()?;
    let registries = config.registries.load()?;
    let transport = transport(&section.listener, credentials.as_ref(), path)?;
    let listener = listen(section.listener.address).await?;
    let address = listener.local_addr()?;
    let second = match &section.component_listener {
        Some(second) => {
            let transport = super::transport(second, credentials.as_ref(), path)?;
            Some((listen(second.address).await?, transport))
        }
        None => None,
    };
    let (folder, temporary) = if let Some(folder) = &section.data {
        (folder.clone(), None)
    } else {
        let folder = temporary()?;
        warn!("nothing is kept over a restart: supervisor.data names no folder");
        (folder.path().to_owned(), Some(folder))
    };
    let (policy, settings) = (config.access.clone(), settings(section));
    let (store, until) = (Store::open(&folder)?, shutdown.clone());
    let supervisor = Supervisor::new(store, registries, policy, settings, until).await?;
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
    tasks.spawn(serve(listener, transport, supervisor.router(), shutdown.clone()));
    tasks.spawn({
        let supervisor = Arc::clone(&supervisor);
        async move {
            supervisor.ended().await;
            drop(temporary);
        }
    });
    let (path, config) = (path.to_owned(), config.clone());
    Ok((Live { path, config, credentials, supervisor, tasks }, address))
}

/// Makes a folder that is removed at the end.
fn temporary() -> Result<TempDir, Failure> {
    Ok(tempfile::Builder::new().prefix("mplane-supervisor-").tempdir()?)
}

impl Live {
    /// Reads the configuration again and takes over what can change while the supervisor
    /// runs. If anything in it is wrong, nothing changes.
    fn reload(&mut self) -> Result<(), Failure> {
        let config = load(&self.path)?;
        let new = section(&config, &self.path)?;
        match (&self.credentials, config.credentials()?) {
            (Some(current), Some(new)) => current.replace(&new)?,
            (None, None) => {}
            _ => warn_of_restart("tls"),
        }
        self.supervisor.set_policy(config.access.clone());
        self.supervisor.set_settings(settings(new));
        let listens = |section: &SupervisorConfig| {
            [Some(&section.listener), section.component_listener.as_ref()]
                .map(|known| known.map(|known| (known.address, known.plain_http)))
        };
        let tells = |config: &Config| config.metrics.as_ref().map(|known| known.address);
        let before = section(&self.config, &self.path)?;
        for (key, has_changed) in [
            ("supervisor.listener", listens(before) != listens(new)),
            ("supervisor.data", before.data != new.data),
            ("metrics", tells(&self.config) != tells(&config)),
            (
                "registries.preload",
                self.config.registries.preload != config.registries.preload,
            ),
        ] {
            if has_changed {
                warn_of_restart(key);
            }
        }
        self.config = config;
        Ok(())
    }
}

/// Says that a key has changed and is not taken over.
fn warn_of_restart(key: &str) {
    warn!(key, "has changed, which takes effect when the supervisor is restarted");
}

/// Returns the section of a supervisor, if it makes sense.
pub(super) fn section<'a>(
    config: &'a Config,
    path: &Path,
) -> Result<&'a SupervisorConfig, Failure> {
    let section = config.supervisor.as_ref().ok_or_else(|| no(path, "supervisor"))?;
    if section.story_age < section.result_age {
        return Err(Told(format!(
            "{}: supervisor.story-age is shorter than result-age; a story is kept as long as \
             its result at least",
            path.display()
        ))
        .into());
    }
    Ok(section)
}

/// Returns how a supervisor works.
fn settings(section: &SupervisorConfig) -> Settings {
    Settings {
        expiry: SignedDuration::try_from(section.component_expiry)
            .unwrap_or(SignedDuration::MAX),
        retention: Retention {
            results: section.result_age,
            stories: section.story_age,
            client_bytes: section.client_max_bytes,
            component_bytes: section.component_max_bytes,
        },
        queue: section.queue,
    }
}
