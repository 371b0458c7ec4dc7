//! The reference implementation as peer: its programs and ours, over sockets, with mutual
//! TLS and in plain HTTP, in each place.

#[expect(dead_code, reason = "each ring uses its part")]
#[path = "../support/raw.rs"]
mod raw;
mod reference;
#[expect(dead_code, reason = "each ring uses its part")]
#[path = "../support/mod.rs"]
mod support;

use std::thread;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use nix::sys::signal::Signal;
use reference::{Peers, Transport};
use serde_json::Value;
use support::{DEADLINE, LOOK_AGAIN, Output, Stream};

/// Commands of a client that pings for two seconds.
const PING: &str =
    "set destination.ip4 127.0.0.1; when now + 2s / 1s; runcap ping-average-ip4; wait";

/// Tries a case over each transport, side by side: most of the time is waiting.
fn over_each_transport(case: fn(&Peers)) {
    thread::scope(|scope| {
        for transport in [Transport::Tls, Transport::Plain] {
            let name =
                thread::current().name().map(|name| format!("{name}, {transport:?}"));
            let tried = thread::Builder::new()
                .name(name.unwrap_or_default())
                .spawn_scoped(scope, move || {
                    if let Some(peers) = Peers::prepare(transport) {
                        case(&peers);
                    }
                });
            tried.expect("the system gives threads");
        }
    });
}

#[test]
fn a_reference_component_measures_for_our_supervisor_and_client() {
    over_each_transport(|peers| {
        let (_supervisor, port) = peers.our_supervisor();
        let mut component = peers.reference_component(port);
        peers.wait_for_capability(port, "peer-types");
        let output = peers.our_client(port, PING).expect(0);
        let [row] = &rows_of(&output)[..] else {
            panic!("an average is a row: {output:#?}")
        };
        assert_eq!(row[..3], ["250", "250", "250"], "as the synthetic replies have it");
        assert!(
            output.err.contains(peers.identity("Test.Components.com-1")),
            "{output:#?}"
        );
        component.wait_for(Stream::Out, &["successfully returned"]);
    });
}

#[test]
fn every_type_of_value_comes_from_a_reference_component() {
    over_each_transport(|peers| {
        let port = peers.port();
        let _component = peers.reference_listening_component(port);
        peers.wait_for_port(port);
        let commands =
            "listcap; set destination.ip4 127.0.0.1; when now; runcap peer-types; wait";
        let output = peers.our_client(port, commands).expect(0);
        for text in [
            "Capability peer-types ",
            "2001:db8::1",
            "12.5",
            "True",
            "http://example.com/a,b?c=\u{e9}",
            "location.civil",
            " *",
        ] {
            assert!(output.out.contains(text), "{text}: {output:#?}");
        }
    });
}

#[test]
fn a_failure_of_a_reference_component_is_told() {
    over_each_transport(|peers| {
        let port = peers.port();
        let _component = peers.reference_listening_component(port);
        peers.wait_for_port(port);
        let commands = "set destination.ip4 127.0.0.1; when now; runcap peer-fail; wait";
        let output = peers.our_client(port, commands).expect(1);
        assert!(output.err.contains("peer-fail always fails"), "{output:#?}");
    });
}

#[test]
fn a_reference_client_runs_what_our_component_offers() {
    over_each_transport(|peers| {
        let (_component, port) = peers.our_listening_component();
        let mut shell = peers.reference_client(port);
        shell.send("listcap");
        shell.wait_for(&["Capability ping-average-ip4"]);
        shell.send("when now + 7s / 1s");
        shell.send("set destination.ip4 127.0.0.1");
        shell.send("runcap ping-detail-ip4");
        // It takes longer than a client waits at once, so it goes through a receipt.
        shell.wait_for_result("ping-detail-ip4-0");
        shell.send("showmeas ping-detail-ip4-0");
        shell.wait_for(&["resultvalues", "(", "7)"]);
    });
}

#[test]
fn a_reference_client_repeats_a_measurement_of_our_component() {
    over_each_transport(|peers| {
        let (_component, port) = peers.our_listening_component();
        let mut shell = peers.reference_client(port);
        shell.send("listcap");
        shell.wait_for(&["Capability ping-average-ip4"]);
        shell.send("when repeat now + 4s / 2s { now + 1s / 1s }");
        shell.send("set destination.ip4 127.0.0.1");
        shell.send("runcap ping-average-ip4");
        shell.wait_for_result("ping-average-ip4-0");
    });
}

#[test]
fn a_reference_client_interrupts_our_component_and_hears_of_failures() {
    over_each_transport(|peers| {
        let (_component, port) = peers.our_listening_component();
        let mut shell = peers.reference_client(port);
        shell.send("listcap");
        shell.wait_for(&["Capability peer-fail"]);
        shell.send("set destination.ip4 127.0.0.1");
        shell.send("when now + 1s / 1s");
        shell.send("runcap peer-fail");
        shell.wait_for_answer("listmeas", "it fails as it should");
        shell.send("when now + 1h / 1s");
        shell.send("runcap ping-detail-ip4");
        shell.wait_for_answer("listmeas", "Receipt ping-detail-ip4-1 ");
        shell.send("stopmeas ping-detail-ip4-1");
        shell.wait_for_result("ping-detail-ip4-1");
    });
}

#[test]
fn our_supervisor_relays_between_reference_programs() {
    over_each_transport(|peers| {
        let (_supervisor, port) = peers.our_supervisor();
        let _component = peers.reference_component(port);
        peers.wait_for_capability(port, "ping-average-ip4");
        let mut shell = peers.reference_client(port);
        shell.send("when now + 2s / 1s");
        shell.send("set destination.ip4 127.0.0.1");
        shell.send("runcap ping-average-ip4");
        shell.wait_for_result("ping-average-ip4-0");
        shell.send("showmeas ping-average-ip4-0");
        shell.wait_for(&["delay.twoway.icmp.us.mean: 250"]);
    });
}

#[test]
fn our_supervisor_relays_failures_repeats_and_interrupts_between_reference_programs() {
    over_each_transport(|peers| {
        let (_supervisor, port) = peers.our_supervisor();
        let mut component = peers.reference_component(port);
        peers.wait_for_capability(port, "peer-late");
        let mut shell = peers.reference_client(port);
        shell.send("set destination.ip4 127.0.0.1");
        shell.send("when now + 1h / 1s");
        shell.send("runcap peer-slow");
        shell.send("when now + 2s");
        shell.send("runcap peer-late");
        shell.send("when repeat now + 4s / 2s { now + 1s / 1s }");
        shell.send("runcap ping-average-ip4");
        // It fetches all of them at once, and an interrupt the next time.
        component.wait_for(Stream::Out, &["Scheduling", "peer-slow"]);
        shell.send("stopmeas peer-slow-0");
        shell.wait_for_answer("listmeas", "peer-late fails in the end");
        shell.wait_for_result("ping-average-ip4-2");
        shell.wait_for_result("peer-slow-0");
        component.wait_for(Stream::Out, &["Interrupting peer-slow"]);
    });
}

#[test]
fn our_supervisor_relays_between_our_component_and_a_reference_client() {
    over_each_transport(|peers| {
        let (_supervisor, port) = peers.our_supervisor();
        let mut component = peers.our_component(port);
        peers.wait_for_capability(port, "peer-fail");
        let mut shell = peers.reference_client(port);
        shell.send("set destination.ip4 127.0.0.1");
        shell.send("when now + 1h / 1s");
        shell.send("runcap ping-detail-ip4");
        shell.send("when now + 2s / 1s");
        shell.send("runcap ping-average-ip4");
        shell.send("runcap peer-fail");
        shell.send("when repeat now + 4s / 2s { now + 1s / 1s }");
        shell.send("runcap ping-average-ip4");
        component.wait_for_nth(Stream::Err, &["accepted a specification"], 4);
        shell.send("stopmeas ping-detail-ip4-0");
        shell.wait_for_answer("listmeas", "it fails as it should");
        for label in ["ping-detail-ip4-0", "ping-average-ip4-1", "ping-average-ip4-3"] {
            shell.wait_for_result(label);
        }
    });
}

#[test]
fn our_client_interrupts_a_reference_component_and_hears_of_its_failures() {
    over_each_transport(|peers| {
        let (_supervisor, port) = peers.our_supervisor();
        let mut component = peers.reference_component(port);
        peers.wait_for_capability(port, "peer-late");
        let mut shell = peers.our_open_client(port);
        for command in [
            "set destination.ip4 127.0.0.1",
            "when now + 2s",
            "runcap peer-late",
            "when now + 1h / 1s",
            "runcap peer-slow",
        ] {
            shell.send(command);
        }
        component.wait_for(Stream::Out, &["Scheduling", "peer-slow"]);
        shell.send("stopmeas peer-slow-1");
        shell.send("wait peer-slow-1");
        shell.send("wait peer-late-0");
        let output = shell.finish().expect(1);
        assert!(output.err.contains("peer-late fails in the end"), "{output:#?}");
        let mut result = output.out.lines().skip_while(|it| !it.contains("icmp.count"));
        assert_eq!(result.nth(1).map(str::trim), Some("1"), "{output:#?}");
        component.wait_for(Stream::Out, &["Interrupting peer-slow"]);
    });
}

#[test]
fn our_supervisor_calls_a_reference_component_for_a_reference_client() {
    over_each_transport(|peers| {
        let called = peers.port();
        let mut component = peers.reference_listening_component(called);
        peers.wait_for_port(called);
        let (_supervisor, port) = peers.our_calling_supervisor(called);
        peers.wait_for_capability(port, "peer-fail");
        let mut shell = peers.reference_client(port);
        shell.send("set destination.ip4 127.0.0.1");
        shell.send("when now + 1h / 1s");
        shell.send("runcap peer-slow");
        shell.send("when now + 2s / 1s");
        shell.send("runcap ping-average-ip4");
        shell.send("when now");
        shell.send("runcap peer-fail");
        shell.send("when repeat now + 4s / 2s { now + 1s / 1s }");
        shell.send("runcap ping-average-ip4");
        component.wait_for(Stream::Out, &["Scheduling", "peer-slow"]);
        shell.wait_for_answer("listmeas", "peer-fail always fails");
        shell.send("stopmeas peer-slow-0");
        for label in ["peer-slow-0", "ping-average-ip4-1", "ping-average-ip4-3"] {
            shell.wait_for_result(label);
        }
        component.wait_for(Stream::Out, &["Interrupting peer-slow"]);
    });
}

#[test]
fn a_reference_component_comes_when_our_supervisor_says() {
    over_each_transport(|peers| {
        let (_supervisor, port) = peers.our_supervisor();
        let _component = peers.reference_component(port);
        peers.wait_for_capability(port, "peer-echo");
        let observer = peers.raw("cli-1", port);
        let seen = || -> Timestamp {
            let told = observer.get("/components").body;
            let told: Value = serde_json::from_str(&told).expect("it is JSON");
            let seen = told["components"][0]["last_seen"].as_str().expect("one is there");
            format!("{}Z", seen.replace(' ', "T")).parse().expect("it is a time")
        };
        // By its first question, just after it has registered, it learns when to come.
        let (mut last, mut polls) = (seen(), Vec::new());
        until("two questions", || {
            let now = seen();
            if now > last {
                polls.push(now);
            }
            last = now;
            polls.len() == 2
        });
        // Who asks in its name is told the same moment of each five seconds.
        let asked = Timestamp::now();
        let told = peers.raw("com-1", port).get("/show/specification").body;
        let told: Value = serde_json::from_str(&told).expect("it is JSON");
        let callback = &told["contents"][0];
        assert_eq!(callback["label"], "callback", "{told}");
        let pause = callback["when"].as_str().and_then(|it| it.strip_prefix("now + "));
        let pause = pause.and_then(|it| it.strip_suffix('s')).map(str::parse::<i64>);
        let pause = pause.and_then(Result::ok).unwrap_or_else(|| panic!("{told}"));
        assert!((3..=7).contains(&pause), "about five seconds, at its own phase: {told}");
        let moment = |at: Timestamp| at.as_second().rem_euclid(5);
        let phase = moment(asked + SignedDuration::from_secs(pause));
        let [first, second] = polls[..] else { panic!("{polls:?}") };
        let told = (phase - moment(first)).rem_euclid(5);
        let told = if told < 3 { told + 5 } else { told };
        let paused = second.duration_since(first).as_secs_f64();
        // Within whole seconds, and its way here.
        let late = paused - f64::from(i32::try_from(told).expect("it is small"));
        assert!(
            (-1.1..2.0).contains(&late),
            "told {told} s, paused {paused} s: {polls:?}"
        );
    });
}

#[test]
fn our_component_registers_with_a_reference_supervisor_and_delivers_to_it() {
    over_each_transport(|peers| {
        let (components, clients) = (peers.port(), peers.port());
        let mut supervisor = peers.reference_supervisor(components, clients);
        peers.wait_for_port(components);
        let mut component = peers.our_component(components);
        component.wait_for(Stream::Err, &peers.registered());
        let mut shell = peers.reference_client(clients);
        shell.wait_for_capability("ping-average-ip4");
        shell.send("when now + 2s / 1s");
        shell.send("set destination.ip4 127.0.0.1");
        shell.send("runcap ping-average-ip4");
        supervisor.wait_for(Stream::Out, &["Received result for ping-average-ip4"]);
        component.wait_for(Stream::Err, &["\"finished\"", "result"]);
        shell.wait_for_result("ping-average-ip4-0");
    });
}

#[test]
fn our_component_registers_again_when_a_reference_supervisor_restarts() {
    over_each_transport(|peers| {
        let (components, clients) = (peers.port(), peers.port());
        let first = peers.reference_supervisor(components, clients);
        peers.wait_for_port(components);
        let mut component = peers.our_component(components);
        component.wait_for(Stream::Err, &peers.registered());
        first.signal(Signal::SIGKILL);
        first.finish();
        component.wait_for(Stream::Err, &["cannot register"]);
        let _second = peers.reference_supervisor(components, clients);
        component.wait_for_nth(Stream::Err, &peers.registered(), 2);
    });
}

#[test]
fn our_component_serves_a_reference_client_that_listens() {
    over_each_transport(|peers| {
        let port = peers.port();
        let mut shell = peers.reference_listening_client(port);
        peers.wait_for_port(port);
        let _component = peers.our_component(port);
        shell.wait_for_capability("ping-average-ip4");
        shell.send("when now + 2s / 1s");
        shell.send("set destination.ip4 127.0.0.1");
        shell.send("runcap ping-average-ip4");
        shell.wait_for_result("ping-average-ip4-0");
    });
}

/// Returns the rows of a result, each as its cells.
fn rows_of(output: &Output) -> Vec<Vec<&str>> {
    let lines = output.out.lines().skip_while(|line| !line.starts_with("delay."));
    lines.skip(1).map(|line| line.split_whitespace().collect()).collect()
}

/// Looks again and again until a condition holds.
#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < DEADLINE, "{what} does not come true");
        thread::sleep(LOOK_AGAIN * 10);
    }
}
