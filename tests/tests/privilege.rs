//! Least privilege: capabilities by thread, a clear refusal without them, and nothing left behind in the kernel.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::{Agent, AgentOptions, Flannel, Lab, LabOptions, Node, Place as _, process};

/// `NET_ADMIN` (12), PERFMON (38) and BPF (39), as /proc writes them.
const THREE: &str = "000000c000001000";
const NONE: &str = "0000000000000000";

fn start() -> Result<Lab> {
    Lab::start(&LabOptions { nodes: 2, flannel: Some(Flannel::default()) })
}

/// A thread and its capability sets.
#[derive(Debug)]
struct Thread {
    name: String,
    sets: Vec<(String, String)>,
}

fn parse(status: &str) -> Option<Thread> {
    let fields: Vec<(&str, &str)> = status.lines().filter_map(|line| line.split_once(":\t")).collect();
    let (_, name) = fields.iter().find(|(key, _)| *key == "Name")?;
    let sets = ["CapInh", "CapPrm", "CapEff", "CapAmb"].map(|wanted| {
        fields.iter().find(|(key, _)| *key == wanted).map(|(key, value)| ((*key).into(), (*value).into()))
    });
    Some(Thread { name: (*name).to_owned(), sets: sets.into_iter().collect::<Option<_>>()? })
}

fn threads(pid: u32) -> Result<Vec<Thread>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).context("list threads")?;
    tasks
        .map(|task| {
            let path = task?.path().join("status");
            parse(&fs::read_to_string(&path)?).with_context(|| format!("malformed {}", path.display()))
        })
        .collect()
}

#[test]
fn one_thread_keeps_three_capabilities_and_the_others_none() -> Result<()> {
    let lab = start()?;
    let mut agent = Agent::start(lab.node(1)?, &AgentOptions::default())?;
    // Threads for blocking work come up late.
    for path in ["/metrics", "/api/v1/events", "/metrics"] {
        assert_eq!(agent.get(path, &[("Accept-Encoding", "zstd")])?.status, 200);
    }
    let threads = threads(agent.service().pid())?;
    assert!(threads.len() >= 4, "main, kernel and two workers: {threads:?}");
    let (kernel, others): (Vec<_>, Vec<_>) = threads.iter().partition(|thread| thread.name == "kernel");
    assert_eq!(kernel.len(), 1, "{threads:?}");
    let expected = [("CapInh", NONE), ("CapPrm", THREE), ("CapEff", THREE), ("CapAmb", NONE)];
    let expected = expected.map(|(set, bits)| (set.to_owned(), bits.to_owned()));
    assert_eq!(kernel[0].sets, expected);
    for thread in others {
        assert!(thread.sets.iter().all(|(_, bits)| bits == NONE), "{thread:?}");
    }
    lab.shutdown()
}

/// As `nobody`, and as root with all capabilities but one.
#[test]
fn without_its_capabilities_the_agent_says_so_and_ends() -> Result<()> {
    let lab = start()?;
    let node = lab.node(1)?;
    let agent = lab::agent::binary()?;
    // Ordinary users may not look into the build directory.
    let copy = lab.scratch().join("leadline");
    fs::copy(&agent, &copy).with_context(|| format!("copy {}", agent.display()))?;
    let run = |command: &mut Command| -> Result<(Option<i32>, String)> {
        let mut service = node.service("refused", command)?;
        let status = service.wait(Duration::from_secs(10))?;
        Ok((status.code(), service.log()?))
    };
    let mut ordinary = Command::new("setpriv");
    ordinary.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]).arg(&copy).arg("run");
    let (code, message) = run(&mut ordinary)?;
    assert_eq!(code, Some(1), "{message}");
    assert_eq!(message.matches("missing capabilities: ").count(), 1, "{message}");
    for name in ["CAP_BPF (", "CAP_PERFMON (", "CAP_NET_ADMIN (", "sudo leadline run"] {
        assert!(message.contains(name), "{name} is not in\n{message}");
    }

    let mut short = Command::new("setpriv");
    short.args(["--bounding-set=-perfmon", "--inh-caps=-perfmon"]).arg(&copy).arg("run");
    let (code, all) = run(&mut short)?;
    let message = all.rsplit_once("missing capabilities: ").context("no message")?.1;
    let first = message.lines().next().unwrap_or_default();
    assert_eq!((code, first), (Some(1), "CAP_PERFMON (to load tracing programs)"), "{all}");
    lab.shutdown()
}

/// The numbers of the kernel's programs and maps whose names begin with `leadline`, and of all links to the programs.
fn objects() -> Result<BTreeSet<String>> {
    let list = |kind: &str| -> Result<Vec<serde_json::Value>> {
        let output = process::run(Command::new("bpftool").args(["--json", kind, "list"]))?;
        serde_json::from_str(&output).with_context(|| format!("bpftool {kind} list"))
    };
    let is_ours = |object: &&serde_json::Value| {
        object
            .get("name")
            .and_then(serde_json::Value::as_str)
            .is_some_and(|name| name.starts_with("leadline"))
    };
    let number = |object: &serde_json::Value, key: &str| object.get(key).and_then(serde_json::Value::as_u64);
    let (programs, maps) = (list("prog")?, list("map")?);
    let programs: BTreeSet<u64> =
        programs.iter().filter(is_ours).filter_map(|program| number(program, "id")).collect();
    let maps = maps.iter().filter(is_ours).filter_map(|map| number(map, "id")).map(|id| format!("map {id}"));
    let links = list("link")?;
    let links = links
        .iter()
        .filter(|link| number(link, "prog_id").is_some_and(|program| programs.contains(&program)))
        .filter_map(|link| number(link, "id"))
        .map(|id| format!("link {id}"));
    let programs_by_id = programs.iter().map(|id| format!("program {id}"));
    Ok(maps.chain(links).chain(programs_by_id).collect())
}

/// What hangs on the node, with whatever name.
fn attached(node: &Node) -> Result<Vec<Vec<u32>>> {
    use lab::foreign::{Hook, order_on_cgroup, order_on_device};
    let cgroup = [Hook::CgroupIngress, Hook::CgroupEgress, Hook::SockOps].into_iter();
    let cgroup = cgroup.map(|hook| order_on_cgroup(hook, node.root()));
    let device = [Hook::TcxIngress, Hook::TcxEgress].into_iter();
    cgroup.chain(device.map(|hook| order_on_device(hook, node, "flannel.1"))).collect()
}

/// Agents of other tests may run meanwhile: only what came with this one is looked for.
#[test]
fn nothing_is_left_in_the_kernel_after_sigkill() -> Result<()> {
    let lab = start()?;
    let node = lab.node(1)?;
    let before = objects()?;
    let pins = || node.run(&["find", "/sys/fs/bpf"]);
    let pinned = pins()?;
    let agent = Agent::start(node, &AgentOptions::default())?;
    let counted = || agent.scrape().ok()?.value("leadline_program_attached", &[("program", "leadline_ovrx")]);
    process::wait_until("the overlay device to be counted", Duration::from_secs(10), || {
        counted() == Some(1.0)
    })?;
    let ours: BTreeSet<String> = objects()?.difference(&before).cloned().collect();
    for (kind, least) in [("program", 7), ("map", 10), ("link", 7)] {
        let count = ours.iter().filter(|object| object.starts_with(kind)).count();
        assert!(count >= least, "only {count} of {kind}: {ours:?}");
    }
    assert!(attached(node)?.iter().all(|programs| programs.len() == 1));
    assert_eq!(pins()?, pinned, "something is pinned");
    agent.sigkill()?;
    // The kernel frees links after a grace period.
    process::wait_until("the kernel to free what was ours", Duration::from_secs(10), || {
        objects().is_ok_and(|now| now.is_disjoint(&ours))
    })
    .with_context(|| {
        format!("left: {:?}", objects().map(|now| now.intersection(&ours).cloned().collect::<Vec<_>>()))
    })?;
    assert!(attached(node)?.iter().all(Vec::is_empty));
    lab.shutdown()
}

#[test]
fn a_status_is_read_by_its_fields() {
    let status =
        "Name:\tkernel\nUmask:\t0022\nCapInh:\t01\nCapPrm:\t02\nCapEff:\t03\nCapBnd:\t04\nCapAmb:\t05\n";
    let thread = parse(status).unwrap();
    let sets: Vec<&str> = thread.sets.iter().map(|(_, bits)| bits.as_str()).collect();
    assert_eq!((thread.name.as_str(), sets), ("kernel", vec!["01", "02", "03", "05"]));
    assert!(parse("Name:\tkernel\nCapEff:\t03\n").is_none());
}
