//! Which sizes pass: a hole to the byte, and what the kernel promises by itself.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::scrape::Samples;
use lab::{Agent, Firewall, Lab, Place as _};
use serde_json::Value;

use crate::{LAYERS, mesh, start};

/// The time for a check, a search, and its confirmation.
const SEARCH: Duration = Duration::from_mins(1);
const MTU: u64 = 1_500;
/// Bytes that VXLAN puts around a packet of the overlay: Ethernet, VXLAN, UDP and IPv4.
const VXLAN: u64 = 50;

/// Promised, passes, and whether that is a hole, on each layer.
fn sizes(page: &Samples) -> [[Option<u64>; 3]; 2] {
    let of = |layer, name| page.count(&format!("leadline_path_{name}"), &[("layer", layer)]);
    LAYERS.map(|layer| ["promised_mtu_bytes", "mtu_bytes", "mtu_black_hole"].map(|name| of(layer, name)))
}

fn wait_sizes(agent: &Agent, wanted: [[u64; 3]; 2]) -> Result<()> {
    let (what, wanted) = (format!("sizes of {wanted:?}"), wanted.map(|layer| layer.map(Some)));
    agent.wait_page(&what, SEARCH, "leadline_path_", |page| sizes(page) == wanted).map(drop)
}

/// The details of each event of that kind, in the order of their layers.
fn events(agent: &Agent, kind: &str) -> Result<Vec<[String; 3]>> {
    let detail = |event: &Value, key: &str| event["details"][key].as_str().unwrap_or_default().to_owned();
    let keys = ["layer", "promised_bytes", "passes_bytes"];
    let mut told: Vec<_> =
        agent.events(kind)?.iter().map(|event| keys.map(|key| detail(event, key))).collect();
    told.sort();
    Ok(told)
}

fn told(layer: &str, promised: u64, passes: u64) -> [String; 3] {
    [layer.to_owned(), promised.to_string(), passes.to_string()]
}

/// Drops what is larger on the switch, from node 1, without a word.
fn swallow(lab: &Lab, larger_than: u64) -> Result<Firewall<'_, lab::Machine>> {
    let rule = format!("ip saddr {} ip length > {larger_than} counter drop", lab.node(1)?.address(false)?);
    let body = format!("chain hole {{ type filter hook forward priority 0;\n{rule}\n}}\n");
    Firewall::add(lab.switch()?, "bridge", "path_hole", &body)
}

#[test]
fn a_black_hole_is_found_to_the_byte_on_each_layer_and_its_end_is_told() -> Result<()> {
    let lab = start()?;
    let [agent, _other] = mesh(&lab)?;
    let [underlay, overlay] = [MTU, MTU - VXLAN];
    wait_sizes(&agent, [[underlay, underlay, 0], [overlay, overlay, 0]])?;
    let passes = 1_437;
    let hole = swallow(&lab, passes)?;
    wait_sizes(&agent, [[underlay, passes, 1], [overlay, passes - VXLAN, 1]])?;
    ensure!(hole.counted()? > 0, "nothing was dropped");
    drop(hole);
    wait_sizes(&agent, [[underlay, underlay, 0], [overlay, overlay, 0]])?;
    let opened = [told("overlay", overlay, passes - VXLAN), told("underlay", underlay, passes)];
    assert_eq!(events(&agent, "path_black_hole_opened")?, opened);
    let closed = [told("overlay", overlay, overlay), told("underlay", underlay, underlay)];
    assert_eq!(events(&agent, "path_black_hole_closed")?, closed);
    assert_eq!(agent.events("path_lost")?, Vec::<Value>::new());
    lab.shutdown()
}

#[test]
fn a_router_that_tells_makes_the_promise_smaller_and_no_hole() -> Result<()> {
    let lab = start()?;
    let [agent, _other] = mesh(&lab)?;
    wait_sizes(&agent, [[MTU, MTU, 0], [MTU - VXLAN, MTU - VXLAN, 0]])?;
    let (node, router, to) = (lab.node(1)?, lab.switch()?, lab.node(2)?.address(false)?);
    // Without redirects, which would show the node the way around the router.
    let settings = "cd /proc/sys/net/ipv4; echo 1 > ip_forward; for i in all br0; do echo 0 > conf/$i/send_redirects; done";
    router.run(&["sh", "-ec", settings])?;
    router.ip(&format!("route add {to}/32 dev br0 mtu 1400\n"))?;
    node.ip(&format!("route add {to}/32 via {} dev eth0\n", router.address(false)?))?;
    let underlay = [1_400, 1_400, 0].map(Some);
    agent.wait_page("the router's size", SEARCH, "leadline_path_", |page| sizes(page)[0] == underlay)?;
    let route = node.run(&["ip", "route", "get", &to.to_string()])?;
    ensure!(route.contains("mtu 1400"), "the kernel has heard of nothing: {route}");
    assert_eq!(events(&agent, "path_black_hole_opened")?, Vec::<[String; 3]>::new());
    lab.shutdown()
}

#[test]
fn the_promise_is_that_of_the_route_and_of_the_device() -> Result<()> {
    let lab = start()?;
    let [agent, _other] = mesh(&lab)?;
    let [node, other] = [lab.node(1)?, lab.node(2)?];
    let to = other.address(false)?;
    node.ip(&format!("route add {to}/32 dev eth0 mtu 1400\nlink set flannel.1 mtu 1300\n"))?;
    let route = node.run(&["ip", "route", "get", &to.to_string()])?;
    ensure!(route.contains("mtu 1400"), "{route}");
    wait_sizes(&agent, [[1_400, 1_400, 0], [1_300, 1_300, 0]])?;
    node.ip(&format!("route del {to}/32 dev eth0\n")).context("the route is gone")?;
    wait_sizes(&agent, [[MTU, MTU, 0], [1_300, 1_300, 0]])?;
    assert_eq!(events(&agent, "path_black_hole_opened")?, Vec::<[String; 3]>::new());
    lab.shutdown()
}
