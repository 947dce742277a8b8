//! Bytes and packets per pod, per host unit and of the whole node, by class of peer.

mod descriptor;

use std::sync::Arc;

use probe_common::traffic::{Cell, Protocol};

use self::descriptor::{FAMILIES, Scope};
use super::rows::{Row, Sums};
use super::{CollectError, Collector, Support};
use crate::identity::{Census, Owner};
use crate::ledger::{Account, Counts, Holder, Ledger, Part, SlotSource, add_traffic};
use crate::metric::sink::Sink;
use crate::metric::{Descriptor, Labels, Profile, Value};
use crate::peer::PeerClass;

pub use self::descriptor::DESCRIPTORS;

/// What the counters do not see, for METRICS.md.
pub const LIMITS: &str = include_str!("traffic/limits.md");

/// The collector.
pub struct Traffic<S> {
    ledger: Arc<Ledger<S>>,
    census: Arc<Census>,
    profile: Profile,
    support: Support,
}

impl<S> Traffic<S> {
    /// A collector over these books and names.
    pub fn new(ledger: Arc<Ledger<S>>, census: Arc<Census>, profile: Profile, support: Support) -> Self {
        Self { ledger, census, profile, support }
    }
}

/// Peer class and, in the detailed profile, protocol.
type Tail = (PeerClass, Option<Protocol>);

/// The few series of one pod or unit, in no order.
type Cells = Vec<(Tail, Cell)>;

/// Everything of one collection, by owner.
struct Series {
    pods: Sums<Cells>,
    units: Sums<Cells>,
    node: Cells,
}

impl Series {
    /// What is known in advance: every class of the node's totals exists from the first scrape.
    fn known() -> Self {
        let node = PeerClass::ALL.map(|class| ((class, None), Cell::default())).to_vec();
        Self { pods: Sums::default(), units: Sums::default(), node }
    }

    fn add(&mut self, account: Account<&Owner>, more: &Cell, profile: Profile) {
        add_cell(&mut self.node, (account.class, None), more);
        let is_silent = *more == Cell::default();
        if profile == Profile::Minimal || is_silent {
            return;
        }
        let cells = match account.holder {
            Holder::Owner(Owner::Pod { uid }) => self.pods.of(uid),
            Holder::Overflow => self.pods.of_other(),
            Holder::Owner(Owner::Unit(unit)) => self.units.of(unit),
            Holder::Owner(Owner::Kernel) => self.units.of("kernel"),
            Holder::Departed => return,
        };
        let protocol = (profile == Profile::Detailed).then_some(account.protocol);
        add_cell(cells, (account.class, protocol), more);
    }

    fn into_rows(self, census: &Census) -> Rows {
        let add =
            |sum: &mut Cells, more: &Cells| more.iter().for_each(|(tail, cell)| add_cell(sum, *tail, cell));
        let node = Row { labels: Labels::new(&[], &[]), counts: self.node };
        let mut rows =
            Rows { pods: self.pods.into_pods(census, add), units: self.units.into_units(), node: vec![node] };
        let all = rows.pods.iter_mut().chain(&mut rows.units).chain(&mut rows.node);
        let text = |(class, protocol): &Tail| (class.as_str(), protocol.map(Protocol::as_str));
        all.for_each(|row| row.counts.sort_unstable_by_key(|(tail, _)| text(tail)));
        rows
    }
}

/// Everything in the order of the page.
struct Rows {
    pods: Vec<Row<Cells>>,
    units: Vec<Row<Cells>>,
    node: Vec<Row<Cells>>,
}

impl Rows {
    fn of(&self, scope: Scope) -> &[Row<Cells>] {
        match scope {
            Scope::Pod => &self.pods,
            Scope::Unit => &self.units,
            Scope::Node => &self.node,
        }
    }
}

fn add_cell(cells: &mut Cells, tail: Tail, more: &Cell) {
    match cells.iter_mut().find(|(known, _)| *known == tail) {
        Some((_, sum)) => add_traffic(sum, more),
        None => cells.push((tail, *more)),
    }
}

impl<S: SlotSource> Collector for Traffic<S> {
    fn name(&self) -> &'static str {
        "traffic"
    }

    fn descriptors(&self) -> &'static [&'static Descriptor] {
        DESCRIPTORS
    }

    fn support(&self) -> Support {
        self.support.clone()
    }

    fn collect(&self, sink: &mut Sink<'_>) -> Result<(), CollectError> {
        let mut series = Series::known();
        self.census.with_registry(|registry| {
            let add = |account: Account<&Owner>, counts: &Counts| {
                series.add(account, &counts.traffic, self.profile);
            };
            self.ledger.visit(registry, Part::Traffic, add);
        });
        let rows = series.into_rows(&self.census);
        for family in &FAMILIES {
            let descriptor =
                if self.profile == Profile::Detailed { &family.detailed } else { &family.standard };
            let mut out = sink.family(descriptor);
            for row in rows.of(family.scope) {
                for ((class, protocol), cell) in &row.counts {
                    let tail = [class.as_str(), protocol.map_or("", Protocol::as_str)];
                    let tail = if protocol.is_some() { &tail[..] } else { &tail[..1] };
                    out.value_with(&row.labels, tail, Value::Integer((family.read)(cell)));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Instant;

    use super::*;
    use crate::identity::{PodName, PodNames, PodSource};

    const UIDS: [&str; 2] = ["f49bc5ea-916a-4212-99f5-faa047ac2f8b", "0a9bc5ea-916a-4212-99f5-faa047ac2f8b"];

    /// A pod and its successor, as a `StatefulSet` makes them.
    struct Successors;

    impl PodSource for Successors {
        fn read(&mut self) -> io::Result<Vec<(String, PodName)>> {
            let name = PodName { namespace: "shop".into(), pod: "db-0".into() };
            Ok(UIDS.map(|uid| (uid.to_owned(), name.clone())).to_vec())
        }
    }

    /// The pod of that number.
    fn pod(number: usize) -> Owner {
        Owner::Pod { uid: UIDS[number].to_owned() }
    }

    fn sent(packets: u64) -> Cell {
        Cell { transmit_packets: packets, ..Cell::default() }
    }

    /// What is on the page after these packets were sent.
    fn rows(
        sources: Vec<Box<dyn PodSource>>,
        accounts: &[(Holder, PeerClass, Protocol, u64)],
        profile: Profile,
    ) -> Rows {
        let census = Census::new(PodNames::new(sources));
        let now = Instant::now();
        census.insert(7, &format!("kubepods/pod{}", UIDS[0]), now);
        census.find_names(now);
        let mut series = Series::known();
        for (holder, class, protocol, packets) in accounts {
            let account = Account { holder: holder.clone(), class: *class, protocol: *protocol };
            series.add(account.borrowed(), &sent(*packets), profile);
        }
        series.into_rows(&census)
    }

    fn named(accounts: &[(Holder, PeerClass, Protocol, u64)], profile: Profile) -> Rows {
        rows(vec![Box::new(Successors)], accounts, profile)
    }

    fn db(counts: Cells) -> Vec<Row<Cells>> {
        vec![Row { labels: Labels::new(&["namespace", "pod"], &["shop", "db-0"]), counts }]
    }

    /// The node's totals that are not 0.
    fn totals(rows: &Rows) -> Cells {
        let all = rows.node.iter().flat_map(|row| &row.counts);
        all.filter(|(_, cell)| *cell != Cell::default()).copied().collect()
    }

    #[test]
    fn pods_that_followed_each_other_under_one_name_are_one_series() {
        let accounts = [
            (Holder::Owner(pod(0)), PeerClass::Node, Protocol::Tcp, 3),
            (Holder::Owner(pod(1)), PeerClass::Node, Protocol::Tcp, 4),
        ];
        assert_eq!(named(&accounts, Profile::Standard).pods, db(vec![((PeerClass::Node, None), sent(7))]));
    }

    #[test]
    fn a_pod_whose_name_may_still_come_is_in_the_totals_only() {
        let accounts = [(Holder::Owner(pod(0)), PeerClass::Node, Protocol::Tcp, 3)];
        let found = rows(Vec::new(), &accounts, Profile::Standard);
        assert_eq!(found.pods, []);
        assert_eq!(totals(&found), [((PeerClass::Node, None), sent(3))]);
    }

    #[test]
    fn the_detailed_profile_keeps_protocols_apart_and_the_page_is_sorted() {
        let accounts = [
            (PeerClass::Node, Protocol::Udp, 1),
            (PeerClass::Node, Protocol::Tcp, 2),
            (PeerClass::Host, Protocol::Udp, 4),
        ]
        .map(|(class, protocol, packets)| (Holder::Owner(pod(0)), class, protocol, packets));
        let detailed = vec![
            ((PeerClass::Host, Some(Protocol::Udp)), sent(4)),
            ((PeerClass::Node, Some(Protocol::Tcp)), sent(2)),
            ((PeerClass::Node, Some(Protocol::Udp)), sent(1)),
        ];
        assert_eq!(named(&accounts, Profile::Detailed).pods, db(detailed));
        let standard = vec![((PeerClass::Host, None), sent(4)), ((PeerClass::Node, None), sent(3))];
        assert_eq!(named(&accounts, Profile::Standard).pods, db(standard));
    }

    #[test]
    fn what_found_no_slot_stands_among_the_pods() {
        let accounts = [
            (Holder::Owner(pod(0)), PeerClass::Node, Protocol::Tcp, 3),
            (Holder::Overflow, PeerClass::Node, Protocol::Other, 4),
        ];
        let found = named(&accounts, Profile::Standard).pods;
        assert_eq!(found[0].labels, Labels::new(&["namespace", "pod"], &["other", "other"]));
        assert_eq!(found[1..], db(vec![((PeerClass::Node, None), sent(3))]));
    }

    #[test]
    fn what_is_silent_or_of_nobody_is_of_the_node_only() {
        let accounts = [
            (Holder::Owner(pod(0)), PeerClass::Node, Protocol::Tcp, 0),
            (Holder::Departed, PeerClass::External, Protocol::Udp, 5),
        ];
        let found = named(&accounts, Profile::Standard);
        assert!(found.pods.is_empty() && found.units.is_empty());
        assert_eq!(totals(&found), [((PeerClass::External, None), sent(5))]);
        assert_eq!(found.node[0].counts.len(), PeerClass::ALL.len());
    }
}
