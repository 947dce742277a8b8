//! Connections of watched ports, by port and peer, against tcpdump, nstat and the programs themselves.

#![expect(
    clippy::print_stdout,
    reason = "a test shows what it measured, and talks to its programs in the pods"
)]

#[path = "tcp_port/bound.rs"]
mod bound;
#[path = "tcp_port/count.rs"]
mod count;
#[path = "tcp_port/older.rs"]
mod older;
#[path = "tcp/program.rs"]
mod program;
#[path = "tcp_port/rtt.rs"]
mod rtt;
#[path = "tcp_port/view.rs"]
mod view;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use lab::{Agent, AgentOptions, Backend, Firewall, Flannel, Lab, LabOptions, Place as _, Pod, PodSpec};

use crate::program::Program;

/// The port of etcd's members to each other, and that of its clients.
const PORT: u16 = 2380;
const CLIENTS: u16 = 2379;

/// One that nobody watches.
const UNWATCHED: u16 = 7000;

/// Two nodes.
fn start_lab(ipv6: bool) -> Result<Lab> {
    let lab = Lab::start(&LabOptions { nodes: 2, flannel: Some(Flannel { backend: Backend::Vxlan, ipv6 }) })?;
    lab.pin_underlay()?;
    Ok(lab)
}

fn options() -> AgentOptions {
    AgentOptions { limit: Duration::from_secs(30), ..AgentOptions::default() }
}

/// A pod in the namespace of its node, as etcd runs.
fn host_pod(lab: &Lab, node: u8, name: &str) -> Result<Pod> {
    lab.node(node)?.pod(PodSpec { host_network: true, ..PodSpec::new(name) })
}

/// Two nodes with an agent each, a server on the second and a client on the first.
struct Members {
    agents: [Agent; 2],
    server: Program,
    client: Program,
    addresses: [IpAddr; 2],
    _pod: Pod,
}

impl Members {
    fn start(lab: &Lab, ipv6: bool, think: Duration) -> Result<Self> {
        let (one, two) = (lab.node(1)?, lab.node(2)?);
        let pod = host_pod(lab, 1, "member")?;
        Ok(Self {
            agents: [Agent::start(one, &options())?, Agent::start(two, &options())?],
            server: Program::serve(two, PORT, think)?,
            client: Program::client(&pod)?,
            addresses: [one.address(ipv6)?, two.address(ipv6)?],
            _pod: pod,
        })
    }

    fn target(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.addresses[1], port)
    }
}

/// Loses a share of what the nodes send to and from the port.
fn lose<'lab>(
    lab: &'lab Lab,
    nodes: &[&str],
    per_mille: u16,
) -> Result<Firewall<'lab, lab::machine::Machine>> {
    let share =
        if per_mille >= 1_000 { String::new() } else { format!("numgen random mod 1000 < {per_mille}") };
    let chains = nodes.iter().zip(0..).map(|(device, number)| {
        format!(
            "chain loss{number} {{ type filter hook ingress device \"{device}\" priority 0;\n\
             tcp dport {PORT} {share} counter drop\ntcp sport {PORT} {share} counter drop\n}}\n"
        )
    });
    Firewall::add(lab.switch()?, "netdev", "loss", &chains.collect::<String>())
}
