//! A domain whose members are processes.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::support::{
    Finished, Output, Program, Stream, check_row, command, folder, rows, run,
};

/// The everyday tool.
pub(super) const MPLANE: &str = env!("CARGO_BIN_EXE_mplane");

/// The component.
pub(super) const MPCOM: &str = env!("CARGO_BIN_EXE_mpcom");

/// The shell.
pub(super) const MPCLI: &str = env!("CARGO_BIN_EXE_mpcli");

/// The supervisor.
pub(super) const MPSUP: &str = env!("CARGO_BIN_EXE_mpsup");

/// All of them, by name.
pub(super) const PROGRAMS: [(&str, &str); 4] =
    [("mplane", MPLANE), ("mpcom", MPCOM), ("mpcli", MPCLI), ("mpsup", MPSUP)];

/// What a component offers here: TCP connects, which need no rights.
pub(super) const TCP: &str =
    "[[component.service]]\ntype = \"tcp-connect\"\nip4 = \"127.0.0.1\"\n";

/// The authority's folder, and that of another authority with the same members.
pub(super) const AUTHORITIES: [&str; 2] = ["pki", "other"];

/// A domain: two authorities that know nothing of each other, and configurations.
pub(super) struct Domain {
    pub(super) folder: TempDir,
}

impl Domain {
    /// Makes certificates with `mplane pki`.
    pub(super) fn new() -> Self {
        let domain = Self { folder: folder() };
        for (authority, organization) in AUTHORITIES.into_iter().zip(["Test", "Other"]) {
            domain.pki(&["init", authority, "--organization", organization]).expect(0);
            for (role, name) in
                [("supervisor", "sup-1"), ("component", "com-1"), ("client", "cli-1")]
            {
                let hosts = ["--host", "127.0.0.1", "--host", "127.0.0.2"];
                let issue = [&["issue", authority, role, name][..], &hosts].concat();
                domain.pki(&issue).expect(0);
            }
        }
        domain
    }

    /// Runs `mplane pki` in the domain's folder.
    pub(super) fn pki(&self, arguments: &[&str]) -> Finished {
        let mut pki = command(MPLANE);
        pki.arg("pki").args(arguments).current_dir(self.folder.path());
        run(pki)
    }

    /// Returns the path of a file.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the configuration of a member of the first authority's domain.
    pub(super) fn configure(&self, file: &str, member: &str, section: &str) -> PathBuf {
        let [authority, _] = AUTHORITIES;
        self.configure_of(authority, file, member, section)
    }

    /// Writes the configuration of a member whose certificate is of this authority, and
    /// who trusts the first one.
    pub(super) fn configure_of(
        &self,
        authority: &str,
        file: &str,
        member: &str,
        section: &str,
    ) -> PathBuf {
        let text = format!(
            "[tls]\nca-chain = \"pki/ca.crt\"\ncert = \"{authority}/{member}.crt\"\n\
             key = \"{authority}/{member}.key\"\n\n{section}"
        );
        let path = self.path(file);
        fs::write(&path, text).expect("the folder is ours");
        path
    }

    /// Starts the supervisor on a port of its own; returns it with its address.
    pub(super) fn supervisor(&self) -> (Program, SocketAddr) {
        self.supervisor_at("127.0.0.1:0")
    }

    /// Starts the supervisor; returns it with its address.
    pub(super) fn supervisor_at(&self, address: &str) -> (Program, SocketAddr) {
        let section = format!("[supervisor.listener]\naddress = \"{address}\"\n");
        let config = self.configure("supervisor.toml", "sup-1", &section);
        let mut supervisor = Program::start(daemon(MPSUP, &config));
        let address = address_in(&supervisor.wait_for(Stream::Err, &["\"supervises\""]));
        (supervisor, address)
    }

    /// Starts a component that registers with a supervisor, and waits until it has.
    pub(super) fn component(&self, supervisor: SocketAddr) -> Program {
        let section = initiator(supervisor) + TCP;
        let config = self.configure("component.toml", "com-1", &section);
        let mut component = Program::start(daemon(MPCOM, &config));
        component.wait_for(Stream::Err, &["\"registered\"", "Test.Supervisors.sup-1"]);
        component
    }

    /// Prepares the shell of a member for a supervisor or component.
    pub(super) fn shell_of(&self, member: &str, peer: SocketAddr) -> Command {
        let section = format!("[client]\nurl = \"https://{peer}/\"\n");
        let config = self.configure(&format!("shell-{member}.toml"), member, &section);
        let mut shell = command(MPCLI);
        shell.arg("--config").arg(config);
        shell
    }

    /// Runs commands in the client's shell.
    pub(super) fn shell(&self, peer: SocketAddr, commands: &str) -> Finished {
        let mut shell = self.shell_of("cli-1", peer);
        shell.args(["-c", commands]);
        run(shell)
    }
}

/// Returns the section of a component that registers with a supervisor.
pub(super) fn initiator(supervisor: SocketAddr) -> String {
    format!("[[component.initiator]]\nurl = \"https://{supervisor}/\"\n\n")
}

/// Prepares a program that runs until it is told to end.
pub(super) fn daemon(program: &str, config: &Path) -> Command {
    let mut daemon = command(program);
    daemon.arg("--config").arg(config).args(["--log-format", "json"]);
    daemon
}

/// Returns the address that an event in the log tells.
pub(super) fn address_in(event: &str) -> SocketAddr {
    let (_, rest) = event.split_once("\"address\":\"").expect("it has an address");
    let (address, _) = rest.split_once('"').expect("it is text");
    address.parse().unwrap_or_else(|error| panic!("{address}: {error}"))
}

/// Returns the answer to a request in plain HTTP with these headers, head and body.
pub(super) fn get(address: SocketAddr, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(stream, "GET {path} HTTP/1.1\r\n{headers}\r\nConnection: close\r\n\r\n")
        .expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

/// Returns commands that measure from the component to a port, for so long.
pub(super) fn measure(port: u16, scope: &str) -> String {
    format!(
        "set destination.ip4 127.0.0.1; set destination.port {port}; when {scope}; \
         runcap tcp-connect-ip4"
    )
}

/// Checks that a result has rows with delays.
#[track_caller]
pub(super) fn check_result(output: &Output) {
    let delays: Vec<_> = rows(&output.out).iter().map(|row| check_row(row)).collect();
    assert!(!delays.is_empty() && delays.iter().all(Option::is_some), "{output:#?}");
}
