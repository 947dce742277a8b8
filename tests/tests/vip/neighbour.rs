//! A node that has not heard an announcement, and goes on to send to where the address was.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use lab::keepalived::{Spec, wait_master};
use lab::{Firewall, Node, Place as _, wait_until};
use serde_json::Value;

use crate::stage::{BYSTANDER, LIMIT, Observer, Stage};

/// The tap comes before this, and hears what the kernel does not.
const DEAF: &str = "chain i { type filter hook input priority 0; drop; }";

/// What `ip -json` prints, which for nothing at all is nothing at all in some versions.
fn ip_json(node: &Node, arguments: &[&str]) -> Result<Value> {
    let text = node.run(&[&["ip", "-json"], arguments].concat())?;
    let text = if text.trim().is_empty() { "[]" } else { &text };
    serde_json::from_str(text).with_context(|| format!("ip {arguments:?} on {}", node.name()))
}

/// Where the node believes the address to be.
fn neighbour(node: &Node, vip: IpAddr) -> Result<Option<String>> {
    let entries = ip_json(node, &["neigh", "show", "to", &vip.to_string(), "dev", "eth0"])?;
    Ok(entries[0]["lladdr"].as_str().map(str::to_owned))
}

/// The hardware address of the node's device.
fn hardware(node: &Node) -> Result<String> {
    let links = ip_json(node, &["link", "show", "dev", "eth0"])?;
    links[0]["address"].as_str().map(str::to_owned).context("no hardware address")
}

/// Has the node find out anew where the address is.
fn renew(node: &Node, vip: IpAddr) -> Result<()> {
    let vip = vip.to_string();
    node.run(&["ip", "neigh", "flush", "to", &vip, "dev", "eth0"])?;
    node.run(&["ping", "-c", "1", "-W", "5", &vip]).map(drop)
}

/// Waits until the agent says of its node what `ip neigh` says there and `ip link` on the owner's, and that this is it.
/// The owner itself may have an entry from before, which it does not use.
fn wait_stale(observer: &Observer, node: &Node, vip: IpAddr, owner: &str, expected: bool) -> Result<()> {
    let mut last = None;
    let waited = wait_until("the agent to agree with ip neigh", LIMIT, || {
        let entry = neighbour(node, vip).ok();
        let is_used = node.holding(vip).is_ok_and(|held| held.is_none());
        let is_stale = entry.as_ref().map(|entry| is_used && entry.as_ref().is_some_and(|mac| mac != owner));
        let said = observer.count("leadline_vip_neighbour_stale", vip).ok();
        last = Some((entry, said));
        is_stale == Some(expected) && said == Some(u64::from(expected))
    });
    waited.with_context(|| format!("{}: {last:?}, the owner is at {owner}", node.name()))
}

#[test]
fn an_entry_for_the_old_owner_is_stale_until_it_is_renewed() -> Result<()> {
    let lab = Stage::lab()?;
    let mut stage = Stage::new(&lab, &Spec::v2())?;
    let (vip, old, new) = (stage.vip, hardware(lab.node(1)?)?, hardware(lab.node(2)?)?);
    let four = lab.node(BYSTANDER)?;
    // node2 and node3 have an entry as well, but one of them takes the address and the other hears so.
    for node in [lab.node(2)?, lab.node(3)?, four] {
        renew(node, vip)?;
        let entry = neighbour(node, vip)?;
        ensure!(entry.as_ref() == Some(&old), "{}: {entry:?}", node.name());
    }
    for observer in &stage.observers {
        wait_stale(observer, lab.node(observer.node)?, vip, &old, false)?;
    }
    let deaf = Firewall::add(four, "arp", "deaf", DEAF)?;
    stage.trio.daemon(1)?.terminate()?;
    wait_master(lab.node(2)?, vip, LIMIT)?;
    let bystander = stage.observers.last().context("no observer")?;
    wait_stale(bystander, four, vip, &new, true)?;
    ensure!(neighbour(four, vip)?.as_ref() == Some(&old), "node4 has found the new owner");
    for observer in stage.observers.iter().filter(|observer| observer.node != BYSTANDER) {
        wait_stale(observer, lab.node(observer.node)?, vip, &new, false)?;
    }
    let entry = neighbour(lab.node(3)?, vip)?;
    ensure!(entry.as_ref() == Some(&new), "node3: {entry:?}");
    drop(deaf);
    renew(four, vip)?;
    wait_stale(bystander, four, vip, &new, false)?;
    let entry = neighbour(four, vip)?;
    ensure!(entry.as_ref() == Some(&new), "node4: {entry:?}");
    Ok(())
}
