//! The Internet checksum (RFC 1071), and which bytes a sender may have put under it.

use std::net::IpAddr;

/// What the checksum of a message was computed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Checksum {
    /// The message alone: VRRP version 2, and version 3 over IPv4 as RFC 9568 words it.
    Plain,
    /// The message and a pseudo-header of its addresses: ICMPv6, VRRP over IPv6, and version 3 over IPv4 as keepalived
    /// reads RFC 5798.
    PseudoHeader,
    /// A unicast message under a pseudo-header that names the multicast group: version 3 of keepalived up to 1.3.6, and
    /// later ones with `old_unicast_checksum`.
    GroupPseudoHeader,
    /// Only the beginning of the message was captured.
    Unverified,
}

/// The one's complement sum of 16-bit words; an odd last byte counts as the upper half of a word.
pub(super) fn sum(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(2);
    let whole: u64 =
        words.by_ref().map(|word| word.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))).sum();
    whole + words.remainder().iter().map(|byte| u64::from(*byte) << 8).sum::<u64>()
}

/// Adds the carries back in, until 16 bits are left.
const fn fold(mut sum: u64) -> u64 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

/// Whether a sum that includes the checksum field is that of an undamaged message.
pub(super) const fn is_right(sum: u64) -> bool {
    fold(sum) == 0xffff
}

/// The sum of a pseudo-header (RFC 793, RFC 8200 section 8.1).
pub(super) fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> u64 {
    let addresses = address(source) + address(destination);
    addresses + u64::from(protocol) + fold(u64::try_from(length).unwrap_or(u64::MAX))
}

fn address(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => sum(&address.octets()),
        IpAddr::V6(address) => sum(&address.octets()),
    }
}

/// What belongs into the checksum field of a message whose sum without it is this.
#[cfg(any(test, fuzzing))]
pub(super) fn complement(sum: u64) -> [u8; 2] {
    let [.., high, low] = (!fold(sum)).to_be_bytes();
    [high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071_has_its_sum() {
        assert_eq!(fold(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), 0xddf2);
    }

    #[test]
    fn an_odd_last_byte_is_padded_with_zero() {
        assert_eq!(sum(&[0x12, 0x34, 0x56]), sum(&[0x12, 0x34, 0x56, 0x00]));
    }

    #[test]
    fn a_complement_makes_the_sum_right() {
        let bytes = [0x45, 0xc0, 0x00, 0x28];
        let [high, low] = complement(sum(&bytes));
        assert!(is_right(sum(&[0x45, 0xc0, 0x00, 0x28, high, low])));
        assert!(!is_right(sum(&bytes)));
    }

    #[test]
    fn a_pseudo_header_sums_addresses_protocol_and_length() {
        let source = IpAddr::from([10, 1, 2, 3]);
        let destination = IpAddr::from([224, 0, 0, 18]);
        let header = [10, 1, 2, 3, 224, 0, 0, 18, 0, 112, 0, 12];
        assert_eq!(fold(pseudo_header(source, destination, 112, 12)), fold(sum(&header)));
    }
}
