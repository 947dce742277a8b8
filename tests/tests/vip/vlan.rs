//! Tagged frames belong to the VLAN's own link, whether the tag is in the frame, as at its sender, or beside it, where the
//! kernel puts that of a received one. What is sent is simulated: nothing here makes a device of a VLAN.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::scrape::Samples;
use lab::witness::measured;
use lab::witness::tcpdump::{adverts, claims, within_vlan};
use lab::{Node, Place as _};

use crate::crafted::{Repeater, Router, garps, send, station, tagged};
use crate::stage::{LIMIT, Observer, Stage, moves};
use crate::timeline::{check_errors, detail, error_of, seconds, wait_event};

const VLAN: u8 = 100;
const VRID: u8 = 51;
/// As the routers say themselves.
const INTERVAL: Duration = Duration::from_secs(1);

fn router(node: &Node, address: Ipv4Addr) -> Result<Router> {
    let source = node.ipv4().context("no address")?;
    Ok(Router { station: station(node), source, vrid: VRID, address })
}

fn in_vlan(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    frames.iter().map(|frame| tagged(frame, VLAN)).collect()
}

/// The interfaces that an address is known on.
fn interfaces(page: &Samples, vip: IpAddr) -> Vec<&str> {
    let of_vip = page.of("leadline_vip_info", move |sample| sample.label("vip") == Some(&*vip.to_string()));
    of_vip.filter_map(|sample| sample.label("interface")).collect()
}

/// Each number of a virtual router is another one on each link, and nobody is a stranger to it.
fn check_routers(page: &Samples, source: &str) -> Result<()> {
    for interface in ["eth0", "eth0.100"] {
        let router = [("interface", interface), ("vrid", "51"), ("family", "ipv4")];
        let labels = [&router[..], &[("source", source)]].concat();
        let advertisements = page.count("leadline_vrrp_advertisements_total", &labels);
        ensure!(advertisements >= Some(3), "{advertisements:?} advertisements on {interface}");
        assert_eq!(page.count("leadline_vrrp_foreign_routers", &router), Some(0), "{interface}");
    }
    Ok(())
}

#[test]
fn a_failover_within_a_vlan_is_timed_and_leaves_the_link_below_alone() -> Result<()> {
    measured(|| {
        let (inside, below) = (Ipv4Addr::new(192, 168, 56, 71), Ipv4Addr::new(192, 168, 56, 70));
        let lab = Stage::lab()?;
        let mut observers = Observer::everywhere(&lab)?;
        let (one, two) = (lab.node(1)?, lab.node(2)?);
        let (old, new) = (router(one, inside)?, router(two, inside)?);
        let untagged = Repeater::start(one, vec![router(one, below)?.advert(150)], INTERVAL)?;
        let before = Repeater::start(one, in_vlan(&[old.advert(150)]), INTERVAL)?;
        for observer in &mut observers {
            observer.capture.wait_until("advertisements with and without a tag", LIMIT, |frames| {
                adverts(frames).len() >= 3 && adverts(&within_vlan(frames, VLAN.into())).len() >= 3
            })?;
        }
        before.stop()?;
        send(one, &in_vlan(&[old.advert(0)]))?;
        let after = Repeater::start(two, in_vlan(&[new.advert(140)]), INTERVAL)?;
        send(two, &in_vlan(&garps(new.station, inside)))?;
        let mut errors = Vec::new();
        for observer in &observers {
            let event = wait_event(observer, ("vip_moved", 1), inside.into(), LIMIT)?;
            let told = (detail(&event, "from")?, detail(&event, "to")?, detail(&event, "cause")?);
            ensure!(told == (&old.source.to_string(), &new.source.to_string(), "shutdown"), "{event}");
            ensure!(detail(&event, "interface")? == "eth0.100" && detail(&event, "vrid")? == "51", "{event}");
            let frames = within_vlan(&observer.capture.frames()?, VLAN.into());
            let moved = moves(&frames, inside.into()).pop().context("no failover on the wire")?;
            let announce = moved.announce.context("the new owner has announced nothing")?;
            println!("node{}: {moved:?}", observer.node);
            errors.push(error_of(&event, moved.first)?);
            errors.push((seconds(&event, "detect_ms")? - moved.detect.as_secs_f64()).abs());
            errors.push((seconds(&event, "announce_ms")? - announce.as_secs_f64()).abs());
            let page = observer.agent.scrape()?;
            check_routers(&page, &old.source.to_string())
                .with_context(|| format!("node{}", observer.node))?;
            assert_eq!(interfaces(&page, inside.into()), ["eth0.100"], "node{}", observer.node);
            assert_eq!(interfaces(&page, below.into()), ["eth0"], "node{}", observer.node);
            let moved = page.sum("leadline_vip_failovers_total", |sample| {
                sample.label("vip") == Some(&*below.to_string())
            });
            assert_eq!(moved, Some(0), "node{}", observer.node);
        }
        check_errors("a failover within a VLAN", errors)?;
        untagged.stop()?;
        after.stop()
    })
}

#[test]
fn claims_with_and_without_a_tag_are_not_of_one_address() -> Result<()> {
    measured(|| {
        let address = Ipv4Addr::new(192, 168, 56, 72);
        let lab = Stage::lab()?;
        let mut observers = Observer::everywhere(&lab)?;
        let (one, two) = (lab.node(1)?, lab.node(2)?);
        send(one, &in_vlan(&garps(station(one), address)))?;
        send(two, &garps(station(two), address))?;
        for observer in &mut observers {
            observer.capture.wait_until("claims with and without a tag", LIMIT, |frames| {
                let tagged = within_vlan(frames, VLAN.into());
                claims(frames, address.into()).len() >= 2 && claims(&tagged, address.into()).len() >= 2
            })?;
            assert_eq!(
                interfaces(&observer.agent.scrape()?, address.into()),
                [""; 0],
                "node{}",
                observer.node
            );
        }
        send(two, &in_vlan(&garps(station(two), address)))?;
        let mut errors = Vec::new();
        for observer in &observers {
            let event = wait_event(observer, ("vip_moved", 1), address.into(), LIMIT)?;
            let told = (detail(&event, "from")?, detail(&event, "to")?, detail(&event, "interface")?);
            ensure!(told == (&one.mac(), &two.mac(), "eth0.100"), "{event}");
            let tagged = within_vlan(&observer.capture.frames()?, VLAN.into());
            let claims = claims(&tagged, address.into());
            let first = claims.iter().find(|claim| claim.mac == two.mac()).context("no claim")?;
            errors.push(error_of(&event, first.time)?);
            assert_eq!(
                interfaces(&observer.agent.scrape()?, address.into()),
                ["eth0.100"],
                "node{}",
                observer.node
            );
        }
        check_errors("a move within a VLAN", errors)
    })
}
