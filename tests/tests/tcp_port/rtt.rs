//! Round trips of a watched port while the server thinks, as tcpdump sees them at either end.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::witness::segment::{End, answered, sent};
use lab::witness::tcpdump::{Capture, Frame};
use lab::witness::{ensure_precise, measured};
use lab::{Agent, Delay, Lab};

use crate::view::{View, expect};
use crate::{Members, PORT, start_lab};

const ONE_WAY: Duration = Duration::from_millis(10);
const THINK: Duration = Duration::from_millis(30);
const CONNECTIONS: u64 = 5;
/// What the least round trip may be off by.
const BOUND: Duration = Duration::from_micros(50);
/// Longer than the kernel delays an acknowledgement.
const LIMIT: Duration = Duration::from_secs(5);

/// The least round trip and the mean of the agent's against what the wire has.
fn check_end(agent: &Agent, peer: std::net::IpAddr, frames: &[Frame], end: End) -> Result<()> {
    let wire = answered(frames, PORT, end)?.round_trips;
    let (least, most) = (wire.iter().min().context("no round trip")?, wire.iter().max().context("none")?);
    let view = View::of(agent, PORT, peer)?;
    let shown = view.least().context("no least round trip")?;
    let (count, mean) = view.round_trips()?;
    println!("{end:?}: least {shown:?}, wire {least:?}; mean {mean:?} of {count}, wire at most {most:?}");
    ensure_precise(shown.abs_diff(*least) <= BOUND, || {
        format!("{end:?}: {shown:?}, but {least:?} on the wire")
    })?;
    let range = least.saturating_sub(BOUND)..=*most + BOUND;
    ensure_precise(range.contains(&mean), || format!("{end:?}: mean {mean:?}"))?;
    // The handshake, and at least one sample more of more than a second of exchanges.
    ensure!(count >= 2 * CONNECTIONS, "{end:?}: {count} samples");
    Ok(())
}

fn compare(lab: &Lab, ipv6: bool, one_way: Option<Duration>) -> Result<()> {
    let _delay = one_way.map(|one_way| Delay::insert(lab, lab.node(2)?, one_way)).transpose()?;
    let mut members = Members::start(lab, ipv6, THINK)?;
    let filter = format!("tcp port {PORT}");
    let mut captures = [1, 2].map(|node| Capture::start(lab.node(node)?, "eth0", &filter)).into_iter();
    let (mut near, mut far) = (captures.next().context("near")??, captures.next().context("far")??);
    let target = members.target(PORT);
    members.client.ask(&format!("open {target} E {CONNECTIONS}"))?;
    members.client.ask("exchange 45")?;
    // The last acknowledgements are delayed ones.
    for capture in [&mut near, &mut far] {
        let is_quiet =
            |frames: &[Frame]| answered(frames, PORT, End::Server).is_ok_and(|found| found.unanswered == 0);
        capture.wait_until("the last acknowledgements", LIMIT, is_quiet)?;
    }
    let (near, far) = (near.stop()?, far.stop()?);
    let ([one, two], [client, server]) = (&members.agents, members.addresses);
    check_end(one, server, &near, End::Client)?;
    check_end(two, client, &far, End::Server)?;
    if let Some(one_way) = one_way {
        let least = View::of(one, PORT, server)?.least().context("no least round trip")?;
        ensure!(least >= 2 * one_way && least < 2 * one_way + THINK, "{least:?} with {one_way:?} each way");
    }
    expect(one, PORT, server, &[("transmit_segments_total", sent(&near, PORT, End::Client)?)])?;
    expect(two, PORT, client, &[("transmit_segments_total", sent(&far, PORT, End::Server)?)])
}

fn check(ipv6: bool, one_way: Option<Duration>) -> Result<()> {
    measured(|| compare(&start_lab(ipv6)?, ipv6, one_way))
}

#[test]
fn the_least_round_trip_of_a_watched_port_is_that_of_the_wire() -> Result<()> {
    check(false, None)
}

#[test]
fn an_injected_delay_is_in_the_round_trips_of_a_watched_port() -> Result<()> {
    check(false, Some(ONE_WAY))
}

#[test]
fn an_injected_delay_is_in_the_round_trips_of_a_watched_port_over_ipv6() -> Result<()> {
    check(true, Some(ONE_WAY))
}
