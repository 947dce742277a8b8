//! Connects, accepts, and connects that fail, by reason.

use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::{Firewall, Place as _};
use nix::libc;

use crate::Stage;
use crate::program::Program;

const CLOSED: u16 = 7001;
const DROPPED: u16 = 7002;
const REJECTED: u16 = 7003;
const FORBIDDEN: u16 = 7004;

/// What the client's node does to SYNs of these ports.
fn rules(ipv6: bool) -> String {
    let (unreachable, forbidden) = if ipv6 {
        ("icmpv6 type addr-unreachable", "icmpv6 type admin-prohibited")
    } else {
        ("icmp type host-unreachable", "icmp type admin-prohibited")
    };
    format!(
        "chain pods {{ type filter hook forward priority 0;\n\
         tcp dport {DROPPED} counter drop\n\
         tcp dport {REJECTED} reject with {unreachable}\n\
         tcp dport {FORBIDDEN} reject with {forbidden}\n}}"
    )
}

/// Connects to a port that is handled specially and checks that each attempt failed as planned.
fn fail(client: &mut Program, stage: &Stage, ipv6: bool, port: u16, errno: i32, count: u64) -> Result<()> {
    let mut target = stage.target(ipv6)?;
    target.set_port(port);
    let codes = client.numbers(&format!("try {target} {count}"))?;
    assert_eq!(codes.len() as u64, count);
    assert!(codes.iter().all(|code| i32::try_from(*code) == Ok(errno)), "port {port}: {codes:?}");
    Ok(())
}

fn check(ipv6: bool) -> Result<()> {
    const CONNECTS: u64 = 40;
    let lab = Stage::lab(ipv6)?;
    let stage = Stage::new(&lab)?;
    // The second SYN follows after a second; the attempt ends a second or two after that.
    stage.client.run(&["sh", "-c", "echo 1 > /proc/sys/net/ipv4/tcp_syn_retries"])?;
    let _rules = Firewall::add(lab.node(1)?, "inet", "connects", &rules(ipv6))?;
    let (server, mut client) = stage.start_programs(ipv6, Duration::ZERO)?;
    let (before, server_before) = (stage.client_health()?, stage.server_health()?);

    let times = client.numbers(&format!("open {} E {CONNECTS}", stage.target(ipv6)?))?;
    client.ask("exchange 1")?;
    fail(&mut client, &stage, ipv6, CLOSED, libc::ECONNREFUSED, 7)?;
    fail(&mut client, &stage, ipv6, DROPPED, libc::ETIMEDOUT, 1)?;
    fail(&mut client, &stage, ipv6, REJECTED, libc::EHOSTUNREACH, 5)?;
    // ICMPv6 has an error of its own for this.
    let forbidden = if ipv6 { libc::EACCES } else { libc::EHOSTUNREACH };
    fail(&mut client, &stage, ipv6, FORBIDDEN, forbidden, 3)?;
    let mut dropped = stage.target(ipv6)?;
    dropped.set_port(DROPPED);
    client.ask(&format!("abort {dropped} 4"))?;

    let expected = [
        ("connects_total", CONNECTS),
        ("accepts_total", 0),
        ("connect_failures_total refused", 7),
        ("connect_failures_total timed_out", 1),
        ("connect_failures_total unreachable", 8),
        ("connect_failures_total aborted", 4),
        ("connect_failures_total other", 0),
    ];
    before.expect(&stage.agents[0], "client", &expected)?;
    let accepts = [("accepts_total", CONNECTS), ("connects_total", 0)];
    server_before.expect(&stage.agents[1], "server", &accepts)?;

    let connect = stage.client_health()?.durations(&before, "connect_seconds")?;
    assert_eq!(connect.count, CONNECTS);
    let witness = Duration::from_nanos(times.iter().sum::<u64>() / CONNECTS);
    let measured = connect.mean()?;
    println!("connect: measured {measured:?}, client {witness:?}");
    // The client's time includes the system call and, on a busy machine, the wait for a processor.
    assert!(measured <= witness + Duration::from_micros(1), "{measured:?} > {witness:?}");
    assert!(witness - measured <= Duration::from_millis(1), "{measured:?} << {witness:?}");
    drop(client);
    // One more for the warm-up.
    assert_eq!(server.finish()?.context("the server did not count")?, CONNECTS + 1);
    drop(stage);
    Ok(())
}

#[test]
fn connects_and_failures_are_counted_by_reason() -> Result<()> {
    check(false)
}

#[test]
fn connects_and_failures_are_counted_by_reason_over_ipv6() -> Result<()> {
    check(true)
}
