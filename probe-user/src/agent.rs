//! The wiring, and the only wiring: which parts there are, in what order they start, who hears of what.
//!
//! Order matters twice. The kernel thread is started first, while this thread still has capabilities; every thread
//! that is created afterwards inherits that it has none. And what feeds a collector runs before the agent is ready.

mod haproxy;
mod kernel_side;
mod network;
mod node;
mod pod_events;
mod privilege;
mod retention;
mod serve;
mod vip;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};

use self::kernel_side::{KernelSide, NOT_LOADED};
use self::serve::{Chosen, supervise};
use crate::collector::agent_self::{AgentSelf, Build, EventSource, SelfMetrics};
use crate::collector::dependent::Dependent;
use crate::collector::haproxy::{Haproxy, Known};
use crate::collector::overlay::OverlayCollector;
use crate::collector::tap::Tap;
use crate::collector::tcp::Tcp;
use crate::collector::traffic::Traffic;
use crate::collector::unavailable::Unavailable;
use crate::collector::vip::{Heard, Vip};
use crate::config::{Config, Mode};
use crate::event::{Kind, Occurrence, Timeline};
use crate::host::{check_capabilities, read_host};
use crate::http::Readiness;
use crate::identity::{Census, LogDirectory, PodNames};
use crate::kernel::memory::return_large_blocks;
use crate::peer::{Peers, keep_peers};
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

/// What the parts share.
struct Agent<'a> {
    config: &'a Config,
    kernel: &'a KernelSide,
    metrics: SelfMetrics,
    timeline: Arc<Timeline>,
    readiness: Readiness,
    /// Hears of background tasks that ended.
    ended: tokio::sync::mpsc::UnboundedSender<String>,
}

impl<'a> Agent<'a> {
    async fn start(config: &'a Config, tree: &CgroupTree, kernel: &'a KernelSide) -> Result<()> {
        let revision = option_env!("LEADLINE_REVISION").unwrap_or("unknown");
        let metrics = SelfMetrics::new(&Build { version: env!("CARGO_PKG_VERSION"), revision })
            .context("the agent's own metrics cannot be registered")?;
        let timeline = Arc::new(Timeline::new(TIMELINE_EVENTS, metrics.events_lost(EventSource::Timeline)));
        timeline.record(Occurrence::now(Kind::AgentStarted, "leadline"));
        let readiness = Readiness::new(&[NETWORK_READ, CGROUPS_READ]);
        let (sender, ended) = tokio::sync::mpsc::unbounded_channel();
        let agent = Agent { config, kernel, metrics, timeline, readiness, ended: sender };
        let mut chosen = Chosen::default();
        let network = agent.observe_network(&mut chosen).await?;
        agent.observe_vips(&network, &mut chosen)?;
        agent.observe_haproxy(&mut chosen).await?;
        agent.observe_node(tree, &network, &mut chosen)?;
        chosen.add(Mode::Auto, Arc::new(kernel.collector()))?;
        chosen.add(config.collector.self_, Arc::new(AgentSelf::new(agent.metrics.clone())))?;
        serve::listen(&agent, chosen.into_collectors(), ended).await
    }

    /// Links, routes, peers, and what follows from them: prefixes and overlay devices for the kernel side. Without them
    /// the agent lives on: what needs them says so, and they may come.
    async fn observe_network(&self, chosen: &mut Chosen) -> Result<NetworkState> {
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
        let registry = self.keep_registry(network.facts());
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
        let overlay = OverlayCollector::new(&network, registry, self.kernel.overlay_counters());
        chosen.add(self.config.collector.overlay, Arc::new(overlay))?;
        Ok(network)
    }

    /// Virtual addresses, from the frames of the uplinks.
    fn observe_vips(&self, network: &NetworkState, chosen: &mut Chosen) -> Result<()> {
        let mode = self.config.collector.vip;
        let (Some(kernel), Some(frames)) = (self.kernel.handle(), self.kernel.frames()) else {
            return chosen.add(mode, Arc::new(Unavailable::new("vip", NOT_LOADED)));
        };
        if mode == Mode::Off {
            tracing::info!(collector = "vip", "collector is off");
            return Ok(());
        }
        let heard = Heard::default();
        let listener = vip::Listener {
            frames,
            facts: network.facts(),
            kernel,
            heard: heard.clone(),
            timeline: Arc::clone(&self.timeline),
            metrics: self.metrics.clone(),
            config: network::peer_config(self.config),
            join: self.config.vip.join_groups,
            lost: 0,
        };
        supervise("vip", self.ended.clone(), listener.run());
        chosen.add(Mode::Auto, Arc::new(Tap::new(heard.clone())))?;
        // It listens from here on; that there is no virtual address yet is no failure of a collector that must run.
        chosen.add(Mode::Auto, Arc::new(Vip::new(heard, network, vip::monotonic)))
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

    fn keep_registry(
        &self,
        facts: tokio::sync::watch::Receiver<Arc<NetworkFacts>>,
    ) -> tokio::sync::watch::Receiver<Arc<crate::peer::Registry>> {
        let peers = Arc::new(Peers::default());
        let registry = peers.receiver();
        let keep = keep_peers(facts, peers, network::peer_config(self.config), "/".into());
        supervise("peers", self.ended.clone(), async {
            keep.await;
            Ok(())
        });
        registry
    }

    /// Cgroups, pods and the books of the counters.
    fn observe_node(&self, tree: &CgroupTree, network: &NetworkState, chosen: &mut Chosen) -> Result<()> {
        let Some(books) = self.kernel.books(self.config) else {
            // Nothing to wait for: the agent lives on without the counters.
            if let Some(latch) = self.readiness.latch(CGROUPS_READ) {
                latch.set();
            }
            chosen.add(self.config.collector.traffic, Arc::new(Unavailable::new("traffic", NOT_LOADED)))?;
            return chosen.add(self.config.collector.tcp, Arc::new(Unavailable::new("tcp", NOT_LOADED)));
        };
        let names = PodNames::new(vec![Box::new(LogDirectory::at(&self.config.pod_log_directory))]);
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
