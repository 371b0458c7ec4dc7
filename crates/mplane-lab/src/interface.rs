//! Interfaces, addresses and routes of a host.
//!
//! Devices are made by system calls; everything else is told to `ip` of iproute2, one run
//! of it for each host.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use crate::topology::{EndPlan, HostPlan, Route};

/// Packets that wait in a device for the emulator: 10,000 of 1500 bytes are 15 MB, and a
/// tenth of a second of what one emulator carries.
const DEVICE_QUEUE: u32 = 10_000;

/// Where `ip` is for users whose `PATH` does not name the folders of administrators.
const PLACES: [&str; 4] = ["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip", "/bin/ip"];

/// Makes the device of an interface, in the namespace of the calling thread.
pub(crate) fn create_device(name: &str) -> Result<SyncDevice, SetUpError> {
    let made = DeviceBuilder::new()
        .name(name)
        .layer(Layer::L3)
        .enable(false)
        .with(|options| {
            options.offload(false).packet_information(false);
        })
        .build_sync()
        .and_then(|device| device.set_nonblocking(true).map(|()| device));
    made.map_err(|source| SetUpError::Device { name: name.to_owned(), source })
}

/// Sets up the host in whose namespace the calling thread is. `ends` are its interfaces
/// with their MTU.
pub(crate) fn set_up(
    host: &HostPlan,
    ends: &[(&EndPlan, u32)],
    routes: &[Route],
) -> Result<(), SetUpError> {
    set_parameters(host)?;
    let script = script(host, ends, routes);
    let failed = |source| SetUpError::Start { source };
    let mut child = Command::new(find_ip()?)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut input) = child.stdin.take()
        && let Err(error) = input.write_all(script.as_bytes())
    {
        // It has ended early, and what it says tells more.
        tracing::debug!(%error, "ip does not read what it is told");
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(SetUpError::Refused { host: host.name.clone(), said })
}

/// Returns what `ip` is told.
fn script(host: &HostPlan, ends: &[(&EndPlan, u32)], routes: &[Route]) -> String {
    let mut script = "link set dev lo up\n".to_owned();
    let mut line = |text: std::fmt::Arguments<'_>| {
        writeln!(script, "{text}").expect("a text can be written to");
    };
    for (end, mtu) in ends {
        let device = &end.interface;
        // No addresses but those given, and no packets but those of measurements.
        line(format_args!(
            "link set dev {device} mtu {mtu} txqueuelen {DEVICE_QUEUE} multicast off \
             addrgenmode none"
        ));
        line(format_args!("link set dev {device} up"));
        for address in &end.addresses {
            // On such a link nobody can have the address already.
            let nodad = if address.address.is_ipv6() { " nodad" } else { "" };
            line(format_args!("addr add {address} dev {device}{nodad}"));
        }
    }
    for prefix in &host.prefixes {
        line(format_args!("route add local {prefix} dev lo"));
    }
    for Route { network, gateways } in routes {
        let mut route = format!("route add {network}");
        for gateway in gateways {
            let hop = if gateways.len() > 1 { " nexthop" } else { "" };
            let (address, interface) = (gateway.address, &gateway.interface);
            write!(route, "{hop} via {address} dev {interface}")
                .expect("a text can be written to");
        }
        line(format_args!("{route}"));
    }
    script
}

/// Sets parameters of the kernel for the namespace.
fn set_parameters(host: &HostPlan) -> Result<(), SetUpError> {
    let forward = if host.is_router { "1" } else { "0" };
    let required = [
        ("ipv4/ip_forward", forward),
        // Paths may be asymmetric.
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
    ];
    // What older kernels, or those without IPv6, do not have.
    let optional = [
        ("ipv6/conf/all/disable_ipv6", "0"),
        ("ipv6/conf/default/disable_ipv6", "0"),
        ("ipv6/conf/all/forwarding", forward),
        ("ipv6/conf/default/accept_ra", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
        // Flows are told apart by their ports, so that one flow keeps its path.
        ("ipv4/fib_multipath_hash_policy", "1"),
        ("ipv6/fib_multipath_hash_policy", "1"),
        // What the log does not say is not lost: no limits on reports by ICMP.
        ("ipv4/icmp_ratelimit", "0"),
        ("ipv4/icmp_msgs_per_sec", "1000000"),
        ("ipv4/icmp_msgs_burst", "1000000"),
        ("ipv6/icmp/ratelimit", "0"),
    ];
    let folder = Path::new("/proc/sys/net");
    for (name, value) in required {
        let path = folder.join(name);
        fs::write(&path, value)
            .map_err(|source| SetUpError::Parameter { path, source })?;
    }
    for (name, value) in optional {
        if let Err(error) = fs::write(folder.join(name), value) {
            tracing::debug!(name, %error, "cannot set a parameter");
        }
    }
    // Everybody may ping. In a user namespace there is one group only.
    let groups = "ipv4/ping_group_range";
    let all = fs::write(folder.join(groups), "0 2147483647");
    if let Err(error) = all.or_else(|_| fs::write(folder.join(groups), "0 0")) {
        tracing::debug!(name = groups, %error, "cannot set a parameter");
    }
    Ok(())
}

/// Finds the program that sets up interfaces.
fn find_ip() -> Result<PathBuf, SetUpError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let named = std::env::split_paths(&path).map(|folder| folder.join("ip"));
    let mut places = named.chain(PLACES.map(PathBuf::from));
    places.find(|place| place.is_file()).ok_or(SetUpError::NoProgram)
}

/// Returns how many packets the kernel has dropped at each interface of the calling
/// thread's namespace, since the emulator did not take them in time.
pub(crate) fn dropped() -> io::Result<Vec<(String, u64)>> {
    Ok(parse_dropped(&fs::read_to_string("/proc/thread-self/net/dev")?))
}

/// Parses the table of interfaces (proc(5)): the twelfth number is "drop" of "Transmit".
fn parse_dropped(table: &str) -> Vec<(String, u64)> {
    let parse = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let dropped = numbers.split_ascii_whitespace().nth(11)?.parse().ok()?;
        Some((name.trim().to_owned(), dropped))
    };
    table.lines().filter_map(parse).collect()
}

/// A host that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// A device cannot be made.
    #[error(
        "cannot make the device {name}; /dev/net/tun must be there and open to this user \
         (modprobe tun; in a container, --device /dev/net/tun)"
    )]
    Device {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A parameter of the kernel cannot be set.
    #[error("cannot set {}", path.display())]
    Parameter {
        /// The parameter.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no `ip`.
    #[error("there is no program ip; install iproute2")]
    NoProgram,
    /// `ip` cannot be started.
    #[error("cannot run the program ip")]
    Start {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `ip` does not do what it was told.
    #[error("the program ip cannot set up host {host}: {said}")]
    Refused {
        /// The host.
        host: String,
        /// What it says.
        said: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::{Topology, routes};

    #[test]
    fn a_host_is_set_up_by_a_script() {
        let text = r#"
            host = [
                { name = "a", prefixes = ["10.99.0.0/16"] }, { name = "r", router = true },
                { name = "s", router = true }, { name = "b" },
            ]
            link = [
                { between = ["a", "r"], mtu = 1400 }, { between = ["a", "s"] },
                { between = ["r", "b"] }, { between = ["s", "b"] },
            ]
        "#;
        let topology = Topology::parse(text, "lab").expect("a topology");
        let ends = [(&topology.links[0].ends[0], 1400)];
        let all = routes(&topology);
        let text = script(&topology.hosts[0], &ends, &all[0][..1]);
        let expected = "link set dev lo up
link set dev to-r mtu 1400 txqueuelen 10000 multicast off addrgenmode none
link set dev to-r up
addr add 10.0.1.1/30 dev to-r
addr add fd00:0:0:1::1/64 dev to-r nodad
route add local 10.99.0.0/16 dev lo
route add 10.0.3.0/30 via 10.0.1.2 dev to-r
";
        assert_eq!(text, expected);
        let shared = Route {
            network: all[0][0].network,
            gateways: [&all[0][0], &all[0][2]]
                .into_iter()
                .flat_map(|route| route.gateways.clone())
                .collect(),
        };
        let text = script(&topology.hosts[0], &[], &[shared]);
        let line = "route add 10.0.3.0/30 nexthop via 10.0.1.2 dev to-r \
                    nexthop via 10.0.2.2 dev to-s";
        assert_eq!(text.lines().last(), Some(line));
    }

    #[test]
    fn drops_are_read_from_the_table_of_interfaces() {
        let table = "Inter-|   Receive        |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:       0       0    0    1    0     0          0         0        0       0    0    0    0     0       0          0
  to-b: 1 2 3 4 5 6 7 8 9 10 11 77 13 14 15 16
";
        let expected = [("lo".to_owned(), 0), ("to-b".to_owned(), 77)];
        assert_eq!(parse_dropped(table), expected);
    }
}
