//! A lab: hosts, links and the emulator, from start to stop.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::emulator::{Emulator, monotonic, nanos, utc};
use crate::interface::{self, SetUpError};
use crate::log::{
    Description, Entry, Fate, LinkDescription, Log, ReadLogError, Writer, count,
};
use crate::namespace::{CreateNamespaceError, Namespace};
use crate::topology::{Topology, routes};
use crate::{names, process};

/// Where the packet log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LogTo {
    /// There is none.
    Nowhere,
    /// Into a file without a name, which [`Lab::log`] reads and which ends with the lab.
    #[default]
    Temporary,
    /// Into this file; one that exists is overwritten.
    File(PathBuf),
}

/// Where the programs of a topology write to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ProgramOutput {
    /// Where this process does.
    #[default]
    Inherit,
    /// Into this folder, one file for each: `HOST.NUMBER.log`.
    Folder(PathBuf),
}

/// How a lab is started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Where the packet log goes.
    pub log: LogTo,
    /// Where programs write to.
    pub output: ProgramOutput,
    /// The identifier that marks its programs; without it, a new one.
    pub id: Option<String>,
}

/// A running lab. It ends when this is dropped, or with the process.
#[derive(Debug)]
pub struct Lab {
    id: String,
    topology: Topology,
    hosts: Vec<Host>,
    emulator: Option<Emulator>,
    writer: Option<(Writer, Sender<Entry>)>,
    log: Option<File>,
    programs: Vec<Program>,
}

/// A host of a running lab.
#[derive(Debug)]
pub struct Host {
    name: String,
    lab: String,
    id: String,
    addresses: Vec<IpAddr>,
    namespace: Namespace,
    /// What programs in it see as `/etc/hosts`.
    names: String,
}

/// A program of the topology.
#[derive(Debug)]
struct Program {
    host: String,
    words: Vec<String>,
    child: Child,
}

/// What was found when a lab ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stopped {
    /// Packets that the kernel dropped before the emulator saw them: the load was more
    /// than it carries. They are in the log too, as [`Fate::Unseen`].
    pub unseen: u64,
    /// Programs of the topology that had failed by themselves: host, words and status.
    pub failed: Vec<(String, Vec<String>, ExitStatus)>,
}

impl Lab {
    /// Starts a lab with a temporary log.
    pub fn start(topology: &Topology) -> Result<Self, StartLabError> {
        Self::start_with(topology, &Options::default())
    }

    /// Starts a lab. When this returns, packets pass, and time zero of scheduled changes
    /// is over; the programs of the topology have been started.
    pub fn start_with(
        topology: &Topology,
        options: &Options,
    ) -> Result<Self, StartLabError> {
        let id = match &options.id {
            Some(id) => id.clone(),
            None => new_id().map_err(StartLabError::Id)?,
        };
        let hosts = create_hosts(topology, &id)?;
        let mut devices = Vec::new();
        for link in &topology.links {
            let [one, two] = &link.ends;
            let create = |end: &crate::topology::EndPlan| {
                let host = host_of(&hosts, end.host);
                enter(host, || interface::create_device(&end.interface))
            };
            devices.push([create(one)?, create(two)?]);
        }
        let routes = routes(topology);
        for (number, (plan, routes)) in topology.hosts.iter().zip(&routes).enumerate() {
            let ends = topology
                .links
                .iter()
                .flat_map(|link| link.ends.iter().map(|end| (end, link.mtu)));
            let ends: Vec<_> = ends.filter(|(end, _)| end.host == number).collect();
            let host = host_of(&hosts, number);
            enter(host, || interface::set_up(plan, &ends, routes))?;
        }
        let started = monotonic();
        let log = create_log(&options.log)?;
        let writer = match &log {
            None => None,
            Some(file) => {
                let description = describe(topology, nanos(started));
                let file = file.try_clone().map_err(StartLabError::Log)?;
                Some(Writer::start(file, &description).map_err(StartLabError::Log)?)
            }
        };
        let entries = writer.as_ref().map(|(_, entries)| entries.clone());
        let emulator = Emulator::start(topology, devices, started, entries)
            .map_err(StartLabError::Emulator)?;
        let mut lab = Self {
            id,
            topology: topology.clone(),
            hosts,
            emulator: Some(emulator),
            writer,
            log,
            programs: Vec::new(),
        };
        lab.start_programs(&options.output)?;
        Ok(lab)
    }

    /// Returns the identifier that marks its programs.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns what it was made of.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Returns its hosts, in the order of the topology.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Returns a host by its name.
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == name)
    }

    /// Returns whether the emulator has real-time priority. Without it, departures are
    /// late when the machine is busy; the log says how late.
    pub fn is_realtime(&self) -> bool {
        self.emulator.as_ref().is_some_and(|emulator| emulator.is_realtime)
    }

    /// Returns whether packets pass still. An emulator that ends by itself has failed;
    /// [`Lab::stop`] says why.
    pub fn is_passing(&self) -> bool {
        self.emulator.as_ref().is_some_and(|emulator| !emulator.has_failed())
    }

    /// Returns what became of all packets whose fate is known by now: those on their way
    /// are not in it yet.
    pub fn log(&self) -> Result<Log, ReadLogError> {
        let Some(file) = &self.log else { return Err(ReadLogError::NoLog) };
        if let Some(emulator) = &self.emulator {
            emulator.flush();
        }
        Log::read(file)
    }

    /// Starts a program that is in none of the hosts, but is ended with the lab.
    pub fn spawn_outside(&self, command: &mut Command) -> io::Result<Child> {
        names::mark(command, &self.topology.name, &self.id, "");
        command.spawn()
    }

    /// Ends it: the programs within, the links, the namespaces. Packets on their way are
    /// logged as unfinished.
    pub fn stop(mut self) -> Result<Stopped, StopLabError> {
        self.end()
    }

    /// Starts the programs of the topology.
    fn start_programs(&mut self, output: &ProgramOutput) -> Result<(), StartLabError> {
        for (host, plan) in self.hosts.iter().zip(&self.topology.hosts) {
            for (words, number) in plan.programs.iter().zip(1..) {
                let Some((name, arguments)) = words.split_first() else { continue };
                let failed = |source| StartLabError::Program {
                    host: plan.name.clone(),
                    program: name.clone(),
                    source,
                };
                let mut command = Command::new(name);
                command.args(arguments).stdin(Stdio::null());
                if let ProgramOutput::Folder(folder) = output {
                    let path = folder.join(format!("{}.{number}.log", plan.name));
                    let file = File::create(path).map_err(failed)?;
                    let second = file.try_clone().map_err(failed)?;
                    command.stdout(file).stderr(second);
                }
                let child = host.spawn(&mut command).map_err(failed)?;
                let (host, words) = (plan.name.clone(), words.clone());
                self.programs.push(Program { host, words, child });
            }
        }
        Ok(())
    }

    /// Ends what has not ended.
    fn end(&mut self) -> Result<Stopped, StopLabError> {
        let mut stopped = Stopped::default();
        for program in &mut self.programs {
            if let Ok(Some(status)) = program.child.try_wait()
                && !status.success()
            {
                let (host, words) = (program.host.clone(), program.words.clone());
                stopped.failed.push((host, words, status));
            }
        }
        let inodes: Vec<_> =
            self.hosts.iter().filter_map(|host| host.namespace.inode().ok()).collect();
        if self.emulator.is_some() {
            process::end_all(&self.id, &inodes);
        }
        for mut program in self.programs.drain(..) {
            if let Err(error) = program.child.wait() {
                tracing::debug!(%error, "a program cannot be waited for");
            }
        }
        let unseen = if self.emulator.is_some() { self.unseen() } else { Vec::new() };
        let ended = self.emulator.take().map_or(Ok(()), Emulator::stop);
        stopped.unseen = unseen.iter().map(|record| record.sequence).sum();
        if let Some((writer, entries)) = self.writer.take() {
            if entries.send(Entry::Records(unseen)).is_err() {
                tracing::debug!("the writer of the log has ended early, and says why");
            }
            drop(entries);
            writer.ended().map_err(StopLabError::Log)?;
        }
        ended.map_err(StopLabError::Emulator)?;
        Ok(stopped)
    }

    /// Returns records of what the kernel dropped before the emulator saw it.
    fn unseen(&self) -> Vec<crate::log::Record> {
        let mut records = Vec::new();
        for (number, host) in self.hosts.iter().enumerate() {
            let Ok(Ok(interfaces)) = host.namespace.run(interface::dropped) else {
                continue;
            };
            for (link, plan) in (0..).zip(&self.topology.links) {
                for (end, is_back) in plan.ends.iter().zip([false, true]) {
                    let is_it = |(name, dropped): &&(String, u64)| {
                        end.host == number && *name == end.interface && *dropped > 0
                    };
                    if let Some((_, dropped)) = interfaces.iter().find(is_it) {
                        records.push(count(Fate::Unseen, link, is_back, *dropped));
                    }
                }
            }
        }
        records
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(lab = self.topology.name, %error, "the lab ended with an error");
        }
    }
}

impl Host {
    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the addresses of its links, in their order.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Returns its first IPv4 address.
    pub fn ip4(&self) -> Option<IpAddr> {
        self.addresses.iter().copied().find(IpAddr::is_ipv4)
    }

    /// Returns its first IPv6 address.
    pub fn ip6(&self) -> Option<IpAddr> {
        self.addresses.iter().copied().find(IpAddr::is_ipv6)
    }

    /// Returns its network namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Carries out a task in a thread that is in this host, and waits for it. Sockets,
    /// threads and programs that it makes are in the host too.
    pub fn run<T: Send>(&self, task: impl FnOnce() -> T + Send) -> io::Result<T> {
        self.namespace.run(task)
    }

    /// Starts a program in this host. It knows the hosts of the lab by their names, has
    /// the lab's variables, and is ended with the lab at the latest.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        names::mark(command, &self.lab, &self.id, &self.name);
        self.run(|| {
            if let Err(error) = names::name_hosts(&self.names, &self.id) {
                tracing::debug!(%error, "hosts have no names for programs");
            }
            command.spawn()
        })?
    }
}

/// Why a host is there.
const KNOWN: &str = "a topology names hosts that it has";

/// Returns the host with this number.
fn host_of(hosts: &[Host], number: usize) -> &Host {
    hosts.get(number).expect(KNOWN)
}

/// Returns an identifier that nobody else has.
pub(crate) fn new_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned())
}

/// Makes hosts that are not set up.
fn create_hosts(topology: &Topology, id: &str) -> Result<Vec<Host>, StartLabError> {
    let names = names::hosts_file(topology);
    let create = |(number, plan): (usize, &crate::topology::HostPlan)| {
        Ok(Host {
            name: plan.name.clone(),
            lab: topology.name.clone(),
            id: id.to_owned(),
            addresses: topology.addresses(number).collect(),
            namespace: Namespace::create()?,
            names: names.clone(),
        })
    };
    topology.hosts.iter().enumerate().map(create).collect()
}

/// Carries out a task in a host.
fn enter<T: Send>(
    host: &Host,
    task: impl FnOnce() -> Result<T, SetUpError> + Send,
) -> Result<T, StartLabError> {
    let done = host.run(task).map_err(StartLabError::Enter)?;
    done.map_err(StartLabError::SetUp)
}

/// Makes the file of the log.
fn create_log(to: &LogTo) -> Result<Option<File>, StartLabError> {
    match to {
        LogTo::Nowhere => Ok(None),
        LogTo::Temporary => {
            let folder = std::env::temp_dir();
            let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
            let mode = Mode::RUSR | Mode::WUSR;
            let file = openat(CWD, &folder, flags, mode);
            let failed = |error: rustix::io::Errno| StartLabError::CreateLog {
                path: folder.clone(),
                source: error.into(),
            };
            file.map(|file| Some(file.into())).map_err(failed)
        }
        LogTo::File(path) => {
            let mut options = OpenOptions::new();
            let file =
                options.read(true).write(true).create(true).truncate(true).open(path);
            let failed = |source| StartLabError::CreateLog { path: path.clone(), source };
            file.map(Some).map_err(failed)
        }
    }
}

/// Describes a lab for its log.
fn describe(topology: &Topology, started_ns: u64) -> Description {
    let name = |host: usize| topology.hosts.get(host).expect(KNOWN).name.clone();
    let link = |link: &crate::topology::LinkPlan| LinkDescription {
        name: link.name.clone(),
        between: link.ends.each_ref().map(|end| name(end.host)),
    };
    Description {
        lab: topology.name.clone(),
        seed: topology.seed,
        started_ns,
        started_utc_ns: nanos(utc()),
        links: topology.links.iter().map(link).collect(),
    }
}

/// A lab that cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartLabError {
    /// There is no identifier.
    #[error("cannot make an identifier")]
    Id(#[source] io::Error),
    /// There are no namespaces.
    #[error(transparent)]
    Create(#[from] CreateNamespaceError),
    /// A namespace cannot be entered.
    #[error("cannot enter a network namespace")]
    Enter(#[source] io::Error),
    /// A host cannot be set up.
    #[error(transparent)]
    SetUp(SetUpError),
    /// The log cannot be made.
    #[error("cannot make the packet log in {}", path.display())]
    CreateLog {
        /// The file, or the folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The log cannot be written to.
    #[error("cannot write the packet log")]
    Log(#[source] io::Error),
    /// The emulator cannot be started.
    #[error("cannot start the emulator of links")]
    Emulator(#[source] io::Error),
    /// A program of the topology cannot be started.
    #[error("cannot start {program} in host {host}")]
    Program {
        /// The host.
        host: String,
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A lab that did not end as it should. It has ended.
#[derive(Debug, thiserror::Error)]
pub enum StopLabError {
    /// The log is not complete.
    #[error("the packet log could not be written wholly")]
    Log(#[source] io::Error),
    /// The emulator had failed.
    #[error("the emulator of links failed")]
    Emulator(#[source] io::Error),
}
