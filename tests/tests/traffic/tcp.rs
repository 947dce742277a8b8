//! TCP: segments against the sender's own count, bytes against the payload, both against the veth.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use lab::scrape::Traffic;
use lab::witness::{self, Amount, Iperf};
use lab::{Backend, Pod};

use crate::bench::{Bench, End, SEGMENTS, added, agree};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const PORT: u16 = 5000;

/// A connection whose both ends stay open, so that everything that was sent has its socket when it is compared.
struct Connection {
    client: TcpStream,
    server: TcpStream,
}

impl Connection {
    fn open(listener: &TcpListener, from: &End, to: &End, ipv6: bool) -> Result<Self> {
        let client = from.sockets.connect(to.address(ipv6, PORT)?)?;
        Ok(Self { client, server: listener.accept().context("accept")?.0 })
    }

    /// Sends that many bytes to the server and waits for all of them.
    fn transfer(&mut self, bytes: u64) -> Result<()> {
        let Self { client, server } = self;
        thread::scope(|scope| {
            let receiving = scope.spawn(|| -> Result<()> {
                let mut buffer = vec![0; 1 << 20];
                let mut left = bytes;
                while left > 0 {
                    let read = server.read(&mut buffer).context("receive")? as u64;
                    ensure!(read > 0, "the stream ended {left} bytes early");
                    left -= read;
                }
                Ok(())
            });
            let block = vec![0x5a; 1 << 17];
            let mut left = bytes;
            while left > 0 {
                let size = left.min(block.len() as u64);
                client.write_all(&block[..usize::try_from(size)?]).context("send")?;
                left -= size;
            }
            receiving.join().ok().context("the receiver panicked")?
        })
    }
}

/// One transfer, as agent and witnesses saw it.
#[derive(Debug)]
struct Seen {
    /// Segments that the sender's and the receiver's kernel say they sent.
    segments: [u64; 2],
    retransmits: u64,
    sender: Traffic,
    receiver: Traffic,
}

/// Transfers and waits until the agent has counted exactly the segments that either end sent.
fn transfer(bench: &Bench, [from, to]: [&End; 2], class: &str, ipv6: bool, bytes: u64) -> Result<Seen> {
    let listener = to.sockets.listen(to.address(ipv6, PORT)?)?;
    // Learns the path MTU: dual-stack pods have 20 bytes more than the IPv6 tunnel takes.
    Connection::open(&listener, from, to, ipv6)?.transfer(MIB)?;
    let closed = || Ok(witness::nstat(&from.pod)?["TcpCurrEstab"] + witness::nstat(&to.pod)?["TcpCurrEstab"]);
    agree("the first connection to end", || Ok(0), closed)?;
    let count = |pod: &Pod| bench.of_pod(pod, class);
    let (kernel, agent) = ([from.nstat()?, to.nstat()?], [count(&from.pod)?, count(&to.pod)?]);
    let mut connection = Connection::open(&listener, from, to, ipv6)?;
    connection.transfer(bytes)?;
    let segments =
        || Ok([added(&kernel[0], &from.nstat()?, &SEGMENTS)?, added(&kernel[1], &to.nstat()?, &SEGMENTS)?]);
    let counted = || -> Result<[Traffic; 2]> {
        let backwards = "a counter went backwards";
        let sender = count(&from.pod)?.since(&agent[0]).context(backwards)?;
        Ok([sender, count(&to.pod)?.since(&agent[1]).context(backwards)?])
    };
    let sent = || Ok(counted()?.map(|traffic| traffic.transmit_packets));
    let segments = agree("segments sent by either end", segments, sent)?;
    let retransmits = added(&kernel[0], &from.nstat()?, &["TcpRetransSegs"])?;
    let [sender, receiver] = counted()?;
    Ok(Seen { segments, retransmits, sender, receiver })
}

/// Bytes of the IP header, and of the TCP header with time stamps, the only option of segments after the first two.
fn headers(ipv6: bool) -> u64 {
    let ip = if ipv6 { 40 } else { 20 };
    ip + 20 + 12
}

/// Offers of SYN and SYN-ACK: 20 bytes of options where later segments have 12.
const SYN_EXTRA: u64 = 8;

/// With offloads on: counts of segments on both ends, bytes from the payload.
fn check_offloaded(bench: &Bench, ends: [&End; 2], class: &str, ipv6: bool, bytes: u64) -> Result<()> {
    let seen = transfer(bench, ends, class, ipv6, bytes)?;
    println!("{class} ipv6={ipv6} {bytes} B offloaded: {seen:?}");
    let (sent, received) = (seen.sender, seen.receiver);
    assert_eq!(sent.transmit_packets, seen.segments[0]);
    assert_eq!(received.transmit_packets, seen.segments[1]);
    // The queue of a CPU may drop what then is sent again.
    let lost = sent.transmit_packets - received.receive_packets;
    ensure!(lost <= seen.retransmits, "{lost} packets did not arrive: {seen:?}");
    let expected = bytes + sent.transmit_packets * headers(ipv6) + SYN_EXTRA;
    if seen.retransmits == 0 {
        assert_eq!(sent.transmit_bytes, expected);
        assert_eq!(received, sent.reversed());
    } else {
        ensure!(sent.transmit_bytes > expected, "{seen:?}");
    }
    Ok(())
}

/// With offloads off every frame crosses the veth singly: packets and bytes of both ends equal its counters.
fn check_on_the_wire(bench: &Bench, ends: [&End; 2], class: &str, ipv6: bool, bytes: u64) -> Result<()> {
    let before = [ends[0].wire()?, ends[1].wire()?];
    let agent = [bench.of_pod(&ends[0].pod, class)?, bench.of_pod(&ends[1].pod, class)?];
    let listener = ends[1].sockets.listen(ends[1].address(ipv6, PORT)?)?;
    let mut connection = Connection::open(&listener, ends[0], ends[1], ipv6)?;
    connection.transfer(bytes)?;
    for (end, (wire, agent)) in ends.iter().zip(before.iter().zip(agent)) {
        let carried = || end.wire()?.since(wire).context("a device counter went backwards");
        let counted = || bench.of_pod(&end.pod, class)?.since(&agent).context("a counter went backwards");
        let exact = agree("packets and bytes of the veth", carried, counted)?;
        println!("{class} ipv6={ipv6} {bytes} B singly: {exact:?}");
    }
    Ok(())
}

fn check_backend(backend: Backend) -> Result<()> {
    let bench = Bench::start(2, backend, true, &[])?;
    let client = bench.end(1, "client")?;
    for (node, name, class) in [(2, "server", "pod_remote"), (1, "neighbour", "pod_local")] {
        let server = bench.end(node, name)?;
        for ipv6 in [false, true] {
            for end in [&client, &server] {
                end.prepare(true, &[&client.pod, &server.pod])?;
            }
            let bytes = if ipv6 { 256 * MIB } else { GIB };
            check_offloaded(&bench, [&client, &server], class, ipv6, bytes)?;
        }
        for end in [&client, &server] {
            end.prepare(false, &[&client.pod, &server.pod])?;
        }
        for ipv6 in [false, true] {
            check_on_the_wire(&bench, [&client, &server], class, ipv6, 64 * MIB)?;
        }
    }
    bench.shutdown()
}

#[test]
fn tcp_over_vxlan_is_exact() -> Result<()> {
    check_backend(Backend::Vxlan)
}

#[test]
fn tcp_through_host_routes_is_exact() -> Result<()> {
    check_backend(Backend::HostGw)
}

/// iperf3 closes its connections: the last acknowledgement of each is sent by the TIME-WAIT state, which has no
/// socket, and answers a FIN that has none either.
#[test]
fn iperf3_agrees_but_for_time_wait() -> Result<()> {
    let bench = Bench::start(2, Backend::Vxlan, false, &[])?;
    let (client, server) = (bench.end(1, "client")?, bench.end(2, "server")?);
    let kernel = client.nstat()?;
    let result =
        witness::iperf3(&client.pod, &server.pod, &Iperf { amount: Amount::Bytes(GIB), ..Iperf::default() })?;
    // The server ends the connection when it has seen enough: what it did not read may not even have left.
    let written = result.sent_bytes().context("no bytes in the report")?;
    let read = result.received_bytes().context("no bytes in the report")?;
    let after = client.nstat()?;
    let sent = added(&kernel, &after, &SEGMENTS)?;
    let seen = bench.of_pod(&client.pod, "pod_remote")?;
    println!("iperf3: {read} to {written} B in {sent} segments, {seen:?}");
    // One connection for control, one for data.
    ensure!((sent - 2..=sent).contains(&seen.transmit_packets), "{sent} segments, {seen:?}");
    let headers = seen.transmit_packets * headers(false) + 2 * SYN_EXTRA;
    let again = added(&kernel, &after, &["TcpRetransSegs"])? * 1450;
    // The control connection carries the options and the client's report.
    let bounds = read + headers..=written + headers + again + 10_000;
    ensure!(bounds.contains(&seen.transmit_bytes), "{bounds:?} does not hold {seen:?}");
    drop((client, server));
    bench.shutdown()
}
