//! `WireGuard` without Tailscale: a pod network as flannel's backend `wireguard` lays it, on every node a device with a peer
//! for each other node, and a route to its pods. The devices are those of wireguard-go, since not every kernel has them.
//! What `wg` says is the witness.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::cluster::Lab;
use crate::impair::Firewall;
use crate::machine::Machine;
use crate::node::Node;
use crate::place::Place as _;
use crate::service::Service;
use crate::{process, tools};

/// The device.
pub const DEVICE: &str = "flannel-wg";
/// Where `WireGuard` has its own UDP packets, as flannel has it.
pub const PORT: u16 = 51_820;
/// The device's MTU, as flannel has it on an Ethernet of 1500 bytes.
pub const MTU: u32 = 1_420;

const LIMIT: Duration = Duration::from_secs(10);
const KEY: &str = "/run/wireguard.key";

/// The running devices. They are gone when it is dropped.
#[derive(Debug)]
pub struct Wireguard {
    _daemons: Vec<Service>,
}

/// The address of a node's device.
#[must_use]
pub fn address(node: &Node) -> Ipv4Addr {
    Ipv4Addr::new(10, 42, node.index(), 0)
}

/// Runs `wg` on a node.
pub fn wg(node: &Node, arguments: &[&str]) -> Result<String> {
    tools::require("wg")?;
    node.run(&[&["wg"][..], arguments].concat())
}

impl Wireguard {
    /// Gives all nodes of a lab without a pod network this one.
    pub fn start(lab: &Lab) -> Result<Self> {
        let daemons = lab.nodes().iter().map(run).collect::<Result<Vec<_>>>()?;
        let keys = lab.nodes().iter().map(key).collect::<Result<Vec<_>>>()?;
        for node in lab.nodes() {
            let others = lab.nodes().iter().zip(&keys).filter(|(other, _)| other.index() != node.index());
            lay_on(node, others).with_context(|| format!("lay WireGuard on {}", node.name()))?;
        }
        Ok(Self { _daemons: daemons })
    }
}

fn run(node: &Node) -> Result<Service> {
    let mut command = Command::new(tools::require("wireguard-go")?);
    command.args(["--foreground", DEVICE]).env("LOG_LEVEL", "error");
    let mut daemon = node.service("wireguard-go", &mut command)?;
    let device = format!("/proc/{}/root/run/wireguard/{DEVICE}.sock", node.machine().holder_pid());
    daemon.wait_until("wireguard-go to be asked", LIMIT, || std::path::Path::new(&device).exists())?;
    Ok(daemon)
}

/// Makes the key of a node; answers with its public half.
fn key(node: &Node) -> Result<String> {
    node.run(&["sh", "-euc", &format!("umask 077; wg genkey > {KEY}")])?;
    let public = node.run(&["sh", "-euc", &format!("wg pubkey < {KEY}")])?;
    Ok(public.trim().to_owned())
}

fn lay_on<'a>(node: &Node, others: impl Iterator<Item = (&'a Node, &'a String)>) -> Result<()> {
    wg(node, &["set", DEVICE, "private-key", KEY, "listen-port", &PORT.to_string()])?;
    let mut script = format!(
        "link set {DEVICE} mtu {MTU} up\naddr add {}/32 dev {DEVICE}\nroute add 10.42.0.0/16 dev {DEVICE}\n",
        address(node)
    );
    for (other, key) in others {
        let pods = format!("{}/24", address(other));
        let endpoint: IpAddr = other.address(false)?;
        wg(
            node,
            &["set", DEVICE, "peer", key, "endpoint", &format!("{endpoint}:{PORT}"), "allowed-ips", &pods],
        )?;
        writeln!(script, "route add {pods} dev {DEVICE}")?;
    }
    node.ip(&script)
}

/// When the last handshake with the only peer of a node was, in seconds since 1970; 0 where there was none.
pub fn last_handshake(node: &Node) -> Result<u64> {
    let said = wg(node, &["show", DEVICE, "latest-handshakes"])?;
    let time = said.split_whitespace().nth(1).with_context(|| format!("no peer in: {said}"))?;
    time.parse().with_context(|| said.clone())
}

/// Waits until there was a handshake with the only peer of a node.
pub fn wait_handshake(node: &Node) -> Result<()> {
    process::wait_until("a handshake", LIMIT, || last_handshake(node).is_ok_and(|time| time > 0))
}

/// Sends five pings a second from a node to another one through the tunnel, until it is dropped.
pub fn traffic(from: &Node, to: &Node) -> Result<Service> {
    let mut command = Command::new(tools::require("ping")?);
    command.args(["-q", "-i", "0.2"]).arg(address(to).to_string());
    from.service("wireguard-traffic", &mut command)
}

/// Drops the data that one node sends to another one, on the switch, and no handshakes.
pub fn drop_data<'lab>(lab: &'lab Lab, from: &Node, to: &Node) -> Result<Firewall<'lab, Machine>> {
    let (from, to) = (from.address(false)?, to.address(false)?);
    let rule = format!("ip saddr {from} ip daddr {to} udp dport {PORT} @th,64,32 0x04000000 counter drop");
    let body = format!("chain block {{ type filter hook forward priority 0;\n{rule}\n}}\n");
    Firewall::add(lab.switch()?, "bridge", "wireguard", &body)
}
