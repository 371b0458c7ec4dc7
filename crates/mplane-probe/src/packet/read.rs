//! Packets as received: echo replies, and ICMP errors that quote an echo request.
//!
//! Source: RFC 791 section 3.1 (IPv4 header), RFC 792, RFC 4443 sections 2.1, 3 and
//! 4.2, RFC 8200 section 3 (IPv6 header).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::internet_checksum;
use super::echo::{
    ECHO_HEADER_BYTES, V4_ECHO_REPLY, V4_ECHO_REQUEST, V6_ECHO_REPLY, V6_ECHO_REQUEST,
};
use super::{Family, Problem};

/// Length in bytes of an IPv4 header without options.
const V4_HEADER_BYTES: usize = 20;
/// Length in bytes of an IPv6 header.
const V6_HEADER_BYTES: usize = 40;
/// Protocol number of ICMPv4 in an IPv4 header.
const PROTOCOL_ICMPV4: u8 = 1;
/// Next-header number of ICMPv6 in an IPv6 header.
const NEXT_HEADER_ICMPV6: u8 = 58;

/// What stands before the ICMP message in received bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Framing {
    /// Nothing: datagram sockets, and all ICMPv6 sockets.
    Bare,
    /// The IPv4 header: raw IPv4 sockets.
    Ipv4Header,
}

/// A received packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The sender, where the bytes tell.
    pub source: Option<IpAddr>,
    /// Hops the packet could still have gone, where the bytes tell.
    pub hop_limit: Option<u8>,
    /// The ICMP message.
    pub message: Message<'a>,
}

/// What a received ICMP message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// An answer to somebody's echo request.
    EchoReply(EchoReply<'a>),
    /// An error about somebody's echo request.
    Report(Report<'a>),
    /// Anything else: requests, redirects, errors about other packets.
    Other {
        /// The ICMP type.
        kind: u8,
    },
}

/// An answer to an echo request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EchoReply<'a> {
    /// Copied from the request.
    pub identifier: u16,
    /// Copied from the request.
    pub sequence: u16,
    /// Copied from the request.
    pub payload: &'a [u8],
}

/// An ICMP error about an echo request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report<'a> {
    /// What went wrong.
    pub problem: Problem,
    /// The request it went wrong with.
    pub quoted: QuotedEcho<'a>,
}

/// An echo request as quoted by an ICMP error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotedEcho<'a> {
    /// Where the request was going, if the quotation includes the IP header.
    pub destination: Option<IpAddr>,
    /// The request's identifier.
    pub identifier: u16,
    /// The request's sequence number.
    pub sequence: u16,
    /// The start of the request's payload; IPv4 routers may quote none of it.
    pub payload: &'a [u8],
}

/// Why bytes are not a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadPacketError {
    /// The bytes end inside a header.
    #[error("packet of {length} bytes ends inside a header or before its stated length")]
    Truncated {
        /// How many bytes there are.
        length: usize,
    },
    /// The first byte does not announce IPv4.
    #[error("IP version {version} where IPv4 was expected")]
    Version {
        /// The version found.
        version: u8,
    },
    /// The length fields of the IPv4 header contradict each other.
    #[error("IPv4 header of {bytes} bytes is impossible")]
    HeaderLength {
        /// The header length stated.
        bytes: usize,
    },
    /// The packet carries another protocol.
    #[error("IP protocol {protocol} where ICMP was expected")]
    Protocol {
        /// The protocol number found.
        protocol: u8,
    },
    /// The checksum of the ICMPv4 message is wrong.
    #[error("ICMP checksum is wrong")]
    Checksum,
}

/// Reads a packet as a socket delivered it.
///
/// The ICMPv4 checksum is verified here, since raw sockets see packets before the
/// kernel looks at it; the kernel verifies ICMPv6 (RFC 3542 section 3.1). For IPv6
/// `framing` is not looked at: no socket delivers the header.
pub fn read_packet(
    family: Family,
    framing: Framing,
    bytes: &[u8],
) -> Result<Packet<'_>, ReadPacketError> {
    let bare = |message| Packet { source: None, hop_limit: None, message };
    match (family, framing) {
        (Family::V6, _) => read_message(family, bytes).map(bare),
        (Family::V4, Framing::Bare) => {
            verify_checksum(bytes)?;
            read_message(family, bytes).map(bare)
        }
        (Family::V4, Framing::Ipv4Header) => {
            let (header, rest) = read_ipv4_header(bytes)?;
            let message =
                rest.get(..header.payload_bytes).ok_or_else(|| truncated(bytes))?;
            verify_checksum(message)?;
            Ok(Packet {
                source: Some(header.source.into()),
                hop_limit: Some(header.time_to_live),
                message: read_message(family, message)?,
            })
        }
    }
}

/// Reads an echo request that the kernel quotes on a socket's error queue: the ICMP
/// message without its IP header, possibly cut short.
///
/// Returns `None` if it is no echo request or the quotation ends before the sequence
/// number.
pub fn read_quoted_request(family: Family, bytes: &[u8]) -> Option<QuotedEcho<'_>> {
    let (header, payload) = bytes.split_first_chunk::<ECHO_HEADER_BYTES>()?;
    let request = match family {
        Family::V4 => V4_ECHO_REQUEST,
        Family::V6 => V6_ECHO_REQUEST,
    };
    let [kind, _, _, _, identifier_high, identifier_low, sequence_high, sequence_low] =
        *header;
    (kind == request).then_some(QuotedEcho {
        destination: None,
        identifier: u16::from_be_bytes([identifier_high, identifier_low]),
        sequence: u16::from_be_bytes([sequence_high, sequence_low]),
        payload,
    })
}

/// Reads an ICMP message that starts at its type.
fn read_message(family: Family, bytes: &[u8]) -> Result<Message<'_>, ReadPacketError> {
    let (header, rest) =
        bytes.split_first_chunk::<ECHO_HEADER_BYTES>().ok_or_else(|| truncated(bytes))?;
    let [kind, code, _, _, word @ ..] = *header;
    let reply = match family {
        Family::V4 => V4_ECHO_REPLY,
        Family::V6 => V6_ECHO_REPLY,
    };
    if kind == reply {
        let [identifier_high, identifier_low, sequence_high, sequence_low] = word;
        return Ok(Message::EchoReply(EchoReply {
            identifier: u16::from_be_bytes([identifier_high, identifier_low]),
            sequence: u16::from_be_bytes([sequence_high, sequence_low]),
            payload: rest,
        }));
    }
    let mtu_bytes = match family {
        // RFC 1191 section 4: the upper half of the word is unused.
        Family::V4 => u32::from_be_bytes(word) & u32::from(u16::MAX),
        Family::V6 => u32::from_be_bytes(word),
    };
    let report = Problem::from_icmp(family, kind, code, mtu_bytes)
        .zip(read_quotation(family, rest))
        .map(|(problem, quoted)| Message::Report(Report { problem, quoted }));
    Ok(report.unwrap_or(Message::Other { kind }))
}

/// Reads the packet an ICMP error quotes, if it is an echo request.
fn read_quotation(family: Family, bytes: &[u8]) -> Option<QuotedEcho<'_>> {
    let (destination, message) = match family {
        Family::V4 => {
            let (header, rest) = read_ipv4_header(bytes).ok()?;
            // The quotation may be padded to 128 bytes (RFC 4884), so the stated
            // length bounds it; it may also be shorter than stated.
            let end = header.payload_bytes.min(rest.len());
            (header.destination.into(), rest.get(..end)?)
        }
        Family::V6 => read_ipv6_header(bytes)?,
    };
    let quoted = read_quoted_request(family, message)?;
    Some(QuotedEcho { destination: Some(destination), ..quoted })
}

/// The fields of an IPv4 header this crate needs.
struct Ipv4Header {
    /// The sender.
    source: Ipv4Addr,
    /// The receiver.
    destination: Ipv4Addr,
    /// Hops left.
    time_to_live: u8,
    /// Length of what follows the header, in bytes, as stated.
    payload_bytes: usize,
}

/// Reads an IPv4 header of an ICMP packet and returns what follows it.
fn read_ipv4_header(bytes: &[u8]) -> Result<(Ipv4Header, &[u8]), ReadPacketError> {
    let (fixed, _) =
        bytes.split_first_chunk::<V4_HEADER_BYTES>().ok_or_else(|| truncated(bytes))?;
    let version = fixed[0] >> 4;
    if version != 4 {
        return Err(ReadPacketError::Version { version });
    }
    let header_bytes = usize::from(fixed[0] & 0x0f) * 4;
    let total_bytes = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if header_bytes < V4_HEADER_BYTES || total_bytes < header_bytes {
        return Err(ReadPacketError::HeaderLength { bytes: header_bytes });
    }
    let protocol = fixed[9];
    if protocol != PROTOCOL_ICMPV4 {
        return Err(ReadPacketError::Protocol { protocol });
    }
    let rest = bytes.get(header_bytes..).ok_or_else(|| truncated(bytes))?;
    let header = Ipv4Header {
        source: Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15]),
        destination: Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]),
        time_to_live: fixed[8],
        payload_bytes: total_bytes - header_bytes,
    };
    Ok((header, rest))
}

/// Reads the IPv6 header of a quoted ICMPv6 packet: its destination and what follows.
fn read_ipv6_header(bytes: &[u8]) -> Option<(IpAddr, &[u8])> {
    let (fixed, rest) = bytes.split_first_chunk::<V6_HEADER_BYTES>()?;
    let (_, destination) = fixed.split_last_chunk::<16>()?;
    let is_icmp = fixed[0] >> 4 == 6 && fixed[6] == NEXT_HEADER_ICMPV6;
    let payload_bytes = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    let message = rest.get(..payload_bytes.min(rest.len()))?;
    is_icmp.then(|| (Ipv6Addr::from(*destination).into(), message))
}

/// Refuses an ICMPv4 message whose checksum is wrong.
fn verify_checksum(message: &[u8]) -> Result<(), ReadPacketError> {
    if internet_checksum(message) == 0 { Ok(()) } else { Err(ReadPacketError::Checksum) }
}

/// Returns the error for bytes that end too early.
fn truncated(bytes: &[u8]) -> ReadPacketError {
    ReadPacketError::Truncated { length: bytes.len() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::EchoRequest;

    /// Turns a line of hexadecimal digits, blanks allowed, into bytes.
    fn hex(digits: &str) -> Vec<u8> {
        let digits: String = digits.split_whitespace().collect();
        let (pairs, []) = digits.as_bytes().as_chunks::<2>() else {
            panic!("odd number of digits");
        };
        let byte = |pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
        pairs.iter().map(|pair| byte(pair).expect("two digits")).collect()
    }

    /// An echo reply with its IPv4 header, as a raw socket delivers it: from
    /// 127.0.0.1, identifier 0x1234, sequence 1, payload "abcdefgh".
    const V4_REPLY: &str = "4500 0024 0000 0000 4001 0000 7f000001 7f000001
        0000 5c35 1234 0001 6162636465666768";

    /// "Time exceeded" from 10.0.0.1 quoting the request above, sent to 10.9.9.9,
    /// with eight bytes of it: no payload.
    const V4_TIME_EXCEEDED: &str = "4500 0038 0000 0000 ff01 0000 0a000001 0a000002
        0b00 e35b 0000 0000
        4500 0024 0000 4000 0101 0000 0a000002 0a090909
        0800 5435 1234 0001";

    #[test]
    fn reads_the_fixed_reply_with_its_ipv4_header() {
        let bytes = hex(V4_REPLY);
        let packet = read_packet(Family::V4, Framing::Ipv4Header, &bytes);
        assert_eq!(
            packet,
            Ok(Packet {
                source: Some(Ipv4Addr::LOCALHOST.into()),
                hop_limit: Some(64),
                message: Message::EchoReply(EchoReply {
                    identifier: 0x1234,
                    sequence: 1,
                    payload: b"abcdefgh",
                }),
            })
        );
    }

    #[test]
    fn reads_the_same_reply_without_header_from_a_datagram_socket() {
        let bytes = hex(V4_REPLY);
        let packet = read_packet(Family::V4, Framing::Bare, &bytes[20..]);
        let Ok(Packet { source: None, message: Message::EchoReply(reply), .. }) = packet
        else {
            panic!("not a reply: {packet:?}");
        };
        assert_eq!((reply.identifier, reply.sequence), (0x1234, 1));
    }

    #[test]
    fn skips_the_options_of_an_ipv4_header() {
        let mut bytes = hex(V4_REPLY);
        bytes[0] = 0x46;
        bytes[3] += 4;
        bytes.splice(20..20, [1, 1, 1, 0]);
        let packet = read_packet(Family::V4, Framing::Ipv4Header, &bytes);
        assert!(matches!(packet, Ok(Packet { message: Message::EchoReply(_), .. })));
    }

    #[test]
    fn reads_time_exceeded_and_the_request_it_quotes() {
        let bytes = hex(V4_TIME_EXCEEDED);
        let packet = read_packet(Family::V4, Framing::Ipv4Header, &bytes)
            .expect("a well-formed packet");
        assert_eq!(packet.source, Some(Ipv4Addr::new(10, 0, 0, 1).into()));
        assert_eq!(
            packet.message,
            Message::Report(Report {
                problem: Problem::HopLimitExceeded,
                quoted: QuotedEcho {
                    destination: Some(Ipv4Addr::new(10, 9, 9, 9).into()),
                    identifier: 0x1234,
                    sequence: 1,
                    payload: b"",
                },
            })
        );
    }

    #[test]
    fn reads_the_fixed_icmpv6_messages() {
        let reply = hex("8100 0000 1234 ffff 6162636465666768");
        let packet = read_packet(Family::V6, Framing::Bare, &reply);
        let Ok(Packet { message: Message::EchoReply(reply), .. }) = packet else {
            panic!("not a reply: {packet:?}");
        };
        assert_eq!((reply.identifier, reply.sequence), (0x1234, 0xffff));

        let too_big = hex("0200 0000 00000500
            60000000 0010 3a40 fe800000000000000000000000000001
                               20010db8000000000000000000000009
            8000 0000 1234 0007 6162636465666768");
        let packet = read_packet(Family::V6, Framing::Bare, &too_big);
        let Ok(Packet { message: Message::Report(report), .. }) = packet else {
            panic!("not a report: {packet:?}");
        };
        assert_eq!(report.problem, Problem::PacketTooBig { mtu_bytes: 1280 });
        assert_eq!(report.quoted.sequence, 7);
        assert_eq!(report.quoted.payload, b"abcdefgh");
        assert_eq!(report.quoted.destination, "2001:db8::9".parse().ok());
    }

    #[test]
    fn does_not_take_a_request_or_an_error_about_udp_for_ours() {
        let request = hex("0800 5435 1234 0001 6162636465666768");
        let packet = read_packet(Family::V4, Framing::Bare, &request);
        assert!(matches!(packet, Ok(Packet { message: Message::Other { kind: 8 }, .. })));

        let mut about_udp = hex(V4_TIME_EXCEEDED);
        about_udp[20 + 8 + 9] = 17;
        about_udp[23] -= 16; // the protocol number grew by 16
        let packet = read_packet(Family::V4, Framing::Ipv4Header, &about_udp);
        assert!(
            matches!(packet, Ok(Packet { message: Message::Other { kind: 11 }, .. })),
            "{packet:?}"
        );
    }

    #[test]
    fn refuses_damaged_packets() {
        let good = hex(V4_REPLY);
        let damaged = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            read_packet(Family::V4, Framing::Ipv4Header, &bytes).map(|_| ())
        };
        assert_eq!(damaged(0, 0x65), Err(ReadPacketError::Version { version: 6 }));
        assert_eq!(damaged(0, 0x44), Err(ReadPacketError::HeaderLength { bytes: 16 }));
        assert_eq!(damaged(9, 17), Err(ReadPacketError::Protocol { protocol: 17 }));
        assert_eq!(damaged(3, 0xff), Err(ReadPacketError::Truncated { length: 36 }));
        assert_eq!(damaged(30, 0xff), Err(ReadPacketError::Checksum));
        for length in 0..good.len() {
            let cut = read_packet(Family::V4, Framing::Ipv4Header, &good[..length]);
            assert_eq!(cut, Err(ReadPacketError::Truncated { length }));
        }
    }

    /// Either family.
    fn family() -> impl Strategy<Value = Family> {
        prop_oneof![Just(Family::V4), Just(Family::V6)]
    }

    /// Either framing.
    fn framing() -> impl Strategy<Value = Framing> {
        prop_oneof![Just(Framing::Bare), Just(Framing::Ipv4Header)]
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            family in family(),
            framing in framing(),
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let _: Result<_, ReadPacketError> = read_packet(family, framing, &bytes);
            let _: Option<QuotedEcho<'_>> = read_quoted_request(family, &bytes);
        }

        #[test]
        fn a_packet_with_flipped_bytes_is_read_or_refused(
            report in any::<bool>(),
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            length in any::<prop::sample::Index>(),
        ) {
            let mut bytes = hex(if report { V4_TIME_EXCEEDED } else { V4_REPLY });
            for (at, value) in flips {
                let at = at.index(bytes.len());
                bytes[at] ^= value;
            }
            bytes.truncate(length.index(bytes.len() + 1));
            let _: Result<_, ReadPacketError> =
                read_packet(Family::V4, Framing::Ipv4Header, &bytes);
        }

        #[test]
        fn reading_a_request_turned_reply_gives_back_what_was_written(
            family in family(),
            identifier in any::<u16>(),
            sequence in any::<u16>(),
            payload in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut bytes = Vec::new();
            EchoRequest { identifier, sequence, payload: &payload }
                .write(family, &mut bytes);
            let quoted = QuotedEcho { destination: None, identifier, sequence, payload: &payload };
            prop_assert_eq!(read_quoted_request(family, &bytes), Some(quoted));

            match family {
                Family::V4 => {
                    bytes[0] = V4_ECHO_REPLY;
                    bytes[2..4].fill(0);
                    let checksum = internet_checksum(&bytes);
                    bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
                }
                Family::V6 => bytes[0] = V6_ECHO_REPLY,
            }
            let packet = read_packet(family, Framing::Bare, &bytes).map(|packet| packet.message);
            let reply = EchoReply { identifier, sequence, payload: &payload };
            prop_assert_eq!(packet, Ok(Message::EchoReply(reply)));
        }
    }
}
