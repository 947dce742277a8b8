//! What kind of cluster to start.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use super::pki::Layout;
use crate::node::Node;
use crate::place::Place as _;
use crate::tools;

/// Which etcd runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 3.4, Debian's.
    V3_4,
    /// 3.5, built from source.
    V3_5,
    /// 3.6, built from source.
    V3_6,
}

impl Version {
    /// How the number begins that this etcd tells.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::V3_4 => "3.4.",
            Self::V3_5 => "3.5.",
            Self::V3_6 => "3.6.",
        }
    }

    pub(super) fn etcd(self) -> Result<PathBuf> {
        match self {
            Self::V3_4 => tools::require("etcd"),
            Self::V3_5 => tools::etcd_3_5(),
            Self::V3_6 => tools::etcd_3_6(),
        }
    }

    pub(super) fn etcdctl(self) -> Result<PathBuf> {
        match self {
            Self::V3_4 => tools::require("etcdctl"),
            Self::V3_5 => tools::etcdctl_3_5(),
            Self::V3_6 => tools::etcdctl_3_6(),
        }
    }
}

/// What stands in the addresses by which members reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The IPv4 addresses of the nodes.
    Ipv4,
    /// The IPv6 addresses of the nodes.
    Ipv6,
    /// The names of the nodes, which are in `/etc/hosts` with their IPv4 addresses.
    Names,
}

impl Reach {
    /// Where the member listens; a name is nothing to listen on.
    pub(super) fn listen(self, node: &Node, port: u16) -> Result<String> {
        Ok(url(node.address(self == Self::Ipv6)?, port))
    }

    /// What the member is told to the others to have.
    pub(super) fn advertise(self, node: &Node, port: u16) -> Result<String> {
        match self {
            Self::Ipv4 | Self::Ipv6 => self.listen(node, port),
            Self::Names => Ok(format!("https://{}:{port}", node.name())),
        }
    }
}

fn url(address: IpAddr, port: u16) -> String {
    match address {
        IpAddr::V4(address) => format!("https://{address}:{port}"),
        IpAddr::V6(address) => format!("https://[{address}]:{port}"),
    }
}

/// What kind of cluster to start.
#[derive(Clone, Debug)]
pub struct EtcdOptions {
    /// Which etcd runs.
    pub version: Version,
    /// The number of voting members, 1, 2, 3, 4, 5 or 7: one on each of the first nodes of the lab.
    pub members: u8,
    /// The time between two heartbeats of the leader.
    pub heartbeat: Duration,
    /// The time without a heartbeat after which a follower wants to become leader.
    pub election: Duration,
    /// The size of the data base in bytes past which etcd takes no more writes; etcd's own default is 2 GiB.
    pub quota: Option<u64>,
    /// What stands in the addresses of the members.
    pub reach: Reach,
    /// Where the files are.
    pub layout: Layout,
    /// Further arguments of each member.
    pub arguments: Vec<String>,
}

impl Default for EtcdOptions {
    fn default() -> Self {
        Self {
            version: Version::V3_4,
            members: 3,
            heartbeat: Duration::from_millis(100),
            election: Duration::from_secs(1),
            quota: None,
            reach: Reach::Ipv4,
            layout: Layout::Kubeadm,
            arguments: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_stands_in_brackets() {
        assert_eq!(url("fd56::11".parse().unwrap(), 2379), "https://[fd56::11]:2379");
        assert_eq!(url("192.168.56.11".parse().unwrap(), 2380), "https://192.168.56.11:2380");
    }
}
