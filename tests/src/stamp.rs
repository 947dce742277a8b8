//! A sender and a reflector of STAMP (RFC 8762, RFC 8972) that share no code with ours: stamp-suite.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::node::Node;
use crate::place::Place as _;
use crate::service::Service;
use crate::{process, tools};

/// The port of our reflector, and of theirs in the lab.
pub const PORT: u16 = 9862;

/// The time that the reflector may take to begin.
const LIMIT: Duration = Duration::from_secs(10);

/// What the sender says in the end.
#[derive(Clone, Debug)]
pub struct Report {
    /// Packets that it sent.
    pub sent: u64,
    /// Packets that were answered.
    pub received: u64,
    /// Packets that were not.
    pub lost: u64,
    /// All of it.
    pub whole: Value,
}

impl Report {
    fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let whole = lines.rfind(|line| line["type"] == "summary");
        let whole = whole.with_context(|| format!("no summary in: {text}"))?;
        let count = |name: &str| whole[name].as_u64().with_context(|| format!("no {name} in {whole}"));
        Ok(Self {
            sent: count("packets_sent")?,
            received: count("packets_received")?,
            lost: count("packets_lost")?,
            whole: whole.clone(),
        })
    }

    /// A round trip in seconds: `min`, `avg`, `median` or `max`.
    pub fn rtt(&self, which: &str) -> Result<f64> {
        let told = self.whole[format!("{which}_rtt_ms")].as_f64();
        told.map(|ms| ms / 1e3).with_context(|| format!("no {which} in {}", self.whole))
    }
}

/// Sends packets from a node to a reflector, ten milliseconds apart, and waits two seconds for the last answers.
pub fn send(from: &Node, to: IpAddr, packets: u32, options: &[&str]) -> Result<Report> {
    let mut command = from.command(&tools::stamp_suite()?.display().to_string())?;
    command.args(["--remote-addr", &to.to_string(), "--remote-port", &PORT.to_string()]);
    command.args(["--count", &packets.to_string(), "--send-delay", "10", "--timeout", "2"]);
    command.args(["--output-format", "json"]).args(options);
    let limit = LIMIT + Duration::from_millis(10) * packets;
    let report = Report::parse(&process::run_for(&mut command, limit)?)?;
    ensure!(report.sent == u64::from(packets), "{report:?}");
    Ok(report)
}

/// Runs the reflector on a node, on all its addresses.
pub fn reflect(on: &Node, options: &[&str]) -> Result<Service> {
    let mut command = std::process::Command::new(tools::stamp_suite()?);
    command.args(["--is-reflector", "--local-addr", "0.0.0.0", "--local-port", &PORT.to_string()]);
    command.args(options);
    let mut service = on.service("stamp-suite", &mut command)?;
    let listens = || {
        let said =
            on.run(&["ss", "--no-header", "--listening", "--udp", "--numeric", &format!("sport = :{PORT}")]);
        said.is_ok_and(|sockets| !sockets.trim().is_empty())
    };
    service.wait_until("the reflector to listen", LIMIT, listens)?;
    Ok(service)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_what_counts() {
        let line = |kind: &str, sent: u32| {
            format!(
                r#"{{"type":"{kind}","packets_sent":{sent},"packets_received":2,"packets_lost":1,"min_rtt_ms":0.25}}"#
            )
        };
        let report = Report::parse(&[line("interim", 1), line("summary", 3)].join("\n")).unwrap();
        assert_eq!((report.sent, report.received, report.lost), (3, 2, 1));
        assert!((report.rtt("min").unwrap() - 0.000_25).abs() < 1e-12);
        assert!(report.rtt("max").is_err() && Report::parse(&line("interim", 1)).is_err());
    }
}
