//! UDP over IPv4 and IPv6 (RFC 768), from the IP header on, as far as tunnels between hosts need it: no options, no
//! extension headers, no fragments. What else begins like it is none of ours.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The protocol number of UDP.
const UDP: u8 = 17;
/// Bytes of its header.
const HEADER: usize = 8;

/// A datagram, maybe cut by the capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Datagram<'a> {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    /// What was captured of the payload.
    pub(super) payload: &'a [u8],
    /// Its length on the wire.
    pub(super) length: usize,
}

/// `None` where it is no datagram of UDP, or not a whole one.
pub(super) fn parse(packet: &[u8]) -> Option<Datagram<'_>> {
    let (source, destination, length, rest) = match packet.first()? >> 4 {
        4 => v4(packet)?,
        6 => v6(packet)?,
        _ => return None,
    };
    let (&[s0, s1, d0, d1, size_high, size_low, _, _], payload) = rest.split_first_chunk::<HEADER>()?;
    let size = usize::from(u16::from_be_bytes([size_high, size_low]));
    if size > length {
        return None;
    }
    let length = size.checked_sub(HEADER)?;
    Some(Datagram {
        source: SocketAddr::new(source, u16::from_be_bytes([s0, s1])),
        destination: SocketAddr::new(destination, u16::from_be_bytes([d0, d1])),
        payload: payload.get(..length).unwrap_or(payload),
        length,
    })
}

/// Addresses, the length of what follows the header, and as much of it as was captured.
type Inside<'a> = (IpAddr, IpAddr, usize, &'a [u8]);

fn v4(packet: &[u8]) -> Option<Inside<'_>> {
    let (fixed, rest) = packet.split_first_chunk::<20>()?;
    let &[
        first,
        _,
        size_high,
        size_low,
        _,
        _,
        offset_high,
        offset_low,
        _,
        protocol,
        _,
        _,
        ref addresses @ ..,
    ] = fixed;
    let &[s0, s1, s2, s3, d0, d1, d2, d3] = addresses;
    // The more-fragments bit and the offset; above them is the bit against fragmentation.
    let is_fragment = u16::from_be_bytes([offset_high, offset_low]) << 2 != 0;
    if first != 0x45 || protocol != UDP || is_fragment {
        return None;
    }
    let length = usize::from(u16::from_be_bytes([size_high, size_low])).checked_sub(fixed.len())?;
    let (source, destination) = (Ipv4Addr::new(s0, s1, s2, s3), Ipv4Addr::new(d0, d1, d2, d3));
    Some((source.into(), destination.into(), length, rest))
}

fn v6(packet: &[u8]) -> Option<Inside<'_>> {
    let (&[_, _, _, _, size_high, size_low, next, _], rest) = packet.split_first_chunk::<8>()?;
    let (source, rest) = rest.split_first_chunk::<16>()?;
    let (destination, rest) = rest.split_first_chunk::<16>()?;
    let length = usize::from(u16::from_be_bytes([size_high, size_low]));
    let (source, destination) = (Ipv6Addr::from(*source), Ipv6Addr::from(*destination));
    (next == UDP).then_some((source.into(), destination.into(), length, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tests::hex;

    const V4: &str = "45000020 00010000 40110000 c0a8380b c0a8380c a2a9a2a9 000c0000 01020304";
    const V6: &str = "60000000 000c1140 fd560000000000000000000000000001 fd560000000000000000000000000002
        a2a90019 000c0000 01020304";

    #[test]
    fn a_datagram_of_either_family_is_read() {
        let bytes = hex(V4);
        let datagram = parse(&bytes).unwrap();
        assert_eq!(datagram.source, "192.168.56.11:41641".parse().unwrap());
        assert_eq!(datagram.destination, "192.168.56.12:41641".parse().unwrap());
        assert_eq!((datagram.payload, datagram.length), (&[1, 2, 3, 4][..], 4));
        let bytes = hex(V6);
        let datagram = parse(&bytes).unwrap();
        assert_eq!(datagram.source, "[fd56::1]:41641".parse().unwrap());
        assert_eq!(datagram.destination, "[fd56::2]:25".parse().unwrap());
        assert_eq!((datagram.payload, datagram.length), (&[1, 2, 3, 4][..], 4));
    }

    #[test]
    fn a_cut_one_keeps_its_length_and_padding_is_left_out() {
        let bytes = hex(V4);
        assert_eq!(parse(&bytes[..30]).map(|cut| (cut.payload.len(), cut.length)), Some((2, 4)));
        let padded = [bytes, vec![0; 20]].concat();
        assert_eq!(parse(&padded).map(|whole| (whole.payload.len(), whole.length)), Some((4, 4)));
    }

    #[test]
    fn what_is_no_whole_datagram_is_none_of_ours() {
        for (what, text) in [
            ("options", V4.replacen("45", "46", 1)),
            ("another protocol", V4.replacen("4011", "4006", 1)),
            ("the first fragment", V4.replacen("00010000", "00012000", 1)),
            ("a later fragment", V4.replacen("00010000", "00010001", 1)),
            ("longer than its packet", V4.replacen("000c0000", "000d0000", 1)),
            ("shorter than its header", V4.replacen("000c0000", "00070000", 1)),
            ("shorter than the header of IP", V4.replacen("45000020", "45000013", 1)),
            ("another version", V4.replacen("45", "55", 1)),
            ("an extension header", V6.replacen("000c1140", "000c0040", 1)),
            ("longer than its packet over IPv6", V6.replacen("000c1140", "000b1140", 1)),
        ] {
            assert_eq!(parse(&hex(&text)), None, "{what}");
        }
        for end in 0..28 {
            assert_eq!(parse(&hex(V4)[..end]), None, "{end} bytes");
        }
    }

    #[test]
    fn the_bit_against_fragmentation_makes_no_fragment() {
        assert!(parse(&hex(&V4.replacen("00010000", "00014000", 1))).is_some());
    }
}
