//! Round trips between pods by the node of the peer: as many as there are connections, as long as on the wire, and none
//! of what is not between pods of two nodes; and the segments that are sent again.

#![expect(
    clippy::print_stdout,
    reason = "a test shows what it measured, and talks to its programs in the pods"
)]

#[path = "path_pod/count.rs"]
mod count;
#[path = "tcp/program.rs"]
mod program;
#[path = "path_pod/retransmit.rs"]
mod retransmit;
#[path = "path_pod/time.rs"]
mod time;
#[path = "path_pod/view.rs"]
mod view;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use lab::{Agent, AgentOptions, Backend, Flannel, Lab, LabOptions, Place, Pod, PodSpec};

use crate::program::Program;
use crate::view::{expect, of_nobody};

/// The server's port.
const PORT: u16 = 7000;

/// The nodes as the agents name each other: flannel knows no names.
const NODES: [&str; 3] = ["192.168.56.11", "192.168.56.12", "192.168.56.13"];

fn start_lab(ipv6: bool) -> Result<Lab> {
    let lab = Lab::start(&LabOptions { nodes: 3, flannel: Some(Flannel { backend: Backend::Vxlan, ipv6 }) })?;
    lab.pin_underlay()?;
    Ok(lab)
}

/// Three nodes with an agent and a pod each; the first pod connects, the others serve.
struct Stage {
    agents: Vec<Agent>,
    pods: Vec<Pod>,
    client: Program,
    servers: Vec<Program>,
}

impl Stage {
    fn start(lab: &Lab) -> Result<Self> {
        let nodes = lab.nodes();
        let options = AgentOptions { limit: Duration::from_secs(30), ..AgentOptions::default() };
        let agents = nodes.iter().map(|node| Agent::start(node, &options)).collect::<Result<Vec<_>>>()?;
        let pods = nodes.iter().map(|node| node.pod(PodSpec::new("pod"))).collect::<Result<Vec<_>>>()?;
        let serve = |pod: &Pod| Program::serve(pod, PORT, Duration::ZERO);
        let servers = pods[1..].iter().map(serve).collect::<Result<_>>()?;
        let stage = Self { client: Program::client(&pods[0])?, agents, pods, servers };
        stage.agents.iter().zip(NODES).try_for_each(|(agent, own)| expect(agent, &of_nobody(own)))?;
        Ok(stage)
    }

    /// The server on a node.
    fn target(&self, node: usize, ipv6: bool) -> Result<SocketAddr> {
        target(&self.pods[node - 1], ipv6)
    }

    /// Opens so many connections to the server on a node, with an exchange on each.
    fn open(&mut self, node: usize, ipv6: bool, count: usize) -> Result<()> {
        let opened = self.client.numbers(&format!("open {} E {count}", self.target(node, ipv6)?))?.len();
        assert_eq!(opened, count, "connect(2) of node {node}");
        self.client.ask("exchange 1").map(drop)
    }
}

/// The server in a place.
fn target(place: &impl Place, ipv6: bool) -> Result<SocketAddr> {
    Ok(SocketAddr::new(place.address(ipv6)?, PORT))
}
