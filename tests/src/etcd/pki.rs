//! The certificates of a cluster, where kubeadm or k3s have them in the file system of a node, and what can be wrong
//! with them.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::authority::{Authority, Subject, Validity, new_key, write};
use crate::node::Node;
use crate::place::Place as _;
use crate::tls::Certificate;

/// Who lays the files out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// kubeadm: one authority.
    Kubeadm,
    /// k3s: another authority for the peers.
    K3s,
}

impl Layout {
    /// The directory of the certificates on a node.
    #[must_use]
    pub fn directory(self) -> &'static str {
        match self {
            Self::Kubeadm => "/etc/kubernetes/pki/etcd",
            Self::K3s => "/var/lib/rancher/k3s/server/tls/etcd",
        }
    }

    /// The directory of the data on a node.
    #[must_use]
    pub fn data(self) -> &'static str {
        match self {
            Self::Kubeadm => "/var/lib/etcd",
            Self::K3s => "/var/lib/rancher/k3s/server/db/etcd",
        }
    }

    /// The name of the file with the authority by which certificates of that role are checked.
    #[must_use]
    pub fn authority(self, role: Role) -> &'static str {
        match (self, role) {
            (Self::Kubeadm, _) => "ca.crt",
            (Self::K3s, Role::Peer) => "peer-ca.crt",
            (Self::K3s, Role::Server | Role::Client) => "server-ca.crt",
        }
    }

    /// The names of the files with the certificate and with its key.
    #[must_use]
    pub fn pair(self, role: Role) -> [&'static str; 2] {
        match (self, role) {
            (Self::Kubeadm, Role::Server) => ["server.crt", "server.key"],
            (Self::Kubeadm, Role::Peer) => ["peer.crt", "peer.key"],
            (Self::Kubeadm, Role::Client) => ["healthcheck-client.crt", "healthcheck-client.key"],
            (Self::K3s, Role::Server) => ["server-client.crt", "server-client.key"],
            (Self::K3s, Role::Peer) => ["peer-server-client.crt", "peer-server-client.key"],
            (Self::K3s, Role::Client) => ["client.crt", "client.key"],
        }
    }
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Shown to clients on port 2379.
    Server,
    /// Shown by both ends of connections to port 2380.
    Peer,
    /// Shown by clients of port 2379.
    Client,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Server, Self::Peer, Self::Client];
}

/// The authorities of a cluster.
#[derive(Clone, Debug)]
pub struct Pki {
    directory: PathBuf,
    layout: Layout,
    server: Authority,
    peer: Authority,
    stranger: Authority,
}

impl Pki {
    /// Makes the authorities in a directory, and a client's certificate for the witness.
    pub(super) fn new(directory: PathBuf, layout: Layout) -> Result<Self> {
        let authority = |name: &str| Authority::new(directory.join(name), name);
        let server = authority("etcd-ca")?;
        let peer = match layout {
            Layout::Kubeadm => server.clone(),
            Layout::K3s => authority("etcd-peer-ca")?,
        };
        let stranger = authority("stranger-ca")?;
        let pki = Self { directory, layout, server, peer, stranger };
        let [certificate, key] = pki.witness_pair();
        new_key(&key)?;
        let subject = Subject::client("witness");
        pki.server.sign(&subject, &key, Validity::default(), &certificate)?;
        Ok(pki)
    }

    /// Who lays the files out.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Puts all files on the node: the authorities, and new keys with new certificates.
    pub fn install(&self, node: &Node) -> Result<()> {
        let directory = self.on_node(node);
        fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        for role in Role::ALL {
            let authority = self.authority(role);
            self.place(node, self.layout.authority(role), |staged| copy(&authority.certificate(), staged))?;
            self.place(node, self.layout.pair(role)[1], new_key)?;
            self.reissue(node, role, Validity::default())?;
        }
        Ok(())
    }

    /// Replaces a certificate by another one for the same key, as a rotation does, in one step.
    pub fn reissue(&self, node: &Node, role: Role, validity: Validity) -> Result<()> {
        self.issue(self.authority(role), node, role, validity)
    }

    /// Replaces a certificate by one that an authority unknown to everybody has signed.
    pub fn reissue_by_stranger(&self, node: &Node, role: Role) -> Result<()> {
        self.issue(&self.stranger, node, role, Validity::default())
    }

    /// Replaces the authority's certificate by another authority's, in which the node trusts from now on.
    pub fn replace_authority(&self, node: &Node, role: Role) -> Result<()> {
        let stranger = self.stranger.certificate();
        self.place(node, self.layout.authority(role), |staged| copy(&stranger, staged))
    }

    /// Replaces a key by one that does not belong to the certificate.
    pub fn replace_key(&self, node: &Node, role: Role) -> Result<()> {
        self.place(node, self.layout.pair(role)[1], new_key)
    }

    /// A certificate of the node and its key, as the machine sees the files.
    #[must_use]
    pub fn certificate(&self, node: &Node, role: Role) -> Certificate {
        let [certificate, key] = self.layout.pair(role).map(|name| self.on_node(node).join(name));
        Certificate::at(certificate, key)
    }

    /// The certificate and the key of a client that is none of the nodes' and that no fault touches.
    pub(super) fn witness_pair(&self) -> [PathBuf; 2] {
        ["witness.crt", "witness.key"].map(|name| self.directory.join(name))
    }

    /// The authority of the servers, by which the witness checks them.
    pub(super) fn server_authority(&self) -> PathBuf {
        self.server.certificate()
    }

    fn authority(&self, role: Role) -> &Authority {
        match role {
            Role::Peer => &self.peer,
            Role::Server | Role::Client => &self.server,
        }
    }

    fn issue(&self, authority: &Authority, node: &Node, role: Role, validity: Validity) -> Result<()> {
        let key = self.certificate(node, role).key().to_owned();
        let subject = subject(node, role)?;
        let [name, _] = self.layout.pair(role);
        self.place(node, name, |staged| authority.sign(&subject, &key, validity, staged))
            .with_context(|| format!("issue {name} for {}", node.name()))
    }

    /// Makes a file beside its place and renames it, so that no reader finds half of it.
    fn place(&self, node: &Node, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let directory = self.on_node(node);
        let (staged, file) = (directory.join(format!(".{name}")), directory.join(name));
        make(&staged)?;
        fs::rename(&staged, &file).with_context(|| format!("rename {}", staged.display()))
    }

    fn on_node(&self, node: &Node) -> PathBuf {
        node.path(self.layout.directory())
    }
}

fn subject(node: &Node, role: Role) -> Result<Subject> {
    if role == Role::Client {
        return Ok(Subject::client("kube-etcd-healthcheck-client"));
    }
    let local: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    Ok(Subject {
        name: node.name().into(),
        organization: None,
        dns: vec![node.name().into(), "localhost".into()],
        addresses: [node.address(false)?, node.address(true)?].into_iter().chain(local).collect(),
    })
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let text = fs::read_to_string(from).with_context(|| format!("read {}", from.display()))?;
    write(to, &text)
}
