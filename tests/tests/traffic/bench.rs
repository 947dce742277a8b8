//! A lab with an agent on each node, ends that exchange traffic, and the comparison of counts.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lab::scrape::{Samples, Traffic};
use lab::witness::{self, Nstat, Wire};
use lab::{
    Agent, AgentOptions, Backend, Flannel, Lab, LabOptions, Node, Place, Pod, PodSpec, Sockets, wait_until,
};

/// The time in which counters must have settled; series of pods that are gone take the longest.
const SETTLE: Duration = Duration::from_secs(30);

/// Agents on the nodes of a lab. The agents end before the lab.
pub(crate) struct Bench {
    agents: Vec<(u8, Agent)>,
    pub(crate) lab: Lab,
}

impl Bench {
    pub(crate) fn start(nodes: u8, backend: Backend, ipv6: bool, arguments: &[&str]) -> Result<Self> {
        let lab = Lab::start(&LabOptions { nodes, flannel: Some(Flannel { backend, ipv6 }) })?;
        lab.pin_underlay()?;
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let options = AgentOptions { arguments, ..AgentOptions::default() };
        let start = |node: &Node| Ok((node.index(), Agent::start(node, &options)?));
        let agents = lab.nodes().iter().map(start).collect::<Result<_>>()?;
        Ok(Self { agents, lab })
    }

    pub(crate) fn agent(&self, node: u8) -> Result<&Agent> {
        let agent = self.agents.iter().find(|(index, _)| *index == node);
        Ok(&agent.with_context(|| format!("no agent on node{node}"))?.1)
    }

    pub(crate) fn end(&self, node: u8, name: &str) -> Result<End> {
        self.end_of(node, PodSpec::new(name))
    }

    pub(crate) fn end_of(&self, node: u8, spec: PodSpec) -> Result<End> {
        let pod = self.lab.node(node)?.pod(spec)?;
        let sockets = sockets_of(&pod)?;
        Ok(End { pod, sockets })
    }

    /// Traffic of a pod with peers of the class: 0 as long as there has been none.
    pub(crate) fn of_pod(&self, pod: &Pod, class: &str) -> Result<Traffic> {
        let samples = self.agent(pod.node().index())?.scrape()?;
        Ok(of_pod(&samples, pod, &[("peer_class", class)]))
    }

    pub(crate) fn shutdown(self) -> Result<()> {
        drop(self.agents);
        self.lab.shutdown()
    }
}

/// Traffic of a pod with these further labels. 0 as long as there has been none, or the pod's name is not known.
pub(crate) fn of_pod(samples: &Samples, pod: &Pod, labels: &[(&str, &str)]) -> Traffic {
    let spec = pod.spec();
    let named = [("namespace", spec.namespace.as_str()), ("pod", spec.name.as_str())];
    samples.traffic("pod", &[&named, labels].concat()).unwrap_or_default()
}

pub(crate) fn sockets_of(place: &impl Place) -> Result<Sockets> {
    Sockets::start(&mut place.test_command("task_gives_sockets")?)
}

/// A pod and the source of its sockets.
pub(crate) struct End {
    pub(crate) pod: Pod,
    pub(crate) sockets: Sockets,
}

impl End {
    pub(crate) fn address(&self, ipv6: bool, port: u16) -> Result<SocketAddr> {
        Ok(SocketAddr::new(self.pod.address(ipv6)?, port))
    }

    pub(crate) fn nstat(&self) -> Result<Nstat> {
        witness::nstat(&self.pod)
    }

    pub(crate) fn wire(&self) -> Result<Wire> {
        witness::wire(&self.pod, "eth0")
    }

    /// Offloads of both ends of the veth pair, and neighbours that stay.
    pub(crate) fn prepare(&self, segmentation: bool, others: &[&Pod]) -> Result<()> {
        self.pod.set_segmentation(segmentation)?;
        self.pod.pin_neighbours(others)
    }
}

/// Sum of two counters, such as all segments that were sent.
pub(crate) fn added(before: &Nstat, after: &Nstat, names: &[&str]) -> Result<u64> {
    let difference = |name: &&str| {
        let read = |counters: &Nstat| counters.get(*name).copied().with_context(|| format!("no {name}"));
        Ok(read(after)? - read(before)?)
    };
    names.iter().map(difference).sum()
}

/// Every segment that left the network namespace.
pub(crate) const SEGMENTS: [&str; 2] = ["TcpOutSegs", "TcpRetransSegs"];

/// Waits until both readings agree while the expected one stands still, and returns it; else shows both.
pub(crate) fn agree<T: PartialEq + Debug>(
    what: &str,
    mut expected: impl FnMut() -> Result<T>,
    mut counted: impl FnMut() -> Result<T>,
) -> Result<T> {
    let mut last = None;
    let waited = wait_until(what, SETTLE, || {
        let mut read = || Ok::<_, anyhow::Error>((expected()?, counted()?, expected()?));
        let readings = read();
        let is_equal =
            readings.as_ref().is_ok_and(|(before, counts, after)| before == after && counts == after);
        last = Some(readings);
        is_equal
    });
    match (waited, last) {
        (Ok(()), Some(Ok((_, _, value)))) => Ok(value),
        (_, Some(Ok((_, counts, value)))) => bail!("{what}: expected {value:?}, counted {counts:?}"),
        (_, Some(Err(error))) => Err(error.context(what.to_owned())),
        (_, None) => bail!("{what}: nothing was read"),
    }
}
