//! Packets and bytes both ways, as the agent's families give them.

use crate::scrape::Samples;

/// Packets and bytes in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets received.
    pub receive_packets: u64,
    /// Bytes received.
    pub receive_bytes: u64,
    /// Packets sent.
    pub transmit_packets: u64,
    /// Bytes sent.
    pub transmit_bytes: u64,
}

impl Traffic {
    /// What has been added since an earlier reading; `None` if a counter went backwards.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Option<Self> {
        Some(Self {
            receive_packets: self.receive_packets.checked_sub(earlier.receive_packets)?,
            receive_bytes: self.receive_bytes.checked_sub(earlier.receive_bytes)?,
            transmit_packets: self.transmit_packets.checked_sub(earlier.transmit_packets)?,
            transmit_bytes: self.transmit_bytes.checked_sub(earlier.transmit_bytes)?,
        })
    }

    /// The sum of two.
    #[must_use]
    pub const fn plus(&self, other: &Self) -> Self {
        Self {
            receive_packets: self.receive_packets + other.receive_packets,
            receive_bytes: self.receive_bytes + other.receive_bytes,
            transmit_packets: self.transmit_packets + other.transmit_packets,
            transmit_bytes: self.transmit_bytes + other.transmit_bytes,
        }
    }

    /// The same seen from the other end.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            receive_packets: self.transmit_packets,
            receive_bytes: self.transmit_bytes,
            transmit_packets: self.receive_packets,
            transmit_bytes: self.receive_bytes,
        }
    }
}

impl Samples {
    /// The traffic of `scope` (`pod`, `unit` or `node`), summed over the series that have all these labels. `None`
    /// where there is no such series.
    #[must_use]
    pub fn traffic(&self, scope: &str, labels: &[(&str, &str)]) -> Option<Traffic> {
        let sum = |what: &str| {
            let name = format!("leadline_{scope}_{what}_total");
            self.sum(&name, |sample| labels.iter().all(|(label, value)| sample.label(label) == Some(value)))
        };
        Some(Traffic {
            receive_packets: sum("receive_packets")?,
            receive_bytes: sum("receive_bytes")?,
            transmit_packets: sum("transmit_packets")?,
            transmit_bytes: sum("transmit_bytes")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn series_are_summed_by_their_labels() {
        let lines = ["receive_packets", "receive_bytes", "transmit_packets", "transmit_bytes"];
        let mut text = String::new();
        for (n, what) in (1..).zip(lines) {
            let name = format!("leadline_pod_{what}_total");
            writeln!(text, "{name}{{pod=\"a\",peer_class=\"node\"}} {n}").unwrap();
            writeln!(text, "{name}{{pod=\"a\",peer_class=\"host\"}} {n}0").unwrap();
            writeln!(text, "{name}{{pod=\"b\",peer_class=\"host\"}} {n}00").unwrap();
        }
        let samples = crate::scrape::parse(&text).unwrap();
        let expected =
            Traffic { receive_packets: 11, receive_bytes: 22, transmit_packets: 33, transmit_bytes: 44 };
        assert_eq!(samples.traffic("pod", &[("pod", "a")]), Some(expected));
        assert_eq!(samples.traffic("pod", &[("pod", "c")]), None);
    }

    #[test]
    fn a_counter_that_went_backwards_has_no_difference() {
        let later = Traffic { receive_bytes: 4, ..Traffic::default() };
        assert_eq!(later.since(&Traffic { receive_bytes: 5, ..Traffic::default() }), None);
    }
}
