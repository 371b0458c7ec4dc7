//! Names of hosts for programs within a lab: an `/etc/hosts` of their own.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::topology::Topology;

/// The file that names hosts (hosts(5)).
const HOSTS: &str = "/etc/hosts";

/// The variable by which a program belongs to a lab. Its value is the lab's identifier,
/// which no other lab ever has.
pub(crate) const ID_VARIABLE: &str = "MPLANE_LAB_ID";

/// Marks a program as one of a lab, and tells it where it is.
pub(crate) fn mark(command: &mut Command, lab: &str, id: &str, host: &str) {
    command.env(ID_VARIABLE, id).env("MPLANE_LAB", lab).env("MPLANE_LAB_HOST", host);
}

/// Returns the file that names all hosts of a lab.
pub(crate) fn hosts_file(topology: &Topology) -> String {
    let mut text = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
    for (host, number) in topology.hosts.iter().zip(0..) {
        let mut has = [false; 2];
        for address in topology.addresses(number) {
            // The name stands for the first address of each family.
            let [ip4, ip6] = &mut has;
            let has = if address.is_ipv4() { ip4 } else { ip6 };
            if !std::mem::replace(has, true) {
                writeln!(text, "{address} {}", host.name).expect("a text can be written");
            }
        }
    }
    text
}

/// Gives the calling thread, and what it starts, an `/etc/hosts` of their own.
pub(crate) fn name_hosts(text: &str, id: &str) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    // What is mounted from here on is seen from here only.
    let recursive = MsFlags::MS_SLAVE | MsFlags::MS_REC;
    mount(None::<&Path>, "/", None::<&Path>, recursive, None::<&Path>)?;
    let thread = rustix::thread::gettid();
    let path = std::env::temp_dir().join(format!("mplane-hosts-{id}-{thread}"));
    fs::write(&path, text)?;
    let bound = mount(Some(&path), HOSTS, None::<&Path>, MsFlags::MS_BIND, None::<&Path>);
    // The mount keeps the file.
    fs::remove_file(&path)?;
    Ok(bound?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_the_first_address_of_each_family() {
        let text = r#"
            host = [{ name = "a" }, { name = "b" }]
            link = [{ between = ["a", "b"] }, { between = ["a", "b"] }]
        "#;
        let topology = Topology::parse(text, "lab").expect("a topology");
        let expected = "127.0.0.1 localhost\n::1 localhost\n10.0.1.1 a\n\
                        fd00:0:0:1::1 a\n10.0.1.2 b\nfd00:0:0:1::2 b\n";
        assert_eq!(hosts_file(&topology), expected);
    }
}
