//! A kubelet with its containerd, on a node of a lab that was started for containers.
//!
//! Files lie where kubeadm has them. Without an API server the kubelet runs by itself, as it does for static pods. What
//! curl says of its health is the witness.

use std::fs;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use crate::control_plane::Answer;
use crate::control_plane::witness;
use crate::node::Node;
use crate::place::Place as _;
use crate::service::Service;
use crate::{process, tools};

/// Where the kubelet tells how it is.
pub const ENDPOINT: &str = "http://127.0.0.1:10248";

/// The time to become well on a busy machine.
const LIMIT: Duration = Duration::from_mins(1);

/// Raising one's own priority for the killer of processes needs a right that root may not have here.
const CONTAINERD: &str = r#"version = 2
oom_score = 0
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
"#;

/// Swap, disks and priorities are the machine's, and nothing to refuse work or evict pods for.
const KUBELET: &str = "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
evictionHard: {memory.available: 50Mi, nodefs.available: 1%, imagefs.available: 1%}
failCgroupV1: false
failSwapOn: false
healthzBindAddress: 127.0.0.1
healthzPort: 10248
oomScoreAdj: 0
";

/// The kubelet sets these for the whole machine. The node shows it files that have the values already.
const SETTINGS: &str = r#"
mkdir -p /run/settings
while read -r name value; do
    echo "$value" > "/run/settings/$name"
    mount --bind "/run/settings/$name" "/proc/sys/$(echo "$name" | tr . /)"
done <<END
vm.overcommit_memory 1
vm.panic_on_oom 0
kernel.panic 10
kernel.panic_on_oops 1
kernel.keys.root_maxkeys 1000000
kernel.keys.root_maxbytes 25000000
END
"#;

/// A running kubelet. Dropping it kills both daemons.
#[derive(Debug)]
pub struct Kubelet {
    node: Node,
    // Before what it needs, since they are dropped in this order.
    service: Option<Service>,
    _containerd: Service,
}

impl Kubelet {
    /// Starts containerd and the kubelet, and waits until curl finds it well.
    pub fn start(node: &Node) -> Result<Self> {
        node.own_etc()?;
        process::run(node.command("sh")?.args(["-euc", SETTINGS])).context("hide the machine's settings")?;
        write(node, "/etc/containerd/config.toml", CONTAINERD)?;
        write(node, "/var/lib/kubelet/config.yaml", KUBELET)?;
        tools::require("runc")?;
        let mut containerd = node.service("containerd", &mut Command::new(tools::require("containerd")?))?;
        let socket = node.path("/run/containerd/containerd.sock");
        containerd.wait_until("containerd to listen", LIMIT, || socket.exists())?;
        let mut running = Self { node: node.clone(), service: None, _containerd: containerd };
        running.run()?;
        running.wait_well()?;
        Ok(running)
    }

    /// Starts the kubelet again, and does not wait for it.
    pub fn run(&mut self) -> Result<()> {
        self.service = None;
        let mut command = Command::new(tools::kubelet()?);
        command.args(["--config=/var/lib/kubelet/config.yaml", "--hostname-override", self.node.name()]);
        self.service = Some(self.node.service("kubelet", &mut command)?);
        Ok(())
    }

    /// Waits until curl finds the kubelet well.
    pub fn wait_well(&mut self) -> Result<()> {
        let (node, mut last) = (self.node.clone(), None);
        let waited = self.service()?.wait_until("the kubelet to be well", LIMIT, || {
            last = Some(ask(&node, "/healthz"));
            matches!(&last, Some(Ok(answer)) if answer.status == 200)
        });
        waited.with_context(|| format!("last answer: {last:?}"))
    }

    /// Kills the kubelet by SIGKILL.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        let status = self.service()?.kill()?;
        self.service = None;
        Ok(status)
    }

    /// Stops the kubelet in its tracks: the kernel goes on accepting, and nobody answers.
    pub fn freeze(&mut self) -> Result<()> {
        process::freeze(self.service()?.pid())
    }

    /// Lets a frozen kubelet go on.
    pub fn thaw(&mut self) -> Result<()> {
        self.service()?.signal(Signal::SIGCONT)
    }

    /// Asks the kubelet from inside its node by curl.
    pub fn ask(&self, path: &str) -> Result<Answer> {
        ask(&self.node, path)
    }

    fn service(&mut self) -> Result<&mut Service> {
        self.service.as_mut().context("no kubelet runs")
    }
}

fn ask(node: &Node, path: &str) -> Result<Answer> {
    witness::ask(node, &format!("{ENDPOINT}{path}"), None)
}

fn write(node: &Node, file: &str, text: &str) -> Result<()> {
    let file = node.path(file);
    let directory = file.parent().context("a file has a directory")?;
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    fs::write(&file, text).with_context(|| format!("write {}", file.display()))
}
