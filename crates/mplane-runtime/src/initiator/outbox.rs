//! Where what is for a supervisor is put, and how it is posted: in order, until it is taken.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Method, StatusCode};
use mplane::access::Identity;
use mplane::message::Message;
use tokio::sync::{mpsc, watch};
use tracing::warn;

use super::{Initiator, Offerer, Pause, later, shown};
use crate::http::client::{Ask, AskError, HttpClient};
use crate::http::path;
use crate::report;
use crate::tls::fresh_token;

/// How long the delivery of one result may take after the program was told to end, besides the
/// time for its bytes.
const LAST_DELIVERY: Duration = Duration::from_secs(2);

/// How long the delivery of all that is left may take then: who started the program waits.
const LAST_DELIVERIES: Duration = Duration::from_secs(10);

/// Letters that may wait for a supervisor before no more is fetched from it.
const WAITING: usize = 1_000;

/// A message to be posted.
#[derive(Debug)]
pub struct Letter {
    /// Who it is for.
    pub to: Identity,
    /// What it is the result of, by the number that its sender knows it under; `None` for
    /// receipts and other answers, which are not posted again after a restart.
    pub about: Option<u64>,
    /// What to post.
    pub message: Message,
}

/// Where letters are put to be posted, in order.
#[derive(Clone, Debug)]
pub struct Outbox {
    letters: mpsc::UnboundedSender<Letter>,
    /// How many have been put in and are not posted.
    waiting: Arc<AtomicUsize>,
    /// Tells when somebody else was there than the receiver of a letter, of who is served.
    others: Arc<watch::Sender<()>>,
    /// Who is served.
    served: Arc<Mutex<Option<Identity>>>,
}

/// An outbox from which nothing is posted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nothing is posted to this supervisor any more")]
pub struct Closed;

impl Outbox {
    /// Makes an outbox, and where its letters come out.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Letter>) {
        let (letters, receiver) = mpsc::unbounded_channel();
        let others = Arc::new(watch::Sender::new(()));
        let outbox =
            Self { letters, waiting: Arc::default(), others, served: Arc::default() };
        (outbox, receiver)
    }

    /// Puts a letter in.
    pub fn send(&self, letter: Letter) -> Result<(), Closed> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.letters.send(letter).map_err(|_| Closed)
    }

    /// Waits until nothing is posted any more.
    pub async fn closed(&self) {
        self.letters.closed().await;
    }

    /// Says whether this is the same outbox as another.
    pub fn is_same(&self, other: &Self) -> bool {
        self.letters.same_channel(&other.letters)
    }

    /// Takes note of who is served now; returns who was before.
    pub(super) fn serve(&self, supervisor: &Identity) -> Option<Identity> {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        served.replace(supervisor.clone())
    }

    /// Waits until somebody else is there than who is served: whoever it is, it is to know what
    /// is offered, and the other gets what is for it when it is back.
    pub(super) async fn somebody_else(&self) {
        // The sender lives as long as this.
        let _changed = self.others.subscribe().changed().await;
    }

    /// Takes note that somebody else was there than the receiver of a letter.
    fn missed(&self, receiver: &Identity) {
        let served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        if served.as_ref() == Some(receiver) {
            self.others.send_replace(());
        }
    }

    /// Takes note that a letter is done with.
    pub(super) fn done(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// Says whether so much waits that no more should come of what is fetched.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) >= WAITING
    }
}

/// Delivers letters, one after the other. The one in hand outlives this, when it is dropped.
pub(super) async fn deliver(
    offerer: &dyn Offerer,
    client: &HttpClient,
    initiator: &Initiator,
    letters: &mut mpsc::UnboundedReceiver<Letter>,
    in_hand: &mut Option<Letter>,
    outbox: &Outbox,
) {
    loop {
        if in_hand.is_none() {
            *in_hand = letters.recv().await;
        }
        let Some(letter) = &*in_hand else { return };
        let posted = post(client, initiator, letter).await;
        let Some(letter) = in_hand.take() else { return };
        outbox.done();
        match posted {
            Posted::Taken => offerer.delivered(&letter),
            Posted::Refused { reason } => {
                let receiver = letter.to.clone();
                offerer.give_up(&receiver, letter, reason).await;
            }
            Posted::ByOther => {
                outbox.missed(&letter.to);
                offerer.take_back(letter);
            }
        }
    }
}

/// Delivers what is left when the program ends, if the supervisor is there: the letter in hand,
/// and all behind it.
pub(super) async fn deliver_last(
    offerer: &dyn Offerer,
    client: &HttpClient,
    initiator: &Initiator,
    mut in_hand: Option<Letter>,
    mut letters: mpsc::UnboundedReceiver<Letter>,
) {
    letters.close();
    let last = tokio::time::Instant::now() + LAST_DELIVERIES;
    let mut left = 0;
    loop {
        // Only what is not in hand is taken from the others.
        let next = match in_hand.take() {
            Some(letter) => Some(letter),
            None => letters.recv().await,
        };
        let Some(letter) = next else { break };
        let limit = last.min(tokio::time::Instant::now() + LAST_DELIVERY);
        let delivery = post_once(client, initiator, &letter);
        match tokio::time::timeout_at(limit, delivery).await {
            Ok(Ok(())) => offerer.delivered(&letter),
            _ => left += 1,
        }
    }
    if left > 0 {
        warn!(letters = left, "could not be delivered before the end");
    }
}

/// What became of a letter.
enum Posted {
    /// Its receiver has it.
    Taken,
    /// Its receiver refuses it for good.
    Refused { reason: String },
    /// Somebody else is there now.
    ByOther,
}

/// Posts a receipt, result or exception until it is taken or refused.
async fn post(client: &HttpClient, initiator: &Initiator, letter: &Letter) -> Posted {
    let mut pause = Pause::default();
    loop {
        match post_once(client, initiator, letter).await {
            Ok(()) => return Posted::Taken,
            Err(PostError::Refused { status, body }) => {
                let token = letter.message.token().unwrap_or_else(fresh_token);
                warn!(%token, %status, body, "the supervisor refuses what was measured");
                let reason = format!("refused with {status}: {body}");
                return Posted::Refused { reason };
            }
            Err(error @ PostError::Other { .. }) => {
                warn!(problem = report(&error), "is kept until its receiver comes back");
                return Posted::ByOther;
            }
            Err(error) => {
                warn!(problem = report(&error), "cannot deliver, tries again");
                if let PostError::Unavailable { retry_after: Some(after), .. } = error {
                    later(after).await;
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
    letter: &Letter,
) -> Result<(), PostError> {
    let ask = Ask {
        method: Method::POST,
        path: path::REGISTER_RESULT,
        messages: std::slice::from_ref(&letter.message),
        wait: Duration::ZERO,
    };
    let answer = client.ask(&initiator.supervisor, ask).await?;
    let status = answer.status;
    if answer.identity != letter.to {
        return Err(PostError::Other { identity: answer.identity });
    }
    if status.is_success() {
        Ok(())
    } else if status.is_client_error() && !LATER.contains(&status) {
        Err(PostError::Refused { status, body: shown(&answer.body) })
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
    Refused { status: StatusCode, body: String },
    #[error("now {identity} answers")]
    Other { identity: Identity },
    #[error("the supervisor answered {status}")]
    Unavailable { status: StatusCode, retry_after: Option<Duration> },
}

/// What is no refusal for good, of the client's errors.
pub const LATER: [StatusCode; 2] =
    [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT];
