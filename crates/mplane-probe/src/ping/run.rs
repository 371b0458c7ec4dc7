//! A run of ping: the [`Strategy`] joined to an [`EchoSocket`] on the Tokio runtime.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::echo::{Echo, EchoError, Outcome};
use super::schedule::End;
use super::strategy::{Settings, SettingsError, Strategy, Strays};
use super::summary::{Summary, Summation};
use crate::packet::{
    EchoRequest, Family, MAX_PAYLOAD_BYTES, NONCE_BYTES, Nonce, Payload, Report,
    read_packet, read_quoted_request,
};
use crate::socket::{
    Arrival, EchoSocket, OpenEchoError, SendError, SocketKind, UserClock, WatchedSocket,
};

/// Payload of a request unless told otherwise, in bytes: with its ICMP header 64 bytes,
/// as every ping sends.
pub const DEFAULT_PAYLOAD_BYTES: usize = 56;

/// Largest differentiated services code point (RFC 2474 section 3: six bits).
pub const MAX_DSCP: u8 = 63;

/// How long a reply is waited for unless told otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);

/// Most packets taken from the socket before timers are looked at again.
const MAX_BATCH: usize = 64;

/// Longest single sleep; tells nothing, but is within what any timer can hold.
const MAX_SLEEP: Duration = Duration::from_secs(3600);

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PingOptions {
    /// Whom to send to: a unicast address, not a link-local IPv6 one.
    pub destination: IpAddr,
    /// The address to send from; `None` lets the routes decide.
    pub source: Option<IpAddr>,
    /// Time between requests, at least [`MIN_PERIOD`](super::MIN_PERIOD). The timers
    /// behind it tick at 1 ms.
    pub period: Duration,
    /// When to stop sending.
    pub end: End,
    /// How long to wait for each reply.
    pub timeout: Duration,
    /// Bytes behind the ICMP header, 8 to 65,507.
    pub payload_bytes: usize,
    /// How many hops requests may go; `None` for the system's default.
    pub ttl: Option<u8>,
    /// The differentiated services code point of requests (RFC 2474), 0 to 63.
    pub dscp: u8,
    /// How long to listen for duplicates and late replies once all requests are decided.
    pub linger: Duration,
}

impl PingOptions {
    /// Returns options with the default timeout, payload and hop limit, no particular
    /// service, and an end as soon as all requests are decided.
    pub fn new(destination: IpAddr, period: Duration, end: End) -> Self {
        Self {
            destination,
            source: None,
            period,
            end,
            timeout: DEFAULT_TIMEOUT,
            payload_bytes: DEFAULT_PAYLOAD_BYTES,
            ttl: None,
            dscp: 0,
            linger: Duration::ZERO,
        }
    }
}

/// What a run found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PingReport {
    /// The aggregate of all requests, with how many delays each clock gave.
    pub summary: Summary,
    /// Which socket was used.
    pub socket: SocketKind,
    /// Replies that decided no request: duplicates, late, forged.
    pub strays: Strays,
    /// The interarrival jitter (RFC 3550), `None` of fewer than two replies.
    pub jitter: Option<Duration>,
    /// The error that the last of the failed requests ended with.
    pub problem: Option<EchoError>,
    /// Requests not sent since this process was not scheduled in time.
    pub skipped: u64,
}

/// Why a run could not be made, or not be continued.
#[derive(Debug, thiserror::Error)]
pub enum PingError {
    /// The options contradict each other.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The payload is too short for the nonce or too long for a packet.
    #[error(
        "payload of {bytes} bytes is impossible: choose {NONCE_BYTES} to \
         {MAX_PAYLOAD_BYTES} bytes"
    )]
    Payload {
        /// The length asked for.
        bytes: usize,
    },
    /// The hop limit is zero.
    #[error("a ttl of 0 lets no packet leave: choose 1 to 255")]
    Ttl,
    /// The destination is not one host.
    #[error("{destination} is not the address of one host: choose a unicast address")]
    NotUnicast {
        /// The address asked for.
        destination: IpAddr,
    },
    /// The destination is meaningless without an interface.
    #[error(
        "{destination} is a link-local address, which needs an interface: choose a \
         global or unique local address"
    )]
    LinkLocal {
        /// The address asked for.
        destination: IpAddr,
    },
    /// No ICMP socket.
    #[error(transparent)]
    Open(#[from] OpenEchoError),
    /// The code point does not fit into its six bits.
    #[error("a dscp of {dscp} is impossible: choose 0 to {MAX_DSCP}")]
    Dscp {
        /// The code point asked for.
        dscp: u8,
    },
    /// The code point cannot be set.
    #[error("cannot set a dscp of {dscp}")]
    SetDscp {
        /// The code point asked for.
        dscp: u8,
        /// What the system said.
        source: io::Error,
    },
    /// The hop limit cannot be set.
    #[error("cannot set a ttl of {ttl}")]
    SetTtl {
        /// The hop limit asked for.
        ttl: u8,
        /// What the system said.
        source: io::Error,
    },
    /// The runtime cannot watch the socket.
    #[error("cannot watch the ICMP socket")]
    Watch(#[source] io::Error),
    /// No request to this destination can be sent.
    #[error("cannot send to {destination}")]
    Send {
        /// The destination.
        destination: IpAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The socket gives nothing any more.
    #[error("cannot receive from the ICMP socket")]
    Receive(#[source] io::Error),
}

/// Measures round-trip delay and loss to one destination.
///
/// Sends at once and then every period, at times counted from the start. Calls
/// `on_echo` for each request as soon as it and all before it are decided, in the
/// order of sending. Ends when nothing is left to wait for and `linger` is over; when
/// `stop` is cancelled, sends nothing more and waits at most
/// [`STOP_GRACE`](super::STOP_GRACE). May be
/// dropped at any time. Memory is bounded whatever the length of the run.
///
/// Needs a Tokio runtime with I/O and time. Unreachable destinations and a firewall's
/// refusals are results, not errors. After an error, the requests already given to
/// `on_echo` remain true.
pub async fn run(
    options: PingOptions,
    mut on_echo: impl FnMut(&Echo) + Send,
    stop: CancellationToken,
) -> Result<PingReport, PingError> {
    let mut run = Run::prepare(options)?;
    let mut is_stopping = false;
    let mut linger_end = None;
    loop {
        if !is_stopping && stop.is_cancelled() {
            is_stopping = true;
            run.strategy.stop(run.clock.elapsed());
        }
        // Receive first: a reply that waits in the socket is not late.
        run.receive()?;
        run.strategy.handle_timeout(run.clock.elapsed());
        run.transmit()?;
        while let Some(echo) = run.strategy.poll_echo() {
            run.note(&echo);
            on_echo(&echo);
        }
        if run.strategy.is_finished() {
            let now = run.clock.elapsed();
            let end =
                *linger_end.get_or_insert_with(|| now.saturating_add(options.linger));
            if is_stopping || end <= now {
                return Ok(run.report());
            }
        }
        let wake = run.wake(linger_end);
        tokio::select! {
            () = stop.cancelled(), if !is_stopping => {}
            () = sleep_until(wake) => {}
            taken = run.watched.wait(
                |socket| receive_batch(socket, run.family, &mut run.strategy)
            ) => taken.map_err(PingError::Watch)??,
        }
    }
}

/// A run in progress.
struct Run {
    /// Whom requests go to.
    destination: IpAddr,
    /// Its family.
    family: Family,
    /// What to do.
    strategy: Strategy,
    /// What to do it with.
    watched: WatchedSocket,
    /// The clock of the strategy and of user stamps.
    clock: UserClock,
    /// The payload of all requests.
    payload: Payload,
    /// The request being written.
    request: Vec<u8>,
    /// The aggregate so far.
    summation: Summation,
    /// The latest error.
    problem: Option<EchoError>,
}

impl Run {
    /// Opens the socket and starts the clock.
    fn prepare(options: PingOptions) -> Result<Self, PingError> {
        let PingOptions { destination, source, payload_bytes, ttl, dscp, .. } = options;
        check_destination(destination)?;
        let family = Family::of(destination);
        let payload = Payload::new(Nonce::random(), payload_bytes)
            .ok_or(PingError::Payload { bytes: payload_bytes })?;
        if ttl == Some(0) {
            return Err(PingError::Ttl);
        }
        let mut socket = EchoSocket::open(family, source)?;
        if let Some(ttl) = ttl {
            let set = socket.set_hop_limit(ttl);
            set.map_err(|source| PingError::SetTtl { ttl, source })?;
        }
        if dscp > MAX_DSCP {
            return Err(PingError::Dscp { dscp });
        }
        if dscp > 0 {
            let set = socket.set_dscp(dscp);
            set.map_err(|source| PingError::SetDscp { dscp, source })?;
        }
        socket.expect_payload(payload_bytes);
        let strategy = Strategy::new(Settings {
            destination,
            identifier: socket.identifier(),
            payload: payload.clone(),
            period: options.period,
            end: options.end,
            timeout: options.timeout,
        })?;
        socket.restart_clock();
        let clock = socket.clock();
        Ok(Self {
            destination,
            family,
            strategy,
            watched: WatchedSocket::new(socket).map_err(PingError::Watch)?,
            clock,
            payload,
            request: Vec::new(),
            summation: Summation::default(),
            problem: None,
        })
    }

    /// Takes what has arrived.
    fn receive(&mut self) -> Result<(), PingError> {
        // What is left over still counts as ready, so the next wait ends at once.
        receive_batch(self.watched.socket_mut(), self.family, &mut self.strategy)?;
        Ok(())
    }

    /// Sends what is due.
    fn transmit(&mut self) -> Result<(), PingError> {
        while let Some(transmit) = self.strategy.poll_transmit(self.clock.elapsed()) {
            let socket = self.watched.socket_mut();
            EchoRequest {
                identifier: socket.identifier(),
                sequence: transmit.wire_sequence,
                payload: self.payload.as_bytes(),
            }
            .write(self.family, &mut self.request);
            let sequence = transmit.sequence;
            let stamp = self.clock.read();
            match socket.send(&self.request, self.destination, sequence) {
                Ok(()) => self.strategy.handle_sent(sequence, stamp),
                Err(SendError::Obstacle(obstacle)) => {
                    self.strategy.handle_send_error(sequence, stamp, obstacle);
                }
                Err(SendError::Impossible(source)) => {
                    let destination = self.destination;
                    return Err(PingError::Send { destination, source });
                }
            }
        }
        Ok(())
    }

    /// Adds a decided request to the aggregate.
    fn note(&mut self, echo: &Echo) {
        self.summation.add(echo);
        if let Outcome::Error(error) = echo.outcome {
            self.problem = Some(error);
        }
    }

    /// Returns when to look at the strategy again if nothing arrives. Once all requests
    /// are decided, that is when listening ends.
    fn wake(&self, linger_end: Option<Duration>) -> Instant {
        let latest = Instant::now() + MAX_SLEEP;
        let deadline = linger_end.or_else(|| self.strategy.poll_timeout());
        let wake = deadline.and_then(|deadline| self.clock.instant(deadline));
        wake.map_or(latest, |wake| latest.min(Instant::from_std(wake)))
    }

    /// Returns what the run found.
    fn report(&self) -> PingReport {
        PingReport {
            summary: self.summation.summary(),
            socket: self.watched.socket().kind(),
            strays: self.strategy.strays(),
            jitter: self.strategy.jitter(),
            problem: self.problem,
            skipped: self.strategy.skipped(),
        }
    }
}

/// Takes a limited number of arrivals; returns whether nothing is left.
fn receive_batch(
    socket: &mut EchoSocket,
    family: Family,
    strategy: &mut Strategy,
) -> Result<bool, PingError> {
    let framing = socket.framing();
    for _ in 0..MAX_BATCH {
        match socket.receive().map_err(PingError::Receive)? {
            None => return Ok(true),
            Some(Arrival::Transmitted { label, kernel }) => {
                strategy.handle_transmit_stamp(label, kernel);
            }
            Some(Arrival::Reported { from, problem, quoted }) => {
                if let Some(quoted) = read_quoted_request(family, quoted) {
                    strategy.handle_report(from, Report { problem, quoted });
                }
            }
            Some(Arrival::Packet { bytes, source, hop_limit, stamp }) => {
                // Bytes that are no ICMP message are nobody's reply.
                if let Ok(packet) = read_packet(family, framing, bytes) {
                    let source = packet.source.or(source);
                    let hop_limit = packet.hop_limit.or(hop_limit);
                    strategy.handle_receive(source, hop_limit, &packet.message, stamp);
                }
            }
        }
    }
    Ok(false)
}

/// Refuses destinations that are not one host.
pub(crate) fn check_destination(destination: IpAddr) -> Result<(), PingError> {
    let is_broadcast = destination == IpAddr::V4(Ipv4Addr::BROADCAST);
    if destination.is_unspecified() || destination.is_multicast() || is_broadcast {
        return Err(PingError::NotUnicast { destination });
    }
    match destination {
        IpAddr::V6(address) if address.is_unicast_link_local() => {
            Err(PingError::LinkLocal { destination })
        }
        IpAddr::V4(_) | IpAddr::V6(_) => Ok(()),
    }
}
