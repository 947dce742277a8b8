//! A real Prometheus on the switch of the lab, with the configuration and the rules that are shipped, or with what its
//! operator makes of those for Kubernetes.

mod operator;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::agent;
use crate::alertmanager::{self, Alertmanager};
use crate::cluster::Lab;
use crate::machine::Machine;
use crate::place::Place as _;
use crate::process::wait_until;
use crate::service::Service;
use crate::{scrape, tools};

pub use operator::{Discovery, Operator};

/// Where Debian's listens on the switch.
pub const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// The time to start on a busy machine.
const START: Duration = Duration::from_secs(30);

/// Seconds between two values of a range, as between two scrapes.
const STEP: u8 = 5;

/// Which Prometheus runs. One of each has room on a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// Debian's, which on Debian 12 is the oldest one that boards and rules are for.
    Debian,
    /// 3.x, built from a pinned module.
    Three,
}

impl Release {
    /// Its name in paths.
    fn name(self) -> &'static str {
        match self {
            Self::Debian => "debian",
            Self::Three => "three",
        }
    }

    fn address(self) -> SocketAddr {
        match self {
            Self::Debian => ADDRESS,
            Self::Three => SocketAddr::new(ADDRESS.ip(), ADDRESS.port() + 1),
        }
    }

    fn program(self) -> Result<PathBuf> {
        match self {
            Self::Debian => tools::require("prometheus"),
            Self::Three => tools::prometheus_3(),
        }
    }
}

/// A running Prometheus that scrapes the agents of a lab by their addresses on the underlay.
#[derive(Debug)]
pub struct Prometheus<'lab> {
    switch: &'lab Machine,
    address: SocketAddr,
    service: Service,
}

impl<'lab> Prometheus<'lab> {
    /// Starts Debian's, and waits until it has scraped the agent of every node, which must listen where [`listen_address`]
    /// says.
    pub fn start(lab: &'lab Lab) -> Result<Self> {
        Self::start_telling(lab, Release::Debian, &[])
    }

    /// The same with that release.
    pub fn start_release(lab: &'lab Lab, release: Release) -> Result<Self> {
        Self::start_telling(lab, release, &[])
    }

    /// The same as [`Self::start`] with an Alertmanager that is told of alerts.
    pub fn start_with(lab: &'lab Lab, _told: &Alertmanager<'lab>) -> Result<Self> {
        Self::start_telling(lab, Release::Debian, &[alertmanager::ADDRESS])
    }

    fn start_telling(lab: &'lab Lab, release: Release, alertmanagers: &[SocketAddr]) -> Result<Self> {
        let directory = directory(lab, release)?;
        furnish(lab, alertmanagers, &directory).with_context(|| format!("write {}", directory.display()))?;
        let mut running = Self::start_furnished(lab, release)?;
        running.wait_scraping(lab.nodes().len())?;
        Ok(running)
    }

    /// Starts it with the configuration that is in its directory.
    fn start_furnished(lab: &'lab Lab, release: Release) -> Result<Self> {
        let (switch, directory, address) = (lab.switch()?, directory(lab, release)?, release.address());
        let mut command = Command::new(release.program()?);
        command.arg(format!("--config.file={}", directory.join("prometheus.yaml").display()));
        command.arg(format!("--storage.tsdb.path={}", directory.join("data").display()));
        command.arg(format!("--web.listen-address={address}"));
        let service = switch.service(&format!("prometheus-{}", release.name()), &mut command)?;
        Ok(Self { switch, address, service })
    }

    /// Waits until it is ready, and until so many agents are its targets, all of them scraped.
    pub fn wait_scraping(&mut self, agents: usize) -> Result<()> {
        let (switch, address) = (self.switch, self.address);
        let is_ready =
            || scrape::get(switch, address, "/-/ready", &[]).is_ok_and(|response| response.status == 200);
        self.service.wait_until("Prometheus to be ready", START, is_ready)?;
        let mut last = Ok(Vec::new());
        let waited = wait_until("Prometheus to have scraped all agents", START, || {
            last = self.targets();
            last.as_ref().is_ok_and(|targets| {
                targets.len() == agents && targets.iter().all(|target| target["health"] == "up")
            })
        });
        waited.with_context(|| format!("targets: {last:#?}"))
    }

    /// What the API has under `data`.
    fn get(&self, path: &str) -> Result<Value> {
        let response = scrape::get(self.switch, self.address, path, &[])?;
        let said = || response.text().unwrap_or_default().to_owned();
        ensure!(response.status == 200, "{path} answered {}: {}", response.status, said());
        let mut answer: Value = serde_json::from_str(response.text()?).with_context(|| path.to_owned())?;
        Ok(answer["data"].take())
    }

    /// Its version, such as `3.11.3`.
    pub fn version(&self) -> Result<String> {
        let told = self.get("/api/v1/status/buildinfo")?;
        Ok(told["version"].as_str().context("no version")?.to_owned())
    }

    /// What an expression has now: labels and a value each.
    pub fn query(&self, expression: &str) -> Result<Vec<Value>> {
        self.result(&format!("/api/v1/query?query={}", encode(expression)))
    }

    /// What an expression had within that time until now, as a panel asks for it: labels and values each.
    pub fn query_range(&self, expression: &str, back: Duration) -> Result<Vec<Value>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("a clock before 1970")?;
        let (from, to) = (now.saturating_sub(back).as_secs_f64(), now.as_secs_f64());
        let asked = encode(expression);
        self.result(&format!("/api/v1/query_range?query={asked}&start={from}&end={to}&step={STEP}"))
    }

    fn result(&self, path: &str) -> Result<Vec<Value>> {
        Ok(self.get(path)?["result"].as_array().context("no result")?.clone())
    }

    /// The values of a label of those that a selector selects.
    pub fn label_values(&self, selector: &str, label: &str) -> Result<Vec<String>> {
        let values = self.get(&format!("/api/v1/label/{label}/values?match[]={}", encode(selector)))?;
        serde_json::from_value(values).context("no list of values")
    }

    /// What it scrapes: labels and health each.
    pub fn targets(&self) -> Result<Vec<Value>> {
        let targets = self.get("/api/v1/targets?state=active")?;
        Ok(targets["activeTargets"].as_array().context("no list of targets")?.clone())
    }

    /// The labels of the alerts of that name that fire.
    pub fn firing(&self, alert: &str) -> Result<Vec<Value>> {
        let alerts = self.get("/api/v1/alerts")?;
        let alerts = alerts["alerts"].as_array().context("no list of alerts")?;
        let is_meant = |one: &&Value| one["state"] == "firing" && one["labels"]["alertname"] == alert;
        Ok(alerts.iter().filter(is_meant).map(|one| one["labels"].clone()).collect())
    }

    /// Waits until an alert fires; answers with its labels and the time that it took.
    pub fn wait_firing(&self, alert: &str, limit: Duration) -> Result<(Value, Duration)> {
        let begun = Instant::now();
        let mut firing = Vec::new();
        let waited = wait_until(&format!("{alert} to fire"), limit, || {
            firing = self.firing(alert).unwrap_or_default();
            !firing.is_empty()
        });
        waited.with_context(|| format!("alerts: {:#}", self.get("/api/v1/alerts").unwrap_or_default()))?;
        ensure!(firing.len() == 1, "{firing:#?}");
        Ok((firing.remove(0), begun.elapsed()))
    }

    /// Waits until an alert fires no more.
    pub fn wait_resolved(&self, alert: &str, limit: Duration) -> Result<Duration> {
        let begun = Instant::now();
        wait_until(&format!("{alert} to be resolved"), limit, || {
            self.firing(alert).is_ok_and(|firing| firing.is_empty())
        })?;
        Ok(begun.elapsed())
    }

    /// The names of all alerts, each evaluated without an error; an error of this names the rule.
    pub fn evaluated(&self) -> Result<Vec<String>> {
        let name = |rule: &Value| {
            ensure!(rule["health"] == "ok", "{rule:#}");
            Ok(rule["name"].as_str().context("a rule without a name")?.to_owned())
        };
        self.rules()?.iter().map(name).collect()
    }

    /// The rules that it has loaded: name and query each, and more.
    pub fn rules(&self) -> Result<Vec<Value>> {
        let rules = self.get("/api/v1/rules")?;
        let groups = rules["groups"].as_array().context("no groups of rules")?;
        Ok(groups.iter().flat_map(|group| group["rules"].as_array().into_iter().flatten()).cloned().collect())
    }
}

/// Where a release has its files.
fn directory(lab: &Lab, release: Release) -> Result<PathBuf> {
    Ok(lab.switch()?.scratch().join("prometheus").join(release.name()))
}

/// The argument by which an agent listens for Prometheus as well.
pub fn listen_address(node: &crate::node::Node) -> Result<String> {
    Ok(format!("--web.listen-address={}:{}", node.address(false)?, agent::ADDRESS.port()))
}

/// A text as it stands in an address.
fn encode(text: &str) -> String {
    text.bytes().map(encode_byte).collect()
}

fn encode_byte(byte: u8) -> String {
    let is_plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if is_plain { char::from(byte).to_string() } else { format!("%{byte:02X}") }
}

/// The shipped files beside lists of what there is here.
fn furnish(lab: &Lab, alertmanagers: &[SocketAddr], directory: &Path) -> Result<()> {
    let shipped = tools::workspace().join("dashboards");
    fs::create_dir_all(directory)?;
    fs::copy(shipped.join("prometheus.yaml"), directory.join("prometheus.yaml"))?;
    symlink(shipped.join("rendered"), directory.join("rendered"))?;
    let target = |node: &crate::node::Node| {
        let address = format!("{}:{}", node.address(false)?, agent::ADDRESS.port());
        Ok(serde_json::json!({"targets": [address], "labels": {"cluster": "lab", "node": node.name()}}))
    };
    let targets = lab.nodes().iter().map(target).collect::<Result<Value>>()?;
    fs::write(directory.join("agents.yaml"), targets.to_string())?;
    let told: Vec<String> = alertmanagers.iter().map(SocketAddr::to_string).collect();
    let told = serde_json::json!([{"targets": told}]);
    fs::write(directory.join("alertmanagers.yaml"), told.to_string())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_meaning_in_an_address_is_encoded() {
        assert_eq!(encode("a{b=~\"ä\"} > 0"), "a%7Bb%3D~%22%C3%A4%22%7D%20%3E%200");
    }
}
