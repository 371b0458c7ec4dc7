//! How a supervisor is started, and what it takes over when its configuration changes.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use jiff::SignedDuration;
use mplane_runtime::config::{SupervisorConfig, UnknownComponent};
use mplane_runtime::http::client::HttpClient;
use mplane_runtime::http::server::{listen, serve};
use mplane_runtime::initiator::{Initiator, initiate};
use mplane_runtime::metrics;
use mplane_runtime::shutdown::Reloads;
use mplane_runtime::tls::Credentials;
use mplane_supervisor::caller::{Callee, call};
use mplane_supervisor::relay::HandOut;
use mplane_supervisor::server::{Settings, Supervisor};
use mplane_supervisor::store::{Retention, Room, Store};
use mplane_supervisor::upward::Upward;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Config, Entries, Running, Source, identity, no, tell_metrics, tell_reload, transport,
    warn_of_plain,
};
use crate::{Failure, Told};

/// A supervisor that runs, and what it was configured to be.
struct Live {
    source: Source,
    config: Config,
    credentials: Option<Arc<Credentials>>,
    supervisor: Arc<Supervisor>,
    shutdown: CancellationToken,
    /// The calls of components that listen.
    callees: Entries,
    /// The registrations with other supervisors.
    initiators: Entries,
    tasks: JoinSet<()>,
}

/// Starts a supervisor. It runs until `shutdown`.
pub async fn start_supervisor(
    config: &Config,
    path: &Path,
    shutdown: CancellationToken,
) -> Result<Running, Failure> {
    let source = Source::File(path.to_owned());
    let (live, address) = Box::pin(start(config, source, &shutdown)).await?;
    Ok(Running { address: Some(address), tasks: live.tasks })
}

/// Runs a supervisor until `shutdown`, and reads its configuration again when it is asked
/// to.
pub(super) async fn run_supervisor(
    config: &Config,
    source: Source,
    shutdown: CancellationToken,
) -> Result<(), Failure> {
    let mut reloads = Reloads::listen()?;
    let (mut live, _) = start(config, source, &shutdown).await?;
    loop {
        tokio::select! {
            () = reloads.next() => tell_reload(live.reload())?,
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
    source: Source,
    shutdown: &CancellationToken,
) -> Result<(Live, SocketAddr), Failure> {
    let path = source.path();
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
    let ready = Arc::clone(&supervisor);
    let ready: metrics::Ready = Arc::new(move || ready.relay().ready());
    let register = |registry: &mut _| supervisor.relay().metrics().register(registry);
    tell_metrics(config, &mut tasks, register, ready, shutdown).await?;
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
    let (config, peers_of) = (config.clone(), section.clone());
    let mut live = Live {
        source,
        config,
        credentials,
        supervisor,
        shutdown: shutdown.clone(),
        callees: Entries::default(),
        initiators: Entries::default(),
        tasks,
    };
    live.set_peers(&peers_of);
    Ok((live, address))
}

/// Makes a folder that is removed at the end.
fn temporary() -> Result<TempDir, Failure> {
    Ok(tempfile::Builder::new().prefix("mplane-supervisor-").tempdir()?)
}

impl Live {
    /// Calls these components, and registers with these supervisors, and no others from now
    /// on.
    fn set_peers(&mut self, section: &SupervisorConfig) {
        let callees = section.component.iter().map(|it| (it.url.to_string(), &it.url));
        self.callees.set(callees, |url| {
            warn_of_plain(url);
            let end = self.shutdown.child_token();
            let callee =
                Callee { url: url.clone(), credentials: self.credentials.clone() };
            self.tasks.spawn(call(Arc::clone(&self.supervisor), callee, end.clone()));
            end
        });
        let initiators = section.initiator.iter();
        let initiators = initiators.map(|it| (format!("{} {:?}", it.url, it.poll), it));
        self.initiators.set(initiators, |config| {
            warn_of_plain(&config.url);
            let end = CancellationToken::new();
            let initiator =
                Initiator { supervisor: config.url.clone(), poll: config.poll };
            let client = Arc::new(HttpClient::new(self.credentials.clone()));
            let (supervisor, identity) =
                (Arc::clone(&self.supervisor), client.identity().clone());
            let upward = Upward::new(supervisor, identity, self.shutdown.clone());
            self.tasks.spawn(initiate(upward, client, initiator, end.clone()));
            end
        });
    }

    /// Reads the configuration again and takes over what can change while the supervisor
    /// runs. If anything in it is wrong, nothing changes.
    fn reload(&mut self) -> Result<(), Failure> {
        let config = self.source.load()?;
        let new = section(&config, self.source.path())?;
        match (&self.credentials, config.credentials()?) {
            (Some(current), Some(new)) => current.replace(&new)?,
            (None, None) => {}
            _ => warn_of_restart("tls"),
        }
        self.supervisor.set_policy(config.access.clone());
        self.supervisor.set_settings(settings(new));
        self.set_peers(new);
        let listens = |section: &SupervisorConfig| {
            [Some(&section.listener), section.component_listener.as_ref()]
                .map(|known| known.map(|known| (known.address, known.plain_http)))
        };
        let tells = |config: &Config| config.metrics.as_ref().map(|known| known.address);
        let before = section(&self.config, self.source.path())?;
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
        hand_outs: section
            .hand_out
            .iter()
            .map(|set| HandOut {
                components: set.components.clone(),
                lease: set.again.then_some(set.after),
            })
            .collect(),
        retention: Retention {
            results: section.result_age,
            stories: section.story_age,
            client_bytes: section.client_max_bytes,
            component_bytes: section.component_max_bytes,
        },
        room: Room { queue: section.queue, client: section.client_specifications },
        is_428: section.unknown_component == UnknownComponent::PreconditionRequired,
    }
}
