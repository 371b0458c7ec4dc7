//! Echo requests as written to the network.
//!
//! Source: RFC 792 "Echo or Echo Reply Message"; RFC 4443 section 4.1.

use super::checksum::internet_checksum;
use super::{Family, NONCE_BYTES, Nonce};

/// Largest payload in bytes: what an IPv4 packet holds after its header and ours.
///
/// 65,535 bytes less 20 (IPv4 header) less 8 (ICMP header). IPv6 would hold 20 more;
/// one limit for both keeps runs comparable.
pub const MAX_PAYLOAD_BYTES: usize = 65_507;

/// ICMPv4 type of an echo request.
pub(super) const V4_ECHO_REQUEST: u8 = 8;
/// ICMPv4 type of an echo reply.
pub(super) const V4_ECHO_REPLY: u8 = 0;
/// ICMPv6 type of an echo request.
pub(super) const V6_ECHO_REQUEST: u8 = 128;
/// ICMPv6 type of an echo reply.
pub(super) const V6_ECHO_REPLY: u8 = 129;
/// Length in bytes of the header of an echo message: type, code, checksum,
/// identifier, sequence number.
pub(super) const ECHO_HEADER_BYTES: usize = 8;

/// One echo request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EchoRequest<'a> {
    /// Tells the runs on one machine apart. A datagram socket overwrites it.
    pub identifier: u16,
    /// Tells the requests of one run apart; wraps.
    pub sequence: u16,
    /// What the reply has to bring back.
    pub payload: &'a [u8],
}

impl EchoRequest<'_> {
    /// Replaces the content of `buffer` by the ICMP message, without an IP header.
    ///
    /// The checksum is set for ICMPv4. For ICMPv6 it stays zero: the kernel fills it
    /// in, since it covers addresses that only the kernel knows.
    pub fn write(&self, family: Family, buffer: &mut Vec<u8>) {
        let kind = match family {
            Family::V4 => V4_ECHO_REQUEST,
            Family::V6 => V6_ECHO_REQUEST,
        };
        buffer.clear();
        buffer.reserve(ECHO_HEADER_BYTES + self.payload.len());
        buffer.extend([kind, 0, 0, 0]);
        buffer.extend(self.identifier.to_be_bytes());
        buffer.extend(self.sequence.to_be_bytes());
        buffer.extend(self.payload);
        if family == Family::V4 {
            let checksum = internet_checksum(buffer).to_be_bytes();
            buffer[2..4].copy_from_slice(&checksum);
        }
    }
}

/// The payload all requests of one run carry: the nonce, then counting bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// What tells this run from all others.
    nonce: Nonce,
    /// The whole payload, nonce included.
    bytes: Vec<u8>,
}

impl Payload {
    /// Makes a payload of `length` bytes, or `None` when it cannot hold the nonce or
    /// exceeds [`MAX_PAYLOAD_BYTES`].
    pub fn new(nonce: Nonce, length: usize) -> Option<Self> {
        if !(NONCE_BYTES..=MAX_PAYLOAD_BYTES).contains(&length) {
            return None;
        }
        let mut bytes = nonce.as_bytes().to_vec();
        // Counting bytes, so that a link that corrupts or compresses shows.
        bytes.extend((0..=u8::MAX).cycle().take(length - NONCE_BYTES));
        Some(Self { nonce, bytes })
    }

    /// Returns the nonce.
    pub fn nonce(&self) -> Nonce {
        self.nonce
    }

    /// Returns all bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns whether a reply brought back this payload: its nonce and its length.
    ///
    /// The counting bytes are not compared: a reply altered there still answers
    /// our request.
    pub fn returned_by(&self, reply: &[u8]) -> bool {
        reply.len() == self.bytes.len() && self.nonce.fits_start_of(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_the_fixed_icmpv4_request() {
        let mut buffer = vec![0xee; 3];
        let request =
            EchoRequest { identifier: 0x1234, sequence: 0x0001, payload: b"abcdefgh" };
        request.write(Family::V4, &mut buffer);
        assert_eq!(buffer, b"\x08\x00\x54\x35\x12\x34\x00\x01abcdefgh");
        assert_eq!(internet_checksum(&buffer), 0);
    }

    #[test]
    fn writes_the_fixed_icmpv6_request_and_leaves_the_checksum_to_the_kernel() {
        let mut buffer = Vec::new();
        let request =
            EchoRequest { identifier: 0x1234, sequence: 0xffff, payload: b"abcdefgh" };
        request.write(Family::V6, &mut buffer);
        assert_eq!(buffer, b"\x80\x00\x00\x00\x12\x34\xff\xffabcdefgh");
    }

    #[test]
    fn payload_holds_the_nonce_and_has_the_length_asked_for() {
        let nonce = Nonce::from_bytes(*b"12345678");
        let payload = Payload::new(nonce, 12).expect("12 bytes hold a nonce");
        assert_eq!(payload.as_bytes(), b"12345678\x00\x01\x02\x03");
        assert!(payload.returned_by(b"12345678\x00\x01\x02\xff"));
        assert!(!payload.returned_by(b"12345678"), "cut short");
        assert!(!payload.returned_by(b"1234567x\x00\x01\x02\x03"), "other nonce");
    }

    #[test]
    fn refuses_payloads_too_short_for_the_nonce_or_too_long_for_a_packet() {
        let nonce = Nonce::random();
        assert!(Payload::new(nonce, 7).is_none());
        assert!(Payload::new(nonce, 8).is_some());
        assert!(Payload::new(nonce, 65_507).is_some());
        assert!(Payload::new(nonce, 65_508).is_none());
    }

    #[test]
    fn two_runs_have_different_nonces() {
        assert_ne!(Nonce::random(), Nonce::random());
    }
}
