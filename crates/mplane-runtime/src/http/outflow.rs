//! How much of what peers are answered is held at once.
//!
//! Most answers are small. Large results are held until their peers have read them, as slowly
//! as they may: all large answers of a port share a budget, of which each peer has a part.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use mplane::access::Identity;
use mplane::limits;

use super::routes::{answer, later};

/// Bytes of large answers held at once: as many as eight of the largest have.
const BYTES: usize = 8 * limits::MESSAGE_BYTES;

/// Parts that the budget has: one peer must not take the room of all others.
const PARTS: usize = 4;

/// Bytes up to which an answer is small: it is written at once, or nearly.
const SMALL: usize = 64 << 10;

/// Bytes that are given to a connection at once, so that the rest counts until it is taken.
const PIECE: usize = 64 << 10;

/// The budget of a port.
#[derive(Clone, Debug)]
pub(super) struct Outflow {
    most: usize,
    held: Arc<Mutex<Answers>>,
}

/// The large answers that are held.
#[derive(Debug, Default)]
struct Answers {
    bytes: usize,
    by_peer: BTreeMap<Identity, usize>,
}

impl Default for Outflow {
    fn default() -> Self {
        Self::of(BYTES)
    }
}

impl Outflow {
    /// Makes a budget of so many bytes.
    pub(super) fn of(most: usize) -> Self {
        Self { most, held: Arc::default() }
    }

    /// Takes room for an answer until its peer has read it; if there is none, says when to come
    /// again.
    pub(super) fn take(&self, to: &Identity, response: Response<Body>) -> Response<Body> {
        let size = response.body().size_hint().exact().unwrap_or_default();
        let bytes = usize::try_from(size).unwrap_or(usize::MAX);
        if bytes <= SMALL {
            return response;
        }
        let Some(room) = self.acquire(to, bytes) else {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return later(answer(status, "text/plain", NO_ROOM.into()));
        };
        response.map(|body| Body::new(Held { body, rest: Bytes::new(), _room: room }))
    }

    /// Takes room for so many bytes.
    fn acquire(&self, to: &Identity, bytes: usize) -> Option<Room> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let of_peer = held.by_peer.get(to).copied().unwrap_or_default();
        let fits = |held: usize, most: usize| held.saturating_add(bytes) <= most;
        // In plain HTTP all are one.
        let part = if to.is_authenticated() { self.most / PARTS } else { self.most };
        if !fits(held.bytes, self.most) || !fits(of_peer, part) {
            return None;
        }
        held.bytes += bytes;
        held.by_peer.insert(to.clone(), of_peer + bytes);
        Some(Room { outflow: self.clone(), to: to.clone(), bytes })
    }
}

/// The room that an answer takes until this is dropped.
struct Room {
    outflow: Outflow,
    to: Identity,
    bytes: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut held = self.outflow.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.bytes -= self.bytes;
        if let Some(of_peer) = held.by_peer.get_mut(&self.to) {
            *of_peer -= self.bytes;
            if *of_peer == 0 {
                held.by_peer.remove(&self.to);
            }
        }
    }
}

/// Why a large answer is not given.
const NO_ROOM: &str =
    "there is no room for the answer while others are read; try again later";

/// A large body, given in pieces, and the room that it takes.
struct Held {
    body: Body,
    rest: Bytes,
    _room: Room,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                other => return Poll::Ready(other),
            }
        }
        let piece = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(piece);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = u64::try_from(self.rest.len()).unwrap_or(u64::MAX);
        let body = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower().saturating_add(rest));
        if let Some(upper) = body.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn large_answers_have_room_until_they_are_read() {
        let outflow = Outflow::of(900_000);
        let large = || Response::new(Body::from(vec![7_u8; 200_000]));
        let [one, other] = ["a", "b"].map(|name| Identity::new([name.into()], None));
        let first = outflow.take(&one, large());
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(first.body().size_hint().exact(), Some(200_000));
        let second = outflow.take(&one, large());
        assert_eq!(second.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(second.headers().contains_key(http::header::RETRY_AFTER));
        let of_other = outflow.take(&other, large());
        assert_eq!(of_other.status(), StatusCode::OK, "others have theirs");
        let small = outflow.take(&one, Response::new(Body::from("small")));
        assert_eq!(small.status(), StatusCode::OK, "small ones need none");
        let read = first.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(read, vec![7_u8; 200_000]);
        assert_eq!(outflow.take(&one, large()).status(), StatusCode::OK);
        drop(of_other);
        let held = outflow.held.lock().unwrap();
        assert!(held.bytes == 0 && held.by_peer.is_empty(), "{held:?}");
    }
}
