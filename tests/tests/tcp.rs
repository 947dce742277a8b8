//! TCP health against witnesses: every number of the agent beside one that the kernel or the program counted itself.
#![expect(
    clippy::print_stdout,
    reason = "a test shows what it measured, and talks to its programs in the pods"
)]

#[path = "tcp/connect.rs"]
mod connect;
#[path = "tcp/health.rs"]
mod health;
#[path = "tcp/older.rs"]
mod older;
#[path = "tcp/program.rs"]
mod program;
#[path = "tcp/reset.rs"]
mod reset;
#[path = "tcp/restart.rs"]
mod restart;
#[path = "tcp/retransmit.rs"]
mod retransmit;
#[path = "tcp/rtt.rs"]
mod rtt;
#[path = "tcp/series.rs"]
mod series;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use lab::{Agent, AgentOptions, Backend, Flannel, Lab, LabOptions, Place, Pod, PodSpec};

use crate::health::Health;
use crate::program::Program;

/// The server's port.
const PORT: u16 = 7000;

/// An agent with all families of TCP.
fn detailed() -> AgentOptions {
    let arguments = vec!["--profile=detailed".to_owned()];
    AgentOptions { arguments, limit: Duration::from_secs(30), ..AgentOptions::default() }
}

/// Two nodes with an agent each, and a pod on each.
struct Stage {
    client: Pod,
    server: Pod,
    agents: [Agent; 2],
}

impl Stage {
    fn lab(ipv6: bool) -> Result<Lab> {
        let lab =
            Lab::start(&LabOptions { nodes: 2, flannel: Some(Flannel { backend: Backend::Vxlan, ipv6 }) })?;
        lab.pin_underlay()?;
        Ok(lab)
    }

    fn new(lab: &Lab) -> Result<Self> {
        let (one, two) = (lab.node(1)?, lab.node(2)?);
        let options = detailed();
        Ok(Self {
            agents: [Agent::start(one, &options)?, Agent::start(two, &options)?],
            client: one.pod(PodSpec::new("client"))?,
            server: two.pod(PodSpec::new("server"))?,
        })
    }

    /// The address of the server's port.
    fn target(&self, ipv6: bool) -> Result<SocketAddr> {
        Ok(SocketAddr::new(self.server.address(ipv6)?, PORT))
    }

    /// Starts the server and the client, and makes one exchange so that everything on the way is warm and both pods
    /// have counted something under their names.
    fn start_programs(&self, ipv6: bool, think: Duration) -> Result<(Program, Program)> {
        let server = Program::serve(&self.server, PORT, think)?;
        let mut client = Program::client(&self.client)?;
        client.ask(&format!("open {} E 1", self.target(ipv6)?))?;
        client.ask("exchange 1")?;
        client.ask("close")?;
        Health::wait_for_segments(&self.agents[0], "client")?;
        Health::wait_for_segments(&self.agents[1], "server")?;
        Ok((server, client))
    }

    fn client_health(&self) -> Result<Health> {
        Health::of(&self.agents[0], "client")
    }

    fn server_health(&self) -> Result<Health> {
        Health::of(&self.agents[1], "server")
    }
}
