//! HAProxy in front of all API servers.

use std::fmt::Write as _;

use anyhow::Result;

use crate::control_plane::pki::{CA, PKI};
use crate::haproxy::{BACKEND, Haproxy, PAGE, SOCKET};
use crate::keepalived::Check;
use crate::node::Node;
use crate::place::Place as _;

/// Where the API servers themselves listen: 6443 is HAProxy's.
pub(super) const SERVER_PORT: u16 = 16_443;

/// Where the exporter's port says with 200 that an API server is left, and with 503 that none is.
const MONITOR: &str = "/serves";

/// What every proxy has. Watches stay open for minutes.
const DEFAULTS: &str = "  maxconn 1000
defaults
  mode tcp
  timeout connect 2s
  timeout client 1h
  timeout server 1h
";

/// How a proxy judges its servers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// At once: nodes and clients wait for as short as can be.
    Quick,
    /// Like kubeadm's guide, as far as a test has the time: after an agent that asks once a second. An API server that has
    /// lost its store says so after two seconds, and to one client after the other.
    Patient,
}

impl Pace {
    const fn checks(self) -> &'static str {
        match self {
            Self::Quick => "inter 500ms fall 2",
            Self::Patient => "inter 2s fall 3",
        }
    }

    /// Without one, a check may take as long as its interval.
    const fn time_out(self) -> &'static str {
        match self {
            Self::Quick => "",
            Self::Patient => "  timeout check 5s\n",
        }
    }
}

/// What every server has. One that fails takes its connections with it, so that clients begin anew elsewhere.
const SERVER: &str = "rise 1 on-marked-down shutdown-sessions check check-ssl verify required";

/// Starts the one of a node.
pub(super) fn start(node: &Node, nodes: &[Node], pace: Pace) -> Result<Haproxy> {
    Haproxy::start_with(node, &config(nodes, pace)?)
}

/// By which the node's keepalived knows that its proxy has an API server.
pub(super) fn check() -> Check {
    let command =
        format!("/usr/bin/curl --silent --fail --max-time 2 --output /dev/null http://{PAGE}{MONITOR}");
    Check { command, interval: 1, fall: 3 }
}

fn config(nodes: &[Node], pace: Pace) -> Result<String> {
    let mut text = format!("global\n  stats socket {SOCKET} mode 600 level admin\n{DEFAULTS}");
    writeln!(text, "frontend k8s-api\n  bind :6443\n  default_backend {BACKEND}\nbackend {BACKEND}")?;
    text += "  option httpchk\n  http-check send meth GET uri /readyz\n  http-check expect status 200\n";
    text += pace.time_out();
    writeln!(text, "  default-server {} {SERVER} ca-file {PKI}/{CA}", pace.checks())?;
    for node in nodes {
        writeln!(text, "  server {} {}:{SERVER_PORT}", node.name(), node.address(false)?)?;
    }
    writeln!(text, "frontend metrics\n  mode http\n  bind {PAGE}")?;
    text += "  http-request use-service prometheus-exporter if { path /metrics }\n";
    writeln!(text, "  monitor-uri {MONITOR}\n  monitor fail if {{ nbsrv({BACKEND}) lt 1 }}")?;
    Ok(text)
}
