//! The demo: a lab with traffic, an agent on each node, and a live table of what the agents say.

mod disturbance;
pub mod exchange;
mod figures;
mod forward;
mod plan;
mod stop;
mod summary;
mod table;
mod traffic;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::agent::{self, Agent, AgentOptions};
use crate::cluster::{Lab, LabOptions};
use crate::flannel::{Backend, Flannel};
use crate::pod::{Pod, PodSpec};
use crate::{process, tools};
use disturbance::{Disturbance, Schedule};
use figures::{Rates, Snapshot, Totals};
use forward::Forward;
use plan::{PODS, PodPlan};
use stop::Stop;
use table::{Frame, Style};
use traffic::{Payload, Running};

/// The table shows a new second this often.
const TICK: Duration = Duration::from_secs(1);

/// The time in which the agents must know the pods.
const LIMIT: Duration = Duration::from_secs(15);

/// What kind of demo.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// How long it runs; without, until it is interrupted.
    pub length: Option<Duration>,
    /// Plain routes in place of VXLAN.
    pub host_gw: bool,
}

/// Runs the demo to its end, and tears everything down.
pub fn run(options: Options) -> Result<()> {
    for program in ["etcd", "ip", "iperf3", "iptables", "nft"] {
        tools::require(program)?;
    }
    agent::binary()?;
    tools::prepare(&mut |line| drop(table::write(&format!("{line}\n"))))?;
    let stop = Stop::on_signals()?;
    let backend = if options.host_gw { Backend::HostGw } else { Backend::Vxlan };
    say(&format!("starting three nodes with flannel ({}) and {} pods", name(backend), PODS.len()))?;
    let began = Instant::now();
    let flannel = Some(Flannel { backend, ipv6: false });
    let lab = Lab::start(&LabOptions { flannel, ..LabOptions::default() })?;
    let shown = Show::start(&lab, options, backend).and_then(|mut show| {
        say(&format!("ready in {:.1?}", began.elapsed()))?;
        show.watch(&stop)?;
        show.finish()
    });
    let began = Instant::now();
    let down = lab.shutdown();
    let closing = shown?;
    down?;
    say(&closing)?;
    say(&format!("everything is torn down ({:.1?})", began.elapsed()))
}

/// A line of output. That nobody reads it any more must not keep the lab from being torn down in order.
fn say(line: &str) -> Result<()> {
    table::write(&format!("{line}\n")).map(drop).context("write to standard output")
}

fn name(backend: Backend) -> &'static str {
    match backend {
        Backend::Vxlan => "VXLAN",
        Backend::HostGw => "host-gw",
        Backend::Tailscale => "routes through a tailnet",
    }
}

/// What runs during the demo. The parts end in this order when it is dropped.
struct Show {
    forwards: Vec<Forward>,
    traffic: Vec<Running>,
    _pods: Vec<Pod>,
    agents: Vec<Agent>,
    disturbance: Disturbance,
    backend: Backend,
    length: Option<Duration>,
}

impl Show {
    /// The agents come first, so that they count every packet of the pods.
    fn start(lab: &Lab, options: Options, backend: Backend) -> Result<Self> {
        let nodes = lab.nodes();
        let agent = |node| Agent::start(node, &AgentOptions::default());
        let agents = nodes.iter().map(agent).collect::<Result<Vec<_>>>()?;
        let forward = |node: &crate::Node| {
            let port = u16::from(node.index()) * 10_000 + agent::ADDRESS.port();
            Forward::start(node.clone(), agent::ADDRESS, port)
        };
        let forwards = nodes.iter().map(forward).collect::<Result<Vec<_>>>()?;
        let pod = |plan: &PodPlan| {
            let spec = PodSpec { namespace: plan.namespace.into(), ..PodSpec::new(plan.name) };
            lab.node(plan.node)?.pod(spec)
        };
        let pods = PODS.iter().map(pod).collect::<Result<Vec<_>>>()?;
        let traffic = traffic::start(&pods)?;
        let last = nodes.last().context("the lab has no nodes")?.clone();
        let disturbance = Disturbance::new(last, Schedule::new(options.length));
        Ok(Self { forwards, traffic, _pods: pods, agents, disturbance, backend, length: options.length })
    }

    fn heading(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "Leadline demo: {} nodes, flannel ({}), {} pods, {} flows, one agent a node",
            self.agents.len(),
            name(self.backend),
            PODS.len(),
            self.traffic.len()
        )];
        let urls = (1..).zip(&self.forwards);
        lines.extend(
            urls.map(|(node, forward)| format!("  node{node}  http://{}/metrics", forward.address())),
        );
        lines
    }

    /// Shows one second after the other until the end.
    fn watch(&mut self, stop: &Stop) -> Result<()> {
        let style = Style::detect();
        let opening = if style.in_place {
            "\x1b[2J".to_owned()
        } else {
            let mut lines = self.heading();
            lines.extend([self.disturbance.words(), String::new(), table::line_columns(), String::new()]);
            lines.join("\n")
        };
        self.wait_until_counted()?;
        table::write(&opening).context("write to standard output")?;
        let began = Instant::now();
        let mut earlier = self.scrape()?;
        for second in 1.. {
            if stop.within((began + TICK * second).saturating_duration_since(Instant::now()))? {
                break;
            }
            let disturbed = self.disturbance.follow(began.elapsed())?;
            self.traffic.iter_mut().try_for_each(Running::check)?;
            let later = self.scrape()?;
            let frame = Frame {
                heading: self.heading(),
                second: second.into(),
                of: self.length.map(|length| length.as_secs()),
                rows: rows(&earlier, &later),
                disturbance: self.disturbance.words(),
                disturbed,
            };
            let read = table::write(&table::render(&frame, style)).context("write to standard output")?;
            if !read || self.length.is_some_and(|length| began.elapsed() >= length) {
                break;
            }
            earlier = later;
        }
        Ok(())
    }

    /// Waits until the agents know every pod by its name, so that the first second of the table is a second.
    fn wait_until_counted(&self) -> Result<()> {
        process::wait_until("the agents to count every pod", LIMIT, || {
            self.scrape().is_ok_and(|scrapes| {
                totals(&scrapes).iter().all(|(_, total)| total.receive.is_some() && total.transmit.is_some())
            })
        })
    }

    fn scrape(&self) -> Result<Vec<Snapshot>> {
        let scrape = |agent: &Agent| Ok(Snapshot { samples: agent.scrape()?, at: Instant::now() });
        self.agents.iter().map(scrape).collect()
    }

    /// Stops the traffic and compares what the agents counted with what iperf3 says.
    fn finish(mut self) -> Result<String> {
        let stopped = self.traffic.drain(..).map(Running::stop).collect::<Result<Vec<_>>>()?;
        let payloads: Vec<Payload> = stopped.into_iter().flatten().collect();
        let last = self.scrape()?;
        Ok(summary::text(&totals(&last), &payloads))
    }
}

fn rows(earlier: &[Snapshot], later: &[Snapshot]) -> Vec<(PodPlan, Rates)> {
    let rates = |pod: &PodPlan| {
        let both = of_node(earlier, pod).zip(of_node(later, pod));
        both.map(|(earlier, later)| Rates::between(earlier, later, pod)).unwrap_or_default()
    };
    PODS.iter().map(|pod| (*pod, rates(pod))).collect()
}

fn totals(scrapes: &[Snapshot]) -> Vec<(PodPlan, Totals)> {
    let total = |pod: &PodPlan| of_node(scrapes, pod).map(|scrape| Totals::of(&scrape.samples, pod));
    PODS.iter().map(|pod| (*pod, total(pod).unwrap_or_default())).collect()
}

fn of_node<'a>(snapshots: &'a [Snapshot], pod: &PodPlan) -> Option<&'a Snapshot> {
    snapshots.get(usize::from(pod.node).checked_sub(1)?)
}
