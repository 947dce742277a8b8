//! Three nodes that share a virtual address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Keepalived, LIMIT, Spec, wait_master};
use crate::cluster::Lab;
use crate::node::Node;
use crate::place::Place as _;
use crate::witness::tcpdump::{Capture, Frame, VRRP_FILTER, adverts};

/// The priorities of node1, node2 and node3.
pub const PRIORITIES: [u8; 3] = [150, 140, 130];

/// A keepalived on each of the first three nodes; node1 has the virtual addresses at first.
#[derive(Debug)]
pub struct Trio {
    daemons: BTreeMap<u8, Keepalived>,
    spec: Spec,
}

impl Trio {
    /// Starts all three with that specification but their own priorities, and waits until node1 has the addresses, the
    /// others know it, and it has advertised for a second.
    pub fn start(lab: &Lab, spec: &Spec) -> Result<Self> {
        let specs = (1..).zip(PRIORITIES).map(|(index, priority)| {
            let node = lab.node(index)?;
            Ok((node, Spec { priority, ..spec.clone() }))
        });
        Self::start_all(lab, specs.collect::<Result<_>>()?)
    }

    /// The same, but each advertises to the two others instead of the multicast group.
    pub fn start_unicast(lab: &Lab, spec: &Spec) -> Result<Self> {
        let nodes = (1..=3).map(|index| lab.node(index)).collect::<Result<Vec<_>>>()?;
        let specs = nodes.iter().zip(PRIORITIES).map(|(node, priority)| {
            let others = nodes.iter().filter(|other| other.index() != node.index());
            let peers = others.map(|other| other.address(spec.is_ipv6())).collect::<Result<_>>()?;
            Ok((*node, Spec { priority, unicast_peers: Some(peers), ..spec.clone() }))
        });
        Self::start_all(lab, specs.collect::<Result<_>>()?)
    }

    fn start_all(lab: &Lab, specs: Vec<(&Node, Spec)>) -> Result<Self> {
        let capture = Capture::start(lab.switch()?, "br0", VRRP_FILTER)?;
        let [(first, spec), ..] = &specs[..] else { anyhow::bail!("a trio of nobody") };
        let (first, spec) = ((*first).clone(), spec.clone());
        let mut daemons = BTreeMap::new();
        let mut starting = specs.into_iter();
        // The first one alone: whoever comes later finds a master, so there is one transition in all.
        if let Some((node, spec)) = starting.next() {
            let mut daemon = Keepalived::start(node, &spec)?;
            wait_master(node, vip(&spec)?, spec.master_down() + LIMIT)
                .with_context(|| daemon.log().unwrap_or_default())?;
            daemon.wait_ready()?;
            daemons.insert(node.index(), daemon);
        }
        for (node, spec) in starting {
            daemons.insert(node.index(), Keepalived::begin(node, &spec)?);
        }
        for daemon in daemons.values_mut() {
            daemon.wait_ready()?;
        }
        settle(capture, &first, &spec)?;
        Ok(Self { daemons, spec })
    }

    /// The keepalived of that node, from 1.
    pub fn daemon(&mut self, index: u8) -> Result<&mut Keepalived> {
        self.daemons.get_mut(&index).with_context(|| format!("the trio has no node{index}"))
    }

    /// What the one with the highest priority does.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The first virtual address.
    pub fn vip(&self) -> Result<IpAddr> {
        vip(&self.spec)
    }
}

fn vip(spec: &Spec) -> Result<IpAddr> {
    spec.addresses.first().map(|vip| vip.address).context("no virtual address")
}

/// Waits for a second's worth of the master's advertisements, counted from now.
fn settle(mut capture: Capture, master: &Node, spec: &Spec) -> Result<()> {
    let wanted = (1_000 / spec.interval.as_millis().max(1)).max(1);
    let before = capture.frames()?.len();
    let limit = Duration::from_secs(1) + spec.interval + LIMIT;
    let what = format!("{wanted} advertisements of {}", master.name());
    // Unicast sends each one to several peers.
    let by_master = |frames: &[Frame]| {
        let all = adverts(frames);
        let by_master = all.iter().filter(|advert| advert.priority == spec.priority);
        by_master.filter(|advert| advert.destination == all[0].destination).count() as u128
    };
    capture.wait_until(&what, limit, |frames| by_master(&frames[before..]) >= wanted)?;
    capture.stop().map(drop)
}
