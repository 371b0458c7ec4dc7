//! How a supervisor is told what is offered, and when that changes.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{Method, StatusCode};
use mplane::access::{Act, Denied, Identity, permit};
use mplane::features::{Feature, Features};
use mplane::message::{CALLBACK, Capability, Envelope, Message, Statement, Withdrawal};
use mplane::registry::CORE;
use mplane::token::Token;
use mplane::when::When;
use serde::Deserialize;
use tokio::sync::watch;
use tracing::{info, warn};

use super::{Initiator, Offerer, shown};
use crate::http::client::{Answer, Ask, AskError, HttpClient};
use crate::http::path;

/// How far the clocks may differ without a warning, in seconds: what a network without
/// NTP drifts in a week.
const CLOCK_TOLERANCE_S: i64 = 5;

/// What a supervisor knows of an offerer.
pub(super) struct Registered {
    /// Who the supervisor is.
    pub(super) supervisor: Identity,
    /// What it reads.
    features: Features,
    /// What it was offered.
    capabilities: BTreeMap<Token, Capability>,
}

/// Capabilities and withdrawals in one envelope at most.
const AT_ONCE: usize = 1_000;

/// How long changes may go on before they are told: what changes together is told together.
const SETTLE: Duration = Duration::from_millis(200);

/// Offers the capabilities: those of the core registry first, the others when the
/// supervisor has announced that it understands them.
pub(super) async fn register(
    offerer: &dyn Offerer,
    client: &HttpClient,
    initiator: &Initiator,
    before: &mut Option<Registered>,
) -> Result<Registered, RegisterError> {
    let (capabilities, expected) = if let Some(capabilities) = offerer.offered_to_all() {
        (capabilities, None)
    } else {
        let supervisor = who_answers(client, initiator).await?;
        permit(&supervisor, Act::Use)?;
        let capabilities = offerer.offered_to(&supervisor);
        if capabilities.is_empty() {
            // What it was told before is not offered any more.
            withdraw_since(client, initiator, before, &supervisor, &BTreeMap::new())
                .await?;
            return Err(RegisterError::Withheld { supervisor });
        }
        (capabilities, Some(supervisor))
    };
    let core = readable(&capabilities, Features::NONE);
    // It is told which parts are all that is offered: what it knows from before goes then.
    let place = Place { is_first: true, is_last: core.len() == capabilities.len() };
    let answer = offer(client, initiator, &core, place).await?;
    // Whoever answers may use what is offered from now on: it must be one who may.
    permit(&answer.identity, Act::Use)?;
    if expected.is_some_and(|expected| expected != answer.identity) {
        return Err(RegisterError::Other { identity: answer.identity });
    }
    let features = answer.features;
    let place = Place { is_first: false, is_last: true };
    offer_beyond_core(client, initiator, &capabilities, features, place).await?;
    if !features.has(Feature::Registries) {
        // One that does not keep requests open may want to say when to come again.
        offer(client, initiator, &[callback()], Place::MORE).await?;
    }
    offerer.registered();
    let clock_ahead_s = answer.clock_ahead_s;
    if clock_ahead_s.is_some_and(|ahead| ahead.abs() >= CLOCK_TOLERANCE_S) {
        warn!(
            supervisor = %answer.identity,
            clock_ahead_s,
            "the supervisor's clock differs from this machine's: absolute scopes start \
             that much too early or late; set the clock, by NTP for example"
        );
    }
    info!(
        supervisor = %answer.identity,
        url = %initiator.supervisor,
        clock_ahead_s,
        "registered"
    );
    let capabilities = by_token(capabilities);
    withdraw_since(client, initiator, before, &answer.identity, &capabilities).await?;
    Ok(Registered { supervisor: answer.identity, features, capabilities })
}

/// Tells a supervisor of changes whenever there are some, until that fails; returns why.
pub(super) async fn update(
    offerer: &dyn Offerer,
    client: &HttpClient,
    initiator: &Initiator,
    registered: &mut Registered,
    offers: &mut watch::Receiver<u64>,
) -> RegisterError {
    loop {
        if offers.changed().await.is_err() {
            // The offerer ends.
            return std::future::pending().await;
        }
        tokio::time::sleep(SETTLE).await;
        offers.mark_unchanged();
        let Registered { supervisor, features, capabilities } = &mut *registered;
        let now = by_token(offerer.offered_to(supervisor));
        let gone = not_in(capabilities, &now);
        let gone = readable(&gone, *features);
        let new: Vec<_> = now
            .iter()
            .filter(|(token, it)| capabilities.get(*token) != Some(*it))
            .map(|(_, capability)| capability.clone())
            .collect();
        let told = async {
            let core = readable(&new, Features::NONE);
            if !core.is_empty() {
                offer(client, initiator, &core, Place::MORE).await?;
            }
            offer_beyond_core(client, initiator, &new, *features, Place::MORE).await?;
            // After what takes their place, so that nothing is missing meanwhile.
            withdraw(client, initiator, &gone).await
        };
        if let Err(error) = told.await {
            return error;
        }
        *capabilities = now;
    }
}

/// Withdraws what a supervisor was told before its connection broke, and is not offered now.
async fn withdraw_since(
    client: &HttpClient,
    initiator: &Initiator,
    before: &mut Option<Registered>,
    supervisor: &Identity,
    now: &BTreeMap<Token, Capability>,
) -> Result<(), RegisterError> {
    if let Some(told) = before.as_ref().filter(|told| told.supervisor == *supervisor) {
        let gone = readable(&not_in(&told.capabilities, now), told.features);
        withdraw(client, initiator, &gone).await?;
    }
    *before = None;
    Ok(())
}

/// Returns the capabilities of which others do not have the token: those of the same token
/// take their place.
fn not_in(
    capabilities: &BTreeMap<Token, Capability>,
    others: &BTreeMap<Token, Capability>,
) -> Vec<Capability> {
    let gone = capabilities.iter().filter(|(token, _)| !others.contains_key(*token));
    gone.map(|(_, capability)| capability.clone()).collect()
}

/// Orders capabilities by token.
fn by_token(capabilities: Vec<Capability>) -> BTreeMap<Token, Capability> {
    capabilities.into_iter().map(|known| (known.token(), known)).collect()
}

/// Returns the capabilities that a peer with these features can read.
fn readable(capabilities: &[Capability], features: Features) -> Vec<Capability> {
    capabilities.iter().filter(|known| features.can_read(known)).cloned().collect()
}

/// Returns the capability by which supervisors set when a component comes again, as
/// references offer it.
fn callback() -> Capability {
    Capability::new(Statement::measure(When::now_to_future()).labelled(CALLBACK))
}

/// Returns who the supervisor is, before anything is told to it. Whatever it answers to
/// this request, it comes with a certificate, or in plain HTTP.
async fn who_answers(
    client: &HttpClient,
    initiator: &Initiator,
) -> Result<Identity, RegisterError> {
    let ask = Ask {
        method: Method::GET,
        path: path::CAPABILITIES,
        messages: &[],
        wait: Duration::ZERO,
    };
    Ok(client.ask(&initiator.supervisor, ask).await?.identity)
}

/// Offers the capabilities of other registries than core, an envelope for each, to a
/// supervisor that reads them.
async fn offer_beyond_core(
    client: &HttpClient,
    initiator: &Initiator,
    capabilities: &[Capability],
    features: Features,
    place: Place,
) -> Result<(), RegisterError> {
    let others = capabilities.iter().filter(|known| !Features::NONE.can_read(known));
    let mut by_registry: BTreeMap<&str, Vec<Capability>> = BTreeMap::new();
    for other in others {
        by_registry.entry(other.registry()).or_default().push(other.clone());
    }
    if by_registry.is_empty() || features.has(Feature::Registries) {
        let count = by_registry.len();
        for (index, capabilities) in by_registry.into_values().enumerate() {
            let is_last = place.is_last && index + 1 == count;
            let place = Place { is_first: false, is_last };
            offer(client, initiator, &capabilities, place).await?;
        }
        return Ok(());
    }
    info!(
        supervisor = %initiator.supervisor,
        count = by_registry.values().map(Vec::len).sum::<usize>(),
        "capabilities beyond registry {CORE} are not offered: the supervisor cannot read \
         them"
    );
    Ok(())
}

/// Where capabilities stand in all that is offered.
#[derive(Clone, Copy)]
struct Place {
    is_first: bool,
    is_last: bool,
}

impl Place {
    /// Behind all that was told before.
    const MORE: Self = Self { is_first: false, is_last: false };

    /// Returns where an envelope is posted to. References take no notice of the query.
    fn path(self) -> String {
        let query = match (self.is_first, self.is_last) {
            (true, true) => path::WHOLE,
            (true, false) => path::FIRST,
            (false, true) => path::LAST,
            (false, false) => return path::REGISTER_CAPABILITY.to_owned(),
        };
        format!("{}?{query}", path::REGISTER_CAPABILITY)
    }
}

/// Posts capabilities, in one envelope or several; without any, an empty one.
async fn offer(
    client: &HttpClient,
    initiator: &Initiator,
    capabilities: &[Capability],
    place: Place,
) -> Result<Answer, RegisterError> {
    let count = capabilities.len().div_ceil(AT_ONCE).max(1);
    let mut parts = capabilities.chunks(AT_ONCE);
    for index in 1..count {
        let place = Place { is_first: place.is_first && index == 1, is_last: false };
        let part = parts.next().unwrap_or_default();
        offer_part(client, initiator, part, place).await?;
    }
    let place = Place { is_first: place.is_first && count == 1, ..place };
    offer_part(client, initiator, parts.next().unwrap_or_default(), place).await
}

/// Posts one envelope of capabilities.
async fn offer_part(
    client: &HttpClient,
    initiator: &Initiator,
    capabilities: &[Capability],
    place: Place,
) -> Result<Answer, RegisterError> {
    let contents = capabilities.iter().cloned().map(Into::into).collect();
    let answer = post(client, initiator, contents, "capability", place).await?;
    if answer.status != StatusCode::OK {
        return Err(RegisterError::Status {
            status: answer.status,
            body: shown(&answer.body),
            retry_after: answer.retry_after,
        });
    }
    // References emit duplicate keys and unescaped labels here: what cannot be read is
    // taken for consent, as they take it.
    let reply: BTreeMap<String, Reply> =
        serde_json::from_slice(&answer.body).unwrap_or_default();
    let count = reply.len();
    let mut refused = Vec::new();
    for (label, reply) in reply {
        if reply.registered != "ok" {
            let reason = reply.reason.unwrap_or_default();
            warn!(label, reason, "the supervisor does not take a capability");
            refused.push(reason);
        }
    }
    match refused.pop() {
        Some(reason) if refused.len() + 1 == count => Err(RegisterError::Refused(reason)),
        _ => Ok(answer),
    }
}

/// Posts one envelope of withdrawals. References do not take them: they hear of it when
/// they ask for what is gone.
async fn withdraw(
    client: &HttpClient,
    initiator: &Initiator,
    capabilities: &[Capability],
) -> Result<(), RegisterError> {
    for capabilities in capabilities.chunks(AT_ONCE) {
        let contents =
            capabilities.iter().map(|gone| Withdrawal::of(gone).into()).collect();
        let answer = post(client, initiator, contents, "withdrawal", Place::MORE).await?;
        if answer.status != StatusCode::OK {
            let (status, body) = (answer.status, shown(&answer.body));
            info!(%status, body, "the supervisor takes no withdrawals");
        }
    }
    Ok(())
}

/// Posts one envelope to where capabilities are registered.
async fn post(
    client: &HttpClient,
    initiator: &Initiator,
    contents: Vec<Message>,
    kind: &str,
    place: Place,
) -> Result<Answer, RegisterError> {
    let envelope = [Envelope::of(contents).with_content(kind).into()];
    let path = place.path();
    let ask = Ask {
        method: Method::POST,
        path: &path,
        messages: &envelope,
        wait: Duration::ZERO,
    };
    Ok(client.ask(&initiator.supervisor, ask).await?)
}

/// What a supervisor says about one capability.
#[derive(Deserialize)]
struct Reply {
    registered: String,
    reason: Option<String>,
}

/// Why registering failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RegisterError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("the supervisor answered {status}: {body}")]
    Status { status: StatusCode, body: String, retry_after: Option<Duration> },
    #[error("the supervisor takes none of the capabilities: {0}")]
    Refused(String),
    #[error("the supervisor's certificate is not one of a supervisor or client")]
    Denied(#[from] Denied),
    #[error(
        "{supervisor} has no role that [access.authorizations] lists for anything that is \
         offered here, or nothing is; give it one in [access.roles]"
    )]
    Withheld { supervisor: Identity },
    #[error("now {identity} answers")]
    Other { identity: Identity },
}
