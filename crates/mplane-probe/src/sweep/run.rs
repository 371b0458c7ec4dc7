//! A run of a sweep: the [`Strategy`] joined to an [`EchoSocket`] on the Tokio runtime.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::cookie::{COOKIE_BYTES, CookieKey};
use super::state::TargetReport;
use super::strategy::{MAX_COUNT, Settings, Strategy, Strays};
use super::targets::Targets;
use crate::packet::{
    EchoRequest, Family, MAX_PAYLOAD_BYTES, Report, read_packet, read_quoted_request,
};
use crate::ping::{DEFAULT_PAYLOAD_BYTES, DEFAULT_TIMEOUT, MAX_DSCP};
use crate::socket::{
    Arrival, EchoSocket, OpenEchoError, SendError, SocketKind, UserClock, WatchedSocket,
};

/// Packets a second unless told otherwise: 7 Mbit/s of short packets, and less than any
/// network of today notices.
pub const DEFAULT_RATE: u32 = 10_000;

/// Most packets a second that may be asked for: beyond what a machine sends.
pub const MAX_RATE: u32 = 1_000_000;

/// Most packets sent before the socket is looked at again. Their replies fit into any
/// receive buffer.
const BURST: usize = 32;

/// Most packets taken from the socket before sending goes on.
const MAX_BATCH: usize = 256;

/// How long other tasks of this thread wait at most while a sweep is busy.
const STINT: Duration = Duration::from_millis(1);

/// Longest single sleep; tells nothing, but is within what any timer can hold.
const MAX_SLEEP: Duration = Duration::from_secs(3600);

/// What to measure.
#[derive(Debug, Clone)]
pub struct SweepOptions {
    /// Whom to ask.
    pub targets: Targets,
    /// The address to send from; `None` lets the routes decide.
    pub source: Option<IpAddr>,
    /// Requests to each target, 1 to [`MAX_COUNT`].
    pub count: u8,
    /// Packets a second, 1 to [`MAX_RATE`].
    pub rate: u32,
    /// When to stop sending; `None` when all is sent.
    pub end: Option<Duration>,
    /// Bytes behind the ICMP header, 16 to 65,507.
    pub payload_bytes: usize,
    /// How many hops requests may go; `None` for the system's default.
    pub ttl: Option<u8>,
    /// The differentiated services code point of requests, 0 to 63.
    pub dscp: u8,
}

impl SweepOptions {
    /// Returns options for one request to each target, at the default rate.
    pub fn new(targets: Targets) -> Self {
        Self {
            targets,
            source: None,
            count: 1,
            rate: DEFAULT_RATE,
            end: None,
            payload_bytes: DEFAULT_PAYLOAD_BYTES,
            ttl: None,
            dscp: 0,
        }
    }
}

/// What a sweep found.
#[derive(Debug, Clone)]
pub struct SweepReport {
    /// The targets that were asked, in their order.
    pub targets: Vec<TargetReport>,
    /// Which socket was used.
    pub socket: SocketKind,
    /// What came besides first replies in time.
    pub strays: Strays,
    /// Delays from stamps of the kernel.
    pub kernel_stamped: u64,
    /// Delays from the clock of this process.
    pub user_stamped: u64,
    /// Requests sent again since this machine had dropped packets; each counts once.
    pub repeated: u64,
}

/// Why a sweep could not be made, or not be continued.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// An option is out of its bounds.
    #[error("{what} of {number} is impossible: choose {low} to {high}")]
    Option {
        /// Which it is.
        what: &'static str,
        /// What was asked for.
        number: u64,
        /// The least there can be.
        low: u64,
        /// The most there can be.
        high: u64,
    },
    /// No ICMP socket.
    #[error(transparent)]
    Open(#[from] OpenEchoError),
    /// The socket cannot be set up.
    #[error("cannot set {what}")]
    Set {
        /// What was to be set.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The runtime cannot watch the socket.
    #[error("cannot watch the ICMP socket")]
    Watch(#[source] io::Error),
    /// No request can be sent.
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

/// Asks all targets for an echo.
///
/// Ends when nothing is left to wait for; when `stop` is cancelled, sends nothing more and
/// waits at most [`STOP_GRACE`](crate::ping::STOP_GRACE). May be dropped at any time. Takes
/// some 300 bytes of memory for each target.
///
/// Needs a Tokio runtime with I/O and time. Targets that cannot be reached are results, not
/// errors.
pub async fn run(
    options: SweepOptions,
    stop: CancellationToken,
) -> Result<SweepReport, SweepError> {
    let mut run = Run::prepare(options)?;
    let mut is_stopping = false;
    let mut stint_end = STINT;
    loop {
        if !is_stopping && stop.is_cancelled() {
            is_stopping = true;
            run.strategy.stop(run.clock.elapsed());
        }
        // Receive first: a reply that waits in the socket is not late.
        let is_drained = run.receive()?;
        let now = run.clock.elapsed();
        if is_drained {
            run.strategy.handle_timeout(now);
        }
        run.transmit()?;
        if run.strategy.is_finished() {
            return Ok(run.report());
        }
        let is_due = run.strategy.poll_timeout().is_some_and(|deadline| deadline <= now);
        if is_due || !is_drained {
            if now >= stint_end {
                tokio::task::yield_now().await;
                stint_end = run.clock.elapsed() + STINT;
            }
            continue;
        }
        let wake = run.wake();
        tokio::select! {
            () = stop.cancelled(), if !is_stopping => {}
            () = sleep_until(wake) => {}
            taken = run.watched.wait(
                |socket| receive_batch(socket, run.family, run.clock, &mut run.strategy)
            ) => taken.map_err(SweepError::Watch)??,
        }
    }
}

/// A sweep in progress.
struct Run {
    /// The family of its targets.
    family: Family,
    /// What to do.
    strategy: Strategy,
    /// What to do it with.
    watched: WatchedSocket,
    /// The clock of the strategy and of user stamps.
    clock: UserClock,
    /// What proves that replies are to our requests.
    key: CookieKey,
    /// The payload of requests, of which the start differs.
    payload: Vec<u8>,
    /// The request being written.
    request: Vec<u8>,
}

impl Run {
    /// Opens the socket and starts the clock.
    fn prepare(options: SweepOptions) -> Result<Self, SweepError> {
        let SweepOptions { targets, payload_bytes, ttl, dscp, count, rate, .. } = options;
        check("a payload in bytes", payload_bytes, COOKIE_BYTES, MAX_PAYLOAD_BYTES)?;
        check("a count", count, 1, MAX_COUNT)?;
        check("a rate", rate, 1, MAX_RATE)?;
        check("a dscp", dscp, 0, MAX_DSCP)?;
        check("a ttl", ttl.unwrap_or(1), 1, u8::MAX)?;
        let family = targets.family();
        let mut socket = EchoSocket::open(family, options.source)?;
        let set = |what| move |source| SweepError::Set { what, source };
        if let Some(ttl) = ttl {
            socket.set_hop_limit(ttl).map_err(set("the ttl"))?;
        }
        if dscp > 0 {
            socket.set_dscp(dscp).map_err(set("the dscp"))?;
        }
        socket.expect_payload(payload_bytes);
        socket.expect_many();
        let key = CookieKey::random();
        let strategy = Strategy::new(Settings {
            targets,
            identifier: socket.identifier(),
            key: key.clone(),
            payload_bytes,
            count,
            rate,
            timeout: DEFAULT_TIMEOUT,
            end: options.end,
        });
        socket.restart_clock();
        let clock = socket.clock();
        Ok(Self {
            family,
            strategy,
            watched: WatchedSocket::new(socket).map_err(SweepError::Watch)?,
            clock,
            key,
            // Counting bytes, so that a link that corrupts or compresses shows.
            payload: (0..=u8::MAX).cycle().take(payload_bytes).collect(),
            request: Vec::new(),
        })
    }

    /// Takes what has arrived; returns whether nothing is left.
    fn receive(&mut self) -> Result<bool, SweepError> {
        let socket = self.watched.socket_mut();
        receive_batch(socket, self.family, self.clock, &mut self.strategy)
    }

    /// Sends what is due, as far as its replies find room.
    fn transmit(&mut self) -> Result<(), SweepError> {
        for _ in 0..BURST {
            let now = self.clock.elapsed();
            let Some(transmit) = self.strategy.poll_transmit(now) else { break };
            if let Some(start) = self.payload.first_chunk_mut() {
                *start = self.key.write(transmit.mark);
            }
            let socket = self.watched.socket_mut();
            EchoRequest {
                identifier: socket.identifier(),
                sequence: transmit.wire_sequence,
                payload: &self.payload,
            }
            .write(self.family, &mut self.request);
            let stamp = self.clock.read();
            let destination = transmit.destination;
            match socket.send(&self.request, destination, transmit.number) {
                Ok(()) => self.strategy.handle_sent(stamp),
                Err(SendError::Obstacle(obstacle)) => {
                    self.strategy.handle_send_error(stamp.monotonic, obstacle);
                }
                Err(SendError::Impossible(source)) => {
                    return Err(SweepError::Send { destination, source });
                }
            }
        }
        Ok(())
    }

    /// Returns when to look at the strategy again if nothing arrives.
    fn wake(&self) -> Instant {
        let latest = Instant::now() + MAX_SLEEP;
        let deadline = self.strategy.poll_timeout();
        let wake = deadline.and_then(|deadline| self.clock.instant(deadline));
        wake.map_or(latest, |wake| latest.min(Instant::from_std(wake)))
    }

    /// Returns what the sweep found.
    fn report(&self) -> SweepReport {
        let [kernel_stamped, user_stamped] = self.strategy.stamped();
        SweepReport {
            targets: self.strategy.reports().collect(),
            socket: self.watched.socket().kind(),
            strays: self.strategy.strays(),
            kernel_stamped,
            user_stamped,
            repeated: self.strategy.repeated(),
        }
    }
}

/// Takes a limited number of arrivals; returns whether nothing is left.
fn receive_batch(
    socket: &mut EchoSocket,
    family: Family,
    clock: UserClock,
    strategy: &mut Strategy,
) -> Result<bool, SweepError> {
    let framing = socket.framing();
    let dropped = socket.dropped();
    let mut is_drained = false;
    for _ in 0..MAX_BATCH {
        match socket.receive().map_err(SweepError::Receive)? {
            None => {
                is_drained = true;
                break;
            }
            Some(Arrival::Transmitted { label, kernel }) => {
                strategy.handle_transmit_stamp(label, kernel);
            }
            Some(Arrival::Reported { from, problem, quoted }) => {
                if let Some(quoted) = read_quoted_request(family, quoted) {
                    strategy.handle_report(from, Report { problem, quoted });
                }
            }
            Some(Arrival::Packet { bytes, source, stamp, .. }) => {
                if let Ok(packet) = read_packet(family, framing, bytes) {
                    let source = packet.source.or(source);
                    strategy.handle_receive(source, &packet.message, stamp);
                }
            }
        }
    }
    if socket.dropped() != dropped {
        strategy.handle_overflow(clock.elapsed());
    }
    Ok(is_drained)
}

/// Checks that a number is within its bounds.
fn check<T: PartialOrd + TryInto<u64>>(
    what: &'static str,
    number: T,
    low: T,
    high: T,
) -> Result<(), SweepError> {
    if (&low..=&high).contains(&&number) {
        return Ok(());
    }
    let [number, low, high] =
        [number, low, high].map(|it| it.try_into().unwrap_or(u64::MAX));
    Err(SweepError::Option { what, number, low, high })
}
