//! The certificates of the control planes of a cluster and the files of their clients, where kubeadm has them.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::etcd::authority::{Authority, Subject, Validity, new_key, write};
use crate::keepalived::VIP;
use crate::node::Node;
use crate::place::Place as _;
use crate::{process, tools};

/// The directory of Kubernetes on a node.
const HOME: &str = "/etc/kubernetes";
/// The directory of the certificates on a node.
pub(crate) const PKI: &str = "/etc/kubernetes/pki";
/// The authority that signs all of them.
pub(crate) const CA: &str = "ca.crt";
/// What the API server shows to its clients.
pub(super) const SERVER: [&str; 2] = ["apiserver.crt", "apiserver.key"];
/// What the API server shows to kubelets.
pub(super) const KUBELET_CLIENT: [&str; 2] = ["apiserver-kubelet-client.crt", "apiserver-kubelet-client.key"];
/// What tokens of service accounts are checked and signed with.
pub(super) const SERVICE_ACCOUNT: [&str; 2] = ["sa.pub", "sa.key"];
/// The files of the clients below /etc/kubernetes, and who they are.
pub(super) const KUBECONFIGS: [(&str, &str); 2] = [
    ("controller-manager.conf", "system:kube-controller-manager"),
    ("scheduler.conf", "system:kube-scheduler"),
];
/// The file of the one who may do everything.
pub(super) const ADMINISTRATOR: &str = "admin.conf";
/// The group that may do everything.
const MASTERS: &str = "system:masters";
/// The address of the service by which pods reach the API server: the first one of the range.
const SERVICE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 43, 0, 1));

/// The certificate and the key of a client, as the node sees the files.
pub(super) fn client() -> [String; 2] {
    ["crt", "key"].map(|end| format!("{PKI}/{}.{end}", KUBECONFIGS[0].0))
}

/// The one who may do everything.
pub(super) fn administrator() -> Subject {
    Subject::client("kubernetes-admin").in_group(MASTERS)
}

/// Where a node has a kubeconfig, as it sees it.
pub(super) fn seen(file: &str) -> PathBuf {
    Path::new(HOME).join(file)
}

/// What all control planes of a cluster share: the authority, and what tokens of service accounts are signed with.
#[derive(Clone, Debug)]
pub(crate) struct Pki {
    directory: PathBuf,
    authority: Authority,
}

impl Pki {
    /// Makes both in a directory.
    pub(crate) fn new(directory: PathBuf) -> Result<Self> {
        let authority = Authority::new(directory.join("ca"), "kubernetes")?;
        let pki = Self { directory, authority };
        let [public, key] = SERVICE_ACCOUNT.map(|name| pki.directory.join(name));
        let openssl = || tools::require("openssl").map(Command::new);
        // RSA, which is what tokens are signed with.
        process::run(openssl()?.args(["genpkey", "-algorithm", "RSA", "-out"]).arg(&key))?;
        process::run(openssl()?.args(["pkey", "-pubout", "-in"]).arg(&key).arg("-out").arg(&public))?;
        Ok(pki)
    }

    /// Puts the files of a control plane on a node that has an `/etc` of its own.
    pub(super) fn install(&self, node: &Node, port: u16) -> Result<()> {
        let directory = node.path(PKI);
        create(&directory)?;
        for name in SERVICE_ACCOUNT {
            copy(&self.directory.join(name), &directory.join(name))?;
        }
        self.issue(&server(node)?, &directory, SERVER)?;
        let kubelet_client = Subject::client("kube-apiserver-kubelet-client").in_group(MASTERS);
        self.issue(&kubelet_client, &directory, KUBELET_CLIENT)?;
        let url = format!("https://127.0.0.1:{port}");
        KUBECONFIGS.iter().try_for_each(|(file, user)| self.join(node, file, &Subject::client(user), &url))
    }

    /// Puts a kubeconfig with its certificate on a node.
    pub(crate) fn join(&self, node: &Node, file: &str, client: &Subject, url: &str) -> Result<()> {
        self.kubeconfig(&node.path(HOME), Path::new(HOME), file, client, url)
            .with_context(|| format!("make {file} on {}", node.name()))
    }

    /// Makes the kubeconfig of one who may do everything, for this machine and all nodes.
    pub(crate) fn administrator(&self, url: &str) -> Result<PathBuf> {
        self.kubeconfig(&self.directory, &self.directory, ADMINISTRATOR, &administrator(), url)?;
        Ok(self.directory.join(ADMINISTRATOR))
    }

    /// Makes a kubeconfig in the directory `home`, which its readers find at `seen`.
    fn kubeconfig(&self, home: &Path, seen: &Path, file: &str, client: &Subject, url: &str) -> Result<()> {
        let directory = home.join("pki");
        create(&directory)?;
        let (authority, place) = (self.authority.certificate(), directory.join(CA));
        // Others may read it: while it is copied once more they would find it empty, and trust nobody.
        if fs::read(&place).ok() != fs::read(&authority).ok() {
            copy(&authority, &place)?;
        }
        let pair = ["crt", "key"].map(|end| format!("{file}.{end}"));
        self.issue(client, &directory, pair.each_ref().map(String::as_str))?;
        let [certificate, key] = pair.map(|name| seen.join("pki").join(name));
        let text = format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: lab\n  cluster:\n    server: {url}\n    \
             certificate-authority: {}\nusers:\n- name: client\n  user:\n    client-certificate: {}\n    \
             client-key: {}\ncontexts:\n- name: lab\n  context: {{cluster: lab, user: client}}\n\
             current-context: lab\n",
            seen.join("pki").join(CA).display(),
            certificate.display(),
            key.display()
        );
        write(&home.join(file), &text)
    }

    fn issue(&self, subject: &Subject, directory: &Path, [certificate, key]: [&str; 2]) -> Result<()> {
        let key = directory.join(key);
        new_key(&key)?;
        self.authority.sign(subject, &key, Validity::default(), &directory.join(certificate))
    }
}

/// An API server is reached by its node, as a service, and by the virtual address if there is one.
fn server(node: &Node) -> Result<Subject> {
    let local: [IpAddr; 4] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into(), SERVICE, VIP.address];
    let addresses = [node.address(false)?, node.address(true)?].into_iter().chain(local).collect();
    let services = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned);
    let dns = [node.name().to_owned(), "localhost".into()].into_iter().chain(services).collect();
    Ok(Subject { name: "kube-apiserver".into(), organization: None, dns, addresses })
}

fn create(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let text = fs::read_to_string(from).with_context(|| format!("read {}", from.display()))?;
    write(to, &text)
}
