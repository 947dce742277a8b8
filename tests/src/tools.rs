//! Real components: programs of Debian packages, and programs built once from pinned modules of Go and crates of Rust.

mod built;
mod crates;
mod crds;
mod pin;

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::process;

use built::{
    BUILT, CNI, COREDNS, ETCD, ETCD_3_5, ETCDCTL, ETCDCTL_3_5, FLANNELD, GoTool, KUBE_APISERVER,
    KUBE_CONTROLLER_MANAGER, KUBE_PROXY, KUBE_SCHEDULER, KUBECTL, KUBELET, KUSTOMIZE, PROMETHEUS,
    PROMETHEUS_OPERATOR, TAILNET, TAILSCALE, TAILSCALED,
};
use crates::{CrateTool, STAMP_SUITE};
pub use crds::operator_crds;
use pin::pin;

/// The Debian packages of the programs that the lab uses.
const PACKAGES: [(&str, &str); 34] = [
    ("aarch64-linux-gnu-strip", "binutils-aarch64-linux-gnu"),
    ("bpftool", "bpftool"),
    ("busybox", "busybox-static"),
    ("conntrack", "conntrack"),
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("curl", "curl"),
    ("etcd", "etcd-server"),
    ("etcdctl", "etcd-client"),
    ("ethtool", "ethtool"),
    ("haproxy", "haproxy"),
    ("ip", "iproute2"),
    ("iperf3", "iperf3"),
    ("iptables", "iptables"),
    ("keepalived", "keepalived"),
    ("nft", "nftables"),
    ("openssl", "openssl"),
    ("ping", "iputils-ping"),
    ("prometheus", "prometheus"),
    ("prometheus-alertmanager", "prometheus-alertmanager"),
    ("promtool", "prometheus"),
    ("qemu-aarch64-static", "qemu-user-static"),
    ("qemu-system-aarch64", "qemu-system-arm"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("runc", "runc"),
    ("sha256sum", "coreutils"),
    ("ss", "iproute2"),
    ("strace", "strace"),
    ("strip", "binutils"),
    ("tar", "tar"),
    ("systemd-analyze", "systemd"),
    ("tcpdump", "tcpdump"),
    ("wg", "wireguard-tools"),
    ("wireguard-go", "wireguard-go"),
];

/// The root of the workspace.
#[must_use]
pub fn workspace() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

/// Where Cargo and the lab build to.
#[must_use]
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// Builds everything that is built and not there yet, telling what it does.
pub fn prepare(progress: &mut dyn FnMut(&str)) -> Result<()> {
    BUILT.iter().try_for_each(|tool| build(tool, progress).map(drop))?;
    install(&STAMP_SUITE, progress)?;
    operator_crds().map(drop)
}

/// The path of flanneld, which is built if it is missing.
pub fn flanneld() -> Result<PathBuf> {
    build(&FLANNELD, &mut |_| {})
}

/// The path of etcd 3.5, which is built if it is missing.
pub fn etcd_3_5() -> Result<PathBuf> {
    build(&ETCD_3_5, &mut |_| {})
}

/// The path of the etcdctl of etcd 3.5, which is built if it is missing.
pub fn etcdctl_3_5() -> Result<PathBuf> {
    build(&ETCDCTL_3_5, &mut |_| {})
}

/// The path of etcd 3.6, which is built if it is missing.
pub fn etcd_3_6() -> Result<PathBuf> {
    build(&ETCD, &mut |_| {})
}

/// The path of the etcdctl of etcd 3.6, which is built if it is missing.
pub fn etcdctl_3_6() -> Result<PathBuf> {
    build(&ETCDCTL, &mut |_| {})
}

/// The path of kube-apiserver 1.34, which is built if it is missing.
pub fn kube_apiserver() -> Result<PathBuf> {
    build(&KUBE_APISERVER, &mut |_| {})
}

/// The path of kube-controller-manager 1.34, which is built if it is missing.
pub fn kube_controller_manager() -> Result<PathBuf> {
    build(&KUBE_CONTROLLER_MANAGER, &mut |_| {})
}

/// The path of kube-scheduler 1.34, which is built if it is missing.
pub fn kube_scheduler() -> Result<PathBuf> {
    build(&KUBE_SCHEDULER, &mut |_| {})
}

/// The path of kubelet 1.34, which is built if it is missing.
pub fn kubelet() -> Result<PathBuf> {
    build(&KUBELET, &mut |_| {})
}

/// The path of kube-proxy 1.34, which is built if it is missing.
pub fn kube_proxy() -> Result<PathBuf> {
    build(&KUBE_PROXY, &mut |_| {})
}

/// The path of kubectl 1.34, which is built if it is missing.
pub fn kubectl() -> Result<PathBuf> {
    build(&KUBECTL, &mut |_| {})
}

/// The directory with the plugins of the Container Network Interface, which are built if they are missing.
pub fn cni_plugins() -> Result<PathBuf> {
    let built = CNI.iter().map(|tool| build(tool, &mut |_| {})).collect::<Result<Vec<_>>>()?;
    let directory = built.first().and_then(|plugin| plugin.parent());
    directory.map(Path::to_owned).context("a plugin has a directory")
}

/// The path of kustomize, which is built if it is missing.
pub fn kustomize() -> Result<PathBuf> {
    build(&KUSTOMIZE, &mut |_| {})
}

/// The path of `CoreDNS`, which is built if it is missing.
pub fn coredns() -> Result<PathBuf> {
    build(&COREDNS, &mut |_| {})
}

/// The path of Prometheus 3, which is built if it is missing.
pub fn prometheus_3() -> Result<PathBuf> {
    build(&PROMETHEUS, &mut |_| {})
}

/// The path of the operator of Prometheus, which is built if it is missing.
pub fn prometheus_operator() -> Result<PathBuf> {
    build(&PROMETHEUS_OPERATOR, &mut |_| {})
}

/// The path of tailscaled, which is built if it is missing.
pub fn tailscaled() -> Result<PathBuf> {
    build(&TAILSCALED, &mut |_| {})
}

/// The path of tailscale, which is built if it is missing.
pub fn tailscale() -> Result<PathBuf> {
    build(&TAILSCALE, &mut |_| {})
}

/// The path of the lab's own coordination server and relay, which is built if it is missing.
pub fn tailnet() -> Result<PathBuf> {
    build(&TAILNET, &mut |_| {})
}

/// The path of a sender and reflector of STAMP that is not ours, which is built if it is missing.
pub fn stamp_suite() -> Result<PathBuf> {
    install(&STAMP_SUITE, &mut |_| {})
}

/// The path of an installed program; the error names the package to install.
pub fn require(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file());
    found.with_context(|| {
        let package =
            PACKAGES.iter().find(|(name, _)| *name == program).map_or(program, |(_, package)| package);
        format!("{program} is not installed: apt-get install {package}")
    })
}

/// Builds the tool unless a build of the same pinned sources is there.
fn build(tool: &GoTool, progress: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let module = workspace().join("tests/lab/tools").join(tool.module);
    let directory = target_dir().join("tools").join(pin(&module)?);
    once(&directory, tool.binary, |directory| {
        let partial = directory.join(format!("{}.partial", tool.binary));
        compile(tool, &module, &partial, progress)?;
        Ok(partial)
    })
}

/// Installs the program of a crate unless that version is there.
fn install(tool: &CrateTool, progress: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let directory = target_dir().join("tools").join(tool.folder());
    once(&directory, tool.name, |directory| {
        let cargo = require("cargo")?;
        progress(&format!("{}: building (one to three minutes)", tool.name));
        let root = directory.join("partial");
        run_build(&mut tool.command(cargo, &root), tool.name, progress)?;
        Ok(root.join("bin").join(tool.name))
    })
}

/// The path of a program in a directory, where it is made unless it is there. Only a finished one may carry the name by
/// which it is found: it is made under another one, which comes back.
fn once(directory: &Path, program: &str, make: impl FnOnce(&Path) -> Result<PathBuf>) -> Result<PathBuf> {
    let binary = directory.join(program);
    if binary.is_file() {
        return Ok(binary);
    }
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    let lock = directory.join("lock");
    let lock = File::create(&lock).with_context(|| format!("create {}", lock.display()))?;
    lock.lock().context("wait for another build of the same tool")?;
    if !binary.is_file() {
        let made = make(directory)?;
        ensure!(made.is_file(), "the build made no {}", made.display());
        fs::rename(&made, &binary).with_context(|| format!("rename {}", made.display()))?;
    }
    Ok(binary)
}

fn compile(tool: &GoTool, module: &Path, output: &Path, progress: &mut dyn FnMut(&str)) -> Result<()> {
    let go = require("go").with_context(|| {
        format!("{} is built from source; install Go 1.26 or newer (https://go.dev/dl)", tool.binary)
    })?;
    progress(&format!("{}: building (one to ten minutes)", tool.binary));
    let mut command = Command::new(go);
    let (tags, values) = (format!("-tags={}", tool.tags), format!("-ldflags=-s -w {}", tool.values));
    command.args(["build", "-v", &tags, &values, "-o"]);
    command.arg(output).arg(tool.package).current_dir(module);
    command.env("CGO_ENABLED", if tool.cgo { "1" } else { "0" });
    command.env("GOTOOLCHAIN", "local").env("GOWORK", "off");
    command.env("GOFLAGS", "-trimpath -buildvcs=false -mod=readonly");
    run_build(&mut command, tool.binary, progress)
        .with_context(|| format!("build {} in {}", tool.package, module.display()))
}

/// Runs a build to its end, telling what it does; the error has its last lines.
fn run_build(command: &mut Command, name: &str, progress: &mut dyn FnMut(&str)) -> Result<()> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = process::spawn(command)?;
    let stderr = child.stderr.take().context("no pipe to the build")?;
    let mut last = Vec::new();
    for line in BufReader::new(stderr).lines() {
        let line = line.context("read the output of the build")?;
        progress(&format!("{name}: {line}"));
        last.push(line);
    }
    let status = process::wait_exit(&mut child, "the build", Duration::from_mins(1))?;
    if !status.success() {
        let tail = last.split_off(last.len().saturating_sub(20)).join("\n");
        bail!("the build of {name} failed ({status}):\n{tail}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_names_its_package() {
        let error = require("leadline-no-such-program").unwrap_err().to_string();
        assert!(error.contains("apt-get install leadline-no-such-program"), "{error}");
    }

    #[test]
    fn an_installed_program_is_found() {
        assert!(require("sh").unwrap().is_absolute());
    }

    #[test]
    fn the_pin_is_stable_and_fits_a_file_name() {
        for tool in BUILT {
            let module = workspace().join("tests/lab/tools").join(tool.module);
            let pin_once = pin(&module).unwrap();
            assert_eq!(pin_once, pin(&module).unwrap());
            assert_eq!(pin_once.len(), 16);
        }
    }
}
