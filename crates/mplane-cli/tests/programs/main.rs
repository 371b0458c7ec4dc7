//! Supervisor, component and client as processes of their own, as the README's tour has
//! them: certificates from `mplane pki`, configurations in TOML, ports from the log.

mod access;
mod called;
mod disk;
mod domain;
mod faults;
mod lab;
#[expect(dead_code, reason = "each ring uses its part")]
#[path = "../support/machine.rs"]
mod machine;
mod many;
mod metrics;
mod plain;
#[expect(dead_code, reason = "each ring uses its part")]
#[path = "../support/raw.rs"]
mod raw;
mod reload;
mod restart;
mod ri;
mod story;
#[path = "../support/mod.rs"]
mod support;
mod systemd;
mod tstat;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread::sleep;
use std::time::Instant;

use domain::{
    Domain, MPCLI, MPCOM, MPLANE, MPSUP, PROGRAMS, TCP, address_in, check_result, daemon,
    initiator, measure,
};
use nix::sys::signal::Signal;
use support::{
    DEADLINE, Finished, LOOK_AGAIN, Program, Stream, check_row, command, folder, rows,
    run,
};

#[test]
fn the_three_roles_measure_together_and_end_when_they_are_told() {
    let domain = Domain::new();
    let (supervisor, address) = domain.supervisor();
    let component = domain.component(address);
    let commands = format!("{}; wait", measure(address.port(), "now + 2s / 1s"));
    let output = domain.shell(address, &commands).expect(0);
    check_result(&output);
    assert!((1..=3).contains(&rows(&output.out).len()), "one each second: {output:#?}");
    assert!(output.err.contains("Receipt tcp-connect-ip4-0"), "{output:#?}");
    assert!(output.err.contains("Test.Components.com-1"), "{output:#?}");
    component.signal(Signal::SIGTERM);
    let component = component.finish().expect(0);
    supervisor.signal(Signal::SIGINT);
    let supervisor = supervisor.finish().expect(0);
    for output in [component, supervisor] {
        assert!(output.err.contains("shutting down"), "{output:#?}");
        assert!(output.out.is_empty(), "logs are on standard error: {output:#?}");
        let is_json = |line: &str| line.starts_with('{') && line.ends_with('}');
        assert!(output.err.lines().all(is_json), "{output:#?}");
    }
}

#[test]
fn the_example_configurations_make_a_domain() {
    let domain = Domain { folder: folder() };
    domain.pki(&["init", "pki"]).expect(0);
    for (role, name) in
        [("supervisor", "supervisor-1"), ("component", "probe-1"), ("client", "client-1")]
    {
        domain.pki(&["issue", "pki", role, name]).expect(0);
    }
    fs::create_dir(domain.path("etc")).expect("the folder is ours");
    let example = |name: &str, port: u16| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../etc").join(name);
        let text = fs::read_to_string(path).expect("it is in the repository");
        assert!(text.contains(":8890"), "{name} has the default port");
        let copy = domain.path("etc").join(name);
        let text = text.replace(":8890", &format!(":{port}"));
        fs::write(&copy, text).expect("the folder is ours");
        copy
    };
    for (program, name) in [(MPSUP, "supervisor.toml"), (MPCOM, "component.toml")] {
        check(program, &example(name, 8890)).expect(0);
    }
    let mut supervisor = Program::start(daemon(MPSUP, &example("supervisor.toml", 0)));
    let address = address_in(&supervisor.wait_for(Stream::Err, &["\"supervises\""]));
    let config = example("component.toml", address.port());
    let mut component = Program::start(daemon(MPCOM, &config));
    component.wait_for(Stream::Err, &["\"registered\"", "supervisor-1"]);
    let mut shell = command(MPCLI);
    shell.arg("--config").arg(example("client.toml", address.port()));
    let commands = format!("{}; wait", measure(address.port(), "now + 1s / 1s"));
    shell.args(["-c", &commands]);
    check_result(&run(shell).expect(0));
}

#[test]
fn a_listening_component_is_asked_without_supervisor() {
    let domain = Domain::new();
    let section = format!("[component.listener]\naddress = \"127.0.0.1:0\"\n\n{TCP}");
    let config = domain.configure("component.toml", "com-1", &section);
    let mut component = Program::start(daemon(MPCOM, &config));
    let event = component.wait_for(Stream::Err, &["\"offers services\""]);
    let address = address_in(&event);
    let commands = format!("listcap; {}; wait", measure(address.port(), "now + 1s / 1s"));
    let output = domain.shell(address, &commands).expect(0);
    check_result(&output);
    assert!(output.out.contains("Capability tcp-connect-ip4 (token "), "{output:#?}");
    component.signal(Signal::SIGTERM);
    component.finish().expect(0);
}

#[test]
fn a_component_registers_again_with_a_supervisor_that_was_killed() {
    let domain = Domain::new();
    // Nobody else uses this address: the port stays free meanwhile.
    let (supervisor, address) = domain.supervisor_at("127.0.0.2:0");
    let component = domain.component(address);
    supervisor.signal(Signal::SIGKILL);
    assert!(!supervisor.finish().status.success());
    let away = domain.shell(address, "getcap").expect(1);
    assert!(away.err.contains(&format!("cannot reach https://{address}/")), "{away:#?}");
    let (_supervisor, _) = domain.supervisor_at(&address.to_string());
    let started = Instant::now();
    while !domain
        .shell(address, "listcap")
        .expect(0)
        .out
        .contains("Capability tcp-connect-ip4")
    {
        assert!(started.elapsed() < DEADLINE, "it does not register again");
        sleep(LOOK_AGAIN);
    }
    let commands = format!("{}; wait", measure(address.port(), "now + 1s / 1s"));
    check_result(&domain.shell(address, &commands).expect(0));
    drop(component);
}

#[test]
fn a_measurement_that_is_stopped_yields_the_rows_so_far() {
    let domain = Domain::new();
    let (_supervisor, address) = domain.supervisor();
    let _component = domain.component(address);
    // The second measurement takes a second, in which the first has rows.
    let commands = format!(
        "{}; when now + 2s / 1s; runcap tcp-connect-ip4; wait tcp-connect-ip4-1; \
         listmeas; stopmeas tcp-connect-ip4-0; wait tcp-connect-ip4-0; \
         showmeas tcp-connect-ip4-0",
        measure(address.port(), "now + 1h / 1s")
    );
    let output = domain.shell(address, &commands).expect(0);
    let results = output.out.split("time  ").skip(1);
    let counts: Vec<_> =
        results.map(|result| rows(&format!("time  {result}")).len()).collect();
    let [second, first, again] = counts[..] else { panic!("{counts:?}: {output:#?}") };
    assert!((1..=3).contains(&second), "{output:#?}");
    assert!((1..=DEADLINE.as_secs()).contains(&(first as u64)), "{output:#?}");
    assert_eq!(first, again, "a result stays");
    let is_running = |line: &str| line.starts_with("   1: Receipt tcp-connect-ip4-0");
    assert!(output.out.lines().any(is_running), "{output:#?}");
}

#[test]
fn lost_and_refused_connections_are_rows_too() {
    let domain = Domain::new();
    let (_supervisor, address) = domain.supervisor();
    let _component = domain.component(address);
    // A port that is bound yet does not listen refuses.
    let bound = std::net::UdpSocket::bind("127.0.0.1:0").expect("there are ports");
    let port = bound.local_addr().expect("it has an address").port();
    let commands = format!("{}; wait", measure(port, "now + 1s / 1s"));
    let output = domain.shell(address, &commands).expect(0);
    let rows = rows(&output.out);
    assert!(!rows.is_empty(), "{output:#?}");
    for row in rows {
        check_row(&row);
        assert!(matches!(row.last(), Some(&("refused" | "connected"))), "{output:#?}");
    }
}

#[test]
fn a_certificate_of_another_authority_is_refused() {
    let domain = Domain::new();
    let (mut supervisor, address) = domain.supervisor();
    let section = initiator(address) + TCP;
    let config = domain.configure_of("other", "component.toml", "com-1", &section);
    let mut component = Program::start(daemon(MPCOM, &config));
    component.wait_for(Stream::Err, &["\"cannot register\"", "UnknownCA"]);
    supervisor.wait_for(Stream::Err, &["\"refused a TLS connection\"", "UnknownIssuer"]);

    let section = format!("[client]\nurl = \"https://{address}/\"\n");
    let config = domain.configure_of("other", "client.toml", "cli-1", &section);
    let mut shell = command(MPCLI);
    shell.arg("--config").arg(config).args(["-c", "getcap"]);
    let output = run(shell).expect(1);
    assert!(output.err.contains("UnknownCA"), "{output:#?}");

    component.signal(Signal::SIGTERM);
    component.finish().expect(0);
}

#[test]
fn a_client_may_not_register() {
    let domain = Domain::new();
    let (mut supervisor, address) = domain.supervisor();
    let section = initiator(address) + TCP;
    let config = domain.configure("component.toml", "cli-1", &section);
    let mut component = Program::start(daemon(MPCOM, &config));
    let denied = "Test.Clients.cli-1 is a client and may not offer capabilities";
    component.wait_for(Stream::Err, &["tcp-connect-ip4", denied]);
    supervisor.wait_for(Stream::Err, &["\"refused a capability\"", denied]);
    let listed = domain.shell(address, "listcap").expect(0);
    assert!(listed.out.is_empty(), "{listed:#?}");
    component.signal(Signal::SIGTERM);
    let output = component.finish().expect(0);
    assert!(!output.err.contains("\"registered\""), "it was not: {output:#?}");
}

#[test]
fn a_component_sees_no_capabilities() {
    let domain = Domain::new();
    let (mut supervisor, address) = domain.supervisor();
    let _component = domain.component(address);
    let mut shell = domain.shell_of("com-1", address);
    shell.args(["-c", "getcap; listcap; runcap tcp-connect-ip4"]);
    let output = run(shell).expect(1);
    assert!(output.out.is_empty(), "{output:#?}");
    assert!(output.err.contains("0 capabilities"), "{output:#?}");
    assert!(output.err.contains("there is no capability tcp-connect-ip4"), "{output:#?}");
    let denied = "Test.Components.com-1 is a component and may not use capabilities";
    supervisor.wait_for(Stream::Err, &["\"shows no capabilities\"", denied]);
}

#[test]
fn the_shell_says_why_a_command_fails() {
    let domain = Domain::new();
    let (_supervisor, address) = domain.supervisor();
    let _component = domain.component(address);
    let set = "set destination.ip4 127.0.0.1; set destination.port 1; ";
    let run = "; runcap tcp-connect-ip4";
    for (commands, reasons) in [
        ("frobnicate".to_owned(), &["\"frobnicate\"", "help"][..]),
        (
            "runcap nothing".into(),
            &["no capability nothing", "known are tcp-connect-ip4"],
        ),
        ("showcap nothing".into(), &["no capability nothing", "tcp-connect-ip4"]),
        (format!("unset{run}"), &["no value", "destination.ip4", "destination.port"]),
        (format!("set destination.port 1{run}"), &["no value", "destination.ip4"]),
        (
            format!("{set}set source.ip4 10.1.1.1{run}"),
            &["source.ip4", "10.1.1.1", "127.0.0.1"],
        ),
        (format!("{set}set destination.ip4 here{run}"), &["destination.ip4", "here"]),
        (format!("{set}set destination.port 65536{run}"), &["destination.port", "65536"]),
        (
            format!("{set}when past ... now / 1s{run}"),
            &["temporal scope", "past", "now ... future"],
        ),
        ("when 2s / now".into(), &["2s / now", "expected"]),
        ("set destination.ip4".into(), &["a name and a value"]),
        ("runcap".into(), &["missing"]),
        ("wait".into(), &["there is no measurement"]),
        ("showmeas nothing".into(), &["there is no measurement nothing"]),
        ("stopmeas nothing".into(), &["there is no measurement nothing"]),
        ("seturl nowhere".into(), &["\"nowhere\"", "https://HOST:PORT/"]),
    ] {
        let output = domain.shell(address, &format!("{commands}; show; listcap"));
        let output = output.expect(1);
        let error = output.err.lines().last().unwrap_or_default();
        assert!(error.starts_with("error: "), "{commands}: {output:#?}");
        for reason in reasons {
            assert!(error.contains(reason), "{commands}: {reason}: {output:#?}");
        }
        assert!(output.out.is_empty(), "nothing runs after a failure: {output:#?}");
    }
}

#[test]
fn the_shell_reads_scripts_from_standard_input() {
    let domain = Domain::new();
    let (_supervisor, address) = domain.supervisor();
    let _component = domain.component(address);
    let script = |name: &str, text: &str| {
        let path = domain.path(name);
        fs::write(&path, text).expect("the folder is ours");
        let mut shell = domain.shell_of("cli-1", address);
        shell.stdin(File::open(path).expect("it is there"));
        run(shell)
    };
    let commands = measure(address.port(), "now + 1s / 1s").replace("; ", "\n");
    let good = script("good", &format!("\n  help \nshow\n{commands}\nshow\nwait\n"));
    let good = good.expect(0);
    check_result(&good);
    assert!(good.out.contains("getcap  "), "help lists commands: {good:#?}");
    assert!(good.out.contains("\ndestination.ip4 = 127.0.0.1\n"), "{good:#?}");
    assert!(!good.out.contains("|mplane|"), "scripts are not asked: {good:#?}");

    let left = script("left", "show\nexit\nfrobnicate\n").expect(0);
    assert!(left.out.is_empty(), "{left:#?}");
    let bad = script("bad", "frobnicate\nhelp\n").expect(1);
    assert!(bad.err.contains("frobnicate"), "{bad:#?}");
    assert!(bad.out.is_empty(), "nothing runs after a failure: {bad:#?}");
    script("empty", "").expect(0);
}

#[test]
fn a_signal_ends_the_shell() {
    let domain = Domain::new();
    let (_supervisor, address) = domain.supervisor();
    let _component = domain.component(address);
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let mut shell = domain.shell_of("cli-1", address);
        let commands = format!("{}; wait", measure(address.port(), "now + 1h / 1s"));
        shell.args(["-c", &commands]);
        let mut shell = Program::start(shell);
        shell.wait_for(Stream::Err, &["Receipt tcp-connect-ip4-0"]);
        shell.signal(signal);
        shell.finish().expect(code);
    }
}

/// Runs `--check`.
fn check(program: &str, config: &Path) -> Finished {
    let mut check = command(program);
    check.arg("--config").arg(config).arg("--check");
    run(check)
}

#[test]
fn check_accepts_good_configurations() {
    let domain = Domain::new();
    let section = "[supervisor.listener]\naddress = \"127.0.0.1:0\"\n";
    let config = domain.configure("supervisor.toml", "sup-1", section);
    let output = check(MPSUP, &config).expect(0);
    assert!(!output.err.contains("supervises"), "it does not start: {output:#?}");
    let section = format!(
        "[[component.initiator]]\nurl = \"https://sup.invalid:8889/\"\npoll = \"1m30s\"\n\n\
         [component.listener]\naddress = \"127.0.0.1:0\"\n\n\
         [[component.service]]\ntype = \"ping\"\nip4 = \"127.0.0.1\"\nip6 = \"::1\"\n\n{TCP}"
    );
    let config = domain.configure("component.toml", "com-1", &section);
    let output = check(MPCOM, &config).expect(0);
    assert!(!output.err.contains("offers"), "it does not start: {output:#?}");
}

#[test]
fn check_refuses_bad_configurations_and_says_where() {
    let domain = Domain::new();
    let initiator = "[[component.initiator]]\nurl = \"https://sup.invalid:1/\"\n\n";
    for (program, member, section, reasons) in [
        (
            MPSUP,
            "sup-1",
            "[supervisor.listener]\nadress = \"127.0.0.1:0\"\n".to_owned(),
            &["line 7", "`adress`", "`address`"][..],
        ),
        (
            MPSUP,
            "sup-1",
            "[supervisor.listener]\naddress = \"localhost\"\n".into(),
            &["line 7", "localhost"],
        ),
        (MPSUP, "sup-1", "[supervisor]\n".into(), &["line 6", "`listener`"]),
        (MPSUP, "sup-1", "[supervisor.listener\n".into(), &["line 6"]),
        (MPSUP, "sup-1", initiator.to_owned() + TCP, &["no section [supervisor]"]),
        (MPCOM, "com-1", String::new(), &["no section [component]"]),
        (MPCOM, "com-1", initiator.into(), &["`service`"]),
        (
            MPCOM,
            "com-1",
            format!("{}{TCP}", initiator.replace("https", "http")),
            &["line 6", "http://sup.invalid:1/", "https://HOST:PORT/"],
        ),
        (
            MPCOM,
            "com-1",
            format!("{initiator}[[component.service]]\ntype = \"pong\"\n"),
            &["`pong`", "`ping`", "`tcp-connect`"],
        ),
        (
            MPCOM,
            "com-1",
            format!("[component]\nmax-results = 20000\n{initiator}{TCP}"),
            &["line 7", "a repeat keeps 1 to 10080 results, not 20000"],
        ),
        (MPCOM, "nobody", initiator.to_owned() + TCP, &["pki/nobody.crt"]),
        (
            MPCOM,
            "ca",
            "[registries]\npreload = [\"none.json\"]\n\n".to_owned() + initiator + TCP,
            &["none.json"],
        ),
    ] {
        let config = domain.configure("bad.toml", member, &section);
        let output = check(program, &config).expect(1);
        for reason in reasons {
            assert!(output.err.contains(reason), "{section}\n{reason}: {output:#?}");
        }
    }
    let output = check(MPSUP, &domain.path("nowhere.toml")).expect(1);
    assert!(output.err.contains("nowhere.toml"), "{output:#?}");
}

#[test]
fn check_refuses_what_would_not_start() {
    let domain = Domain::new();
    let initiator = "[[component.initiator]]\nurl = \"https://127.0.0.1:1/\"\n\n";
    for (section, reasons) in [
        (TCP.to_owned(), &["initiator", "listener"][..]),
        (format!("{initiator}[[component.service]]\ntype = \"ping\"\n"), &["ip4", "ip6"]),
        (format!("{initiator}{}", TCP.replace("127.0.0.1", "::1")), &["::1", "IPv4"]),
    ] {
        let config = domain.configure("component.toml", "com-1", &section);
        for finished in [run(daemon(MPCOM, &config)), check(MPCOM, &config)] {
            let output = finished.expect(1);
            for reason in reasons {
                assert!(output.err.contains(reason), "{section}\n{reason}: {output:#?}");
            }
        }
    }
}

#[test]
fn check_refuses_the_key_of_another_certificate() {
    let domain = Domain::new();
    let section = "[supervisor.listener]\naddress = \"127.0.0.1:0\"\n";
    let config = domain.configure("supervisor.toml", "sup-1", section);
    let text = fs::read_to_string(&config).expect("it was written");
    let text = text.replace("pki/sup-1.key", "pki/com-1.key");
    fs::write(&config, text).expect("the folder is ours");
    let output = check(MPSUP, &config).expect(1);
    assert!(
        output.err.contains("pki/sup-1.crt cannot be used with its key"),
        "{output:#?}"
    );
}

#[test]
fn a_port_that_is_taken_is_named() {
    let domain = Domain::new();
    let (_supervisor, address) = domain.supervisor();
    let section = format!("[supervisor.listener]\naddress = \"{address}\"\n");
    let config = domain.configure("second.toml", "sup-1", &section);
    let output = run(daemon(MPSUP, &config)).expect(1);
    assert!(output.err.contains(&format!("cannot listen on {address}")), "{output:#?}");
}

#[test]
fn certificates_are_private_checked_and_never_replaced() {
    let domain = Domain::new();
    for name in ["ca", "sup-1", "com-1", "cli-1"] {
        let key = fs::metadata(domain.path(&format!("pki/{name}.key")));
        let mode = key.expect("it was made").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
        let certificate = fs::read(domain.path(&format!("pki/{name}.crt")));
        assert!(certificate.expect("it was made").starts_with(b"-----BEGIN CERTIFICATE"));
    }
    let before = fs::read(domain.path("pki/ca.key")).expect("it was made");
    for (arguments, reason) in [
        (&["init", "pki"][..], "exists and is not replaced"),
        (&["issue", "pki", "client", "cli-1"], "exists and is not replaced"),
        (&["issue", "pki", "client", "a.b"], "\"a.b\" cannot be a name"),
        (&["issue", "pki", "client", "../x"], "\"../x\" cannot be a name"),
        (&["issue", "pki", "client", ""], "\"\" cannot be a name"),
        (&["issue", "pki", "client", "ca"], "\"ca\" cannot be a name"),
        (&["issue", "none", "client", "x"], "mplane pki init"),
        (&["init", "new", "--organization", "a.b"], "\"a.b\" cannot be a name"),
    ] {
        let output = domain.pki(arguments).expect(1);
        assert!(output.err.contains(reason), "{arguments:?}: {output:#?}");
    }
    assert_eq!(fs::read(domain.path("pki/ca.key")).expect("it stays"), before);
    domain.pki(&["issue", "pki", "king", "x"]).expect(2);
}

#[test]
fn all_programs_tell_their_usage() {
    for (name, program) in PROGRAMS {
        let with = |arguments: &[&str]| {
            let mut program = command(program);
            program.args(arguments);
            run(program)
        };
        let help = with(&["--help"]).expect(0);
        assert!(help.out.contains(&format!("Usage: {name} ")), "{help:#?}");
        assert!(help.err.is_empty(), "{help:#?}");
        for wrong in [&[][..], &["--config"], &["--nonsense"], &["surplus", "words"]] {
            let output = with(wrong).expect(2);
            assert!(output.err.contains("--help"), "{name} {wrong:?}: {output:#?}");
            assert!(output.out.is_empty(), "{name} {wrong:?}: {output:#?}");
        }
    }
    for wrong in [&["demo", "--port", "65536"][..], &["pki"], &["pki", "issue", "here"]] {
        let mut program = command(MPLANE);
        program.args(wrong);
        run(program).expect(2);
    }
}

#[test]
fn all_programs_tell_their_version() {
    for (name, program) in PROGRAMS {
        let mut program = command(program);
        program.arg("--version");
        let output = run(program).expect(0);
        assert_eq!(output.out, format!("{name} {}\n", env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn a_log_filter_that_is_none_is_refused() {
    let domain = Domain::new();
    let section = "[supervisor.listener]\naddress = \"127.0.0.1:0\"\n";
    let config = domain.configure("supervisor.toml", "sup-1", section);
    let mut supervisor = daemon(MPSUP, &config);
    supervisor.args(["--log", "mplane=loud"]);
    let output = run(supervisor).expect(1);
    assert!(output.err.contains("--log"), "{output:#?}");
}
