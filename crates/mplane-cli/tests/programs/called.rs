//! A component that listens, and a supervisor that calls it.

use std::io::Write as _;
use std::thread::sleep;
use std::time::Instant;

use crate::domain::{Domain, MPCOM, MPSUP, TCP, address_in, daemon, measure};
use crate::story::tool;
use crate::support::{DEADLINE, LOOK_AGAIN, Program, Stream, rows};

#[test]
fn repeats_and_interrupts_reach_a_component_that_is_called() {
    let domain = Domain::new();
    let section = format!("[component.listener]\naddress = \"127.0.0.1:0\"\n\n{TCP}");
    let config = domain.configure("component.toml", "com-1", &section);
    let mut component = Program::start(daemon(MPCOM, &config));
    let told = component.wait_for(Stream::Err, &["\"offers services\""]);
    let section = format!(
        "[supervisor]\ndata = \"store\"\n\n[supervisor.listener]\n\
         address = \"127.0.0.1:0\"\n\n[[supervisor.component]]\nurl = \"https://{}/\"\n",
        address_in(&told)
    );
    let config = domain.configure("supervisor.toml", "sup-1", &section);
    let mut supervisor = Program::start(daemon(MPSUP, &config));
    let address = address_in(&supervisor.wait_for(Stream::Err, &["\"supervises\""]));
    supervisor.wait_for(Stream::Err, &["\"registered\"", "Test.Components.com-1"]);

    let (reader, mut input) = std::io::pipe().expect("there are pipes");
    let mut shell = domain.shell_of("cli-1", address);
    shell.stdin(reader);
    let mut shell = Program::start(shell);
    let mut say = |commands: &str| {
        for command in commands.split("; ") {
            writeln!(input, "{command}").expect("the shell reads");
        }
    };
    say(&measure(address.port(), "now + 1h / 1s"));
    say(&measure(address.port(), "repeat now + 4s / 2s { now + 1s / 1s }"));
    let receipt = shell.wait_for(Stream::Err, &["Receipt tcp-connect-ip4-0"]);
    let token = receipt.split("(token ").nth(1).and_then(|rest| rest.split(')').next());
    let token = token.expect("it has one").to_owned();
    let story = || tool(&["why", &token], &config).expect(0).out;
    let started = Instant::now();
    while !story().contains("promised") {
        assert!(started.elapsed() < DEADLINE, "{}", story());
        sleep(LOOK_AGAIN);
    }
    say("stopmeas tcp-connect-ip4-0; wait tcp-connect-ip4-0; wait tcp-connect-ip4-1");
    drop(input);
    let output = shell.finish().expect(0);
    // Of what was interrupted the rows until then; of the repeat all, not the first alone.
    assert!(!rows(&output.out).is_empty(), "{output:#?}");
    let results = output.out.lines().filter(|line| line.starts_with("time ")).count();
    assert!(results > 2, "{output:#?}");
    for text in ["interrupt handed", "hand-out 1", "delivered"] {
        assert_eq!(story().matches(text).count(), 1, "{text}: {}", story());
    }
}
