//! Keys that end.

use anyhow::{Context as _, Result, ensure};
use lab::process::wait_until;
use lab::{Tailnet, tailnet};

use crate::stage::{agent, of, seconds, wait_event, wait_page};
use crate::{LIMIT, lab};

#[test]
fn the_end_of_a_key_is_told_before_and_when_it_comes_on_both_sides() -> Result<()> {
    let lab = lab(2)?;
    let tailnet = Tailnet::start(&lab)?;
    let (one, two) = (lab.node(1)?, lab.node(2)?);
    let observers = [agent(one, &[])?, agent(two, &[])?];
    let [first, second] = &observers;
    let running = |page: &lab::scrape::Samples| {
        page.value("leadline_tunnel_state", &[("state", "running")]) == Some(1.0)
    };
    for observer in &observers {
        wait_page(observer, "a node that runs", running)?;
    }
    tailnet.expire_key(two, "12s")?;
    let own = "leadline_tunnel_key_expiry_timestamp_seconds";
    let (page, _) = wait_page(second, "the end of the own key", |page| page.value(own, &[]).is_some())?;
    let witness = seconds(tailnet::status(two)?["Self"]["KeyExpiry"].as_str())?;
    ensure!(page.value(own, &[]) == witness, "{:?} and {witness:?}", page.value(own, &[]));
    let known = |page: &lab::scrape::Samples| of(page, "key_expiry_timestamp_seconds", two) == witness;
    let (page, _) = wait_page(first, "the end of the peer's key", known)?;
    ensure!(of(&page, "key_expired", two) == Some(0.0));
    for observer in &observers {
        wait_event(observer, "tunnel_key_expiring", "node2", &[])?;
    }
    // Time arrives on another way than the map, so that a second one is needed now and then.
    wait_until("tailscale to take the key for expired", LIMIT, || {
        let is_out = || tailnet::status(two).is_ok_and(|status| status["BackendState"] == "NeedsLogin");
        let is_known = || tailnet::peer(one, two).is_ok_and(|peer| peer["Expired"] == true);
        tailnet.refresh().is_ok() && is_out() && is_known()
    })?;
    let needs_login = |page: &lab::scrape::Samples| {
        page.value("leadline_tunnel_state", &[("state", "needs_login")]) == Some(1.0)
    };
    wait_page(second, "a node whose key has ended", needs_login)?;
    wait_page(first, "a peer whose key has ended", |page| of(page, "key_expired", two) == Some(1.0))?;
    ensure!(tailnet::status(two)?["Health"].as_array().context("no Health")?.is_empty());
    for observer in &observers {
        wait_event(observer, "tunnel_key_expired", "node2", &[])?;
    }
    wait_event(second, "tunnel_down", "node2", &[("state", "needs_login")])?;
    tailnet.expire_key(two, "never")?;
    wait_page(second, "a node with a key again", running)?;
    wait_event(second, "tunnel_up", "node2", &[])?;
    lab.shutdown()
}
