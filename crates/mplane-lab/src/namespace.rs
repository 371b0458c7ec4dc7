//! Network namespaces without names: they live as long as somebody holds them.
//!
//! A namespace is held by an open file, by the threads and processes in it, and by nothing
//! else, so that a lab that is killed leaves nothing behind but programs that run in it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};
use rustix::thread::{CapabilitySet, capabilities};

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// Makes a namespace in which nothing is set up.
    pub(crate) fn create() -> Result<Self, CreateNamespaceError> {
        // The thread leaves the namespace of this process, and ends.
        let made = thread::scope(|scope| {
            let make = || {
                unshare(CloneFlags::CLONE_NEWNET)?;
                File::open("/proc/thread-self/ns/net")
            };
            scope.spawn(make).join().unwrap_or_else(|_| Err(io::Error::other(PANICKED)))
        });
        match made {
            Ok(file) => Ok(Self { file }),
            Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                Err(CreateNamespaceError::Denied)
            }
            Err(source) => Err(CreateNamespaceError::Other(source)),
        }
    }

    /// Opens the namespace that a process holds open under this number.
    pub(crate) fn of_process(pid: u32, descriptor: i32) -> io::Result<Self> {
        let file = File::open(format!("/proc/{pid}/fd/{descriptor}"))?;
        Ok(Self { file })
    }

    /// Carries out a task in a thread that is in the namespace, and waits for it. Threads
    /// and programs that the task starts are in the namespace too.
    pub fn run<T: Send>(&self, task: impl FnOnce() -> T + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let run = || self.enter().map(|()| task());
            scope
                .spawn(run)
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread into the namespace, for good.
    pub(crate) fn enter(&self) -> io::Result<()> {
        Ok(setns(&self.file, CloneFlags::CLONE_NEWNET)?)
    }

    /// Returns the number under which this process holds it open.
    pub(crate) fn descriptor(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// Returns the number by which the kernel tells namespaces apart while they live.
    pub(crate) fn inode(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.ino())
    }
}

/// What is said of a task that panicked.
const PANICKED: &str = "the thread panicked";

/// A network namespace that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CreateNamespaceError {
    /// This process may not.
    #[error(
        "making network namespaces needs CAP_SYS_ADMIN and CAP_NET_ADMIN: run it as root \
         (sudo), or allow user namespaces (sysctl user.max_user_namespaces, \
         kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)"
    )]
    Denied,
    /// Something else prevents it.
    #[error("cannot make a network namespace")]
    Other(#[source] io::Error),
}

/// Returns whether this process may make network namespaces and set them up.
pub fn is_privileged() -> bool {
    let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN;
    capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}

/// Moves this process into a user namespace where it is root, if it is not privileged:
/// there it may make network namespaces. Outside it is who it was.
///
/// It must be called before there is a second thread. Where user namespaces are not
/// allowed it changes nothing, and making a network namespace will say what is missing.
pub fn become_root_within() {
    if is_privileged() {
        return;
    }
    let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
    if unshare(CloneFlags::CLONE_NEWUSER).is_err() {
        return;
    }
    // A group can be mapped only by who cannot change groups (user_namespaces(7)).
    let files = [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {user} 1")),
        ("gid_map", format!("0 {group} 1")),
    ];
    for (file, content) in files {
        if let Err(error) = std::fs::write(format!("/proc/self/{file}"), content) {
            tracing::debug!(file, %error, "cannot set up the user namespace");
        }
    }
}

/// Moves this process into the user namespace of another, if that is not its own already.
///
/// It must be called before there is a second thread.
pub(crate) fn join_user_namespace(pid: u32) -> io::Result<()> {
    let own = File::open("/proc/self/ns/user")?;
    let other = File::open(format!("/proc/{pid}/ns/user"))?;
    if own.metadata()?.ino() == other.metadata()?.ino() {
        return Ok(());
    }
    Ok(setns(&other, CloneFlags::CLONE_NEWUSER)?)
}
