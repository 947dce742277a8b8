//! Whose traffic it is: pods of either cgroup driver, with the node's network, short-lived ones; units of the host.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::scrape::{Samples, Traffic};
use lab::{Agent, Backend, Driver, Place as _, PodSpec, Qos, Sockets};

use crate::bench::{Bench, agree, of_pod, sockets_of};

const PORT: u16 = 7000;

/// A connected UDP socket that has sent that many datagrams of 100 bytes at layer 3.
pub(crate) fn send(sockets: &Sockets, from: SocketAddr, to: SocketAddr, number: u64) -> Result<UdpSocket> {
    let socket = sockets.udp(from)?;
    socket.connect(to).context("connect")?;
    (0..number).try_for_each(|_| socket.send(&[0; 72]).map(drop)).context("send")?;
    Ok(socket)
}

/// What [`send`] is to be counted as.
pub(crate) fn sent(number: u64) -> Traffic {
    Traffic { transmit_packets: number, transmit_bytes: 100 * number, ..Traffic::default() }
}

#[test]
fn every_kind_of_owner_is_told_apart() -> Result<()> {
    let bench = Bench::start(2, Backend::Vxlan, false, &[])?;
    let sink = bench.end(2, "sink")?;
    let to = sink.address(false, PORT)?;
    let _receiver = sink.sockets.udp(to)?;
    let kinds = [
        (Driver::Cgroupfs, Qos::Guaranteed, false),
        (Driver::Cgroupfs, Qos::BestEffort, false),
        (Driver::Systemd, Qos::Guaranteed, false),
        (Driver::Systemd, Qos::Burstable, false),
        (Driver::Cgroupfs, Qos::Burstable, true),
        (Driver::Systemd, Qos::Burstable, true),
    ];
    let mut total = 0;
    for (number, (driver, qos, host_network)) in (1..).zip(kinds) {
        let namespace = format!("space-{number}");
        let name = format!("pod-{number}");
        let spec = PodSpec { namespace, driver, qos, host_network, ..PodSpec::new(&name) };
        let end = bench.end_of(1, spec)?;
        let _socket = send(&end.sockets, end.address(false, 0)?, to, 100 + number)?;
        total += 100 + number;
        let counted = || bench.of_pod(&end.pod, "pod_remote");
        agree("datagrams of a pod", || Ok(sent(100 + number)), counted)?;
        end.pod.remove()?;
    }
    let node = bench.lab.node(1)?;
    let sockets = sockets_of(node)?;
    let _socket = send(&sockets, SocketAddr::new(node.address(false)?, 0), to, 300)?;
    let unit = || {
        let labels = [("unit", "shell.service"), ("peer_class", "pod_remote")];
        Ok(bench.agent(1)?.scrape()?.traffic("unit", &labels).unwrap_or_default())
    };
    agree("datagrams of a unit", || Ok(sent(300)), unit)?;
    let arrived = || Ok(bench.agent(2)?.scrape()?.traffic("pod", &[("pod", "sink")]).unwrap_or_default());
    let expected = sent(total + 300).reversed();
    let sink_total = agree("all datagrams at the sink", || Ok(expected), arrived)?;
    println!("{total} of pods and 300 of a unit, at the sink {sink_total:?}");
    // Pods with a network of their own come as remote pods, the others and the unit as the node.
    let of_node = bench.of_pod(&sink.pod, "node")?.receive_packets;
    ensure!(of_node == 105 + 106 + 300, "{of_node} from the node itself");
    drop((sockets, sink));
    bench.shutdown()
}

/// Their names come from directories that go before them; no page shows them under another name, or half of one.
#[test]
fn pods_of_a_second_and_of_a_moment_are_shown_by_name_or_not_at_all() -> Result<()> {
    let bench = Bench::start(1, Backend::Vxlan, false, &[])?;
    let sink = bench.end(1, "sink")?;
    let to = sink.address(false, PORT)?;
    let _receiver = sink.sockets.udp(to)?;
    let is_done = AtomicBool::new(false);
    let pages = thread::scope(|scope| -> Result<u64> {
        let watching = scope.spawn(|| watch_names(bench.agent(1)?, &is_done));
        let lived = (0..3).try_for_each(|round| second(&bench, round, to));
        let lived = lived.and_then(|()| (0..20).try_for_each(|round| moment(&bench, round, to)));
        is_done.store(true, Ordering::Release);
        let pages = watching.join().ok().context("the watch panicked")??;
        lived.map(|()| pages)
    })?;
    println!("{pages} pages");
    drop(sink);
    bench.shutdown()
}

/// A pod that sends 40 datagrams in its second.
fn second(bench: &Bench, round: u32, to: SocketAddr) -> Result<()> {
    const LIFE: Duration = Duration::from_secs(1);
    let start = Instant::now();
    let name = format!("second-{round}");
    let end = bench.end(1, &name)?;
    drop(send(&end.sockets, end.address(false, 0)?, to, 40)?);
    thread::sleep(LIFE.saturating_sub(start.elapsed()));
    fs::remove_dir_all(end.pod.log_dir())?;
    end.pod.remove()?;
    println!("{name} lived {:?}", start.elapsed());
    is_counted(bench, &name, sent(40))
}

/// A pod that sends one datagram of 30 bytes in its 50 ms.
fn moment(bench: &Bench, round: u32, to: SocketAddr) -> Result<()> {
    const LIFE: Duration = Duration::from_millis(50);
    let start = Instant::now();
    let name = format!("moment-{round}");
    let spec = PodSpec { host_network: true, ..PodSpec::new(&name) };
    let pod = bench.lab.node(1)?.pod(spec)?;
    pod.run(&["bash", "-c", &format!("echo x > /dev/udp/{}/{}", to.ip(), to.port())])?;
    thread::sleep(LIFE.saturating_sub(start.elapsed()));
    fs::remove_dir_all(pod.log_dir())?;
    pod.remove()?;
    println!("{name} lived {:?}", start.elapsed());
    is_counted(bench, &name, Traffic { transmit_packets: 1, transmit_bytes: 30, ..Traffic::default() })
}

fn is_counted(bench: &Bench, name: &str, expected: Traffic) -> Result<()> {
    let labels = [("namespace", "default"), ("pod", name)];
    let named = || Ok(bench.agent(1)?.scrape()?.traffic("pod", &labels).unwrap_or_default());
    agree(&format!("datagrams of {name}"), || Ok(expected), named).map(drop)
}

/// Scrapes until told to stop, says how often, and fails when a pod has no namespace.
fn watch_names(agent: &Agent, is_done: &AtomicBool) -> Result<u64> {
    let mut pages = 0;
    while !is_done.load(Ordering::Acquire) {
        let samples = agent.scrape()?;
        let half = samples.all().iter().find(|sample| sample.label("namespace") == Some(""));
        ensure!(half.is_none(), "{half:?}");
        pages += 1;
    }
    Ok(pages)
}

/// All counters of the node's totals in a fixed order.
fn totals(samples: &Samples) -> Vec<u64> {
    let of_node = |name: &str| name.starts_with("leadline_node_") && name.ends_with("_total");
    let all = samples.all().iter().filter(|sample| of_node(&sample.name));
    all.filter_map(lab::scrape::Sample::count).collect()
}

/// Sends datagrams to and fro until told to stop, and says how often. One is on its way at a time: no queue can
/// refuse it.
fn exchange(caller: &UdpSocket, answerer: &UdpSocket, is_done: &AtomicBool) -> Result<u64> {
    let mut rounds = 0;
    while !is_done.load(Ordering::Acquire) {
        for (from, to) in [(caller, answerer), (answerer, caller)] {
            from.send(&[0; 72]).context("send")?;
            to.recv(&mut [0; 100]).context("receive")?;
        }
        rounds += 1;
        if rounds % 100 == 0 {
            // Leaves the machine to those who make pods.
            thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(rounds)
}

/// Scrapes until told to stop, says how often, and fails when one of the totals goes backwards.
fn watch(agent: &Agent, is_done: &AtomicBool) -> Result<u64> {
    let (mut last, mut scrapes) = (totals(&agent.scrape()?), 0);
    while !is_done.load(Ordering::Acquire) {
        let now = totals(&agent.scrape()?);
        ensure!(last.len() == now.len(), "{last:?} {now:?}");
        ensure!(last.iter().zip(&now).all(|(last, now)| last <= now), "{last:?} {now:?}");
        (last, scrapes) = (now, scrapes + 1);
        thread::sleep(Duration::from_millis(10));
    }
    Ok(scrapes)
}

#[test]
fn totals_stay_exact_while_pods_come_and_go() -> Result<()> {
    const PODS: u64 = 200;
    const EACH: u64 = 10;
    let bench = Bench::start(1, Backend::Vxlan, false, &["--slots=256", "--pod-retention=10s"])?;
    let (sink, steady) = (bench.end(1, "sink")?, bench.end(1, "steady")?);
    let to = sink.address(false, PORT)?;
    let receiver = sink.sockets.udp(to)?;
    let is_done = AtomicBool::new(false);
    let answerer = sink.sockets.udp(sink.address(false, PORT + 1)?)?;
    let caller = send(&steady.sockets, steady.address(false, 0)?, answerer.local_addr()?, 0)?;
    answerer.connect(caller.local_addr()?).context("connect")?;
    let (steady_sent, scrapes) = thread::scope(|scope| -> Result<(u64, u64)> {
        let flow = scope.spawn(|| exchange(&caller, &answerer, &is_done));
        let watching = scope.spawn(|| watch(bench.agent(1)?, &is_done));
        let churned = (0..PODS).try_for_each(|number| -> Result<()> {
            let end = bench.end(1, &format!("short-{number}"))?;
            let _socket = send(&end.sockets, end.address(false, 0)?, to, EACH)?;
            // What waits for a neighbour goes with the pod.
            (0..EACH).try_for_each(|_| receiver.recv(&mut [0; 100]).map(drop)).context("receive")?;
            end.pod.remove()
        });
        is_done.store(true, Ordering::Release);
        let steady = flow.join().ok().context("the sender panicked")??;
        let scrapes = watching.join().ok().context("the watch panicked")??;
        churned?;
        Ok((steady, scrapes))
    })?;
    let all = PODS * EACH + 2 * steady_sent;
    let counted = || {
        let samples = bench.agent(1)?.scrape()?;
        let node = samples.traffic("node", &[("peer_class", "pod_local")]).context("no totals")?;
        let steady = of_pod(&samples, &steady.pod, &[]);
        Ok((node, steady, samples.count("leadline_slots_exhausted_total", &[])))
    };
    let both_ways = |number: u64| sent(number).plus(&sent(number).reversed());
    let both = both_ways(all);
    agree("totals of the node", || Ok((both, both_ways(steady_sent), Some(0))), counted)?;
    println!("{PODS} pods, {all} datagrams, {scrapes} scrapes");
    // Pods that are gone for longer than the retention have no series any more; their counts stay in the totals.
    // The retention of 10 s and a pass of one; when the kernel had to drop a notice, up to 6 s more until a scan of the
    // tree has found out. The rest of the time allowed is for a machine that stalls.
    let ended = Instant::now();
    let series = || {
        let samples = bench.agent(1)?.scrape()?;
        let short = samples.of("leadline_pod_transmit_packets_total", |sample| {
            sample.label("pod").is_some_and(|pod| pod.starts_with("short-"))
        });
        let short: Vec<String> = short.filter_map(|sample| sample.label("pod").map(str::to_owned)).collect();
        Ok((short, samples.traffic("node", &[("peer_class", "pod_local")]).context("no totals")?))
    };
    agree("series of pods that are gone to end", || Ok((Vec::new(), both)), series)?;
    println!("series ended {:?} after the last pod", ended.elapsed());
    drop((sink, steady));
    bench.shutdown()
}
