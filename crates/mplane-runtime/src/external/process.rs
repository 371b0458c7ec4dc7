//! The process of a run, and everything it has started.
//!
//! It leads a process group of its own, which gets all signals. It stays a zombie until
//! its group has been killed, so that the number of the group cannot be another's by
//! then; whoever drops a [`Process`] kills the group.

use std::io;
use std::process::{ExitStatus, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::signal::unix::{self, SignalKind, signal};
use tracing::warn;

use super::limits::REAP;

/// A process that leads a group.
pub(super) struct Process {
    child: Child,
    group: Pid,
    /// Tells that some child of this program has ended.
    ends: unix::Signal,
}

/// What a process reads and writes.
pub(super) struct Pipes {
    pub(super) stdin: ChildStdin,
    pub(super) stdout: ChildStdout,
    pub(super) stderr: ChildStderr,
}

impl Process {
    /// Starts a process in a group of its own.
    pub(super) fn start(mut command: Command) -> io::Result<(Self, Pipes)> {
        // Before the start, so that no end is missed.
        let ends = signal(SignalKind::child())?;
        let mut child = command
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // If it is dropped, tokio reaps it when it is dead.
            .kill_on_drop(true)
            .spawn()?;
        let number = child.id().and_then(|id| i32::try_from(id).ok());
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(number), (Some(stdin), Some(stdout), Some(stderr))) = (number, pipes)
        else {
            return Err(io::Error::other("the process has no number or no pipes"));
        };
        let process = Self { child, group: Pid::from_raw(number), ends };
        Ok((process, Pipes { stdin, stdout, stderr }))
    }

    /// Returns the number of the group.
    pub(super) const fn group(&self) -> i32 {
        self.group.as_raw()
    }

    /// Asks the group to end.
    pub(super) fn terminate(&self) {
        self.send(Signal::SIGTERM);
    }

    /// Ends the group.
    pub(super) fn kill(&self) {
        self.send(Signal::SIGKILL);
    }

    /// Waits until the leader has ended. A call that is dropped loses nothing.
    pub(super) async fn ended(&mut self) {
        while !self.has_ended() {
            if self.ends.recv().await.is_none() {
                return;
            }
        }
    }

    /// Kills what is left of the group and returns how the leader ended; `None` if it
    /// cannot be killed for now.
    pub(super) async fn reap(mut self) -> Option<ExitStatus> {
        self.kill();
        let status = tokio::time::timeout(REAP, self.child.wait()).await;
        status.ok().and_then(Result::ok)
    }

    /// Says whether the leader has ended. It is not reaped by that.
    fn has_ended(&self) -> bool {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        !matches!(waitid(Id::Pid(self.group), flags), Ok(WaitStatus::StillAlive))
    }

    /// Sends a signal to the group, unless the leader has been reaped: the number may be
    /// another's then.
    fn send(&self, signal: Signal) {
        if self.child.id().is_none() {
            return;
        }
        if let Err(error) = killpg(self.group, signal) {
            warn!(%error, %signal, group = self.group.as_raw(), "cannot send a signal");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
