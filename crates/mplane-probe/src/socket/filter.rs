//! The packet filter of raw sockets.
//!
//! A raw ICMP socket receives every ICMP packet of the machine. This filter lets the
//! kernel drop what is not about our identifier, so that another program's traffic
//! does not wake us. It saves work only: whatever passes is examined again.
//!
//! Source: Linux documentation "Linux Socket Filtering aka Berkeley Packet Filter";
//! RFC 791, RFC 792, RFC 4443, RFC 8200 for the offsets.

use nix::libc;
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
/// Jumps count the instructions to skip; the line numbers they lead to are noted.
fn v4_filter(identifier: u32) -> Vec<SockFilter> {
    vec![
        /*  0 */
        instruction(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0), // X: header
        /*  1 */ load_byte(libc::BPF_IND, 0), // type
        /*  2 */ jump_if_equal(0, 9, 0), // echo reply: to 12
        /*  3 */ jump_if_equal(3, 2, 0), // destination unreachable: to 6
        /*  4 */ jump_if_equal(11, 1, 0), // time exceeded: to 6
        /*  5 */
        jump_if_equal(12, 0, 9), // parameter problem; anything else: to 15
        /*  6 */
        load_byte(libc::BPF_IND, 8), // version and length of the quoted header
        /*  7 */
        arithmetic(libc::BPF_AND | libc::BPF_K, 0x0f), // length in words
        /*  8 */
        arithmetic(libc::BPF_LSH | libc::BPF_K, 2), // length in bytes
        /*  9 */
        arithmetic(libc::BPF_ADD | libc::BPF_K, 8), // and the header of the error
        /* 10 */ arithmetic(libc::BPF_ADD | libc::BPF_X, 0),
        /* 11 */
        instruction(libc::BPF_MISC | libc::BPF_TAX, 0), // X: the quoted message
        /* 12 */ load_half_word(libc::BPF_IND, 4), // identifier
        /* 13 */ jump_if_equal(identifier, 0, 1), // else: to 15
        /* 14 */ instruction(libc::BPF_RET | libc::BPF_K, KEEP),
        /* 15 */ instruction(libc::BPF_RET | libc::BPF_K, DROP),
    ]
}

/// The filter for packets that start with the ICMPv6 message.
fn v6_filter(identifier: u32) -> Vec<SockFilter> {
    /// Where the identifier of a quoted request is: after the header of the error, the
    /// IPv6 header, and the request's type, code and checksum.
    const QUOTED_IDENTIFIER: u32 = 8 + 40 + 4;
    vec![
        /* 0 */ load_byte(libc::BPF_ABS, 0), // type
        /* 1 */ jump_if_equal(129, 2, 0), // echo reply: to 4
        /* 2 */ jump_if_at_least(5, 4, 0), // no error this crate reads: to 7
        /* 3 */ instruction(libc::BPF_JMP | libc::BPF_JA, 4), // to 8
        /* 4 */ load_half_word(libc::BPF_ABS, 4), // identifier
        /* 5 */ jump_if_equal(identifier, 0, 1), // else: to 7
        /* 6 */ instruction(libc::BPF_RET | libc::BPF_K, KEEP),
        /* 7 */ instruction(libc::BPF_RET | libc::BPF_K, DROP),
        /* 8 */ load_half_word(libc::BPF_ABS, QUOTED_IDENTIFIER),
        /* 9 */ jump_if_equal(identifier, 0, 1), // else: to 11
        /* 10 */ instruction(libc::BPF_RET | libc::BPF_K, KEEP),
        /* 11 */ instruction(libc::BPF_RET | libc::BPF_K, DROP),
    ]
}

/// Loads the byte at `offset`.
fn load_byte(mode: u32, offset: u32) -> SockFilter {
    instruction(libc::BPF_LD | libc::BPF_B | mode, offset)
}

/// Loads the two bytes at `offset`, in network byte order.
fn load_half_word(mode: u32, offset: u32) -> SockFilter {
    instruction(libc::BPF_LD | libc::BPF_H | mode, offset)
}

/// Changes the accumulator.
fn arithmetic(operation: u32, operand: u32) -> SockFilter {
    instruction(libc::BPF_ALU | operation, operand)
}

/// Skips `then` instructions if the accumulator is `value`, else `otherwise`.
fn jump_if_equal(value: u32, then: u8, otherwise: u8) -> SockFilter {
    SockFilter::new(
        code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K),
        then,
        otherwise,
        value,
    )
}

/// Skips `then` instructions if the accumulator is `value` or more, else `otherwise`.
fn jump_if_at_least(value: u32, then: u8, otherwise: u8) -> SockFilter {
    SockFilter::new(
        code(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K),
        then,
        otherwise,
        value,
    )
}

/// An instruction that is no conditional jump.
fn instruction(operation: u32, operand: u32) -> SockFilter {
    SockFilter::new(code(operation), 0, 0, operand)
}

/// Narrows an operation code, which the system headers define as wider.
fn code(operation: u32) -> u16 {
    u16::try_from(operation).expect("operation codes of the filter language have 16 bits")
}
