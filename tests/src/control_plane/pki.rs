//! The certificates of a control plane and the files of its clients, where kubeadm has them.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::etcd::Etcd;
use crate::etcd::authority::{Authority, Subject, Validity, new_key, write};
use crate::node::Node;
use crate::place::Place as _;
use crate::{process, tools};

/// The directory on a node.
pub(super) const PKI: &str = "/etc/kubernetes/pki";
/// The authority that signs all of them.
pub(super) const CA: &str = "ca.crt";
/// What the API server shows.
pub(super) const SERVER: [&str; 2] = ["apiserver.crt", "apiserver.key"];
/// What tokens of service accounts are checked and signed with.
pub(super) const SERVICE_ACCOUNT: [&str; 2] = ["sa.pub", "sa.key"];
/// The files of the clients below /etc/kubernetes, and who they are.
pub(super) const KUBECONFIGS: [(&str, &str); 2] = [
    ("controller-manager.conf", "system:kube-controller-manager"),
    ("scheduler.conf", "system:kube-scheduler"),
];

/// The certificate and the key of a client, as the node sees the files.
pub(super) fn client() -> [String; 2] {
    ["crt", "key"].map(|end| format!("{PKI}/{}.{end}", KUBECONFIGS[0].0))
}

/// Puts all files on a node of the cluster, which has given it an `/etc` of its own.
pub(super) fn install(node: &Node, etcd: &Etcd, port: u16) -> Result<()> {
    let _furnished = etcd.node(node.index())?;
    let directory = node.path(PKI);
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    let authority = Authority::new(node.machine().scratch().join("kubernetes-ca"), "kubernetes")?;
    let certificate = fs::read_to_string(authority.certificate()).context("read the authority")?;
    write(&directory.join(CA), &certificate)?;
    let issue = |subject: &Subject, [certificate, key]: [&str; 2]| {
        new_key(&directory.join(key))?;
        authority.sign(subject, &directory.join(key), Validity::default(), &directory.join(certificate))
    };
    let local: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let addresses = [node.address(false)?, node.address(true)?].into_iter().chain(local).collect();
    let dns = vec![node.name().into(), "kubernetes.default.svc".into(), "localhost".into()];
    issue(&Subject { name: "kube-apiserver".into(), dns, addresses }, SERVER)?;
    service_account(&directory.join(SERVICE_ACCOUNT[1]), &directory.join(SERVICE_ACCOUNT[0]))?;
    for (file, user) in KUBECONFIGS {
        let (certificate, key) = (format!("{file}.crt"), format!("{file}.key"));
        let subject = Subject { name: user.into(), dns: Vec::new(), addresses: Vec::new() };
        issue(&subject, [&certificate, &key])?;
        write(&node.path("/etc/kubernetes").join(file), &kubeconfig(port, &certificate, &key))?;
    }
    Ok(())
}

/// A pair of RSA keys, which is what tokens are signed with.
fn service_account(key: &Path, public: &Path) -> Result<()> {
    let openssl = || tools::require("openssl").map(Command::new);
    process::run(openssl()?.args(["genpkey", "-algorithm", "RSA", "-out"]).arg(key))?;
    process::run(openssl()?.args(["pkey", "-pubout", "-in"]).arg(key).arg("-out").arg(public)).map(drop)
}

fn kubeconfig(port: u16, certificate: &str, key: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: lab\n  cluster:\n    server: https://127.0.0.1:{port}\n    \
         certificate-authority: {PKI}/{CA}\nusers:\n- name: client\n  user:\n    client-certificate: \
         {PKI}/{certificate}\n    client-key: {PKI}/{key}\ncontexts:\n- name: lab\n  context: {{cluster: lab, user: \
         client}}\ncurrent-context: lab\n"
    )
}
