//! Addresses with the length of their network.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address and the length of the network that it is in: `192.0.2.1/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    /// The address.
    pub address: IpAddr,
    /// How many of its bits are those of the network.
    pub length: u8,
}

impl Prefix {
    /// Returns the network: the address without the bits behind the length.
    #[must_use]
    pub fn network(self) -> Self {
        let address = match self.address {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.length)).unwrap_or(0);
                Ipv4Addr::from_bits(ip.to_bits() & mask).into()
            }
            IpAddr::V6(ip) => {
                let mask =
                    u128::MAX.checked_shl(128 - u32::from(self.length)).unwrap_or(0);
                Ipv6Addr::from_bits(ip.to_bits() & mask).into()
            }
        };
        Self { address, length: self.length }
    }

    /// Returns whether two networks have addresses in common.
    pub fn overlaps(self, other: Self) -> bool {
        if self.address.is_ipv4() != other.address.is_ipv4() {
            return false;
        }
        let length = self.length.min(other.length);
        Self { length, ..self }.network() == Self { length, ..other }.network()
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Prefix {
    type Err = ParsePrefixError;

    fn from_str(text: &str) -> Result<Self, ParsePrefixError> {
        let parse = || {
            let (address, length) = text.split_once('/')?;
            let address: IpAddr = address.parse().ok()?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            let length = length.parse().ok().filter(|length| *length <= most)?;
            Some(Self { address, length })
        };
        parse().ok_or_else(|| ParsePrefixError(text.to_owned()))
    }
}

/// A text that is no address with a length.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no address with the length of its network, such as 192.0.2.1/24 or \
     2001:db8::1/64"
)]
pub struct ParsePrefixError(String);

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses one.
    fn prefix(text: &str) -> Prefix {
        text.parse().expect("a prefix")
    }

    #[test]
    fn networks_are_cut_out_and_compared() {
        assert_eq!(prefix("192.0.2.77/28").network(), prefix("192.0.2.64/28"));
        assert_eq!(prefix("192.0.2.77/0").network(), prefix("0.0.0.0/0"));
        assert_eq!(prefix("192.0.2.77/32").network(), prefix("192.0.2.77/32"));
        assert_eq!(prefix("2001:db8::1/64").network().to_string(), "2001:db8::/64");
        assert!(prefix("10.0.0.0/8").overlaps(prefix("10.9.0.0/16")));
        assert!(!prefix("10.8.0.0/16").overlaps(prefix("10.9.0.0/16")));
        assert!(!prefix("0.0.0.0/0").overlaps(prefix("::/0")));
    }

    #[test]
    fn refuses_what_is_no_prefix() {
        for text in ["", "192.0.2.1", "192.0.2.1/33", "::/129", "a/1", "1.2.3.4/-1"] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
    }
}
