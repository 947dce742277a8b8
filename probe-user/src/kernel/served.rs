//! Which addresses are watched by the tap's programs, and the records of who serves them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use aya::maps::{Array, HashMap, MapData};
use probe_common::served::{FILTER_WORDS, ServedRecord, Server, TRANSMITTED, WATCHED_MAX, Watched};
use zerocopy::FromBytes as _;

use super::error::KernelError;
use super::wire::Wire;

pub(super) const SERVERS: &str = "leadline_server";
/// The section of the programs' variables; what is watched is the only one.
pub(super) const WATCHED: &str = ".bss";

/// A packet of a watched address that another station sent than the one before, or after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// `CLOCK_MONOTONIC` nanoseconds when it passed the tap.
    pub time: u64,
    /// The address.
    pub address: IpAddr,
    /// The station that sent it.
    pub mac: [u8; 6],
    /// Sent by this node, else received.
    pub transmitted: bool,
    /// Interface index of the uplink.
    pub device: u32,
    /// The same of the packet of the address before it; `None` for the first one.
    pub previous: Option<u64>,
}

/// Decodes one record; `None` for one that is none of ours, which the caller counts.
pub(super) fn decode(bytes: &[u8]) -> Option<Served> {
    let (record, _) = ServedRecord::read_from_prefix(bytes).ok()?;
    Some(Served {
        time: record.time,
        address: Ipv6Addr::from(record.address).to_canonical(),
        mac: record.mac,
        transmitted: record.flags & TRANSMITTED != 0,
        device: record.device,
        previous: (record.previous != 0).then_some(record.previous),
    })
}

/// The watched addresses.
pub(super) struct Servers {
    map: HashMap<MapData, [u8; 16], Wire<Server>>,
    words: Array<MapData, Wire<Watched>>,
    watched: BTreeSet<IpAddr>,
}

impl Servers {
    pub(super) fn new(
        map: HashMap<MapData, [u8; 16], Wire<Server>>,
        words: Array<MapData, Wire<Watched>>,
    ) -> Self {
        Self { map, words, watched: BTreeSet::new() }
    }

    /// Makes these addresses watched and no others, as many as there is room for.
    pub(super) fn replace(&mut self, wanted: &BTreeSet<IpAddr>) -> Result<(), KernelError> {
        let wanted: BTreeSet<IpAddr> = wanted.iter().take(WATCHED_MAX as usize).copied().collect();
        let refused = |source| KernelError::Map { map: SERVERS, source };
        let gone: Vec<IpAddr> = self.watched.difference(&wanted).copied().collect();
        for address in gone {
            self.map.remove(&key(address)).map_err(refused)?;
            self.watched.remove(&address);
        }
        let new: Vec<IpAddr> = wanted.difference(&self.watched).copied().collect();
        for address in new {
            self.map.insert(key(address), Wire(Server::default()), 0).map_err(refused)?;
            self.watched.insert(address);
        }
        // After the addresses: a bit without its address costs a look-up for nothing, the reverse misses packets.
        // The programs' own words are taken for those of a moment ago at worst.
        let words = Wire(Watched { filter: filter(&self.watched), ..Watched::default() });
        self.words.set(0, words, 0).map_err(|source| KernelError::Map { map: WATCHED, source })
    }
}

fn key(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// A bit for each last byte.
fn filter(addresses: &BTreeSet<IpAddr>) -> [u64; FILTER_WORDS] {
    let mut words = [0; FILTER_WORDS];
    for address in addresses {
        let [.., last] = key(*address);
        if let Some(word) = words.get_mut(usize::from(last >> 6)) {
            *word |= 1 << (last & 63);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes as _;

    use super::*;

    fn record(previous: u64) -> ServedRecord {
        ServedRecord {
            time: 9,
            previous,
            address: key("192.168.56.50".parse().unwrap()),
            mac: [2, 0, 0, 0, 0, 1],
            padding: 0,
            device: 3,
            flags: TRANSMITTED,
        }
    }

    #[test]
    fn a_record_keeps_both_packets() {
        let served = decode(record(5).as_bytes()).unwrap();
        assert_eq!((served.time, served.device, served.transmitted), (9, 3, true));
        assert_eq!(served.address.to_string(), "192.168.56.50");
        assert_eq!(served.previous, Some(5));
    }

    #[test]
    fn the_first_packet_has_none_before_it() {
        assert_eq!(decode(record(0).as_bytes()).unwrap().previous, None);
        assert_eq!(decode(&record(0).as_bytes()[..47]), None);
    }

    #[test]
    fn the_filter_has_a_bit_for_each_last_byte() {
        let addresses = ["10.0.0.0", "10.9.9.63", "10.0.0.64", "fd00::ff"].map(|text| text.parse().unwrap());
        assert_eq!(filter(&addresses.into()), [1 | 1 << 63, 1, 0, 1 << 63]);
    }
}
