//! What is said of the routers themselves, and of nodes without any.

use anyhow::{Context as _, Result};
use lab::keepalived::Spec;
use lab::process::wait_for;
use lab::witness::tcpdump::adverts;
use lab::{Agent, AgentOptions, Place as _, wait_until};

use crate::stage::{LIMIT, Observer, Stage};

#[test]
fn every_advertisement_is_counted_on_every_node() -> Result<()> {
    let lab = Stage::lab()?;
    let mut stage = Stage::new(&lab, &Spec::default())?;
    let source = lab.node(1)?.address(false)?.to_string();
    let labels = [("interface", "eth0"), ("vrid", "51"), ("family", "ipv4"), ("source", &*source)];
    let vip = stage.vip.to_string();
    // Nobody takes over while node1 is silent.
    stage.trio.daemon(2)?.terminate()?;
    stage.trio.daemon(3)?.terminate()?;
    stage.trio.daemon(1)?.stop_child()?;
    let read = |observer: &Observer| -> Result<(u64, u64)> {
        let page = observer.agent.scrape()?;
        let counted = page.count("leadline_vrrp_advertisements_total", &labels).context("no count")?;
        Ok((counted, u64::try_from(adverts(&observer.capture.frames()?).len())?))
    };
    let settled = |observer: &Observer, least: u64| -> Result<(u64, u64)> {
        let mut last = None;
        wait_for("both to have stopped counting", LIMIT, || {
            let now = read(observer).ok();
            let is_same = now.is_some() && last == now && now.is_some_and(|(_, captured)| captured >= least);
            last = now;
            is_same.then_some(now).flatten()
        })
    };
    let before: Vec<_> =
        stage.observers.iter().map(|observer| settled(observer, 0)).collect::<Result<_>>()?;
    stage.trio.daemon(1)?.continue_child()?;
    for (observer, before) in stage.observers.iter_mut().zip(&before) {
        let more = |frames: &[_]| adverts(frames).len() as u64 >= before.1 + 20;
        observer.capture.wait_until("20 advertisements", LIMIT, more)?;
    }
    stage.trio.daemon(1)?.stop_child()?;
    for (observer, before) in stage.observers.iter().zip(&before) {
        let after = settled(observer, before.1 + 20)?;
        println!("node{}: {} counted and captured", observer.node, after.0 - before.0);
        assert_eq!(after.0 - before.0, after.1 - before.1, "node{}", observer.node);
        let page = observer.agent.scrape()?;
        assert_eq!(page.count("leadline_vrrp_priority", &labels), Some(150));
        assert_eq!(page.value("leadline_vrrp_advertisement_interval_seconds", &labels), Some(0.1));
        let announcer = [("vip", &*vip), ("source", &*source), ("protocol", "vrrp")];
        wait_until("the silence to be noticed", LIMIT, || {
            observer
                .agent
                .scrape()
                .is_ok_and(|page| page.count("leadline_vip_announcer", &announcer) == Some(0))
        })?;
        let held = page.count("leadline_vip_held", &[("vip", &vip)]);
        assert_eq!(held, Some(u64::from(observer.node == 1)), "node{}", observer.node);
    }
    Ok(())
}

#[test]
fn a_node_without_virtual_addresses_says_so_and_exports_nothing() -> Result<()> {
    let lab = Stage::lab()?;
    let agent = Agent::start(lab.node(1)?, &AgentOptions::default())?;
    let page = agent.scrape()?;
    let said = page
        .of("leadline_collector_support", |sample| sample.label("collector") == Some("vip"))
        .next()
        .context("nothing said of the collector")?;
    assert_eq!(said.label("level"), Some("no"));
    assert_eq!(said.label("reason"), Some("no virtual IP on this node's links"));
    let of_vips = page.all().iter().filter(|sample| sample.name.starts_with("leadline_v"));
    assert_eq!(of_vips.count(), 0);
    Ok(())
}
