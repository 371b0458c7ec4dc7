//! Opening an ICMP socket: a datagram one if this user may, else a raw one.
//!
//! What may be opened is found out by opening it, never by looking at user or
//! capabilities.
//!
//! | socket | who may open it | receives |
//! |---|---|---|
//! | datagram | groups in the sysctl `net.ipv4.ping_group_range`, for both families | replies to its own requests |
//! | raw | `CAP_NET_RAW` | all ICMP packets, less what its filter drops |
//!
//! Source: Linux manual pages icmp(7) and raw(7); Linux documentation "IP Sysctl".

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

use nix::sys::socket::{TimestampingFlag, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::SocketKind;
use super::filter::echo_filter;
use crate::packet::Family;

/// Why no ICMP socket could be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenEchoError {
    /// Neither kind of socket is allowed, or the family does not exist here.
    #[error(
        "cannot open an ICMP socket for {family}: as datagram socket: {datagram}; as raw \
         socket: {raw}: allow this user's group in the sysctl net.ipv4.ping_group_range, \
         or give the program the capability CAP_NET_RAW"
    )]
    NotPermitted {
        /// The family asked for.
        family: Family,
        /// Why there is no datagram socket.
        datagram: io::Error,
        /// Why there is no raw socket.
        raw: io::Error,
    },
    /// The source address is not of the family of the destination.
    #[error(
        "source address {source_address} is not an {family} address: choose one that is"
    )]
    SourceFamily {
        /// The address asked for.
        source_address: IpAddr,
        /// The family it should have.
        family: Family,
    },
    /// The source address cannot be used.
    #[error("cannot send from {source_address}: choose an address of this machine")]
    Source {
        /// The address asked for.
        source_address: IpAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The socket exists but cannot be set up.
    #[error("cannot set up the ICMP socket ({act})")]
    SetUp {
        /// What was attempted.
        act: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// A socket as [`open`] leaves it.
pub(super) struct Opened {
    /// The socket: bound, non-blocking, with its options set.
    pub(super) socket: Socket,
    /// Which kind could be opened.
    pub(super) kind: SocketKind,
    /// The identifier requests bear on the wire.
    pub(super) identifier: u16,
    /// Whether the kernel promised transmit and receive stamps.
    pub(super) has_kernel_stamps: bool,
}

/// Opens a socket of `family` that sends from `source`.
pub(super) fn open(
    family: Family,
    source: Option<IpAddr>,
) -> Result<Opened, OpenEchoError> {
    if let Some(source_address) = source
        && Family::of(source_address) != family
    {
        return Err(OpenEchoError::SourceFamily { source_address, family });
    }
    let (socket, kind) = open_either(family)?;
    socket.set_nonblocking(true).map_err(set_up("non-blocking"))?;
    let identifier = match kind {
        SocketKind::Datagram => {
            bind(&socket, source.unwrap_or_else(|| unspecified(family)))?;
            kernel_identifier(&socket).map_err(set_up("identifier"))?
        }
        SocketKind::Raw => {
            if let Some(source) = source {
                bind(&socket, source)?;
            }
            let identifier = next_identifier();
            // The filter only saves work: without it all packets are examined here.
            if let Err(error) = socket.attach_filter(&echo_filter(family, identifier)) {
                tracing::debug!(%error, "raw socket works without a packet filter");
            }
            identifier
        }
    };
    if kind == SocketKind::Datagram {
        report_errors(&socket, family).map_err(set_up("error reports"))?;
    }
    report_hop_limit(&socket, family).map_err(set_up("hop limit of replies"))?;
    let has_kernel_stamps = enable_kernel_stamps(&socket);
    Ok(Opened { socket, kind, identifier, has_kernel_stamps })
}

/// Opens a datagram socket, or else a raw one.
fn open_either(family: Family) -> Result<(Socket, SocketKind), OpenEchoError> {
    let (domain, protocol) = match family {
        Family::V4 => (Domain::IPV4, Protocol::ICMPV4),
        Family::V6 => (Domain::IPV6, Protocol::ICMPV6),
    };
    let datagram = match Socket::new(domain, Type::DGRAM, Some(protocol)) {
        Ok(socket) => return Ok((socket, SocketKind::Datagram)),
        Err(error) => error,
    };
    match Socket::new(domain, Type::RAW, Some(protocol)) {
        Ok(socket) => Ok((socket, SocketKind::Raw)),
        Err(raw) => Err(OpenEchoError::NotPermitted { family, datagram, raw }),
    }
}

/// Binds `socket` to `source_address`; a datagram socket gets its identifier by this.
fn bind(socket: &Socket, source_address: IpAddr) -> Result<(), OpenEchoError> {
    socket
        .bind(&SocketAddr::new(source_address, 0).into())
        .map_err(|source| OpenEchoError::Source { source_address, source })
}

/// Returns the identifier the kernel gave a datagram socket: it is its "port".
fn kernel_identifier(socket: &Socket) -> io::Result<u16> {
    let address = socket.local_addr()?.as_socket();
    address.map(|address| address.port()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "the socket has no IP address")
    })
}

/// Returns an identifier for a raw socket that no other run of this process has.
///
/// Starts at random, so that two processes are unlikely to choose the same; if they
/// do, their nonces differ.
fn next_identifier() -> u16 {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| {
        let [high, low, ..] = RandomState::new().build_hasher().finish().to_be_bytes();
        AtomicU16::new(u16::from_be_bytes([high, low]))
    });
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Asks for ICMP errors about requests on the error queue.
///
/// Raw sockets do without: they receive the errors themselves.
fn report_errors(socket: &Socket, family: Family) -> nix::Result<()> {
    match family {
        Family::V4 => setsockopt(socket, sockopt::Ipv4RecvErr, &true),
        Family::V6 => setsockopt(socket, sockopt::Ipv6RecvErr, &true),
    }
}

/// Asks for the hop limit of received packets.
fn report_hop_limit(socket: &Socket, family: Family) -> nix::Result<()> {
    match family {
        Family::V4 => setsockopt(socket, sockopt::Ipv4RecvTtl, &true),
        Family::V6 => setsockopt(socket, sockopt::Ipv6RecvHopLimit, &true),
    }
}

/// Asks for kernel stamps of packets sent and received, or at least received; returns
/// whether both were promised.
fn enable_kernel_stamps(socket: &Socket) -> bool {
    let both = number_transmit_stamps(socket);
    if let Err(error) = both {
        let received = setsockopt(socket, sockopt::ReceiveTimestampns, &true);
        tracing::debug!(%error, ?received, "no kernel time stamps of sent packets");
    }
    both.is_ok()
}

/// Asks for kernel stamps and starts numbering those of sent packets from zero.
///
/// The number is the only link from a stamp to its packet: the packet itself is not
/// returned (`OPT_TSONLY`), which also works where the sysctl `net.core.tstamp_allow_data`
/// forbids it. The kernel counts from zero whenever `OPT_ID` is switched on after
/// having been off.
pub(super) fn number_transmit_stamps(socket: &Socket) -> nix::Result<()> {
    let stamps = TimestampingFlag::SOF_TIMESTAMPING_SOFTWARE
        | TimestampingFlag::SOF_TIMESTAMPING_RX_SOFTWARE
        | TimestampingFlag::SOF_TIMESTAMPING_TX_SOFTWARE;
    let numbered = TimestampingFlag::SOF_TIMESTAMPING_OPT_ID
        | TimestampingFlag::SOF_TIMESTAMPING_OPT_TSONLY;
    setsockopt(socket, sockopt::Timestamping, &stamps)?;
    setsockopt(socket, sockopt::Timestamping, &(stamps | numbered))
}

/// Returns the address that stands for "any" in `family`.
fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Wraps an error of setting up a socket.
fn set_up<E: Into<io::Error>>(act: &'static str) -> impl FnOnce(E) -> OpenEchoError {
    move |source| OpenEchoError::SetUp { act, source: source.into() }
}
