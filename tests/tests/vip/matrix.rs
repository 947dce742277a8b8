//! Every way in which keepalived was seen to fail, in version 2 with whole seconds, in version 3 with a tenth of one, and
//! with unicast peers: the cause, the times and the holders, as the old owner, the new one, a backup and a bystander
//! without keepalived see them.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::keepalived::Spec;
use lab::witness::measured;
use lab::witness::tcpdump::{Advert, Frame, adverts};
use lab::{Firewall, Lab, Place as _, Trio, wait_until};

use crate::failover::check;
use crate::stage::{BYSTANDER, LIMIT, Observer, Stage, moves};

/// How long the old owner must be back: three intervals of version 2, by when nobody else advertises.
const SETTLED: Duration = Duration::from_secs(3);

const TIE: Duration = Duration::from_millis(2);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Version2,
    Version3,
    Unicast,
}

impl Mode {
    fn start(self, lab: &Lab) -> Result<Stage> {
        match self {
            Self::Version2 => Stage::new(lab, &Spec::v2()),
            Self::Version3 => Stage::new(lab, &Spec::default()),
            Self::Unicast => Stage::with(lab, Trio::start_unicast(lab, &Spec::v2())?),
        }
    }

    /// Who hears nothing of it.
    const fn is_deaf(self, node: u8) -> bool {
        matches!(self, Self::Unicast) && node == BYSTANDER
    }
}

/// Waits until exactly these nodes have the address, and every agent says of its own node what `ip` does.
fn holders(lab: &Lab, stage: &Stage, mode: Mode, expected: &[u8]) -> Result<()> {
    let held =
        |index: u8| lab.node(index).is_ok_and(|node| node.holding(stage.vip).is_ok_and(|at| at.is_some()));
    let told = |observer: &Observer| {
        let labels = [("vip", &*stage.vip.to_string())];
        let page = observer.agent.scrape();
        page.ok().and_then(|page| page.count("leadline_vip_held", &labels))
    };
    wait_until(&format!("{expected:?} to have the address, and the agents to say so"), LIMIT, || {
        stage.observers.iter().all(|observer| {
            let is_held = held(observer.node);
            let is_told = mode.is_deaf(observer.node) || told(observer) == Some(u64::from(is_held));
            is_told && is_held == expected.contains(&observer.node)
        })
    })
    .with_context(|| format!("{:?}", (1..=BYSTANDER).filter(|index| held(*index)).collect::<Vec<_>>()))
}

/// Does something to the owner; everybody who hears of it but some knows the cause and the times, and then these have
/// the address.
fn row(
    mode: Mode,
    act: impl Fn(&Lab, &mut Stage) -> Result<()>,
    (cause, without, expected): (&str, &[u8], &[u8]),
) -> Result<()> {
    measured(|| {
        let lab = Stage::lab()?;
        let mut stage = mode.start(&lab)?;
        act(&lab, &mut stage)?;
        let deaf: Vec<u8> =
            (1..=BYSTANDER).filter(|node| mode.is_deaf(*node) || without.contains(node)).collect();
        check(&mut stage, cause, &deaf)?;
        holders(&lab, &stage, mode, expected)
    })
}

/// The child is killed and its parent starts another one, which waits as long as the backups do: whoever is first by some
/// microseconds has the address, as each observer sees it, and the old owner in the end.
fn reborn(mode: Mode) -> Result<()> {
    let lab = Stage::lab()?;
    let mut stage = mode.start(&lab)?;
    let vip = stage.vip;
    let one = lab.node(1)?.address(false)?;
    stage.trio.daemon(1)?.kill_child()?;
    for observer in stage.observers.iter_mut().filter(|observer| !mode.is_deaf(observer.node)) {
        let is_over = |frames: &[Frame]| {
            let last = adverts(frames).into_iter().rfind(|advert| advert.source == one);
            // Whoever else was the owner has given way by then.
            returned(frames, one).is_some_and(|back| last.is_some_and(|last| last.time > back + SETTLED))
        };
        observer.capture.wait_until("the old owner to be back", LIMIT, is_over)?;
        let mut last = None;
        let waited = wait_until("the failovers of the wire", LIMIT, || {
            let page = observer.agent.scrape().ok();
            let frames = observer.capture.frames().ok();
            last = page.zip(frames).map(|(page, frames)| (page, moves(&frames, vip)));
            last.as_ref().is_some_and(|(page, moves)| {
                page.sum("leadline_vip_failovers_total", |_| true) == Some(moves.len() as u64)
            })
        });
        let (page, moves) = last.context("no page")?;
        println!("node{}: {moves:?}", observer.node);
        if is_tie(&observer.capture.frames()?, one) {
            println!("node{}: both at once, and in either order", observer.node);
            continue;
        }
        waited.with_context(|| format!("node{}: {moves:?}", observer.node))?;
        let is_timeout = Observer::failovers(&page, vip, "timeout") >= Some(1);
        ensure!(moves.is_empty() || is_timeout, "no timeout, but {moves:?}");
    }
    holders(&lab, &stage, mode, &[1])
}

/// When a router advertised again that had been silent for two intervals.
fn returned(frames: &[Frame], router: IpAddr) -> Option<Duration> {
    let own: Vec<Advert> = adverts(frames).into_iter().filter(|advert| advert.source == router).collect();
    let is_gap = |pair: &[Advert]| pair[1].time.saturating_sub(pair[0].time) > pair[1].interval * 2;
    own.windows(2).rev().find(|pair| is_gap(pair)).map(|pair| pair[1].time)
}

/// Whether another router began within a moment of its return: who was first is a matter of microseconds, which even
/// tcpdump and its own times do not agree on.
fn is_tie(frames: &[Frame], router: IpAddr) -> bool {
    returned(frames, router).is_some_and(|back| {
        let all = adverts(frames);
        let others = all.iter().filter(|advert| advert.source != router);
        others.map(|advert| advert.time).min().is_some_and(|first| first.abs_diff(back) < TIE)
    })
}

/// Both backups stop hearing: three owners until they do again.
fn deaf(mode: Mode) -> Result<()> {
    let lab = Stage::lab()?;
    let stage = mode.start(&lab)?;
    let rules = [Firewall::deaf(lab.node(2)?)?, Firewall::deaf(lab.node(3)?)?];
    let conflict = |expected: u64| -> Result<()> {
        for observer in stage.observers.iter().filter(|observer| !mode.is_deaf(observer.node)) {
            let labels = [("vip", &*stage.vip.to_string())];
            wait_until(&format!("conflict {expected}"), LIMIT, || {
                let page = observer.agent.scrape();
                page.is_ok_and(|page| page.count("leadline_vip_conflict", &labels) == Some(expected))
            })
            .with_context(|| format!("node{}", observer.node))?;
        }
        Ok(())
    };
    conflict(1)?;
    holders(&lab, &stage, mode, &[1, 2, 3])?;
    drop(rules);
    conflict(0)?;
    holders(&lab, &stage, mode, &[1])
}

/// The address is deleted on its owner, which takes it back; where a backup's few milliseconds more were not enough, the
/// backup had it meanwhile.
fn deleted(mode: Mode) -> Result<()> {
    let lab = Stage::lab()?;
    let mut stage = mode.start(&lab)?;
    let vip: IpAddr = stage.vip;
    lab.node(1)?.remove_address(vip)?;
    for observer in stage.observers.iter_mut().filter(|observer| !mode.is_deaf(observer.node)) {
        let (page, moves) = observer.wait_moves(vip)?;
        let first = moves.first().context("no move")?;
        println!("node{}: {moves:?}", observer.node);
        let cause = if first.from == first.to { "address_removed" } else { "shutdown" };
        ensure!(Observer::failovers(&page, vip, cause) >= Some(1), "not {cause}: {moves:?}");
        ensure!(mode == Mode::Version3 || cause == "address_removed", "a backup was faster: {moves:?}");
    }
    holders(&lab, &stage, mode, &[1])
}

macro_rules! rows {
    ($($name:ident: $mode:expr;)*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn a_stop_is_a_shutdown() -> Result<()> {
                row($mode, |_, stage| stage.trio.daemon(1)?.terminate().map(drop), ("shutdown", &[], &[2]))
            }

            #[test]
            fn a_parent_that_is_killed_lets_its_child_say_goodbye() -> Result<()> {
                row($mode, |_, stage| stage.trio.daemon(1)?.kill_parent(), ("shutdown", &[], &[2]))
            }

            #[test]
            fn a_child_that_is_killed_is_away_until_it_is_started_again() -> Result<()> {
                reborn($mode)
            }

            #[test]
            fn a_crash_is_a_timeout_and_leaves_the_address_on_two_nodes() -> Result<()> {
                row($mode, |_, stage| stage.trio.daemon(1)?.kill_both(), ("timeout", &[], &[1, 2]))
            }

            #[test]
            fn a_hang_is_a_timeout_and_leaves_the_address_on_two_nodes() -> Result<()> {
                row($mode, |_, stage| stage.trio.daemon(1)?.stop_child(), ("timeout", &[], &[1, 2]))
            }

            #[test]
            fn a_device_that_is_set_down_is_silence_at_the_others() -> Result<()> {
                row($mode, |lab, _| lab.node(1)?.ip("link set eth0 down"), ("timeout", &[1], &[2]))
            }

            #[test]
            fn a_port_that_is_set_down_is_silence_at_the_others() -> Result<()> {
                row($mode, |lab, _| lab.plug(lab.node(1)?, false), ("timeout", &[1], &[2]))
            }

            #[test]
            fn backups_that_do_not_hear_are_owners_as_well() -> Result<()> {
                deaf($mode)
            }

            #[test]
            fn an_address_that_is_deleted_comes_back_to_its_owner() -> Result<()> {
                deleted($mode)
            }
        }
    )*};
}

rows! {
    version2: Mode::Version2;
    version3: Mode::Version3;
    unicast: Mode::Unicast;
}
