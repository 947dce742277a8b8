//! Numbered datagrams, a thousand a second, and their echo.

use std::io::Read as _;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, Place, Pod, process};
use nix::sys::socket::{setsockopt, sockopt};

/// Payload bytes of a datagram.
pub(crate) const PAYLOAD: u16 = 777;
const LENGTH: usize = PAYLOAD as usize;
const PORT: u16 = 7777;
const INTERVAL: Duration = Duration::from_millis(1);
/// Room for what arrives while this machine has no time for the receiver: 16 MiB are about 7,000 datagrams.
const ROOM: usize = 16 << 20;
/// The time in which the last echo must have come.
const LAST: Duration = Duration::from_secs(5);

const TARGET: &str = "NUMBERED_TARGET";
const STOP_FILE: &str = "NUMBERED_STOP";

/// What became of the datagrams.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// Datagrams sent.
    pub(crate) sent: u64,
    /// Those whose echo has not come.
    pub(crate) lost: u64,
    /// Echoes that came after a later one.
    pub(crate) out_of_order: u64,
}

/// A running exchange.
pub(crate) struct Exchange {
    sender: Child,
    stop_file: PathBuf,
    echo_ends: Arc<AtomicBool>,
    echo: Option<JoinHandle<()>>,
}

impl Exchange {
    /// Starts the echo in one pod and the sender in the other one.
    pub(crate) fn start(lab: &Lab, client: &Pod, server: &Pod) -> Result<Self> {
        let socket = server.net(|| UdpSocket::bind(("0.0.0.0", PORT)))?.context("bind the echo")?;
        setsockopt(&socket, sockopt::RcvBufForce, &ROOM).context("make room for datagrams")?;
        socket.set_read_timeout(Some(Duration::from_millis(100))).context("set the read time-out")?;
        let echo_ends = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&echo_ends);
        let echo = std::thread::spawn(move || answer(&socket, &ends));
        let stop_file = lab.scratch().join("stop-numbered");
        if stop_file.exists() {
            std::fs::remove_file(&stop_file).context("remove the stop file")?;
        }
        let mut command: Command = client.test_command("task_sends_numbered_datagrams")?;
        command.env(TARGET, SocketAddr::from((server.address(false)?, PORT)).to_string());
        command.env(STOP_FILE, &stop_file).stdout(Stdio::piped());
        let sender = process::spawn(&mut command)?;
        Ok(Self { sender, stop_file, echo_ends, echo: Some(echo) })
    }

    /// Ends the sender, waits for the last echo, and returns the sender's report.
    pub(crate) fn stop(mut self) -> Result<Report> {
        std::fs::write(&self.stop_file, "").context("write the stop file")?;
        let status = process::wait_exit(&mut self.sender, "the numbered sender", LAST * 2)?;
        let mut output = String::new();
        self.sender.stdout.take().context("no output")?.read_to_string(&mut output)?;
        ensure!(status.success(), "the sender ended with {status}: {output}");
        let line = output.lines().find_map(|line| line.split_once("report ").map(|(_, numbers)| numbers));
        let numbers: Vec<u64> = line
            .with_context(|| format!("no report in {output}"))?
            .split(' ')
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let [sent, lost, out_of_order] = numbers[..] else { anyhow::bail!("malformed report: {output}") };
        Ok(Report { sent, lost, out_of_order })
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.echo_ends.store(true, Ordering::Relaxed);
        drop(self.sender.kill());
        drop(self.sender.wait());
        drop(self.echo.take().map(JoinHandle::join));
    }
}

fn answer(socket: &UdpSocket, ends: &AtomicBool) {
    let mut datagram = [0; 2 * LENGTH];
    while !ends.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut datagram) {
            drop(socket.send_to(&datagram[..length], from));
        }
    }
}

/// The sender, inside a pod: its cgroup is the pod's. Returns the line that [`Exchange::stop`] looks for.
pub(crate) fn send() -> Result<String> {
    let target: SocketAddr = std::env::var(TARGET).context(TARGET)?.parse()?;
    let stop_file = PathBuf::from(std::env::var(STOP_FILE).context(STOP_FILE)?);
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    setsockopt(&socket, sockopt::RcvBufForce, &ROOM)?;
    socket.connect(target)?;
    let listener = socket.try_clone()?;
    listener.set_read_timeout(Some(Duration::from_millis(100)))?;
    let (sent, all_sent) = (Arc::new(std::sync::atomic::AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let echoes = {
        let (sent, all_sent) = (Arc::clone(&sent), Arc::clone(&all_sent));
        std::thread::spawn(move || receive(&listener, &sent, &all_sent))
    };
    let mut datagram = [0x5a; LENGTH];
    let start = Instant::now();
    while !stop_file.exists() {
        let number = sent.load(Ordering::Relaxed);
        datagram[..8].copy_from_slice(&number.to_be_bytes());
        socket.send(&datagram)?;
        sent.store(number + 1, Ordering::Relaxed);
        // The pace of the traffic, not a wait for anything.
        let next = start + INTERVAL * u32::try_from(number + 1)?;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    all_sent.store(true, Ordering::Release);
    let (received, out_of_order) = echoes.join().ok().context("the receiver panicked")?;
    let sent = sent.load(Ordering::Relaxed);
    Ok(format!("report {sent} {} {out_of_order}", sent - received))
}

/// Receives until all that was sent has come back, or nothing more comes; returns how many came, and how many late.
fn receive(socket: &UdpSocket, sent: &std::sync::atomic::AtomicU64, all_sent: &AtomicBool) -> (u64, u64) {
    let (mut received, mut late, mut next) = (0, 0, 0);
    let mut end = None;
    let mut datagram = [0; 2 * LENGTH];
    loop {
        if all_sent.load(Ordering::Acquire) {
            let end = *end.get_or_insert_with(|| Instant::now() + LAST);
            if received >= sent.load(Ordering::Relaxed) || Instant::now() > end {
                return (received, late);
            }
        }
        let Ok(LENGTH) = socket.recv(&mut datagram) else { continue };
        let mut number = [0; 8];
        number.copy_from_slice(&datagram[..8]);
        let number = u64::from_be_bytes(number);
        received += 1;
        late += u64::from(number < next);
        next = next.max(number + 1);
    }
}
