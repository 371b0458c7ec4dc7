//! Measurements in network namespaces made for the test: datagram sockets, routers
//! that report errors, routes that refuse, hosts that do not answer.
//!
//! Each test runs itself again inside a namespace, set up by a shell script. Needs
//! `unshare`, `nsenter` and `ip`, and the right to make namespaces.

mod support;

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use mplane_probe::packet::{Family, Obstacle, Problem};
use mplane_probe::ping::{
    self, Echo, EchoError, End, Outcome, PingOptions, PingReport, Strays,
};
use mplane_probe::socket::{Access, SocketKind, detect};
use mplane_probe::sweep::{
    self, MAX_RATE, SweepOptions, SweepReport, TargetReport, Targets,
};
use mplane_probe::tcp::{self, ConnectOptions, ConnectOutcome};
use support::skip;
use tokio_util::sync::CancellationToken;

/// Tells the inner run of a test that it is inside the namespace.
const INSIDE: &str = "MPLANE_TEST_INSIDE_NAMESPACE";

/// Makes the loopback interface usable and datagram sockets allowed.
const DATAGRAM: &str = "
    ip link set lo up
    echo '0 2147483647' > /proc/sys/net/ipv4/ping_group_range";

/// Makes the loopback interface usable and datagram sockets forbidden.
const RAW: &str = "
    ip link set lo up
    echo '1 0' > /proc/sys/net/ipv4/ping_group_range";

/// Makes a router: 198.51.100.0/24 and `2001:db8:9::/64` are behind it, and it says they
/// are unreachable; 203.0.113.0/24 and `2001:db8:7::/64` are further on. 192.0.2.77 and
/// `2001:db8::77` are on the link to it and silent.
///
/// Neighbours are fixed, so that no test waits for their discovery.
const ROUTER: &str = "
    unshare --net sleep 60 & router=$!
    trap 'kill $router' EXIT
    until [ \"$(readlink /proc/$router/ns/net)\" != \"$(readlink /proc/$$/ns/net)\" ]
    do :; done
    ip link add near address 02:00:00:00:00:01 type veth \
        peer name far address 02:00:00:00:00:02 netns $router
    inside=\"nsenter --net=/proc/$router/ns/net\"
    $inside sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward
        echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
        echo 0 > /proc/sys/net/ipv4/icmp_ratelimit
        echo 0 > /proc/sys/net/ipv6/icmp/ratelimit'
    $inside ip link set lo up
    for side in 'near 1 2' 'far 2 1'
    do
        set_up() {
            $in ip link set $1 addrgenmode none up
            $in ip addr add 192.0.2.$2/24 dev $1
            $in ip -6 addr add 2001:db8::$2/64 dev $1 nodad
            for host in $3 77
            do
                mac=02:00:00:00:00:$(printf %02d $host)
                $in ip neigh add 192.0.2.$host lladdr $mac dev $1
                $in ip -6 neigh add 2001:db8::$host lladdr $mac dev $1
            done
        }
        in=; case $side in far*) in=$inside;; esac
        set_up $side
    done
    $inside ip route add unreachable 198.51.100.0/24
    $inside ip -6 route add unreachable 2001:db8:9::/64
    $inside ip route add 203.0.113.0/24 via 192.0.2.77
    $inside ip -6 route add 2001:db8:7::/64 via 2001:db8::77
    ip route add default via 192.0.2.2
    ip -6 route add default via 2001:db8::2";

/// Runs `test` inside a new namespace, set up by `script`.
///
/// Called by the test named `name`, which is run a second time for this.
fn inside<F: Future<Output = ()>>(name: &str, script: &[&str], test: impl FnOnce() -> F) {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build();
        return runtime.expect("a runtime can be made").block_on(test());
    }
    let probe = Command::new("unshare").args(["--net", "ip", "link"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        skip(&format!("{name}: network namespaces cannot be made here"));
        return;
    }
    let this_program = std::env::current_exe().expect("this program has a path");
    let script = format!("set -e\n{}\n\"$@\"", script.join("\n"));
    let output = Command::new("unshare")
        .args(["--net", "sh", "-c", &script, "sh"])
        .arg(this_program)
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare was there a moment ago");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "inside the namespace: {text}\n{errors}");
    assert!(text.contains("1 passed"), "the test ran inside: {text}");
}

/// Options for three requests.
fn three(destination: &str) -> PingOptions {
    let destination: IpAddr = destination.parse().expect("an address");
    let period = Duration::from_millis(20);
    let timeout = Duration::from_millis(150);
    PingOptions { timeout, ..PingOptions::new(destination, period, End::Count(3)) }
}

/// Runs ping to its end.
async fn run_ping(options: PingOptions) -> (Vec<Echo>, PingReport) {
    let mut echoes = Vec::new();
    let keep = |echo: &Echo| echoes.push(*echo);
    let report = ping::run(options, keep, CancellationToken::new()).await;
    let report = report.unwrap_or_else(|error| panic!("{error}: {error:?}"));
    assert_eq!(report.strays, Strays::default(), "{echoes:?}");
    assert_eq!(echoes.len(), 3);
    (echoes, report)
}

/// Checks that each of three requests to `destination` ends as `expected`.
async fn check(options: PingOptions, expected: Outcome) {
    let (echoes, report) = run_ping(options).await;
    for echo in &echoes {
        assert_eq!(echo.outcome, expected, "{}: {echoes:?}", options.destination);
        assert_eq!(echo.rtt(), None, "no reply, no delay");
    }
    assert_eq!(report.summary.delays, None);
}

/// The outcome "reported by `from`".
fn reported(from: &str, problem: Problem) -> Outcome {
    Outcome::Error(EchoError::Reported { from: from.parse().ok(), problem })
}

/// The outcome "not sent".
fn not_sent(obstacle: Obstacle) -> Outcome {
    Outcome::Error(EchoError::NotSent(obstacle))
}

#[test]
fn datagram_sockets_are_used_where_they_are_allowed() {
    let name = "datagram_sockets_are_used_where_they_are_allowed";
    inside(name, &[DATAGRAM], async || {
        for destination in ["127.0.0.1", "::1"] {
            let (_, report) = run_ping(three(destination)).await;
            assert_eq!(report.socket, SocketKind::Datagram);
            assert_eq!(report.summary.received, 3);
        }
        let large = PingOptions { payload_bytes: 65_507, ..three("127.0.0.1") };
        assert_eq!(run_ping(large).await.1.summary.received, 3);
        let found = detect(Family::V4).await;
        println!("{found}");
        assert!(matches!(found.access, Access::Datagram), "{found:?}");
        assert!(found.is_loopback_answering);
    });
}

#[test]
fn raw_sockets_are_used_where_datagram_sockets_are_forbidden() {
    let name = "raw_sockets_are_used_where_datagram_sockets_are_forbidden";
    inside(name, &[RAW], async || {
        for destination in ["127.0.0.1", "::1"] {
            let (_, report) = run_ping(three(destination)).await;
            assert_eq!(report.socket, SocketKind::Raw);
            assert_eq!(report.summary.received, 3);
        }
    });
}

/// What a router says, and what nobody says, for either kind of socket.
async fn check_router() {
    let silent = [three("192.0.2.77"), three("2001:db8::77")];
    for options in silent {
        check(options, Outcome::Lost).await;
    }
    let unreachable = reported("192.0.2.2", Problem::HostUnreachable);
    check(three("198.51.100.9"), unreachable).await;
    let unreachable = reported("2001:db8::2", Problem::NetworkUnreachable);
    check(three("2001:db8:9::9"), unreachable).await;
    for (destination, router) in
        [("203.0.113.9", "192.0.2.2"), ("2001:db8:7::9", "2001:db8::2")]
    {
        let one_hop = PingOptions { ttl: Some(1), ..three(destination) };
        check(one_hop, reported(router, Problem::HopLimitExceeded)).await;
    }
    for destination in ["192.0.2.2", "2001:db8::2"] {
        let (_, report) = run_ping(three(destination)).await;
        assert_eq!(report.summary.received, 3);
    }
}

#[test]
fn datagram_sockets_tell_loss_from_errors_reported_by_routers() {
    let name = "datagram_sockets_tell_loss_from_errors_reported_by_routers";
    inside(name, &[DATAGRAM, ROUTER], check_router);
}

#[test]
fn raw_sockets_tell_loss_from_errors_reported_by_routers() {
    let name = "raw_sockets_tell_loss_from_errors_reported_by_routers";
    inside(name, &[RAW, ROUTER], check_router);
}

/// Routes that refuse in each way there is.
const REFUSING_ROUTES: &str = "
    ip route add unreachable 192.0.2.0/28
    ip route add prohibit 192.0.2.16/28
    ip route add blackhole 192.0.2.32/28";

#[test]
fn refusals_of_this_machine_are_outcomes_and_not_the_end() {
    let name = "refusals_of_this_machine_are_outcomes_and_not_the_end";
    inside(name, &[DATAGRAM, REFUSING_ROUTES], async || {
        let blackhole = Obstacle::Other { errno: 22 };
        for (destination, obstacle) in [
            ("198.51.100.1", Obstacle::NetworkUnreachable),
            ("192.0.2.1", Obstacle::HostUnreachable),
            ("192.0.2.17", Obstacle::Prohibited),
            ("192.0.2.33", blackhole),
        ] {
            check(three(destination), not_sent(obstacle)).await;
            check_tcp(destination, ConnectOutcome::Unreachable(obstacle)).await;
        }
    });
}

/// Checks that connections to `destination` end as `expected`.
async fn check_tcp(destination: &str, expected: ConnectOutcome) {
    let ip: IpAddr = destination.parse().expect("an address");
    let options = ConnectOptions {
        destination: (ip, 80).into(),
        source: None,
        period: Duration::from_millis(20),
        end: End::Count(2),
        timeout: Duration::from_millis(100),
    };
    let mut outcomes = Vec::new();
    let keep = |attempt: &tcp::Attempt| outcomes.push(attempt.outcome);
    let report = tcp::run(options, keep, CancellationToken::new()).await;
    report.unwrap_or_else(|error| panic!("{error}: {error:?}"));
    assert_eq!(outcomes, [expected, expected]);
}

/// Behind the router of [`ROUTER`], networks that a filter rejects or drops.
const FILTERS: &str = "
    $inside ip route add prohibit 198.51.101.0/24
    $inside ip route add blackhole 198.51.102.0/24
    $inside ip -6 route add prohibit 2001:db8:a::/64
    $inside ip -6 route add blackhole 2001:db8:b::/64
    ip route add prohibit 255.255.255.254/32";

#[test]
fn what_filters_reject_is_reported_and_what_they_drop_is_lost() {
    let name = "what_filters_reject_is_reported_and_what_they_drop_is_lost";
    inside(name, &[RAW, ROUTER, FILTERS], async || {
        check(three("198.51.101.9"), reported("192.0.2.2", Problem::Prohibited)).await;
        check(three("2001:db8:a::9"), reported("2001:db8::2", Problem::Prohibited)).await;
        check(three("198.51.102.9"), Outcome::Lost).await;
        check(three("2001:db8:b::9"), Outcome::Lost).await;
        // A sweep says the same of each. Reports of used up hops are not limited.
        let report = sweep(&["203.0.113.8/29", "198.51.102.8/29"], Some(1)).await;
        assert_eq!(report.targets.len(), 16);
        let expected = EchoError::Reported {
            from: "192.0.2.2".parse().ok(),
            problem: Problem::HopLimitExceeded,
        };
        for (number, target) in report.targets.iter().enumerate() {
            assert_eq!((target.sent, target.received, target.lost), (1, 0, 1));
            assert_eq!(target.mean, None);
            assert_eq!(target.problem, (number < 8).then_some(expected), "{target:?}");
        }
        // So it does of what this machine refuses.
        let report = sweep(&["255.255.255.254"], None).await;
        let target = report.targets[0];
        assert_eq!((target.sent, target.unsent), (0, 1));
        assert!(matches!(target.problem, Some(EchoError::NotSent(_))), "{target:?}");
    });
}

/// Sweeps IPv4 networks.
async fn sweep(networks: &[&str], ttl: Option<u8>) -> SweepReport {
    let networks: Vec<_> =
        networks.iter().map(|text| text.parse().expect("a network")).collect();
    let targets = Targets::new(Family::V4, &networks).expect("not too many");
    let options = SweepOptions { ttl, ..SweepOptions::new(targets) };
    let run = sweep::run(options, CancellationToken::new());
    run.await.unwrap_or_else(|error| panic!("{error}: {error:?}"))
}

/// Lets the router of [`ROUTER`] answer a sender once in a while only.
const RATE_LIMIT: &str = "
    $inside sh -c 'echo 1 > /proc/sys/net/ipv4/icmp_ratemask
        echo 10000 > /proc/sys/net/ipv4/icmp_ratelimit'";

#[test]
fn a_target_that_limits_its_rate_answers_some_and_loses_the_rest() {
    let name = "a_target_that_limits_its_rate_answers_some_and_loses_the_rest";
    inside(name, &[RAW, ROUTER, RATE_LIMIT], async || {
        let options = PingOptions { end: End::Count(30), ..three("192.0.2.2") };
        let (echoes, report) = run_any(options).await;
        let summary = report.summary;
        assert_eq!((summary.sent, summary.received + summary.lost), (30, 30));
        assert!(summary.received >= 1 && summary.lost >= 10, "{summary:?}");
        assert_eq!(summary.longest_loss_run, summary.lost, "{echoes:?}");
        assert_eq!(report.problem, None, "nobody says so");
    });
}

/// Runs ping to its end, whatever comes of it.
async fn run_any(options: PingOptions) -> (Vec<Echo>, PingReport) {
    run_and(options, |_| {}).await
}

/// Runs ping to its end, and does something after each decided request.
async fn run_and(
    options: PingOptions,
    mut then: impl FnMut(&Echo) + Send,
) -> (Vec<Echo>, PingReport) {
    let mut echoes = Vec::new();
    let keep = |echo: &Echo| {
        echoes.push(*echo);
        then(echo);
    };
    let report = ping::run(options, keep, CancellationToken::new()).await;
    (echoes, report.unwrap_or_else(|error| panic!("{error}: {error:?}")))
}

/// Runs `ip`.
fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(status.is_ok_and(|status| status.success()), "ip {arguments}");
}

/// Waits until a destination answers: a link that was just made needs a moment.
async fn until_answered(options: PingOptions) {
    let started = std::time::Instant::now();
    loop {
        let once = PingOptions { end: End::Count(1), ..options };
        let (echoes, _) = run_and(once, |_| {}).await;
        if echoes.iter().all(|echo| echo.rtt().is_some()) {
            return;
        }
        let is_over = started.elapsed() > Duration::from_secs(10);
        assert!(!is_over, "{} does not answer: {echoes:?}", options.destination);
    }
}

/// Checks a run during which `ip` is told something after ten requests, and other things
/// after twenty: what is sent in between is not answered, and at the end all is well again.
async fn check_failure(options: PingOptions, at_ten: &str, at_twenty: &[&str]) {
    until_answered(options).await;
    let options = PingOptions { end: End::Count(60), ..options };
    let (echoes, report) = run_and(options, |echo| match echo.sequence {
        9 => ip(at_ten),
        19 => at_twenty.iter().for_each(|arguments| ip(arguments)),
        _ => {}
    })
    .await;
    assert_eq!(echoes.len(), 60);
    let is_answered = |echo: &Echo| matches!(echo.outcome, Outcome::Reply(_));
    for echo in &echoes {
        assert_eq!(echo.rtt().is_some(), is_answered(echo), "lost is not zero");
        match echo.sequence {
            0..=9 => assert!(is_answered(echo), "{at_ten}: {echoes:?}"),
            // The tenth may have left before.
            11..=19 => assert!(!is_answered(echo), "{at_ten}: {echoes:?}"),
            _ => {}
        }
    }
    // Links need a moment to come back.
    assert!(echoes.iter().rev().take(5).all(is_answered), "{at_ten}: {echoes:?}");
    let summary = report.summary;
    assert_eq!(summary.sent + summary.not_sent, 60);
    assert_eq!(summary.sent, summary.received + summary.lost);
    // IPv4 refuses to send from an address that is gone, IPv6 sends, and nobody answers.
    let is_ip6 = options.destination.is_ipv6();
    let is_refused = summary.not_sent >= 9;
    assert!(is_refused || is_ip6 && summary.lost >= 9, "{at_ten}: {summary:?}");
    assert!(!is_refused || report.problem.is_some());
}

/// A run that outlasts failures, from the near end of the link to the router.
fn from_near(source: &str, destination: &str) -> PingOptions {
    PingOptions { source: source.parse().ok(), ..three(destination) }
}

/// How links and addresses fail and come back, for either kind of socket.
async fn check_failures() {
    let back = "-6 addr add 2001:db8::1/64 dev near nodad";
    let gone = "-6 addr del 2001:db8::1/64 dev near";
    check_failure(from_near("2001:db8::1", "2001:db8::2"), gone, &[back]).await;
    let back = "addr add 192.0.2.1/24 dev near";
    let gone = "addr del 192.0.2.1/24 dev near";
    check_failure(from_near("192.0.2.1", "192.0.2.2"), gone, &[back]).await;
    // A link that is down forgets its neighbours.
    let back =
        ["link set near up", "neigh replace 192.0.2.2 lladdr 02:00:00:00:00:02 dev near"];
    let gone = "link set near down";
    check_failure(from_near("192.0.2.1", "192.0.2.2"), gone, &back).await;
}

#[test]
fn datagram_sockets_outlast_links_and_addresses_that_fail() {
    let name = "datagram_sockets_outlast_links_and_addresses_that_fail";
    inside(name, &[DATAGRAM, ROUTER], check_failures);
}

#[test]
fn raw_sockets_outlast_links_and_addresses_that_fail() {
    let name = "raw_sockets_outlast_links_and_addresses_that_fail";
    inside(name, &[RAW, ROUTER], check_failures);
}

/// The kernel answers nothing, so that a test can.
const SILENT: &str = "echo 1 > /proc/sys/net/ipv4/icmp_echo_ignore_all";

/// Answers each request to the loopback address with rubbish, and then truly. Ends when
/// nothing was asked for a second.
fn answer_with_rubbish() {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4));
    let socket = socket.expect("raw sockets are allowed");
    let patience = Some(Duration::from_secs(1));
    socket.set_read_timeout(patience).expect("a socket has a limit");
    let to = std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into();
    let send = |message: &[u8]| {
        let mut message = message.to_vec();
        message[2..4].fill(0);
        let checksum = checksum(&message).to_be_bytes();
        message[2..4].copy_from_slice(&checksum);
        socket.send_to(&message, &to).expect("loopback accepts");
    };
    let mut buffer = [0; 2048];
    while let Ok(length) = std::io::Read::read(&mut &socket, &mut buffer) {
        let (header, message) = buffer[..length].split_at(20);
        if message[0] != 8 {
            continue;
        }
        let mut reply = message.to_vec();
        reply[0] = 0;
        let error = |quoted: &[u8]| [&[3, 1, 0, 0, 0, 0, 0, 0], quoted].concat();
        // Truncated replies.
        send(&reply[..reply.len() / 2]);
        send(&reply[..8]);
        // Somebody else's secret.
        let mut guess = reply.clone();
        guess[8] ^= 0xff;
        send(&guess);
        // Errors that quote rubbish, too little, and a request that never was.
        send(&error(&[0xff; 40]));
        send(&error(&header[..7]));
        send(&error(&[header, &message[..6]].concat()));
        let mut foreign = message.to_vec();
        foreign[8] ^= 0xff;
        send(&error(&[header, &foreign].concat()));
        send(&reply);
    }
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let pair = |pair: &[u8]| {
        u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))
    };
    let mut sum: u32 = bytes.chunks(2).map(pair).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}

/// Rubbish is no reply and no error, for either kind of socket.
async fn check_rubbish() {
    let answers = std::thread::spawn(answer_with_rubbish);
    // The thread is ready when the first request is answered.
    let one = PingOptions { end: End::Count(1), ..three("127.0.0.1") };
    while run_any(one).await.1.summary.received == 0 {}
    let (echoes, report) = run_any(three("127.0.0.1")).await;
    assert_eq!(report.summary.received, 3, "{echoes:?}");
    assert_eq!(report.problem, None);
    let strays = report.strays;
    assert!((9..=12).contains(&strays.forged), "{strays:?}");
    assert_eq!((strays.duplicates, strays.late, strays.reordered), (0, 0, 0));
    let report = sweep(&["127.0.0.1"], None).await;
    assert_eq!(report.targets.len(), 1);
    assert_eq!((report.targets[0].received, report.targets[0].problem), (1, None));
    assert!((3..=4).contains(&report.strays.forged), "{report:?}");
    answers.join().expect("it ends");
}

#[test]
fn datagram_sockets_are_not_misled_by_rubbish() {
    let name = "datagram_sockets_are_not_misled_by_rubbish";
    inside(name, &[DATAGRAM, SILENT], check_rubbish);
}

#[test]
fn raw_sockets_are_not_misled_by_rubbish() {
    inside("raw_sockets_are_not_misled_by_rubbish", &[RAW, SILENT], check_rubbish);
}

/// Goes on without the right to open raw sockets.
const NO_RIGHTS: &str = "exec setpriv --bounding-set=-net_raw --inh-caps=-net_raw \"$@\"";

#[test]
fn a_missing_permission_is_an_error_that_names_the_remedy() {
    let name = "a_missing_permission_is_an_error_that_names_the_remedy";
    inside(name, &[RAW, NO_RIGHTS], async || {
        let stop = CancellationToken::new();
        let error = ping::run(three("127.0.0.1"), |_| {}, stop).await;
        let text = error.expect_err("no socket can be opened").to_string();
        let remedy = "allow this user's group in the sysctl net.ipv4.ping_group_range, or \
                      give the program the capability CAP_NET_RAW";
        assert!(text.ends_with(remedy), "{text}");
        let found = detect(Family::V4).await;
        assert!(matches!(found.access, Access::None { .. }), "{found:?}");
        let network = "127.0.0.1".parse().expect("an address");
        let targets = Targets::new(Family::V4, [&network]).expect("one");
        let run = sweep::run(SweepOptions::new(targets), CancellationToken::new());
        let text = run.await.expect_err("no socket can be opened").to_string();
        assert!(text.ends_with(remedy), "{text}");
    });
}

/// Another host for all of 10.99.0.0/16 and `2001:db8:c::/112`.
const CROWD: &str = "
    $inside ip route add local 10.99.0.0/16 dev lo
    ip route add 10.99.0.0/16 via 192.0.2.2
    $inside ip -6 route add local 2001:db8:c::/112 dev lo
    ip -6 route add 2001:db8:c::/112 via 2001:db8::2";

/// Sweeps of 65,536 targets as fast as this machine sends.
async fn check_crowd() {
    check_all_answer(Family::V4, "10.99.0.0/16").await;
    check_all_answer(Family::V6, "2001:db8:c::/112").await;
}

/// Checks that all addresses of a network answer.
async fn check_all_answer(family: Family, network: &str) {
    let network = network.parse().expect("a network");
    let targets = Targets::new(family, [&network]).expect("as many as can be");
    let options = SweepOptions { rate: MAX_RATE, ..SweepOptions::new(targets) };
    let report = sweep::run(options, CancellationToken::new()).await;
    let report = report.unwrap_or_else(|error| panic!("{error}: {error:?}"));
    let is_answered = |target: &&TargetReport| target.received == 1;
    assert_eq!(report.targets.iter().filter(is_answered).count(), 65_536);
    assert_eq!(report.strays.forged, 0);
}

#[test]
fn datagram_sockets_miss_none_of_65536_targets() {
    let name = "datagram_sockets_miss_none_of_65536_targets";
    inside(name, &[DATAGRAM, ROUTER, CROWD], check_crowd);
}

#[test]
fn raw_sockets_miss_none_of_65536_targets() {
    let name = "raw_sockets_miss_none_of_65536_targets";
    inside(name, &[RAW, ROUTER, CROWD], check_crowd);
}
