//! ICMP sockets, thinly: system calls and kernel time stamps, nothing of the
//! measurement's logic.
//!
//! Clocks: user stamps carry the monotonic clock and UTC, kernel stamps UTC.
//!
//! Source: Linux manual pages icmp(7), raw(7), ip(7), recvmsg(2); Linux documentation
//! "Timestamping".

mod availability;
mod clock;
mod errno;
mod filter;
mod open;
mod queue;
mod watch;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::Socket;

pub use availability::{Access, Availability, detect};
pub use clock::UserClock;
pub(crate) use errno::obstacle;
pub use open::OpenEchoError;
pub use watch::WatchedSocket;

use crate::packet::{Family, Framing, Obstacle, Problem, ReceiveStamp};
use queue::{Buffer, Notice, Received};

/// Room for what comes with an ICMP packet besides our payload, in bytes: the longest
/// IPv4 header (60) and an ICMP header (8). Errors quote at most a request.
const HEADROOM_BYTES: usize = 128;

/// Smallest receive buffer, in bytes: an ICMPv6 error fills the smallest link of IPv6.
const MIN_BUFFER_BYTES: usize = 2048;

/// Receive buffer for many replies, in bytes: the kernel takes some 1,000 for each, so what
/// comes within a tenth of a second at 40,000 a second.
const MANY_BYTES: usize = 4 << 20;

/// Memory for packets received at once, in bytes: sixteen short ones.
const BUFFERS_BYTES: usize = 16 * MIN_BUFFER_BYTES;

/// Most transmit stamps waited for. The kernel delivers them in microseconds.
const MAX_AWAITED_STAMPS: usize = 1024;

/// How many errors in a row receiving may give before it counts as broken. Errors of
/// earlier packets come once each.
const MAX_RECEIVE_ERRORS: u32 = 16;

/// The two kinds of ICMP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SocketKind {
    /// `SOCK_DGRAM`: the kernel chooses the identifier and matches the replies.
    Datagram,
    /// `SOCK_RAW`: sees all ICMP packets; needs `CAP_NET_RAW`.
    Raw,
}

impl fmt::Display for SocketKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Datagram => "datagram",
            Self::Raw => "raw",
        })
    }
}

/// A non-blocking ICMP socket for echo requests.
///
/// [`WatchedSocket`] waits for it.
#[derive(Debug)]
pub struct EchoSocket {
    /// The socket.
    socket: Socket,
    /// Its family.
    family: Family,
    /// Its kind.
    kind: SocketKind,
    /// The identifier of requests on the wire.
    identifier: u16,
    /// The clock of user stamps.
    clock: UserClock,
    /// Transmit stamps not yet delivered, `None` when the kernel gives none.
    awaited: Option<AwaitedStamps>,
    /// Where packets are received.
    packet_buffers: Vec<Buffer>,
    /// Where entries of the error queue are received.
    notice_buffer: Buffer,
    /// How many packets the kernel has dropped, as far as it said.
    dropped: u32,
    /// Packets in `packet_buffers` that wait until the error queue was looked at.
    held: Vec<Received>,
    /// How many of them were given out.
    given: usize,
    /// Whether the error queue was looked at since they were received.
    is_error_queue_empty: bool,
}

/// What the kernel had for us.
#[derive(Debug)]
pub enum Arrival<'a> {
    /// A packet, to be read by [`read_packet`](crate::packet::read_packet).
    Packet {
        /// The packet, framed as [`EchoSocket::framing`] says.
        bytes: &'a [u8],
        /// Who sent it.
        source: Option<IpAddr>,
        /// Hops it could still have gone.
        hop_limit: Option<u8>,
        /// When it came.
        stamp: ReceiveStamp,
    },
    /// The kernel's stamp of a request it sent. Comes before the reply.
    Transmitted {
        /// The label given to [`EchoSocket::send`].
        label: u64,
        /// When the kernel handed the request to the network driver (UTC).
        kernel: Timestamp,
    },
    /// An ICMP error about a request (datagram sockets only).
    Reported {
        /// Who reported it.
        from: Option<IpAddr>,
        /// What was reported.
        problem: Problem,
        /// The request, to be read by
        /// [`read_quoted_request`](crate::packet::read_quoted_request).
        quoted: &'a [u8],
    },
}

/// Why a request was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// This one was not; another may be.
    #[error("request not sent: {0}")]
    Obstacle(Obstacle),
    /// No request to this destination can be sent.
    #[error("the system refuses to send echo requests to this destination")]
    Impossible(#[source] io::Error),
}

impl EchoSocket {
    /// Opens a datagram ICMP socket, or if that is not allowed a raw one, that sends
    /// from `source`, and asks for kernel stamps.
    pub fn open(family: Family, source: Option<IpAddr>) -> Result<Self, OpenEchoError> {
        let opened = open::open(family, source)?;
        Ok(Self {
            socket: opened.socket,
            family,
            kind: opened.kind,
            identifier: opened.identifier,
            clock: UserClock::start(),
            awaited: opened.has_kernel_stamps.then(AwaitedStamps::default),
            packet_buffers: buffers(MIN_BUFFER_BYTES),
            notice_buffer: Buffer::new(MIN_BUFFER_BYTES),
            dropped: 0,
            held: Vec::new(),
            given: 0,
            is_error_queue_empty: false,
        })
    }

    /// Returns which kind of socket it is.
    pub fn kind(&self) -> SocketKind {
        self.kind
    }

    /// Returns the identifier requests bear on the wire.
    ///
    /// A datagram socket overwrites whatever the request says by this.
    pub fn identifier(&self) -> u16 {
        self.identifier
    }

    /// Returns how received packets are framed.
    pub fn framing(&self) -> Framing {
        match (self.family, self.kind) {
            (Family::V4, SocketKind::Raw) => Framing::Ipv4Header,
            (Family::V4, SocketKind::Datagram) | (Family::V6, _) => Framing::Bare,
        }
    }

    /// Returns the clock of user stamps, started when the socket was opened.
    pub fn clock(&self) -> UserClock {
        self.clock
    }

    /// Restarts the clock of user stamps at zero.
    pub fn restart_clock(&mut self) {
        self.clock = UserClock::start();
    }

    /// Sets how many hops requests may go.
    pub fn set_hop_limit(&self, hops: u8) -> io::Result<()> {
        match self.family {
            Family::V4 => self.socket.set_ttl_v4(hops.into()),
            Family::V6 => self.socket.set_unicast_hops_v6(hops.into()),
        }
    }

    /// Sets the differentiated services code point of requests: 0 to 63.
    pub fn set_dscp(&self, dscp: u8) -> io::Result<()> {
        // The lower two bits are those of congestion notification (RFC 3168).
        let class = libc::c_int::from(dscp) << 2;
        match self.family {
            Family::V4 => setsockopt(&self.socket, sockopt::Ipv4Tos, &class)?,
            Family::V6 => setsockopt(&self.socket, sockopt::Ipv6TClass, &class)?,
        }
        Ok(())
    }

    /// Makes room for replies with a payload of `bytes`.
    pub fn expect_payload(&mut self, bytes: usize) {
        let capacity = MIN_BUFFER_BYTES.max(bytes + HEADROOM_BYTES);
        self.packet_buffers = buffers(capacity);
        self.held.clear();
    }

    /// Makes room for the replies to many requests at once, and asks the kernel to say how
    /// many packets it drops nevertheless.
    ///
    /// The room is what the system allows: sysctl `net.core.rmem_max`, or more with
    /// `CAP_NET_ADMIN`.
    pub fn expect_many(&self) {
        if setsockopt(&self.socket, sockopt::RcvBufForce, &MANY_BYTES).is_err()
            && let Err(error) = self.socket.set_recv_buffer_size(MANY_BYTES)
        {
            tracing::debug!(%error, "the receive buffer stays as it is");
        }
        if let Err(error) = setsockopt(&self.socket, sockopt::RxqOvfl, &1) {
            tracing::debug!(%error, "the kernel does not say what it drops");
        }
    }

    /// Returns how many packets the kernel has dropped since the socket was opened, for
    /// want of room, as far as it said with later packets. Wraps.
    pub fn dropped(&self) -> u32 {
        self.dropped
    }

    /// Sends a request, without waiting.
    ///
    /// `label` comes back with the kernel's stamp of it.
    pub fn send(
        &mut self,
        request: &[u8],
        destination: IpAddr,
        label: u64,
    ) -> Result<(), SendError> {
        let destination = SocketAddr::new(destination, 0).into();
        let mut is_retry = false;
        loop {
            let Err(error) = self.socket.send_to(request, &destination) else {
                if let Some(awaited) = &mut self.awaited {
                    awaited.add(label);
                }
                return Ok(());
            };
            let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
            if errno == Errno::EINTR {
                continue;
            }
            self.renumber_stamps();
            // A second attempt tells this packet's error from an earlier one's.
            let may_be_old = self.kind == SocketKind::Datagram
                && errno::may_be_of_an_earlier_packet(errno);
            if may_be_old && !is_retry {
                is_retry = true;
                continue;
            }
            return Err(obstacle(&error)
                .map_or_else(|| SendError::Impossible(error), SendError::Obstacle));
        }
    }

    /// Returns what the kernel has for us, `None` when there is nothing now.
    ///
    /// A request's transmit stamp comes before its reply: the kernel queues it first,
    /// on another queue, so that queue is looked at again once replies were taken.
    pub fn receive(&mut self) -> io::Result<Option<Arrival<'_>>> {
        loop {
            if !self.is_error_queue_empty {
                if let Some(notice) = self.receive_notice()? {
                    return Ok(Some(self.arrival_of_notice(notice)));
                }
                self.is_error_queue_empty = true;
            }
            let given = self.given;
            if given < self.held.len() {
                self.given += 1;
                return Ok(self.arrival_of_packet(given));
            }
            self.is_error_queue_empty = false;
            if self.receive_packets()? == 0 {
                return Ok(None);
            }
        }
    }

    /// Takes as many packets as there are buffers; returns how many there were.
    fn receive_packets(&mut self) -> io::Result<usize> {
        self.given = 0;
        self.held.clear();
        let fd = self.socket.as_raw_fd();
        for buffer in &mut self.packet_buffers {
            let received = insist(|| queue::receive_packet(fd, buffer, &self.clock));
            match received {
                Ok(Some(received)) => {
                    self.dropped = received.dropped.unwrap_or(self.dropped);
                    self.held.push(received);
                }
                // The error comes again when the packets before it were given out.
                Err(error) if self.held.is_empty() => return Err(error),
                Ok(None) | Err(_) => break,
            }
        }
        Ok(self.held.len())
    }

    /// Returns the held packet with this number.
    fn arrival_of_packet(&self, number: usize) -> Option<Arrival<'_>> {
        let received = self.held.get(number)?;
        let buffer = self.packet_buffers.get(number)?;
        Some(Arrival::Packet {
            bytes: buffer.bytes(received.length),
            source: received.source,
            hop_limit: received.hop_limit,
            stamp: received.stamp,
        })
    }

    /// Takes the next entry from the error queue that means something to us.
    fn receive_notice(&mut self) -> io::Result<Option<KnownNotice>> {
        loop {
            let fd = self.socket.as_raw_fd();
            let buffer = &mut self.notice_buffer;
            let family = self.family;
            match insist(|| queue::receive_notice(fd, buffer, family))? {
                None => return Ok(None),
                Some(Notice::Transmitted { number, kernel }) => {
                    let awaited = self.awaited.as_mut();
                    if let Some(label) = awaited.and_then(|it| it.take(number)) {
                        return Ok(Some(KnownNotice::Transmitted { label, kernel }));
                    }
                }
                Some(Notice::Reported { from, problem, length }) => {
                    return Ok(Some(KnownNotice::Reported { from, problem, length }));
                }
                Some(Notice::Other) => {}
            }
        }
    }

    /// Adds to an entry of the error queue the bytes it came with.
    fn arrival_of_notice(&self, notice: KnownNotice) -> Arrival<'_> {
        match notice {
            KnownNotice::Transmitted { label, kernel } => {
                Arrival::Transmitted { label, kernel }
            }
            KnownNotice::Reported { from, problem, length } => {
                let quoted = self.notice_buffer.bytes(length);
                Arrival::Reported { from, problem, quoted }
            }
        }
    }

    /// Starts numbering transmit stamps anew after a failed send, of which nobody
    /// knows whether the kernel counted it.
    fn renumber_stamps(&mut self) {
        if self.awaited.is_some() {
            let is_numbered = open::number_transmit_stamps(&self.socket).is_ok();
            self.awaited = is_numbered.then(AwaitedStamps::default);
        }
    }
}

impl AsRawFd for EchoSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// An entry of the error queue, attributed to a request.
#[derive(Clone, Copy)]
enum KnownNotice {
    /// See [`Arrival::Transmitted`].
    Transmitted {
        /// The label given to [`EchoSocket::send`].
        label: u64,
        /// The stamp.
        kernel: Timestamp,
    },
    /// See [`Arrival::Reported`].
    Reported {
        /// Who reported it.
        from: Option<IpAddr>,
        /// What was reported.
        problem: Problem,
        /// Length in bytes of the quoted request.
        length: usize,
    },
}

/// The requests whose transmit stamps are to come, by the kernel's numbers.
#[derive(Debug, Default)]
struct AwaitedStamps {
    /// The kernel's number of the next request.
    next: u32,
    /// Numbers and labels, oldest first.
    labels: VecDeque<(u32, u64)>,
}

impl AwaitedStamps {
    /// Takes note that the request `label` was sent.
    fn add(&mut self, label: u64) {
        if self.labels.len() == MAX_AWAITED_STAMPS {
            self.labels.pop_front();
        }
        self.labels.push_back((self.next, label));
        self.next = self.next.wrapping_add(1);
    }

    /// Returns the label of the request `number`, once.
    fn take(&mut self, number: u32) -> Option<u64> {
        let at = self.labels.iter().position(|(awaited, _)| *awaited == number)?;
        self.labels.remove(at).map(|(_, label)| label)
    }
}

/// Makes buffers for packets of `capacity` bytes: several, unless they are large, so that
/// the error queue need not be looked at for each packet.
fn buffers(capacity: usize) -> Vec<Buffer> {
    let count = (BUFFERS_BYTES / capacity.max(1)).max(1);
    (0..count).map(|_| Buffer::new(capacity)).collect()
}

/// Calls `receive` again when it was interrupted or reports the error of an earlier
/// packet; `None` when there is nothing to receive.
fn insist<T>(mut receive: impl FnMut() -> nix::Result<T>) -> io::Result<Option<T>> {
    let mut errors = 0;
    loop {
        match receive() {
            Ok(received) => return Ok(Some(received)),
            Err(Errno::EAGAIN) => return Ok(None),
            Err(Errno::EINTR) => {}
            Err(errno) if errno::may_be_of_an_earlier_packet(errno) => errors += 1,
            Err(errno) => return Err(errno.into()),
        }
        if errors > MAX_RECEIVE_ERRORS {
            return Err(io::Error::other("the socket gives nothing but errors"));
        }
    }
}
