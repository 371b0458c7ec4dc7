//! Measurements against the loopback addresses, with the sockets this user may open.

mod support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use mplane_probe::packet::{Family, Obstacle, StampSource};
use mplane_probe::ping::{
    self, Echo, End, Outcome, PingError, PingOptions, PingReport, STOP_GRACE, Strays,
};
use mplane_probe::socket::{Access, OpenEchoError, detect};
use mplane_probe::tcp::{self, Attempt, ConnectOptions, ConnectOutcome, ConnectReport};
use support::skip;
use tokio_util::sync::CancellationToken;

/// The loopback address of IPv4.
const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// The loopback address of IPv6.
const LOCALHOST_V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Milliseconds as a duration.
fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Runs ping to its end; `None`, and a loud line, if this user may not open ICMP
/// sockets or the family does not exist here.
async fn run_ping(options: PingOptions) -> Option<(Vec<Echo>, PingReport)> {
    let mut echoes = Vec::new();
    let keep = |echo: &Echo| echoes.push(*echo);
    match ping::run(options, keep, CancellationToken::new()).await {
        Ok(report) => Some((echoes, report)),
        Err(PingError::Open(error @ OpenEchoError::NotPermitted { .. })) => {
            skip(&error.to_string());
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Checks twenty requests to `destination`.
async fn check_ping(destination: IpAddr) {
    let options = PingOptions::new(destination, ms(10), End::Count(20));
    let begun = Instant::now();
    let Some((echoes, report)) = run_ping(options).await else {
        return;
    };
    let summary = report.summary;
    assert!(begun.elapsed() >= ms(190), "20 requests last 19 periods");
    assert_eq!((summary.sent, summary.received, summary.lost), (20, 20, 0));
    assert_eq!(report.strays, Strays::default());
    assert_eq!(summary.kernel_stamped + summary.user_stamped, 20);
    let numbers: Vec<u64> = echoes.iter().map(|echo| echo.sequence).collect();
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
    assert!(echoes.is_sorted_by_key(|echo| echo.sent_utc));
    for echo in &echoes {
        let Outcome::Reply(reply) = echo.outcome else {
            panic!("no reply: {echo:?}");
        };
        assert!(reply.rtt > Duration::ZERO && reply.rtt < options.timeout, "{reply:?}");
        assert_eq!(reply.hop_limit, Some(64));
        let both = [reply.stamps.transmit, reply.stamps.receive];
        if both.contains(&StampSource::User) {
            assert_eq!(reply.stamps.delay, StampSource::User, "clocks are not mixed");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_the_loopback_address_of_ipv4() {
    check_ping(LOCALHOST).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_the_loopback_address_of_ipv6() {
    if std::net::UdpSocket::bind((LOCALHOST_V6, 0)).is_err() {
        skip("there is no IPv6 loopback address");
        return;
    }
    check_ping(LOCALHOST_V6).await;
}

#[tokio::test]
async fn pings_from_a_chosen_source_with_a_large_payload() {
    let source = Some(LOCALHOST);
    let destination = IpAddr::V4(Ipv4Addr::new(127, 1, 2, 3));
    let options = PingOptions {
        source,
        payload_bytes: 65_507,
        ttl: Some(1),
        ..PingOptions::new(destination, ms(10), End::Count(3))
    };
    let Some((_, report)) = run_ping(options).await else {
        return;
    };
    assert_eq!(report.summary.received, 3, "{report:?}");
}

#[tokio::test]
async fn several_runs_do_not_take_each_others_replies() {
    let options = PingOptions::new(LOCALHOST, ms(5), End::Count(20));
    let runs: Vec<_> = (0..8).map(|_| tokio::spawn(run_ping(options))).collect();
    for run in runs {
        let Some((_, report)) = run.await.expect("the run does not panic") else {
            return;
        };
        assert_eq!(report.summary.received, 20);
        assert_eq!(report.strays, Strays::default());
    }
}

#[tokio::test]
async fn stop_ends_an_endless_run_soon() {
    let options = PingOptions::new(LOCALHOST, ms(1), End::Never);
    let stop = CancellationToken::new();
    let mut count = 0;
    let on_echo = |_: &Echo| {
        count += 1;
        if count == 5 {
            stop.cancel();
        }
    };
    let begun = Instant::now();
    match ping::run(options, on_echo, stop.clone()).await {
        Ok(report) => assert!(report.summary.received >= 5, "{report:?}"),
        Err(error) => skip(&error.to_string()),
    }
    assert!(begun.elapsed() < STOP_GRACE + ms(2000));
}

#[tokio::test]
async fn a_run_stopped_before_it_began_sends_nothing() {
    let options = PingOptions::new(LOCALHOST, ms(1), End::Never);
    let stop = CancellationToken::new();
    stop.cancel();
    match ping::run(options, |_| panic!("nothing was sent"), stop).await {
        Ok(report) => assert_eq!((report.summary.sent, report.summary.delays), (0, None)),
        Err(error) => skip(&error.to_string()),
    }
}

#[tokio::test]
async fn refuses_what_can_never_be_measured() {
    let refuse = async |change: fn(&mut PingOptions)| {
        let mut options = PingOptions::new(LOCALHOST, ms(100), End::Count(1));
        change(&mut options);
        let run = ping::run(options, |_| {}, CancellationToken::new());
        run.await.expect_err("impossible options").to_string()
    };
    assert_eq!(
        refuse(|options| options.destination = Ipv4Addr::UNSPECIFIED.into()).await,
        "0.0.0.0 is not the address of one host: choose a unicast address"
    );
    assert_eq!(
        refuse(|options| options.destination = "fe80::1".parse().expect("address")).await,
        "fe80::1 is a link-local address, which needs an interface: choose a global or \
         unique local address"
    );
    assert_eq!(
        refuse(|options| options.payload_bytes = 7).await,
        "payload of 7 bytes is impossible: choose 8 to 65507 bytes"
    );
    assert_eq!(
        refuse(|options| options.ttl = Some(0)).await,
        "a ttl of 0 lets no packet leave: choose 1 to 255"
    );
    assert_eq!(
        refuse(|options| options.source = Some(LOCALHOST_V6)).await,
        "source address ::1 is not an IPv4 address: choose one that is"
    );
}

#[tokio::test]
async fn a_source_address_of_somebody_else_is_an_error() {
    let source = Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));
    let options =
        PingOptions { source, ..PingOptions::new(LOCALHOST, ms(100), End::Count(1)) };
    match ping::run(options, |_| {}, CancellationToken::new()).await {
        Err(PingError::Open(error @ OpenEchoError::NotPermitted { .. })) => {
            skip(&error.to_string());
        }
        Err(error) => assert_eq!(
            error.to_string(),
            "cannot send from 192.0.2.1: choose an address of this machine"
        ),
        Ok(report) => panic!("sent from a foreign address: {report:?}"),
    }
}

#[tokio::test]
async fn detects_what_is_available_within_its_deadline() {
    for family in [Family::V4, Family::V6] {
        let begun = Instant::now();
        let found = detect(family).await;
        assert!(begun.elapsed() < ms(1000), "300 ms and a busy machine");
        println!("{found}");
        if let Access::None { .. } = found.access {
            skip(&found.to_string());
        } else {
            assert!(found.is_usable() && found.is_loopback_answering, "{found:?}");
        }
    }
}

/// Runs TCP connections to their end.
async fn run_tcp(options: ConnectOptions) -> (Vec<Attempt>, ConnectReport) {
    let mut attempts = Vec::new();
    let keep = |attempt: &Attempt| attempts.push(*attempt);
    let report = tcp::run(options, keep, CancellationToken::new()).await;
    (attempts, report.expect("loopback connections can be attempted"))
}

/// Options for ten connections to `destination`.
fn ten_connections(destination: SocketAddr) -> ConnectOptions {
    let (period, timeout) = (ms(5), ms(1000));
    ConnectOptions { destination, source: None, period, end: End::Count(10), timeout }
}

#[tokio::test]
async fn measures_connections_that_are_accepted() {
    let listener = std::net::TcpListener::bind((LOCALHOST, 0)).expect("loopback binds");
    let destination = listener.local_addr().expect("bound");
    let source = Some(LOCALHOST);
    let (attempts, report) =
        run_tcp(ConnectOptions { source, ..ten_connections(destination) }).await;
    println!("{report:?}");
    assert_eq!((report.summary.attempts, report.summary.connected), (10, 10));
    assert!(report.summary.delays.is_some());
    for (number, attempt) in (0..).zip(&attempts) {
        assert_eq!(attempt.sequence, number);
        assert!(attempt.delay() > Some(Duration::ZERO));
    }
}

#[tokio::test]
async fn measures_connections_that_are_refused() {
    let listener = std::net::TcpListener::bind((LOCALHOST, 0)).expect("loopback binds");
    let destination = listener.local_addr().expect("bound");
    drop(listener);
    let (attempts, report) = run_tcp(ten_connections(destination)).await;
    assert_eq!(report.summary.refused, 10, "{attempts:?}");
    assert_eq!(report.summary.delays, None, "delays are those of connections");
    assert!(attempts.iter().all(|attempt| attempt.delay() > Some(Duration::ZERO)));
}

#[tokio::test]
async fn a_connection_without_answer_is_a_timeout_without_delay() {
    // A full accept queue: the kernel ignores further handshakes.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
        .expect("TCP exists");
    socket.bind(&SocketAddr::new(LOCALHOST, 0).into()).expect("loopback binds");
    socket.listen(0).expect("listens");
    let address = socket.local_addr().expect("bound").as_socket().expect("IP");
    let _fills_the_queue = std::net::TcpStream::connect(address).expect("the only place");
    let options = ConnectOptions {
        period: ms(20),
        timeout: ms(60),
        end: End::Count(4),
        ..ten_connections(address)
    };
    let (attempts, report) = run_tcp(options).await;
    assert_eq!((report.summary.timed_out, report.summary.delays), (4, None));
    assert!(attempts.iter().all(|attempt| attempt.delay().is_none()), "{attempts:?}");

    let stop = CancellationToken::new();
    let options = ConnectOptions { timeout: ms(5000), end: End::Never, ..options };
    let options = ConnectOptions { period: ms(100), ..options };
    let mut outcomes = Vec::new();
    let keep = |attempt: &Attempt| outcomes.push(attempt.outcome);
    let (report, ()) = tokio::join!(tcp::run(options, keep, stop.clone()), async {
        tokio::time::sleep(ms(50)).await;
        stop.cancel();
    });
    let report = report.expect("loopback connections can be attempted");
    assert_eq!(report.summary.pending, report.summary.attempts);
    assert!(report.summary.attempts >= 1);
    assert!(outcomes.iter().all(|outcome| *outcome == ConnectOutcome::Pending));
}

#[tokio::test]
async fn tcp_refuses_options_that_cannot_be_kept() {
    let destination = SocketAddr::new(LOCALHOST, 9);
    let refuse = async |options| {
        let run = tcp::run(options, |_| {}, CancellationToken::new());
        run.await.expect_err("impossible options").to_string()
    };
    let options = ten_connections(destination);
    assert_eq!(
        refuse(ConnectOptions { timeout: ms(1280), ..options }).await,
        "a timeout of 1.28s with a period of 5ms leaves more than 256 connections open: \
         choose a longer period or a shorter timeout"
    );
    let source = Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));
    assert_eq!(
        refuse(ConnectOptions { source, ..options }).await,
        "cannot connect from 192.0.2.1: choose an address of this machine"
    );
}

#[test]
fn runs_can_be_moved_between_threads() {
    fn assert_send(_: impl Send) {}
    let options = PingOptions::new(LOCALHOST, ms(1), End::Never);
    assert_send(ping::run(options, |_| {}, CancellationToken::new()));
    let options = ten_connections(SocketAddr::new(LOCALHOST, 9));
    assert_send(tcp::run(options, |_| {}, CancellationToken::new()));
    assert_send(detect(Family::V4));
    assert_send(Obstacle::TooBig);
}
