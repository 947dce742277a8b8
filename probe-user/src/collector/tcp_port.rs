//! TCP health of the connections of watched ports, by port and peer address: what the wire says of etcd, whose own round
//! trips to its members contain the time of whoever answers.

mod descriptor;

use probe_common::tcp::ConnectFailure;

use self::descriptor::{CONNECT_FAILURES, COUNTERS, MIN_RTT, RTT, SLOTS_EXHAUSTED};
use super::tcp::buckets;
use super::{CollectError, Collector, Support};
use crate::kernel::PortCount;
use crate::metric::sink::Sink;
use crate::metric::{Descriptor, Value};

pub use self::descriptor::DESCRIPTORS;

/// The `reason` where there is nothing to watch.
const NO_PORT: &str = "no port is watched";

/// What was counted as of now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortFacts {
    /// By port and peer, in no order.
    pub counts: Vec<PortCount>,
    /// Look-ups that found no free slot.
    pub slots_exhausted: u64,
}

/// The collector.
pub struct TcpPort {
    read: Box<dyn Fn() -> PortFacts + Send + Sync>,
    support: Support,
}

impl TcpPort {
    /// A collector over what `read` gives of these ports; `support` is that of the TCP programs.
    pub fn new(
        read: impl Fn() -> PortFacts + Send + Sync + 'static,
        ports: &[u16],
        support: Support,
    ) -> Self {
        let support = if ports.is_empty() { Support::No(NO_PORT) } else { support };
        Self { read: Box::new(read), support }
    }
}

impl Collector for TcpPort {
    fn name(&self) -> &'static str {
        "tcp_port"
    }

    fn descriptors(&self) -> &'static [&'static Descriptor] {
        DESCRIPTORS
    }

    fn support(&self) -> Support {
        self.support.clone()
    }

    fn collect(&self, sink: &mut Sink<'_>) -> Result<(), CollectError> {
        let mut facts = (self.read)();
        facts.counts.sort_unstable_by_key(|count| (count.port, count.peer));
        let counts: Vec<([String; 2], PortCount)> =
            facts.counts.into_iter().map(|count| (labels(&count), count)).collect();
        let mut family = sink.family(&RTT);
        for ([port, peer], count) in &counts {
            family.histogram(&[port, peer], &buckets(&count.tcp.rtt));
        }
        let mut family = sink.family(&MIN_RTT);
        for ([port, peer], count) in &counts {
            if let Some(least) = count.least_microseconds {
                family.value(&[port, peer], Value::Float(f64::from(least) / 1e6));
            }
        }
        for (descriptor, read) in &COUNTERS {
            let mut family = sink.family(descriptor);
            for ([port, peer], count) in &counts {
                family.value(&[port, peer], Value::Integer(read(count)));
            }
        }
        let mut family = sink.family(&CONNECT_FAILURES);
        for ([port, peer], count) in &counts {
            for (reason, failures) in ConnectFailure::ALL.iter().zip(count.tcp.connect_failures) {
                family.value(&[port, peer, reason.as_str()], Value::Integer(failures));
            }
        }
        sink.family(&SLOTS_EXHAUSTED).value(&[], Value::Integer(facts.slots_exhausted));
        Ok(())
    }
}

fn labels(count: &PortCount) -> [String; 2] {
    [count.port.to_string(), count.peer.to_string()]
}

#[cfg(test)]
mod tests {
    use probe_common::tcp::TcpCell;

    use super::*;
    use crate::metric::Format;

    fn count(port: u16, peer: &str, least_microseconds: Option<u32>) -> PortCount {
        let tcp = TcpCell { connects: 3, ..TcpCell::default() };
        PortCount { port, peer: peer.parse().unwrap(), tcp, transmit_segments: 7, least_microseconds }
    }

    fn page(facts: &PortFacts) -> String {
        let (mut page, facts) = (Vec::new(), facts.clone());
        let mut sink = Sink::new(&mut page, Format::Text004);
        TcpPort::new(move || facts.clone(), &[2379, 2380], Support::Yes).collect(&mut sink).unwrap();
        sink.finish();
        String::from_utf8(page).unwrap()
    }

    #[test]
    fn a_peer_has_every_series_and_no_round_trip_that_was_not_sampled() {
        let counts = vec![count(2380, "192.0.2.7", None), count(2379, "2001:db8:0:0::7", Some(250))];
        let page = page(&PortFacts { counts, slots_exhausted: 2 });
        let of = |peer: &str| {
            page.lines().filter(|line| line.contains(&format!("peer_address=\"{peer}\""))).count()
        };
        // Ten buckets, sum, count; seven counters; five reasons; and where it is known the least.
        assert_eq!((of("192.0.2.7"), of("2001:db8::7")), (24, 25), "{page}");
        for line in [
            "leadline_tcp_port_min_rtt_seconds{port=\"2379\",peer_address=\"2001:db8::7\"} 0.00025",
            "leadline_tcp_port_connects_total{port=\"2380\",peer_address=\"192.0.2.7\"} 3",
            "leadline_tcp_port_slots_exhausted_total 2",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}: {page}");
        }
    }

    #[test]
    fn without_a_connection_only_the_loss_is_told() {
        let page = page(&PortFacts::default());
        let samples: Vec<&str> = page.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(samples, ["leadline_tcp_port_slots_exhausted_total 0"]);
    }

    #[test]
    fn an_empty_list_of_ports_is_no_support() {
        let none = TcpPort::new(PortFacts::default, &[], Support::Yes);
        assert_eq!(none.support(), Support::No(NO_PORT));
    }
}
