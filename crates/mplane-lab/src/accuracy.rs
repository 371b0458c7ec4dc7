//! How exact labs are on this machine: measured in one.
//!
//! Packets of UDP go from one host to another over a link without delay, then over one
//! with a delay. The log holds when each was to depart and when it did.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use crate::emulator::{monotonic, nanos};
use crate::log::{Fate, Header, Quantiles, ReadLogError, Record, statistics};
use crate::topology::Topology;
use crate::{Lab, StartLabError, StopLabError};

/// Bytes of payload: a number, and enough to look like a measurement.
const PAYLOAD_BYTES: usize = 64;

/// The port that nobody else uses in a lab of its own.
const PORT: u16 = 7;

/// How long packets are sent as fast as they can be.
const FLOOD: Duration = Duration::from_secs(1);

/// Bytes of payload in a flood.
const FLOOD_BYTES: usize = 1000;

/// What is measured, and how.
#[derive(Clone, Copy, Debug)]
pub struct AccuracyOptions {
    /// How many packets.
    pub packets: u32,
    /// The time from one packet to the next.
    pub period: Duration,
    /// Whether the emulator never sleeps.
    pub is_busy: bool,
}

/// How exact a link was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accuracy {
    /// The delay that was asked for.
    pub delay: Duration,
    /// Packets that were delivered.
    pub delivered: u64,
    /// Between the moment of sending and that at which the emulator had the packet, in
    /// nanoseconds: a measurement sees this beyond the delay in the log.
    pub before_ns: Option<Quantiles>,
    /// How much later than intended packets departed, in nanoseconds.
    pub lateness_ns: Option<Quantiles>,
}

/// What one emulator carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Packets in a second that were sent and delivered.
    pub packets_per_s: u64,
    /// Packets that the kernel dropped before the emulator saw them.
    pub unseen: u64,
}

/// Measures links without delay and with `delay`.
pub fn measure(
    options: AccuracyOptions,
    delay: Duration,
) -> Result<Vec<Accuracy>, MeasureAccuracyError> {
    [Duration::ZERO, delay].into_iter().map(|delay| measure_one(options, delay)).collect()
}

/// Measures one link.
fn measure_one(
    options: AccuracyOptions,
    delay: Duration,
) -> Result<Accuracy, MeasureAccuracyError> {
    let lab = Lab::start(&pair(options.is_busy, delay))?;
    let (sender, receiver, target) = sockets(&lab)?;
    let mut sent_ns = Vec::new();
    let start = Instant::now();
    for number in 0..options.packets {
        let due = start + options.period * number;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        sent_ns.push(nanos(monotonic()));
        sender
            .send_to(&[0; PAYLOAD_BYTES], target)
            .map_err(MeasureAccuracyError::Send)?;
    }
    // The last packet has been delivered when it is received.
    receive(&receiver, options.packets);
    let log = lab.log()?;
    let ours: Vec<_> = log.between("a", "b").filter(|record| is_ours(record)).collect();
    let before = ours.iter().zip(&sent_ns);
    let before = before.filter_map(|(record, sent)| record.arrived_ns.checked_sub(*sent));
    let before_ns = Quantiles::of(before.collect());
    let lateness = ours.iter().filter_map(|record| record.lateness_ns());
    let lateness_ns = Quantiles::of(lateness.collect());
    let delivered = ours.iter().filter(|record| record.fate == Fate::Delivered).count();
    lab.stop()?;
    let delivered = u64::try_from(delivered).unwrap_or(u64::MAX);
    Ok(Accuracy { delay, delivered, before_ns, lateness_ns })
}

/// Measures how many packets of 1000 bytes a second pass when they come as fast as one
/// thread can send.
pub fn flood(is_busy: bool) -> Result<Capacity, MeasureAccuracyError> {
    let lab = Lab::start(&pair(is_busy, Duration::ZERO))?;
    let (sender, _receiver, target) = sockets(&lab)?;
    let start = Instant::now();
    while start.elapsed() < FLOOD {
        sender.send_to(&[0; FLOOD_BYTES], target).map_err(MeasureAccuracyError::Send)?;
    }
    let log = lab.log()?;
    let unseen = lab.stop()?.unseen;
    let all = statistics(&log.records);
    let forth = all.get(&(0, false));
    let delivered = forth.and_then(|sums| sums.fates.get(&Fate::Delivered).copied());
    let took_ms = FLOOD.as_millis();
    let per_s = u128::from(delivered.unwrap_or(0)) * 1000 / took_ms;
    Ok(Capacity { packets_per_s: u64::try_from(per_s).unwrap_or(u64::MAX), unseen })
}

/// Two hosts with a link.
fn pair(is_busy: bool, delay: Duration) -> Topology {
    let delay_us = delay.as_micros();
    let text = format!(
        "busy = {is_busy}\nfamilies = [\"ip4\"]\n\
         host = [{{ name = \"a\" }}, {{ name = \"b\" }}]\n\
         link = [{{ between = [\"a\", \"b\"], both = {{ delay = \"{delay_us}us\" }} }}]"
    );
    Topology::parse(&text, "accuracy").expect("the text is a topology")
}

/// Returns a socket that sends, one that receives, and the address of that.
fn sockets(
    lab: &Lab,
) -> Result<(UdpSocket, UdpSocket, SocketAddr), MeasureAccuracyError> {
    let [a, b] = lab.hosts() else { return Err(MeasureAccuracyError::Hosts) };
    let bind = |address: SocketAddr| move || UdpSocket::bind(address);
    let any = IpAddr::from([0, 0, 0, 0]);
    let failed = MeasureAccuracyError::Open;
    let target = SocketAddr::new(b.ip4().ok_or(MeasureAccuracyError::Hosts)?, PORT);
    let sender = a.run(bind((any, 0).into())).and_then(|done| done).map_err(failed)?;
    let receiver =
        b.run(bind((any, PORT).into())).and_then(|done| done).map_err(failed)?;
    receiver.set_read_timeout(Some(FLOOD)).map_err(failed)?;
    Ok((sender, receiver, target))
}

/// Receives as many packets, or until there are no more.
fn receive(socket: &UdpSocket, packets: u32) {
    let mut buffer = [0; PAYLOAD_BYTES];
    for _ in 0..packets {
        if socket.recv(&mut buffer).is_err() {
            return;
        }
    }
}

/// Returns whether a packet is of this measurement.
fn is_ours(record: &Record) -> bool {
    let ports = Header::read(record.head()).and_then(|header| header.ports);
    ports.is_some_and(|[_, destination]| destination == PORT)
}

/// An accuracy that cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureAccuracyError {
    /// There is no lab.
    #[error(transparent)]
    Start(#[from] StartLabError),
    /// It is not the lab that was asked for.
    #[error("the lab has other hosts than it was asked for")]
    Hosts,
    /// There are no sockets.
    #[error("cannot open a socket within the lab")]
    Open(#[source] io::Error),
    /// A packet cannot be sent.
    #[error("cannot send within the lab")]
    Send(#[source] io::Error),
    /// There is no log.
    #[error(transparent)]
    Log(#[from] ReadLogError),
    /// The lab failed.
    #[error(transparent)]
    Stop(#[from] StopLabError),
}
