//! The store of a control plane: a real etcd cluster, one member on each of the first nodes of a lab, with mutual TLS
//! between all of them.
//!
//! Files lie where kubeadm or k3s has them, so that an agent of the node finds them like on any machine. What etcdctl
//! says is the witness; it runs with a certificate of its own, which no fault of the nodes' certificates touches.
//! Members are named by the numbers of their nodes.

pub(crate) mod authority;
mod control;
mod member;
mod options;
mod pki;
mod reading;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::cluster::Lab;
use crate::node::Node;
use crate::place::Place as _;
use crate::process;
use crate::scrape::{self, Response, Samples};
use crate::service::Service;
use member::Member;

pub use authority::Validity;
pub use member::{CLIENT_PORT, PEER_PORT};
pub use options::{EtcdOptions, Reach, Version};
pub use pki::{Layout, Pki, Role};
pub use reading::{Listed, Status};

/// Where a member has its metrics and its health, in plain HTTP.
pub const PAGE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 2381);

/// The time for what a cluster does by itself, such as to elect a leader, on a busy machine.
const LIMIT: Duration = Duration::from_mins(1);

/// A running cluster. Dropping it kills its members.
#[derive(Debug)]
pub struct Etcd {
    options: EtcdOptions,
    pki: Pki,
    hosts: String,
    members: BTreeMap<u8, Member>,
}

impl Etcd {
    /// Starts a cluster without data on the first nodes of the lab, and waits until all members are healthy.
    pub fn start(lab: &Lab, options: &EtcdOptions) -> Result<Self> {
        let count = usize::from(options.members);
        ensure!(matches!(count, 1..=5 | 7), "a cluster has 1 to 5 or 7 members, not {count}");
        let nodes = lab.nodes().get(..count).with_context(|| format!("the lab has no {count} nodes"))?;
        let directory = lab.scratch().join("etcd-pki");
        if directory.exists() {
            fs::remove_dir_all(&directory).with_context(|| format!("remove {}", directory.display()))?;
        }
        let pki = Pki::new(directory, options.layout)?;
        let members = BTreeMap::new();
        let mut etcd = Self { options: options.clone(), pki, hosts: hosts(lab)?, members };
        let initial = nodes.iter().map(|node| member::initial(node, options)).collect::<Result<Vec<_>>>()?;
        for node in nodes {
            etcd.furnish(node)?;
            let member = Member::start(node, options, &initial.join(","), "new")?;
            etcd.members.insert(node.index(), member);
        }
        etcd.wait_healthy(LIMIT)?;
        Ok(etcd)
    }

    /// Puts the files on a node that a member reads.
    fn furnish(&self, node: &Node) -> Result<()> {
        node.own_etc()?;
        if self.options.reach == Reach::Names {
            let file = node.path("/etc/hosts");
            fs::write(&file, &self.hosts).with_context(|| format!("write {}", file.display()))?;
        }
        self.pki.install(node)
    }

    /// The options that the cluster was started with.
    #[must_use]
    pub fn options(&self) -> &EtcdOptions {
        &self.options
    }

    /// The certificates.
    #[must_use]
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// The numbers of all members that have been started, removed ones included.
    #[must_use]
    pub fn numbers(&self) -> Vec<u8> {
        self.members.keys().copied().collect()
    }

    /// The numbers of the members that run, are not frozen and have not been removed.
    #[must_use]
    pub fn working(&self) -> Vec<u8> {
        self.members.iter().filter(|(_, member)| member.works()).map(|(number, _)| *number).collect()
    }

    /// The node of a member.
    pub fn node(&self, member: u8) -> Result<&Node> {
        self.member(member).map(Member::node)
    }

    /// The process of a member that has not been killed or stopped.
    pub fn service(&mut self, member: u8) -> Result<&mut Service> {
        self.member_mut(member)?.service_mut()
    }

    /// Kills a member by SIGKILL.
    pub fn kill(&mut self, member: u8) -> Result<ExitStatus> {
        self.member_mut(member)?.kill()
    }

    /// Stops a member properly: a leader hands its office over first.
    pub fn stop(&mut self, member: u8) -> Result<ExitStatus> {
        self.member_mut(member)?.stop()
    }

    /// Stops a member in its tracks: the kernel goes on accepting, and nobody answers.
    pub fn freeze(&mut self, member: u8) -> Result<()> {
        self.member_mut(member)?.freeze()
    }

    /// Lets a frozen member go on.
    pub fn thaw(&mut self, member: u8) -> Result<()> {
        self.member_mut(member)?.thaw()
    }

    /// Starts a member again with the data that it had, and does not wait for it; it is killed if it still runs.
    pub fn restart(&mut self, member: u8) -> Result<()> {
        let options = self.options.clone();
        self.member_mut(member)?.run(&options)
    }

    /// Waits until all working members are healthy by etcdctl, which needs a quorum.
    pub fn wait_healthy(&mut self, limit: Duration) -> Result<()> {
        let mut last = Ok(String::new());
        let waited = process::wait_until("a healthy etcd", limit, || {
            last = self.etcdctl(&["endpoint", "health"]);
            last.is_ok() || self.ended().is_err()
        });
        self.ended()?;
        waited.with_context(|| last.err().map(|error| format!("{error:#}")).unwrap_or_default())
    }

    /// Fails if a member that should run has ended.
    fn ended(&mut self) -> Result<()> {
        for member in self.members.values_mut().filter(|member| member.works()) {
            let service = member.service_mut()?;
            if let Some(status) = service.ended()? {
                bail!(
                    "etcd on {} ended ({status}); {}",
                    member.node().name(),
                    member.service()?.log_tail(20)
                );
            }
        }
        Ok(())
    }

    /// Gets a page of a member from inside its node, such as `/metrics` and `/health`.
    pub fn page(&self, member: u8, path: &str) -> Result<Response> {
        scrape::get(self.node(member)?, PAGE, path, &[])
    }

    /// The metrics of a member.
    pub fn metrics(&self, member: u8) -> Result<Samples> {
        scrape::parse(self.page(member, "/metrics")?.text()?)
    }

    fn member(&self, number: u8) -> Result<&Member> {
        self.members.get(&number).with_context(|| format!("node{number} has no member of the cluster"))
    }

    fn member_mut(&mut self, number: u8) -> Result<&mut Member> {
        self.members.get_mut(&number).with_context(|| format!("node{number} has no member of the cluster"))
    }
}

/// The `/etc/hosts` of all nodes.
fn hosts(lab: &Lab) -> Result<String> {
    let mut text = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
    for node in lab.nodes() {
        writeln!(text, "{} {}", node.address(false)?, node.name())?;
    }
    Ok(text)
}
