//! The lab tests itself: pods reach each other, cgroups have the kubelet's shape, and nothing is ever left behind.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use lab::witness::tcpdump::Capture;
use lab::witness::{self, Amount, Iperf, Protocol};
use lab::{
    Agent, AgentOptions, Backend, Driver, Flannel, Lab, LabOptions, Place, Pod, PodSpec, Qos, scrape,
    wait_until,
};
use nix::sys::signal::Signal;

fn options(backend: Backend, ipv6: bool) -> LabOptions {
    LabOptions { flannel: Some(Flannel { backend, ipv6 }), ..LabOptions::default() }
}

fn bare() -> LabOptions {
    LabOptions { nodes: 2, flannel: None }
}

fn ping(from: &impl Place, to: &impl Place, ipv6: bool, arguments: &[&str]) -> Result<String> {
    let address = to.address(ipv6)?.to_string();
    let command = ["ping", "-c", "3", "-i", "0.02", "-W", "2"];
    from.run(&[&command[..], arguments, &[&address]].concat())
}

/// The namespaces of a process, as `net:[4026531840]`.
fn namespaces_of(pid: &str) -> impl Iterator<Item = PathBuf> + use<> {
    let directory = PathBuf::from(format!("/proc/{pid}/ns"));
    let kinds = ["net", "mnt", "uts", "ipc", "cgroup"].into_iter();
    kinds.filter_map(move |kind| fs::read_link(directory.join(kind)).ok())
}

/// The namespaces in which any process of the machine is.
fn namespaces_in_use() -> Result<BTreeSet<PathBuf>> {
    let entries = fs::read_dir("/proc").context("list /proc")?.filter_map(Result::ok);
    Ok(entries.flat_map(|entry| namespaces_of(&entry.file_name().to_string_lossy())).collect())
}

/// Both ends of a path across two nodes.
fn pair(lab: &Lab) -> Result<(Pod, Pod)> {
    Ok((lab.node(1)?.pod(PodSpec::new("client"))?, lab.node(2)?.pod(PodSpec::new("server"))?))
}

/// `path_mtu6` is apart because flannel gives dual-stack pods the MTU of its IPv4 device, 20 bytes more than an IPv6
/// packet in the IPv6 tunnel can have.
fn check_pod_network(lab: &Lab, mtu: u32, path_mtu6: u32) -> Result<()> {
    let (client, server) = pair(lab)?;
    let neighbour = lab.node(1)?.pod(PodSpec::new("neighbour"))?;
    assert_eq!(lab.node(1)?.subnet()?.mtu, mtu);
    for ipv6 in [false, true] {
        for to in [&server, &neighbour] {
            ping(&client, to, ipv6, &[])?;
        }
        let largest = if ipv6 { path_mtu6 - 48 } else { mtu - 28 }.to_string();
        ping(&client, &server, ipv6, &["-M", "do", "-s", &largest])?;
        let result = witness::iperf3(&client, &server, &Iperf { ipv6, ..Iperf::default() })?;
        let received = result.received_bytes().context("no bytes in the report")?;
        ensure!(received > 10_000_000, "only {received} bytes in a second");
        assert!(result.sent_bytes().is_some_and(|sent| sent >= received));
    }
    Ok(())
}

#[test]
fn pods_reach_each_other_over_vxlan() -> Result<()> {
    let start = Instant::now();
    let lab = Lab::start(&options(Backend::Vxlan, true))?;
    println!("up in {:?}", start.elapsed());
    check_pod_network(&lab, 1450, 1430)?;
    let (client, server) = pair(&lab)?;
    // What the pods exchange crosses the underlay in the tunnel.
    let before = witness::device(lab.node(1)?, "flannel.1")?;
    ping(&client, &server, false, &[])?;
    let added = witness::device(lab.node(1)?, "flannel.1")?.since(&before);
    ensure!(added.transmit_packets >= 3, "{added:?}");
    lab.shutdown()
}

#[test]
fn pods_reach_each_other_through_host_routes() -> Result<()> {
    let lab = Lab::start(&options(Backend::HostGw, true))?;
    check_pod_network(&lab, 1500, 1500)?;
    let links = lab.node(1)?.run(&["ip", "-o", "link"])?;
    ensure!(!links.contains("flannel"), "host-gw needs no device of its own:\n{links}");
    lab.shutdown()
}

#[test]
fn nodes_see_standard_paths() -> Result<()> {
    let lab = Lab::start(&bare())?;
    let node = lab.node(2)?;
    assert_eq!(node.run(&["cat", "/proc/sys/kernel/hostname"])?.trim(), "node2");
    assert_eq!(node.run(&["ls", "/sys/class/net"])?.split_whitespace().collect::<Vec<_>>(), ["eth0", "lo"]);
    assert_eq!(
        node.run(&["cat", "/proc/self/cgroup"])?.lines().last(),
        Some("0::/system.slice/shell.service")
    );
    let mounts = node.run(&["cat", "/proc/mounts"])?;
    for mount in
        ["cgroup2 /sys/fs/cgroup cgroup2", "bpf /sys/fs/bpf bpf", "tracefs /sys/kernel/tracing tracefs"]
    {
        assert_eq!(mounts.matches(mount).count(), 1, "{mount} in\n{mounts}");
    }
    assert_eq!(mounts.matches(" /sys ").count(), 1, "the machine's own sysfs is hidden:\n{mounts}");
    node.run(&["test", "-d", "/sys/fs/cgroup/system.slice"])?;
    node.run(&["sh", "-c", "echo kept > /var/lib/state && : > /var/log/pods/x && : > /run/x"])?;
    assert_eq!(fs::read_to_string(node.machine().scratch().join("var-lib/state"))?, "kept\n");
    ping(node, lab.node(1)?, false, &[])?;
    ping(node, lab.node(1)?, true, &[])?;
    ping(node, lab.switch()?, true, &[])?;
    lab.shutdown()
}

#[test]
fn pods_have_the_cgroups_and_directories_of_the_kubelet() -> Result<()> {
    let lab = Lab::start(&LabOptions { nodes: 1, flannel: Some(Flannel::default()) })?;
    let node = lab.node(1)?;
    let cgroup = |pod: &Pod| -> Result<String> {
        let text = pod.run(&["cat", "/proc/self/cgroup"])?;
        Ok(text.lines().find_map(|line| line.strip_prefix("0::/")).context("no v2 line")?.to_owned())
    };
    let plain = node.pod(PodSpec { namespace: "shop".into(), ..PodSpec::new("cart") })?;
    let expected = format!("kubepods/burstable/pod{}/{}", plain.uid(), plain.container_id());
    assert_eq!(cgroup(&plain)?, expected);

    let spec = PodSpec { driver: Driver::Systemd, qos: Qos::BestEffort, ..PodSpec::new("job") };
    let systemd = node.pod(spec)?;
    let uid = systemd.uid().replace('-', "_");
    let slice = "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod";
    assert_eq!(
        cgroup(&systemd)?,
        format!("{slice}{uid}.slice/cri-containerd-{}.scope", systemd.container_id())
    );

    let spec = PodSpec { host_network: true, qos: Qos::Guaranteed, ..PodSpec::new("proxy") };
    let host = node.pod(spec)?;
    assert_eq!(cgroup(&host)?, format!("kubepods/pod{}/{}", host.uid(), host.container_id()));
    assert_eq!((host.ipv4(), host.host_device()), (node.ipv4(), None));

    let logs = format!("/var/log/pods/shop_cart_{}", plain.uid());
    assert_eq!(node.run(&["ls", &logs])?.trim(), "main");
    // The pause container has a directory of its own beside the container's.
    assert_eq!(lab::cgroup::children(plain.pod_cgroup())?.len(), 2);
    let (directory, device) =
        (plain.pod_cgroup().to_owned(), plain.host_device().context("no device")?.to_owned());
    plain.remove()?;
    assert!(!directory.exists());
    node.run(&["test", "!", "-e", &logs])?;
    assert!(witness::device(node, &device).is_err());
    lab.shutdown()
}

#[test]
fn pods_come_and_go() -> Result<()> {
    let lab =
        Lab::start(&LabOptions { nodes: 1, flannel: Some(Flannel { backend: Backend::Vxlan, ipv6: true }) })?;
    let node = lab.node(1)?;
    let steady = node.pod(PodSpec::new("steady"))?;
    let start = Instant::now();
    for number in 0..20 {
        let pod = node.pod(PodSpec::new(&format!("short-{number}")))?;
        ping(&pod, &steady, number % 2 == 0, &["-c", "1"])?;
        pod.remove()?;
    }
    println!("20 pods in {:?}", start.elapsed());
    assert_eq!(lab::cgroup::children(&node.root().join("kubepods/burstable"))?.len(), 1);
    lab.shutdown()
}

#[test]
fn services_run_in_their_unit_and_keep_their_log() -> Result<()> {
    let lab = Lab::start(&bare())?;
    let node = lab.node(1)?;
    let script = "trap 'echo bye; exit 3' TERM; cat /proc/self/cgroup; while :; do sleep 0.02; done";
    let mut service = node.service("web", Command::new("sh").args(["-c", script]))?;
    let unit = service.unit().to_owned();
    wait_until("the first output", Duration::from_secs(5), || {
        service.log().is_ok_and(|log| log.contains("0::/system.slice/web.service\n"))
    })?;
    assert_eq!(service.terminate(Duration::from_secs(5))?.code(), Some(3));
    assert!(service.log()?.ends_with("bye\n"));
    drop(service);
    assert!(!unit.exists());
    let mut failing = node.service("broken", Command::new("sh").args(["-c", "echo no such luck; exit 9"]))?;
    let error = failing.wait_until("luck", Duration::from_secs(5), || false).unwrap_err().to_string();
    assert!(error.contains("exit status: 9") && error.contains("no such luck"), "{error}");
    lab.shutdown()
}

#[test]
fn flanneld_can_be_restarted() -> Result<()> {
    let mut lab = Lab::start(&options(Backend::Vxlan, false))?;
    let node = lab.node(1)?.clone();
    let subnet = node.subnet()?.clone();
    let (client, server) = pair(&lab)?;
    let old = lab.flannel()?.daemon(&node)?.pid();
    lab.flannel()?.restart_daemon(&node)?;
    assert_ne!(lab.flannel()?.daemon(&node)?.pid(), old);
    assert_eq!(node.subnet()?, &subnet);
    ping(&client, &server, false, &[])?;
    drop((client, server));
    lab.shutdown()
}

#[test]
fn an_unplugged_node_is_cut_off() -> Result<()> {
    let lab = Lab::start(&bare())?;
    let (one, two) = (lab.node(1)?, lab.node(2)?);
    lab.plug(two, false)?;
    let target = two.address(false)?.to_string();
    assert!(one.run(&["ping", "-c", "1", "-W", "1", &target]).is_err());
    lab.plug(two, true)?;
    ping(one, two, false, &[])?;
    lab.shutdown()
}

#[test]
fn closures_run_in_the_network_namespace() -> Result<()> {
    let lab = Lab::start(&LabOptions { nodes: 1, flannel: Some(Flannel::default()) })?;
    let pod = lab.node(1)?.pod(PodSpec::new("server"))?;
    let listener = pod.net(|| TcpListener::bind("0.0.0.0:8080"))??;
    assert!(witness::tcp_listens(&pod, 8080)?);
    assert!(!witness::tcp_listens(lab.node(1)?, 8080)?);
    drop(listener);
    let panicked = catch_unwind(AssertUnwindSafe(|| pod.net(|| panic!("on purpose"))));
    assert!(panicked.is_err());
    lab.shutdown()
}

#[test]
fn code_of_a_test_can_run_inside_a_pod() -> Result<()> {
    let lab = Lab::start(&bare())?;
    let pod = lab.node(1)?.pod(PodSpec { host_network: true, ..PodSpec::new("x") })?;
    let output = lab::run(pod.test_command("task_tells_where_it_runs")?.env("GREETING", "from outside"))?;
    let expected = format!("from outside 0::/kubepods/burstable/pod{}/{}", pod.uid(), pod.container_id());
    ensure!(output.contains(&expected), "{expected} is not in\n{output}");
    lab.shutdown()
}

#[test]
#[ignore = "runs inside a pod"]
fn task_tells_where_it_runs() -> Result<()> {
    let cgroups = fs::read_to_string("/proc/self/cgroup")?;
    println!(
        "{} {}",
        std::env::var("GREETING").unwrap_or_default(),
        cgroups.lines().last().unwrap_or_default()
    );
    Ok(())
}

#[test]
fn a_page_is_scraped_inside_a_node() -> Result<()> {
    let lab = Lab::start(&bare())?;
    let node = lab.node(1)?;
    let listener = node.net(|| TcpListener::bind("127.0.0.1:9843"))??;
    let server = std::thread::spawn(move || -> Result<String> {
        let (mut stream, _) = listener.accept()?;
        let mut request = String::new();
        let mut reader = BufReader::new(stream.try_clone()?);
        while reader.read_line(&mut request)? > 2 {}
        stream.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\r\nx_total{a=\"b\"} 7\n",
        )?;
        Ok(request)
    });
    let response = scrape::get(node, lab::agent::ADDRESS, "/metrics", &[("Accept", "text/plain")])?;
    let request = server.join().ok().context("the server panicked")??;
    ensure!(
        request.starts_with("GET /metrics HTTP/1.1\r\n") && request.contains("\r\nAccept: text/plain\r\n")
    );
    assert_eq!(scrape::parse(response.text()?)?.count("x_total", &[("a", "b")]), Some(7));
    assert_eq!(response.headers["content-type"], "text/plain; version=0.0.4");
    lab.shutdown()
}

#[test]
fn an_agent_that_ends_at_once_shows_its_log() -> Result<()> {
    let lab = Lab::start(&bare())?;
    let binary = lab.scratch().join("agent");
    // Written by another process: a file that is open for writing in a test that forks meanwhile cannot be executed.
    let script = r#"printf '#!/bin/sh\necho "no $1 with $2"; exit 1\n' > "$0" && chmod +x "$0""#;
    lab::run(Command::new("sh").args(["-c", script]).arg(&binary))?;
    let options = AgentOptions { binary: Some(binary), ..AgentOptions::default() };
    let error = format!("{:#}", Agent::start(lab.node(1)?, &options).unwrap_err());
    assert!(error.contains("no run with --web.listen-address=127.0.0.1:9843"), "{error}");
    lab.shutdown()
}

/// With offloads off and neighbours pinned, the devices, the protocol counters and the sender agree exactly.
#[test]
fn witnesses_agree() -> Result<()> {
    const DATAGRAMS: u64 = 1_000;
    const SIZE: usize = 700;
    let lab = Lab::start(&LabOptions { nodes: 2, flannel: Some(Flannel::default()) })?;
    let (client, server) = pair(&lab)?;
    for pod in [&client, &server] {
        pod.set_segmentation(false)?;
        pod.pin_neighbours(&[])?;
    }
    lab.pin_underlay()?;
    let receiver = server.net(|| UdpSocket::bind("0.0.0.0:9"))??;
    receiver.set_read_timeout(Some(Duration::from_secs(2)))?;
    let (device, counters) = (witness::device(&client, "eth0")?, witness::nstat(&client)?);
    let target = (server.address(false)?, 9);
    let sender = client.net(|| UdpSocket::bind("0.0.0.0:0"))??;
    for _ in 0..DATAGRAMS {
        sender.send_to(&[0; SIZE], target)?;
        assert_eq!(receiver.recv(&mut [0; 2 * SIZE])?, SIZE);
    }
    let added = witness::device(&client, "eth0")?.since(&device);
    let sent = witness::nstat(&client)?["UdpOutDatagrams"] - counters["UdpOutDatagrams"];
    assert_eq!(sent, DATAGRAMS);
    // IPv6 of the link may announce itself in between: router solicitations and listener reports.
    let extra = added.transmit_packets - DATAGRAMS;
    assert!(extra < 10, "{added:?}");
    let layer2 = DATAGRAMS * (SIZE as u64 + 8 + 20 + 14);
    assert!((layer2..=layer2 + extra * 150).contains(&added.transmit_bytes), "{added:?}");
    lab.shutdown()
}

#[test]
fn a_capture_has_every_frame_once_and_in_time() -> Result<()> {
    let lab = Lab::start(&bare())?;
    let node = lab.node(1)?;
    lab.pin_underlay()?;
    let mut capture = Capture::start(lab.switch()?, "br0", "icmp")?;
    let start = SystemTime::now().duration_since(UNIX_EPOCH)?;
    ping(node, lab.node(2)?, false, &["-s", "1000"])?;
    let end = SystemTime::now().duration_since(UNIX_EPOCH)?;
    capture.wait_until("requests and replies", Duration::from_secs(5), |frames| frames.len() >= 6)?;
    let text = capture.describe()?;
    let frames = capture.stop()?;
    assert_eq!((frames.len(), text.matches("ICMP echo re").count()), (6, 6), "{text}");
    assert!(frames.is_sorted_by_key(|frame| frame.time));
    for frame in frames {
        assert!((start..=end).contains(&frame.time), "{frame:?} is not from {start:?} to {end:?}");
        assert_eq!((frame.original_len, frame.bytes.len()), (1042, 512));
    }
    lab.shutdown()
}

#[test]
fn a_capture_that_cannot_be_made_says_why() -> Result<()> {
    let lab = Lab::start(&bare())?;
    let refusal = |device, filter| match Capture::start(lab.switch()?, device, filter) {
        Ok(_) => anyhow::bail!("{filter} is captured on {device}"),
        Err(error) => Ok(format!("{error:#}")),
    };
    let error = refusal("br7", "arp")?;
    ensure!(error.contains("br7: No such device"), "{error}");
    let error = refusal("br0", "arp or nonsense")?;
    ensure!(error.contains("tcpdump -i br0 'arp or nonsense' in switch ended"), "{error}");
    lab.shutdown()
}

#[test]
fn iperf3_counts_datagrams() -> Result<()> {
    let lab = Lab::start(&LabOptions { nodes: 2, flannel: Some(Flannel::default()) })?;
    let (client, server) = pair(&lab)?;
    let udp = Protocol::Udp { rate: 20_000_000 };
    let options =
        Iperf { protocol: udp, amount: Amount::Blocks(500), length: Some(1200), ..Iperf::default() };
    let result = witness::iperf3(&client, &server, &options)?;
    assert_eq!((result.datagrams(), result.lost_datagrams()), (Some(500), Some(0)));
    let error =
        witness::iperf3(&client, &server, &Iperf { extra: vec!["--nonsense".into()], ..Iperf::default() });
    assert!(error.is_err());
    lab.shutdown()
}

#[test]
fn shutdown_leaves_nothing() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let lab = Lab::start(&options(Backend::Vxlan, true))?;
    let (client, server) = pair(&lab)?;
    let _daemon = lab.node(1)?.service("sleeper", Command::new("sleep").arg("600"))?;
    let ours: BTreeSet<PathBuf> =
        lab.nodes().iter().flat_map(|node| namespaces_of(&node.machine().holder_pid().to_string())).collect();
    // Each node has five kinds of namespace of its own.
    assert_eq!(ours.len(), 15);
    let (cgroup, scratch, keeper) = (lab.cgroup().to_owned(), lab.scratch().to_owned(), lab.keeper_pid());
    let start = Instant::now();
    lab.shutdown()?;
    let down = start.elapsed();
    println!("down in {down:?}");
    assert!(down < Duration::from_secs(1), "{down:?}");
    assert!(!cgroup.exists() && !scratch.exists());
    assert!(namespaces_in_use()?.is_disjoint(&ours));
    assert_eq!(fs::read_to_string("/proc/self/mounts")?, mounts);
    let keeper = keeper.context("no keeper")?;
    assert!(!Path::new(&format!("/proc/{keeper}")).exists());
    // Handles may outlive the lab: they do no harm.
    drop((client, server));
    Ok(())
}

#[test]
fn a_panic_leaves_nothing() {
    let mut paths = Vec::new();
    let result = catch_unwind(AssertUnwindSafe(|| {
        let lab = Lab::start(&bare()).unwrap();
        paths.extend([lab.cgroup().to_owned(), lab.scratch().to_owned()]);
        let _pod = lab.node(1).unwrap().pod(PodSpec { host_network: true, ..PodSpec::new("x") }).unwrap();
        panic!("on purpose");
    }));
    assert!(result.is_err());
    assert_eq!(paths.len(), 2);
    assert!(paths.iter().all(|path| !path.exists()));
}

#[test]
fn a_lab_without_flannel_has_no_pod_network() -> Result<()> {
    let lab = Lab::start(&bare())?;
    let error = format!("{:#}", lab.node(1)?.pod(PodSpec::new("x")).unwrap_err());
    assert!(error.contains("start the lab with flannel"), "{error}");
    lab.shutdown()
}

/// A lab in a process of its own, and what it made.
struct Run {
    child: Child,
    output: BufReader<ChildStdout>,
    keeper: u32,
    paths: [PathBuf; 2],
}

impl Run {
    fn start() -> Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
        let mut child = command.args(["up"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut output = BufReader::new(child.stdout.take().context("no output")?);
        let ready = output.by_ref().lines().map_while(Result::ok).find(|line| line.starts_with("ready "));
        let ready = ready.context("the lab did not start")?;
        let words: Vec<&str> = ready.split(' ').collect();
        let [_, name, _, keeper] = words[..] else { anyhow::bail!("unexpected line {ready}") };
        let paths = [lab::cgroup::v2_root()?.join(name), std::env::temp_dir().join(name)];
        ensure!(paths.iter().all(|path| path.exists()), "{paths:?} are not all there");
        Ok(Self { child, output, keeper: keeper.parse()?, paths })
    }

    fn end_by(&mut self, signal: Signal) -> Result<()> {
        lab::process::signal(self.child.id(), signal)?;
        self.child.wait()?;
        Ok(())
    }

    fn is_gone(&self) -> bool {
        self.paths.iter().all(|path| !path.exists())
    }
}

#[test]
fn a_killed_run_cleans_up_after_itself() -> Result<()> {
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let mut run = Run::start()?;
        run.end_by(signal)?;
        wait_until("the keeper to clean up", Duration::from_secs(5), || run.is_gone())?;
    }
    Ok(())
}

#[test]
fn the_next_start_cleans_up_after_a_killed_keeper() -> Result<()> {
    let mut run = Run::start()?;
    lab::process::signal(run.keeper, Signal::SIGKILL)?;
    run.end_by(Signal::SIGKILL)?;
    let lab = Lab::start(&bare())?;
    assert!(run.is_gone());
    lab.shutdown()
}

#[test]
fn the_end_of_input_ends_a_run() -> Result<()> {
    let mut run = Run::start()?;
    drop(run.child.stdin.take());
    let mut rest = String::new();
    run.output.read_to_string(&mut rest)?;
    ensure!(run.child.wait()?.success() && rest.starts_with("down in "), "{rest}");
    assert!(run.is_gone());
    Ok(())
}
