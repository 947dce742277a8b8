//! The counters of the programs as other threads see them: memory, no system call, no capability.

use probe_common::control::Control;
use probe_common::overlay::{DEVICES_MAX, NODES_MAX};
use probe_common::tcp::TcpCell;
use probe_common::traffic::{Cell, SLOTS_RESERVED, SlotKey};
use zerocopy::FromZeros as _;

use super::mapped::Mapped;
use super::path_pod::PodPaths;
use super::tcp_port::{PortCount, Ports};
use crate::ledger::SlotSource;

/// Sizes of the counter arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Slots per shard.
    pub slots: u32,
    /// Shards of the traffic cells.
    pub shards: u32,
    /// Shards of the TCP cells.
    pub tcp_shards: u32,
}

/// All mapped counters.
pub struct Slots {
    pub(super) shape: Shape,
    pub(super) control: Mapped<Control>,
    pub(super) keys: Mapped<SlotKey>,
    pub(super) cells: Mapped<Cell>,
    pub(super) tcp_cells: Mapped<TcpCell>,
    pub(super) overlay_cells: Mapped<Cell>,
    pub(super) ports: Ports,
    pub(super) pod_paths: PodPaths,
}

impl Slots {
    /// Generation and losses as of now.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.read(0).unwrap_or_else(Control::new_zeroed)
    }

    /// Makes every socket look its slot up again before its next packet is counted.
    pub fn raise_generation(&self) {
        self.control.raise(0, 0);
    }

    /// Bytes of kernel memory in these arrays.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.control.bytes()
            + self.keys.bytes()
            + self.cells.bytes()
            + self.tcp_cells.bytes()
            + self.overlay_cells.bytes()
            + self.ports.bytes()
            + self.pod_paths.bytes()
    }

    /// What watched ports have counted, by port and peer; `now` is `CLOCK_MONOTONIC` nanoseconds.
    #[must_use]
    pub fn ports(&self, now: u64) -> Vec<PortCount> {
        self.ports.read(now)
    }

    /// Traffic of a peer node on the overlay device in `row`.
    #[must_use]
    pub fn overlay(&self, row: u32, node: u32) -> Cell {
        let mut sum = Cell::default();
        for shard in 0..self.shape.shards {
            let index = (shard * DEVICES_MAX + row) * NODES_MAX + node;
            self.overlay_cells.add_to(index as usize, &mut sum);
        }
        sum
    }
}

impl SlotSource for Slots {
    fn slots(&self) -> u32 {
        self.shape.slots
    }

    fn key(&self, slot: u32) -> Option<SlotKey> {
        if slot < SLOTS_RESERVED {
            return None;
        }
        let key = self.keys.read(slot as usize)?;
        // Both words, or the program is just writing them.
        (key.cgroup != 0 && key.protocol != 0).then_some(key)
    }

    fn cell(&self, slot: u32) -> Cell {
        let mut sum = Cell::default();
        for shard in 0..self.shape.shards {
            self.cells.add_to((shard * self.shape.slots + slot) as usize, &mut sum);
        }
        sum
    }

    fn tcp(&self, slot: u32) -> TcpCell {
        let mut sum = TcpCell::default();
        for shard in 0..self.shape.tcp_shards {
            self.tcp_cells.add_to((shard * self.shape.slots + slot) as usize, &mut sum);
        }
        sum
    }

    fn clear(&self, slot: u32) {
        self.keys.write(slot as usize, &SlotKey::new(0, 0, 0));
        for shard in 0..self.shape.shards {
            self.cells.write((shard * self.shape.slots + slot) as usize, &Cell::default());
        }
        for shard in 0..self.shape.tcp_shards {
            self.tcp_cells.write((shard * self.shape.slots + slot) as usize, &TcpCell::default());
        }
    }
}
