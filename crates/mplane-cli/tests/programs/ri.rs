//! The start-up options and the words of the client-supervisor-probe system.

use std::fs::{self, File, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::thread::{sleep, spawn};
use std::time::Instant;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::domain::{
    Domain, MPCLI, MPCOM, MPSUP, TCP, address_in, check_result, daemon, initiator,
    measure,
};
use crate::raw::{MPLANE, Raw};
use crate::support::{DEADLINE, LOOK_AGAIN, Program, Stream, command, run};

/// Writes the lists of certificate files, the users and the capabilities that it has.
pub(super) fn files(domain: &Domain, identities: [&str; 2]) {
    let file = |name: &str, text: String| {
        fs::write(domain.path(name), text).expect("the folder is ours");
    };
    for (name, member) in
        [("supervisor", "sup-1"), ("client", "cli-1"), ("component", "com-1")]
    {
        let text = format!(
            "# files\ncert= pki/{member}.crt\nkey= pki/{member}.key\nca-chain= pki/ca.crt\n"
        );
        file(&format!("{name}-certs.conf"), text);
    }
    let [client, component] = identities;
    file("users.conf", format!("{client}: guest\n"));
    file("caps.conf", format!("tcp-connect-ip4, {component}: guest\n"));
}

/// Starts its supervisor; returns it with its address.
pub(super) fn supervisor(domain: &Domain, arguments: &[&str]) -> (Program, SocketAddr) {
    let mut supervisor = command(MPSUP);
    supervisor.args(arguments).args(["-s", "127.0.0.1", "-p", "0"]);
    supervisor.args(["--log-format", "json"]).current_dir(domain.path(""));
    supervisor.env("MPLANE_CONF_DIR", domain.path("")).env("HOME", "/nonexistent");
    let mut supervisor = Program::start(supervisor);
    let address = address_in(&supervisor.wait_for(Stream::Err, &["\"supervises\""]));
    (supervisor, address)
}

/// Prepares its client.
pub(super) fn client(
    domain: &Domain,
    arguments: &[&str],
    supervisor: SocketAddr,
) -> Command {
    let mut client = command(MPCLI);
    client.args(arguments).current_dir(domain.path(""));
    client.args(["-d", &supervisor.ip().to_string()]);
    client.args(["-p", &supervisor.port().to_string()]);
    client
}

#[test]
fn a_session_in_the_words_of_the_client_supervisor_probe_system() {
    let domain = Domain::new();
    files(&domain, ["Test.Clients.cli-1", "Test.Components.com-1"]);
    let (_supervisor, address) = supervisor(&domain, &["-c", "supervisor-certs.conf"]);
    let _component = domain.component(address);
    let script = format!(
        "connect\nlistcap\nshowcap 1\nshowcap\nwhen now + 2s / 1s\nwhen\n\
         set destination.ip4 127.0.0.1\nset destination.port {}\nset source.port 1\n\
         unset source.port\nshow destination.ip4\nruncap 1\nlistmeas\nredeem\nwait 1\n\
         redeem 1\nredeem\nshowmeas 1\nlistmeas\nEOF\nfrobnicate\n",
        address.port()
    );
    fs::write(domain.path("script"), script).expect("the folder is ours");
    let mut client = client(&domain, &["--certfile", "client-certs.conf"], address);
    client.stdin(File::open(domain.path("script")).expect("it is there"));
    let output = run(client).expect(0);
    let lines: Vec<_> = output.out.lines().collect();
    let count = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    assert!(
        lines[0].starts_with("   1: Capability tcp-connect-ip4 (token "),
        "{output:#?}"
    );
    assert_eq!(count("label     : tcp-connect-ip4"), 2, "one, and all: {output:#?}");
    assert_eq!(count("when = now + 2s / 1s"), 1, "{output:#?}");
    assert_eq!(count("destination.ip4 = 127.0.0.1"), 1, "{output:#?}");
    assert_eq!(count("   1: Receipt tcp-connect-ip4-0 (token "), 1, "{output:#?}");
    assert_eq!(count("   1: Result  tcp-connect-ip4-0 (token "), 1, "{output:#?}");
    let results: Vec<_> = output.out.split("\ntime  ").skip(1).collect();
    assert_eq!(results.len(), 2, "of wait and showmeas: {output:#?}");
    assert_eq!(results[0].lines().nth(1), results[1].lines().nth(1), "{output:#?}");
    check_result(&output);
    let told = |text: &str| output.err.lines().any(|line| line.starts_with(text));
    assert!(told("1 capability"), "{output:#?}");
    assert!(told("Receipt tcp-connect-ip4-0"), "redeemed too early: {output:#?}");
    assert!(told("Result  tcp-connect-ip4-0"), "redeemed: {output:#?}");
    assert!(told("no result is outstanding"), "{output:#?}");
}

#[test]
fn its_client_speaks_plain_http_within_this_machine() {
    let domain = Domain::new();
    files(&domain, ["unauthenticated", "unauthenticated"]);
    let (_supervisor, address) = supervisor(&domain, &["--disable-ssl"]);
    let text = initiator(address).replace("https", "http");
    let text = format!("{}\nplain-http = \"loopback\"\n{TCP}", text.trim_end());
    fs::write(domain.path("component.toml"), text).expect("the folder is ours");
    let mut component = Program::start(daemon(MPCOM, &domain.path("component.toml")));
    component.wait_for(Stream::Err, &["\"registered\"", "\"unauthenticated\""]);
    let commands = format!(
        "{}; wait 1",
        measure(address.port(), "now + 1s / 1s").replace("tcp-connect-ip4", "1")
    );
    let with = |arguments: &[&str], commands: &str| {
        let mut client = client(&domain, arguments, address);
        client.args(["-c", commands]);
        run(client)
    };
    check_result(&with(&["--disable-sec"], &commands).expect(0));
    let far = with(&["--disable-sec"], "connect http://192.0.2.1:8888/").expect(1);
    assert!(far.err.contains("plain HTTP goes to other machines only"), "{far:#?}");
    let certs = with(&["--certfile", "client-certs.conf"], "connect").expect(1);
    assert!(certs.err.contains("the peer does not speak TLS"), "{certs:#?}");
    for (wrong, reason) in [
        (
            &["--disable-sec", "--certfile", "client-certs.conf"][..],
            "cannot be used with",
        ),
        (&["--config", "client.toml"], "cannot be used with"),
        (&[], "--certfile <FILE>"),
    ] {
        let output = with(wrong, "listcap").expect(2);
        assert!(output.err.contains(reason), "{wrong:?}: {output:#?}");
    }
    let missing = with(&["--certfile", "none.conf"], "listcap").expect(1);
    assert!(missing.err.contains("cannot read none.conf"), "{missing:#?}");
}

#[test]
fn connect_forgets_what_another_has_offered() {
    let domain = Domain::new();
    let (_supervisor, address) = domain.supervisor();
    let _component = domain.component(address);
    let (_empty, other) = domain.supervisor_at("127.0.0.2:0");
    let commands =
        format!("connect; listcap; connect https://{other}/; listcap; connect; listcap");
    let output = domain.shell(address, &commands).expect(0);
    assert_eq!(output.out.matches("   1: Capability tcp-connect-ip4 ").count(), 2);
    assert_eq!(output.out.lines().count(), 2, "the other has none: {output:#?}");
    let counts: Vec<_> =
        output.err.lines().filter(|line| line.contains("capabilit")).collect();
    assert_eq!(counts, ["1 capability", "0 capabilities", "1 capability"]);
}

#[test]
fn a_label_that_is_a_number_wins_over_the_index() {
    let domain = Domain::new();
    let (_supervisor, address) = domain.supervisor();
    let file = |name: &str, text: &str| {
        fs::write(domain.path(name), text).expect("the folder is ours");
    };
    fs::create_dir(domain.path("two")).expect("the folder is ours");
    file(
        "two/capability.json",
        r#"{"capability": "measure", "version": 1, "label": "2",
            "registry": "http://ict-mplane.eu/registry/core", "when": "now ... future",
            "parameters": {"destination.ip4": "*"}, "results": ["time"]}"#,
    );
    file("two/service.toml", "command = [\"./run.sh\"]\n");
    file("two/run.sh", "#!/bin/sh\necho '{\"failed\": \"it always does\"}'\n");
    fs::set_permissions(domain.path("two/run.sh"), Permissions::from_mode(0o755))
        .expect("it is ours");
    let service = "[[component.service]]\ntype = \"external\"\nfolder = \"two\"\n\n";
    let section = initiator(address) + service + TCP;
    let config = domain.configure("component.toml", "com-1", &section);
    let _component = Program::start(daemon(MPCOM, &config));
    let started = Instant::now();
    let listed = loop {
        let listed = domain.shell(address, "listcap").expect(0).out;
        if listed.lines().count() == 2 {
            break listed;
        }
        assert!(started.elapsed() < DEADLINE, "it does not register: {listed}");
        sleep(LOOK_AGAIN);
    };
    let listed: Vec<_> = listed.lines().collect();
    assert!(listed[0].starts_with("   1: Capability 2 "), "by label: {listed:?}");
    assert!(listed[1].starts_with("   2: Capability tcp-connect-ip4 "), "{listed:?}");
    for name in ["1", "2", "02"] {
        let output = domain.shell(address, &format!("showcap {name}")).expect(0);
        let label = if name == "02" { "tcp-connect-ip4" } else { "2" };
        let label = format!("label     : {label}\n");
        assert!(output.out.contains(&label), "showcap {name}: {output:#?}");
    }
    // What fails is told for each, and is a failure in the end.
    let measured = format!(
        "set destination.ip4 127.0.0.1; set destination.port {}; when now + 1s / 1s; \
         runcap tcp-connect-ip4; when now; runcap 2; wait tcp-connect-ip4-0",
        address.port()
    );
    for (last, told) in [
        ("showmeas", "it always does"),
        ("redeem 2", "it always does"),
        ("wait 2", "it always does"),
        ("showmeas 3", "there is no measurement 3; listmeas lists 1 to 2"),
        ("stopmeas 0", "there is no measurement 0; listmeas lists 1 to 2"),
    ] {
        let output = domain.shell(address, &format!("{measured}; {last}")).expect(1);
        let error = output.err.lines().last().unwrap_or_default();
        assert!(
            error.starts_with("error: ") && error.contains(told),
            "{last}: {output:#?}"
        );
        check_result(&output);
    }
    for (commands, told) in [
        ("showcap 3", "there is no capability 3; listcap lists 1 to 2"),
        ("runcap 0", "there is no capability 0; listcap lists 1 to 2"),
        ("redeem 1", "there is no measurement 1; there is none"),
        ("redeem one", "there is no measurement one; listmeas lists"),
        ("showmeas", "there is no measurement yet; runcap starts one"),
        ("show nothing", "nothing is not set; show lists what is"),
    ] {
        let output = domain.shell(address, commands).expect(1);
        assert!(output.err.contains(told), "{commands}: {output:#?}");
    }
}

/// What its supervisor was recorded to answer its component and its client.
const RECORD: &str =
    include_str!("../../../mplane-supervisor/vectors/client-supervisor-probe.json");

/// Who the component was.
const RECORDED: &str = "org.mplane.Test.Components.Component-1";

/// Returns the text at a key.
fn text<'a>(exchange: &'a Value, key: &str) -> &'a str {
    exchange[key].as_str().unwrap_or_default()
}

/// Reads JSON.
#[track_caller]
fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Returns the one specification that a component was handed as an array; `None` if there is
/// none yet.
fn fetch(component: &Raw) -> Option<Value> {
    let fetched = component.get("/show/specification");
    assert_eq!(fetched.status, 200, "{fetched:?}");
    let mut fetched = read(&fetched.body);
    fetched.as_array_mut().expect("it is an array").pop()
}

/// What a client of its system and a component need: a supervisor that they speak to.
struct System {
    _domain: Domain,
    supervisor: Program,
    component: Raw,
    client: Raw,
    /// What was recorded, with the component that is here.
    record: Value,
}

/// The component that is here.
const COMPONENT: &str = "Test.Components.com-1";

impl System {
    /// Starts its supervisor with its options, which may do what was recorded.
    fn start() -> Self {
        let domain = Domain::new();
        files(&domain, ["Test.Clients.cli-1", COMPONENT]);
        fs::write(domain.path("caps.conf"), format!("pinger, {COMPONENT}: guest\n"))
            .expect("the folder is ours");
        let (supervisor, address) = supervisor(&domain, &["-c", "supervisor-certs.conf"]);
        let [component, client] = ["com-1", "cli-1"]
            .map(|member| Raw::with(address, &domain.path("pki"), member));
        let record = read(&RECORD.replace(RECORDED, COMPONENT));
        Self { _domain: domain, supervisor, component, client, record }
    }

    /// Returns what was recorded, in order.
    fn exchanges(&self) -> &[Value] {
        self.record["exchanges"].as_array().expect("there is a list")
    }
}

#[test]
fn its_component_and_client_hear_over_mutual_tls_what_was_recorded() {
    let system = System::start();
    let mut handed: Option<[String; 2]> = None;
    for (index, exchange) in system.exchanges().iter().enumerate() {
        let why = text(exchange, "why");
        if why.starts_with("not replayed") {
            continue;
        }
        let is_component = text(exchange, "who") == "Components";
        let mut body = text(exchange, "body").to_owned();
        if let (Some([label, token]), true) = (&handed, is_component) {
            // What it was handed has names of its own here.
            body =
                body.replace("TOK1", token).replace("\"pinger\"", &format!("{label:?}"));
        }
        let peer = if is_component { &system.component } else { &system.client };
        let content_type = exchange["content_type"].as_str();
        let [method, path] = ["method", "path"].map(|key| text(exchange, key));
        let answer = peer.ask(method, path, content_type, &body);
        let expected = exchange["ours"].as_u64().or_else(|| exchange["status"].as_u64());
        assert_eq!(Some(u64::from(answer.status)), expected, "{index}: {answer:?}");
        let recorded = text(exchange, "answer");
        if text(exchange, "answer_type") == MPLANE && answer.status == 200 {
            assert_eq!(answer.content_type, MPLANE, "{index}");
            let (mut ours, recorded) = (read(&answer.body), read(recorded));
            if path == "/show/capability" {
                // They are told with their token.
                let told = ours[COMPONENT][0].as_object_mut().expect("a capability");
                assert!(told.remove("token").is_some(), "{index}: {answer:?}");
            }
            if path == "/show/specification" && !recorded[0].is_null() {
                let own = ["label", "token"].map(|key| text(&ours[0], key).to_owned());
                for (key, known) in ["label", "token"].into_iter().zip(["pinger", "TOK1"])
                {
                    ours[0][key] = known.into();
                }
                handed = Some(own);
            }
            let is_other = why.starts_with("a registration replaces")
                || why.starts_with("a specification that is sent again");
            assert!(is_other || ours == recorded, "{index}: {ours:#} not {recorded:#}");
        } else if why.is_empty() && text(exchange, "answer_type") == "text/plain" {
            assert_eq!(answer.body, recorded, "{index}");
        }
    }
    assert!(handed.is_some(), "something was fetched");
}

#[test]
fn its_component_asks_again_and_again_while_its_client_redeems() {
    let system = System::start();
    let exchanges = system.exchanges();
    let body = |key: &str| {
        let bodies = exchanges.iter().map(|exchange| text(exchange, "body"));
        let mut found = bodies.filter(|body| body.contains(key));
        found.next().expect("it was recorded").to_owned()
    };
    let (capability, asked) = (body("\"capability\""), body("\"specification\""));
    let redemption = body("\"redemption\"");
    let (component, client) = (system.component.clone(), &system.client);
    let registered = component.post("/register/capability", &capability);
    assert_eq!(read(&registered.body), json!({"pinger": {"registered": "ok"}}));
    let probe = spawn(move || {
        let started = Instant::now();
        let specification = loop {
            if let Some(specification) = fetch(&component) {
                break specification;
            }
            assert!(started.elapsed() < DEADLINE, "it gets nothing to do");
            sleep(LOOK_AGAIN);
        };
        let mut answer = specification.as_object().expect("it is one").clone();
        let verb = answer.remove("specification").expect("it has a verb");
        for (kind, values) in [("receipt", None), ("result", Some(json!([["7"]])))] {
            let mut said = answer.clone();
            said.insert(kind.to_owned(), verb.clone());
            if let Some(values) = values {
                said.insert("resultvalues".to_owned(), values);
                let when = "2015-06-01 10:00:00 ... 2015-06-01 10:00:05";
                said.insert("when".to_owned(), when.into());
            }
            let said = Value::Object(said).to_string();
            let taken = component.post("/register/result", &said);
            assert_eq!((taken.status, &*taken.body), (200, ""), "{kind}");
        }
    });
    let promised = client.post("/register/specification", &asked);
    assert_eq!(promised.status, 200, "{promised:?}");
    assert_eq!(read(&promised.body)["receipt"], "measure");
    let started = Instant::now();
    let result = loop {
        let redeemed = client.post("/show/result", &redemption);
        assert_eq!(redeemed.status, 200, "{redeemed:?}");
        let redeemed = read(&redeemed.body);
        if redeemed["result"] == "measure" {
            break redeemed;
        }
        assert!(started.elapsed() < DEADLINE, "there is no result: {redeemed:#}");
        sleep(LOOK_AGAIN);
    };
    assert_eq!(result["resultvalues"], json!([["7"]]), "{result:#}");
    assert_eq!((text(&result, "label"), text(&result, "token")), ("pinger", "TOK1"));
    probe.join().expect("the component has done its work");
    system.supervisor.signal(Signal::SIGTERM);
    system.supervisor.finish().expect(0);
}
