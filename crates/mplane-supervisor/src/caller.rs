//! Components that listen: the supervisor calls them, instead of waiting for them to come.
//!
//! For the relay they are components as any others: what they offer is registered, what is
//! queued for them is fetched on their behalf and posted to them, and what they answer is
//! reported. A receipt is redeemed until the result is there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mplane::access::{Act, Identity, permit};
use mplane::features::Features;
use mplane::json;
use mplane::message::{Capability, Message, Redemption, Withdrawal};
use mplane::token::Token;
use mplane_runtime::client::{Client, ClientError};
use mplane_runtime::http::client::BaseUrl;
use mplane_runtime::report;
use mplane_runtime::tls::Credentials;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::directory::{About, Dialect};
use crate::relay::Relay;
use crate::server::Supervisor;

/// How often a component is asked what it offers.
const DISCOVERY: Duration = Duration::from_secs(60);

/// How long one request lets the component wait for a result.
const WAIT: Duration = Duration::from_secs(20);

/// The pause between two requests to a component that does not wait.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest pause after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A component that listens.
pub struct Callee {
    /// Where.
    pub url: BaseUrl,
    /// What the supervisor shows it.
    pub credentials: Option<Arc<Credentials>>,
}

/// Calls a component until `end`.
pub async fn call(supervisor: Arc<Supervisor>, callee: Callee, end: CancellationToken) {
    let work = async {
        let mut pause = PAUSE;
        loop {
            match serve(&supervisor, &callee, &mut pause).await {
                Ok(never) => match never {},
                Err(error) => {
                    let problem = report(&error);
                    warn!(component = %callee.url, problem, "cannot be called, tries again");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    };
    tokio::select! {
        () = work => {}
        () = end.cancelled() => {}
    }
}

/// Serves a component until something fails.
async fn serve(
    supervisor: &Arc<Supervisor>,
    callee: &Callee,
    pause: &mut Duration,
) -> Result<std::convert::Infallible, CallError> {
    let registries = supervisor.relay().registries().clone();
    let (credentials, url) = (callee.credentials.clone(), callee.url.clone());
    let client = Arc::new(Client::new(credentials, url, registries));
    let mut known = BTreeMap::new();
    let identity = discover(supervisor.relay(), callee, &mut known).await?;
    *pause = PAUSE;
    let running = TaskTracker::new();
    // What was promised before a restart is still to be redeemed, and what was handed out and
    // not answered may not have arrived.
    let outstanding = supervisor.relay().store().outstanding(&identity).await?;
    for (text, is_promised) in outstanding {
        let read = json::decode(text.as_bytes(), supervisor.relay().registries());
        if let Ok(Message::Specification(handed)) = read {
            let (supervisor, client) = (Arc::clone(supervisor), Arc::clone(&client));
            let (identity, token) = (identity.clone(), handed.token());
            running.spawn(async move {
                if is_promised {
                    redeem(&supervisor, &client, &identity, token).await;
                } else {
                    carry(&supervisor, &client, &identity, handed.into()).await;
                }
            });
        }
    }
    let mut discovery = tokio::time::interval(DISCOVERY);
    discovery.reset();
    loop {
        let waiter = supervisor.relay().wait_for_queue(&identity);
        let news = waiter.news();
        let fetched = supervisor.relay().fetch(&identity, Timestamp::now()).await?;
        for message in fetched.unwrap_or_default() {
            let (supervisor, client) = (Arc::clone(supervisor), Arc::clone(&client));
            let identity = identity.clone();
            running.spawn(async move {
                carry(&supervisor, &client, &identity, message).await;
            });
        }
        tokio::select! {
            () = news => {}
            _ = discovery.tick() => {
                let now = discover(supervisor.relay(), callee, &mut known).await?;
                if now != identity {
                    return Err(CallError::Other { identity: now });
                }
            }
        }
    }
}

/// Registers what a component offers, and withdraws what it does not offer any more;
/// returns who it is.
async fn discover(
    relay: &Relay,
    callee: &Callee,
    known: &mut BTreeMap<Token, Capability>,
) -> Result<Identity, CallError> {
    let registries = relay.registries().clone();
    let (credentials, url) = (callee.credentials.clone(), callee.url.clone());
    let mut client = Client::new(credentials, url, registries);
    client.discover().await?;
    let found = client.known().capabilities();
    let found: Vec<_> = found.map(|(who, what)| (who.clone(), what.clone())).collect();
    let Some((identity, _)) = found.first().cloned() else {
        return Err(CallError::Nothing);
    };
    permit(&identity, Act::Serve).map_err(CallError::Denied)?;
    let offered: BTreeMap<_, _> =
        found.into_iter().map(|(_, offered)| (offered.token(), offered)).collect();
    let features = client.features();
    for (token, capability) in &offered {
        if known.get(token) != Some(capability) {
            let label = capability.label().unwrap_or_default().to_owned();
            let message = capability.clone().into();
            register(relay, &identity, message, features).await?;
            info!(component = %identity, capability = label, "registered");
        }
    }
    let about = About { address: Some(callee.url.to_string()), ..About::default() };
    relay.describe(&identity, about).await?;
    for (token, capability) in known.iter() {
        let is_replaced =
            offered.values().any(|offered| offered.label() == capability.label());
        if !offered.contains_key(token) && !is_replaced {
            let withdrawal = Withdrawal::of(capability).into();
            register(relay, &identity, withdrawal, features).await?;
        }
    }
    *known = offered;
    Ok(identity)
}

/// Registers a capability or a withdrawal.
async fn register(
    relay: &Relay,
    identity: &Identity,
    message: Message,
    features: Features,
) -> Result<(), CallError> {
    let (dialect, now) = (Dialect::Envelope, Timestamp::now());
    let registered = relay.register(identity, message, features, dialect, now).await;
    registered.map_err(|error| CallError::Register(error.to_string()))
}

/// Posts a specification, an interrupt or a redemption to a component, and reports what it
/// answers. What cannot be posted is tried again: the component starts nothing twice that has
/// the same token.
async fn carry(
    supervisor: &Arc<Supervisor>,
    client: &Client,
    identity: &Identity,
    message: Message,
) {
    let Some(token) = message.token() else { return };
    let is_specification = matches!(message, Message::Specification(_));
    if let Message::Specification(specification) = &message {
        info!(component = %identity, label = specification.label(), "handed out");
    }
    if settle(supervisor, client, identity, message).await == Next::Redeem
        && is_specification
    {
        redeem(supervisor, client, identity, token).await;
    }
}

/// Redeems until there is nothing more to come.
async fn redeem(
    supervisor: &Arc<Supervisor>,
    client: &Client,
    identity: &Identity,
    token: Token,
) {
    loop {
        let started = tokio::time::Instant::now();
        let redemption = Redemption::token_only("measure", token.clone());
        if settle(supervisor, client, identity, redemption.into()).await == Next::Done {
            return;
        }
        // Some do not wait before they answer.
        tokio::time::sleep(PAUSE.saturating_sub(started.elapsed())).await;
    }
}

/// What is to be done about a specification after an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// It is to be redeemed.
    Redeem,
    /// Nothing.
    Done,
}

/// Posts a message until it is answered, and reports the answer.
async fn settle(
    supervisor: &Arc<Supervisor>,
    client: &Client,
    identity: &Identity,
    message: Message,
) -> Next {
    let mut pause = PAUSE;
    let answers = loop {
        match client.post(message.clone(), WAIT).await {
            Ok((who, answers)) if who == *identity => break answers,
            Ok((who, _)) => {
                warn!(component = %identity, now = %who, "somebody else answers");
            }
            Err(ClientError::Refused { status, reason }) => {
                warn!(component = %identity, %status, reason, "refused what it was handed");
                let text = format!("the component answered {status}: {reason}");
                let exception = mplane::message::Exception::new(message.token(), text);
                break vec![exception.into()];
            }
            Err(error) => {
                let problem = report(&error);
                warn!(component = %identity, problem, "cannot be called, tries again");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    };
    let mut next = Next::Done;
    for answer in answers {
        if matches!(answer, Message::Receipt(_)) {
            next = Next::Redeem;
        }
        if let Err(error) =
            supervisor.relay().report(identity, answer, Timestamp::now()).await
        {
            warn!(component = %identity, reason = %error, "refused a report");
        }
    }
    next
}

/// Why a component cannot be called.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("it offers nothing that this supervisor may use")]
    Nothing,
    #[error("its certificate is not one of a component")]
    Denied(#[source] mplane::access::Denied),
    #[error("what it offers is not taken: {0}")]
    Register(String),
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    #[error("now {identity} answers")]
    Other { identity: Identity },
}
