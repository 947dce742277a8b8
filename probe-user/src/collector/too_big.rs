//! Routers that say that packets to other nodes are too big for their next link, as the uplinks show it: the sign of a path
//! that is narrower than its ends believe, without a probe.

mod descriptor;
pub mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use self::descriptor::{MESSAGES, MTU, OTHER};
use self::state::Words;
use super::vip::happening::Nanos;
use super::{CollectError, Collector, Support};
use crate::metric::sink::Sink;
use crate::metric::{Descriptor, Value};
use crate::peer::Registry;

pub use self::descriptor::DESCRIPTORS;

/// The `reason` where there is nobody to send to.
const NO_NODES: &str = "no other node is known";
/// Up to so many other nodes each has its series from the start.
const NODES_ALL: usize = 32;

/// What was told, shared between the task that reads messages and the collector.
#[derive(Clone, Debug, Default)]
pub struct Told(Arc<Mutex<Words>>);

impl Told {
    /// The state, locked.
    pub fn lock(&self) -> MutexGuard<'_, Words> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The collector.
pub struct TooBigs {
    told: Told,
    registry: watch::Receiver<Arc<Registry>>,
    now: fn() -> Nanos,
}

impl TooBigs {
    /// A collector of what was told; `now` is `CLOCK_MONOTONIC` nanoseconds.
    #[must_use]
    pub const fn new(told: Told, registry: watch::Receiver<Arc<Registry>>, now: fn() -> Nanos) -> Self {
        Self { told, registry, now }
    }
}

impl Collector for TooBigs {
    fn name(&self) -> &'static str {
        "too_big"
    }

    fn descriptors(&self) -> &'static [&'static Descriptor] {
        DESCRIPTORS
    }

    fn support(&self) -> Support {
        if self.registry.borrow().nodes.is_empty() { Support::No(NO_NODES) } else { Support::Yes }
    }

    fn collect(&self, sink: &mut Sink<'_>) -> Result<(), CollectError> {
        let registry = Arc::clone(&self.registry.borrow());
        let (mut sums, others) = {
            let words = self.told.lock();
            (words.sums(&registry, (self.now)()), words.others().collect::<Vec<_>>())
        };
        if sums.len() > NODES_ALL {
            sums.retain(|_, (messages, _)| *messages != 0);
        }
        let mut family = sink.family(&MESSAGES);
        for (node, (messages, _)) in &sums {
            family.value(&[node], Value::Integer(*messages));
        }
        let mut family = sink.family(&MTU);
        for (node, (_, mtu)) in &sums {
            if let Some(mtu) = mtu {
                family.value(&[node], Value::Integer((*mtu).into()));
            }
        }
        let mut family = sink.family(&OTHER);
        for (reason, messages) in others {
            family.value(&[reason.as_str()], Value::Integer(messages));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::state::Word;
    use super::*;
    use crate::metric::Format;
    use crate::peer::Node;

    fn registry(nodes: u8) -> Arc<Registry> {
        let mut registry = Registry::default();
        (1..=nodes).for_each(|number| {
            registry.merge(Node { underlay: vec![[192, 0, 2, number].into()], ..Node::default() });
        });
        Arc::new(registry)
    }

    fn page(told: &Told, registry: &Arc<Registry>) -> Vec<String> {
        let collector = TooBigs::new(told.clone(), watch::channel(Arc::clone(registry)).1, || 5);
        let mut page = Vec::new();
        let mut sink = Sink::new(&mut page, Format::Text004);
        collector.collect(&mut sink).unwrap();
        sink.finish();
        let page = String::from_utf8(page).unwrap();
        page.lines().filter(|line| !line.starts_with('#')).map(ToOwned::to_owned).collect()
    }

    fn hear(told: &Told, node: &str, mtu: Option<u32>, registry: &Registry) {
        let word = Word { destination: [192, 0, 2, 9].into(), mtu, time: 1, lasts: 100 };
        let _change = told.lock().hear(&node.into(), &word, registry);
    }

    #[test]
    fn every_node_is_there_before_anything_was_told_and_no_mtu_is() {
        let (told, registry) = (Told::default(), registry(2));
        hear(&told, "192.0.2.2", None, &registry);
        let expected = [
            "leadline_path_too_big_messages_total{peer_node=\"192.0.2.1\"} 0",
            "leadline_path_too_big_messages_total{peer_node=\"192.0.2.2\"} 1",
            "leadline_path_too_big_other_messages_total{reason=\"destination\"} 0",
            "leadline_path_too_big_other_messages_total{reason=\"source\"} 0",
            "leadline_path_too_big_other_messages_total{reason=\"malformed\"} 0",
        ];
        assert_eq!(page(&told, &registry), expected);
        hear(&told, "192.0.2.2", Some(1_400), &registry);
        let mtu = "leadline_path_too_big_mtu_bytes{peer_node=\"192.0.2.2\"} 1400";
        assert!(page(&told, &registry).iter().any(|line| line == mtu));
    }

    #[test]
    fn of_many_nodes_only_those_that_were_told_of_have_series() {
        let (told, registry) = (Told::default(), registry(33));
        hear(&told, "192.0.2.7", Some(1_400), &registry);
        let page = page(&told, &registry);
        assert_eq!(page.iter().filter(|line| line.contains("peer_node")).count(), 2, "{page:?}");
    }

    #[test]
    fn without_another_node_it_says_so() {
        let collector = |nodes| TooBigs::new(Told::default(), watch::channel(registry(nodes)).1, || 5);
        assert_eq!(collector(0).support(), Support::No(NO_NODES));
        assert_eq!(collector(1).support(), Support::Yes);
    }
}
