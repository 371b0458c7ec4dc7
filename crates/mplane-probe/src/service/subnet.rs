//! The network that a passive meter watches, as a configuration states it.
//!
//! Source: component notes, start-up options of the tStat proxy, which takes masks of 8 to
//! 24 bits.
//!
//! *Differences*: the bits behind the mask are zeros, so that equal networks are equal.

use std::fmt::{self, Display};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

/// The lengths that the mask of a network may have, as at the reference.
const MASKS: RangeInclusive<u8> = 8..=24;

/// The network that tStat watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// Its lowest address.
    pub(super) address: Ipv4Addr,
    /// How many leading bits its members share.
    pub(super) mask: u8,
}

impl FromStr for Subnet {
    type Err = ParseSubnetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let subnet = || {
            let (address, mask) = text.split_once('/')?;
            let (address, mask) = (address.parse().ok()?, mask.parse().ok()?);
            let subnet = Self { address, mask };
            (MASKS.contains(&mask) && subnet.has_zero_host_bits()).then_some(subnet)
        };
        subnet().ok_or_else(|| ParseSubnetError(text.into()))
    }
}

impl Subnet {
    /// Says whether this is the address of a network, not of a host in it.
    const fn has_zero_host_bits(self) -> bool {
        self.address.to_bits().trailing_zeros() >= 32 - self.mask as u32
    }
}

impl Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.mask)
    }
}

impl<'de> Deserialize<'de> for Subnet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Text that is no network to watch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no network; write an IPv4 network such as 192.168.1.0/24, with a mask of {least} \
     to {most} bits and zeros behind it",
    least = MASKS.start(),
    most = MASKS.end()
)]
pub struct ParseSubnetError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_masks_of_8_to_24_bits() {
        for text in ["192.168.1.0/24", "10.0.0.0/8", "172.16.0.0/12"] {
            assert_eq!(text.parse::<Subnet>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "192.168.1.0",
            "192.168.1.0/25",
            "0.0.0.0/7",
            "192.168.1.1/24",
            "192.168.1/24",
            "2001:db8::/24",
            "192.168.1.0/x",
        ] {
            let error = text.parse::<Subnet>().unwrap_err().to_string();
            assert!(
                error.contains("such as 192.168.1.0/24, with a mask of 8 to 24"),
                "{error}"
            );
        }
    }
}
