//! What being watched costs etcd: requests, bytes, and nothing written.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::etcd::Version;
use lab::{Agent, Etcd, EtcdOptions};

use crate::stage::{agent, id, of_member, wait_agreement, wait_page};
use crate::{of, start};

/// How long the load is looked at.
const SPAN: Duration = Duration::from_mins(1);

/// What one member counts.
#[derive(Debug)]
struct Count {
    index: u64,
    requests: u64,
    bytes: u64,
    written: u64,
}

fn count(etcd: &Etcd, member: u8) -> Result<Count> {
    let page = etcd.metrics(member)?;
    let sum = |name: &str| page.sum(name, |_| true).with_context(|| format!("no {name}"));
    Ok(Count {
        index: etcd.status(member)?.raft_index,
        requests: sum("grpc_server_handled_total")?,
        bytes: sum("etcd_network_client_grpc_received_bytes_total")?
            + sum("etcd_network_client_grpc_sent_bytes_total")?,
        written: sum("etcd_disk_wal_write_bytes_total")?,
    })
}

/// The number of round trips to the peers in etcd's own histograms, and their sums in seconds.
fn smoothed(etcd: &Etcd) -> Result<BTreeMap<String, (u64, f64)>> {
    let page = etcd.metrics(1)?;
    let of = |part: &'static str| {
        let name = format!("etcd_network_peer_round_trip_time_seconds_{part}");
        let samples = page.all().iter().filter(move |sample| sample.name == name);
        samples
            .filter_map(|sample| Some((sample.label("To")?.to_owned(), sample.value()?)))
            .collect::<Vec<_>>()
    };
    let counts = of("count").into_iter().zip(of("sum"));
    counts.map(|((id, count), (_, sum))| Ok((id, (format!("{count}").parse()?, sum)))).collect()
}

/// Lets the time pass, and compares each round trip that etcd adds to its histograms meanwhile with what is shown.
fn pass(etcd: &Etcd, observer: &Agent) -> Result<()> {
    let begun = Instant::now();
    let (mut known, mut seen) = (smoothed(etcd)?, 0);
    while begun.elapsed() < SPAN {
        let now = smoothed(etcd)?;
        for (id, (count, sum)) in &now {
            let (before, sum_before) = known.get(id).copied().unwrap_or_default();
            // Two probers of a peer add one each at the same time.
            if *count > before && before > 0 {
                let mean = (sum - sum_before) / f64::from(u32::try_from(count - before)?);
                wait_page(observer, "the round trip of etcd's histogram", |page| {
                    let labels = [("peer_member", id.as_str())];
                    let shown = page.value("leadline_etcd_peer_smoothed_rtt_seconds", &labels);
                    shown.is_some_and(|shown| (shown - mean).abs() < 1e-9)
                })?;
                seen += 1;
            }
        }
        known = now;
        let second = Instant::now();
        lab::process::wait_until("a second", SPAN, || second.elapsed() > Duration::from_secs(1))?;
    }
    println!("{seen} smoothed round trips were those of etcd's histograms");
    ensure!(seen >= 2, "etcd has added {seen} round trips in a minute");
    Ok(())
}

#[test]
#[expect(clippy::cast_precision_loss, reason = "requests and bytes of a test are far below 2^52")]
fn nothing_is_written_and_what_is_read_is_bounded() -> Result<()> {
    let (lab, etcd) = start(3, &of(Version::V3_6))?;
    let observers: Vec<_> = lab.nodes().iter().map(|node| agent(node, &[])).collect::<Result<_>>()?;
    for observer in &observers {
        wait_agreement(observer, &etcd)?;
    }
    let before = etcd.numbers().into_iter().map(|member| count(&etcd, member)).collect::<Result<Vec<_>>>()?;
    pass(&etcd, &observers[0])?;
    for (member, before) in etcd.numbers().into_iter().zip(before) {
        let after = count(&etcd, member)?;
        ensure!(after.index == before.index, "the log of node{member} has grown: {before:?} {after:?}");
        ensure!(after.written == before.written, "node{member} has written: {before:?} {after:?}");
        // Three observers ask for status and list, one of them reads twice; the test asks once itself.
        let rate = (after.requests - before.requests) as f64 / SPAN.as_secs_f64();
        let bytes = (after.bytes - before.bytes) as f64 / SPAN.as_secs_f64();
        println!("node{member}: {rate:.1} requests and {bytes:.0} bytes a second from three observers");
        ensure!((6.0..10.0).contains(&rate), "{rate} requests a second");
        ensure!(bytes < 10_000.0, "{bytes} bytes a second");
    }
    lab.shutdown()
}

#[test]
#[expect(clippy::cast_precision_loss, reason = "requests and bytes of a test are far below 2^52")]
fn a_database_that_grows_says_when_it_is_full() -> Result<()> {
    const QUOTA: u64 = 256 << 20;
    let options = EtcdOptions { members: 1, quota: Some(QUOTA), ..of(Version::V3_6) };
    let (lab, etcd) = start(1, &options)?;
    let observer = agent(lab.node(1)?, &[])?;
    let own = id(&etcd, 1)?;
    let begun = Instant::now();
    let size = etcd.status(1)?.db_size;
    let value = "x".repeat(100_000);
    let mut number = 0;
    let written = || begun.elapsed();
    while written() < Duration::from_secs(75) {
        etcd.put(&format!("fill/{number}"), &value)?;
        number += 1;
        lab::process::wait_until("the next turn", SPAN, || written() > Duration::from_millis(200) * number)?;
    }
    let status = etcd.status(1)?;
    let rate = (status.db_size - size) as f64 / begun.elapsed().as_secs_f64();
    let told = (QUOTA - status.db_size) as f64 / rate;
    let (page, _) = wait_page(&observer, "a time", |page| {
        page.value("leadline_etcd_quota_exhausted_in_seconds", &[("member", &own)]).is_some()
    })?;
    let shown =
        page.value("leadline_etcd_quota_exhausted_in_seconds", &[("member", &own)]).context("no time")?;
    println!("full in {shown:.0} s, by the rate of the test {told:.0} s");
    ensure!((shown / told - 1.0).abs() < 1.0 / 3.0, "{shown} for {told}");
    ensure!(of_member(&page, "quota_bytes", &own) == Some(QUOTA));
    lab.shutdown()
}
