//! The agent's configuration: defaults < file < environment < flags, with the same names everywhere.
//!
//! Values are checked where they are read, so that an error can name file, line and column. The environment and the
//! flags are read by `cli`, which overlays them on what [`Config::load`] gives.

mod certificate;
mod collectors;
mod control_plane;
mod error;
mod etcd;
mod haproxy;
mod kubernetes;
mod path;
mod service;
mod tunnel;
mod value;

use std::{
    fs, io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use probe_common::tcp_port::PORTS_MAX;
use probe_common::traffic::{SLOTS_MAX, SLOTS_MIN};
use serde::Deserialize;

pub use certificate::{Certificate, certificate_path};
pub use collectors::Collectors;
pub use control_plane::{ControlPlane, api_endpoint, control_plane_timeout};
pub use error::{ConfigError, nearest};
pub use etcd::{Etcd, EtcdCredentials, election_timeout, etcd_credentials, etcd_endpoint, etcd_timeout};
pub use haproxy::{Haproxy, MetricsUrl, StatsSocket, metrics_url, stats_socket};
pub use kubernetes::{Kubernetes, kubeconfig, kubernetes_node};
pub use path::{Path, path_interval, path_key_file};
pub use service::{API_PORT, ProbeKind, Service, service};
pub use tunnel::{Tunnel, tunnel_socket};
pub use value::{
    WatchedPorts, listen_address, log_level, network, node, probe_interval, retention, watched_ports,
};

/// The documented defaults: the text that `leadline config default` prints.
pub const DEFAULT_TEXT: &str = include_str!("config/default.yaml");

/// The port of the agent.
pub const PORT: u16 = 9843;

/// What `web.max_connections` may be.
pub const MAX_CONNECTIONS: RangeInclusive<u32> = 1..=10_000;

/// What `slots` may be: beyond it the maps of the kernel would not fit their 32 MiB.
pub const SLOTS: RangeInclusive<u32> = SLOTS_MIN..=SLOTS_MAX;

/// What `series_limit` may be.
pub const SERIES_LIMIT: RangeInclusive<u32> = 1..=1_000_000;

/// The ports of etcd: clients and peers (IANA).
pub const ETCD_PORTS: [u16; 2] = [2379, 2380];

/// Ports that `tcp_port.ports` may have at most.
pub const WATCHED_PORTS: usize = PORTS_MAX;

/// The shortest `pod_retention`: by then what a pod that is gone had counted has been carried over.
pub const MIN_RETENTION: Duration = Duration::from_secs(10);

/// The longest `pod_retention`.
pub const MAX_RETENTION: Duration = Duration::from_hours(24);

/// The shortest `vip.probe_interval`.
pub const MIN_PROBE_INTERVAL: Duration = Duration::from_millis(100);

/// The longest `vip.probe_interval`.
pub const MAX_PROBE_INTERVAL: Duration = Duration::from_mins(1);

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The HTTP server.
    #[serde(deserialize_with = "value::section")]
    pub web: Web,
    /// The agent's log.
    #[serde(deserialize_with = "value::section")]
    pub log: Log,
    /// Which collectors run.
    #[serde(deserialize_with = "value::section")]
    pub collector: Collectors,
    /// How many series are exported. Default: standard.
    pub profile: Profile,
    /// How long the series of a pod that is gone are still exported, 10 seconds to a day. Default: 5 minutes.
    #[serde(deserialize_with = "value::read_retention")]
    pub pod_retention: Duration,
    /// Where the kubelet keeps its log directories (`NAMESPACE_POD_UID`). Default: /var/log/pods.
    pub pod_log_directory: PathBuf,
    /// The root of cgroup v2. Default: none, the mount is looked up.
    pub cgroup_root: Option<PathBuf>,
    /// What cannot be learned from routes and devices.
    #[serde(deserialize_with = "value::section")]
    pub peers: Peers,
    /// Virtual addresses.
    #[serde(deserialize_with = "value::section")]
    pub vip: Vip,
    /// The timeline of events.
    #[serde(deserialize_with = "value::section")]
    pub events: Events,
    /// Where HAProxy tells about itself.
    #[serde(deserialize_with = "value::section")]
    pub haproxy: Haproxy,
    /// Ports whose TCP connections are watched by peer.
    #[serde(deserialize_with = "value::section")]
    pub tcp_port: TcpPort,
    /// How etcd is asked.
    #[serde(deserialize_with = "value::section")]
    pub etcd: Etcd,
    /// How the control plane is asked.
    #[serde(deserialize_with = "value::section")]
    pub control_plane: ControlPlane,
    /// Which certificates are looked at.
    #[serde(deserialize_with = "value::section")]
    pub certificate: Certificate,
    /// How Tailscale is asked.
    #[serde(deserialize_with = "value::section")]
    pub tunnel: Tunnel,
    /// How paths between nodes are probed.
    #[serde(deserialize_with = "value::section")]
    pub path: Path,
    /// How the Kubernetes API is asked.
    #[serde(deserialize_with = "value::section")]
    pub kubernetes: Kubernetes,
    /// Pairs of owner and peer that are counted at once in the kernel. Default: 4096.
    #[serde(deserialize_with = "value::read_slots")]
    pub slots: u32,
    /// Series of one metric family. Default: 10000.
    #[serde(deserialize_with = "value::read_series_limit")]
    pub series_limit: u32,
}

/// The HTTP server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Web {
    /// Addresses to listen on. Default: `[::]:9843`, which takes IPv4 as well.
    #[serde(deserialize_with = "value::read_listen_addresses")]
    pub listen_address: Vec<SocketAddr>,
    /// Connections served at once. Default: 64.
    #[serde(deserialize_with = "value::read_max_connections")]
    pub max_connections: u32,
}

/// How virtual addresses are looked for, and what is probed behind them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Vip {
    /// Whether the agent joins the groups of VRRP on the uplinks. Default: true.
    pub join_groups: bool,
    /// Ports that are tried on addresses found on the wire. Default: 6443.
    #[serde(deserialize_with = "value::read_ports")]
    pub ports: Vec<u16>,
    /// Services that are probed whatever is found on the wire. Default: none.
    pub addresses: Vec<Service>,
    /// Time between two probes of one service, 100 milliseconds to a minute. Default: 1 second.
    #[serde(deserialize_with = "value::read_probe_interval")]
    pub probe_interval: Duration,
}

/// Ports whose TCP connections are watched by peer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TcpPort {
    /// The ports, of this end or of the peer, 8 at most. Default: those of etcd, 2379 and 2380.
    #[serde(deserialize_with = "value::read_watched_ports")]
    pub ports: Vec<u16>,
}

/// The agent's log.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// A level, or levels per module (`info,leadline::kernel=debug`). Default: info.
    #[serde(deserialize_with = "value::read_log_level")]
    pub level: String,
    /// How a record is written. Default: logfmt.
    pub format: LogFormat,
}

/// How a log record is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// `key=value` pairs.
    #[default]
    Logfmt,
    /// One JSON object a line.
    Json,
}

/// The timeline of events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Events {
    /// The file that keeps events over restarts; with the one before (`FILE.1`) at most 16 MiB. Default: none.
    pub file: Option<PathBuf>,
}

/// Whether a collector runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// It runs where this node supports it.
    #[default]
    Auto,
    /// It must run: the agent ends where it cannot.
    On,
    /// It does not run.
    Off,
}

/// How many series are exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Totals of the node.
    Minimal,
    /// Also per pod: traffic by class of peer, TCP round trips, segments, connects, failures, resets received.
    #[default]
    Standard,
    /// Also traffic by protocol; TCP acknowledgement and connect times, timeouts, accepts, resets sent.
    Detailed,
}

/// What cannot be learned from routes and devices; the lists add to what is found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Peers {
    /// Networks of pods on any node. Default: none.
    #[serde(deserialize_with = "value::read_networks")]
    pub pod_cidrs: Vec<IpNet>,
    /// Networks of services. Default: none.
    #[serde(deserialize_with = "value::read_networks")]
    pub service_cidrs: Vec<IpNet>,
    /// Other nodes. Default: none.
    pub nodes: Vec<NodeAddresses>,
}

/// Another node and the addresses it has on any layer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeAddresses {
    /// The value of the `peer_node` label.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            web: Web::default(),
            log: Log::default(),
            collector: Collectors::default(),
            profile: Profile::default(),
            pod_retention: Duration::from_mins(5),
            pod_log_directory: PathBuf::from("/var/log/pods"),
            cgroup_root: None,
            peers: Peers::default(),
            vip: Vip::default(),
            events: Events::default(),
            haproxy: Haproxy::default(),
            tcp_port: TcpPort::default(),
            etcd: Etcd::default(),
            control_plane: ControlPlane::default(),
            certificate: Certificate::default(),
            tunnel: Tunnel::default(),
            path: Path::default(),
            kubernetes: Kubernetes::default(),
            slots: 4096,
            series_limit: 10_000,
        }
    }
}

impl Default for Web {
    fn default() -> Self {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT));
        Self { listen_address: vec![any], max_connections: 64 }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::default() }
    }
}

impl Default for Vip {
    fn default() -> Self {
        Self {
            join_groups: true,
            ports: vec![API_PORT],
            addresses: Vec::new(),
            probe_interval: Duration::from_secs(1),
        }
    }
}

impl Default for TcpPort {
    fn default() -> Self {
        Self { ports: ETCD_PORTS.to_vec() }
    }
}

impl Config {
    /// The defaults, overlaid with a file where there is one.
    ///
    /// # Errors
    /// When the file cannot be read, or a field of it does not exist or does not fit.
    pub fn load(file: Option<&std::path::Path>) -> Result<Self, ConfigError> {
        let Some(path) = file else { return Ok(Self::default()) };
        let text = fs::read_to_string(path).map_err(|source| read_error(path, source))?;
        Self::parse(path, &text)
    }

    /// The defaults, overlaid with the text of a file; `path` is for the error only.
    ///
    /// # Errors
    /// When a field does not exist or does not fit.
    pub fn parse(path: &std::path::Path, text: &str) -> Result<Self, ConfigError> {
        // `Option`: a file of comments only is a null document, and stands for the defaults.
        serde_yaml_ng::from_str::<Option<Self>>(text)
            .map(Option::unwrap_or_default)
            .map_err(|error| error::explain(path, text, error))
    }
}

fn read_error(path: &std::path::Path, source: io::Error) -> ConfigError {
    ConfigError::Read { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(std::path::Path::new("agent.yaml"), text).map_err(|error| error.to_string())
    }

    fn refused(text: &str) -> String {
        parse(text).expect_err("a mistake must be refused")
    }

    #[test]
    fn the_documented_default_is_the_default() {
        assert_eq!(parse(DEFAULT_TEXT).unwrap(), Config::default());
    }

    /// The documented defaults with another value in each field.
    fn altered() -> String {
        DEFAULT_TEXT
            .replace("[\"[::]:9843\"]", "127.0.0.1:1")
            .replace("max_connections: 64", "max_connections: 2")
            .replace("level: info", "level: debug")
            .replace("format: logfmt", "format: json")
            .replace("traffic: auto", "traffic: on")
            .replace("tcp: auto", "tcp: off")
            .replace("tcp_port: auto", "tcp_port: on")
            .replace("overlay: auto", "overlay: on")
            .replace("path: off", "path: on")
            .replace("  vip: auto", "  vip: on")
            .replace("vip_listener: auto", "vip_listener: off")
            .replace("vip_probe: auto", "vip_probe: off")
            .replace("haproxy: auto", "haproxy: on")
            .replace("etcd: auto", "etcd: off")
            .replace("control_plane: auto", "control_plane: off")
            .replace("certificate: auto", "certificate: on")
            .replace("tunnel: auto", "tunnel: on")
            .replace("kubernetes: auto", "kubernetes: on")
            .replace("self: auto", "self: off")
            .replace("profile: standard", "profile: minimal")
            .replace("pod_retention: 5m", "pod_retention: 1h30m")
            .replace("/var/log/pods", "/logs")
            .replace("cgroup_root: null", "cgroup_root: /cg")
            .replace("pod_cidrs: []", "pod_cidrs: [10.42.0.0/16]")
            .replace("service_cidrs: []", "service_cidrs: [fd00:43::/112]")
            .replace("nodes: []", "nodes: [{name: b, addresses: [192.0.2.7]}]")
            // Before `file`, which is a part of it.
            .replace("key_file: null", "key_file: /e/path.key")
            .replace("file: null", "file: /var/lib/leadline/events.jsonl")
            .replace("ports: [6443]", "ports: [6443, 9345]")
            .replace("ports: [2379, 2380]", "ports: [12379]")
            .replace("\n  addresses: []", "\n  addresses: [{address: 192.0.2.1, port: 443, kind: tls}]")
            .replace("probe_interval: 1s", "probe_interval: 500ms")
            .replace("join_groups: true", "join_groups: false")
            .replace("stats_socket: null", "stats_socket: /run/h.sock")
            .replace("\n  metrics_url: null\n", "\n  metrics_url: http://127.0.0.1:8405/own\n")
            .replace("  endpoints: []", "  endpoints: ['https://192.0.2.1:2379']")
            .replace("credentials: null", "credentials: {ca: /e/ca, certificate: /e/crt, key: /e/key}")
            .replace("  metrics_url: null #", "  metrics_url: http://127.0.0.1:2382/m #")
            .replace("election_timeout: null", "election_timeout: 5s")
            .replace("poll_interval: 1s", "poll_interval: 2s")
            .replace("\n  timeout: 500ms", "\n  timeout: 250ms")
            .replace("\n  timeout: 3s", "\n  timeout: 5s")
            .replace("paths: []", "paths: [/srv/own.pem]")
            .replace("ports: [2379, 2380, 6443, 10250, 10257, 10259]", "ports: [9345]")
            .replace("\n  socket: null", "\n  socket: /run/t.sock")
            .replace("port: 9862", "port: 862")
            .replace("  interval: 1s", "  interval: 10ms")
            .replace("\n  node: null", "\n  node: node1")
            .replace("kubeconfig: null", "kubeconfig: /e/kubeconfig")
            .replace("leases: false", "leases: true")
            .replace("slots: 4096", "slots: 64")
            .replace("series_limit: 10000", "series_limit: 500")
    }

    fn expected_haproxy() -> Haproxy {
        let own = MetricsUrl { authority: "127.0.0.1:8405".to_owned(), path: "/own".to_owned() };
        Haproxy { stats_socket: Some(StatsSocket::Unix("/run/h.sock".into())), metrics_url: Some(own) }
    }

    fn expected_control_plane() -> ControlPlane {
        ControlPlane {
            endpoints: vec!["192.0.2.1:2379".parse().unwrap()],
            poll_interval: Duration::from_secs(2),
            timeout: Duration::from_secs(5),
        }
    }

    fn expected_etcd() -> Etcd {
        Etcd {
            endpoints: vec!["https://192.0.2.1:2379".to_owned()],
            credentials: Some(EtcdCredentials {
                ca: "/e/ca".into(),
                certificate: "/e/crt".into(),
                key: "/e/key".into(),
            }),
            metrics_url: Some(MetricsUrl { authority: "127.0.0.1:2382".to_owned(), path: "/m".to_owned() }),
            election_timeout: Some(Duration::from_secs(5)),
            poll_interval: Duration::from_secs(2),
            timeout: Duration::from_millis(250),
        }
    }

    fn expected_path() -> Path {
        Path { port: 862, interval: Duration::from_millis(10), key_file: Some("/e/path.key".into()) }
    }

    /// What they say.
    fn expected() -> Config {
        Config {
            web: Web { listen_address: vec!["127.0.0.1:1".parse().unwrap()], max_connections: 2 },
            log: Log { level: "debug".to_owned(), format: LogFormat::Json },
            collector: Collectors {
                traffic: Mode::On,
                tcp: Mode::Off,
                tcp_port: Mode::On,
                overlay: Mode::On,
                path: Mode::On,
                vip: Mode::On,
                vip_listener: Mode::Off,
                vip_probe: Mode::Off,
                haproxy: Mode::On,
                etcd: Mode::Off,
                control_plane: Mode::Off,
                certificate: Mode::On,
                tunnel: Mode::On,
                kubernetes: Mode::On,
                self_: Mode::Off,
            },
            profile: Profile::Minimal,
            pod_retention: Duration::from_mins(90),
            pod_log_directory: PathBuf::from("/logs"),
            cgroup_root: Some(PathBuf::from("/cg")),
            peers: Peers {
                pod_cidrs: vec!["10.42.0.0/16".parse().unwrap()],
                service_cidrs: vec!["fd00:43::/112".parse().unwrap()],
                nodes: vec![NodeAddresses {
                    name: "b".to_owned(),
                    addresses: vec!["192.0.2.7".parse().unwrap()],
                }],
            },
            vip: Vip {
                ports: vec![6443, 9345],
                addresses: vec![Service {
                    address: "192.0.2.1".parse().unwrap(),
                    port: 443,
                    kind: Some(ProbeKind::Tls),
                }],
                probe_interval: Duration::from_millis(500),
                join_groups: false,
            },
            events: Events { file: Some(PathBuf::from("/var/lib/leadline/events.jsonl")) },
            haproxy: expected_haproxy(),
            tcp_port: TcpPort { ports: vec![12379] },
            etcd: expected_etcd(),
            control_plane: expected_control_plane(),
            certificate: Certificate { paths: vec![PathBuf::from("/srv/own.pem")], ports: vec![9345] },
            tunnel: Tunnel { socket: Some("/run/t.sock".into()), poll_interval: Duration::from_secs(2) },
            path: expected_path(),
            kubernetes: Kubernetes {
                node: Some("node1".to_owned()),
                kubeconfig: Some("/e/kubeconfig".into()),
                leases: true,
            },
            slots: 64,
            series_limit: 500,
        }
    }

    #[test]
    fn every_field_of_the_default_text_is_read() {
        // A field that the text gives and the agent ignored would still equal the default.
        assert_eq!(parse(&altered()).unwrap(), expected());
    }

    #[test]
    fn nothing_but_comments_is_the_default() {
        for text in ["", "# nothing\n", "---\n", "web:\n  # max_connections: 2\npeers:\n"] {
            assert_eq!(parse(text), Ok(Config::default()), "{text:?}");
        }
    }

    #[test]
    fn a_mode_is_found_by_the_name_of_its_collector() {
        let modes = Collectors { tcp: Mode::On, self_: Mode::Off, ..Collectors::default() };
        assert_eq!(modes.mode("tcp"), Some(Mode::On));
        assert_eq!(modes.mode("self"), Some(Mode::Off));
        assert_eq!(modes.mode("traffic"), Some(Mode::Auto));
        assert_eq!(modes.mode("quic"), None);
    }

    #[test]
    fn a_misspelt_field_names_its_place_and_the_right_one() {
        assert_eq!(
            refused("web:\n  listen_adress: 127.0.0.1:9843\n"),
            "agent.yaml:2:3: unknown field `web.listen_adress`: did you mean `web.listen_address`?"
        );
        assert_eq!(
            refused("# ours\nslot: 64\n"),
            "agent.yaml:2:1: unknown field `slot`: did you mean `slots`?"
        );
        assert_eq!(
            refused("peers:\n  nodes:\n    - name: b\n      adresses: []\n"),
            "agent.yaml:4:7: unknown field `peers.nodes[0].adresses`: did you mean `peers.nodes[0].addresses`?"
        );
    }

    #[test]
    fn a_field_in_the_wrong_section_names_the_right_section() {
        assert_eq!(
            refused("max_connections: 4\n"),
            "agent.yaml:1:1: unknown field `max_connections`: did you mean `web.max_connections`?"
        );
    }

    #[test]
    fn a_field_like_no_other_lists_the_known_ones() {
        assert_eq!(
            refused("log:\n  destination: syslog\n"),
            "agent.yaml:2:3: unknown field `log.destination`: known here are `level` and `format`"
        );
    }

    #[test]
    fn a_value_that_does_not_fit_names_its_place_and_what_fits() {
        for (text, expected) in [
            ("slots: 4\n", "1:8: slots: invalid value: integer `4`, expected a number from 64 to 8192"),
            ("slots: many\n", "1:8: slots: invalid type: string \"many\", expected a number from 64 to 8192"),
            (
                "collector:\n  tcp: of\n",
                "2:8: collector.tcp: unknown value `of`: did you mean `off`? It takes `auto`, `on` or `off`",
            ),
            (
                "profile: huge\n",
                "1:10: profile: unknown value `huge`: it takes `minimal`, `standard` or `detailed`",
            ),
            (
                "pod_retention: 300\n",
                "1:16: pod_retention: `300` has no unit: write 300s, or use ms, m, h or d",
            ),
            (
                "slots: 64\npod_retention: 9999ms\n",
                "2:16: pod_retention: `9999ms` is shorter than the books of a pod that is gone take: at least 10s",
            ),
            (
                "web:\n  listen_address: [localhost]\n",
                "2:20: web.listen_address[0]: `localhost` is no IP:PORT such as [::]:9843, 127.0.0.1:9843 or :9843",
            ),
            (
                "web: [1]\n",
                "1:6: web: invalid type: sequence, expected fields as `leadline config default` lists them",
            ),
            (
                "web:\n  listen_address: []\n",
                "2:19: web.listen_address: the list is empty: give an IP:PORT such as [::]:9843",
            ),
            (
                "vip:\n  ports: [0]\n",
                "2:11: vip.ports[0]: invalid value: integer `0`, expected a port from 1 to 65535",
            ),
            (
                "tcp_port:\n  ports: [1, 2, 3, 4, 5, 6, 7, 8, 9]\n",
                "2:3: tcp_port: 9 ports are more than can be watched: at most 8",
            ),
            (
                "vip:\n  probe_interval: 50ms\n",
                "2:19: vip.probe_interval: `50ms` is too short: at least 100ms",
            ),
            (
                "vip:\n  addresses: [{address: 192.0.2.1, kind: htps}]\n",
                "2:42: vip.addresses[0].kind: unknown value `htps`: did you mean `https`? It takes `tcp`, `tls` or `https`",
            ),
            (
                "peers:\n  pod_cidrs:\n    - 10.42.3.1/16\n",
                "3:7: peers.pod_cidrs[0]: `10.42.3.1/16` is an address, not a network: write 10.42.0.0/16",
            ),
            (
                "log:\n  level: inof\n",
                "2:10: log.level: `inof` is no level: did you mean `info`? It takes off, error, warn, info, debug or \
                 trace, per module as in info,leadline::kernel=debug",
            ),
        ] {
            assert_eq!(refused(text), format!("agent.yaml:{expected}"), "{text}");
        }
    }

    #[test]
    fn a_path_or_port_that_does_not_fit_names_its_place() {
        for (text, expected) in [
            ("paths: [own.pem]", "paths[0]: `own.pem` is no absolute path such as /etc/etcd/server.crt"),
            ("ports: [99999]", "ports[0]: invalid value: integer `99999`, expected a port from 1 to 65535"),
        ] {
            let refused = refused(&format!("certificate:\n  {text}\n"));
            assert_eq!(refused, format!("agent.yaml:2:11: certificate.{expected}"));
        }
    }

    #[test]
    fn a_broken_file_names_its_place() {
        assert_eq!(
            refused("web: [\n"),
            "agent.yaml:2:1: did not find expected node content while parsing a flow node"
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Config::load(Some(std::path::Path::new("/nonexistent/agent.yaml"))).unwrap_err();
        assert_eq!(error.to_string(), "/nonexistent/agent.yaml: cannot be read");
    }

    #[test]
    fn modes_survive_tools_that_write_them_as_booleans() {
        let config = parse("collector: {tcp: true, traffic: false}\n").unwrap();
        assert_eq!((config.collector.tcp, config.collector.traffic), (Mode::On, Mode::Off));
    }
}
