//! Other machines than this one, made of namespaces and dropped rights, which takes root.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::command;

/// A user without rights: "nobody" on most systems.
pub(crate) const NOBODY: u32 = 65534;

/// Makes the network of a new namespace usable.
pub(crate) const LOOPBACK: &str = "ip link set lo up";

/// Forbids datagram sockets for ICMP, as the kernel does by default.
pub(crate) const NO_DATAGRAM: &str = "echo '1 0' > /proc/sys/net/ipv4/ping_group_range";

/// Allows them for everyone, as most distributions do.
pub(crate) const DATAGRAM: &str =
    "echo '0 2147483647' > /proc/sys/net/ipv4/ping_group_range";

/// Takes IPv6 away.
pub(crate) const NO_IP6: &str =
    "test ! -e /proc/sys/net/ipv6 || echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6";

/// Makes hosts that never answer: their packets come back and are nobody's.
pub(crate) const SILENT_HOSTS: &str = "ip route add 192.0.2.0/24 dev lo";

/// Drops every capability, of root too.
pub(crate) const NO_CAPABILITIES: [&str; 4] =
    ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"];

/// Becomes a user without rights.
pub(crate) const AS_NOBODY: [&str; 4] =
    ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

/// Runs a program inside others, such as one that drops rights and then runs it.
pub(crate) fn inside(outer: &[&str], inner: &Command) -> Command {
    let [program, arguments @ ..] = outer else { panic!("there is an outer program") };
    let mut command = command(program);
    command.args(arguments).arg(inner.get_program()).args(inner.get_args());
    set_variables(&mut command, inner);
    command
}

/// Runs a program in a network of its own, set up by a script.
pub(crate) fn in_network(script: &[&str], inner: &Command) -> Command {
    let script = format!("set -e\n{}\nexec \"$@\"", script.join("\n"));
    inside(&["unshare", "--net", "sh", "-c", &script, "sh"], inner)
}

/// Says loudly that a test was not run; in continuous integration, fails instead.
///
/// Written to the terminal itself: the test harness hides what passing tests print.
pub(crate) fn skip(reason: &str) {
    let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!is_ci, "continuous integration must not skip: {reason}");
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    writeln!(std::io::stderr(), "SKIPPED: {test}: {reason}").expect("it is open");
}

/// Says whether a command line works here; a test that needs it is else not run.
pub(crate) fn works(line: &[&str]) -> bool {
    let tried = inside(line, &Command::new("true")).stderr(Stdio::null()).status();
    let works = tried.is_ok_and(|status| status.success());
    if !works {
        skip(&format!("{} does not work here", line.join(" ")));
    }
    works
}

/// Says whether networks can be made here.
pub(crate) fn networks_work() -> bool {
    let script = format!("set -e; {LOOPBACK}; {NO_DATAGRAM}; exec \"$@\"");
    works(&["unshare", "--net", "sh", "-c", &script, "sh"])
}

/// Gives a folder to the user without rights.
pub(crate) fn give_away(place: &Path) {
    for path in [place, &place.join("tmp")] {
        chown(path, Some(NOBODY), Some(NOBODY)).expect("root may do so");
    }
}

/// Makes a program a file that everyone can reach: a copy in `place`, which everyone
/// may enter then.
pub(crate) fn reachable(place: &Path, program: &Command) -> Command {
    fs::set_permissions(place, Permissions::from_mode(0o755)).expect("it is ours");
    let copy = place.join("program");
    fs::copy(program.get_program(), &copy).expect("there is space");
    let mut command = command(&copy.to_string_lossy());
    command.args(program.get_args());
    set_variables(&mut command, program);
    command
}

/// Gives a program the variables of another.
fn set_variables(command: &mut Command, like: &Command) {
    for (name, value) in like.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
}

/// Returns the number of the user.
pub(crate) fn user() -> u32 {
    fs::metadata("/proc/self").expect("there is /proc").uid()
}
