//! Who is measured: the supervisor and the floor, as processes.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use nix::sys::signal::Signal;

use crate::Stage;
use crate::domain::{ADDRESS, Domain, free_port};
use crate::support::{Program, Stream, command};

/// The supervisor.
const MPSUP: &str = env!("CARGO_BIN_EXE_mpsup");

/// The folder of its store, in the folder of the domain.
const DATA: &str = "store";

/// A supervisor with its store on disk.
pub(super) struct Supervisor {
    program: Program,
    configuration: String,
    /// Where it listens, also after it was started again.
    pub(super) address: SocketAddr,
}

impl Supervisor {
    /// Starts one with an empty store.
    pub(super) fn start(stage: &Stage) -> Self {
        Self::start_keeping(stage, "")
    }

    /// Starts one with an empty store, and keys that say what it keeps how long.
    pub(super) fn start_keeping(stage: &Stage, keys: &str) -> Self {
        // Mostly there is none.
        drop(fs::remove_dir_all(data(&stage.domain)));
        let address = SocketAddr::new(ADDRESS.parse().expect("it is one"), free_port());
        let configuration = format!(
            "[tls]\nca-chain = \"pki/ca.crt\"\ncert = \"pki/sup-1.crt\"\n\
             key = \"pki/sup-1.key\"\n\n[supervisor]\ndata = \"{DATA}\"\n{keys}\n\
             [supervisor.listener]\naddress = \"{address}\"\n"
        );
        let (program, log) = stage.domain.start_as(MPSUP, "sup-1", &configuration);
        log.wait_for(&["\"supervises\""]);
        Self { program, configuration, address }
    }

    /// Kills it as a power cut would.
    pub(super) fn kill(self) -> Killed {
        self.program.signal(Signal::SIGKILL);
        let Self { program, configuration, address } = self;
        // It has ended, and been waited for.
        drop(program);
        Killed { configuration, address }
    }

    /// Returns the number of the process.
    pub(super) fn id(&self) -> u32 {
        self.program.id()
    }
}

/// A supervisor that was killed, with its store.
pub(super) struct Killed {
    configuration: String,
    address: SocketAddr,
}

impl Killed {
    /// Starts it again on the same store; does not wait until it listens.
    pub(super) fn start(self, stage: &Stage) -> Supervisor {
        let Self { configuration, address } = self;
        let (program, _) = stage.domain.start_as(MPSUP, "sup-1", &configuration);
        Supervisor { program, configuration, address }
    }
}

/// Returns how large the store is, in bytes.
pub(super) fn stored_bytes(domain: &Domain) -> u64 {
    let files = fs::read_dir(data(domain)).expect("the folder is ours");
    files.filter_map(|file| file.ok()?.metadata().ok()).map(|file| file.len()).sum()
}

/// Returns the folder of the store.
fn data(domain: &Domain) -> PathBuf {
    domain.path().join(DATA)
}

/// Starts the floor, a bare axum server that sends back what it gets; returns it with where
/// it listens.
pub(super) fn floor(domain: &Domain) -> (Program, SocketAddr) {
    let program = std::env::current_exe().expect("the kernel knows it");
    let mut program = command(&program.display().to_string());
    program.arg("echo").arg(domain.path().join("pki"));
    let mut server = Program::start(program);
    let url = server.wait_for(Stream::Out, &["https://"]);
    let address = url.trim_start_matches("https://").trim_end_matches('/');
    let address = address.parse().expect("it is an address");
    (server, address)
}
