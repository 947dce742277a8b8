//! Paths between pods: round trips of the TCP connections that pods of this node have with those of another one, as the
//! kernel takes them, and the segments that it sends again. Nothing is sent for it.

mod descriptor;

use std::collections::BTreeMap;
use std::sync::Arc;

use probe_common::tcp::Durations;
use tokio::sync::watch;

use self::descriptor::{HANDSHAKE, MIN_RTT, RETRANSMITS};
use super::tcp::buckets;
use super::{CollectError, Collector, Support};
use crate::kernel::{PodPath, Retransmits};
use crate::ledger::add_durations;
use crate::metric::sink::Sink;
use crate::metric::{Descriptor, Value};
use crate::peer::{Node, Registry};

pub use self::descriptor::DESCRIPTORS;

/// The `reason` where there is nobody to speak with.
const NO_PODS: &str = "pods of no other node are known";
/// The `reason` where the kernel does not tell how large a buffer is.
const NO_SIZES: &str = "no BTF: sizes of segments that are sent again are not told";
/// Up to so many other nodes each has its series from the start.
const NODES_ALL: usize = 32;

/// The collector.
pub struct PathPod {
    read: Box<dyn Fn() -> Vec<PodPath> + Send + Sync>,
    has_sizes: bool,
    registry: watch::Receiver<Arc<Registry>>,
}

impl PathPod {
    /// A collector over what `read` gives of all nodes that there ever were, with or without the sizes of segments.
    pub fn new(
        read: impl Fn() -> Vec<PodPath> + Send + Sync + 'static,
        has_sizes: bool,
        registry: watch::Receiver<Arc<Registry>>,
    ) -> Self {
        Self { read: Box::new(read), has_sizes, registry }
    }
}

impl Collector for PathPod {
    fn name(&self) -> &'static str {
        "path_pod"
    }

    fn descriptors(&self) -> &'static [&'static Descriptor] {
        DESCRIPTORS
    }

    fn support(&self) -> Support {
        match (labels(&self.registry.borrow()).next(), self.has_sizes) {
            (None, _) => Support::No(NO_PODS),
            (Some(_), false) => Support::Degraded(NO_SIZES),
            (Some(_), true) => Support::Yes,
        }
    }

    fn collect(&self, sink: &mut Sink<'_>) -> Result<(), CollectError> {
        let registry = Arc::clone(&self.registry.borrow());
        let sums = sum_by_node((self.read)(), &registry);
        let mut family = sink.family(&HANDSHAKE);
        for (node, sum) in &sums {
            family.histogram(&[node], &buckets(&sum.handshake));
        }
        let mut family = sink.family(&MIN_RTT);
        for (node, sum) in &sums {
            if let Some(least) = sum.least_microseconds {
                family.value(&[node], Value::Float(f64::from(least) / 1e6));
            }
        }
        if !self.has_sizes {
            return Ok(());
        }
        let mut family = sink.family(&RETRANSMITS);
        for (node, Sum { retransmits, .. }) in &sums {
            for (size, segments) in [("full", retransmits.full), ("smaller", retransmits.smaller)] {
                family.value(&[node, size], Value::Integer(segments));
            }
        }
        Ok(())
    }
}

/// What connections to one node have met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    handshake: Durations,
    least_microseconds: Option<u32>,
    retransmits: Retransmits,
}

impl Sum {
    fn add(&mut self, path: &PodPath) {
        add_durations(&mut self.handshake, &path.handshake);
        self.least_microseconds = self.least_microseconds.into_iter().chain(path.least_microseconds).min();
        self.retransmits.add(path.retransmits);
    }
}

/// Nodes whose pods are known.
fn labels(registry: &Registry) -> impl Iterator<Item = Arc<str>> {
    registry.nodes.iter().filter(|node| !node.pods.is_empty()).filter_map(Node::label)
}

/// The nodes that there are, each by the label that it has now: what was counted of one before it had its name is its
/// own, and a node that is gone has no series.
fn sum_by_node(paths: Vec<PodPath>, registry: &Registry) -> BTreeMap<Arc<str>, Sum> {
    let mut sums: BTreeMap<Arc<str>, Sum> = labels(registry).map(|label| (label, Sum::default())).collect();
    for path in paths {
        let now = if sums.contains_key(&path.node) { None } else { registry.label_of_address(&path.node) };
        if let Some(sum) = sums.get_mut(now.as_ref().unwrap_or(&path.node)) {
            sum.add(&path);
        }
    }
    if sums.len() > NODES_ALL {
        sums.retain(|_, sum| *sum != Sum::default());
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Format;

    fn node(name: Option<&str>, number: u8) -> Node {
        Node {
            name: name.map(Into::into),
            underlay: vec![[192, 0, 2, number].into()],
            pods: vec![format!("10.42.{number}.0/24").parse().unwrap()],
            ..Node::default()
        }
    }

    fn registry(nodes: impl IntoIterator<Item = Node>) -> Registry {
        let mut registry = Registry::default();
        nodes.into_iter().for_each(|node| registry.merge(node));
        registry
    }

    /// So many handshakes of 100 us.
    fn path(node: &str, handshakes: u64, least_microseconds: Option<u32>) -> PodPath {
        let mut handshake = Durations { sum: handshakes * 100, ..Durations::default() };
        handshake.buckets[1] = handshakes;
        PodPath { node: node.into(), handshake, least_microseconds, retransmits: Retransmits::default() }
    }

    /// Number of handshakes and least round trip by node.
    fn summed(paths: Vec<PodPath>, registry: &Registry) -> Vec<(String, u64, Option<u32>)> {
        let sums = sum_by_node(paths, registry);
        sums.iter()
            .map(|(node, sum)| (node.to_string(), sum.handshake.buckets[1], sum.least_microseconds))
            .collect()
    }

    #[test]
    fn a_known_node_is_there_before_anybody_has_spoken_with_its_pods() {
        let registry = registry([node(Some("b"), 2), node(None, 3)]);
        let expected = [("192.0.2.3".into(), 0, None), ("b".into(), 0, None)];
        assert_eq!(summed(Vec::new(), &registry), expected);
    }

    #[test]
    fn what_was_counted_by_an_address_is_that_of_the_node_that_has_it() {
        let registry = registry([node(Some("b"), 2)]);
        let paths = vec![path("192.0.2.2", 3, Some(90)), path("b", 4, Some(80)), path("192.0.2.9", 5, None)];
        assert_eq!(summed(paths, &registry), [("b".into(), 7, Some(80))]);
    }

    #[test]
    fn a_node_that_is_gone_gives_nothing_to_the_one_that_has_its_pods() {
        let mut successor = node(Some("c"), 2);
        successor.underlay = vec![[192, 0, 2, 7].into()];
        let paths = vec![path("b", 3, Some(90)), path("192.0.2.2", 1, None), path("c", 1, Some(100))];
        assert_eq!(summed(paths, &registry([successor])), [("c".into(), 1, Some(100))]);
    }

    #[test]
    fn of_many_nodes_only_those_that_were_spoken_with_have_series() {
        let nodes = |count: u8| registry((1..=count).map(|number| node(None, number)));
        let paths = || vec![path("192.0.2.7", 1, None), path("192.0.2.8", 0, Some(50))];
        assert_eq!(summed(paths(), &nodes(32)).len(), 32);
        let expected = [("192.0.2.7".into(), 1, None), ("192.0.2.8".into(), 0, Some(50))];
        assert_eq!(summed(paths(), &nodes(33)), expected);
    }

    #[test]
    fn segments_are_counted_by_node_and_size() {
        let registry = watch::channel(Arc::new(registry([node(Some("b"), 2)]))).1;
        let of = |node: &str, full, smaller| PodPath {
            retransmits: Retransmits { full, smaller },
            ..path(node, 0, None)
        };
        let collector = PathPod::new(move || vec![of("b", 3, 40), of("192.0.2.2", 1, 2)], true, registry);
        let mut page = Vec::new();
        let mut sink = Sink::new(&mut page, Format::Text004);
        collector.collect(&mut sink).unwrap();
        sink.finish();
        let page = String::from_utf8(page).unwrap();
        let name = "leadline_path_pod_retransmit_segments_total";
        let told: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix(name)).collect();
        assert_eq!(told, ["{peer_node=\"b\",size=\"full\"} 4", "{peer_node=\"b\",size=\"smaller\"} 42"]);
    }

    #[test]
    fn without_pods_of_another_node_it_says_so() {
        let (sender, receiver) =
            watch::channel(Arc::new(registry([Node { pods: Vec::new(), ..node(None, 2) }])));
        let collector = PathPod::new(Vec::new, true, receiver);
        assert_eq!(collector.support(), Support::No(NO_PODS));
        sender.send_replace(Arc::new(registry([node(None, 2)])));
        assert_eq!(collector.support(), Support::Yes);
    }

    #[test]
    fn without_sizes_there_are_no_counts_and_it_says_why() {
        let registry = watch::channel(Arc::new(registry([node(Some("b"), 2)]))).1;
        let collector = PathPod::new(|| vec![path("b", 1, None)], false, registry);
        assert_eq!(collector.support(), Support::Degraded(NO_SIZES));
        let mut page = Vec::new();
        let mut sink = Sink::new(&mut page, Format::Text004);
        collector.collect(&mut sink).unwrap();
        sink.finish();
        assert!(!String::from_utf8(page).unwrap().contains("retransmit"));
    }

    #[test]
    fn no_round_trip_is_shown_that_was_not_sampled() {
        let registry = watch::channel(Arc::new(registry([node(Some("b"), 2), node(Some("c"), 3)]))).1;
        let collector = PathPod::new(|| vec![path("b", 2, Some(250)), path("c", 1, None)], true, registry);
        let mut page = Vec::new();
        let mut sink = Sink::new(&mut page, Format::Text004);
        collector.collect(&mut sink).unwrap();
        sink.finish();
        let page = String::from_utf8(page).unwrap();
        let least: Vec<&str> =
            page.lines().filter(|line| line.starts_with("leadline_path_pod_min")).collect();
        assert_eq!(least, ["leadline_path_pod_min_rtt_seconds{peer_node=\"b\"} 0.00025"]);
        let count = "leadline_path_pod_handshake_seconds_count{peer_node=\"b\"} 2";
        assert!(page.lines().any(|line| line == count), "{page}");
    }
}
