//! What a demo measures: decided by trying what this process may do.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use mplane_probe::packet::Family;
use mplane_probe::service::source_towards;
use mplane_probe::socket;
use tokio::net::{TcpListener, lookup_host};

use crate::{Failure, Told};

/// How long the search for an address may take.
const RESOLVE: Duration = Duration::from_secs(3);

/// What is measured.
pub(super) struct Plan {
    /// The capabilities of the component; the first is the one measured.
    pub(super) labels: Vec<&'static str>,
    pub(super) destination: IpAddr,
    /// The port of a TCP measurement.
    pub(super) port: Option<u16>,
    /// The sections of the component's configuration.
    pub(super) services: String,
    /// Answers TCP connects, if the demo measures to itself.
    _listener: Option<TcpListener>,
}

impl Plan {
    /// Returns the capability that is measured.
    pub(super) fn label(&self) -> &'static str {
        self.labels.first().copied().unwrap_or_default()
    }
}

/// Plans a measurement to a target, else to this machine, of TCP connects if a port is
/// given, else of ping if that is possible; says why it is what it is.
pub(super) async fn plan(
    target: Option<&str>,
    port: Option<u16>,
) -> Result<(Plan, String), Failure> {
    let destination = match target {
        None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Some(host) => resolve(host).await?,
    };
    let source = source_towards(destination)
        .map_err(|source| NoRouteError { destination, source })?;
    if port.is_some() {
        return tcp_plan(destination, source, port).await;
    }
    let family = Family::of(destination);
    let availability = socket::detect(family).await;
    if availability.is_usable() {
        let plan = ping_plan(destination, source, family);
        return Ok((plan, availability.to_string()));
    }
    if target.is_some() {
        return Err(Told(format!(
            "{availability}; or name a port of the target with --port, to measure TCP \
             connects"
        ))
        .into());
    }
    let (plan, _) = tcp_plan(destination, source, None).await?;
    Ok((plan, format!("{availability}; measures TCP connects instead")))
}

/// Plans a measurement of ping. Both families are offered where there are both.
fn ping_plan(destination: IpAddr, source: IpAddr, family: Family) -> Plan {
    let (label, key) = match family {
        Family::V4 => ("ping-detail-ip4", "ip4"),
        Family::V6 => ("ping-detail-ip6", "ip6"),
    };
    let mut services =
        format!("[[component.service]]\ntype = \"ping\"\n{key} = \"{source}\"\n");
    let mut labels = vec![label];
    if family == Family::V4 {
        if let Some(address) = loopback_ip6() {
            services = format!("{services}ip6 = \"{address}\"\n");
            labels.push("ping-detail-ip6");
        }
        services.push_str(&tcp_service(source));
        labels.push("tcp-connect-ip4");
    }
    Plan { labels, destination, port: None, services, _listener: None }
}

/// Plans a measurement of TCP connects: to a port, or to a listener of the demo's own.
async fn tcp_plan(
    destination: IpAddr,
    source: IpAddr,
    port: Option<u16>,
) -> Result<(Plan, String), Failure> {
    if !destination.is_ipv4() {
        return Err(Told("TCP connects are measured over IPv4 only".into()).into());
    }
    let (port, listener) = if let Some(port) = port {
        (port, None)
    } else {
        let listener = TcpListener::bind((destination, 0)).await?;
        (listener.local_addr()?.port(), Some(listener))
    };
    let plan = Plan {
        labels: vec!["tcp-connect-ip4"],
        destination,
        port: Some(port),
        services: tcp_service(source),
        _listener: listener,
    };
    Ok((plan, format!("measures TCP connects to port {port}")))
}

/// Returns the section of the TCP service.
fn tcp_service(source: IpAddr) -> String {
    format!("\n[[component.service]]\ntype = \"tcp-connect\"\nip4 = \"{source}\"\n")
}

/// Returns the IPv6 loopback address, where there is IPv6.
fn loopback_ip6() -> Option<IpAddr> {
    let address = IpAddr::V6(Ipv6Addr::LOCALHOST);
    std::net::UdpSocket::bind((address, 0)).is_ok().then_some(address)
}

/// Returns an address of a host, IPv4 first.
async fn resolve(host: &str) -> Result<IpAddr, Failure> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    let failed = |source| ResolveError { host: host.to_owned(), source };
    let found: Vec<_> = tokio::time::timeout(RESOLVE, lookup_host((host, 0)))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(failed)?
        .map(|found| found.ip())
        .collect();
    let address = found.iter().find(|ip| ip.is_ipv4()).or_else(|| found.first()).copied();
    address.ok_or_else(|| failed(io::ErrorKind::NotFound.into()).into())
}

/// A name without address.
#[derive(Debug, thiserror::Error)]
#[error("cannot find the address of {host}; give an address instead of a name")]
struct ResolveError {
    host: String,
    source: io::Error,
}

/// A target that no route leads to.
#[derive(Debug, thiserror::Error)]
#[error("there is no route to {destination}; choose another --target")]
struct NoRouteError {
    destination: IpAddr,
    source: io::Error,
}
