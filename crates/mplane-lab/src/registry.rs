//! Labs that run on this machine, so that other processes find them.
//!
//! A lab has two files in a folder that its user alone may enter: `NAME.lock`, locked as
//! long as the process that holds the lab lives, and `NAME.json`, which describes it. A
//! lab whose lock is free is dead, however it died; what it has left is removed by whoever
//! looks next, or by a process that waits for the lock.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::lab::{Lab, new_id};
use crate::namespace::{Namespace, join_user_namespace};
use crate::{names, process};

/// The variable that names another folder.
pub const FOLDER_VARIABLE: &str = "MPLANE_LAB_FOLDER";

/// How long a lab may take to end: its programs have 7 s, and the log is written.
const LONGEST_END: Duration = Duration::from_secs(15);

/// The pause between two looks at a lab that ends.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The labs of a user.
#[derive(Clone, Debug)]
pub struct Registry {
    folder: PathBuf,
}

/// A lab of the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// What marks its programs.
    pub id: String,
    /// The process that holds it.
    pub pid: u32,
    /// The file of its topology.
    pub file: PathBuf,
    /// When it started, in seconds of UTC since 1970.
    pub started_utc_s: u64,
    /// Whether its emulator has real-time priority.
    pub is_realtime: bool,
    /// Its hosts; none while it starts.
    pub hosts: Vec<HostEntry>,
    /// What programs see as `/etc/hosts`.
    names: String,
}

/// A host of a lab of the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEntry {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The number under which the process holds its namespace open.
    descriptor: i32,
}

impl Entry {
    /// Returns the path of a host's namespace, for `nsenter --net=PATH`.
    pub fn namespace_path(&self, host: &HostEntry) -> PathBuf {
        format!("/proc/{}/fd/{}", self.pid, host.descriptor).into()
    }
}

/// A name that is taken as long as this lives.
#[derive(Debug)]
pub struct Claim {
    registry: Registry,
    entry: Entry,
    /// Locked; closing it unlocks it.
    _lock: File,
}

impl Registry {
    /// Opens the registry of this user: the folder that [`FOLDER_VARIABLE`] names,
    /// `/run/mplane-lab` for root, or one within `$XDG_RUNTIME_DIR` or the temporary folder.
    pub fn open() -> Result<Self, RegistryError> {
        let user = nix::unistd::geteuid();
        let folder = match std::env::var_os(FOLDER_VARIABLE) {
            Some(folder) => folder.into(),
            None if user.is_root() => "/run/mplane-lab".into(),
            None => match std::env::var_os("XDG_RUNTIME_DIR") {
                Some(folder) => Path::new(&folder).join("mplane-lab"),
                None => std::env::temp_dir().join(format!("mplane-lab-{user}")),
            },
        };
        Self::at(folder)
    }

    /// Opens the registry in a folder, which is made if it is not there.
    pub fn at(folder: PathBuf) -> Result<Self, RegistryError> {
        let failed = |source| RegistryError::Folder { path: folder.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
        // In a folder that others can write to, they could have made it before.
        let metadata = fs::symlink_metadata(&folder).map_err(failed)?;
        let is_own = metadata.uid() == nix::unistd::geteuid().as_raw();
        if !metadata.is_dir() || !is_own || metadata.mode() & 0o022 != 0 {
            return Err(RegistryError::Foreign { path: folder });
        }
        Ok(Self { folder })
    }

    /// Returns its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the folder for what programs of a lab write. It is removed with the lab.
    pub fn output_folder(&self, name: &str) -> PathBuf {
        self.path(name, "output")
    }

    /// Takes a name for a lab that is about to start, and removes what a dead lab of this
    /// name has left.
    pub fn claim(&self, name: &str, file: &Path) -> Result<Claim, RegistryError> {
        let Some(lock) = self.lock(name)? else {
            let pid = self.read(name).map(|entry| entry.pid);
            return Err(RegistryError::Taken { name: name.to_owned(), pid });
        };
        self.clear(name);
        let failed = |source| RegistryError::Write { name: name.to_owned(), source };
        let now = crate::emulator::utc();
        let entry = Entry {
            name: name.to_owned(),
            id: new_id().map_err(failed)?,
            pid: std::process::id(),
            file: fs::canonicalize(file).unwrap_or_else(|_| file.to_owned()),
            started_utc_s: now.as_secs(),
            is_realtime: false,
            hosts: Vec::new(),
            names: String::new(),
        };
        let claim = Claim { registry: self.clone(), entry, _lock: lock };
        claim.write()?;
        Ok(claim)
    }

    /// Returns the labs that live, by name, and removes what dead ones have left.
    pub fn list(&self) -> Result<Vec<Entry>, RegistryError> {
        let failed = |source| RegistryError::Folder { path: self.folder.clone(), source };
        let mut entries = Vec::new();
        for file in fs::read_dir(&self.folder).map_err(failed)? {
            let path = file.map_err(failed)?.path();
            let is_lock = path.extension().is_some_and(|extension| extension == "lock");
            let Some(name) = path.file_stem().and_then(|stem| stem.to_str()) else {
                continue;
            };
            if !is_lock {
                continue;
            }
            match self.lock(name)? {
                Some(_lock) => self.remove(name),
                None => entries.extend(self.read(name)),
            }
        }
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(entries)
    }

    /// Finds a lab that lives.
    pub fn find(&self, name: &str) -> Result<Entry, RegistryError> {
        let all = self.list()?;
        all.into_iter()
            .find(|entry| entry.name == name)
            .ok_or_else(|| RegistryError::NoLab { name: name.to_owned() })
    }

    /// Ends a lab, and waits until it has ended.
    pub fn down(&self, name: &str) -> Result<(), RegistryError> {
        let entry = self.find(name)?;
        let failed = |source: io::Error| RegistryError::End {
            name: name.to_owned(),
            pid: entry.pid,
            source,
        };
        let pid = i32::try_from(entry.pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))?;
        let holder = pidfd_open(pid, PidfdFlags::empty());
        // Read again: the number may belong to another process since the lab has ended.
        if self.lock(name)?.is_none()
            && let Ok(holder) = holder
        {
            pidfd_send_signal(&holder, Signal::TERM)
                .map_err(|error| failed(error.into()))?;
        }
        let asked = Instant::now();
        while asked.elapsed() < LONGEST_END {
            if let Some(_lock) = self.lock(name)? {
                self.remove(name);
                return Ok(());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Err(failed(io::ErrorKind::TimedOut.into()))
    }

    /// Waits until a lab has ended, however it does, and removes what it has left.
    pub fn watch(&self, name: &str) -> Result<(), RegistryError> {
        let failed = |source| RegistryError::Folder { path: self.folder.clone(), source };
        let file = match File::open(self.path(name, "lock")) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        flock(&file, FlockOperation::LockExclusive)
            .map_err(|error| failed(error.into()))?;
        drop(file);
        if let Some(_lock) = self.lock(name)? {
            self.remove(name);
        }
        Ok(())
    }

    /// Becomes a program in a host of a lab. It returns if that fails, only.
    ///
    /// It must be called before there is a second thread.
    pub fn become_program(
        &self,
        lab: &str,
        host: &str,
        command: &mut Command,
    ) -> RegistryError {
        let entry = match self.find(lab) {
            Ok(entry) => entry,
            Err(error) => return error,
        };
        let Some(known) = entry.hosts.iter().find(|known| known.name == host) else {
            let hosts = entry.hosts.into_iter().map(|known| known.name).collect();
            return RegistryError::NoHost {
                lab: lab.to_owned(),
                host: host.into(),
                hosts,
            };
        };
        let enter = || {
            let namespace = Namespace::of_process(entry.pid, known.descriptor);
            join_user_namespace(entry.pid)?;
            namespace?.enter()
        };
        if let Err(source) = enter() {
            return RegistryError::Enter {
                lab: lab.to_owned(),
                host: host.into(),
                source,
            };
        }
        if let Err(error) = names::name_hosts(&entry.names, &entry.id) {
            tracing::debug!(%error, "hosts have no names for programs");
        }
        names::mark(command, &entry.name, &entry.id, host);
        let program = command.get_program().to_string_lossy().into_owned();
        RegistryError::Execute { program, source: command.exec() }
    }

    /// Locks the name of a lab, if it is free.
    fn lock(&self, name: &str) -> Result<Option<File>, RegistryError> {
        let path = self.path(name, "lock");
        let failed = |source| RegistryError::Folder { path: path.clone(), source };
        loop {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false).mode(0o600);
            let file = options.open(&path).map_err(failed)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(failed(error.into())),
            }
            // Somebody may have removed the file before it was locked.
            let inode = file.metadata().map_err(failed)?.ino();
            if fs::metadata(&path).is_ok_and(|metadata| metadata.ino() == inode) {
                return Ok(Some(file));
            }
        }
    }

    /// Removes what a dead lab has left, and frees its name. The lock must be held.
    fn remove(&self, name: &str) {
        self.clear(name);
        // Last: whoever sees that it is gone may take the name.
        tell(name, fs::remove_file(self.path(name, "lock")));
    }

    /// Removes what a dead lab has left, programs and files. The lock must be held.
    fn clear(&self, name: &str) {
        if let Some(entry) = self.read(name) {
            process::end_all(&entry.id, &[]);
        }
        tell(name, fs::remove_dir_all(self.output_folder(name)));
        tell(name, fs::remove_file(self.path(name, "json")));
    }

    /// Reads the description of a lab, if it is whole.
    fn read(&self, name: &str) -> Option<Entry> {
        let text = fs::read(self.path(name, "json")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Returns the path of a file of a lab.
    fn path(&self, name: &str, extension: &str) -> PathBuf {
        self.folder.join(format!("{name}.{extension}"))
    }
}

/// Says that something could not be removed; what is not there need not be.
fn tell(name: &str, removed: io::Result<()>) {
    if let Err(error) = removed
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(lab = name, %error, "cannot remove what a lab has left");
    }
}

impl Claim {
    /// Returns the identifier for the lab.
    pub fn id(&self) -> &str {
        &self.entry.id
    }

    /// Tells others how to reach the hosts of the lab.
    pub fn announce(&mut self, lab: &Lab) -> Result<&Entry, RegistryError> {
        self.entry.is_realtime = lab.is_realtime();
        self.entry.names = names::hosts_file(lab.topology());
        let describe = |host: &crate::Host| HostEntry {
            name: host.name().to_owned(),
            addresses: host.addresses().to_vec(),
            descriptor: host.namespace().descriptor(),
        };
        self.entry.hosts = lab.hosts().iter().map(describe).collect();
        self.write()?;
        Ok(&self.entry)
    }

    /// Writes the description, as a whole or not at all.
    fn write(&self) -> Result<(), RegistryError> {
        let name = &self.entry.name;
        let write = || {
            let text = serde_json::to_vec(&self.entry)?;
            let new = self.registry.path(name, "new");
            fs::write(&new, text)?;
            fs::rename(new, self.registry.path(name, "json"))
        };
        write().map_err(|source| RegistryError::Write { name: name.clone(), source })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.registry.remove(&self.entry.name);
    }
}

/// A lab that cannot be found, taken or ended.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The folder cannot be used.
    #[error("cannot use the folder of labs {}; {FOLDER_VARIABLE} names another", path.display())]
    Folder {
        /// The folder, or the file in it.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The folder belongs to somebody else, or others may write to it.
    #[error(
        "{} is not a folder of this user alone; {FOLDER_VARIABLE} names another",
        path.display()
    )]
    Foreign {
        /// The folder.
        path: PathBuf,
    },
    /// A lab of that name runs.
    #[error(
        "lab {name} runs already{}; end it with `mplane lab down {name}`, or choose another \
         name with --name",
        pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    Taken {
        /// The name.
        name: String,
        /// The process that holds it, if it has said so.
        pid: Option<u32>,
    },
    /// The description cannot be written.
    #[error("cannot describe lab {name}")]
    Write {
        /// The lab.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no such lab.
    #[error("no lab {name} runs; `mplane lab list` shows those that do")]
    NoLab {
        /// The name.
        name: String,
    },
    /// There is no such host.
    #[error("lab {lab} has no host {host}; it has {}", hosts.join(", "))]
    NoHost {
        /// The lab.
        lab: String,
        /// The host.
        host: String,
        /// Those that it has.
        hosts: Vec<String>,
    },
    /// It does not end.
    #[error("process {pid}, which holds lab {name}, does not end")]
    End {
        /// The lab.
        name: String,
        /// The process.
        pid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A host cannot be entered.
    #[error("cannot enter host {host} of lab {lab}; labs of root are for root")]
    Enter {
        /// The lab.
        lab: String,
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The program cannot be executed.
    #[error("cannot execute {program}")]
    Execute {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}
