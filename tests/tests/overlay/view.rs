//! The agent's page and timeline, as far as they speak of the overlay.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::scrape::Samples;
use lab::{Agent, Place as _, Pod, exchange, wait_until};

/// The time in which the agent must have noticed a change.
const LIMIT: Duration = Duration::from_secs(15);

/// Packets and layer 3 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) receive_packets: u64,
    pub(crate) receive_bytes: u64,
    pub(crate) transmit_packets: u64,
    pub(crate) transmit_bytes: u64,
}

impl Totals {
    fn zip(&self, other: &Self, with: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            receive_packets: with(self.receive_packets, other.receive_packets),
            receive_bytes: with(self.receive_bytes, other.receive_bytes),
            transmit_packets: with(self.transmit_packets, other.transmit_packets),
            transmit_bytes: with(self.transmit_bytes, other.transmit_bytes),
        }
    }

    pub(crate) fn since(&self, earlier: &Self) -> Self {
        self.zip(earlier, |now, then| now - then)
    }

    pub(crate) fn plus(&self, other: &Self) -> Self {
        self.zip(other, |one, two| one + two)
    }
}

/// A scrape.
pub(crate) struct Page(pub(crate) Samples);

impl Page {
    fn label_pairs(&self, name: &str, labels: [&str; 2], value: Option<u64>) -> Vec<(String, String)> {
        let wanted = self.0.of(name, |sample| value.is_none() || sample.count() == value);
        let pairs =
            wanted.map(|sample| labels.map(|label| sample.label(label).unwrap_or_default().to_owned()));
        pairs.map(|[first, second]| (first, second)).collect()
    }

    /// Backends and devices.
    pub(crate) fn info(&self) -> Vec<(String, String)> {
        self.label_pairs("leadline_overlay_info", ["backend", "device"], Some(1))
    }

    /// Level and reason of the collector's support.
    pub(crate) fn support(&self) -> (String, String) {
        let of = |sample: &lab::scrape::Sample| sample.label("collector") == Some("overlay");
        let mut samples = self.0.of("leadline_collector_support", of);
        let text = |sample: &lab::scrape::Sample, label| sample.label(label).unwrap_or_default().to_owned();
        samples.next().map_or_else(Default::default, |sample| (text(sample, "level"), text(sample, "reason")))
    }

    pub(crate) fn mtu(&self, device: &str) -> Option<u64> {
        self.0.count("leadline_overlay_mtu_bytes", &[("device", device)])
    }

    pub(crate) fn up(&self, device: &str) -> Option<u64> {
        self.0.count("leadline_overlay_device_up", &[("device", device)])
    }

    pub(crate) fn attached(&self, program: &str) -> Option<u64> {
        self.0.count("leadline_program_attached", &[("program", program)])
    }

    pub(crate) fn missing(&self, device: &str, peer: &str, entry: &str) -> Option<u64> {
        let labels = [("device", device), ("peer_node", peer), ("entry", entry)];
        self.0.count("leadline_overlay_entries_missing", &labels)
    }

    /// Peers and entries that are missing on the device.
    pub(crate) fn all_missing(&self, device: &str) -> Vec<(String, String)> {
        let here = |sample: &lab::scrape::Sample| {
            sample.label("device") == Some(device) && sample.count() == Some(1)
        };
        let missing = self.0.of("leadline_overlay_entries_missing", here);
        let text = |sample: &lab::scrape::Sample, label| sample.label(label).unwrap_or_default().to_owned();
        missing.map(|sample| (text(sample, "peer_node"), text(sample, "entry"))).collect()
    }

    /// What passed between this node and a peer.
    pub(crate) fn totals(&self, device: &str, peer: &str) -> Option<Totals> {
        let count = |what| {
            let name = format!("leadline_overlay_{what}_total");
            self.0.count(&name, &[("device", device), ("peer_node", peer)])
        };
        Some(Totals {
            receive_packets: count("receive_packets")?,
            receive_bytes: count("receive_bytes")?,
            transmit_packets: count("transmit_packets")?,
            transmit_bytes: count("transmit_bytes")?,
        })
    }

    /// Peers of whom anything is counted on the device.
    pub(crate) fn counted_peers(&self, device: &str) -> Vec<String> {
        let counts =
            self.label_pairs("leadline_overlay_receive_packets_total", ["device", "peer_node"], None);
        counts.into_iter().filter(|(counted, _)| counted == device).map(|(_, peer)| peer).collect()
    }

    pub(crate) fn counted_devices(&self) -> Vec<String> {
        let counts =
            self.label_pairs("leadline_overlay_receive_packets_total", ["device", "peer_node"], None);
        counts.into_iter().map(|(device, _)| device).collect()
    }
}

/// A running agent as a reader sees it.
pub(crate) struct View(Agent);

impl View {
    pub(crate) fn new(agent: Agent) -> Self {
        Self(agent)
    }

    pub(crate) fn page(&self) -> Result<Page> {
        self.0.scrape().map(Page)
    }

    pub(crate) fn await_that(&self, what: &str, mut holds: impl FnMut(&Page) -> bool) -> Result<()> {
        wait_until(what, LIMIT, || self.page().is_ok_and(|page| holds(&page))).with_context(|| {
            let response = self.0.get("/metrics", &[]);
            let text = response.and_then(|response| response.text().map(str::to_owned)).unwrap_or_default();
            let lines = text.lines().filter(|line| line.starts_with("leadline_overlay_"));
            lines.collect::<Vec<_>>().join("\n")
        })
    }

    fn all_events(&self) -> Result<Vec<serde_json::Value>> {
        let response = self.0.get("/api/v1/events", &[])?;
        ensure!(response.status == 200, "/api/v1/events answered {}", response.status);
        let mut page: serde_json::Value = serde_json::from_slice(&response.body)?;
        serde_json::from_value(page["events"].take()).context("no list of events")
    }

    /// The subjects of all events of a kind.
    pub(crate) fn events(&self, kind: &str) -> Result<Vec<String>> {
        let events = self.all_events()?.into_iter().filter(|event| event["kind"] == kind);
        Ok(events.filter_map(|event| Some(event["subject"].as_str()?.to_owned())).collect())
    }

    /// Waits for an event of the kind and subject that has these details and perhaps others.
    pub(crate) fn await_event(&self, kind: &str, subject: &str, details: &[(&str, &str)]) -> Result<()> {
        let matches = |event: &serde_json::Value| {
            let has = details.iter().all(|(key, value)| event["details"][key] == *value);
            event["kind"] == kind && event["subject"] == subject && has
        };
        let found = || self.all_events().is_ok_and(|events| events.iter().any(matches));
        wait_until(&format!("event {kind} of {subject} with {details:?}"), LIMIT, found)
            .with_context(|| format!("{:?}", self.all_events()))
    }
}

/// Sends datagrams from one pod to another and back; none may be lost.
pub(crate) fn udp_exchange(from: &Pod, to: &Pod, ipv6: bool, count: u64, size: usize) -> Result<()> {
    exchange::datagrams((from, from.address(ipv6)?), (to, to.address(ipv6)?), count, size)
}
