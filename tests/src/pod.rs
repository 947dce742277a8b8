//! A pod: a network namespace, cgroups and a log directory shaped like the kubelet's.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use nix::sched::CloneFlags;

use crate::cgroup;
use crate::node::Node;
use crate::owner::remove_scratch;
use crate::place::{Namespaces, Place, join};
use crate::pod::identity::random_hex;
use crate::process::Holder;

mod identity;
mod network;

pub use identity::{Driver, Qos};
pub(crate) use network::mac;

/// What kind of pod to start.
#[derive(Clone, Debug)]
pub struct PodSpec {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Pod name.
    pub name: String,
    /// Container name.
    pub container: String,
    /// The kubelet's cgroup driver.
    pub driver: Driver,
    /// The quality-of-service class.
    pub qos: Qos,
    /// Whether the pod uses the node's network namespace.
    pub host_network: bool,
    /// The UID; random if none. Static pods have a hash of 32 digits without dashes here.
    pub uid: Option<String>,
}

impl PodSpec {
    /// A burstable pod in the namespace `default`, with the cgroupfs driver and its own network.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            namespace: "default".into(),
            name: name.into(),
            container: "main".into(),
            driver: Driver::Cgroupfs,
            qos: Qos::Burstable,
            host_network: false,
            uid: None,
        }
    }
}

/// A running pod. Dropping it removes it.
#[derive(Debug)]
pub struct Pod {
    node: Node,
    label: String,
    spec: PodSpec,
    uid: String,
    container_id: String,
    whole: PathBuf,
    container: PathBuf,
    log_dir: PathBuf,
    namespaces: Namespaces,
    sandbox: Option<Holder>,
    attachment: Option<network::Attachment>,
    removed: bool,
}

impl Pod {
    /// Starts a pod in the kubelet's order: cgroup of the pod, log directory, sandbox with network, container.
    pub(crate) fn start(node: &Node, spec: PodSpec) -> Result<Self> {
        let uid = spec.uid.clone().map_or_else(identity::random_uid, Ok)?;
        let (container_id, pause_id) = (random_hex(32)?, random_hex(32)?);
        let pod_cgroup = node.root().join(identity::pod_cgroup(spec.driver, spec.qos, &uid));
        let directory = format!("pods/{}_{}_{uid}", spec.namespace, spec.name);
        let mut pod = Self {
            label: format!("pod {}/{} on {}", spec.namespace, spec.name, node.name()),
            container: pod_cgroup.join(identity::container_cgroup(spec.driver, &container_id)),
            log_dir: node.var_log().join(directory),
            namespaces: node.namespaces().clone(),
            node: node.clone(),
            uid,
            container_id,
            whole: pod_cgroup,
            sandbox: None,
            attachment: None,
            removed: false,
            spec,
        };
        pod.build(&pause_id).with_context(|| format!("start {}", pod.label))?;
        Ok(pod)
    }

    fn build(&mut self, pause_id: &str) -> Result<()> {
        cgroup::create(&self.whole)?;
        let logs = self.log_dir.join(&self.spec.container);
        fs::create_dir_all(&logs).with_context(|| format!("create {}", logs.display()))?;
        let pause = self.whole.join(identity::container_cgroup(self.spec.driver, pause_id));
        cgroup::create(&pause)?;
        let fresh = if self.spec.host_network { CloneFlags::empty() } else { CloneFlags::CLONE_NEWNET };
        let mut command = Command::new("sleep");
        command.arg("infinity").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        join(&mut command, [pause.as_path()], self.node.namespaces(), fresh)?;
        let sandbox = Holder::spawn(&mut command)?;
        let pid = sandbox.pid();
        self.sandbox = Some(sandbox);
        if !self.spec.host_network {
            let own = Namespaces::of(pid, CloneFlags::CLONE_NEWNET)?;
            self.namespaces = self.node.namespaces().overlaid_with(&own);
            self.attachment = Some(network::Attachment::reserve(&self.node)?);
            network::attach(self, pid)?;
        }
        cgroup::create(&self.container)
    }

    /// The node the pod runs on.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// What the pod was started with.
    #[must_use]
    pub fn spec(&self) -> &PodSpec {
        &self.spec
    }

    /// The UID in the form of the API, or the hash of a static pod.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// The id of the container in which commands run.
    #[must_use]
    pub fn container_id(&self) -> &str {
        &self.container_id
    }

    /// The cgroup directory of the pod, as the machine sees it.
    #[must_use]
    pub fn pod_cgroup(&self) -> &Path {
        &self.whole
    }

    /// The directory of the pod below `/var/log/pods`, as the machine sees it.
    #[must_use]
    pub fn log_dir(&self) -> &Path {
        &self.log_dir
    }

    /// The pod's end on the node, a port of `cni0`; none for a hostNetwork pod.
    #[must_use]
    pub fn host_device(&self) -> Option<&str> {
        self.attachment.as_ref().map(network::Attachment::device)
    }

    /// Switches segmentation offloads of both ends of the veth pair; without them every frame crosses it singly.
    pub fn set_segmentation(&self, on: bool) -> Result<()> {
        let device =
            self.host_device().with_context(|| format!("{} has no device of its own", self.label))?;
        crate::witness::set_segmentation(self, "eth0", on)?;
        crate::witness::set_segmentation(&self.node, device, on)
    }

    /// Makes the neighbour entries between the pod, its gateway and the pods of `others` on the same node permanent,
    /// so that no ARP or ND disturbs exact counts. Each pod needs a call of its own.
    pub fn pin_neighbours(&self, others: &[&Self]) -> Result<()> {
        network::pin_neighbours(self, others)
    }

    /// Ends the processes of the pod and removes its device, cgroups and log directory.
    pub fn remove(mut self) -> Result<()> {
        self.take_down().with_context(|| format!("remove {}", self.label))
    }

    fn take_down(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.removed, true) {
            return Ok(());
        }
        let killed = cgroup::kill(&self.whole);
        self.sandbox = None;
        let detached =
            self.attachment.take().map_or(Ok(()), |attachment| network::detach(&self.node, &attachment));
        let removed = cgroup::remove(&self.whole);
        killed.and(detached).and(removed).and(remove_scratch(&self.log_dir))
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // Nobody can be told here, and the lab may be gone already; what stays goes with the lab.
        drop(self.take_down());
    }
}

impl Place for Pod {
    fn name(&self) -> &str {
        &self.label
    }
    fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }
    fn cgroup(&self) -> &Path {
        &self.container
    }
    fn ipv4(&self) -> Option<Ipv4Addr> {
        if self.spec.host_network {
            self.node.ipv4()
        } else {
            self.attachment.as_ref().map(network::Attachment::ipv4)
        }
    }
    fn ipv6(&self) -> Option<Ipv6Addr> {
        if self.spec.host_network { self.node.ipv6() } else { self.attachment.as_ref()?.ipv6() }
    }
}
