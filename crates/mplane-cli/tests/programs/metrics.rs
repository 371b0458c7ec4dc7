//! What a component tells about itself.

use crate::domain::{Domain, MPCOM, TCP, address_in, daemon, get, initiator, measure};
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
