//! Round trips with an injected delay while the server thinks.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::witness::{ensure_precise, measured};
use lab::{Delay, Place, Pod};

use crate::Stage;
use crate::health::Durations;
use crate::program::Program;

const ONE_WAY: Duration = Duration::from_millis(10);
const THINK: Duration = Duration::from_millis(30);
const CONNECTIONS: u64 = 10;
/// What the round trip may be off by.
const BOUND: Duration = Duration::from_micros(200);

/// A time that `ss -ti` prints in milliseconds after `name:`, of each connection to the port.
fn ss(pod: &Pod, filter: &str, name: &str) -> Result<Vec<Duration>> {
    let text = pod.run(&["ss", "-tinH", "state", "established", filter])?;
    let key = format!("{name}:");
    let values = text.split_whitespace().filter_map(|word| word.strip_prefix(&key));
    let times = values.map(|value| {
        let milliseconds: f64 = value.split('/').next().unwrap_or_default().parse()?;
        Ok(Duration::try_from_secs_f64(milliseconds / 1_000.0)?)
    });
    times.collect::<Result<_>>().with_context(|| format!("{name} in\n{text}"))
}

fn mean(times: &[Duration]) -> Result<Duration> {
    ensure!(!times.is_empty(), "no times");
    Ok(times.iter().sum::<Duration>() / u32::try_from(times.len())?)
}

/// Minimum and mean of ping, in one address family. Pings that are far apart would measure how processors wake up.
fn ping(from: &Pod, to: &Pod, ipv6: bool) -> Result<[Duration; 2]> {
    let address = to.address(ipv6)?.to_string();
    let text = from.run(&["ping", "-q", "-c", "500", "-i", "0.002", "-W", "2", &address])?;
    let times = || {
        let (_, times) = text.lines().find(|line| line.starts_with("rtt "))?.split_once(" = ")?;
        let mut times = times.split('/').map_while(|time| time.parse::<f64>().ok());
        Some([times.next()?, times.next()?])
    };
    let times = times().with_context(|| text.clone())?;
    Ok(times.map(|time| Duration::from_secs_f64(time / 1_000.0)))
}

/// The samples are round trips of the network: in the bucket of the delay, what the kernel says of the same
/// connections, and among what ping sees. The samples are handshakes and minima, so that the mean of pings on a
/// busy machine is above them.
fn check_rtt(side: &str, rtt: &Durations, minimum: Duration, pinged: [Duration; 2]) -> Result<()> {
    let mean = rtt.mean()?;
    println!("{side}: rtt {mean:?} of {} samples, ss minrtt {minimum:?}, ping {pinged:?}", rtt.count);
    ensure_precise(mean.abs_diff(minimum) <= BOUND, || format!("{side}: {mean:?}, but ss says {minimum:?}"))?;
    let range = pinged[0].saturating_sub(BOUND)..=pinged[1] + BOUND;
    ensure_precise(range.contains(&mean), || format!("{side}: {mean:?}, but ping {pinged:?}"))?;
    assert_eq!(rtt.between("0.015625", "0.0625")?, rtt.count, "{side}: {rtt:?}");
    Ok(())
}

fn check(ipv6: bool) -> Result<()> {
    let lab = Stage::lab(ipv6)?;
    let stage = Stage::new(&lab)?;
    let delay = Delay::insert(&lab, lab.node(2)?, ONE_WAY)?;
    let (_server, mut client) = stage.start_programs(ipv6, THINK)?;
    measured(|| {
        let compared = compare(&stage, &delay, &mut client, ipv6);
        client.ask("close")?;
        compared
    })
}

/// One round: connections, exchanges, and what everybody says of them.
fn compare(stage: &Stage, delay: &Delay<'_>, client: &mut Program, ipv6: bool) -> Result<()> {
    let pinged = ping(&stage.client, &stage.server, ipv6)?;
    let (before, server_before) = (stage.client_health()?, stage.server_health()?);
    let connects = client.numbers(&format!("open {} E {CONNECTIONS}", stage.target(ipv6)?))?;
    client.ask("exchange 25")?;
    let middle = stage.client_health()?;
    client.ask("exchange 40")?;
    let after = stage.client_health()?;

    let connect = after.durations(&before, "connect_seconds")?.mean()?;
    let timed = Duration::from_nanos(connects.iter().sum::<u64>() / CONNECTIONS);
    println!("client: connect {connect:?}, connect(2) {timed:?}");
    let difference = connect.abs_diff(timed);
    ensure_precise(difference <= Duration::from_millis(1), || {
        format!("{connect:?}, connect(2) took {timed:?}")
    })?;

    let passed = delay.passed();
    assert_eq!(passed.map(|way| way.lost), [0, 0]);
    let injected = passed[0].mean().zip(passed[1].mean()).context("nothing passed")?;
    let injected = injected.0 + injected.1;

    let minimum = mean(&ss(&stage.client, "dport = :7000", "minrtt")?)?;
    let rtt = after.durations(&before, "rtt_seconds")?;
    check_rtt("client", &rtt, minimum, pinged)?;
    let mean_rtt = rtt.mean()?;
    println!("relay: held both ways {injected:?}");
    let range = 2 * ONE_WAY..=injected + BOUND;
    ensure_precise(range.contains(&mean_rtt), || format!("{mean_rtt:?} with {injected:?} injected"))?;
    ensure!(rtt.count >= 2 * CONNECTIONS, "one sample of each connection a second: {rtt:?}");
    let server_rtt = stage.server_health()?.durations(&server_before, "rtt_seconds")?;
    let minimum = mean(&ss(&stage.server, "sport = :7000", "minrtt")?)?;
    check_rtt("server", &server_rtt, minimum, pinged)?;

    // The kernel's smoothed time forgets seven eighths with eight samples: what it says now comes from the second half.
    let smoothed = mean(&ss(&stage.client, "dport = :7000", "rtt")?)?;
    let ack = after.durations(&middle, "ack_seconds")?;
    let acknowledged = ack.mean()?;
    println!("client: ack {acknowledged:?} of {} samples, ss rtt {smoothed:?}", ack.count);
    ensure!(acknowledged > pinged[1] + THINK.mul_f64(0.8), "the thinking does not show: {acknowledged:?}");
    let difference = acknowledged.abs_diff(smoothed);
    ensure_precise(difference < Duration::from_millis(2), || {
        format!("{acknowledged:?}, but ss says {smoothed:?}")
    })
}

#[test]
fn round_trips_are_the_networks() -> Result<()> {
    check(false)
}

#[test]
fn round_trips_are_the_networks_over_ipv6() -> Result<()> {
    check(true)
}
