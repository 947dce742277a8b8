//! A cluster with all that the boards speak of: etcd and a control plane, a virtual address, HAProxy, pods, a tailnet, and
//! a Prometheus that scrapes the agents; and the faults that the boards are there for.

use std::fs;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use crate::agent::{Agent, AgentOptions};
use crate::cluster::Lab;
use crate::control_plane::{ControlPlane, Options};
use crate::etcd::{Etcd, EtcdOptions, Version};
use crate::haproxy::{self, Haproxy, SERVERS, Server};
use crate::impair::Firewall;
use crate::keepalived::{Spec, Trio};
use crate::node::Node;
use crate::place::Place as _;
use crate::pod::{Pod, PodSpec};
use crate::process::Holder;
use crate::prometheus::{Prometheus, listen_address};
use crate::service::Service;
use crate::tailnet::{self, Tailnet};
use crate::tls::{Certificate, TlsServer};
use crate::tools;

/// The port of the API server, and of who stands in for it on the other nodes.
const PORT: u16 = 6443;

/// The port of the pods.
const POD_PORT: &str = "7000";

/// The time that an agent may take to start on a busy machine.
const START: Duration = Duration::from_mins(1);

/// The time that etcd may take to be healthy again.
const HEAL: Duration = Duration::from_mins(1);

/// The cluster. It must be dropped before its lab is shut down.
pub struct Showcase<'lab> {
    lab: &'lab Lab,
    agents: Vec<Agent>,
    /// The daemons of the virtual address.
    pub trio: Trio,
    /// The store of the control plane.
    pub etcd: Etcd,
    /// It scrapes every agent.
    pub prometheus: Prometheus<'lab>,
    /// What keeps the daemons from hearing each other.
    deaf: Vec<Firewall<'lab, Node>>,
    _tunnels: Tunnels<'lab>,
    _plane: ControlPlane,
    _servers: Vec<TlsServer>,
    _haproxy: (Haproxy, Vec<Server>),
    _pods: Pods,
}

/// A tailnet, what keeps it on the underlay, and what each node sends to the next one.
type Tunnels<'lab> = (Tailnet<'lab>, Vec<Firewall<'lab, Node>>, Vec<Service>);

/// Pods, and the programs in them.
type Pods = (Vec<Holder>, Vec<Pod>);

/// What can be done to a showcase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// etcd gets another leader.
    Leader,
    /// The node with the highest priority gives the virtual address away, or takes it back.
    Failover,
    /// The agent of node3 begins anew.
    Agent,
    /// Two of three members of etcd are killed.
    Quorum,
    /// Every daemon of the virtual address is stopped.
    Vip,
    /// The daemons do not hear each other, so that each of them takes the virtual address.
    SplitBrain,
    /// All that was stopped is started again, and all hear each other.
    Heal,
}

impl Event {
    /// All of them, by their words.
    pub const ALL: [(&str, Self); 7] = [
        ("leader", Self::Leader),
        ("failover", Self::Failover),
        ("agent", Self::Agent),
        ("quorum", Self::Quorum),
        ("vip", Self::Vip),
        ("split-brain", Self::SplitBrain),
        ("heal", Self::Heal),
    ];

    /// By its word.
    pub fn parse(word: &str) -> Result<Self> {
        let found = Self::ALL.iter().find(|(name, _)| *name == word).map(|(_, event)| *event);
        found.with_context(|| format!("`{word}` is none of {}", Self::ALL.map(|(name, _)| name).join(", ")))
    }
}

/// Starts the agent of a node, which knows the others' names as it would by the Kubernetes API.
fn agent(lab: &Lab, node: &Node) -> Result<Agent> {
    let others = lab.nodes().iter().filter(|other| other.index() != node.index());
    let known = |other: &Node| Ok(json!({"name": other.name(), "addresses": [other.address(false)?]}));
    let known = others.map(known).collect::<Result<Vec<_>>>()?;
    let file = lab.scratch().join(format!("{}.yaml", node.name()));
    let text = json!({"peers": {"nodes": known}}).to_string();
    fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    let arguments = vec![
        format!("--config.file={}", file.display()),
        listen_address(node)?,
        "--collector.path=on".into(),
        // etcd has no manifest here that says how long its election timeout is.
        "--etcd.election-timeout=1s".into(),
    ];
    Agent::start(node, &AgentOptions { arguments, limit: START, ..AgentOptions::default() })
}

/// A load balancer on a port of its own, whose servers are ready.
fn load_balancer(node: &Node) -> Result<(Haproxy, Vec<Server>)> {
    let servers = SERVERS.iter().map(|(_, address)| Server::start(node, *address)).collect::<Result<_>>()?;
    let frontend: SocketAddr = "127.0.0.1:7443".parse().context("an address")?;
    Ok((Haproxy::start(node, &haproxy::Spec { frontend, ..haproxy::Spec::default() })?, servers))
}

/// Tunnels between all nodes, of which the first one's key ends some day.
fn tunnels(lab: &Lab) -> Result<Tunnels<'_>> {
    let apart = lab.nodes().iter().map(tailnet::keep_out_of_overlay).collect::<Result<_>>()?;
    let tailnet = Tailnet::start(lab)?;
    tailnet.expire_key(lab.node(1)?, "720h")?;
    tailnet.refresh()?;
    let nodes = lab.nodes();
    let next = nodes.iter().cycle().skip(1);
    let traffic =
        nodes.iter().zip(next).map(|(node, next)| tailnet::traffic(node, next)).collect::<Result<_>>()?;
    Ok((tailnet, apart, traffic))
}

/// A pod on each node, which serves HTTP and asks the next one every second.
fn pods(lab: &Lab) -> Result<Pods> {
    let busybox = tools::require("busybox")?;
    let busybox = busybox.to_str().context("the path of busybox is no UTF-8")?;
    let pods = lab.nodes().iter().map(|node| node.pod(PodSpec::new("pod"))).collect::<Result<Vec<_>>>()?;
    let mut programs = Vec::new();
    for (pod, next) in pods.iter().zip(pods.iter().cycle().skip(1)) {
        let mut server = pod.command(busybox)?;
        programs.push(Holder::spawn(server.args(["httpd", "-f", "-p", POD_PORT]))?);
        let url = format!("http://{}:{POD_PORT}/", next.address(false)?);
        let ask = "curl --silent --noproxy '*' --max-time 1 --output /dev/null";
        let line = format!("while sleep 1; do {ask} {url}; done");
        let mut client = pod.command("sh")?;
        programs.push(Holder::spawn(client.args(["-c", &line]).stdin(Stdio::null()))?);
    }
    Ok((programs, pods))
}

impl<'lab> Showcase<'lab> {
    /// Starts it in a lab of three nodes with flannel, and waits until every agent has been scraped.
    pub fn start(lab: &'lab Lab) -> Result<Self> {
        let etcd = Etcd::start(lab, &EtcdOptions { version: Version::V3_6, ..EtcdOptions::default() })?;
        let plane = ControlPlane::start(lab.node(1)?, &etcd, &Options::default())?;
        let certificate = Certificate::new(lab.node(2)?, 60)?;
        let serve = |index| TlsServer::start(lab.node(index)?, PORT, &certificate);
        Ok(Self {
            lab,
            _tunnels: tunnels(lab)?,
            _plane: plane,
            _servers: [2, 3].into_iter().map(serve).collect::<Result<_>>()?,
            _haproxy: load_balancer(lab.node(1)?)?,
            trio: Trio::start(lab, &Spec::default())?,
            agents: lab.nodes().iter().map(|node| agent(lab, node)).collect::<Result<_>>()?,
            _pods: pods(lab)?,
            prometheus: Prometheus::start(lab)?,
            deaf: Vec::new(),
            etcd,
        })
    }

    /// Makes it happen.
    pub fn happen(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Leader => self.change_leader(),
            Event::Failover => self.fail_over(),
            Event::Agent => self.restart_agent(),
            Event::Quorum => self.kill_members(2),
            Event::Vip => self.stop_daemons(),
            Event::SplitBrain => self.split_brain(),
            Event::Heal => self.heal(),
        }
    }

    fn change_leader(&mut self) -> Result<()> {
        let follower = *self.etcd.followers()?.first().context("no member of etcd follows another one")?;
        self.etcd.move_leader(follower)
    }

    fn fail_over(&mut self) -> Result<()> {
        let first = self.trio.daemon(1)?;
        if first.is_running()? { first.terminate().map(drop) } else { first.restart() }
    }

    fn restart_agent(&mut self) -> Result<()> {
        self.agents.pop().context("no agent runs on node3")?.sigterm()?;
        self.agents.push(agent(self.lab, self.lab.node(3)?)?);
        Ok(())
    }

    /// Kills that many members, followers first.
    pub fn kill_members(&mut self, count: usize) -> Result<()> {
        let leader = self.etcd.leader();
        let mut working = self.etcd.working();
        working.sort_by_key(|member| leader == Some(*member));
        let Some(victims) = working.get(..count) else { bail!("only {working:?} of etcd still run") };
        victims.iter().try_for_each(|member| self.etcd.kill(*member).map(drop))
    }

    /// Stops every daemon of the virtual address that still runs.
    pub fn stop_daemons(&mut self) -> Result<()> {
        for node in self.lab.nodes() {
            let daemon = self.trio.daemon(node.index())?;
            if daemon.is_running()? {
                daemon.terminate()?;
            }
        }
        Ok(())
    }

    fn split_brain(&mut self) -> Result<()> {
        self.deaf.clear();
        for node in self.lab.nodes() {
            self.deaf.push(Firewall::deaf(node)?);
        }
        Ok(())
    }

    fn heal(&mut self) -> Result<()> {
        self.deaf.clear();
        let working = self.etcd.working();
        for member in self.etcd.numbers().into_iter().filter(|member| !working.contains(member)) {
            self.etcd.restart(member)?;
        }
        for node in self.lab.nodes() {
            let daemon = self.trio.daemon(node.index())?;
            if !daemon.is_running()? {
                daemon.restart()?;
            }
        }
        self.etcd.wait_healthy(HEAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_has_a_word_and_a_wrong_word_is_told_them() {
        for (word, event) in Event::ALL {
            assert_eq!(Event::parse(word).unwrap(), event);
        }
        let error = Event::parse("quorom").unwrap_err().to_string();
        assert!(error.contains("`quorom`") && error.contains("quorum"), "{error}");
    }
}
