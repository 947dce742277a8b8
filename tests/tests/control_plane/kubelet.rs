//! The kubelet of a node without any other part of the control plane: a worker.

use anyhow::{Result, ensure};
use lab::process::wait_for;
use lab::scrape::Samples;
use lab::{Agent, Kubelet, Lab, LabOptions};

use crate::LIMIT;
use crate::stage::{agent, failure_of, wait_event_of, wait_page};

const LABELS: [(&str, &str); 2] = [("component", "kubelet"), ("endpoint", lab::kubelet::ENDPOINT)];

fn of(page: &Samples, name: &str) -> Option<f64> {
    page.value(&format!("leadline_control_plane_{name}"), &LABELS)
}

/// Waits until the agent says the same as curl: that the kubelet lives, and each of its checks.
fn wait_agreement(agent: &Agent, kubelet: &Kubelet) -> Result<Samples> {
    wait_for("agent and curl to agree on the kubelet", LIMIT, || {
        let answer = kubelet.ask("/healthz?verbose").ok()?;
        let page = agent.scrape().ok()?;
        let is_alive = of(&page, "alive") == Some(if answer.status == 200 { 1.0 } else { 0.0 });
        let checks = crate::stage::checks_of(&page, "kubelet");
        (is_alive && !checks.is_empty() && checks == answer.checks()).then_some(page)
    })
}

#[test]
fn the_kubelet_of_a_worker_is_watched_and_nothing_else_is_missed() -> Result<()> {
    let lab = Lab::start_for_containers(&LabOptions { nodes: 1, flannel: None })?;
    let mut kubelet = Kubelet::start(lab.node(1)?)?;
    let observer = agent(lab.node(1)?, &[])?;
    let page = wait_agreement(&observer, &kubelet)?;
    ensure!(of(&page, "ready").is_none(), "it has one question only");
    let others =
        page.of("leadline_control_plane_alive", |sample| sample.label("component") != Some("kubelet"));
    ensure!(others.count() == 0, "a worker has no other component");

    kubelet.kill()?;
    let (_, took) = wait_page(&observer, "death", |page| of(page, "alive") == Some(0.0))?;
    println!("kubelet killed: seen after {took:?}");
    wait_page(&observer, "the refusal", |page| {
        failure_of(page, "kubelet").is_ok_and(|why| why.as_deref() == Some("refused"))
    })?;
    wait_event_of(&observer, "control_plane_down", "kubelet")?;
    kubelet.run()?;
    kubelet.wait_well()?;
    let (_, took) = wait_page(&observer, "life", |page| of(page, "alive") == Some(1.0))?;
    println!("kubelet well: seen after {took:?}");
    wait_event_of(&observer, "control_plane_up", "kubelet")?;

    kubelet.freeze()?;
    let (page, took) = wait_page(&observer, "life to end", |page| of(page, "alive") == Some(0.0))?;
    println!("kubelet frozen: seen after {took:?}");
    ensure!(failure_of(&page, "kubelet")?.as_deref() == Some("late"), "{:?}", failure_of(&page, "kubelet")?);
    kubelet.thaw()?;
    wait_agreement(&observer, &kubelet)?;
    drop(kubelet);
    lab.shutdown()
}
