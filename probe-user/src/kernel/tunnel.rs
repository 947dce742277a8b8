//! Records of packets by which tunnels are kept up.

use probe_common::tunnel::{PACKET_MAX, TRANSMITTED, TunnelRecord};
use zerocopy::FromBytes as _;

/// Such a packet, as it passed an uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelPacket {
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub time: u64,
    /// Interface index of the uplink.
    pub device: u32,
    /// Sent by this node, else received.
    pub transmitted: bool,
    /// Its first bytes, from the IP header on.
    pub bytes: [u8; PACKET_MAX],
}

/// Decodes one record; `None` for one that is none of ours, which the caller counts.
pub(super) fn decode(bytes: &[u8]) -> Option<TunnelPacket> {
    let (record, _) = TunnelRecord::read_from_prefix(bytes).ok()?;
    Some(TunnelPacket {
        time: record.time,
        device: record.device,
        transmitted: record.flags & TRANSMITTED != 0,
        bytes: record.packet,
    })
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes as _;

    use super::*;

    #[test]
    fn a_packet_keeps_its_time_and_direction() {
        let record = TunnelRecord { time: 9, device: 3, flags: TRANSMITTED, packet: [7; PACKET_MAX] };
        let bytes = [7; PACKET_MAX];
        let packet = TunnelPacket { time: 9, device: 3, transmitted: true, bytes };
        assert_eq!(decode(record.as_bytes()), Some(packet));
        assert_eq!(decode(&record.as_bytes()[..100]), None);
    }
}
