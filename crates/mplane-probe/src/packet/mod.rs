//! ICMP echo packets as bytes, and the times they were seen at.
//!
//! Everything here is a total function of its arguments: no socket, no clock, and
//! any bytes give a value or an error, never a panic. Lengths are in bytes.
//!
//! Source: RFC 792 (ICMPv4 echo, destination unreachable, time exceeded), RFC 4443
//! (the same for IPv6), RFC 791 (IPv4 header), RFC 8200 (IPv6 header), RFC 1071
//! (checksum).
//!
//! *Differences*: source quench (RFC 6633 withdraws it) and redirect are not errors
//! of an echo request, which travels on, and are read as [`Message::Other`].
//! Extensions of errors (RFC 4884) are not read. An IPv6 request larger than a link was
//! split, and is quoted behind a fragment header: such an error is not attributed on
//! raw sockets, so the request counts as lost.

mod checksum;
mod echo;
mod nonce;
mod obstacle;
mod problem;
mod read;
mod stamp;

use std::fmt;
use std::net::IpAddr;

pub use echo::{EchoRequest, MAX_PAYLOAD_BYTES, Payload};
pub use nonce::{NONCE_BYTES, Nonce};
pub use obstacle::Obstacle;
pub use problem::Problem;
pub use read::{
    EchoReply, Framing, Message, Packet, QuotedEcho, ReadPacketError, Report,
    read_packet, read_quoted_request,
};
pub use stamp::{
    ReceiveStamp, StampSource, StampSources, TransmitStamp, UserStamp, round_trip,
};

/// The two families of addresses; each has its own ICMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4 with ICMPv4 (RFC 792).
    V4,
    /// IPv6 with ICMPv6 (RFC 4443).
    V6,
}

impl Family {
    /// Returns the family of `address`.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}
