//! A kubelet with its containerd, on a node of a lab that was started for containers.
//!
//! Files lie where kubeadm has them. Without an API server the kubelet runs by itself, as it does for static pods. What
//! curl says of its health is the witness.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
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

/// Raising one's own priority for the killer of processes needs a right that root may not have here. Outside of /var/lib
/// the directory for programs would be the machine's.
const CONTAINERD: &str = r#"version = 2
oom_score = 0
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
"#;

/// Swap, disks and priorities are the machine's, and nothing to refuse work or evict pods for.
const KUBELET: &str = "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: cgroupfs
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
evictionHard: {memory.available: 50Mi, nodefs.available: 1%, imagefs.available: 1%}
failCgroupV1: false
failSwapOn: false
healthzBindAddress: 127.0.0.1
healthzPort: 10248
oomScoreAdj: 0
";

/// Who may ask the kubelet if there is no API server to ask.
const ALONE: &str = "authentication: {anonymous: {enabled: false}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
";

/// A node of a cluster. Images come from archives: one that has been collected would not come back. The machine's resolver
/// is out of reach.
const JOINED: &str =
    "authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: \
    /etc/kubernetes/pki/ca.crt}}
authorization: {mode: Webhook}
clusterDNS: [10.43.0.10]
clusterDomain: cluster.local
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
nodeStatusUpdateFrequency: 4s
resolvConf: /var/lib/kubelet/resolv.conf
staticPodPath: /etc/kubernetes/static
";

/// Where a joined kubelet looks for static pods. The usual directory has manifests of what runs without containers here.
pub(crate) const STATIC_PODS: &str = "/etc/kubernetes/static";

/// The kubeconfig of a node that is in a cluster.
pub(crate) const KUBECONFIG: &str = "kubelet.conf";

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

/// What containerd needs to start the pods of a cluster.
#[derive(Debug)]
pub(crate) struct Pods {
    /// The image of the container that holds a pod's namespaces.
    pub(crate) sandbox: &'static str,
    /// The directory with the plugins that connect it.
    pub(crate) plugins: PathBuf,
}

/// A running kubelet. Dropping it kills both daemons.
#[derive(Debug)]
pub struct Kubelet {
    node: Node,
    is_joined: bool,
    // Before what it needs, since they are dropped in this order.
    service: Option<Service>,
    _containerd: Service,
}

impl Kubelet {
    /// Starts containerd and the kubelet, and waits until curl finds it well.
    pub fn start(node: &Node) -> Result<Self> {
        let mut kubelet = Self::furnish(node, None)?;
        kubelet.run()?;
        kubelet.wait_well()?;
        Ok(kubelet)
    }

    /// Starts containerd, and not the kubelet yet: as one of a cluster it needs images, and [`KUBECONFIG`] on the node.
    pub(crate) fn furnish(node: &Node, pods: Option<&Pods>) -> Result<Self> {
        node.own_etc()?;
        process::run(node.command("sh")?.args(["-euc", SETTINGS])).context("hide the machine's settings")?;
        node.write("/etc/containerd/config.toml", &containerd_config(pods)?)?;
        let role = if pods.is_some() { JOINED } else { ALONE };
        node.write("/var/lib/kubelet/config.yaml", &format!("{KUBELET}{role}"))?;
        node.write("/var/lib/kubelet/resolv.conf", "")?;
        node.run(&["mkdir", "-p", STATIC_PODS])?;
        tools::require("runc")?;
        let mut containerd = node.service("containerd", &mut Command::new(tools::require("containerd")?))?;
        let socket = node.path("/run/containerd/containerd.sock");
        containerd.wait_until("containerd to listen", LIMIT, || socket.exists())?;
        let is_joined = pods.is_some();
        Ok(Self { node: node.clone(), is_joined, service: None, _containerd: containerd })
    }

    /// Gives containerd the images of an archive.
    pub(crate) fn import(&self, archive: &Path) -> Result<()> {
        let ctr = tools::require("ctr")?;
        let mut command = self.node.command(ctr.to_str().context("the path of ctr is no UTF-8")?)?;
        command
            .args(["--namespace", "k8s.io", "images", "import", "--snapshotter", "overlayfs"])
            .arg(archive);
        process::run_for(&mut command, LIMIT)
            .with_context(|| format!("import {} on {}", archive.display(), self.node.name()))
            .map(drop)
    }

    /// Starts the kubelet again, and does not wait for it.
    pub fn run(&mut self) -> Result<()> {
        self.service = None;
        let mut command = Command::new(tools::kubelet()?);
        command.args(["--config=/var/lib/kubelet/config.yaml", "--hostname-override", self.node.name()]);
        if self.is_joined {
            command.arg(format!("--kubeconfig=/etc/kubernetes/{KUBECONFIG}"));
            command.arg(format!("--node-ip={}", self.node.address(false)?));
        }
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

fn containerd_config(pods: Option<&Pods>) -> Result<String> {
    let mut text = CONTAINERD.to_owned();
    if let Some(pods) = pods {
        writeln!(text, "  sandbox_image = {:?}", pods.sandbox)?;
        writeln!(
            text,
            "[plugins.\"io.containerd.grpc.v1.cri\".cni]\n  bin_dir = \"{}\"",
            pods.plugins.display()
        )?;
    }
    Ok(text)
}

fn ask(node: &Node, path: &str) -> Result<Answer> {
    witness::ask(node, &format!("{ENDPOINT}{path}"), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containerd_is_told_the_sandbox_before_the_next_table() {
        let pods = Pods { sandbox: "a/b:1", plugins: "/cni".into() };
        let text = containerd_config(Some(&pods)).unwrap();
        let expected = "restrict_oom_score_adj = true\n  sandbox_image = \"a/b:1\"\n\
            [plugins.\"io.containerd.grpc.v1.cri\".cni]\n  bin_dir = \"/cni\"\n";
        assert!(text.ends_with(expected), "{text}");
        assert_eq!(containerd_config(None).unwrap(), CONTAINERD);
    }
}
