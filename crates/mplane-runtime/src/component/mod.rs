//! The component driver: runs services when the exchange says so.
//!
//! The decisions are those of [`ComponentExchange`]; this module carries its actions out,
//! keeps its time, and answers clients and supervisors.

mod offer;
mod run;
#[cfg(test)]
mod supervisor_tests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use mplane::access::{Identity, Policy};
use mplane::exchange::component::{
    Action, Budget, ComponentExchange, Cut, JobId, Outcome, Record, Reply, Saved,
    ServiceIndex,
};
use mplane::message::{Capability, Exception, Message};
use mplane::registry::Registries;
use mplane::when::When;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, info, warn};

use crate::http::Peer;
use crate::http::routes::{Answering, Page, Responder};
use crate::initiator::{Letter, Outbox};
use crate::metrics::ComponentMetrics;
use crate::service::Service;
use crate::spool::{Fill, Spool};
use crate::sqlite::WriteError;
pub use crate::timer::OpenAlarmError;
use crate::timer::{Alarm, Ring};
use crate::tls::fresh_token;

/// Why nothing new is accepted.
const FULL: &str = "the spool of this component is full; try again later";

/// How long services may take to end after they were told to stop.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// A component: services that run when asked.
pub struct Component {
    registries: Registries,
    state: Mutex<State>,
    spool: Option<Spool>,
    /// What is to be written down and then done, in order.
    batches: mpsc::UnboundedSender<Batch>,
    metrics: ComponentMetrics,
    /// Counts changes of what is offered, or to whom, so that supervisors hear of it.
    offers: watch::Sender<u64>,
    /// Tells the timer that the next deadline may have changed.
    rescheduled: Notify,
    runs: TaskTracker,
    shutdown: CancellationToken,
}

/// What changes.
#[derive(Default)]
struct State {
    exchange: ComponentExchange,
    services: BTreeMap<ServiceIndex, Arc<dyn Service>>,
    /// The stop signals of running services.
    running: BTreeMap<JobId, CancellationToken>,
    /// What tells those who wait for the result of a job that it is there. Each job has
    /// its own: many may wait, and a result is news to few of them.
    awaited: BTreeMap<JobId, CancellationToken>,
    /// Whether nothing new is accepted, because the spool is full.
    is_full: bool,
    /// Where results go that are to be posted, by who asked for them.
    outboxes: BTreeMap<Identity, Outbox>,
}

/// A service with what it may use.
#[derive(Clone)]
pub struct Offered {
    /// The service.
    pub service: Arc<dyn Service>,
    /// What it may use.
    pub budget: Budget,
}

/// What follows from one change: records to be written, then actions to be done.
struct Batch {
    records: Vec<Record>,
    /// A receipt, and where it is posted from: before the result that the actions lead to.
    receipt: Option<(Outbox, Letter)>,
    actions: Vec<Action>,
    done: oneshot::Sender<Result<(), WriteError>>,
}

impl Component {
    /// Makes a component of services, with an exchange that has its settings and offers
    /// nothing yet. It runs until `shutdown`. With a spool it goes on with what is saved
    /// there.
    pub fn new(
        services: Vec<Offered>,
        registries: Registries,
        exchange: ComponentExchange,
        spool: Option<(Spool, Vec<Saved>)>,
        shutdown: CancellationToken,
    ) -> Result<Arc<Self>, OpenAlarmError> {
        let alarm = Alarm::new()?;
        let (spool, saved) = spool.unzip();
        let (batches, queue) = mpsc::unbounded_channel();
        let component = Arc::new(Self {
            registries,
            state: Mutex::new(State { exchange, ..State::default() }),
            spool,
            batches,
            metrics: ComponentMetrics::default(),
            offers: watch::Sender::new(0),
            rescheduled: Notify::new(),
            runs: TaskTracker::new(),
            shutdown,
        });
        component.set_services(services);
        tokio::spawn(carry_out_all(Arc::clone(&component), queue));
        component.restore(saved.unwrap_or_default());
        tokio::spawn(keep_time(Arc::clone(&component), alarm));
        Ok(component)
    }

    /// Returns what is counted.
    pub const fn metrics(&self) -> &ComponentMetrics {
        &self.metrics
    }

    /// Says whether new specifications can be accepted; if not, why.
    pub fn ready(&self) -> Result<(), String> {
        if self.state().is_full { Err(FULL.into()) } else { Ok(()) }
    }

    /// Returns every capability.
    pub fn all_capabilities(&self) -> Vec<Capability> {
        self.state().exchange.capabilities().map(|(_, known)| known.clone()).collect()
    }

    /// Returns the capabilities that a peer may use.
    fn capabilities_for(&self, peer: &Identity) -> Vec<Capability> {
        self.state().exchange.capabilities_for(peer).cloned().collect()
    }

    /// Says whether some peers may use less than others of their class.
    fn is_restricting(&self) -> bool {
        self.state().exchange.policy().is_restricting()
    }

    /// Sets who may use which capability from now on. Measurements that run go on, and
    /// supervisors hear of what changes for them.
    pub fn set_policy(&self, policy: Policy) {
        if *self.state().exchange.policy() == policy {
            return;
        }
        self.state().exchange.set_policy(policy);
        self.offers.send_modify(|changes| *changes += 1);
    }

    /// Changes settings of the exchange, such as how long results are kept.
    pub fn change_settings(&self, change: impl FnOnce(&mut ComponentExchange)) {
        self.change(change);
    }

    /// Offers these services and no others from now on. What runs goes on; what waits for
    /// a service that is gone is taken over by one that can do it, or ends with an
    /// exception. Supervisors hear of it.
    pub fn set_services(&self, services: Vec<Offered>) {
        let now = Timestamp::now();
        self.change_state(
            |state| {
                let exchange = &mut state.exchange;
                let mut gone: BTreeMap<ServiceIndex, Capability> = exchange
                    .capabilities()
                    .map(|(id, known)| (id, known.clone()))
                    .collect();
                for Offered { service, budget } in services {
                    let mut capability = service.capability();
                    budget.narrow(&mut capability);
                    let same = gone.iter().find(|(_, known)| **known == capability);
                    let id = if let Some(id) = same.map(|(id, _)| *id) {
                        gone.remove(&id);
                        exchange.set_budget(id, budget);
                        id
                    } else {
                        info!(label = capability.label(), "offers a capability");
                        exchange.offer(capability, budget)
                    };
                    state.services.insert(id, service);
                }
                for (id, capability) in gone {
                    info!(label = capability.label(), "withdraws a capability");
                    exchange.withdraw(id, now);
                    state.services.remove(&id);
                }
            },
            |()| None,
        );
        self.offers.send_modify(|changes| *changes += 1);
    }

    /// Goes on with what was saved before a restart.
    fn restore(&self, saved: Vec<Saved>) {
        if saved.is_empty() {
            return;
        }
        info!(jobs = saved.len(), "goes on after a restart");
        let now = Timestamp::now();
        let cut = self.change(|exchange| exchange.restore(saved, now)).0;
        for Cut { job, started, table } in cut {
            warn!(%job, rows = table.rows(), "a measurement was cut by a restart");
            // Until when it measured is not known; its rows say until when at least.
            let when = When::between(started, now);
            let outcome = run::incomplete(&self.registries, when, table, "restarted");
            self.change(|exchange| exchange.job_ended(job, outcome, now));
        }
    }

    /// Answers a message of a peer that may use this component, without waiting for a
    /// result. What it accepts is written down first. A receipt goes to the queue for
    /// receipts, if there is one.
    async fn handle(
        &self,
        from: &Identity,
        message: Message,
        receipts: Option<&Outbox>,
    ) -> Reply {
        let now = Timestamp::now();
        let is_specification = matches!(message, Message::Specification(_));
        let (reply, written) = self.change_state(
            |state| state.exchange.handle(from, message, fresh_token(), now),
            |reply| {
                // The results so far of a repeat must not come after all of them either.
                let receipts = receipts.filter(|_| reply.pending.is_some())?;
                let message = reply.message.clone();
                let letter = Letter { to: from.clone(), about: None, message };
                Some((receipts.clone(), letter))
            },
        );
        if let Some(withheld) = &reply.withheld {
            warn!(peer = %from, %withheld, "refused by the access rules");
        }
        let Err(error) = written.await.unwrap_or(Err(WriteError::Closed)) else {
            match &reply.message {
                Message::Exception(_) => self.metrics.refused.inc(),
                _ if is_specification => self.metrics.accepted.inc(),
                _ => 0,
            };
            return reply;
        };
        if !is_specification {
            return reply;
        }
        // Only one that is new had anything to be written.
        if let Some(job) = reply.pending {
            self.change(|exchange| exchange.take_back(job, now));
            self.state().awaited.remove(&job);
        }
        let text = format!("this component cannot store what it accepts: {error}");
        let exception = Exception::new(reply.message.token(), text);
        Reply { message: exception.into(), pending: None, withheld: None }
    }

    /// Returns what is cancelled when the result of a job is there; `None` if it is.
    fn delivery(&self, job: JobId) -> Option<CancellationToken> {
        let mut state = self.state();
        let is_awaited = state.exchange.is_active(job);
        is_awaited.then(|| state.awaited.entry(job).or_default().clone())
    }

    /// Waits until every run has ended and all is written, after `shutdown`; cuts what
    /// takes too long.
    pub async fn ended(&self) {
        self.shutdown.cancelled().await;
        self.runs.close();
        if tokio::time::timeout(STOP_GRACE, self.runs.wait()).await.is_err() {
            warn!("services were cut: they did not stop in time");
        }
        let ((), written) = self.change(|_| ());
        if !matches!(written.await, Ok(Ok(()))) {
            warn!("not all could be written before the end");
        }
    }

    /// Locks the state. A panic elsewhere leaves it whole: every change is one call.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the exchange; what follows is written and done in the order of changes.
    /// Returns what tells when it is.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut ComponentExchange) -> T,
    ) -> (T, oneshot::Receiver<Result<(), WriteError>>) {
        self.change_state(|state| change(&mut state.exchange), |_| None)
    }

    /// Changes the exchange and what belongs to it, which may yield a receipt.
    fn change_state<T>(
        &self,
        change: impl FnOnce(&mut State) -> T,
        receipt: impl FnOnce(&T) -> Option<(Outbox, Letter)>,
    ) -> (T, oneshot::Receiver<Result<(), WriteError>>) {
        let mut state = self.state();
        let changed = change(&mut state);
        let (mut records, mut actions) = (Vec::new(), Vec::new());
        while let Some(action) = state.exchange.poll_action() {
            match action {
                Action::Persist(record) => records.push(record),
                other => actions.push(other),
            }
        }
        let receipt = receipt(&changed);
        let (done, written) = oneshot::channel();
        // The receiver lives as long as the component. Sending while the state is locked
        // keeps the order.
        if self.batches.send(Batch { records, receipt, actions, done }).is_err() {
            debug!("nothing is done any more");
        }
        let active = state.exchange.active_jobs();
        drop(state);
        self.metrics.active.set(i64::try_from(active).unwrap_or(i64::MAX));
        self.rescheduled.notify_one();
        (changed, written)
    }

    /// Keeps the spool within its size: forgets results that their owners have, and takes
    /// nothing new while there are none. What has not reached its owner is given up last,
    /// for what was accepted and still runs.
    fn bound_spool(&self) {
        let Some(spool) = &self.spool else { return };
        let fill = spool.fill();
        let mut state = self.state();
        let State { exchange, is_full, .. } = &mut *state;
        match fill {
            Fill::Low if *is_full => {
                info!("the spool has room again");
                *is_full = false;
                exchange.set_full(None);
            }
            Fill::Middle if *is_full => {}
            Fill::Low | Fill::Middle => return,
            Fill::High | Fill::Over => {
                if !std::mem::replace(is_full, true) {
                    warn!(used_bytes = spool.used_bytes(), FULL);
                    exchange.set_full(Some(FULL.into()));
                }
            }
        }
        let is_over = fill == Fill::Over;
        let forgotten = (0..FORGOTTEN_AT_ONCE)
            .take_while(|_| *is_full && exchange.make_room(is_over))
            .count();
        drop(state);
        if forgotten > 0 {
            // Writing that down comes by here again.
            self.change(|_| ());
        }
    }

    /// Does what the exchange wants done.
    fn carry_out(self: &Arc<Self>, action: Action) {
        match action {
            Action::Persist(_) => {}
            Action::Start { job, service, specification, due, duration, .. } => {
                let stop = self.shutdown.child_token();
                let mut state = self.state();
                let service = state.services.get(&service).map(Arc::clone);
                state.running.insert(job, stop.clone());
                drop(state);
                let component = Arc::clone(self);
                self.runs.spawn(async move {
                    let outcome = component
                        .run(job, service, *specification, due, duration, stop)
                        .await;
                    component.state().running.remove(&job);
                    let now = Timestamp::now();
                    component.change(|exchange| exchange.job_ended(job, outcome, now));
                });
            }
            Action::Stop { job } => {
                if let Some(stop) = self.state().running.get(&job) {
                    stop.cancel();
                }
            }
            Action::Deliver { job, owner, message, .. } => {
                info!(%job, %owner, kind = %message.kind(), "finished");
                self.metrics.count_finished(!matches!(*message, Message::Exception(_)));
                let mut state = self.state();
                let letter = Letter {
                    to: owner.clone(),
                    about: Some(job.number()),
                    message: *message,
                };
                if let Some(outbox) = state.outboxes.get(&owner)
                    && outbox.send(letter).is_err()
                {
                    state.outboxes.remove(&owner);
                }
                if let Some(delivery) = state.awaited.remove(&job) {
                    delivery.cancel();
                }
            }
        }
    }
}

/// Writes and does what follows from changes, in their order. Changes that come during a
/// write form the next one.
async fn carry_out_all(
    component: Arc<Component>,
    mut queue: mpsc::UnboundedReceiver<Batch>,
) {
    let mut batches = Vec::new();
    while queue.recv_many(&mut batches, BATCHES).await > 0 {
        let posted: Arc<BTreeSet<_>> =
            Arc::new(component.state().outboxes.keys().cloned().collect());
        // All are on their way before the first is waited for: one commit takes them. What
        // need not wait for it starts meanwhile.
        let mut accepted: Vec<Vec<JobId>> = Vec::with_capacity(batches.len());
        let writes: Vec<_> = batches
            .iter_mut()
            .map(|batch| {
                accepted
                    .push(batch.records.iter().filter_map(Record::accepted).collect());
                let is_free = |action: &mut Action| {
                    matches!(action, Action::Start { is_after_record: false, .. })
                };
                let write = match &component.spool {
                    Some(spool) if !batch.records.is_empty() => {
                        let records = std::mem::take(&mut batch.records);
                        Some(spool.write(records, Arc::clone(&posted)))
                    }
                    _ => None,
                };
                for action in batch.actions.extract_if(.., is_free) {
                    component.carry_out(action);
                }
                write
            })
            .collect();
        // Jobs that are taken back by who has accepted them, since that is not written.
        let mut taken_back = BTreeSet::new();
        let batches = batches.drain(..).zip(accepted);
        for ((Batch { receipt, actions, done, .. }, accepted), write) in
            batches.zip(writes)
        {
            let written = match write {
                Some(write) => write.durable().await,
                None => Ok(()),
            };
            if let Err(error) = &written {
                error!(%error, "the spool cannot be written");
                component.metrics.spool_failures.inc();
                taken_back.extend(accepted);
            }
            component.bound_spool();
            if written.is_ok()
                && let Some((outbox, letter)) = receipt
                && outbox.send(letter).is_err()
            {
                debug!("the end has come before a receipt was sent");
            }
            for action in actions {
                match (&written, action) {
                    (_, Action::Start { job, .. }) if taken_back.contains(&job) => {}
                    // What is not written down must not start.
                    (Err(error), Action::Start { job, .. }) => {
                        let text =
                            format!("this component cannot store its start: {error}");
                        let (outcome, now) = (Outcome::Failed(text), Timestamp::now());
                        component.change(|it| it.job_ended(job, outcome, now));
                    }
                    // Results are still told to who is there, and stay in memory.
                    (_, action) => component.carry_out(action),
                }
            }
            // Most changes have nobody who waits for them.
            let _nobody = done.send(written).is_err();
        }
    }
}

/// Changes written in one go at most.
const BATCHES: usize = 500;

/// Results forgotten at once when the spool is full: it is looked at again then.
const FORGOTTEN_AT_ONCE: usize = 10;

/// Starts and stops jobs when their time comes.
async fn keep_time(component: Arc<Component>, mut alarm: Alarm) {
    loop {
        let deadline = component.state().exchange.poll_timeout();
        if let Err(error) = alarm.set(deadline) {
            error!(%error, "the timer cannot be set");
        }
        tokio::select! {
            ring = alarm.ring() => {
                if ring == Ring::ClockSet {
                    warn!("the clock was set: absolute times are looked at again");
                }
                component.change(|exchange| exchange.handle_timeout(Timestamp::now()));
            }
            () = component.rescheduled.notified() => {}
            () = component.shutdown.cancelled() => return,
        }
    }
}

/// A component as its listening side shows it.
pub struct Listening(pub Arc<Component>);

impl Responder for Listening {
    fn capabilities(&self, peer: &Peer, _: u64) -> Page {
        let mut capabilities = self.0.capabilities_for(&peer.identity);
        capabilities.retain(|capability| peer.features.can_read(capability));
        Page { capabilities, next: None }
    }

    fn capability(&self, peer: &Peer, token: &str) -> Option<Capability> {
        let mut capabilities = self.capabilities(peer, 0).capabilities.into_iter();
        capabilities.find(|known| known.token().as_str() == token)
    }

    fn respond<'a>(
        &'a self,
        peer: &'a Peer,
        message: Message,
        wait: Duration,
    ) -> Answering<'a> {
        Box::pin(async move {
            let reply = self.0.handle(&peer.identity, message, None).await;
            let (Some(job), Some(token)) = (reply.pending, reply.message.token()) else {
                return Ok(reply.message);
            };
            if wait.is_zero() {
                return Ok(reply.message);
            }
            if let Some(delivery) = self.0.delivery(job) {
                tokio::select! {
                    () = delivery.cancelled() => {}
                    // A repeat may have come further.
                    () = tokio::time::sleep(wait) => {}
                    () = self.0.shutdown.cancelled() => return Ok(reply.message),
                }
            }
            let redemption = mplane::message::Redemption::token_only("measure", token);
            Ok(self.0.handle(&peer.identity, redemption.into(), None).await.message)
        })
    }

    fn registries(&self) -> &Registries {
        &self.0.registries
    }
}
