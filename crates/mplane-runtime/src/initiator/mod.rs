//! The initiating side of whoever offers something to a supervisor: it registers there,
//! fetches specifications and posts what comes of them.
//!
//! Components do so, and supervisors that offer what their components offer to another
//! supervisor: [`Offerer`] is what both have in common.
//!
//! Everything that can fail on the way is tried again, with growing pauses, until the
//! program ends.

mod outbox;
mod registration;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use jiff::Timestamp;
use mplane::access::Identity;
use mplane::exchange::component::without_serial;
use mplane::json::{self, DecodeError, MEDIA_TYPE, Unreadable};
use mplane::message::{CALLBACK, Capability, Exception, Message, Specification};
use mplane::registry::Registries;
use mplane::token::Token;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

pub use self::outbox::{Closed, LATER, Letter, Outbox};
use self::outbox::{deliver, deliver_last};
use self::registration::{RegisterError, register, update};
use crate::http::client::{Answer, Ask, AskError, BaseUrl, HttpClient};
use crate::http::path;
use crate::report;
use crate::tls::fresh_token;

/// The first pause after a failure; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The longest pause after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How long a supervisor may keep a request for specifications open until there are some.
const WAIT: Duration = Duration::from_secs(20);

/// The longest pause that a supervisor may set between two requests for specifications, so
/// that a component is not lost for ever by mistake.
const LONGEST_CALLBACK: Duration = Duration::from_secs(24 * 3_600);

/// Something that is done later, by who is behind a trait.
pub type Later<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

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

    /// Takes a letter back whose receiver is not there any more: it is put into the outbox
    /// again when the receiver comes back.
    fn take_back(&self, letter: Letter);

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
    let (outbox, mut letters) = Outbox::new();
    let mut offers = offerer.changes();
    let work = async {
        let mut before = None;
        loop {
            offers.mark_unchanged();
            match register(&*offerer, &client, &initiator, &mut before).await {
                Ok(mut registered) => {
                    let supervisor = registered.supervisor.clone();
                    if outbox.serve(&supervisor).is_some_and(|it| it != supervisor) {
                        // What is for the other one waits until it comes back.
                        offerer.close_outbox(&outbox);
                    }
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
                        () = outbox.somebody_else() => {
                            let problem = "somebody else has answered".to_owned();
                            Ended { problem, has_fetched: false }
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
                    if let RegisterError::Status { retry_after: Some(after), .. } = &error
                    {
                        later(*after).await;
                    }
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
    let deliver =
        deliver(&*offerer, &client, &initiator, &mut letters, &mut in_hand, &outbox);
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
    deliver_last(&*offerer, &client, &initiator, in_hand, letters).await;
    offerer.ended().await;
}

/// Waits as long as a supervisor asks for, and a little longer, so that not all come back at
/// once.
pub(crate) async fn later(after: Duration) {
    let after = after.min(LONGEST_PAUSE);
    tokio::time::sleep(after + jittered(after / 2)).await;
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
        while outbox.is_full() {
            // What comes of what is fetched would wait behind it.
            pause.take().await;
        }
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
                // A supervisor that was away may have forgotten, and what it handed out may be
                // lost: register again, which has it handed out once more.
                if matches!(error, FetchError::Ask(_) | FetchError::Other { .. }) {
                    return Ended { problem, has_fetched };
                }
                warn!(supervisor = %initiator.supervisor, problem, "cannot fetch");
                match error {
                    FetchError::Status { retry_after: Some(after), .. } => {
                        later(after).await;
                    }
                    _ => pause.take().await,
                }
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
            return Err(FetchError::Status {
                status,
                body: shown(&answer.body),
                retry_after: answer.retry_after,
            });
        }
    }
    let mut callback = None;
    for message in read(&answer, offerer.registries())? {
        let message = match message {
            Ok(message) => message,
            Err((token, reason)) => {
                // One that cannot be read must not cost the others.
                warn!(%supervisor, %token, reason, "cannot read what it hands out");
                let message = Exception::new(Some(token), reason).into();
                let letter = Letter { to: supervisor.clone(), about: None, message };
                if outbox.send(letter).is_err() {
                    debug!("the end has come before an answer was sent");
                }
                continue;
            }
        };
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
    Status { status: StatusCode, body: String, retry_after: Option<Duration> },
}

/// A message that was handed out or, of one that cannot be read, its token and why.
type Handed = Result<Message, (Token, String)>;

/// Reads what a supervisor hands out, each message by itself.
fn read(answer: &Answer, registries: &Registries) -> Result<Vec<Handed>, DecodeError> {
    if answer.body.is_empty() || answer.content_type != MEDIA_TYPE {
        return Ok(Vec::new());
    }
    let parts = json::decode_parts(&answer.body, registries)?;
    let mut messages = Vec::new();
    for part in parts.messages {
        match part {
            Ok(message) => messages.extend(flatten(message).into_iter().map(Ok)),
            Err(Unreadable { token: Some(token), error, .. }) => {
                let reason =
                    format!("the component cannot read the specification: {error}");
                messages.push(Err((token, reason)));
            }
            // Nobody can be told which one it is.
            Err(Unreadable { token: None, error, .. }) => return Err(error),
        }
    }
    Ok(messages)
}

/// Takes messages out of envelopes.
fn flatten(message: Message) -> Vec<Message> {
    match message {
        Message::Envelope(envelope) => {
            envelope.into_messages().into_iter().flat_map(flatten).collect()
        }
        other => vec![other],
    }
}

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
