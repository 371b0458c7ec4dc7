//! The thread that takes packets from devices and hands them on when it is time.
//!
//! One thread serves all links, so that packets that meet have an order. It decides by
//! [`crate::emulate`], sleeps until the next departure or arrival, and wakes up a little
//! early to depart on time. It tries to run with real-time priority.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::io;
use std::net::Ipv6Addr;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::time::{ClockId, clock_gettime};
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};
use tun_rs::SyncDevice;

use crate::emulate::{Direction, Reason, Verdict};
use crate::log::{Entry, Fate, HEAD_BYTES, Record};
use crate::topology::Topology;

/// How long before a departure the thread wakes up: what a sleep takes longer than asked
/// for nearly always, with real-time priority.
const EARLY: Duration = Duration::from_micros(60);

/// Packets that are read from a device before others have their turn.
const TURN: usize = 32;

/// Bytes of packets that are on their way at most: 2 s of 1 Gbit/s. Beyond it packets are
/// dropped, and the log says so.
const IN_FLIGHT_BYTES: usize = 256 << 20;

/// What a packet costs besides its bytes, about.
const OVERHEAD_BYTES: usize = 256;

/// The longest IP packet.
const PACKET_BYTES: usize = 65_535;

/// Records that go to the log together.
const BATCH: usize = 1024;

/// Pauses shorter than this are not used to hand records to the log.
const QUIET: Duration = Duration::from_millis(1);

/// The lowest real-time priority is above everything that has none.
const PRIORITY: u32 = 1;

/// Returns the monotonic clock.
pub(crate) fn monotonic() -> Duration {
    since_zero(ClockId::Monotonic)
}

/// Returns UTC, since 1970.
pub(crate) fn utc() -> Duration {
    since_zero(ClockId::Realtime)
}

/// Returns a clock that is not negative.
fn since_zero(clock: ClockId) -> Duration {
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
}

/// Returns nanoseconds; 64 bits last for 584 years.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What the thread is told.
enum Command {
    /// All records so far are to be in the file; answered when they are.
    Flush(Sender<()>),
    /// It is to end.
    Stop,
}

/// The running emulator.
#[derive(Debug)]
pub(crate) struct Emulator {
    commands: Sender<Command>,
    /// Written to when there is a command.
    wake: OwnedFd,
    thread: JoinHandle<io::Result<()>>,
    /// Whether it has real-time priority.
    pub(crate) is_realtime: bool,
}

impl Emulator {
    /// Starts to pass packets on. `devices` are those of the ends of each link.
    pub(crate) fn start(
        topology: &Topology,
        devices: Vec<[SyncDevice; 2]>,
        started: Duration,
        log: Option<Sender<Entry>>,
    ) -> io::Result<Self> {
        let directions = topology.links.iter().zip(0..).flat_map(|(link, number)| {
            let [one, two] = &link.shapes;
            let [forth, back] = &link.changes;
            let new = |shape: &crate::emulate::Shape, changes: &Vec<_>, number| {
                Direction::new(shape.clone(), changes.clone(), topology.seed, number)
            };
            [new(one, forth, 2 * number), new(two, back, 2 * number + 1)]
        });
        let (woken, wake) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let (commands, receiver) = channel();
        let (report, priority) = channel();
        let work = Work {
            directions: directions.map(|direction| (direction, 0)).collect(),
            devices: devices.into_iter().flatten().collect(),
            started,
            is_busy: topology.is_busy,
            log,
            records: Vec::new(),
            pending: BinaryHeap::new(),
            in_flight_bytes: 0,
            order: 0,
            spare: Vec::new(),
        };
        let thread = std::thread::Builder::new().name("lab-links".to_owned()).spawn(
            move || {
                // The other end waits for it.
                let _ = report.send(prepare_thread(work.is_busy));
                work.run(&receiver, &woken)
            },
        )?;
        let is_realtime = priority.recv().unwrap_or(false);
        Ok(Self { commands, wake, thread, is_realtime })
    }

    /// Waits until everything that has departed is in the log.
    pub(crate) fn flush(&self) {
        let (done, answer) = channel();
        self.tell(Command::Flush(done));
        // If the thread has ended, its end tells why.
        let _ = answer.recv();
    }

    /// Ends it. What is on its way is logged as unfinished.
    pub(crate) fn stop(self) -> io::Result<()> {
        self.tell(Command::Stop);
        self.thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the emulator panicked")))
    }

    /// Returns whether it has ended by itself, which it never should.
    pub(crate) fn has_failed(&self) -> bool {
        self.thread.is_finished()
    }

    /// Tells the thread something.
    fn tell(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            // A full pipe wakes it up as well.
            let _ = rustix::io::write(&self.wake, &[0]);
        }
    }
}

/// Returns whether a packet is one by which the kernel tells its neighbours about IPv6:
/// multicast reports to `ff02::16` (RFC 9777), and router solicitations to `ff02::2`
/// (RFC 4861). Links do not carry them: they come when they like, and the fates of what is
/// measured depend on how many packets came before.
fn is_housekeeping(packet: &[u8]) -> bool {
    let destination = packet.get(24..40).and_then(|octets| octets.first_chunk::<16>());
    let is_ip6 = packet.first().is_some_and(|first| first >> 4 == 6);
    is_ip6
        && destination.is_some_and(|octets| {
            let group = Ipv6Addr::from_octets(*octets);
            group == MULTICAST_LISTENERS || group == ALL_ROUTERS
        })
}

/// All routers that understand version 2 of Multicast Listener Discovery.
const MULTICAST_LISTENERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);

/// All routers on the link.
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// Makes the calling thread punctual as far as it may be. Returns whether it has
/// real-time priority.
///
/// One that never sleeps has none: it would leave nothing to others on its processor.
fn prepare_thread(is_busy: bool) -> bool {
    if let Err(error) = rustix::thread::set_current_timer_slack(NonZeroU64::new(1)) {
        tracing::debug!(%error, "cannot make timers exact");
    }
    if is_busy {
        return false;
    }
    let priority = ThreadPriority::Crossplatform(
        u8::try_from(PRIORITY)
            .ok()
            .and_then(|priority| priority.try_into().ok())
            .unwrap_or_default(),
    );
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    set_thread_priority_and_policy(thread_native_id(), priority, policy).is_ok()
}

/// A packet on its way.
#[derive(Debug)]
struct Pending {
    at: Duration,
    /// The place among departures of the same time.
    order: u64,
    direction: usize,
    packet: Vec<u8>,
    record: Box<Record>,
}

impl Pending {
    /// Returns what the order depends on: departures, then arrivals.
    fn key(&self) -> (Duration, u64) {
        (self.at, self.order)
    }
}

impl PartialEq for Pending {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Pending {}

impl PartialOrd for Pending {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Pending {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

/// The state of the thread.
struct Work {
    /// All directions and how many packets each has seen: of link `n`, `2n` is forth and
    /// `2n + 1` back.
    directions: Vec<(Direction, u64)>,
    /// All devices: packets of direction `d` come from device `d` and go to `d ^ 1`.
    devices: Vec<SyncDevice>,
    started: Duration,
    is_busy: bool,
    log: Option<Sender<Entry>>,
    /// What is not yet handed to the log.
    records: Vec<Record>,
    pending: BinaryHeap<Reverse<Pending>>,
    in_flight_bytes: usize,
    /// How many departures have been planned.
    order: u64,
    /// Memory of packets that have departed.
    spare: Vec<Vec<u8>>,
}

impl Work {
    /// Passes packets on until it is told to stop.
    fn run(mut self, commands: &Receiver<Command>, woken: &OwnedFd) -> io::Result<()> {
        let devices = std::mem::take(&mut self.devices);
        let mut ends: Vec<_> =
            devices.iter().map(|device| PollFd::new(device, PollFlags::IN)).collect();
        ends.push(PollFd::from_borrowed_fd(woken.as_fd(), PollFlags::IN));
        let mut buffer = vec![0; PACKET_BYTES];
        loop {
            self.depart(&devices);
            self.wait(&mut ends)?;
            for index in 0..devices.len() {
                if ends.get(index).is_some_and(|end| !end.revents().is_empty()) {
                    self.take(index, &devices, &mut buffer);
                }
            }
            let is_told = ends.last().is_some_and(|end| !end.revents().is_empty());
            if is_told && !self.obey(commands, woken) {
                return Ok(());
            }
        }
    }

    /// Hands over what is due.
    fn depart(&mut self, devices: &[SyncDevice]) {
        while let Some(Reverse(first)) = self.pending.peek() {
            let now = monotonic();
            if first.at > now {
                return;
            }
            let Some(Reverse(due)) = self.pending.pop() else { return };
            let mut record = *due.record;
            let device = devices.get(due.direction ^ 1);
            match device.map(|device| device.send(&due.packet)) {
                Some(Ok(_)) => record.departed_ns = Some(nanos(now)),
                Some(Err(_)) | None => record.fate = Fate::Refused,
            }
            self.in_flight_bytes -= due.packet.capacity() + OVERHEAD_BYTES;
            if self.spare.len() < BATCH {
                self.spare.push(due.packet);
            }
            self.note(record);
        }
    }

    /// Waits for packets, commands and the time of the next departure.
    fn wait(&mut self, ends: &mut [PollFd<'_>]) -> io::Result<()> {
        let next = self.pending.peek().map(|Reverse(first)| first.at);
        let pause = next.map(|at| at.saturating_sub(monotonic()).saturating_sub(EARLY));
        if pause.is_none_or(|pause| pause > QUIET) {
            self.hand_over();
        }
        let pause = if self.is_busy { Some(Duration::ZERO) } else { pause };
        let timeout = pause.map(|pause| Timespec::try_from(pause).unwrap_or_default());
        match poll(ends, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes packets from a device and decides what becomes of them.
    fn take(&mut self, index: usize, devices: &[SyncDevice], buffer: &mut [u8]) {
        let Some(device) = devices.get(index) else { return };
        for _ in 0..TURN {
            let Ok(length) = device.recv(buffer) else { return };
            let (now, now_utc) = (monotonic(), utc());
            if let Some(packet) = buffer.get(..length)
                && !is_housekeeping(packet)
            {
                self.accept(index, packet, now, now_utc);
            }
            self.depart(devices);
        }
    }

    /// Decides what becomes of a packet.
    fn accept(&mut self, index: usize, packet: &[u8], now: Duration, now_utc: Duration) {
        let Some((direction, seen)) = self.directions.get_mut(index) else { return };
        let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        let verdict = direction.accept(length, now.saturating_sub(self.started));
        let mut head = [0; HEAD_BYTES];
        for (place, byte) in head.iter_mut().zip(packet) {
            *place = *byte;
        }
        let mut record = Record {
            fate: Fate::Delivered,
            is_copy: false,
            is_held: false,
            is_back: index % 2 == 1,
            link: u16::try_from(index / 2).unwrap_or(u16::MAX),
            length,
            sequence: *seen,
            arrived_ns: nanos(now),
            arrived_utc_ns: nanos(now_utc),
            intended_ns: None,
            departed_ns: None,
            head_length: u8::try_from(packet.len().min(HEAD_BYTES)).unwrap_or(u8::MAX),
            head,
        };
        *seen += 1;
        match verdict {
            Verdict::Dropped(reason) => {
                record.fate = match reason {
                    Reason::Random => Fate::LostRandom,
                    Reason::Burst => Fate::LostBurst,
                    Reason::QueueFull => Fate::DroppedQueue,
                    Reason::TooLong => Fate::DroppedSize,
                };
                self.note(record);
            }
            Verdict::Passed { at, is_held, is_duplicated } => {
                let at = self.started + at;
                record.is_held = is_held;
                record.intended_ns = Some(nanos(at));
                let copy = Record { is_copy: true, ..record.clone() };
                self.plan(index, at, packet, record);
                if is_duplicated {
                    self.plan(index, at, packet, copy);
                }
            }
        }
    }

    /// Plans a departure.
    fn plan(&mut self, direction: usize, at: Duration, packet: &[u8], record: Record) {
        if self.in_flight_bytes > IN_FLIGHT_BYTES {
            let fate = Fate::DroppedMemory;
            self.note(Record { fate, intended_ns: None, ..record });
            return;
        }
        let mut kept = self.spare.pop().unwrap_or_default();
        kept.clear();
        kept.extend_from_slice(packet);
        self.in_flight_bytes += kept.capacity() + OVERHEAD_BYTES;
        self.order += 1;
        let record = Box::new(record);
        let (order, packet) = (self.order, kept);
        self.pending.push(Reverse(Pending { at, order, direction, packet, record }));
    }

    /// Keeps a record for the log.
    fn note(&mut self, record: Record) {
        if self.log.is_some() {
            self.records.push(record);
            if self.records.len() >= BATCH {
                self.hand_over();
            }
        }
    }

    /// Hands records to the log.
    fn hand_over(&mut self) {
        if let Some(log) = &self.log
            && !self.records.is_empty()
        {
            let batch = std::mem::replace(&mut self.records, Vec::with_capacity(BATCH));
            if log.send(Entry::Records(batch)).is_err() {
                // The writer has failed, and says so at the end.
                self.log = None;
            }
        }
    }

    /// Does what it was told. Returns false if it is to end.
    fn obey(&mut self, commands: &Receiver<Command>, woken: &OwnedFd) -> bool {
        let mut ignored = [0_u8; 64];
        let _ = rustix::io::read(woken, &mut ignored);
        while let Ok(command) = commands.try_recv() {
            match command {
                Command::Flush(done) => {
                    self.hand_over();
                    // Who asked may have gone.
                    let _ = match &self.log {
                        Some(log) => log.send(Entry::Flush(done)).is_ok(),
                        None => done.send(()).is_ok(),
                    };
                }
                Command::Stop => {
                    while let Some(Reverse(pending)) = self.pending.pop() {
                        self.note(Record { fate: Fate::Unfinished, ..*pending.record });
                    }
                    self.hand_over();
                    return false;
                }
            }
        }
        true
    }
}
