//! TCP health per pod: round trips, retransmissions, connects and their failures, resets.

mod descriptor;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use probe_common::tcp::{BUCKETS, ConnectFailure, Durations};

use self::descriptor::{CONNECT_FAILURES, COUNTERS, HISTOGRAMS, NODE_RTT};
use super::rows::{Rows, Sums};
use super::{CollectError, Collector, Support};
use crate::identity::{Census, CgroupRegistry, Owner};
use crate::ledger::{Account, Counts, Holder, Ledger, Part, SlotSource, add_durations};
use crate::metric::sink::Sink;
use crate::metric::{Buckets, Descriptor, Labels, Profile, Value};
use crate::peer::PeerClass;

pub use self::descriptor::DESCRIPTORS;

/// Upper bounds in seconds: powers of two, 2^-14 … 2^2 by 4. The kernel side compares whole microseconds with the
/// floor of these, which is the same.
pub(super) const BOUNDS: [f64; BUCKETS - 1] =
    [1.0 / 16_384.0, 1.0 / 4_096.0, 1.0 / 1_024.0, 1.0 / 256.0, 1.0 / 64.0, 1.0 / 16.0, 0.25, 1.0, 4.0];

/// The collector.
pub struct Tcp<S> {
    ledger: Arc<Ledger<S>>,
    census: Arc<Census>,
    profile: Profile,
    support: Support,
}

impl<S> Tcp<S> {
    /// A collector over these books and names.
    pub fn new(ledger: Arc<Ledger<S>>, census: Arc<Census>, profile: Profile, support: Support) -> Self {
        Self { ledger, census, profile, support }
    }
}

/// Sums of one collection.
struct Series<'o> {
    pods: Sums<'o, Counts>,
    node: BTreeMap<PeerClass, Durations>,
}

impl<'o> Series<'o> {
    /// What is known in advance: every class of peer, and every pod whether or not it has sent anything.
    fn known(registry: &'o CgroupRegistry) -> Self {
        let uid = |owner: &'o Owner| if let Owner::Pod { uid } = owner { Some(uid.as_str()) } else { None };
        let pods = Sums::known(registry.owners().filter_map(uid));
        // There is no TCP with a group.
        let classes = PeerClass::ALL.into_iter().filter(|class| *class != PeerClass::Multicast);
        Self { pods, node: classes.map(|class| (class, Durations::default())).collect() }
    }

    fn add(&mut self, account: Account<&'o Owner>, counts: &Counts) {
        add_durations(self.node.entry(account.class).or_default(), &counts.tcp.rtt);
        if let Holder::Owner(Owner::Pod { uid }) = account.holder {
            *self.pods.of(uid) += counts;
        }
    }
}

pub(super) fn buckets(durations: &Durations) -> Buckets<'_> {
    #[expect(clippy::cast_precision_loss, reason = "a sum of microseconds is exact up to 285 years")]
    let sum = durations.sum as f64 / 1e6;
    Buckets { bounds: &BOUNDS, counts: &durations.buckets, sum }
}

impl<S: SlotSource> Collector for Tcp<S> {
    fn name(&self) -> &'static str {
        "tcp"
    }

    fn descriptors(&self) -> &'static [&'static Descriptor] {
        DESCRIPTORS
    }

    fn support(&self) -> Support {
        self.support.clone()
    }

    fn collect(&self, sink: &mut Sink<'_>) -> Result<(), CollectError> {
        let (node, pods) = self.census.read(Instant::now(), |residents| {
            let reading = self.ledger.read(residents.registry);
            let mut series = Series::known(residents.registry);
            reading.visit(Part::Tcp, |account, counts| series.add(account, counts));
            (series.node, series.pods.into_pods(residents, |sum, more| *sum += more))
        });
        let mut family = sink.family(&NODE_RTT);
        for (class, durations) in &node {
            family.histogram(&[class.as_str()], &buckets(durations));
        }
        if self.profile > Profile::Minimal {
            write_pods(sink, self.profile, &pods);
        }
        Ok(())
    }
}

fn write_pods(sink: &mut Sink<'_>, profile: Profile, pods: &Rows<Counts>) {
    for (descriptor, read) in HISTOGRAMS.iter().filter(|(descriptor, _)| descriptor.profile <= profile) {
        let mut family = sink.family(descriptor);
        for (pod, counts) in pods.iter() {
            family.histogram_with(pod, &buckets(read(&counts.tcp)));
        }
    }
    for (descriptor, read) in COUNTERS.iter().filter(|(descriptor, _)| descriptor.profile <= profile) {
        let mut family = sink.family(descriptor);
        for (pod, counts) in pods.iter() {
            family.value_with(pod, &Labels::NONE, Value::Integer(read(counts)));
        }
    }
    let reasons = ConnectFailure::ALL.map(|reason| Labels::new(&["reason"], &[reason.as_str()]));
    let mut family = sink.family(&CONNECT_FAILURES);
    for (pod, counts) in pods.iter() {
        for (reason, failures) in reasons.iter().zip(counts.tcp.connect_failures) {
            family.value_with(pod, reason, Value::Integer(failures));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use probe_common::tcp::{BOUNDS_MICROSECONDS, TcpCell};
    use probe_common::traffic::{Cell, SLOTS_RESERVED, SlotKey};

    use super::*;
    use crate::identity::{PodName, PodNames, PodSource};
    use crate::metric::Format;

    const UID: &str = "f49bc5ea-916a-4212-99f5-faa047ac2f8b";

    struct OnePod;

    impl PodSource for OnePod {
        fn read(&mut self) -> io::Result<Vec<(String, PodName)>> {
            Ok(vec![(UID.into(), PodName { namespace: "shop".into(), pod: "web".into() })])
        }
    }

    /// Counters of a node on which nobody has sent anything.
    struct Silence;

    impl SlotSource for Silence {
        fn slots(&self) -> u32 {
            SLOTS_RESERVED
        }
        fn key(&self, _slot: u32) -> Option<SlotKey> {
            None
        }
        fn cell(&self, _slot: u32) -> Cell {
            Cell::default()
        }
        fn tcp(&self, _slot: u32) -> TcpCell {
            TcpCell::default()
        }
        fn clear(&self, _slot: u32) {}
    }

    /// The samples of a pod that exists and is silent.
    fn silent_pod(profile: Profile) -> Vec<String> {
        let census = Arc::new(Census::new(PodNames::new(vec![Box::new(OnePod)])));
        census.insert(7, &format!("kubepods/pod{UID}"), Instant::now());
        census.find_names(Instant::now());
        let ledger = Arc::new(Ledger::new(Silence));
        let mut page = Vec::new();
        let mut sink = Sink::new(&mut page, Format::Text004);
        Tcp::new(ledger, census, profile, Support::Yes).collect(&mut sink).unwrap();
        sink.finish();
        let page = String::from_utf8(page).unwrap();
        page.lines()
            .filter(|line| line.contains("namespace=\"shop\",pod=\"web\""))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn a_silent_pod_has_the_series_of_its_profile_at_zero() {
        let profiles = [(Profile::Minimal, 0), (Profile::Standard, 21), (Profile::Detailed, 48)];
        for (profile, series) in profiles {
            let samples = silent_pod(profile);
            assert_eq!(samples.len(), series, "{profile:?}: {samples:#?}");
            assert!(samples.iter().all(|sample| sample.ends_with(" 0")), "{samples:#?}");
        }
    }

    #[test]
    fn bounds_in_seconds_and_microseconds_cut_whole_microseconds_alike() {
        for (seconds, microseconds) in BOUNDS.iter().zip(BOUNDS_MICROSECONDS) {
            let above = seconds * 1e6 - f64::from(microseconds);
            assert!((0.0..1.0).contains(&above), "{seconds}");
        }
    }
}
