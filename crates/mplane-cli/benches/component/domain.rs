//! A domain with certificates, and programs that run in it.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Instant;

use mplane_cli::pki::{Authority, Role};
use mplane_runtime::tls::Credentials;
use tempfile::TempDir;

use crate::support::{DEADLINE, LOOK_AGAIN, Program, command, folder};

/// The address of everybody.
pub(super) const ADDRESS: &str = "127.0.0.1";

/// A domain: an authority, and a certificate for each kind of member.
pub(super) struct Domain {
    folder: TempDir,
}

impl Domain {
    /// Makes certificates in a folder that is removed at the end.
    pub(super) fn new() -> Self {
        let folder = folder();
        let authority = Authority::create(&folder.path().join("pki"), "Bench");
        let authority = authority.expect("the folder is ours");
        let hosts = [ADDRESS.to_owned()];
        for (role, name) in [
            (Role::Supervisor, "sup-1"),
            (Role::Component, "com-1"),
            (Role::Client, "cli-1"),
        ] {
            authority.issue(role, name, &hosts).expect("the folder is ours");
        }
        Self { folder }
    }

    /// Returns the folder.
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the credentials of the client.
    pub(super) fn client(&self) -> Arc<Credentials> {
        let file = |name: &str| self.path().join("pki").join(name);
        let loaded =
            Credentials::load(&file("ca.crt"), &file("cli-1.crt"), &file("cli-1.key"));
        Arc::new(loaded.expect("the certificates are sound"))
    }

    /// Starts a program of ours with a section of configuration, and without what an
    /// earlier one has left. Returns it with its log.
    pub(super) fn start(
        &self,
        program: &str,
        member: &str,
        section: &str,
    ) -> (Program, Log) {
        let text = format!(
            "[tls]\nca-chain = \"pki/ca.crt\"\ncert = \"pki/{member}.crt\"\n\
             key = \"pki/{member}.key\"\n\n{section}"
        );
        self.start_as(program, member, &text)
    }

    /// Starts a program of ours with a whole configuration.
    pub(super) fn start_as(
        &self,
        program: &str,
        member: &str,
        text: &str,
    ) -> (Program, Log) {
        for left in ["", "-wal", "-shm", ".lock"] {
            // Mostly there is none.
            drop(fs::remove_file(self.path().join(format!("{SPOOL}{left}"))));
        }
        let config = self.path().join(format!("{member}.toml"));
        fs::write(&config, text).expect("the folder is ours");
        let mut program = command(program);
        program.arg("--config").arg(config).args(["--log-format", "json"]);
        self.start_logging(member, program)
    }

    /// Starts a program whose output goes to a file: reading it would take time from the
    /// machine that is measured.
    pub(super) fn start_logging(&self, name: &str, command: Command) -> (Program, Log) {
        let log = Log(self.path().join(format!("{name}.log")));
        let file = File::create(&log.0).expect("the folder is ours");
        let other = file.try_clone().expect("files can be shared");
        (Program::start_with(command, Stdio::from(file), Stdio::from(other)), log)
    }
}

/// The file of a spool, in the folder of the domain.
pub(super) const SPOOL: &str = "component.spool";

/// Returns the line of a configuration that gives a component a spool, or does not.
pub(super) fn spool_line(has_spool: bool) -> String {
    if has_spool { format!("spool = \"{SPOOL}\"\n") } else { String::new() }
}

/// Says whether there is a spool.
pub(super) const fn spool_word(has_spool: bool) -> &'static str {
    if has_spool { "with spool" } else { "without spool" }
}

/// What a program logs.
pub(super) struct Log(PathBuf);

impl Log {
    /// Waits for a line that contains these texts.
    pub(super) fn wait_for(&self, texts: &[&str]) -> String {
        let line = self.look_for(texts);
        line.unwrap_or_else(|| panic!("no line with {texts:?} came: {}", self.read()))
    }

    /// Waits for a line that contains these texts; `None` if none comes.
    pub(super) fn look_for(&self, texts: &[&str]) -> Option<String> {
        let started = Instant::now();
        while started.elapsed() < DEADLINE {
            let log = self.read();
            let mut lines = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            let line = lines.find(|line| texts.iter().all(|text| line.contains(text)));
            if let Some(line) = line {
                return Some(line.trim_end().to_owned());
            }
            sleep(LOOK_AGAIN);
        }
        None
    }

    /// Reads all of it.
    fn read(&self) -> String {
        fs::read_to_string(&self.0).expect("the folder is ours")
    }

    /// Waits for the event that tells where a program listens.
    pub(super) fn address(&self, event: &str) -> SocketAddr {
        let line = self.wait_for(&[event, "\"address\":\""]);
        let rest = line.split_once("\"address\":\"").map(|(_, rest)| rest);
        let address = rest.and_then(|rest| rest.split('"').next());
        address.and_then(|address| address.parse().ok()).expect("it is an address")
    }
}

/// Returns a port that nobody uses.
pub(super) fn free_port() -> u16 {
    let listener = TcpListener::bind((ADDRESS, 0)).expect("there are free ports");
    listener.local_addr().expect("it is bound").port()
}
