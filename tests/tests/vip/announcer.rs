//! Addresses that stations only announce to their neighbours: kube-vip, which goes on for ever, and `MetalLB`, which does
//! so for some seconds after it has taken an address. What they send is simulated, the rest is not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::scrape::Samples;
use lab::witness::measured;
use lab::witness::tcpdump::{Claim, claims, sent};
use lab::{Acceptor, Lab, Node, Place as _, wait_until};

use crate::crafted::{Repeater, garps, neighbour_advertisement, send, station};
use crate::stage::{BYSTANDER, LIMIT, Observer, PORT, Stage};
use crate::timeline::{about, check_errors, detail, error_of, seconds, wait_event};

/// Between two claims of kube-vip; its own three seconds would make this three times as long.
const PERIOD: Duration = Duration::from_secs(1);
/// Claims after which an announcer is known to go on for ever.
const FOR_EVER: usize = 17;
const A_WHILE: Duration = Duration::from_secs(30);

/// kube-vip on that node: both forms of gratuitous ARP in turn.
fn kube_vip(node: &Node, address: Ipv4Addr) -> Result<Repeater> {
    Repeater::start(node, garps(station(node), address).into(), PERIOD)
}

/// `MetalLB` on that node takes the address: both forms at once, every 1.1 s for five seconds.
fn metallb(node: &Node, address: Ipv4Addr, observers: &mut [Observer]) -> Result<()> {
    const SPACING: Duration = Duration::from_millis(1_100);
    let vip = address.into();
    let (forms, before) = (garps(station(node), address), claimed(&observers[0], node, vip)?.len());
    let burst = Repeater::start(node, vec![forms[0].clone()], SPACING)?;
    let replies = Repeater::start(node, vec![forms[1].clone()], SPACING)?;
    wait_claims(observers, node, vip, before + 10)?;
    burst.stop()?;
    replies.stop()
}

fn by(all: Vec<Claim>, node: &Node) -> Vec<Claim> {
    all.into_iter().filter(|claim| claim.mac == node.mac()).collect()
}

/// The claims of a node that this observer's tcpdump has.
fn claimed(observer: &Observer, node: &Node, vip: IpAddr) -> Result<Vec<Claim>> {
    Ok(by(claims(&observer.capture.frames()?, vip), node))
}

fn wait_claims(observers: &mut [Observer], node: &Node, vip: IpAddr, number: usize) -> Result<()> {
    for observer in observers {
        let what = format!("{number} claims of {vip} by {}", node.name());
        observer
            .capture
            .wait_until(&what, A_WHILE, |frames| by(claims(frames, vip), node).len() >= number)?;
    }
    Ok(())
}

/// The only series of that name with these labels, of one address.
fn count(page: &Samples, name: &str, vip: IpAddr, labels: &[(&str, &str)]) -> Option<u64> {
    let vip = vip.to_string();
    page.count(name, &[&[("vip", &*vip)], labels].concat())
}

fn announces(page: &Samples, vip: IpAddr, node: &Node, protocol: &str) -> Option<u64> {
    let labels = [("source", &*node.mac()), ("protocol", protocol)];
    count(page, "leadline_vip_announcer", vip, &labels)
}

/// Nothing at all is said of an address that only one station has claimed: every host that starts claims its own.
fn check_unknown(observers: &[Observer], vip: IpAddr) -> Result<()> {
    for observer in observers {
        let page = observer.agent.scrape()?;
        let of_vip = page.all().iter().filter(|sample| sample.label("vip") == Some(&*vip.to_string()));
        ensure!(of_vip.count() == 0, "node{} has series of {vip}", observer.node);
    }
    Ok(())
}

/// The last of so many moves at every observer, by its tcpdump from the last claim of one node to the first of the other
/// after that. Where the old owner was not known to go on, nobody can tell when it was last there.
fn check_move(
    observers: &[Observer],
    vip: IpAddr,
    number: usize,
    (from, to): (&Node, &Node),
    (cause, is_timed): (&str, bool),
) -> Result<()> {
    let mut errors = Vec::new();
    for observer in observers {
        let event = wait_event(observer, ("vip_moved", number), vip, A_WHILE)?;
        let told = (detail(&event, "from")?, detail(&event, "to")?, detail(&event, "cause")?);
        ensure!(told == (&from.mac(), &to.mac(), cause), "node{}: {event}", observer.node);
        let all = claims(&observer.capture.frames()?, vip);
        let turns: Vec<[&Claim; 2]> = all
            .windows(2)
            .map(|pair| [&pair[0], &pair[1]])
            .filter(|[before, after]| (&before.mac, &after.mac) == (&from.mac(), &to.mac()))
            .collect();
        let [last, first] = turns.last().with_context(|| format!("no move of {vip} on the wire"))?;
        errors.push(error_of(&event, first.time)?);
        ensure!(event["details"]["detect_ms"].is_string() == is_timed, "node{}: {event}", observer.node);
        if is_timed {
            errors.push(
                (seconds(&event, "detect_ms")? - first.time.saturating_sub(last.time).as_secs_f64()).abs(),
            );
        }
        let page = observer.agent.scrape()?;
        let protocol = if vip.is_ipv4() { "arp" } else { "ndp" };
        let info = [("protocol", protocol), ("interface", "eth0"), ("vrid", "")];
        assert_eq!(count(&page, "leadline_vip_info", vip, &info), Some(1), "node{}", observer.node);
        assert_eq!(announces(&page, vip, from, protocol), Some(0), "node{}", observer.node);
        assert_eq!(announces(&page, vip, to, protocol), Some(1), "node{}", observer.node);
        let moved = count(&page, "leadline_vip_failovers_total", vip, &[("cause", cause)]);
        ensure!(moved >= Some(1), "node{}: {moved:?} for {cause}", observer.node);
        let moved =
            page.sum("leadline_vip_failovers_total", |sample| sample.label("vip") == Some(&*vip.to_string()));
        assert_eq!(moved, Some(number as u64), "node{}", observer.node);
    }
    check_errors(&format!("move {number} of {vip} for {cause}"), errors)
}

/// Every observer has the silence of the owner since its last claim, and its end if it has come back.
fn check_silence(observers: &mut [Observer], vip: IpAddr, owner: &Node, is_back: bool) -> Result<()> {
    // Only the silence is longer than two of its periods.
    let is_gap = |pair: &&[Claim]| pair[1].time.saturating_sub(pair[0].time) > PERIOD * 2;
    let mut errors = Vec::new();
    for observer in observers {
        let lost = wait_event(observer, ("vip_lost", 1), vip, LIMIT)?;
        ensure!(detail(&lost, "source")? == owner.mac(), "{lost}");
        if is_back {
            let what = format!("a claim of {vip} after the silence");
            observer.capture.wait_until(&what, LIMIT, |frames| {
                by(claims(frames, vip), owner).windows(2).any(|pair| is_gap(&pair))
            })?;
        }
        let all = claimed(observer, owner, vip)?;
        let gap = all.windows(2).find(is_gap);
        let last = gap.map_or_else(|| all.last().cloned(), |pair| pair.first().cloned());
        let last = last.context("no claim")?;
        errors.push(error_of(&lost, last.time)?);
        if is_back {
            let back = wait_event(observer, ("vip_returned", 1), vip, LIMIT)?;
            let first = &gap.context("no silence on the wire")?[1];
            errors.push(error_of(&back, first.time)?);
            errors.push(
                (seconds(&back, "silent_ms")? - first.time.saturating_sub(last.time).as_secs_f64()).abs(),
            );
        }
        let page = observer.agent.scrape()?;
        let expected = Some(u64::from(is_back));
        assert_eq!(announces(&page, vip, owner, "arp"), expected, "node{}", observer.node);
    }
    check_errors(&format!("silence of {vip}"), errors)
}

/// Every observer has seen the new owner serve: its first segment after its first claim, and the time since the last sign
/// of the old owner.
fn check_service(observers: &mut [Observer], vip: IpAddr, (from, to): (&Node, &Node)) -> Result<()> {
    let mut errors = Vec::new();
    for observer in observers {
        let event = wait_event(observer, ("vip_converged", 1), vip, LIMIT)?;
        let frames = observer.capture.frames()?;
        let first = by(claims(&frames, vip), to).into_iter().next().context("no claim")?;
        let last = by(claims(&frames, vip), from).into_iter().next_back().context("no claim")?;
        let segments = sent(&frames, vip);
        let served = segments.iter().find(|sent| sent.mac == to.mac()).context("nothing was served")?;
        let page = observer.agent.scrape()?;
        let (converge, total) =
            (Observer::phase(&page, vip, "converge")?, Observer::phase(&page, vip, "total")?);
        println!("node{}: converge {converge:.6} s, total {total:.6} s", observer.node);
        errors.push(error_of(&event, served.time)?);
        errors.push((converge - served.time.saturating_sub(first.time).as_secs_f64()).abs());
        errors.push((total - served.time.saturating_sub(last.time).as_secs_f64()).abs());
    }
    check_errors(&format!("service of {vip}"), errors)
}

/// Only a node that has had it on a device says whether it holds an address that is only announced.
fn check_held(observers: &[Observer], vip: IpAddr, holder: Option<&Node>, held: u64) -> Result<()> {
    for observer in observers {
        let expected = holder.filter(|holder| holder.index() == observer.node).map(|_| held);
        let mut last = None;
        wait_until("who holds the address", LIMIT, || {
            let page = observer.agent.scrape().ok();
            last = page.map(|page| count(&page, "leadline_vip_held", vip, &[]));
            last == Some(expected)
        })
        .with_context(|| format!("node{}: {last:?} instead of {expected:?}", observer.node))?;
    }
    Ok(())
}

fn connect(from: &Node, vip: IpAddr) -> Result<()> {
    let connected = from.net(|| TcpStream::connect_timeout(&SocketAddr::new(vip, PORT), LIMIT))?;
    connected.with_context(|| format!("{} to {vip}", from.name())).map(drop)
}

fn stage() -> Result<(Lab, Vec<Observer>)> {
    let lab = Stage::lab()?;
    let observers = Observer::everywhere(&lab)?;
    Ok((lab, observers))
}

#[test]
fn one_that_repeats_its_claim_for_ever_is_missed_and_handed_over() -> Result<()> {
    measured(|| {
        let (handed, returns, taken) = (
            Ipv4Addr::new(192, 168, 56, 60),
            Ipv4Addr::new(192, 168, 56, 61),
            Ipv4Addr::new(192, 168, 56, 62),
        );
        let (lab, mut observers) = stage()?;
        let (one, two) = (lab.node(1)?, lab.node(2)?);
        // Two of the addresses were at the other node before.
        for address in [returns, taken] {
            send(two, &garps(station(two), address))?;
            wait_claims(&mut observers, two, address.into(), 2)?;
            check_unknown(&observers, address.into())?;
        }
        let before = [kube_vip(one, handed)?, kube_vip(one, returns)?, kube_vip(one, taken)?];
        for address in [handed, returns, taken] {
            wait_claims(&mut observers, one, address.into(), FOR_EVER)?;
        }
        check_unknown(&observers, handed.into())?;
        for address in [returns, taken] {
            check_move(&observers, address.into(), 1, (two, one), ("unknown", false))?;
        }
        two.ip(&format!("address add {handed}/24 dev eth0\n"))?;
        let service = Acceptor::start(two, handed.into(), PORT)?;
        before.into_iter().try_for_each(Repeater::stop)?;
        let new_owner = kube_vip(two, handed)?;
        check_move(&observers, handed.into(), 1, (one, two), ("unknown", true))?;
        connect(lab.node(BYSTANDER)?, handed.into())?;
        check_service(&mut observers, handed.into(), (one, two))?;
        ensure!(service.accepted() > 0, "nobody was served");
        check_held(&observers, handed.into(), Some(two), 1)?;
        for address in [returns, taken] {
            check_silence(&mut observers, address.into(), one, false)?;
            check_held(&observers, address.into(), None, 0)?;
        }
        let announcers = [kube_vip(one, returns)?, kube_vip(two, taken)?, new_owner];
        check_silence(&mut observers, returns.into(), one, true)?;
        check_move(&observers, taken.into(), 2, (one, two), ("timeout", true))?;
        announcers.into_iter().try_for_each(Repeater::stop)
    })
}

#[test]
fn one_that_claims_an_address_only_when_it_takes_it_moves_it_there_and_back() -> Result<()> {
    measured(|| {
        let address = Ipv4Addr::new(192, 168, 56, 63);
        let vip = address.into();
        let (lab, mut observers) = stage()?;
        let (one, two) = (lab.node(1)?, lab.node(2)?);
        metallb(one, address, &mut observers)?;
        check_unknown(&observers, vip)?;
        two.ip(&format!("address add {address}/24 dev eth0\n"))?;
        metallb(two, address, &mut observers)?;
        check_move(&observers, vip, 1, (one, two), ("unknown", false))?;
        check_held(&observers, vip, Some(two), 1)?;
        two.remove_address(vip)?;
        check_held(&observers, vip, Some(two), 0)?;
        // Who comes back at once could be one that has not heard of the other: it moves when the other does not answer.
        metallb(one, address, &mut observers)?;
        check_move(&observers, vip, 2, (two, one), ("unknown", false))?;
        for observer in &observers {
            let page = observer.agent.scrape()?;
            for name in ["leadline_vip_conflicts_total", "leadline_vip_brief_doubles_total"] {
                assert_eq!(count(&page, name, vip, &[]), Some(0), "node{}: {name}", observer.node);
            }
            ensure!(about(observer, "vip_lost", vip)?.is_empty(), "node{}", observer.node);
        }
        Ok(())
    })
}

#[test]
fn two_that_claim_an_address_in_turn_are_a_conflict_until_one_stops() -> Result<()> {
    measured(|| {
        let address = Ipv4Addr::new(192, 168, 56, 64);
        let vip = address.into();
        let (lab, mut observers) = stage()?;
        let (one, two) = (lab.node(1)?, lab.node(2)?);
        let first = kube_vip(one, address)?;
        wait_claims(&mut observers, one, vip, 2)?;
        let second = kube_vip(two, address)?;
        for observer in &observers {
            wait_event(observer, ("vip_conflict_opened", 1), vip, LIMIT)?;
            let page = observer.agent.scrape()?;
            assert_eq!(count(&page, "leadline_vip_conflict", vip, &[]), Some(1), "node{}", observer.node);
            for node in [one, two] {
                assert_eq!(announces(&page, vip, node, "arp"), Some(1), "node{}", observer.node);
            }
        }
        wait_claims(&mut observers, one, vip, 8)?;
        first.stop()?;
        let mut errors = Vec::new();
        for observer in &observers {
            let closed = wait_event(observer, ("vip_conflict_closed", 1), vip, A_WHILE)?;
            let opened = wait_event(observer, ("vip_conflict_opened", 1), vip, LIMIT)?;
            let since = claimed(observer, two, vip)?.into_iter().next().context("no claim")?.time;
            let until = claimed(observer, one, vip)?.into_iter().next_back().context("no claim")?.time;
            errors.extend([error_of(&opened, since)?, error_of(&closed, until)?]);
            let page = observer.agent.scrape()?;
            let told = page.value("leadline_vip_conflict_seconds_total", &[("vip", &vip.to_string())]);
            for lasted in [told.context("no duration")?, seconds(&closed, "lasted_ms")?] {
                errors.push((lasted - until.saturating_sub(since).as_secs_f64()).abs());
            }
            assert_eq!(count(&page, "leadline_vip_conflict", vip, &[]), Some(0), "node{}", observer.node);
            assert_eq!(
                count(&page, "leadline_vip_conflicts_total", vip, &[]),
                Some(1),
                "node{}",
                observer.node
            );
            assert_eq!(announces(&page, vip, one, "arp"), Some(0), "node{}", observer.node);
        }
        check_errors("the conflict", errors)?;
        second.stop()
    })
}

#[test]
fn an_ipv6_address_is_announced_by_neighbour_advertisements() -> Result<()> {
    measured(|| {
        let address = Ipv6Addr::new(0xfd56, 0, 0, 0, 0, 0, 0, 0x60);
        let vip = address.into();
        let (lab, mut observers) = stage()?;
        let (one, two) = (lab.node(1)?, lab.node(2)?);
        send(one, &[neighbour_advertisement(station(one), address)])?;
        wait_claims(&mut observers, one, vip, 1)?;
        check_unknown(&observers, vip)?;
        send(two, &[neighbour_advertisement(station(two), address)])?;
        check_move(&observers, vip, 1, (one, two), ("unknown", false))
    })
}
