//! Servers that fail in every way and recover: states, checks and counts at every stage, and what the timeline says.

use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::Place as _;
use lab::haproxy::{BACKEND, FRONTEND, Health, SERVERS, UNCHECKED};
use lab::process::wait_for;

use crate::stage::{LIMIT, Stage, Witness, lab, wait_support};
use crate::view::View;

/// What fails, what the check says, and its code.
const FAILURES: [(Health, &str, Option<&str>); 3] =
    [(Health::Dead, "l4con", None), (Health::Sick, "l7sts", Some("500")), (Health::Hung, "l7tout", None)];

/// Two checks of 200 ms each, each of which may take as long, and a second until HAProxy is asked.
const PROMPT: Duration = Duration::from_secs(4);

fn fail_and_recover(witness: Witness) -> Result<()> {
    let lab = lab()?;
    let mut stage = Stage::new(lab.node(1)?, witness)?;
    for (round, (health, check, code)) in FAILURES.into_iter().enumerate() {
        let began = Instant::now();
        stage.servers[0].set(health)?;
        let (view, changes) = stage.wait_server("one", "down", check)?;
        let took = began.elapsed();
        println!("{witness:?} is the witness: {check} is shown after {} ms", took.as_millis());
        ensure!(took < PROMPT, "{check} is shown after {took:?}");
        let downs = u64::try_from(round)? + 1;
        ensure!(view.servers["api/one"].downs == Some(downs), "{view:#?}");
        ensure!(
            (view.backends[BACKEND].active, view.backends[BACKEND].up) == (Some(2), Some(1)),
            "{view:#?}"
        );
        let events = stage.events("haproxy_server_down", "api/one")?;
        ensure!(events.len() == round + 1, "{events:#?}");
        let event = &events[round];
        ensure!(event["details"]["check"] == check, "{event:#}");
        ensure!(event["details"]["was"] == "up" && event["time"] == event["details"]["since"], "{event:#}");
        ensure!(event["details"]["code"].as_str() == code, "{event:#}");
        let time = event["time"].as_str().context("no time")?;
        let seconds = unix_time(time)?;
        ensure!(seconds == changes["api/one"], "{event:#} at {seconds}, the series has {changes:?}");
        stage.servers[0].set(Health::Ready)?;
        stage.wait_server("one", "up", "l7ok")?;
        let events = stage.events("haproxy_server_up", "api/one")?;
        ensure!(events.len() == round + 1 && events[round]["details"]["was"] == "down", "{events:#?}");
    }
    Ok(())
}

/// Seconds since 1970 of a time on the timeline, by another program.
fn unix_time(time: &str) -> Result<u64> {
    let text = lab::run(Command::new("date").args(["-u", "+%s", "-d", time]))?;
    text.trim().parse().with_context(|| format!("date says {text}"))
}

#[test]
fn the_socket_is_read_and_the_exporter_is_the_witness() -> Result<()> {
    fail_and_recover(Witness::Page)
}

#[test]
fn the_exporter_is_read_and_the_socket_is_the_witness() -> Result<()> {
    fail_and_recover(Witness::Socket)
}

fn count_sessions(witness: Witness) -> Result<()> {
    let lab = lab()?;
    let node = lab.node(1)?;
    let stage = Stage::new(node, witness)?;
    let before = stage.wait("no session", |view| view.backends[BACKEND].current == Some(0))?.0;
    let clients = (0..3).map(|_| node.net(|| TcpStream::connect(FRONTEND))?.context("connect"));
    let clients: Vec<TcpStream> = clients.collect::<Result<_>>()?;
    let view = stage.wait("three sessions", |view| view.backends[BACKEND].current == Some(3))?.0;
    let risen = |of: fn(&View) -> Option<u64>| of(&view).zip(of(&before)).map(|(now, then)| now - then);
    ensure!(risen(|view| view.backends[BACKEND].sessions) == Some(3), "{before:#?} {view:#?}");
    ensure!(risen(|view| view.frontends["k8s-api"].sessions) == Some(3), "{before:#?} {view:#?}");
    ensure!(view.frontends["k8s-api"].current == Some(3), "{view:#?}");
    drop(clients);
    stage.wait("no session any more", |view| view.backends[BACKEND].current == Some(0)).map(drop)
}

#[test]
fn sessions_are_counted_from_the_socket() -> Result<()> {
    count_sessions(Witness::Page)
}

#[test]
fn sessions_are_counted_from_the_exporter() -> Result<()> {
    count_sessions(Witness::Socket)
}

#[test]
fn a_backend_without_servers_is_down_and_comes_back_with_the_first() -> Result<()> {
    let lab = lab()?;
    let mut stage = Stage::new(lab.node(1)?, Witness::Page)?;
    for server in &mut stage.servers {
        server.set(Health::Sick)?;
    }
    let view = stage.wait("the backend to be down", |view| view.backends[BACKEND].up == Some(0))?.0;
    ensure!(view.backends[BACKEND].active == Some(0), "{view:#?}");
    ensure!(view.servers[&format!("{UNCHECKED}/plain")].state == "no_check", "{view:#?}");
    let told = |kind: &str| stage.events(kind, BACKEND);
    let down = told("haproxy_backend_down")?;
    ensure!(down.len() == 1 && down[0]["details"]["servers"] == "0 of 3", "{down:#?}");
    ensure!(told("haproxy_backend_up")?.is_empty());
    for (name, _) in SERVERS {
        ensure!(stage.events("haproxy_server_down", &format!("{BACKEND}/{name}"))?.len() == 1, "{name}");
    }
    stage.servers[1].set(Health::Ready)?;
    stage.wait("the backend to be up", |view| view.backends[BACKEND].up == Some(1))?;
    let up = stage.events("haproxy_backend_up", BACKEND)?;
    ensure!(up.len() == 1 && up[0]["details"]["servers"] == "1 of 3", "{up:#?}");
    Ok(())
}

#[test]
fn a_server_that_is_disabled_or_drained_is_not_down() -> Result<()> {
    let lab = lab()?;
    let stage = Stage::new(lab.node(1)?, Witness::Page)?;
    stage.haproxy.command("disable server api/two")?;
    stage.wait_server("two", "maintenance", "")?;
    stage.haproxy.command("set server api/three state drain")?;
    let view = stage.wait_server("three", "drain", "l7ok")?.0;
    ensure!(view.backends[BACKEND].active == Some(1), "{view:#?}");
    stage.haproxy.command("enable server api/two")?;
    stage.haproxy.command("set server api/three state ready")?;
    stage.wait_server("three", "up", "l7ok")?;
    stage.wait_server("two", "up", "l7ok")?;
    for name in ["two", "three"] {
        let subject = format!("{BACKEND}/{name}");
        let downs = stage.events("haproxy_server_down", &subject)?;
        ensure!(downs.is_empty() && stage.events("haproxy_server_up", &subject)?.is_empty(), "{downs:#?}");
    }
    Ok(())
}

#[test]
fn the_time_of_the_last_change_stands_still() -> Result<()> {
    let lab = lab()?;
    let stage = Stage::new(lab.node(1)?, Witness::Page)?;
    let name = "leadline_haproxy_server_last_change_timestamp_seconds";
    let labels = [("backend", BACKEND), ("server", "one")];
    let mut seen = Vec::new();
    let age = || -> Option<u64> {
        let ago = [("proxy", BACKEND), ("server", "one")];
        stage.haproxy.scrape().ok()?.count("haproxy_server_check_last_change_seconds", &ago)
    };
    let first = age().context("no age")?;
    wait_for("five seconds to pass", LIMIT, || {
        seen.push(stage.agent.scrape().ok()?.count(name, &labels)?);
        (age()? >= first + 5).then_some(())
    })?;
    ensure!(seen.len() > 10 && seen.iter().all(|time| *time == seen[0]), "{seen:?}");
    wait_support(&stage.agent, "supported", "")
}
