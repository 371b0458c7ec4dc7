//! What a component tells about itself.

use crate::domain::{
    Domain, MPCOM, MPSUP, TCP, address_in, daemon, get, initiator, measure,
};
use crate::support::{Program, Stream};

#[test]
fn a_component_tells_metrics_and_health() {
    let domain = Domain::new();
    let (_supervisor, supervisor) = domain.supervisor();
    let section =
        format!("[metrics]\naddress = \"127.0.0.1:0\"\n\n{}{TCP}", initiator(supervisor));
    let config = domain.configure("component.toml", "com-1", &section);
    let mut component = Program::start(daemon(MPCOM, &config));
    let told = component.wait_for(Stream::Err, &["\"tells metrics and health\""]);
    let address = address_in(&told);
    component.wait_for(Stream::Err, &["\"registered\"", "Test.Supervisors.sup-1"]);
    assert!(get(address, "/healthz", "Host: metrics").ends_with("ok\n"));
    let commands = format!("{}; wait", measure(supervisor.port(), "now + 1s / 1s"));
    domain.shell(supervisor, &commands).expect(0);
    component.wait_for(Stream::Err, &["\"finished\"", "result"]);
    let metrics = get(address, "/metrics", "Host: metrics");
    for line in [
        "mplane_component_specifications_accepted_total 1",
        "mplane_component_jobs_finished_total{outcome=\"result\"} 1",
        "mplane_component_registrations_total 1",
        "mplane_component_jobs_active 0",
        "# EOF",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

#[test]
fn a_supervisor_tells_metrics_health_and_readiness() {
    let domain = Domain::new();
    let section = "[metrics]\naddress = \"127.0.0.1:0\"\n\n[supervisor.listener]\n\
                   address = \"127.0.0.1:0\"\n";
    let config = domain.configure("supervisor.toml", "sup-1", section);
    let mut program = Program::start(daemon(MPSUP, &config));
    let supervisor = address_in(&program.wait_for(Stream::Err, &["\"supervises\""]));
    let told = program.wait_for(Stream::Err, &["\"tells metrics and health\""]);
    let address = address_in(&told);
    let _component = domain.component(supervisor);
    let commands = format!("{}; wait", measure(supervisor.port(), "now + 1s / 1s"));
    domain.shell(supervisor, &commands).expect(0);
    domain.shell(supervisor, "set destination.port 1; when now; runcap x").expect(1);
    assert!(get(address, "/healthz", "Host: metrics").ends_with("ok\n"));
    assert!(get(address, "/readyz", "Host: metrics").ends_with("ready\n"));
    // Who is there is counted once a second.
    let deadline = std::time::Instant::now() + crate::support::DEADLINE;
    let metrics = loop {
        let metrics = get(address, "/metrics", "Host: metrics");
        if metrics.contains("components{presence=\"connected\"} 1") {
            break metrics;
        }
        assert!(std::time::Instant::now() < deadline, "{metrics}");
        std::thread::sleep(crate::support::LOOK_AGAIN);
    };
    for line in [
        "mplane_supervisor_specifications_accepted_total 1",
        "mplane_supervisor_hand_outs_total 1",
        "mplane_supervisor_specifications_settled_total{end=\"result\"} 1",
        "mplane_supervisor_redemptions_total 1",
        "mplane_supervisor_dispatch_seconds_count 1",
        "# EOF",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}
