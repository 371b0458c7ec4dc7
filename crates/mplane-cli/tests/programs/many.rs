//! Many components at once: one specification, one result.

use crate::domain::{Domain, MPCOM, TCP, daemon, initiator};
use crate::story::{supervisor, tool};
use crate::support::{Program, Stream};

/// The components that are asked.
const COMPONENTS: [&str; 3] = ["com-1", "com-2", "com-3"];

#[test]
fn many_components_measure_once_and_again_and_answer_as_one() {
    let domain = Domain::new();
    for name in &COMPONENTS[1..] {
        domain.pki(&["issue", "pki", "component", name]).expect(0);
    }
    let (_supervisor, address, config) = supervisor(&domain, "127.0.0.1:0");
    let _components = COMPONENTS.map(|name| {
        let section = initiator(address) + TCP;
        let config = domain.configure(&format!("{name}.toml"), name, &section);
        let mut component = Program::start(daemon(MPCOM, &config));
        component.wait_for(Stream::Err, &["\"registered\"", "Test.Supervisors.sup-1"]);
        component
    });
    let ask = |whom: &str, when: &str| {
        let commands = format!(
            "set component.identity {whom}; set destination.ip4 127.0.0.1; \
             set destination.port {}; when {when}; runcap tcp-connect-ip4@*; wait",
            address.port()
        );
        domain.shell(address, &commands).expect(0)
    };
    let rows = |out: &str, name: &str| out.matches(name).count();

    let once = ask("*com-1", "now + 1s / 1s");
    assert_eq!(COMPONENTS.map(|name| rows(&once.out, name)), [1, 0, 0], "{once:#?}");
    let all = ask("all", "now + 1s / 1s");
    assert_eq!(COMPONENTS.map(|name| rows(&all.out, name)), [1, 1, 1], "{all:#?}");
    // Two measurements, each with the rows of all.
    let again = ask("all", "repeat now + 4s / 4s { now + 1s / 1s }");
    assert_eq!(COMPONENTS.map(|name| rows(&again.out, name)), [2, 2, 2], "{again:#?}");
    assert_eq!(rows(&again.out, "component.identity"), 2, "{again:#?}");

    let story = tool(&["why", "tcp-connect-ip4@*-0"], &config).expect(0).out;
    for text in
        ["asked 3 components for tcp-connect-ip4", "delivered", "tcp-connect-ip4-"]
    {
        assert!(story.contains(text), "{text}: {story}");
    }
}
