//! How many components can be connected at once. A connection takes a file descriptor of this
//! process and one of the server, which inherits the limit, and a port of the loopback
//! address that the components share.

use std::fs;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors that a process has besides one for each component.
const BESIDES: usize = 500;

/// As many descriptors as a scene needs: no more are asked for, because programs exist that
/// go through all that they may have.
const ENOUGH: u64 = 12_000;

/// Raises the limit of open files, as far as scenes need it and the system lets us.
pub(super) fn raise() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    if soft >= ENOUGH {
        return;
    }
    if let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard.min(ENOUGH), hard) {
        println!("the limit of open files stays {soft}: {error}");
    }
}

/// Returns how many of so many components can be connected at once; loudly, if not all.
pub(super) fn fitting(wanted: usize) -> usize {
    let (files, ports) = (open_files(), ports());
    let fit = wanted.min(files.saturating_sub(BESIDES)).min(ports);
    if fit < wanted {
        println!(
            "  SMALLER: {fit} components, not {wanted}: only {files} files may be open \
             (ulimit -Hn), and there are {ports} ports (net.ipv4.ip_local_port_range)"
        );
    }
    fit
}

/// Returns how many files a process may have open.
fn open_files() -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// Returns how many ports the system chooses from.
fn ports() -> usize {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let range = range.expect("the kernel tells it");
    let mut ends = range.split_whitespace().filter_map(|end| end.parse::<usize>().ok());
    let (Some(first), Some(last)) = (ends.next(), ends.next()) else { return 0 };
    (last + 1).saturating_sub(first)
}
