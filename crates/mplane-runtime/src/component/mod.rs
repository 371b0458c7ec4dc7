//! The component driver: runs services when the exchange says so.
//!
//! The decisions are those of [`ComponentExchange`]; this module carries its actions out,
//! keeps its time, and answers clients. [`initiator`] registers with supervisors and
//! fetches specifications from them.

pub mod initiator;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use mplane::access::{Act, Identity, permit};
use mplane::exchange::component::{Action, ComponentExchange, JobId, Outcome, Reply};
use mplane::message::{Capability, Exception, Message, Specification};
use mplane::primitive::Value;
use mplane::registry::{PLATFORM, Registries};
use mplane::when::When;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::http::Peer;
use crate::http::routes::Responder;
use crate::service::{Completed, Rows, RunError, Service, Work};
use crate::tls::fresh_token;

/// How long services may take to end after they were told to stop.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// A component: services that run when asked.
pub struct Component {
    services: Vec<Arc<dyn Service>>,
    registries: Registries,
    state: Mutex<State>,
    /// Counts deliveries, so that who waits for a result looks again.
    deliveries: watch::Sender<u64>,
    /// Tells the timer that the next deadline may have changed.
    rescheduled: Notify,
    runs: TaskTracker,
    shutdown: CancellationToken,
}

/// What changes.
#[derive(Default)]
struct State {
    exchange: ComponentExchange,
    /// The stop signals of running services.
    running: BTreeMap<JobId, CancellationToken>,
    /// Where results go that are to be posted, by who asked for them.
    outboxes: BTreeMap<Identity, mpsc::UnboundedSender<Message>>,
}

impl Component {
    /// Makes a component of services. It runs until `shutdown`.
    pub fn new(
        services: Vec<Arc<dyn Service>>,
        registries: Registries,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        let mut state = State::default();
        for service in &services {
            let capability = service.capability();
            info!(label = capability.label(), "offers a capability");
            state.exchange.offer(capability);
        }
        let component = Arc::new(Self {
            services,
            registries,
            state: Mutex::new(state),
            deliveries: watch::Sender::new(0),
            rescheduled: Notify::new(),
            runs: TaskTracker::new(),
            shutdown,
        });
        tokio::spawn(keep_time(Arc::clone(&component)));
        component
    }

    /// Returns every capability.
    pub fn all_capabilities(&self) -> Vec<Capability> {
        self.state().exchange.capabilities().to_vec()
    }

    /// Answers a message of a peer that may use this component, without waiting.
    fn handle(self: &Arc<Self>, from: &Identity, message: Message) -> Reply {
        let now = Timestamp::now();
        let mut state = self.state();
        let reply = state.exchange.handle(from, message, fresh_token(), now);
        self.carry_out(&mut state);
        reply
    }

    /// Sends results that this peer asked for into a queue, to be posted to it.
    fn deliver_to(&self, peer: Identity, outbox: mpsc::UnboundedSender<Message>) {
        self.state().outboxes.insert(peer, outbox);
    }

    /// Waits until every run has ended, after `shutdown`; cuts what takes too long.
    pub async fn ended(&self) {
        self.shutdown.cancelled().await;
        self.runs.close();
        if tokio::time::timeout(STOP_GRACE, self.runs.wait()).await.is_err() {
            warn!("services were cut: they did not stop in time");
        }
    }

    /// Locks the state. A panic elsewhere leaves it whole: every change is one call.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out what the exchange wants done.
    fn carry_out(self: &Arc<Self>, state: &mut State) {
        while let Some(action) = state.exchange.poll_action() {
            match action {
                Action::Start { job, service, specification, duration } => {
                    let stop = self.shutdown.child_token();
                    state.running.insert(job, stop.clone());
                    let service = Arc::clone(&self.services[service]);
                    let component = Arc::clone(self);
                    self.runs.spawn(async move {
                        let registries = &component.registries;
                        let run =
                            run(service, *specification, duration, stop, registries);
                        let outcome = run.await;
                        component.ended_with(job, outcome);
                    });
                }
                Action::Stop { job } => {
                    if let Some(stop) = state.running.get(&job) {
                        stop.cancel();
                    }
                }
                Action::Deliver { job, owner, message, .. } => {
                    info!(%job, %owner, kind = %message.kind(), "finished");
                    if let Some(outbox) = state.outboxes.get(&owner)
                        && outbox.send(*message).is_err()
                    {
                        state.outboxes.remove(&owner);
                    }
                    self.deliveries.send_modify(|count| *count += 1);
                }
            }
        }
        self.rescheduled.notify_one();
    }

    /// Takes note of what became of a run.
    fn ended_with(self: &Arc<Self>, job: JobId, outcome: Outcome) {
        let mut state = self.state();
        state.running.remove(&job);
        state.exchange.job_ended(job, outcome, Timestamp::now());
        self.carry_out(&mut state);
    }
}

/// Runs a service; a service that panics fails alone.
async fn run(
    service: Arc<dyn Service>,
    specification: Specification,
    duration: Option<Duration>,
    stop: CancellationToken,
    registries: &Registries,
) -> Outcome {
    let rows = Rows::new(&specification);
    let work = Work { specification, duration, rows: rows.clone(), stop };
    let started = Timestamp::now();
    let ended = catch_panic(service.run(work)).await;
    let (table, when) = (rows.take(), When::between(started, Timestamp::now()));
    match ended {
        Ok(Completed { metadata }) => Outcome::Measured { when, table, metadata },
        Err(RunError(reason)) if table.rows() == 0 => Outcome::Failed(reason),
        // What was measured is a result; what kept it from being more stands beside it.
        Err(RunError(reason)) => {
            warn!(reason, rows = table.rows(), "a measurement is incomplete");
            let element = registries.element(PLATFORM, "measurement.incomplete");
            let reason = Value::String(reason.into());
            let metadata = element.map(|element| (Arc::clone(element), Some(reason)));
            Outcome::Measured { when, table, metadata: metadata.into_iter().collect() }
        }
    }
}

/// Turns a panic of a future into an error.
async fn catch_panic<T>(
    mut future: Pin<Box<dyn Future<Output = Result<T, RunError>> + Send + '_>>,
) -> Result<T, RunError> {
    std::future::poll_fn(move |context| {
        let poll = || future.as_mut().poll(context);
        std::panic::catch_unwind(AssertUnwindSafe(poll)).unwrap_or_else(|panic| {
            let reason = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("without a reason");
            error!(reason, "a service panicked");
            std::task::Poll::Ready(Err(RunError("the service failed inside".into())))
        })
    })
    .await
}

/// Starts and stops jobs when their time comes.
async fn keep_time(component: Arc<Component>) {
    loop {
        let deadline = component.state().exchange.poll_timeout();
        let sleep = async {
            match deadline {
                Some(deadline) => {
                    let wait = deadline.duration_since(Timestamp::now());
                    tokio::time::sleep(wait.try_into().unwrap_or_default()).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep => {
                let mut state = component.state();
                state.exchange.handle_timeout(Timestamp::now());
                component.carry_out(&mut state);
            }
            () = component.rescheduled.notified() => {}
            () = component.shutdown.cancelled() => return,
        }
    }
}

/// A component as its listening side shows it.
pub struct Listening(pub Arc<Component>);

impl Responder for Listening {
    fn capabilities(&self, peer: &Peer) -> Vec<Capability> {
        if let Err(denied) = permit(&peer.identity, Act::Use) {
            info!(%denied, "shows no capabilities");
            return Vec::new();
        }
        let mut capabilities = self.0.all_capabilities();
        capabilities.retain(|capability| peer.features.can_read(capability));
        capabilities
    }

    fn respond<'a>(
        &'a self,
        peer: &'a Peer,
        message: Message,
        wait: Duration,
    ) -> Pin<Box<dyn Future<Output = Message> + Send + 'a>> {
        Box::pin(async move {
            if let Err(denied) = permit(&peer.identity, Act::Use) {
                info!(%denied, "refused a message");
                let token = message.token().unwrap_or_else(fresh_token);
                return Exception::new(Some(token), denied.to_string()).into();
            }
            let mut deliveries = self.0.deliveries.subscribe();
            let mut reply = self.0.handle(&peer.identity, message);
            let Some(token) = reply.pending.and_then(|_| reply.message.token()) else {
                return reply.message;
            };
            let deadline = tokio::time::Instant::now() + wait;
            while reply.pending.is_some() && !wait.is_zero() {
                let waited = tokio::time::timeout_at(deadline, deliveries.changed());
                let stopped = self.0.shutdown.cancelled();
                tokio::select! {
                    waited = waited => if !matches!(waited, Ok(Ok(()))) { break },
                    () = stopped => break,
                }
                let redemption =
                    mplane::message::Redemption::token_only("measure", token.clone());
                reply = self.0.handle(&peer.identity, redemption.into());
            }
            reply.message
        })
    }

    fn registries(&self) -> &Registries {
        &self.0.registries
    }
}
