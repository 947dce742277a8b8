//! The traffic of the demo: every flow is a server in one pod and a client in another.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::demo::plan::{FLOWS, Flow, Kind};
use crate::place::Place as _;
use crate::pod::Pod;
use crate::{process, witness};

/// The time in which a server must listen, and a program must end.
const LIMIT: Duration = Duration::from_secs(10);

/// A running flow. Dropping it kills both ends.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) flow: Flow,
    server: Option<Child>,
    client: Option<Child>,
}

/// What iperf3 says of a flow: payload bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Payload {
    pub(crate) flow: Flow,
    pub(crate) sent: Option<u64>,
    pub(crate) received: Option<u64>,
}

/// Starts all flows; each has a port of its own.
pub(crate) fn start(pods: &[Pod]) -> Result<Vec<Running>> {
    let flows = FLOWS.iter().zip(5_201..);
    flows.map(|(flow, port)| Running::start(*flow, pods, port)).collect()
}

impl Running {
    fn start(flow: Flow, pods: &[Pod], port: u16) -> Result<Self> {
        let named = |name: &str| {
            let found = pods.iter().find(|pod| pod.spec().name == name);
            found.with_context(|| format!("the demo has no pod {name}"))
        };
        let (client, server) = (named(flow.client)?, named(flow.server)?);
        let mut running = Self { flow, server: None, client: None };
        running.server = Some(spawn(serve(server, flow.kind, port)?)?);
        if !matches!(flow.kind, Kind::Queries { .. }) {
            let listens = || witness::tcp_listens(server, port).unwrap_or(false);
            process::wait_until(&format!("port {port} of {}", server.name()), LIMIT, listens)?;
        }
        let address = SocketAddr::new(server.address(false)?, port);
        running.client = Some(spawn(call(client, flow.kind, address)?)?);
        Ok(running)
    }

    /// Fails if one end has ended, with its output.
    pub(crate) fn check(&mut self) -> Result<()> {
        for (end, name) in [(&mut self.server, self.flow.server), (&mut self.client, self.flow.client)] {
            if let Some(child) = end
                && let Some(status) = child.try_wait().context("ask for the end of a process")?
            {
                let output = end.take().map(|child| process::finish(child, name, LIMIT)).transpose()?;
                let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
                anyhow::bail!(
                    "the traffic from {} to {} stopped: {name} ended with {status}: {}",
                    self.flow.client,
                    self.flow.server,
                    String::from_utf8_lossy(&text).trim()
                );
            }
        }
        Ok(())
    }

    /// Ends the client and then the server; returns what iperf3 measured.
    pub(crate) fn stop(mut self) -> Result<Option<Payload>> {
        let measured = matches!(self.flow.kind, Kind::Stream(_) | Kind::Datagrams(_));
        let (Some(client), Some(server)) = (self.client.take(), self.server.take()) else { return Ok(None) };
        if !measured {
            end(client);
            end(server);
            return Ok(None);
        }
        // An interrupted client tells its one-off server, and both report.
        process::signal(client.id(), Signal::SIGINT)?;
        let sender = process::finish(client, self.flow.client, LIMIT)?;
        let receiver = process::finish(server, self.flow.server, LIMIT)?;
        let bytes = |report: &[u8], pointer: &str| {
            serde_json::from_slice::<Value>(report).ok()?.pointer(pointer)?.as_u64()
        };
        let payload = Payload {
            flow: self.flow,
            sent: bytes(&sender.stdout, "/end/sum_sent/bytes"),
            received: bytes(&receiver.stdout, "/end/sum_received/bytes"),
        };
        ensure!(
            payload.sent.is_some(),
            "iperf3 in {} made no report: {}",
            self.flow.client,
            String::from_utf8_lossy(&sender.stderr).trim()
        );
        Ok(Some(payload))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for child in [self.client.take(), self.server.take()].into_iter().flatten() {
            end(child);
        }
    }
}

fn end(mut child: Child) {
    // It may have ended by itself.
    drop(child.kill().and_then(|()| child.wait()));
}

fn spawn(mut command: Command) -> Result<Child> {
    process::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))
}

/// This program again, inside the pod.
fn ourselves(pod: &Pod, words: &[&str]) -> Result<Command> {
    let binary = std::env::current_exe().context("find this program")?;
    let binary = binary.to_str().context("the path of this program is no UTF-8")?;
    let mut command = pod.command(binary)?;
    command.arg("exchange").args(words);
    Ok(command)
}

fn serve(pod: &Pod, kind: Kind, port: u16) -> Result<Command> {
    let port = port.to_string();
    match kind {
        Kind::Stream(_) | Kind::Datagrams(_) => {
            let mut command = pod.command("iperf3")?;
            command.args(["-s", "-1", "-J", "-i", "0", "-p", &port]);
            Ok(command)
        }
        Kind::Requests { .. } => ourselves(pod, &["serve", "tcp", &port]),
        Kind::Queries { .. } => ourselves(pod, &["serve", "udp", &port]),
    }
}

fn call(pod: &Pod, kind: Kind, server: SocketAddr) -> Result<Command> {
    let requests = |protocol: &str, numbers: [u32; 3]| {
        let [per_second, answer, per_connection] = numbers.map(|number| number.to_string());
        let address = server.to_string();
        ourselves(pod, &["request", protocol, &address, &per_second, &answer, &per_connection])
    };
    match kind {
        Kind::Stream(rate) => iperf3(pod, server, rate, &["-l", "16K"]),
        Kind::Datagrams(rate) => iperf3(pod, server, rate, &["-u", "-l", "1200"]),
        Kind::Requests { per_second, answer, per_connection } => {
            requests("tcp", [per_second, answer, per_connection])
        }
        Kind::Queries { per_second, answer } => requests("udp", [per_second, answer, 0]),
    }
}

/// Without end, and with one report at the end that does not grow.
fn iperf3(pod: &Pod, server: SocketAddr, rate: u64, more: &[&str]) -> Result<Command> {
    let (address, port, rate) = (server.ip().to_string(), server.port().to_string(), rate.to_string());
    let mut command = pod.command("iperf3")?;
    command.args(["-c", &address, "-p", &port, "-J", "-i", "0", "-t", "0", "-b", &rate]).args(more);
    Ok(command)
}
