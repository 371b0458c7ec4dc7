//! Why this machine did not put a packet on the network.
//!
//! Source: Linux manual pages send(2), connect(2), ip(7), icmp(7).

use std::fmt;
use std::io;

use nix::libc;

/// Why a packet did not leave this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Obstacle {
    /// No route to the destination (`ENETUNREACH`).
    NetworkUnreachable,
    /// The next hop does not answer, or a route says "unreachable" (`EHOSTUNREACH`).
    HostUnreachable,
    /// The network interface is down (`ENETDOWN`).
    InterfaceDown,
    /// A firewall of this machine or a route forbids it (`EPERM`, `EACCES`).
    Prohibited,
    /// Larger than the interface or the path carries (`EMSGSIZE`).
    TooBig,
    /// The queue of the socket or of the interface is full (`ENOBUFS`, `EAGAIN`,
    /// `ENOMEM`).
    NoBufferSpace,
    /// No address or port to send from (`EADDRNOTAVAIL`).
    NoSourceAddress,
    /// Any other error. `EINVAL` is what a "blackhole" route gives, and an address to send
    /// from that is gone.
    Other {
        /// The error number of the operating system.
        errno: i32,
    },
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NetworkUnreachable => "no route to the network",
            Self::HostUnreachable => "no route to the host",
            Self::InterfaceDown => "network interface is down",
            Self::Prohibited => "prohibited by this machine's firewall or routes",
            Self::TooBig => "too big for the interface",
            Self::NoBufferSpace => "no buffer space",
            Self::NoSourceAddress => "no source address or port available",
            Self::Other { errno: libc::EINVAL } => {
                "a blackhole route, or the address to send from is gone"
            }
            Self::Other { errno } => {
                return io::Error::from_raw_os_error(*errno).fmt(f);
            }
        })
    }
}
