//! A machine of the lab, switch or node: namespaces kept by a holder process, a cgroup tree and a scratch directory.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sched::CloneFlags;

use crate::place::{Namespaces, Place, join};
use crate::process::Holder;
use crate::service::Service;
use crate::{cgroup, process};

/// What a holder does once it has set up its namespaces: it says so in a file and keeps them alive.
const HOLD: &str = "\n: > \"$scratch/ready\"\nexec sleep infinity\n";

/// The plan of a machine.
pub(crate) struct Plan<'a> {
    pub(crate) name: String,
    /// The cgroup of the lab, below which the machine gets its own.
    pub(crate) lab_cgroup: &'a Path,
    /// The directories of the lab in the hierarchies of cgroup v1, if the machine is to have its own of those as well.
    pub(crate) lab_legacy: &'a [PathBuf],
    /// The scratch directory of the lab, below which the machine gets its own.
    pub(crate) lab_scratch: &'a Path,
    pub(crate) kinds: CloneFlags,
    /// Shell commands by which the holder sets its namespaces up; `$name` and `$scratch` are set, and `$is_hybrid`, which
    /// is empty unless the machine has directories in the hierarchies of cgroup v1.
    pub(crate) setup: &'static str,
    pub(crate) ipv4: Ipv4Addr,
    pub(crate) ipv6: Ipv6Addr,
}

/// A started machine.
#[derive(Debug)]
pub struct Machine {
    name: String,
    holder: Mutex<Holder>,
    holder_pid: u32,
    namespaces: Namespaces,
    root: PathBuf,
    legacy: Vec<PathBuf>,
    shell: PathBuf,
    scratch: PathBuf,
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
}

/// A machine whose holder has been started but is not ready yet, so that several can start at once.
pub(crate) struct Starting<'a> {
    plan: Plan<'a>,
    holder: Holder,
    root: PathBuf,
    legacy: Vec<PathBuf>,
    scratch: PathBuf,
}

impl<'a> Starting<'a> {
    pub(crate) fn begin(plan: Plan<'a>) -> Result<Self> {
        let root = plan.lab_cgroup.join(&plan.name);
        let scratch = plan.lab_scratch.join(&plan.name);
        let init = root.join("init.scope");
        cgroup::create(&init)?;
        let legacy: Vec<_> = plan.lab_legacy.iter().map(|lab| lab.join(&plan.name)).collect();
        legacy.iter().try_for_each(|directory| cgroup::create(directory))?;
        for directory in ["etc-haproxy", "log", "var-lib", "var-log"] {
            let directory = scratch.join(directory);
            fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        }
        let output = scratch.join("holder.log");
        let output = fs::File::create(&output).with_context(|| format!("create {}", output.display()))?;
        let script = format!("set -eu\nname=$1 scratch=$2 is_hybrid=$3\n{}{HOLD}", plan.setup);
        let mut command = Command::new("sh");
        command.args(["-c", &script, "leadline-lab-holder", &plan.name]).arg(&scratch);
        command.arg(if legacy.is_empty() { "" } else { "yes" });
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        // A new cgroup namespace is rooted where the process is, so the holder must start in the machine's root.
        let cgroups = legacy.iter().chain([&root]).map(PathBuf::as_path);
        join(&mut command, cgroups, &Namespaces::default(), plan.kinds)?;
        let holder = Holder::spawn(&mut command)?;
        Ok(Self { plan, holder, root, legacy, scratch })
    }

    pub(crate) fn ready(mut self) -> Result<Machine> {
        let file = self.scratch.join("ready");
        let what = format!("{} to set up its namespaces", self.plan.name);
        let mut ended = None;
        process::wait_until(&what, Duration::from_secs(10), || {
            ended = self.holder.ended();
            file.exists() || ended.is_some()
        })?;
        if let Some(status) = ended {
            let log = fs::read_to_string(self.scratch.join("holder.log")).unwrap_or_default();
            bail!("the holder of {} ended ({status}): {}", self.plan.name, log.trim());
        }
        let holder_pid = self.holder.pid();
        let init = self.root.join("init.scope/cgroup.procs");
        fs::write(&init, holder_pid.to_string()).with_context(|| format!("write {}", init.display()))?;
        let shell = self.root.join("system.slice/shell.service");
        cgroup::create(&shell)?;
        Ok(Machine {
            namespaces: Namespaces::of(holder_pid, self.plan.kinds)?,
            holder: Mutex::new(self.holder),
            holder_pid,
            shell,
            name: self.plan.name,
            root: self.root,
            legacy: self.legacy,
            scratch: self.scratch,
            ipv4: self.plan.ipv4,
            ipv6: self.plan.ipv6,
        })
    }
}

impl Machine {
    /// The cgroup directory of the machine; with a cgroup namespace it is what processes inside see as `/`.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A directory for files of the machine; it is the same path inside and outside.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// The process that keeps the namespaces.
    #[must_use]
    pub fn holder_pid(&self) -> u32 {
        self.holder_pid
    }

    /// Starts a daemon in `system.slice/NAME.service`, and in the machine's own directories of cgroup v1, with its output in a log file.
    pub fn service(&self, name: &str, command: &mut Command) -> Result<Service> {
        let unit = self.root.join(format!("system.slice/{name}.service"));
        cgroup::create(&unit)?;
        let cgroups = self.legacy.iter().chain([&unit]).map(PathBuf::as_path);
        join(command, cgroups, &self.namespaces, CloneFlags::empty())?;
        let log = self.scratch.join(format!("log/{name}.log"));
        Service::start(format!("{name} on {}", self.name), command, log, unit)
    }

    /// Ends all processes of the machine at once, as a loss of power does, but the holder, and removes their cgroups.
    pub(crate) fn end_all(&self) -> Result<()> {
        let mut directories = Vec::new();
        for root in [&self.root].into_iter().chain(&self.legacy) {
            let children = cgroup::children(root)?.into_iter().filter(|name| name != "init.scope");
            directories.extend(children.map(|name| root.join(name)));
        }
        // All of them before anybody waits for one.
        for file in directories.iter().map(|directory| directory.join("cgroup.kill")) {
            if file.exists() {
                fs::write(&file, "1").with_context(|| format!("write {}", file.display()))?;
            }
        }
        directories.iter().try_for_each(|directory| cgroup::remove(directory))?;
        cgroup::create(&self.shell)
    }

    /// Ends the holder and takes its exit status, so that no zombie stays while handles to the machine live on.
    pub(crate) fn reap(&self) {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner).end();
    }
}

impl Place for Machine {
    fn name(&self) -> &str {
        &self.name
    }
    fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }
    fn cgroup(&self) -> &Path {
        &self.shell
    }
    fn ipv4(&self) -> Option<Ipv4Addr> {
        Some(self.ipv4)
    }
    fn ipv6(&self) -> Option<Ipv6Addr> {
        Some(self.ipv6)
    }
}
