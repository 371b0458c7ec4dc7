//! `mplane demo` as newcomers start it, on machines of all kinds: with and without
//! rights, home, IPv6, terminal, and with a signal in the middle.
//!
//! Tests that need another machine than this one make it of namespaces and dropped
//! rights, which takes root.

#[path = "support/machine.rs"]
mod machine;
#[path = "support/newcomer.rs"]
mod newcomer;
#[expect(dead_code, reason = "each ring uses its part")]
mod support;

use std::fs::{self, File, Permissions, TryLockError};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use machine::{
    AS_NOBODY, DATAGRAM, LOOPBACK, NO_CAPABILITIES, NO_DATAGRAM, NO_IP6, NOBODY,
    SILENT_HOSTS, give_away, in_network, inside, networks_work, reachable, skip, user,
    works,
};
use newcomer::{MEASURES, check, check_nothing_is_left, demo, kept, states, told_state};
use nix::sys::signal::Signal;
use support::{Output, Program, Stream, check_row, command, folder, rows, run, send};

/// The shell that the demo names when it is kept.
const MPCLI: &str = env!("CARGO_BIN_EXE_mpcli");

#[test]
fn measures_and_shows_rows_aggregate_and_the_way_of_each_message() {
    let place = folder();
    let started = Instant::now();
    let output = run(demo(place.path(), &["--duration", "2s"])).expect(0);
    let delays = check(&output);
    let is_promised =
        |line: &str| line.contains("POST /  ") && line.contains("  200 receipt ");
    assert!(output.out.lines().any(is_promised), "{output:#?}");
    assert!((1..=3).contains(&delays.len()), "one each second: {output:#?}");
    let progress = output.err.lines().filter(|line| line.contains(MEASURES)).count();
    let seconds = started.elapsed().as_secs() + 1;
    assert!((1..=seconds).contains(&(progress as u64)), "{output:#?}");
    assert!(output.err.contains("https://127.0.0.1:"), "{output:#?}");
    assert!(!output.out.contains(MEASURES), "rows alone: {output:#?}");
    assert!(told_state(&output.err).starts_with(place.path()));
    check_nothing_is_left(place.path());
}

#[test]
fn works_for_a_user_without_rights_and_without_home() {
    let place = folder();
    let mut demo = demo(place.path(), &["--duration", "1s"]);
    demo.env_remove("HOME");
    let mut user = user();
    if user == 0 {
        if !works(&AS_NOBODY) {
            return;
        }
        give_away(place.path());
        user = NOBODY;
        demo = inside(&AS_NOBODY, &reachable(place.path(), &demo));
    }
    let output = run(demo).expect(0);
    check(&output);
    let state = told_state(&output.err);
    assert!(state.starts_with(place.path().join(format!("tmp/mplane-{user}"))));
    assert!(!state.exists());
}

#[test]
fn connects_over_tcp_where_all_icmp_is_forbidden_and_says_what_would_help() {
    if !networks_work() || !works(&NO_CAPABILITIES) {
        return;
    }
    let place = folder();
    let demo = inside(&NO_CAPABILITIES, &demo(place.path(), &["--duration", "1s"]));
    let output = run(in_network(&[LOOPBACK, NO_DATAGRAM], &demo)).expect(0);
    check(&output);
    assert!(output.out.contains("delay.twoway.tcp.connect.us"), "{output:#?}");
    for said in [
        "neither datagram socket (Permission denied",
        "nor raw socket (Operation not permitted",
        "net.ipv4.ping_group_range",
        "CAP_NET_RAW",
        "TCP connects instead",
        "asks for tcp-connect-ip4 to 127.0.0.1",
    ] {
        assert!(output.err.contains(said), "{said}: {output:#?}");
    }
}

#[test]
fn fails_for_a_target_that_only_icmp_could_reach_where_it_is_forbidden() {
    if !networks_work() || !works(&NO_CAPABILITIES) {
        return;
    }
    let place = folder();
    let demo = demo(place.path(), &["--duration", "1s", "--target", "127.0.0.1"]);
    let demo = inside(&NO_CAPABILITIES, &demo);
    let output = run(in_network(&[LOOPBACK, NO_DATAGRAM], &demo)).expect(1);
    for said in ["\"choose what to measure\"", "net.ipv4.ping_group_range", "--port"] {
        assert!(output.err.contains(said), "{said}: {output:#?}");
    }
}

#[test]
fn pings_with_datagram_sockets_where_everyone_may() {
    if !networks_work() || !works(&AS_NOBODY) {
        return;
    }
    let place = folder();
    let demo = reachable(place.path(), &demo(place.path(), &["--duration", "1s"]));
    give_away(place.path());
    let demo = inside(&AS_NOBODY, &demo);
    let output = run(in_network(&[LOOPBACK, DATAGRAM], &demo)).expect(0);
    check(&output);
    assert!(
        output.err.contains("ping works without privileges (datagram socket)"),
        "{output:#?}"
    );
    assert!(output.out.contains("socket: datagram"), "{output:#?}");
}

#[test]
fn pings_with_raw_sockets_where_datagram_sockets_are_forbidden() {
    if !networks_work() {
        return;
    }
    let place = folder();
    let demo = demo(place.path(), &["--duration", "1s"]);
    let output = run(in_network(&[LOOPBACK, NO_DATAGRAM], &demo)).expect(0);
    check(&output);
    assert!(output.err.contains("ping works with a raw socket"), "{output:#?}");
    assert!(output.out.contains("socket: raw"), "{output:#?}");
}

#[test]
fn offers_no_ip6_on_a_machine_without_it() {
    if !networks_work() {
        return;
    }
    let place = folder();
    let demo = demo(place.path(), &["--duration", "1s"]);
    let output = run(in_network(&[LOOPBACK, NO_IP6], &demo)).expect(0);
    check(&output);
    assert!(!output.out.contains("ip6") && !output.err.contains("ip6"), "{output:#?}");
    assert!(!output.err.contains("IPv6"), "nobody asked for it: {output:#?}");
}

#[test]
fn measures_to_an_ip6_target() {
    if !networks_work() {
        return;
    }
    if UdpSocket::bind("[::1]:0").is_err() {
        return skip("there is no IPv6 here");
    }
    let place = folder();
    let demo = demo(place.path(), &["--duration", "1s", "--target", "::1"]);
    let output = run(in_network(&[LOOPBACK], &demo)).expect(0);
    check(&output);
    assert!(output.err.contains("asks for ping-detail-ip6 to ::1"), "{output:#?}");
}

#[test]
fn measures_tcp_to_a_port_that_was_named() {
    let place = folder();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("there are ports");
    let port = listener.local_addr().expect("it has an address").port().to_string();
    let arguments = ["--duration", "1s", "--target", "127.0.0.1", "--port", &port];
    let output = run(demo(place.path(), &arguments)).expect(0);
    check(&output);
    let rows = rows(&output.out);
    assert!(rows.iter().all(|row| row.last() == Some(&"connected")), "{output:#?}");
}

#[test]
fn rows_of_lost_packets_have_no_delay_and_the_demo_fails() {
    if !networks_work() {
        return;
    }
    let place = folder();
    let demo = demo(place.path(), &["--duration", "2s", "--target", "192.0.2.1"]);
    let started = Instant::now();
    let output = run(in_network(&[LOOPBACK, SILENT_HOSTS], &demo)).expect(1);
    assert!(started.elapsed().as_secs() < 20, "it has 20 s in total");
    let rows = rows(&output.out);
    assert!(!rows.is_empty(), "{output:#?}");
    for row in &rows {
        assert_eq!(check_row(row), None, "{output:#?}");
    }
    let counts = format!("{0} sent, 0 answered, {0} lost\n", rows.len());
    assert!(output.out.contains(&counts), "{output:#?}");
    let failure = "error: the step \"measure\" failed: 192.0.2.1 did not answer";
    assert!(output.err.contains(failure), "{output:#?}");
    check_nothing_is_left(place.path());
}

#[test]
fn fails_at_a_step_with_a_name_where_there_is_no_route() {
    if !networks_work() {
        return;
    }
    let place = folder();
    let demo = demo(place.path(), &["--duration", "1s", "--target", "192.0.2.1"]);
    let output = run(in_network(&[LOOPBACK], &demo)).expect(1);
    for said in ["error: the step ", "Network is unreachable"] {
        let error = output.err.lines().last().unwrap_or_default();
        assert!(error.contains(said), "{said}: {output:#?}");
    }
    check_nothing_is_left(place.path());
}

#[test]
fn fails_for_an_unknown_name_and_says_what_to_do() {
    // Without a network no resolver is waited for.
    if !networks_work() {
        return;
    }
    let place = folder();
    let demo = demo(place.path(), &["--target", "host.invalid"]);
    let output = run(in_network(&[LOOPBACK], &demo)).expect(1);
    for said in ["error: the step ", "host.invalid", "give an address"] {
        assert!(output.err.contains(said), "{said}: {output:#?}");
    }
}

#[test]
fn refuses_durations_that_it_cannot_keep() {
    for duration in ["60s", "11s", "0s", "soon", ""] {
        let place = folder();
        let output = run(demo(place.path(), &["--duration", duration])).expect(2);
        assert!(output.err.contains("--duration"), "{output:#?}");
        assert!(output.out.is_empty(), "{output:#?}");
    }
}

#[test]
fn falls_back_to_the_temporary_folder_where_home_cannot_be_written_to() {
    let place = folder();
    let mut demo = demo(place.path(), &["--duration", "1s"]);
    demo.env("HOME", "/proc");
    let output = run(demo).expect(0);
    check(&output);
    assert!(told_state(&output.err).starts_with(place.path().join("tmp")));
    check_nothing_is_left(place.path());
}

#[test]
fn falls_back_to_the_temporary_folder_where_home_is_read_only() {
    let mounts = ["unshare", "--mount", "sh", "-c"];
    let script = "mount -t tmpfs -o ro none \"$HOME\" && exec \"$@\"";
    if !works(
        &[mounts.as_slice(), &["mount -t tmpfs none /mnt && exec \"$@\"", "sh"]].concat(),
    ) {
        return;
    }
    let (place, home) = (folder(), folder());
    let mut demo = demo(place.path(), &["--duration", "1s"]);
    demo.env("HOME", home.path());
    let output = run(inside(&[mounts.as_slice(), &[script, "sh"]].concat(), &demo));
    let output = output.expect(0);
    check(&output);
    assert!(told_state(&output.err).starts_with(place.path().join("tmp")));
    check_nothing_is_left(place.path());
}

#[test]
fn keeps_state_where_it_is_told_to() {
    let place = folder();
    let (chosen, xdg) = (place.path().join("chosen"), place.path().join("xdg"));
    let chosen_text = chosen.to_string_lossy();
    let mut first = demo(place.path(), &["--duration", "1s"]);
    first.args(["--state-dir", &chosen_text]).env("XDG_STATE_HOME", &xdg);
    assert!(told_state(&run(first).expect(0).err).starts_with(&chosen));
    let mut second = demo(place.path(), &["--duration", "1s"]);
    second.env("XDG_STATE_HOME", &xdg);
    assert!(told_state(&run(second).expect(0).err).starts_with(&xdg));
    let mut third = demo(place.path(), &["--duration", "1s"]);
    third.env("XDG_STATE_HOME", "relative").current_dir(place.path());
    let state = told_state(&run(third).expect(0).err);
    assert!(state.starts_with(place.path().join(".local/state")), "not relative");
}

#[test]
fn fails_at_a_step_with_a_name_where_no_folder_can_be_made() {
    let place = folder();
    let demo = demo(place.path(), &["--state-dir", "/proc/none"]);
    let output = run(demo).expect(1);
    for said in ["error: the step ", "/proc/none", "--state-dir"] {
        assert!(output.err.contains(said), "{said}: {output:#?}");
    }
}

#[test]
fn does_not_trust_a_temporary_folder_that_others_can_write_to() {
    let place = folder();
    let mut demo = demo(place.path(), &["--duration", "1s"]);
    let user = user();
    let planted = place.path().join(format!("tmp/mplane-{user}"));
    fs::create_dir(&planted).expect("it is not there yet");
    fs::set_permissions(&planted, Permissions::from_mode(0o777)).expect("it is ours");
    demo.env("HOME", "/proc");
    let finished = run(demo);
    let mode = fs::metadata(&planted).expect("it is there").permissions().mode();
    let is_used = finished.status.success()
        && told_state(&finished.output.err).starts_with(&planted);
    assert!(!is_used || mode.trailing_zeros() >= 6, "{mode:o}: {finished:#?}");
}

#[test]
fn does_without_standard_streams() {
    let place = folder();
    let demo = demo(place.path(), &["--duration", "1s"]);
    let closed = ["sh", "-c", "exec \"$@\" <&- >&- 2>&-", "sh"];
    run(inside(&closed, &demo)).expect(0);
    check_nothing_is_left(place.path());
}

#[test]
fn does_not_mind_a_reader_that_goes_away() {
    let place = folder();
    let closed = || {
        let (reader, writer) = std::io::pipe().expect("there are pipes");
        drop(reader);
        Stdio::from(writer)
    };
    let first = demo(place.path(), &["--duration", "1s"]);
    Program::start_with(first, closed(), Stdio::piped()).finish().expect(0);
    let second = demo(place.path(), &["--duration", "1s"]);
    let output = Program::start_with(second, Stdio::piped(), closed()).finish().expect(0);
    assert!(!rows(&output.out).is_empty(), "{output:#?}");
}

#[test]
fn two_run_side_by_side() {
    let place = folder();
    let start = || Program::start(demo(place.path(), &["--duration", "2s"]));
    let mut both = [start(), start()];
    for demo in &mut both {
        demo.wait_for(Stream::Err, &[MEASURES]);
    }
    let [one, two] = both.map(|demo| demo.finish().expect(0));
    check(&one);
    check(&two);
    assert_ne!(told_state(&one.err), told_state(&two.err));
    let port = |output: &Output| {
        let (_, rest) = output.err.split_once("https://").expect("it says where");
        rest.lines().next().map(ToOwned::to_owned)
    };
    assert_ne!(port(&one), port(&two));
    check_nothing_is_left(place.path());
}

/// Checks that a signal ends a demo that measures, soon and without a trace.
fn check_signal(signal: Signal, code: i32) {
    let place = folder();
    let mut demo = Program::start(demo(place.path(), &["--duration", "10s"]));
    demo.wait_for(Stream::Err, &[MEASURES]);
    let [state] = <[PathBuf; 1]>::try_from(states(place.path())).expect("it has state");
    let mode = |path: &Path| {
        fs::metadata(path).expect("it is there").permissions().mode() & 0o777
    };
    assert_eq!(mode(&state), 0o700, "it is private");
    for entry in fs::read_dir(&state).expect("it is readable") {
        let path = entry.expect("it is readable").path();
        let is_key = path.extension().is_some_and(|extension| extension == "key");
        assert!(!is_key || mode(&path) == 0o600, "{} is private", path.display());
    }
    let lock = File::open(state.join("lock")).expect("there is a lock");
    assert!(matches!(lock.try_lock(), Err(TryLockError::WouldBlock)), "it is locked");
    let sent = Instant::now();
    demo.signal(signal);
    demo.finish().expect(code);
    assert!(sent.elapsed().as_secs() < 5, "it ends soon");
    check_nothing_is_left(place.path());
}

#[test]
fn sigint_ends_it_cleanly() {
    check_signal(Signal::SIGINT, 130);
}

#[test]
fn ctrl_c_shows_what_was_measured_so_far() {
    let place = folder();
    let mut demo = Program::start(demo(place.path(), &["--duration", "10s"]));
    // A line each second: two seconds are over then.
    demo.wait_for_nth(Stream::Err, &[MEASURES], 3);
    demo.signal(Signal::SIGINT);
    let output = demo.finish().expect(130);
    let delays = check(&output);
    assert!((2..=9).contains(&delays.len()), "not all of it: {output:#?}");
    assert!(
        output.err.contains("interrupted: waits for what was measured"),
        "{output:#?}"
    );
    assert!(!output.err.contains("error:"), "{output:#?}");
    let is_interrupt =
        |line: &str| line.contains("POST /  ") && line.contains("interrupt");
    assert!(output.out.lines().any(is_interrupt), "{output:#?}");
    check_nothing_is_left(place.path());
}

#[test]
fn ctrl_c_twice_ends_it_as_well() {
    let place = folder();
    let mut demo = Program::start(demo(place.path(), &["--duration", "10s"]));
    demo.wait_for(Stream::Err, &[MEASURES]);
    demo.signal(Signal::SIGINT);
    demo.wait_for(Stream::Err, &["interrupted: waits"]);
    let sent = Instant::now();
    demo.signal(Signal::SIGINT);
    let output = demo.finish().expect(130);
    assert!(sent.elapsed().as_secs() < 3, "it waits for nothing more: {output:#?}");
    check_nothing_is_left(place.path());
}

#[test]
fn sigterm_ends_it_cleanly() {
    check_signal(Signal::SIGTERM, 143);
}

#[test]
fn signals_end_it_as_the_first_process_of_a_container() {
    let container = ["unshare", "--pid", "--fork", "--kill-child"];
    if !works(&container) {
        return;
    }
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let place = folder();
        let demo = demo(place.path(), &["--duration", "10s"]);
        let mut outer = Program::start(inside(&container, &demo));
        outer.wait_for(Stream::Err, &[MEASURES]);
        let children = format!("/proc/{0}/task/{0}/children", outer.id());
        let inner = fs::read_to_string(children).expect("the kernel tells children");
        let sent = Instant::now();
        send(inner.trim().parse().expect("there is one child"), signal);
        outer.finish().expect(code);
        assert!(sent.elapsed().as_secs() < 5, "it ends soon");
        check_nothing_is_left(place.path());
    }
}

#[test]
fn ignores_proxies() {
    let place = folder();
    let mut demo = demo(place.path(), &["--duration", "1s"]);
    for name in ["http_proxy", "https_proxy", "all_proxy"] {
        // Port 9 (discard) of a documentation address: nobody is there.
        demo.env(name, "http://192.0.2.9:9").env(name.to_uppercase(), "192.0.2.9:9");
    }
    check(&run(demo).expect(0));
}

#[test]
fn a_kept_domain_does_what_it_explains() {
    let place = folder();
    let mut demo = kept(place.path());
    let line = demo.wait_for(Stream::Out, &["mpcli --config", " -c \""]);
    let programs = Path::new(MPCLI).parent().expect("it is in a folder");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = format!("{}:{}", programs.display(), path.display());
    let shell = |line: &str| {
        let mut shell = command("sh");
        shell.args(["-c", line]).env("PATH", &path);
        run(shell).expect(0)
    };
    let output = shell(line.trim());
    let delays: Vec<_> = rows(&output.out).iter().map(|row| check_row(row)).collect();
    assert!(delays.iter().any(Option::is_some), "{output:#?}");

    let line = demo.wait_for(Stream::Out, &["mpcli --config"]);
    let listed = shell(&format!("echo listcap | {}", line.trim())).out;
    if listed.contains("ping-detail-ip4") {
        let has_ip6 = UdpSocket::bind("[::1]:0").is_ok();
        assert_eq!(listed.contains("ping-detail-ip6"), has_ip6, "{listed}");
    }
}

#[test]
fn a_signal_ends_a_kept_domain_well_and_leaves_its_files() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGINT] {
        let place = folder();
        let demo = kept(place.path());
        demo.signal(signal);
        let output = demo.finish().expect(0);
        assert_eq!(states(place.path()), [told_state(&output.err)]);
        assert!(told_state(&output.err).join("client.toml").exists());
    }
}

#[test]
fn the_next_demo_leaves_kept_files_alone() {
    let place = folder();
    let demo_kept = kept(place.path());
    demo_kept.signal(Signal::SIGINT);
    let state = told_state(&demo_kept.finish().output.err);
    run(demo(place.path(), &["--duration", "1s"])).expect(0);
    assert!(state.join("client.toml").exists(), "it was kept");
}

#[test]
fn the_next_demo_removes_what_a_killed_one_left() {
    let place = folder();
    let mut killed = Program::start(demo(place.path(), &["--duration", "10s"]));
    killed.wait_for(Stream::Err, &[MEASURES]);
    killed.signal(Signal::SIGKILL);
    assert!(!killed.finish().status.success());
    assert_eq!(states(place.path()).len(), 1, "nobody could remove it");
    run(demo(place.path(), &["--duration", "1s"])).expect(0);
    check_nothing_is_left(place.path());
}
