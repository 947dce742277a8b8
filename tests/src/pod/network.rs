//! The network of a pod: what the CNI plugins flannel and bridge do.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;

use anyhow::{Context as _, Result};
use nix::sched::CloneFlags;

use crate::node::Node;
use crate::place::{Place as _, join};
use crate::pod::{Pod, identity};
use crate::process;

/// The pod's addresses and its device on the node.
#[derive(Debug)]
pub(crate) struct Attachment {
    host_number: u8,
    device: String,
    ipv4: Ipv4Addr,
    ipv6: Option<Ipv6Addr>,
}

impl Attachment {
    /// Takes free addresses of the node's pod network.
    pub(crate) fn reserve(node: &Node) -> Result<Self> {
        let subnet = node.subnet()?;
        let device = format!("veth{}", identity::random_hex(4)?);
        let host_number = node.take_address()?;
        let [a, b, c, _] = subnet.ipv4.octets();
        let ipv6 = subnet
            .ipv6
            .map(|gateway| Ipv6Addr::from(u128::from(gateway) >> 8 << 8 | u128::from(host_number)));
        Ok(Self { host_number, device, ipv4: Ipv4Addr::new(a, b, c, host_number), ipv6 })
    }

    pub(crate) fn device(&self) -> &str {
        &self.device
    }

    pub(crate) fn ipv4(&self) -> Ipv4Addr {
        self.ipv4
    }

    pub(crate) fn ipv6(&self) -> Option<Ipv6Addr> {
        self.ipv6
    }

    fn mac(&self) -> String {
        mac(self.ipv4)
    }
}

/// The MAC address for an IPv4 address, in the range that CNI uses.
pub(crate) fn mac(ipv4: Ipv4Addr) -> String {
    let [a, b, c, d] = ipv4.octets();
    format!("0a:58:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// Connects the network namespace of process `pid` to the node's bridge.
pub(crate) fn attach(pod: &Pod, pid: u32) -> Result<()> {
    let subnet = pod.node().subnet()?;
    let attachment = attachment(pod)?;
    let (device, mtu) = (attachment.device(), subnet.mtu);
    pod.node().ip(&format!(
        "link add {device} mtu {mtu} type veth peer name eth0 address {} mtu {mtu} netns {pid}\n\
         link set {device} master cni0 up\nlink set {device} type bridge_slave hairpin on\n",
        attachment.mac()
    ))?;
    let mut script = format!("link set lo up\naddr add {}/24 dev eth0\n", attachment.ipv4);
    if let Some(ipv6) = attachment.ipv6 {
        writeln!(script, "addr add {ipv6}/64 dev eth0 nodad")?;
    }
    writeln!(script, "link set eth0 up\nroute add default via {}", subnet.ipv4)?;
    if let Some(gateway) = subnet.ipv6 {
        writeln!(script, "route add default via {gateway}")?;
    }
    // The container has no cgroup yet, and the real plugins are not run by the pod either.
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]);
    join(&mut command, [pod.node().cgroup()], pod.namespaces(), CloneFlags::empty())?;
    process::run_with_input(&mut command, &script).with_context(|| format!("ip -batch:\n{script}")).map(drop)
}

/// Removes the device, which otherwise goes some time after the last process of the pod, and frees the addresses.
pub(crate) fn detach(node: &Node, attachment: &Attachment) -> Result<()> {
    let gone =
        node.proc_net("dev").is_ok_and(|devices| !devices.contains(&format!("{}:", attachment.device)));
    let deleted = if gone { Ok(()) } else { node.ip(&format!("link del {}\n", attachment.device)) };
    node.release_address(attachment.host_number);
    // The namespace may have taken the device along in the meantime.
    deleted.or_else(
        |error| if format!("{error:#}").contains("Cannot find device") { Ok(()) } else { Err(error) },
    )
}

/// See [`Pod::pin_neighbours`].
pub(crate) fn pin_neighbours(pod: &Pod, others: &[&Pod]) -> Result<()> {
    let subnet = pod.node().subnet()?;
    let own = attachment(pod)?;
    let mut inside = entries(subnet.ipv4, subnet.ipv6, &mac(subnet.ipv4), "eth0")?;
    for other in
        others.iter().filter(|other| other.node().index() == pod.node().index() && other.uid != pod.uid)
    {
        let other = attachment(other)?;
        inside += &entries(other.ipv4, other.ipv6, &other.mac(), "eth0")?;
    }
    pod.ip(&inside)?;
    pod.node().ip(&entries(own.ipv4, own.ipv6, &own.mac(), "cni0")?)
}

fn entries(ipv4: Ipv4Addr, ipv6: Option<Ipv6Addr>, mac: &str, device: &str) -> Result<String> {
    let mut script = String::new();
    writeln!(script, "neigh replace {ipv4} lladdr {mac} dev {device} nud permanent")?;
    if let Some(ipv6) = ipv6 {
        writeln!(script, "neigh replace {ipv6} lladdr {mac} dev {device} nud permanent")?;
    }
    Ok(script)
}

fn attachment(pod: &Pod) -> Result<&Attachment> {
    pod.attachment.as_ref().with_context(|| format!("{} uses the network of its node", pod.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mac_follows_the_address() {
        assert_eq!(mac(Ipv4Addr::new(10, 42, 3, 200)), "0a:58:0a:2a:03:c8");
    }

    #[test]
    fn neighbour_entries_of_both_families() {
        let script =
            entries(Ipv4Addr::new(10, 42, 1, 2), Some("fd42::2".parse().unwrap()), "m", "cni0").unwrap();
        assert_eq!(
            script,
            "neigh replace 10.42.1.2 lladdr m dev cni0 nud permanent\n\
             neigh replace fd42::2 lladdr m dev cni0 nud permanent\n"
        );
    }
}
