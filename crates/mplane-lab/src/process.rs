//! The programs of a lab: found and ended by what marks them, whoever started them.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::names::ID_VARIABLE;

/// How long programs have to end by themselves.
const GRACE: Duration = Duration::from_secs(2);

/// How long killed programs may take to be gone.
const END: Duration = Duration::from_secs(5);

/// The pause between two looks at what still runs.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Leaves the terminal and the process group, so that their signals do not reach this
/// process.
pub fn detach() {
    if let Err(error) = rustix::process::setsid() {
        tracing::debug!(%error, "this process leads a group already");
    }
}

/// Points standard output to nowhere, so that who reads it sees its end.
pub fn close_output() -> std::io::Result<()> {
    let nowhere = fs::OpenOptions::new().write(true).open("/dev/null")?;
    Ok(rustix::stdio::dup2_stdout(&nowhere)?)
}

/// Ends all programs of a lab: with SIGTERM, and with SIGKILL those that stay. `inodes`
/// are its namespaces, if it lives still; numbers of dead ones may belong to others by
/// now. Returns how many had to be ended.
pub(crate) fn end_all(id: &str, inodes: &[u64]) -> usize {
    let ended = signal_all(id, inodes, Signal::TERM);
    let terminated = Instant::now();
    let mut is_killing = false;
    while terminated.elapsed() < GRACE + END {
        let signal = if is_killing { Signal::KILL } else { Signal::CONT };
        if ended == 0 || signal_all(id, inodes, signal) == 0 {
            return ended;
        }
        is_killing = terminated.elapsed() > GRACE;
        std::thread::sleep(LOOK_AGAIN);
    }
    tracing::warn!(lab = id, "programs of the lab do not end");
    ended
}

/// Sends a signal to all programs of a lab. Returns how many there are.
fn signal_all(id: &str, inodes: &[u64], signal: Signal) -> usize {
    let Ok(folder) = fs::read_dir("/proc") else { return 0 };
    let pids = folder.flatten().filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        Pid::from_raw(pid)
    });
    let own = rustix::process::getpid();
    let others = pids.filter(|pid| *pid != own);
    others.filter(|pid| signal_one(*pid, id, inodes, signal)).count()
}

/// Sends a signal to a program if it is of the lab. Returns whether it is.
fn signal_one(pid: Pid, id: &str, inodes: &[u64], signal: Signal) -> bool {
    // Opened first: what is found out below is about the process that gets the signal.
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
    let number = pid.as_raw_nonzero();
    let is_marked = || {
        let environment = fs::read(format!("/proc/{number}/environ")).unwrap_or_default();
        let mark = format!("{ID_VARIABLE}={id}");
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    };
    let is_within = || {
        let target = fs::read_link(format!("/proc/{number}/ns/net")).ok()?;
        let inode = target.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?;
        Some(inodes.contains(&inode.parse().ok()?))
    };
    if !is_within().unwrap_or(false) && !is_marked() {
        return false;
    }
    pidfd_send_signal(&process, signal).is_ok()
}
