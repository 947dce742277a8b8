//! The sender of another implementation of STAMP (RFC 8762, RFC 8972), stamp-suite, against this agent's reflector: what
//! it counts is what the agent and tcpdump count, and its round trips are tcpdump's but for the time that both programs
//! add.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::scrape::Samples;
use lab::stamp::{self, PORT, Report};
use lab::witness::tcpdump::{Capture, Frame};
use lab::witness::{ensure_precise, measured};
use lab::{Agent, Firewall, Lab, Node, Place as _};
use serde_json::Value;

use super::key::{OTHERS, OURS, key_file, options, requests};
use super::truth::{PROBES, Place as Seen, SENDER_SEQUENCE, Truth, Watch, packet, until_now};
use crate::{LAYERS, LIMIT, sent, start};

/// Packets of a sender.
const PACKETS: u32 = 300;
/// By how much a round trip of theirs may be longer than tcpdump's in seconds, the least, the median and the mean: their
/// program takes part of its times itself, the later the busier the machine is.
const OVERHEAD: [(&str, f64); 3] = [("min", 150e-6), ("median", 1e-3), ("avg", 5e-3)];
/// By how much it may be shorter: tcpdump's times are taken before those of the socket.
const ERROR: f64 = 20e-6;
/// How far the time that our reflector tells of a packet that came may be from tcpdump's, the median in seconds.
const CAME: f64 = 20e-6;
/// How long before tcpdump saw an answer leave it may be when our reflector says that it left.
const LEFT: f64 = 50e-6;
/// Where an answer has the times of the reflector, each a number of seconds and a fraction (RFC 8762, 4.3.1).
const LEFT_AT: usize = 4;
const CAME_AT: usize = 16;
/// Seconds from 1900 to 1970.
const EPOCH: u64 = 2_208_988_800;
/// In a frame, the address of who sent it.
const SOURCE: Range<usize> = 26..30;

/// An agent that knows the other node on both layers.
fn answerer(lab: &Lab, key: Option<&str>) -> Result<Agent> {
    let agent = Agent::start(lab.node(1)?, &options(lab, key)?)?;
    agent.wait_page("probes on both layers", LIMIT, "leadline_path_", |page| {
        LAYERS.iter().all(|layer| sent(page, layer).is_some())
    })?;
    Ok(agent)
}

/// The address of the first node on a layer.
fn address(lab: &Lab, layer: &str) -> Result<IpAddr> {
    let node = lab.node(1)?;
    if layer == "underlay" {
        return node.address(false);
    }
    Ok(node.subnet()?.ipv4.octets()).map(|[a, b, c, _]| [a, b, c, 0].into())
}

/// How much more of that the reflector has done.
fn grown(agent: &Agent, before: &Samples, result: &str) -> Result<u64> {
    let told = |page: &Samples| requests(page, result).context("no count");
    Ok(told(&agent.scrape()?)? - told(before)?)
}

/// What their sender on the second node says, what tcpdump saw of it at both ends, and how many the agent has answered.
fn ask(lab: &Lab, agent: &Agent, layer: &str, flags: &[&str]) -> Result<(Report, Truth, u64)> {
    let [here, there] = [lab.node(1)?, lab.node(2)?];
    let before = agent.scrape()?;
    let watch = Watch::start(Seen::Underlay, there, here)?;
    let report = stamp::send(there, address(lab, layer)?, PACKETS, flags)?;
    let truth = watch.stop()?;
    Ok((report, truth, grown(agent, &before, "answered")?))
}

/// Its counts are tcpdump's and ours, and its round trips tcpdump's, but for what its own times add.
#[expect(clippy::print_stdout, reason = "the figures are worth reading")]
fn compare(lab: &Lab, agent: &Agent, layer: &str) -> Result<()> {
    let (report, truth, answered) = ask(lab, agent, layer, &[])?;
    let mut rounds = truth.all(layer);
    rounds.sort_by(f64::total_cmp);
    let counts = [report.sent, report.received, report.lost];
    println!("{layer}: {counts:?}, we {answered}, tcpdump {}", rounds.len());
    assert_eq!(counts, [u64::from(PACKETS), u64::from(PACKETS), 0]);
    assert_eq!((answered, rounds.len()), (u64::from(PACKETS), usize::try_from(PACKETS)?));
    let mean = rounds.iter().sum::<f64>() / f64::from(PACKETS);
    for ((which, most), seen) in OVERHEAD.into_iter().zip([rounds[0], rounds[rounds.len() / 2], mean]) {
        let told = report.rtt(which)?;
        let [told_us, seen_us, more] = [told, seen, told - seen].map(|time| time * 1e6);
        let figures = format!("{layer}: {which} {told_us:.1} us, tcpdump {seen_us:.1} us, {more:.1} us more");
        println!("{figures}");
        ensure_precise((-ERROR..most).contains(&(told - seen)), || figures)?;
    }
    Ok(())
}

#[test]
fn a_foreign_sender_counts_what_is_answered_and_its_round_trips_are_tcpdumps() -> Result<()> {
    let lab = start()?;
    let agent = answerer(&lab, None)?;
    for layer in LAYERS {
        measured(|| compare(&lab, &agent, layer))?;
    }
    lab.shutdown()
}

/// A time in a packet, in nanoseconds since 1970.
fn nanos(payload: &[u8], at: usize) -> Option<u64> {
    let word =
        |at: usize| payload.get(at..)?.first_chunk().map(|bytes| u64::from(u32::from_be_bytes(*bytes)));
    Some(word(at)?.checked_sub(EPOCH)? * 1_000_000_000 + ((word(at + 4)? * 1_000_000_000) >> 32))
}

/// The median of what tcpdump's times are later than those in the packets.
fn later(times: impl Iterator<Item = Option<(Duration, u64)>>) -> Result<f64> {
    let mut all: Vec<f64> = times
        .map(|pair| {
            let (seen, told) = pair.context("a packet without a time, or not one that was asked for")?;
            // A float of a time since 1970 has a quarter of a microsecond.
            Ok(seen.as_secs_f64() - Duration::from_nanos(told).as_secs_f64())
        })
        .collect::<Result<_>>()?;
    all.sort_by(f64::total_cmp);
    ensure!(all.len() == usize::try_from(PACKETS)?, "{} answers", all.len());
    Ok(all[all.len() / 2])
}

/// What the reflector tells of the packets of another one is when they came and left by tcpdump.
#[expect(clippy::print_stdout, reason = "the figures are worth reading")]
fn check_times(lab: &Lab) -> Result<()> {
    let [here, there] = [lab.node(1)?, lab.node(2)?];
    let other = there.ipv4().context("no address")?.octets();
    let capture = Capture::start_in_blocks(here, "eth0", PROBES)?;
    stamp::send(there, here.address(false)?, PACKETS, &[])?;
    let frames = until_now(capture)?;
    // This agent's own probes are among them, which nobody answers.
    let is_asked = |frame: &&Frame| frame.bytes.get(SOURCE) == Some(&other[..]);
    let number = |payload: &[u8], at: usize| payload.get(at..at + 4).map(<[u8]>::to_vec);
    let asked = frames.iter().filter(is_asked).filter_map(|frame| {
        let (.., payload) = packet(&frame.bytes)?;
        Some((number(payload, 0)?, frame.time))
    });
    let asked: HashMap<Vec<u8>, Duration> = asked.collect();
    let answers = || {
        let packets = frames.iter().filter_map(|frame| Some((frame.time, packet(&frame.bytes)?)));
        packets.filter(|(_, (_, [from, _], _))| *from == PORT)
    };
    let came = later(answers().map(|(_, (.., payload))| {
        Some((*asked.get(&number(payload, SENDER_SEQUENCE)?)?, nanos(payload, CAME_AT)?))
    }))?;
    let left = later(answers().map(|(time, (.., payload))| Some((time, nanos(payload, LEFT_AT)?))))?;
    let figures = format!(
        "tcpdump saw packets come {:.1} us after our time, and leave {:.1} us after it",
        came * 1e6,
        left * 1e6
    );
    println!("{figures}");
    ensure_precise(came.abs() < CAME && (0.0..LEFT).contains(&left), || figures)
}

#[test]
fn the_reflector_tells_a_foreign_sender_when_its_packets_came_and_left() -> Result<()> {
    let lab = start()?;
    let _agent = answerer(&lab, None)?;
    measured(|| check_times(&lab))?;
    lab.shutdown()
}

/// Answers in which it found a TLV of that type, and those where we say that we do not know it, and where something was
/// wrong with it.
fn flagged(report: &Report, kind: &str) -> Result<[u64; 3]> {
    let told = &report.whole["measurements"]["tlv_validation"]["by_type"][kind];
    let count = |value: &Value| value.as_u64().with_context(|| format!("no type {kind} in {}", report.whole));
    let flags = &told["flags"];
    let wrong = count(&flags["malformed"])? + count(&flags["integrity_failed"])?;
    Ok([count(&told["observed"])?, count(&flags["unrecognized"])?, wrong])
}

#[test]
fn a_foreign_sender_understands_our_tlvs_and_numbers() -> Result<()> {
    let lab = start()?;
    let agent = answerer(&lab, None)?;
    let file = key_file(&lab, OURS, 0o400)?.display().to_string();
    let flags = ["--ssid", "7", "--follow-up-telemetry", "--cos", "--direct-measurement"];
    let flags = [&flags[..], &["--hmac-key-file", &file]].concat();
    let (report, _, answered) = ask(&lab, &agent, "underlay", &flags)?;
    assert_eq!((report.received, answered), (report.sent, report.sent));
    // The follow-up is known here; class of service, direct measurement, and a code for which there is no key are not.
    let all = report.sent;
    for (kind, unknown) in [("7", 0), ("4", all), ("5", all), ("8", all)] {
        assert_eq!(flagged(&report, kind)?, [all, unknown, 0], "type {kind}");
    }
    let flags = ["--ssid", "7", "--follow-up-telemetry"];
    let (report, _, _) = ask(&lab, &agent, "underlay", &flags)?;
    let told = &report.whole["measurements"]["follow_up"];
    // All but the first one say when the answer before really left, once the kernel has said so.
    let matched = told["matched"].as_u64().context("no matched follow-ups")?;
    ensure!(matched + 3 >= report.sent && matched < report.sent, "{told}");
    lab.shutdown()
}

/// Drops one of so many packets of theirs that enter a node, in that direction.
fn lose<'lab>(place: &'lab Node, side: &str) -> Result<Firewall<'lab, Node>> {
    let body = format!(
        "chain loss {{ type filter hook ingress device \"eth0\" priority 0;\n\
         ip protocol udp udp {side} {PORT} numgen inc mod 10 == 3 counter drop\n}}\n"
    );
    Firewall::add(place, "netdev", "loss", &body)
}

#[test]
fn what_a_foreign_sender_loses_is_what_was_dropped() -> Result<()> {
    let lab = start()?;
    let agent = answerer(&lab, None)?;
    let whole = u64::from(PACKETS);
    for (node, side) in [(1, "dport"), (2, "sport")] {
        let firewall = lose(lab.node(node)?, side)?;
        let (report, _, answered) = ask(&lab, &agent, "underlay", &[])?;
        let dropped = firewall.counted()?;
        println!("{side}: they lost {} of {}, nft {dropped}, answered {answered}", report.lost, report.sent);
        assert_eq!((dropped, report.lost, report.received), (whole / 10, dropped, whole - dropped), "{side}");
        assert_eq!(answered, if side == "dport" { whole - dropped } else { whole }, "{side}");
    }
    lab.shutdown()
}

/// What our reflector with one key makes of their sender with another.
#[expect(clippy::print_stdout, reason = "the figures are worth reading")]
fn check_key(lab: &Lab, ours: Option<&str>, theirs: Option<&str>, result: &str) -> Result<()> {
    let agent = answerer(lab, ours)?;
    let before = agent.scrape()?;
    let file = theirs.map(|key| key_file(lab, key, 0o400)).transpose()?;
    let file = file.map(|file| file.display().to_string());
    let mut flags = vec!["--follow-up-telemetry"];
    if let Some(file) = &file {
        flags.extend(["--auth-mode", "A", "--hmac-key-file", file]);
    }
    let [here, there] = [lab.node(1)?, lab.node(2)?];
    let filter = format!("udp dst port {PORT} and src host {}", there.address(false)?);
    let capture = Capture::start(here, "eth0", &filter)?;
    let report = stamp::send(there, address(lab, "underlay")?, PACKETS, &flags)?;
    let (whole, asked) = (u64::from(PACKETS), capture.stop()?.len());
    println!(
        "we {ours:?}, they {theirs:?}: {} of {} answered, tcpdump {asked}",
        report.received, report.sent
    );
    assert_eq!(u64::try_from(asked)?, whole);
    let answered = if result == "answered" { whole } else { 0 };
    assert_eq!((report.received, report.lost), (answered, whole - answered));
    if answered > 0 {
        // Ours of the TLVs is right by their count.
        let codes = &report.whole["measurements"]["tlv_validation"]["hmac"];
        assert_eq!(codes["verified"], answered, "{codes}");
    }
    for other in ["answered", "unauthenticated", "malformed"] {
        let expected = if other == result { whole } else { 0 };
        assert_eq!(grown(&agent, &before, other)?, expected, "{other}");
    }
    agent.sigterm().map(drop)
}

#[test]
fn a_foreign_sender_is_answered_with_the_same_key_alone() -> Result<()> {
    let lab = start()?;
    for (ours, theirs, result) in [
        (Some(OURS), Some(OURS), "answered"),
        (Some(OURS), Some(OTHERS), "unauthenticated"),
        (Some(OURS), None, "unauthenticated"),
        (None, Some(OURS), "malformed"),
    ] {
        check_key(&lab, ours, theirs, result).with_context(|| format!("we {ours:?}, they {theirs:?}"))?;
    }
    lab.shutdown()
}
