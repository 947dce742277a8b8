//! An hour of real advertisements at speed, through the agent's parser and state as the listener has them.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::keepalived::Spec;
use lab::witness::tcpdump::{Capture, Frame, adverts};
use lab::{Lab, LabOptions, Trio};
use leadline::collector::vip::happening::Happening;
use leadline::collector::vip::place::Passage;
use leadline::collector::vip::state::State;
use leadline::wire;

use crate::stage::LIMIT;

/// Advertisements that are recorded, which takes twenty seconds.
const RECORDED: usize = 200;
/// Those of an hour.
const HOUR: usize = 36_000;
/// The listener's: how often it looks for silence, and how long frames can be on their way to it.
const TICK: u64 = 100_000_000;
const LATENESS: u64 = 100_000_000;

/// What a bystander captures of a master that goes on.
fn record() -> Result<(Vec<Frame>, IpAddr)> {
    let lab = Lab::start(&LabOptions { nodes: 4, flannel: None })?;
    let trio = Trio::start(&lab, &Spec::default())?;
    let mut capture = Capture::start(lab.node(4)?, "eth0", "vrrp")?;
    capture.wait_until("twenty seconds of advertisements", LIMIT * 3, |frames| frames.len() >= RECORDED)?;
    let mut frames = capture.stop()?;
    frames.truncate(RECORDED);
    Ok((frames, trio.vip()?))
}

/// The times between the frames, the last of them between the last one and the first of the next round: the mean.
fn gaps(frames: &[Frame]) -> Result<Vec<u64>> {
    let (first, last) = (frames.first().context("no frame")?, frames.last().context("no frame")?);
    let mean = last.time.saturating_sub(first.time) / u32::try_from(frames.len() - 1)?;
    let between = frames.windows(2).map(|pair| pair[1].time.saturating_sub(pair[0].time));
    between.chain([mean]).map(|gap| Ok(u64::try_from(gap.as_nanos())?)).collect()
}

#[test]
fn an_hour_of_advertisements_without_an_incident_tells_of_none() -> Result<()> {
    let (frames, vip) = record()?;
    let all = adverts(&frames);
    ensure!(all.len() == RECORDED && all.iter().all(|advert| advert.source == all[0].source), "{all:?}");
    let gaps = gaps(&frames)?;
    let longest = Duration::from_nanos(gaps.iter().copied().max().unwrap_or_default());
    let interface = "eth0".into();
    let (mut state, mut told) = (State::default(), Vec::new());
    // The hour begins some time after the machine has.
    let (mut passage, mut tick) = (Passage { time: TICK * 10, interface, transmitted: false }, TICK * 10);
    let (begin, start) = (passage.time, Instant::now());
    for (frame, gap) in frames.iter().zip(&gaps).cycle().take(HOUR) {
        while tick < passage.time {
            told.extend(state.tick(tick.saturating_sub(LATENESS)));
            tick += TICK;
        }
        told.extend(state.observe(&passage, wire::observe(&wire::Capture::ethernet(&frame.bytes))));
        passage.time += gap;
    }
    println!(
        "{HOUR} advertisements of {:.1} s in {:?}, the longest gap {longest:?}",
        Duration::from_nanos(passage.time - begin).as_secs_f64(),
        start.elapsed()
    );
    let incidents = told.iter().map(|notice| notice.happening).filter(|happening| match happening {
        Happening::Owned { .. } => false,
        // A machine that was busy while this was recorded makes every round suspicious, and nothing else.
        Happening::Suspected => longest < all[0].interval * 5 / 2,
        _ => true,
    });
    let incidents: Vec<Happening> = incidents.collect();
    ensure!(incidents.is_empty(), "{} incidents: {:?}", incidents.len(), &incidents[..1]);
    let contest = state.contests().values().next().context("no virtual router")?;
    let router = contest.routers().values().next().context("no router")?;
    assert_eq!((state.contests().len(), contest.routers().len()), (1, 1));
    assert_eq!(router.advertisements(), HOUR as u64);
    assert_eq!(state.addresses().into_iter().collect::<Vec<_>>(), [vip]);
    assert_eq!((state.limited(), state.malformed().map(|(_, count)| count).sum::<u64>()), (0, 0));
    Ok(())
}
