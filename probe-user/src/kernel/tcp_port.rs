//! The counters of watched ports as other threads see them: memory, no system call.

use std::net::{IpAddr, Ipv6Addr};

use aya::Ebpf;
use aya::maps::{MapData, Queue};
use probe_common::least::least;
use probe_common::tcp::TcpCell;
use probe_common::tcp_port::{PORT_SLOTS, PORTS_MAX, PortCell, PortKey};

use super::error::KernelError;
use super::load::{map_error, mapped, take};
use super::mapped::Mapped;
use crate::ledger::add_tcp;

/// Map of free slots.
const FREE: &str = "leadline_pfree";

/// What was counted of the connections of a watched port with one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortCount {
    /// The watched port.
    pub port: u16,
    /// Address of the peer.
    pub peer: IpAddr,
    /// As of a pod; `ack` and `connect` are empty.
    pub tcp: TcpCell,
    /// Segments sent, those sent again included.
    pub transmit_segments: u64,
    /// The least round trip of the last 10 to 20 seconds; `None`: nothing was sampled.
    pub least_microseconds: Option<u32>,
}

/// The watched ports as the programs are told of them; ports beyond the most are left out, which the configuration refuses.
pub(super) fn constant(ports: &[u16]) -> [u16; PORTS_MAX] {
    let mut constant = [0; PORTS_MAX];
    for (place, port) in constant.iter_mut().zip(ports) {
        *place = *port;
    }
    constant
}

/// Slots that these ports need.
pub(super) fn slots(ports: &[u16]) -> u32 {
    if ports.is_empty() { 1 } else { PORT_SLOTS }
}

/// All counters of watched ports.
pub(super) struct Ports {
    slots: u32,
    shards: u32,
    keys: Mapped<PortKey>,
    cells: Mapped<PortCell>,
    /// Programs that are loaded later name the map by this descriptor.
    _free: Queue<MapData, u32>,
}

impl Ports {
    /// Maps the counters and makes every slot free.
    pub(super) fn new(ebpf: &mut Ebpf, slots: u32, shards: u32) -> Result<Self, KernelError> {
        let mut free = Queue::try_from(take(ebpf, FREE)?).map_err(map_error(FREE))?;
        for slot in 0..slots {
            free.push(slot, 0).map_err(map_error(FREE))?;
        }
        let keys = mapped(ebpf, "leadline_pkeys", slots)?;
        let cells = mapped(ebpf, "leadline_pcells", slots * shards)?;
        Ok(Self { slots, shards, keys, cells, _free: free })
    }

    /// Every pair of port and peer that has counted something; `now` is `CLOCK_MONOTONIC` nanoseconds.
    pub(super) fn read(&self, now: u64) -> Vec<PortCount> {
        (0..self.slots).filter_map(|slot| self.count(slot, now)).collect()
    }

    fn count(&self, slot: u32, now: u64) -> Option<PortCount> {
        let shards = (0..self.shards).map(|shard| self.cells.read((shard * self.slots + slot) as usize));
        let cells: Vec<PortCell> = shards.collect::<Option<_>>()?;
        let least_microseconds = cells.iter().filter_map(|cell| least(cell.least, now)).min();
        let mut tcp = TcpCell::default();
        for cell in &cells {
            add_tcp(&mut tcp, &cell.tcp);
        }
        let transmit_segments = cells.iter().map(|cell| cell.transmit_segments).sum();
        // The program writes the key before it counts: whoever sees a count sees the whole key.
        if tcp == TcpCell::default() && transmit_segments == 0 {
            return None;
        }
        let key = self.keys.read(slot as usize)?;
        let peer = IpAddr::V6(Ipv6Addr::from(key.address)).to_canonical();
        Some(PortCount { port: key.port, peer, tcp, transmit_segments, least_microseconds })
    }

    /// Bytes of kernel memory in these arrays.
    pub(super) fn bytes(&self) -> u64 {
        self.keys.bytes() + self.cells.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_stand_at_the_beginning_of_the_constant() {
        assert_eq!(constant(&[2379, 2380]), [2379, 2380, 0, 0, 0, 0, 0, 0]);
        assert_eq!((slots(&[]), slots(&[2379])), (1, PORT_SLOTS));
    }
}
