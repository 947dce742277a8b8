//! The flags of `leadline run` and their environment variables: a field `a.b_c` of the file is `--a.b-c` and
//! `LEADLINE_A_B_C`. A flag beats its variable, and both beat the file.

mod overlay;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, CommandFactory as _, value_parser};
use ipnet::IpNet;

use super::Cli;
use crate::config::{
    self, Config, ConfigError, EtcdCredentials, LogFormat, MAX_CONNECTIONS, MetricsUrl, Mode, NodeAddresses,
    Profile, SERIES_LIMIT, SLOTS, Service, StatsSocket, WatchedPorts, nearest,
};

const PREFIX: &str = "LEADLINE_";

const EXAMPLES: &str = "\
Examples:
  leadline run
  leadline run --log.level=info,leadline::kernel=debug
  leadline run --web.listen-address=127.0.0.1:9843 --web.listen-address='[::1]:9843'
  LEADLINE_PROFILE=minimal leadline run
  leadline run --peers.pod-cidrs=10.42.0.0/16 --peers.nodes=edge-1=192.0.2.7,2001:db8::7

Every default and its meaning: leadline config default";

/// Flags of `leadline run`; what is absent leaves the file or the default in force.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = EXAMPLES)]
pub struct Flags {
    /// Read this YAML file
    #[arg(long = "config.file", env = "LEADLINE_CONFIG_FILE", value_name = "FILE")]
    pub config_file: Option<PathBuf>,

    /// Listen here; may be repeated
    #[arg(help = "Listen here; may be repeated [default: [::]:9843, which takes IPv4 as well]")]
    #[arg(long = "web.listen-address", env = "LEADLINE_WEB_LISTEN_ADDRESS", value_name = "IP:PORT")]
    #[arg(value_delimiter = ',', value_parser = config::listen_address)]
    pub web_listen_address: Option<Vec<SocketAddr>>,

    /// Serve this many connections at once [default: 64]
    #[arg(long = "web.max-connections", env = "LEADLINE_WEB_MAX_CONNECTIONS", value_name = "N")]
    #[arg(value_parser = value_parser!(u32).range(bounds(&MAX_CONNECTIONS)))]
    pub web_max_connections: Option<u32>,

    /// Log from this level on: off, error, warn, info, debug, trace; also per module [default: info]
    #[arg(long = "log.level", env = "LEADLINE_LOG_LEVEL", value_name = "LEVEL", value_parser = config::log_level)]
    pub log_level: Option<String>,

    /// Log in this form [default: logfmt]
    #[arg(long = "log.format", env = "LEADLINE_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,

    /// Bytes and packets per pod, host unit and class of peer [default: auto]
    #[arg(long = "collector.traffic", env = "LEADLINE_COLLECTOR_TRAFFIC", value_name = "MODE")]
    pub collector_traffic: Option<Mode>,

    /// Round trips, retransmits, connects and resets per pod; round trips between pods by node [default: auto]
    #[arg(long = "collector.tcp", env = "LEADLINE_COLLECTOR_TCP", value_name = "MODE")]
    pub collector_tcp: Option<Mode>,

    /// The same of the connections of a few ports, by port and peer address [default: auto]
    #[arg(long = "collector.tcp-port", env = "LEADLINE_COLLECTOR_TCP_PORT", value_name = "MODE")]
    pub collector_tcp_port: Option<Mode>,

    /// Devices, MTU and per-node bytes of the overlay network [default: auto]
    #[arg(long = "collector.overlay", env = "LEADLINE_COLLECTOR_OVERLAY", value_name = "MODE")]
    pub collector_overlay: Option<Mode>,

    /// Round trips, jitter and loss to other nodes on each layer [default: off]
    #[arg(long = "collector.path", env = "LEADLINE_COLLECTOR_PATH", value_name = "MODE")]
    pub collector_path: Option<Mode>,

    /// Virtual addresses: who advertises and who holds them, failovers, conflicts [default: auto]
    #[arg(long = "collector.vip", env = "LEADLINE_COLLECTOR_VIP", value_name = "MODE")]
    pub collector_vip: Option<Mode>,

    /// Processes that accept connections to the virtual addresses that this node holds [default: auto]
    #[arg(long = "collector.vip-listener", env = "LEADLINE_COLLECTOR_VIP_LISTENER", value_name = "MODE")]
    pub collector_vip_listener: Option<Mode>,
    /// Probes of virtual addresses: whether what is behind them answers [default: auto]
    #[arg(long = "collector.vip-probe", env = "LEADLINE_COLLECTOR_VIP_PROBE", value_name = "MODE")]
    pub collector_vip_probe: Option<Mode>,
    /// HAProxy on this node: states and checks of its servers, and how many are left [default: auto]
    #[arg(long = "collector.haproxy", env = "LEADLINE_COLLECTOR_HAPROXY", value_name = "MODE")]
    pub collector_haproxy: Option<Mode>,
    /// etcd: its members, leader and quorum margin [default: auto]
    #[arg(long = "collector.etcd", env = "LEADLINE_COLLECTOR_ETCD", value_name = "MODE")]
    pub collector_etcd: Option<Mode>,
    /// The control plane on this node: which part is alive and ready, and which check fails [default: auto]
    #[arg(long = "collector.control-plane", env = "LEADLINE_COLLECTOR_CONTROL_PLANE", value_name = "MODE")]
    pub collector_control_plane: Option<Mode>,

    /// Certificates of Kubernetes and etcd, in files and as servers show them [default: auto]
    #[arg(long = "collector.certificate", env = "LEADLINE_COLLECTOR_CERTIFICATE", value_name = "MODE")]
    pub collector_certificate: Option<Mode>,

    /// Tailscale: the way to each peer, whether it is answered, keys and routes [default: auto]
    #[arg(long = "collector.tunnel", env = "LEADLINE_COLLECTOR_TUNNEL", value_name = "MODE")]
    pub collector_tunnel: Option<Mode>,

    /// The Kubernetes API: names of pods and nodes, workloads [default: auto]
    #[arg(long = "collector.kubernetes", env = "LEADLINE_COLLECTOR_KUBERNETES", value_name = "MODE")]
    pub collector_kubernetes: Option<Mode>,

    /// The agent itself [default: auto]
    #[arg(long = "collector.self", env = "LEADLINE_COLLECTOR_SELF", value_name = "MODE")]
    pub collector_self: Option<Mode>,

    /// Export this many series [default: standard]
    #[arg(long, env = "LEADLINE_PROFILE", value_name = "PROFILE")]
    pub profile: Option<Profile>,

    /// Export the series of a pod that is gone for this long, 10s to 1d [default: 5m]
    #[arg(long, env = "LEADLINE_POD_RETENTION", value_name = "DURATION", value_parser = config::retention)]
    pub pod_retention: Option<Duration>,

    /// Learn pod names from the log directories here [default: /var/log/pods]
    #[arg(long, env = "LEADLINE_POD_LOG_DIRECTORY", value_name = "DIRECTORY")]
    pub pod_log_directory: Option<PathBuf>,

    /// The root of cgroup v2 [default: the mount that is found]
    #[arg(long, env = "LEADLINE_CGROUP_ROOT", value_name = "DIRECTORY")]
    pub cgroup_root: Option<PathBuf>,

    /// Networks of pods, besides those found
    #[arg(long = "peers.pod-cidrs", env = "LEADLINE_PEERS_POD_CIDRS", value_name = "CIDR")]
    #[arg(value_delimiter = ',', value_parser = config::network)]
    pub peers_pod_cidrs: Option<Vec<IpNet>>,

    /// Networks of services, besides those found
    #[arg(long = "peers.service-cidrs", env = "LEADLINE_PEERS_SERVICE_CIDRS", value_name = "CIDR")]
    #[arg(value_delimiter = ',', value_parser = config::network)]
    pub peers_service_cidrs: Option<Vec<IpNet>>,

    /// Another node; may be repeated, in the environment with ; between
    #[arg(long = "peers.nodes", env = "LEADLINE_PEERS_NODES", value_name = "NAME=IP,IP")]
    #[arg(value_delimiter = ';', value_parser = config::node)]
    pub peers_nodes: Option<Vec<NodeAddresses>>,

    /// Join the groups of VRRP on the uplinks, to hear advertisements without a VRRP daemon [default: true]
    #[arg(long = "vip.join-groups", env = "LEADLINE_VIP_JOIN_GROUPS", value_name = "BOOL")]
    pub vip_join_groups: Option<bool>,

    /// Keep events over restarts in this file [default: they are kept in memory only]
    #[arg(long = "events.file", env = "LEADLINE_EVENTS_FILE", value_name = "FILE")]
    pub events_file: Option<PathBuf>,
    /// Try these ports on virtual addresses found on the wire [default: 6443]
    #[arg(long = "vip.ports", env = "LEADLINE_VIP_PORTS", value_name = "PORT")]
    #[arg(value_delimiter = ',', value_parser = value_parser!(u16).range(1..))]
    pub vip_ports: Option<Vec<u16>>,

    /// Watch this service, of the kind tcp, tls or https; may be repeated
    #[arg(long = "vip.addresses", env = "LEADLINE_VIP_ADDRESSES", value_name = "KIND://IP:PORT")]
    #[arg(value_delimiter = ',', value_parser = config::service)]
    pub vip_addresses: Option<Vec<Service>>,

    /// Probe each service this often, 100ms to 1m [default: 1s]
    #[arg(long = "vip.probe-interval", env = "LEADLINE_VIP_PROBE_INTERVAL", value_name = "DURATION")]
    #[arg(value_parser = config::probe_interval)]
    pub vip_probe_interval: Option<Duration>,
    /// The stats socket of HAProxy [default: it is looked for]
    #[arg(long = "haproxy.stats-socket", env = "LEADLINE_HAPROXY_STATS_SOCKET", value_name = "PATH|IP:PORT")]
    #[arg(value_parser = config::stats_socket)]
    pub haproxy_stats_socket: Option<StatsSocket>,

    /// The page of HAProxy's own exporter [default: it is looked for]
    #[arg(long = "haproxy.metrics-url", env = "LEADLINE_HAPROXY_METRICS_URL", value_name = "URL")]
    #[arg(value_parser = config::metrics_url)]
    pub haproxy_metrics_url: Option<MetricsUrl>,

    /// Watch the TCP connections of these ports by peer, 8 at most [default: 2379,2380]
    #[arg(long = "tcp-port.ports", env = "LEADLINE_TCP_PORT_PORTS", value_name = "PORT,PORT")]
    #[arg(value_parser = config::watched_ports)]
    pub tcp_port_ports: Option<WatchedPorts>,

    /// Begin with this endpoint of etcd; may be repeated [default: it is looked for]
    #[arg(long = "etcd.endpoints", env = "LEADLINE_ETCD_ENDPOINTS", value_name = "URL")]
    #[arg(value_delimiter = ',', value_parser = config::etcd_endpoint)]
    pub etcd_endpoints: Option<Vec<String>>,

    /// The client certificate for etcd [default: it is looked for]
    #[arg(long = "etcd.credentials", env = "LEADLINE_ETCD_CREDENTIALS", value_name = "CA,CERTIFICATE,KEY")]
    #[arg(value_parser = config::etcd_credentials)]
    pub etcd_credentials: Option<EtcdCredentials>,

    /// The page of metrics of etcd [default: that of 127.0.0.1:2381]
    #[arg(long = "etcd.metrics-url", env = "LEADLINE_ETCD_METRICS_URL", value_name = "URL")]
    #[arg(value_parser = config::metrics_url)]
    pub etcd_metrics_url: Option<MetricsUrl>,

    /// The election timeout of etcd [default: it is read where it can be]
    #[arg(long = "etcd.election-timeout", env = "LEADLINE_ETCD_ELECTION_TIMEOUT", value_name = "DURATION")]
    #[arg(value_parser = config::election_timeout)]
    pub etcd_election_timeout: Option<Duration>,

    /// Ask etcd this often, 100ms to 1m [default: 1s]
    #[arg(long = "etcd.poll-interval", env = "LEADLINE_ETCD_POLL_INTERVAL", value_name = "DURATION")]
    #[arg(value_parser = config::probe_interval)]
    pub etcd_poll_interval: Option<Duration>,

    /// Wait so long for an answer of etcd, 10ms to 10s [default: 500ms]
    #[arg(long = "etcd.timeout", env = "LEADLINE_ETCD_TIMEOUT", value_name = "DURATION")]
    #[arg(value_parser = config::etcd_timeout)]
    pub etcd_timeout: Option<Duration>,

    /// Ask this API server, in place of the one that is looked for; may be repeated
    #[arg(long = "control-plane.endpoints", env = "LEADLINE_CONTROL_PLANE_ENDPOINTS", value_name = "URL")]
    #[arg(value_delimiter = ',', value_parser = config::api_endpoint)]
    pub control_plane_endpoints: Option<Vec<SocketAddr>>,

    /// Ask the control plane this often, 100ms to 1m [default: 1s]
    #[arg(long = "control-plane.poll-interval", env = "LEADLINE_CONTROL_PLANE_POLL_INTERVAL")]
    #[arg(value_name = "DURATION", value_parser = config::probe_interval)]
    pub control_plane_poll_interval: Option<Duration>,

    /// Wait so long for an answer of the control plane, 100ms to 30s [default: 3s]
    #[arg(long = "control-plane.timeout", env = "LEADLINE_CONTROL_PLANE_TIMEOUT", value_name = "DURATION")]
    #[arg(value_parser = config::control_plane_timeout)]
    pub control_plane_timeout: Option<Duration>,

    /// Read certificates of this file or directory, besides the usual ones; may be repeated
    #[arg(long = "certificate.paths", env = "LEADLINE_CERTIFICATE_PATHS", value_name = "PATH")]
    #[arg(value_delimiter = ',', value_parser = config::certificate_path)]
    pub certificate_paths: Option<Vec<PathBuf>>,

    /// Ask servers on these ports of this node for their certificate [default: 2379,2380,6443,10250,10257,10259]
    #[arg(long = "certificate.ports", env = "LEADLINE_CERTIFICATE_PORTS", value_name = "PORT")]
    #[arg(value_delimiter = ',', value_parser = value_parser!(u16).range(1..))]
    pub certificate_ports: Option<Vec<u16>>,

    /// The socket of tailscaled [default: it is looked for]
    #[arg(long = "tunnel.socket", env = "LEADLINE_TUNNEL_SOCKET", value_name = "PATH")]
    #[arg(value_parser = config::tunnel_socket)]
    pub tunnel_socket: Option<PathBuf>,

    /// Ask tailscaled this often, 100ms to 1m [default: 1s]
    #[arg(long = "tunnel.poll-interval", env = "LEADLINE_TUNNEL_POLL_INTERVAL", value_name = "DURATION")]
    #[arg(value_parser = config::probe_interval)]
    pub tunnel_poll_interval: Option<Duration>,

    /// Probe paths between nodes by this UDP port [default: 9862]
    #[arg(long = "path.port", env = "LEADLINE_PATH_PORT", value_name = "PORT")]
    #[arg(value_parser = value_parser!(u16).range(1..))]
    pub path_port: Option<u16>,

    /// Probe each path this often, 2ms to 1m [default: 1s]
    #[arg(long = "path.interval", env = "LEADLINE_PATH_INTERVAL", value_name = "DURATION")]
    #[arg(value_parser = config::path_interval)]
    pub path_interval: Option<Duration>,

    /// Authenticate probes and answers by the key in this file, the same on all nodes [default: they are not]
    #[arg(long = "path.key-file", env = "LEADLINE_PATH_KEY_FILE", value_name = "PATH")]
    #[arg(value_parser = config::path_key_file)]
    pub path_key_file: Option<PathBuf>,

    /// The name of this node in the Kubernetes API [default: the host's name in lower case]
    #[arg(long = "kubernetes.node", env = "LEADLINE_KUBERNETES_NODE", value_name = "NAME")]
    #[arg(value_parser = config::kubernetes_node)]
    pub kubernetes_node: Option<String>,

    /// Ask the Kubernetes API that this file names [default: that of the agent's pod]
    #[arg(long = "kubernetes.kubeconfig", env = "LEADLINE_KUBERNETES_KUBECONFIG", value_name = "PATH")]
    #[arg(value_parser = config::kubeconfig)]
    pub kubernetes_kubeconfig: Option<PathBuf>,

    /// Follow the leases of the control plane, on its nodes [default: false]
    #[arg(long = "kubernetes.leases", env = "LEADLINE_KUBERNETES_LEASES", value_name = "BOOL")]
    pub kubernetes_leases: Option<bool>,

    /// Count this many pairs of owner and peer at once in the kernel [default: 4096]
    #[arg(long, env = "LEADLINE_SLOTS", value_name = "N", value_parser = value_parser!(u32).range(bounds(&SLOTS)))]
    pub slots: Option<u32>,

    /// Export at most this many series of one family [default: 10000]
    #[arg(long, env = "LEADLINE_SERIES_LIMIT", value_name = "N")]
    #[arg(value_parser = value_parser!(u32).range(bounds(&SERIES_LIMIT)))]
    pub series_limit: Option<u32>,
}

fn bounds(range: &std::ops::RangeInclusive<u32>) -> std::ops::RangeInclusive<i64> {
    i64::from(*range.start())..=i64::from(*range.end())
}

impl Flags {
    /// The configuration in force: defaults, file, environment, flags.
    ///
    /// # Errors
    /// When the file cannot be read, or a field of it does not exist or does not fit.
    pub fn config(&self) -> Result<Config, ConfigError> {
        Config::load(self.config_file.as_deref()).map(|base| self.overlay(base))
    }
}

/// One line for each variable of the environment that looks like ours and is not. They are worth a warning only:
/// Kubernetes sets some for every service, and a service may be named like the agent.
#[must_use]
pub fn unknown_variables(names: impl IntoIterator<Item = String>) -> Vec<String> {
    let known = known_variables();
    let ours = names.into_iter().filter(|name| name.starts_with(PREFIX));
    let mut unknown: Vec<String> = ours
        .filter(|name| !known.contains(name) && !is_service_link(name))
        .map(|name| match nearest(&name, known.iter().map(String::as_str)) {
            Some(meant) => format!("unknown variable {name}: did you mean {meant}?"),
            None => format!("unknown variable {name}: the known ones are in leadline run --help"),
        })
        .collect();
    unknown.sort();
    unknown
}

/// Whether Kubernetes sets a variable of this name for a service: `X_SERVICE_HOST`, `X_PORT_9843_TCP_ADDR`.
fn is_service_link(name: &str) -> bool {
    name.contains("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.contains("_PORT_")
        || name.ends_with("_PORT")
}

fn known_variables() -> Vec<String> {
    let command = Cli::command();
    command
        .get_subcommands()
        .flat_map(clap::Command::get_arguments)
        .filter_map(|argument| argument.get_env())
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use serde_yaml_ng::Value;

    use super::*;
    use crate::{cli::Command, config::DEFAULT_TEXT};

    fn flags(arguments: &[&str]) -> Flags {
        let line = ["leadline", "run"].iter().chain(arguments);
        match Cli::try_parse_from(line).unwrap().command {
            Command::Run(flags) => *flags,
            other => panic!("{other:?}"),
        }
    }

    fn refused(argument: &str) -> String {
        Cli::try_parse_from(["leadline", "run", argument]).unwrap_err().to_string()
    }

    #[test]
    fn no_flag_changes_nothing() {
        let base = Config::parse(std::path::Path::new("x"), "slots: 77\ncgroup_root: /cg\n").unwrap();
        assert_eq!(Flags::default().overlay(base.clone()), base);
    }

    /// Every flag once.
    const EVERY: &[&str] = &[
        "--web.listen-address=127.0.0.1:1",
        "--web.listen-address=[::1]:2",
        "--web.max-connections=3",
        "--log.level=debug",
        "--log.format=json",
        "--collector.traffic=on",
        "--collector.tcp=off",
        "--collector.tcp-port=off",
        "--collector.overlay=on",
        "--collector.path=on",
        "--collector.vip=on",
        "--collector.vip-listener=off",
        "--collector.vip-probe=on",
        "--collector.haproxy=on",
        "--collector.etcd=on",
        "--collector.control-plane=on",
        "--collector.certificate=off",
        "--collector.tunnel=off",
        "--collector.kubernetes=on",
        "--collector.self=off",
        "--profile=detailed",
        "--pod-retention=90s",
        "--pod-log-directory=/logs",
        "--cgroup-root=/cg",
        "--peers.pod-cidrs=10.42.0.0/16,10.52.0.0/16",
        "--peers.service-cidrs=10.43.0.0/16",
        "--peers.nodes=b=192.0.2.7,2001:db8::7",
        "--peers.nodes=c=192.0.2.8",
        "--events.file=/events",
        "--vip.ports=6443,9345",
        "--vip.addresses=https://192.0.2.1:6443,tcp://[2001:db8::1]:443",
        "--vip.probe-interval=2s",
        "--vip.join-groups=false",
        "--haproxy.stats-socket=127.0.0.1:9999",
        "--haproxy.metrics-url=http://127.0.0.1:8405",
        "--tcp-port.ports=2379,12380",
        "--etcd.endpoints=https://192.0.2.1:2379,https://192.0.2.2:2379",
        "--etcd.credentials=/e/ca,/e/crt,/e/key",
        "--etcd.metrics-url=http://127.0.0.1:2382",
        "--etcd.election-timeout=5s",
        "--etcd.poll-interval=2s",
        "--etcd.timeout=250ms",
        "--control-plane.endpoints=https://192.0.2.1:16443,https://[2001:db8::1]:6443",
        "--control-plane.poll-interval=2s",
        "--control-plane.timeout=5s",
        "--certificate.paths=/a.pem,/b",
        "--certificate.ports=2379,9345",
        "--tunnel.socket=/run/t.sock",
        "--tunnel.poll-interval=2s",
        "--path.port=862",
        "--path.interval=10ms",
        "--path.key-file=/e/path.key",
        "--kubernetes.node=node1",
        "--kubernetes.kubeconfig=/e/kubeconfig",
        "--kubernetes.leases=true",
        "--slots=64",
        "--series-limit=9",
    ];

    /// What they say, as a file.
    const EVERY_FIELD: &str = "
web: {listen_address: ['127.0.0.1:1', '[::1]:2'], max_connections: 3}
log: {level: debug, format: json}
collector: {traffic: on, tcp: off, tcp_port: off, overlay: on, path: on, vip: on, vip_listener: off, vip_probe: on,
  haproxy: on, etcd: on, control_plane: on, certificate: off, tunnel: off, kubernetes: on, self: off}
profile: detailed
pod_retention: 90s
pod_log_directory: /logs
cgroup_root: /cg
peers:
  pod_cidrs: [10.42.0.0/16, 10.52.0.0/16]
  service_cidrs: [10.43.0.0/16]
  nodes: [{name: b, addresses: [192.0.2.7, '2001:db8::7']}, {name: c, addresses: [192.0.2.8]}]
events: {file: /events}
vip:
  ports: [6443, 9345]
  addresses:
    - {address: 192.0.2.1, kind: https}
    - {address: '2001:db8::1', port: 443, kind: tcp}
  probe_interval: 2s
  join_groups: false
haproxy: {stats_socket: '127.0.0.1:9999', metrics_url: 'http://127.0.0.1:8405/metrics'}
tcp_port: {ports: [2379, 12380]}
etcd:
  endpoints: ['https://192.0.2.1:2379', 'https://192.0.2.2:2379']
  credentials: {ca: /e/ca, certificate: /e/crt, key: /e/key}
  metrics_url: http://127.0.0.1:2382/metrics
  election_timeout: 5s
  poll_interval: 2s
  timeout: 250ms
control_plane:
  endpoints: ['https://192.0.2.1:16443', 'https://[2001:db8::1]:6443']
  poll_interval: 2s
  timeout: 5s
certificate: {paths: [/a.pem, /b], ports: [2379, 9345]}
tunnel: {socket: /run/t.sock, poll_interval: 2s}
path: {port: 862, interval: 10ms, key_file: /e/path.key}
kubernetes: {node: node1, kubeconfig: /e/kubeconfig, leases: true}
slots: 64
series_limit: 9
";

    #[test]
    fn every_flag_lands_in_its_field() {
        let (given, text) = (flags(EVERY), EVERY_FIELD);
        let expected = Config::parse(std::path::Path::new("x"), text).unwrap();
        assert_eq!(given.overlay(Config::default()), expected);
    }

    #[test]
    fn file_environment_and_flags_use_the_same_names() {
        let command = Cli::command();
        let run = command.find_subcommand("run").unwrap();
        let mut paths = Vec::new();
        leaves("", &serde_yaml_ng::from_str(DEFAULT_TEXT).unwrap(), &mut paths);
        paths.push("config.file".to_owned());
        paths.sort();
        let mut named: Vec<String> = Vec::new();
        for argument in run.get_arguments().filter(|argument| argument.get_env().is_some()) {
            let flag = argument.get_long().unwrap();
            let field = flag.replace('-', "_");
            let variable = format!("{PREFIX}{}", field.replace('.', "_").to_uppercase());
            assert_eq!(argument.get_env().unwrap().to_str(), Some(variable.as_str()), "{flag}");
            named.push(field);
        }
        named.sort();
        assert_eq!(named, paths);
    }

    fn leaves(prefix: &str, value: &Value, found: &mut Vec<String>) {
        let Value::Mapping(fields) = value else { return found.push(prefix.to_owned()) };
        for (key, value) in fields {
            let separator = if prefix.is_empty() { "" } else { "." };
            leaves(&format!("{prefix}{separator}{}", key.as_str().unwrap()), value, found);
        }
    }

    #[test]
    fn the_help_states_the_defaults_in_force() {
        let help = Cli::command().find_subcommand_mut("run").unwrap().render_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let default = Config::default();
        for stated in [
            format!("[default: {}, which", default.web.listen_address[0]),
            format!("[default: {}]", default.web.max_connections),
            format!("[default: {},{}]", default.tcp_port.ports[0], default.tcp_port.ports[1]),
            format!("[default: {}]", default.slots),
            format!("[default: {}]", default.series_limit),
            format!("[default: {}]", default.pod_log_directory.display()),
            format!("[default: {}]", default.log.level),
        ] {
            assert!(help.contains(&stated), "{stated} in {help}");
        }
    }

    #[test]
    fn a_value_that_does_not_fit_is_refused_with_what_fits() {
        assert!(refused("--slots=4").contains("4 is not in 64..=8192"), "{}", refused("--slots=4"));
        assert!(refused("--collector.tcp=maybe").contains("[possible values: auto, on, off]"));
        assert!(refused("--log.level=inof").contains("did you mean `info`?"));
        assert!(refused("--pod-retention=5").contains("write 5s"));
        assert!(refused("--pod-retention=5s").contains("at least 10s"));
        assert!(refused("--collector.tpc=on").contains("'--collector.tcp'"));
    }

    #[test]
    fn a_misspelt_variable_is_pointed_out() {
        let names = ["LEADLINE_LOG_LEVL", "LEADLINE_WHATEVER", "LEADLINE_SLOTS", "LEADLINE_ADDRESS", "PATH"]
            .map(str::to_owned);
        assert_eq!(
            unknown_variables(names),
            [
                "unknown variable LEADLINE_LOG_LEVL: did you mean LEADLINE_LOG_LEVEL?",
                "unknown variable LEADLINE_WHATEVER: the known ones are in leadline run --help"
            ]
        );
    }

    #[test]
    fn variables_of_a_service_named_leadline_are_not_ours() {
        let names = [
            "LEADLINE_SERVICE_HOST",
            "LEADLINE_SERVICE_PORT",
            "LEADLINE_SERVICE_PORT_METRICS",
            "LEADLINE_PORT",
            "LEADLINE_PORT_9843_TCP_ADDR",
            "LEADLINE_METRICS_SERVICE_HOST",
        ];
        assert_eq!(unknown_variables(names.map(str::to_owned)), Vec::<String>::new());
    }
}
