//! A node with HAProxy, three servers behind it, and an agent.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::haproxy::{BACKEND, Haproxy, SERVERS, Server, Spec};
use lab::process::wait_for;
use lab::{Agent, AgentOptions, Lab, LabOptions, Node};
use serde_json::Value;

use crate::view::{self, Changes, View};

/// Long enough for two checks, for the agent to ask, and for it to look again after it has long found nothing.
pub(crate) const LIMIT: Duration = Duration::from_secs(25);

pub(crate) fn lab() -> Result<Lab> {
    Lab::start(&LabOptions { nodes: 1, flannel: None })
}

pub(crate) fn agent(node: &Node, arguments: &[&str]) -> Result<Agent> {
    let arguments = arguments.iter().map(ToString::to_string).collect();
    let options = AgentOptions { arguments, limit: Duration::from_secs(30), ..AgentOptions::default() };
    Agent::start(node, &options)
}

/// Waits until the collector says that much of itself.
pub(crate) fn wait_support(agent: &Agent, level: &str, reason: &str) -> Result<()> {
    agent.wait_support("haproxy", level, reason, LIMIT)
}

/// Series of the agent about HAProxy.
pub(crate) fn series(agent: &Agent) -> Result<usize> {
    let page = agent.scrape()?;
    Ok(page.all().iter().filter(|sample| sample.name.starts_with("leadline_haproxy_")).count())
}

/// Whom the test asks, which is whom the agent does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Witness {
    Page,
    Socket,
}

pub(crate) struct Stage {
    pub(crate) haproxy: Haproxy,
    pub(crate) servers: Vec<Server>,
    pub(crate) agent: Agent,
    witness: Witness,
}

impl Stage {
    pub(crate) fn new(node: &Node, witness: Witness) -> Result<Self> {
        let servers = SERVERS.iter().map(|(_, address)| Server::start(node, *address));
        let servers = servers.collect::<Result<_>>()?;
        let haproxy = Haproxy::start(node, &Spec::default())?;
        let url = format!("--haproxy.metrics-url=http://{}/metrics", lab::haproxy::PAGE);
        let arguments: &[&str] = if witness == Witness::Page { &[] } else { &[&url] };
        let stage = Self { haproxy, servers, agent: agent(node, arguments)?, witness };
        for (name, _) in SERVERS {
            stage.wait_server(name, "up", "l7ok")?;
        }
        Ok(stage)
    }

    pub(crate) fn witness(&self) -> Result<(View, Changes)> {
        match self.witness {
            Witness::Page => view::of_page(&self.haproxy.scrape()?),
            Witness::Socket => view::of_stat(&self.haproxy.command("show stat")?),
        }
    }

    /// Waits until the agent shows a server of the checked backend like that, and all else like the witness.
    pub(crate) fn wait_server(&self, server: &str, state: &str, check: &str) -> Result<(View, Changes)> {
        let name = format!("{BACKEND}/{server}");
        let shows = |view: &View| {
            view.servers.get(&name).is_some_and(|server| {
                server.state == state && server.check.as_deref().unwrap_or_default() == check
            })
        };
        self.wait(&format!("{name} to be {state} by {check}"), shows)
    }

    /// Waits until the agent shows what is wanted, and all of it like the witness.
    pub(crate) fn wait(&self, what: &str, shows: impl Fn(&View) -> bool) -> Result<(View, Changes)> {
        let mut last = None;
        let waited = wait_for(what, LIMIT, || {
            let shown = view::of_agent(&self.agent.scrape().ok()?).ok()?;
            let told = self.witness().ok()?;
            let agree = shows(&shown.0) && shown.0 == told.0;
            last = Some((shown.clone(), told.clone()));
            agree.then_some((shown, told))
        });
        let (shown, told) = waited.with_context(|| format!("agent and witness: {last:#?}"))?;
        ensure!(shown.1.len() == told.1.len(), "{:?} and {:?}", shown.1, told.1);
        for (name, changed) in &shown.1 {
            let witness = told.1.get(name).with_context(|| format!("the witness has no {name}"))?;
            ensure!(changed.abs_diff(*witness) <= 1, "{name} changed at {changed} and {witness}");
        }
        Ok(shown)
    }

    /// The events of a kind about a subject, the oldest first.
    pub(crate) fn events(&self, kind: &str, subject: &str) -> Result<Vec<Value>> {
        let events = self.agent.events(kind)?;
        Ok(events.into_iter().filter(|event| event["subject"] == subject).collect())
    }
}
