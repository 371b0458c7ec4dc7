//! Starting a service with limits.
//!
//! A process can safely limit itself only, so the program starts itself again: the new
//! process limits itself, gives up the way to more privileges, and becomes the service.
//! Programs call [`intercept`] first thing in `main`.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::sys::prctl::set_no_new_privs;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::limits::OPEN_FILES;

/// The first argument of a program that is to become a service.
const MARK: &str = "become-external-service";

/// Stands for privileges that may be gained.
const ANY_PRIVILEGES: &str = "any-privileges";

/// Stands for privileges that may not be gained.
const NO_NEW_PRIVILEGES: &str = "no-new-privileges";

/// The exit status of shells for a program that cannot be executed.
const NOT_EXECUTED: u8 = 126;

/// A program that calls [`intercept`], by which services are started with limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launcher(PathBuf);

impl Launcher {
    /// Uses the program that runs. By this path it is the same program even if its file
    /// has been replaced meanwhile.
    pub fn this_program() -> Self {
        Self("/proc/self/exe".into())
    }

    /// Uses another program.
    pub const fn program(path: PathBuf) -> Self {
        Self(path)
    }

    /// Returns the command that limits itself and becomes `program`, whose arguments are
    /// still to be added.
    pub(super) fn command(
        &self,
        program: &Path,
        memory_bytes: u64,
        may_gain_privileges: bool,
    ) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.0);
        let privileges =
            if may_gain_privileges { ANY_PRIVILEGES } else { NO_NEW_PRIVILEGES };
        command.arg(MARK).arg(memory_bytes.to_string()).arg(privileges).arg(program);
        command
    }
}

/// Becomes a service if the arguments of this program say so. It returns if they do not,
/// or with an exit status if it failed.
pub fn intercept(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let arguments: Vec<_> = arguments.into_iter().collect();
    let [_, mark, rest @ ..] = arguments.as_slice() else { return None };
    if mark != MARK {
        return None;
    }
    let [memory, privileges, program, arguments @ ..] = rest else {
        return Some(fail("its arguments are missing"));
    };
    if let Err(problem) = limit(memory, privileges) {
        return Some(fail(&problem));
    }
    let error = Command::new(program).args(arguments).exec();
    Some(fail(&format!("{}: {error}", program.display())))
}

/// Limits this process.
fn limit(memory: &OsStr, privileges: &OsStr) -> Result<(), String> {
    let lower = |resource: Resource, limit: u64| {
        getrlimit(resource)
            .and_then(|(_, hard)| setrlimit(resource, limit.min(hard), limit.min(hard)))
            .map_err(|error| format!("cannot set {resource:?} to {limit}: {error}"))
    };
    lower(Resource::RLIMIT_CORE, 0)?;
    lower(Resource::RLIMIT_NOFILE, OPEN_FILES)?;
    let bytes = memory.to_str().and_then(|text| text.parse().ok());
    let bytes = bytes.ok_or_else(|| format!("{} is no limit", memory.display()))?;
    // Data, not addresses: runtimes of some languages reserve far more than they use.
    lower(Resource::RLIMIT_DATA, bytes)?;
    if privileges != ANY_PRIVILEGES {
        set_no_new_privs()
            .map_err(|error| format!("cannot give up privileges: {error}"))?;
    }
    Ok(())
}

/// Says in the words of the contract that there is no service.
fn fail(problem: &str) -> ExitCode {
    let failed =
        serde_json::json!({"failed": format!("it cannot be started: {problem}")});
    // If nobody listens, the exit status says it.
    let told = writeln!(io::stdout(), "{failed}");
    drop(told);
    ExitCode::from(NOT_EXECUTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_mark_makes_a_program_a_service() {
        let asked = |arguments: &[&str]| intercept(arguments.iter().map(OsString::from));
        assert!(asked(&[]).is_none());
        assert!(asked(&["mpcom"]).is_none());
        assert!(asked(&["mpcom", "--config", MARK]).is_none());
        assert!(asked(&["mpcom", MARK]).is_some());
    }
}
