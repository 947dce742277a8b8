//! A node: a machine with standard paths, an underlay address and, with flannel, a pod network.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::{Context as _, Result};
use nix::sched::CloneFlags;
use serde::Deserialize;

use crate::flannel::Subnet;
use crate::machine::{Machine, Plan, Starting};
use crate::place::{Namespaces, Place};
use crate::pod::{Pod, PodSpec};
use crate::process;
use crate::service::Service;

/// The holder's view of the file system. sysfs is mounted afresh to show the devices of the network namespace; the
/// old one goes first, since its cgroup mounts would still be listed in /proc/mounts. Network namespaces that
/// others keep in /run/netns must not be held alive by our copy of their mounts. Where the node has directories of its own in
/// the hierarchies of cgroup v1, it sees those too, as the machine does. The configuration that the package of
/// HAProxy brings is not the node's.
const SETUP: &str = r#"
mount --make-rprivate /
echo "$name" > /proc/sys/kernel/hostname
umount -R -l /run/netns 2>/dev/null || :
legacy=$(awk '$3 == "cgroup" { print $2, $4 }' /proc/self/mounts)
umount -R -l /sys
mount -t sysfs sysfs /sys
if [ "$is_hybrid" ]; then
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
    echo "$legacy" | while read -r directory options; do
        mkdir "$directory"
        mount -t cgroup -o "$options" cgroup "$directory"
    done
    mkdir /sys/fs/cgroup/unified
    mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
else
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
mount --bind "$scratch/var-lib" /var/lib
mount --bind "$scratch/var-log" /var/log
[ ! -d /etc/haproxy ] || mount --bind "$scratch/etc-haproxy" /etc/haproxy
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/flannel /run/lock /var/log/pods
mount --make-rshared /
cd /proc/sys/net
echo 1 > ipv4/ip_forward
for scope in all default; do
    echo 0 > ipv4/conf/$scope/rp_filter
    echo 0 > ipv4/conf/$scope/send_redirects
    echo 0 > ipv6/conf/$scope/accept_ra
    echo 0 > ipv6/conf/$scope/accept_dad
    echo 1 > ipv6/conf/$scope/forwarding
done
"#;

/// Makes `/etc` writable on top of the machine's. What lies on it as a mount of its own would be hidden.
const OWN_ETC: &str = r#"
mountpoint -q /etc && exit
mkdir -p /run/etc/upper /run/etc/work
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work overlay /etc
[ ! -d /etc/haproxy ] || mount --bind "$scratch/etc-haproxy" /etc/haproxy
"#;

/// A node of the lab. Clones are handles to the same node.
#[derive(Clone, Debug)]
pub struct Node(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    machine: Machine,
    index: u8,
    subnet: OnceLock<Subnet>,
    pods: Mutex<Addresses>,
}

/// The host numbers of the node's pods, given out round robin like host-local does.
#[derive(Debug, Default)]
struct Addresses {
    used: BTreeSet<u8>,
    last: u8,
}

impl Addresses {
    fn take(&mut self) -> Option<u8> {
        let last = self.last.max(1);
        let number = (last + 1..=254).chain(2..=last).find(|number| !self.used.contains(number))?;
        self.used.insert(number);
        self.last = number;
        Some(number)
    }
}

/// An address of a node and the device that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The device.
    pub device: String,
    /// The length of the address's prefix.
    pub prefix: u8,
}

/// What `ip -json address` tells of a device.
#[derive(Deserialize)]
struct Link {
    ifname: String,
    #[serde(default)]
    addr_info: Vec<LinkAddress>,
}

#[derive(Deserialize)]
struct LinkAddress {
    local: Option<IpAddr>,
    prefixlen: u8,
}

fn find_address(json: &str, address: IpAddr) -> Result<Option<Held>> {
    let links: Vec<Link> = serde_json::from_str(json).context("read the output of ip -json address")?;
    Ok(links.into_iter().find_map(|link| {
        let found = link.addr_info.iter().find(|held| held.local == Some(address))?;
        Some(Held { prefix: found.prefixlen, device: link.ifname })
    }))
}

/// The plan of node `index` for [`Starting::begin`].
pub(crate) fn plan<'a>(
    index: u8,
    lab_cgroup: &'a Path,
    lab_legacy: &'a [PathBuf],
    lab_scratch: &'a Path,
) -> Plan<'a> {
    Plan {
        name: format!("node{index}"),
        lab_cgroup,
        lab_legacy,
        lab_scratch,
        kinds: CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWCGROUP,
        setup: SETUP,
        ipv4: Ipv4Addr::new(192, 168, 56, 10 + index),
        ipv6: Ipv6Addr::new(0xfd56, 0, 0, 0, 0, 0, 0, 0x10 + u16::from(index)),
    }
}

impl Node {
    pub(crate) fn new(index: u8, starting: Starting<'_>) -> Result<Self> {
        let machine = starting.ready()?;
        Ok(Self(Arc::new(Inner { machine, index, subnet: OnceLock::new(), pods: Mutex::default() })))
    }

    /// The number of the node, from 1.
    #[must_use]
    pub fn index(&self) -> u8 {
        self.0.index
    }

    /// The node as a machine.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.0.machine
    }

    /// The cgroup directory that processes of the node see as `/`, as the machine sees it.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.0.machine.root()
    }

    /// A file of the node below `/var/log`, as the machine sees it.
    #[must_use]
    pub fn var_log(&self) -> PathBuf {
        self.0.machine.scratch().join("var-log")
    }

    /// A file of the node, as the machine sees it.
    #[must_use]
    pub fn path(&self, absolute: &str) -> PathBuf {
        format!("/proc/{}/root{absolute}", self.machine().holder_pid()).into()
    }

    /// Writes a file of the node, and makes its directory.
    pub(crate) fn write(&self, absolute: &str, text: &str) -> Result<()> {
        let file = self.path(absolute);
        let directory = file.parent().context("a file has a directory")?;
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))
    }

    /// Gives the node an `/etc` of its own, with all that the machine's has. Once is enough.
    pub fn own_etc(&self) -> Result<()> {
        let mut command = self.command("sh")?;
        command.args(["-euc", OWN_ETC]).env("scratch", self.machine().scratch());
        process::run(&mut command).with_context(|| format!("give {} an /etc", self.name())).map(drop)
    }

    /// The MAC address of `eth0`.
    #[must_use]
    pub fn mac(&self) -> String {
        format!("02:56:00:00:00:{:02x}", self.index())
    }

    /// Where the node has the address now, if it has it.
    pub fn holding(&self, address: IpAddr) -> Result<Option<Held>> {
        let json = self.run(&["ip", "-json", "address"])?;
        find_address(&json, address).with_context(|| format!("look for {address} on {}", self.name()))
    }

    /// Takes the address from the node; nothing is done if it does not have it.
    pub fn remove_address(&self, address: IpAddr) -> Result<()> {
        let Some(held) = self.holding(address)? else { return Ok(()) };
        self.ip(&format!("address del {address}/{} dev {}\n", held.prefix, held.device))
    }

    /// Starts a daemon in `system.slice/NAME.service` of the node.
    pub fn service(&self, name: &str, command: &mut Command) -> Result<Service> {
        self.0.machine.service(name, command)
    }

    /// Starts a pod.
    pub fn pod(&self, spec: PodSpec) -> Result<Pod> {
        Pod::start(self, spec)
    }

    /// The pod network of the node; an error if the lab has none.
    pub fn subnet(&self) -> Result<&Subnet> {
        self.0
            .subnet
            .get()
            .with_context(|| format!("{} has no pod network: start the lab with flannel", self.name()))
    }

    pub(crate) fn set_subnet(&self, subnet: Subnet) -> Result<()> {
        self.0.subnet.set(subnet).ok().with_context(|| format!("{} has a pod network already", self.name()))
    }

    pub(crate) fn take_address(&self) -> Result<u8> {
        let number = self.0.pods.lock().unwrap_or_else(PoisonError::into_inner).take();
        number.with_context(|| format!("all pod addresses of {} are in use", self.name()))
    }

    pub(crate) fn release_address(&self, number: u8) {
        self.0.pods.lock().unwrap_or_else(PoisonError::into_inner).used.remove(&number);
    }
}

impl Place for Node {
    fn name(&self) -> &str {
        self.0.machine.name()
    }
    fn namespaces(&self) -> &Namespaces {
        self.0.machine.namespaces()
    }
    fn cgroup(&self) -> &Path {
        self.0.machine.cgroup()
    }
    fn ipv4(&self) -> Option<Ipv4Addr> {
        self.0.machine.ipv4()
    }
    fn ipv6(&self) -> Option<Ipv6Addr> {
        self.0.machine.ipv6()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_round_robin() {
        let mut addresses = Addresses::default();
        assert_eq!([addresses.take(), addresses.take()], [Some(2), Some(3)]);
        addresses.used.remove(&2);
        assert_eq!(addresses.take(), Some(4));
    }

    #[test]
    fn addresses_wrap_to_what_is_free() {
        let mut addresses = Addresses { used: (2..=254).collect(), last: 200 };
        assert_eq!(addresses.take(), None);
        addresses.used.remove(&7);
        assert_eq!(addresses.take(), Some(7));
    }

    const ADDRESSES: &str = r#"[{"ifname":"lo","addr_info":[{"local":"127.0.0.1","prefixlen":8}]},{"ifname":"tunl0"},
        {"ifname":"eth0","addr_info":[{"local":"192.168.56.11","prefixlen":24},{"local":"fd56::50","prefixlen":64}]}]"#;

    #[test]
    fn an_address_is_found_with_its_device_and_prefix() {
        let held = |address: &str| find_address(ADDRESSES, address.parse().unwrap()).unwrap();
        assert_eq!(held("fd56::50"), Some(Held { device: "eth0".into(), prefix: 64 }));
        assert_eq!(held("127.0.0.1"), Some(Held { device: "lo".into(), prefix: 8 }));
        assert_eq!(held("192.168.56.1"), None);
    }

    #[test]
    fn output_that_is_no_list_of_devices_is_an_error() {
        assert!(find_address("Device does not exist", Ipv4Addr::LOCALHOST.into()).is_err());
    }
}
