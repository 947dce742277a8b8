//! What happens when there are more owners and peers than slots.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::place::{Place as _, join};
use lab::scrape::{Samples, Traffic};
use lab::{Backend, Sockets, cgroup, wait_until};
use nix::sched::CloneFlags;

use crate::bench::{Bench, End, agree, of_pod};
use crate::owner::{send, sent};

const CONTAINERS: u64 = 70;
const EACH: u64 = 10;

/// The source of the sockets of a further container of the pod.
pub(crate) fn container(end: &End, name: &str) -> Result<Sockets> {
    let directory = end.pod.pod_cgroup().join(name);
    cgroup::create(&directory)?;
    let mut command = Command::new(std::env::current_exe().context("find this test binary")?);
    command.args(["--exact", "task_gives_sockets", "--ignored", "--nocapture", "--test-threads=1"]);
    join(&mut command, [directory.as_path()], end.pod.namespaces(), CloneFlags::empty())?;
    Sockets::start(&mut command)
}

#[test]
fn what_finds_no_slot_is_counted_as_other() -> Result<()> {
    let bench = Bench::start(1, Backend::Vxlan, false, &["--slots=64"])?;
    let (client, sink) = (bench.end(1, "client")?, bench.end(1, "sink")?);
    let to = sink.address(false, 9000)?;
    let receiver = sink.sockets.udp(to)?;
    // The sink has its slot before the others take the rest.
    let first = send(&client.sockets, client.address(false, 0)?, to, EACH)?;
    let mut open = Vec::new();
    for number in 0..CONTAINERS {
        let sockets = container(&client, &format!("many-{number}"))?;
        open.push(send(&sockets, client.address(false, 0)?, to, EACH)?);
    }
    let all = (CONTAINERS + 1) * EACH;
    let read = || -> Result<(Traffic, Traffic, Traffic, Samples)> {
        let samples = bench.agent(1)?.scrape()?;
        let node = samples.traffic("node", &[("peer_class", "pod_local")]).context("no totals")?;
        let other = [("namespace", "other"), ("pod", "other")];
        let other = samples.traffic("pod", &other).unwrap_or_default();
        Ok((node, of_pod(&samples, &client.pod, &[]), other, samples))
    };
    let sum = || {
        let (node, pod, other, _) = read()?;
        Ok((node, pod.plus(&other)))
    };
    let both = |number: u64| sent(number).plus(&sent(number).reversed());
    agree("totals with too few slots", || Ok((both(all), sent(all))), sum)?;
    let (_, pod, other, samples) = read()?;
    let exhausted = samples.count("leadline_slots_exhausted_total", &[]).context("no losses")?;
    println!(
        "{} packets under their name, {} as other, {exhausted} times no slot",
        pod.transmit_packets, other.transmit_packets
    );
    ensure!(other.transmit_packets >= (CONTAINERS + 1 - 48) * EACH, "{other:?}");
    // One look-up a socket, and another one for each time that the network changed.
    ensure!(exhausted >= other.transmit_packets / EACH, "{exhausted}");

    // Slots of removed containers are used again, and the totals go on from where they were.
    drop(open);
    for number in 0..CONTAINERS {
        cgroup::remove(&client.pod.pod_cgroup().join(format!("many-{number}")))?;
    }
    let sockets = container(&client, "late")?;
    let (mut late, mut rounds) = (Vec::new(), 0);
    wait_until("a slot to be free again", Duration::from_secs(30), || {
        let Ok((node, before, _, _)) = read() else { return false };
        let Ok(socket) = client.address(false, 0).and_then(|from| send(&sockets, from, to, EACH)) else {
            return false;
        };
        late.push(socket);
        rounds += 1;
        node == both(all + (rounds - 1) * EACH)
            && read().is_ok_and(|(_, after, _, _)| after.since(&before) == Some(sent(EACH)))
    })?;
    let all = all + rounds * EACH;
    agree("totals with slots used again", || Ok((both(all), sent(all))), sum)?;
    println!("a slot was free after {rounds} sockets");
    drop((first, late, receiver, sockets, client, sink));
    bench.shutdown()
}
