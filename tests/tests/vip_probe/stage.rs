//! Three nodes with keepalived and a fourth without, and an agent on each.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::keepalived::Spec;
use lab::scrape::Samples;
use lab::{Agent, AgentOptions, Lab, LabOptions, Trio, wait_until};

/// Long enough for keepalived to fail over, and for a port that was silent to be tried again.
pub(crate) const LIMIT: Duration = Duration::from_secs(40);

/// The port of the API server, which agents try on their own.
pub(crate) const PORT: u16 = 6443;

pub(crate) struct Stage {
    pub(crate) trio: Trio,
    pub(crate) vip: IpAddr,
    pub(crate) agents: Vec<Agent>,
}

impl Stage {
    pub(crate) fn lab() -> Result<Lab> {
        Lab::start(&LabOptions { nodes: 4, flannel: None })
    }

    /// The trio with node1 as master, and no agent yet.
    pub(crate) fn new(lab: &Lab, spec: &Spec) -> Result<Self> {
        let trio = Trio::start(lab, spec)?;
        Ok(Self { vip: trio.vip()?, trio, agents: Vec::new() })
    }

    /// An agent on every node.
    pub(crate) fn start_agents(&mut self, lab: &Lab, arguments: &[String]) -> Result<()> {
        for node in lab.nodes() {
            let options = AgentOptions {
                arguments: arguments.to_vec(),
                limit: Duration::from_secs(30),
                ..AgentOptions::default()
            };
            self.agents.push(Agent::start(node, &options)?);
        }
        Ok(())
    }

    /// The agent of that node, from 1.
    pub(crate) fn agent(&self, index: usize) -> Result<&Agent> {
        self.agents.get(index - 1).with_context(|| format!("no agent on node{index}"))
    }

    /// Waits until every node's page shows it.
    pub(crate) fn wait(&self, what: &str, condition: impl Fn(usize, &Page) -> bool) -> Result<()> {
        for index in 1..=self.agents.len() {
            self.wait_one(index, what, |page| condition(index, page))?;
        }
        Ok(())
    }

    /// Waits until the page of one node shows it.
    pub(crate) fn wait_one(&self, index: usize, what: &str, condition: impl Fn(&Page) -> bool) -> Result<()> {
        let waited = wait_until(what, LIMIT, || self.page(index).is_ok_and(|page| condition(&page)));
        waited.with_context(|| {
            let page = self.page(index).map(|page| page.said()).unwrap_or_default();
            format!("node{index}: {page:#?}")
        })
    }

    pub(crate) fn page(&self, index: usize) -> Result<Page> {
        Ok(Page { vip: self.vip.to_string(), samples: self.agent(index)?.scrape()? })
    }

    /// Events of that kind about the address, the oldest first.
    pub(crate) fn events(&self, index: usize, kind: &str) -> Result<Vec<serde_json::Value>> {
        let answer = self.agent(index)?.get("/api/v1/events?limit=4096", &[])?;
        let answer: serde_json::Value = serde_json::from_str(answer.text()?).context("no JSON")?;
        let all = answer["events"].as_array().context("no list of events")?;
        let wanted =
            all.iter().filter(|event| event["kind"] == kind && event["subject"] == self.vip.to_string());
        Ok(wanted.cloned().collect())
    }

    /// Waits for that many events of a kind; answers with the last one's details.
    pub(crate) fn wait_event(&self, index: usize, kind: &str, count: usize) -> Result<serde_json::Value> {
        let what = format!("{count} {kind} on node{index}");
        wait_until(&what, LIMIT, || self.events(index, kind).is_ok_and(|events| events.len() == count))?;
        let last = self.events(index, kind)?.pop().context("no event")?;
        Ok(last["details"].clone())
    }
}

/// A page, and the address that is looked for on it.
pub(crate) struct Page {
    vip: String,
    pub(crate) samples: Samples,
}

impl Page {
    fn labels<'a>(&'a self, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        [("vip", &*self.vip), ("port", "6443")].into_iter().chain(more.iter().copied()).collect()
    }

    pub(crate) fn reachable(&self) -> Option<u64> {
        self.samples.count("leadline_vip_reachable", &self.labels(&[]))
    }

    pub(crate) fn unserved(&self) -> Option<u64> {
        self.samples.count("leadline_vip_unserved", &self.labels(&[]))
    }

    pub(crate) fn not_after(&self) -> Option<u64> {
        self.samples.count("leadline_vip_certificate_not_after_timestamp_seconds", &self.labels(&[]))
    }

    pub(crate) fn probes(&self, result: &str) -> Option<u64> {
        self.samples.count("leadline_vip_probes_total", &self.labels(&[("result", result)]))
    }

    /// How many probes have completed a phase, and the sum of their times in seconds.
    pub(crate) fn phase(&self, phase: &str) -> Option<(u64, f64)> {
        let labels = self.labels(&[("phase", phase)]);
        let count = self.samples.count("leadline_vip_probe_seconds_count", &labels)?;
        Some((count, self.samples.value("leadline_vip_probe_seconds_sum", &labels)?))
    }

    /// What the page says of its probes, for messages.
    fn said(&self) -> Vec<String> {
        let is_ours = |name: &str| {
            ["_reachable", "_probes_total", "_unserved", "_held"].iter().any(|end| name.ends_with(end))
        };
        let of_probes = self.samples.all().iter().filter(|sample| is_ours(&sample.name));
        of_probes.map(|sample| format!("{} {:?} {}", sample.name, sample.labels, sample.text)).collect()
    }
}
