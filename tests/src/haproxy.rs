//! A load balancer: real HAProxy as a daemon of a node, in front of servers whose health the test decides.
//!
//! Its configuration lies where Debian has it, so that an agent of the node finds it like on any machine.

mod server;
mod spec;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::node::Node;
use crate::place::Place as _;
use crate::scrape::{self, Samples};
use crate::service::Service;
use crate::tools;

pub use server::{Health, Server};
pub use spec::{BACKEND, FRONTEND, PAGE, SERVERS, SOCKET, Spec, UNCHECKED};

const LIMIT: Duration = Duration::from_secs(10);

/// A running HAProxy. Dropping it kills it.
#[derive(Debug)]
pub struct Haproxy {
    node: Node,
    service: Service,
}

impl Haproxy {
    /// Starts HAProxy on the node and waits until it takes connections.
    pub fn start(node: &Node, spec: &Spec) -> Result<Self> {
        Self::start_with(node, &spec.config()?)
    }

    /// Starts HAProxy with that configuration, which has port 6443 of the node.
    pub(crate) fn start_with(node: &Node, config: &str) -> Result<Self> {
        node.run(&["mkdir", "-p", "/run/haproxy"])?;
        let file = config_file(node);
        fs::write(&file, config).with_context(|| format!("write {}", file.display()))?;
        let mut command = Command::new(tools::require("haproxy")?);
        command.args(["-db", "-f", "/etc/haproxy/haproxy.cfg"]);
        let mut service = node.service("haproxy", &mut command)?;
        let listens = || node.net(|| TcpStream::connect(FRONTEND)).is_ok_and(|stream| stream.is_ok());
        service.wait_until("HAProxy to take connections", LIMIT, listens)?;
        Ok(Self { node: node.clone(), service })
    }

    /// Has a command carried out through the stats socket, and returns the answer.
    pub fn command(&self, command: &str) -> Result<String> {
        // The socket is in the file system of the node.
        let path = format!("/proc/{}/root{SOCKET}", self.node.machine().holder_pid());
        let mut stream = UnixStream::connect(&path).with_context(|| format!("connect to {path}"))?;
        stream.set_read_timeout(Some(LIMIT)).context("set the read time-out")?;
        stream.write_all(format!("{command}\n").as_bytes()).with_context(|| format!("send {command}"))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).with_context(|| format!("read the answer to {command}"))?;
        Ok(answer)
    }

    /// Scrapes the exporter.
    pub fn scrape(&self) -> Result<Samples> {
        scrape::parse(scrape::get(&self.node, PAGE, "/metrics", &[])?.text()?)
    }

    /// Kills it by SIGKILL: its socket stays in the file system.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.service.kill()
    }
}

/// The configuration file of a node, as the machine sees it.
fn config_file(node: &Node) -> PathBuf {
    node.machine().scratch().join("etc-haproxy/haproxy.cfg")
}
