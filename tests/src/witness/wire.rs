//! What a device carried at layer 3, as an exact witness: segmentation off, neighbours pinned.

use anyhow::{Context as _, Result};

use crate::place::Place;
use crate::scrape::Traffic;
use crate::witness::{device, nstat};

/// Bytes of an Ethernet header.
const ETHERNET: u64 = 14;

/// Unicast packets and layer 3 bytes of a device since it exists. IPv6 multicast, which is neighbour and listener
/// discovery here, is left out by the kernel's own count of it.
pub type Wire = Traffic;

/// Reads the device and the multicast counters of a place that has no other device with IPv6 but `lo`.
pub fn wire(place: &impl Place, name: &str) -> Result<Wire> {
    let (device, counters) = (device(place, name)?, nstat(place)?);
    let multicast = |counter: &str| {
        counters.get(counter).copied().with_context(|| format!("no counter {counter} in {}", place.name()))
    };
    let layer3 = |bytes: u64, packets: u64| bytes - ETHERNET * packets;
    let receive = layer3(device.receive_bytes, device.receive_packets);
    let transmit = layer3(device.transmit_bytes, device.transmit_packets);
    Ok(Wire {
        receive_packets: device.receive_packets - multicast("Ip6InMcastPkts")?,
        receive_bytes: receive - multicast("Ip6InMcastOctets")?,
        transmit_packets: device.transmit_packets - multicast("Ip6OutMcastPkts")?,
        transmit_bytes: transmit - multicast("Ip6OutMcastOctets")?,
    })
}
