//! Bytes and packets per pod, per host unit and of the whole node, by class of peer.

mod descriptor;

use std::sync::Arc;
use std::time::Instant;

use probe_common::traffic::Protocol;

use self::descriptor::{FAMILIES, Scope};
use super::rows::{Rows, Sums};
use super::{CollectError, Collector, Support};
use crate::identity::{Census, Owner, Residents};
use crate::ledger::{Account, Holder, Ledger, Part, SlotSource, Volume};
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
type Volumes = Vec<(Tail, Volume)>;

/// Everything of one collection, by owner.
struct Series<'o> {
    pods: Sums<'o, Volumes>,
    units: Sums<'o, Volumes>,
    node: Volumes,
}

impl<'o> Series<'o> {
    /// What is known in advance: every class of the node's totals exists from the first scrape.
    fn known() -> Self {
        let node = PeerClass::ALL.map(|class| ((class, None), Volume::default())).to_vec();
        Self { pods: Sums::default(), units: Sums::default(), node }
    }

    fn add(&mut self, account: Account<&'o Owner>, more: &Volume, profile: Profile) {
        add_volume(&mut self.node, (account.class, None), more);
        let is_silent = *more == Volume::default();
        if profile == Profile::Minimal || is_silent {
            return;
        }
        let volumes = match account.holder {
            Holder::Owner(Owner::Pod { uid }) => self.pods.of(uid),
            Holder::Overflow => self.pods.of_other(),
            Holder::Owner(Owner::Unit(unit)) => self.units.of(unit),
            Holder::Owner(Owner::Kernel) => self.units.of("kernel"),
            Holder::Departed => return,
        };
        let protocol = (profile == Profile::Detailed).then_some(account.protocol);
        add_volume(volumes, (account.class, protocol), more);
    }

    fn into_page(self, residents: &Residents<'_>) -> Page {
        let mut page = Page {
            pods: self.pods.into_pods(residents, add_volumes),
            units: self.units.into_units(add_volumes),
            node: Rows::single(self.node),
        };
        let text = |(class, protocol): &Tail| (class.as_str(), protocol.map(Protocol::as_str));
        for rows in [&mut page.pods, &mut page.units, &mut page.node] {
            rows.sums_mut().for_each(|volumes| volumes.sort_unstable_by_key(|(tail, _)| text(tail)));
        }
        page
    }
}

/// Everything in the order of the page.
struct Page {
    pods: Rows<Volumes>,
    units: Rows<Volumes>,
    node: Rows<Volumes>,
}

impl Page {
    fn rows(&self, scope: Scope) -> &Rows<Volumes> {
        match scope {
            Scope::Pod => &self.pods,
            Scope::Unit => &self.units,
            Scope::Node => &self.node,
        }
    }
}

fn add_volume(volumes: &mut Volumes, tail: Tail, more: &Volume) {
    match volumes.iter_mut().find(|(known, _)| *known == tail) {
        Some((_, sum)) => *sum += more,
        None => volumes.push((tail, *more)),
    }
}

fn add_volumes(sum: &mut Volumes, more: &Volumes) {
    for (tail, volume) in more {
        add_volume(sum, *tail, volume);
    }
}

/// The last labels of every series there can be, by class and protocol.
struct Tails(Vec<[Labels; 1 + Protocol::ALL.len()]>);

impl Tails {
    fn render() -> Self {
        let of_class = |class: PeerClass| {
            let class = class.as_str();
            let with =
                |protocol: Protocol| Labels::new(&["peer_class", "protocol"], &[class, protocol.as_str()]);
            let [tcp, udp, icmp, other] = Protocol::ALL.map(with);
            [Labels::new(&["peer_class"], &[class]), tcp, udp, icmp, other]
        };
        Self(PeerClass::ALL.into_iter().map(of_class).collect())
    }

    fn of(&self, (class, protocol): Tail) -> &Labels {
        &self.0[usize::from(class.number())][protocol.map_or(0, |protocol| usize::from(protocol.number()))]
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
        let page = self.census.read(Instant::now(), |residents| {
            let reading = self.ledger.read(residents.registry);
            let mut series = Series::known();
            reading.visit(Part::Traffic, |account, counts| {
                series.add(account, &counts.traffic, self.profile);
            });
            series.into_page(residents)
        });
        let tails = Tails::render();
        for family in &FAMILIES {
            let descriptor =
                if self.profile == Profile::Detailed { &family.detailed } else { &family.standard };
            let mut out = sink.family(descriptor);
            for (labels, volumes) in page.rows(family.scope).iter() {
                for (tail, volume) in volumes {
                    out.value_with(labels, tails.of(*tail), Value::Integer((family.read)(volume)));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

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

    fn sent(packets: u64) -> Volume {
        Volume { transmit_packets: packets, ..Volume::default() }
    }

    /// What is on the page after these packets were sent.
    fn page(
        sources: Vec<Box<dyn PodSource>>,
        accounts: &[(Holder, PeerClass, Protocol, u64)],
        profile: Profile,
    ) -> Page {
        let census = Census::new(PodNames::new(sources));
        let now = Instant::now();
        census.insert(7, &format!("kubepods/pod{}", UIDS[0]), now);
        census.find_names(now);
        let accounts = accounts.iter().map(|(holder, class, protocol, packets)| {
            (Account { holder: holder.clone(), class: *class, protocol: *protocol }, sent(*packets))
        });
        let accounts: Vec<(Account, Volume)> = accounts.collect();
        let mut series = Series::known();
        for (account, volume) in &accounts {
            series.add(account.borrowed(), volume, profile);
        }
        census.read(now, |residents| series.into_page(residents))
    }

    fn named(accounts: &[(Holder, PeerClass, Protocol, u64)], profile: Profile) -> Page {
        page(vec![Box::new(Successors)], accounts, profile)
    }

    fn labels(namespace: &str, pod: &str) -> Labels {
        Labels::new(&["namespace", "pod"], &[namespace, pod])
    }

    fn pods(page: &Page) -> Vec<(Labels, Volumes)> {
        page.pods.iter().map(|(labels, volumes)| (labels.clone(), volumes.clone())).collect()
    }

    /// The node's totals that are not 0.
    fn totals(page: &Page) -> Volumes {
        let all = page.node.iter().flat_map(|(_, volumes)| volumes);
        all.filter(|(_, volume)| *volume != Volume::default()).copied().collect()
    }

    #[test]
    fn pods_that_followed_each_other_under_one_name_are_one_series() {
        let accounts = [
            (Holder::Owner(pod(0)), PeerClass::Node, Protocol::Tcp, 3),
            (Holder::Owner(pod(1)), PeerClass::Node, Protocol::Tcp, 4),
        ];
        let found = pods(&named(&accounts, Profile::Standard));
        assert_eq!(found, [(labels("shop", "db-0"), vec![((PeerClass::Node, None), sent(7))])]);
    }

    #[test]
    fn a_pod_whose_name_may_still_come_is_in_the_totals_only() {
        let accounts = [(Holder::Owner(pod(0)), PeerClass::Node, Protocol::Tcp, 3)];
        let found = page(Vec::new(), &accounts, Profile::Standard);
        assert_eq!(pods(&found), []);
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
        let name = labels("shop", "db-0");
        assert_eq!(pods(&named(&accounts, Profile::Detailed)), [(name.clone(), detailed)]);
        let standard = vec![((PeerClass::Host, None), sent(4)), ((PeerClass::Node, None), sent(3))];
        assert_eq!(pods(&named(&accounts, Profile::Standard)), [(name, standard)]);
    }

    #[test]
    fn what_found_no_slot_stands_among_the_pods() {
        let accounts = [
            (Holder::Owner(pod(0)), PeerClass::Node, Protocol::Tcp, 3),
            (Holder::Overflow, PeerClass::Node, Protocol::Other, 4),
        ];
        let expected = [(labels("other", "other"), 4), (labels("shop", "db-0"), 3)];
        let expected =
            expected.map(|(labels, packets)| (labels, vec![((PeerClass::Node, None), sent(packets))]));
        assert_eq!(pods(&named(&accounts, Profile::Standard)), expected);
    }

    #[test]
    fn what_is_silent_or_of_nobody_is_of_the_node_only() {
        let accounts = [
            (Holder::Owner(pod(0)), PeerClass::Node, Protocol::Tcp, 0),
            (Holder::Departed, PeerClass::External, Protocol::Udp, 5),
        ];
        let found = named(&accounts, Profile::Standard);
        assert!(pods(&found).is_empty() && found.units.iter().next().is_none());
        assert_eq!(totals(&found), [((PeerClass::External, None), sent(5))]);
        let node: Vec<_> = found.node.iter().map(|(_, volumes)| volumes.len()).collect();
        assert_eq!(node, [PeerClass::ALL.len()]);
    }
}
