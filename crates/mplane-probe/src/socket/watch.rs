//! Waiting for an [`EchoSocket`] on the Tokio runtime.

use std::io;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::EchoSocket;

/// What is waited for: packets, and entries of the error queue.
///
/// Never add "writable": once there was an error, the runtime takes the socket for
/// closed for writing for good, and every wait would end at once.
const INTEREST: Interest = Interest::READABLE.add(Interest::ERROR);

/// An [`EchoSocket`] the runtime watches.
#[derive(Debug)]
pub struct WatchedSocket {
    /// The socket and its registration.
    watched: AsyncFd<EchoSocket>,
}

impl WatchedSocket {
    /// Registers `socket` with the current runtime, which must have I/O enabled.
    #[expect(
        deprecated,
        reason = "its successor is an unsafe function that asks for what holds here: the \
                  socket owns its descriptor and never changes it"
    )]
    pub fn new(socket: EchoSocket) -> io::Result<Self> {
        Ok(Self { watched: AsyncFd::with_interest(socket, INTEREST)? })
    }

    /// Returns the socket.
    pub fn socket(&self) -> &EchoSocket {
        self.watched.get_ref()
    }

    /// Returns the socket, for sending and receiving.
    pub fn socket_mut(&mut self) -> &mut EchoSocket {
        self.watched.get_mut()
    }

    /// Waits until something may have arrived, then calls `take`.
    ///
    /// `take` receives until there is nothing left and then returns true; if it returns
    /// false, the next wait ends at once. It must bear finding nothing. Nothing is lost
    /// if the wait is dropped: `take` is called after it or not at all.
    pub async fn wait<E>(
        &mut self,
        take: impl FnOnce(&mut EchoSocket) -> Result<bool, E>,
    ) -> io::Result<Result<(), E>> {
        let mut ready = self.watched.ready_mut(INTEREST).await?;
        let taken = take(ready.get_inner_mut());
        if matches!(taken, Ok(true)) {
            ready.clear_ready();
        }
        Ok(taken.map(|_| ()))
    }
}
