//! The agent as a service of a node.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::node::Node;
use crate::process;
use crate::scrape::{self, Response, Samples};
use crate::service::Service;
use crate::tools;
use crate::vm::Architecture;

/// Where the agent listens inside its node.
pub const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9843);

/// How to start the agent.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// The binary; by default see [`binary`].
    pub binary: Option<PathBuf>,
    /// Further arguments of `leadline run`.
    pub arguments: Vec<String>,
    /// Environment variables.
    pub environment: Vec<(String, String)>,
    /// The time in which it must become ready.
    pub limit: Duration,
}

impl Default for AgentOptions {
    fn default() -> Self {
        Self { binary: None, arguments: Vec::new(), environment: Vec::new(), limit: Duration::from_secs(10) }
    }
}

/// A running agent. Dropping it kills it.
#[derive(Debug)]
pub struct Agent {
    node: Node,
    service: Service,
}

/// What the binary under test is built for: that of the image.
const TARGET: &str =
    if cfg!(target_arch = "aarch64") { "aarch64-unknown-linux-musl" } else { "x86_64-unknown-linux-musl" };

/// The binary under test: `LEADLINE_BIN`, else the workspace's release build for images.
pub fn binary() -> Result<PathBuf> {
    let path = std::env::var_os("LEADLINE_BIN")
        .map_or_else(|| tools::target_dir().join(TARGET).join("release/leadline"), PathBuf::from);
    ensure!(
        path.is_file(),
        "{} is missing: cargo build --release -p probe-user --target {TARGET}, or set LEADLINE_BIN",
        path.display()
    );
    Ok(path)
}

/// The binary under test for machines of an architecture.
pub fn binary_for(architecture: Architecture) -> Result<PathBuf> {
    if !architecture.is_foreign() {
        return binary();
    }
    let target = architecture.target();
    let path = tools::target_dir().join(target).join("release/leadline");
    let how = format!("cargo xtask image --profile release --target {target}");
    ensure!(path.is_file(), "{} is missing: {how}", path.display());
    Ok(path)
}

impl Agent {
    /// Starts the agent as `leadline.service` of the node and waits until it is ready.
    pub fn start(node: &Node, options: &AgentOptions) -> Result<Self> {
        let mut agent = Self::spawn(node, options)?;
        agent.wait_ready(options.limit)?;
        Ok(agent)
    }

    /// Starts the agent without waiting.
    pub fn spawn(node: &Node, options: &AgentOptions) -> Result<Self> {
        let mut command = Command::new(options.binary.clone().map_or_else(binary, Ok)?);
        command.args(["run", &format!("--web.listen-address={ADDRESS}")]).args(&options.arguments);
        command.envs(options.environment.iter().map(|(name, value)| (name, value)));
        Ok(Self { node: node.clone(), service: node.service("leadline", &mut command)? })
    }

    /// Waits until `/readyz` answers 200.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<()> {
        let node = self.node.clone();
        let ready =
            || scrape::get(&node, ADDRESS, "/readyz", &[]).is_ok_and(|response| response.status == 200);
        self.service.wait_until("the agent to be ready", limit, ready)
    }

    /// Gets a path from the agent.
    pub fn get(&self, path: &str, headers: &[(&str, &str)]) -> Result<Response> {
        scrape::get(&self.node, ADDRESS, path, headers)
    }

    /// Scrapes `/metrics`.
    pub fn scrape(&self) -> Result<Samples> {
        let response = self.get("/metrics", &[])?;
        ensure!(response.status == 200, "/metrics answered {}", response.status);
        scrape::parse(response.text()?).context("scrape the agent")
    }

    /// Level and reason of a collector's support.
    pub fn support(&self, collector: &str) -> Result<(String, String)> {
        let page = self.scrape()?;
        let sample = page.only("leadline_collector_support", &[("collector", collector)]);
        let sample = sample.with_context(|| format!("no support of the collector {collector}"))?;
        let label = |name: &str| sample.label(name).unwrap_or_default().to_owned();
        Ok((label("level"), label("reason")))
    }

    /// Waits until a collector says that much of itself.
    pub fn wait_support(&self, collector: &str, level: &str, reason: &str, limit: Duration) -> Result<()> {
        let mut last = None;
        let waited = process::wait_until(&format!("{collector} {level}: {reason}"), limit, || {
            last = self.support(collector).ok();
            last.as_ref().is_some_and(|(now, why)| now == level && why.contains(reason))
        });
        waited.with_context(|| format!("last seen: {last:?}"))
    }

    /// Waits until the page is as it should be; answers with it and the time that it took. The error has the samples
    /// whose names begin like that.
    pub fn wait_page(
        &self,
        what: &str,
        limit: Duration,
        shown: &str,
        holds: impl Fn(&Samples) -> bool,
    ) -> Result<(Samples, Duration)> {
        let begun = Instant::now();
        let mut last = None;
        let waited = process::wait_for(what, limit, || {
            let page = self.scrape().ok()?;
            let is_so = holds(&page);
            last = Some(page.clone());
            is_so.then_some((page, begun.elapsed()))
        });
        waited.with_context(|| {
            let samples = last.iter().flat_map(Samples::all);
            let shown: Vec<_> = samples.filter(|sample| sample.name.starts_with(shown)).collect();
            format!("last seen: {shown:#?}")
        })
    }

    /// The events of a kind, the oldest first.
    pub fn events(&self, kind: &str) -> Result<Vec<Value>> {
        let page = self.get("/api/v1/events?limit=4096", &[])?;
        let page: Value = serde_json::from_str(page.text()?).context("the events are no JSON")?;
        let events = page["events"].as_array().context("no list of events")?;
        Ok(events.iter().filter(|event| event["kind"] == kind).cloned().collect())
    }

    /// The service, for its process id and log.
    pub fn service(&mut self) -> &mut Service {
        &mut self.service
    }

    /// Kills the agent by SIGKILL.
    pub fn sigkill(mut self) -> Result<ExitStatus> {
        self.service.kill()
    }

    /// Stops the agent by SIGTERM.
    pub fn sigterm(mut self) -> Result<ExitStatus> {
        self.service.terminate(Duration::from_secs(10))
    }
}
