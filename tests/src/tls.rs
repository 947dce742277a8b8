//! A TLS server of a node, as the API server behind a virtual address is one: `openssl s_server`, which answers every
//! `GET` over HTTP/1.0 with 200 and serves one client after the other.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use crate::node::Node;
use crate::place::Place as _;
use crate::service::Service;
use crate::{process, tools};

/// The time to begin to listen.
const LIMIT: Duration = Duration::from_secs(10);

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
}

impl Certificate {
    /// Files that are there.
    pub(crate) fn at(certificate: PathBuf, key: PathBuf) -> Self {
        Self { certificate, key }
    }

    /// Makes one that signs itself, for a server of that node, good from now on for that many days.
    pub fn new(node: &Node, days: u32) -> Result<Self> {
        let scratch = node.machine().scratch();
        let [certificate, key] = ["pem", "key"].map(|end| scratch.join(format!("server-{days}.{end}")));
        let mut command = Command::new(tools::require("openssl")?);
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
        command.args(["-subj", "/CN=kube-apiserver", "-days", &days.to_string()]);
        command.arg("-out").arg(&certificate).arg("-keyout").arg(&key);
        process::run(&mut command)?;
        Ok(Self { certificate, key })
    }

    /// The file with the certificate.
    #[must_use]
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// The file with the key.
    #[must_use]
    pub fn key(&self) -> &Path {
        &self.key
    }

    /// When openssl says that it ends, in seconds since 1970.
    pub fn not_after(&self) -> Result<u64> {
        let mut command = Command::new(tools::require("openssl")?);
        command.args(["x509", "-noout", "-enddate", "-in"]).arg(&self.certificate);
        let said = process::run(&mut command)?;
        let date = said.trim().strip_prefix("notAfter=").with_context(|| said.clone())?;
        let seconds = process::run(Command::new("date").args(["-d", date, "+%s"]))?;
        seconds.trim().parse().with_context(|| format!("{date} is {seconds}"))
    }
}

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub struct TlsServer {
    node: Node,
    service: Service,
    address: SocketAddr,
}

impl TlsServer {
    /// Starts a server on all IPv4 addresses of the node, those that come later among them, and waits until it accepts.
    pub fn start(node: &Node, port: u16, certificate: &Certificate) -> Result<Self> {
        Self::start_on(node, port, certificate, false)
    }

    /// The same on all IPv6 addresses.
    pub fn start_ipv6(node: &Node, port: u16, certificate: &Certificate) -> Result<Self> {
        Self::start_on(node, port, certificate, true)
    }

    fn start_on(node: &Node, port: u16, certificate: &Certificate, ipv6: bool) -> Result<Self> {
        let mut command = Command::new(tools::require("openssl")?);
        let family = if ipv6 { "-6" } else { "-4" };
        command.args(["s_server", family, "-accept", &port.to_string(), "-www", "-quiet"]);
        command.arg("-cert").arg(&certificate.certificate).arg("-key").arg(&certificate.key);
        let service = node.service(&format!("tls-server-{port}"), &mut command)?;
        let address = SocketAddr::new(node.address(ipv6)?, port);
        let mut server = Self { node: node.clone(), service, address };
        server.wait_ready()?;
        Ok(server)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let (node, address) = (self.node.clone(), self.address);
        let accepts = || matches!(node.net(|| TcpStream::connect(address)), Ok(Ok(_)));
        self.service.wait_until("the TLS server to accept", LIMIT, accepts)
    }

    /// Kills it: the port is closed.
    pub fn kill(mut self) -> Result<ExitStatus> {
        self.service.kill()
    }

    /// Stops it in its tracks: the kernel goes on accepting, and nobody answers.
    pub fn freeze(&self) -> Result<()> {
        self.service.signal(Signal::SIGSTOP)
    }

    /// Lets a frozen one go on.
    pub fn thaw(&self) -> Result<()> {
        self.service.signal(Signal::SIGCONT)
    }
}
