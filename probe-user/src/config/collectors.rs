//! Which collectors run.

use serde::Deserialize;

use super::Mode;

/// Which collectors run. One field a collector, named as the collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Collectors {
    /// Bytes and packets. Default: auto.
    pub traffic: Mode,
    /// TCP health, and round trips between pods by node. Default: auto.
    pub tcp: Mode,
    /// TCP health of watched ports. Default: auto.
    pub tcp_port: Mode,
    /// The overlay network. Default: auto.
    pub overlay: Mode,
    /// Paths between nodes. Default: off.
    pub path: Mode,
    /// Virtual addresses. Default: auto.
    pub vip: Mode,
    /// Processes behind virtual addresses. Default: auto.
    pub vip_listener: Mode,
    /// Probes of virtual addresses. Default: auto.
    pub vip_probe: Mode,
    /// HAProxy. Default: auto.
    pub haproxy: Mode,
    /// etcd. Default: auto.
    pub etcd: Mode,
    /// The control plane. Default: auto.
    pub control_plane: Mode,
    /// Certificates in files, and those that servers show. Default: auto.
    pub certificate: Mode,
    /// Tailscale. Default: auto.
    pub tunnel: Mode,
    /// The Kubernetes API. Default: auto.
    pub kubernetes: Mode,
    /// The agent itself. Default: auto.
    #[serde(rename = "self")]
    pub self_: Mode,
}

impl Default for Collectors {
    fn default() -> Self {
        let auto = Mode::Auto;
        Self {
            traffic: auto,
            tcp: auto,
            tcp_port: auto,
            overlay: auto,
            // It sends packets of its own.
            path: Mode::Off,
            vip: auto,
            vip_listener: auto,
            vip_probe: auto,
            haproxy: auto,
            etcd: auto,
            control_plane: auto,
            certificate: auto,
            tunnel: auto,
            kubernetes: auto,
            self_: auto,
        }
    }
}

impl Collectors {
    /// The mode of a collector by its name; `None` where no collector has that name.
    #[must_use]
    pub fn mode(&self, name: &str) -> Option<Mode> {
        match name {
            "traffic" => Some(self.traffic),
            "tcp" => Some(self.tcp),
            "tcp_port" => Some(self.tcp_port),
            "overlay" => Some(self.overlay),
            "path" => Some(self.path),
            "vip" => Some(self.vip),
            "vip_listener" => Some(self.vip_listener),
            "vip_probe" => Some(self.vip_probe),
            "haproxy" => Some(self.haproxy),
            "etcd" => Some(self.etcd),
            "control_plane" => Some(self.control_plane),
            "certificate" => Some(self.certificate),
            "tunnel" => Some(self.tunnel),
            "kubernetes" => Some(self.kubernetes),
            "self" => Some(self.self_),
            _ => None,
        }
    }
}
