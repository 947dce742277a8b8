//! Where a process or a socket of the lab lives: a set of namespaces, a cgroup, and an address.

use std::fs::File;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::SigSet;

use crate::process;

/// The kinds of namespace that make a node, by their file names below `/proc/PID/ns`.
const KINDS: [(&str, CloneFlags); 5] = [
    ("net", CloneFlags::CLONE_NEWNET),
    ("mnt", CloneFlags::CLONE_NEWNS),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("cgroup", CloneFlags::CLONE_NEWCGROUP),
];

/// Handles to namespaces, held open so that a reused process id can never lead elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Namespaces(Vec<(Arc<File>, CloneFlags)>);

impl Namespaces {
    /// Opens those namespaces of the process that `kinds` selects.
    pub fn of(pid: u32, kinds: CloneFlags) -> Result<Self> {
        let wanted = KINDS.iter().filter(|(_, flag)| kinds.contains(*flag));
        let open = wanted.map(|(name, flag)| {
            let path = format!("/proc/{pid}/ns/{name}");
            let file = File::open(&path).with_context(|| format!("open namespace {path}"))?;
            Ok((Arc::new(file), *flag))
        });
        open.collect::<Result<Vec<_>>>().map(Self)
    }

    /// These namespaces, with those that `other` has replaced by the other's.
    #[must_use]
    pub fn overlaid_with(&self, other: &Self) -> Self {
        let kept = self.0.iter().filter(|(_, flag)| !other.0.iter().any(|(_, theirs)| theirs == flag));
        Self(kept.chain(&other.0).cloned().collect())
    }

    /// Moves the calling thread into the namespaces of the given kinds.
    fn enter(&self, kinds: CloneFlags) -> io::Result<()> {
        for (file, flag) in self.0.iter().filter(|(_, flag)| kinds.contains(*flag)) {
            setns(file, *flag)?;
        }
        Ok(())
    }
}

/// Lets the command start in the cgroups, one of each hierarchy, then in the namespaces, then in `fresh` namespaces of
/// its own.
///
/// It also gets its own process group: a Ctrl-C at the terminal must reach the owner of the lab only.
pub fn join<'a>(
    command: &mut Command,
    cgroups: impl IntoIterator<Item = &'a Path>,
    namespaces: &Namespaces,
    fresh: CloneFlags,
) -> Result<()> {
    let open = |cgroup: &Path| {
        let procs = cgroup.join("cgroup.procs");
        File::options().write(true).open(&procs).with_context(|| format!("open {}", procs.display()))
    };
    let procs = cgroups.into_iter().map(open).collect::<Result<Vec<_>>>()?;
    let namespaces = namespaces.clone();
    command.process_group(0);
    let enter = move || {
        for mut procs in &procs {
            procs.write_all(b"0")?;
        }
        namespaces.enter(CloneFlags::all())?;
        unshare(fresh)?;
        // Who takes signals by a descriptor blocks them, and children would inherit that.
        SigSet::all().thread_unblock()?;
        Ok(())
    };
    #[expect(unsafe_code, reason = "a process can only be moved between fork and exec")]
    // SAFETY: the closure makes the system calls write, setns, unshare and sigprocmask, on descriptors opened before the
    // fork; it neither allocates nor takes a lock, so the state of the parent's other threads does not matter.
    unsafe {
        command.pre_exec(enter);
    }
    Ok(())
}

/// Something in which commands run and sockets are opened: the switch, a node or a pod.
pub trait Place: Sync {
    /// The name for messages.
    fn name(&self) -> &str;
    /// The namespaces of the place.
    fn namespaces(&self) -> &Namespaces;
    /// The cgroup directory, as the machine sees it, of commands without another one.
    fn cgroup(&self) -> &Path;
    /// The IPv4 address by which others reach the place.
    fn ipv4(&self) -> Option<Ipv4Addr>;
    /// The IPv6 address by which others reach the place.
    fn ipv6(&self) -> Option<Ipv6Addr>;

    /// The address of one family, or an error that names the place.
    fn address(&self, ipv6: bool) -> Result<IpAddr> {
        let address = if ipv6 { self.ipv6().map(IpAddr::V6) } else { self.ipv4().map(IpAddr::V4) };
        let family = if ipv6 { "IPv6" } else { "IPv4" };
        address.with_context(|| format!("{} has no {family} address", self.name()))
    }

    /// A command that will run in all namespaces and in the cgroup of the place.
    ///
    /// Its working directory is `/`: changing the mount namespace loses every other one.
    fn command(&self, program: &str) -> Result<Command> {
        let mut command = Command::new(program);
        join(&mut command, [self.cgroup()], self.namespaces(), CloneFlags::empty())?;
        command.stdin(Stdio::null());
        Ok(command)
    }

    /// A command that will run one ignored test of this test binary in the place: code of a test whose sockets must
    /// belong to the place's cgroup. Arguments go through the environment.
    fn test_command(&self, test: &str) -> Result<Command> {
        let binary = std::env::current_exe().context("find this test binary")?;
        let mut command =
            self.command(binary.to_str().context("the path of this test binary is no UTF-8")?)?;
        command.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]);
        Ok(command)
    }

    /// Runs a short command in the place and returns what it printed; a failure carries its standard error.
    fn run(&self, arguments: &[&str]) -> Result<String> {
        let (program, rest) = arguments.split_first().context("empty command")?;
        let mut command = self.command(program)?;
        command.args(rest);
        process::run(&mut command).with_context(|| format!("in {}", self.name()))
    }

    /// Runs the lines of an `ip -batch` script in the place.
    fn ip(&self, script: &str) -> Result<()> {
        let mut command = self.command("ip")?;
        command.args(["-batch", "-"]);
        process::run_with_input(&mut command, script)
            .with_context(|| format!("ip -batch in {}:\n{script}", self.name()))
            .map(drop)
    }

    /// Runs a closure on a new thread inside the network namespace of the place.
    ///
    /// `/proc/thread-self/net` is the namespace's own there. The thread stays in the *cgroup* of this process, so
    /// traffic which is to be accounted to a pod must come from [`Place::command`] or [`Place::test_command`] instead.
    fn net<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T>
    where
        Self: Sized,
    {
        let entered = || self.namespaces().enter(CloneFlags::CLONE_NEWNET).map(|()| work());
        let result = thread::scope(|scope| scope.spawn(entered).join());
        let result = result.unwrap_or_else(|payload| std::panic::resume_unwind(payload));
        result.with_context(|| format!("enter the network namespace of {}", self.name()))
    }

    /// A file below `/proc/net`, as it reads in the network namespace of the place.
    fn proc_net(&self, file: &str) -> Result<String>
    where
        Self: Sized,
    {
        let path = format!("/proc/thread-self/net/{file}");
        self.net(|| std::fs::read_to_string(&path))?
            .with_context(|| format!("read {path} in {}", self.name()))
    }
}
