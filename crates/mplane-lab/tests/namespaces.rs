//! Labs in the kernel: what the log says is what happened.
//!
//! Needs the right to make network namespaces, and `ip`. Nothing here is late by a limit:
//! delays are checked from below, counts exactly.

use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use mplane_lab::log::{Fate, Header, Log, Record, statistics};
use mplane_lab::topology::Topology;
use mplane_lab::{Lab, is_privileged};

/// The port of the host that echoes.
const ECHO: u16 = 7;

/// How long something may take. Only a failing test waits so long.
const DEADLINE: Duration = Duration::from_secs(20);

/// Says loudly that a test was not run; in continuous integration, fails instead.
fn skip(reason: &str) {
    let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!is_ci, "continuous integration must not skip: {reason}");
    writeln!(io::stderr(), "SKIPPED: {reason}").expect("standard error is open");
}

/// Starts a lab, if this machine lets it.
fn start(name: &str, text: &str) -> Option<Lab> {
    if !is_privileged() {
        skip(&format!("{name}: labs cannot be made here"));
        return None;
    }
    let topology =
        Topology::parse(text, "test").unwrap_or_else(|error| panic!("{error}"));
    Some(Lab::start(&topology).unwrap_or_else(|error| panic!("{error}: {error:?}")))
}

/// Two hosts and a link with these keys.
fn pair(keys: &str) -> String {
    format!(
        "host = [{{ name = \"a\" }}, {{ name = \"b\" }}]\n\
         [[link]]\nbetween = [\"a\", \"b\"]\n{keys}"
    )
}

/// Opens a socket in a host of a lab, on any of its addresses.
fn socket(lab: &Lab, host: &str, port: u16) -> UdpSocket {
    let host = lab.host(host).expect("a host");
    let bound = host.run(|| UdpSocket::bind(("::", port))).expect("a namespace");
    let socket = bound.expect("a port of one's own");
    socket.set_read_timeout(Some(DEADLINE)).expect("a socket with a limit");
    socket
}

/// An address of a host, and a port. Sockets are of IPv6, so IPv4 is written within it.
fn target(lab: &Lab, host: &str, is_ip6: bool) -> SocketAddr {
    let host = lab.host(host).expect("a host");
    let ip = if is_ip6 { host.ip6() } else { host.ip4() }.expect("an address");
    let ip = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    (ip, ECHO).into()
}

/// The records of UDP from one host to another.
fn records(log: &Log, from: &str, to: &str) -> Vec<Record> {
    let is_udp = |record: &&Record| {
        Header::read(record.head()).is_some_and(|header| header.protocol == 17)
    };
    log.between(from, to).filter(is_udp).cloned().collect()
}

/// Waits until the log says what it should.
fn log_when(lab: &Lab, is_there: impl Fn(&Log) -> bool) -> Log {
    let start = Instant::now();
    loop {
        let log = lab.log().expect("a log");
        if is_there(&log) {
            return log;
        }
        assert!(start.elapsed() < DEADLINE, "{:?}", statistics(&log.records));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn packets_pass_a_router_and_take_the_delay_of_each_link() {
    let text = r#"
        host = [{ name = "a" }, { name = "r", router = true }, { name = "b" }]
        [[link]]
        between = ["a", "r"]
        both = { delay = "3ms" }
        [[link]]
        between = ["r", "b"]
        forth = { delay = "4ms" }
    "#;
    let name = "packets_pass_a_router_and_take_the_delay_of_each_link";
    let Some(lab) = start(name, text) else { return };
    let (client, server) = (socket(&lab, "a", 0), socket(&lab, "b", ECHO));
    for is_ip6 in [false, true] {
        let target = target(&lab, "b", is_ip6);
        let sent = Instant::now();
        client.send_to(b"to b", target).expect("a route to b");
        let mut buffer = [0; 100];
        let (length, from) = server.recv_from(&mut buffer).expect("a packet");
        assert!(sent.elapsed() >= Duration::from_millis(7));
        server.send_to(&buffer[..length], from).expect("a route to a");
        let (length, from) = client.recv_from(&mut buffer).expect("an answer");
        assert!(sent.elapsed() >= Duration::from_millis(10));
        assert_eq!((&buffer[..length], from), (b"to b".as_slice(), target));
    }
    let log = lab.log().expect("a log");
    for (from, to, delay_ms) in
        [("a", "r", 3), ("r", "b", 4), ("b", "r", 0), ("r", "a", 3)]
    {
        let packets = records(&log, from, to);
        assert_eq!(packets.len(), 2, "{from} {to}");
        for packet in packets {
            assert_eq!(packet.fate, Fate::Delivered);
            let delay_ns = packet.delay_ns().expect("a delay");
            assert!(delay_ns >= delay_ms * 1_000_000, "{from} {to} {delay_ns}");
            let intended_ns = packet.intended_ns.expect("a time");
            assert_eq!(intended_ns - packet.arrived_ns, delay_ms * 1_000_000);
        }
    }
    // Nothing but what was sent: no discovery, no reports.
    assert_eq!(log.records.len(), 8, "{:?}", log.records);
    assert_eq!(lab.stop().expect("an end").unseen, 0);
}

/// As many small packets wait in any socket.
const GROUP: u32 = 100;

/// Sends numbered packets in groups, and returns which of them arrive, in their order.
/// It waits after each group until all that the log calls delivered have arrived.
fn send_numbers(lab: &Lab, count: u32) -> Vec<u32> {
    let (client, server) = (socket(lab, "a", 0), socket(lab, "b", ECHO));
    let to = target(lab, "b", false);
    let mut numbers = Vec::new();
    for sent in (0..count).step_by(GROUP as usize) {
        let next = count.min(sent + GROUP);
        for number in sent..next {
            client.send_to(&number.to_be_bytes(), to).expect("a route to b");
        }
        // A packet and its copy depart together, so both are known or none.
        let log = log_when(lab, |log| {
            let packets = records(log, "a", "b");
            let first = packets.iter().filter(|record| !record.is_copy).count();
            first == next as usize
        });
        let is_delivered = |record: &&Record| record.fate == Fate::Delivered;
        let delivered = records(&log, "a", "b").iter().filter(is_delivered).count();
        while numbers.len() < delivered {
            let mut buffer = [0; 4];
            server.recv(&mut buffer).expect("what the log calls delivered arrives");
            numbers.push(u32::from_be_bytes(buffer));
        }
    }
    server.set_nonblocking(true).expect("a socket");
    let more = server.recv(&mut [0; 4]);
    assert_eq!(more.map_err(|error| error.kind()), Err(io::ErrorKind::WouldBlock));
    numbers
}

#[test]
fn what_the_log_calls_lost_is_lost_and_nothing_else() {
    let keys = "seed = 5\n".to_owned()
        + &pair(
            "forth = { loss = 0.1, burst-loss = { enter = 0.02, leave = 0.3 }, \
             duplicate = 0.1, delay = \"2ms\", reorder = { probability = 0.1, by = \"3ms\" } }",
        );
    let name = "what_the_log_calls_lost_is_lost_and_nothing_else";
    let Some(lab) = start(name, &keys) else { return };
    let numbers = send_numbers(&lab, 400);
    let log = lab.log().expect("a log");
    let packets = records(&log, "a", "b");
    let delivered = packets.iter().filter(|record| record.fate == Fate::Delivered);
    // Each record in the order of departures is a packet that was received.
    let in_log: Vec<_> = delivered.map(|record| record.sequence).collect();
    let received: Vec<_> = numbers.iter().map(|number| u64::from(*number)).collect();
    assert_eq!(in_log, received);
    let sums = &statistics(&packets)[&(0, false)];
    assert_eq!(sums.arrived, 400);
    assert!(sums.fates[&Fate::LostRandom] > 0 && sums.fates[&Fate::LostBurst] > 0);
    assert!(sums.copies > 0 && sums.overtaken > 0, "{sums:?}");
    // The same seed once more: the same fates.
    let fates = |packets: &[Record]| -> Vec<_> {
        let mut fates: Vec<_> = packets
            .iter()
            .map(|record| (record.sequence, record.is_copy, record.fate, record.is_held))
            .collect();
        fates.sort();
        fates
    };
    let again = start(name, &keys).expect("it was possible a moment ago");
    send_numbers(&again, 400);
    let repeated = records(&again.log().expect("a log"), "a", "b");
    assert_eq!(fates(&repeated), fates(&packets));
}

#[test]
fn a_full_queue_drops_what_the_log_says() {
    // 28 bytes of headers and 4 of payload take 2.56 ms each; ten wait.
    let keys = pair("forth = { rate = \"100kbit/s\", queue-packets = 10 }");
    let name = "a_full_queue_drops_what_the_log_says";
    let Some(lab) = start(name, &keys) else { return };
    let numbers = send_numbers(&lab, 100);
    let log = lab.log().expect("a log");
    let sums = &statistics(&log.records)[&(0, false)];
    assert_eq!(sums.arrived, 100);
    let (delivered, dropped) =
        (sums.fates[&Fate::Delivered], sums.fates[&Fate::DroppedQueue]);
    assert_eq!(delivered + dropped, 100);
    assert_eq!(delivered, u64::try_from(numbers.len()).expect("small"));
    assert!(delivered >= 11, "one on the line and ten in the queue");
    // The last of the queue waits for nine others and a part of the one on the line.
    assert!(sums.delay_ns.expect("delays").max >= 10 * 2_560_000);
}

#[test]
fn routers_report_what_is_too_long_and_black_holes_do_not() {
    let text = |keys: &str| {
        format!(
            r#"
            host = [{{ name = "a" }}, {{ name = "r", router = true }}, {{ name = "b" }}]
            [[link]]
            between = ["a", "r"]
            [[link]]
            between = ["r", "b"]
            {keys}
            "#
        )
    };
    let name = "routers_report_what_is_too_long_and_black_holes_do_not";
    let Some(lab) = start(name, &text("mtu = 1280")) else { return };
    let client = socket(&lab, "a", 0);
    client.connect(target(&lab, "b", true)).expect("a route to b");
    // The first is sent, since nobody knows; the report makes a later one fail.
    client.send(&[0; 1400]).expect("a route to b");
    let reported = |log: &Log| {
        log.between("r", "a").any(|record| {
            // ICMPv6 "packet too big" (RFC 4443, section 3.2).
            Header::read(record.head()).is_some_and(|header| header.icmp == Some([2, 0]))
        })
    };
    let log = log_when(&lab, reported);
    assert_eq!(records(&log, "r", "b").len(), 0);

    let lab = start(name, &text("forth = { silent-mtu = 1280 }"));
    let lab = lab.expect("it was possible a moment ago");
    let client = socket(&lab, "a", 0);
    client.connect(target(&lab, "b", true)).expect("a route to b");
    client.send(&[0; 1400]).expect("a route to b");
    client.send(&[0; 1232]).expect("a route to b");
    let log = log_when(&lab, |log| records(log, "r", "b").len() == 2);
    let fates: Vec<_> = records(&log, "r", "b")
        .iter()
        .map(|record| (record.length, record.fate))
        .collect();
    assert_eq!(fates, [(1448, Fate::DroppedSize), (1280, Fate::Delivered)]);
    assert!(!reported(&log));
}

#[test]
fn changes_come_when_they_should() {
    let keys = pair(
        "forth = { delay = \"1ms\" }\n\
         change = [{ at = \"300ms\", forth = { delay = \"40ms\" } }]",
    );
    let Some(lab) = start("changes_come_when_they_should", &keys) else { return };
    let client = socket(&lab, "a", 0);
    let to = target(&lab, "b", false);
    let is_changed = |record: &Record| {
        record.intended_ns.is_some_and(|at| at - record.arrived_ns == 40_000_000)
    };
    let log = log_when(&lab, |log| {
        client.send_to(b"now?", to).expect("a route to b");
        records(log, "a", "b").iter().any(is_changed)
    });
    for record in records(&log, "a", "b") {
        let is_later = record.arrived_ns >= log.description.started_ns + 300_000_000;
        assert_eq!(is_changed(&record), is_later);
    }
}

#[test]
fn flows_share_equal_paths_and_each_keeps_its_own() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/lab/diamond.toml");
    let text = std::fs::read_to_string(path).expect("an example");
    let name = "flows_share_equal_paths_and_each_keeps_its_own";
    let Some(lab) = start(name, &text) else { return };
    let to = target(&lab, "b", false);
    let flows = 32;
    for _ in 0..flows {
        let client = socket(&lab, "a", 0);
        for _ in 0..2 {
            client.send_to(b"which way?", to).expect("a route to b");
        }
    }
    let log = log_when(&lab, |log| records(log, "r3", "b").len() == 2 * flows);
    let (one, two) = (records(&log, "r0", "r1"), records(&log, "r0", "r2"));
    assert_eq!(one.len() + two.len(), 2 * flows);
    // All 32 on one side have a probability of 1 to 2^31.
    assert!(!one.is_empty() && !two.is_empty());
    let ports = |records: &[Record]| -> Vec<_> {
        let header =
            |record: &Record| Header::read(record.head()).and_then(|all| all.ports);
        records.iter().filter_map(header).collect()
    };
    assert!(ports(&one).iter().all(|flow| !ports(&two).contains(flow)));
}

#[test]
fn a_host_answers_for_its_prefixes() {
    let text = r#"
        host = [{ name = "a" }, { name = "b", prefixes = ["10.99.0.0/16", "2001:db8:9::/64"] }]
        link = [{ between = ["a", "b"] }]
    "#;
    let Some(lab) = start("a_host_answers_for_its_prefixes", text) else { return };
    let (client, server) = (socket(&lab, "a", 0), socket(&lab, "b", ECHO));
    for address in ["::ffff:10.99.200.7", "2001:db8:9::1234"] {
        let to: IpAddr = address.parse().expect("an address");
        client.send_to(b"anybody?", (to, ECHO)).expect("a route");
        let mut buffer = [0; 100];
        server.recv_from(&mut buffer).expect("a packet");
    }
}

#[test]
fn labs_with_the_same_addresses_run_side_by_side() {
    let name = "labs_with_the_same_addresses_run_side_by_side";
    let Some(one) = start(name, &pair("")) else { return };
    let two = start(name, &pair("")).expect("it was possible a moment ago");
    let (first, second) = (socket(&one, "b", ECHO), socket(&two, "b", ECHO));
    for (lab, text) in [(&one, b"first!"), (&two, b"second")] {
        let client = socket(lab, "a", 0);
        client.send_to(text, target(lab, "b", false)).expect("a route to b");
    }
    let mut buffer = [0; 6];
    for (server, text) in [(first, b"first!"), (second, b"second")] {
        server.recv(&mut buffer).expect("a packet");
        assert_eq!(&buffer, text);
    }
}

#[test]
fn programs_run_in_their_host_and_end_with_the_lab() {
    let text = pair("");
    let name = "programs_run_in_their_host_and_end_with_the_lab";
    let Some(lab) = start(name, &text) else { return };
    let host = lab.host("b").expect("a host");
    let mut program = Command::new("sh");
    // The program that is started by it belongs to the lab as well.
    program.args(["-c", "getent ahostsv4 a; sleep 600 & echo ready; wait"]);
    let mut child =
        host.spawn(program.stdout(std::process::Stdio::piped())).expect("a program");
    let out = child.stdout.take().expect("its output");
    let mut lines = io::BufRead::lines(io::BufReader::new(out));
    let first = lines.next().expect("a line").expect("a text");
    assert!(first.starts_with("10.0.1.1 "), "hosts have names: {first}");
    assert!(lines.any(|line| line.is_ok_and(|line| line == "ready")));
    lab.stop().expect("an end");
    let status = child.wait().expect("it has ended");
    assert!(!status.success());
    // The pipe is closed when the last of them has ended.
    assert_eq!(lines.count(), 0);
}

#[test]
fn the_lab_leaves_no_namespace_behind() {
    let Some(lab) = start("the_lab_leaves_no_namespace_behind", &pair("")) else {
        return;
    };
    let links = || -> Vec<_> {
        let folder = std::fs::read_dir("/proc/self/fd").expect("open files");
        let files =
            folder.flatten().filter_map(|file| std::fs::read_link(file.path()).ok());
        files.filter(|path| path.to_string_lossy().starts_with("net:[")).collect()
    };
    let own = |host: &str| {
        let path = lab
            .host(host)
            .expect("a host")
            .run(|| std::fs::read_link("/proc/thread-self/ns/net").expect("a namespace"));
        path.expect("a namespace")
    };
    let namespaces = [own("a"), own("b")];
    assert!(namespaces.iter().all(|namespace| links().contains(namespace)));
    lab.stop().expect("an end");
    assert!(namespaces.iter().all(|namespace| !links().contains(namespace)));
}

#[test]
fn examples_can_be_loaded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/lab");
    let files: Vec<_> = std::fs::read_dir(folder)
        .expect("examples")
        .flatten()
        .map(|file| file.path())
        .collect();
    assert_eq!(files.len(), 4);
    for file in files {
        Topology::load(&file).unwrap_or_else(|error| panic!("{error}"));
    }
}
