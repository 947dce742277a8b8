//! The lab as a whole: start, parts, teardown.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sched::CloneFlags;

use crate::flannel::{Flannel, FlannelRun};
use crate::keeper::Keeper;
use crate::machine::{Machine, Plan, Starting};
use crate::node::{self, Node};
use crate::place::Place as _;
use crate::{cgroup, owner};

/// Bridge netfilter would send the frames of the switch through its (empty) firewall.
const SWITCH_SETUP: &str = r"
cd /proc/sys/net
echo 0 > ipv4/ip_forward
for scope in all default; do echo 0 > ipv6/conf/$scope/accept_dad; done
for file in bridge/bridge-nf-call-*tables; do [ ! -e $file ] || echo 0 > $file; done
";

/// What the lab hides inside its nodes: its own files must not lie there.
const HIDDEN: [&str; 4] = ["/run", "/sys", "/var/lib", "/var/log"];

/// What kind of lab to start.
#[derive(Clone, Debug)]
pub struct LabOptions {
    /// The number of nodes, 1 to 9.
    pub nodes: u8,
    /// The pod network, if there is to be one.
    pub flannel: Option<Flannel>,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self { nodes: 3, flannel: Some(Flannel::default()) }
    }
}

/// A running lab. Dropping it tears it down.
#[derive(Debug)]
pub struct Lab {
    name: String,
    flannel: Option<FlannelRun>,
    nodes: Vec<Node>,
    switch: Option<Machine>,
    cgroup: PathBuf,
    legacy: Vec<PathBuf>,
    scratch: PathBuf,
    keeper: Option<Keeper>,
}

impl Lab {
    /// Cleans up after killed runs, then starts a lab.
    pub fn start(options: &LabOptions) -> Result<Self> {
        Self::start_with(options, None)
    }

    /// Like [`Self::start`], and the nodes can run containers: they have the controllers of the machine's cgroups, and where
    /// those are in hierarchies of version 1, these as well.
    pub fn start_for_containers(options: &LabOptions) -> Result<Self> {
        Self::start_with(options, Some(&cgroup::v1_roots()?))
    }

    /// With containers, `v1_roots` are the hierarchies of version 1 that the nodes have.
    fn start_with(options: &LabOptions, v1_roots: Option<&[PathBuf]>) -> Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "the lab makes namespaces and cgroups: run it as root");
        ensure!((1..=9).contains(&options.nodes), "a lab has 1 to 9 nodes, not {}", options.nodes);
        let clash = HIDDEN.iter().find(|hidden| std::env::temp_dir().starts_with(hidden));
        if let Some(hidden) = clash {
            bail!("TMPDIR must not be below {hidden}, which is hidden inside the nodes");
        }
        owner::clean_stale().context("clean up after an earlier lab")?;
        let name = owner::new_name()?;
        let cgroup = cgroup::v2_root()?.join(&name);
        let scratch = std::env::temp_dir().join(&name);
        let legacy: Vec<_> = v1_roots.into_iter().flatten().map(|root| root.join(&name)).collect();
        let keeper = Some(Keeper::start(&cgroup, &legacy, &scratch)?);
        let mut lab =
            Self { name, flannel: None, nodes: Vec::new(), switch: None, cgroup, legacy, scratch, keeper };
        cgroup::create(&lab.cgroup)?;
        if v1_roots.is_some() {
            cgroup::delegate(&lab.cgroup)?;
        }
        lab.build(options)?;
        Ok(lab)
    }

    fn build(&mut self, options: &LabOptions) -> Result<()> {
        self.legacy.iter().try_for_each(|directory| cgroup::create_v1(directory))?;
        fs::create_dir_all(&self.scratch).with_context(|| format!("create {}", self.scratch.display()))?;
        let switch = Starting::begin(self.switch_plan())?;
        let plans =
            (1..=options.nodes).map(|index| node::plan(index, &self.cgroup, &self.legacy, &self.scratch));
        let starting = plans.map(Starting::begin).collect::<Result<Vec<_>>>()?;
        let nodes = (1..).zip(starting).map(|(index, starting)| Node::new(index, starting));
        let nodes = nodes.collect::<Result<Vec<_>>>()?;
        let switch = switch.ready()?;
        cable(&switch, &nodes)?;
        self.flannel =
            options.flannel.clone().map(|flannel| FlannelRun::start(flannel, &switch, &nodes)).transpose()?;
        self.switch = Some(switch);
        self.nodes = nodes;
        Ok(())
    }

    fn switch_plan(&self) -> Plan<'_> {
        Plan {
            name: "switch".into(),
            lab_cgroup: &self.cgroup,
            lab_legacy: &[],
            lab_scratch: &self.scratch,
            kinds: CloneFlags::CLONE_NEWNET,
            setup: SWITCH_SETUP,
            ipv4: Ipv4Addr::new(192, 168, 56, 1),
            ipv6: Ipv6Addr::new(0xfd56, 0, 0, 0, 0, 0, 0, 1),
        }
    }

    /// The name of the lab, also of its cgroup and of its scratch directory.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cgroup directory of the lab.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// The scratch directory of the lab.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// The process that cleans up if this one is killed; none after the shutdown.
    #[must_use]
    pub fn keeper_pid(&self) -> Option<u32> {
        self.keeper.as_ref().map(Keeper::pid)
    }

    /// All nodes; the first one is `node1`.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node of that number, from 1.
    pub fn node(&self, index: u8) -> Result<&Node> {
        let node = self.nodes.iter().find(|node| node.index() == index);
        node.with_context(|| format!("the lab has no node{index}, only {} nodes", self.nodes.len()))
    }

    /// The switch, which is also the gateway of the underlay and the place for etcd.
    pub fn switch(&self) -> Result<&Machine> {
        self.switch.as_ref().context("the lab has no switch any more")
    }

    /// The running pod network.
    pub fn flannel(&mut self) -> Result<&mut FlannelRun> {
        self.flannel.as_mut().context("the lab has been started without flannel")
    }

    /// Takes the pod network out of the lab, for tests that change it beside others that hold on to the lab. It is to be
    /// dropped before the lab is.
    pub fn take_flannel(&mut self) -> Result<FlannelRun> {
        self.flannel.take().context("the lab has been started without flannel")
    }

    /// Plugs a node into its switch port or pulls it out.
    pub fn plug(&self, node: &Node, up: bool) -> Result<()> {
        let state = if up { "up" } else { "down" };
        self.switch()?.ip(&format!("link set {} {state}", node.name()))
    }

    /// Gives every node permanent neighbour entries for the others, so that no ARP or ND disturbs exact counts.
    pub fn pin_underlay(&self) -> Result<()> {
        for node in &self.nodes {
            let mut script = String::new();
            for other in self.nodes.iter().filter(|other| other.index() != node.index()) {
                for address in [other.address(false)?, other.address(true)?] {
                    writeln!(
                        script,
                        "neigh replace {address} lladdr {} dev eth0 nud permanent",
                        other.mac()
                    )?;
                }
            }
            node.ip(&script)?;
        }
        Ok(())
    }

    /// Tears the lab down; the error lists what could not be removed.
    pub fn shutdown(mut self) -> Result<()> {
        self.tear_down()
    }

    fn tear_down(&mut self) -> Result<()> {
        let Some(mut keeper) = self.keeper.take() else { return Ok(()) };
        let mut left = Vec::new();
        let mut note = |result: Result<()>| left.extend(result.err().map(|error| format!("{error:#}")));
        note(cgroup::kill(&self.cgroup));
        self.flannel = None;
        for machine in self.nodes.iter().map(Node::machine).chain(&self.switch) {
            machine.reap();
        }
        (self.nodes, self.switch) = (Vec::new(), None);
        for directory in self.legacy.iter().chain([&self.cgroup]) {
            note(cgroup::remove(directory));
        }
        note(owner::remove_scratch(&self.scratch));
        note(keeper.release());
        let directories: Vec<_> = self.legacy.iter().chain([&self.cgroup, &self.scratch]).collect();
        left.extend(leftovers(&self.name, &directories));
        ensure!(left.is_empty(), "{} is not gone:\n{}", self.name, left.join("\n"));
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Nobody can be told here; `shutdown` is for those who want to know.
        drop(self.tear_down());
    }
}

/// Makes the bridge and hangs the nodes on it.
fn cable(switch: &Machine, nodes: &[Node]) -> Result<()> {
    let mut script = String::from(
        "link set lo up\nlink add br0 type bridge mcast_snooping 0 forward_delay 0\nlink set br0 up\n\
         addr add 192.168.56.1/24 dev br0\naddr add fd56::1/64 dev br0 nodad\n",
    );
    for node in nodes {
        let (name, mac, pid) = (node.name(), node.mac(), node.machine().holder_pid());
        writeln!(script, "link add {name} type veth peer name eth0 address {mac} netns {pid}")?;
        writeln!(script, "link set {name} master br0 up")?;
    }
    switch.ip(&script)?;
    for node in nodes {
        let (ipv4, ipv6) = (node.address(false)?, node.address(true)?);
        node.ip(&format!(
            "link set lo up\naddr add {ipv4}/24 dev eth0\naddr add {ipv6}/64 dev eth0 nodad\nlink set eth0 up\n\
             route add default via 192.168.56.1\nroute add default via fd56::1\n"
        ))?;
    }
    Ok(())
}

/// What of a lab is still there: live processes in its cgroup, directories, mounts.
fn leftovers(name: &str, paths: &[&PathBuf]) -> Vec<String> {
    let processes = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok).filter_map(|entry| {
        let cgroups = fs::read_to_string(entry.path().join("cgroup")).ok()?;
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        // A zombie waits for its parent only: it holds nothing.
        let lives = !status.lines().any(|line| line.starts_with("State:\tZ"));
        let ours = cgroups.contains(&format!("/{name}/")) || cgroups.trim_end().ends_with(name);
        (ours && lives).then(|| format!("process {}", entry.file_name().to_string_lossy()))
    });
    let existing =
        paths.iter().filter(|path| path.exists()).map(|path| format!("directory {}", path.display()));
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounts = mounts.lines().filter(|line| line.contains(name)).map(|line| format!("mount {line}"));
    processes.chain(existing).chain(mounts).collect()
}
