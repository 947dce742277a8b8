//! Datagrams there and back, one after the other: as many packets each way as were asked for.

use std::net::{IpAddr, UdpSocket};

use anyhow::{Context as _, Result, ensure};

use crate::place::Place;
use crate::process;

/// Sends so many datagrams of so many bytes from an address of one place to one of another, and each back again.
pub fn datagrams(
    (from, own): (&impl Place, IpAddr),
    (to, other): (&impl Place, IpAddr),
    count: u64,
    size: usize,
) -> Result<()> {
    let (one, other) = (open(from, own)?, open(to, other)?);
    one.connect(other.local_addr()?)?;
    other.connect(one.local_addr()?)?;
    let (datagram, mut buffer) = (vec![0; size], vec![0; size + 1]);
    for _ in 0..count {
        for (sender, receiver) in [(&one, &other), (&other, &one)] {
            sender.send(&datagram)?;
            let length = receiver.recv(&mut buffer).context("a datagram is lost")?;
            ensure!(length == size, "{length} bytes instead of {size}");
        }
    }
    Ok(())
}

fn open(place: &impl Place, address: IpAddr) -> Result<UdpSocket> {
    let socket = place.net(|| UdpSocket::bind((address, 0)))??;
    socket.set_read_timeout(Some(process::SHORT))?;
    Ok(socket)
}
