//! What becomes of this node and its peers in the tailnet.

use anyhow::{Context as _, Result, ensure};
use lab::process::wait_until;
use lab::scrape::Samples;
use lab::{Tailnet, tailnet};

use crate::stage::{agent, of, path, wait_agreement, wait_event, wait_page};
use crate::{LIMIT, lab};

fn state(page: &Samples, state: &str) -> bool {
    page.value("leadline_tunnel_state", &[("state", state)]) == Some(1.0)
}

#[test]
fn a_tailscaled_that_is_restarted_is_missed_and_its_counts_do_not_fall() -> Result<()> {
    let lab = lab(2)?;
    let mut tailnet = Tailnet::start(&lab)?;
    let (one, two) = (lab.node(1)?, lab.node(2)?);
    let observer = agent(one, &[])?;
    let is_direct = |page: &Samples| path(page, two) == Some("direct");
    let bytes = |page: &Samples| of(page, "transmit_bytes_total", two);
    let traffic = tailnet::traffic(one, two)?;
    wait_page(&observer, "a direct path", is_direct)?;
    drop(traffic);
    let before = bytes(&wait_agreement(&observer, one, two)?).context("no bytes")?;
    tailnet.stop(one)?;
    observer.wait_support("tunnel", "degraded", "", LIMIT)?;
    ensure!(bytes(&observer.scrape()?).is_none());
    wait_event(&observer, "tunnel_down", "node1", &[("state", "unreachable")])?;
    tailnet.run(one)?;
    tailnet.wait_status(one, "to run again", |status| status["BackendState"] == "Running")?;
    observer.wait_support("tunnel", "supported", "", LIMIT)?;
    wait_event(&observer, "tunnel_up", "node1", &[("state", "running")])?;
    let traffic = tailnet::traffic(one, two)?;
    wait_page(&observer, "a direct path again", is_direct)?;
    drop(traffic);
    let mut last = None;
    let waited = wait_until("the bytes of both daemons", LIMIT, || {
        let counted = tailnet::peer(one, two).ok().and_then(|peer| peer["TxBytes"].as_f64());
        let shown = observer.scrape().ok().as_ref().and_then(bytes);
        last = counted.zip(shown);
        // A keepalive or two may have left between the last answer and the stop.
        last.is_some_and(|(counted, shown)| (0.0..=64.0).contains(&(shown - before - counted)))
    });
    println!("{before} bytes before; of the new daemon, and shown: {last:?}");
    waited.with_context(|| format!("{before} bytes before; of the new daemon, and shown: {last:?}"))?;
    lab.shutdown()
}

#[test]
fn a_node_that_is_logged_out_says_so_and_comes_back() -> Result<()> {
    let lab = lab(2)?;
    let mut tailnet = Tailnet::start(&lab)?;
    let (one, two) = (lab.node(1)?, lab.node(2)?);
    let observer = agent(one, &[])?;
    wait_agreement(&observer, one, two)?;
    tailnet::tailscale(one, &["logout"])?;
    let (page, _) = wait_page(&observer, "a logged out node", |page| state(page, "needs_login"))?;
    let status = tailnet::status(one)?;
    ensure!(status["BackendState"] == "NeedsLogin" && status["Peer"].is_null(), "{status}");
    ensure!(path(&page, two).is_none() && of(&page, "online", two).is_none());
    wait_event(&observer, "tunnel_down", "node1", &[("state", "needs_login")])?;
    tailnet.login(one)?;
    wait_page(&observer, "a node that runs", |page| state(page, "running"))?;
    wait_event(&observer, "tunnel_up", "node1", &[("state", "running")])?;
    lab.shutdown()
}

#[test]
fn a_route_without_approval_is_told_and_so_is_its_approval() -> Result<()> {
    let lab = lab(2)?;
    let tailnet = Tailnet::start(&lab)?;
    let one = lab.node(1)?;
    let observer = agent(one, &[])?;
    tailnet::tailscale(one, &["set", "--advertise-routes=10.42.3.0/24"])?;
    let approved = |wanted: f64| {
        move |page: &Samples| {
            page.value("leadline_tunnel_route_approved", &[("route", "10.42.3.0/24")]) == Some(wanted)
        }
    };
    wait_page(&observer, "a route without approval", approved(0.0))?;
    let status = tailnet::status(one)?;
    ensure!(status["Self"]["PrimaryRoutes"].is_null(), "{status}");
    ensure!(
        status["Health"].as_array().is_some_and(Vec::is_empty),
        "tailscale itself says nothing: {status}"
    );
    wait_event(&observer, "tunnel_route_unapproved", "10.42.3.0/24", &[])?;
    tailnet.approve_routes(one, "10.42.3.0/24")?;
    wait_page(&observer, "an approved route", approved(1.0))?;
    ensure!(tailnet::status(one)?["Self"]["PrimaryRoutes"][0] == "10.42.3.0/24");
    wait_event(&observer, "tunnel_route_approved", "10.42.3.0/24", &[])?;
    tailnet.approve_routes(one, "")?;
    wait_page(&observer, "an approval that is withdrawn", approved(0.0))?;
    lab.shutdown()
}

#[test]
fn a_peer_that_the_coordination_server_has_lost_is_told() -> Result<()> {
    let lab = lab(2)?;
    let tailnet = Tailnet::start(&lab)?;
    let (one, two) = (lab.node(1)?, lab.node(2)?);
    let observer = agent(one, &[])?;
    wait_page(&observer, "a peer on line", |page| of(page, "online", two) == Some(1.0))?;
    tailnet.set_online(two, false)?;
    wait_page(&observer, "a peer off line", |page| of(page, "online", two) == Some(0.0))?;
    ensure!(tailnet::peer(one, two)?["Online"] == false);
    wait_event(&observer, "tunnel_peer_lost", "node2", &[])?;
    tailnet.set_online(two, true)?;
    wait_page(&observer, "a peer on line again", |page| of(page, "online", two) == Some(1.0))?;
    wait_event(&observer, "tunnel_peer_back", "node2", &[])?;
    lab.shutdown()
}
