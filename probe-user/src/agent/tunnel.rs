//! Asks tailscaled about once a second, looks for it where it is not known, and tells the timeline and the log what
//! changed. `wire` listens to what the uplinks show of tunnels.

mod wire;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use ipnet::IpNet;
use tokio::time::sleep;

use super::network::peer_config;
use super::serve::{Chosen, supervise};
use super::vip::monotonic;
use super::{Agent, Nodes};
use crate::collector::tunnel::state::{Moment, Sight};
use crate::collector::tunnel::wire::{Heard, Wire};
use crate::collector::tunnel::{Known, Tunnel, judge, reason};
use crate::collector::vip::happening::Nanos;
use crate::config::{self, Mode};
use crate::event::{Kind, Occurrence, Timeline, Timestamp, milliseconds};
use crate::peer::{self, Node, PeerConfig, Peers, TunnelEnd, with_flannel};
use crate::source;
use crate::source::tailscale::{AskError, Backend, Candidates, PeerPath, Reading, candidates, read};
use crate::telemetry::with_causes;

/// How often it is looked for where it has long not been there.
const RARELY: Duration = Duration::from_secs(10);

/// Tailscale, where this node has it. It may come later, so that only who insists on it waits for the first look.
pub(super) async fn observe(
    agent: &Agent<'_>,
    registry: &Nodes,
    nodes: &Arc<Peers>,
    chosen: &mut Chosen,
) -> Result<()> {
    let (mode, known, heard) = (agent.config.collector.tunnel, Known::default(), Heard::default());
    let mut asker = Asker::new(Parts {
        root: "/".into(),
        config: agent.config.tunnel.clone(),
        peers: peer_config(agent.config),
        registry: registry.clone(),
        nodes: Arc::clone(nodes),
        known: known.clone(),
        heard: heard.clone(),
        timeline: Arc::clone(&agent.timeline),
    });
    if mode == Mode::On {
        asker.round().await;
    }
    chosen.add(mode, Arc::new(Tunnel::new(known.clone(), heard.clone(), monotonic)))?;
    // Taken in any case: nobody else wants them, and what nobody wants is not lost.
    let packets = agent.kernel.tunnel();
    if mode != Mode::Off {
        if let Some(packets) = packets {
            let (registry, timeline) = (registry.clone(), Arc::clone(&agent.timeline));
            let listener = wire::Listener { packets, heard, known, registry, timeline };
            supervise("tunnel_wire", agent.ended.clone(), listener.run());
        }
        supervise("tunnel", agent.ended.clone(), asker.run());
    }
    Ok(())
}

/// What the task is made of.
struct Parts {
    root: PathBuf,
    config: config::Tunnel,
    peers: PeerConfig,
    registry: Nodes,
    nodes: Arc<Peers>,
    known: Known,
    heard: Heard,
    timeline: Arc<Timeline>,
}

/// Asks tailscaled.
struct Asker {
    parts: Parts,
    begun: Instant,
    /// Where the last answer came from.
    socket: Option<PathBuf>,
    /// What the log was told last.
    told: String,
    pause: Duration,
}

impl Asker {
    fn new(parts: Parts) -> Self {
        let pause = parts.config.poll_interval;
        Self { parts, begun: Instant::now(), socket: None, told: String::new(), pause }
    }

    async fn run(mut self) -> Result<()> {
        loop {
            self.round().await;
            sleep(self.pause).await;
        }
    }

    /// Asks, or looks for whom to ask.
    async fn round(&mut self) {
        let has_answered = match self.socket.take() {
            Some(socket) => self.ask_again(socket).await,
            None => self.search().await,
        };
        let period = self.parts.config.poll_interval;
        self.pause = if has_answered { period } else { (self.pause * 2).min(RARELY.max(period)) };
    }

    async fn ask_again(&mut self, socket: PathBuf) -> bool {
        match read(&socket).await {
            Ok(reading) => self.take(socket, reading),
            Err(fault) => {
                // What was read is not so any more. It may be elsewhere now, or be back soon.
                self.miss(Sight::Unreadable(reason(&fault.cause)));
                self.pause = self.parts.config.poll_interval / 2;
                false
            }
        }
    }

    async fn search(&mut self) -> bool {
        let candidates = candidates(&self.parts.root, self.parts.config.socket.as_deref());
        let mut faults = Vec::new();
        for socket in &candidates.sockets {
            match read(socket).await {
                Ok(reading) => return self.take(socket.clone(), reading),
                Err(fault) => faults.push(fault),
            }
        }
        self.judge(&candidates, &faults);
        false
    }

    fn take(&mut self, socket: PathBuf, reading: Reading) -> bool {
        // Who is logged out has no addresses, and has lost those whom he had reached.
        if reading.backend == Backend::Running {
            self.parts.nodes.fill_tunnel(ends(&reading));
        }
        let events = {
            let inner = self.inner();
            let at = self.moment();
            let mut state = self.parts.known.lock();
            let wire = self.parts.heard.lock();
            let now = round_trips(&reading, &wire);
            let before = match state.sight() {
                Sight::Read(_, reading) => round_trips(reading, &wire),
                _ => RoundTrips::new(),
            };
            drop(wire);
            state.set_inner(inner);
            let events = state.observe(socket.clone(), reading, at);
            events.into_iter().map(|event| with_round_trips(event, &before, &now)).collect::<Vec<_>>()
        };
        for event in events {
            self.parts.timeline.record(event);
        }
        if self.is_news(format!("read {}", socket.display())) {
            tracing::info!(collector = "tunnel", socket = %socket.display(), "tailscaled is read");
        }
        self.socket = Some(socket);
        true
    }

    fn miss(&self, sight: Sight) {
        let event = self.parts.known.lock().miss(sight, self.moment());
        if let Some(event) = event {
            self.parts.timeline.record(event);
        }
    }

    fn judge(&mut self, candidates: &Candidates, faults: &[AskError]) {
        let (sight, fault) = judge(candidates, faults);
        match (&sight, fault) {
            (_, Some(fault)) => self.tell_fault(fault),
            (Sight::Absent(reason), None) if self.is_news((*reason).to_owned()) => {
                tracing::info!(collector = "tunnel", reason, "Tailscale is looked for now and then");
            }
            _ => {}
        }
        self.miss(sight);
    }

    fn tell_fault(&mut self, fault: &AskError) {
        // Not by the whole cause: a broken answer may be broken elsewhere every time.
        if self.is_news(format!("{fault} {}", reason(&fault.cause))) {
            let (socket, cause) = (fault.socket.display(), with_causes(&fault.cause));
            tracing::warn!(collector = "tunnel", %socket, cause, "tailscaled cannot be read");
        }
    }

    fn moment(&self) -> Moment {
        Moment { now: self.begun.elapsed(), time: Timestamp::now() }
    }

    /// The networks of pods and overlays, by what is known of the nodes.
    fn inner(&self) -> Vec<IpNet> {
        let registry = self.parts.registry.borrow();
        let config = with_flannel(&self.parts.peers, &self.parts.root);
        let nodes = || registry.nodes.iter().chain([&registry.local]);
        let overlay = |node: &Node| node.overlay.iter().copied().map(IpNet::from).collect::<Vec<_>>();
        let known = nodes().flat_map(|node| node.pods.iter().copied().chain(overlay(node)));
        known.chain(config.pod_networks()).collect()
    }

    /// Whether this is something else than the last time.
    fn is_news(&mut self, said: String) -> bool {
        let is_news = self.told != said;
        self.told = said;
        is_news
    }
}

/// The last round trip of each peer, at the address that is sent to.
type RoundTrips = BTreeMap<String, Nanos>;

fn round_trips(reading: &Reading, wire: &Wire) -> RoundTrips {
    let of = |(name, peer): (&String, &source::tailscale::Peer)| Some((name.clone(), wire.rtt(peer)?));
    reading.peers.iter().filter_map(of).collect()
}

/// A path that changed has one round trip before and another one afterwards, where they are known.
fn with_round_trips(event: Occurrence, before: &RoundTrips, now: &RoundTrips) -> Occurrence {
    if event.kind != Kind::TunnelPathChanged {
        return event;
    }
    let known = [("was_rtt_ms", before.get(&event.subject)), ("rtt_ms", now.get(&event.subject))];
    known.into_iter().fold(event, |event, (key, rtt)| match rtt {
        Some(rtt) => event.with(key, milliseconds(Duration::from_nanos(*rtt))),
        None => event,
    })
}

/// What a reading says of the ends of the tunnels.
fn ends(reading: &Reading) -> peer::Tunnel {
    let ends = reading.peers.iter().map(|(name, peer)| TunnelEnd {
        name: name.as_str().into(),
        addresses: peer.addresses.clone(),
        endpoint: peer.endpoint.filter(|_| peer.path == Some(PeerPath::Direct)).map(|end| end.ip()),
        prefixes: peer.allowed.clone(),
    });
    peer::Tunnel { own: reading.own.addresses.clone(), ends: ends.collect() }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    use super::*;
    use crate::collector::{Collector as _, Support};
    use crate::peer::{Peers, Registry};

    fn asker(socket: Option<PathBuf>) -> Asker {
        let lost = prometheus::IntCounter::new("lost", "lost").unwrap();
        let local = Node { overlay: vec!["10.42.1.0".parse().unwrap()], ..Node::default() };
        let other = Node { pods: vec!["10.52.2.0/24".parse().unwrap()], ..Node::default() };
        let peers = Peers::default();
        peers.fill_network(Registry { local, nodes: vec![other], ..Registry::default() });
        Asker::new(Parts {
            root: "/nonexistent".into(),
            config: config::Tunnel { socket, ..config::Tunnel::default() },
            peers: PeerConfig { pod_cidrs: vec!["10.62.0.0/16".parse().unwrap()], ..PeerConfig::default() },
            registry: peers.receiver(),
            nodes: Arc::new(peers),
            known: Known::default(),
            heard: Heard::default(),
            timeline: Arc::new(Timeline::new(8, lost)),
        })
    }

    fn support(asker: &Asker) -> Support {
        Tunnel::new(asker.parts.known.clone(), asker.parts.heard.clone(), monotonic).support()
    }

    async fn answer(listener: &UnixListener, body: &str) {
        let mut stream = listener.accept().await.unwrap().0;
        let mut request = [0; 512];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        stream.write_all(format!("HTTP/1.0 200 OK\r\n\r\n{body}").as_bytes()).await.unwrap();
    }

    #[tokio::test]
    async fn it_is_looked_for_more_and_more_rarely_and_read_every_second() {
        let path = std::env::temp_dir().join(format!("leadline-tunnel-{}.sock", std::process::id()));
        let mut asker = asker(Some(path.clone()));
        let mut pauses = Vec::new();
        for _ in 0..5 {
            asker.round().await;
            pauses.push(asker.pause.as_secs());
        }
        assert_eq!(pauses, [2, 4, 8, 10, 10]);
        assert!(matches!(support(&asker), Support::Degraded(_)));
        let listener = UnixListener::bind(&path).unwrap();
        let server = tokio::spawn(async move {
            answer(&listener, r#"{"BackendState":"Running"}"#).await;
            answer(&listener, r#"{"AdvertiseRoutes":null}"#).await;
        });
        asker.round().await;
        server.await.unwrap();
        assert_eq!((asker.pause.as_secs(), support(&asker)), (1, Support::Yes));
        // The listener is gone, its socket is not.
        asker.round().await;
        assert_eq!(asker.pause.as_secs(), 1);
        assert!(matches!(support(&asker), Support::Degraded(_)));
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn a_node_without_tailscale_says_so() {
        let mut asker = asker(None);
        asker.round().await;
        assert_eq!(support(&asker), Support::No("no Tailscale on this node"));
        assert!(asker.parts.timeline.since(0, 8).events.is_empty());
    }

    #[test]
    fn a_path_that_changed_has_the_round_trips_that_are_known() {
        let (before, now) =
            ([("node2".to_owned(), 1_500_000)].into(), [("node2".to_owned(), 250_000)].into());
        let told = |kind, subject: &str, now: &RoundTrips| {
            let event = with_round_trips(Occurrence::now(kind, subject), &before, now);
            event.details.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>()
        };
        assert_eq!(told(Kind::TunnelPathChanged, "node2", &now), ["rtt_ms=0.250", "was_rtt_ms=1.500"]);
        assert_eq!(told(Kind::TunnelPathChanged, "node2", &RoundTrips::new()), ["was_rtt_ms=1.500"]);
        assert!(told(Kind::TunnelPathChanged, "node3", &now).is_empty());
        assert!(told(Kind::TunnelPeerLost, "node2", &now).is_empty());
    }

    #[test]
    fn what_rides_on_a_tunnel_are_pods_and_overlays() {
        let inner: Vec<String> = asker(None).inner().iter().map(ToString::to_string).collect();
        assert_eq!(inner, ["10.52.2.0/24", "10.42.1.0/32", "10.62.0.0/16"]);
    }
}
