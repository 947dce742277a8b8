//! UDP: datagrams and bytes, up to the MTU, beyond it, and segmented by the kernel.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::Backend;
use lab::scrape::Traffic;
use lab::witness::{self, Iperf, Protocol};
use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};

use crate::bench::{Bench, End, added, agree, of_pod};

const PORT: u16 = 6000;
const DATAGRAMS: u64 = 3000;
const UDP: u64 = 8;

fn ip(ipv6: bool) -> u64 {
    if ipv6 { 40 } else { 20 }
}

/// Sends a number of payloads and reads until nothing more comes.
fn exchange(sender: &UdpSocket, receiver: &UdpSocket, size: usize, number: u64) -> Result<()> {
    receiver.set_read_timeout(Some(Duration::from_millis(20))).context("set the read time-out")?;
    let is_sent = AtomicBool::new(false);
    thread::scope(|scope| {
        let reading = scope.spawn(|| -> Result<()> {
            let mut buffer = vec![0; 1 << 16];
            loop {
                match receiver.recv(&mut buffer) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        if is_sent.load(Ordering::Acquire) {
                            return Ok(());
                        }
                    }
                    Err(error) => return Err(error).context("receive"),
                }
            }
        });
        let payload = vec![0x5a; size];
        let sending = (0..number).try_for_each(|_| sender.send(&payload).map(drop)).context("send");
        is_sent.store(true, Ordering::Release);
        reading.join().ok().context("the receiver panicked")??;
        sending
    })
}

/// What to expect of one run: how many datagrams and bytes leave, and how many frames and layer 3 bytes carry them.
struct Expected {
    datagrams: u64,
    bytes: u64,
    frames: u64,
    frame_bytes: u64,
}

fn whole(size: u64, ipv6: bool) -> Expected {
    let bytes = DATAGRAMS * (size + UDP + ip(ipv6));
    Expected { datagrams: DATAGRAMS, bytes, frames: DATAGRAMS, frame_bytes: bytes }
}

/// Sends and compares: agent, expectation and veth at the sender; agent and kernel at the receiver.
fn check(
    bench: &Bench,
    [from, to]: [&End; 2],
    ipv6: bool,
    transfer: impl Fn(&UdpSocket, &UdpSocket) -> Result<()>,
    expected: &Expected,
) -> Result<()> {
    let hearer = to.sockets.udp(to.address(ipv6, PORT)?)?;
    let sender = from.sockets.udp(from.address(ipv6, 0)?)?;
    sender.connect(to.address(ipv6, PORT)?).context("connect")?;
    let (wire, kernel) = (from.wire()?, to.nstat()?);
    let count = |end: &End| bench.of_pod(&end.pod, "pod_remote");
    let agent = [count(from)?, count(to)?];
    transfer(&sender, &hearer)?;
    let sent = Traffic {
        transmit_packets: expected.datagrams,
        transmit_bytes: expected.bytes,
        ..Traffic::default()
    };
    let backwards = "a counter went backwards";
    agree("datagrams sent", || Ok(sent), || count(from)?.since(&agent[0]).context(backwards))?;
    let carried = from.wire()?.since(&wire).context(backwards)?;
    assert_eq!((carried.transmit_packets, carried.transmit_bytes), (expected.frames, expected.frame_bytes));
    let names = if ipv6 { ["Udp6InDatagrams", "Udp6InErrors"] } else { ["UdpInDatagrams", "UdpInErrors"] };
    let arrived = || added(&kernel, &to.nstat()?, &names);
    let counted = || Ok(count(to)?.since(&agent[1]).context(backwards)?.receive_packets);
    let arrived = agree("datagrams at the receiver's socket", arrived, counted)?;
    let received = count(to)?.since(&agent[1]).context(backwards)?;
    assert_eq!(received.receive_bytes, arrived * (expected.bytes / expected.datagrams));
    println!("ipv6={ipv6} sent {sent:?} on the wire {carried:?} arrived {arrived}");
    Ok(())
}

#[test]
fn datagrams_of_every_size_are_exact() -> Result<()> {
    let bench = Bench::start(2, Backend::Vxlan, true, &[])?;
    let (client, server) = (bench.end(1, "client")?, bench.end(2, "server")?);
    for end in [&client, &server] {
        end.prepare(false, &[])?;
    }
    for ipv6 in [false, true] {
        let largest = if ipv6 { 1430 } else { 1450 } - UDP - ip(ipv6);
        for size in [0, 1, 16, 64, 512, 1200, largest] {
            let length = usize::try_from(size)?;
            let send = |from: &UdpSocket, to: &UdpSocket| exchange(from, to, length, DATAGRAMS);
            check(&bench, [&client, &server], ipv6, send, &whole(size, ipv6))?;
        }
    }
    // Three fragments: the agent counts the datagram before it is cut, and after it is whole again.
    let send = |from: &UdpSocket, to: &UdpSocket| exchange(from, to, 4000, DATAGRAMS);
    let cut = Expected {
        datagrams: DATAGRAMS,
        bytes: DATAGRAMS * 4028,
        frames: 3 * DATAGRAMS,
        frame_bytes: DATAGRAMS * (4028 + 2 * 20),
    };
    check(&bench, [&client, &server], false, send, &cut)?;
    // UDP_SEGMENT: 10 datagrams of 1200 and one of 100 in one system call; the veth cuts it without offloads.
    let calls = DATAGRAMS / 10;
    let send = |from: &UdpSocket, to: &UdpSocket| {
        setsockopt(from, UdpGsoSegment, &1200).context("set UDP_SEGMENT")?;
        exchange(from, to, 12_100, calls)
    };
    let bytes = calls * (12_100 + 11 * 28);
    let segmented = Expected { datagrams: 11 * calls, bytes, frames: 11 * calls, frame_bytes: bytes };
    check_segmented(&bench, [&client, &server], send, &segmented)?;
    drop((client, server));
    bench.shutdown()
}

/// As [`check`], but the datagrams differ in size: the bytes that arrived are only known if all did.
fn check_segmented(
    bench: &Bench,
    [from, to]: [&End; 2],
    transfer: impl Fn(&UdpSocket, &UdpSocket) -> Result<()>,
    expected: &Expected,
) -> Result<()> {
    let hearer = to.sockets.udp(to.address(false, PORT)?)?;
    let sender = from.sockets.udp(from.address(false, 0)?)?;
    sender.connect(to.address(false, PORT)?).context("connect")?;
    let wire = [from.wire()?, to.wire()?];
    let count = |end: &End| bench.of_pod(&end.pod, "pod_remote");
    let agent = [count(from)?, count(to)?];
    transfer(&sender, &hearer)?;
    let sent = Traffic {
        transmit_packets: expected.datagrams,
        transmit_bytes: expected.bytes,
        ..Traffic::default()
    };
    let backwards = "a counter went backwards";
    for (end, (wire, agent)) in [from, to].into_iter().zip(wire.iter().zip(&agent)) {
        let carried = || end.wire()?.since(wire).context(backwards);
        agree("segments of the veth", carried, || count(end)?.since(agent).context(backwards))?;
    }
    assert_eq!(count(from)?.since(&agent[0]), Some(sent));
    Ok(())
}

/// iperf3 begins with a datagram of 4 bytes each way, which it does not count.
#[test]
fn iperf3_counts_the_same_datagrams() -> Result<()> {
    let bench = Bench::start(2, Backend::Vxlan, false, &["--profile=detailed"])?;
    let (client, server) = (bench.end(1, "client")?, bench.end(2, "server")?);
    let udp = |end: &End| -> Result<Traffic> {
        let samples = bench.agent(end.pod.node().index())?.scrape()?;
        Ok(of_pod(&samples, &end.pod, &[("protocol", "udp")]))
    };
    for size in [16, 64, 512, 1400] {
        let before = [udp(&client)?, udp(&server)?];
        let options =
            Iperf { protocol: Protocol::Udp { rate: 50_000_000 }, length: Some(size), ..Iperf::default() };
        let result = witness::iperf3(&client.pod, &server.pod, &options)?;
        let datagrams = result.datagrams().context("no datagrams in the report")?;
        let sent = udp(&client)?.since(&before[0]).context("a counter went backwards")?;
        assert_eq!(sent.transmit_packets, datagrams + 1);
        assert_eq!(sent.transmit_bytes, datagrams * (u64::from(size) + 28) + 32);
        assert_eq!((sent.receive_packets, sent.receive_bytes), (1, 32));
        let received = udp(&server)?.since(&before[1]).context("a counter went backwards")?;
        ensure!(received.receive_packets <= datagrams + 1, "{received:?}");
        let lost = result.lost_datagrams().context("no losses in the report")?;
        ensure!(received.receive_packets + lost > datagrams, "{lost} lost, {received:?}");
        println!("{size} B: {datagrams} datagrams, {lost} lost, sent {sent:?}, received {received:?}");
    }
    drop((client, server));
    bench.shutdown()
}
