//! The event file: opened before there is a timeline, kept by a task beside it, waited for at the end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::watch;

use super::serve::supervise;
use super::{Agent, TIMELINE_EVENTS};
use crate::collector::agent_self::{EventSource, SelfMetrics};
use crate::config::Config;
use crate::event::EventFile;
use crate::event::file::{FileMetrics, Opened};
use crate::event::timeline::Earlier;

/// How long the end of the agent waits for a disk.
const PATIENCE: Duration = Duration::from_millis(500);

/// Opens the file if there is to be one, and reads what earlier runs have left.
pub(super) fn open(config: &Config, metrics: &SelfMetrics) -> Result<(Option<EventFile>, Earlier)> {
    let Some(path) = &config.events.file else { return Ok((None, Earlier::default())) };
    let Opened { file, earlier, unreadable } = EventFile::open(path, TIMELINE_EVENTS)?;
    let (path, events) = (path.display(), earlier.events.len());
    tracing::info!(%path, events, last = earlier.last, "events of earlier runs were read");
    if unreadable > 0 {
        metrics.events_lost(EventSource::File).inc_by(unreadable);
        tracing::warn!(%path, lines = unreadable, "event file has lines that are no events of this version");
    }
    Ok((Some(file), earlier))
}

/// Writes what is recorded after `last`; tells the last number that is on the disk.
pub(super) fn keep(agent: &Agent<'_>, file: EventFile, last: u64) -> watch::Receiver<u64> {
    let metrics = FileMetrics {
        lost: agent.metrics.events_lost(EventSource::File),
        failures: agent.metrics.event_file_failures().clone(),
    };
    let (sender, written) = watch::channel(last);
    let timeline = Arc::clone(&agent.timeline);
    supervise("event file", agent.ended.clone(), async move {
        Ok(file.keep(timeline, last, metrics, sender).await?)
    });
    written
}

/// Waits until everything that was recorded is in the file, or the disk has had its time.
pub(super) async fn finish(agent: &Agent<'_>) {
    let Some(mut written) = agent.written.clone() else { return };
    let last = agent.timeline.last();
    let all = written.wait_for(|written| *written >= last);
    if tokio::time::timeout(PATIENCE, all).await.is_err() {
        tracing::warn!("the last events are not in the event file");
    }
}
