//! A service that dies where its address is, and an address that moves to a service that lives.

use anyhow::{Context as _, Result, ensure};
use lab::keepalived::{Spec, wait_master};
use lab::{Certificate, TlsServer};

use crate::stage::{LIMIT, PORT, Stage};

#[test]
fn a_service_that_dies_is_unserved_until_it_or_its_address_is_elsewhere() -> Result<()> {
    let lab = Stage::lab()?;
    let mut stage = Stage::new(&lab, &Spec::default())?;
    let certificates = [Certificate::new(lab.node(1)?, 30)?, Certificate::new(lab.node(2)?, 60)?];
    let server = TlsServer::start(lab.node(1)?, PORT, &certificates[0])?;
    let _other = TlsServer::start(lab.node(2)?, PORT, &certificates[1])?;
    stage.start_agents(&lab, &[])?;
    stage.wait("the service to be reached", |_, page| page.reachable() == Some(1))?;

    server.kill()?;
    stage.wait("the service to be missed", |index, page| {
        page.reachable() == Some(0)
            && page.probes("refused") >= Some(2)
            && page.unserved() == (index == 1).then_some(1)
    })?;
    for index in 1..=4 {
        let details = stage.wait_event(index, "vip_unreachable", 1)?;
        ensure!(details["port"] == "6443" && details["result"] == "refused", "node{index}: {details}");
    }
    ensure!(stage.wait_event(1, "vip_unserved", 1)?["result"] == "refused");

    let server = TlsServer::start(lab.node(1)?, PORT, &certificates[0])?;
    stage.wait("the service to be back", |index, page| {
        page.reachable() == Some(1) && page.unserved() == (index == 1).then_some(0)
    })?;
    for (index, kind) in [(1, "vip_served"), (1, "vip_reachable"), (2, "vip_reachable"), (4, "vip_reachable")]
    {
        let details = stage.wait_event(index, kind, 1)?;
        let lasted: f64 = details["lasted_ms"].as_str().context("no time")?.parse()?;
        ensure!(details["result"] == "ok" && lasted >= 1_000.0, "node{index}: {details}");
    }

    // The address leaves the node, and the service stays behind with nobody asking it.
    stage.trio.daemon(1)?.terminate()?;
    wait_master(lab.node(2)?, stage.vip, LIMIT)?;
    let new = certificates[1].not_after()?;
    stage.wait("the other service to be reached", |index, page| {
        page.reachable() == Some(1)
            && page.not_after() == Some(new)
            && page.unserved() == (index == 2).then_some(0)
    })?;
    for index in 2..=4 {
        ensure!(stage.events(index, "vip_unserved")?.is_empty(), "node{index} never held a dead service");
    }
    drop(server);
    lab.shutdown()
}
