//! The initiating side of whoever offers something to a supervisor: it registers there,
//! fetches specifications and posts what comes of them.
//!
//! Components do so, and supervisors that offer what their components offer to another
//! supervisor: [`Offerer`] is what both have in common.
//!
//! Everything that can fail on the way is tried again, with growing pauses, until the
//! program ends.

mod registration;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use jiff::Timestamp;
use mplane::access::Identity;
use mplane::exchange::component::without_serial;
use mplane::json::DecodeError;
use mplane::message::{CALLBACK, Capability, Message, Specification};
use mplane::registry::Registries;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::registration::{RegisterError, register, update};
use crate::http::client::{Ask, AskError, BaseUrl, HttpClient};
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

/// The longest pause that a supervisor may set between two requests for specifications, so
/// that a component is not lost for ever by mistake.
const LONGEST_CALLBACK: Duration = Duration::from_secs(24 * 3_600);

/// Something that is done later, by who is behind a trait.
pub type Later<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// A message to be posted.
#[derive(Debug)]
pub struct Letter {
    /// What it is the result of, by the number that its sender knows it under; `None` for
    /// receipts and other answers, which are not posted again after a restart.
    pub about: Option<u64>,
    /// What to post.
    pub message: Message,
}

/// Where letters are put to be posted, in order.
pub type Outbox = mpsc::UnboundedSender<Letter>;

/// Who offers something to a supervisor that it calls.
pub trait Offerer: Send + Sync + 'static {
    /// Returns the registries that messages are read with.
    fn registries(&self) -> &Registries;

    /// Counts changes of what is offered, or to whom.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Returns what is offered to everybody; `None` if that depends on who asks.
    fn offered_to_all(&self) -> Option<Vec<Capability>>;

    /// Returns what a supervisor may use.
    fn offered_to(&self, supervisor: &Identity) -> Vec<Capability>;

    /// Takes note that a supervisor has taken what is offered to it.
    fn registered(&self);

    /// Has results that are for this supervisor put into an outbox from now on, and at once
    /// those that it has not got yet.
    fn deliver_to(&self, supervisor: &Identity, outbox: &Outbox);

    /// Answers a message that was fetched: what is to be posted goes to the outbox.
    fn answer<'a>(
        &'a self,
        supervisor: &'a Identity,
        message: Message,
        outbox: &'a Outbox,
    ) -> Later<'a>;

    /// Takes note that a letter has arrived.
    fn delivered(&self, letter: &Letter);

    /// Gives a letter up that its receiver refuses for good.
    fn give_up<'a>(
        &'a self,
        receiver: &'a Identity,
        letter: Letter,
        reason: String,
    ) -> Later<'a>;

    /// Puts nothing into an outbox any more.
    fn close_outbox(&self, outbox: &Outbox);

    /// Returns what ends all.
    fn shutdown(&self) -> &CancellationToken;

    /// Waits, after `shutdown`, until all that is to be delivered is in its outbox.
    fn ended(&self) -> Later<'_>;
}

/// How somebody initiates.
#[derive(Clone, Debug)]
pub struct Initiator {
    /// The supervisor.
    pub supervisor: BaseUrl,
    /// The pause between two requests for specifications, if the supervisor does not
    /// keep them open.
    pub poll: Duration,
}

/// Registers and fetches until the offerer shuts down, or only this is to `end`: what
/// the supervisor has not got is kept then, for when it is asked again.
pub async fn initiate(
    offerer: Arc<dyn Offerer>,
    client: Arc<HttpClient>,
    initiator: Initiator,
    end: CancellationToken,
) {
    let shutdown = offerer.shutdown().clone();
    let mut pause = Pause::default();
    let (outbox, mut letters) = mpsc::unbounded_channel();
    let mut offers = offerer.changes();
    let work = async {
        let mut before = None;
        loop {
            offers.mark_unchanged();
            match register(&*offerer, &client, &initiator, &mut before).await {
                Ok(mut registered) => {
                    let supervisor = registered.supervisor.clone();
                    offerer.deliver_to(&supervisor, &outbox);
                    let fetching =
                        fetch(&*offerer, &client, &initiator, &supervisor, &outbox);
                    let updating = update(
                        &*offerer,
                        &client,
                        &initiator,
                        &mut registered,
                        &mut offers,
                    );
                    let ended = tokio::select! {
                        ended = fetching => ended,
                        error = updating => {
                            Ended { problem: report(&error), has_fetched: true }
                        }
                    };
                    // A supervisor that takes a registration and then does not know the
                    // component is asked ever less often.
                    if ended.has_fetched {
                        pause = Pause::default();
                    }
                    before = Some(registered);
                    let problem = ended.problem;
                    warn!(supervisor = %initiator.supervisor, problem, "registers again");
                }
                Err(error) => {
                    let problem = report(&error);
                    warn!(supervisor = %initiator.supervisor, problem, "cannot register");
                    if let RegisterError::Withheld { supervisor } = error {
                        // It still gets what it has asked for, and there may be something for
                        // it soon.
                        offerer.deliver_to(&supervisor, &outbox);
                        tokio::time::sleep(FIRST_PAUSE).await;
                        tokio::select! {
                            () = pause.take() => {}
                            Ok(()) = offers.changed() => pause = Pause::default(),
                        }
                        continue;
                    }
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
                None => offerer.delivered(&letter),
                Some((receiver, reason)) => {
                    offerer.give_up(&receiver, letter, reason).await;
                }
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = deliver => {}
        () = shutdown.cancelled() => {}
        () = end.cancelled() => {
            info!(supervisor = %initiator.supervisor, "is not served any more");
            letters.close();
            offerer.close_outbox(&outbox);
            return;
        }
    }
    // What was measured until the shutdown is still delivered, if the supervisor is there.
    offerer.ended().await;
    letters.close();
    while let Some(letter) = in_hand.take().or(letters.recv().await) {
        let delivery = post_once(&client, &initiator, &letter.message);
        match tokio::time::timeout(LAST_DELIVERY, delivery).await {
            Ok(Ok(())) => offerer.delivered(&letter),
            delivery => {
                warn!(kind = %letter.message.kind(), "could not be delivered before the end");
                if delivery.is_err() {
                    // A supervisor that is silent is not waited for once more.
                    break;
                }
            }
        }
    }
    offerer.ended().await;
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
    offerer: &dyn Offerer,
    client: &HttpClient,
    initiator: &Initiator,
    supervisor: &Identity,
    outbox: &Outbox,
) -> Ended {
    let mut pause = Pause::default();
    let mut has_fetched = false;
    loop {
        match fetch_once(offerer, client, initiator, supervisor, outbox).await {
            Ok(Fetched::Again) => {
                pause = Pause::default();
                has_fetched = true;
            }
            Ok(Fetched::Later(callback)) => {
                pause = Pause::default();
                has_fetched = true;
                // Who is told when to come comes then.
                let later = callback.unwrap_or_else(|| jittered(initiator.poll));
                tokio::time::sleep(later).await;
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
    /// Fetch again after the pause that the supervisor has set, or else that of the
    /// configuration.
    Later(Option<Duration>),
    /// Register again.
    Unknown(StatusCode),
}

/// Fetches specifications once and answers them.
async fn fetch_once(
    offerer: &dyn Offerer,
    client: &HttpClient,
    initiator: &Initiator,
    supervisor: &Identity,
    outbox: &Outbox,
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
    let messages = answer.messages(offerer.registries())?;
    let mut callback = None;
    for message in flatten(messages) {
        if let Some(pause) = callback_pause(&message) {
            callback = Some(pause);
            continue;
        }
        offerer.answer(supervisor, message, outbox).await;
    }
    Ok(match callback {
        None if answer.waited => Fetched::Again,
        callback => Fetched::Later(callback),
    })
}

/// Returns the pause that a message sets until specifications are fetched again: the
/// callback specification says `now + pause`. One without end leaves it as it is.
fn callback_pause(message: &Message) -> Option<Duration> {
    let Message::Specification(specification) = message else { return None };
    let is_callback = |s: &Specification| {
        s.verb() == CALLBACK || s.label().map(without_serial) == Some(CALLBACK)
    };
    let pause = specification.when().delays(Timestamp::now())?.end;
    pause.filter(|_| is_callback(specification)).map(|pause| pause.min(LONGEST_CALLBACK))
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
                if let PostError::Unavailable { retry_after: Some(after), .. } = error {
                    tokio::time::sleep(jittered(after.min(LONGEST_PAUSE))).await;
                }
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
    } else if status.is_client_error() && !LATER.contains(&status) {
        Err(PostError::Refused {
            identity: answer.identity,
            status,
            body: shown(&answer.body),
        })
    } else {
        Err(PostError::Unavailable { status, retry_after: answer.retry_after })
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
    Unavailable { status: StatusCode, retry_after: Option<Duration> },
}

/// What is no refusal for good, of the client's errors.
pub const LATER: [StatusCode; 2] =
    [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT];

/// Shows the start of a body in a log.
pub(super) fn shown(body: &[u8]) -> String {
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
