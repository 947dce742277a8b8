//! What was given by flags and variables, over what a file or the defaults say.

use super::Flags;
use crate::config::{
    self, Certificate, Collectors, Config, ControlPlane, Etcd, Events, Haproxy, Log, Peers, TcpPort, Tunnel,
    Vip, Web,
};

impl Flags {
    /// A configuration with what was given here in place of what it had.
    #[must_use]
    pub fn overlay(&self, base: Config) -> Config {
        let given = self.clone();
        Config {
            web: Web {
                listen_address: given.web_listen_address.unwrap_or(base.web.listen_address),
                max_connections: given.web_max_connections.unwrap_or(base.web.max_connections),
            },
            log: Log {
                level: given.log_level.unwrap_or(base.log.level),
                format: given.log_format.unwrap_or(base.log.format),
            },
            collector: self.collectors(base.collector),
            profile: given.profile.unwrap_or(base.profile),
            pod_retention: given.pod_retention.unwrap_or(base.pod_retention),
            pod_log_directory: given.pod_log_directory.unwrap_or(base.pod_log_directory),
            cgroup_root: given.cgroup_root.or(base.cgroup_root),
            peers: Peers {
                pod_cidrs: given.peers_pod_cidrs.unwrap_or(base.peers.pod_cidrs),
                service_cidrs: given.peers_service_cidrs.unwrap_or(base.peers.service_cidrs),
                nodes: given.peers_nodes.unwrap_or(base.peers.nodes),
            },
            vip: Vip {
                join_groups: given.vip_join_groups.unwrap_or(base.vip.join_groups),
                ports: given.vip_ports.unwrap_or(base.vip.ports),
                addresses: given.vip_addresses.unwrap_or(base.vip.addresses),
                probe_interval: given.vip_probe_interval.unwrap_or(base.vip.probe_interval),
            },
            events: Events { file: given.events_file.or(base.events.file) },
            haproxy: Haproxy {
                stats_socket: given.haproxy_stats_socket.or(base.haproxy.stats_socket),
                metrics_url: given.haproxy_metrics_url.or(base.haproxy.metrics_url),
            },
            tcp_port: TcpPort { ports: given.tcp_port_ports.map_or(base.tcp_port.ports, |given| given.0) },
            etcd: self.etcd(base.etcd),
            control_plane: self.control_plane(base.control_plane),
            certificate: Certificate {
                paths: given.certificate_paths.unwrap_or(base.certificate.paths),
                ports: given.certificate_ports.unwrap_or(base.certificate.ports),
            },
            tunnel: Tunnel {
                socket: given.tunnel_socket.or(base.tunnel.socket),
                poll_interval: given.tunnel_poll_interval.unwrap_or(base.tunnel.poll_interval),
            },
            path: config::Path {
                port: given.path_port.unwrap_or(base.path.port),
                interval: given.path_interval.unwrap_or(base.path.interval),
                key_file: given.path_key_file.or(base.path.key_file),
            },
            kubernetes: config::Kubernetes {
                node: given.kubernetes_node.or(base.kubernetes.node),
                kubeconfig: given.kubernetes_kubeconfig.or(base.kubernetes.kubeconfig),
                leases: given.kubernetes_leases.unwrap_or(base.kubernetes.leases),
            },
            slots: given.slots.unwrap_or(base.slots),
            series_limit: given.series_limit.unwrap_or(base.series_limit),
        }
    }

    fn collectors(&self, base: Collectors) -> Collectors {
        Collectors {
            traffic: self.collector_traffic.unwrap_or(base.traffic),
            tcp: self.collector_tcp.unwrap_or(base.tcp),
            tcp_port: self.collector_tcp_port.unwrap_or(base.tcp_port),
            overlay: self.collector_overlay.unwrap_or(base.overlay),
            path: self.collector_path.unwrap_or(base.path),
            vip: self.collector_vip.unwrap_or(base.vip),
            vip_listener: self.collector_vip_listener.unwrap_or(base.vip_listener),
            vip_probe: self.collector_vip_probe.unwrap_or(base.vip_probe),
            haproxy: self.collector_haproxy.unwrap_or(base.haproxy),
            etcd: self.collector_etcd.unwrap_or(base.etcd),
            control_plane: self.collector_control_plane.unwrap_or(base.control_plane),
            certificate: self.collector_certificate.unwrap_or(base.certificate),
            tunnel: self.collector_tunnel.unwrap_or(base.tunnel),
            kubernetes: self.collector_kubernetes.unwrap_or(base.kubernetes),
            self_: self.collector_self.unwrap_or(base.self_),
        }
    }

    fn control_plane(&self, base: ControlPlane) -> ControlPlane {
        ControlPlane {
            endpoints: self.control_plane_endpoints.clone().unwrap_or(base.endpoints),
            poll_interval: self.control_plane_poll_interval.unwrap_or(base.poll_interval),
            timeout: self.control_plane_timeout.unwrap_or(base.timeout),
        }
    }

    fn etcd(&self, base: Etcd) -> Etcd {
        Etcd {
            endpoints: self.etcd_endpoints.clone().unwrap_or(base.endpoints),
            credentials: self.etcd_credentials.clone().or(base.credentials),
            metrics_url: self.etcd_metrics_url.clone().or(base.metrics_url),
            election_timeout: self.etcd_election_timeout.or(base.election_timeout),
            poll_interval: self.etcd_poll_interval.unwrap_or(base.poll_interval),
            timeout: self.etcd_timeout.unwrap_or(base.timeout),
        }
    }
}
