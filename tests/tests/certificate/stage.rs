//! A node with a `/etc/kubernetes` of its own, an authority, an agent, and openssl as the witness.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::process::wait_for;
use lab::{Agent, AgentOptions, Lab, LabOptions, Node, Place as _, process};
use serde_json::Value;

use crate::authority::{Authority, Pair};

/// Long enough for the agent to look at files.
pub(crate) const SOON: Duration = Duration::from_secs(25);

/// From when to when a certificate is good.
pub(crate) type Times = (u64, u64);

/// Purpose and location.
pub(crate) type Key = (String, String);

pub(crate) fn key(purpose: &str, location: &str) -> Key {
    (purpose.to_owned(), location.to_owned())
}

pub(crate) struct Stage {
    pub(crate) lab: Lab,
    pub(crate) authority: Authority,
}

impl Stage {
    pub(crate) fn new() -> Result<Self> {
        let lab = Lab::start(&LabOptions { nodes: 1, flannel: None })?;
        let node = lab.nodes().first().context("no node")?;
        // The machine need not have the directory, and nothing of the test may stay there.
        node.run(&[
            "sh",
            "-c",
            "mkdir /run/etc && cp -a /etc/. /run/etc && rm -rf /run/etc/kubernetes && mkdir /run/etc/kubernetes \
             && mount --bind /run/etc /etc",
        ])?;
        let authority = Authority::new(&node.machine().scratch().join("authority"))?;
        Ok(Self { lab, authority })
    }

    pub(crate) fn node(&self) -> Result<&Node> {
        self.lab.nodes().first().context("no node")
    }

    /// A path of the node, as the machine sees it.
    pub(crate) fn path(&self, path: &str) -> Result<PathBuf> {
        let root = format!("/proc/{}/root", self.node()?.machine().holder_pid());
        Ok(Path::new(&root).join(path.trim_start_matches('/')))
    }

    /// Writes a file of the node, as programs do that renew certificates: whole or not at all.
    pub(crate) fn write(&self, path: &str, content: &str) -> Result<()> {
        let to = self.path(path)?;
        let partial = to.with_extension("partial");
        fs::create_dir_all(to.parent().context("no directory")?)?;
        fs::write(&partial, content).with_context(|| path.to_owned())?;
        fs::rename(&partial, &to).with_context(|| path.to_owned())
    }

    /// Writes certificate and key, `PATH.crt` and `PATH.key`.
    pub(crate) fn write_pair(&self, path: &str, pair: &Pair) -> Result<()> {
        self.write(&format!("{path}.key"), &pair.key)?;
        self.write(&format!("{path}.crt"), &pair.certificate)
    }

    pub(crate) fn agent(&self, arguments: &[&str]) -> Result<Agent> {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let options = AgentOptions { arguments, limit: Duration::from_secs(30), ..AgentOptions::default() };
        Agent::start(self.node()?, &options)
    }

    /// What openssl reads of the certificate that this shell command of the node prints.
    pub(crate) fn witness(&self, shell: &str) -> Result<Times> {
        let script = format!("{shell} | openssl x509 -noout -startdate -enddate");
        let said = self.node()?.run(&["sh", "-c", &script])?;
        let date = |name: &str| {
            let date = said.lines().find_map(|line| line.strip_prefix(name)).with_context(|| said.clone())?;
            let seconds = process::run(Command::new("date").args(["-d", date, "+%s"]))?;
            seconds.trim().parse().with_context(|| format!("{date} is {seconds}"))
        };
        Ok((date("notBefore=")?, date("notAfter=")?))
    }

    /// The same of a file.
    pub(crate) fn of_file(&self, path: &str) -> Result<Times> {
        self.witness(&format!("cat {path}"))
    }

    /// The same of a server, from a client that has no certificate.
    pub(crate) fn of_server(&self, address: &str) -> Result<Times> {
        self.witness(&s_client(address))
    }

    /// The digest of a certificate that a shell command of the node prints.
    pub(crate) fn digest(&self, shell: &str) -> Result<String> {
        self.node()?.run(&["sh", "-c", &format!("{shell} | openssl x509 -noout -fingerprint -sha256")])
    }
}

pub(crate) fn s_client(address: &str) -> String {
    format!("openssl s_client -connect {address} </dev/null 2>/dev/null")
}

/// All certificates on the page.
pub(crate) fn shown(agent: &Agent) -> Result<BTreeMap<Key, Times>> {
    let page = agent.scrape()?;
    let of = |which: &str| -> Result<BTreeMap<Key, u64>> {
        let name = format!("leadline_certificate_not_{which}_timestamp_seconds");
        page.of(&name, |_| true)
            .map(|sample| {
                let label = |name: &str| sample.label(name).unwrap_or_default().to_owned();
                Ok(((label("purpose"), label("location")), sample.count().context("no whole number")?))
            })
            .collect()
    };
    let (before, after) = (of("before")?, of("after")?);
    assert!(before.keys().eq(after.keys()), "{before:?} {after:?}");
    Ok(before.into_iter().map(|(key, before)| (key.clone(), (before, after[&key]))).collect())
}

/// Waits until the page shows exactly these certificates.
pub(crate) fn wait_shown(agent: &Agent, expected: &BTreeMap<Key, Times>, limit: Duration) -> Result<()> {
    let waited = wait_for("the certificates of openssl", limit, || {
        shown(agent).ok().filter(|shown| shown == expected).map(drop)
    });
    waited.with_context(|| format!("shown: {:#?}, expected: {expected:#?}", shown(agent)))
}

/// Whether the server at an address shows an old certificate.
pub(crate) fn stale(agent: &Agent, purpose: &str, location: &str) -> Result<Option<u64>> {
    let labels = [("purpose", purpose), ("location", location)];
    Ok(agent.scrape()?.count("leadline_certificate_served_stale", &labels))
}

/// Level and reason of the collector.
pub(crate) fn support(agent: &Agent) -> Result<(String, String)> {
    let page = agent.scrape()?;
    let mut of =
        page.of("leadline_collector_support", |sample| sample.label("collector") == Some("certificate"));
    let sample = of.next().context("no support of the collector")?;
    let label = |name: &str| sample.label(name).unwrap_or_default().to_owned();
    Ok((label("level"), label("reason")))
}

/// Events of a kind, the oldest first.
pub(crate) fn events(agent: &Agent, kind: &str) -> Result<Vec<Value>> {
    let page = agent.get("/api/v1/events?limit=4096", &[])?;
    let page: Value = serde_json::from_str(page.text()?).context("the events are no JSON")?;
    let events = page["events"].as_array().context("no list of events")?;
    Ok(events.iter().filter(|event| event["kind"] == kind).cloned().collect())
}

/// Waits for an event of a kind about a subject.
pub(crate) fn wait_event(agent: &Agent, kind: &str, subject: &str, limit: Duration) -> Result<Value> {
    wait_for(&format!("{kind} of {subject}"), limit, || {
        events(agent, kind).ok()?.into_iter().find(|event| event["subject"] == subject)
    })
}

/// A time as the timeline writes it.
pub(crate) fn written(seconds: u64) -> Result<String> {
    let date =
        process::run(Command::new("date").args(["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%dT%H:%M:%S"]))?;
    Ok(format!("{}.000000000Z", date.trim()))
}
