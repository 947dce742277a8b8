//! HAProxy in front of all API servers.

use std::fmt::Write as _;

use anyhow::Result;

use crate::control_plane::pki::{CA, PKI};
use crate::haproxy::{BACKEND, Haproxy, PAGE, SOCKET};
use crate::node::Node;
use crate::place::Place as _;

/// Where the API servers themselves listen: 6443 is HAProxy's.
pub(super) const SERVER_PORT: u16 = 16_443;

/// What every proxy has. Watches stay open for minutes. An API server whose store is lost takes two seconds to say so, the
/// first time.
const DEFAULTS: &str = "  maxconn 1000
defaults
  mode tcp
  timeout connect 2s
  timeout check 5s
  timeout client 1h
  timeout server 1h
";

/// What every server has. One that fails takes its connections with it, so that clients begin anew elsewhere. It has failed
/// when an agent that asks the API server itself once a second has heard it as well.
const SERVER: &str =
    "inter 500ms fall 5 rise 1 on-marked-down shutdown-sessions check check-ssl verify required";

/// Starts the one of a node.
pub(super) fn start(node: &Node, nodes: &[Node]) -> Result<Haproxy> {
    Haproxy::start_with(node, &config(nodes)?)
}

fn config(nodes: &[Node]) -> Result<String> {
    let mut text = format!("global\n  stats socket {SOCKET} mode 600 level admin\n{DEFAULTS}");
    writeln!(text, "frontend k8s-api\n  bind :6443\n  default_backend {BACKEND}\nbackend {BACKEND}")?;
    text += "  option httpchk\n  http-check send meth GET uri /readyz\n  http-check expect status 200\n";
    writeln!(text, "  default-server {SERVER} ca-file {PKI}/{CA}")?;
    for node in nodes {
        writeln!(text, "  server {} {}:{SERVER_PORT}", node.name(), node.address(false)?)?;
    }
    writeln!(text, "frontend metrics\n  mode http\n  bind {PAGE}")?;
    text += "  http-request use-service prometheus-exporter if { path /metrics }\n";
    Ok(text)
}
