//! Packets from a TUN device: their writer gives a segment size and leaves the number of segments to the kernel.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result, ensure};
use lab::scrape::Traffic;
use lab::{Backend, Place as _};

use crate::bench::{Bench, agree};

const DEVICE: &str = "tun7";
const OWN: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const PORT: u16 = 7700;
const PEER_PORT: u16 = 40_000;
/// Bytes of the IP and TCP headers, without options.
const HEADERS: u16 = 40;
/// `struct virtio_net_hdr`.
const VNET: usize = 10;

const SYN: u8 = 2;
const ACK: u8 = 16;

/// Opens the device in the network namespace of the calling thread.
fn open() -> Result<File> {
    let file = File::options().read(true).write(true).open("/dev/net/tun").context("open /dev/net/tun")?;
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: i16::try_from(libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR)?,
        },
    };
    for (to, from) in request.ifr_name.iter_mut().zip(DEVICE.bytes()) {
        *to = libc::c_char::try_from(from)?;
    }
    #[expect(unsafe_code, reason = "no safe interface makes a TUN device")]
    // SAFETY: TUNSETIFF reads and writes one ifreq, which `request` is.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    ensure!(result == 0, "make {DEVICE}: {}", std::io::Error::last_os_error());
    Ok(file)
}

/// The sum of RFC 1071.
fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    u16::try_from((folded & 0xffff) + (folded >> 16)).map_or(0, |sum| !sum)
}

/// A segment of the peer as the TUN device takes it. The TCP checksum is left to be done, as a guest leaves it.
fn segment(flags: u8, sequence: u32, acknowledged: u32, payload: u16, gso_size: u16) -> Vec<u8> {
    let mut packet = vec![1, u8::from(gso_size != 0)];
    let hints = [HEADERS, gso_size, 20, 16];
    packet.extend(hints.iter().flat_map(|hint| hint.to_le_bytes()));
    let mut ip = vec![0x45, 0];
    ip.extend((HEADERS + payload).to_be_bytes());
    ip.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
    ip.extend(PEER.octets().iter().chain(&OWN.octets()));
    let sum = checksum(&ip).to_be_bytes();
    ip[10..12].copy_from_slice(&sum);
    packet.extend(ip);
    packet.extend(PEER_PORT.to_be_bytes().iter().chain(&PORT.to_be_bytes()));
    packet.extend(sequence.to_be_bytes().iter().chain(&acknowledged.to_be_bytes()));
    packet.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    packet.resize(packet.len() + usize::from(payload), 0x5a);
    packet
}

/// The sequence number of the SYN-ACK, which may come after other packets of the device.
fn answered(tun: &mut File) -> Result<u32> {
    let mut packet = [0; 2048];
    loop {
        let length = tun.read(&mut packet).context("read from the device")?;
        let ip = packet.get(VNET..length).context("a packet without a header")?;
        if let [0x45, ..] = ip
            && let Some([a, b, c, d]) = ip.get(24..28)
            && ip.get(33) == Some(&(SYN | ACK))
        {
            return Ok(u32::from_be_bytes([*a, *b, *c, *d]));
        }
    }
}

#[test]
fn segments_that_nobody_counted_are_counted() -> Result<()> {
    const PAYLOAD: u16 = 12_000;
    const SIZE: u16 = 1_240;
    let bench = Bench::start(1, Backend::Vxlan, false, &[])?;
    let end = bench.end(1, "gateway")?;
    let mut tun = end.pod.net(open)??;
    end.pod.ip(&format!("addr add {OWN}/24 dev {DEVICE}\nlink set {DEVICE} up\n"))?;
    let listener = end.sockets.listen(SocketAddr::new(IpAddr::V4(OWN), PORT))?;
    tun.write_all(&segment(SYN, 100, 0, 0, 0)).context("write a SYN")?;
    let acknowledged = answered(&mut tun)?.wrapping_add(1);
    tun.write_all(&segment(ACK, 101, acknowledged, 0, 0)).context("write an ACK")?;
    let (mut stream, _) = listener.accept().context("accept")?;
    tun.write_all(&segment(ACK, 101, acknowledged, PAYLOAD, SIZE)).context("write a large packet")?;
    stream.read_exact(&mut vec![0; usize::from(PAYLOAD)]).context("receive")?;
    // SYN, ACK, and ten segments of which each has headers on the wire.
    let expected =
        Traffic { receive_packets: 2 + 10, receive_bytes: 2 * 40 + 12_000 + 10 * 40, ..Traffic::default() };
    let counted = || {
        let seen = bench.of_pod(&end.pod, "external")?;
        Ok(Traffic { transmit_packets: 0, transmit_bytes: 0, ..seen })
    };
    let seen = agree("segments of a TUN writer", || Ok(expected), counted)?;
    println!("{seen:?}");
    drop((tun, stream, listener, end));
    bench.shutdown()
}
