//! Traffic between pods of two nodes, as the installed agents count it, against the kernels of the pods and iperf3.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::kubernetes::Image;
use lab::process::wait_for;
use lab::scrape::Traffic;
use lab::{Kubernetes, Lab, Node, Place as _, tools};
use serde_json::Value;

use super::manifests::page;
use super::text;

const LIMIT: Duration = Duration::from_secs(10);
const IMAGE: &str = "lab.example/iperf3:1";
const PORT: &str = "5201";

/// What METRICS.md says is counted nowhere: two segments of each connection that was closed. iperf3 has one for its data
/// and one to talk about it.
const CLOSING: i128 = 4;
/// Payload of the second connection: parameters and results.
const TALK: i128 = 16 << 10;
/// Payload of a full segment in the pod network.
const SEGMENT: i128 = 1450 - 52;

/// A transfer, and where its report says what of it there was.
struct Run {
    arguments: &'static [&'static str],
    /// The least header of each packet.
    header: i128,
    /// Bytes that had arrived at the end, and bytes that were given to the kernel.
    payload: [&'static str; 2],
    /// Packets that were lost, or sent again.
    losses: &'static str,
}

/// IPv4 with UDP, and with TCP and its time stamps.
const RUNS: [Run; 2] = [
    Run {
        arguments: &["-u", "-b", "100M", "-l", "1200", "-k", "10000"],
        header: 28,
        payload: ["/end/sum/bytes"; 2],
        losses: "/end/sum/lost_packets",
    },
    Run {
        // A small buffer, since what is in it at the end may or may not arrive.
        arguments: &["-n", "64M", "-w", "128K"],
        header: 52,
        payload: ["/end/sum_received/bytes", "/end/sum_sent/bytes"],
        losses: "/end/sum_sent/retransmits",
    },
];

/// A pod with iperf3.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End<'a> {
    pub(crate) node: &'a Node,
    pub(crate) pod: &'a Value,
}

/// A manifest of a pod whose iperf3 waits for clients; the kubelet that it is given to needs no scheduler.
pub(crate) fn server(name: &str, node: &Node) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  nodeName: {}\n  \
         terminationGracePeriodSeconds: 0\n  containers: [{{name: iperf3, image: \"{IMAGE}\"}}]\n",
        node.name()
    )
}

/// The image, with the libraries that iperf3 has on this machine.
pub(crate) fn image(lab: &Lab) -> Result<PathBuf> {
    let (iperf3, busybox) = (tools::require("iperf3")?, tools::require("busybox")?);
    let listed = lab::run(Command::new(tools::require("ldd")?).arg(&iperf3))?;
    let libraries: Vec<&str> = listed.split_whitespace().filter(|word| word.starts_with('/')).collect();
    ensure!(!libraries.is_empty(), "ldd names no library of iperf3: {listed}");
    let libraries = libraries.iter().map(|path| (path.trim_start_matches('/'), Path::new(path)));
    let programs = [("bin/iperf3", iperf3.as_path()), ("bin/busybox", busybox.as_path())];
    let programs: Vec<_> = programs.into_iter().chain(libraries).collect();
    let image = Image {
        reference: IMAGE,
        entrypoint: &["iperf3", "-s", "-p", PORT],
        programs: &programs,
        links: &[("bin/cat", "busybox")],
    };
    image.write(lab.scratch())
}

impl End<'_> {
    fn name(&self) -> Result<&str> {
        text(self.pod, "/metadata/name")
    }

    /// What the agent of its node has counted; nothing as long as there is no series.
    fn counted(&self) -> Result<Traffic> {
        let labels = [("namespace", "default"), ("pod", self.name()?)];
        Ok(page(self.node)?.traffic("pod", &labels).unwrap_or_default())
    }

    /// Packets that the pod's own kernel says left it.
    fn sent(&self, cluster: &Kubernetes) -> Result<u64> {
        let snmp = cluster.kubectl(&["exec", self.name()?, "--", "cat", "/proc/net/snmp"])?;
        let sent = [("Udp", "OutDatagrams"), ("Tcp", "OutSegs"), ("Tcp", "RetransSegs")];
        sent.iter().map(|(protocol, name)| field(&snmp, protocol, name)).sum()
    }
}

/// A field of a pair of lines with names and values.
fn field(snmp: &str, protocol: &str, name: &str) -> Result<u64> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix(protocol)?.strip_prefix(": "));
    let (names, values) =
        lines.next().zip(lines.next()).with_context(|| format!("no {protocol} in {snmp}"))?;
    let mut pairs = names.split(' ').zip(values.split(' '));
    let (_, value) =
        pairs.find(|(found, _)| *found == name).with_context(|| format!("no {name} in {snmp}"))?;
    value.parse().with_context(|| format!("{protocol} {name} is {value}"))
}

/// What agents and kernels have of both ends, from the first to the second.
#[derive(Clone, Copy, Debug)]
struct Seen {
    counted: [Traffic; 2],
    sent: [u64; 2],
}

impl Seen {
    fn read(cluster: &Kubernetes, [from, to]: [End<'_>; 2]) -> Result<Self> {
        Ok(Self { counted: [from.counted()?, to.counted()?], sent: [from.sent(cluster)?, to.sent(cluster)?] })
    }

    fn since(self, earlier: &Self) -> Option<Self> {
        let counted = |end: usize| self.counted[end].since(&earlier.counted[end]);
        let sent = |end: usize| self.sent[end].checked_sub(earlier.sent[end]);
        Some(Self { counted: [counted(0)?, counted(1)?], sent: [sent(0)?, sent(1)?] })
    }

    /// What is not as kernels and iperf3 say.
    fn faults(&self, run: &Run, report: &Value) -> Result<Vec<String>> {
        let number =
            |path: &str| report.pointer(path).and_then(Value::as_u64).with_context(|| format!("no {path}"));
        let number = |path| number(path).map(i128::from);
        let [arrived, given, losses] =
            [number(run.payload[0])?, number(run.payload[1])?, number(run.losses)?];
        let [from, to] = self.counted;
        let less = |more: u64, less: u64| i128::from(more) - i128::from(less);
        let content = i128::from(from.transmit_bytes) - run.header * i128::from(from.transmit_packets);
        let checks = [
            (
                "packets that only the sender's kernel has",
                less(self.sent[0], from.transmit_packets),
                0,
                CLOSING,
            ),
            (
                "packets that only the receiver's kernel has",
                less(self.sent[1], to.transmit_packets),
                0,
                CLOSING,
            ),
            ("bytes of content", content, arrived, given + TALK + losses * SEGMENT),
            (
                "packets without arrival",
                less(from.transmit_packets, to.receive_packets),
                -CLOSING,
                losses + CLOSING,
            ),
            (
                "answers without arrival",
                less(to.transmit_packets, from.receive_packets),
                -CLOSING,
                losses + CLOSING,
            ),
        ];
        let outside = checks.iter().filter(|(_, found, least, most)| found < least || found > most);
        Ok(outside
            .map(|(what, found, least, most)| format!("{found} {what}, not {least} to {most}"))
            .collect())
    }
}

/// Lets iperf3 send from one pod to the other, and compares what the agents of both nodes have counted meanwhile.
pub(crate) fn check_exchange(cluster: &Kubernetes, ends: [End<'_>; 2]) -> Result<()> {
    let (from, to) = (ends[0].name()?, text(ends[1].pod, "/status/podIP")?);
    let mut before = Seen::read(cluster, ends)?;
    for run in &RUNS {
        let command = ["exec", from, "--", "iperf3", "-J", "-p", PORT, "-c", to];
        let report = cluster.kubectl(&[&command, run.arguments].concat())?;
        let report: Value = serde_json::from_str(&report).with_context(|| format!("no report: {report}"))?;
        let mut last = None;
        let read = || -> Result<(Seen, Seen, Vec<String>)> {
            let now = Seen::read(cluster, ends)?;
            let added = now.since(&before).context("a counter went backwards")?;
            let faults = added.faults(run, &report)?;
            Ok((now, added, faults))
        };
        let agreed = wait_for("agents and kernels to agree", LIMIT, || {
            let result = read();
            let agreed = result.as_ref().ok().filter(|(.., faults)| faults.is_empty()).map(|(now, ..)| *now);
            last = Some(result);
            agreed
        });
        before = agreed.with_context(|| format!("{from} to {to} {:?}: {last:#?}", run.arguments))?;
        let told = [run.payload[0], run.payload[1], run.losses].map(|path| report.pointer(path));
        let added = last.and_then(Result::ok).map(|(_, added, _)| added);
        println!("{from} to {to} {:?}: {added:?}, iperf3 has {told:?}", run.arguments);
    }
    Ok(())
}
