//! Counters of the kernel: protocol statistics and devices of a network namespace.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use crate::place::Place;

/// Protocol statistics by the names that nstat prints, such as `TcpOutSegs` or `Ip6InOctets`.
pub type Nstat = BTreeMap<String, u64>;

/// The protocol statistics of the network namespace.
pub fn nstat(place: &impl Place) -> Result<Nstat> {
    let mut counters = Nstat::new();
    for file in ["snmp", "netstat"] {
        counters.extend(parse_pairs(&place.proc_net(file)?));
    }
    counters.extend(parse_list(&place.proc_net("snmp6")?));
    Ok(counters)
}

/// Parses pairs of lines: `Tcp: names`, then `Tcp: values`. Values below 0 are no counters and are left out.
fn parse_pairs(text: &str) -> Nstat {
    let lines: Vec<&str> = text.lines().collect();
    let pairs =
        lines.chunks_exact(2).filter_map(|pair| Some((pair[0].split_once(": ")?, pair[1].split_once(": ")?)));
    let pairs = pairs.filter(|((names, _), (values, _))| names == values);
    pairs
        .flat_map(|((prefix, names), (_, values))| {
            let fields = names.split_whitespace().zip(values.split_whitespace());
            fields.filter_map(move |(name, value)| Some((format!("{prefix}{name}"), value.parse().ok()?)))
        })
        .collect()
}

fn parse_list(text: &str) -> Nstat {
    let fields = text.lines().filter_map(|line| line.split_once(char::is_whitespace));
    fields.filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?))).collect()
}

/// The counters of one device. Bytes are layer 2 bytes without the frame check sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Bytes received.
    pub receive_bytes: u64,
    /// Packets received; a GSO packet counts once.
    pub receive_packets: u64,
    /// Packets refused on receipt.
    pub receive_dropped: u64,
    /// Bytes sent.
    pub transmit_bytes: u64,
    /// Packets sent; a GSO packet counts once.
    pub transmit_packets: u64,
    /// Packets that could not be sent.
    pub transmit_dropped: u64,
}

impl Device {
    /// What has been added since an earlier reading.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            receive_bytes: self.receive_bytes - earlier.receive_bytes,
            receive_packets: self.receive_packets - earlier.receive_packets,
            receive_dropped: self.receive_dropped - earlier.receive_dropped,
            transmit_bytes: self.transmit_bytes - earlier.transmit_bytes,
            transmit_packets: self.transmit_packets - earlier.transmit_packets,
            transmit_dropped: self.transmit_dropped - earlier.transmit_dropped,
        }
    }
}

/// The counters of a device in the network namespace.
pub fn device(place: &impl Place, name: &str) -> Result<Device> {
    parse_device(&place.proc_net("dev")?, name)
        .with_context(|| format!("no device {name} in {}", place.name()))
}

fn parse_device(table: &str, name: &str) -> Option<Device> {
    let mut lines = table.lines().filter_map(|line| line.trim_start().split_once(':'));
    let (_, fields) = lines.find(|(device, _)| *device == name)?;
    let fields: Vec<u64> = fields.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    let [
        receive_bytes,
        receive_packets,
        _,
        receive_dropped,
        _,
        _,
        _,
        _,
        transmit_bytes,
        transmit_packets,
        _,
        transmit_dropped,
        ..,
    ] = fields[..]
    else {
        return None;
    };
    Some(Device {
        receive_bytes,
        receive_packets,
        receive_dropped,
        transmit_bytes,
        transmit_packets,
        transmit_dropped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_lines_carry_their_prefix() {
        let counters = parse_pairs("Tcp: MaxConn OutSegs\nTcp: -1 17\nTcpExt: TCPTimeouts\nTcpExt: 4\n");
        assert_eq!(
            counters.into_iter().collect::<Vec<_>>(),
            [("TcpExtTCPTimeouts".into(), 4), ("TcpOutSegs".into(), 17)]
        );
    }

    #[test]
    fn pairs_that_do_not_match_are_left_out() {
        assert!(parse_pairs("Tcp: OutSegs\nUdp: 17\nlonely\n").is_empty());
    }

    #[test]
    fn a_list_of_counters() {
        let counters = parse_list("Ip6InReceives                   \t42\nbroken\n");
        assert_eq!(counters.into_iter().collect::<Vec<_>>(), [("Ip6InReceives".into(), 42)]);
    }

    const DEV: &str = "Inter-|   Receive  |  Transmit\n face |bytes packets\n\
        eth0: 101 102 103 104 105 106 107 108 201 202 203 204 205 206 207 208\n short: 1 2 3\n";

    #[test]
    fn a_device_by_its_name() {
        let expected = Device {
            receive_bytes: 101,
            receive_packets: 102,
            receive_dropped: 104,
            transmit_bytes: 201,
            transmit_packets: 202,
            transmit_dropped: 204,
        };
        assert_eq!(parse_device(DEV, "eth0"), Some(expected));
    }

    #[test]
    fn a_missing_or_malformed_device_is_none() {
        assert_eq!(parse_device(DEV, "eth1"), None);
        assert_eq!(parse_device(DEV, "short"), None);
    }

    #[test]
    fn differences_by_field() {
        let device = parse_device(DEV, "eth0").unwrap();
        let zero = device.since(&device);
        assert_eq!((zero.receive_bytes, zero.transmit_packets), (0, 0));
    }
}
