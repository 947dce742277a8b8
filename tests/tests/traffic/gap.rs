//! What the programs could not read, remember or attribute: each is counted as often as a test brings it about.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::scrape::Traffic;
use lab::sockets::Kind;
use lab::{Backend, Place as _};
use rustix::net::{SendFlags, sendto, sockopt};

use crate::bench::{Bench, End, added, agree};
use crate::owner::{send, sent};

const PORT: u16 = 7400;
const BACKWARDS: &str = "a counter went backwards";
/// `IPPROTO_RAW`: the sender gives the IP header.
const OWN_HEADER: u8 = 255;

/// A counter of what the programs missed.
fn missed(bench: &Bench, what: &str) -> Result<u64> {
    let name = format!("leadline_{what}_total");
    bench.agent(1)?.scrape()?.count(&name, &[]).with_context(|| format!("no {name}"))
}

/// Sends packets as they are, headers included.
fn send_raw(end: &End, to: IpAddr, packet: &[u8], number: u64) -> Result<OwnedFd> {
    let socket = end.sockets.open(Kind::Raw(OWN_HEADER), to.is_ipv6())?;
    let to = SocketAddr::new(to, 0);
    for _ in 0..number {
        sendto(&socket, packet, SendFlags::empty(), &to).with_context(|| format!("send to {to}"))?;
    }
    Ok(socket)
}

/// A packet of IP version 0 with 40 bytes of payload; the kernel fills in what else is missing.
fn versionless(to: IpAddr) -> Result<Vec<u8>> {
    let IpAddr::V4(to) = to else { anyhow::bail!("{to} is no IPv4 address") };
    let mut packet = vec![0; 60];
    packet[0] = 5;
    packet[8] = 64;
    packet[9] = 253;
    packet[16..20].copy_from_slice(&to.octets());
    Ok(packet)
}

/// An IPv6 header that announces hop-by-hop options, and ends.
fn cut_off(from: IpAddr, to: IpAddr) -> Result<Vec<u8>> {
    let (IpAddr::V6(from), IpAddr::V6(to)) = (from, to) else { anyhow::bail!("{from}, {to}: no IPv6") };
    let mut packet = vec![0; 40];
    packet[0] = 6 << 4;
    packet[7] = 64;
    packet[8..24].copy_from_slice(&from.octets());
    packet[24..40].copy_from_slice(&to.octets());
    Ok(packet)
}

#[test]
fn packets_whose_headers_cannot_be_read_are_counted_as_that_and_nowhere_else() -> Result<()> {
    const VERSIONLESS: u64 = 7;
    const CUT_OFF: u64 = 5;
    let bench = Bench::start(1, Backend::Vxlan, true, &[])?;
    let (sender, sink) = (bench.end(1, "sender")?, bench.end(1, "sink")?);
    let before = missed(&bench, "malformed_packets")?;
    let (ipv4, ipv6) = (sink.pod.address(false)?, sink.pod.address(true)?);
    let _ipv4 = send_raw(&sender, ipv4, &versionless(ipv4)?, VERSIONLESS)?;
    let _ipv6 = send_raw(&sender, ipv6, &cut_off(sender.pod.address(true)?, ipv6)?, CUT_OFF)?;
    // The same socket with a header as it should be.
    let mut whole = versionless(ipv4)?;
    whole[0] = 4 << 4 | 5;
    let _whole = send_raw(&sender, ipv4, &whole, 1)?;
    let counted = || {
        let malformed = missed(&bench, "malformed_packets")?.checked_sub(before).context(BACKWARDS)?;
        Ok((malformed, bench.of_pod(&sender.pod, "pod_local")?))
    };
    let one = Traffic { transmit_packets: 1, transmit_bytes: 60, ..Traffic::default() };
    agree("packets that cannot be read", || Ok((VERSIONLESS + CUT_OFF, one)), counted)?;
    let samples = bench.agent(1)?.scrape()?;
    let of_sender = |sample: &lab::scrape::Sample| sample.label("pod") == Some("sender");
    assert_eq!(samples.sum("leadline_pod_transmit_packets_total", of_sender), Some(1));
    drop((sender, sink));
    bench.shutdown()
}

/// The kernel charges the storage to the socket's option memory, and this network namespace has none to give.
#[test]
fn what_cannot_be_remembered_with_the_socket_is_counted_packet_by_packet() -> Result<()> {
    const DATAGRAMS: u64 = 25;
    let bench = Bench::start(1, Backend::Vxlan, false, &[])?;
    let (poor, sink) = (bench.end(1, "poor")?, bench.end(1, "sink")?);
    let to = sink.address(false, PORT)?;
    let _receiver = sink.sockets.udp(to)?;
    let before = missed(&bench, "socket_storage_refused")?;
    poor.pod.run(&["bash", "-c", "echo 64 > /proc/sys/net/core/optmem_max"])?;
    let _socket = send(&poor.sockets, poor.address(false, 0)?, to, DATAGRAMS)?;
    let counted = || {
        let refused = missed(&bench, "socket_storage_refused")?.checked_sub(before).context(BACKWARDS)?;
        Ok((refused, bench.of_pod(&poor.pod, "pod_local")?))
    };
    agree("look-ups that are not remembered", || Ok((DATAGRAMS, sent(DATAGRAMS))), counted)?;
    drop((poor, sink));
    bench.shutdown()
}

/// A connection that the client gives up before the server has sent a byte of its own.
#[test]
fn ends_of_connections_that_never_sent_anything_are_counted_as_unattributed() -> Result<()> {
    const CONNECTIONS: u64 = 30;
    let bench = Bench::start(1, Backend::Vxlan, false, &[])?;
    let (client, server) = (bench.end(1, "client")?, bench.end(1, "server")?);
    let to = server.address(false, PORT)?;
    let listener = server.sockets.listen(to)?;
    let (before, kernel) = (missed(&bench, "tcp_unattributed")?, server.nstat()?);
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = client.sockets.connect(to)?;
        silent.push(listener.accept().context("accept")?);
        sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).context("set SO_LINGER")?;
    }
    let counted = || {
        let unattributed = missed(&bench, "tcp_unattributed")?.checked_sub(before).context(BACKWARDS)?;
        Ok((unattributed, added(&kernel, &server.nstat()?, &["TcpEstabResets"])?))
    };
    agree("resets of silent connections", || Ok((CONNECTIONS, CONNECTIONS)), counted)?;
    drop((silent, listener, client, server));
    bench.shutdown()
}
