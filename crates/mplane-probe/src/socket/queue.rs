//! Receiving from the two queues of a socket: packets, and the error queue.
//!
//! Source: Linux manual pages recvmsg(2), ip(7) (`IP_RECVERR`), ipv6(7); Linux
//! documentation "Timestamping", section 2.1.

use std::io::IoSliceMut;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::RawFd;

use jiff::Timestamp;
use nix::libc;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};
use nix::sys::time::TimeSpec;

use super::clock::UserClock;
use crate::packet::{Family, Problem, ReceiveStamp};

/// Memory to receive into, used again and again.
#[derive(Debug)]
pub(super) struct Buffer {
    /// The packet.
    bytes: Vec<u8>,
    /// The control messages.
    control: Vec<u8>,
}

impl Buffer {
    /// Makes room for packets of `capacity` bytes and for all control messages this
    /// crate asks for.
    pub(super) fn new(capacity: usize) -> Self {
        let control = nix::cmsg_space!(
            [libc::timespec; 3],
            libc::timespec,
            libc::c_int,
            u32,      // packets dropped
            [u64; 8]  // an extended error and the address of who reported it
        );
        Self { bytes: vec![0; capacity], control }
    }

    /// Returns the first `length` bytes, or all if there are fewer.
    pub(super) fn bytes(&self, length: usize) -> &[u8] {
        self.bytes.get(..length).unwrap_or(&self.bytes)
    }
}

/// A packet in a [`Buffer`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Received {
    /// Its length in bytes.
    pub(super) length: usize,
    /// Who sent it.
    pub(super) source: Option<IpAddr>,
    /// Hops it could still have gone.
    pub(super) hop_limit: Option<u8>,
    /// When it came.
    pub(super) stamp: ReceiveStamp,
    /// How many packets the kernel had dropped, for want of room, when this one came.
    pub(super) dropped: Option<u32>,
}

/// An entry of the error queue.
#[derive(Debug, Clone, Copy)]
pub(super) enum Notice {
    /// The kernel sent a packet.
    Transmitted {
        /// The kernel's number of it.
        number: u32,
        /// When.
        kernel: Timestamp,
    },
    /// An ICMP error about a packet came, now quoted in the [`Buffer`].
    Reported {
        /// Who reported it.
        from: Option<IpAddr>,
        /// What was reported.
        problem: Problem,
        /// Length in bytes of what is quoted.
        length: usize,
    },
    /// Nothing of interest.
    Other,
}

/// Takes the next packet.
pub(super) fn receive_packet(
    fd: RawFd,
    buffer: &mut Buffer,
    clock: &UserClock,
) -> nix::Result<Received> {
    let mut slices = [IoSliceMut::new(&mut buffer.bytes)];
    let message = recvmsg::<SockaddrStorage>(
        fd,
        &mut slices,
        Some(&mut buffer.control),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let user = clock.read();
    let mut kernel = None;
    let mut hop_limit = None;
    let mut dropped = None;
    // Control messages that did not fit are none: the packet itself is good.
    for control in message.cmsgs().into_iter().flatten() {
        match control {
            ControlMessageOwned::ScmTimestampsns(stamps) => {
                kernel = timestamp(stamps.system);
            }
            ControlMessageOwned::ScmTimestampns(stamp) => kernel = timestamp(stamp),
            ControlMessageOwned::Ipv4Ttl(hops)
            | ControlMessageOwned::Ipv6HopLimit(hops) => {
                hop_limit = u8::try_from(hops).ok();
            }
            ControlMessageOwned::RxqOvfl(packets) => dropped = Some(packets),
            _ => {}
        }
    }
    Ok(Received {
        length: message.bytes,
        source: message.address.as_ref().and_then(ip_address),
        hop_limit,
        stamp: ReceiveStamp { user, kernel },
        dropped,
    })
}

/// Takes the next entry of the error queue.
pub(super) fn receive_notice(
    fd: RawFd,
    buffer: &mut Buffer,
    family: Family,
) -> nix::Result<Notice> {
    let mut slices = [IoSliceMut::new(&mut buffer.bytes)];
    // No address is asked for: entries need not have one, and the kernel then leaves
    // the memory for it untouched.
    let message = recvmsg::<()>(
        fd,
        &mut slices,
        Some(&mut buffer.control),
        MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT,
    )?;
    let mut kernel = None;
    let mut error = None;
    for control in message.cmsgs().into_iter().flatten() {
        match control {
            ControlMessageOwned::ScmTimestampsns(stamps) => {
                kernel = timestamp(stamps.system);
            }
            ControlMessageOwned::Ipv4RecvErr(extended, from) => {
                error = Some((extended, from.map(v4_address)));
            }
            ControlMessageOwned::Ipv6RecvErr(extended, from) => {
                error = Some((extended, from.map(v6_address)));
            }
            _ => {}
        }
    }
    let Some((error, from)) = error else {
        return Ok(Notice::Other);
    };
    Ok(match (error.ee_origin, kernel) {
        (libc::SO_EE_ORIGIN_TIMESTAMPING, Some(kernel)) => {
            Notice::Transmitted { number: error.ee_data, kernel }
        }
        (libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6, _) => {
            Problem::from_icmp(family, error.ee_type, error.ee_code, error.ee_info)
                .map_or(Notice::Other, |problem| Notice::Reported {
                    from,
                    problem,
                    length: message.bytes,
                })
        }
        _ => Notice::Other,
    })
}

/// Returns a kernel stamp, `None` if there is none: the kernel then leaves it zero.
fn timestamp(stamp: TimeSpec) -> Option<Timestamp> {
    let nanoseconds = i32::try_from(stamp.tv_nsec()).ok()?;
    let stamp = Timestamp::new(stamp.tv_sec(), nanoseconds).ok()?;
    (stamp != Timestamp::UNIX_EPOCH).then_some(stamp)
}

/// Returns the IP address of a socket address.
fn ip_address(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| address.ip().into());
    v4.or_else(|| address.as_sockaddr_in6().map(|address| address.ip().into()))
}

/// Returns the address in a C structure; the kernel keeps it in network byte order.
fn v4_address(address: libc::sockaddr_in) -> IpAddr {
    Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)).into()
}

/// Returns the address in a C structure.
fn v6_address(address: libc::sockaddr_in6) -> IpAddr {
    Ipv6Addr::from(address.sin6_addr.s6_addr).into()
}
