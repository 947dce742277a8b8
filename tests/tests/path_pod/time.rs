//! How long the round trips between pods are.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::witness::segment::{End, handshakes};
use lab::witness::tcpdump::{Capture, Frame};
use lab::witness::{ensure_precise, measured};
use lab::{Agent, AgentOptions, Delay, Place as _, Pod, PodSpec, wait_until};

use crate::program::Program;
use crate::view::{expect, least, mean};
use crate::{NODES, PORT, Stage, start_lab, target};

const ONE_WAY: Duration = Duration::from_millis(10);
const CONNECTIONS: usize = 20;
/// What a mean of handshakes and what a least round trip may be off by.
const MEAN_ERROR: Duration = Duration::from_micros(100);
const LEAST_ERROR: Duration = Duration::from_micros(50);
const LIMIT: Duration = Duration::from_secs(10);

fn mean_of(times: &[Duration]) -> Result<Duration> {
    ensure!(times.len() == CONNECTIONS, "{} handshakes on the wire", times.len());
    Ok(times.iter().sum::<Duration>() / u32::try_from(times.len())?)
}

/// The agent's mean of the handshakes with a node against those at the pod's device.
fn check_mean(agent: &Agent, peer: &str, frames: &[Frame], end: End) -> Result<Duration> {
    let wire = mean_of(&handshakes(frames, PORT, end)?)?;
    let told = mean(&agent.scrape()?, peer)?;
    println!("{end:?} with {peer}: {told:?}, tcpdump {wire:?}, error {:?}", told.abs_diff(wire));
    ensure_precise(told.abs_diff(wire) <= MEAN_ERROR, || {
        format!("{end:?} with {peer}: {told:?}, wire {wire:?}")
    })?;
    Ok(wire)
}

/// Handshakes with a pod on a node, from either end.
fn compare(stage: &mut Stage, node: usize) -> Result<Duration> {
    let filter = format!("tcp port {PORT} and host {}", stage.pods[node - 1].address(false)?);
    let capture = |pod: &Pod| Capture::start(pod, "eth0", &filter);
    let (near, far) = (capture(&stage.pods[0])?, capture(&stage.pods[node - 1])?);
    stage.open(node, false, CONNECTIONS)?;
    stage.client.ask("close")?;
    let (near, far) = (near.stop()?, far.stop()?);
    let [one, peer] = [NODES[0], NODES[node - 1]];
    let counted = |agent: &Agent, peer: &str| -> Result<()> {
        let page = || agent.scrape().ok();
        let labels = [("peer_node", peer)];
        wait_until("the handshakes", LIMIT, || {
            let count =
                page().and_then(|page| page.count("leadline_path_pod_handshake_seconds_count", &labels));
            count == Some(CONNECTIONS as u64)
        })
    };
    counted(&stage.agents[0], peer)?;
    counted(&stage.agents[node - 1], one)?;
    check_mean(&stage.agents[node - 1], one, &far, End::Server)?;
    check_mean(&stage.agents[0], peer, &near, End::Client)
}

/// To a node behind a delay and to one beside it.
fn check_handshakes() -> Result<()> {
    let lab = start_lab(false)?;
    let _delay = Delay::insert(&lab, lab.node(2)?, ONE_WAY)?;
    let mut stage = Stage::start(&lab)?;
    let (far, near) = (compare(&mut stage, 2)?, compare(&mut stage, 3)?);
    ensure!(far >= 2 * ONE_WAY && near < ONE_WAY, "{far:?} and {near:?} with a delay of {ONE_WAY:?}");
    Ok(())
}

#[test]
fn handshakes_take_as_long_as_at_the_pods_devices() -> Result<()> {
    measured(check_handshakes)
}

/// The least `minrtt` that `ss -ti` prints, in milliseconds, of the connections of the port.
fn kernels_least(pod: &Pod) -> Result<Duration> {
    let text = pod.run(&["ss", "-tinH", "state", "established", "dport = :7000"])?;
    let values = text.split_whitespace().filter_map(|word| word.strip_prefix("minrtt:"));
    let times = values.map(|value| Ok(Duration::try_from_secs_f64(value.parse::<f64>()? / 1_000.0)?));
    let times = times.collect::<Result<Vec<_>>>().with_context(|| text.clone())?;
    times.into_iter().min().with_context(|| format!("no minrtt in\n{text}"))
}

/// The least round trip to node 2 against the kernel's, of connections that are open and in use.
fn check_least(agent: &Agent, client: &mut Program, pod: &Pod) -> Result<()> {
    // Each connection is sampled once a second.
    client.ask("exchange 80")?;
    let told = least(&agent.scrape()?, NODES[1]).context("no least round trip")?;
    let kernel = kernels_least(pod)?;
    println!("least {told:?}, ss minrtt {kernel:?}");
    ensure!(told >= 2 * ONE_WAY, "{told:?} with a delay of {ONE_WAY:?}");
    ensure_precise(told.abs_diff(kernel) <= LEAST_ERROR, || format!("{told:?}, but ss says {kernel:?}"))
}

#[test]
fn the_least_round_trip_is_the_kernels() -> Result<()> {
    let lab = start_lab(false)?;
    let delay = Delay::insert(&lab, lab.node(2)?, ONE_WAY)?;
    let mut stage = Stage::start(&lab)?;
    stage.open(2, false, 5)?;
    measured(|| check_least(&stage.agents[0], &mut stage.client, &stage.pods[0]))?;
    assert_eq!(least(&stage.agents[0].scrape()?, NODES[2]), None, "nobody has spoken with node 3");
    drop(delay);
    lab.shutdown()
}

/// In the pods' namespaces no callback of an older connection can be turned on: its minimum is sampled, and its handshake
/// was before.
#[test]
fn connections_older_than_the_agent_have_a_least_round_trip() -> Result<()> {
    let lab = start_lab(false)?;
    let delay = Delay::insert(&lab, lab.node(2)?, ONE_WAY)?;
    let (pod, other) = (lab.node(1)?.pod(PodSpec::new("client"))?, lab.node(2)?.pod(PodSpec::new("server"))?);
    let _server = Program::serve(&other, PORT, Duration::ZERO)?;
    let mut client = Program::client(&pod)?;
    client.ask(&format!("open {} E 3", target(&other, false)?))?;
    client.ask("exchange 1")?;
    let options = AgentOptions { limit: Duration::from_secs(30), ..AgentOptions::default() };
    let agent = Agent::start(lab.node(1)?, &options)?;
    measured(|| check_least(&agent, &mut client, &pod))?;
    expect(&agent, &crate::view::of_nobody(NODES[0]))?;
    drop(delay);
    lab.shutdown()
}
