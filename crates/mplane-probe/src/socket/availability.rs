//! What this machine and this user's rights allow: which ICMP socket, and whether the
//! kernel really stamps packets.
//!
//! Found out by trying, with echo requests to the loopback address.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Arrival, EchoSocket, OpenEchoError, SocketKind, WatchedSocket};
use crate::packet::{
    EchoRequest, Family, Framing, Message, NONCE_BYTES, Nonce, Payload, read_packet,
};

/// How many requests are tried at most. The first packets after stamps were asked for
/// may come without, since the kernel switches them on in the background.
const ATTEMPTS: u16 = 5;

/// How long to wait for each reply: with [`ATTEMPTS`], 300 ms in all.
const PATIENCE: Duration = Duration::from_millis(60);

/// What kind of ICMP socket this process may open.
#[derive(Debug)]
pub enum Access {
    /// A datagram socket: no privilege needed.
    Datagram,
    /// A raw socket only.
    Raw,
    /// None.
    None {
        /// Why there is no datagram socket.
        datagram_error: io::Error,
        /// Why there is no raw socket.
        raw_error: io::Error,
    },
    /// A socket, but it cannot be set up.
    Unusable {
        /// What failed.
        error: OpenEchoError,
    },
}

/// What ICMP measurements of one family can do here.
#[derive(Debug)]
pub struct Availability {
    /// The family tried.
    pub family: Family,
    /// Which socket can be opened.
    pub access: Access,
    /// Whether the loopback address answered.
    pub is_loopback_answering: bool,
    /// Whether the kernel stamped a request on leaving.
    pub has_transmit_stamps: bool,
    /// Whether the kernel stamped a reply on arriving.
    pub has_receive_stamps: bool,
}

impl Availability {
    /// Returns whether measurements are possible at all.
    pub fn is_usable(&self) -> bool {
        matches!(self.access, Access::Datagram | Access::Raw)
    }
}

impl fmt::Display for Availability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = self.family;
        match &self.access {
            Access::Datagram => {
                write!(f, "{family} ping works without privileges (datagram socket)")?;
            }
            Access::Raw => write!(f, "{family} ping works with a raw socket")?,
            Access::None { datagram_error, raw_error } => {
                return write!(
                    f,
                    "{family} ping is not possible: neither datagram socket \
                     ({datagram_error}) nor raw socket ({raw_error}); allow this user's \
                     group in the sysctl net.ipv4.ping_group_range, or give the program \
                     the capability CAP_NET_RAW"
                );
            }
            Access::Unusable { error } => {
                return write!(f, "{family} ping is not possible: {error}");
            }
        }
        if !self.is_loopback_answering {
            return f.write_str("; the loopback address does not answer");
        }
        f.write_str(match (self.has_transmit_stamps, self.has_receive_stamps) {
            (true, true) => "; the kernel stamps packets sent and received",
            (false, true) => {
                "; the kernel stamps only packets received, so delays include the time \
                 until this process is scheduled"
            }
            (true, false) => {
                "; the kernel stamps only packets sent, so delays include the time \
                 until this process is scheduled"
            }
            (false, false) => {
                "; the kernel stamps no packets, so delays include the time until this \
                 process is scheduled"
            }
        })
    }
}

/// Finds out what ICMP measurements of `family` can do here, within 300 ms.
///
/// Sends up to five echo requests to the loopback address, and stops at the first one
/// stamped at both ends. Needs a Tokio runtime with I/O and time.
pub async fn detect(family: Family) -> Availability {
    let mut found = Availability {
        family,
        access: Access::Datagram,
        is_loopback_answering: false,
        has_transmit_stamps: false,
        has_receive_stamps: false,
    };
    let socket = match EchoSocket::open(family, None) {
        Ok(socket) => socket,
        Err(OpenEchoError::NotPermitted { datagram, raw, .. }) => {
            found.access = Access::None { datagram_error: datagram, raw_error: raw };
            return found;
        }
        Err(error) => {
            found.access = Access::Unusable { error };
            return found;
        }
    };
    found.access = match socket.kind() {
        SocketKind::Datagram => Access::Datagram,
        SocketKind::Raw => Access::Raw,
    };
    if let Err(error) = try_loopback(socket, &mut found).await {
        tracing::debug!(%error, %family, "echo to the loopback address failed");
    }
    found
}

/// Sends echo requests to the loopback address and notes what comes back.
async fn try_loopback(socket: EchoSocket, found: &mut Availability) -> io::Result<()> {
    let loopback: IpAddr = match found.family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    };
    let payload = Payload::new(Nonce::random(), NONCE_BYTES)
        .expect("a payload of the nonce alone is the shortest allowed");
    let (identifier, framing) = (socket.identifier(), socket.framing());
    let mut watched = WatchedSocket::new(socket)?;
    let mut request = Vec::new();
    for sequence in 0..ATTEMPTS {
        EchoRequest { identifier, sequence, payload: payload.as_bytes() }
            .write(found.family, &mut request);
        let sent = watched.socket_mut().send(&request, loopback, sequence.into());
        sent.map_err(io::Error::other)?;
        let patience = Instant::now() + PATIENCE;
        let mut is_answered = false;
        while !is_answered {
            let take = |socket: &mut EchoSocket| {
                while let Some(arrival) = socket.receive()? {
                    is_answered |= note(found, framing, &payload, &arrival);
                }
                Ok::<_, io::Error>(true)
            };
            match timeout_at(patience, watched.wait(take)).await {
                Ok(taken) => taken??,
                Err(_elapsed) => break,
            }
        }
        if found.has_transmit_stamps && found.has_receive_stamps {
            break;
        }
        sleep_until(patience).await;
    }
    Ok(())
}

/// Notes what one arrival proves; returns whether it is a reply to our requests.
fn note(
    found: &mut Availability,
    framing: Framing,
    payload: &Payload,
    arrival: &Arrival<'_>,
) -> bool {
    match arrival {
        Arrival::Transmitted { .. } => found.has_transmit_stamps = true,
        Arrival::Reported { .. } => {}
        Arrival::Packet { bytes, stamp, .. } => {
            let packet = read_packet(found.family, framing, bytes);
            let message = packet.map(|packet| packet.message);
            if let Ok(Message::EchoReply(reply)) = message
                && payload.returned_by(reply.payload)
            {
                found.is_loopback_answering = true;
                found.has_receive_stamps |= stamp.kernel.is_some();
                return true;
            }
        }
    }
    false
}
