//! Labs that live as long as a command, or in the background.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use clap::Args;
use mplane_lab::registry::{Claim, Entry, Registry};
use mplane_lab::topology::{LAB_NAME_LENGTH, Topology, is_name};
use mplane_lab::{Lab, LogTo, Options, ProgramOutput, Stopped};
use mplane_runtime::shutdown::{HangUp, Received, on_signal};
use tokio_util::sync::CancellationToken;

use super::make_command;
use crate::output::{Output, table};
use crate::{Failure, Told};

/// How this program starts itself.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// What the holder of a lab says when it runs.
const READY: &str = "ready";

/// How long a command has to end by itself after an interrupt from the keyboard, which it
/// got too.
const AFTER_INTERRUPT: Duration = Duration::from_secs(2);

/// How often the emulator is looked after.
const LOOK: Duration = Duration::from_secs(1);

/// The number of SIGINT.
const INTERRUPT: i32 = 2;

/// Which lab, and where its log goes.
#[derive(Args, Clone, Debug)]
struct LabArgs {
    /// The topology, in TOML
    file: PathBuf,
    /// What to call the lab, instead of what the file says
    #[arg(long)]
    name: Option<String>,
    /// Where to log what becomes of every packet
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

impl LabArgs {
    /// Loads the topology.
    fn load(&self) -> Result<Topology, Failure> {
        let mut topology = Topology::load(&self.file)?;
        if let Some(name) = &self.name {
            topology.name.clone_from(name);
        }
        if is_name(&topology.name, LAB_NAME_LENGTH) {
            Ok(topology)
        } else {
            Err(Told(format!(
                "{:?} is no name of a lab: at most {LAB_NAME_LENGTH} lower-case letters, \
                 digits and hyphens, the first a letter",
                topology.name
            ))
            .into())
        }
    }

    /// Starts the lab and tells others of it.
    fn start(
        &self,
        topology: &Topology,
        claim: &mut Claim,
        output: ProgramOutput,
    ) -> Result<(Lab, Entry), Failure> {
        let log = self.log.clone().map_or(LogTo::Nowhere, LogTo::File);
        let options = Options { log, output, id: Some(claim.id().to_owned()) };
        let lab = Lab::start_with(topology, &options)?;
        let entry = claim.announce(&lab)?.clone();
        Ok((lab, entry))
    }
}

/// The arguments of `mplane lab up`.
#[derive(Args, Clone, Debug)]
pub struct UpArgs {
    #[command(flatten)]
    lab: LabArgs,
}

impl UpArgs {
    /// Starts a process that holds the lab, and waits until the lab runs.
    pub(super) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let registry = Registry::open()?;
        let topology = self.lab.load()?;
        let mut command = Command::new(THIS_PROGRAM);
        command.args(["lab", "hold", "--name", &topology.name]);
        if let Some(log) = &self.lab.log {
            command.arg("--log").arg(std::path::absolute(log)?);
        }
        command.arg("--").arg(std::path::absolute(&self.lab.file)?);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        command.current_dir("/");
        let mut holder = command.spawn()?;
        let mut said = String::new();
        if let Some(mut pipe) = holder.stdout.take() {
            // The holder closes it when it is ready or has failed.
            pipe.read_to_string(&mut said)?;
        }
        if said != READY {
            let said = said.trim();
            let why = if said.is_empty() { "its process ended early" } else { said };
            return Err(Told(why.to_owned()).into());
        }
        let entry = registry.find(&topology.name)?;
        let rows = entry.hosts.iter().map(|host| {
            let addresses: Vec<_> =
                host.addresses.iter().map(ToString::to_string).collect();
            let path = entry.namespace_path(host).display().to_string();
            [host.name.clone(), addresses.join(" "), path]
        });
        output.line(table(&["host", "addresses", "namespace"], rows));
        let name = &entry.name;
        let first = entry.hosts.first().map_or("HOST", |host| host.name.as_str());
        output.note(format_args!(
            "\nlab {name} runs; `mplane lab exec {name} {first} -- COMMAND` runs a command \
             in it, `mplane lab down {name}` ends it"
        ));
        tell_priority(&entry, &topology, output);
        Ok(())
    }
}

/// Says that departures may be late.
fn tell_priority(entry: &Entry, topology: &Topology, output: &mut Output) {
    if !entry.is_realtime && !topology.is_busy {
        output.note(
            "note: the links run without real-time priority (CAP_SYS_NICE), so packets may \
             be late when the machine is busy; the log says how late",
        );
    }
}

/// The arguments of `mplane lab hold`.
#[derive(Args, Clone, Debug)]
pub struct HoldArgs {
    #[command(flatten)]
    lab: LabArgs,
}

impl HoldArgs {
    /// Holds a lab until a signal comes. What prevents it is told on standard output.
    pub(super) fn run(self, output: &mut Output) -> Result<(), Failure> {
        mplane_lab::detach();
        let result = self.hold();
        if let Err(Failure::Failed(error)) = &result {
            output.line(mplane_runtime::report(&**error));
        }
        result
    }

    /// Holds a lab until a signal comes.
    fn hold(self) -> Result<(), Failure> {
        let registry = Registry::open()?;
        mplane_lab::become_root_within();
        let topology = self.lab.load()?;
        let mut claim = registry.claim(&topology.name, &self.lab.file)?;
        let folder = registry.output_folder(&topology.name);
        std::fs::create_dir(&folder)?;
        watch(&registry, &topology.name)?;
        crate::block_on(async {
            let shutdown = CancellationToken::new();
            on_signal(shutdown.clone(), HangUp::Ends)?;
            let output = ProgramOutput::Folder(folder);
            let (lab, _) = self.lab.start(&topology, &mut claim, output)?;
            say_ready()?;
            while lab.is_passing() {
                if tokio::time::timeout(LOOK, shutdown.cancelled()).await.is_ok() {
                    break;
                }
            }
            lab.stop()?;
            Ok(())
        })
    }
}

/// Says that the lab runs, and closes standard output: who waits for it goes on.
fn say_ready() -> io::Result<()> {
    let mut out = io::stdout();
    out.write_all(READY.as_bytes())?;
    out.flush()?;
    mplane_lab::close_output()
}

/// Starts a process that removes what the lab leaves if it is killed.
fn watch(registry: &Registry, name: &str) -> io::Result<Child> {
    Command::new(THIS_PROGRAM)
        .args(["lab", "watch", name])
        .env(mplane_lab::registry::FOLDER_VARIABLE, registry.folder())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

/// The arguments of `mplane lab run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    #[command(flatten)]
    lab: LabArgs,
    /// The host in which the command runs; without it, the first of the file
    #[arg(short = 'H', long)]
    host: Option<String>,
    /// Run the command outside of all hosts; variables `MPLANE_LAB_NS_HOST` name their
    /// namespaces for `nsenter --net=`
    #[arg(long, conflicts_with = "host")]
    outside: bool,
    /// The command, with its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

impl RunArgs {
    /// Starts the lab, runs the command, and ends the lab.
    pub(super) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let registry = Registry::open()?;
        mplane_lab::become_root_within();
        let mut topology = self.lab.load()?;
        if self.lab.name.is_none() {
            // Several may run the same file at a time.
            let suffix = format!("-{}", std::process::id());
            topology.name.truncate(LAB_NAME_LENGTH - suffix.len());
            topology.name += &suffix;
        }
        if let Some(host) = &self.host
            && topology.host(host).is_none()
        {
            let names: Vec<_> = topology.hosts.iter().map(|host| &*host.name).collect();
            let path = Path::display(&self.lab.file);
            let names = names.join(", ");
            let text = format!("{path} has no host {host}; it has {names}");
            return Err(Told(text).into());
        }
        let mut claim = registry.claim(&topology.name, &self.lab.file)?;
        watch(&registry, &topology.name)?;
        crate::block_on(async {
            let shutdown = CancellationToken::new();
            let received = on_signal(shutdown.clone(), HangUp::Ends)?;
            let (lab, entry) =
                self.lab.start(&topology, &mut claim, ProgramOutput::Inherit)?;
            tell_priority(&entry, &topology, output);
            let child = self.spawn(&lab, &entry)?;
            let ended = wait(child, &shutdown, &received);
            let status = ended.await;
            tell_stopped(&lab.stop()?, output);
            conclude(status.transpose()?, &received)
        })
    }

    /// Starts the command.
    fn spawn(&self, lab: &Lab, entry: &Entry) -> Result<Child, Failure> {
        let mut command = make_command(&self.command)?;
        let failed = |error: io::Error| {
            let program = self.command.first().map(|word| word.to_string_lossy());
            Told(format!("cannot execute {}: {error}", program.unwrap_or_default()))
        };
        for host in &entry.hosts {
            let variable = host.name.to_uppercase().replace('-', "_");
            let path = entry.namespace_path(host);
            command.env(format!("MPLANE_LAB_NS_{variable}"), path);
        }
        let host = match &self.host {
            Some(name) => lab.host(name),
            None => lab.hosts().first(),
        };
        match host {
            Some(host) if !self.outside => {
                Ok(host.spawn(&mut command).map_err(failed)?)
            }
            _ => Ok(lab.spawn_outside(&mut command).map_err(failed)?),
        }
    }
}

/// Waits until the command ends, or a signal asks this program to. Returns how the command
/// ended, if it did.
async fn wait(
    mut child: Child,
    shutdown: &CancellationToken,
    received: &Received,
) -> Option<io::Result<ExitStatus>> {
    let mut ended =
        tokio::task::spawn_blocking(move || child.wait().map_err(io::Error::other));
    tokio::select! {
        status = &mut ended => return Some(status.unwrap_or_else(|e| Err(e.into()))),
        () = shutdown.cancelled() => {}
    }
    if received.number() == Some(INTERRUPT) {
        let late = tokio::time::timeout(AFTER_INTERRUPT, ended).await.ok()?;
        return Some(late.unwrap_or_else(|error| Err(error.into())));
    }
    None
}

/// Says what went wrong within the lab.
fn tell_stopped(stopped: &Stopped, output: &mut Output) {
    for (host, words, status) in &stopped.failed {
        output.note(format_args!("note: {} in host {host}: {status}", words.join(" ")));
    }
    if stopped.unseen > 0 {
        output.note(format_args!(
            "note: {} packets came faster than the links could take them, and are lost \
             beyond what was asked for; the log counts them as unseen",
            stopped.unseen
        ));
    }
}

/// Makes the exit status of the command one's own.
fn conclude(status: Option<ExitStatus>, received: &Received) -> Result<(), Failure> {
    if let Some(signal) = received.number() {
        return Err(Failure::Signal(signal));
    }
    let Some(status) = status else { return Ok(()) };
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(Failure::Status(u8::try_from(code).unwrap_or(1))),
        (None, signal) => Err(Failure::Signal(signal.unwrap_or(0))),
    }
}
