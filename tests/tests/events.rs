//! The event file of a real agent: over a kill, over lines that a crash has cut, over a disk that is full.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::{Agent, AgentOptions, Flannel, Lab, LabOptions, Node, Place as _, Pod, PodSpec, wait_until};
use serde_json::Value;

/// Where the agent keeps its events, as the node sees it.
const FILE: &str = "/run/leadline/events.jsonl";

const LIMIT: Duration = Duration::from_secs(15);

fn start() -> Result<Lab> {
    Lab::start(&LabOptions { nodes: 1, flannel: Some(Flannel::default()) })
}

fn options() -> AgentOptions {
    AgentOptions { arguments: vec![format!("--events.file={FILE}")], ..AgentOptions::default() }
}

/// A page of the API.
fn page(agent: &Agent, since: u64) -> Result<Value> {
    let response = agent.get(&format!("/api/v1/events?limit=4096&since={since}"), &[])?;
    ensure!(response.status == 200, "/api/v1/events answered {}", response.status);
    serde_json::from_str(response.text()?).context("read a page of events")
}

/// The events that the API answers.
fn answered(agent: &Agent, since: u64) -> Result<Vec<Value>> {
    page(agent, since)?["events"].as_array().cloned().context("no list of events")
}

/// The lines of the file, whole ones and others.
fn lines(node: &Node) -> Result<Vec<String>> {
    Ok(node.run(&["cat", FILE])?.lines().map(str::to_owned).collect())
}

fn number(event: &Value) -> u64 {
    event["sequence"].as_u64().unwrap_or_default()
}

fn has(events: &[Value], kind: &str, pod: &str) -> bool {
    let is_it = |event: &Value| {
        event["kind"] == kind && event["subject"].as_str().is_some_and(|subject| subject.ends_with(pod))
    };
    events.iter().any(is_it)
}

/// Starts a pod and waits until the agent tells of it.
fn pod(node: &Node, agent: &Agent, name: &str) -> Result<Pod> {
    let pod = node.pod(PodSpec::new(name))?;
    wait_until(&format!("the event of {name}"), LIMIT, || {
        answered(agent, 0).is_ok_and(|events| has(&events, "pod_started", name))
    })?;
    Ok(pod)
}

/// Waits until the last lines of the file are what the API answers, text for text.
fn await_equal(node: &Node, agent: &Agent, first_line: usize) -> Result<()> {
    let both = || -> Result<(Vec<String>, Vec<String>)> {
        let page = answered(agent, 0)?.iter().map(Value::to_string).collect();
        let lines = lines(node)?;
        let whole = lines.get(first_line..).unwrap_or_default().iter();
        let whole = whole.map(|line| Ok(serde_json::from_str::<Value>(line)?.to_string()));
        Ok((whole.collect::<Result<_>>()?, page))
    };
    wait_until("the file to have what the API answers", LIMIT, || both().is_ok_and(|(file, api)| file == api))
        .with_context(|| format!("{:#?}", both()))
}

#[test]
fn events_survive_a_kill_of_the_agent() -> Result<()> {
    let lab = start()?;
    let node = lab.node(1)?;
    node.run(&["mkdir", "-m", "755", "/run/leadline"])?;
    let agent = Agent::start(node, &options())?;
    let _kept = pod(node, &agent, "before")?;
    await_equal(node, &agent, 0)?;
    assert_eq!(node.run(&["stat", "-c", "%a %U", FILE])?.trim(), "640 root");
    let before = answered(&agent, 0)?;
    let last = before.last().map(number).context("no event")?;
    agent.sigkill()?;

    // What a crash and a newer version leave: a line of an unknown kind, and one that is cut.
    let strange = format!(
        "{{\"sequence\":{},\"time\":\"2026-01-02T03:04:05.000000006Z\",\"kind\":\"of_tomorrow\",\"subject\":\"x\"}}\n\
         {{\"sequence\":{},\"ti",
        last + 1,
        last + 2
    );
    node.run(&["bash", "-c", &format!("printf %s '{strange}' >> {FILE}")])?;
    let mut agent = Agent::start(node, &options())?;
    let after = answered(&agent, 0)?;
    assert_eq!(after.get(..before.len()), Some(before.as_slice()), "{after:#?}");
    let started = after.get(before.len()).context("no event of the new agent")?;
    assert_eq!((number(started), &started["kind"]), (last + 3, &Value::from("agent_started")));
    let lost = |agent: &Agent| {
        agent.scrape()?.count("leadline_events_lost_total", &[("source", "file")]).context("no total")
    };
    assert_eq!(lost(&agent)?, 2);
    let log = agent.service().log()?;
    assert_eq!(log.matches("lines that are no events of this version").count(), 1, "{log}");

    // A reader that goes on with a number of the earlier run gets what came since, and hears of the gap.
    let _later = pod(node, &agent, "after")?;
    let followed = page(&agent, last)?;
    assert_eq!(followed["lost"], 2, "{followed:#}");
    let events = answered(&agent, last)?;
    assert!(has(&events, "pod_started", "after") && !has(&events, "pod_started", "before"), "{events:#?}");

    // The end of an agent that is asked to stop is in the file as well.
    let newest = answered(&agent, 0)?.last().map(number).context("no event")?;
    assert_eq!(agent.sigterm()?.code(), Some(0));
    let stopped: Value = serde_json::from_str(lines(node)?.last().context("no line")?)?;
    assert_eq!((number(&stopped), &stopped["kind"]), (newest + 1, &Value::from("agent_stopped")));
    lab.shutdown()
}

#[test]
fn a_full_disk_delays_events_and_loses_none() -> Result<()> {
    let lab = start()?;
    let node = lab.node(1)?;
    // Four pages. The file begins with one that is nearly full, so that the first event is cut; the filler has the rest.
    let prepare = format!(
        "mkdir -p /run/leadline && mount -t tmpfs -o size=16k,mode=755 tmpfs /run/leadline && cd /run/leadline && \
         {{ head -c 4050 /dev/zero | tr '\\0' x; echo; }} > {FILE} && ! head -c 1M /dev/zero > filler"
    );
    node.run(&["bash", "-c", &prepare])?;
    let mut agent = Agent::start(node, &options())?;
    let failures = |agent: &Agent| agent.scrape().ok()?.count("leadline_event_file_failures_total", &[]);
    wait_until("the agent to fail twice", LIMIT, || failures(&agent).is_some_and(|count| count >= 2))?;
    let _pod = pod(node, &agent, "meanwhile")?;
    assert_eq!(lines(node)?.get(1).map(String::len), Some(45), "the first event is cut where the page ends");
    let log = agent.service().log()?;
    assert_eq!(log.matches("event file cannot be written").count(), 1, "{log}");

    node.run(&["rm", "/run/leadline/filler"])?;
    await_equal(node, &agent, 1)?;
    let samples = agent.scrape()?;
    // The line of the preparation is the only one that is missed.
    assert_eq!(samples.count("leadline_events_lost_total", &[("source", "file")]), Some(1));
    let log = agent.service().log()?;
    assert_eq!(log.matches("event file is written again").count(), 1, "{log}");
    agent.sigterm()?;
    lab.shutdown()
}

#[test]
fn a_file_that_cannot_be_opened_ends_the_start_with_the_fix() -> Result<()> {
    let lab = start()?;
    let node = lab.node(1)?;
    let mut command = Command::new(lab::agent::binary()?);
    command.args(["run", "--events.file=/run/nowhere/events.jsonl"]);
    let mut service = node.service("refused", &mut command)?;
    assert_eq!(service.wait(LIMIT)?.code(), Some(1));
    let log = service.log()?;
    let expected = "event file /run/nowhere/events.jsonl: cannot be opened: create its directory";
    assert!(log.contains(expected) && log.contains("No such file or directory"), "{log}");
    lab.shutdown()
}
