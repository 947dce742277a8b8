//! The image, by a container runtime that knows nothing of how it was made: Debian's containerd.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::process::wait_for;
use lab::scrape::{self, Samples};
use lab::{Flannel, Kubelet, Lab, LabOptions, Node, Place as _, process, tools};
use leadline::host::Capability;

/// What the shipped manifests name.
const NAME: &str = concat!("localhost/leadline:", env!("CARGO_PKG_VERSION"));

/// The time for importing, starting and becoming ready on a busy machine.
const LIMIT: Duration = Duration::from_mins(1);

/// Where the output of the agent goes on its node.
const LOG: &str = "file:///run/leadline.log";

/// What a container has unless it is told otherwise.
const DEFAULT: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// The archive that `cargo xtask test` has made.
fn archive() -> Result<PathBuf> {
    let file = tools::target_dir().join("image/leadline-test.tar");
    let how = "cargo xtask image --profile release --output target/image/leadline-test.tar";
    ensure!(file.is_file(), "{} is missing: {how}", file.display());
    Ok(file)
}

/// A lab of one node whose containerd has the image.
fn start() -> Result<(Lab, Kubelet)> {
    let lab = Lab::start_for_containers(&LabOptions { nodes: 1, flannel: Some(Flannel::default()) })?;
    let kubelet = Kubelet::start(lab.node(1)?)?;
    let archive = archive()?;
    let archive = archive.to_str().context("the path of the archive is no UTF-8")?;
    ctr(lab.node(1)?, &["images", "import", "--snapshotter", "overlayfs", archive])?;
    Ok((lab, kubelet))
}

/// Runs a command of containerd's own client on a node, among the images and containers of pods.
fn ctr(node: &Node, arguments: &[&str]) -> Result<String> {
    let ctr = tools::require("ctr")?;
    let mut command = node.command(ctr.to_str().context("the path of ctr is no UTF-8")?)?;
    command.args(["--namespace", "k8s.io"]).args(arguments);
    process::run_for(&mut command, LIMIT).with_context(|| format!("on {}", node.name()))
}

#[test]
fn containerd_takes_the_image_by_the_name_in_the_manifests_and_runs_its_agent() -> Result<()> {
    let (lab, kubelet) = start()?;
    let node = lab.node(1)?;
    let images = ctr(node, &["images", "list", "--quiet"])?;
    ensure!(images.lines().any(|image| image == NAME), "{images}");
    let run = ["run", "--rm", "--snapshotter", "overlayfs", "--read-only", NAME, "version", "/leadline"];
    let said = ctr(node, &[&run[..], &["--version"]].concat())?;
    ensure!(said.trim() == concat!("leadline ", env!("CARGO_PKG_VERSION")), "{said}");
    drop(kubelet);
    lab.shutdown()
}

#[test]
fn the_agent_of_the_image_is_ready_with_three_capabilities_and_two_mounts() -> Result<()> {
    let (lab, kubelet) = start()?;
    let node = lab.node(1)?;
    // On a machine with both versions of cgroups the second is below the first.
    let unified = node.path("/sys/fs/cgroup/unified").exists();
    let cgroup = if unified { "/sys/fs/cgroup/unified" } else { "/sys/fs/cgroup" };
    let mounts = [(cgroup, "/sys/fs/cgroup"), ("/var/log/pods", "/var/log/pods")]
        .map(|(from, to)| format!("type=bind,src={from},dst={to},options=bind:ro"));
    let capabilities = Capability::NEEDED.map(|needed| format!("CAP_{}", needed.name()));
    let mut arguments = vec!["run", "--detach", "--snapshotter", "overlayfs", "--log-uri", LOG];
    arguments.extend(["--read-only", "--net-host", "--seccomp"]);
    arguments.extend(DEFAULT.iter().flat_map(|name| ["--cap-drop", *name]));
    arguments.extend(capabilities.iter().flat_map(|name| ["--cap-add", name.as_str()]));
    arguments.extend(mounts.iter().flat_map(|mount| ["--mount", mount.as_str()]));
    arguments.extend([NAME, "agent"]);
    ctr(node, &arguments)?;
    let ready = || node.run(&["curl", "--silent", "--fail", "http://127.0.0.1:9843/readyz"]).ok();
    let waited = wait_for("the agent to be ready", LIMIT, ready);
    waited.with_context(|| fs::read_to_string(node.path(&LOG["file://".len()..])).unwrap_or_default())?;
    for collector in ["overlay", "program", "self", "tap", "tcp", "tcp_port", "traffic"] {
        let page = page(node)?;
        let found =
            page.of("leadline_collector_support", |sample| sample.label("collector") == Some(collector));
        let levels: Vec<_> = found.map(|sample| (sample.label("level"), sample.label("reason"))).collect();
        println!("{collector}: {levels:?}");
        ensure!(matches!(levels[..], [(Some("supported"), _)]), "{collector}: {levels:?}");
    }
    let counted =
        || page(node).ok()?.sum("leadline_unit_receive_bytes_total", |_| true).filter(|bytes| *bytes > 0);
    println!("{} bytes of units", wait_for("traffic to be counted", LIMIT, counted)?);
    ctr(node, &["tasks", "kill", "--signal", "SIGTERM", "agent"])?;
    let ended = || ctr(node, &["tasks", "list"]).is_ok_and(|tasks| !tasks.contains("RUNNING"));
    process::wait_until("the agent to end", LIMIT, ended)?;
    drop(kubelet);
    lab.shutdown()
}

fn page(node: &Node) -> Result<Samples> {
    scrape::parse(&node.run(&["curl", "--silent", "http://127.0.0.1:9843/metrics"])?)
}
