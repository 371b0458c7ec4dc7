//! Whom a sweep asks: hosts and networks, written out.

use std::net::IpAddr;

use mplane::address::Address;

use crate::packet::Family;
use crate::ping::{PingError, check_destination};

/// Most targets of one sweep: an IPv4 network of 16 bits.
pub const MAX_TARGETS: usize = 1 << 16;

/// Targets of one family, each once, in the order in which they were given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    /// Their family.
    family: Family,
    /// Their addresses.
    addresses: Vec<IpAddr>,
    /// Addresses and their places, sorted.
    places: Vec<(IpAddr, u32)>,
}

impl Targets {
    /// Writes out hosts and networks. A network stands for all its addresses, the first and
    /// the last included. An address given twice is one target.
    pub fn new<'a>(
        family: Family,
        given: impl IntoIterator<Item = &'a Address>,
    ) -> Result<Self, TargetsError> {
        let mut addresses = Vec::new();
        for address in given {
            if Family::of(address.ip()) != family || address.zone().is_some() {
                return Err(TargetsError::Family { address: address.clone(), family });
            }
            let width = match family {
                Family::V4 => 32,
                Family::V6 => 128,
            };
            let bits = u32::from(width - address.prefix_length());
            let count = 1_usize.checked_shl(bits).filter(|count| *count <= MAX_TARGETS);
            if count.is_none_or(|count| addresses.len() + count > MAX_TARGETS) {
                return Err(TargetsError::TooMany);
            }
            for ip in between(address.ip(), address.last()) {
                check_destination(ip)?;
                addresses.push(ip);
            }
        }
        let mut places: Vec<_> = addresses.iter().copied().zip(0..).collect();
        places.sort_unstable();
        let all = places.len();
        // Of an address given twice, the first place is kept.
        places.dedup_by_key(|(ip, _)| *ip);
        if places.len() < all {
            let mut kept: Vec<_> = places.iter().map(|(_, place)| *place).collect();
            kept.sort_unstable();
            let at = |place: u32| addresses.get(usize::try_from(place).ok()?).copied();
            addresses = kept.into_iter().filter_map(at).collect();
            places = addresses.iter().copied().zip(0..).collect();
            places.sort_unstable();
        }
        Ok(Self { family, addresses, places })
    }

    /// Returns their family.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Returns how many they are.
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// Returns their addresses in order.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Returns the place of an address.
    pub fn place(&self, address: IpAddr) -> Option<u32> {
        let at = self.places.binary_search_by_key(&address, |(known, _)| *known).ok()?;
        self.places.get(at).map(|(_, place)| *place)
    }
}

/// Returns the addresses between two of one family, both included.
fn between(first: IpAddr, last: IpAddr) -> Box<dyn Iterator<Item = IpAddr>> {
    match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            let all = first.to_bits()..=last.to_bits();
            Box::new(all.map(|bits| std::net::Ipv4Addr::from_bits(bits).into()))
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            let all = first.to_bits()..=last.to_bits();
            Box::new(all.map(|bits| std::net::Ipv6Addr::from_bits(bits).into()))
        }
        _ => Box::new(std::iter::empty()),
    }
}

/// Targets that a sweep cannot have.
#[derive(Debug, thiserror::Error)]
pub enum TargetsError {
    /// An address of the other family, or with a zone.
    #[error("{address} is no {family} address without a zone: give those only")]
    Family {
        /// The address.
        address: Address,
        /// The family it should have.
        family: Family,
    },
    /// There are too many.
    #[error(
        "these are more than {MAX_TARGETS} addresses: give fewer, or smaller networks"
    )]
    TooMany,
    /// One is no host that can be asked.
    #[error(transparent)]
    Destination(#[from] PingError),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes out text.
    fn targets(family: Family, given: &[&str]) -> Result<Targets, String> {
        let given: Vec<Address> =
            given.iter().map(|text| text.parse().expect("an address")).collect();
        Targets::new(family, &given).map_err(|error| error.to_string())
    }

    #[test]
    fn networks_are_written_out_in_order_and_each_address_once() {
        let targets =
            targets(Family::V4, &["192.0.2.9", "192.0.2.8/30", "192.0.2.1", "192.0.2.9"])
                .expect("few addresses");
        let texts: Vec<_> = targets.addresses().iter().map(IpAddr::to_string).collect();
        let expected =
            ["192.0.2.9", "192.0.2.8", "192.0.2.10", "192.0.2.11", "192.0.2.1"];
        assert_eq!(texts, expected);
        for (place, address) in (0..).zip(targets.addresses()) {
            assert_eq!(targets.place(*address), Some(place));
        }
        assert_eq!(targets.place("192.0.2.7".parse().expect("an address")), None);
    }

    #[test]
    fn a_network_of_65536_addresses_is_the_largest() {
        assert_eq!(targets(Family::V4, &["10.0.0.0/16"]).map(|it| it.len()), Ok(65_536));
        let six = targets(Family::V6, &["2001:db8::/112"]).expect("as many");
        assert_eq!((six.len(), six.is_empty()), (65_536, false));
        let too_many =
            "these are more than 65536 addresses: give fewer, or smaller networks";
        for given in [&["10.0.0.0/15"][..], &["10.0.0.0/16", "10.1.0.0"], &["0.0.0.0/0"]]
        {
            assert_eq!(targets(Family::V4, given), Err(too_many.into()), "{given:?}");
        }
        assert_eq!(targets(Family::V6, &["::/0"]), Err(too_many.into()));
    }

    #[test]
    fn addresses_that_cannot_be_asked_are_refused() {
        for (family, given, error) in [
            (
                Family::V4,
                "2001:db8::1",
                "2001:db8::1 is no IPv4 address without a zone: give those only",
            ),
            (
                Family::V6,
                "fe80::1%eth0",
                "fe80::1%eth0 is no IPv6 address without a zone: give those only",
            ),
            (
                Family::V4,
                "224.0.0.0/30",
                "224.0.0.0 is not the address of one host: choose a unicast address",
            ),
        ] {
            assert_eq!(targets(family, &[given]), Err(error.into()));
        }
    }
}
