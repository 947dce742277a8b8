//! Asks each component of the control plane on this node, each by a task of its own so that none waits for another, and
//! tells the timeline and the log what changed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures_util::future::join_all;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, interval_at};

use crate::collector::control_plane::Known;
use crate::collector::control_plane::state::Moment;
use crate::config;
use crate::event::{Timeline, Timestamp};
use crate::source::control_plane::{Asker, Found, Report, Target, find};

/// How often files are looked at, and how often is asked where nothing speaks for a component.
const RARELY: Duration = Duration::from_secs(10);

/// Has the control plane asked.
pub(super) struct Watcher {
    root: PathBuf,
    config: config::ControlPlane,
    asker: Asker,
    known: Known,
    timeline: Arc<Timeline>,
    begun: Instant,
}

impl Watcher {
    pub(super) fn new(
        root: PathBuf,
        config: config::ControlPlane,
        known: Known,
        timeline: Arc<Timeline>,
    ) -> Result<Self> {
        let asker = Asker::new(config.timeout).context("the TLS library refuses its own defaults")?;
        Ok(Self { root, config, asker, known, timeline, begun: Instant::now() })
    }

    /// Asks everybody once.
    pub(super) async fn round(&self) {
        let found = self.look();
        let mut watches: Vec<Watch> = found.keys().map(|target| self.watch(*target)).collect();
        join_all(watches.iter_mut().map(Watch::ask)).await;
    }

    pub(super) async fn run(self) -> Result<()> {
        let mut watched: BTreeMap<Target, AbortHandle> = BTreeMap::new();
        let mut tasks = JoinSet::new();
        let mut looks = interval(RARELY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => {
                    let found = self.look();
                    watched.retain(|target, task| {
                        let is_kept = found.contains_key(target);
                        if !is_kept {
                            task.abort();
                        }
                        is_kept
                    });
                    for target in found.into_keys() {
                        watched.entry(target).or_insert_with(|| tasks.spawn(self.watch(target).run()));
                    }
                }
                Some(ended) = tasks.join_next() => match ended {
                    Err(error) if error.is_cancelled() => {}
                    // They do not end by themselves.
                    ended => ended.context("a question has failed in itself")?,
                },
            }
        }
    }

    fn look(&self) -> Found {
        let found = find(&self.root, &self.config);
        self.known.lock().follow(&found);
        found
    }

    fn watch(&self, target: Target) -> Watch {
        Watch {
            target,
            interval: self.config.poll_interval,
            asker: self.asker.clone(),
            known: self.known.clone(),
            timeline: Arc::clone(&self.timeline),
            begun: self.begun,
            is_old: false,
            told: None,
        }
    }
}

/// One component, asked again and again.
struct Watch {
    target: Target,
    interval: Duration,
    asker: Asker,
    known: Known,
    timeline: Arc<Timeline>,
    begun: Instant,
    /// It has only `/healthz`.
    is_old: bool,
    /// What the log was told last.
    told: Option<&'static str>,
}

impl Watch {
    async fn run(mut self) {
        let mut ticks = interval_at(tokio::time::Instant::now(), self.interval);
        // An answer that took longer than an interval is followed by the next question at its usual time.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut asked: Option<Instant> = None;
        loop {
            ticks.tick().await;
            let is_due = asked.is_none_or(|asked| asked.elapsed() >= RARELY);
            if is_due || self.known.lock().is_known(&self.target) {
                asked = Some(Instant::now());
                self.ask().await;
            }
        }
    }

    async fn ask(&mut self) {
        let at = Moment { now: self.begun.elapsed(), time: Timestamp::now() };
        let Some(report) = self.asker.ask(&self.target, &mut self.is_old).await else {
            return self.tell("unasked", true);
        };
        let events = self.known.lock().observe(&self.target, &report, at);
        for event in events {
            self.timeline.record(event);
        }
        if self.known.lock().is_known(&self.target) {
            self.tell(word(&report), report.failure().is_some());
        }
    }

    fn tell(&mut self, what: &'static str, is_bad: bool) {
        if self.told.replace(what) == Some(what) {
            return;
        }
        let (component, endpoint) = (self.target.component.as_str(), self.target.endpoint());
        if is_bad {
            tracing::warn!(
                collector = "control_plane",
                component,
                endpoint,
                reason = what,
                "not well, or unknown"
            );
        } else {
            tracing::info!(collector = "control_plane", component, endpoint, "well");
        }
    }
}

/// What the log says of a report.
fn word(report: &Report) -> &'static str {
    report.failure().map_or("well", |failure| failure.as_str())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::collector::control_plane::ControlPlane;
    use crate::collector::{Collector as _, Support};
    use crate::event::Kind;

    #[tokio::test]
    async fn a_kubelet_is_found_by_its_file_and_its_end_is_told() {
        let root = std::env::temp_dir().join(format!("leadline-watcher-{}", std::process::id()));
        std::fs::create_dir_all(root.join("var/lib/kubelet")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        std::fs::write(root.join("var/lib/kubelet/config.yaml"), format!("healthzPort: {port}\n")).unwrap();
        // Nobody listens on the others: the ports of this machine are not of this test.
        let given = config::ControlPlane {
            endpoints: vec!["127.0.0.1:1".parse().unwrap()],
            timeout: Duration::from_secs(5),
            ..config::ControlPlane::default()
        };
        let lost = prometheus::IntCounter::new("lost", "lost").unwrap();
        let (known, timeline) = (Known::default(), Arc::new(Timeline::new(8, lost)));
        let watcher = Watcher::new(root.clone(), given, known.clone(), Arc::clone(&timeline)).unwrap();
        let server = tokio::spawn(async move {
            let mut stream = listener.accept().await.unwrap().0;
            let mut request = [0; 512];
            let length = stream.read(&mut request).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        watcher.round().await;
        let request = server.await.unwrap();
        assert!(request.starts_with("GET /healthz?verbose HTTP/1.1\r\n"), "{request}");
        assert!(!request.to_lowercase().contains("authorization"), "{request}");
        assert_eq!(ControlPlane::new(known).support(), Support::Yes);
        watcher.round().await;
        std::fs::remove_dir_all(root).unwrap();
        let events = timeline.since(0, 8).events;
        let down: Vec<&str> = events
            .iter()
            .filter(|event| event.kind == Kind::ControlPlaneDown)
            .map(|event| event.subject.as_str())
            .collect();
        assert!(down.contains(&"kubelet") && down.contains(&"kube_apiserver"), "{events:?}");
    }
}
