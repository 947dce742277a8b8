//! A real Alertmanager on the switch of the lab, with the configuration that is shipped.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::Lab;
use crate::machine::Machine;
use crate::place::Place as _;
use crate::process::{self, wait_for};
use crate::service::Service;
use crate::{scrape, tools};

/// Where it listens on the switch.
pub(crate) const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9093);

/// The time to start on a busy machine.
const START: Duration = Duration::from_secs(30);

/// A running Alertmanager.
#[derive(Debug)]
pub struct Alertmanager<'lab> {
    switch: &'lab Machine,
    _service: Service,
}

impl<'lab> Alertmanager<'lab> {
    /// Starts it and waits until it is ready.
    pub fn start(lab: &'lab Lab) -> Result<Self> {
        let switch = lab.switch()?;
        let directory = switch.scratch().join("alertmanager");
        fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        let config = tools::workspace().join("dashboards/alertmanager.yaml");
        let mut command = Command::new(tools::require("prometheus-alertmanager")?);
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.path={}", directory.display()));
        command.arg(format!("--web.listen-address={ADDRESS}"));
        // It is alone.
        command.arg("--cluster.listen-address=");
        let mut service = switch.service("alertmanager", &mut command)?;
        let is_ready =
            || scrape::get(switch, ADDRESS, "/-/ready", &[]).is_ok_and(|response| response.status == 200);
        service.wait_until("Alertmanager to be ready", START, is_ready)?;
        Ok(Self { switch, _service: service })
    }

    /// The alerts of that name that are active: neither silenced nor inhibited.
    pub fn active(&self, alert: &str) -> Result<Vec<Value>> {
        let path = "/api/v2/alerts?active=true&silenced=false&inhibited=false";
        let response = scrape::get(self.switch, ADDRESS, path, &[])?;
        ensure!(response.status == 200, "{path} answered {}", response.status);
        let alerts: Vec<Value> = serde_json::from_str(response.text()?).context("no list of alerts")?;
        Ok(alerts.into_iter().filter(|one| one["labels"]["alertname"] == alert).collect())
    }

    /// Tells it of alerts with these labels, as Prometheus does.
    pub fn tell(&self, alerts: &[Value]) -> Result<()> {
        let told: Vec<Value> = alerts.iter().map(|labels| json!({"labels": labels})).collect();
        let mut command = self.switch.command("curl")?;
        command.args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "10"]);
        command.args([
            "--header",
            "Content-Type: application/json",
            "--data",
            &Value::from(told).to_string(),
        ]);
        command.arg(format!("http://{ADDRESS}/api/v2/alerts"));
        process::run(&mut command).map(drop)
    }

    /// Waits until it was told of an alert; answers with it and the time that it took.
    pub fn wait_told(&self, alert: &str, limit: Duration) -> Result<(Value, Duration)> {
        let begun = Instant::now();
        let told = wait_for(&format!("Alertmanager to be told of {alert}"), limit, || {
            self.active(alert).ok()?.into_iter().next()
        })?;
        Ok((told, begun.elapsed()))
    }
}
