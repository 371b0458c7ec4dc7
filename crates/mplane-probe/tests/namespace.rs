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
