//! The measurements as services of a component, and how they are configured.
//!
//! The labels and columns of ping averages and details are those of the reference, to the
//! letter: results of both compare. docs/measurements.md is written from the capabilities.

mod metadata;
mod module;
mod ping;
mod probe;
mod statistics;
mod subnet;
mod sweep;
mod tcp_connect;
mod tstat;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use mplane::message::{BuildError, Specification};
use mplane::primitive::Value;
use mplane::registry::Registries;
use mplane_runtime::config::NamesFiles;
use mplane_runtime::service::{RunError, Service, Work};
use serde::{Deserialize, Deserializer};
use tracing::{info, warn};

pub use self::subnet::{ParseSubnetError, Subnet};
use crate::packet::Family;
use crate::ping::End;
use crate::socket::{self, EchoSocket};
use crate::sweep::{DEFAULT_RATE, MAX_RATE};
use crate::tstat::{OpenSwitchesError, TailError};

/// The temporal scope of measurements that repeat with its period: from now on, at most
/// once a second.
const SCOPE: &str = "now ... future / 1s";

/// The temporal scope of measurements that have their pace from parameters.
const OPEN_SCOPE: &str = "now ... future";

/// How often something is measured if the specification does not say.
const DEFAULT_PERIOD: Duration = Duration::from_secs(1);

/// The configuration of one service.
#[derive(Clone, Debug, Deserialize)]
#[serde(
    tag = "type",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case",
    deny_unknown_fields
)]
pub enum ServiceConfig {
    /// ICMP echo: `ping-average-ip4`, `ping-detail-ip4`, `ping-statistics-ip4`,
    /// `ping-sweep-ip4` and the same for IPv6.
    Ping {
        /// The IPv4 address to send from; without it there is no IPv4.
        ip4: Option<Source>,
        /// The IPv6 address to send from; without it there is no IPv6.
        ip6: Option<Source>,
        /// Packets a second of sweeps at most, 1 to [`MAX_RATE`].
        #[serde(default = "default_sweep_rate")]
        sweep_rate: u32,
    },
    /// TCP handshakes: `tcp-connect-ip4`.
    TcpConnect {
        /// The IPv4 address to connect from.
        ip4: Source,
    },
    /// TCP flows from the logs of tStat: `tstat-log_tcp_complete-core` and four others.
    Tstat {
        /// Its `runtime.conf`, in which flags are switched.
        runtime_conf: Option<PathBuf>,
        /// The folder to which it writes its logs.
        log_dir: Option<PathBuf>,
        /// The network that it watches; without it, that is not stated.
        net: Option<Subnet>,
        /// Whether values are invented, without tStat.
        #[serde(default)]
        simulate: bool,
    },
}

impl NamesFiles for ServiceConfig {
    fn files(&mut self) -> Vec<&mut PathBuf> {
        match self {
            Self::Ping { .. } | Self::TcpConnect { .. } => Vec::new(),
            Self::Tstat { runtime_conf, log_dir, .. } => {
                runtime_conf.iter_mut().chain(log_dir).collect()
            }
        }
    }
}

/// Returns how many packets a second sweeps send unless configured.
fn default_sweep_rate() -> u32 {
    DEFAULT_RATE
}

/// The address that a service sends from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The one that the route to the Internet uses.
    Auto,
    /// This one.
    Address(IpAddr),
}

impl FromStr for Source {
    type Err = ParseSourceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        text.parse().map(Self::Address).map_err(|_| ParseSourceError(text.into()))
    }
}

/// Text that is no address to send from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address; write auto or an address such as 192.0.2.1")]
pub struct ParseSourceError(String);

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl ServiceConfig {
    /// Checks that what is needed is there, and that addresses are of the right family.
    pub fn check(&self) -> Result<(), SetUpError> {
        match self {
            Self::Ping { ip4: None, ip6: None, .. } => Err(SetUpError::NoSource),
            Self::Ping { sweep_rate: rate, .. } if !(1..=MAX_RATE).contains(rate) => {
                Err(SetUpError::SweepRate { rate: *rate })
            }
            Self::Ping { ip4, ip6, .. } => {
                ip4.map_or(Ok(()), |source| source.check(Family::V4))?;
                ip6.map_or(Ok(()), |source| source.check(Family::V6))
            }
            Self::TcpConnect { ip4 } => ip4.check(Family::V4),
            Self::Tstat { simulate: true, .. } => Ok(()),
            Self::Tstat { runtime_conf: None, .. } => Err(SetUpError::NoRuntimeConf),
            Self::Tstat { log_dir: None, .. } => Err(SetUpError::NoLogDir),
            Self::Tstat { .. } => Ok(()),
        }
    }
}

impl Source {
    /// Checks that an address is of a family.
    fn check(self, family: Family) -> Result<(), SetUpError> {
        match self {
            Self::Address(address) if Family::of(address) != family => {
                Err(SetUpError::Family { address, family })
            }
            _ => Ok(()),
        }
    }

    /// Returns the address; `None`, with a warning, if this machine has no route of the
    /// family.
    fn resolve(self, family: Family) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(address),
            Self::Auto => route_source(family)
                .inspect_err(|error| {
                    warn!(
                        %error,
                        "this machine has no {family} route, so nothing is measured over \
                         it; write the address to send from instead of \"auto\""
                    );
                })
                .ok(),
        }
    }
}

/// Returns the address that packets to the Internet would leave from. Nothing is sent.
fn route_source(family: Family) -> io::Result<IpAddr> {
    let (any, far): (IpAddr, IpAddr) = match family {
        // Documentation addresses (RFC 5737, RFC 3849): nobody is there.
        Family::V4 => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into()),
        Family::V6 => (
            Ipv6Addr::UNSPECIFIED.into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        ),
    };
    source_towards_from(any, far)
}

/// Returns the address of this machine that packets to `destination` would leave from.
/// Nothing is sent.
pub fn source_towards(destination: IpAddr) -> io::Result<IpAddr> {
    let any = match destination {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    source_towards_from(any, destination)
}

/// Asks the routing table with a socket that is connected and never used.
fn source_towards_from(any: IpAddr, destination: IpAddr) -> io::Result<IpAddr> {
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((destination, 9))?;
    Ok(socket.local_addr()?.ip())
}

/// Keeps the kernel stamping packets.
///
/// The kernel switches time stamps on a while after the first socket has asked for them.
/// This one asks as long as a service is there, so that the first packet of a run has its
/// stamp.
#[derive(Clone, Debug)]
struct Stamps {
    _socket: Option<Arc<EchoSocket>>,
}

impl Stamps {
    /// Asks for stamps, where a socket can be had.
    fn ask(family: Family) -> Self {
        Self { _socket: EchoSocket::open(family, None).ok().map(Arc::new) }
    }
}

/// Makes the services that a section of a configuration asks for and that work here. What
/// does not is logged with the remedy.
pub async fn services(
    configured: &ServiceConfig,
    registries: &Registries,
) -> Result<Vec<Arc<dyn Service>>, SetUpError> {
    let mut services: Vec<Arc<dyn Service>> = Vec::new();
    configured.check()?;
    match configured {
        ServiceConfig::Ping { ip4, ip6, sweep_rate } => {
            for (source, family) in [(ip4, Family::V4), (ip6, Family::V6)] {
                let Some(source) = source else { continue };
                let availability = socket::detect(family).await;
                if !availability.is_usable() {
                    warn!("{availability}");
                    continue;
                }
                info!("{availability}");
                if let Some(source) = source.resolve(family) {
                    let stamps = Stamps::ask(family);
                    services.extend(ping::services(source, &stamps, registries)?);
                    services.extend(statistics::services(source, &stamps, registries)?);
                    let sweeps =
                        sweep::services(source, *sweep_rate, &stamps, registries)?;
                    services.extend(sweeps);
                }
            }
        }
        ServiceConfig::TcpConnect { ip4 } => {
            if let Some(source) = ip4.resolve(Family::V4) {
                services.push(tcp_connect::service(source, registries)?);
            }
        }
        ServiceConfig::Tstat { net, simulate: true, .. } => {
            services = tstat::simulated_services(*net, registries)?;
        }
        ServiceConfig::Tstat { runtime_conf, log_dir, net, simulate: false } => {
            let runtime_conf =
                runtime_conf.as_deref().ok_or(SetUpError::NoRuntimeConf)?;
            let log_dir = log_dir.as_deref().ok_or(SetUpError::NoLogDir)?;
            services = tstat::services(runtime_conf, log_dir, *net, registries)?;
        }
    }
    Ok(services)
}

/// Services that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// A ping service without address.
    #[error("service ping needs ip4 or ip6: the address to send from, or \"auto\"")]
    NoSource,
    /// An address of the other family.
    #[error("{address} is no {family} address")]
    Family {
        /// The address.
        address: IpAddr,
        /// The family it should have.
        family: Family,
    },
    /// A rate that is none.
    #[error("sweep-rate {rate} is impossible: choose 1 to {MAX_RATE} packets a second")]
    SweepRate {
        /// The rate.
        rate: u32,
    },
    /// A tStat service without `runtime.conf`.
    #[error(
        "service tstat needs runtime-conf: the path of tStat's runtime.conf; simulate = true \
         does without, and invents values"
    )]
    NoRuntimeConf,
    /// A tStat service without logs.
    #[error(
        "service tstat needs log-dir: the folder to which tStat writes its logs; simulate = \
         true does without, and invents values"
    )]
    NoLogDir,
    /// The flags of tStat cannot be switched.
    #[error("runtime-conf of service tstat cannot be used")]
    RuntimeConf(#[source] Box<OpenSwitchesError>),
    /// The logs of tStat cannot be read.
    #[error("log-dir of service tstat cannot be used")]
    LogDir(#[source] Box<TailError>),
    /// An element is missing from the registries.
    #[error("a capability cannot be made")]
    Capability(#[from] BuildError),
}

/// Returns the address in a parameter of a specification.
fn address(specification: &Specification, name: &str) -> Result<IpAddr, RunError> {
    match specification.value(name) {
        Some(Value::Address(address))
            if address.is_host() && address.zone().is_none() =>
        {
            Ok(address.ip())
        }
        Some(other) => {
            Err(RunError(format!("{name} {other} is not the address of one host")))
        }
        None => Err(RunError(format!("{name} has no value"))),
    }
}

/// Returns how often and how long a specification asks to measure.
fn pace(work: &Work) -> (Duration, End) {
    (work.specification.when().period().unwrap_or(DEFAULT_PERIOD), end(work))
}

/// Returns how long a specification asks to measure.
fn end(work: &Work) -> End {
    match work.duration {
        // A scope that is one instant asks for one packet.
        Some(Duration::ZERO) => End::Count(1),
        Some(duration) => End::After(duration),
        None => End::Never,
    }
}

/// Returns how names of a family end.
const fn suffix(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip4",
        Family::V6 => "ip6",
    }
}

/// Pushes a row. The first that does not fit ends the run: nothing is measured that
/// nobody gets.
fn push<const N: usize>(
    row: [Option<Value>; N],
    work: &Work,
    overflow: &mut Option<RunError>,
) {
    if let Err(error) = work.rows.push(row) {
        work.stop.cancel();
        overflow.get_or_insert(error);
    }
}

#[cfg(test)]
mod document_tests;
