//! A tailnet: real tailscaled daemons on nodes of a lab, and on its switch what the far side has: a coordination server,
//! a DERP relay and a STUN responder (`tests/lab/tools/tailnet`).
//!
//! Files lie where the packages of distributions have them, so that an agent of the node finds the socket like on any
//! machine. What `tailscale status --json` and `tailscale ping` say is the witness.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cluster::Lab;
use crate::impair::Firewall;
use crate::machine::Machine;
use crate::node::Node;
use crate::place::Place as _;
use crate::service::Service;
use crate::{process, tools};

mod router;

pub use router::{ROUTER, ROUTER_SOCKET, Router, TRANSLATED};

/// Where tailscaled has its own UDP packets.
pub const PORT: u16 = 41_641;
/// Where tailscaled is asked.
pub const SOCKET: &str = "/run/tailscale/tailscaled.sock";

/// The time for what daemons do by themselves, on a busy machine.
const LIMIT: Duration = Duration::from_secs(40);

/// A running tailnet. Dropping it kills its daemons.
#[derive(Debug)]
pub struct Tailnet<'lab> {
    lab: &'lab Lab,
    control: Service,
    daemons: BTreeMap<u8, Service>,
}

impl<'lab> Tailnet<'lab> {
    /// Starts the far side, and a daemon on each node of the lab, and waits until all of them are logged in and each
    /// knows the others.
    pub fn start(lab: &'lab Lab) -> Result<Self> {
        let nodes: Vec<&Node> = lab.nodes().iter().collect();
        Self::start_on(lab, &nodes)
    }

    /// The same with a daemon on each of these nodes alone.
    pub fn start_on(lab: &'lab Lab, nodes: &[&Node]) -> Result<Self> {
        let switch = lab.switch()?;
        let mut command = Command::new(tools::tailnet()?);
        command.arg(format!("-address={}", switch.address(false)?));
        let control = switch.service("tailnet", &mut command)?;
        let mut tailnet = Self { lab, control, daemons: BTreeMap::new() };
        tailnet.wait_control()?;
        for node in nodes {
            tailnet.run(node)?;
            tailnet.login(node)?;
        }
        for node in nodes {
            tailnet.wait_status(node, "to know all nodes", |status| {
                let known = status["Peer"].as_object().map_or(0, serde_json::Map::len);
                known + 1 == nodes.len()
            })?;
        }
        Ok(tailnet)
    }

    fn wait_control(&mut self) -> Result<()> {
        let switch = self.lab.switch()?;
        let ask = || request(switch, "/nodes", None).is_ok();
        self.control.wait_until("the coordination server to answer", LIMIT, ask)
    }

    /// Starts the daemon of a node, with what it remembers of earlier runs; one that still runs is killed.
    pub fn run(&mut self, node: &Node) -> Result<()> {
        self.daemons.remove(&node.index());
        let mut command = Command::new(tools::tailscaled()?);
        command.args(["--statedir=/var/lib/tailscale", "--tun=tailscale0", "--no-logs-no-support"]);
        command.arg(format!("--socket={SOCKET}")).arg(format!("--port={PORT}"));
        self.daemons.insert(node.index(), node.service("tailscaled", &mut command)?);
        Ok(())
    }

    /// Stops the daemon of a node by SIGTERM.
    pub fn stop(&mut self, node: &Node) -> Result<ExitStatus> {
        let mut daemon = self.daemons.remove(&node.index()).context("no tailscaled runs")?;
        daemon.terminate(LIMIT)
    }

    /// Logs a node in and waits until it runs.
    pub fn login(&mut self, node: &Node) -> Result<()> {
        let server = self.server()?;
        let name = format!("--hostname={}", node.name());
        let arguments = ["up", &server, &name, "--accept-dns=false", "--timeout=30s"];
        let mut last = Ok(String::new());
        let waited = process::wait_until(&format!("{} to log in", node.name()), LIMIT, || {
            last = tailscale(node, &arguments);
            last.is_ok()
        });
        waited.with_context(|| format!("{:?}; {}", last, self.log_tail(node)))?;
        self.wait_status(node, "to run", |status| status["BackendState"] == "Running")
    }

    /// The flag that names the coordination server.
    fn server(&self) -> Result<String> {
        Ok(format!("--login-server=http://{}:8080", self.lab.switch()?.address(false)?))
    }

    /// Waits until the daemon of a node says so.
    pub fn wait_status(&self, node: &Node, what: &str, holds: impl Fn(&Value) -> bool) -> Result<()> {
        let mut last = None;
        let waited = process::wait_until(&format!("{} {what}", node.name()), LIMIT, || {
            last = status(node).ok();
            last.as_ref().is_some_and(&holds)
        });
        waited.with_context(|| format!("last said: {last:#?}; {}", self.log_tail(node)))
    }

    /// Approves these routes of a node in place of what was approved before.
    pub fn approve_routes(&self, node: &Node, routes: &str) -> Result<()> {
        self.administer("/routes", &[("node", node.name()), ("routes", routes)])
    }

    /// Lets the key of a node expire at a time from now, such as `25s` or `-1m`, or `never`.
    pub fn expire_key(&self, node: &Node, at: &str) -> Result<()> {
        self.administer("/key-expiry", &[("node", node.name()), ("in", at)])
    }

    /// What the peers of a node are told: whether it is connected to the coordination server.
    pub fn set_online(&self, node: &Node, on: bool) -> Result<()> {
        self.administer("/online", &[("node", node.name()), ("on", if on { "true" } else { "false" })])
    }

    /// Sends every node the whole map again, with the time.
    pub fn refresh(&self) -> Result<()> {
        self.administer("/refresh", &[])
    }

    fn administer(&self, path: &str, form: &[(&str, &str)]) -> Result<()> {
        let said = request(self.lab.switch()?, path, Some(form))?;
        ensure!(said.trim() == "ok", "{path} with {form:?}: {said}");
        Ok(())
    }

    /// Drops what two nodes say to each other over UDP, on the switch.
    pub fn block_udp(&self, a: &Node, b: &Node) -> Result<Firewall<'lab, Machine>> {
        self.block(&[(a, b), (b, a)], "ip protocol udp")
    }

    /// Drops what one node says to another one over UDP, on the switch; the other direction passes.
    pub fn cut_udp(&self, from: &Node, to: &Node) -> Result<Firewall<'lab, Machine>> {
        self.block(&[(from, to)], "ip protocol udp")
    }

    /// Drops the data that one node sends to another one, and neither handshakes nor path probes.
    pub fn drop_data(&self, from: &Node, to: &Node) -> Result<Firewall<'lab, Machine>> {
        self.block(&[(from, to)], &format!("udp dport {PORT} @th,64,32 0x04000000"))
    }

    fn block(&self, directions: &[(&Node, &Node)], what: &str) -> Result<Firewall<'lab, Machine>> {
        let mut body = "chain block { type filter hook forward priority 0;\n".to_owned();
        for (from, to) in directions {
            let (from, to) = (from.address(false)?, to.address(false)?);
            writeln!(body, "ip saddr {from} ip daddr {to} {what} counter drop")?;
        }
        body += "}\n";
        Firewall::add(self.lab.switch()?, "bridge", "tailnet", &body)
    }

    fn log_tail(&self, node: &Node) -> String {
        self.daemons.get(&node.index()).map(|daemon| daemon.log_tail(20)).unwrap_or_default()
    }
}

/// A tailscaled that can be asked: that of a node, or one in a pod.
pub trait Daemon {
    /// Runs `tailscale`, which asks it.
    fn tailscale(&self, arguments: &[&str]) -> Result<String>;
    /// Its name in the tailnet.
    fn hostname(&self) -> &str;
}

impl Daemon for Node {
    fn tailscale(&self, arguments: &[&str]) -> Result<String> {
        run(self, SOCKET, arguments)
    }

    fn hostname(&self) -> &str {
        self.name()
    }
}

/// Runs `tailscale` on a node with that socket.
fn run(node: &Node, socket: &str, arguments: &[&str]) -> Result<String> {
    let program = tools::tailscale()?;
    let mut command = node.command(program.to_str().context("the path of tailscale is no UTF-8")?)?;
    command.arg(format!("--socket={socket}")).args(arguments);
    process::run_for(&mut command, LIMIT)
}

/// Runs `tailscale`, which asks a daemon.
pub fn tailscale(daemon: &impl Daemon, arguments: &[&str]) -> Result<String> {
    daemon.tailscale(arguments)
}

/// What `tailscale status --json` says of a daemon.
pub fn status(daemon: &impl Daemon) -> Result<Value> {
    let said = daemon.tailscale(&["status", "--json"])?;
    serde_json::from_str(&said).with_context(|| format!("no JSON: {said}"))
}

/// What `tailscale status --json` says at a daemon of another one.
pub fn peer(daemon: &impl Daemon, peer: &impl Daemon) -> Result<Value> {
    let status = status(daemon)?;
    let peers = status["Peer"].as_object().context("no peers")?;
    let found = peers.values().find(|known| known["HostName"] == peer.hostname());
    found.cloned().with_context(|| format!("{} does not know {}", daemon.hostname(), peer.hostname()))
}

/// The IPv4 address of a daemon in the tailnet.
pub fn address(daemon: &impl Daemon) -> Result<IpAddr> {
    let status = status(daemon)?;
    let address = status["Self"]["TailscaleIPs"][0].as_str().context("no address")?;
    address.parse().with_context(|| address.to_owned())
}

/// Sends five pings a second from a node to another daemon through the tailnet, until it is dropped.
pub fn traffic(from: &Node, to: &impl Daemon) -> Result<Service> {
    let mut command = Command::new(tools::require("ping")?);
    command.args(["-q", "-i", "0.2"]).arg(address(to)?.to_string());
    from.service("traffic", &mut command)
}

/// Lets no tunnel of a node lead through the overlay.
pub fn keep_out_of_overlay(node: &Node) -> Result<Firewall<'_, Node>> {
    let rule = format!("iifname \"flannel.1\" udp dport {PORT} drop");
    let body = format!("chain keep_out {{ type filter hook input priority 0;\n{rule}\n}}\n");
    Firewall::add(node, "inet", "keep_out", &body)
}

/// A request to the far side's interface for tests; a POST where there is a form.
fn request(switch: &Machine, path: &str, form: Option<&[(&str, &str)]>) -> Result<String> {
    let mut command = switch.command("curl")?;
    command.args(["--silent", "--show-error", "--max-time", "10"]);
    if let Some(form) = form {
        command.args(["--request", "POST"]);
        for (name, value) in form {
            command.arg("--data-urlencode").arg(format!("{name}={value}"));
        }
    }
    command.arg(format!("http://{}:8081{path}", switch.address(false)?));
    process::run(&mut command)
}
