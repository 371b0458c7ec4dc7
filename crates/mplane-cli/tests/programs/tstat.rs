//! The probe of the client-supervisor-probe system, by its start-up options. The test is
//! tStat: it looks at the flags, and writes flows to the logs.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::Instant;

use jiff::Timestamp;
use nix::sys::signal::Signal;

use crate::domain::{Domain, MPCOM};
use crate::ri::{client, files, supervisor};
use crate::support::{DEADLINE, LOOK_AGAIN, Program, Stream, command, run};

/// Its flags, all off; what is not to change has zeros too.
const CONF: &str = "# 0: off, 1: on\n[log]\nlog_tcp_complete = 0   # 0 or 1\n\
    log_udp_complete = 0\n[options]\ntcplog_end_to_end = 0\ntcplog_layer7 = 0\t# 0\n\
    tcplog_p2p = 0\ntcplog_options = 0\n";

/// The labels of its capabilities.
const LABELS: [&str; 5] = [
    "tstat-log_tcp_complete-core",
    "tstat-log_tcp_complete-end_to_end",
    "tstat-log_tcp_complete-tcp_options",
    "tstat-log_tcp_complete-p2p_stats",
    "tstat-log_tcp_complete-layer7",
];

/// A log with the columns of the set that is asked for.
const HEADER: &str = "#09#c_ip:1 s_ip:2 last:3 c_pkts_push:4 s_pkts_push:5 c_tls_SNI:6 \
                      s_tls_SCN:7\n";

/// A domain with a tStat.
struct System {
    domain: Domain,
}

impl System {
    /// Makes a domain in which a client may use what a component offers.
    fn new(client: &str, component: &str) -> Self {
        let domain = Domain::new();
        files(&domain, [client, component]);
        let rules = LABELS.map(|label| format!("{label}, {component}: guest\n"));
        fs::write(domain.path("caps.conf"), rules.concat()).expect("the folder is ours");
        fs::write(domain.path("runtime.conf"), CONF).expect("the folder is ours");
        fs::create_dir(domain.path("logs")).expect("the folder is ours");
        Self { domain }
    }

    /// Prepares its probe.
    fn probe(&self, supervisor: SocketAddr, arguments: &[&str]) -> Command {
        let mut probe = command(MPCOM);
        probe.args(arguments).args(["-d", &supervisor.ip().to_string()]);
        probe.args(["-p", &supervisor.port().to_string()]);
        probe.args(["--log-format", "json"]).current_dir(self.domain.path(""));
        probe
    }

    /// Returns what its flags are now.
    fn conf(&self) -> String {
        fs::read_to_string(self.domain.path("runtime.conf")).expect("it is there")
    }

    /// Waits until its flags are such.
    #[track_caller]
    fn wait_for(&self, conf: &str) {
        let started = Instant::now();
        while self.conf() != conf {
            assert!(started.elapsed() < DEADLINE, "flags are {}", self.conf());
            sleep(LOOK_AGAIN);
        }
    }

    /// Returns the log in a folder.
    fn log(&self, folder: &str) -> PathBuf {
        let folder = self.domain.path("logs").join(folder);
        fs::create_dir_all(&folder).expect("the folder is ours");
        folder.join("log_tcp_complete")
    }

    /// Starts a measurement of names in TLS.
    fn measure(&self, supervisor: SocketAddr, scope: &str) -> Program {
        let commands = format!("when {scope}; runcap {}; wait", LABELS[4]);
        let mut client =
            client(&self.domain, &["--certfile", "client-certs.conf"], supervisor);
        client.args(["-c", &commands]);
        Program::start(client)
    }
}

/// Returns the flags while names in TLS are measured.
fn layer7() -> String {
    CONF.replace("log_tcp_complete = 0", "log_tcp_complete = 1")
        .replace("tcplog_layer7 = 0", "tcplog_layer7 = 1")
}

/// Returns a line of a flow that ends so many milliseconds from now.
fn flow(milliseconds: i64, pushed: u32, name: &str) -> String {
    let end = Timestamp::now().as_millisecond() + milliseconds;
    format!("192.0.2.1 192.0.2.2 {end}.125 {pushed}  {name} -\n")
}

/// The options of a probe over TLS.
const OPTIONS: &[&str] = &[
    "--tstat-runtimeconf",
    "runtime.conf",
    "--log-dir",
    "logs",
    "--certfile",
    "component-certs.conf",
    "--net-address",
    "10.0.0.0/8",
];

#[test]
fn flows_that_tstat_logs_come_to_a_client_and_its_flags_are_on_meanwhile() {
    let system = System::new("Test.Clients.cli-1", "Test.Components.com-1");
    let old = system.log("2026_11_29_22_00.out");
    let before = format!("{HEADER}{}", flow(0, 1, "before.example"));
    fs::write(&old, &before).expect("the folder is ours");
    let (_supervisor, address) =
        supervisor(&system.domain, &["-c", "supervisor-certs.conf"]);
    let mut probe = Program::start(system.probe(address, OPTIONS));
    probe.wait_for(Stream::Err, &["\"registered\"", "Test.Supervisors.sup-1"]);

    let client = system.measure(address, "now + 5s");
    system.wait_for(&layer7());
    let ended = flow(0, 2, "ended.example") + &flow(-3_600_000, 3, "long-ago.example");
    fs::write(&old, before + &ended + "no flow\n").expect("the folder is ours");
    // tStat has seen its flags and begins a folder with other columns.
    let rest =
        format!("#08#c_pkts_push:1 last:2\n4 {}.5\n", Timestamp::now().as_millisecond());
    let new = system.log("2026_11_29_22_07.out");
    fs::write(new, rest + "9 99999999999999\n").expect("the folder is ours");

    let output = client.finish().expect(0);
    let lines: Vec<Vec<_>> =
        output.out.lines().map(|line| line.split_whitespace().collect()).collect();
    let columns = [
        "initiator.psh_separated",
        "responder.psh_separated",
        "ssl.hello.client",
        "ssl.hello.server",
    ];
    let result = lines.iter().skip_while(|line| **line != columns).skip(1);
    let result: Vec<_> = result.take_while(|line| line.len() == 4).collect();
    let expected = [vec!["2", "*", "ended.example", "*"], vec!["4", "*", "*", "*"]];
    assert_eq!(result, expected.iter().collect::<Vec<_>>(), "{output:#?}");
    assert!(output.err.contains("log.lines.unreadable: 1"), "{output:#?}");
    assert_eq!(system.conf(), CONF, "all is as it was");
    probe.signal(Signal::SIGTERM);
    let output = probe.finish().expect(0);
    assert!(
        output.err.contains("a line has 2 fields, its header names 7"),
        "{output:#?}"
    );
}

#[test]
fn flags_that_a_killed_probe_left_on_are_off_after_its_start() {
    let system = System::new("Test.Clients.cli-1", "Test.Components.com-1");
    let (_supervisor, address) =
        supervisor(&system.domain, &["-c", "supervisor-certs.conf"]);
    let mut probe = Program::start(system.probe(address, OPTIONS));
    probe.wait_for(Stream::Err, &["\"registered\""]);
    let _client = system.measure(address, "now + 1h");
    system.wait_for(&layer7());
    let other = run(system.probe(address, OPTIONS)).expect(1);
    assert!(other.err.contains("another program switches the flags in"), "{other:#?}");
    probe.signal(Signal::SIGKILL);
    let status = probe.finish().status;
    assert!(!status.success(), "{status}");
    assert_eq!(system.conf(), layer7(), "nobody has switched them off");
    let mut probe = Program::start(system.probe(address, OPTIONS));
    probe.wait_for(Stream::Err, &["switches flags of tStat off that were left on"]);
    system.wait_for(CONF);
}

#[test]
fn a_simulating_probe_in_plain_http_says_that_its_values_are_invented() {
    let system = System::new("unauthenticated", "unauthenticated");
    let (_supervisor, address) = supervisor(&system.domain, &["--disable-ssl"]);
    let mut probe =
        Program::start(system.probe(address, &["--simulate", "--disable-ssl"]));
    probe
        .wait_for(Stream::Err, &["WARN", "simulates tStat: all its values are invented"]);
    probe.wait_for(Stream::Err, &["\"registered\"", "\"unauthenticated\""]);
    let mut client = client(&system.domain, &["--disable-sec"], address);
    let commands = format!("listcap; showcap; when now + 1s; runcap {}; wait", LABELS[3]);
    client.args(["-c", &commands]);
    let output = run(client).expect(0);
    for label in LABELS {
        assert!(output.out.contains(&format!("Capability {label} ")), "{output:#?}");
    }
    for said in [
        "subnet.ip4 = 192.168.1.0",
        "subnet.netmask = 24",
        "measurement.simulated = True",
        "System_type = tStat",
    ] {
        let count = output.out.matches(said).count();
        assert_eq!(count, LABELS.len(), "{said}: {output:#?}");
    }
    let has_row = output.out.lines().any(|line| {
        let cells: Vec<_> = line.split_whitespace().collect();
        cells == ["simulated", "0", "0", "0", "0", "0"]
    });
    assert!(has_row, "{output:#?}");
    assert!(output.err.contains("measurement.simulated: True"), "{output:#?}");
    assert_eq!(system.conf(), CONF, "nothing is switched");
}

#[test]
fn a_probe_that_cannot_work_says_what_to_do() {
    let system = System::new("Test.Clients.cli-1", "Test.Components.com-1");
    let with = |arguments: &[&str], code| {
        let mut probe = command(MPCOM);
        probe.args(arguments).current_dir(system.domain.path(""));
        run(probe).expect(code).err
    };
    let certs = ["-c", "component-certs.conf"];
    for (arguments, code, said) in [
        (
            &["--config", "component.toml", "-T", "x"][..],
            2,
            "cannot be used with --config",
        ),
        (&["-T", "runtime.conf"], 2, "--log-dir DIR is missing"),
        (&["-T", "none", "--log-dir", "logs"], 1, "runtime-conf of service tstat cannot"),
        (
            &["-T", "runtime.conf", "--log-dir", "none"],
            1,
            "log-dir of service tstat cannot",
        ),
        (&["--simulate", "-d", "192.0.2.1", "--disable-ssl"], 1, "only where plain-http"),
    ] {
        let is_plain = arguments.contains(&"--disable-ssl") || code == 2;
        let all =
            if is_plain { arguments.to_vec() } else { [arguments, &certs].concat() };
        let error = with(&all, code);
        let last = error.lines().last().unwrap_or_default();
        assert!(last.starts_with("error: ") && last.contains(said), "{all:?}: {error}");
    }
    // What is checked without sockets is checked.
    let check = ["-T", "none", "--log-dir", "none", "--check"];
    assert_eq!(with(&[&check, &certs[..]].concat(), 0), "");
}
