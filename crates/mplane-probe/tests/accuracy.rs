//! Measurements in labs, compared with the packet log, which says what truly became of every
//! packet, and with a capture at the far end of a veth pair.
//!
//! Counts are compared exactly. Delays have on top of those of the log what the log does not
//! see: the time until the emulator wakes up and reads the request (docs/lab.md). Needs the
//! right to make labs; one runs at a time, so that none delays another.

mod support;

use std::collections::BTreeMap;
use std::io::{IoSliceMut, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mplane_lab::log::{Fate, Header, Log, Record};
use mplane_lab::topology::Topology;
use mplane_lab::{Lab, is_privileged};
use mplane_probe::packet::Family;
use mplane_probe::ping::{self, Echo, End, Outcome, PingOptions, PingReport};
use mplane_probe::sweep::{self, SweepOptions, SweepReport, Targets};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use support::skip;
use tokio_util::sync::CancellationToken;

/// How long something may take. Only a failing test waits so long.
const DEADLINE: Duration = Duration::from_secs(20);

/// How long measurements wait for replies: several times what any takes here.
const TIMEOUT: Duration = Duration::from_millis(400);

/// Milliseconds as a duration.
fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A lab, and the right to have one.
struct OnlyLab {
    lab: Lab,
    _only: MutexGuard<'static, ()>,
}

impl Deref for OnlyLab {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.lab
    }
}

/// Starts a lab of two hosts and a link with these keys, if this machine lets it.
fn start(name: &str, keys: &str) -> Option<OnlyLab> {
    static ONLY: Mutex<()> = Mutex::new(());
    if !is_privileged() {
        skip(&format!("{name}: labs cannot be made here"));
        return None;
    }
    let text = format!(
        "seed = 7\n\
         host = [{{ name = \"a\" }}, {{ name = \"b\", prefixes = [\"10.99.0.0/22\"] }}]\n\
         [[link]]\nbetween = [\"a\", \"b\"]\n{keys}"
    );
    let topology =
        Topology::parse(&text, "test").unwrap_or_else(|error| panic!("{error}"));
    let only = ONLY.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = Lab::start(&topology);
    let lab = lab.unwrap_or_else(|error| panic!("{error}: {error:?}"));
    Some(OnlyLab { lab, _only: only })
}

/// Runs a measurement in host a.
fn in_a<T: Send, F: Future<Output = T>>(
    lab: &Lab,
    measure: impl FnOnce() -> F + Send,
) -> T {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime can be made").block_on(measure())
    };
    lab.host("a").expect("a host").run(run).expect("a namespace")
}

/// Pings host b from host a.
fn ping(
    lab: &Lab,
    family: Family,
    change: fn(&mut PingOptions),
) -> (Vec<Echo>, PingReport) {
    let host = lab.host("b").expect("a host");
    let destination = match family {
        Family::V4 => host.ip4(),
        Family::V6 => host.ip6(),
    };
    let destination = destination.expect("an address");
    let mut options = PingOptions::new(destination, ms(5), End::Count(300));
    options.timeout = TIMEOUT;
    options.linger = ms(100);
    change(&mut options);
    let mut echoes = Vec::new();
    let report = in_a(lab, || {
        ping::run(options, |echo| echoes.push(*echo), CancellationToken::new())
    });
    (echoes, report.unwrap_or_else(|error| panic!("{error}: {error:?}")))
}

/// The records of echo messages from one host to another, of packets whose fate is known.
fn echoes<'a>(log: &'a Log, from: &'a str, to: &'a str) -> Vec<(u16, &'a Record)> {
    let echo = |record: &'a Record| {
        let [_, sequence] = Header::read(record.head())?.echo?;
        Some((sequence, record))
    };
    log.between(from, to).filter_map(echo).collect()
}

/// Waits until the log has all requests and the replies to those that were delivered.
fn complete_log(lab: &Lab, requests: usize) -> Log {
    let is_delivered = |(_, record): &&(u16, &Record)| record.fate == Fate::Delivered;
    let start = Instant::now();
    loop {
        let log = lab.log().expect("a log");
        let forth = echoes(&log, "a", "b");
        let back = echoes(&log, "b", "a");
        let firsts = |all: &[(u16, &Record)]| {
            all.iter().filter(|(_, record)| !record.is_copy).count()
        };
        let delivered = forth.iter().filter(is_delivered).count();
        if firsts(&forth) == requests && firsts(&back) == delivered {
            return log;
        }
        assert!(start.elapsed() < DEADLINE, "{requests} {delivered} {}", back.len());
        std::thread::sleep(ms(5));
    }
}

/// Replies that were delivered, in the order in which they were.
fn arrivals(log: &Log) -> Vec<(u16, &Record)> {
    let mut replies = echoes(log, "b", "a");
    replies.retain(|(_, record)| record.fate == Fate::Delivered);
    replies.sort_by_key(|(_, record)| record.departed_ns);
    replies
}

/// What is true of a run of ping with so many requests, according to the log.
fn truth(log: &Log, requests: u16) -> (u64, u64, u64, u64) {
    truth_of(arrivals(log).into_iter().map(|(sequence, _)| sequence), requests)
}

/// What is true of a run with these replies in this order: received, duplicates, reordered,
/// longest loss run.
fn truth_of(replies: impl Iterator<Item = u16>, requests: u16) -> (u64, u64, u64, u64) {
    let (mut received, mut duplicates, mut reordered) = (0, 0, 0);
    let mut seen = vec![false; requests.into()];
    let mut highest = None;
    for sequence in replies {
        if std::mem::replace(&mut seen[usize::from(sequence)], true) {
            duplicates += 1;
            continue;
        }
        received += 1;
        reordered += u64::from(highest.is_some_and(|highest| sequence < highest));
        highest = highest.max(Some(sequence));
    }
    let runs = seen.split(|is_received| *is_received).map(<[bool]>::len);
    (received, duplicates, reordered, runs.max().unwrap_or(0) as u64)
}

#[test]
fn loss_duplicates_and_order_are_exactly_those_of_the_log() {
    let way = "loss = 0.08, burst-loss = { enter = 0.01, leave = 0.3 }, duplicate = 0.06, \
               delay = \"3ms\", reorder = { probability = 0.1, by = \"12ms\" }";
    let keys = format!("both = {{ {way} }}");
    let name = "loss_duplicates_and_order_are_exactly_those_of_the_log";
    for family in [Family::V4, Family::V6] {
        let Some(lab) = start(name, &keys) else { return };
        let (echoes, report) = ping(&lab, family, |_| {});
        let log = complete_log(&lab, 300);
        let (received, duplicates, reordered, longest) = truth(&log, 300);
        assert!(received < 280 && duplicates > 10 && reordered > 10 && longest > 1);
        let PingReport { summary, strays, .. } = report;
        assert_eq!((summary.sent, summary.received), (300, received));
        assert_eq!(summary.lost, 300 - received);
        assert_eq!(summary.longest_loss_run, longest);
        assert_eq!((strays.duplicates, strays.reordered), (duplicates, reordered));
        assert_eq!((strays.late, strays.forged), (0, 0));
        // Not only as many, but the same ones.
        let answered: Vec<u16> = arrivals(&log).into_iter().map(|(it, _)| it).collect();
        for (sequence, echo) in (0..).zip(&echoes) {
            assert_eq!(echo.rtt().is_some(), answered.contains(&sequence), "{sequence}");
        }
        assert_eq!(lab.lab.stop().expect("an end").unseen, 0);
    }
}

/// The value below which so many of a hundred lie.
fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent).div_ceil(100) - 1]
}

/// By how much delays may differ from the truth at half of the packets and at 95 of 100.
const ALLOWED: [(usize, Duration); 2] =
    [(50, Duration::from_micros(100)), (95, Duration::from_millis(1))];

/// How often delays are measured until they are as exact as they should be: the time until
/// the emulator wakes up is that of a machine which others use.
const ATTEMPTS: u32 = 4;

/// The true delays: from the moment at which the emulator had the request until it handed
/// over the reply, so with the time that host b took.
fn true_delays(log: &Log) -> Vec<Duration> {
    let back: BTreeMap<u16, &Record> = echoes(log, "b", "a").into_iter().collect();
    let of = |(sequence, forth): (u16, &Record)| {
        let reply = back[&sequence];
        let both = forth.delay_ns().expect("delivered") + reply.delay_ns().expect("too");
        let departed = reply.departed_ns.expect("delivered");
        let truth = Duration::from_nanos(departed - forth.arrived_ns);
        assert!(truth >= Duration::from_nanos(both), "host b takes time too");
        truth
    };
    let mut forth = echoes(log, "a", "b");
    forth.sort_by_key(|(sequence, _)| *sequence);
    forth.into_iter().map(of).collect()
}

/// Measures delays once, and returns whether they are as exact as allowed, and how exact.
fn error_of_delays(lab: &Lab, family: Family) -> (bool, String) {
    let (echoes, report) = ping(lab, family, |_| {});
    let truth = true_delays(&complete_log(lab, 300));
    let mut measured: Vec<_> = echoes.iter().filter_map(Echo::rtt).collect();
    assert_eq!((measured.len(), truth.len()), (300, 300));
    assert_eq!(report.summary.kernel_stamped, 300, "the kernel stamps TUN devices");
    let mut errors = Vec::new();
    for (rtt, truth) in measured.iter().zip(&truth) {
        // Nothing is faster than it was, but for the clocks: the system's may be slewed.
        assert!(*rtt + ALLOWED[0].1 >= *truth, "{rtt:?} {truth:?}");
        errors.push(rtt.abs_diff(*truth));
    }
    let mut truth = truth;
    for delays in [&mut errors, &mut measured, &mut truth] {
        delays.sort_unstable();
    }
    let delays = report.summary.delays.expect("replies");
    for (percent, of_summary) in [25, 75, 95, 99].into_iter().zip(delays.percentiles) {
        assert_eq!(of_summary, quantile(&measured, percent));
    }
    let mut text = family.to_string();
    let mut is_exact = true;
    for (percent, allowed) in ALLOWED {
        let of_packets = quantile(&errors, percent);
        let of_all = quantile(&measured, percent).abs_diff(quantile(&truth, percent));
        let part = format!(", {percent} %: {of_packets:?} each, {of_all:?} in all");
        text.push_str(&part);
        is_exact &= of_packets.max(of_all) <= allowed;
    }
    (is_exact, text)
}

#[test]
fn delays_are_those_of_the_log() {
    let keys = "both = { delay = \"5ms\", jitter = \"2ms\" }";
    for family in [Family::V4, Family::V6] {
        let mut errors = Vec::new();
        for _ in 0..ATTEMPTS {
            let Some(lab) = start("delays_are_those_of_the_log", keys) else { return };
            match error_of_delays(&lab, family) {
                (true, text) => {
                    println!("{text}");
                    break;
                }
                (false, text) => errors.push(text),
            }
        }
        assert!(errors.len() < ATTEMPTS as usize, "{errors:?}");
    }
}

#[test]
fn late_replies_are_lost_and_told_apart() {
    let keys =
        "forth = { delay = \"1ms\", reorder = { probability = 0.2, by = \"600ms\" } }";
    let Some(lab) = start("late_replies_are_lost_and_told_apart", keys) else { return };
    let (_, report) = ping(&lab, Family::V4, |options| {
        options.end = End::Count(40);
        options.linger = ms(800);
    });
    let log = complete_log(&lab, 40);
    let late = echoes(&log, "a", "b").iter().filter(|(_, it)| it.is_held).count() as u64;
    assert!(late > 2);
    let summary = report.summary;
    assert_eq!((summary.received, summary.lost), (40 - late, late));
    assert_eq!((report.strays.late, report.strays.reordered), (late, 0));
}

#[test]
fn packets_leave_as_they_were_asked_for() {
    let Some(lab) = start("packets_leave_as_they_were_asked_for", "") else { return };
    for (family, length) in [(Family::V4, 128), (Family::V6, 148)] {
        let (_, report) = ping(&lab, family, |options| {
            options.end = End::Count(3);
            options.payload_bytes = 100;
            options.ttl = Some(9);
            options.dscp = 46;
            options.linger = Duration::ZERO;
        });
        assert_eq!(report.summary.received, 3);
        let log = lab.log().expect("a log");
        let packets = echoes(&log, "a", "b");
        let is_it = |record: &&Record| {
            u32::from(record.head()[0] >> 4 == 6) == u32::from(family == Family::V6)
        };
        let packets: Vec<_> =
            packets.iter().map(|(_, record)| *record).filter(is_it).collect();
        assert_eq!(packets.len(), 3);
        for packet in packets {
            let header = Header::read(packet.head()).expect("an IP packet");
            assert_eq!((packet.length, header.ttl), (length, 9));
            let [first, second, ..] = *packet.head() else { panic!("too short") };
            let class = match family {
                Family::V4 => second,
                Family::V6 => first << 4 | second >> 4,
            };
            assert_eq!(class >> 2, 46);
        }
    }
}

/// Sweeps networks from host a.
fn sweep_from_a(lab: &Lab, network: &str, change: fn(&mut SweepOptions)) -> SweepReport {
    let network = network.parse().expect("a network");
    let targets = Targets::new(Family::V4, [&network]).expect("not too many");
    let mut options = SweepOptions::new(targets);
    change(&mut options);
    let report = in_a(lab, || sweep::run(options, CancellationToken::new()));
    report.unwrap_or_else(|error| panic!("{error}: {error:?}"))
}

#[test]
fn a_sweep_misses_exactly_what_the_log_calls_lost() {
    let keys =
        "both = { loss = 0.1, duplicate = 0.05, delay = \"20ms\", jitter = \"10ms\" }";
    let name = "a_sweep_misses_exactly_what_the_log_calls_lost";
    let Some(lab) = start(name, keys) else { return };
    let report = sweep_from_a(&lab, "10.99.0.0/22", |options| {
        options.count = 2;
        options.rate = 5_000;
    });
    let log = complete_log(&lab, 2_048);
    let mut replies: BTreeMap<(IpAddr, u16), u64> = BTreeMap::new();
    for (sequence, record) in arrivals(&log) {
        let source = Header::read(record.head()).expect("an IP packet").source;
        *replies.entry((source, sequence)).or_default() += 1;
    }
    let mut received = BTreeMap::<IpAddr, u32>::new();
    for (source, _) in replies.keys() {
        *received.entry(*source).or_default() += 1;
    }
    assert_eq!((report.targets.len(), report.repeated), (1_024, 0));
    for target in &report.targets {
        let expected = received.get(&target.address).copied().unwrap_or(0);
        assert_eq!((target.sent, target.received), (2, expected), "{target:?}");
        assert_eq!((target.lost, target.unsent), (2 - expected, 0));
        assert_eq!(target.mean.is_some(), expected > 0, "lost is not zero");
        assert!(target.min.is_none_or(|min| min >= ms(40)), "{target:?}");
    }
    let copies: u64 = replies.values().map(|count| count - 1).sum();
    // The sweep does not wait for copies of its last replies.
    assert!(report.strays.duplicates <= copies && copies > 0, "{report:?}");
    assert_eq!((report.strays.late, report.strays.forged), (0, 0));
    assert_eq!(report.user_stamped, 0);
}

#[test]
fn a_fast_sweep_loses_nothing_by_itself() {
    let name = "a_fast_sweep_loses_nothing_by_itself";
    let Some(lab) = start(name, "both = { delay = \"10ms\" }") else { return };
    let report = sweep_from_a(&lab, "10.99.0.0/22", |options| {
        options.count = 2;
        options.rate = 20_000;
    });
    let received: u32 = report.targets.iter().map(|target| target.received).sum();
    assert_eq!(received, 2_048, "{:?}", report.strays);
    assert_eq!(lab.lab.stop().expect("an end").unseen, 0);
}

#[test]
fn a_link_that_fails_for_a_while_is_a_loss_run() {
    let keys = "[[link.change]]\nat = \"1s\"\nboth = { loss = 1.0 }\n\
                [[link.change]]\nat = \"1500ms\"\nboth = { loss = 0.0 }";
    let name = "a_link_that_fails_for_a_while_is_a_loss_run";
    let Some(lab) = start(name, keys) else { return };
    let (echoes, report) = ping(&lab, Family::V4, |options| {
        options.period = ms(10);
        options.end = End::Count(180);
    });
    let log = complete_log(&lab, 180);
    let (received, _, _, longest) = truth(&log, 180);
    assert!((20..=60).contains(&longest), "{longest}");
    assert_eq!(
        (report.summary.received, report.summary.longest_loss_run),
        (received, longest)
    );
    assert!(echoes.iter().any(|echo| echo.outcome == Outcome::Lost));
}

/// The far end of a veth pair, with an address, and nobody in the kernel who answers.
const FAR: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);

/// Joins the hosts of a lab by a veth pair too.
fn join_by_veth(lab: &Lab) {
    let [a, b] = ["a", "b"].map(|name| lab.host(name).expect("a host"));
    let mut in_b = b.spawn(Command::new("sleep").arg("60")).expect("a program");
    let pid = in_b.id();
    let far = format!("peer name far address 02:00:00:00:00:02 netns {pid}");
    a.run(|| {
        ip(&format!("link add near address 02:00:00:00:00:01 type veth {far}"));
        ip("addr add 198.18.0.1/30 dev near");
        ip("link set near up");
        ip("neigh add 198.18.0.2 lladdr 02:00:00:00:00:02 dev near");
    })
    .expect("a namespace");
    b.run(|| {
        ip("addr add 198.18.0.2/30 dev far");
        ip("link set far up");
        ip("neigh add 198.18.0.1 lladdr 02:00:00:00:00:01 dev far");
        std::fs::write("/proc/sys/net/ipv4/icmp_echo_ignore_all", "1").expect("ours");
    })
    .expect("a namespace");
    in_b.kill().and_then(|()| in_b.wait()).expect("it ends");
}

/// Runs `ip`.
fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(status.is_ok_and(|status| status.success()), "ip {arguments}");
}

/// Answers echo requests: some not at all, some twice, some after the next. Ends by itself
/// when nobody asks for long.
fn answer(socket: &Socket, is_over: &AtomicBool) {
    let mut held: Option<Vec<u8>> = None;
    let mut buffer = [0; 2048];
    let to = SocketAddr::from(([198, 18, 0, 1], 0)).into();
    let send = |reply: &[u8]| socket.send_to(reply, &to).expect("there is a route");
    let mut asked = Instant::now();
    while !is_over.load(Ordering::Relaxed) && asked.elapsed() < DEADLINE {
        let Ok(length) = (&*socket).read(&mut buffer) else { continue };
        asked = Instant::now();
        let message = &buffer[20..length];
        if message[0] != 8 {
            continue;
        }
        let sequence = u16::from_be_bytes([message[6], message[7]]);
        let mut reply = message.to_vec();
        reply[0] = 0;
        // The type has changed by 8 in the upper half of its word (RFC 1624).
        let checksum = u32::from(u16::from_be_bytes([message[2], message[3]])) + 0x0800;
        let checksum = (checksum & 0xffff) + (checksum >> 16);
        let checksum = u16::try_from(checksum).expect("folded");
        reply[2..4].copy_from_slice(&checksum.to_be_bytes());
        let late = held.take();
        if sequence % 7 == 3 {
        } else if sequence % 13 == 2 {
            held = Some(reply);
        } else {
            send(&reply);
            if sequence % 11 == 5 {
                send(&reply);
            }
        }
        if let Some(late) = late {
            send(&late);
        }
    }
}

/// Reads what was captured: moments, by the kernel's clock, and packets.
fn captured(socket: &Socket) -> Vec<(Duration, Vec<u8>)> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    let mut packets = Vec::new();
    let mut buffer = [0; 2048];
    loop {
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let mut control = nix::cmsg_space!(nix::libc::timespec);
        let flags = MsgFlags::MSG_DONTWAIT;
        let fd = socket.as_raw_fd();
        let Ok(message) = recvmsg::<()>(fd, &mut slices, Some(&mut control), flags)
        else {
            return packets;
        };
        let mut controls = message.cmsgs().expect("there is room for one");
        let Some(ControlMessageOwned::ScmTimestampns(stamp)) = controls.next() else {
            panic!("a packet without a stamp");
        };
        let length = message.bytes;
        packets.push((Duration::from(stamp), buffer[..length].to_vec()));
    }
}

#[test]
fn counts_and_delays_are_those_of_a_capture_at_the_far_end() {
    let name = "counts_and_delays_are_those_of_a_capture_at_the_far_end";
    let Some(lab) = start(name, "") else { return };
    join_by_veth(&lab);
    let open = |domain, kind, protocol: i32| {
        let open = || Socket::new(domain, kind, Some(Protocol::from(protocol)));
        let opened = lab.host("b").expect("a host").run(open).expect("a namespace");
        let socket = opened.expect("sockets of one's own");
        socket.set_recv_buffer_size(4 << 20).expect("a buffer");
        socket
    };
    // All protocols, in network byte order.
    let all = i32::from(3_u16.to_be());
    let capture = open(Domain::PACKET, Type::DGRAM, all);
    setsockopt(&capture, sockopt::ReceiveTimestampns, &true).expect("stamps");
    let far_end = open(Domain::IPV4, Type::RAW, 1);
    far_end.set_read_timeout(Some(ms(20))).expect("a limit");
    let is_over = AtomicBool::new(false);
    let (echoes, report) = std::thread::scope(|scope| {
        scope.spawn(|| answer(&far_end, &is_over));
        let result = ping(&lab, Family::V4, |options| options.destination = FAR.into());
        is_over.store(true, Ordering::Relaxed);
        result
    });
    let (mut requests, mut replies) = (BTreeMap::new(), Vec::new());
    for (moment, packet) in captured(&capture) {
        match Header::read(&packet).and_then(|it| it.icmp.zip(it.echo)) {
            Some(([8, _], [_, sequence])) => drop(requests.insert(sequence, moment)),
            Some(([0, _], [_, sequence])) => replies.push((sequence, moment)),
            _ => {}
        }
    }
    assert_eq!(requests.len(), 300);
    let (received, duplicates, reordered, longest) =
        truth_of(replies.iter().map(|(sequence, _)| *sequence), 300);
    assert!(received < 280 && duplicates > 10 && reordered > 10);
    let PingReport { summary, strays, .. } = report;
    assert_eq!((summary.sent, summary.received), (300, received));
    assert_eq!((summary.lost, summary.longest_loss_run), (300 - received, longest));
    assert_eq!((strays.duplicates, strays.reordered), (duplicates, reordered));
    assert_eq!((strays.late, strays.forged), (0, 0));
    // The far end is seen twice by this machine's clock, and so are our stamps.
    let mut errors = Vec::new();
    for (sequence, echo) in (0..).zip(&echoes) {
        let reply = replies.iter().find(|(of, _)| *of == sequence);
        let truth = reply.map(|(_, moment)| moment.saturating_sub(requests[&sequence]));
        assert_eq!(truth.is_some(), echo.rtt().is_some(), "{sequence}");
        errors.extend(truth.zip(echo.rtt()).map(|(truth, rtt)| rtt.abs_diff(truth)));
    }
    errors.sort_unstable();
    println!("{:?} {:?}", quantile(&errors, 50), quantile(&errors, 95));
    for (percent, allowed) in ALLOWED {
        assert!(quantile(&errors, percent) <= allowed, "{percent} %: {errors:?}");
    }
}
