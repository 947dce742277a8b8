//! Chooses the collectors that run, serves the page, ends on a signal.

use std::future::Future;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::{Agent, event_file};
use crate::collector::runner::{Limits, Runner};
use crate::collector::{Collector, Support};
use crate::config::Mode;
use crate::event::{Kind, Occurrence};
use crate::http::{self, Content};

/// The collectors that run.
#[derive(Default)]
pub(super) struct Chosen(Vec<Arc<dyn Collector>>);

impl Chosen {
    /// Takes a collector unless it is off; one that must run and cannot is an error.
    pub(super) fn add(&mut self, mode: Mode, collector: Arc<dyn Collector>) -> Result<()> {
        let (name, support) = (collector.name(), collector.support());
        match (mode, &support) {
            (Mode::Off, _) => {
                tracing::info!(collector = name, "collector is off");
                return Ok(());
            }
            (Mode::On, Support::No(reason)) => bail!("collector {name} must run but cannot: {reason}"),
            (_, Support::Yes) => tracing::info!(collector = name, "collector runs"),
            (_, Support::Degraded(reason) | Support::No(reason)) => {
                tracing::info!(collector = name, reason, "collector runs as far as it can");
            }
        }
        self.0.push(collector);
        Ok(())
    }

    pub(super) fn into_collectors(self) -> Vec<Arc<dyn Collector>> {
        self.0
    }
}

/// Runs a background task that copes with every failure of what it reads. What it does not cope with is a kernel thread
/// that is gone, or a bug: it ends, and ends the agent, which would otherwise go on showing what it last knew.
pub(super) fn supervise(
    name: &'static str,
    ended: mpsc::UnboundedSender<String>,
    task: impl Future<Output = Result<()>> + Send + 'static,
) {
    tokio::spawn(async move {
        let reason = match tokio::spawn(task).await {
            Ok(Ok(())) => "it ended".to_owned(),
            Ok(Err(error)) => format!("{error:#}"),
            Err(panic) => panic.to_string(),
        };
        // The agent is stopping already if nobody listens.
        let _unheard = ended.send(format!("background task {name}: {reason}"));
    });
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot listen, or a background task ended before that.
pub(super) async fn listen(
    agent: &Agent<'_>,
    collectors: Vec<Arc<dyn Collector>>,
    mut ended: mpsc::UnboundedReceiver<String>,
) -> Result<()> {
    let limits = Limits { max_series: agent.config.series_limit as usize };
    let content = Content {
        runner: Arc::new(Runner::new(collectors, limits)),
        timeline: Arc::clone(&agent.timeline),
        readiness: agent.readiness.clone(),
        metrics: agent.metrics.clone(),
        version: env!("CARGO_PKG_VERSION"),
    };
    let limits =
        http::Limits { connections: agent.config.web.max_connections as usize, ..http::Limits::default() };
    let (stop, stopped) = watch::channel(false);
    let mut servers = Vec::new();
    for address in &agent.config.web.listen_address {
        let mut stopped = stopped.clone();
        let until = async move {
            // A sender that is gone means stop as well.
            let _gone = stopped.wait_for(|stopped| *stopped).await;
        };
        let listener = http::bind(*address)?;
        tracing::info!(address = %listener.local_addr().unwrap_or(*address), "listening");
        servers.push(http::serve(listener, content.clone(), limits, until)?);
    }
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be caught")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be caught")?;
    let failure = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        reason = ended.recv() => reason,
    };
    tracing::info!("agent stops");
    agent.timeline.record(Occurrence::now(Kind::AgentStopped, "leadline"));
    stop.send_replace(true);
    for server in servers {
        server.await.context("the HTTP server ended badly")?;
    }
    event_file::finish(agent).await;
    failure.map_or(Ok(()), |reason| bail!(reason))
}
