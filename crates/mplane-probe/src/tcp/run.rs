//! A run of TCP connections on the Tokio runtime.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use jiff::Timestamp;
use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::attempt::{Attempt, ConnectOutcome, ConnectSummary, ConnectSummation};
use crate::packet::Family;
use crate::ping::{End, PeriodTooShortError, STOP_GRACE, Schedule};
use crate::socket::{UserClock, obstacle};

/// Most attempts under way at a time: each holds a file descriptor, of which a process
/// commonly has 1024.
pub const MAX_CONCURRENT: usize = 256;

/// Longest single sleep; tells nothing, but is within what any timer can hold.
const MAX_SLEEP: Duration = Duration::from_secs(3600);

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectOptions {
    /// Whom to connect to.
    pub destination: SocketAddr,
    /// The address to connect from; `None` lets the routes decide.
    pub source: Option<IpAddr>,
    /// Time between attempts, at least [`MIN_PERIOD`](crate::ping::MIN_PERIOD).
    pub period: Duration,
    /// When to stop.
    pub end: End,
    /// How long to wait for each connection. A SYN lost on the way is sent again by the
    /// kernel after about a second, which a longer timeout then measures.
    pub timeout: Duration,
}

/// What a run found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectReport {
    /// The aggregate of all attempts.
    pub summary: ConnectSummary,
    /// Attempts not made since this process was not scheduled in time.
    pub skipped: u64,
}

/// Why a run could not be made, or not be continued.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The period is too short.
    #[error(transparent)]
    Period(#[from] PeriodTooShortError),
    /// Too many attempts would be under way at the same time.
    #[error(
        "a timeout of {timeout:?} with a period of {period:?} leaves more than \
         {MAX_CONCURRENT} connections open: choose a longer period or a shorter timeout"
    )]
    TooManyConcurrent {
        /// The timeout asked for.
        timeout: Duration,
        /// The period asked for.
        period: Duration,
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
    #[error("cannot connect from {source_address}: choose an address of this machine")]
    Source {
        /// The address asked for.
        source_address: IpAddr,
        /// What the system said.
        source: io::Error,
    },
    /// No attempt to this destination can be made.
    #[error("cannot connect to {destination}")]
    Connect {
        /// The destination.
        destination: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// Measures how long TCP connections to one destination take.
///
/// Connects at once and then every period, at times counted from the start. Calls
/// `on_connect` for each attempt as soon as it and all before it are decided, in the
/// order of sending. Ends when nothing is left to wait for; when `stop` is cancelled,
/// attempts nothing more and waits at most [`STOP_GRACE`]. May be dropped at any time.
///
/// Connections are closed at once, by a reset instead of the usual exchange
/// (`SO_LINGER` of zero): otherwise each would occupy a port of this machine for a
/// minute (`TIME_WAIT`), and frequent attempts would run out of ports and measure
/// that. Some servers log these resets.
///
/// Needs a Tokio runtime with I/O and time.
pub async fn run(
    options: ConnectOptions,
    mut on_connect: impl FnMut(&Attempt) + Send,
    stop: CancellationToken,
) -> Result<ConnectReport, ConnectError> {
    let mut run = Run::prepare(options)?;
    let mut is_stopping = false;
    loop {
        if !is_stopping && stop.is_cancelled() {
            is_stopping = true;
            run.stop();
        }
        run.start_due()?;
        run.end_grace();
        while let Some(attempt) = run.next_decided() {
            run.summation.add(&attempt);
            on_connect(&attempt);
        }
        if run.is_finished() {
            let summary = run.summation.summary();
            return Ok(ConnectReport { summary, skipped: run.schedule.skipped() });
        }
        let wake = run.wake();
        tokio::select! {
            () = stop.cancelled(), if !is_stopping => {}
            () = sleep_until(wake) => {}
            Some(ended) = run.under_way.join_next() => run.note(ended)?,
        }
    }
}

/// A run in progress.
struct Run {
    /// What is measured.
    options: ConnectOptions,
    /// When to attempt.
    schedule: Schedule,
    /// The clock of the schedule and of delays.
    clock: UserClock,
    /// Number of the first attempt in `window`.
    first: u64,
    /// All attempts from the oldest not yet reported on: when they were begun, and
    /// what became of them.
    window: VecDeque<(Timestamp, Option<ConnectOutcome>)>,
    /// The attempts not yet decided, by number.
    under_way: JoinSet<(u64, io::Result<ConnectOutcome>)>,
    /// The aggregate so far.
    summation: ConnectSummation,
    /// When an interrupted run gives up waiting.
    grace_end: Option<Duration>,
}

impl Run {
    /// Checks the options and starts the clock.
    fn prepare(options: ConnectOptions) -> Result<Self, ConnectError> {
        let ConnectOptions { destination, source, period, end, timeout } = options;
        let schedule = Schedule::new(period, end)?;
        if timeout.as_nanos() / period.as_nanos() >= MAX_CONCURRENT as u128 {
            return Err(ConnectError::TooManyConcurrent { timeout, period });
        }
        let family = Family::of(destination.ip());
        if let Some(source_address) = source {
            if Family::of(source_address) != family {
                return Err(ConnectError::SourceFamily { source_address, family });
            }
            // Once before the start: an address that is not ours is a mistake, while
            // one that goes away during the run is an observation.
            open_socket(destination, source)
                .map_err(|source| ConnectError::Source { source_address, source })?;
        }
        Ok(Self {
            options,
            schedule,
            clock: UserClock::start(),
            first: 0,
            window: VecDeque::new(),
            under_way: JoinSet::new(),
            summation: ConnectSummation::default(),
            grace_end: None,
        })
    }

    /// Begins the attempts that are due.
    fn start_due(&mut self) -> Result<(), ConnectError> {
        while self.window.len() < MAX_CONCURRENT
            && self.schedule.take(self.clock.elapsed()).is_some()
        {
            let sequence = self.first + self.window.len() as u64;
            let begun = self.clock.read();
            let outcome = match self.begin() {
                Ok(stream) => {
                    let clock = self.clock;
                    let timeout = self.options.timeout;
                    self.under_way.spawn(async move {
                        let outcome = finish(&stream, clock, begun.monotonic, timeout);
                        (sequence, outcome.await)
                    });
                    None
                }
                Err(error) => {
                    let delay = self.clock.elapsed().saturating_sub(begun.monotonic);
                    Some(self.classify(error, delay)?)
                }
            };
            self.window.push_back((begun.utc, outcome));
        }
        Ok(())
    }

    /// Begins one attempt.
    fn begin(&self) -> io::Result<TcpStream> {
        let socket = open_socket(self.options.destination, self.options.source)?;
        match socket.connect(&self.options.destination.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => {}
            Err(error) => return Err(error),
        }
        TcpStream::from_std(socket.into())
    }

    /// Takes note of how an attempt ended.
    fn note(
        &mut self,
        ended: Result<(u64, io::Result<ConnectOutcome>), JoinError>,
    ) -> Result<(), ConnectError> {
        let (sequence, outcome) = match ended {
            Ok(ended) => ended,
            Err(error) if error.is_panic() => {
                std::panic::resume_unwind(error.into_panic())
            }
            Err(_aborted) => return Ok(()),
        };
        let outcome = match outcome {
            Ok(outcome) => outcome,
            // The errors of `finish` are from the runtime and never a refusal.
            Err(error) => self.classify(error, Duration::ZERO)?,
        };
        let at = usize::try_from(sequence - self.first)
            .expect("the window is far shorter than the address space");
        if let Some((_, decided)) = self.window.get_mut(at) {
            *decided = Some(outcome);
        }
        Ok(())
    }

    /// Returns the outcome an error means, or that the run is pointless.
    fn classify(
        &self,
        error: io::Error,
        delay: Duration,
    ) -> Result<ConnectOutcome, ConnectError> {
        let destination = self.options.destination;
        classify(&error, delay)
            .ok_or(ConnectError::Connect { destination, source: error })
    }

    /// Returns the next decided attempt, in the order of sending.
    fn next_decided(&mut self) -> Option<Attempt> {
        let (sent_utc, outcome) = *self.window.front()?;
        let outcome = outcome?;
        self.window.pop_front();
        let sequence = self.first;
        self.first += 1;
        Some(Attempt { sequence, sent_utc, outcome })
    }

    /// Attempts nothing more, and waits for a short grace.
    fn stop(&mut self) {
        self.schedule.stop();
        self.grace_end = Some(self.clock.elapsed() + STOP_GRACE);
    }

    /// Gives up what is undecided when the grace of an interrupted run is over.
    fn end_grace(&mut self) {
        if self.grace_end.is_some_and(|end| end <= self.clock.elapsed()) {
            self.under_way.abort_all();
            for (_, outcome) in &mut self.window {
                outcome.get_or_insert(ConnectOutcome::Pending);
            }
        }
    }

    /// Returns whether nothing is left to attempt, to wait for or to report.
    fn is_finished(&self) -> bool {
        self.schedule.due().is_none() && self.window.is_empty()
    }

    /// Returns when to look again if no attempt ends.
    fn wake(&self) -> Instant {
        let can_start = self.window.len() < MAX_CONCURRENT;
        let due = self.schedule.due().filter(|_| can_start);
        let wake = [due, self.grace_end].into_iter().flatten().min();
        let wake = wake.and_then(|wake| self.clock.instant(wake));
        let latest = Instant::now() + MAX_SLEEP;
        wake.map_or(latest, |wake| latest.min(Instant::from_std(wake)))
    }
}

/// Opens a non-blocking socket that will be closed by a reset.
fn open_socket(destination: SocketAddr, source: Option<IpAddr>) -> io::Result<Socket> {
    let domain = Domain::for_address(destination);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_linger(Some(Duration::ZERO))?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    Ok(socket)
}

/// Waits for the end of an attempt begun at `begun`.
async fn finish(
    stream: &TcpStream,
    clock: UserClock,
    begun: Duration,
    timeout: Duration,
) -> io::Result<ConnectOutcome> {
    let deadline =
        begun.checked_add(timeout).and_then(|deadline| clock.instant(deadline));
    let writable = stream.writable();
    let waited = match deadline {
        Some(deadline) => timeout_at(Instant::from_std(deadline), writable).await,
        None => Ok(writable.await),
    };
    let delay = clock.elapsed().saturating_sub(begun);
    let Ok(writable) = waited else {
        return Ok(ConnectOutcome::Timeout);
    };
    writable?;
    // By the delay, not by whether the runtime looked at the timer or the socket first.
    if delay > timeout {
        return Ok(ConnectOutcome::Timeout);
    }
    match stream.take_error()? {
        None => Ok(ConnectOutcome::Connected { delay }),
        Some(error) => classify(&error, delay).ok_or(error),
    }
}

/// Returns the outcome an error of connecting means; `None` if all attempts will fail
/// like this.
fn classify(error: &io::Error, delay: Duration) -> Option<ConnectOutcome> {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Some(ConnectOutcome::Refused { delay }),
        io::ErrorKind::TimedOut => Some(ConnectOutcome::Timeout),
        _ => obstacle(error).map(ConnectOutcome::Unreachable),
    }
}
