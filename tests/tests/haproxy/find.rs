//! Whether the agent finds HAProxy, and what it says where it does not, or may not read it.

use anyhow::{Result, ensure};
use lab::Place as _;
use lab::haproxy::{Haproxy, SOCKET, Spec};
use lab::process::wait_until;

use crate::stage::{LIMIT, agent, lab, series, wait_support};

fn through(agent: &lab::Agent) -> Option<String> {
    let page = agent.scrape().ok()?;
    let sample = page.only("leadline_haproxy_info", &[])?;
    sample.label("through").map(str::to_owned)
}

#[test]
fn without_haproxy_there_is_a_reason_and_no_series() -> Result<()> {
    let lab = lab()?;
    let agent = agent(lab.node(1)?, &[])?;
    wait_support(&agent, "no", "no HAProxy on this node")?;
    ensure!(series(&agent)? == 0);
    Ok(())
}

#[test]
fn an_haproxy_that_starts_later_is_found() -> Result<()> {
    let lab = lab()?;
    let node = lab.node(1)?;
    let agent = agent(node, &[])?;
    wait_support(&agent, "no", "no HAProxy on this node")?;
    let _haproxy = Haproxy::start(node, &Spec::default())?;
    wait_support(&agent, "supported", "")?;
    ensure!(through(&agent).as_deref() == Some("stats_socket"));
    Ok(())
}

#[test]
fn a_socket_that_refuses_root_without_capabilities_is_said() -> Result<()> {
    let lab = lab()?;
    let node = lab.node(1)?;
    let spec = Spec {
        socket: Some("mode 600 user haproxy group haproxy level admin"),
        page: false,
        ..Spec::default()
    };
    let _haproxy = Haproxy::start(node, &spec)?;
    let mut agent = agent(node, &[])?;
    wait_support(&agent, "degraded", "give it `user root` in haproxy.cfg")?;
    ensure!(series(&agent)? == 0);
    let said = |agent: &mut lab::Agent| -> Result<Vec<String>> {
        let log = agent.service().log()?;
        Ok(log.lines().filter(|line| line.contains("HAProxy cannot be read")).map(str::to_owned).collect())
    };
    let lines = said(&mut agent)?;
    ensure!(lines.len() == 1 && lines[0].contains(SOCKET) && lines[0].contains("permissions"), "{lines:#?}");
    // What the reason advises does help.
    node.run(&["chown", "root", SOCKET])?;
    wait_support(&agent, "supported", "")?;
    ensure!(said(&mut agent)? == lines);
    Ok(())
}

#[test]
fn the_socket_that_debian_configures_is_read() -> Result<()> {
    let lab = lab()?;
    let node = lab.node(1)?;
    node.run(&["mkdir", "-p", "/var/lib/haproxy"])?;
    // HAProxy opens the socket while it is still root, whose it then is.
    let socket = "mode 660 level admin\n  chroot /var/lib/haproxy\n  user haproxy\n  group haproxy";
    let _haproxy = Haproxy::start(node, &Spec { socket: Some(socket), page: false, ..Spec::default() })?;
    let agent = agent(node, &[])?;
    wait_support(&agent, "supported", "")?;
    ensure!(through(&agent).as_deref() == Some("stats_socket"));
    Ok(())
}

#[test]
fn the_exporter_is_found_where_there_is_no_socket() -> Result<()> {
    let lab = lab()?;
    let node = lab.node(1)?;
    let _haproxy = Haproxy::start(node, &Spec { socket: None, page: true, ..Spec::default() })?;
    let agent = agent(node, &["--collector.haproxy=on"])?;
    ensure!(agent.support("haproxy")?.0 == "supported", "who insists on it waits for the first look");
    ensure!(through(&agent).as_deref() == Some("metrics_page"));
    Ok(())
}

#[test]
fn an_haproxy_that_says_nothing_of_itself_is_no_haproxy_to_read() -> Result<()> {
    let lab = lab()?;
    let node = lab.node(1)?;
    let _haproxy = Haproxy::start(node, &Spec { socket: None, page: false, ..Spec::default() })?;
    let agent = agent(node, &[])?;
    wait_support(&agent, "no", "neither a stats socket nor a prometheus-exporter")?;
    ensure!(series(&agent)? == 0);
    Ok(())
}

#[test]
fn a_stats_socket_over_tcp_is_read() -> Result<()> {
    let lab = lab()?;
    let node = lab.node(1)?;
    let spec = Spec {
        socket: Some("level user\n  stats socket ipv4@127.0.0.1:9999 level user"),
        page: false,
        ..Spec::default()
    };
    let _haproxy = Haproxy::start(node, &spec)?;
    let agent = agent(node, &["--haproxy.stats-socket=127.0.0.1:9999"])?;
    wait_support(&agent, "supported", "")?;
    let page = agent.scrape()?;
    let info = page.only("leadline_haproxy_info", &[("address", "127.0.0.1:9999")]);
    ensure!(info.is_some_and(|info| info.count() == Some(1)));
    Ok(())
}

#[test]
fn a_killed_haproxy_takes_its_series_along_and_a_new_one_brings_them_back() -> Result<()> {
    let lab = lab()?;
    let node = lab.node(1)?;
    let mut haproxy = Haproxy::start(node, &Spec::default())?;
    let agent = agent(node, &[])?;
    wait_support(&agent, "supported", "")?;
    ensure!(series(&agent)? > 0);
    haproxy.kill()?;
    wait_until("the series to go", LIMIT, || series(&agent).is_ok_and(|count| count == 0))?;
    wait_support(&agent, "degraded", "it does not run")?;
    drop(haproxy);
    let _haproxy = Haproxy::start(node, &Spec::default())?;
    wait_support(&agent, "supported", "")?;
    ensure!(series(&agent)? > 0);
    Ok(())
}

#[test]
fn a_configured_socket_that_is_not_there_is_said() -> Result<()> {
    let lab = lab()?;
    let agent = agent(lab.node(1)?, &["--haproxy.stats-socket=/run/none.sock"])?;
    wait_support(&agent, "degraded", "the configured stats socket does not exist")?;
    ensure!(series(&agent)? == 0);
    Ok(())
}
