//! Ping beside its peers, in networks made for it: sweeps, sustained rate, bias of delays.
//!
//! Needs the right to make network namespaces, `unshare`, `nsenter` and `ip`. Peers (`fping`,
//! `ping`, `scamper`, `nmap`) and `tcpdump` that are not installed are named and left out. It
//! takes some two minutes.
//!
//! ```sh
//! sudo cargo bench -p mplane-probe --bench ping
//! ```
//!
//! Times are of the whole program, with its start and the wait for what does not come. The
//! processor time of an echo is that of both ends: the other host answers within the system
//! call that sends. "raw" is two threads that send and count, and do nothing else.

#![expect(clippy::print_stdout, reason = "a bench says what it found")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mplane::address::Address;
use mplane_lab::Lab;
use mplane_lab::log::{Header, Record};
use mplane_lab::topology::Topology;
use mplane_probe::packet::{EchoRequest, Family};
use mplane_probe::ping::{self, Echo, End, PingOptions};
use mplane_probe::sweep::{self, MAX_RATE, SweepOptions, Targets};
use tokio_util::sync::CancellationToken;

/// Tells the program that it is inside the namespace.
const INSIDE: &str = "MPLANE_BENCH_INSIDE_NAMESPACE";

/// Names the process whose namespace is the other host.
const PEER: &str = "MPLANE_BENCH_PEER";

/// Makes another host at the other end of a veth pair, which answers for 10.99.0.0/16.
const NETWORK: &str = "
    set -e
    ip link set lo up
    unshare --net sleep 600 & peer=$!
    trap 'kill $peer' EXIT
    until [ \"$(readlink /proc/$peer/ns/net)\" != \"$(readlink /proc/$$/ns/net)\" ]
    do :; done
    ip link add near address 02:00:00:00:00:01 type veth \
        peer name far address 02:00:00:00:00:02 netns $peer
    inside=\"nsenter --net=/proc/$peer/ns/net\"
    ip addr add 192.0.2.1/24 dev near
    ip link set near up
    ip neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev near
    $inside ip link set lo up
    $inside ip addr add 192.0.2.2/24 dev far
    $inside ip link set far up
    $inside ip neigh add 192.0.2.1 lladdr 02:00:00:00:00:01 dev far
    $inside ip route add local 10.99.0.0/16 dev lo
    ip route add 10.99.0.0/16 via 192.0.2.2
    export MPLANE_BENCH_PEER=$peer
    \"$@\"";

/// The other end of the veth pair.
const FAR: &str = "192.0.2.2";

/// How many requests delays are of, and how far apart.
const REQUESTS: u32 = 400;
/// Time between them: what scamper takes at least is more.
const PERIOD: Duration = Duration::from_millis(5);

fn main() {
    if std::env::var_os(INSIDE).is_some() {
        inside();
        return;
    }
    let this_program = std::env::current_exe().expect("this program has a path");
    let status = Command::new("unshare")
        .args(["--net", "sh", "-c", NETWORK, "sh"])
        .arg(this_program)
        .env(INSIDE, "1")
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "the bench needs root, unshare, nsenter and ip"
    );
}

/// What is measured, within the namespace.
fn inside() {
    let peers = ["fping", "ping", "scamper", "nmap", "tcpdump"];
    for peer in peers.iter().filter(|peer| !is_installed(peer)) {
        println!("SKIPPED: {peer} is not installed");
    }
    for count in [10_000, 65_536] {
        sweeps(count);
    }
    sustained();
    delays_over_veth();
    delays_over_ten_milliseconds();
}

/// Says whether a program is there.
fn is_installed(name: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {name}")]).output();
    found.is_ok_and(|output| output.status.success())
}

/// The first addresses of 10.99.0.0/16.
fn addresses(count: u32) -> Vec<IpAddr> {
    let first = Ipv4Addr::new(10, 99, 0, 0).to_bits();
    (first..first + count).map(|bits| Ipv4Addr::from_bits(bits).into()).collect()
}

/// Sweeps as many addresses in each way.
fn sweeps(count: u32) {
    println!("\nsweep of {count} addresses, each answers (three runs)");
    println!(
        "{:<28}{:>9}{:>9}{:>11}{:>13}",
        "", "seconds", "missed", "echoes/s", "CPU us/echo"
    );
    let targets = addresses(count);
    let list = targets.iter().fold(String::new(), |mut list, target| {
        writeln!(list, "{target}").expect("text");
        list
    });
    for _ in 0..3 {
        measure("mplane", count, || ours(&targets, 1));
    }
    for _ in 0..3 {
        measure("raw", count, || ceiling(&targets, 1));
    }
    // Beyond 65,535 requests in 10 s fping fails for want of sequence numbers.
    let interval = if count > 10_000 { "0.1" } else { "0.01" };
    let fping = ["-a", "-r0", "-i", interval];
    peer("fping", &fping, &list, count, |text| text.lines().count());
    let nmap = "-sn -PE -n -T5 --min-rate 100000 -iL - -oG -";
    let nmap: Vec<_> = nmap.split(' ').collect();
    peer("nmap", &nmap, &list, count, |text| text.matches("Status: Up").count());
    let scamper = ["-p", "10000", "-w", "5000", "-c", "ping -c 1", "-f", "-"];
    peer("scamper", &scamper, &list, count, |text| {
        text.matches(" 1 packets received").count()
    });
}

/// Four rounds over 65,536 addresses.
fn sustained() {
    println!("\nsustained: 4 rounds over 65536 addresses");
    let targets = addresses(65_536);
    measure("mplane", 4 * 65_536, || ours(&targets, 4));
    measure("raw", 4 * 65_536, || ceiling(&targets, 4));
}

/// Times a measurement that returns how many requests were answered.
fn measure(name: &str, requests: u32, run: impl FnOnce() -> u32) {
    let (begun, processor) = (Instant::now(), processor_ms());
    let answered = run();
    let (took, processor) = (begun.elapsed(), processor_ms() - processor);
    let rate = f64::from(answered) / took.as_secs_f64();
    let each = f64::from(processor) * 1e3 / f64::from(requests);
    println!(
        "{name:<28}{:>9.3}{:>9}{rate:>11.0}{each:>13.1}",
        took.as_secs_f64(),
        requests - answered
    );
}

/// Returns the processor time of this process and of children that have ended, in
/// milliseconds; the kernel counts in ticks of 10 ms.
fn processor_ms() -> u32 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let (_, fields) = stat.rsplit_once(") ").expect("the name is in parentheses");
    let ticks = fields.split(' ').skip(11).take(4);
    ticks.map(|field| field.parse::<u32>().expect("a number") * 10).sum()
}

/// Sweeps as a component does, as fast as it can.
fn ours(targets: &[IpAddr], count: u8) -> u32 {
    let addresses: Vec<Address> = targets.iter().map(|target| (*target).into()).collect();
    let targets = Targets::new(Family::V4, &addresses).expect("not too many");
    let options = SweepOptions { rate: MAX_RATE, count, ..SweepOptions::new(targets) };
    let run = sweep::run(options, CancellationToken::new());
    let report = runtime().block_on(run).expect("a sweep");
    if report.user_stamped > 0 {
        let user = report.user_stamped;
        println!("({user} of the delays that follow are not from stamps of the kernel)");
    }
    report.targets.iter().map(|target| target.received).sum()
}

/// Makes a runtime.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("a runtime can be made")
}

/// Sends from one thread and counts in another what comes back, and nothing else.
fn ceiling(targets: &[IpAddr], rounds: u32) -> u32 {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4));
    let socket = socket.expect("raw sockets are allowed");
    socket.set_recv_buffer_size(4 << 20).expect("a buffer");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a limit");
    let mut request = Vec::new();
    EchoRequest { identifier: 7, sequence: 1, payload: &[0; 56] }
        .write(Family::V4, &mut request);
    let expected = rounds * u32::try_from(targets.len()).expect("few");
    let (received, is_sent) = (AtomicU32::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 256];
            while received.load(Ordering::Relaxed) < expected {
                match (&socket).read(&mut buffer) {
                    Ok(_) => {
                        received.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(_) if is_sent.load(Ordering::Relaxed) => break,
                    Err(_) => {}
                }
            }
        });
        for round in 0..rounds {
            for (number, target) in (0..).zip(targets) {
                let sent = round * u32::try_from(targets.len()).expect("few") + number;
                // As many as find room are on their way.
                while sent > received.load(Ordering::Relaxed) + 200 {
                    std::thread::yield_now();
                }
                let to = SocketAddr::new(*target, 0).into();
                socket.send_to(&request, &to).expect("there is a route");
            }
        }
        is_sent.store(true, Ordering::Relaxed);
    });
    received.into_inner()
}

/// Times a peer that reads a list of addresses and prints who answers.
fn peer(
    name: &str,
    arguments: &[&str],
    list: &str,
    requests: u32,
    answered: impl FnOnce(&str) -> usize,
) {
    if !is_installed(name) {
        return;
    }
    let shown = format!("{name} {}", arguments.first().expect("arguments"));
    measure(&shown, requests, || {
        let child = Command::new("timeout")
            .args(["60", name])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut child = child.expect("it is installed");
        let mut input = child.stdin.take().expect("a pipe");
        let output = std::thread::scope(|scope| {
            // A program that fails early does not read all.
            scope.spawn(move || drop(input.write_all(list.as_bytes())));
            child.wait_with_output().expect("it ends")
        });
        let text = String::from_utf8_lossy(&output.stdout);
        u32::try_from(answered(&text)).expect("few")
    });
}

/// Pings as a component does; returns the delays.
fn our_delays(destination: IpAddr) -> Vec<Duration> {
    let options = PingOptions::new(destination, PERIOD, End::Count(REQUESTS.into()));
    let mut delays = Vec::new();
    let keep = |echo: &Echo| delays.extend(echo.rtt());
    let run = ping::run(options, keep, CancellationToken::new());
    let report = runtime().block_on(run).expect("a run");
    assert_eq!(report.summary.sent, u64::from(REQUESTS));
    delays
}

/// Peers that ping one destination: names and commands.
fn pings(destination: IpAddr) -> Vec<(&'static str, String)> {
    let ms = PERIOD.as_millis();
    let seconds = PERIOD.as_secs_f64();
    let all = [
        ("ping", format!("ping -n -c {REQUESTS} -i {seconds} {destination}")),
        ("fping", format!("fping -C {REQUESTS} -p {ms} -t 1000 {destination}")),
        ("scamper", format!("scamper -I 'ping -c {REQUESTS} -i 0.01 {destination}'")),
    ];
    all.into_iter().filter(|(name, _)| is_installed(name)).collect()
}

/// Reads the delays in what a peer printed: `time=0.012 ms` or `0.012 ms`.
fn printed_delays(text: &str) -> Vec<Duration> {
    let milliseconds = |line: &str| {
        let (before, _) = line.split_once(" ms")?;
        let number = before.rsplit([' ', '=']).next()?;
        number.parse::<f64>().ok()
    };
    let lines = text.lines().filter(|line| !line.contains("rtt"));
    let lines = lines.filter(|line| line.contains("bytes"));
    lines.filter_map(milliseconds).map(|ms| Duration::from_secs_f64(ms / 1e3)).collect()
}

/// Writes a line about delays beside the truth.
fn compare(name: &str, mut delays: Vec<Duration>, mut truth: Vec<Duration>) {
    if delays.is_empty() || truth.is_empty() {
        println!("{name:<12} no delays ({} and {})", delays.len(), truth.len());
        return;
    }
    delays.sort_unstable();
    truth.sort_unstable();
    let quantile = |sorted: &[Duration], percent: usize| {
        let at = (sorted.len() * percent).div_ceil(100) - 1;
        sorted[at].as_secs_f64() * 1e6
    };
    let line = [50, 95].map(|percent| {
        let (measured, truth) = (quantile(&delays, percent), quantile(&truth, percent));
        format!("{measured:>12.1}{truth:>12.1}{:>+10.1}", measured - truth)
    });
    println!("{name:<12}{:>6}{}", delays.len(), line.concat());
}

/// Writes the heading of such lines.
fn head(title: &str) {
    println!("\n{title}, in microseconds");
    println!(
        "{:<12}{:>6}{:>12}{:>12}{:>10}{:>12}{:>12}{:>10}",
        "", "n", "median", "truth", "bias", "p95", "truth", "bias"
    );
}

/// Delays over veth, beside a capture at the far end.
fn delays_over_veth() {
    if !is_installed("tcpdump") {
        return;
    }
    head("delays over veth; the truth is how long the far end took, as captured there");
    let far: IpAddr = FAR.parse().expect("an address");
    let (delays, truth) = captured(|| our_delays(far));
    compare("mplane", delays, truth);
    for (name, command) in pings(far) {
        let (delays, truth) = captured(|| {
            let output = Command::new("sh").args(["-c", &command]).output();
            printed_delays(&String::from_utf8_lossy(&output.expect("a shell").stdout))
        });
        compare(name, delays, truth);
    }
}

/// Runs something while the far end captures; returns what it returns, and how long the far
/// end took for each request.
fn captured<T>(run: impl FnOnce() -> T) -> (T, Vec<Duration>) {
    let peer = std::env::var(PEER).expect("the script names the peer");
    let mut capture = Command::new("nsenter")
        .arg(format!("--net=/proc/{peer}/ns/net"))
        .args("tcpdump -i far -n -tt -U -l --time-stamp-precision=nano icmp".split(' '))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tcpdump is installed");
    wait_until_it_listens(&mut capture);
    let output = capture.stdout.take().expect("a pipe");
    let reader = std::thread::spawn(|| std::io::read_to_string(output).expect("text"));
    let result = run();
    // What was captured is written within a tenth of a second.
    std::thread::sleep(Duration::from_millis(300));
    let interrupt =
        Command::new("kill").args(["-INT", &capture.id().to_string()]).status();
    assert!(interrupt.is_ok_and(|status| status.success()));
    capture.wait().expect("it ends");
    (result, turnarounds(&reader.join().expect("it reads")))
}

/// Waits until tcpdump says that it listens.
fn wait_until_it_listens(capture: &mut Child) {
    let mut said = Vec::new();
    let errors = capture.stderr.as_mut().expect("a pipe");
    let mut byte = [0];
    while !said.ends_with(b"listening on") {
        assert_eq!(errors.read(&mut byte).expect("a pipe"), 1, "tcpdump failed");
        said.extend(byte);
    }
}

/// Returns the times between requests and their replies in what tcpdump printed.
fn turnarounds(text: &str) -> Vec<Duration> {
    let mut requests = BTreeMap::new();
    let mut all = Vec::new();
    for line in text.lines() {
        let Some((time, rest)) = line.split_once(' ') else { continue };
        let Some((seconds, nanos)) = time.split_once('.') else { continue };
        let (Ok(seconds), Ok(nanos)) = (seconds.parse(), nanos.parse()) else { continue };
        let time = Duration::new(seconds, nanos);
        let Some((_, which)) = rest.split_once(", id ") else { continue };
        let which = which.split(", length").next().unwrap_or_default().to_owned();
        if rest.contains("echo request") {
            requests.insert(which, time);
        } else if let Some(request) = requests.remove(&which) {
            all.push(time.saturating_sub(request));
        }
    }
    all
}

/// Delays over a link of 5 ms each way, beside the log of the lab.
fn delays_over_ten_milliseconds() {
    head("delays over 5 ms each way; the truth is the log of the lab");
    let text = "host = [{ name = \"a\" }, { name = \"b\" }]\n[[link]]\n\
                between = [\"a\", \"b\"]\nboth = { delay = \"5ms\" }";
    let topology = Topology::parse(text, "bench").expect("a topology");
    let lab = Lab::start(&topology).expect("labs can be made where namespaces can");
    let a = lab.host("a").expect("a host");
    let b = lab.host("b").and_then(mplane_lab::Host::ip4).expect("an address");
    let mut seen = 0;
    let delays = a.run(|| our_delays(b)).expect("a namespace");
    compare("mplane", delays, logged(&lab, &mut seen));
    for (name, command) in pings(b) {
        let mut command = self::command(&command);
        let child = a.spawn(command.stdout(Stdio::piped())).expect("a shell");
        let output = child.wait_with_output().expect("it ends");
        let delays = printed_delays(&String::from_utf8_lossy(&output.stdout));
        compare(name, delays, logged(&lab, &mut seen));
    }
}

/// A command of the shell.
fn command(text: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", text]).stderr(Stdio::null());
    command
}

/// Returns the true delays of echoes that the log has beyond those seen.
fn logged(lab: &Lab, seen: &mut usize) -> Vec<Duration> {
    let log = lab.log().expect("a log");
    let new = log.records.get(*seen..).unwrap_or_default();
    *seen = log.records.len();
    let echo = |record: &Record| Header::read(record.head())?.echo;
    let mut forth = BTreeMap::new();
    let mut all = Vec::new();
    for record in new {
        let (Some(which), Some(delay)) = (echo(record), record.delay_ns()) else {
            continue;
        };
        if record.is_back {
            let sum = forth.remove(&which).map(|forth: u64| forth + delay);
            all.extend(sum.map(Duration::from_nanos));
        } else {
            forth.insert(which, delay);
        }
    }
    all
}
