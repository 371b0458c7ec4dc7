//! A connection whose peer must read at a pace: what it does not read is held in memory.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long a peer may take to read what is written to it, besides the time for its bytes.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes per second that a peer must read on the average: less than any link of today has.
const LEAST_RATE: u32 = 16 << 10;

/// Returns how long so many bytes may take.
pub(super) fn time_for(bytes: usize) -> Duration {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    Duration::from_secs(1) * bytes / LEAST_RATE
}

/// A stream that fails once its peer is too slow. It counts from when the peer has first to be
/// waited for until all is written: a byte now and then does not help.
#[derive(Debug)]
pub(super) struct Paced<S> {
    stream: S,
    /// Until when the peer may be waited for.
    until: Option<Pin<Box<Sleep>>>,
}

impl<S> Paced<S> {
    pub(super) const fn new(stream: S) -> Self {
        Self { stream, until: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> Paced<S> {
    /// Takes note of how writing goes on.
    fn paced<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
        bytes: impl FnOnce(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(Ok(done)) => {
                if let Some(until) = &mut self.until {
                    let later = until.deadline() + time_for(bytes(&done));
                    until.as_mut().reset(later);
                }
                Poll::Ready(Ok(done))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                let until = self.until.get_or_insert_with(|| Box::pin(sleep(PATIENCE)));
                ready!(until.as_mut().poll(cx));
                let slow = "the peer reads too slowly";
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, slow)))
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.paced(cx, written, |count| *count)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.paced(cx, written, |count| *count)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// All is written then, and the peer owes nothing any more.
    fn poll_flush(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        ready!(self.paced(cx, flushed, |()| 0))?;
        self.until = None;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.paced(cx, shut, |()| 0)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    use super::*;

    /// Writes so much to a peer that reads so many bytes each second; returns for how long.
    async fn write_to(reads: usize, bytes: usize) -> (io::Result<()>, Duration) {
        let (stream, mut peer) = duplex(1_024);
        let reading = tokio::spawn(async move {
            let mut buffer = vec![0; reads];
            loop {
                sleep(Duration::from_secs(1)).await;
                if peer.read_exact(&mut buffer).await.is_err() {
                    return;
                }
            }
        });
        let started = Instant::now();
        let mut stream = Paced::new(stream);
        let written = async {
            stream.write_all(&vec![0; bytes]).await?;
            stream.flush().await
        };
        let written = written.await;
        reading.abort();
        (written, started.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_a_byte_now_and_then_is_cut_and_who_reads_at_a_pace_is_not() {
        let (dripping, after) = write_to(1, 1 << 20).await;
        assert_eq!(dripping.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(after < 2 * PATIENCE, "{after:?}");
        let (steady, after) = write_to(2 << 14, 4 << 20).await;
        steady.unwrap();
        assert!(after > 2 * PATIENCE, "{after:?}");
    }
}
