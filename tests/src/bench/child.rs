//! What the benchmark does inside pods and nodes: this binary, started there with a role.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Where the echo server listens.
pub(super) const PING_PORT: u16 = 5300;
/// The discard port, to which nothing answers.
const DISCARD: u16 = 9;
/// Where a node has its cgroups and its pods' logs.
const CGROUPS: &str = "/sys/fs/cgroup";
const PODS: &str = "kubepods/burstable";
const LOGS: &str = "/var/log/pods";

/// Plays a role.
pub fn run(role: &[String]) -> Result<()> {
    let words: Vec<&str> = role.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["echo"] => echo(),
        ["ping", server, exchanges] => ping(server.parse()?, exchanges.parse()?),
        ["crowd", pods, tcp, targets @ ..] => crowd(pods.parse()?, tcp.parse()?, &addresses(targets)?),
        ["churn", pods, targets @ ..] => churn(pods.parse()?, &addresses(targets)?),
        _ => bail!("no such role: {}", words.join(" ")),
    }
}

fn addresses(texts: &[&str]) -> Result<Vec<Ipv4Addr>> {
    let parse = |text: &&str| text.parse().with_context(|| format!("{text} is no IPv4 address"));
    texts.iter().map(parse).collect()
}

fn say(line: &str) -> Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}")?;
    Ok(output.flush()?)
}

/// Sends every byte back, one connection after the other, until it is killed.
fn echo() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PING_PORT)).context("listen")?;
    loop {
        let (mut stream, _) = listener.accept().context("accept")?;
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        let mut byte = [0];
        while stream.read(&mut byte).is_ok_and(|length| length == 1) {
            stream.write_all(&byte).context("answer")?;
        }
    }
}

/// Says the median of that many round trips in nanoseconds.
fn ping(server: Ipv4Addr, exchanges: usize) -> Result<()> {
    let mut stream = TcpStream::connect((server, PING_PORT)).context("connect")?;
    stream.set_nodelay(true).context("set TCP_NODELAY")?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).context("set the time-out")?;
    let mut times = Vec::with_capacity(exchanges);
    let mut byte = [7];
    for _ in 0..exchanges {
        let start = Instant::now();
        stream.write_all(&byte).context("ask")?;
        stream.read_exact(&mut byte).context("no answer")?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let median = times.get(exchanges / 2).context("no exchange was asked for")?;
    say(&median.as_nanos().to_string())
}

/// The cgroups of a pod and its log directory.
struct MadePod {
    cgroup: PathBuf,
    log: PathBuf,
}

impl MadePod {
    fn make(number: u32) -> Result<Self> {
        let uid = format!("{:08x}-0000-4000-8000-{number:012x}", std::process::id());
        let cgroup = Path::new(CGROUPS).join(PODS).join(format!("pod{uid}"));
        let log = Path::new(LOGS).join(format!("bench_application-{number:05}-7d4b9c6f5d-x2x{number}_{uid}"));
        let pod = Self { cgroup, log };
        for directory in [pod.log.join("main"), pod.container()] {
            fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        }
        Ok(pod)
    }

    fn container(&self) -> PathBuf {
        self.cgroup.join("main")
    }

    fn remove(&self) -> Result<()> {
        for directory in [&self.container(), &self.cgroup] {
            fs::remove_dir(directory).with_context(|| format!("remove {}", directory.display()))?;
        }
        fs::remove_dir_all(&self.log).with_context(|| format!("remove {}", self.log.display()))
    }
}

/// Moves this process into a cgroup: sockets belong to the one in which they are opened.
fn enter(cgroup: &Path) -> Result<()> {
    let file = cgroup.join("cgroup.procs");
    fs::write(&file, "0").with_context(|| format!("write {}", file.display()))
}

/// The cgroup that this process is in.
fn home() -> Result<PathBuf> {
    let cgroups = fs::read_to_string("/proc/self/cgroup").context("read /proc/self/cgroup")?;
    let path =
        cgroups.lines().find_map(|line| line.strip_prefix("0::/")).context("no cgroup of version 2")?;
    Ok(Path::new(CGROUPS).join(path))
}

/// One datagram to each target, and a TCP connection if there is a server for it.
fn talk(targets: &[Ipv4Addr], server: Option<SocketAddr>) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("open a UDP socket")?;
    for target in targets {
        socket.send_to(b"x", (*target, DISCARD)).with_context(|| format!("send to {target}"))?;
    }
    if let Some(server) = server {
        TcpStream::connect(server).context("connect")?.write_all(b"x").context("send")?;
    }
    Ok(())
}

/// Pods that have all talked once, the first `tcp` of them over TCP too; they go when the standard input ends.
fn crowd(pods: u32, tcp: u32, targets: &[Ipv4Addr]) -> Result<()> {
    let home = home()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen")?;
    let server = listener.local_addr().context("ask for the port")?;
    thread::spawn(move || listener.incoming().for_each(drop));
    let mut made = Vec::new();
    for number in 0..pods {
        let pod = MadePod::make(number)?;
        enter(&pod.container())?;
        talk(targets, (number < tcp).then_some(server))?;
        made.push(pod);
    }
    enter(&home)?;
    say("ready")?;
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).context("read the standard input")?;
    made.iter().try_for_each(MadePod::remove)
}

/// Pods that come, talk once and go, one after the other, at most 300 a second: the slots of dead pods are kept for
/// some seconds, and there are 4,096.
fn churn(pods: u32, targets: &[Ipv4Addr]) -> Result<()> {
    const PACE: Duration = Duration::from_micros(3_333);
    let home = home()?;
    let start = Instant::now();
    let mut made = None;
    let mut last: Option<MadePod> = None;
    for number in 0..pods {
        thread::sleep((PACE * number).saturating_sub(start.elapsed()));
        let pod = MadePod::make(number)?;
        enter(&pod.container())?;
        talk(targets, None)?;
        let cgroup = fs::metadata(pod.container()).context("ask for the number of the cgroup")?.ino();
        made = Some((made.map_or(cgroup, |(first, _)| first), cgroup));
        if let Some(last) = last.replace(pod) {
            last.remove()?;
        }
    }
    enter(&home)?;
    if let Some((first, last)) = made {
        say(&format!("{first} {last}"))?;
    }
    last.as_ref().map_or(Ok(()), MadePod::remove)
}
