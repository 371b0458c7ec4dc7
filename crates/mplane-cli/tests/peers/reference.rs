//! Programs of the reference implementation, and ours: with certificates of one domain, or
//! in plain HTTP.

use std::fs::{self, File};
use std::io::{PipeWriter, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::raw::Raw;
use crate::support::{Finished, Program, Stream, command, folder, run};
use crate::until;

/// The capabilities that reference programs may use and offer here.
const LABELS: [&str; 9] = [
    "peer-echo",
    "peer-slow",
    "peer-fail",
    "peer-late",
    "peer-rows",
    "peer-types",
    "ping-average-ip4",
    "ping-detail-ip4",
    "callback",
];

/// What a service of ours offers that always fails.
const FAILING: &str = r#"{
    "capability": "measure", "version": 1, "label": "peer-fail",
    "registry": "http://ict-mplane.eu/registry/core", "when": "now ... future / 1s",
    "parameters": {"destination.ip4": "*"}, "results": ["packets.lost"]
}"#;

/// How it is run.
const FAILING_RUN: &str = r#"
command = ["sh", "-c", "read -r line; echo '{\"failed\": \"it fails as it should\"}'; exit 1"]
"#;

/// How the members of a domain speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// With mutual TLS.
    Tls,
    /// In plain HTTP.
    Plain,
}

/// A domain with members of both implementations, on a loopback address of its own: the
/// reference does not say which port the system has chosen.
pub(crate) struct Peers {
    transport: Transport,
    folder: TempDir,
    address: String,
    python: PathBuf,
}

impl Peers {
    /// Installs the reference, if that is not done yet, and makes certificates; `None`,
    /// loudly, where it cannot be installed.
    pub(crate) fn prepare(transport: Transport) -> Option<Self> {
        static LAST: AtomicU8 = AtomicU8::new(0);
        let python = install()?;
        let process = std::process::id() % 250 + 1;
        let number = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        let address = format!("127.77.{process}.{number}");
        let peers = Self { transport, folder: folder(), address, python };
        if transport == Transport::Plain {
            return Some(peers);
        }
        peers.pki(&["init", "pki", "--organization", "Test"]);
        for (role, name) in
            [("supervisor", "sup-1"), ("component", "com-1"), ("client", "cli-1")]
        {
            peers.pki(&["issue", "pki", role, name, "--host", &peers.address]);
        }
        Some(peers)
    }

    /// Returns a URL of somebody on the address of the domain.
    pub(crate) fn url(&self, port: u16) -> String {
        let scheme = match self.transport {
            Transport::Tls => "https",
            Transport::Plain => "http",
        };
        format!("{scheme}://{}:{port}/", self.address)
    }

    /// Returns whom our programs see in a member.
    pub(crate) const fn identity<'a>(&self, certified: &'a str) -> &'a str {
        match self.transport {
            Transport::Tls => certified,
            Transport::Plain => "unauthenticated",
        }
    }

    /// Returns what our component logs about its registration with a supervisor.
    pub(crate) const fn registered(&self) -> [&str; 2] {
        ["\"registered\"", self.identity("Test.Supervisors.sup-1")]
    }

    /// Returns the key that allows ours to speak as the domain does.
    const fn key(&self) -> &'static str {
        match self.transport {
            Transport::Tls => "",
            Transport::Plain => "plain-http = \"loopback\"\n",
        }
    }

    /// Returns a port that nobody uses on the address of the domain.
    pub(crate) fn port(&self) -> u16 {
        let listener =
            TcpListener::bind((self.address.as_str(), 0)).expect("a free port");
        listener.local_addr().expect("it is bound").port()
    }

    /// Waits until somebody listens on a port.
    pub(crate) fn wait_for_port(&self, port: u16) {
        until("a listener", || TcpStream::connect((self.address.as_str(), port)).is_ok());
    }

    /// Starts our supervisor; returns it with its port.
    pub(crate) fn our_supervisor(&self) -> (Program, u16) {
        self.our_supervisor_with("")
    }

    /// Starts our supervisor, which calls a component at a port; returns it with its port.
    pub(crate) fn our_calling_supervisor(&self, component: u16) -> (Program, u16) {
        self.our_supervisor_with(&format!(
            "\n[[supervisor.component]]\nurl = \"{}\"\n{}",
            self.url(component),
            self.key()
        ))
    }

    /// Starts our supervisor with more sections; returns it with its port.
    fn our_supervisor_with(&self, sections: &str) -> (Program, u16) {
        let section = format!(
            "[registries]\npreload = [\"{}\"]\n\n[supervisor.listener]\naddress = \"{}:0\"\n\
             {}{sections}",
            interop("registry/loopback.json").display(),
            self.address,
            self.key()
        );
        let config = self.toml("supervisor", "sup-1", &section);
        let mut supervisor = Program::start(daemon(env!("CARGO_BIN_EXE_mpsup"), &config));
        let port = port_in(&supervisor.wait_for(Stream::Err, &["\"supervises\""]));
        (supervisor, port)
    }

    /// Starts our component, which registers at a port and has a service that fails as well.
    pub(crate) fn our_component(&self, port: u16) -> Program {
        let section = format!(
            "[[component.initiator]]\nurl = \"{}\"\npoll = \"1s\"\n{}\n{}",
            self.url(port),
            self.key(),
            self.services()
        );
        let config = self.toml("component", "com-1", &section);
        Program::start(daemon(env!("CARGO_BIN_EXE_mpcom"), &config))
    }

    /// Starts our component, which listens and has a service that fails as well; returns it
    /// with its port.
    pub(crate) fn our_listening_component(&self) -> (Program, u16) {
        let section = format!(
            "[component.listener]\naddress = \"{}:0\"\n{}\n{}",
            self.address,
            self.key(),
            self.services()
        );
        let config = self.toml("component", "com-1", &section);
        let mut component = Program::start(daemon(env!("CARGO_BIN_EXE_mpcom"), &config));
        let port = port_in(&component.wait_for(Stream::Err, &["\"offers services\""]));
        (component, port)
    }

    /// Returns the sections of services of our component: pings, and one that always fails.
    fn services(&self) -> &'static str {
        let failing = self.folder.path().join("failing");
        fs::create_dir_all(&failing).expect("the folder is ours");
        let files = [("capability.json", FAILING), ("service.toml", FAILING_RUN)];
        for (file, text) in files {
            fs::write(failing.join(file), text).expect("the folder is ours");
        }
        "[[component.service]]\ntype = \"ping\"\nip4 = \"127.0.0.1\"\n\n\
         [[component.service]]\ntype = \"external\"\nfolder = \"failing\"\n"
    }

    /// Makes a member who says to the letter what a test wants.
    pub(crate) fn raw(&self, member: &str, port: u16) -> Raw {
        let address = format!("{}:{port}", self.address);
        let address = address.parse().expect("it is an address");
        match self.transport {
            Transport::Tls => Raw::with(address, &self.folder.path().join("pki"), member),
            Transport::Plain => Raw::plain(address),
        }
    }

    /// Runs commands in our client.
    pub(crate) fn our_client(&self, port: u16, commands: &str) -> Finished {
        let mut client = self.our_shell(port);
        client.args(["-c", commands]);
        run(client)
    }

    /// Starts our client; it takes commands one by one.
    pub(crate) fn our_open_client(&self, port: u16) -> Shell {
        let (reader, input) = std::io::pipe().expect("there are pipes");
        let mut client = self.our_shell(port);
        client.stdin(reader);
        Shell { program: Program::start(client), input }
    }

    /// Prepares our client.
    fn our_shell(&self, port: u16) -> Command {
        let section = format!("[client]\nurl = \"{}\"\n{}", self.url(port), self.key());
        let config = self.toml("client", "cli-1", &section);
        let mut client = command(env!("CARGO_BIN_EXE_mpcli"));
        client.arg("--config").arg(config);
        client
    }

    /// Waits until our client sees a capability.
    pub(crate) fn wait_for_capability(&self, port: u16, label: &str) {
        let listed = format!("Capability {label} ");
        until("a registration", || {
            self.our_client(port, "listcap").expect(0).out.contains(&listed)
        });
    }

    /// Starts a reference component, which registers at a port.
    pub(crate) fn reference_component(&self, port: u16) -> Program {
        let section = format!(
            "[component]\nworkflow = component-initiated\nscheduler_max_results = 20\n\
             registry_preload = {}\nclient_host = {}\nclient_port = {port}\n\
             registration_path = register/capability\n\
             specification_path = show/specification\nresult_path = register/result\n",
            interop("registry/loopback.json").display(),
            self.address
        );
        let text = self.ini("com-1") + &modules() + &section;
        self.reference("mpcom", "component.conf", &text, Stdio::null())
    }

    /// Starts a reference component, which listens.
    pub(crate) fn reference_listening_component(&self, port: u16) -> Program {
        let section = format!(
            "[component]\nworkflow = client-initiated\nscheduler_max_results = 20\n\
             registry_preload = {}\nlisten-port = {port}\n\
             listen-cap-link = {}\n",
            interop("registry/loopback.json").display(),
            self.url(port)
        );
        let text = self.ini("com-1") + &modules() + &section;
        self.reference("mpcom", "component.conf", &text, Stdio::null())
    }

    /// Starts a reference supervisor with a port for each side.
    pub(crate) fn reference_supervisor(&self, components: u16, clients: u16) -> Program {
        let text = self.ini("sup-1")
            + &format!(
                "[client]\nworkflow = component-initiated\nlisten-port = {components}\n\
                 listen-spec-link = {}\n\
                 registration-path = register/capability\n\
                 specification-path = show/specification\nresult-path = register/result\n\
                 component-urls =\n\n[component]\nworkflow = client-initiated\n\
                 scheduler_max_results = 20\nlisten-port = {clients}\n\
                 listen-cap-link = {}\n",
                self.url(components),
                self.url(clients)
            );
        // It is a shell as well, and ends with its input.
        let (reader, writer) = std::io::pipe().expect("there are pipes");
        std::mem::forget(writer);
        self.reference("mpsup", "supervisor.conf", &text, reader.into())
    }

    /// Starts a reference client of a component or supervisor.
    pub(crate) fn reference_client(&self, port: u16) -> Shell {
        let text = self.ini("cli-1")
            + &format!(
                "[client]\nworkflow = client-initiated\nregistry_preload = {}\n\
                 capability-url = {}:{port}/\n",
                interop("registry/loopback.json").display(),
                self.address
            );
        self.shell("client.conf", &text)
    }

    /// Starts a reference client that components register with. Its certificate is that
    /// of a supervisor: it listens.
    pub(crate) fn reference_listening_client(&self, port: u16) -> Shell {
        let text = self.ini("sup-1")
            + &format!(
                "[client]\nworkflow = component-initiated\nlisten-port = {port}\n\
                 listen-spec-link = {}\n\
                 registration-path = register/capability\n\
                 specification-path = show/specification\nresult-path = register/result\n",
                self.url(port)
            );
        self.shell("client.conf", &text)
    }

    /// Starts a reference shell.
    fn shell(&self, file: &str, text: &str) -> Shell {
        let (reader, input) = std::io::pipe().expect("there are pipes");
        Shell { program: self.reference("mpcli", file, text, reader.into()), input }
    }

    /// Starts a program of the reference.
    fn reference(&self, program: &str, file: &str, text: &str, input: Stdio) -> Program {
        let config = self.folder.path().join(file);
        fs::write(&config, text).expect("the folder is ours");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut reference = command(&self.python.display().to_string());
        reference
            .arg(interop("shim/peer_launch.py"))
            .args([program, "--config"])
            .arg(config)
            .current_dir(self.folder.path())
            .env("PATH", format!("{}:{path}", interop("bin").display()))
            .env("PYTHONUNBUFFERED", "1")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("MPLANE_PEER_BIND", &self.address)
            .stdin(input);
        Program::start(reference)
    }

    /// Returns the sections of a reference configuration that all programs have.
    fn ini(&self, member: &str) -> String {
        if self.transport == Transport::Plain {
            // Without TLS it asks nobody for rights.
            return String::new();
        }
        let pki = self.folder.path().join("pki");
        let rights = LABELS.join(" = admin\n") + " = admin\n";
        format!(
            "[TLS]\ncert = {0}/{member}.crt\nkey = {0}/{member}.key\n\
             ca-chain = {0}/ca.crt\n\n[Roles]\nTest.Clients.cli-1 = admin\n\
             Test.Supervisors.sup-1 = admin\nTest.Components.com-1 = admin\n\n\
             [Authorizations]\n{rights}\n",
            pki.display()
        )
    }

    /// Writes a configuration of ours.
    fn toml(&self, file: &str, member: &str, section: &str) -> PathBuf {
        let path = self.folder.path().join(format!("{file}.toml"));
        let tls = format!(
            "[tls]\nca-chain = \"pki/ca.crt\"\ncert = \"pki/{member}.crt\"\n\
             key = \"pki/{member}.key\"\n\n"
        );
        let text = match self.transport {
            Transport::Tls => tls + section,
            Transport::Plain => section.to_owned(),
        };
        fs::write(&path, text).expect("the folder is ours");
        path
    }

    /// Runs `mplane pki`.
    fn pki(&self, arguments: &[&str]) {
        let mut pki = command(env!("CARGO_BIN_EXE_mplane"));
        pki.arg("pki").args(arguments).current_dir(self.folder.path());
        run(pki).expect(0);
    }
}

/// A reference client shell.
pub(crate) struct Shell {
    program: Program,
    input: PipeWriter,
}

impl Shell {
    /// Sends a command.
    pub(crate) fn send(&mut self, command: &str) {
        writeln!(self.input, "{command}").expect("the shell reads");
    }

    /// Waits for a line that contains these texts.
    pub(crate) fn wait_for(&mut self, texts: &[&str]) -> String {
        self.program.wait_for(Stream::Out, texts)
    }

    /// Ends the input; returns what the shell wrote.
    pub(crate) fn finish(self) -> Finished {
        drop(self.input);
        self.program.finish()
    }

    /// Asks until the shell lists a capability.
    pub(crate) fn wait_for_capability(&mut self, label: &str) {
        self.wait_for_answer("listcap", &format!("Capability {label} "));
    }

    /// Asks until the shell lists a result.
    pub(crate) fn wait_for_result(&mut self, label: &str) {
        self.wait_for_answer("listmeas", &format!("Result  {label} "));
    }

    /// Sends a command again and again, not too often, until its output contains a text.
    pub(crate) fn wait_for_answer(&mut self, command: &str, text: &str) {
        let mut asked: Option<Instant> = None;
        until(text, || {
            if asked.is_none_or(|asked| asked.elapsed() > ASK_AGAIN) {
                self.send(command);
                asked = Some(Instant::now());
            }
            self.program.has_said(Stream::Out, &[text])
        });
    }
}

/// The pause between two questions to a shell, which may be busy with the first.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Installs the reference once for all tests; returns its interpreter.
fn install() -> Option<PathBuf> {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let venv = place.join("mplane-sdk");
    let lock = File::create(place.join("mplane-sdk.lock")).expect("the folder is ours");
    lock.lock().expect("files can be locked");
    let log = Command::new(interop("setup.sh")).arg(&venv).output();
    match log {
        Ok(log) if log.status.success() => Some(venv.join("bin/python")),
        Ok(log) => {
            let text = String::from_utf8_lossy(&log.stderr).into_owned();
            skip(&format!("the reference cannot be installed: {text}"))
        }
        Err(error) => skip(&format!("interop/setup.sh does not run: {error}")),
    }
}

/// Says loudly that a test was not run; in continuous integration, fails instead.
fn skip<T>(reason: &str) -> Option<T> {
    let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!is_ci, "continuous integration must not skip: {reason}");
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    writeln!(std::io::stderr(), "SKIPPED: {test}: {reason}").expect("it is open");
    None
}

/// Returns the path of a file of the interoperability set-up.
fn interop(file: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../interop");
    root.canonicalize().expect("it is in the repository").join(file)
}

/// Prepares a program of ours that runs until it is told to end.
fn daemon(program: &str, config: &Path) -> Command {
    let mut daemon = command(program);
    daemon.arg("--config").arg(config).args(["--log-format", "json"]);
    daemon
}

/// Returns the port that an event in the log tells.
fn port_in(event: &str) -> u16 {
    let (_, rest) = event.split_once("\"address\":\"").expect("it has an address");
    let (address, _) = rest.split_once('"').expect("it is text");
    let (_, port) = address.rsplit_once(':').expect("it has a port");
    port.parse().expect("it is a number")
}

/// Returns the sections of services of a reference component.
fn modules() -> String {
    "[module_peer]\nmodule = peer_services\nsource = 127.0.0.1\n\n\
     [module_ping]\nmodule = mplane.components.ping\nip4addr = 127.0.0.1\n\n"
        .to_owned()
}
