//! The reference supervisor, as it is run by the tests of peers.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::domain::{ADDRESS, Domain, free_port};
use crate::support::{LOOK_AGAIN, Program, command};

/// An installed reference.
pub(super) struct Reference {
    python: PathBuf,
}

impl Reference {
    /// Installs it, if that is not done yet; `None`, loudly, where that is not possible.
    pub(super) fn install() -> Option<Self> {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let venv = place.join("mplane-sdk");
        let lock = File::create(place.join("mplane-sdk.lock"));
        let lock = lock.expect("the folder is ours");
        lock.lock().expect("files can be locked");
        let reason = match Command::new(interop("setup.sh")).arg(&venv).output() {
            Ok(log) if log.status.success() => {
                return Some(Self { python: venv.join("bin/python") });
            }
            Ok(log) => String::from_utf8_lossy(&log.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        let mut err = std::io::stderr();
        writeln!(err, "SKIPPED: the reference: it cannot be installed: {reason}")
            .expect("it is open");
        None
    }

    /// Starts a supervisor.
    pub(super) fn supervisor(&self, domain: &Domain) -> Relay {
        let [components, clients] = [free_port(), free_port()]
            .map(|port| SocketAddr::new(ADDRESS.parse().expect("it is one"), port));
        let [components_port, clients_port] = [components.port(), clients.port()];
        let pki = domain.path().join("pki").display().to_string();
        let text = format!(
            "[TLS]\ncert = {pki}/sup-1.crt\nkey = {pki}/sup-1.key\nca-chain = {pki}/ca.crt\n\n\
             [Roles]\nBench.Clients.cli-0 = admin\n\n[Authorizations]\nbench = admin\n\n\
             [client]\nworkflow = component-initiated\nlisten-port = {components_port}\n\
             listen-spec-link = https://{components}/\n\
             registration-path = register/capability\n\
             specification-path = show/specification\nresult-path = register/result\n\
             component-urls =\n\n[component]\nworkflow = client-initiated\n\
             scheduler_max_results = 20\nlisten-port = {clients_port}\n\
             listen-cap-link = https://{clients}/\n"
        );
        let config = domain.path().join("reference.conf");
        fs::write(&config, text).expect("the folder is ours");
        let mut program = command(&self.python.display().to_string());
        program
            .arg(interop("shim/peer_launch.py"))
            .args(["mpsup", "--config"])
            .arg(config)
            .current_dir(domain.path())
            .env("PYTHONUNBUFFERED", "1")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("MPLANE_PEER_BIND", ADDRESS);
        // It is a shell as well, and ends with its input.
        let (reader, writer) = std::io::pipe().expect("there are pipes");
        std::mem::forget(writer);
        program.stdin(Stdio::from(reader));
        let log = File::create(domain.path().join("reference.log"));
        let log = log.expect("the folder is ours");
        let other = log.try_clone().expect("files can be shared");
        let program = Program::start_with(program, log.into(), other.into());
        for address in [components, clients] {
            while std::net::TcpStream::connect(address).is_err() {
                std::thread::sleep(LOOK_AGAIN);
            }
        }
        Relay { program, components, clients }
    }
}

/// A supervisor of the reference, which forgets everything at its end.
pub(super) struct Relay {
    program: Program,
    /// Where it listens for components.
    pub(super) components: SocketAddr,
    /// Where it listens for clients, of which the first may use everything.
    pub(super) clients: SocketAddr,
}

impl Relay {
    /// Returns the number of the process.
    pub(super) fn id(&self) -> u32 {
        self.program.id()
    }
}

/// Returns the path of a file of the interoperability set-up.
fn interop(file: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../interop");
    root.canonicalize().expect("it is in the repository").join(file)
}
