//! Records of routers' messages that a packet was too big.

use probe_common::too_big::TooBigRecord;
use zerocopy::FromBytes as _;

/// Such a message, as it came in by an uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooBigPacket {
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub time: u64,
    /// Interface index of the uplink.
    pub device: u32,
    /// Bytes of the whole packet, with the padding of its frame.
    pub length: usize,
    /// Its first bytes, from the IP header on.
    pub bytes: Vec<u8>,
}

/// Decodes one record; `None` for one that is none of ours, which the caller counts.
pub(super) fn decode(bytes: &[u8]) -> Option<TooBigPacket> {
    let (record, _) = TooBigRecord::read_from_prefix(bytes).ok()?;
    Some(TooBigPacket {
        time: record.time,
        device: record.device,
        length: usize::try_from(record.length).ok()?,
        bytes: record.packet.get(..usize::try_from(record.captured).ok()?)?.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use probe_common::too_big::PACKET_MAX;
    use zerocopy::IntoBytes as _;

    use super::*;

    fn record(captured: u32) -> TooBigRecord {
        TooBigRecord { time: 9, device: 3, length: 576, captured, padding: 0, packet: [7; PACKET_MAX] }
    }

    #[test]
    fn a_message_keeps_its_time_device_and_length() {
        let packet = TooBigPacket { time: 9, device: 3, length: 576, bytes: vec![7; 56] };
        assert_eq!(decode(record(56).as_bytes()), Some(packet));
    }

    #[test]
    fn more_bytes_than_a_record_has_are_refused() {
        assert!(decode(record(96).as_bytes()).is_some());
        assert_eq!(decode(record(97).as_bytes()), None);
        assert_eq!(decode(&record(56).as_bytes()[..100]), None);
    }
}
