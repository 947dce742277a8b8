//! iperf3 between two places, with both reports.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::place::Place;
use crate::{process, witness};

/// The transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP at this rate in bits per second; 0 means without a limit.
    Udp {
        /// Bits per second.
        rate: u64,
    },
}

/// How much each stream sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// This many bytes.
    Bytes(u64),
    /// This many writes of `length` bytes, which for UDP are datagrams.
    Blocks(u64),
    /// For this many seconds.
    Seconds(u32),
}

/// What iperf3 is to do.
#[derive(Clone, Debug)]
pub struct Iperf {
    /// The protocol.
    pub protocol: Protocol,
    /// How much to send.
    pub amount: Amount,
    /// Bytes of one write.
    pub length: Option<u32>,
    /// The number of parallel streams.
    pub parallel: u32,
    /// Whether both sides send.
    pub bidirectional: bool,
    /// Whether the server sends.
    pub reverse: bool,
    /// Whether to use the IPv6 address of the server.
    pub ipv6: bool,
    /// The server's port.
    pub port: u16,
    /// Further arguments of the client.
    pub extra: Vec<String>,
    /// The time after which both are killed.
    pub limit: Duration,
}

impl Default for Iperf {
    fn default() -> Self {
        Self {
            protocol: Protocol::Tcp,
            amount: Amount::Seconds(1),
            length: None,
            parallel: 1,
            bidirectional: false,
            reverse: false,
            ipv6: false,
            port: 5201,
            extra: Vec::new(),
            limit: Duration::from_mins(1),
        }
    }
}

impl Iperf {
    fn client_arguments(&self) -> Vec<String> {
        let mut arguments = vec!["-P".to_owned(), self.parallel.to_string()];
        if let Protocol::Udp { rate } = self.protocol {
            arguments.extend(["-u".into(), "-b".into(), rate.to_string()]);
        }
        let (flag, amount) = match self.amount {
            Amount::Bytes(bytes) => ("-n", bytes),
            Amount::Blocks(blocks) => ("-k", blocks),
            Amount::Seconds(seconds) => ("-t", u64::from(seconds)),
        };
        arguments.extend([flag.into(), amount.to_string()]);
        arguments.extend(self.length.iter().flat_map(|length| ["-l".to_owned(), length.to_string()]));
        arguments.extend(self.bidirectional.then(|| "--bidir".into()));
        arguments.extend(self.reverse.then(|| "-R".into()));
        arguments.extend(self.extra.iter().cloned());
        arguments
    }
}

/// The reports of both sides, as iperf3 prints them.
#[derive(Clone, Debug)]
pub struct IperfResult {
    /// The client's report.
    pub client: Value,
    /// The server's report.
    pub server: Value,
}

impl IperfResult {
    /// Payload bytes that the sender of the forward direction sent.
    #[must_use]
    pub fn sent_bytes(&self) -> Option<u64> {
        self.client.pointer("/end/sum_sent/bytes")?.as_u64()
    }

    /// Payload bytes that the receiver of the forward direction received.
    #[must_use]
    pub fn received_bytes(&self) -> Option<u64> {
        self.client.pointer("/end/sum_received/bytes")?.as_u64()
    }

    /// TCP segments that the sender sent again.
    #[must_use]
    pub fn retransmits(&self) -> Option<u64> {
        self.client.pointer("/end/sum_sent/retransmits")?.as_u64()
    }

    /// UDP datagrams that the sender sent.
    #[must_use]
    pub fn datagrams(&self) -> Option<u64> {
        self.client
            .pointer("/end/sum_sent/packets")
            .or_else(|| self.client.pointer("/end/sum/packets"))?
            .as_u64()
    }

    /// UDP datagrams that did not arrive.
    #[must_use]
    pub fn lost_datagrams(&self) -> Option<u64> {
        self.server.pointer("/end/sum/lost_packets")?.as_u64()
    }

    /// Bits per second at the receiver.
    #[must_use]
    pub fn bits_per_second(&self) -> Option<f64> {
        self.client.pointer("/end/sum_received/bits_per_second")?.as_f64()
    }
}

/// Runs a one-off server and a client against it.
pub fn iperf3(client: &impl Place, server: &impl Place, options: &Iperf) -> Result<IperfResult> {
    let address = server.address(options.ipv6)?.to_string();
    let port = options.port.to_string();
    let mut command = server.command("iperf3")?;
    command.args(["-s", "-1", "-J", "-p", &port]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut listener = process::spawn(&mut command).context("apt-get install iperf3, if it is missing")?;
    let listens = || witness::tcp_listens(server, options.port).unwrap_or(false);
    let ready = process::wait_until("iperf3 to listen", Duration::from_secs(10), listens);
    let reported = ready.and_then(|()| {
        let mut command = client.command("iperf3")?;
        command.args(["-c", &address, "-J", "-p", &port]).args(options.client_arguments());
        report(&process::capture(&mut command, "", options.limit)?.stdout)
    });
    if reported.is_err() {
        // Without its client the one-off server would wait for another one.
        drop(listener.kill());
    }
    let output = process::finish(listener, "the iperf3 server", Duration::from_secs(10));
    let reported = reported.with_context(|| format!("iperf3 from {} to {}", client.name(), server.name()))?;
    Ok(IperfResult { client: reported, server: report(&output?.stdout).context("iperf3 server")? })
}

/// Parses a report; iperf3 puts its errors there as well.
fn report(json: &[u8]) -> Result<Value> {
    let value: Value = serde_json::from_slice(json).context("parse the report of iperf3")?;
    match value.get("error").and_then(Value::as_str) {
        Some(error) => bail!("iperf3: {error}"),
        None => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_of_a_udp_run() {
        let options = Iperf {
            protocol: Protocol::Udp { rate: 5_000_000 },
            amount: Amount::Blocks(77),
            length: Some(1200),
            parallel: 3,
            bidirectional: true,
            ..Iperf::default()
        };
        assert_eq!(options.client_arguments().join(" "), "-P 3 -u -b 5000000 -k 77 -l 1200 --bidir");
    }

    #[test]
    fn an_error_in_the_report_is_an_error() {
        let error = report(br#"{"start": {}, "error": "unable to connect"}"#).unwrap_err();
        assert_eq!(error.to_string(), "iperf3: unable to connect");
        assert!(report(b"").is_err());
    }

    #[test]
    fn numbers_of_a_report() {
        let client = serde_json::json!({"end": {"sum_sent": {"bytes": 11, "retransmits": 2, "packets": 5},
            "sum_received": {"bytes": 10, "bits_per_second": 80.5}}});
        let server = serde_json::json!({"end": {"sum": {"lost_packets": 3}}});
        let result = IperfResult { client, server };
        assert_eq!((result.sent_bytes(), result.received_bytes()), (Some(11), Some(10)));
        assert_eq!(
            (result.retransmits(), result.datagrams(), result.lost_datagrams()),
            (Some(2), Some(5), Some(3))
        );
        assert_eq!(result.bits_per_second(), Some(80.5));
    }

    #[test]
    fn a_missing_number_is_none() {
        let result = IperfResult { client: Value::Null, server: Value::Null };
        assert_eq!((result.sent_bytes(), result.lost_datagrams()), (None, None));
    }
}
