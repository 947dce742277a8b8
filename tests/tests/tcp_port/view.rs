//! What the agent says of one watched port and peer.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::scrape::Samples;
use lab::{Agent, wait_until};

/// Long enough for whatever the kernel still has to do after the programs are done.
const SETTLE: Duration = Duration::from_secs(10);
const PREFIX: &str = "leadline_tcp_port_";

/// The samples of one page.
pub(crate) struct View {
    samples: Samples,
    port: String,
    peer: String,
}

impl View {
    pub(crate) fn of(agent: &Agent, port: u16, peer: IpAddr) -> Result<Self> {
        Ok(Self { samples: agent.scrape()?, port: port.to_string(), peer: peer.to_string() })
    }

    fn labels(&self) -> [(&str, &str); 2] {
        [("port", self.port.as_str()), ("peer_address", self.peer.as_str())]
    }

    /// A count by its name without the prefix; for failures with the reason behind a space.
    pub(crate) fn count(&self, name: &str) -> Option<u64> {
        let [port, peer] = self.labels();
        match name.split_once(' ') {
            Some((name, reason)) => {
                self.samples.count(&format!("{PREFIX}{name}"), &[port, peer, ("reason", reason)])
            }
            None => self.samples.count(&format!("{PREFIX}{name}"), &[port, peer]),
        }
    }

    fn seconds(&self, name: &str) -> Option<Duration> {
        let value = self.samples.value(&format!("{PREFIX}{name}"), &self.labels())?;
        Duration::try_from_secs_f64(value).ok()
    }

    pub(crate) fn least(&self) -> Option<Duration> {
        self.seconds("min_rtt_seconds")
    }

    /// Number and mean of the round trips.
    pub(crate) fn round_trips(&self) -> Result<(u64, Duration)> {
        let count = self.count("rtt_seconds_count").context("no round trips")?;
        let sum = self.seconds("rtt_seconds_sum").context("no sum of round trips")?;
        Ok((count, sum / u32::try_from(count).ok().filter(|count| *count > 0).context("no sample")?))
    }
}

/// Waits until these are the counts, and reads whether they stay.
pub(crate) fn expect(agent: &Agent, port: u16, peer: IpAddr, expected: &[(&str, u64)]) -> Result<()> {
    let read = || -> Result<Vec<(&str, Option<u64>)>> {
        let view = View::of(agent, port, peer)?;
        Ok(expected.iter().map(|(name, _)| (*name, view.count(name))).collect())
    };
    let wanted: Vec<(&str, Option<u64>)> =
        expected.iter().map(|(name, count)| (*name, Some(*count))).collect();
    let reached = wait_until("the counts", SETTLE, || read().is_ok_and(|read| read == wanted));
    assert_eq!(read()?, wanted, "measured (left) and witness (right) of {peer} at {port}");
    println!("{peer} at {port}: {expected:?}, difference 0");
    reached
}

/// Ports and peers that have series.
pub(crate) fn watched(agent: &Agent) -> Result<Vec<(String, String)>> {
    let samples = agent.scrape()?;
    let of = samples.all().iter().filter(|sample| sample.name == "leadline_tcp_port_connects_total");
    let labels =
        of.map(|sample| Some((sample.label("port")?.to_owned(), sample.label("peer_address")?.to_owned())));
    labels.collect::<Option<_>>().context("a series without its labels")
}
