//! What the agent says while the kernel does not tell it of the network: answers are swallowed by a filter on its
//! socket, and then it is given no descriptor for another one.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::scrape::Samples;
use lab::{Agent, AgentOptions, Node, Place as _, process, wait_until};
use nix::errno::Errno;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// A dump that is not answered is given up after 10 s.
const LIMIT: Duration = Duration::from_secs(30);

/// The agent's rtnetlink sockets: that for notifications and that for dumps.
struct Sockets {
    notifications: i32,
    dumps: i32,
    /// All descriptors of the agent.
    open: Vec<i32>,
}

impl Sockets {
    fn of(pid: u32) -> Result<Self> {
        let targets = descriptors(pid)?;
        let table = fs::read_to_string(format!("/proc/{pid}/net/netlink"))?;
        let mut found = [None, None];
        for line in table.lines().skip(1) {
            // sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
            let columns: Vec<&str> = line.split_whitespace().collect();
            let [_, "0", _, groups, .., inode] = columns[..] else { continue };
            let socket = format!("socket:[{inode}]");
            let descriptor = targets.iter().find(|(_, target)| **target == socket).map(|(number, _)| *number);
            let is_subscribed = u32::from_str_radix(groups, 16)? != 0;
            found[usize::from(!is_subscribed)] = descriptor.or(found[usize::from(!is_subscribed)]);
        }
        let [Some(notifications), Some(dumps)] = found else {
            anyhow::bail!("no rtnetlink sockets: {table}")
        };
        Ok(Self { notifications, dumps, open: targets.into_keys().collect() })
    }

    /// A limit that leaves one descriptor free once both sockets are closed: a scrape needs one, a new feed two.
    fn limit(&self) -> Result<i32> {
        let is_free =
            |number: &i32| [self.notifications, self.dumps].contains(number) || !self.open.contains(number);
        Ok((0..i32::MAX).find(is_free).context("no number is free")? + 1)
    }
}

fn descriptors(pid: u32) -> Result<BTreeMap<i32, String>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let number = entry.file_name().to_string_lossy().parse().context("a descriptor's number")?;
        found.insert(number, target.to_string_lossy().into_owned());
    }
    Ok(found)
}

fn limit_descriptors(pid: u32, soft: i32) -> Result<()> {
    process::run(Command::new("prlimit").args([format!("--pid={pid}"), format!("--nofile={soft}:")]))
        .map(drop)
}

/// Attaches a filter to a socket of another process that lets nothing in.
fn swallow_answers(pid: u32, descriptor: i32) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?).context("a process id")?;
    let process = pidfd_open(pid, PidfdFlags::empty()).context("pidfd_open")?;
    let socket: OwnedFd =
        pidfd_getfd(process, descriptor, PidfdGetfdFlags::empty()).context("pidfd_getfd")?;
    let mut nothing = [libc::sock_filter { code: u16::try_from(libc::BPF_RET)?, jt: 0, jf: 0, k: 0 }];
    let program = libc::sock_fprog { len: 1, filter: nothing.as_mut_ptr() };
    let size = libc::socklen_t::try_from(size_of_val(&program))?;
    #[expect(unsafe_code, reason = "nix has no socket filters")]
    // SAFETY: the option is a program of one instruction; both outlive the call, and the size is the option's own.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size,
        )
    };
    Errno::result(set).context("attach a filter").map(drop)
}

fn level(samples: &Samples, collector: &str) -> Option<String> {
    let of_collector = |sample: &lab::scrape::Sample| sample.label("collector") == Some(collector);
    samples.of("leadline_collector_support", of_collector).next()?.label("level").map(str::to_owned)
}

fn levels(samples: &Samples) -> [Option<String>; 3] {
    ["overlay", "traffic", "tcp"].map(|collector| level(samples, collector))
}

/// The MTU of the overlay device, one of the values that are read by netlink.
fn mtu(samples: &Samples) -> Option<u64> {
    samples.count("leadline_overlay_mtu_bytes", &[("device", "flannel.1")])
}

fn families(samples: &Samples, prefix: &str) -> usize {
    samples.all().iter().filter(|sample| sample.name.starts_with(prefix)).count()
}

fn counters(samples: &Samples) -> usize {
    families(samples, "leadline_overlay_receive_") + families(samples, "leadline_overlay_transmit_")
}

fn becomes(agent: &Agent, what: &str, level: &str, mtu_bytes: Option<u64>) -> Result<Samples> {
    let is_so = |samples: &Samples| {
        levels(samples).iter().all(|found| found.as_deref() == Some(level)) && mtu(samples) == mtu_bytes
    };
    wait_until(what, LIMIT, || agent.scrape().is_ok_and(|samples| is_so(&samples)))?;
    agent.scrape()
}

#[test]
fn a_network_that_cannot_be_read_degrades_what_needs_it_and_nothing_else() -> Result<()> {
    let lab = super::start(2)?;
    let node: &Node = lab.node(1)?;
    let mut agent = Agent::start(node, &AgentOptions::default())?;
    becomes(&agent, "a whole agent", "supported", Some(1450))?;
    // Bytes and packets in both directions, of the one other node.
    wait_until("counters of the overlay", LIMIT, || agent.scrape().is_ok_and(|page| counters(&page) == 4))?;
    let pid = agent.service().pid();
    let sockets = Sockets::of(pid)?;
    limit_descriptors(pid, sockets.limit()?)?;
    swallow_answers(pid, sockets.dumps)?;
    node.ip("link set flannel.1 mtu 1300\n")?;

    let blind = becomes(&agent, "the loss to be told", "degraded", None)?;
    for family in ["info", "mtu_bytes", "device_up", "entries_missing"] {
        assert_eq!(families(&blind, &format!("leadline_overlay_{family}")), 0, "{family}");
    }
    assert_eq!(counters(&blind), 4);
    for collector in ["overlay", "traffic", "tcp", "self"] {
        assert_eq!(blind.count("leadline_collector_success", &[("collector", collector)]), Some(1));
    }
    // Another attempt fails as well, and is counted.
    let failures = || agent.scrape().ok()?.count("leadline_netlink_failures_total", &[]);
    wait_until("attempts to be counted", LIMIT, || failures() >= Some(2))?;
    node.ip("link set flannel.1 mtu 1250\n")?;
    limit_descriptors(pid, 1024)?;

    becomes(&agent, "the network to be read again", "supported", Some(1250))?;
    let events = agent.get("/api/v1/events", &[])?;
    for kind in ["netlink_lost", "netlink_restored"] {
        assert_eq!(events.text()?.matches(&format!("\"kind\":\"{kind}\"")).count(), 1, "{kind}");
    }
    let log = agent.service().log()?;
    println!("{}", log.lines().filter(|line| line.contains("network state")).collect::<Vec<_>>().join("\n"));
    assert_eq!(log.matches("network state is not followed").count(), 1, "{log}");
    lab.shutdown()
}
