//! A loss that spreads: members of etcd, API servers behind HAProxy, the virtual address, as one list of events.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::keepalived::VIP;
use lab::process::wait_for;
use lab::{Agent, AgentOptions, Node, Place as _, agent, wait_until};
use serde_json::Value;

use super::start;

const LIMIT: Duration = Duration::from_mins(1);
/// The links of the chain, each with the kinds of event that tell of it.
const CHAIN: [&[&str]; 4] = [
    &["etcd_quorum_lost"],
    &["control_plane_unready"],
    &["haproxy_server_down"],
    // The owner hands over to a backup that has not yet given up, or all of them give up.
    &["vip_moved", "vip_lost"],
];

/// All events that the command line prints on a node, in their order.
fn events(node: &Node) -> Result<Vec<Value>> {
    let binary = agent::binary()?;
    let binary = binary.to_str().context("the path of the agent is no UTF-8")?;
    let url = format!("http://{}", agent::ADDRESS);
    let printed = node.run(&[binary, "events", "--output", "json", "--address", &url])?;
    printed.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

fn last(events: &[Value]) -> u64 {
    events.last().and_then(|event| event["sequence"].as_u64()).unwrap_or_default()
}

/// The first event of each link of the chain.
fn links(events: &[Value]) -> Vec<Option<&Value>> {
    let is_of =
        |event: &&Value, kinds: &[&str]| event["kind"].as_str().is_some_and(|kind| kinds.contains(&kind));
    CHAIN.iter().map(|kinds| events.iter().find(|event| is_of(event, kinds))).collect()
}

/// Waits until the agent has seen that all is well, so that what it tells later is a change.
fn wait_well(agent: &Agent) -> Result<()> {
    agent
        .wait_page("the chain to be well", LIMIT, "leadline_collector_support", |page| {
            let is = |name: &str, labels: &[(&str, &str)]| page.count(name, labels);
            is("leadline_etcd_has_quorum", &[]) == Some(1)
                && is("leadline_control_plane_ready", &[("component", "kube_apiserver")]) == Some(1)
                && is("leadline_haproxy_backend_active_servers", &[("backend", "api")]) == Some(3)
        })
        .map(drop)
}

#[test]
fn a_quorum_that_is_lost_is_followed_to_the_virtual_address_in_order() -> Result<()> {
    let (lab, mut cluster, _) = start()?;
    cluster.guard_vip()?;
    let node = lab.node(1)?;
    ensure!(node.holding(VIP.address)?.is_some(), "{} has not the virtual address", node.name());
    let agent = Agent::start(node, &AgentOptions { limit: LIMIT, ..AgentOptions::default() })?;
    wait_well(&agent)?;
    let before = last(&events(node)?);

    let begun = Instant::now();
    for member in [2, 3] {
        cluster.etcd().kill(member)?;
    }
    let since = |events: Vec<Value>| -> Vec<Value> {
        events.into_iter().filter(|event| event["sequence"].as_u64() > Some(before)).collect()
    };
    let mut seen = Ok(Vec::new());
    let waited = wait_for("the whole chain", LIMIT, || {
        seen = events(node).map(since);
        seen.as_ref().is_ok_and(|events| links(events).iter().all(Option::is_some)).then_some(())
    });
    let took = begun.elapsed();
    waited.with_context(|| format!("{seen:#?}"))?;
    let seen = seen?;
    for event in &seen {
        println!("{event}");
    }
    let numbers: Vec<u64> =
        links(&seen).into_iter().flatten().filter_map(|event| event["sequence"].as_u64()).collect();
    ensure!(numbers.is_sorted(), "another order: {numbers:?} of {CHAIN:?} in {seen:#?}");
    println!("the chain is whole {took:.1?} after the members were killed");
    wait_until("nobody to have the virtual address", LIMIT, || {
        lab.nodes().iter().all(|node| matches!(node.holding(VIP.address), Ok(None)))
    })?;
    wait_until("the end of the address to be told", LIMIT, || {
        agent.events("vip_lost").is_ok_and(|events| !events.is_empty())
    })?;
    drop((agent, cluster));
    lab.shutdown()
}
