//! How much of what peers send is held at once.
//!
//! A body is as large as its sender likes, up to [`limits::MESSAGE_BYTES`], and comes as slowly
//! as it likes. All bodies of a port share a budget, so that many senders together hold no more
//! than one machine has.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use mplane::limits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::pace::time_for;

/// Bytes of bodies held at once. Reading what they say takes several times as much.
const BYTES: usize = 4 * limits::MESSAGE_BYTES;

/// Bytes that each body may have outside the budget: what components and clients say all the
/// time must not wait for large bodies.
const FREE: usize = 16 << 10;

/// How long a body may take in all, besides the time for its bytes: who sends slowly must not
/// keep the room of others.
const LONGEST: Duration = Duration::from_secs(60);

/// How long a peer may pause within a body.
const PAUSE: Duration = Duration::from_secs(30);

/// Bytes of bodies that wait for room, held at once: a budget of their own, since they may not
/// be refused for others.
const WAITING_BYTES: usize = 2 * limits::MESSAGE_BYTES;

/// The budgets of a port.
#[derive(Clone, Debug)]
pub(crate) struct Intake {
    /// Of bodies that are refused if there is no room.
    refused: Arc<Semaphore>,
    /// Of those that wait.
    waiting: Arc<Semaphore>,
}

impl Default for Intake {
    fn default() -> Self {
        Self::of(BYTES, WAITING_BYTES)
    }
}

/// What to do with a body for which there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WithoutRoom {
    /// The peer is asked to come again.
    Refuse,
    /// It waits: its sender gives up on any answer but 200.
    Wait,
}

/// A body, and the room that it takes.
#[derive(Debug)]
pub struct Received {
    bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

impl std::ops::Deref for Received {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Intake {
    /// Makes budgets of so many bytes: of bodies that are refused if there is no room, and of
    /// those that wait.
    pub(super) fn of(refused: usize, waiting: usize) -> Self {
        let budget = |bytes| Arc::new(Semaphore::new(bytes));
        Self { refused: budget(refused), waiting: budget(waiting) }
    }

    /// Takes a body in.
    pub(super) async fn take(
        &self,
        body: Body,
        without_room: WithoutRoom,
    ) -> Result<Received, IntakeError> {
        let mut body = std::pin::pin!(body);
        let (mut bytes, mut room) = (BytesMut::new(), None::<OwnedSemaphorePermit>);
        let started = Instant::now();
        loop {
            let longest = started + LONGEST + time_for(bytes.len());
            let next = timeout_at(longest, timeout(PAUSE, body.frame())).await;
            let next = next.map_err(|_| IntakeError::TooSlow)?;
            let frame = match next.map_err(|_| IntakeError::Pause)? {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Err(IntakeError::Cut(error.to_string())),
                None => return Ok(Received { bytes: bytes.freeze(), _room: room }),
            };
            let Ok(data) = frame.into_data() else { continue };
            let length = bytes.len().saturating_add(data.len());
            if length > limits::MESSAGE_BYTES {
                return Err(IntakeError::TooLarge);
            }
            let taken = room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
            let more = length.saturating_sub(FREE).saturating_sub(taken);
            if more > 0 {
                let more = timeout_at(longest, self.acquire(more, without_room)).await;
                let more = more.map_err(|_| IntakeError::TooSlow)??;
                match &mut room {
                    Some(room) => room.merge(more),
                    None => room = Some(more),
                }
            }
            bytes.extend_from_slice(&data);
        }
    }

    /// Takes room for so many bytes.
    async fn acquire(
        &self,
        bytes: usize,
        without_room: WithoutRoom,
    ) -> Result<OwnedSemaphorePermit, IntakeError> {
        let bytes = u32::try_from(bytes).map_err(|_| IntakeError::TooLarge)?;
        match without_room {
            WithoutRoom::Refuse => Arc::clone(&self.refused)
                .try_acquire_many_owned(bytes)
                .map_err(|_| IntakeError::NoRoom),
            // Those that wait hold what they have, and might all wait for each other until one
            // has taken too long.
            WithoutRoom::Wait => Arc::clone(&self.waiting)
                .acquire_many_owned(bytes)
                .await
                .map_err(|_| IntakeError::NoRoom),
        }
    }
}

/// A body that is not taken in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum IntakeError {
    /// It has too many bytes.
    #[error("a message has at most {} bytes", limits::MESSAGE_BYTES)]
    TooLarge,
    /// Nothing came for too long.
    #[error("the request did not arrive whole: nothing came for {} s", PAUSE.as_secs())]
    Pause,
    /// It took too long.
    #[error("the request did not arrive in time: it is too slow for its size")]
    TooSlow,
    /// The connection broke.
    #[error("the request did not arrive whole: {0}")]
    Cut(String),
    /// Others take all the room.
    #[error("there is no room for the request while others arrive; try again later")]
    NoRoom,
}

#[cfg(test)]
mod tests {
    use http_body_util::channel::{Channel, Sender};

    use super::*;

    /// Makes a body that comes as it is sent.
    fn slow() -> (Sender<Bytes, std::io::Error>, Body) {
        let (send, body) = Channel::new(8);
        (send, Body::new(body))
    }

    /// Sends so many bytes.
    async fn send(body: &mut Sender<Bytes, std::io::Error>, bytes: usize) {
        body.send_data(vec![b' '; bytes].into()).await.unwrap();
    }

    #[tokio::test]
    async fn bodies_share_the_room_and_small_ones_need_none() {
        let intake = Intake::of(100_000, 100_000);
        let (mut first, body) = slow();
        let taking = tokio::spawn({
            let intake = intake.clone();
            async move { intake.take(body, WithoutRoom::Refuse).await }
        });
        send(&mut first, FREE + 70_000).await;
        while intake.refused.available_permits() == 100_000 {
            tokio::task::yield_now().await;
        }
        let large = |bytes: usize| Body::from(vec![b' '; bytes]);
        let refused = intake.take(large(FREE + 30_001), WithoutRoom::Refuse).await;
        assert_eq!(refused.unwrap_err(), IntakeError::NoRoom);
        for bytes in [0, FREE, FREE + 30_000] {
            let taken = intake.take(large(bytes), WithoutRoom::Refuse).await;
            assert_eq!(taken.unwrap().len(), bytes);
        }
        drop(first);
        let taken = taking.await.unwrap().unwrap();
        assert_eq!(taken.len(), FREE + 70_000);
        // Its room is taken as long as it is looked at.
        assert_eq!(intake.refused.available_permits(), 30_000);
        drop(taken);
        assert_eq!(intake.refused.available_permits(), 100_000);
    }

    #[tokio::test]
    async fn bodies_that_may_not_be_refused_wait_for_each_other_alone() {
        let intake = Intake::of(0, 100_000);
        let large = |bytes: usize| Body::from(vec![b' '; bytes]);
        let first = intake.take(large(FREE + 70_000), WithoutRoom::Wait).await.unwrap();
        let waiting = tokio::spawn({
            let intake = intake.clone();
            async move { intake.take(large(FREE + 100_000), WithoutRoom::Wait).await }
        });
        while intake.waiting.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(!waiting.is_finished(), "it waits for all of it");
        drop(first);
        assert_eq!(waiting.await.unwrap().unwrap().len(), FREE + 100_000);
        assert_eq!(intake.waiting.available_permits(), 100_000);
    }

    #[tokio::test(start_paused = true)]
    async fn who_pauses_for_too_long_or_sends_too_much_is_refused() {
        let intake = Intake::default();
        let (mut sender, body) = slow();
        send(&mut sender, 1).await;
        let error = intake.take(body, WithoutRoom::Wait).await.unwrap_err();
        assert_eq!(error, IntakeError::Pause);
        let (mut sender, body) = slow();
        let dripping = async {
            while sender.send_data(Bytes::from_static(b" ")).await.is_ok() {
                tokio::time::sleep(PAUSE / 2).await;
            }
        };
        let (taken, ()) = tokio::join!(intake.take(body, WithoutRoom::Refuse), dripping);
        assert_eq!(taken.unwrap_err(), IntakeError::TooSlow);
        let large = Body::from(vec![b' '; limits::MESSAGE_BYTES + 1]);
        let error = intake.take(large, WithoutRoom::Refuse).await.unwrap_err();
        assert_eq!(error, IntakeError::TooLarge);
        let (sender, body) = slow();
        sender.abort(std::io::Error::other("gone"));
        let error = intake.take(body, WithoutRoom::Refuse).await.unwrap_err();
        assert!(matches!(error, IntakeError::Cut(_)), "{error}");
        // Who waits for room does not wait for ever.
        let none = Intake::of(0, 0);
        let body = Body::from(vec![b' '; FREE + 1]);
        let error = none.take(body, WithoutRoom::Wait).await.unwrap_err();
        assert_eq!(error, IntakeError::TooSlow);
    }
}
