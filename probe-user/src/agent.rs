//! The wiring, and the only wiring: which parts there are, in what order they start, who hears of what.
//!
//! Order matters twice. The kernel thread is started first, while this thread still has capabilities; every thread
//! that is created afterwards inherits that it has none. And what feeds a collector runs before the agent is ready.

mod certificate;
mod control_plane;
mod etcd;
mod event_file;
mod haproxy;
mod kernel_side;
mod kubernetes;
mod network;
mod node;
mod path;
mod pod_events;
mod privilege;
mod retention;
mod serve;
mod tunnel;
mod vip;
mod vip_listener;
mod vip_probe;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::watch;

use self::kernel_side::{KernelSide, NOT_LOADED};
use self::serve::{Chosen, supervise};
use crate::collector;
use crate::collector::agent_self::{AgentSelf, Build, EventSource, SelfMetrics};
use crate::collector::certificate::{Certificates, Known as KnownCertificates};
use crate::collector::dependent::Dependent;
use crate::collector::haproxy::{Haproxy, Known};
use crate::collector::kubernetes::Known as KnownCluster;
use crate::collector::overlay::OverlayCollector;
use crate::collector::tap::Tap;
use crate::collector::tcp::Tcp;
use crate::collector::tcp_port::TcpPort;
use crate::collector::traffic::Traffic;
use crate::collector::unavailable::Unavailable;
use crate::collector::vip::{Heard, Vip};
use crate::collector::vip_probe::{Holding, Probes, VipProbe};
use crate::config::{Config, Mode};
use crate::event::{Kind, Occurrence, Timeline};
use crate::host::{check_capabilities, read_host};
use crate::http::Readiness;
use crate::identity::{Census, LogDirectory, PodNames};
use crate::kernel::memory::return_large_blocks;
use crate::peer::{Peers, Registry, keep_peers};
use crate::source::certificate::Reader;
use crate::source::cgroupfs::CgroupTree;
use crate::source::netlink::{NetworkFacts, NetworkFeed, NetworkState, keep_network};

/// Threads of the runtime: the agent waits nearly all the time.
const WORKERS: usize = 2;
/// Events kept in memory.
const TIMELINE_EVENTS: usize = 4_096;
/// What must have happened before the agent calls itself ready.
const NETWORK_READ: &str = "network state read";
/// See [`NETWORK_READ`].
const CGROUPS_READ: &str = "cgroups read";

/// Runs the agent until it is told to stop.
///
/// # Errors
/// When something that it cannot do without is missing, or a collector that must run cannot.
pub fn run(config: &Config) -> Result<()> {
    return_large_blocks();
    let host = read_host(Path::new("/"))?;
    check_capabilities(&host)?;
    let tree = match &config.cgroup_root {
        Some(path) => CgroupTree::at(path),
        None => CgroupTree::find()?,
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        kernel = host.kernel_release,
        btf = host.has_btf,
        cgroup_root = %tree.root().display(),
        "agent starts"
    );
    let kernel = KernelSide::start(config, &tree)?;
    privilege::drop_all()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(4)
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    let outcome = runtime.block_on(Agent::start(config, &tree, &kernel));
    kernel.stop();
    // A scrape in progress had its time; nothing else is worth waiting for.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// The registry of nodes, now and whenever it changes.
type Nodes = watch::Receiver<Arc<Registry>>;

/// What the parts share.
struct Agent<'a> {
    config: &'a Config,
    kernel: &'a KernelSide,
    metrics: SelfMetrics,
    timeline: Arc<Timeline>,
    readiness: Readiness,
    /// The last event that is in the event file.
    written: Option<watch::Receiver<u64>>,
    /// Hears of background tasks that ended.
    ended: tokio::sync::mpsc::UnboundedSender<String>,
}

impl<'a> Agent<'a> {
    async fn start(config: &'a Config, tree: &CgroupTree, kernel: &'a KernelSide) -> Result<()> {
        let revision = option_env!("LEADLINE_REVISION").unwrap_or("unknown");
        let metrics = SelfMetrics::new(&Build { version: env!("CARGO_PKG_VERSION"), revision })
            .context("the agent's own metrics cannot be registered")?;
        let (file, earlier) = event_file::open(config, &metrics)?;
        let lost = metrics.events_lost(EventSource::Timeline);
        let timeline = Arc::new(Timeline::resume(TIMELINE_EVENTS, lost, earlier));
        let last = timeline.last();
        timeline.record(Occurrence::now(Kind::AgentStarted, "leadline"));
        let readiness = Readiness::new(&[NETWORK_READ, CGROUPS_READ]);
        let (sender, ended) = tokio::sync::mpsc::unbounded_channel();
        let mut agent = Agent { config, kernel, metrics, timeline, readiness, written: None, ended: sender };
        agent.written = file.map(|file| event_file::keep(&agent, file, last));
        let mut chosen = Chosen::default();
        let (network, registry, peers) = agent.observe_network(&mut chosen).await?;
        let cluster = kubernetes::observe(&agent, &network, &peers, &mut chosen).await?;
        let heard = Heard::default();
        let listed = config.vip.addresses.iter().map(|service| service.address);
        heard.lock().configure(listed, vip::monotonic());
        let probes = Probes::default();
        let bursts = agent.bursts(&registry, &probes);
        let is_heard = agent.observe_vips(&network, heard.clone(), bursts, &mut chosen)?;
        agent.observe_listeners(&network, is_heard.then(|| heard.clone()), &mut chosen)?;
        tunnel::observe(&agent, &registry, &peers, &mut chosen).await?;
        path::start(&agent, &network, &registry, &mut chosen)?;
        path::listen_to_pods(&agent, &network, &registry, &mut chosen)?;
        path::listen_to_routers(&agent, &network, &registry, &mut chosen)?;
        agent.probe_vips(&network, registry, heard, probes, &mut chosen)?;
        agent.observe_haproxy(&mut chosen).await?;
        agent.observe_etcd(&mut chosen).await?;
        agent.observe_certificates(&network, &mut chosen).await?;
        agent.observe_control_plane(&mut chosen).await?;
        agent.observe_node(tree, &network, cluster, &mut chosen)?;
        agent.observe_ports(&network, &mut chosen)?;
        chosen.add(Mode::Auto, Arc::new(kernel.collector()))?;
        chosen.add(config.collector.self_, Arc::new(AgentSelf::new(agent.metrics.clone())))?;
        serve::listen(&agent, chosen.into_collectors(), ended).await
    }

    /// Links, routes, peers, and what follows from them: prefixes and overlay devices for the kernel side. Without them
    /// the agent lives on: what needs them says so, and they may come.
    async fn observe_network(&self, chosen: &mut Chosen) -> Result<(NetworkState, Nodes, Arc<Peers>)> {
        let network = NetworkState::default();
        let mut feed = NetworkFeed::open(&network).await;
        if self.config.collector.overlay == Mode::On {
            feed = Ok(feed.context("collector overlay must run but cannot")?);
        }
        let state = network.clone();
        supervise("network", self.ended.clone(), async {
            keep_network(state, feed).await;
            Ok(())
        });
        let peers = Arc::new(Peers::default());
        let registry = self.keep_registry(network.facts(), &peers);
        let wiring = network::Wiring {
            network: network.clone(),
            registry: registry.clone(),
            config: network::peer_config(self.config),
            kernel: self.kernel.handle(),
            timeline: Arc::clone(&self.timeline),
            metrics: self.metrics.clone(),
            read: self.readiness.latch(NETWORK_READ),
        };
        supervise("prefixes", self.ended.clone(), wiring.run());
        let overlay = OverlayCollector::new(&network, registry.clone(), self.kernel.overlay_counters());
        chosen.add(self.config.collector.overlay, Arc::new(overlay))?;
        Ok((network, registry, peers))
    }

    /// Virtual addresses, from the frames of the uplinks; says whether they are listened to.
    fn observe_vips(
        &self,
        network: &NetworkState,
        heard: Heard,
        bursts: vip::Bursts,
        chosen: &mut Chosen,
    ) -> Result<bool> {
        let mode = self.config.collector.vip;
        let (Some(kernel), Some(tapped)) = (self.kernel.handle(), self.kernel.tapped()) else {
            return chosen.add(mode, Arc::new(Unavailable::new("vip", NOT_LOADED))).map(|()| false);
        };
        if mode == Mode::Off {
            tracing::info!(collector = "vip", "collector is off");
            return Ok(false);
        }
        let listener = vip::Listener {
            tapped,
            facts: network.facts(),
            kernel,
            heard: heard.clone(),
            timeline: Arc::clone(&self.timeline),
            metrics: self.metrics.clone(),
            config: network::peer_config(self.config),
            join: self.config.vip.join_groups,
            lost: 0,
            interruptions: 0,
            watched: BTreeSet::new(),
            bursts,
        };
        supervise("vip", self.ended.clone(), listener.run());
        chosen.add(Mode::Auto, Arc::new(Tap::new(heard.clone())))?;
        // It listens from here on; that there is no virtual address yet is no failure of a collector that must run.
        chosen.add(Mode::Auto, Arc::new(Vip::new(heard, network, vip::monotonic)))?;
        Ok(true)
    }

    /// HAProxy, where this node has one. It may come later, so that only who insists on it waits for the first look.
    async fn observe_haproxy(&self, chosen: &mut Chosen) -> Result<()> {
        let (mode, known) = (self.config.collector.haproxy, Known::default());
        let timeline = Arc::clone(&self.timeline);
        let mut asker = haproxy::Asker::new("/".into(), self.config.haproxy.clone(), known.clone(), timeline);
        if mode == Mode::On {
            asker.round().await;
        }
        chosen.add(mode, Arc::new(Haproxy::new(known)))?;
        if mode != Mode::Off {
            supervise("haproxy", self.ended.clone(), asker.run());
        }
        Ok(())
    }

    /// etcd, where this node has one. As above, only who insists on it waits for the first look.
    async fn observe_etcd(&self, chosen: &mut Chosen) -> Result<()> {
        let (mode, known) = (self.config.collector.etcd, collector::etcd::Known::default());
        let timeline = Arc::clone(&self.timeline);
        let mut watcher = etcd::Watcher::new("/".into(), self.config.etcd.clone(), known.clone(), timeline);
        if mode == Mode::On {
            watcher.round().await;
        }
        let ports =
            self.kernel.ports().map(|read| -> collector::etcd::Ports { Box::new(move || read().counts) });
        chosen.add(mode, Arc::new(collector::etcd::Etcd::new(known, ports)))?;
        if mode != Mode::Off {
            supervise("etcd", self.ended.clone(), watcher.run());
        }
        Ok(())
    }

    /// The control plane, where this node has a part of it. As above.
    async fn observe_control_plane(&self, chosen: &mut Chosen) -> Result<()> {
        let (mode, known) = (self.config.collector.control_plane, collector::control_plane::Known::default());
        let (config, timeline) = (self.config.control_plane.clone(), Arc::clone(&self.timeline));
        let watcher = control_plane::Watcher::new("/".into(), config, known.clone(), timeline)?;
        if mode == Mode::On {
            watcher.round().await;
        }
        chosen.add(mode, Arc::new(collector::control_plane::ControlPlane::new(known)))?;
        if mode != Mode::Off {
            supervise("control_plane", self.ended.clone(), watcher.run());
        }
        Ok(())
    }

    /// Certificates of this node. They may come later as well.
    async fn observe_certificates(&self, network: &NetworkState, chosen: &mut Chosen) -> Result<()> {
        let (mode, known) = (self.config.collector.certificate, KnownCertificates::default());
        let mut keeper = certificate::Keeper::new(certificate::Parts {
            reader: Reader::new("/".into(), self.config.certificate.paths.clone()),
            ports: self.config.certificate.ports.clone(),
            known: known.clone(),
            timeline: Arc::clone(&self.timeline),
            prober: vip_probe::prober()?,
            facts: network.facts(),
        });
        if mode == Mode::On {
            keeper = keeper.round().await?;
        }
        chosen.add(mode, Arc::new(Certificates::new(known)))?;
        if mode != Mode::Off {
            supervise("certificate", self.ended.clone(), keeper.run());
        }
        Ok(())
    }

    /// Who asks an address while it moves: the nodes that probe it, unless nobody does.
    fn bursts(&self, registry: &Nodes, probes: &Probes) -> vip::Bursts {
        let is_off = self.config.collector.vip_probe == Mode::Off;
        let ports = if is_off { Vec::new() } else { self.config.vip.ports.clone() };
        vip::Bursts::new(ports, registry.clone(), probes.clone())
    }

    /// What is behind the virtual addresses: those that were heard of, which may be none, and those of the configuration.
    fn probe_vips(
        &self,
        network: &NetworkState,
        registry: Nodes,
        heard: Heard,
        probes: Probes,
        chosen: &mut Chosen,
    ) -> Result<()> {
        if self.config.collector.vip_probe == Mode::Off {
            tracing::info!(collector = "vip_probe", "collector is off");
            return Ok(());
        }
        let observer = vip_probe::Observer {
            heard,
            holding: Holding::new(network),
            registry,
            probes: probes.clone(),
            timeline: Arc::clone(&self.timeline),
            config: self.config.vip.clone(),
            prober: vip_probe::prober()?,
        };
        supervise("vip_probe", self.ended.clone(), observer.run());
        // As above: that there is nothing to probe yet is no failure.
        chosen.add(Mode::Auto, Arc::new(VipProbe::new(probes, network)))
    }

    /// Connections of watched ports.
    fn observe_ports(&self, network: &NetworkState, chosen: &mut Chosen) -> Result<()> {
        let mode = self.config.collector.tcp_port;
        let Some(read) = self.kernel.ports() else {
            return chosen.add(mode, Arc::new(Unavailable::new("tcp_port", NOT_LOADED)));
        };
        let ports = TcpPort::new(read, &self.config.tcp_port.ports, self.kernel.tcp_support());
        chosen.add(mode, Arc::new(Dependent::new(ports, network.current(), network::OLD_CLASSES)))
    }

    fn keep_registry(&self, facts: watch::Receiver<Arc<NetworkFacts>>, peers: &Arc<Peers>) -> Nodes {
        let registry = peers.receiver();
        let keep = keep_peers(facts, Arc::clone(peers), network::peer_config(self.config), "/".into());
        supervise("peers", self.ended.clone(), async {
            keep.await;
            Ok(())
        });
        registry
    }

    /// Cgroups, pods and the books of the counters.
    fn observe_node(
        &self,
        tree: &CgroupTree,
        network: &NetworkState,
        cluster: KnownCluster,
        chosen: &mut Chosen,
    ) -> Result<()> {
        let Some(books) = self.kernel.books(self.config) else {
            // Nothing to wait for: the agent lives on without the counters.
            if let Some(latch) = self.readiness.latch(CGROUPS_READ) {
                latch.set();
            }
            chosen.add(self.config.collector.traffic, Arc::new(Unavailable::new("traffic", NOT_LOADED)))?;
            return chosen.add(self.config.collector.tcp, Arc::new(Unavailable::new("tcp", NOT_LOADED)));
        };
        let logs = LogDirectory::at(&self.config.pod_log_directory);
        let names = PodNames::new(vec![Box::new(cluster), Box::new(logs)]);
        let census = Arc::new(Census::new(names));
        let node = node::Node {
            tree: tree.clone(),
            census: Arc::clone(&census),
            ledger: Arc::clone(&books.ledger),
            kernel: books.kernel,
            timeline: Arc::clone(&self.timeline),
            metrics: self.metrics.clone(),
            retention: self.config.pod_retention,
            lost: 0,
            read: self.readiness.latch(CGROUPS_READ),
            pod_events: pod_events::PodEvents::default(),
        };
        supervise("node", self.ended.clone(), node.run(books.events));
        let (traffic, tcp) = (self.kernel.traffic_support(), self.kernel.tcp_support());
        let traffic = Traffic::new(Arc::clone(&books.ledger), Arc::clone(&census), books.profile, traffic);
        let traffic = Dependent::new(traffic, network.current(), network::OLD_CLASSES);
        chosen.add(self.config.collector.traffic, Arc::new(traffic))?;
        let tcp = Tcp::new(books.ledger, census, books.profile, tcp);
        let tcp = Dependent::new(tcp, network.current(), network::OLD_CLASSES);
        chosen.add(self.config.collector.tcp, Arc::new(tcp))
    }
}
