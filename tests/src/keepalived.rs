//! Virtual addresses: real keepalived as a daemon of a node.

mod spec;
mod trio;

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

use crate::node::Node;
use crate::place::Place as _;
use crate::service::Service;
use crate::{cgroup, process, tools};

pub use spec::{Check, Spec, VIP, VIP6, Version, Vip};
pub use trio::{PRIORITIES, Trio};

/// The time for what keepalived does by itself. A stop takes it one second.
const LIMIT: Duration = Duration::from_secs(30);

/// A running keepalived: a parent, and the child that speaks VRRP. Dropping it ends both and takes the virtual
/// addresses from the node.
#[derive(Debug)]
pub struct Keepalived {
    node: Node,
    spec: Spec,
    /// None only between the end of one and the start of the next.
    service: Option<Service>,
    /// The length of what earlier ones have written to the same log.
    earlier_log: usize,
}

impl Keepalived {
    /// Starts keepalived and waits until it takes part in the protocol.
    pub fn start(node: &Node, spec: &Spec) -> Result<Self> {
        let mut daemon = Self::begin(node, spec)?;
        daemon.wait_ready()?;
        Ok(daemon)
    }

    fn begin(node: &Node, spec: &Spec) -> Result<Self> {
        let mut daemon = Self { node: node.clone(), spec: spec.clone(), service: None, earlier_log: 0 };
        daemon.run()?;
        Ok(daemon)
    }

    fn run(&mut self) -> Result<()> {
        let directory = self.directory();
        // Process ids that a killed one has left must not be taken for those of a running one.
        if directory.exists() {
            fs::remove_dir_all(&directory).with_context(|| format!("remove {}", directory.display()))?;
        }
        fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        let file = self.write_config()?;
        let mut command = Command::new(tools::require("keepalived")?);
        command.args(["--vrrp", "--dont-fork", "--log-console", "--log-detail", "--use-file"]).arg(&file);
        command.arg("--pid").arg(directory.join("parent.pid"));
        command.arg("--vrrp_pid").arg(directory.join("child.pid"));
        command.env("TMPDIR", &directory);
        // Before it starts: on a busy machine it has written all that is awaited by the time that this goes on.
        self.earlier_log = fs::read(self.log_file()).unwrap_or_default().len();
        self.service = Some(self.node.service("keepalived", &mut command)?);
        Ok(())
    }

    fn write_config(&self) -> Result<PathBuf> {
        let file = self.directory().join("keepalived.conf");
        let config = self.spec.config(self.node.name(), self.node.address(self.spec.is_ipv6())?)?;
        fs::write(&file, config).with_context(|| format!("write {}", file.display()))?;
        Ok(file)
    }

    /// Has a running keepalived check its node from now on, and waits for the first success.
    pub fn add_check(&mut self, check: Check) -> Result<()> {
        self.spec.check = Some(check);
        self.write_config()?;
        let begin = self.service()?.log()?.len();
        self.service()?.signal(Signal::SIGHUP)?;
        let (log, said) = (self.log_file(), format!("VRRP_Script({}) succeeded", Check::NAME));
        let succeeded = || {
            let bytes = fs::read(&log).unwrap_or_default();
            String::from_utf8_lossy(bytes.get(begin..).unwrap_or_default()).contains(&said)
        };
        let what = format!("a check of keepalived on {} to succeed", self.node.name());
        self.service_mut()?.wait_until(&what, LIMIT, succeeded)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let what = format!("keepalived on {} to enter a state", self.node.name());
        let earlier = self.earlier_log;
        let log = self.log_file();
        let entered = || {
            let bytes = fs::read(&log).unwrap_or_default();
            String::from_utf8_lossy(bytes.get(earlier..).unwrap_or_default()).contains(") Entering ")
        };
        self.service_mut()?.wait_until(&what, LIMIT, entered)
    }

    fn log_file(&self) -> PathBuf {
        self.node.machine().scratch().join("log/keepalived.log")
    }

    /// The node it runs on.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// What it does.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Where its configuration lies, and what it writes on demand.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.node.machine().scratch().join("keepalived")
    }

    /// The process id of the parent, which only starts the child anew.
    pub fn parent(&self) -> Result<u32> {
        self.service().map(Service::pid)
    }

    /// The process id of the child, which speaks VRRP.
    pub fn child(&self) -> Result<u32> {
        let parent = self.parent()?;
        let processes = self.processes()?;
        let children: Vec<u32> = processes.into_iter().filter(|pid| *pid != parent).collect();
        match children[..] {
            [child] => Ok(child),
            _ => bail!("keepalived on {} has the children {children:?}", self.node.name()),
        }
    }

    /// The living processes, which its cgroup knows better than its files.
    fn processes(&self) -> Result<Vec<u32>> {
        let file = self.service()?.unit().join("cgroup.procs");
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let pids = text.lines().map(|line| line.parse().with_context(|| format!("{line} in cgroup.procs")));
        pids.collect()
    }

    /// Stops it properly: the child says farewell with priority 0, and the parent ends a second later.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.service_mut()?.terminate(LIMIT)
    }

    /// Kills the child. The parent starts another one, which first of all drops the addresses.
    pub fn kill_child(&self) -> Result<()> {
        self.kill_process(self.child()?)
    }

    /// Kills the parent. The child then stops properly; this waits for its end.
    pub fn kill_parent(&mut self) -> Result<()> {
        self.service_mut()?.kill()?;
        let unit = self.service()?.unit();
        process::wait_until("the child of keepalived to stop", LIMIT, || cgroup::is_empty(unit))
    }

    /// Kills both at once as a crash of the machine would, but the node goes on and keeps the addresses.
    pub fn kill_both(&mut self) -> Result<()> {
        let (parent, child) = (self.parent()?, self.child()?);
        // A parent that sees the end of its child starts another one, a child that sees the end of its parent says
        // farewell.
        process::freeze(parent)?;
        self.kill_process(child)?;
        self.service_mut()?.kill().map(drop)
    }

    /// Stops the child in its tracks, as if it hung.
    pub fn stop_child(&self) -> Result<()> {
        process::freeze(self.child()?)
    }

    /// Lets a stopped child go on.
    pub fn continue_child(&self) -> Result<()> {
        process::signal(self.child()?, Signal::SIGCONT)
    }

    /// Whether the parent runs.
    pub fn is_running(&mut self) -> Result<bool> {
        self.service.as_mut().map_or(Ok(false), |service| Ok(service.ended()?.is_none()))
    }

    /// Starts it again after its end, however that came; its predecessor is killed if it still runs.
    pub fn restart(&mut self) -> Result<()> {
        self.service = None;
        self.run()?;
        self.wait_ready()
    }

    /// What it has written since its last start.
    pub fn log(&self) -> Result<String> {
        let log = self.service()?.log()?;
        Ok(log.get(self.earlier_log..).unwrap_or(&log).to_owned())
    }

    fn kill_process(&self, pid: u32) -> Result<()> {
        process::signal(pid, Signal::SIGKILL)?;
        process::wait_until(&format!("the end of process {pid}"), LIMIT, || {
            self.processes().is_ok_and(|processes| !processes.contains(&pid))
        })
    }

    fn service(&self) -> Result<&Service> {
        self.service.as_ref().with_context(|| format!("no keepalived runs on {}", self.node.name()))
    }

    fn service_mut(&mut self) -> Result<&mut Service> {
        self.service.as_mut().with_context(|| format!("no keepalived runs on {}", self.node.name()))
    }

    /// Takes away what a killed keepalived leaves on its node.
    fn clean(&self) -> Result<()> {
        for vip in &self.spec.addresses {
            self.node.remove_address(vip.address)?;
        }
        if self.spec.use_vmac {
            self.node.ip(&format!("link del {}\n", self.spec.vmac_device()))?;
        }
        Ok(())
    }
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        // Killed, since a proper stop takes a second. Nobody can be told here; what stays goes with the lab.
        self.service = None;
        drop(self.clean());
    }
}

/// Waits until the node has the address, on whichever device.
pub fn wait_master(node: &Node, address: IpAddr, limit: Duration) -> Result<()> {
    let what = format!("{} to have {address}", node.name());
    process::wait_for(&what, limit, || node.holding(address).map(|held| held.map(drop)).transpose())?
}
