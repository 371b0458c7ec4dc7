//! The initiating side of a component: it registers with a supervisor, fetches
//! specifications and posts what comes of them.
//!
//! Everything that can fail on the way is tried again, with growing pauses, until the
//! program ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use mplane::access::{Act, Denied, Identity, permit};
use mplane::features::{Feature, Features};
use mplane::json::DecodeError;
use mplane::message::{Capability, Envelope, Message};
use mplane::registry::CORE;
use serde::Deserialize;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::{Component, Letter};
use crate::http::client::{Answer, Ask, AskError, BaseUrl, HttpClient};
use crate::http::path;
use crate::report;
use crate::tls::fresh_token;

/// The first pause after a failure; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The longest pause after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How long the delivery of one result may take after the program was told to end.
const LAST_DELIVERY: Duration = Duration::from_secs(2);

/// How long a supervisor may keep a request for specifications open until there are some.
const WAIT: Duration = Duration::from_secs(20);

/// How far the clocks may differ without a warning, in seconds: what a network without
/// NTP drifts in a week.
const CLOCK_TOLERANCE_S: i64 = 5;

/// How a component initiates.
#[derive(Clone, Debug)]
pub struct Initiator {
    /// The supervisor.
    pub supervisor: BaseUrl,
    /// The pause between two requests for specifications, if the supervisor does not
    /// keep them open.
    pub poll: Duration,
}

/// Registers and fetches until the component shuts down.
pub async fn initiate(
    component: Arc<Component>,
    client: Arc<HttpClient>,
    initiator: Initiator,
) {
    let shutdown = component.shutdown.clone();
    let mut pause = Pause::default();
    let (outbox, mut letters) = mpsc::unbounded_channel();
    let work = async {
        loop {
            match register(&component, &client, &initiator).await {
                Ok(supervisor) => {
                    component.deliver_to(&supervisor, &outbox);
                    let fetching =
                        fetch(&component, &client, &initiator, &supervisor, &outbox);
                    let ended = fetching.await;
                    // A supervisor that takes a registration and then does not know the
                    // component is asked ever less often.
                    if ended.has_fetched {
                        pause = Pause::default();
                    }
                    let problem = ended.problem;
                    warn!(supervisor = %initiator.supervisor, problem, "registers again");
                }
                Err(error) => {
                    let problem = report(&error);
                    warn!(supervisor = %initiator.supervisor, problem, "cannot register");
                }
            }
            pause.take().await;
        }
    };
    // The letter in hand outlives the loop: what is being posted when the end comes is
    // not lost.
    let mut in_hand: Option<Letter> = None;
    let deliver = async {
        loop {
            if in_hand.is_none() {
                in_hand = letters.recv().await;
            }
            let Some(letter) = &in_hand else { break };
            let refused = post(&client, &initiator, letter).await;
            let Some(letter) = in_hand.take() else { break };
            match refused {
                None => component.delivered(&letter),
                Some((receiver, reason)) => {
                    component.give_up(&receiver, letter, reason).await;
                }
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = deliver => {}
        () = shutdown.cancelled() => {}
    }
    // What was measured until the shutdown is still delivered, if the supervisor is there.
    component.ended().await;
    letters.close();
    while let Some(letter) = in_hand.take().or(letters.recv().await) {
        let delivery = post_once(&client, &initiator, &letter.message);
        if matches!(tokio::time::timeout(LAST_DELIVERY, delivery).await, Ok(Ok(()))) {
            component.delivered(&letter);
        } else {
            warn!(kind = %letter.message.kind(), "could not be delivered before the end");
        }
    }
    component.ended().await;
}

/// Offers the capabilities: those of the core registry first, the others when the
/// supervisor has announced that it understands them. Returns who the supervisor is.
async fn register(
    component: &Component,
    client: &HttpClient,
    initiator: &Initiator,
) -> Result<Identity, RegisterError> {
    let (capabilities, expected) = if component.is_restricting() {
        let supervisor = who_answers(client, initiator).await?;
        permit(&supervisor, Act::Use)?;
        let capabilities = component.capabilities_for(&supervisor);
        if capabilities.is_empty() {
            return Err(RegisterError::Withheld { supervisor });
        }
        (capabilities, Some(supervisor))
    } else {
        (component.all_capabilities(), None)
    };
    let (core, others): (Vec<_>, Vec<_>) = capabilities
        .into_iter()
        .partition(|capability| Features::NONE.can_read(capability));
    let answer = offer(client, initiator, core).await?;
    // Whoever answers may use this component from now on: it must be one who may.
    permit(&answer.identity, Act::Use)?;
    if expected.is_some_and(|expected| expected != answer.identity) {
        return Err(RegisterError::Other { identity: answer.identity });
    }
    if answer.features.has(Feature::Registries) && !others.is_empty() {
        let mut registries: Vec<_> =
            others.iter().map(|other| other.registry().to_owned()).collect();
        registries.sort();
        registries.dedup();
        for registry in registries {
            let of_registry = others.iter().filter(|other| other.registry() == registry);
            offer(client, initiator, of_registry.cloned().collect()).await?;
        }
    } else if !others.is_empty() {
        info!(
            supervisor = %initiator.supervisor,
            count = others.len(),
            "capabilities beyond registry {CORE} are not offered: the supervisor cannot \
             read them"
        );
    }
    component.metrics.registrations.inc();
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
    Ok(answer.identity)
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

/// Posts one envelope of capabilities.
async fn offer(
    client: &HttpClient,
    initiator: &Initiator,
    capabilities: Vec<Capability>,
) -> Result<Answer, RegisterError> {
    let contents = capabilities.into_iter().map(Into::into).collect();
    let envelope = [Envelope::of(contents).with_content("capability").into()];
    let ask = Ask {
        method: Method::POST,
        path: path::REGISTER_CAPABILITY,
        messages: &envelope,
        wait: Duration::ZERO,
    };
    let answer = client.ask(&initiator.supervisor, ask).await?;
    if answer.status != StatusCode::OK {
        return Err(RegisterError::Status {
            status: answer.status,
            body: shown(&answer.body),
        });
    }
    // References emit duplicate keys and unescaped labels here: what cannot be read is
    // taken for consent, as they take it.
    let reply: BTreeMap<String, Registered> =
        serde_json::from_slice(&answer.body).unwrap_or_default();
    let count = reply.len();
    let mut refused = Vec::new();
    for (label, registered) in reply {
        if registered.registered != "ok" {
            let reason = registered.reason.unwrap_or_default();
            warn!(label, reason, "the supervisor does not take a capability");
            refused.push(reason);
        }
    }
    match refused.pop() {
        Some(reason) if refused.len() + 1 == count => Err(RegisterError::Refused(reason)),
        _ => Ok(answer),
    }
}

/// What a supervisor says about one capability.
#[derive(Deserialize)]
struct Registered {
    registered: String,
    reason: Option<String>,
}

/// Why registering failed.
#[derive(Debug, thiserror::Error)]
enum RegisterError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("the supervisor answered {status}: {body}")]
    Status { status: StatusCode, body: String },
    #[error("the supervisor takes none of the capabilities: {0}")]
    Refused(String),
    #[error("the supervisor's certificate is not one of a supervisor or client")]
    Denied(#[from] Denied),
    #[error(
        "{supervisor} has no role that [access.authorizations] lists for any capability of \
         this component; give it one in [access.roles]"
    )]
    Withheld { supervisor: Identity },
    #[error("now {identity} answers")]
    Other { identity: Identity },
}

/// How fetching ended.
struct Ended {
    problem: String,
    /// Whether the supervisor had answered at least once as it should.
    has_fetched: bool,
}

/// Fetches and answers specifications until the supervisor does not know the component
/// any more or cannot be reached; returns why.
async fn fetch(
    component: &Arc<Component>,
    client: &HttpClient,
    initiator: &Initiator,
    supervisor: &Identity,
    outbox: &mpsc::UnboundedSender<Letter>,
) -> Ended {
    let mut pause = Pause::default();
    let mut has_fetched = false;
    loop {
        match fetch_once(component, client, initiator, supervisor, outbox).await {
            Ok(fetched @ (Fetched::Again | Fetched::Later)) => {
                pause = Pause::default();
                has_fetched = true;
                if matches!(fetched, Fetched::Later) {
                    tokio::time::sleep(jittered(initiator.poll)).await;
                }
            }
            Ok(Fetched::Unknown(status)) => {
                let problem =
                    format!("the supervisor does not know this component ({status})");
                return Ended { problem, has_fetched };
            }
            Err(error) => {
                let problem = report(&error);
                // A supervisor that was away may have forgotten: register again.
                if matches!(
                    error,
                    FetchError::Ask(AskError::Connect { .. }) | FetchError::Other { .. }
                ) {
                    return Ended { problem, has_fetched };
                }
                warn!(supervisor = %initiator.supervisor, problem, "cannot fetch");
                pause.take().await;
            }
        }
    }
}

/// What to do after specifications were fetched.
enum Fetched {
    /// Fetch again at once: the supervisor keeps requests open.
    Again,
    /// Fetch again after the poll pause.
    Later,
    /// Register again.
    Unknown(StatusCode),
}

/// Fetches specifications once and answers them.
async fn fetch_once(
    component: &Arc<Component>,
    client: &HttpClient,
    initiator: &Initiator,
    supervisor: &Identity,
    outbox: &mpsc::UnboundedSender<Letter>,
) -> Result<Fetched, FetchError> {
    let ask = Ask {
        method: Method::GET,
        path: path::SHOW_SPECIFICATION,
        messages: &[],
        wait: WAIT,
    };
    let answer = client.ask(&initiator.supervisor, ask).await?;
    if answer.identity != *supervisor {
        return Err(FetchError::Other { identity: answer.identity });
    }
    match answer.status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND
        | StatusCode::FORBIDDEN
        | StatusCode::PRECONDITION_REQUIRED => {
            return Ok(Fetched::Unknown(answer.status));
        }
        status => {
            return Err(FetchError::Status { status, body: shown(&answer.body) });
        }
    }
    let messages = answer.messages(&component.registries)?;
    for message in flatten(messages) {
        let (label, token) = (message.label().map(ToOwned::to_owned), message.token());
        let is_specification = matches!(message, Message::Specification(_));
        let is_interrupt = matches!(message, Message::Interrupt(_));
        let reply = component.handle(supervisor, message).await;
        if is_specification && let (Some(job), Some(token)) = (reply.pending, token) {
            info!(%job, label, %token, "accepted a specification");
        }
        // What an interrupt ends, the exchange delivers itself.
        let delivered = is_interrupt
            && matches!(reply.message, Message::Result(_) | Message::Envelope(_));
        let letter = Letter { job: None, message: reply.message };
        if !delivered && outbox.send(letter).is_err() {
            debug!("the end has come before a receipt was sent");
        }
    }
    Ok(if answer.waited { Fetched::Again } else { Fetched::Later })
}

/// Why fetching failed.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("now {identity} answers")]
    Other { identity: Identity },
    #[error("the supervisor's answer cannot be read")]
    Decode(#[from] DecodeError),
    #[error("the supervisor answered {status}: {body}")]
    Status { status: StatusCode, body: String },
}

/// Takes messages out of envelopes.
fn flatten(messages: Vec<Message>) -> Vec<Message> {
    messages
        .into_iter()
        .flat_map(|message| match message {
            Message::Envelope(envelope) => flatten(envelope.into_messages()),
            other => vec![other],
        })
        .collect()
}

/// Posts a receipt, result or exception until the supervisor has taken it; returns who
/// refuses it for good, and why.
async fn post(
    client: &HttpClient,
    initiator: &Initiator,
    letter: &Letter,
) -> Option<(Identity, String)> {
    let mut pause = Pause::default();
    loop {
        match post_once(client, initiator, &letter.message).await {
            Ok(()) => return None,
            Err(PostError::Refused { identity, status, body }) => {
                let token = letter.message.token().unwrap_or_else(fresh_token);
                warn!(%token, %status, body, "the supervisor refuses what was measured");
                return Some((identity, format!("refused with {status}: {body}")));
            }
            Err(error) => {
                warn!(problem = report(&error), "cannot deliver, tries again");
                pause.take().await;
            }
        }
    }
}

/// Posts a receipt, result or exception once.
async fn post_once(
    client: &HttpClient,
    initiator: &Initiator,
    letter: &Message,
) -> Result<(), PostError> {
    let ask = Ask {
        method: Method::POST,
        path: path::REGISTER_RESULT,
        messages: std::slice::from_ref(letter),
        wait: Duration::ZERO,
    };
    let answer = client.ask(&initiator.supervisor, ask).await?;
    let status = answer.status;
    if status.is_success() {
        Ok(())
    } else if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
        Err(PostError::Refused {
            identity: answer.identity,
            status,
            body: shown(&answer.body),
        })
    } else {
        Err(PostError::Unavailable { status })
    }
}

/// Why posting failed.
#[derive(Debug, thiserror::Error)]
enum PostError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("the supervisor refused it with {status}: {body}")]
    Refused { identity: Identity, status: StatusCode, body: String },
    #[error("the supervisor answered {status}")]
    Unavailable { status: StatusCode },
}

/// Shows the start of a body in a log.
fn shown(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().take(200).collect()
}

/// Pauses between attempts: each twice as long as the one before, up to a limit, with
/// jitter so that components do not come back all at once.
struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Pause {
    /// Waits, and makes the next pause longer.
    async fn take(&mut self) {
        tokio::time::sleep(jittered(self.0)).await;
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
    }
}

/// Returns between half and all of a duration, at random.
fn jittered(duration: Duration) -> Duration {
    let random = fresh_token();
    let byte =
        random.as_str().get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
    duration / 2 + duration / 2 * u32::from(byte.unwrap_or_default()) / 255
}
