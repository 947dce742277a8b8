//! Follows the timeline and writes what comes. A disk that is full or broken delays that; it never stops the agent.

use std::{io, sync::Arc, time::Duration};

use prometheus::IntCounter;
use tokio::{sync::watch, task::JoinError};

use super::EventFile;
use crate::event::Timeline;

/// Events written and synchronised at once; what comes meanwhile is the next batch.
const BATCH: usize = 256;

/// How long to wait after a failed attempt.
const RETRY: Duration = Duration::from_secs(1);

/// What is counted.
#[derive(Clone, Debug)]
pub struct FileMetrics {
    /// Events that the timeline overwrote before they could be written.
    pub lost: IntCounter,
    /// Failed attempts to write.
    pub failures: IntCounter,
}

impl EventFile {
    /// Writes the events of a timeline that come after `position`, and reports the last number that is on the disk.
    ///
    /// # Errors
    /// It only ends when writing panicked.
    pub async fn keep(
        mut self,
        timeline: Arc<Timeline>,
        mut position: u64,
        metrics: FileMetrics,
        written: watch::Sender<u64>,
    ) -> Result<(), JoinError> {
        let mut health = Health::default();
        loop {
            timeline.wait_beyond(position).await;
            let page = timeline.peek(position, BATCH);
            metrics.lost.inc_by(page.lost);
            position = page.next;
            let mut outcome;
            (self, outcome) = blocking(self, move |file| file.append(&page.events)).await?;
            while health.note(&self, outcome, &metrics) {
                tokio::time::sleep(RETRY).await;
                (self, outcome) = blocking(self, Self::flush).await?;
            }
            written.send_replace(position);
        }
    }
}

/// Works on the file where waiting for a disk holds up nobody.
async fn blocking(
    mut file: EventFile,
    work: impl FnOnce(&mut EventFile) -> io::Result<()> + Send + 'static,
) -> Result<(EventFile, io::Result<()>), JoinError> {
    tokio::task::spawn_blocking(move || {
        let outcome = work(&mut file);
        (file, outcome)
    })
    .await
}

/// What was last said about the file: each change is said once.
#[derive(Debug, Default)]
struct Health(Option<String>);

impl Health {
    /// Takes note of an attempt, and says whether there must be another one.
    fn note(&mut self, file: &EventFile, outcome: io::Result<()>, metrics: &FileMetrics) -> bool {
        let path = file.path.display();
        match (outcome, self.0.take()) {
            (Ok(()), None) => false,
            (Ok(()), Some(_)) => {
                tracing::info!(%path, "event file is written again");
                false
            }
            (Err(error), before) => {
                metrics.failures.inc();
                let reason = error.to_string();
                if before.as_ref() != Some(&reason) {
                    tracing::warn!(%path, %error, "event file cannot be written; events wait in memory");
                }
                self.0 = Some(reason);
                true
            }
        }
    }
}
