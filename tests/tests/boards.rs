//! The shipped boards over a real Prometheus that scrapes real agents: every panel has something to show, and the word
//! for a layer is that of what broke.

mod boards {
    pub(crate) mod board;
}

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use boards::board::{Asked, Board};
use lab::control_plane::Options;
use lab::etcd::Version;
use lab::haproxy::{self, SERVERS, Server};
use lab::keepalived::Spec;
use lab::prometheus::listen_address;
use lab::{
    Agent, AgentOptions, Certificate, ControlPlane, Etcd, EtcdOptions, Haproxy, Lab, LabOptions, Node, Pod,
    PodSpec, Prometheus, TlsServer, Trio, wait_until,
};

/// For what is scraped every five seconds and looked back on for thirty.
const LIMIT: Duration = Duration::from_mins(3);

const BOARDS: [&str; 3] = ["leadline-overview", "leadline-vip", "leadline-etcd"];

/// The port of the API server, and of who stands in for it on the other nodes.
const PORT: u16 = 6443;

/// What has nothing to show here, and why.
const EMPTY: [(&str, &str); 2] = [
    ("leadline-overview, Tunnel, A", "no node is part of a tailnet"),
    ("leadline-overview, Way to each peer, A", "no node is part of a tailnet"),
];

/// A cluster with all that the boards speak of but a tunnel.
struct Stage<'lab> {
    agents: Vec<Agent>,
    trio: Trio,
    etcd: Etcd,
    prometheus: Prometheus<'lab>,
    _plane: ControlPlane,
    _servers: Vec<TlsServer>,
    _haproxy: (Haproxy, Vec<Server>),
    _pods: Vec<Pod>,
}

fn agent(node: &Node) -> Result<Agent> {
    // etcd has no manifest here that says how long its election timeout is.
    let arguments =
        vec![listen_address(node)?, "--collector.path=on".into(), "--etcd.election-timeout=1s".into()];
    Agent::start(node, &AgentOptions { arguments, limit: Duration::from_mins(1), ..AgentOptions::default() })
}

/// A load balancer on a port of its own, whose servers are ready.
fn load_balancer(node: &Node) -> Result<(Haproxy, Vec<Server>)> {
    let servers = SERVERS.iter().map(|(_, address)| Server::start(node, *address)).collect::<Result<_>>()?;
    let frontend: SocketAddr = "127.0.0.1:7443".parse().context("an address")?;
    Ok((Haproxy::start(node, &haproxy::Spec { frontend, ..haproxy::Spec::default() })?, servers))
}

impl<'lab> Stage<'lab> {
    fn new(lab: &'lab Lab) -> Result<Self> {
        let etcd = Etcd::start(lab, &EtcdOptions { version: Version::V3_6, ..EtcdOptions::default() })?;
        let plane = ControlPlane::start(lab.node(1)?, &etcd, &Options::default())?;
        let certificate = Certificate::new(lab.node(2)?, 60)?;
        let serve = |index| TlsServer::start(lab.node(index)?, PORT, &certificate);
        Ok(Self {
            _plane: plane,
            _servers: [2, 3].into_iter().map(serve).collect::<Result<_>>()?,
            _haproxy: load_balancer(lab.node(1)?)?,
            trio: Trio::start(lab, &Spec::default())?,
            agents: lab.nodes().iter().map(agent).collect::<Result<_>>()?,
            _pods: lab.nodes().iter().map(|node| node.pod(PodSpec::new("pod"))).collect::<Result<_>>()?,
            prometheus: Prometheus::start(lab)?,
            etcd,
        })
    }

    /// What annotations are about: another leader, another holder, another agent.
    fn stir(&mut self, lab: &Lab) -> Result<()> {
        let follower = *self.etcd.followers()?.first().context("no follower")?;
        self.etcd.move_leader(follower)?;
        self.trio.daemon(1)?.terminate()?;
        self.agents.pop().context("no agent")?.sigterm()?;
        self.agents.push(agent(lab.node(3)?)?);
        Ok(())
    }

    /// Waits until everything has shown something once, but for what cannot; answers with how much there was.
    fn wait_all(&self, asked: Vec<Asked>) -> Result<usize> {
        let (mut pending, mut failed, mut series) = (asked, None, 0);
        let waited = wait_until("every panel to have something to show", LIMIT, || {
            pending.retain(|one| match one.series(&self.prometheus) {
                Ok(found) => {
                    series += found;
                    found == 0
                }
                Err(error) => {
                    failed.get_or_insert(error);
                    true
                }
            });
            pending.is_empty() || failed.is_some()
        });
        if let Some(error) = failed {
            return Err(error);
        }
        let names =
            || pending.iter().map(|one| format!("{}: {}", one.name, one.expression)).collect::<Vec<_>>();
        waited.with_context(|| format!("nothing to show: {:#?}", names()))?;
        Ok(series)
    }

    fn wait_word(&self, board: &Board, panel: &str, word: &str) -> Result<()> {
        let mut last = None;
        let waited = wait_until(&format!("{panel} to be {word}"), LIMIT, || {
            last = Some(board.word(&self.prometheus, panel));
            matches!(&last, Some(Ok(now)) if now == word)
        });
        waited.with_context(|| format!("last seen: {last:?}"))
    }
}

#[test]
fn every_panel_has_something_to_show_and_a_word_for_what_broke() -> Result<()> {
    let lab = Lab::start(&LabOptions::default())?;
    let mut stage = Stage::new(&lab)?;
    let all = BOARDS.iter().map(|uid| Board::read(uid)).collect::<Result<Vec<_>>>()?;
    for (board, choices) in all.iter().map(|board| (board, board.choices(&stage.prometheus))) {
        let choices = choices?;
        ensure!(choices["cluster"] == ["lab"] && choices["job"] == ["leadline"], "{choices:?}");
        ensure!(choices["node"] == ["node1", "node2", "node3"], "{choices:?}");
        let vips = choices.get("vip").into_iter().flatten().collect::<Vec<_>>();
        ensure!(board.asked()?.len() > 10 && (vips.is_empty() || vips == ["192.168.56.50"]), "{choices:?}");
    }
    let overview = &all[0];
    for layer in ["Pods", "Overlay", "Path", "Virtual addresses", "Quorum"] {
        stage.wait_word(overview, layer, "healthy")?;
    }
    stage.wait_word(overview, "Tunnel", "not seen")?;

    stage.stir(&lab)?;
    let asked = all.iter().map(Board::asked).collect::<Result<Vec<_>>>()?;
    let (empty, filled): (Vec<_>, Vec<_>) =
        asked.into_iter().flatten().partition(|one| EMPTY.iter().any(|(name, _)| *name == one.name));
    ensure!(empty.len() == EMPTY.len(), "{EMPTY:?} names what no board has");
    let queries = filled.len();
    println!("{queries} queries have {} series", stage.wait_all(filled)?);
    for one in empty {
        if one.series(&stage.prometheus)? > 0 {
            bail!("{} has something to show: take it from the list", one.name);
        }
    }

    let follower = *stage.etcd.followers()?.first().context("no follower")?;
    stage.etcd.kill(follower)?;
    stage.wait_word(overview, "Quorum", "no spare")?;
    for index in [2, 3] {
        stage.trio.daemon(index)?.terminate()?;
    }
    stage.wait_word(overview, "Virtual addresses", "nobody has it")?;
    drop(stage);
    lab.shutdown()
}
