//! The programs that building and testing call, and where they come from.

use std::{iter, path::Path};

use super::target::ARM;
use crate::process::find;

/// A program that must be there.
#[derive(Debug)]
pub(super) struct Need {
    /// Its name in `PATH`, or the path of a file.
    pub(super) program: &'static str,
    /// Debian packages that bring it; the first one that this release has is taken.
    pub(super) packages: &'static [&'static str],
    /// What it is for.
    pub(super) purpose: &'static str,
}

impl Need {
    /// Whether it is there.
    pub(super) fn is_here(&self) -> bool {
        if self.program.starts_with('/') {
            Path::new(self.program).exists()
        } else {
            find(self.program).is_some()
        }
    }
}

const fn need(program: &'static str, packages: &'static [&'static str], purpose: &'static str) -> Need {
    Need { program, packages, purpose }
}

/// All of them.
pub(super) const NEEDS: &[Need] = &[
    need("cc", &["gcc"], "links Rust and the C parts of Go components"),
    need("musl-gcc", &["musl-tools"], "compiles the C parts of the image's binary"),
    need("protoc", &["protobuf-compiler"], "generates the client of etcd"),
    need("/usr/include/google/protobuf/descriptor.proto", &["libprotobuf-dev"], "what protoc includes"),
    need("ip", &["iproute2"], "the lab's witness for links, addresses and routes"),
    need("ss", &["iproute2"], "the lab's witness for TCP state"),
    need("ping", &["iputils-ping"], "ICMP traffic in the lab"),
    need("nft", &["nftables"], "address translation in the lab"),
    need("tc", &["iproute2"], "delay and loss in the lab"),
    need("iptables", &["iptables"], "Flannel's rules in the lab"),
    need("conntrack", &["conntrack"], "the lab's witness for translated connections"),
    need("ethtool", &["ethtool"], "switches segmentation offload in the lab"),
    need("tcpdump", &["tcpdump"], "the lab's witness for frames"),
    need("iperf3", &["iperf3"], "the lab's witness for bytes"),
    need("bpftool", &["bpftool"], "the lab's witness for programs and maps"),
    need("strace", &["strace"], "the benchmark's witness for system calls"),
    need("curl", &["curl"], "the lab's witness for the control plane"),
    need("etcd", &["etcd-server"], "clusters, and the store of Flannel, in the lab"),
    need("etcdctl", &["etcd-client"], "the lab's witness for etcd"),
    need("keepalived", &["keepalived"], "virtual addresses in the lab"),
    need("openssl", &["openssl"], "certificates and TLS servers in the lab"),
    need("containerd", &["containerd"], "runs the pods of a kubelet in the lab"),
    need("ctr", &["containerd"], "brings images to containerd in the lab"),
    need("runc", &["runc"], "runs the containers of containerd"),
    need("systemd-analyze", &["systemd"], "checks the agent's unit"),
    need("haproxy", &["haproxy"], "a load balancer in the lab"),
    need("wireguard-go", &["wireguard-go"], "the devices of a pod network in WireGuard in the lab"),
    need("wg", &["wireguard-tools"], "sets up those devices, and is their witness"),
    need("busybox", &["busybox-static"], "the programs in a virtual machine"),
    need("qemu-system-x86_64", &["qemu-system-x86"], "runs older kernels in a virtual machine"),
    need("qemu-system-aarch64", &["qemu-system-arm"], "runs a kernel for 64-bit Arm in a virtual machine"),
    need("strip", &["binutils"], "makes programs small for a virtual machine"),
    need("prometheus", &["prometheus"], "scrapes agents and evaluates the rules in the lab"),
    need("promtool", &["promtool", "prometheus"], "checks what the agent exports, and the rules"),
    need("prometheus-alertmanager", &["prometheus-alertmanager"], "is told of alerts in the lab"),
];

/// What is built for 64-bit Arm takes besides.
const CROSS: &[Need] = &[
    need("aarch64-linux-gnu-gcc", &["gcc-aarch64-linux-gnu"], "compiles C parts and links for 64-bit Arm"),
    need("/usr/aarch64-linux-gnu/include/stdlib.h", &["libc6-dev-arm64-cross"], "what those C parts include"),
    need("qemu-aarch64-static", &["qemu-user-static"], "starts once what was built for 64-bit Arm"),
];

/// What a target takes besides, on this machine.
pub(super) fn cross(target: &str) -> &'static [Need] {
    if target == ARM && !cfg!(target_arch = "aarch64") { CROSS } else { &[] }
}

/// What to do on a system whose packages we do not know.
pub(super) fn instructions(missing: &[&Need]) -> String {
    let lines = missing.iter().map(|need| {
        let packages = need.packages.join(" or ");
        format!("\n  {:<9} {} (on Debian in {packages})", need.program, need.purpose)
    });
    let heading = "packages are installed on Debian and Ubuntu only. Missing in PATH here, install them:";
    iter::once(heading.to_owned()).chain(lines).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_name_each_missing_program_its_use_and_its_package() {
        let missing = [need("promtool", &["promtool", "prometheus"], "checks metrics")];
        let text = instructions(&missing.iter().collect::<Vec<_>>());
        assert!(
            text.ends_with("\n  promtool  checks metrics (on Debian in promtool or prometheus)"),
            "{text}"
        );
    }

    #[test]
    fn a_need_is_a_program_or_a_file() {
        assert!(
            need("sh", &["dash"], "a shell").is_here() && need("/etc/passwd", &["x"], "a file").is_here()
        );
        assert!(!need("no-such-program-at-all", &["x"], "x").is_here());
        assert!(!need("/no/such/file", &["x"], "x").is_here());
    }

    #[test]
    fn only_another_architecture_takes_more() {
        assert!(cross(super::super::TARGET).is_empty());
        assert_eq!(cross(ARM).is_empty(), cfg!(target_arch = "aarch64"));
    }

    #[test]
    fn every_need_has_a_package() {
        assert!(NEEDS.iter().chain(CROSS).all(|need| !need.packages.is_empty() && !need.purpose.is_empty()));
    }
}
