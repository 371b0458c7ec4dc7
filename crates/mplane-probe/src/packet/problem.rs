//! What an ICMP error says became of a packet.
//!
//! Source: RFC 792, RFC 1122 section 3.2.2.1 and RFC 1812 section 5.2.7.1 for ICMPv4;
//! RFC 4443 section 3 for ICMPv6. The lists were complete in November 2026.

use std::fmt;

use super::Family;

/// Why a router or host could not forward or accept a packet, for both families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Problem {
    /// No route to the network of the destination.
    NetworkUnreachable,
    /// The last router cannot reach the host.
    HostUnreachable,
    /// The host does not speak the protocol.
    ProtocolUnreachable,
    /// Nobody listens on the port.
    PortUnreachable,
    /// A filter or a policy forbids the packet.
    Prohibited,
    /// Any other "destination unreachable".
    Unreachable {
        /// The ICMP code.
        code: u8,
    },
    /// The packet is larger than the next link carries and may not be split.
    PacketTooBig {
        /// Largest packet the link carries, in bytes; 0 when the router does not say.
        mtu_bytes: u32,
    },
    /// The time to live (IPv4) or hop limit (IPv6) was used up on the way.
    HopLimitExceeded,
    /// Fragments were missing until the host gave up.
    ReassemblyTimeExceeded,
    /// A field of the header was not understood.
    ParameterProblem {
        /// The ICMP code.
        code: u8,
    },
}

impl Problem {
    /// Reads type, code and the "information" word of an ICMP error.
    ///
    /// `mtu_bytes` is looked at for "packet too big" only. Returns `None` when the
    /// type is not an error.
    pub fn from_icmp(family: Family, kind: u8, code: u8, mtu_bytes: u32) -> Option<Self> {
        Some(match (family, kind, code) {
            (Family::V4, 3, 0 | 6 | 8 | 11) | (Family::V6, 1, 0) => {
                Self::NetworkUnreachable
            }
            (Family::V4, 3, 1 | 7 | 12) | (Family::V6, 1, 3) => Self::HostUnreachable,
            (Family::V4, 3, 2) => Self::ProtocolUnreachable,
            (Family::V4, 3, 3) | (Family::V6, 1, 4) => Self::PortUnreachable,
            (Family::V4, 3, 4) | (Family::V6, 2, _) => Self::PacketTooBig { mtu_bytes },
            (Family::V4, 3, 9 | 10 | 13) | (Family::V6, 1, 1 | 5 | 6) => Self::Prohibited,
            (Family::V4, 3, _) | (Family::V6, 1, _) => Self::Unreachable { code },
            (Family::V4, 11, 1) | (Family::V6, 3, 1) => Self::ReassemblyTimeExceeded,
            (Family::V4, 11, _) | (Family::V6, 3, _) => Self::HopLimitExceeded,
            (Family::V4, 12, _) | (Family::V6, 4, _) => Self::ParameterProblem { code },
            _ => return None,
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NetworkUnreachable => f.write_str("network unreachable"),
            Self::HostUnreachable => f.write_str("host unreachable"),
            Self::ProtocolUnreachable => f.write_str("protocol unreachable"),
            Self::PortUnreachable => f.write_str("port unreachable"),
            Self::Prohibited => f.write_str("administratively prohibited"),
            Self::Unreachable { code } => {
                write!(f, "destination unreachable (code {code})")
            }
            Self::PacketTooBig { mtu_bytes: 0 } => f.write_str("packet too big"),
            Self::PacketTooBig { mtu_bytes } => {
                write!(f, "packet too big (the link carries {mtu_bytes} bytes)")
            }
            Self::HopLimitExceeded => f.write_str("hop limit exceeded in transit"),
            Self::ReassemblyTimeExceeded => {
                f.write_str("fragment reassembly time exceeded")
            }
            Self::ParameterProblem { code } => {
                write!(f, "parameter problem (code {code})")
            }
        }
    }
}
