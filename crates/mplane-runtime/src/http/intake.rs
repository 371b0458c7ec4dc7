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

/// Bytes of bodies held at once. Reading what they say takes several times as much.
const BYTES: usize = 4 * limits::MESSAGE_BYTES;

/// Bytes that each body may have outside the budget: what components and clients say all the
/// time must not wait for large bodies.
const FREE: usize = 16 << 10;

/// How long a body may take in all: who sends slowly must not keep the room of others.
const LONGEST: Duration = Duration::from_secs(120);

/// How long a peer may pause within a body.
const PAUSE: Duration = Duration::from_secs(30);

/// The budget of a port.
#[derive(Clone, Debug)]
pub(crate) struct Intake(Arc<Semaphore>);

impl Default for Intake {
    fn default() -> Self {
        Self::of(BYTES)
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
    /// Makes a budget of so many bytes.
    pub(super) fn of(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes)))
    }

    /// Takes a body in.
    pub(super) async fn take(
        &self,
        body: Body,
        without_room: WithoutRoom,
    ) -> Result<Received, IntakeError> {
        let taken = tokio::time::timeout(LONGEST, self.collect(body, without_room));
        taken.await.unwrap_or(Err(IntakeError::TooSlow))
    }

    /// Takes a body in, however long it takes.
    async fn collect(
        &self,
        body: Body,
        without_room: WithoutRoom,
    ) -> Result<Received, IntakeError> {
        let mut body = std::pin::pin!(body);
        let (mut bytes, mut room) = (BytesMut::new(), None::<OwnedSemaphorePermit>);
        loop {
            let next = tokio::time::timeout(PAUSE, body.frame()).await;
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
                let more = self.acquire(more, without_room).await?;
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
        let semaphore = Arc::clone(&self.0);
        let bytes = u32::try_from(bytes).map_err(|_| IntakeError::TooLarge)?;
        match without_room {
            WithoutRoom::Refuse => {
                semaphore.try_acquire_many_owned(bytes).map_err(|_| IntakeError::NoRoom)
            }
            // Those that wait hold what they have, and might all wait for each other.
            WithoutRoom::Wait => {
                let acquired = semaphore.acquire_many_owned(bytes);
                match tokio::time::timeout(PAUSE, acquired).await {
                    Ok(Ok(permit)) => Ok(permit),
                    _ => Err(IntakeError::NoRoom),
                }
            }
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
    #[error("the request did not arrive within {} s", LONGEST.as_secs())]
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
        let intake = Intake::of(100_000);
        let (mut first, body) = slow();
        let taking = tokio::spawn({
            let intake = intake.clone();
            async move { intake.take(body, WithoutRoom::Refuse).await }
        });
        send(&mut first, FREE + 70_000).await;
        while intake.0.available_permits() == 100_000 {
            tokio::task::yield_now().await;
        }
        let large = |bytes: usize| Body::from(vec![b' '; bytes]);
        let refused = intake.take(large(FREE + 30_001), WithoutRoom::Refuse).await;
        assert_eq!(refused.unwrap_err(), IntakeError::NoRoom);
        for bytes in [0, FREE, FREE + 30_000] {
            let taken = intake.take(large(bytes), WithoutRoom::Refuse).await;
            assert_eq!(taken.unwrap().len(), bytes);
        }
        let waiting = tokio::spawn({
            let intake = intake.clone();
            async move { intake.take(large(FREE + 100_000), WithoutRoom::Wait).await }
        });
        drop(first);
        let taken = taking.await.unwrap().unwrap();
        assert_eq!(taken.len(), FREE + 70_000);
        // Its room is taken as long as it is looked at.
        assert_eq!(intake.0.available_permits(), 0, "the next waits for all of it");
        drop(taken);
        assert_eq!(waiting.await.unwrap().unwrap().len(), FREE + 100_000);
        assert_eq!(intake.0.available_permits(), 100_000);
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
        let none = Intake::of(0);
        let body = Body::from(vec![b' '; FREE + 1]);
        let error = none.take(body, WithoutRoom::Wait).await.unwrap_err();
        assert_eq!(error, IntakeError::NoRoom);
    }
}
