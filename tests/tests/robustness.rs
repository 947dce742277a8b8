//! The agent under conditions that are not its own doing: churn, crowds, slow clients, lost notifications, stops.

mod robustness {
    pub(crate) mod catalogue;
    mod memory;
    mod netlink;
    use super::start;
}

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::agent::ADDRESS;
use lab::scrape::Sample;
use lab::{
    Agent, AgentOptions, Flannel, Lab, LabOptions, Node, Place as _, Pod, PodSpec, process, tools, wait_until,
};
use robustness::catalogue::{self, Family};

const LIMIT: Duration = Duration::from_secs(20);
/// A stop by SIGTERM, whoever is connected.
const STOP: Duration = Duration::from_secs(2);

fn start(nodes: u8) -> Result<Lab> {
    Lab::start(&LabOptions { nodes, flannel: Some(Flannel::default()) })
}

/// Sends one datagram to an address, from the pod's cgroup.
fn send_to(pod: &Pod, address: &str) -> Result<()> {
    pod.run(&["bash", "-c", &format!("echo x > /dev/udp/{address}/9")]).map(drop)
}

/// Runs `work` while eight scrapers read the page without a pause; each page must be whole. Returns how many there were.
fn beside_scrapers(agent: &Agent, work: impl FnOnce() -> Result<()>) -> Result<u64> {
    let (done, pages) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let scrape = || -> Result<()> {
            while !done.load(Ordering::Relaxed) {
                let samples = agent.scrape()?;
                ensure!(
                    samples.value("leadline_collector_success", &[("collector", "traffic")]) == Some(1.0)
                );
                pages.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        let scrapers: Vec<_> = (0..8).map(|_| scope.spawn(scrape)).collect();
        let worked = work();
        done.store(true, Ordering::Relaxed);
        for scraper in scrapers {
            scraper.join().ok().context("a scraper panicked")??;
        }
        worked
    })?;
    Ok(pages.into_inner())
}

#[test]
fn pods_come_and_go_while_eight_scrapers_read() -> Result<()> {
    const PODS: u64 = 30;
    let lab = start(1)?;
    let node = lab.node(1)?;
    let agent = Agent::start(node, &AgentOptions::default())?;
    let steady = node.pod(PodSpec::new("steady"))?;
    let target = steady.address(false)?.to_string();
    let mut gone = Vec::new();
    let pages = beside_scrapers(&agent, || {
        for number in 0..PODS {
            let pod = node.pod(PodSpec::new(&format!("short-{number}")))?;
            send_to(&pod, &target)?;
            gone.push(pod.spec().name.clone());
            pod.remove()?;
        }
        Ok(())
    })?;
    // One datagram of two bytes from each: no pod is lost, none is counted twice, each has its name.
    let samples = agent.scrape()?;
    for name in gone {
        let of_pod = |sample: &Sample| sample.label("pod") == Some(&name);
        let sent = |what| samples.sum(&format!("leadline_pod_transmit_{what}_total"), of_pod);
        assert_eq!((sent("packets"), sent("bytes")), (Some(1), Some(30)), "{name}");
    }
    assert!(pages >= 8, "{pages}");
    println!("{pages} pages");
    lab.shutdown()
}

/// Opens a connection and writes the head of a request one byte a second until it is cut.
fn slow_client(node: &Node) -> Result<Duration> {
    let mut stream = node.net(|| TcpStream::connect(ADDRESS))??;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let begun = Instant::now();
    for byte in b"GET /metrics HTTP/1.1\r\nX: ".iter().chain(std::iter::repeat(&b'x')) {
        if begun.elapsed() > LIMIT {
            break;
        }
        let written = stream.write_all(std::slice::from_ref(byte));
        // Waiting for an answer is the pace: the read ends after a second, or with the connection.
        match stream.read(&mut [0; 1024]) {
            Err(error) if written.is_ok() && is_timeout(&error) => {}
            _ => return Ok(begun.elapsed()),
        }
    }
    anyhow::bail!("a client that sends a byte a second is still connected after {:?}", begun.elapsed())
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

#[test]
fn slow_clients_are_cut_and_a_hundred_scrapes_at_once_are_answered() -> Result<()> {
    let lab = start(1)?;
    let node = lab.node(1)?;
    let agent = Agent::start(node, &AgentOptions::default())?;
    std::thread::scope(|scope| -> Result<()> {
        let slow: Vec<_> = (0..40).map(|_| scope.spawn(|| slow_client(node))).collect();
        let scrapes: Vec<_> = (0..100).map(|_| scope.spawn(|| agent.scrape())).collect();
        for scrape in scrapes {
            let samples = scrape.join().ok().context("a scraper panicked")??;
            ensure!(samples.value("leadline_collector_success", &[("collector", "traffic")]) == Some(1.0));
        }
        for client in slow {
            let lived = client.join().ok().context("a slow client panicked")??;
            ensure!(lived >= Duration::from_secs(2), "cut after {lived:?}");
        }
        Ok(())
    })?;
    let dropped = [("reason", "timeout")];
    assert_eq!(agent.scrape()?.count("leadline_http_connections_dropped_total", &dropped), Some(40));
    lab.shutdown()
}

#[test]
fn a_stop_takes_less_than_two_seconds_whoever_is_connected() -> Result<()> {
    let lab = start(1)?;
    let node = lab.node(1)?;
    let timed_stop = |agent: Agent| -> Result<()> {
        let begun = Instant::now();
        let status = agent.sigterm()?;
        println!("stopped in {:?}", begun.elapsed());
        assert_eq!(status.code(), Some(0));
        assert!(begun.elapsed() < STOP, "{:?}", begun.elapsed());
        Ok(())
    };
    timed_stop(Agent::start(node, &AgentOptions::default())?)?;
    let agent = Agent::start(node, &AgentOptions::default())?;
    let connect = |request: &str| -> Result<TcpStream> {
        let mut stream = node.net(|| TcpStream::connect(ADDRESS))??;
        stream.write_all(request.as_bytes())?;
        Ok(stream)
    };
    let _clients = [
        connect("GET /met")?,
        connect("GET /api/v1/events?follow=true HTTP/1.1\r\nHost: x\r\n\r\n")?,
        connect("")?,
    ];
    let open =
        |count| agent.scrape().ok()?.value("leadline_http_connections", &[]).filter(|open| *open >= count);
    wait_until("the clients to be connected", LIMIT, || open(4.0).is_some())?;
    timed_stop(agent)?;
    lab.shutdown()
}

/// The agent is held while forty thousand routes come and go: its socket overruns, and the last state must be seen.
#[test]
fn a_netlink_overrun_is_survived_and_counted() -> Result<()> {
    let lab = start(2)?;
    let node = lab.node(1)?;
    let mut agent = Agent::start(node, &AgentOptions::default())?;
    agent.service().signal(nix::sys::signal::Signal::SIGSTOP)?;
    let mut script = String::new();
    for number in 0..20_000_u32 {
        writeln!(script, "route add 198.18.{}.{}/32 dev eth0", number >> 8 & 255, number & 255)?;
    }
    let file = lab.scratch().join("routes");
    let batch = |script: &str| -> Result<()> {
        std::fs::write(&file, script)?;
        node.run(&["ip", "-batch", file.to_str().context("path")?]).map(drop)
    };
    batch(&script)?;
    batch(&script.replace("route add", "route del"))?;
    node.ip("link set flannel.1 mtu 1300\n")?;
    agent.service().signal(nix::sys::signal::Signal::SIGCONT)?;
    wait_until("the state after the overrun", LIMIT, || {
        let samples = agent.scrape().unwrap_or_default();
        let mtu = samples.count("leadline_overlay_mtu_bytes", &[("device", "flannel.1")]);
        let resyncs = samples.count("leadline_netlink_resyncs_total", &[]);
        mtu == Some(1300) && resyncs >= Some(1)
    })?;
    let events = agent.get("/api/v1/events", &[])?;
    assert!(events.text()?.contains("\"kind\":\"netlink_resynced\""), "{}", events.text()?);
    lab.shutdown()
}

/// The class follows the routes, there and back.
#[test]
fn the_class_of_a_peer_follows_the_routes() -> Result<()> {
    let lab = start(2)?;
    let node = lab.node(1)?;
    let agent = Agent::start(node, &AgentOptions::default())?;
    let pod = node.pod(PodSpec::new("client"))?;
    // Not a network that flannel names: only a route can tell that there are pods.
    let arguments = ["10.99.2.7", "external", "pod_remote"];
    let [address, without, with] = arguments;
    let count = |class: &str| {
        let labels = [("pod", "client"), ("peer_class", class)];
        agent.scrape().ok()?.count("leadline_pod_transmit_packets_total", &labels)
    };
    let becomes = |class: &str| {
        let before = count(class);
        wait_until(&format!("traffic to be {class}"), LIMIT, || {
            send_to(&pod, address).is_ok() && count(class) > before
        })
    };
    becomes(without)?;
    for _ in 0..3 {
        node.ip("route add 10.99.2.0/24 via 10.42.2.0 dev flannel.1 onlink\n")?;
        becomes(with)?;
        node.ip("route del 10.99.2.0/24\n")?;
        becomes(without)?;
    }
    lab.shutdown()
}

/// A busy agent: TCP and UDP of a pod, to a pod on another node, to nobody, and a pod that has gone.
fn busy(lab: &Lab) -> Result<Agent> {
    let agent = Agent::start(lab.node(1)?, &AgentOptions::default())?;
    let (client, server) =
        (lab.node(1)?.pod(PodSpec::new("client"))?, lab.node(2)?.pod(PodSpec::new("server"))?);
    lab::witness::iperf3(
        &client,
        &server,
        &lab::witness::Iperf { amount: lab::witness::Amount::Bytes(10_000_000), ..Default::default() },
    )?;
    let refused = format!("exec 3<>/dev/tcp/{}/1", server.address(false)?);
    ensure!(client.run(&["bash", "-c", &refused]).is_err(), "port 1 is open");
    for path in ["/", "/healthz", "/api/v1/events", "/nowhere", "/metrics"] {
        agent.get(path, &[])?;
    }
    Ok(agent)
}

#[test]
fn promtool_finds_nothing_wrong_with_the_page() -> Result<()> {
    let lab = start(2)?;
    let agent = busy(&lab)?;
    let page = agent.get("/metrics", &[])?;
    let file = lab.scratch().join("page");
    std::fs::write(&file, &page.body)?;
    let promtool = tools::require("promtool")?;
    let check = format!("{} check metrics < {}", promtool.display(), file.display());
    let output = process::capture(Command::new("sh").args(["-c", &check]), "", LIMIT)?;
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
    lab.shutdown()
}

/// The page, the catalogue of the binary and METRICS.md say the same of every family, in all directions.
#[test]
fn page_catalogue_and_documentation_agree() -> Result<()> {
    let lab = start(2)?;
    let agent = busy(&lab)?;
    let page = catalogue::of_page(agent.get("/metrics", &[])?.text()?)?;
    let listed = catalogue::of_list(&process::run(Command::new(lab::agent::binary()?).arg("metrics"))?)?;
    let markdown = process::run(Command::new(lab::agent::binary()?).args(["metrics", "--markdown"]))?;
    let committed = std::fs::read_to_string(tools::workspace().join("METRICS.md")).context("METRICS.md")?;
    assert_eq!(markdown, committed, "METRICS.md is not what the binary prints: cargo xtask metrics");
    assert_eq!(catalogue::of_markdown(&committed)?, listed);
    for (name, family) in &page {
        let described: &Family = listed.get(name).with_context(|| format!("{name} is not described"))?;
        assert_eq!(family.kind, described.kind, "{name}");
        assert_eq!(family.labels, described.labels, "{name}");
    }
    // None needs a condition that this scenario does not bring about, but for a larger profile than the default and for
    // virtual addresses, paths, HAProxy, etcd, its ports, the control plane, certificates, Tailscale and Kubernetes, whose
    // families the tests of those look for.
    let subjects = [
        "leadline_vip_",
        "leadline_vrrp_",
        "leadline_path_",
        "leadline_haproxy_",
        "leadline_etcd_",
        "leadline_tcp_port_",
        "leadline_control_plane_",
        "leadline_certificate_",
        "leadline_tunnel_",
        "leadline_kubernetes_",
        "leadline_overlay_entries_stale",
        "leadline_pod_info",
    ];
    let needs_subject = |name: &str| subjects.iter().any(|subject| name.starts_with(subject));
    for (name, described) in listed.iter().filter(|(name, _)| !needs_subject(name)) {
        assert_eq!(page.contains_key(name), described.profile != "detailed", "{name}: {}", described.profile);
    }
    println!("{} families on the page, {} described", page.len(), listed.len());
    lab.shutdown()
}
