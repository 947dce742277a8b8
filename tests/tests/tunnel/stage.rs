//! An agent beside tailscaled, and what it shows against what tailscale says.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::process::wait_for;
use lab::scrape::Samples;
use lab::tailnet::Daemon;
use lab::{Agent, AgentOptions, Node, tailnet};
use serde_json::Value;

use crate::LIMIT;

/// The paths that there are.
const PATHS: [&str; 4] = ["direct", "peer_relay", "derp", "idle"];

/// An agent on a node, with further arguments.
pub(crate) fn agent(node: &Node, arguments: &[&str]) -> Result<Agent> {
    let arguments = arguments.iter().map(ToString::to_string).collect();
    Agent::start(node, &AgentOptions { arguments, limit: Duration::from_secs(30), ..AgentOptions::default() })
}

/// A number of a peer.
pub(crate) fn of(page: &Samples, name: &str, peer: &impl Daemon) -> Option<f64> {
    page.value(&format!("leadline_tunnel_peer_{name}"), &[("peer", peer.hostname())])
}

/// The one path that a page says of a peer.
pub(crate) fn path(page: &Samples, peer: &impl Daemon) -> Option<&'static str> {
    let is = |path: &&&str| {
        page.value("leadline_tunnel_peer_path", &[("peer", peer.hostname()), ("path", path)]) == Some(1.0)
    };
    let set: Vec<_> = PATHS.iter().filter(is).collect();
    (set.len() == 1).then(|| *set[0])
}

/// The path in the words of `tailscale status`, which decides by itself what it calls it.
pub(crate) fn witness_path(daemon: &impl Daemon, peer: &impl Daemon) -> Result<&'static str> {
    let said = daemon.tailscale(&["status"])?;
    let line = said.lines().find(|line| line.split_whitespace().nth(1) == Some(peer.hostname()));
    let line = line.with_context(|| format!("no {} in {said}", peer.hostname()))?;
    let words = [("; direct ", "direct"), ("; peer-relay ", "peer_relay"), ("; relay ", "derp")];
    if let Some((_, path)) = words.iter().find(|(word, _)| line.contains(word)) {
        return Ok(path);
    }
    ensure!(!line.contains("active"), "{line}");
    Ok("idle")
}

/// How many series there are.
pub(crate) fn series(page: &Samples) -> usize {
    page.all().iter().filter(|sample| sample.name.starts_with("leadline_tunnel_")).count()
}

/// Waits until the page of an agent is as it should be; answers with it and the time that it took.
pub(crate) fn wait_page(
    agent: &Agent,
    what: &str,
    holds: impl Fn(&Samples) -> bool,
) -> Result<(Samples, Duration)> {
    agent.wait_page(what, LIMIT, "leadline_tunnel_", holds)
}

/// Waits until an agent says of a peer what `tailscale status --json` says at the same time, to the byte.
pub(crate) fn wait_agreement(agent: &Agent, daemon: &impl Daemon, peer: &impl Daemon) -> Result<Samples> {
    let mut last = Ok(());
    let waited = wait_for(&format!("agent and tailscale to agree on {}", peer.hostname()), LIMIT, || {
        let (said, page) = (tailnet::peer(daemon, peer).ok()?, agent.scrape().ok()?);
        last = agree(&page, daemon, peer, &said);
        last.is_ok().then_some(page)
    });
    waited.with_context(|| last.err().map(|error| format!("{error:#}")).unwrap_or_default())
}

fn agree(page: &Samples, daemon: &impl Daemon, peer: &impl Daemon, said: &Value) -> Result<()> {
    let (shown, witness) = (path(page, peer), witness_path(daemon, peer)?);
    ensure!(shown == Some(witness), "path: {shown:?} and {witness}");
    let mut listed: Vec<&str> = page
        .of("leadline_tunnel_peer_address_info", |sample| sample.label("peer") == Some(peer.hostname()))
        .filter_map(|sample| sample.label("peer_address"))
        .collect();
    let mut addresses: Vec<&str> =
        said["TailscaleIPs"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    listed.sort_unstable();
    addresses.sort_unstable();
    ensure!(listed == addresses && !listed.is_empty(), "addresses: {listed:?} and {addresses:?}");
    let flag = |name: &str| said[name].as_bool().map(|is| f64::from(u8::from(is)));
    ensure!(of(page, "online", peer) == flag("Online"), "online: {said}");
    ensure!(of(page, "key_expired", peer) == Some(flag("Expired").unwrap_or(0.0)), "expired: {said}");
    for (name, field) in [("receive_bytes_total", "RxBytes"), ("transmit_bytes_total", "TxBytes")] {
        ensure!(
            of(page, name, peer) == said[field].as_f64(),
            "{field}: {:?} and {said}",
            of(page, name, peer)
        );
    }
    for (name, field) in
        [("handshake_timestamp_seconds", "LastHandshake"), ("key_expiry_timestamp_seconds", "KeyExpiry")]
    {
        let (shown, witness) = (of(page, name, peer), seconds(said[field].as_str())?);
        let differ = shown.zip(witness).map(|(shown, witness)| (shown - witness).abs());
        ensure!(shown.is_some() == witness.is_some(), "{field}: {shown:?} and {said}");
        ensure!(differ.is_none_or(|differ| differ < 1e-3), "{field}: {shown:?} and {witness:?}");
    }
    let endpoint = page.only("leadline_tunnel_peer_endpoint", &[("peer", peer.hostname())]);
    let endpoint = endpoint.and_then(|sample| sample.label("endpoint")).unwrap_or_default();
    let is_idle = said["Active"] == false;
    ensure!(is_idle || said["CurAddr"] == endpoint, "endpoint: {endpoint} and {said}");
    Ok(())
}

/// Seconds since 1970 of a time of tailscale, by `date`; none for its zero.
pub(crate) fn seconds(text: Option<&str>) -> Result<Option<f64>> {
    let Some(text) = text.filter(|text| !text.starts_with("0001")) else { return Ok(None) };
    let said = lab::run(std::process::Command::new("date").args(["+%s.%N", "--date", text]))?;
    said.trim().parse().map(Some).with_context(|| said)
}

/// Waits for an event of a kind that has these details; there must be one only.
pub(crate) fn wait_event(
    agent: &Agent,
    kind: &str,
    subject: &str,
    details: &[(&str, &str)],
) -> Result<Value> {
    let mut last = Vec::new();
    let waited = wait_for(&format!("{kind} of {subject}"), LIMIT, || {
        last = agent.events(kind).ok()?;
        let fits = |event: &&Value| {
            event["subject"] == subject && details.iter().all(|(key, value)| event["details"][key] == *value)
        };
        let found: Vec<_> = last.iter().filter(fits).collect();
        (found.len() == 1).then(|| found[0].clone())
    });
    waited.with_context(|| format!("{last:#?}"))
}
