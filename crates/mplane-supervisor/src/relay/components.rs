//! What components are answered: they register, fetch what is for them, and report.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mplane::access::{CapabilityName, Identity, Withheld};
use mplane::features::Features;
use mplane::json;
use mplane::message::{
    CALLBACK, Interrupt, Message, Redemption, Specification, Statement,
};
use mplane::primitive::Value;
use mplane::registry::{CORE, Registries};
use mplane::when::When;
use tracing::{info, warn};

use super::Relay;
use crate::directory::{About, Dialect, RegisterError};
use crate::life::Effect;
use crate::metrics::Transaction;
use crate::store::{AFTER_INTERRUPT, Handed, Reported, StoreError};

/// How often components come that are told when, in seconds: as often as references do when
/// nobody tells them.
const CALLBACK_PERIOD_S: u64 = 5;

impl Relay {
    /// Takes note of a capability or a withdrawal of a component.
    pub async fn register(
        &self,
        from: &Identity,
        message: Message,
        features: Features,
        dialect: Dialect,
        now: Timestamp,
    ) -> Result<(), OfferError> {
        match message {
            Message::Capability(mut capability) => {
                if dialect == Dialect::Array && capability.when().is_moment() {
                    // What they write for "any time".
                    capability.set_when(When::now_to_future());
                }
                let place = {
                    let mut shared = self.shared();
                    shared.policy.permit_offer(from, &CapabilityName::of(&capability))?;
                    // Many of one message are on their way at once.
                    let others =
                        shared.registering.get(from).copied().unwrap_or_default();
                    let takes_a_place =
                        shared.directory.check(from, &capability, others)?;
                    takes_a_place.then(|| {
                        *shared.registering.entry(from.clone()).or_default() += 1;
                        Registering { relay: self, from: from.clone() }
                    })
                };
                let storing =
                    self.store.register(from, &capability, features, dialect, now);
                let stored = self.timed(Transaction::register, storing).await;
                drop(place);
                let mut shared = self.shared();
                if stored.is_err() {
                    shared.directory.registration_failed(from);
                }
                stored?;
                shared.directory.arrive(from, features, dialect, now, now);
                let is_new = shared.directory.register(from, capability);
                drop(shared);
                self.metrics.registrations.inc();
                if is_new {
                    self.offers_changed();
                }
                Ok(())
            }
            Message::Withdrawal(withdrawal) => {
                let token = withdrawal.token();
                self.store.withdraw(from, token, "withdrawn", now).await?;
                if self.shared().directory.withdraw(from, token) {
                    self.offers_changed();
                }
                Ok(())
            }
            other => Err(OfferError::Kind(other.kind().key())),
        }
    }

    /// Takes note that a component registers capabilities, from the first of all that it
    /// offers on if this `begins` with it. Returns the round that is to be named at its end.
    pub fn registration(&self, from: &Identity, begins: bool) -> u64 {
        self.shared().directory.registration(from, begins)
    }

    /// Takes note that a component has registered all that it offers: what it offered before
    /// the round began is not offered any more.
    pub async fn registration_ends(
        &self,
        from: &Identity,
        round: u64,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let gone = self.shared().directory.before_round(from, round);
        for token in &gone {
            if !self.shared().directory.is_before_round(from, token, round) {
                continue;
            }
            self.store.withdraw(from, token, "not offered any more", now).await?;
            let again = {
                let mut shared = self.shared();
                if shared.directory.is_before_round(from, token, round) {
                    shared.directory.withdraw(from, token);
                    continue;
                }
                shared.directory.offers(from, token)
            };
            // It was registered once more meanwhile.
            if let Some((capability, features, dialect)) = again {
                self.store.register(from, &capability, features, dialect, now).await?;
            }
        }
        if !gone.is_empty() {
            info!(component = %from, capabilities = gone.len(), "does not offer any more");
            self.offers_changed();
        }
        Ok(())
    }

    /// Takes note of what else is known of a component.
    pub async fn describe(
        &self,
        from: &Identity,
        about: About,
    ) -> Result<(), StoreError> {
        if self.shared().directory.describe(from, about.clone()) {
            self.store.describe(from, about).await?;
        }
        Ok(())
    }

    /// Takes note that a component has registered again: what it was handed and has not
    /// answered may not have reached it. Those that would start it twice are not told.
    pub async fn registered_again(
        &self,
        component: &Identity,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let is_told_again = {
            let shared = self.shared();
            let known = shared.directory.component(component);
            known.is_some_and(|known| shared.lease(component, known).is_some())
        };
        if !is_told_again || !self.store.is_unanswered(component).await? {
            return Ok(());
        }
        let why = "the component has registered again";
        self.handed_again(vec![component.clone()], why, now).await
    }

    /// Has handed out again what may not have reached components.
    pub(crate) async fn handed_again(
        &self,
        components: Vec<Identity>,
        why: &'static str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        for component in self.store.restarted(components, why, now).await? {
            self.metrics.handed_again.inc();
            self.wake(&component);
        }
        Ok(())
    }

    /// Says whether something is queued for a component that asks, and how it writes lists;
    /// `None` if it is not registered. Most that ask find nothing.
    pub fn poll(&self, from: &Identity, now: Timestamp) -> Option<(bool, Dialect)> {
        let mut shared = self.shared();
        let dialect = shared.directory.component(from)?.dialect;
        shared.heard_of(from, now);
        Some((shared.pending.contains(from), dialect))
    }

    /// Hands out what is queued for a component; `None` if it is not registered.
    pub async fn fetch(
        &self,
        from: &Identity,
        now: Timestamp,
    ) -> Result<Option<Vec<Message>>, StoreError> {
        let lease = {
            let shared = self.shared();
            let known = shared.directory.component(from);
            known.and_then(|known| shared.lease(from, known))
        };
        self.hand_out(from, lease, now).await
    }

    /// Hands out what is queued for a component to who calls it; `None` if it is not
    /// registered. There is no lease: the caller knows what is not answered, and goes on
    /// with it after a restart.
    pub async fn fetch_for_caller(
        &self,
        component: &Identity,
        now: Timestamp,
    ) -> Result<Option<Vec<Message>>, StoreError> {
        self.hand_out(component, None, now).await
    }

    /// Hands out what is queued for a component, with a lease if what is not answered is to
    /// be handed out again.
    async fn hand_out(
        &self,
        from: &Identity,
        lease: Option<Duration>,
        now: Timestamp,
    ) -> Result<Option<Vec<Message>>, StoreError> {
        {
            let mut shared = self.shared();
            if shared.directory.component(from).is_none() {
                return Ok(None);
            }
            shared.heard_of(from, now);
            if !shared.pending.remove(from) {
                return Ok(Some(Vec::new()));
            }
        }
        let fetched =
            self.timed(Transaction::fetch, self.store.fetch(from, lease, now)).await;
        let (handed, is_more) = match fetched {
            Ok(fetched) => fetched,
            Err(error) => {
                self.failed(&error);
                self.shared().pending.insert(from.clone());
                return Err(error);
            }
        };
        if is_more {
            self.shared().pending.insert(from.clone());
        }
        if !handed.is_empty()
            && let Some(lease) = lease
        {
            self.look_before(now.checked_add(lease).ok());
        }
        let registries = self.registries_of(from);
        let mut messages = Vec::with_capacity(handed.len());
        for handed in handed {
            let id = handed.id();
            if let Handed::Interrupt { .. } = handed {
                self.look_before(now.checked_add(AFTER_INTERRUPT).ok());
            }
            if let Handed::Specification { accepted, .. } = handed {
                self.metrics.handed.inc();
                let waited = now.duration_since(accepted).as_secs_f64();
                self.metrics.dispatch.observe(waited.max(0.0));
            }
            let Some(message) = read_handed(registries, &handed) else { continue };
            info!(specification = id.0, component = %from, kind = %message.kind(),
                label = message.label(), "handed out");
            messages.push(message);
        }
        Ok(Some(messages))
    }

    /// Returns the specification that tells a component when to come again, if it lets its
    /// supervisor say so: at once when more waits for it, else about [`CALLBACK_PERIOD_S`]
    /// later, at a phase of its own, so that not all come together.
    pub fn callback(&self, component: &Identity, now: Timestamp) -> Option<Message> {
        let shared = self.shared();
        let registered = shared.directory.component(component)?;
        if !registered.has_callback() || registered.dialect == Dialect::Array {
            return None;
        }
        let seconds = if shared.pending.contains(component) {
            1
        } else {
            pause_s(&component.to_string(), now)
        };
        drop(shared);
        let scope = When::now_for(Duration::from_secs(seconds));
        let statement = Statement::measure(scope).labelled(CALLBACK);
        Some(Specification::new(statement).into())
    }

    /// Takes note of a receipt, a result or an exception of a component.
    pub async fn report(
        &self,
        from: &Identity,
        message: Message,
        now: Timestamp,
    ) -> Result<(), ReportError> {
        self.shared().heard_of(from, now);
        let token = message.token().ok_or(ReportError::NoToken)?;
        let unexpected = || ReportError::Unexpected(token.to_string());
        let kind = message.kind();
        if let Message::Receipt(_) = message {
            let stepped = self.store.promised(from, &token, now).await?;
            let stepped = stepped.ok_or_else(unexpected)?;
            info!(specification = stepped.id.0, component = %from, %kind, "reported");
            return Ok(());
        }
        if !matches!(
            message,
            Message::Result(_) | Message::Envelope(_) | Message::Exception(_)
        ) {
            return Err(ReportError::Kind(kind.key()));
        }
        let reported = self.store.reported(from, &token).await?.ok_or_else(unexpected)?;
        let message = self.to_client(&reported, from, message);
        let delivered = self.delivered(&reported, from, &token, message, now);
        let stepped = self.timed(Transaction::deliver, delivered).await?;
        info!(specification = stepped.id.0, component = %from, %kind, "reported");
        match stepped.effect {
            Effect::Settle(end) => self.settled(stepped.id, end, now).await?,
            Effect::Progress => {
                self.redeeming.wake(&stepped.id);
                if let Some(whole) = self.store.parent(stepped.id).await? {
                    self.redeeming.wake(&whole);
                }
            }
            Effect::TooLate => {
                self.metrics.too_late.inc();
                info!(specification = stepped.id.0, component = %from, "delivered once more");
            }
            _ => {}
        }
        Ok(())
    }

    /// Gives a message of a component the token and label that the client knows, and says
    /// which component it comes from.
    fn to_client(
        &self,
        reported: &Reported,
        component: &Identity,
        message: Message,
    ) -> Message {
        let (token, label) = (Some(reported.token.clone()), reported.label.clone());
        match message {
            Message::Result(mut result) => {
                result.set_token(token);
                result.set_label(label);
                result.set_link(None);
                if let Ok(element) = self.registries.element(CORE, "component.identity") {
                    let value = Some(Value::String(component.to_string().into()));
                    // A component that says so itself, or a full section, stays as it is.
                    let _unchanged =
                        result.add_metadata(Arc::clone(element), value).is_err();
                }
                result.into()
            }
            Message::Exception(mut exception) => {
                exception.set_token(token);
                exception.into()
            }
            Message::Envelope(envelope) => {
                let mut envelope =
                    envelope.map(|result| self.to_client(reported, component, result));
                envelope.set_token(token);
                envelope.set_label(label);
                envelope.into()
            }
            other => other,
        }
    }
}

/// A capability on its way to the directory, until this is dropped.
struct Registering<'a> {
    relay: &'a Relay,
    from: Identity,
}

impl Drop for Registering<'_> {
    fn drop(&mut self) {
        let mut shared = self.relay.shared();
        if let Some(others) = shared.registering.get_mut(&self.from) {
            *others -= 1;
            if *others == 0 {
                shared.registering.remove(&self.from);
            }
        }
    }
}

/// Reads what is handed to a component.
fn read_handed(registries: &Registries, handed: &Handed) -> Option<Message> {
    let id = handed.id();
    let (Handed::Specification { text, .. }
    | Handed::Interrupt { text, .. }
    | Handed::Redemption { text, .. }) = handed;
    match json::decode(text.as_bytes(), registries) {
        Ok(Message::Specification(specification)) => Some(match handed {
            Handed::Specification { .. } => specification.into(),
            Handed::Interrupt { .. } => Interrupt::of(&specification).into(),
            Handed::Redemption { .. } => Redemption::of(&specification).into(),
        }),
        other => {
            warn!(specification = id.0, ?other, "cannot be read, and is not handed out");
            None
        }
    }
}

/// Returns how many seconds a component is to pause: until the next time that is its phase,
/// between half a period and one and a half.
fn pause_s(name: &str, now: Timestamp) -> u64 {
    let phase = name
        .bytes()
        .fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)))
        % CALLBACK_PERIOD_S;
    let now = now.as_second().unsigned_abs() % CALLBACK_PERIOD_S;
    let pause = (phase + CALLBACK_PERIOD_S - now) % CALLBACK_PERIOD_S;
    if pause < CALLBACK_PERIOD_S.div_ceil(2) { pause + CALLBACK_PERIOD_S } else { pause }
}

/// An offer of a component that is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// The directory does not take it.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The policy does not let the component offer it.
    #[error(transparent)]
    Withheld(#[from] Withheld),
    /// Something else than a capability or a withdrawal.
    #[error(
        "components offer capabilities and withdrawals here, not messages of kind {0}"
    )]
    Kind(&'static str),
    /// It could not be written down.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A report of a component that is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// A message without token.
    #[error("the message has no token, so nobody can know what it is about")]
    NoToken,
    /// Nothing with this token was handed to the component.
    #[error("no specification with token {0} was handed to this component")]
    Unexpected(String),
    /// Something else than a receipt, result or exception.
    #[error(
        "components deliver receipts, results and exceptions here, not messages of kind {0}"
    )]
    Kind(&'static str),
    /// It could not be written down: it is to be delivered again.
    #[error(transparent)]
    Store(#[from] StoreError),
}
