//! Bytes and packets per pod, per host unit and of the whole node, by class of peer.

mod descriptor;

use std::collections::BTreeMap;
use std::sync::Arc;

use probe_common::traffic::{Cell, Protocol};

use self::descriptor::{FAMILIES, Scope};
use super::{CollectError, Collector, Support};
use crate::identity::{Census, Owner};
use crate::ledger::{Account, Counts, Holder, Ledger, SlotSource, add_traffic};
use crate::metric::Descriptor;
use crate::metric::sink::{Sink, Value};
use crate::peer::PeerClass;

pub use self::descriptor::DESCRIPTORS;

/// What the counters do not see, for METRICS.md.
pub const LIMITS: &str = include_str!("traffic/limits.md");

/// How many series the per-pod families may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// The node's totals only.
    Minimal,
    /// Per pod and peer class.
    Standard,
    /// Per pod, peer class and protocol.
    Detailed,
}

/// The collector.
pub struct Traffic<S> {
    ledger: Arc<Ledger<S>>,
    census: Arc<Census>,
    detail: Detail,
    support: Support,
}

impl<S> Traffic<S> {
    /// A collector over these books and names.
    pub fn new(ledger: Arc<Ledger<S>>, census: Arc<Census>, detail: Detail, support: Support) -> Self {
        Self { ledger, census, detail, support }
    }
}

/// Label values of a pod that has no name yet: no namespace, and the UID, which is true and unique.
pub(super) fn pod_labels(census: &Census, uid: &str) -> (String, String) {
    census.pod_name(uid).map_or_else(|| (String::new(), uid.to_owned()), |name| (name.namespace, name.pod))
}

/// What did not fit into the slots.
const OTHER: &str = "other";

/// Label values of a series, in the order of its family's descriptor.
type Labels = Vec<String>;

/// Everything of one collection, summed by series.
#[derive(Default)]
struct Series {
    pods: BTreeMap<Labels, Cell>,
    units: BTreeMap<Labels, Cell>,
    node: BTreeMap<Labels, Cell>,
}

impl Series {
    fn add(&mut self, account: &Account, counts: &Counts, census: &Census, detail: Detail) {
        let tail = labels_of(account.class, account.protocol, detail);
        let with = |head: Vec<String>| head.into_iter().chain(tail.iter().cloned()).collect::<Labels>();
        let class = vec![account.class.as_str().to_owned()];
        add_traffic(self.node.entry(class).or_default(), &counts.traffic);
        let is_silent = counts.traffic == Cell::default();
        if detail == Detail::Minimal || is_silent {
            return;
        }
        match &account.holder {
            Holder::Owner(Owner::Pod { uid }) => {
                let (namespace, pod) = pod_labels(census, uid);
                add_traffic(self.pods.entry(with(vec![namespace, pod])).or_default(), &counts.traffic);
            }
            Holder::Overflow => {
                let labels = with(vec![OTHER.to_owned(), OTHER.to_owned()]);
                add_traffic(self.pods.entry(labels).or_default(), &counts.traffic);
            }
            Holder::Owner(Owner::Unit(unit)) => {
                add_traffic(self.units.entry(with(vec![unit.clone()])).or_default(), &counts.traffic);
            }
            Holder::Owner(Owner::Kernel) => {
                add_traffic(self.units.entry(with(vec!["kernel".to_owned()])).or_default(), &counts.traffic);
            }
            Holder::Departed => {}
        }
    }
}

fn labels_of(class: PeerClass, protocol: Protocol, detail: Detail) -> Labels {
    let mut labels = vec![class.as_str().to_owned()];
    if detail == Detail::Detailed {
        labels.push(protocol.as_str().to_owned());
    }
    labels
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
        let totals = self.census.with_registry(|registry| self.ledger.totals(registry));
        let mut series = Series::default();
        // Known in advance: every class of the node's totals exists from the first scrape.
        for class in PeerClass::ALL {
            series.node.insert(vec![class.as_str().to_owned()], Cell::default());
        }
        for (account, counts) in &totals {
            series.add(account, counts, &self.census, self.detail);
        }
        for family in &FAMILIES {
            let descriptor =
                if self.detail == Detail::Detailed { &family.detailed } else { &family.standard };
            let of_scope = match family.scope {
                Scope::Pod => &series.pods,
                Scope::Unit => &series.units,
                Scope::Node => &series.node,
            };
            let mut out = sink.family(descriptor);
            for (labels, cell) in of_scope {
                let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
                out.value(&labels, Value::Integer((family.read)(cell)));
            }
        }
        Ok(())
    }
}
