//! An agent beside a control plane, and what it shows against what curl says.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::control_plane::{Options, Part};
use lab::process::{wait_for, wait_until};
use lab::scrape::Samples;
use lab::{Agent, AgentOptions, ControlPlane, Node};
use serde_json::Value;

use crate::LIMIT;

/// An agent on a node, with further arguments.
pub(crate) fn agent(node: &Node, arguments: &[&str]) -> Result<Agent> {
    let arguments = arguments.iter().map(ToString::to_string).collect();
    Agent::start(node, &AgentOptions { arguments, limit: Duration::from_secs(30), ..AgentOptions::default() })
}

/// The value of the `component` label.
pub(crate) fn component(part: Part) -> String {
    part.name().replace('-', "_")
}

/// A number of a part in its usual place.
pub(crate) fn of(page: &Samples, name: &str, part: Part) -> Option<f64> {
    page.value(
        &format!("leadline_control_plane_{name}"),
        &labels(part).each_ref().map(|(k, v)| (*k, v.as_str())),
    )
}

fn labels(part: Part) -> [(&'static str, String); 2] {
    let endpoint = format!("https://{}", part.address(&Options::default()));
    [("component", component(part)), ("endpoint", endpoint)]
}

/// The one value of `leadline_control_plane_failure` that is 1.
pub(crate) fn failure(page: &Samples, part: Part) -> Result<Option<String>> {
    failure_of(page, &component(part))
}

pub(crate) fn failure_of(page: &Samples, component: &str) -> Result<Option<String>> {
    let all =
        page.of("leadline_control_plane_failure", |sample| sample.label("component") == Some(component));
    let all: Vec<_> = all.collect();
    ensure!(all.is_empty() || all.len() == 8, "{} reasons of {component}", all.len());
    let set: Vec<_> = all.into_iter().filter(|sample| sample.count() == Some(1)).collect();
    ensure!(set.len() <= 1, "{set:?}");
    Ok(set.first().and_then(|sample| sample.label("reason")).map(str::to_owned))
}

/// The checks of a part.
pub(crate) fn checks(page: &Samples, part: Part) -> BTreeMap<String, bool> {
    checks_of(page, &component(part))
}

pub(crate) fn checks_of(page: &Samples, component: &str) -> BTreeMap<String, bool> {
    let all = page.of("leadline_control_plane_check", |sample| sample.label("component") == Some(component));
    all.filter_map(|sample| Some((sample.label("check")?.to_owned(), sample.count()? == 1))).collect()
}

/// How many series there are.
pub(crate) fn series(page: &Samples) -> usize {
    page.all().iter().filter(|sample| sample.name.starts_with("leadline_control_plane_")).count()
}

/// Waits until the page of an agent is as it should be; answers with it and the time that it took.
pub(crate) fn wait_page(
    agent: &Agent,
    what: &str,
    holds: impl Fn(&Samples) -> bool,
) -> Result<(Samples, Duration)> {
    agent.wait_page(what, LIMIT, "leadline_control_plane_", holds)
}

/// Waits until an agent says the same of a part as curl: whether it lives and is ready, and each of its checks.
pub(crate) fn wait_agreement(agent: &Agent, plane: &ControlPlane, part: Part) -> Result<Samples> {
    let mut last = Ok(());
    let waited = wait_for(&format!("agent and curl to agree on {}", part.name()), LIMIT, || {
        let (health, readiness) =
            (plane.ask(part, part.health()).ok()?, plane.ask(part, part.readiness()).ok()?);
        let page = agent.scrape().ok()?;
        last = (|| {
            let flag = |status| Some(if status == 200 { 1.0 } else { 0.0 });
            ensure!(of(&page, "alive", part) == flag(health.status), "alive: {}", health.status);
            let ready = if part == Part::ControllerManager { None } else { flag(readiness.status) };
            ensure!(of(&page, "ready", part) == ready, "ready: {}", readiness.status);
            ensure!(!readiness.checks().is_empty(), "{}", readiness.body);
            ensure!(
                checks(&page, part) == readiness.checks(),
                "{:?} {}",
                checks(&page, part),
                readiness.body
            );
            Ok(())
        })();
        last.is_ok().then_some(page)
    });
    waited.with_context(|| last.err().map(|error| format!("{error:#}")).unwrap_or_default())
}

/// Waits for the one event of a kind about a part.
pub(crate) fn wait_event(agent: &Agent, kind: &str, part: Part) -> Result<Value> {
    wait_event_of(agent, kind, &component(part))
}

pub(crate) fn wait_event_of(agent: &Agent, kind: &str, component: &str) -> Result<Value> {
    let mut found = Vec::new();
    wait_until(&format!("{kind} of {component}"), LIMIT, || {
        found = agent.events(kind).unwrap_or_default();
        found.retain(|event| event["subject"] == component);
        !found.is_empty()
    })?;
    ensure!(found.len() == 1, "{found:#?}");
    Ok(found.remove(0))
}
