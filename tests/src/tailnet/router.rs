//! A tailscaled in a pod, as a subnet router is one: in the network of the pod, without a device, behind the address
//! translation of its node, and with its socket in a directory of the node.

use std::fs::File;
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Daemon, LIMIT, PORT, SOCKET, Tailnet, status};
use crate::impair::Firewall;
use crate::node::Node;
use crate::place::Place as _;
use crate::pod::{Pod, PodSpec};
use crate::process::{self, Holder};
use crate::tools;

/// The directory of the node that the pod has at `/run/tailscale`.
const DIRECTORY: &str = "/var/lib/tailscale-router";
/// The socket as the node sees it.
pub const ROUTER_SOCKET: &str = "/var/lib/tailscale-router/tailscaled.sock";
/// The name of the router in the tailnet, which is not that of its node.
pub const ROUTER: &str = "router";
/// The ports of the node by which its packets leave. It takes several: one that somebody has sent to is not free for an
/// answer to him.
pub const TRANSLATED: RangeInclusive<u16> = 50_000..=50_999;

/// What a container has: the directory where the image expects it, and a `/run` of its own around it.
const CONTAINER: &str = r#"
set -e
mkdir -p "$directory"
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/tailscale
mount --bind "$directory" /run/tailscale
exec "$program" --tun=userspace-networking --state=mem: --no-logs-no-support "--socket=$socket" "--port=$port"
"#;

/// A running router. Dropping it ends it, then its pod.
#[derive(Debug)]
pub struct Router<'lab> {
    node: &'lab Node,
    daemon: Holder,
    pod: Pod,
    _kept_out: Firewall<'lab, Node>,
    _translation: Firewall<'lab, Node>,
}

impl<'lab> Router<'lab> {
    /// Starts it in a pod of a node, whose own tailscaled must not run, and waits until it is logged in.
    pub fn start(tailnet: &Tailnet<'lab>, node: &'lab Node) -> Result<Self> {
        let pod = node.pod(PodSpec::new(ROUTER))?;
        let translation = translate(node, &pod)?;
        // Its pod's address is reached through the overlay as well, without any translation.
        let rule = format!("iifname \"flannel.1\" udp dport {PORT} drop");
        let body = format!("chain keep_out {{ type filter hook forward priority 0;\n{rule}\n}}\n");
        let kept_out = Firewall::add(node, "inet", "keep_out_router", &body)?;
        let mut command = pod.command("unshare")?;
        command.args(["--mount", "--propagation", "unchanged", "sh", "-c", CONTAINER]);
        command.env("directory", DIRECTORY).env("socket", SOCKET).env("port", PORT.to_string());
        command.env("program", tools::tailscaled()?);
        let log = File::create(pod.log_dir().join("main/0.log")).context("create the log of the router")?;
        command.stdout(log.try_clone().context("duplicate a descriptor")?).stderr(log);
        let daemon = Holder::spawn(&mut command)?;
        let router = Self { node, daemon, pod, _kept_out: kept_out, _translation: translation };
        router.login(&tailnet.server()?)?;
        Ok(router)
    }

    fn login(&self, server: &str) -> Result<()> {
        let arguments =
            ["up", server, &format!("--hostname={ROUTER}"), "--accept-dns=false", "--timeout=30s"];
        let mut last = Ok(String::new());
        let waited = process::wait_until("the router to log in", LIMIT, || {
            last = self.tailscale(&arguments);
            last.is_ok()
        });
        let log = || std::fs::read_to_string(self.pod.log_dir().join("main/0.log")).unwrap_or_default();
        waited.with_context(|| format!("{last:?}; {}", log()))
    }

    /// The pod.
    #[must_use]
    pub fn pod(&self) -> &Pod {
        &self.pod
    }

    /// The process of the daemon.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// Waits until its daemon says so.
    pub fn wait_status(&self, what: &str, limit: Duration, holds: impl Fn(&Value) -> bool) -> Result<()> {
        let mut last = None;
        let waited = process::wait_until(&format!("the router {what}"), limit, || {
            last = status(self).ok();
            last.as_ref().is_some_and(&holds)
        });
        waited.with_context(|| format!("last said: {last:#?}"))
    }
}

impl Daemon for Router<'_> {
    fn tailscale(&self, arguments: &[&str]) -> Result<String> {
        super::run(self.node, ROUTER_SOCKET, arguments)
    }

    fn hostname(&self) -> &str {
        ROUTER
    }
}

/// The node gives what its pod sends to others its own address, and the packets of the daemon another port.
fn translate<'lab>(node: &'lab Node, pod: &Pod) -> Result<Firewall<'lab, Node>> {
    let from = format!("ip saddr {} oifname \"eth0\"", pod.address(false)?);
    let (first, last) = TRANSLATED.into_inner();
    let body = format!(
        "chain translate {{ type nat hook postrouting priority srcnat;\n\
         {from} udp sport {PORT} masquerade to :{first}-{last}\n{from} masquerade\n}}\n"
    );
    Firewall::add(node, "ip", "router", &body)
}
