//! The packet filter of raw sockets.
//!
//! A raw ICMP socket receives every ICMP packet of the machine. This filter lets the
//! kernel drop what is not about our identifier, so that another program's traffic
//! does not wake us. It saves work only: whatever passes is examined again.
//!
//! Source: Linux documentation "Linux Socket Filtering aka Berkeley Packet Filter";
//! RFC 791, RFC 792, RFC 4443, RFC 8200 for the offsets.

use nix::libc::{
    BPF_ABS, BPF_ADD, BPF_ALU, BPF_AND, BPF_B, BPF_H, BPF_IND, BPF_JA, BPF_JEQ, BPF_JGE,
    BPF_JMP, BPF_K, BPF_LD, BPF_LDX, BPF_LSH, BPF_MISC, BPF_MSH, BPF_RET, BPF_TAX, BPF_X,
};
use socket2::SockFilter;

use crate::packet::Family;

/// Filter result: keep the whole packet.
const KEEP: u32 = u32::MAX;
/// Filter result: drop the packet. A load beyond the packet's end also drops it.
const DROP: u32 = 0;

/// Returns the filter for a raw socket of `family`.
///
/// It keeps echo replies with the identifier, and errors that quote a packet with the
/// identifier where an echo request has it.
pub(super) fn echo_filter(family: Family, identifier: u16) -> Vec<SockFilter> {
    match family {
        Family::V4 => v4_filter(identifier.into()),
        Family::V6 => v6_filter(identifier.into()),
    }
}

/// The filter for packets that start with their IPv4 header.
///
/// A jump counts the instructions to skip; where it leads is noted by line number.
fn v4_filter(identifier: u32) -> Vec<SockFilter> {
    vec![
        // 0: the index register becomes the length of the IPv4 header.
        instruction(BPF_LDX | BPF_B | BPF_MSH, 0),
        // 1: by type: a reply to 12, errors to 6, all others to 15.
        load_byte(BPF_IND, 0),
        jump_if_equal(0, 9, 0),
        jump_if_equal(3, 2, 0),
        jump_if_equal(11, 1, 0),
        jump_if_equal(12, 0, 9),
        // 6: the index register becomes the start of the quoted message: behind the
        // header of the error and the quoted header, which states its length in words.
        load_byte(BPF_IND, 8),
        arithmetic(BPF_AND | BPF_K, 0x0f),
        arithmetic(BPF_LSH | BPF_K, 2),
        arithmetic(BPF_ADD | BPF_K, 8),
        arithmetic(BPF_ADD | BPF_X, 0),
        instruction(BPF_MISC | BPF_TAX, 0),
        // 12: by identifier: ours to 14, others to 15.
        load_half_word(BPF_IND, 4),
        jump_if_equal(identifier, 0, 1),
        // 14
        instruction(BPF_RET | BPF_K, KEEP),
        // 15
        instruction(BPF_RET | BPF_K, DROP),
    ]
}

/// The filter for packets that start with the ICMPv6 message.
fn v6_filter(identifier: u32) -> Vec<SockFilter> {
    /// Where the identifier of a quoted request is: after the header of the error, the
    /// IPv6 header, and the request's type, code and checksum.
    const QUOTED_IDENTIFIER: u32 = 8 + 40 + 4;
    vec![
        // 0: by type: a reply to 3, errors to 5, all others to 8.
        load_byte(BPF_ABS, 0),
        jump_if_equal(129, 1, 0),
        jump_if_at_least(5, 5, 2),
        // 3
        load_half_word(BPF_ABS, 4),
        instruction(BPF_JMP | BPF_JA, 1),
        // 5
        load_half_word(BPF_ABS, QUOTED_IDENTIFIER),
        // 6: by identifier: ours to 7, others to 8.
        jump_if_equal(identifier, 0, 1),
        // 7
        instruction(BPF_RET | BPF_K, KEEP),
        // 8
        instruction(BPF_RET | BPF_K, DROP),
    ]
}

/// Loads the byte at `offset`.
fn load_byte(mode: u32, offset: u32) -> SockFilter {
    instruction(BPF_LD | BPF_B | mode, offset)
}

/// Loads the two bytes at `offset`, in network byte order.
fn load_half_word(mode: u32, offset: u32) -> SockFilter {
    instruction(BPF_LD | BPF_H | mode, offset)
}

/// Changes the accumulator.
fn arithmetic(operation: u32, operand: u32) -> SockFilter {
    instruction(BPF_ALU | operation, operand)
}

/// Skips `then` instructions if the accumulator is `value`, else `otherwise`.
fn jump_if_equal(value: u32, then: u8, otherwise: u8) -> SockFilter {
    SockFilter::new(code(BPF_JMP | BPF_JEQ | BPF_K), then, otherwise, value)
}

/// Skips `then` instructions if the accumulator is `value` or more, else `otherwise`.
fn jump_if_at_least(value: u32, then: u8, otherwise: u8) -> SockFilter {
    SockFilter::new(code(BPF_JMP | BPF_JGE | BPF_K), then, otherwise, value)
}

/// An instruction that is no conditional jump.
fn instruction(operation: u32, operand: u32) -> SockFilter {
    SockFilter::new(code(operation), 0, 0, operand)
}

/// Narrows an operation code, which the system headers define as wider.
fn code(operation: u32) -> u16 {
    u16::try_from(operation).expect("operation codes of the filter language have 16 bits")
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

    use socket2::{Domain, Protocol, Socket, Type};

    use super::*;
    use crate::packet::{EchoRequest, Framing, Message, read_packet};

    /// Our identifier.
    const OWN: u16 = 0x1234;

    /// Opens a raw socket, or says loudly that it is not allowed.
    fn raw_socket(domain: Domain, protocol: Protocol) -> Option<Socket> {
        match Socket::new(domain, Type::RAW, Some(protocol)) {
            Ok(socket) => Some(socket),
            Err(error) => {
                let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
                assert!(!is_ci, "continuous integration must not skip: {error}");
                writeln!(std::io::stderr(), "SKIPPED: no raw socket: {error}")
                    .expect("standard error is open");
                None
            }
        }
    }

    /// Checks that of requests with different identifiers only the reply to our own
    /// comes through. On the loopback interface sending delivers request and reply.
    fn check(family: Family, mut socket: Socket, destination: SocketAddr) {
        let filter = echo_filter(family, OWN);
        socket.attach_filter(&filter).expect("the kernel accepts the filter");
        socket.set_nonblocking(true).expect("sockets can be non-blocking");
        let mut buffer = [0; 256];
        while socket.read(&mut buffer).is_ok() {} // what came before the filter
        let mut request = Vec::new();
        for identifier in [OWN - 1, OWN, OWN + 1] {
            EchoRequest { identifier, sequence: 1, payload: b"abcdefgh" }
                .write(family, &mut request);
            socket.send_to(&request, &destination.into()).expect("loopback accepts");
        }
        let length = socket.read(&mut buffer).expect("our reply was delivered");
        let framing = Framing::Ipv4Header;
        let packet = read_packet(family, framing, &buffer[..length]).expect("a packet");
        let Message::EchoReply(reply) = packet.message else {
            panic!("the filter let through {packet:?}");
        };
        assert_eq!(reply.identifier, OWN);
        let error = socket.read(&mut buffer).expect_err("nothing else was delivered");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn lets_only_our_icmpv4_replies_through() {
        if let Some(socket) = raw_socket(Domain::IPV4, Protocol::ICMPV4) {
            check(Family::V4, socket, (Ipv4Addr::LOCALHOST, 0).into());
        }
    }

    #[test]
    fn lets_only_our_icmpv6_replies_through() {
        if let Some(socket) = raw_socket(Domain::IPV6, Protocol::ICMPV6)
            && std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
        {
            check(Family::V6, socket, (Ipv6Addr::LOCALHOST, 0).into());
        }
    }
}
