//! The reference component, as it is run by the tests of peers.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::domain::{ADDRESS, Domain, Log, free_port};
use crate::support::{Program, command};

/// An installed reference.
pub(super) struct Reference {
    python: PathBuf,
}

impl Reference {
    /// Installs it, if that is not done yet; `None`, loudly, where that is not possible.
    pub(super) fn install() -> Option<Self> {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let venv = place.join("mplane-sdk");
        let lock =
            File::create(place.join("mplane-sdk.lock")).expect("the folder is ours");
        lock.lock().expect("files can be locked");
        match Command::new(interop("setup.sh")).arg(&venv).output() {
            Ok(log) if log.status.success() => {
                Some(Self { python: venv.join("bin/python") })
            }
            Ok(log) => skip(&String::from_utf8_lossy(&log.stderr)),
            Err(error) => skip(&error.to_string()),
        }
    }

    /// Starts a component that listens; returns it with its URL.
    pub(super) fn listening(&self, domain: &Domain) -> (Program, String) {
        let port = free_port();
        let url = format!("https://{ADDRESS}:{port}/");
        let section = format!(
            "[component]\nworkflow = client-initiated\nlisten-port = {port}\n\
             listen-cap-link = {url}\n"
        );
        let (program, log) = self.component(domain, &section);
        // It is told before anybody can connect.
        log.wait_for(&["ListenerHttpComponent running"]);
        (program, url)
    }

    /// Starts a component that registers at a port, and waits until it has.
    pub(super) fn registering(&self, domain: &Domain, port: u16) -> Program {
        let section = format!(
            "[component]\nworkflow = component-initiated\nclient_host = {ADDRESS}\n\
             client_port = {port}\nregistration_path = register/capability\n\
             specification_path = show/specification\nresult_path = register/result\n"
        );
        let (program, log) = self.component(domain, &section);
        log.wait_for(&["Checking for Specifications"]);
        program
    }

    /// Starts a component with this section.
    fn component(&self, domain: &Domain, section: &str) -> (Program, Log) {
        let config = domain.path().join("reference.conf");
        let pki = domain.path().join("pki").display().to_string();
        let registry = interop("registry/loopback.json");
        let text = format!(
            "[TLS]\ncert = {pki}/com-1.crt\nkey = {pki}/com-1.key\nca-chain = {pki}/ca.crt\n\n\
             [Roles]\nBench.Clients.cli-1 = admin\nBench.Supervisors.sup-1 = admin\n\n\
             [Authorizations]\npeer-echo = admin\nping-average-ip4 = admin\n\n\
             [module_peer]\nmodule = peer_services\nsource = 127.0.0.1\n\n\
             [module_ping]\nmodule = mplane.components.ping\nip4addr = 127.0.0.1\n\n\
             {section}scheduler_max_results = 20\nregistry_preload = {}\n",
            registry.display()
        );
        fs::write(&config, text).expect("the folder is ours");
        let mut program = self.python(&interop("shim/peer_launch.py"));
        program.args(["mpcom", "--config"]).arg(config).current_dir(domain.path());
        domain.start_logging("reference", program)
    }

    /// Runs its scheduler in a process of its own, with so many repeated measurements;
    /// returns what that process says, if it says anything in time.
    pub(super) fn starts(&self, domain: &Domain, repeats: usize) -> Option<String> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/component");
        let mut program = self.python(&here.join("reference_starts.py"));
        program.arg(repeats.to_string()).env("PYTHONPATH", interop("shim"));
        let (_program, log) = domain.start_logging("starts", program);
        log.look_for(&["\"windows\""])
    }

    /// Prepares Python to run a file.
    fn python(&self, file: &Path) -> Command {
        let mut program = command(&self.python.display().to_string());
        program
            .arg(file)
            .env("PYTHONUNBUFFERED", "1")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("MPLANE_PEER_BIND", ADDRESS);
        program
    }
}

/// Says loudly that there is no reference to compare with.
fn skip(reason: &str) -> Option<Reference> {
    let mut err = std::io::stderr();
    writeln!(err, "SKIPPED: the reference: it cannot be installed: {reason}")
        .expect("it is open");
    None
}

/// Returns the path of a file of the interoperability set-up.
fn interop(file: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../interop");
    root.canonicalize().expect("it is in the repository").join(file)
}
