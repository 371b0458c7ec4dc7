//! A component as supervisors see it that it calls.

use mplane::access::Identity;
use mplane::exchange::component::JobId;
use mplane::message::{Capability, Exception, Message};
use mplane::registry::Registries;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

use super::Component;
use crate::initiator::{Later, Letter, Offerer, Outbox};

impl Offerer for Component {
    fn registries(&self) -> &Registries {
        &self.registries
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.offers.subscribe()
    }

    fn offered_to_all(&self) -> Option<Vec<Capability>> {
        (!self.is_restricting()).then(|| self.all_capabilities())
    }

    fn offered_to(&self, supervisor: &Identity) -> Vec<Capability> {
        self.capabilities_for(supervisor)
    }

    fn registered(&self) {
        self.metrics.registrations.inc();
    }

    fn deliver_to(&self, supervisor: &Identity, outbox: &Outbox) {
        let mut state = self.state();
        if state.outboxes.insert(supervisor.clone(), outbox.clone()).is_some() {
            return;
        }
        for (job, message) in state.exchange.undelivered(supervisor) {
            let letter = Letter {
                to: supervisor.clone(),
                about: Some(job.number()),
                message: message.clone(),
            };
            if outbox.send(letter).is_err() {
                return;
            }
        }
    }

    fn answer<'a>(
        &'a self,
        supervisor: &'a Identity,
        message: Message,
        outbox: &'a Outbox,
    ) -> Later<'a> {
        Box::pin(async move {
            let (label, token) =
                (message.label().map(ToOwned::to_owned), message.token());
            let is_specification = matches!(message, Message::Specification(_));
            let is_interrupt = matches!(message, Message::Interrupt(_));
            let mut reply = self.handle(supervisor, message, Some(outbox)).await;
            if is_specification && let Message::Withdrawal(withdrawal) = &reply.message {
                // The supervisor has had the withdrawal; this is about the specification.
                let label = withdrawal.label().unwrap_or_default();
                let text = format!("the component has withdrawn the capability {label}");
                reply.message = Exception::new(token.clone(), text).into();
            }
            if is_specification && let (Some(job), Some(token)) = (reply.pending, token) {
                info!(%job, label, %token, "accepted a specification");
            }
            // Receipts are on their way, and what an interrupt ends the exchange delivers.
            let delivered = match reply.message {
                _ if reply.pending.is_some() => true,
                Message::Result(_) | Message::Envelope(_) => is_interrupt,
                _ => false,
            };
            let (to, message) = (supervisor.clone(), reply.message);
            let letter = Letter { to, about: None, message };
            if !delivered && outbox.send(letter).is_err() {
                debug!("the end has come before a receipt was sent");
            }
        })
    }

    fn delivered(&self, letter: &Letter) {
        if let Some(job) = letter.about {
            self.metrics.delivered.inc();
            self.change(|exchange| exchange.job_delivered(JobId::from_number(job)));
        }
    }

    /// It goes to the dead letters.
    fn give_up<'a>(
        &'a self,
        receiver: &'a Identity,
        letter: Letter,
        reason: String,
    ) -> Later<'a> {
        Box::pin(async move {
            let Some(job) = letter.about else { return };
            self.metrics.dead_letters.inc();
            if let Some(spool) = &self.spool
                && let Err(error) =
                    spool.bury(receiver.clone(), letter.message, reason).await
            {
                error!(%error, "a dead letter cannot be stored");
            }
            self.change(|exchange| exchange.job_delivered(JobId::from_number(job)));
        })
    }

    /// The job is not marked as delivered: it is there when its owner registers it again.
    fn take_back(&self, letter: Letter) {
        self.state().outboxes.remove(&letter.to);
        debug!(owner = %letter.to, job = letter.about, "is kept for its owner");
    }

    fn close_outbox(&self, outbox: &Outbox) {
        self.state().outboxes.retain(|_, known| !known.is_same(outbox));
    }

    fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    fn ended(&self) -> Later<'_> {
        Box::pin(Self::ended(self))
    }
}
