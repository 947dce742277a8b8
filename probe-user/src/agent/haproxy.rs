//! Asks HAProxy once a second, looks for it where it is not known, and tells the timeline and the log what changed.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use crate::collector::haproxy::state::Sight;
use crate::collector::haproxy::{Known, judge, reason};
use crate::config;
use crate::event::{Timeline, Timestamp};
use crate::source::haproxy::{Address, AskError, Candidates, ConfigFile, Reading, candidates, read};
use crate::telemetry::with_causes;

/// How often HAProxy is asked.
const PERIOD: Duration = Duration::from_secs(1);
/// How often it is looked for where it has long not been there.
const RARELY: Duration = Duration::from_secs(10);

/// Asks HAProxy.
pub(super) struct Asker {
    root: PathBuf,
    config: config::Haproxy,
    known: Known,
    timeline: Arc<Timeline>,
    /// Where the last answer came from.
    address: Option<Address>,
    /// What the log was told last.
    told: String,
    pause: Duration,
}

impl Asker {
    pub(super) fn new(root: PathBuf, config: config::Haproxy, known: Known, timeline: Arc<Timeline>) -> Self {
        Self { root, config, known, timeline, address: None, told: String::new(), pause: PERIOD }
    }

    pub(super) async fn run(mut self) -> Result<()> {
        loop {
            self.round().await;
            sleep(self.pause).await;
        }
    }

    /// Asks, or looks for whom to ask.
    pub(super) async fn round(&mut self) {
        let has_answered = match self.address.take() {
            Some(address) => self.ask_again(address).await,
            None => self.search().await,
        };
        self.pause = if has_answered { PERIOD } else { (self.pause * 2).min(RARELY) };
    }

    async fn ask_again(&mut self, address: Address) -> bool {
        match read(&address).await {
            Ok(reading) => self.take(address, reading),
            Err(fault) => {
                // What was read is not so any more. HAProxy may be elsewhere now, or be back soon.
                self.known.lock().miss(Sight::Unreadable(reason(&fault.cause)));
                self.pause = PERIOD / 2;
                self.search().await
            }
        }
    }

    async fn search(&mut self) -> bool {
        let candidates = candidates(&self.root, &self.config);
        let mut faults = Vec::new();
        for address in &candidates.addresses {
            match read(address).await {
                Ok(reading) => return self.take(address.clone(), reading),
                Err(fault) => faults.push(fault),
            }
        }
        self.miss(&candidates, &faults);
        false
    }

    fn take(&mut self, address: Address, reading: Reading) -> bool {
        let text = address.to_string();
        let events = self.known.lock().observe(address.clone(), reading, Timestamp::now());
        for event in events {
            self.timeline.record(event);
        }
        if self.is_news(format!("read {text}")) {
            tracing::info!(collector = "haproxy", address = text, "HAProxy is read");
        }
        self.address = Some(address);
        true
    }

    fn miss(&mut self, candidates: &Candidates, faults: &[AskError]) {
        let (sight, fault) = judge(candidates, faults);
        match (&sight, fault, &candidates.file) {
            (_, Some(fault), _) => self.tell_fault(fault),
            (_, None, ConfigFile::Unreadable(error)) => self.tell_file(error),
            (Sight::Absent(reason) | Sight::Unreadable(reason), None, _) => self.tell_absence(reason),
            _ => {}
        }
        self.known.lock().miss(sight);
    }

    fn tell_fault(&mut self, fault: &AskError) {
        let address = &fault.address;
        // Not by the whole cause: a broken answer may be broken elsewhere every time.
        if self.is_news(format!("{address} {}", reason(&fault.cause))) {
            let cause = with_causes(&fault.cause);
            tracing::warn!(collector = "haproxy", %address, cause, "HAProxy cannot be read");
        }
    }

    fn tell_file(&mut self, error: &io::Error) {
        if self.is_news(format!("file {error}")) {
            tracing::warn!(collector = "haproxy", cause = %error, "/etc/haproxy/haproxy.cfg cannot be read");
        }
    }

    fn tell_absence(&mut self, reason: &'static str) {
        if self.is_news(reason.to_owned()) {
            tracing::info!(collector = "haproxy", reason, "HAProxy is looked for now and then");
        }
    }

    /// Whether this is something else than the last time.
    fn is_news(&mut self, said: String) -> bool {
        let is_news = self.told != said;
        self.told = said;
        is_news
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::UnixListener;

    use super::*;
    use crate::collector::haproxy::Haproxy;
    use crate::collector::{Collector as _, Support};
    use crate::config::StatsSocket;

    const ANSWER: &[u8] = b"# pxname,svname,type,status\napi,one,2,UP\n\n";

    fn asker(path: PathBuf) -> Asker {
        let config = config::Haproxy { stats_socket: Some(StatsSocket::Unix(path)), metrics_url: None };
        let lost = prometheus::IntCounter::new("lost", "lost").unwrap();
        Asker::new("/nonexistent".into(), config, Known::default(), Arc::new(Timeline::new(8, lost)))
    }

    fn support(asker: &Asker) -> Support {
        Haproxy::new(asker.known.clone()).support()
    }

    #[tokio::test]
    async fn it_is_looked_for_more_and_more_rarely_and_read_every_second() {
        let path = std::env::temp_dir().join(format!("leadline-asker-{}.sock", std::process::id()));
        let mut asker = asker(path.clone());
        let mut pauses = Vec::new();
        for _ in 0..5 {
            asker.round().await;
            pauses.push(asker.pause.as_secs());
        }
        assert_eq!(pauses, [2, 4, 8, 10, 10]);
        assert!(matches!(support(&asker), Support::Degraded(_)));
        let listener = UnixListener::bind(&path).unwrap();
        let server = tokio::spawn(async move {
            listener.accept().await.unwrap().0.write_all(ANSWER).await.unwrap();
        });
        asker.round().await;
        server.await.unwrap();
        assert_eq!((asker.pause, support(&asker)), (PERIOD, Support::Yes));
        // The listener is gone, its socket is not.
        asker.round().await;
        assert_eq!(asker.pause, PERIOD);
        assert!(matches!(support(&asker), Support::Degraded(_)));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn the_log_is_told_once() {
        let mut asker = asker("/nonexistent".into());
        let told = ["a", "a", "b", "a"].map(|said| asker.is_news(said.to_owned()));
        assert_eq!(told, [true, false, true, true]);
    }

    #[test]
    fn a_cause_comes_with_what_lies_behind_it() {
        let cause = crate::source::haproxy::Cause::Parse(crate::source::haproxy::ParseError::NoMetric);
        assert_eq!(with_causes(&cause), "the answer is none of HAProxy: it has no metric of HAProxy");
    }
}
