//! How many series the pods of a full node make, and how long those of a pod stay that never sent anything.

use std::fs;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::process::wait_for;
use lab::scrape::{Sample, Samples};
use lab::{Agent, AgentOptions, Place as _, wait_until};

use crate::program::{Program, reply};
use crate::{PORT, Stage};

/// As many pods as a kubelet admits.
const PODS: usize = 110;
/// The bound of the profile `standard` for such a node, of the families that grow with its pods and their sums.
const BOUND: usize = 3_500;
/// Of TCP per pod: ten buckets, a sum and a count of round trips, four counters, five reasons of failures.
const TCP: usize = 21;
/// Of traffic per pod and class of peer.
const TRAFFIC: usize = 4;
const RETENTION: Duration = Duration::from_secs(15);
/// Longer than the agent takes to see a change, and than the retention.
const PATIENCE: Duration = Duration::from_secs(40);

fn is_of_crowd(sample: &Sample) -> bool {
    sample.label("pod").is_some_and(|pod| pod.starts_with("crowd-"))
}

fn is_bounded(sample: &Sample) -> bool {
    ["leadline_pod_", "leadline_unit_", "leadline_node_", "leadline_tcp_"]
        .iter()
        .any(|prefix| sample.name.starts_with(prefix))
}

fn is_tcp(sample: &Sample) -> bool {
    is_of_crowd(sample) && sample.name.starts_with("leadline_tcp_")
}

fn count(samples: &Samples, filter: fn(&Sample) -> bool) -> usize {
    samples.all().iter().filter(|sample| filter(sample)).count()
}

/// Waits until the crowd has that many series, and answers with the page.
fn page_with(agent: &Agent, what: &str, series: usize) -> Result<Samples> {
    let mut seen = 0;
    wait_for(what, PATIENCE, || {
        let samples = agent.scrape().ok()?;
        seen = count(&samples, is_of_crowd);
        (seen == series).then_some(samples)
    })
    .with_context(|| format!("{seen} series of {series}"))
}

#[test]
fn a_full_node_stays_below_its_bound_of_series() -> Result<()> {
    let lab = Stage::lab(false)?;
    let node = lab.node(1)?;
    let retention = format!("--pod-retention={}s", RETENTION.as_secs());
    let options = AgentOptions { arguments: vec![retention], ..AgentOptions::default() };
    let agent = Agent::start(node, &options)?;
    let mut crowd = Program::start(node, "series::task_crowd", &[])?;

    crowd.ask(&format!("make {PODS}"))?;
    let silent = page_with(&agent, "the series of silent pods", PODS * TCP)?;
    let sum: u64 = silent.all().iter().filter(|sample| is_tcp(sample)).filter_map(Sample::count).sum();
    ensure!(count(&silent, is_tcp) == PODS * TCP && sum == 0, "{sum} counted of pods that are silent");

    let other = lab.node(2)?;
    let _server = Program::serve(other, PORT, Duration::ZERO)?;
    crowd.ask(&format!("talk {}", SocketAddr::new(other.address(false)?, PORT)))?;
    let busy = page_with(&agent, "the series of busy pods", PODS * (TCP + 2 * TRAFFIC))?;
    let (total, all) = (count(&busy, is_bounded), busy.all().len());
    println!(
        "{PODS} busy pods: {} series of theirs, {total} of traffic and TCP, {all} in all",
        count(&busy, is_of_crowd)
    );
    ensure!(total <= BOUND, "{total} series");
    let connects = busy.sum("leadline_tcp_connects_total", is_of_crowd);
    assert_eq!(connects, Some(2 * PODS as u64), "two connections of each pod");
    Ok(())
}

#[test]
fn a_pod_that_never_sent_anything_keeps_its_series_for_the_retention() -> Result<()> {
    let lab = Stage::lab(false)?;
    let node = lab.node(1)?;
    let retention = format!("--pod-retention={}s", RETENTION.as_secs());
    let agent = Agent::start(node, &AgentOptions { arguments: vec![retention], ..AgentOptions::default() })?;
    let mut crowd = Program::start(node, "series::task_crowd", &[])?;
    crowd.ask("make 1")?;
    page_with(&agent, "the series of a silent pod", TCP)?;
    let removed = Instant::now();
    crowd.ask("remove")?;
    let is_gone = || agent.scrape().is_ok_and(|samples| count(&samples, is_of_crowd) == 0);
    wait_until("the series to end", PATIENCE, is_gone)?;
    let stayed = removed.elapsed();
    println!("stayed for {stayed:?}");
    ensure!(stayed >= RETENTION, "{stayed:?}");
    Ok(())
}

/// The cgroup of a pod and the log directory that names it, as the kubelet makes them.
struct MadePod {
    cgroup: PathBuf,
    log: PathBuf,
}

impl MadePod {
    fn make(number: usize) -> Result<Self> {
        let uid = format!("{:08x}-0000-4000-8000-{number:012x}", std::process::id());
        let cgroup = PathBuf::from(format!("/sys/fs/cgroup/kubepods/burstable/pod{uid}"));
        let log = PathBuf::from(format!("/var/log/pods/default_crowd-{number}_{uid}"));
        for directory in [&log, &cgroup] {
            fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        }
        Ok(Self { cgroup, log })
    }

    fn remove(&self) -> io::Result<()> {
        fs::remove_dir(&self.cgroup)?;
        fs::remove_dir(&self.log)
    }
}

/// Moves this process; sockets belong to the cgroup in which they are opened.
fn enter(cgroup: &Path) -> Result<()> {
    fs::write(cgroup.join("cgroup.procs"), "0").with_context(|| format!("enter {}", cgroup.display()))
}

/// Makes pods on a node, lets each of them connect over loopback and to a server elsewhere, and removes them.
#[test]
#[ignore = "runs on a node"]
fn task_crowd() -> Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0))?;
    let here = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), listener.local_addr()?.port());
    thread::spawn(move || listener.incoming().for_each(drop));
    let mut pods = Vec::new();
    for line in io::stdin().lines().map_while(Result::ok) {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["make", number] => {
                pods = (0..number.parse()?).map(MadePod::make).collect::<Result<_>>()?;
            }
            ["talk", server] => talk(&pods, &[server.parse()?, here])?,
            ["remove"] => pods.drain(..).try_for_each(|pod| pod.remove())?,
            _ => anyhow::bail!("unknown command {line}"),
        }
        reply("done");
    }
    Ok(())
}

fn talk(pods: &[MadePod], servers: &[SocketAddr]) -> Result<()> {
    let cgroups = fs::read_to_string("/proc/self/cgroup").context("read /proc/self/cgroup")?;
    let home =
        cgroups.lines().find_map(|line| line.strip_prefix("0::/")).context("no cgroup of version 2")?;
    for pod in pods {
        enter(&pod.cgroup)?;
        for server in servers {
            TcpStream::connect(server).context("connect")?.write_all(b"x").context("send")?;
        }
    }
    enter(&Path::new("/sys/fs/cgroup").join(home))
}
