//! Plain HTTP: spoken only where it is configured, and on this machine unless a second
//! word says more. Nobody is authenticated, and whoever is on the way reads along.

use std::net::IpAddr;

use serde::Deserialize;

/// How far plain HTTP may go where it is configured (`plain-http`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlainHttp {
    /// Within this machine.
    Loopback,
    /// Over any network.
    Anywhere,
}

impl PlainHttp {
    /// Says whether plain HTTP may go to, or be listened for at, an address.
    pub fn reaches(self, address: IpAddr) -> bool {
        match self {
            Self::Loopback => address.to_canonical().is_loopback(),
            Self::Anywhere => true,
        }
    }

    /// Says whether plain HTTP may go to a host of a URL, without the brackets of IPv6.
    /// Of names only `localhost` is this machine (RFC 6761, section 6.3).
    pub fn reaches_host(self, host: &str) -> bool {
        match host.parse() {
            Ok(address) => self.reaches(address),
            Err(_) => self == Self::Anywhere || host.eq_ignore_ascii_case("localhost"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_this_machine_and_anywhere_is_all() {
        for host in ["127.0.0.1", "127.77.0.9", "::1", "::ffff:127.0.0.1", "LocalHost"] {
            assert!(PlainHttp::Loopback.reaches_host(host), "{host}");
        }
        for host in ["0.0.0.0", "::", "192.0.2.1", "localhost.example", "sup", ""] {
            assert!(!PlainHttp::Loopback.reaches_host(host), "{host}");
            assert!(PlainHttp::Anywhere.reaches_host(host), "{host}");
        }
    }
}
