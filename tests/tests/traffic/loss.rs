//! Whether the counters themselves lose updates: many sockets of one pod, both ways, small writes, two processors.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::Backend;
use lab::scrape::Traffic;

use crate::bench::{Bench, SEGMENTS, added, agree};

const SOCKETS: usize = 64;
const THREADS: usize = 2;
/// Enough to see the loss of plain additions: 238 in 5 million.
const PACKETS: u64 = 20_000_000;
const LIMIT: Duration = Duration::from_mins(1);
const BACKWARDS: &str = "a counter went backwards";

/// Writes 1 KiB to each stream and reads what has come, over and over, until told to stop.
fn pump(streams: &mut [TcpStream], stop: impl Fn() -> bool) -> Result<()> {
    let would_block = |error: &std::io::Error| error.kind() == ErrorKind::WouldBlock;
    let mut buffer = vec![0; 1 << 16];
    while !stop() {
        for stream in &mut *streams {
            for result in [stream.write(&[0x5a; 1024]), stream.read(&mut buffer)] {
                if let Some(error) = result.err().filter(|error| !would_block(error)) {
                    return Err(error).context("exchange");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn no_packet_of_many_sockets_is_lost() -> Result<()> {
    let bench = Bench::start(1, Backend::Vxlan, false, &[])?;
    let (client, server) = (bench.end(1, "client")?, bench.end(1, "server")?);
    let to = server.address(false, 8000)?;
    let listener = server.sockets.listen(to)?;
    let kernel = [client.nstat()?, server.nstat()?];
    let mut streams = Vec::new();
    for _ in 0..SOCKETS {
        streams.push(client.sockets.connect(to)?);
        streams.push(listener.accept().context("accept")?.0);
    }
    for stream in &streams {
        stream.set_nodelay(true).context("set no delay")?;
        stream.set_nonblocking(true).context("set non-blocking")?;
    }
    let segments = || -> Result<[u64; 2]> {
        Ok([added(&kernel[0], &client.nstat()?, &SEGMENTS)?, added(&kernel[1], &server.nstat()?, &SEGMENTS)?])
    };
    let start = Instant::now();
    let is_over = || {
        start.elapsed() >= LIMIT || segments().is_ok_and(|segments| segments.iter().sum::<u64>() >= PACKETS)
    };
    let done = AtomicBool::new(false);
    thread::scope(|scope| -> Result<()> {
        let share = streams.len() / THREADS;
        let stop = || done.load(Ordering::Relaxed);
        let pumps: Vec<_> =
            streams.chunks_mut(share).map(|streams| scope.spawn(move || pump(streams, stop))).collect();
        let waited = lab::wait_until("the packets", LIMIT * 2, is_over);
        done.store(true, Ordering::Relaxed);
        for pump in pumps {
            pump.join().ok().context("a pump panicked")??;
        }
        waited
    })?;
    let took = start.elapsed();
    let counted = || -> Result<[Traffic; 2]> {
        Ok([bench.of_pod(&client.pod, "pod_local")?, bench.of_pod(&server.pod, "pod_local")?])
    };
    let sent = || Ok(counted()?.map(|traffic| traffic.transmit_packets));
    let segments = agree("segments of both pods", segments, sent)?;
    let [one, other] = counted()?;
    // A pod's own packets that the other's queue refused are sent again, and nothing else is.
    let again = [&client, &server]
        .into_iter()
        .zip(&kernel)
        .map(|(end, kernel)| added(kernel, &end.nstat()?, &["TcpRetransSegs"]));
    let again = again.sum::<Result<u64>>()?;
    for (from, to) in [(one, other), (other, one)] {
        let lost = from.transmit_packets.checked_sub(to.receive_packets).context(BACKWARDS)?;
        ensure!(lost <= again, "{lost} packets did not arrive, {again} were sent again");
    }
    if again == 0 {
        assert_eq!(one, other.reversed());
    }
    println!("{segments:?} segments in {took:?}, {again} sent again: {one:?}");
    ensure!(segments.iter().sum::<u64>() >= PACKETS / 20, "only {segments:?} segments in {took:?}");
    drop((streams, client, server));
    bench.shutdown()
}
