//! Whether a control plane is found, and what is said where it is not, or does not tell.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::control_plane::{Options, Part};
use lab::{Lab, LabOptions};

use crate::stage::{agent, checks, component, failure, of, series, wait_agreement, wait_page};
use crate::{LIMIT, start};

#[test]
fn without_a_control_plane_there_is_a_reason_and_no_series() -> Result<()> {
    let lab = Lab::start(&LabOptions { nodes: 1, flannel: None })?;
    let observer = agent(lab.node(1)?, &[])?;
    observer.wait_support("control_plane", "no", "no control plane on this node", LIMIT)?;
    ensure!(series(&observer.scrape()?) == 0);
    ensure!(observer.events("control_plane_down")?.is_empty(), "what is not there is not down");
    lab.shutdown()
}

#[test]
fn every_part_is_alive_and_ready_and_lists_its_checks() -> Result<()> {
    let (lab, _etcd, plane) = start(&Options::default())?;
    let observer = agent(lab.node(1)?, &[])?;
    observer.wait_support("control_plane", "supported", "", LIMIT)?;
    for part in Part::ALL {
        let page = wait_agreement(&observer, &plane, part)?;
        ensure!(failure(&page, part)?.is_none(), "{:?}", failure(&page, part)?);
        let (told, witness) = (of(&page, "answer_seconds", part), plane.ask(part, part.health())?.took);
        let difference = told.map(|told| (told - witness.as_secs_f64()).abs());
        ensure!(difference.is_some_and(|difference| difference < 0.25), "{told:?} s, curl {witness:?}");
        let answered = of(&page, "last_answer_timestamp_seconds", part).unwrap_or_default();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs_f64();
        ensure!((now - answered).abs() < 5.0, "answered at {answered}, now {now}");
        println!("{}: {} checks, {told:?} s, curl {witness:?}", part.name(), checks(&page, part).len());
    }
    let kinds = ["control_plane_down", "control_plane_unready"];
    for kind in kinds {
        ensure!(observer.events(kind)?.is_empty(), "{:#?}", observer.events(kind)?);
    }
    lab.shutdown()
}

#[test]
fn what_no_file_speaks_for_is_found_where_it_listens() -> Result<()> {
    let (lab, _etcd, mut plane) = start(&Options { manifests: false, ..Options::default() })?;
    let observer = agent(lab.node(1)?, &[])?;
    for part in Part::ALL {
        wait_agreement(&observer, &plane, part)?;
    }
    // It has answered: from now on its end is news.
    plane.kill(Part::Scheduler)?;
    wait_page(&observer, "the scheduler to be down", |page| of(page, "alive", Part::Scheduler) == Some(0.0))?;
    lab.shutdown()
}

#[test]
fn an_api_server_elsewhere_is_found_by_its_manifest_or_the_configuration() -> Result<()> {
    let (lab, _etcd, _plane) = start(&Options { api_port: 16_443, ..Options::default() })?;
    let node = lab.node(1)?;
    let is_alive = |page: &lab::scrape::Samples, endpoint: &str| {
        let labels = [("component", "kube_apiserver"), ("endpoint", endpoint)];
        page.value("leadline_control_plane_alive", &labels) == Some(1.0)
    };
    let observer = agent(node, &[])?;
    wait_page(&observer, "the manifest's port", |page| is_alive(page, "https://127.0.0.1:16443"))?;
    observer.sigterm()?;
    let endpoint =
        format!("https://{}:16443", lab::Place::ipv4(node).unwrap_or(std::net::Ipv4Addr::LOCALHOST));
    let observer = agent(node, &[&format!("--control-plane.endpoints={endpoint}")])?;
    let (page, _) = wait_page(&observer, "the endpoint", |page| is_alive(page, &endpoint))?;
    ensure!(!is_alive(&page, "https://127.0.0.1:16443"), "what was given is not all");
    lab.shutdown()
}

#[test]
fn an_api_server_without_anonymous_access_lives_and_is_not_unready() -> Result<()> {
    let (lab, _etcd, mut plane) = start(&Options { anonymous: false, ..Options::default() })?;
    ensure!(plane.ask(Part::ApiServer, "/readyz")?.status == 401);
    let observer = agent(lab.node(1)?, &[])?;
    observer.wait_support("control_plane", "degraded", "no anonymous access", LIMIT)?;
    let (page, _) = wait_page(&observer, "life", |page| of(page, "alive", Part::ApiServer) == Some(1.0))?;
    ensure!(of(&page, "ready", Part::ApiServer).is_none(), "its readiness was made up");
    ensure!(checks(&page, Part::ApiServer).is_empty());
    ensure!(failure(&page, Part::ApiServer)?.as_deref() == Some("forbidden"));
    wait_agreement(&observer, &plane, Part::Scheduler)?;
    plane.kill(Part::ApiServer)?;
    wait_page(&observer, "its end", |page| of(page, "alive", Part::ApiServer) == Some(0.0))?;
    let told = observer.events("control_plane_unready")?;
    let told: Vec<_> =
        told.iter().filter(|event| event["subject"] == component(Part::ApiServer).as_str()).collect();
    ensure!(told.is_empty(), "{told:#?}");
    lab.shutdown()
}

#[test]
fn a_collector_that_must_run_ends_the_agent_without_a_control_plane() -> Result<()> {
    let lab = Lab::start(&LabOptions { nodes: 1, flannel: None })?;
    let options = lab::AgentOptions {
        arguments: vec!["--collector.control-plane=on".to_owned()],
        ..lab::AgentOptions::default()
    };
    let mut observer = lab::Agent::spawn(lab.node(1)?, &options)?;
    let status = observer.service().wait(Duration::from_secs(20))?;
    let log = observer.service().log()?;
    ensure!(!status.success() && log.contains("no control plane on this node"), "{status}: {log}");
    lab.shutdown()
}
