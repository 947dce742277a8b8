//! Three nodes with keepalived and a fourth without, an agent and a tcpdump on each.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::keepalived::Spec;
use lab::scrape::Samples;
use lab::witness::tcpdump::{Advert, Capture, Frame, VRRP_FILTER, adverts, claims};
use lab::{Agent, AgentOptions, Lab, LabOptions, Node, Trio, wait_until};

/// Long enough for keepalived to fail over and for the agent to have waited for the announcement.
pub(crate) const LIMIT: Duration = Duration::from_secs(15);

/// The node without keepalived.
pub(crate) const BYSTANDER: u8 = 4;

pub(crate) struct Stage {
    pub(crate) trio: Trio,
    pub(crate) vip: IpAddr,
    pub(crate) observers: Vec<Observer>,
}

/// An agent, and what it is compared with.
pub(crate) struct Observer {
    pub(crate) node: u8,
    pub(crate) agent: Agent,
    pub(crate) capture: Capture,
}

impl Stage {
    pub(crate) fn lab() -> Result<Lab> {
        Lab::start(&LabOptions { nodes: BYSTANDER, flannel: None })
    }

    /// The trio with node1 as master, and observers that know it.
    pub(crate) fn new(lab: &Lab, spec: &Spec) -> Result<Self> {
        Self::with(lab, Trio::start(lab, spec)?)
    }

    pub(crate) fn with(lab: &Lab, trio: Trio) -> Result<Self> {
        let vip = trio.vip()?;
        let observers: Vec<Observer> = lab.nodes().iter().map(Observer::start).collect::<Result<_>>()?;
        for observer in observers.iter().filter(|observer| observer.hears(&trio)) {
            let text = vip.to_string();
            wait_until("the agent to know the address", LIMIT, || {
                observer
                    .agent
                    .scrape()
                    .is_ok_and(|page| page.value("leadline_vip_conflict", &[("vip", &text)]).is_some())
            })
            .with_context(|| format!("node{}", observer.node))?;
        }
        Ok(Self { trio, vip, observers })
    }
}

impl Observer {
    fn start(node: &Node) -> Result<Self> {
        let options = AgentOptions { limit: Duration::from_secs(30), ..AgentOptions::default() };
        let capture = Capture::start(node, "eth0", VRRP_FILTER)?;
        Ok(Self { node: node.index(), agent: Agent::start(node, &options)?, capture })
    }

    /// Unicast advertisements reach the peers only.
    fn hears(&self, trio: &Trio) -> bool {
        self.node != BYSTANDER || trio.spec().unicast_peers.is_none()
    }

    pub(crate) fn failovers(&self, page: &Samples, vip: IpAddr, cause: &str) -> Option<u64> {
        page.count("leadline_vip_failovers_total", &[("vip", &vip.to_string()), ("cause", cause)])
    }

    /// Waits until it has counted that many failovers of the cause, and none of another.
    pub(crate) fn wait_failovers(&self, vip: IpAddr, cause: &str, number: u64) -> Result<Samples> {
        let mut last = None;
        let waited = wait_until("the failover", LIMIT, || {
            last = self.agent.scrape().ok();
            last.as_ref().and_then(|page| self.failovers(page, vip, cause)) == Some(number)
        });
        let page = last.context("no page")?;
        let all: Vec<_> = page.of("leadline_vip_failovers_total", |_| true).collect();
        waited.with_context(|| format!("node{}: {all:?}", self.node))?;
        let name = "leadline_vip_failovers_total";
        let others = page.sum(name, |sample| sample.label("cause") != Some(cause)).unwrap_or_default();
        anyhow::ensure!(others == 0, "node{}: {all:?}", self.node);
        Ok(page)
    }

    /// A phase of the last failover in seconds.
    pub(crate) fn phase(page: &Samples, vip: IpAddr, phase: &str) -> Result<f64> {
        let labels = [("vip", &*vip.to_string()), ("phase", phase)];
        page.value("leadline_vip_last_failover_seconds", &labels).with_context(|| format!("no phase {phase}"))
    }
}

/// A failover as tcpdump has it.
#[derive(Debug)]
pub(crate) struct Truth {
    pub(crate) detect: Duration,
    pub(crate) announce: Duration,
}

/// The move of the address from one node to another, in the frames of one observer.
pub(crate) fn truth(frames: &[Frame], vip: IpAddr, from: &Node, to: &Node) -> Result<Truth> {
    let all = adverts(frames);
    let of = |node: &Node| -> Vec<&Advert> { all.iter().filter(|advert| advert.mac == node.mac()).collect() };
    let first = *of(to).first().context("no advertisement of the new owner")?;
    let before = |advert: &&&Advert| advert.time <= first.time;
    let old = of(from);
    let last = old.iter().filter(before).next_back().context("no advertisement of the old owner")?;
    let claim = claims(frames, vip)
        .into_iter()
        .find(|claim| claim.mac == to.mac() && claim.time >= first.time)
        .context("no announcement of the new owner")?;
    Ok(Truth { detect: first.time - last.time, announce: claim.time - first.time })
}
