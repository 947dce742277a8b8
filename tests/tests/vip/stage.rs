//! Three nodes with keepalived and a fourth without, an agent and a tcpdump on each.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::keepalived::Spec;
use lab::scrape::Samples;
use lab::witness::tcpdump::{Advert, Capture, Frame, Sent, VRRP_FILTER, adverts, claims, sent};
use lab::{Agent, AgentOptions, Lab, LabOptions, Node, Trio, wait_until};

/// Long enough for keepalived to fail over and for the agent to have waited for the announcement.
pub(crate) const LIMIT: Duration = Duration::from_secs(15);

/// Who sends garbage, which the witness leaves out.
pub(crate) const STRANGER: &str = "02:00:00:00:99:99";

/// Where the service behind the address listens.
pub(crate) const PORT: u16 = 6443;

/// How long nothing else must have moved.
const SETTLED: Duration = Duration::from_secs(1);

/// The node without keepalived.
pub(crate) const BYSTANDER: u8 = 4;

pub(crate) struct Stage {
    pub(crate) trio: Trio,
    pub(crate) vip: IpAddr,
    pub(crate) observers: Vec<Observer>,
}

/// An agent, and what it is compared with.
pub(crate) struct Observer {
    pub(crate) node: u8,
    pub(crate) agent: Agent,
    pub(crate) capture: Capture,
}

impl Stage {
    pub(crate) fn lab() -> Result<Lab> {
        Lab::start(&LabOptions { nodes: BYSTANDER, flannel: None })
    }

    /// The trio with node1 as master, and observers that know it.
    pub(crate) fn new(lab: &Lab, spec: &Spec) -> Result<Self> {
        Self::with(lab, Trio::start(lab, spec)?)
    }

    pub(crate) fn with(lab: &Lab, trio: Trio) -> Result<Self> {
        let vip = trio.vip()?;
        let observers: Vec<Observer> = lab.nodes().iter().map(Observer::start).collect::<Result<_>>()?;
        for observer in observers.iter().filter(|observer| observer.hears(&trio)) {
            let text = vip.to_string();
            wait_until("the agent to know the address", LIMIT, || {
                observer
                    .agent
                    .scrape()
                    .is_ok_and(|page| page.value("leadline_vip_conflict", &[("vip", &text)]).is_some())
            })
            .with_context(|| format!("node{}", observer.node))?;
        }
        Ok(Self { trio, vip, observers })
    }
}

impl Observer {
    fn start(node: &Node) -> Result<Self> {
        Self::with_filter(node, &format!("({VRRP_FILTER} or tcp port {PORT}) and not ether src {STRANGER}"))
    }

    fn with_filter(node: &Node, filter: &str) -> Result<Self> {
        let options = AgentOptions { limit: Duration::from_secs(30), ..AgentOptions::default() };
        let capture = Capture::start(node, "eth0", filter)?;
        Ok(Self { node: node.index(), agent: Agent::start(node, &options)?, capture })
    }

    /// One on each node, with the links tapped; tagged frames are captured as well. There is no address yet.
    pub(crate) fn everywhere(lab: &Lab) -> Result<Vec<Self>> {
        // What follows the word looks behind the tag, so it comes last.
        let filter = format!("{VRRP_FILTER} or tcp port {PORT} or vlan");
        let start = |node| -> Result<Self> {
            let observer = Self::with_filter(node, &filter)?;
            wait_until("the link to be tapped", LIMIT, || {
                let page = observer.agent.scrape();
                page.is_ok_and(|page| {
                    page.count("leadline_tap_attached", &[("interface", "eth0")]) == Some(1)
                })
            })?;
            Ok(observer)
        };
        lab.nodes().iter().map(start).collect()
    }

    /// Unicast advertisements reach the peers only.
    fn hears(&self, trio: &Trio) -> bool {
        self.node != BYSTANDER || trio.spec().unicast_peers.is_none()
    }

    pub(crate) fn failovers(page: &Samples, vip: IpAddr, cause: &str) -> Option<u64> {
        page.count("leadline_vip_failovers_total", &[("vip", &vip.to_string()), ("cause", cause)])
    }

    /// Waits until it has counted as many failovers as its tcpdump shows, the last of them at least a second ago.
    pub(crate) fn wait_moves(&mut self, vip: IpAddr) -> Result<(Samples, Vec<Move>)> {
        let is_settled = |frames: &[Frame]| {
            let (moves, last) = (moves(frames, vip), adverts(frames).pop().map(|advert| advert.time));
            moves.last().is_some_and(|moved| last.is_some_and(|last| last > moved.first + SETTLED))
        };
        self.capture.wait_until("a failover on the wire", LIMIT, is_settled)?;
        let mut last = None;
        let waited = wait_until("the failovers to be counted", LIMIT, || {
            last = self.agent.scrape().ok().zip(self.capture.frames().ok().map(|frames| moves(&frames, vip)));
            last.as_ref().is_some_and(|(page, moves)| {
                page.sum("leadline_vip_failovers_total", |_| true).and_then(|sum| usize::try_from(sum).ok())
                    == Some(moves.len())
            })
        });
        let (page, moves) = last.context("no page")?;
        let all: Vec<_> = page.of("leadline_vip_failovers_total", |_| true).collect();
        waited.with_context(|| format!("node{}: {all:?}, tcpdump {moves:?}", self.node))?;
        Ok((page, moves))
    }

    /// A count of the address.
    pub(crate) fn count(&self, name: &str, vip: IpAddr) -> Result<u64> {
        let page = self.agent.scrape()?;
        let count = page.count(name, &[("vip", &vip.to_string())]);
        count.with_context(|| format!("node{}: no {name} of {vip}", self.node))
    }

    /// All events of a kind on the timeline, the oldest first.
    pub(crate) fn events(&self, kind: &str) -> Result<Vec<serde_json::Value>> {
        let page = self.agent.get("/api/v1/events?limit=4096", &[])?;
        let page: serde_json::Value = serde_json::from_str(page.text()?).context("the events are no JSON")?;
        let events = page["events"].as_array().context("no list of events")?;
        Ok(events.iter().filter(|event| event["kind"] == kind).cloned().collect())
    }

    /// A phase of the last failover in seconds.
    pub(crate) fn phase(page: &Samples, vip: IpAddr, phase: &str) -> Result<f64> {
        let labels = [("vip", &*vip.to_string()), ("phase", phase)];
        page.value("leadline_vip_last_failover_seconds", &labels).with_context(|| format!("no phase {phase}"))
    }
}

/// A failover as tcpdump has it.
#[derive(Clone, Debug)]
pub(crate) struct Move {
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    /// The new owner's first advertisement.
    pub(crate) first: Duration,
    /// From the old owner's last one.
    pub(crate) detect: Duration,
    /// To the new owner's first claim after that.
    pub(crate) announce: Option<Duration>,
}

/// The moves of an address in the frames of one observer. A router has taken over if the one before it had said goodbye
/// or been silent for two and a half intervals, or, unlike the agent this looks ahead, is so afterwards.
pub(crate) fn moves(frames: &[Frame], vip: IpAddr) -> Vec<Move> {
    let all: Vec<Advert> = once_each(adverts(frames));
    let claims = claims(frames, vip);
    let mut found = Vec::new();
    let Some(mut owner) = all.first().map(|advert| advert.source) else { return found };
    let mut last = all[0].clone();
    for advert in &all {
        let is_return = advert.source == owner && last.priority == 0 && advert.priority > 0;
        let insists = |later: &Advert| {
            later.source == owner
                && later.priority > 0
                && later.time > advert.time
                && later.time < advert.time + advert.interval * 5 / 2
        };
        let is_other = advert.source != owner && advert.priority > 0;
        let was_silent = advert.time.saturating_sub(last.time) > advert.interval * 5 / 2;
        if is_return || is_other && (last.priority == 0 || was_silent || !all.iter().any(insists)) {
            let claim = claims.iter().find(|claim| claim.mac == advert.mac && claim.time >= advert.time);
            found.push(Move {
                from: owner,
                to: advert.source,
                first: advert.time,
                detect: advert.time.saturating_sub(last.time),
                announce: claim.map(|claim| claim.time.saturating_sub(advert.time)),
            });
            owner = advert.source;
        }
        if advert.source == owner {
            last = advert.clone();
        }
    }
    found
}

/// The end of a failover as tcpdump has it.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    /// When the new owner served, since the epoch.
    pub(crate) time: Duration,
    /// From the new owner's first claim to its first segment from the address.
    pub(crate) converge: Duration,
    /// From the last sign of the old owner to that segment.
    pub(crate) total: Duration,
}

/// The end of each move in the frames of one observer; none where nothing was served before the next one.
pub(crate) fn services(frames: &[Frame], vip: IpAddr) -> Vec<Option<Service>> {
    let (moves, adverts, segments) = (moves(frames, vip), adverts(frames), sent(frames, vip));
    let mac =
        |router: IpAddr| adverts.iter().find(|advert| advert.source == router).map(|advert| &advert.mac);
    let end = |(number, moved): (usize, &Move)| {
        let until = moves.get(number + 1).map_or(Duration::MAX, |next| next.first);
        let is_first =
            |sent: &&Sent| (moved.first..until).contains(&sent.time) && Some(&sent.mac) == mac(moved.to);
        let first = segments.iter().find(is_first)?;
        let before = segments.iter().take_while(|sent| sent.time < first.time).last().map(|sent| sent.time);
        let last = before.max(Some(moved.first.checked_sub(moved.detect)?))?;
        Some(Service {
            time: first.time,
            // A station that had the address all the time serves before it announces it again.
            converge: first.time.saturating_sub(moved.first + moved.announce?),
            total: first.time.checked_sub(last)?,
        })
    };
    moves.iter().enumerate().map(end).collect()
}

/// One advertisement to several unicast peers counts once: the first copy.
fn once_each(mut adverts: Vec<Advert>) -> Vec<Advert> {
    adverts.dedup_by(|later, first| {
        later.source == first.source
            && later.priority == first.priority
            && later.destination != first.destination
            && later.time < first.time + later.interval / 2
    });
    adverts
}
