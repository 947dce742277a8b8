//! What holds for every message of a router.

use super::{MUCH, Source, flip};
use crate::wire::encode::encode_too_big;
use crate::wire::fault::Reason;
use crate::wire::too_big::{TooBig, parse};

/// What the tap captures (`probe_common::too_big::PACKET_MAX`).
const CAPTURED: usize = 96;
/// Bytes of the header of ICMP and of the IP header that is quoted.
const QUOTED: [usize; 2] = [28, 48];

/// Any bytes taken for a router's message: nothing panics, and what is accepted has one family and an MTU that a path can
/// have. A message made from them is read as what it was made from; not at all when its end is missing, or with a flipped
/// bit where all of it was captured.
///
/// # Panics
/// When that is not so.
pub fn too_big(data: &[u8]) {
    for length in [0, data.len(), MUCH] {
        if let Ok(Some(told)) = parse(data, length) {
            accepted(&told);
        }
    }
    let mut source = Source(data);
    let is_ipv4 = source.flag();
    let mtu =
        if is_ipv4 { u16::from_be_bytes(source.bytes()).into() } else { u32::from_be_bytes(source.bytes()) };
    let told = TooBig {
        router: source.ip(is_ipv4, false),
        mtu: Some(mtu).filter(|mtu| *mtu >= if is_ipv4 { 68 } else { 1_280 }),
        source: source.ip(is_ipv4, false),
        destination: source.ip(is_ipv4, source.0.len() % 2 == 1),
    };
    let (bit, keep) = (source.number(), source.number());
    let packet = encode_too_big(&told, source.0);
    assert_eq!(parse(&packet, packet.len()), Ok(Some(told)));
    let padded = [&packet[..], &[0x5a; 18]].concat();
    assert_eq!(parse(&padded, padded.len()), Ok(Some(told)));
    let captured = packet.get(..CAPTURED).unwrap_or(&packet);
    assert_eq!(parse(captured, packet.len()), Ok(Some(told)));
    let kept = packet.get(..keep % packet.len()).unwrap_or_default();
    assert_eq!(parse(kept, kept.len()), Err(Reason::Truncated));
    if let Ok(Some(seen)) = parse(kept, packet.len()) {
        assert_eq!(seen, told);
    }
    let message = source.0.len() + QUOTED[usize::from(!is_ipv4)];
    let flipped = flip(&packet, message, bit);
    assert!(!matches!(parse(&flipped, flipped.len()), Ok(Some(_))), "accepted with a flipped bit");
}

fn accepted(told: &TooBig) {
    let is_ipv4 = told.router.is_ipv4();
    assert!([told.source, told.destination].iter().all(|end| end.is_ipv4() == is_ipv4));
    assert!(told.mtu.is_none_or(|mtu| mtu >= if is_ipv4 { 68 } else { 1_280 }));
}
