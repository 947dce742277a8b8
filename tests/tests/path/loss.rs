//! Losses by direction, against nftables' counts of what it dropped, and against the share that it was to drop.

use std::mem;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::scrape::{Sample, Samples};
use lab::{Agent, Firewall, Flannel, Lab, LabOptions, Node, Place as _};

use crate::{DIRECTIONS, LAYERS, LIMIT, PORT, prober};

/// Milliseconds between two probes of a path: 500 a second.
const INTERVAL: u64 = 2;
/// Probes of each path while something is lost.
const PROBES: u64 = 20_000;
/// More than those take.
const LONG: Duration = Duration::from_secs(80);
/// Probes in three seconds: a loss is told after two.
const SETTLED: u64 = 3_000 / INTERVAL;
/// How unlikely a count may be: 99.99 % are likelier, half of the others on either side.
const UNLIKELY: f64 = 0.000_05;

/// A path from one node to another, and of how many of 1000 probes which packet is dropped.
struct Loss {
    nodes: [u8; 2],
    layer: &'static str,
    /// Where in [`DIRECTIONS`].
    way: usize,
    per_mille: u16,
}

const FORWARD: usize = 0;
const REVERSE: usize = 1;

const fn loss(nodes: [u8; 2], layer: &'static str, way: usize, per_mille: u16) -> Loss {
    Loss { nodes, layer, way, per_mille }
}

/// All paths between three nodes, so that all shares are seen at the same time.
const LOSSES: [Loss; 12] = [
    loss([1, 2], "underlay", FORWARD, 1),
    loss([2, 3], "underlay", FORWARD, 10),
    loss([3, 1], "underlay", FORWARD, 100),
    loss([1, 3], "underlay", FORWARD, 500),
    loss([2, 1], "underlay", REVERSE, 100),
    loss([3, 2], "underlay", REVERSE, 0),
    loss([1, 2], "overlay", REVERSE, 1),
    loss([2, 3], "overlay", REVERSE, 10),
    loss([3, 1], "overlay", REVERSE, 100),
    loss([1, 3], "overlay", REVERSE, 500),
    loss([2, 1], "overlay", FORWARD, 100),
    loss([3, 2], "overlay", FORWARD, 0),
];

impl Loss {
    fn name(&self) -> String {
        let [from, to] = self.nodes;
        format!("loss_{}_{from}_{to}", self.layer)
    }

    /// Who is to get the packet, and who sends it.
    fn ends<'lab>(&self, lab: &'lab Lab) -> Result<[&'lab Node; 2]> {
        let [from, to] = self.nodes;
        let ends = if self.way == FORWARD { [to, from] } else { [from, to] };
        Ok([lab.node(ends[0])?, lab.node(ends[1])?])
    }

    /// Drops the share where the packet comes in, before the kernel of that node has seen it.
    fn begin<'lab>(&self, lab: &'lab Lab) -> Result<Option<Firewall<'lab, Node>>> {
        if self.per_mille == 0 {
            return Ok(None);
        }
        let [place, other] = self.ends(lab)?;
        let side = if self.way == FORWARD { "dport" } else { "sport" };
        let (device, address) = if self.layer == "underlay" {
            ("eth0", other.address(false)?)
        } else {
            let [a, b, c, _] = other.subnet()?.ipv4.octets();
            ("flannel.1", Ipv4Addr::new(a, b, c, 0).into())
        };
        // Packets that look for the MTU are longer.
        let body = format!(
            "chain loss {{ type filter hook ingress device \"{device}\" priority 0;\n\
             ip saddr {address} udp {side} {PORT} udp length < 200 \
             numgen random mod 1000 < {} counter drop\n}}\n",
            self.per_mille
        );
        Firewall::add(place, "netdev", &self.name(), &body).map(Some)
    }

    /// Lets everything pass; answers with nft's count, which stands still from then on.
    fn end(&self, lab: &Lab, firewall: Option<&Firewall<'_, Node>>) -> Result<u64> {
        let Some(firewall) = firewall else { return Ok(0) };
        let [place, _] = self.ends(lab)?;
        place.run(&["nft", "insert", "rule", "netdev", &self.name(), "loss", "accept"])?;
        firewall.counted()
    }

    /// What the agent at the beginning of the path tells of it.
    fn told(&self, lab: &Lab, pages: &[Samples]) -> Result<Told> {
        let peer = lab.node(self.nodes[1])?.address(false)?.to_string();
        let page = &pages[usize::from(self.nodes[0]) - 1];
        Told::of(page, &peer, self.layer).with_context(|| format!("{}: no counts", self.name()))
    }
}

/// What an agent has counted on a path.
#[derive(Clone, Copy, Debug)]
struct Told {
    sent: u64,
    lost: [u64; DIRECTIONS.len()],
    /// Of which it cannot say anything, since it stood still or a clock was set.
    discarded: u64,
}

impl Told {
    fn of(page: &Samples, peer: &str, layer: &str) -> Option<Self> {
        let path = [("peer_node", peer), ("layer", layer)];
        let lost = |way| {
            let labels = [path[0], path[1], ("direction", way)];
            page.count("leadline_path_probes_lost_total", &labels)
        };
        let discarded = |reason| {
            let labels = [path[0], path[1], ("reason", reason)];
            page.count("leadline_path_probes_discarded_total", &labels)
        };
        let [forward, reverse, unknown] = DIRECTIONS.map(lost);
        Some(Self {
            sent: page.count("leadline_path_probes_sent_total", &path)?,
            lost: [forward?, reverse?, unknown?],
            discarded: discarded("pause")? + discarded("clock_step")?,
        })
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            sent: self.sent - before.sent,
            lost: [0, 1, 2].map(|way| self.lost[way] - before.lost[way]),
            discarded: self.discarded - before.discarded,
        }
    }
}

fn pages(agents: &[Agent]) -> Result<Vec<Samples>> {
    agents.iter().map(Agent::scrape).collect()
}

/// The pages once so many more probes were sent on each path.
fn after(agents: &[Agent], probes: u64) -> Result<Vec<Samples>> {
    let sent = |page: &Samples| {
        let sent = page.of("leadline_path_probes_sent_total", |_| true).filter_map(Sample::count);
        sent.collect::<Vec<u64>>()
    };
    let goals: Vec<Vec<u64>> =
        pages(agents)?.iter().map(|page| sent(page).iter().map(|sent| sent + probes).collect()).collect();
    let pages = agents.iter().zip(goals).map(|(agent, goal)| {
        let what = format!("{probes} more probes");
        let is_there = |page: &Samples| sent(page).iter().zip(&goal).all(|(sent, goal)| sent >= goal);
        Ok(agent.wait_page(&what, LONG, "leadline_path_probes", is_there)?.0)
    });
    pages.collect()
}

/// Agents on all nodes, which have answers on all paths.
fn mesh(lab: &Lab) -> Result<Vec<Agent>> {
    let agents: Vec<Agent> = lab.nodes().iter().map(|node| prober(node, INTERVAL)).collect::<Result<_>>()?;
    for agent in &agents {
        agent.wait_page("answers on all paths", LIMIT, "leadline_path_", |page| {
            let answered =
                page.of("leadline_path_reachable", |_| true).filter(|sample| sample.count() == Some(1));
            answered.count() == 2 * LAYERS.len()
        })?;
    }
    after(&agents, SETTLED)?;
    Ok(agents)
}

/// How likely it is that of so many not more than that count are hit, and that not fewer are.
fn likelihood(of: u64, share: f64, count: u64) -> Result<[f64; 2]> {
    let (of, count) = (u32::try_from(of)?, u32::try_from(count)?);
    let odds = (share / (1.0 - share)).ln();
    let (mut one, mut sums) = (f64::from(of) * (1.0 - share).ln(), [0.0; 2]);
    for hits in 0..=of {
        if hits > 0 {
            one += (f64::from(of - hits + 1) / f64::from(hits)).ln() + odds;
        }
        let likely = one.exp();
        sums[0] += if hits <= count { likely } else { 0.0 };
        sums[1] += if hits >= count { likely } else { 0.0 };
    }
    Ok(sums)
}

#[test]
fn likelihoods_are_those_of_the_binomial_distribution() {
    // Of three coins: 1, 3, 3 and 1 of 8.
    let [most, least] = likelihood(3, 0.5, 1).unwrap();
    assert!((most - 0.5).abs() < 1e-12 && (least - 0.875).abs() < 1e-12, "{most} {least}");
    // Half of many is as likely as its mirror image, although the first terms are below what a float can be.
    let [most, least] = likelihood(20_000, 0.5, 10_000).unwrap();
    assert!((most - least).abs() < 1e-9 && (0.5..0.51).contains(&most), "{most} {least}");
}

/// The pages before and after the losses began, and before and after they ended; the last one has them all.
struct Pages([Vec<Samples>; 5]);

impl Pages {
    /// What was lost on the path is as many as nft has dropped of it, and as many as was likely.
    #[expect(clippy::print_stdout, reason = "the figures are worth reading")]
    fn check(&self, lab: &Lab, loss: &Loss, dropped: u64) -> Result<()> {
        let pages = self.0.each_ref().map(|pages| loss.told(lab, pages));
        let [before, began, ends, ended, last] = pages;
        let (before, name) = (before?, loss.name());
        let (told, least, most) =
            (last?.since(&before), ends?.since(&began?).sent, ended?.since(&before).sent);
        let Loss { way, per_mille, .. } = *loss;
        println!(
            "{name} {per_mille} of 1000 {}: nft {dropped}, agent {:?} of {least} to {most}, {} discarded",
            DIRECTIONS[way], told.lost, told.discarded
        );
        ensure!(least >= PROBES, "{name}: only {least} probes");
        let mut others = told.lost;
        let counted = mem::take(&mut others[way]);
        ensure!(others == [0; 3], "{name}: {told:?} in other directions");
        // Exactly, but for those of which the agent says that it cannot tell: some, on a machine that is busy with others.
        let is_near = counted <= dropped && dropped - counted <= told.discarded.min(dropped / 2);
        ensure!(is_near, "{name}: {told:?}, nft has dropped {dropped}");
        if per_mille > 0 {
            let share = f64::from(per_mille) / 1_000.0;
            let [few, _] = likelihood(least, share, counted + told.discarded)?;
            let [_, many] = likelihood(most, share, counted)?;
            ensure!(few > UNLIKELY && many > UNLIKELY, "{name}: {counted} of {least} to {most} probes");
        }
        Ok(())
    }
}

#[test]
fn losses_of_any_share_are_counted_in_their_direction() -> Result<()> {
    let lab = Lab::start(&LabOptions { nodes: 3, flannel: Some(Flannel::default()) })?;
    let agents = mesh(&lab)?;
    let before = pages(&agents)?;
    let firewalls: Vec<_> = LOSSES.iter().map(|loss| loss.begin(&lab)).collect::<Result<_>>()?;
    let began = pages(&agents)?;
    let ends = after(&agents, PROBES)?;
    let dropped = LOSSES.iter().zip(&firewalls).map(|(loss, firewall)| loss.end(&lab, firewall.as_ref()));
    let dropped: Vec<u64> = dropped.collect::<Result<_>>()?;
    let ended = pages(&agents)?;
    let pages = Pages([before, began, ends, ended, after(&agents, SETTLED)?]);
    for (loss, dropped) in LOSSES.iter().zip(dropped) {
        pages.check(&lab, loss, dropped)?;
    }
    drop(firewalls);
    lab.shutdown()
}
