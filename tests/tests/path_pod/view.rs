//! What the agent says of paths between pods.

use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::scrape::Samples;
use lab::{Agent, wait_until};

use crate::NODES;

/// Long enough for whatever the kernel still has to do after the programs are done.
const SETTLE: Duration = Duration::from_secs(10);
const HANDSHAKE: &str = "leadline_path_pod_handshake_seconds";

/// Number of handshakes by node.
pub(crate) type Counts = Vec<(String, u64)>;

/// What an agent says that knows the other nodes and has seen no connection.
pub(crate) fn of_nobody(own: &str) -> Counts {
    NODES.iter().filter(|node| **node != own).map(|node| ((*node).to_owned(), 0)).collect()
}

fn counts(page: &Samples) -> Option<Counts> {
    let name = format!("{HANDSHAKE}_count");
    let samples = page.of(&name, |_| true);
    samples.map(|sample| Some((sample.label("peer_node")?.to_owned(), sample.count()?))).collect()
}

/// Waits until these are the handshakes, and reads whether they stay.
pub(crate) fn expect(agent: &Agent, expected: &[(String, u64)]) -> Result<()> {
    let read = || counts(&agent.scrape()?).context("a sample without a node or a count");
    let reached = wait_until("the handshakes", SETTLE, || read().is_ok_and(|read| read == expected));
    assert_eq!(read()?, expected, "measured (left) and witness (right)");
    println!("handshakes: {expected:?}, difference 0");
    reached
}

fn seconds(page: &Samples, name: &str, node: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(page.value(name, &[("peer_node", node)])?).ok()
}

/// The mean of the handshakes with a node.
pub(crate) fn mean(page: &Samples, node: &str) -> Result<Duration> {
    let count = page.count(&format!("{HANDSHAKE}_count"), &[("peer_node", node)]).context("no handshakes")?;
    let sum = seconds(page, &format!("{HANDSHAKE}_sum"), node).context("no sum of handshakes")?;
    Ok(sum / u32::try_from(count).ok().filter(|count| *count > 0).context("no sample")?)
}

/// The least round trip to a node.
pub(crate) fn least(page: &Samples, node: &str) -> Option<Duration> {
    seconds(page, "leadline_path_pod_min_rtt_seconds", node)
}
