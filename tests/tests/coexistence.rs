//! Beside other people's programs: theirs run on, in their order, and no packet is lost, whatever happens to the agent.

mod coexistence {
    pub(crate) mod neighbours;
    pub(crate) mod numbered;
}

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use coexistence::neighbours::Neighbours;
use coexistence::numbered::{Exchange, Report};
use lab::{Agent, AgentOptions, Flannel, Lab, LabOptions, Pod, PodSpec};

/// Starts of the agent, each ended by SIGKILL, then by SIGTERM.
const ROUNDS: u32 = 20;
/// How long the exchange goes on without any agent, for comparison.
const ALONE: Duration = Duration::from_secs(3);

/// Two nodes, with a pod on each that exchange numbered datagrams.
fn start() -> Result<(Lab, Pod, Pod)> {
    let lab = Lab::start(&LabOptions { nodes: 2, flannel: Some(Flannel::default()) })?;
    let (client, server) =
        (lab.node(1)?.pod(PodSpec::new("client"))?, lab.node(2)?.pod(PodSpec::new("server"))?);
    Ok((lab, client, server))
}

/// Starts an agent and ends it, once by SIGKILL and once by SIGTERM; the neighbours are looked at after each step.
fn round(client: &Pod, neighbours: &Neighbours<'_>) -> Result<()> {
    for gently in [false, true] {
        let agent = Agent::start(client.node(), &AgentOptions::default())?;
        neighbours.check("while the agent runs")?;
        if gently {
            let status = agent.sigterm()?;
            assert_eq!(status.code(), Some(0));
        } else {
            agent.sigkill()?;
        }
        neighbours.check("after the agent has ended")?;
    }
    Ok(())
}

fn assert_whole(report: &Report) {
    assert_eq!((report.lost, report.out_of_order), (0, 0), "{report:?}");
    assert!(report.sent > 0);
}

/// Every datagram passes each program of the neighbours exactly once, on its way there and on its way back.
#[test]
fn foreign_programs_keep_running_in_their_order_and_nothing_is_lost() -> Result<()> {
    let (lab, client, server) = start()?;
    let alone = {
        let exchange = Exchange::start(&lab, &client, &server)?;
        let end = Instant::now() + ALONE;
        lab::wait_until("the exchange without an agent", ALONE * 2, || Instant::now() >= end)?;
        exchange.stop()?
    };
    assert_whole(&alone);

    let mut neighbours = Neighbours::attach(&client, &server)?;
    let first = Agent::start(client.node(), &AgentOptions::default())?;
    neighbours.attach_more()?;
    first.sigkill()?;
    let exchange = Exchange::start(&lab, &client, &server)?;
    for number in 1..=ROUNDS {
        round(&client, &neighbours).with_context(|| format!("round {number}"))?;
    }
    let beside = exchange.stop()?;
    assert_whole(&beside);
    neighbours.check_totals(beside.sent)?;
    println!("alone: {alone:?}; beside {ROUNDS} rounds of the agent: {beside:?}");
    drop(neighbours);
    lab.shutdown()
}

#[test]
#[ignore = "runs inside a pod"]
fn task_sends_numbered_datagrams() -> Result<()> {
    println!("{}", coexistence::numbered::send()?);
    Ok(())
}
