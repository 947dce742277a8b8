//! One member: etcd as a daemon of a node.

use std::fs;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use super::options::EtcdOptions;
use super::pki::Role;
use crate::node::Node;
use crate::place::Place as _;
use crate::process;
use crate::service::Service;

/// Where clients connect to.
pub const CLIENT_PORT: u16 = 2379;
/// Where members connect to.
pub const PEER_PORT: u16 = 2380;

/// The time for a proper stop: a leader hands its office over first.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// A member. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Member {
    node: Node,
    arguments: Vec<String>,
    service: Option<Service>,
    frozen: bool,
    removed: bool,
}

impl Member {
    /// Starts a member with no data, and does not wait for it. `cluster` is what `--initial-cluster` takes, `state`
    /// what `--initial-cluster-state` takes.
    pub(super) fn start(node: &Node, options: &EtcdOptions, cluster: &str, state: &str) -> Result<Self> {
        let data = node.path(options.layout.data());
        if data.exists() {
            fs::remove_dir_all(&data).with_context(|| format!("remove {}", data.display()))?;
        }
        if let Some(parent) = data.parent() {
            fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
        }
        let arguments = arguments(node, options, cluster, state)?;
        let mut member = Self { node: node.clone(), arguments, service: None, frozen: false, removed: false };
        member.run(options)?;
        Ok(member)
    }

    /// Starts it again with the data that it had; a predecessor that still runs is killed.
    pub(super) fn run(&mut self, options: &EtcdOptions) -> Result<()> {
        self.service = None;
        self.frozen = false;
        let mut command = Command::new(options.version.etcd()?);
        command.args(&self.arguments);
        self.service = Some(self.node.service("etcd", &mut command)?);
        Ok(())
    }

    pub(super) fn node(&self) -> &Node {
        &self.node
    }

    pub(super) fn service(&self) -> Result<&Service> {
        self.service.as_ref().with_context(|| format!("no etcd runs on {}", self.node.name()))
    }

    pub(super) fn service_mut(&mut self) -> Result<&mut Service> {
        self.service.as_mut().with_context(|| format!("no etcd runs on {}", self.node.name()))
    }

    /// Whether it runs as a member of the cluster and is not frozen.
    pub(super) fn works(&self) -> bool {
        self.service.is_some() && !self.frozen && !self.removed
    }

    /// Whether the cluster has removed it.
    pub(super) fn is_removed(&self) -> bool {
        self.removed
    }

    /// Notes that the cluster has removed it.
    pub(super) fn set_removed(&mut self) {
        self.removed = true;
    }

    pub(super) fn kill(&mut self) -> Result<ExitStatus> {
        let status = self.service_mut()?.kill()?;
        self.service = None;
        Ok(status)
    }

    pub(super) fn stop(&mut self) -> Result<ExitStatus> {
        let status = self.service_mut()?.terminate(STOP_LIMIT)?;
        self.service = None;
        Ok(status)
    }

    pub(super) fn freeze(&mut self) -> Result<()> {
        process::freeze(self.service()?.pid())?;
        self.frozen = true;
        Ok(())
    }

    pub(super) fn thaw(&mut self) -> Result<()> {
        self.service()?.signal(Signal::SIGCONT)?;
        self.frozen = false;
        Ok(())
    }
}

/// What `--initial-cluster` says of a member.
pub(super) fn initial(node: &Node, options: &EtcdOptions) -> Result<String> {
    Ok(format!("{}={}", node.name(), options.reach.advertise(node, PEER_PORT)?))
}

fn arguments(node: &Node, options: &EtcdOptions, cluster: &str, state: &str) -> Result<Vec<String>> {
    let (reach, layout) = (options.reach, options.layout);
    let file = |name: &str| format!("{}/{name}", layout.directory());
    let [[certificate, key], [peer_certificate, peer_key]] =
        [Role::Server, Role::Peer].map(|role| layout.pair(role).map(file));
    let clients = format!("{},https://127.0.0.1:{CLIENT_PORT}", reach.listen(node, CLIENT_PORT)?);
    let mut arguments = vec![
        format!("--name={}", node.name()),
        format!("--data-dir={}", layout.data()),
        "--logger=zap".into(),
        "--log-outputs=stderr".into(),
        format!("--listen-client-urls={clients}"),
        format!("--advertise-client-urls={}", reach.advertise(node, CLIENT_PORT)?),
        format!("--listen-peer-urls={}", reach.listen(node, PEER_PORT)?),
        format!("--initial-advertise-peer-urls={}", reach.advertise(node, PEER_PORT)?),
        format!("--initial-cluster={cluster}"),
        format!("--initial-cluster-state={state}"),
        format!("--listen-metrics-urls=http://{}", super::PAGE),
        "--client-cert-auth=true".into(),
        format!("--cert-file={certificate}"),
        format!("--key-file={key}"),
        format!("--trusted-ca-file={}", file(layout.authority(Role::Server))),
        "--peer-client-cert-auth=true".into(),
        format!("--peer-cert-file={peer_certificate}"),
        format!("--peer-key-file={peer_key}"),
        format!("--peer-trusted-ca-file={}", file(layout.authority(Role::Peer))),
        format!("--heartbeat-interval={}", options.heartbeat.as_millis()),
        format!("--election-timeout={}", options.election.as_millis()),
    ];
    arguments.extend(options.quota.map(|bytes| format!("--quota-backend-bytes={bytes}")));
    arguments.extend_from_slice(&options.arguments);
    Ok(arguments)
}
