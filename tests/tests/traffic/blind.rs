//! What sockets do not show, or show more than once: every case has its expected difference.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::place::{Namespaces, join};
use lab::process::Holder;
use lab::scrape::{self, Samples, Traffic};
use lab::sockets::Kind;
use lab::{Backend, Place as _, agent, cgroup, wait_until};
use nix::sched::CloneFlags;

use crate::bench::{Bench, SEGMENTS, added, agree, of_pod, sockets_of};
use crate::owner::{send, sent};
use crate::slots::container;

const PORT: u16 = 7500;
const BACKWARDS: &str = "a counter went backwards";

/// An agent in the network of a node, but attached to the cgroup root of the whole machine.
struct RootAgent<'a> {
    node: &'a lab::Node,
    address: SocketAddr,
    _process: Holder,
}

impl<'a> RootAgent<'a> {
    fn start(node: &'a lab::Node, arguments: &[&str]) -> Result<Self> {
        let address = SocketAddr::new(agent::ADDRESS.ip(), 9844);
        let mut command = Command::new(agent::binary()?);
        command.args(["run", &format!("--web.listen-address={address}")]).args(arguments);
        command.arg(format!("--cgroup-root={}", cgroup::v2_root()?.display()));
        command.arg(format!("--pod-log-directory={}", node.var_log().join("pods").display()));
        let network = Namespaces::of(node.machine().holder_pid(), CloneFlags::CLONE_NEWNET)?;
        join(&mut command, [node.cgroup()], &network, CloneFlags::empty())?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Holder::spawn(&mut command)?;
        let root = Self { node, address, _process: process };
        let is_ready =
            || scrape::get(node, address, "/readyz", &[]).is_ok_and(|response| response.status == 200);
        wait_until("the agent at the machine's root", Duration::from_secs(20), is_ready)?;
        Ok(root)
    }

    fn scrape(&self) -> Result<Samples> {
        scrape::parse(scrape::get(self.node, self.address, "/metrics", &[])?.text()?)
    }
}

/// The kernel's own sockets belong to the root cgroup of the machine, whoever is asked.
#[test]
fn replies_of_the_kernel_are_seen_at_the_root_only() -> Result<()> {
    // An address of its own class: the machine's root sees the traffic of everybody else, too.
    const ASKER: &str = "198.51.100.77";
    const CLASS: &str = "--peers.service-cidrs=198.51.100.77/32";
    let bench = Bench::start(1, Backend::Vxlan, false, &[CLASS])?;
    let (client, server) = (bench.end(1, "client")?, bench.end(1, "server")?);
    let node = bench.lab.node(1)?;
    client.pod.ip(&format!("addr add {ASKER}/32 dev eth0\n"))?;
    node.ip(&format!("route add {ASKER}/32 via {} dev cni0\n", client.pod.address(false)?))?;
    let root = RootAgent::start(node, &[CLASS])?;
    let name = client.pod.spec().name.as_str();
    // It may be ready before it has found the pods that are there already.
    wait_until("the agent at the machine's root to know the pod", Duration::from_secs(20), || {
        root.scrape().is_ok_and(|page| page.all().iter().any(|sample| sample.label("pod") == Some(name)))
    })?;
    let target = server.pod.address(false)?.to_string();
    let ping = |count: &str| client.pod.run(&["ping", "-c", count, "-i", "0.02", "-I", ASKER, &target]);
    let labels = [("unit", "kernel"), ("peer_class", "service")];
    let at_root = || -> Result<Traffic> { Ok(root.scrape()?.traffic("unit", &labels).unwrap_or_default()) };
    // And may know the pods a moment before the kernel has the classes of addresses.
    wait_until("a reply of the kernel to have its class", Duration::from_secs(20), || {
        ping("1").is_ok() && at_root().is_ok_and(|seen| seen.transmit_packets > 0)
    })?;
    let local = [("peer_class", "pod_local")];
    let asked_below = || -> Result<Traffic> { Ok(of_pod(&bench.agent(1)?.scrape()?, &client.pod, &local)) };
    let asked_at_root = || -> Result<Traffic> { Ok(of_pod(&root.scrape()?, &client.pod, &local)) };
    let before = [at_root()?, asked_below()?, asked_at_root()?];
    ping("5")?;
    for _ in 0..3 {
        let socket = client.sockets.open(Kind::Tcp, false)?;
        rustix::net::bind(&socket, &SocketAddr::new(ASKER.parse()?, 0)).context("bind")?;
        let refused = rustix::net::connect(&socket, &server.address(false, 1)?);
        ensure!(refused == Err(rustix::io::Errno::CONNREFUSED), "{refused:?}");
    }
    // Five echo replies of 84 bytes, three RSTs of 40.
    let expected = Traffic { transmit_packets: 8, transmit_bytes: 5 * 84 + 3 * 40, ..Traffic::default() };
    let grown = |now: Traffic, before: &Traffic| now.since(before).context("a count has fallen");
    agree("replies of the kernel at the root", || Ok(expected), || grown(at_root()?, &before[0]))?;
    // Both agents see the pods alike; the one below the root does not see the kernel.
    let below = bench.agent(1)?.scrape()?;
    ensure!(below.traffic("unit", &labels).is_none(), "{:?}", below.traffic("unit", &labels));
    let asked = grown(asked_below()?, &before[1])?;
    assert_eq!(asked.transmit_packets, 8);
    assert_eq!(grown(asked_at_root()?, &before[2])?, asked);
    println!("{expected:?} at the root, {asked:?} of the asker");
    drop((root, client, server));
    bench.shutdown()
}

/// The end that closes first ends in TIME-WAIT: the FIN that this state takes and its acknowledgement have no socket.
#[test]
fn time_wait_hides_two_packets_a_connection() -> Result<()> {
    const CONNECTIONS: u64 = 50;
    let bench = Bench::start(1, Backend::Vxlan, false, &[])?;
    let (client, server) = (bench.end(1, "client")?, bench.end(1, "server")?);
    let to = server.address(false, PORT)?;
    let listener = server.sockets.listen(to)?;
    let kernel = [client.nstat()?, server.nstat()?];
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = client.sockets.connect(to)?;
        open.push((stream, listener.accept().context("accept")?.0));
    }
    let (streams, answers): (Vec<_>, Vec<_>) = open.into_iter().unzip();
    drop(streams);
    // Each waits for the FIN of the other end in a state without a socket.
    let waiting = || Ok(client.pod.proc_net("sockstat")?.contains(&format!(" tw {CONNECTIONS} ")));
    agree("connections to wait", || Ok(true), waiting)?;
    drop(answers);
    let segments = || -> Result<[u64; 2]> {
        Ok([added(&kernel[0], &client.nstat()?, &SEGMENTS)?, added(&kernel[1], &server.nstat()?, &SEGMENTS)?])
    };
    let open = || Ok(client.nstat()?["TcpCurrEstab"] + server.nstat()?["TcpCurrEstab"]);
    agree("connections to end", || Ok(0), open)?;
    let server_sent = || Ok(segments()?[1]);
    agree("segments of the server", server_sent, || {
        Ok(bench.of_pod(&server.pod, "pod_local")?.transmit_packets)
    })?;
    let [one, other] = segments()?;
    let (client_seen, server_seen) =
        (bench.of_pod(&client.pod, "pod_local")?, bench.of_pod(&server.pod, "pod_local")?);
    println!("client sent {one}, seen {client_seen:?}; server sent {other}, seen {server_seen:?}");
    // The server had a socket to the end.
    assert_eq!((server_seen.transmit_packets, server_seen.receive_packets), (other, one));
    let hidden = [one - client_seen.transmit_packets, other - client_seen.receive_packets];
    ensure!(hidden.iter().all(|hidden| *hidden <= CONNECTIONS), "{hidden:?}");
    drop((client, server));
    bench.shutdown()
}

#[test]
fn copies_for_raw_sockets_do_not_count() -> Result<()> {
    let bench = Bench::start(1, Backend::Vxlan, true, &["--profile=detailed"])?;
    let (client, server) = (bench.end(1, "client")?, bench.end(1, "server")?);
    let protocols = [(1, false), (6, false), (17, false), (58, true), (6, true), (17, true)];
    let mut raw = Vec::new();
    for (protocol, ipv6) in protocols.into_iter().flat_map(|kind| [kind; 3]) {
        raw.push(client.sockets.open(Kind::Raw(protocol), ipv6)?);
    }
    let labels = [("peer_class", "pod_local"), ("protocol", "icmp")];
    let pings = || Ok(of_pod(&bench.agent(1)?.scrape()?, &client.pod, &labels));
    let mut expected = Traffic::default();
    for (ipv6, bytes) in [(false, 84), (true, 104)] {
        let target = server.pod.address(ipv6)?.to_string();
        client.pod.run(&["ping", "-c", "10", "-i", "0.02", &target])?;
        let one_way = Traffic { transmit_packets: 10, transmit_bytes: 10 * bytes, ..Traffic::default() };
        expected = expected.plus(&one_way).plus(&one_way.reversed());
        agree("echo requests and replies", || Ok(expected), pings)?;
    }
    let to = server.address(false, PORT)?;
    let kernel = client.nstat()?;
    let (listener, echo) = (server.sockets.listen(to)?, server.sockets.udp(to)?);
    let stream = client.sockets.connect(to)?;
    let _accepted = listener.accept().context("accept")?;
    let datagrams = send(&client.sockets, client.address(false, 0)?, to, 20)?;
    echo.connect(datagrams.local_addr()?).context("connect")?;
    (0..20).try_for_each(|_| echo.send(&[0; 72]).map(drop)).context("send")?;
    let of = |protocol: &str| {
        let labels = [("peer_class", "pod_local"), ("protocol", protocol)];
        Ok(of_pod(&bench.agent(1)?.scrape()?, &client.pod, &labels))
    };
    agree("datagrams beside raw sockets", || Ok(sent(20).plus(&sent(20).reversed())), || of("udp"))?;
    // SYN, SYN-ACK, ACK.
    let tcp = || Ok([added(&kernel, &client.nstat()?, &SEGMENTS)?, 1]);
    agree("segments beside raw sockets", tcp, || {
        of("tcp").map(|tcp| [tcp.transmit_packets, tcp.receive_packets])
    })?;
    drop((raw, stream, client, server));
    bench.shutdown()
}

#[test]
fn loopback_is_kept_apart() -> Result<()> {
    let bench = Bench::start(1, Backend::Vxlan, true, &[])?;
    let client = bench.end(1, "client")?;
    let mut number = 0;
    for address in ["127.0.0.1", "::1", &client.pod.address(false)?.to_string()] {
        let to = SocketAddr::new(address.parse()?, PORT);
        let receiver = client.sockets.udp(to)?;
        let before = bench.of_pod(&client.pod, "loopback")?;
        drop(send(&client.sockets, SocketAddr::new(to.ip(), 0), to, 25)?);
        let bytes = if to.is_ipv6() { 120 } else { 100 };
        let both = Traffic {
            receive_packets: 25,
            receive_bytes: 25 * bytes,
            transmit_packets: 25,
            transmit_bytes: 25 * bytes,
        };
        let counted = || bench.of_pod(&client.pod, "loopback")?.since(&before).context(BACKWARDS);
        agree("datagrams to oneself", || Ok(both), counted)?;
        number += 25;
        drop(receiver);
    }
    let all = of_pod(&bench.agent(1)?.scrape()?, &client.pod, &[]);
    assert_eq!((all.transmit_packets, all.receive_packets), (number, number));
    drop(client);
    bench.shutdown()
}

/// What kube-proxy does: for a pod the translation lies outside, and both directions show the service; for a socket of
/// the host sends show the backend and answers the service, and the first packet sent decides.
#[test]
fn service_addresses_have_one_class_for_both_directions() -> Result<()> {
    const SERVICE: &str = "10.96.0.10";
    let bench = Bench::start(2, Backend::Vxlan, false, &["--peers.service-cidrs=10.96.0.0/16"])?;
    let (client, server) = (bench.end(1, "client")?, bench.end(2, "server")?);
    let node = bench.lab.node(1)?;
    let backend = server.pod.address(false)?;
    let rules = ["prerouting", "output"].map(|hook| {
        format!(
            "add chain ip services {hook} {{ type nat hook {hook} priority -100; }}; \
             add rule ip services {hook} ip daddr {SERVICE} dnat to {backend}"
        )
    });
    node.run(&["nft", &format!("add table ip services; {}", rules.join("; "))])?;
    let service = SocketAddr::new(SERVICE.parse()?, PORT);
    let listener = server.sockets.listen(server.address(false, PORT)?)?;
    let unit_sockets = sockets_of(node)?;
    let mut open = Vec::new();
    for sockets in [&client.sockets, &unit_sockets] {
        let stream = sockets.connect(service)?;
        let (answer, _) = listener.accept().context("accept")?;
        for (from, to) in [(&stream, &answer), (&answer, &stream)] {
            let (mut from, mut to) = (from, to);
            std::io::Write::write_all(&mut from, &[0; 500]).context("send")?;
            std::io::Read::read_exact(&mut to, &mut [0; 500]).context("receive")?;
        }
        open.extend([stream, answer]);
    }
    let by_class = |samples: &Samples, scope: &str, labels: &[(&str, &str)]| {
        ["service", "pod_remote"].map(|class| {
            let labels = [labels, &[("peer_class", class)]].concat();
            samples
                .traffic(scope, &labels)
                .map(|traffic| traffic.receive_packets.min(traffic.transmit_packets))
        })
    };
    let classes = || {
        let samples = bench.agent(1)?.scrape()?;
        let of_pod = by_class(&samples, "pod", &[("pod", "client")]);
        Ok((
            of_pod.map(|n| n.is_some()),
            by_class(&samples, "unit", &[("unit", "shell.service")]).map(|n| n.is_some()),
        ))
    };
    agree("classes behind a service", || Ok(([true, false], [false, true])), classes)?;
    let samples = bench.agent(1)?.scrape()?;
    let of_pod = of_pod(&samples, &client.pod, &[]);
    let of_unit = samples.traffic("unit", &[("unit", "shell.service"), ("peer_class", "pod_remote")]);
    println!("{of_pod:?} of the pod, {of_unit:?} of the unit");
    // SYN-ACK and 500 bytes at least, with the answer's acknowledgement.
    ensure!(of_unit.is_some_and(|unit| unit.receive_bytes > 500 + 2 * 52), "{of_unit:?}");
    drop((open, listener, unit_sockets, client, server));
    bench.shutdown()
}

#[test]
fn a_socket_that_outlives_its_cgroup_is_counted() -> Result<()> {
    let bench = Bench::start(1, Backend::Vxlan, false, &["--pod-retention=10s"])?;
    let (client, sink) = (bench.end(1, "client")?, bench.end(1, "sink")?);
    let to = sink.address(false, PORT)?;
    let receiver = sink.sockets.udp(to)?;
    let orphan = send(&container(&client, "gone")?, client.address(false, 0)?, to, 10)?;
    cgroup::remove(&client.pod.pod_cgroup().join("gone"))?;
    let mut all = 10;
    let total = || {
        let samples = bench.agent(1)?.scrape()?;
        samples.traffic("node", &[("peer_class", "pod_local")]).context("no totals")
    };
    // Longer than its slot waits before it is used again: 5 s until it is retired and 1 s of quarantine.
    let start = std::time::Instant::now();
    while start.elapsed() < Duration::from_secs(12) {
        orphan.send(&[0; 72]).context("send")?;
        receiver.recv(&mut [0; 100]).context("receive")?;
        all += 1;
        // Somebody new takes what is free.
        if all % 1000 == 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let both = sent(all).plus(&sent(all).reversed());
    agree("totals with an orphan", || Ok(both), total)?;
    let others = bench
        .agent(1)?
        .scrape()?
        .sum("leadline_pod_transmit_packets_total", |sample| sample.label("pod") != Some("client"));
    println!("{all} datagrams, of others {others:?}");
    ensure!(others.is_none_or(|others| others == 0), "{others:?} were counted for another pod");
    drop((orphan, receiver, client, sink));
    bench.shutdown()
}

#[test]
fn a_thousand_peers_share_a_slot() -> Result<()> {
    const PEERS: u64 = 1000;
    let bench = Bench::start(1, Backend::Vxlan, false, &["--slots=64"])?;
    let (client, server) = (bench.end(1, "client")?, bench.end(1, "server")?);
    let to = server.address(false, PORT)?;
    let listener = server.sockets.listen(to)?;
    let kernel = [client.nstat()?, server.nstat()?];
    let mut open = Vec::new();
    for _ in 0..PEERS {
        let stream = client.sockets.connect(to)?;
        let (answer, _) = listener.accept().context("accept")?;
        std::io::Write::write_all(&mut &stream, &[0; 100]).context("send")?;
        std::io::Read::read_exact(&mut &answer, &mut [0; 100]).context("receive")?;
        open.extend([stream, answer]);
    }
    let segments = || -> Result<[u64; 2]> {
        Ok([added(&kernel[0], &client.nstat()?, &SEGMENTS)?, added(&kernel[1], &server.nstat()?, &SEGMENTS)?])
    };
    let counted = || {
        let one = bench.of_pod(&client.pod, "pod_local")?;
        let other = bench.of_pod(&server.pod, "pod_local")?;
        ensure!(one == other.reversed(), "{one:?} {other:?}");
        Ok([one.transmit_packets, other.transmit_packets])
    };
    let segments = agree("segments of a thousand connections", segments, counted)?;
    println!("{segments:?} segments of {PEERS} connections");

    // One unconnected UDP socket; the node has no way to these addresses, which does not concern the sender.
    let socket = client.sockets.udp(client.address(false, 0)?)?;
    for peer in 0..PEERS {
        let address =
            std::net::Ipv4Addr::from_bits(u32::from_be_bytes([198, 18, 0, 0]) + u32::try_from(peer)?);
        socket.send_to(&[0; 72], (address, PORT)).context("send")?;
    }
    agree("datagrams to a thousand peers", || Ok(sent(PEERS)), || bench.of_pod(&client.pod, "external"))?;
    // And one that hears from a thousand: a socket for each, of the same address.
    let hearer = server.sockets.udp(server.address(false, PORT)?)?;
    let before = [&client, &server].map(|end| bench.of_pod(&end.pod, "pod_local"));
    for _ in 0..PEERS {
        open_and_send(&client, to)?;
    }
    let [one, other] = before;
    let (one, other) = (one?, other?);
    let heard = || {
        let now = [bench.of_pod(&client.pod, "pod_local")?, bench.of_pod(&server.pod, "pod_local")?];
        Ok([now[0].since(&one).context(BACKWARDS)?, now[1].since(&other).context(BACKWARDS)?])
    };
    agree("datagrams of a thousand peers", || Ok([sent(PEERS), sent(PEERS).reversed()]), heard)?;
    let exhausted = bench.agent(1)?.scrape()?.count("leadline_slots_exhausted_total", &[]);
    assert_eq!(exhausted, Some(0));
    drop((open, hearer, client, server));
    bench.shutdown()
}

fn open_and_send(from: &crate::bench::End, to: SocketAddr) -> Result<()> {
    let socket = from.sockets.udp(from.address(false, 0)?)?;
    socket.send_to(&[0; 72], to).context("send").map(drop)
}
