//! The overlay as flanneld makes it: what the agent says of the device, of the peers and of what passes between them.

mod overlay {
    mod stale;
    pub(crate) mod view;
    mod wireguard;
}

use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::foreign::{Hook, order_on_device};
use lab::witness::{self, Device};
use lab::{
    Agent, AgentOptions, Backend, Flannel, Lab, LabOptions, Node, Place as _, Pod, PodSpec, wait_until,
};
use overlay::view::{Page, Totals, View, udp_exchange};

/// The time in which the agent must have noticed a change.
const LIMIT: Duration = Duration::from_secs(10);
const DEVICE: &str = "flannel.1";
const DEVICE6: &str = "flannel-v6.1";
const PEERS: [&str; 2] = ["192.168.56.12", "192.168.56.13"];
const ENTRIES: [&str; 3] = ["route", "neighbour", "fdb"];

fn start(backend: Backend, ipv6: bool) -> Result<Lab> {
    Lab::start(&LabOptions { flannel: Some(Flannel { backend, ipv6 }), ..LabOptions::default() })
}

/// An agent on node 1 that sees the overlay device and both peers.
fn observe(lab: &Lab, device: &str) -> Result<View> {
    let view = View::new(Agent::start(lab.node(1)?, &AgentOptions::default())?);
    view.await_that("both peers to be whole and counted", |page| is_whole(page, device))?;
    Ok(view)
}

fn is_whole(page: &Page, device: &str) -> bool {
    PEERS.iter().all(|peer| {
        let whole = ENTRIES.iter().all(|entry| page.missing(device, peer, entry) == Some(0));
        whole && page.totals(device, peer).is_some()
    })
}

/// The device as `ip` shows it.
fn link(node: &Node, device: &str) -> Result<serde_json::Value> {
    let output = node.run(&["ip", "-json", "-details", "link", "show", "dev", device])?;
    let links: serde_json::Value = serde_json::from_str(&output)?;
    links.get(0).cloned().with_context(|| format!("no {device} in {output}"))
}

fn is_up(link: &serde_json::Value) -> bool {
    let flags = link["flags"].as_array().cloned().unwrap_or_default();
    ["UP", "LOWER_UP"].iter().all(|wanted| flags.iter().any(|flag| flag == wanted))
}

#[test]
fn the_device_is_as_ip_shows_it() -> Result<()> {
    let lab = start(Backend::Vxlan, false)?;
    let view = observe(&lab, DEVICE)?;
    let node = lab.node(1)?;
    let page = view.page()?;
    let shown = link(node, DEVICE)?;
    assert_eq!(shown["linkinfo"]["info_kind"], "vxlan");
    assert_eq!(page.info(), [("vxlan".to_owned(), DEVICE.to_owned())]);
    assert_eq!(page.mtu(DEVICE), shown["mtu"].as_u64());
    assert_eq!((page.up(DEVICE), is_up(&shown)), (Some(1), true));
    assert_eq!(page.support(), ("supported".into(), String::new()));
    // A peer is counted from 0 before its first packet.
    for peer in PEERS {
        assert_eq!(page.totals(DEVICE, peer), Some(Totals::default()), "{peer}");
    }

    node.ip("link set flannel.1 mtu 1400 down\n")?;
    view.await_that("the change", |page| (page.mtu(DEVICE), page.up(DEVICE)) == (Some(1400), Some(0)))?;
    let shown = link(node, DEVICE)?;
    assert_eq!((shown["mtu"].as_u64(), is_up(&shown)), (Some(1400), false));
    view.await_event("overlay_device_changed", DEVICE, &[("mtu_from", "1450"), ("mtu_to", "1400")])?;
    view.await_event("overlay_device_changed", DEVICE, &[("up", "false")])?;
    lab.shutdown()
}

/// One pod on each node, the first being the agent's.
fn pods(lab: &Lab) -> Result<(Pod, [Pod; 2])> {
    let pod = |index: u8| lab.node(index)?.pod(PodSpec::new(&format!("pod-{index}")));
    Ok((pod(1)?, [pod(2)?, pod(3)?]))
}

/// Without segmentation every inner frame crosses the overlay device singly, and it counts what the agent counts.
fn make_exact(lab: &Lab, pods: &[&Pod]) -> Result<()> {
    for pod in pods {
        pod.set_segmentation(false)?;
        pod.pin_neighbours(&[])?;
    }
    for node in lab.nodes() {
        witness::set_segmentation(node, DEVICE, false)?;
    }
    lab.pin_underlay()
}

/// The device's own counters, which are at layer 3: VXLAN counts inner packets without their Ethernet header
/// (`iptunnel_xmit`, `vxlan_rcv` after `eth_type_trans`).
fn layer3(device: &Device) -> Totals {
    Totals {
        receive_packets: device.receive_packets,
        receive_bytes: device.receive_bytes,
        transmit_packets: device.transmit_packets,
        transmit_bytes: device.transmit_bytes,
    }
}

/// TCP and UDP, to and from two peers, against the device itself: difference 0.
#[test]
fn bytes_and_packets_by_peer_add_up_to_those_of_the_device() -> Result<()> {
    let lab = start(Backend::Vxlan, false)?;
    let (local, remote) = pods(&lab)?;
    make_exact(&lab, &[&local, &remote[0], &remote[1]])?;
    // The device's own announcements (IPv6 router solicitations) are no traffic of pods.
    lab.node(1)?.run(&["sysctl", "-w", "net.ipv6.conf.flannel/1.disable_ipv6=1"])?;
    let view = observe(&lab, DEVICE)?;
    let node = lab.node(1)?;
    let by_peer = || -> Result<[Totals; 2]> {
        let page = view.page()?;
        let totals =
            PEERS.map(|peer| page.totals(DEVICE, peer).with_context(|| format!("no counts of {peer}")));
        let [first, second] = totals;
        Ok([first?, second?])
    };
    let (device, before) = (witness::device(node, DEVICE)?, by_peer()?);
    let amounts = [40_000_000, 15_000_000];
    for (pod, amount) in remote.iter().zip(amounts) {
        for reverse in [false, true] {
            let amount = witness::Amount::Bytes(amount);
            witness::iperf3(&local, pod, &witness::Iperf { amount, reverse, ..witness::Iperf::default() })?;
        }
    }
    let datagrams = [(0, 300_u64, 1_000_usize), (1, 200, 1)];
    for (peer, count, size) in datagrams {
        udp_exchange(&local, &remote[peer], false, count, size)?;
    }
    let settled = settled(node)?;
    let (after, device) = (by_peer()?, settled.since(&device));
    let each = [after[0].since(&before[0]), after[1].since(&before[1])];
    println!("device: {:?}; peers: {each:?}", layer3(&device));
    assert_eq!(device.receive_dropped + device.transmit_dropped, 0);
    assert_eq!(each[0].plus(&each[1]), layer3(&device));
    // Each direction carried what was sent to or from its own peer.
    for (totals, amount) in each.iter().zip(amounts) {
        for bytes in [totals.receive_bytes, totals.transmit_bytes] {
            // iperf3 closes with data unsent: what it wrote is not all on the wire. The peers' amounts stay apart.
            assert!((amount * 7 / 10..amount * 13 / 10).contains(&bytes), "{bytes} for {amount}");
        }
    }
    lab.shutdown()
}

/// The device's counters once nothing is under way any more.
fn settled(node: &Node) -> Result<Device> {
    let mut last = witness::device(node, DEVICE)?;
    let mut same = 0;
    wait_until("the overlay device to be silent", LIMIT, || {
        let now = witness::device(node, DEVICE).unwrap_or(last);
        same = if now == last { same + 1 } else { 0 };
        last = now;
        same >= 10
    })?;
    Ok(last)
}

#[test]
fn host_gw_has_no_device_to_count_on() -> Result<()> {
    let lab = start(Backend::HostGw, false)?;
    let view = View::new(Agent::start(lab.node(1)?, &AgentOptions::default())?);
    view.await_that("the backend", |page| page.info() == [("host-gw".to_owned(), "eth0".to_owned())])?;
    let (local, remote) = pods(&lab)?;
    udp_exchange(&local, &remote[0], false, 10, 100)?;
    let page = view.page()?;
    let reason = "host-gw has no overlay device to count on".to_owned();
    assert_eq!(page.support(), ("degraded".into(), reason));
    assert_eq!(page.totals("eth0", PEERS[0]), None);
    assert_eq!(page.counted_devices(), Vec::<String>::new());
    assert_eq!(page.attached("leadline_ovrx"), Some(0));
    for peer in PEERS {
        assert_eq!(page.missing("eth0", peer, "route"), Some(0));
        assert_eq!(page.missing("eth0", peer, "fdb"), None);
    }
    lab.node(1)?.ip("route del 10.42.3.0/24\nroute add blackhole 10.42.3.0/24\n")?;
    view.await_that("the loss of a peer", |page| page.missing("eth0", PEERS[1], "route") != Some(0))?;
    lab.shutdown()
}

#[test]
fn a_node_without_an_overlay_says_so() -> Result<()> {
    let lab = Lab::start(&LabOptions { nodes: 1, flannel: None })?;
    let arguments = vec!["--collector.overlay=on".into()];
    let view = View::new(Agent::start(lab.node(1)?, &AgentOptions { arguments, ..AgentOptions::default() })?);
    let page = view.page()?;
    assert_eq!(page.info(), [("none".to_owned(), String::new())]);
    assert_eq!(page.support(), ("supported".into(), String::new()));
    lab.shutdown()
}

/// Takes an entry away, or puts it back.
type Cut<'a> = &'a dyn Fn(bool) -> Result<()>;

#[test]
fn a_lost_entry_is_missed_for_its_peer_and_heals() -> Result<()> {
    let lab = start(Backend::Vxlan, false)?;
    let view = observe(&lab, DEVICE)?;
    let node = lab.node(1)?;
    let neighbours = node.run(&["ip", "neigh", "show", "dev", DEVICE, "10.42.3.0"])?;
    let mac = neighbours.split_whitespace().skip_while(|word| *word != "lladdr").nth(1);
    let mac = mac.with_context(|| format!("no VTEP in {neighbours}"))?;
    let route = format!("10.42.3.0/24 via 10.42.3.0 dev {DEVICE} onlink");
    let neighbour = format!("10.42.3.0 lladdr {mac} dev {DEVICE} nud permanent");
    let endpoint = [mac, "dev", DEVICE, "dst", "192.168.56.13"];
    let fdb = |action: &str| node.run(&[&["bridge", "fdb", action][..], &endpoint].concat()).map(drop);
    let cuts: [(&str, Cut<'_>); 3] = [
        ("route", &|lost| node.ip(&format!("route {} {route}\n", if lost { "del" } else { "add" }))),
        ("neighbour", &|lost| {
            node.ip(&format!("neigh {} {neighbour}\n", if lost { "del" } else { "replace" }))
        }),
        ("fdb", &|lost| fdb(if lost { "del" } else { "append" })),
    ];
    for (entry, set) in cuts {
        set(true)?;
        let expected = vec![(PEERS[1].to_owned(), entry.to_owned())];
        view.await_that(&format!("a missing {entry} of the right peer"), |page| {
            page.all_missing(DEVICE) == expected
        })?;
        set(false)?;
        view.await_that(&format!("the {entry} to be back"), |page| page.all_missing(DEVICE).is_empty())?;
    }
    // The peer was never another one.
    assert_eq!(view.events("peer_node_removed")?, Vec::<String>::new());
    lab.shutdown()
}

/// What a peer has been sent, after an exchange of datagrams of 500 bytes with it.
fn exchange_and_count(view: &View, local: &Pod, remote: &Pod) -> Result<u64> {
    let sent = |page: &Page| page.totals(DEVICE, PEERS[0]).map(|totals| totals.transmit_bytes);
    let before = sent(&view.page()?).context("no counts")?;
    udp_exchange(local, remote, false, 20, 500)?;
    let after = sent(&view.page()?).context("no counts")?;
    assert_eq!(after - before, 20 * (500 + 28));
    Ok(after)
}

/// The counters go on where they were, and the programs are attached to the new device.
#[test]
fn counting_goes_on_over_a_restart_of_flanneld_and_over_a_new_device() -> Result<()> {
    let mut lab = start(Backend::Vxlan, false)?;
    let (local, remote) = pods(&lab)?;
    let view = observe(&lab, DEVICE)?;
    let node = lab.node(1)?.clone();
    let first = exchange_and_count(&view, &local, &remote[0])?;

    lab.flannel()?.restart_daemon(&node)?;
    view.await_that("the peers after flanneld's restart", |page| is_whole(page, DEVICE))?;
    let second = exchange_and_count(&view, &local, &remote[0])?;
    assert!(second >= first + 20 * 528, "{first}, then {second}");

    // More often than the agent has room for indexes, were the old ones kept.
    for _ in 0..20 {
        let old = index(&node)?;
        node.ip("link del flannel.1\n")?;
        view.await_that("the device to be gone", |page| page.up(DEVICE).is_none())?;
        node.ip("link add flannel.1 type vxlan id 1 dev eth0 local 192.168.56.11 dstport 8472 nolearning\n\
             link set flannel.1 up\n")?;
        assert_ne!(index(&node)?, old);
        await_programs(&node)?;
    }
    node.ip("link del flannel.1\n")?;
    lab.flannel()?.restart_daemon(&node)?;
    await_programs(&node)?;
    view.await_that("the peers on flanneld's new device", |page| is_whole(page, DEVICE))?;
    view.await_event("overlay_device_removed", DEVICE, &[("backend", "vxlan")])?;
    view.await_event("overlay_device_added", DEVICE, &[("backend", "vxlan")])?;
    let third = exchange_and_count(&view, &local, &remote[0])?;
    assert!(third >= second + 20 * 528, "{second}, then {third}");
    lab.shutdown()
}

fn await_programs(node: &Node) -> Result<()> {
    let hangs = |hook| order_on_device(hook, node, DEVICE).is_ok_and(|programs| programs.len() == 1);
    wait_until("the programs on the new device", LIMIT, || hangs(Hook::TcxIngress) && hangs(Hook::TcxEgress))
}

fn index(node: &Node) -> Result<u64> {
    link(node, DEVICE)?["ifindex"].as_u64().context("a device without an index")
}

/// Each family has a device of its own. The nodes' underlay addresses answer with one hardware address, by which the
/// agent knows that the peers of both are the same two nodes.
#[test]
fn both_families_of_a_node_are_one_peer() -> Result<()> {
    let lab = start(Backend::Vxlan, true)?;
    let (local, remote) = pods(&lab)?;
    let view = observe(&lab, DEVICE)?;
    for pod in &remote {
        for ipv6 in [false, true] {
            udp_exchange(&local, pod, ipv6, 1, 100)?;
        }
    }
    view.await_that("the peers to be joined", |page| is_whole(page, DEVICE6))?;
    // The page knows it a moment before the programs do.
    let joined = view.page()?.totals(DEVICE6, PEERS[1]).context("no counts")?;
    wait_until("the programs to count for the joined peer", LIMIT, || {
        let counted = || view.page().ok()?.totals(DEVICE6, PEERS[1]);
        udp_exchange(&local, &remote[1], true, 1, 100).is_ok()
            && counted().is_some_and(|totals| totals.receive_packets > joined.receive_packets)
    })?;
    let before = view.page()?.totals(DEVICE6, PEERS[1]).context("no counts")?;
    udp_exchange(&local, &remote[1], true, 50, 400)?;
    let page = view.page()?;
    let added = page.totals(DEVICE6, PEERS[1]).context("no counts")?.since(&before);
    let expected = 50 * (400 + 48);
    // Neighbour discovery between the pods' gateways may come in between.
    assert!((expected..expected + 1_000).contains(&added.transmit_bytes), "{added:?}");
    assert!((expected..expected + 1_000).contains(&added.receive_bytes), "{added:?}");
    assert_eq!(page.info().len(), 2);
    assert_eq!(page.mtu(DEVICE6), Some(1430));
    for device in [DEVICE, DEVICE6] {
        assert!(PEERS.iter().all(|peer| page.counted_peers(device).iter().any(|counted| counted == peer)));
    }
    // Neighbour entries come and go; what is known stays.
    lab.node(1)?.run(&["ip", "neigh", "flush", "dev", "eth0"])?;
    let again = || -> Result<bool> { Ok(is_whole(&view.page()?, DEVICE6)) };
    for _ in 0..20 {
        assert!(again()?);
    }
    lab.shutdown()
}

/// A peer that the configuration names with both of its addresses has that name from the first packet on.
#[test]
fn a_configured_name_joins_both_families() -> Result<()> {
    let lab = start(Backend::Vxlan, true)?;
    let file = lab.scratch().join("agent.yaml");
    let peers = "peers:\n  nodes:\n    - name: second\n      addresses: [192.168.56.12, \"fd56::12\"]\n";
    std::fs::write(&file, peers)?;
    let arguments = vec![format!("--config.file={}", file.display())];
    let options = AgentOptions { arguments, ..AgentOptions::default() };
    let view = View::new(Agent::start(lab.node(1)?, &options)?);
    view.await_that("the named peer on both devices", |page| {
        [DEVICE, DEVICE6].iter().all(|device| page.totals(device, "second") == Some(Totals::default()))
    })?;
    let (local, remote) = pods(&lab)?;
    for (ipv6, device, header) in [(false, DEVICE, 28), (true, DEVICE6, 48)] {
        udp_exchange(&local, &remote[0], ipv6, 30, 300)?;
        let totals = view.page()?.totals(device, "second").context("no counts")?;
        assert!(totals.transmit_bytes >= 30 * (300 + header), "{totals:?}");
    }
    lab.shutdown()
}
