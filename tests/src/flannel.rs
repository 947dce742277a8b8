//! The pod network: real flanneld on every node, with its leases in an etcd on the switch.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::machine::Machine;
use crate::node::Node;
use crate::place::Place as _;
use crate::service::Service;
use crate::{process, tailnet, tools, witness};

/// The time in which a daemon of the pod network must have done its work.
const LIMIT: Duration = Duration::from_secs(30);

/// How flannel carries packets between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// `flannel.1`, VNI 1, UDP port 8472.
    Vxlan,
    /// Plain routes through the underlay.
    HostGw,
    /// Commands of others bring the pods' packets to the other nodes: here their tailnet, as `k3s --vpn-auth` has it.
    Tailscale,
}

/// What kind of pod network to start.
#[derive(Clone, Debug)]
pub struct Flannel {
    /// The backend.
    pub backend: Backend,
    /// Whether pods get IPv6 addresses, too.
    pub ipv6: bool,
}

impl Default for Flannel {
    fn default() -> Self {
        Self { backend: Backend::Vxlan, ipv6: false }
    }
}

impl Flannel {
    /// The network configuration as flanneld reads it from etcd.
    fn config(&self) -> Result<String> {
        let backend = match self.backend {
            Backend::Vxlan => serde_json::json!({"Type": "vxlan"}),
            Backend::HostGw => serde_json::json!({"Type": "host-gw"}),
            Backend::Tailscale => {
                let tailscale = format!("{} --socket={}", tools::tailscale()?.display(), tailnet::SOCKET);
                let offer = format!("{tailscale} set --accept-routes --advertise-routes=$SUBNET");
                serde_json::json!({"Type": "extension", "PostStartupCommand": offer})
            }
        };
        let mut config = serde_json::json!({
            "Network": "10.42.0.0/16", "SubnetLen": 24, "Backend": backend,
        });
        if self.ipv6 {
            config["EnableIPv6"] = true.into();
            config["IPv6Network"] = "fd42::/48".into();
            config["IPv6SubnetLen"] = 64.into();
        }
        Ok(config.to_string())
    }
}

/// The pod network of a node, as flanneld wrote it to `/run/flannel/subnet.env`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// The gateway of the pods, a /24.
    pub ipv4: Ipv4Addr,
    /// The IPv6 gateway of the pods, a /64.
    pub ipv6: Option<Ipv6Addr>,
    /// The MTU of the pods' devices.
    pub mtu: u32,
}

impl Subnet {
    fn parse(env: &str) -> Option<Self> {
        let variables: BTreeMap<&str, &str> = env.lines().filter_map(|line| line.split_once('=')).collect();
        let address = |key| variables.get(key).and_then(|value: &&str| value.split('/').next());
        let ipv6 = match address("FLANNEL_IPV6_SUBNET") {
            Some(text) => Some(text.parse().ok()?),
            None => None,
        };
        let mtu = variables.get("FLANNEL_MTU")?.parse().ok()?;
        Some(Self { ipv4: address("FLANNEL_SUBNET")?.parse().ok()?, ipv6, mtu })
    }
}

/// The running pod network: etcd and one flanneld per node.
#[derive(Debug)]
pub struct FlannelRun {
    options: Flannel,
    // Before etcd, since they are dropped in this order.
    daemons: BTreeMap<u8, Service>,
    etcd: Service,
    endpoint: String,
    /// The device whose address is that of a node's VTEP.
    device: String,
}

impl FlannelRun {
    /// Starts it on nodes that have none. With [`Backend::Tailscale`] they have a tailnet, in which the routes are still to be
    /// approved.
    pub fn start(options: Flannel, switch: &Machine, nodes: &[Node]) -> Result<Self> {
        let (etcd, endpoint) = start_etcd(switch)?;
        let mut run = Self { options, daemons: BTreeMap::new(), etcd, endpoint, device: "eth0".into() };
        let config = run.options.config()?;
        run.etcdctl(switch, &["put", "/coreos.com/network/config", &config]).context("configure flannel")?;
        for node in nodes {
            run.start_daemon(node)?;
        }
        for node in nodes {
            let subnet = run.await_subnet(node)?;
            make_bridge(node, &subnet)?;
            node.set_subnet(subnet)?;
        }
        if run.options.backend != Backend::Tailscale {
            nodes.iter().try_for_each(|node| run.await_routes(node, nodes))?;
        }
        Ok(run)
    }

    /// The options the pod network was started with.
    #[must_use]
    pub fn options(&self) -> &Flannel {
        &self.options
    }

    /// The etcd of the pod network.
    pub fn etcd(&mut self) -> &mut Service {
        &mut self.etcd
    }

    /// The flanneld of a node.
    pub fn daemon(&mut self, node: &Node) -> Result<&mut Service> {
        let daemon = self.daemons.get_mut(&node.index());
        daemon.with_context(|| format!("no flanneld has been started on {}", node.name()))
    }

    /// Stops the flanneld of a node and starts a new one; its device and routes stay in between.
    pub fn restart_daemon(&mut self, node: &Node) -> Result<()> {
        self.daemon(node)?.terminate(LIMIT)?;
        self.start_daemon(node)?;
        self.await_subnet(node).map(drop)
    }

    /// Stops the flanneld of every node and starts new ones, whose nodes reach each other by that device; their old
    /// device is replaced, and they keep their pods' addresses.
    pub fn move_to(&mut self, switch: &Machine, nodes: &[Node], device: &str) -> Result<()> {
        device.clone_into(&mut self.device);
        nodes.iter().try_for_each(|node| self.daemon(node)?.terminate(LIMIT).map(drop))?;
        // A lease is that of an address, which is another one now: the old one would keep the pods' addresses for itself.
        self.etcdctl(switch, &["del", "--prefix", "/coreos.com/network/subnets/"])?;
        nodes.iter().try_for_each(|node| self.start_daemon(node))?;
        nodes.iter().try_for_each(|node| self.await_subnet(node).map(drop))?;
        nodes.iter().try_for_each(|node| self.await_routes(node, nodes))
    }

    fn etcdctl(&self, switch: &Machine, arguments: &[&str]) -> Result<()> {
        tools::require("etcdctl")?;
        let mut command = switch.command("etcdctl")?;
        command.args(["--endpoints", &self.endpoint]).args(arguments).env("ETCDCTL_API", "3");
        process::run(&mut command).map(drop).with_context(|| self.etcd.log_tail(10))
    }

    fn start_daemon(&mut self, node: &Node) -> Result<()> {
        self.daemons.remove(&node.index());
        reserve_subnet(node, self.options.ipv6)?;
        let mut command = Command::new(tools::flanneld()?);
        command.arg(format!("--etcd-endpoints={}", self.endpoint));
        command.arg(format!("--iface={}", self.device)).arg("--iptables-forward-rules=false");
        command.args(["--healthz-ip=127.0.0.1", "--healthz-port=8081"]);
        let service = node.service("flanneld", &mut command)?;
        self.daemons.insert(node.index(), service);
        Ok(())
    }

    fn await_subnet(&mut self, node: &Node) -> Result<Subnet> {
        let what = format!("flanneld on {} to have a lease", node.name());
        let mut subnet = None;
        self.daemon(node)?.wait_until(&what, LIMIT, || {
            subnet = fs::read_to_string(subnet_file(node)).ok().as_deref().and_then(Subnet::parse);
            subnet.is_some()
        })?;
        subnet.context(what)
    }

    fn await_routes(&mut self, node: &Node, nodes: &[Node]) -> Result<()> {
        let others = nodes.iter().filter(|other| other.index() != node.index());
        let wanted = others.map(|other| other.subnet().cloned()).collect::<Result<Vec<_>>>()?;
        let ready = || {
            let ipv4 = node.proc_net("route").unwrap_or_default();
            let ipv6 = node.proc_net("ipv6_route").unwrap_or_default();
            wanted.iter().all(|subnet| has_routes(&ipv4, &ipv6, subnet))
        };
        let what = format!("flanneld on {} to have routes to all other nodes", node.name());
        self.daemon(node)?.wait_until(&what, LIMIT, ready)
    }
}

fn start_etcd(switch: &Machine) -> Result<(Service, String)> {
    let endpoint = format!("http://{}:2379", switch.address(false)?);
    let peer = "http://127.0.0.1:2380";
    let mut command = Command::new(tools::require("etcd")?);
    command.args(["--name=lab", "--log-outputs=stderr"]);
    command.arg(format!("--data-dir={}", switch.scratch().join("etcd").display()));
    command.args([format!("--listen-client-urls={endpoint}"), format!("--advertise-client-urls={endpoint}")]);
    command.args([format!("--listen-peer-urls={peer}"), format!("--initial-advertise-peer-urls={peer}")]);
    command.arg(format!("--initial-cluster=lab={peer}"));
    // One member has nobody to wait for.
    command.args(["--heartbeat-interval=20", "--election-timeout=200"]);
    let mut etcd = switch.service("etcd", &mut command)?;
    let listens = || witness::tcp_listens(switch, 2379).unwrap_or(false);
    etcd.wait_until("etcd to listen", LIMIT, listens)?;
    Ok((etcd, endpoint))
}

/// The node's `/run` is a tmpfs of its own: it is reached through the holder's root.
fn subnet_file(node: &Node) -> String {
    format!("/proc/{}/root/run/flannel/subnet.env", node.machine().holder_pid())
}

/// Writes what an earlier flanneld of node N would have left, so that it asks for 10.42.N.0/24 and `fd42:0:0:N::/64`
/// again and the tests know the addresses.
fn reserve_subnet(node: &Node, ipv6: bool) -> Result<()> {
    let index = node.index();
    let mut env = format!("FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET=10.42.{index}.1/24\n");
    if ipv6 {
        writeln!(env, "FLANNEL_IPV6_NETWORK=fd42::/48\nFLANNEL_IPV6_SUBNET=fd42:0:0:{index}::1/64")?;
    }
    let file = subnet_file(node);
    fs::write(&file, env).with_context(|| format!("write {file}"))
}

/// Makes `cni0` as the CNI bridge plugin does, but without multicast snooping: the bridge's own IGMP reports would reach
/// the pods' devices now and then, where no socket receives them.
fn make_bridge(node: &Node, subnet: &Subnet) -> Result<()> {
    let mac = crate::pod::mac(subnet.ipv4);
    let mut script = format!(
        "link add cni0 address {mac} mtu {} type bridge mcast_snooping 0\nlink set cni0 up\naddr add {}/24 dev cni0\n",
        subnet.mtu, subnet.ipv4
    );
    if let Some(ipv6) = subnet.ipv6 {
        writeln!(script, "addr add {ipv6}/64 dev cni0 nodad")?;
    }
    node.ip(&script)
}

fn has_routes(ipv4: &str, ipv6: &str, subnet: &Subnet) -> bool {
    let [a, b, c, _] = subnet.ipv4.octets();
    let destination = format!("{:08X}", u32::from_ne_bytes([a, b, c, 0]));
    let has_ipv4 = ipv4.lines().any(|line| line.split('\t').nth(1) == Some(&destination));
    let has_ipv6 = subnet.ipv6.is_none_or(|gateway| {
        let prefix = u128::from(gateway) >> 64 << 64;
        ipv6.lines().any(|line| line.starts_with(&format!("{prefix:032x} 40 ")))
    });
    has_ipv4 && has_ipv6
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENV: &str = "FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET=10.42.2.1/24\nFLANNEL_MTU=1450\n";

    #[test]
    fn a_single_stack_lease() {
        let expected = Subnet { ipv4: Ipv4Addr::new(10, 42, 2, 1), ipv6: None, mtu: 1450 };
        assert_eq!(Subnet::parse(ENV), Some(expected));
    }

    #[test]
    fn a_dual_stack_lease() {
        let subnet = Subnet::parse(&format!("{ENV}FLANNEL_IPV6_SUBNET=fd42:0:0:2::1/64\n")).unwrap();
        assert_eq!(subnet.ipv6, Some("fd42:0:0:2::1".parse().unwrap()));
    }

    #[test]
    fn a_reserved_subnet_is_no_lease() {
        assert_eq!(Subnet::parse("FLANNEL_SUBNET=10.42.2.1/24\n"), None);
        assert_eq!(Subnet::parse("FLANNEL_SUBNET=nonsense\nFLANNEL_MTU=1450\n"), None);
    }

    #[test]
    fn routes_of_both_families_are_wanted() {
        let subnet = Subnet::parse(&format!("{ENV}FLANNEL_IPV6_SUBNET=fd42:0:0:2::1/64\n")).unwrap();
        let ipv4 = format!("Iface\tDestination\nflannel.1\t{:08X}\t0\n", u32::from_ne_bytes([10, 42, 2, 0]));
        let ipv6 = "fd420000000000020000000000000000 40 00000000000000000000000000000000 00 x\n";
        assert!(has_routes(&ipv4, ipv6, &subnet));
        assert!(!has_routes(&ipv4, "", &subnet));
        assert!(!has_routes("", ipv6, &subnet));
    }

    #[test]
    fn dual_stack_is_asked_for() {
        let config = Flannel { backend: Backend::HostGw, ipv6: true }.config().unwrap();
        assert!(
            config.contains(r#""Type":"host-gw""#) && config.contains(r#""EnableIPv6":true"#),
            "{config}"
        );
    }
}
