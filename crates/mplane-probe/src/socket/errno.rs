//! What error numbers of the socket calls mean for a measurement.
//!
//! Source: Linux manual pages send(2), connect(2), raw(7), icmp(7).

use std::io;

use nix::errno::Errno;

use crate::packet::Obstacle;

/// Returns what kept one packet or connection from leaving, or `None` if the error
/// will be the same for all of them: the call itself is wrong.
///
/// `EINVAL` is an obstacle: it is how the kernel reports a "blackhole" route.
pub(crate) fn obstacle(error: &io::Error) -> Option<Obstacle> {
    let errno = error.raw_os_error()?;
    Some(match Errno::from_raw(errno) {
        Errno::ENETUNREACH => Obstacle::NetworkUnreachable,
        Errno::EHOSTUNREACH | Errno::EHOSTDOWN => Obstacle::HostUnreachable,
        Errno::ENETDOWN => Obstacle::InterfaceDown,
        Errno::EPERM | Errno::EACCES => Obstacle::Prohibited,
        Errno::EMSGSIZE => Obstacle::TooBig,
        Errno::ENOBUFS | Errno::EAGAIN | Errno::ENOMEM => Obstacle::NoBufferSpace,
        Errno::EADDRNOTAVAIL => Obstacle::NoSourceAddress,
        Errno::EAFNOSUPPORT
        | Errno::EBADF
        | Errno::EDESTADDRREQ
        | Errno::EFAULT
        | Errno::ENOTSOCK
        | Errno::EPROTONOSUPPORT => return None,
        _ => Obstacle::Other { errno },
    })
}

/// Returns whether the error may be about an earlier packet.
///
/// A socket that reports ICMP errors (`IP_RECVERR`) fails its next call with the error
/// of an earlier packet, once. These are the numbers the kernel translates ICMP errors
/// into.
pub(super) fn may_be_of_an_earlier_packet(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EACCES
            | Errno::ECONNREFUSED
            | Errno::EHOSTDOWN
            | Errno::EHOSTUNREACH
            | Errno::EMSGSIZE
            | Errno::ENETUNREACH
            | Errno::ENONET
            | Errno::ENOPROTOOPT
            | Errno::EOPNOTSUPP
            | Errno::EPROTO
    )
}
