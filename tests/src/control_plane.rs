//! The control plane of a node: real kube-apiserver, kube-controller-manager and kube-scheduler as daemons, beside a
//! member of etcd on the same node.
//!
//! Files lie where kubeadm has them. The manifests of static pods name the arguments that the daemons have, so that an
//! agent of the node finds them like on any machine. What curl says of the same health endpoints is the witness.

mod part;
pub(crate) mod pki;
pub(crate) mod witness;

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use crate::etcd::Etcd;
use crate::kubectl::Kubectl;
use crate::node::Node;
use crate::place::Place as _;
use crate::process;
use crate::service::Service;
use pki::Pki;

pub use part::{Options, Part};
pub use witness::Answer;

/// The time to become ready on a busy machine.
const LIMIT: Duration = Duration::from_mins(2);

/// A running control plane. Dropping it kills its parts.
#[derive(Debug)]
pub struct ControlPlane {
    node: Node,
    options: Options,
    pki: Pki,
    services: BTreeMap<Part, Service>,
}

impl ControlPlane {
    /// Starts all parts on a node that has a member of the cluster, and waits until curl finds each of them well.
    pub fn start(node: &Node, etcd: &Etcd, options: &Options) -> Result<Self> {
        let pki = Pki::new(node.machine().scratch().join("kubernetes"))?;
        let mut plane = Self::furnish(node, etcd, options, &pki)?;
        for part in Part::ALL {
            plane.run(part)?;
            plane.wait_well(part)?;
        }
        Ok(plane)
    }

    /// Puts all files on such a node, and starts nothing yet.
    pub(crate) fn furnish(node: &Node, etcd: &Etcd, options: &Options, pki: &Pki) -> Result<Self> {
        let member = etcd.node(node.index())?;
        pki.install(member, options.api_port)
            .with_context(|| format!("furnish {} with a control plane", node.name()))?;
        let (options, pki) = (options.clone(), pki.clone());
        let plane = Self { node: node.clone(), options, pki, services: BTreeMap::new() };
        if plane.options.manifests {
            Part::ALL.iter().try_for_each(|part| plane.write_manifest(*part))?;
        }
        Ok(plane)
    }

    /// Starts a part, and does not wait for it; a predecessor that still runs is killed.
    pub fn run(&mut self, part: Part) -> Result<()> {
        self.services.remove(&part);
        let mut command = Command::new(part.binary()?);
        command.args(part.arguments(&self.node, &self.options)?);
        self.services.insert(part, self.node.service(part.name(), &mut command)?);
        Ok(())
    }

    /// Waits until a part tells a client that logs in that it is ready.
    pub fn wait_well(&mut self, part: Part) -> Result<()> {
        let (node, url) = (self.node.clone(), part.url(&self.options, part.readiness()));
        let (client, mut last) = (pki::client(), None);
        let is_well = || {
            last = Some(witness::ask(&node, &url, Some(&client)));
            matches!(&last, Some(Ok(answer)) if answer.status == 200)
        };
        let waited = self.service(part)?.wait_until(&format!("{} to be well", part.name()), LIMIT, is_well);
        waited.with_context(|| format!("last answer: {last:?}"))
    }

    /// Kills a part by SIGKILL.
    pub fn kill(&mut self, part: Part) -> Result<ExitStatus> {
        let status = self.service(part)?.kill()?;
        self.services.remove(&part);
        Ok(status)
    }

    /// Stops a part in its tracks: the kernel goes on accepting, and nobody answers.
    pub fn freeze(&mut self, part: Part) -> Result<()> {
        process::freeze(self.service(part)?.pid())
    }

    /// Lets a frozen part go on.
    pub fn thaw(&mut self, part: Part) -> Result<()> {
        self.service(part)?.signal(Signal::SIGCONT)
    }

    /// Asks a part from inside its node by curl, without logging in.
    pub fn ask(&self, part: Part, path: &str) -> Result<Answer> {
        witness::ask(&self.node, &part.url(&self.options, path), None)
    }

    /// kubectl on the node, with the file of the administrator that kubeadm leaves there.
    pub fn kubectl(&self) -> Result<Kubectl> {
        self.pki.join(&self.node, pki::ADMINISTRATOR, &pki::administrator(), &self.options.url())?;
        Ok(Kubectl::new(self.node.machine(), pki::seen(pki::ADMINISTRATOR)))
    }

    /// Puts a kubeconfig of one who may do everything on any node, by which it reaches the API server of this one; answers
    /// with its path there.
    pub fn log_in(&self, node: &Node) -> Result<String> {
        let server = std::net::SocketAddr::new(self.node.address(false)?, self.options.api_port);
        self.pki.join(node, "leadline.conf", &pki::administrator(), &format!("https://{server}"))?;
        Ok(pki::seen("leadline.conf").display().to_string())
    }

    fn service(&mut self, part: Part) -> Result<&mut Service> {
        self.services.get_mut(&part).with_context(|| format!("no {} runs", part.name()))
    }

    fn write_manifest(&self, part: Part) -> Result<()> {
        let directory = self.node.path("/etc/kubernetes/manifests");
        fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        let file = directory.join(format!("{}.yaml", part.name()));
        let arguments = part.arguments(&self.node, &self.options)?;
        let arguments: Vec<String> = arguments.iter().map(|argument| format!("    - {argument}")).collect();
        let (name, arguments) = (part.name(), arguments.join("\n"));
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: kube-system\nspec:\n  containers:\n  \
             - name: {name}\n    command:\n    - {name}\n{arguments}\n  hostNetwork: true\n"
        );
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))
    }
}
