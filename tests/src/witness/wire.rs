//! What a device carried at layer 3, as an exact witness: segmentation off, neighbours pinned.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::place::Place;
use crate::process;
use crate::scrape::Traffic;
use crate::witness::{Device, device, nstat};

const LIMIT: Duration = Duration::from_secs(10);

/// Bytes of an Ethernet header.
const ETHERNET: u64 = 14;

/// Unicast packets and layer 3 bytes of a device since it exists. IPv6 multicast, which is neighbour and listener
/// discovery here, is left out by the kernel's own count of it.
pub type Wire = Traffic;

/// Reads the device and the multicast counters of a place that has no other device with IPv6 but `lo`. A report that
/// comes between the two readings would be in one of them only: they are read until none does.
pub fn wire(place: &impl Place, name: &str) -> Result<Wire> {
    process::wait_for("a moment without multicast", LIMIT, || {
        let read = || -> Result<Option<Wire>> {
            let before = multicast(place)?;
            let device = device(place, name)?;
            Ok((multicast(place)? == before).then(|| unicast(&device, &before)))
        };
        read().transpose()
    })?
}

fn unicast(device: &Device, multicast: &Wire) -> Wire {
    let layer3 = |bytes: u64, packets: u64| bytes - ETHERNET * packets;
    Wire {
        receive_packets: device.receive_packets - multicast.receive_packets,
        receive_bytes: layer3(device.receive_bytes, device.receive_packets) - multicast.receive_bytes,
        transmit_packets: device.transmit_packets - multicast.transmit_packets,
        transmit_bytes: layer3(device.transmit_bytes, device.transmit_packets) - multicast.transmit_bytes,
    }
}

/// What the kernel counts of IPv6 multicast.
fn multicast(place: &impl Place) -> Result<Wire> {
    let counters = nstat(place)?;
    let count = |counter: &str| {
        counters.get(counter).copied().with_context(|| format!("no counter {counter} in {}", place.name()))
    };
    Ok(Wire {
        receive_packets: count("Ip6InMcastPkts")?,
        receive_bytes: count("Ip6InMcastOctets")?,
        transmit_packets: count("Ip6OutMcastPkts")?,
        transmit_bytes: count("Ip6OutMcastOctets")?,
    })
}
