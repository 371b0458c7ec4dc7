//! The Internet checksum.
//!
//! Source: RFC 1071 "Computing the Internet Checksum"; RFC 792 for its use in ICMPv4.
//! ICMPv6 adds a pseudo header and is left to the kernel, which knows the addresses.

/// Returns the checksum of `bytes`, to be stored in network byte order.
///
/// The checksum field itself must be zero. Over bytes that carry their correct
/// checksum the result is zero.
pub(super) fn internet_checksum(bytes: &[u8]) -> u16 {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let mut sum: u64 =
        pairs.iter().map(|pair| u64::from(u16::from_be_bytes(*pair))).sum();
    if let [last] = rest {
        sum += u64::from(u16::from_be_bytes([*last, 0]));
    }
    while sum > u64::from(u16::MAX) {
        sum = (sum & u64::from(u16::MAX)) + (sum >> u16::BITS);
    }
    !u16::try_from(sum).expect("the loop above folds the sum into 16 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(internet_checksum(&bytes), !0xddf2);
    }

    #[test]
    fn pads_an_odd_length_with_zero() {
        assert_eq!(internet_checksum(&[0xab]), internet_checksum(&[0xab, 0x00]));
    }

    #[test]
    fn folds_more_than_one_carry() {
        assert_eq!(internet_checksum(&vec![0xff; 65_535]), 0x00ff);
        assert_eq!(internet_checksum(&[]), 0xffff);
    }
}
