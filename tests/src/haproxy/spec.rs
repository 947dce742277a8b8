//! What HAProxy is to do, and its configuration file.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Result;

const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// Where clients of the node itself connect to.
pub const FRONTEND: SocketAddr = local(6443);

/// Where the exporter listens.
pub const PAGE: SocketAddr = local(8405);

/// Where the servers of [`BACKEND`] listen, by their names.
pub const SERVERS: [(&str, SocketAddr); 3] =
    [("one", local(16441)), ("two", local(16442)), ("three", local(16443))];

/// The checked backend.
pub const BACKEND: &str = "api";

/// The backend whose only server is not checked.
pub const UNCHECKED: &str = "unchecked";

/// The stats socket.
pub const SOCKET: &str = "/run/haproxy/admin.sock";

/// By what HAProxy tells about itself.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Where it takes connections: [`FRONTEND`], or that port on all addresses, those to come included.
    pub frontend: SocketAddr,
    /// What follows the path in the line of the stats socket; none for no socket.
    pub socket: Option<&'static str>,
    /// Whether there is an exporter.
    pub page: bool,
}

impl Default for Spec {
    fn default() -> Self {
        Self { frontend: FRONTEND, socket: Some("mode 600 level admin"), page: true }
    }
}

impl Spec {
    /// The configuration file. A check is made every 200 ms and may take as long, and the second one decides.
    pub(super) fn config(&self) -> Result<String> {
        let mut text = "global\n  maxconn 500\n".to_owned();
        if let Some(options) = self.socket {
            writeln!(text, "  stats socket {SOCKET} {options}")?;
        }
        text += "defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 10s\n  timeout server 10s\n";
        writeln!(text, "frontend k8s-api\n  bind {}\n  default_backend {BACKEND}", self.frontend)?;
        writeln!(text, "backend {BACKEND}\n  option httpchk\n  http-check send meth GET uri /readyz")?;
        text += "  http-check expect status 200\n  timeout check 200ms\n";
        text += "  default-server check inter 200ms fall 2 rise 2\n";
        for (name, address) in SERVERS {
            writeln!(text, "  server {name} {address}")?;
        }
        writeln!(text, "backend {UNCHECKED}\n  server plain {}", SERVERS[0].1)?;
        if self.page {
            writeln!(text, "frontend metrics\n  mode http\n  bind {PAGE}")?;
            text += "  http-request use-service prometheus-exporter if { path /metrics }\n";
        }
        Ok(text)
    }
}
