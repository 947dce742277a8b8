//! Witnesses: counters and tools that are independent of the agent, and switches that make them exact.

mod counter;
mod iperf3;
mod precision;
pub mod segment;
pub mod tcpdump;
mod wire;

use anyhow::{Context as _, Result};

use crate::place::Place;

pub use counter::{Device, Nstat, device, nstat};
pub use iperf3::{Amount, Iperf, IperfResult, Protocol, iperf3};
pub use precision::{ensure_precise, measured};
pub use wire::{Wire, wire};

/// Switches segmentation and receive offloads of a device; without them every frame crosses it singly.
pub fn set_segmentation(place: &impl Place, device: &str, on: bool) -> Result<()> {
    let state = if on { "on" } else { "off" };
    let features =
        ["tso", "gso", "gro", "tx-udp-segmentation"].into_iter().flat_map(|feature| [feature, state]);
    let arguments: Vec<&str> = ["ethtool", "-K", device].into_iter().chain(features).collect();
    place.run(&arguments).with_context(|| format!("switch segmentation of {device} {state}")).map(drop)
}

/// Whether a TCP socket listens on the port, on any address of the place.
pub fn tcp_listens(place: &impl Place, port: u16) -> Result<bool> {
    Ok(listens(&place.proc_net("tcp")?, port) || listens(&place.proc_net("tcp6")?, port))
}

fn listens(table: &str, port: u16) -> bool {
    let port = format!(":{port:04X}");
    table.lines().skip(1).any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(1).is_some_and(|local| local.ends_with(&port)) && fields.get(3) == Some(&"0A")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue\n\
        0: 0100007F:1451 00000000:0000 0A 00000000:00000000\n   1: 0100007F:1452 0100007F:1451 01 0:0\n";

    #[test]
    fn a_listener_is_found() {
        assert!(listens(TABLE, 0x1451));
    }

    #[test]
    fn a_connection_is_no_listener() {
        assert!(!listens(TABLE, 0x1452));
    }

    #[test]
    fn a_malformed_table_has_no_listener() {
        assert!(!listens("header\n0:\n", 0x1451));
    }
}
