//! What the first bytes of a packet say.
//!
//! Source: RFC 791, RFC 8200, RFC 792, RFC 4443, RFC 768, RFC 9293.
//! *Differences*: extension headers of IPv6 are not followed; their number is the protocol.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Numbers of protocols (IANA, "Assigned Internet Protocol Numbers").
mod number {
    pub(super) const ICMP: u8 = 1;
    pub(super) const TCP: u8 = 6;
    pub(super) const UDP: u8 = 17;
    pub(super) const ICMP_V6: u8 = 58;
}

/// What the first bytes of a packet say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Who sent it.
    pub source: IpAddr,
    /// Whom it is for.
    pub destination: IpAddr,
    /// The number of its protocol.
    pub protocol: u8,
    /// The time to live, or the hop limit.
    pub ttl: u8,
    /// The ports of TCP and UDP, source and destination. Later fragments have none.
    pub ports: Option<[u16; 2]>,
    /// Type and code of ICMP and ICMPv6.
    pub icmp: Option<[u8; 2]>,
    /// Identifier and sequence number of an echo request or reply.
    pub echo: Option<[u16; 2]>,
}

impl Header {
    /// Reads the headers of a packet, of which only the first bytes need be there.
    /// Returns nothing if it is no IP packet, or addresses are missing.
    pub fn read(head: &[u8]) -> Option<Self> {
        let (mut header, payload) = match head.first()? >> 4 {
            4 => read_ip4(head)?,
            6 => read_ip6(head)?,
            _ => return None,
        };
        let Some([b0, b1, b2, b3]) = payload.first_chunk().copied() else {
            return Some(header);
        };
        match header.protocol {
            number::TCP | number::UDP => {
                let port = u16::from_be_bytes;
                header.ports = Some([port([b0, b1]), port([b2, b3])]);
            }
            number::ICMP | number::ICMP_V6 => {
                header.icmp = Some([b0, b1]);
                let is_echo = match header.protocol {
                    number::ICMP => b0 == 8 || b0 == 0,
                    _ => b0 == 128 || b0 == 129,
                };
                if let Some([.., i0, i1, s0, s1]) = payload.first_chunk::<8>()
                    && is_echo
                {
                    let read = |one: &u8, two: &u8| u16::from_be_bytes([*one, *two]);
                    header.echo = Some([read(i0, i1), read(s0, s1)]);
                }
            }
            _ => {}
        }
        Some(header)
    }
}

/// Reads a header of IPv4, and returns what is behind it.
fn read_ip4(head: &[u8]) -> Option<(Header, &[u8])> {
    let fixed = head.first_chunk::<20>()?;
    let [first, _, _, _, _, _, f0, f1, ttl, protocol, _, _, addresses @ ..] = fixed;
    let [s0, s1, s2, s3, d0, d1, d2, d3] = *addresses;
    let header = Header {
        source: Ipv4Addr::new(s0, s1, s2, s3).into(),
        destination: Ipv4Addr::new(d0, d1, d2, d3).into(),
        protocol: *protocol,
        ttl: *ttl,
        ports: None,
        icmp: None,
        echo: None,
    };
    let fragment_offset = u16::from_be_bytes([*f0, *f1]) & 0x1fff;
    let is_first_fragment = fragment_offset == 0;
    let start = usize::from(first & 0x0f) * 4;
    let payload = head.get(start..).filter(|_| is_first_fragment).unwrap_or_default();
    Some((header, payload))
}

/// Reads a header of IPv6, and returns what is behind it.
fn read_ip6(head: &[u8]) -> Option<(Header, &[u8])> {
    let (fixed, payload) = head.split_first_chunk::<40>()?;
    let [_, _, _, _, _, _, protocol, ttl, addresses @ ..] = fixed;
    let (source, destination) = addresses.split_first_chunk::<16>()?;
    let destination = destination.first_chunk::<16>()?;
    let header = Header {
        source: Ipv6Addr::from_octets(*source).into(),
        destination: Ipv6Addr::from_octets(*destination).into(),
        protocol: *protocol,
        ttl: *ttl,
        ports: None,
        icmp: None,
        echo: None,
    };
    Some((header, payload))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_echo_request_is_read() {
        let packet = [
            0x45, 0, 0, 32, 0, 1, 0x40, 0, 64, 1, 0, 0, 192, 0, 2, 1, 192, 0, 2,
            2, // IPv4
            8, 0, 0, 0, 0x12, 0x34, 0, 7, 1, 2, 3, 4, // ICMP
        ];
        let header = Header::read(&packet).expect("an IPv4 packet");
        let addresses = (header.source.to_string(), header.destination.to_string());
        assert_eq!(addresses, ("192.0.2.1".to_owned(), "192.0.2.2".to_owned()));
        let read = (header.ttl, header.icmp, header.echo, header.ports);
        assert_eq!(read, (64, Some([8, 0]), Some([0x1234, 7]), None));
        // A part of it says less, and nothing wrong.
        assert_eq!(Header::read(&packet[..20]).expect("addresses").echo, None);
        assert_eq!(Header::read(&packet[..19]), None);
    }

    #[test]
    fn ports_are_read_behind_ipv6_and_not_of_later_fragments() {
        let mut packet = vec![0x60, 0, 0, 0, 0, 8, 17, 3];
        packet.extend("2001:db8::1".parse::<Ipv6Addr>().expect("an address").octets());
        packet.extend("2001:db8::2".parse::<Ipv6Addr>().expect("an address").octets());
        packet.extend([0x30, 0x39, 0, 53, 0, 8, 0, 0]);
        let header = Header::read(&packet).expect("an IPv6 packet");
        assert_eq!((header.ttl, header.ports), (3, Some([12345, 53])));
        assert_eq!(header.destination.to_string(), "2001:db8::2");
        let mut later = vec![0x45, 0, 0, 28, 0, 1, 0, 185, 64, 17, 0, 0];
        later.extend([192, 0, 2, 1, 192, 0, 2, 2, 0x30, 0x39, 0, 53, 0, 8, 0, 0]);
        assert_eq!(Header::read(&later).expect("an IPv4 packet").ports, None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let is_ip = Header::read(&bytes).is_some();
            let version = bytes.first().map(|first| first >> 4);
            let expected = match version {
                Some(4) => bytes.len() >= 20,
                Some(6) => bytes.len() >= 40,
                _ => false,
            };
            prop_assert_eq!(is_ip, expected);
        }
    }
}
