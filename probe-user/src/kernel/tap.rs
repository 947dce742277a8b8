//! The tap: attaches to uplinks that come and go, and hands out the frames that its programs copied.

use std::collections::BTreeMap;

use aya::Ebpf;
use probe_common::tap::{TAGGED, TRANSMITTED, TapRecord};
use zerocopy::FromBytes as _;

use super::device::{self, Attached, Pair};
use super::error::KernelError;
use super::filters::Devices;

pub(super) const PROGRAMS: Pair = Pair { receive: "leadline_taprx", transmit: "leadline_taptx" };

/// A device to tap.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uplink {
    /// Interface index.
    pub index: u32,
    /// Interface name.
    pub name: String,
}

/// A frame that passed an uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub time: u64,
    /// Interface index of the uplink.
    pub device: u32,
    /// Sent by this node, else received.
    pub transmitted: bool,
    /// VLAN tag that the device had taken off, without priority bits.
    pub vlan: Option<u16>,
    /// Bytes of the whole frame.
    pub length: usize,
    /// Its first bytes, from the Ethernet header on.
    pub bytes: Vec<u8>,
}

/// Decodes one record; `None` for one that is none of ours, which the caller counts.
pub(super) fn decode(bytes: &[u8]) -> Option<Frame> {
    let (record, _) = TapRecord::read_from_prefix(bytes).ok()?;
    let vlan = u16::try_from(record.vlan & 0x0fff).ok();
    Some(Frame {
        time: record.time,
        device: record.device,
        transmitted: record.flags & TRANSMITTED != 0,
        vlan: vlan.filter(|_| record.flags & TAGGED != 0),
        length: record.length as usize,
        bytes: record.frame.get(..record.captured as usize)?.to_vec(),
    })
}

/// The tapped devices by interface index.
#[derive(Default)]
pub(super) struct Taps(BTreeMap<u32, Attached>);

impl Taps {
    /// Makes exactly the `wanted` devices tapped; what fails is named and left out.
    pub(super) fn replace(&mut self, ebpf: &mut Ebpf, wanted: &[Uplink]) -> Vec<KernelError> {
        self.0.retain(|index, device| {
            wanted.iter().any(|uplink| uplink.index == *index && uplink.name == device.name)
        });
        let mut errors = Vec::new();
        for uplink in wanted {
            if self.0.contains_key(&uplink.index) {
                continue;
            }
            match device::attach(ebpf, PROGRAMS, &uplink.name, uplink.index) {
                Ok(attached) => {
                    self.0.insert(uplink.index, attached);
                }
                Err(error) => errors.push(error),
            }
        }
        errors
    }

    /// Forgets those of the `changed` devices whose programs somebody has taken off, and names them.
    pub(super) fn forget_robbed(&mut self, changed: &Devices) -> Vec<String> {
        let is_robbed =
            |index: &u32, device: &mut Attached| changed.contain(*index) && device.is_robbed(*index);
        self.0.extract_if(.., is_robbed).map(|(_, device)| device.name.clone()).collect()
    }

    /// The devices that are tapped now.
    pub(super) fn uplinks(&self) -> Vec<Uplink> {
        self.0.iter().map(|(index, device)| Uplink { index: *index, name: device.name.clone() }).collect()
    }
}

#[cfg(test)]
mod tests {
    use probe_common::tap::FRAME_MAX;
    use zerocopy::IntoBytes as _;

    use super::*;

    fn record(flags: u32, captured: u32) -> TapRecord {
        let frame = [7; FRAME_MAX];
        TapRecord { time: 9, device: 3, flags, vlan: 0xe064, length: 1_000, captured, padding: 0, frame }
    }

    #[test]
    fn a_frame_keeps_its_time_direction_and_tag() {
        let frame = decode(record(TRANSMITTED | TAGGED, 60).as_bytes()).unwrap();
        assert_eq!((frame.time, frame.device, frame.transmitted), (9, 3, true));
        assert_eq!((frame.vlan, frame.length, frame.bytes.len()), (Some(100), 1_000, 60));
    }

    #[test]
    fn a_tag_that_is_not_there_is_no_tag() {
        let frame = decode(record(0, 60).as_bytes()).unwrap();
        assert_eq!((frame.vlan, frame.transmitted), (None, false));
    }

    #[test]
    fn more_bytes_than_a_record_has_are_refused() {
        assert_eq!(decode(record(0, 401).as_bytes()), None);
        assert_eq!(decode(&record(0, 60).as_bytes()[..100]), None);
    }
}
