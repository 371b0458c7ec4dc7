//! Addresses: IPv4 and IPv6 hosts and networks.
//!
//! Source: RFC 4291, RFC 4007 (zones), RFC 4632 (networks), RFC 5952 (canonical text).
//!
//! Differences: the reference knows hosts only. A network must have zero host bits, so
//! that equal networks are equal values.

use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::primitive::quote;

/// A host, possibly with the zone it is valid in, or a network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    ip: IpAddr,
    prefix_length: u8,
    zone: Option<Box<str>>,
}

impl Address {
    /// Returns the address of one host.
    pub const fn host(ip: IpAddr) -> Self {
        Self { ip, prefix_length: width(ip), zone: None }
    }

    /// Returns the address, of a network its lowest.
    pub const fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Returns the number of leading bits that the members of a network share: 32 or 128
    /// for a host.
    pub const fn prefix_length(&self) -> u8 {
        self.prefix_length
    }

    /// Returns the zone of a link-local host, such as `eth0`.
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// Says whether this is one host.
    pub const fn is_host(&self) -> bool {
        self.prefix_length == width(self.ip)
    }

    /// Says whether `other`, a host or a network, lies within this one.
    pub fn covers(&self, other: &Self) -> bool {
        if self.is_host() {
            return self == other;
        }
        self.prefix_length <= other.prefix_length
            && network(other.ip, self.prefix_length) == Some(self.ip)
            && self.ip.is_ipv4() == other.ip.is_ipv4()
    }

    /// Returns the highest address of a network, the address itself of a host.
    pub const fn last(&self) -> IpAddr {
        match self.ip {
            IpAddr::V4(ip) => {
                IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() | !mask4(self.prefix_length)))
            }
            IpAddr::V6(ip) => {
                IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() | !mask6(self.prefix_length)))
            }
        }
    }
}

/// Returns the networks that together are all addresses from `low` to `high`, in order;
/// none if the two are not of one family or `low` is above `high`.
pub(crate) fn networks_between(low: IpAddr, high: IpAddr) -> Vec<Address> {
    let (width, mut next, last) = match (low, high) {
        (IpAddr::V4(low), IpAddr::V4(high)) => {
            (32, u128::from(low.to_bits()), u128::from(high.to_bits()))
        }
        (IpAddr::V6(low), IpAddr::V6(high)) => (128, low.to_bits(), high.to_bits()),
        _ => return Vec::new(),
    };
    let address = |bits: u128| match width {
        32 => u32::try_from(bits).map_or(low, |bits| Ipv4Addr::from_bits(bits).into()),
        _ => Ipv6Addr::from_bits(bits).into(),
    };
    let mut networks = Vec::new();
    while next <= last {
        // The largest network that starts here and does not reach beyond the end.
        let aligned = next.trailing_zeros().min(width);
        let host_bits = (0..=aligned)
            .rev()
            .find(|bits| {
                let hosts = u128::MAX.checked_shr(128 - bits).unwrap_or(0);
                hosts <= last - next
            })
            .unwrap_or(0);
        let prefix_length = u8::try_from(width - host_bits).unwrap_or(u8::MAX);
        networks.push(Address { ip: address(next), prefix_length, zone: None });
        match next.checked_add(1_u128.checked_shl(host_bits).unwrap_or(0)) {
            Some(following) if following > next => next = following,
            _ => break,
        }
    }
    networks
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        Self::host(ip)
    }
}

impl Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip.fmt(f)?;
        if let Some(zone) = &self.zone {
            write!(f, "%{zone}")?;
        }
        if !self.is_host() {
            write!(f, "/{}", self.prefix_length)?;
        }
        Ok(())
    }
}

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        // Nearly all are hosts without a zone.
        if let Ok(ip) = text.parse() {
            return Ok(Self::host(ip));
        }
        let (host, length) = match text.split_once('/') {
            Some((host, length)) => (host, Some(length)),
            None => (text, None),
        };
        let (digits, zone) = match host.split_once('%') {
            Some((digits, zone)) => (digits, Some(zone)),
            None => (host, None),
        };
        let ip: IpAddr =
            digits.parse().map_err(|_| ParseAddressError::NoAddress(quote(text)))?;
        let zone_allowed = ip.is_ipv6() && length.is_none();
        if zone.is_some_and(|zone| {
            !zone_allowed || zone.is_empty() || zone.contains(['%', ' '])
        }) {
            return Err(ParseAddressError::Zone);
        }
        let zone = zone.map(Into::into);
        let Some(length) = length else {
            return Ok(Self { ip, prefix_length: width(ip), zone });
        };
        let limit = width(ip);
        let prefix_length = length
            .parse()
            .ok()
            .filter(|bits| *bits <= limit && !length.starts_with('+'))
            .ok_or(ParseAddressError::PrefixLength { limit })?;
        match network(ip, prefix_length) {
            Some(lowest) if lowest == ip => Ok(Self { ip, prefix_length, zone }),
            Some(lowest) => Err(ParseAddressError::HostBits { lowest, prefix_length }),
            None => Err(ParseAddressError::PrefixLength { limit }),
        }
    }
}

/// Text that is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseAddressError {
    /// Neither IPv4 nor IPv6.
    #[error(
        "expected an IPv4 or IPv6 address or network such as 10.0.0.1 or 10.0.0.0/8, got {0}"
    )]
    NoAddress(String),
    /// A zone where there can be none.
    #[error("only a single IPv6 host has a zone, as in fe80::1%eth0")]
    Zone,
    /// A prefix length that is no number or too large.
    #[error("the prefix length goes from 0 to {limit}")]
    PrefixLength {
        /// The longest prefix of the family.
        limit: u8,
    },
    /// A network with host bits set.
    #[error("the host bits of a network are zero: write {lowest}/{prefix_length}")]
    HostBits {
        /// The network's lowest address.
        lowest: IpAddr,
        /// The prefix length that was given.
        prefix_length: u8,
    },
}

/// Returns the number of bits of an address of this family.
const fn width(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// Returns the lowest address of the network of `ip` with this prefix length, `None` if
/// the family has no such length.
const fn network(ip: IpAddr, prefix_length: u8) -> Option<IpAddr> {
    if prefix_length > width(ip) {
        return None;
    }
    Some(match ip {
        IpAddr::V4(ip) => {
            IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & mask4(prefix_length)))
        }
        IpAddr::V6(ip) => {
            IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask6(prefix_length)))
        }
    })
}

/// Returns `length` one bits followed by zeros, 32 bits in all.
const fn mask4(length: u8) -> u32 {
    match u32::MAX.checked_shl(32 - length as u32) {
        Some(mask) => mask,
        None => 0,
    }
}

/// Returns `length` one bits followed by zeros, 128 bits in all.
const fn mask6(length: u8) -> u128 {
    match u128::MAX.checked_shl(128 - length as u32) {
        Some(mask) => mask,
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Address, String> {
        text.parse().map_err(|error: ParseAddressError| error.to_string())
    }

    #[test]
    fn networks_cover_hosts_and_networks_inside() {
        let network = read("10.0.0.0/8").unwrap();
        assert!(network.covers(&read("10.1.2.3").unwrap()));
        assert!(network.covers(&read("10.128.0.0/9").unwrap()));
        assert!(!network.covers(&read("0.0.0.0/0").unwrap()));
        assert!(!network.covers(&read("11.0.0.1").unwrap()));
        let all = read("::/0").unwrap();
        assert!(all.covers(&read("2001:db8::1").unwrap()));
        assert!(!all.covers(&read("10.0.0.1").unwrap()));
        assert_eq!(network.last().to_string(), "10.255.255.255");
    }

    #[test]
    fn ranges_are_networks_put_together() {
        let between = |low: &str, high: &str| {
            let networks = networks_between(low.parse().unwrap(), high.parse().unwrap());
            networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(between("10.0.0.0", "10.255.255.255"), "10.0.0.0/8");
        assert_eq!(between("10.0.0.1", "10.0.0.4"), "10.0.0.1 10.0.0.2/31 10.0.0.4");
        assert_eq!(between("0.0.0.0", "255.255.255.255"), "0.0.0.0/0");
        assert_eq!(between("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), "::/0");
        assert_eq!(between("10.0.0.4", "10.0.0.1"), "");
        assert_eq!(between("10.0.0.4", "::1"), "");
    }

    #[test]
    fn prints_what_it_reads() {
        for text in ["10.0.27.101", "1::2:3:0:0:4", "fe80::1%eth0", "10.0.0.0/8", "::/0"]
        {
            assert_eq!(read(text).unwrap().to_string(), text);
        }
        assert_eq!(read("10.0.0.1/32").unwrap().to_string(), "10.0.0.1");
    }

    #[test]
    fn refuses_what_is_ambiguous() {
        for (text, message) in [
            (
                "010.0.0.1",
                "expected an IPv4 or IPv6 address or network such as 10.0.0.1 or \
                 10.0.0.0/8, got \"010.0.0.1\"",
            ),
            ("10.0.0.1/8", "the host bits of a network are zero: write 10.0.0.0/8"),
            ("10.0.0.0/33", "the prefix length goes from 0 to 32"),
            ("10.0.0.1%eth0", "only a single IPv6 host has a zone, as in fe80::1%eth0"),
        ] {
            assert_eq!(read(text).unwrap_err(), message);
        }
    }
}
