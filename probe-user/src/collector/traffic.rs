//! Bytes and packets per pod, per host unit and of the whole node, by class of peer.

mod descriptor;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use probe_common::traffic::Cell;

use self::descriptor::{FAMILIES, Scope};
use super::{CollectError, Collector, Support};
use crate::identity::{Census, Owner};
use crate::ledger::{Account, Counts, Holder, Ledger, Part, SlotSource, add_traffic};
use crate::metric::sink::Sink;
use crate::metric::{Descriptor, Profile, Value};
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

/// Namespace and name of a pod; `None` while its name may still come: it is left out, and its counts are in the node's
/// totals meanwhile. The UID stands for a name that does not come.
pub(super) fn pod_labels(census: &Census, uid: &str) -> Option<(String, String)> {
    census.shown(uid, Instant::now()).map(|name| (name.namespace, name.pod))
}

/// What did not fit into the slots.
const OTHER: &str = "other";

/// Peer class and, in the detailed profile, protocol.
type Tail = (&'static str, Option<&'static str>);

/// The few series of one pod or unit, in no order.
type Cells = Vec<(Tail, Cell)>;

/// Everything of one collection. Pods go by their UID here: a name per packet counter would cost more than the page.
#[derive(Default)]
struct Series {
    pods: HashMap<String, Cells>,
    /// What found no slot.
    other: Cells,
    units: HashMap<String, Cells>,
    node: BTreeMap<&'static str, Cell>,
}

impl Series {
    fn add(&mut self, account: Account, more: &Cell, profile: Profile) {
        let class = account.class.as_str();
        add_traffic(self.node.entry(class).or_default(), more);
        let is_silent = *more == Cell::default();
        if profile == Profile::Minimal || is_silent {
            return;
        }
        let cells = match account.holder {
            Holder::Owner(Owner::Pod { uid }) => self.pods.entry(uid).or_default(),
            Holder::Overflow => &mut self.other,
            Holder::Owner(Owner::Unit(unit)) => self.units.entry(unit).or_default(),
            Holder::Owner(Owner::Kernel) => self.units.entry("kernel".to_owned()).or_default(),
            Holder::Departed => return,
        };
        let protocol = (profile == Profile::Detailed).then(|| account.protocol.as_str());
        add_cell(cells, (class, protocol), more);
    }

    /// Label values and counts of all series, sorted. Pods that have followed each other under one name are one.
    fn into_rows(self, census: &Census) -> Rows {
        let mut pods: BTreeMap<(String, String), Cells> = BTreeMap::new();
        if !self.other.is_empty() {
            pods.insert((OTHER.to_owned(), OTHER.to_owned()), self.other);
        }
        for (uid, cells) in self.pods {
            let Some(name) = pod_labels(census, &uid) else { continue };
            let sum = pods.entry(name).or_default();
            for (tail, cell) in cells {
                add_cell(sum, tail, &cell);
            }
        }
        let pods = pods.into_iter().map(|((namespace, pod), cells)| (vec![namespace, pod], sorted(cells)));
        let units: BTreeMap<String, Cells> = self.units.into_iter().collect();
        let units = units.into_iter().map(|(unit, cells)| (vec![unit], sorted(cells)));
        let node = self.node.into_iter().map(|(class, cell)| ((class, None), cell)).collect();
        Rows { pods: pods.collect(), units: units.collect(), node: vec![(Vec::new(), node)] }
    }
}

/// First label values with the series that share them, in the order of the page.
struct Rows {
    pods: Vec<(Vec<String>, Cells)>,
    units: Vec<(Vec<String>, Cells)>,
    node: Vec<(Vec<String>, Cells)>,
}

fn add_cell(cells: &mut Cells, tail: Tail, more: &Cell) {
    match cells.iter_mut().find(|(known, _)| *known == tail) {
        Some((_, sum)) => add_traffic(sum, more),
        None => cells.push((tail, *more)),
    }
}

fn sorted(mut cells: Cells) -> Cells {
    cells.sort_unstable_by_key(|(tail, _)| *tail);
    cells
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
        let mut series = Series::default();
        // Known in advance: every class of the node's totals exists from the first scrape.
        for class in PeerClass::ALL {
            series.node.insert(class.as_str(), Cell::default());
        }
        self.census.with_registry(|registry| {
            let add = |account, counts: &Counts| series.add(account, &counts.traffic, self.profile);
            self.ledger.visit(registry, Part::Traffic, add);
        });
        let rows = series.into_rows(&self.census);
        for family in &FAMILIES {
            let descriptor =
                if self.profile == Profile::Detailed { &family.detailed } else { &family.standard };
            let of_scope = match family.scope {
                Scope::Pod => &rows.pods,
                Scope::Unit => &rows.units,
                Scope::Node => &rows.node,
            };
            let mut out = sink.family(descriptor);
            let mut labels: Vec<&str> = Vec::new();
            for (head, cells) in of_scope {
                for ((class, protocol), cell) in cells {
                    labels.clear();
                    labels.extend(head.iter().map(String::as_str));
                    labels.push(class);
                    labels.extend(protocol);
                    out.value(&labels, Value::Integer((family.read)(cell)));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use probe_common::traffic::Protocol;

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

    fn account(holder: Holder, class: PeerClass, protocol: Protocol) -> Account {
        Account { holder, class, protocol }
    }

    fn pod(uid: &str) -> Holder {
        Holder::Owner(Owner::Pod { uid: uid.to_owned() })
    }

    fn sent(packets: u64) -> Cell {
        Cell { transmit_packets: packets, ..Cell::default() }
    }

    fn rows(accounts: Vec<(Account, u64)>, profile: Profile) -> Rows {
        let census = Census::new(PodNames::new(vec![Box::new(Successors)]));
        let now = Instant::now();
        census.insert(7, &format!("kubepods/pod{}", UIDS[0]), now);
        census.find_names(now);
        let mut series = Series::default();
        for (account, packets) in accounts {
            series.add(account, &sent(packets), profile);
        }
        series.into_rows(&census)
    }

    #[test]
    fn pods_that_followed_each_other_under_one_name_are_one_series() {
        let accounts = vec![
            (account(pod(UIDS[0]), PeerClass::Node, Protocol::Tcp), 3),
            (account(pod(UIDS[1]), PeerClass::Node, Protocol::Tcp), 4),
        ];
        let found = rows(accounts, Profile::Standard);
        assert_eq!(
            found.pods[0],
            (vec!["shop".to_owned(), "db-0".to_owned()], vec![(("node", None), sent(7))])
        );
    }

    #[test]
    fn a_pod_whose_name_may_still_come_is_in_the_totals_only() {
        let census = Census::new(PodNames::new(Vec::new()));
        census.insert(7, &format!("kubepods/pod{}", UIDS[0]), Instant::now());
        let mut series = Series::default();
        series.add(account(pod(UIDS[0]), PeerClass::Node, Protocol::Tcp), &sent(3), Profile::Standard);
        let found = series.into_rows(&census);
        assert!(found.pods.is_empty());
        assert_eq!(found.node[0].1, vec![(("node", None), sent(3))]);
    }

    #[test]
    fn the_detailed_profile_keeps_protocols_apart_and_the_page_is_sorted() {
        let accounts = || {
            [
                (PeerClass::Node, Protocol::Udp, 1),
                (PeerClass::Node, Protocol::Tcp, 2),
                (PeerClass::Host, Protocol::Udp, 4),
            ]
            .map(|(class, protocol, packets)| (account(pod(UIDS[0]), class, protocol), packets))
            .to_vec()
        };
        let detailed = vec![
            (("host", Some("udp")), sent(4)),
            (("node", Some("tcp")), sent(2)),
            (("node", Some("udp")), sent(1)),
        ];
        assert_eq!(rows(accounts(), Profile::Detailed).pods[0].1, detailed);
        let standard = vec![(("host", None), sent(4)), (("node", None), sent(3))];
        assert_eq!(rows(accounts(), Profile::Standard).pods[0].1, standard);
    }

    #[test]
    fn what_is_silent_or_of_nobody_is_of_the_node_only() {
        let accounts = vec![
            (account(pod(UIDS[0]), PeerClass::Node, Protocol::Tcp), 0),
            (account(Holder::Departed, PeerClass::External, Protocol::Udp), 5),
        ];
        let found = rows(accounts, Profile::Standard);
        assert!(found.pods.is_empty() && found.units.is_empty());
        assert_eq!(found.node[0].1, vec![(("external", None), sent(5)), (("node", None), sent(0))]);
    }
}
