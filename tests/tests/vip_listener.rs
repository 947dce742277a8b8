//! Processes behind a virtual address, compared with ss: listeners of other users, on every kind of address, seen by an
//! agent that has its three capabilities and no others.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::keepalived::Spec;
use lab::process::Holder;
use lab::scrape::Samples;
use lab::service::Service;
use lab::{Agent, AgentOptions, Flannel, Lab, LabOptions, Node, Place as _, PodSpec, Trio, wait_until};
use nix::sys::socket::{Backlog, SockaddrStorage, bind, listen, setsockopt, sockopt};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

/// What the child is told: addresses, and options of its sockets.
const ADDRESSES: &str = "LISTEN_ADDRESSES";
const V6ONLY: &str = "LISTEN_V6ONLY";

/// The agent asks every ten seconds; a machine with two processors may take some more.
const LIMIT: Duration = Duration::from_secs(25);

/// `NET_ADMIN` (12), PERFMON (38) and BPF (39), as /proc writes them.
const THREE: &str = "000000c000001000";

/// The lab, node1 with the address, and programs of any name.
struct Stage {
    lab: Lab,
    trio: Trio,
    vip: IpAddr,
    agent: Agent,
}

impl Stage {
    fn new(flannel: Option<Flannel>) -> Result<Self> {
        let lab = Lab::start(&LabOptions { nodes: 3, flannel })?;
        let trio = Trio::start(&lab, &Spec::v2())?;
        let vip = trio.vip()?;
        // Other users may not look into the build directory.
        fs::copy(std::env::current_exe()?, program(&lab, "listener"))?;
        let options = AgentOptions {
            binary: Some(confined(&lab)?),
            arguments: vec!["--log.level=info,leadline::agent::vip_listener=debug".to_owned()],
            ..AgentOptions::default()
        };
        let agent = Agent::start(lab.node(1)?, &options)?;
        Ok(Self { lab, trio, vip, agent })
    }

    fn node(&self) -> Result<&Node> {
        self.lab.node(1)
    }

    /// A command that listens, as an ordinary user, under a name.
    fn command(&self, name: &str, addresses: &[SocketAddr], v6only: bool) -> Result<Command> {
        let path = program(&self.lab, name);
        if !path.exists() {
            symlink(program(&self.lab, "listener"), &path)?;
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]).arg(path);
        command.args(["--exact", "child_listens", "--ignored", "--nocapture", "--test-threads=1"]);
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        command.env(ADDRESSES, addresses.join(",")).env(V6ONLY, v6only.to_string());
        Ok(command)
    }

    /// The same as a service of the node, once it listens.
    fn listener(&self, name: &str, addresses: &[SocketAddr], v6only: bool) -> Result<Service> {
        let service = self.node()?.service(name, &mut self.command(name, addresses, v6only)?)?;
        wait_until(&format!("{name} to listen"), LIMIT, || {
            service.log().is_ok_and(|log| log.contains("listening"))
        })
        .with_context(|| service.log_tail(10))?;
        Ok(service)
    }

    fn shared(&self, page: &Samples, port: u16) -> Option<f64> {
        let labels = [("vip", self.vip.to_string()), ("port", port.to_string())];
        page.value(
            "leadline_vip_port_shared",
            &labels.each_ref().map(|(name, value)| (*name, value.as_str())),
        )
    }

    fn await_shared(&self, port: u16, expected: f64) -> Result<()> {
        let shared = || self.agent.scrape().ok().and_then(|page| self.shared(&page, port));
        wait_until(&format!("port {port} to be shared: {expected}"), LIMIT, || shared() == Some(expected))
    }

    fn end(self) -> Result<()> {
        self.agent.sigterm()?;
        drop(self.trio);
        self.lab.shutdown()
    }
}

fn program(lab: &Lab, name: &str) -> PathBuf {
    lab.scratch().join(name)
}

/// The agent behind a script that leaves it three capabilities.
fn confined(lab: &Lab) -> Result<PathBuf> {
    let path = program(lab, "confined");
    let script = format!(
        "#!/bin/sh\nexec setpriv --inh-caps=-all --bounding-set=-all,+bpf,+perfmon,+net_admin {} \"$@\"\n",
        lab::agent::binary()?.display()
    );
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// Process, local address and port.
type Row = (String, String, u16);

/// What the agent says of ports from 8000 on.
fn told(page: &Samples, vip: IpAddr) -> BTreeSet<Row> {
    let rows = page.of("leadline_vip_listener_info", |sample| sample.label("vip") == Some(&vip.to_string()));
    rows.filter_map(|sample| {
        let port = sample.label("port")?.parse().ok()?;
        Some((sample.label("process")?.to_owned(), sample.label("local_address")?.to_owned(), port))
    })
    .filter(|(_, _, port)| *port >= 8_000 && *port < 9_000)
    .collect()
}

/// The same from a line of ss, where `*` is the IPv6 wildcard that takes IPv4 as well.
fn row(line: &str) -> Option<Row> {
    let local = line.split_whitespace().nth(3)?;
    let (address, port) = local.rsplit_once(':')?;
    let process = line.split_once("((\"")?.1.split_once('"')?.0;
    let address = if address == "*" { "::" } else { address };
    Some((process.to_owned(), address.to_owned(), port.parse().ok()?))
}

/// What ss shows that gets connections to the address.
fn shown(node: &Node, vip: IpAddr) -> Result<BTreeSet<Row>> {
    let text = node.run(&["ss", "-Hltnp"])?;
    let rows = text.lines().filter_map(row);
    let fits = |address: &str| address == vip.to_string() || address == "0.0.0.0" || address == "::";
    Ok(rows.filter(|(_, address, port)| *port >= 8_000 && *port < 9_000 && fits(address)).collect())
}

#[test]
fn processes_of_other_users_are_those_that_ss_shows() -> Result<()> {
    let mut stage = Stage::new(Some(Flannel::default()))?;
    let (vip, own) = (stage.vip, stage.node()?.address(false)?);
    let at = |address: IpAddr, port: u16| SocketAddr::new(address, port);
    let any = |text: &str| text.parse::<IpAddr>();
    let _listeners = [
        stage.listener("exact", &[at(vip, 8001)], false)?,
        stage.listener("every-four", &[at(any("0.0.0.0")?, 8002)], false)?,
        stage.listener("every", &[at(any("::")?, 8003)], false)?,
        stage.listener("every-six", &[at(any("::")?, 8004)], true)?,
        stage.listener("own-address", &[at(own, 8005)], false)?,
        stage.listener("loopback", &[at(any("127.0.0.1")?, 8006)], false)?,
    ];
    // The same port in the network of a pod is another one.
    let pod = stage.node()?.pod(PodSpec::new("behind"))?;
    let mut in_pod = pod.command("env")?;
    let inner =
        stage.command("in-the-pod", &[at(any("0.0.0.0")?, 8001), at(any("0.0.0.0")?, 8007)], false)?;
    in_pod.arg("--").arg(inner.get_program()).args(inner.get_args());
    in_pod.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let _in_pod = Holder::spawn(&mut in_pod)?;
    wait_until("the pod to listen", LIMIT, || {
        pod.run(&["ss", "-Hltn"]).is_ok_and(|text| text.contains(":8007"))
    })?;

    let node = stage.node()?;
    let expected: BTreeSet<Row> = [("exact", vip.to_string(), 8001), ("every-four", "0.0.0.0".into(), 8002)]
        .into_iter()
        .chain([("every", "::".to_owned(), 8003)])
        .map(|(process, address, port)| (process.to_owned(), address, port))
        .collect();
    // ss writes the IPv6 wildcard of a socket that takes no IPv4 as [::], and that of others as *.
    assert_eq!(shown(node, vip)?, expected);
    let page = || stage.agent.scrape();
    wait_until("the agent to tell what ss shows", LIMIT, || {
        page().is_ok_and(|page| told(&page, vip) == expected)
    })
    .with_context(|| format!("{:#?}", page().map(|page| told(&page, vip))))?;
    let page = page()?;
    assert!((8001..=8003).all(|port| stage.shared(&page, port) == Some(0.0)));
    assert!((8004..=8007).all(|port| stage.shared(&page, port).is_none()));

    let status = fs::read_to_string(format!("/proc/{}/status", stage.agent.service().pid()))?;
    assert!(status.contains(&format!("CapBnd:\t{THREE}")), "{status}");
    let log = stage.agent.service().log()?;
    for line in log.lines().filter(|line| line.contains("listeners were listed")) {
        println!("{line}");
    }
    stage.end()
}

#[test]
fn a_port_of_two_programs_is_shared_until_one_ends() -> Result<()> {
    const PORT: u16 = 8443;
    let stage = Stage::new(None)?;
    let own = stage.node()?.address(false)?;
    let on_vip = SocketAddr::new(stage.vip, PORT);
    // Two sockets of one program are no conflict.
    let mut front = stage.listener("front", &[on_vip, on_vip], false)?;
    stage.await_shared(PORT, 0.0)?;
    let mut second = stage.listener("second", &[on_vip], false)?;
    stage.await_shared(PORT, 1.0)?;
    let events = stage.agent.get("/api/v1/events", &[])?;
    let events: serde_json::Value = serde_json::from_str(events.text()?)?;
    let event = events["events"]
        .as_array()
        .and_then(|events| events.iter().find(|event| event["kind"] == "vip_port_shared"))
        .with_context(|| format!("{events:#}"))?;
    assert_eq!(event["subject"], stage.vip.to_string());
    assert_eq!(event["details"], serde_json::json!({"port": "8443", "programs": "front, second"}));
    second.kill()?;
    stage.await_shared(PORT, 0.0)?;
    // An address beside the virtual one is the same port.
    let _beside = stage.listener("beside", &[SocketAddr::new(own, PORT)], false)?;
    stage.await_shared(PORT, 1.0)?;
    // Where nobody gets connections to the address, there is nothing to say of the port.
    front.kill()?;
    wait_until("the port to be forgotten", LIMIT, || {
        stage.agent.scrape().is_ok_and(|page| stage.shared(&page, PORT).is_none())
    })?;
    stage.end()
}

#[test]
fn a_line_of_ss_is_read() {
    let line = "LISTEN 0      128               *:8003            *:*    users:((\"every\",pid=7,fd=3))";
    assert_eq!(row(line), Some(("every".to_owned(), "::".to_owned(), 8003)));
    let line = "LISTEN 0 128 [::]:8004 [::]:* users:((\"a\",pid=7,fd=3))";
    assert_eq!(row(line), Some(("a".to_owned(), "[::]".to_owned(), 8004)));
    assert_eq!(row("LISTEN 0 128 0.0.0.0:22 0.0.0.0:*"), None);
}

/// Half of the ports, so that both protocols are among those of every test.
fn port_wants_multipath(address: SocketAddr) -> bool {
    address.port().is_multiple_of(2)
}

/// A listening socket that shares its address with others.
fn open(address: SocketAddr, v6only: bool) -> Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let create = |protocol| socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, protocol);
    // As programs in Go do: with MPTCP where the kernel has it.
    let with_multipath = port_wants_multipath(address).then(|| create(Some(ipproto::MPTCP)).ok()).flatten();
    let descriptor: OwnedFd = with_multipath.map_or_else(|| create(None), Ok)?;
    setsockopt(&descriptor, sockopt::ReusePort, &true)?;
    if address.is_ipv6() {
        setsockopt(&descriptor, sockopt::Ipv6V6Only, &v6only)?;
    }
    bind(std::os::fd::AsRawFd::as_raw_fd(&descriptor), &SockaddrStorage::from(address))?;
    listen(&descriptor, Backlog::new(16)?)?;
    Ok(TcpListener::from(descriptor))
}

/// Run by the other tests in a process of its own, which they end.
#[test]
#[ignore = "a child of other tests"]
fn child_listens() -> Result<()> {
    let addresses = std::env::var(ADDRESSES).context("no addresses")?;
    let v6only = std::env::var(V6ONLY)? == "true";
    let listeners: Vec<TcpListener> =
        addresses.split(',').map(|address| open(address.parse()?, v6only)).collect::<Result<_>>()?;
    println!("listening");
    loop {
        // Nobody connects: this is how the sockets stay open.
        drop(listeners[0].accept()?);
    }
}
