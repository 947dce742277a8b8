//! Probes with codes: who shares a key is answered, with the codes that openssl makes of the same bytes; who does not is
//! refused and counted, each as often as tcpdump saw.

use std::fs::{self, Permissions};
use std::net::UdpSocket;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::scrape::Samples;
use lab::witness::tcpdump::{Capture, Frame};
use lab::{Agent, AgentOptions, Lab, Node, Place as _, process, tools};

use super::truth::{PROBES, REFLECTOR, packet};
use crate::{LAYERS, LIMIT, after, sent, start};

pub(crate) const OURS: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
pub(crate) const OTHERS: &str = "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// Bytes of a packet with its follow-up and both codes (RFC 8762, 4.2.2; RFC 8972, 4.7 and 4.8).
const LENGTH: usize = 112 + 20 + 20;
const SEQUENCE: Range<usize> = 0..4;
const BLOCKS: Range<usize> = 0..96;
const CODE: Range<usize> = 96..112;
const TLVS: Range<usize> = 112..132;
const TLV_CODE: Range<usize> = 136..152;
/// In a follow-up, where the time is that it tells.
const FOLLOW_UP_TIME: Range<usize> = 120..128;

/// The destination in the outer header of IPv4.
const DESTINATION: Range<usize> = 30..34;
/// Forged answers.
const FORGED: u64 = 7;

/// A key file that only its owner may read.
pub(crate) fn key_file(lab: &Lab, key: &str, mode: u32) -> Result<PathBuf> {
    let file = lab.scratch().join(format!("path-{mode:o}-{}.key", &key[..2]));
    fs::write(&file, format!("{key}\n"))?;
    fs::set_permissions(&file, Permissions::from_mode(mode))?;
    Ok(file)
}

pub(crate) fn options(lab: &Lab, key: Option<&str>) -> Result<AgentOptions> {
    let mut arguments = vec!["--collector.path=on".to_owned(), "--path.interval=10ms".to_owned()];
    if let Some(key) = key {
        arguments.push(format!("--path.key-file={}", key_file(lab, key, 0o400)?.display()));
    }
    Ok(AgentOptions { arguments, ..AgentOptions::default() })
}

pub(crate) fn requests(page: &Samples, result: &str) -> Option<u64> {
    page.count("leadline_path_requests_total", &[("result", result)])
}

pub(crate) fn ignored(page: &Samples, reason: &str) -> Option<u64> {
    page.count("leadline_path_replies_ignored_total", &[("reason", reason)])
}

/// The code of those bytes by openssl.
fn openssl(lab: &Lab, covered: &[u8]) -> Result<String> {
    let file = lab.scratch().join("covered");
    fs::write(&file, covered)?;
    let mut command = Command::new(tools::require("openssl")?);
    command.args(["dgst", "-sha256", "-mac", "HMAC", "-macopt", &format!("hexkey:{OURS}")]).arg(&file);
    let answer = process::run(&mut command)?;
    let digest = answer.trim().rsplit(' ').next().context("no digest")?;
    digest.get(..32).map(str::to_owned).with_context(|| format!("no digest of 32 bytes: {answer}"))
}

fn hex(bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}

/// Both codes of a packet are openssl's.
fn check_codes(lab: &Lab, packet: &[u8]) -> Result<()> {
    ensure!(packet.len() == LENGTH, "a packet of {} bytes", packet.len());
    let tlvs = [&packet[SEQUENCE], &packet[TLVS]].concat();
    for (what, told, covered) in [("packet", CODE, &packet[BLOCKS]), ("TLVs", TLV_CODE, &tlvs)] {
        let (told, right) = (hex(&packet[told]), openssl(lab, covered)?);
        ensure!(told == right, "the code of the {what} is {told}, openssl has {right}");
    }
    Ok(())
}

/// Requests of one node to the other and answers to those, on both layers: two of each that have to say something.
#[expect(clippy::print_stdout, reason = "the figures are worth reading")]
fn check_capture(lab: &Lab, frames: &[Frame]) -> Result<()> {
    for layer in LAYERS {
        let on_layer = || frames.iter().filter_map(|frame| packet(&frame.bytes)).filter(|one| one.0 == layer);
        let asked: Vec<&[u8]> =
            on_layer().filter(|(_, [_, to], _)| *to == REFLECTOR).map(|(.., payload)| payload).collect();
        let answers = on_layer().filter(|(_, [from, _], _)| *from == REFLECTOR).map(|(.., payload)| payload);
        let telling: Vec<&[u8]> = answers
            .filter(|payload| payload.get(FOLLOW_UP_TIME).is_some_and(|time| time != [0; 8]))
            .collect();
        println!("{layer}: {} requests, {} answers with a follow-up", asked.len(), telling.len());
        ensure!(asked.len() > 20 && telling.len() > 20, "{layer}: too few to tell");
        for payload in asked.iter().take(2).chain(telling.iter().take(2)) {
            check_codes(lab, payload).with_context(|| format!("{layer}: {}", hex(payload)))?;
        }
    }
    Ok(())
}

/// Answers to the first node, of which one byte is another now, are ignored and counted.
fn check_forged(lab: &Lab, agent: &Agent, frames: &[Frame]) -> Result<()> {
    let address = lab.node(1)?.ipv4().context("no address")?;
    let answer = frames.iter().find_map(|frame| {
        let (layer, [from, to], payload) = packet(&frame.bytes)?;
        let is_to = frame.bytes.get(DESTINATION) == Some(&address.octets()[..]);
        (layer == "underlay" && from == REFLECTOR && is_to).then(|| (to, payload.to_vec()))
    });
    let (port, mut payload) = answer.context("no answer to the first node")?;
    payload[TLVS.end - 1] ^= 1;
    lab.node(2)?.net(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").context("bind")?;
        (0..FORGED).try_for_each(|_| socket.send_to(&payload, (address, port)).map(drop)).context("send")
    })??;
    agent.wait_page("the forged answers", LIMIT, "leadline_path_replies_ignored", |page| {
        ignored(page, "unauthenticated") >= Some(FORGED)
    })?;
    Ok(())
}

#[test]
fn agents_with_one_key_answer_each_other_with_the_codes_of_openssl() -> Result<()> {
    let lab = start()?;
    let options = options(&lab, Some(OURS))?;
    let mut agents = [Agent::start(lab.node(1)?, &options)?, Agent::start(lab.node(2)?, &options)?];
    for agent in &agents {
        agent.wait_page("answers on both layers", LIMIT, "leadline_path_", |page| {
            LAYERS.iter().all(|layer| page.count("leadline_path_reachable", &[("layer", layer)]) == Some(1))
        })?;
    }
    let mut capture = Capture::start(lab.node(1)?, "eth0", PROBES)?;
    capture.wait_until("400 frames", LIMIT, |frames| frames.len() >= 400)?;
    let frames = capture.stop()?;
    check_capture(&lab, &frames)?;
    check_forged(&lab, &agents[0], &frames)?;
    for (agent, forged) in agents.iter_mut().zip([FORGED, 0]) {
        let page = agent.scrape()?;
        for result in ["unauthenticated", "malformed", "unknown_sender"] {
            assert_eq!(requests(&page, result), Some(0), "{result}");
        }
        assert_eq!(ignored(&page, "unauthenticated"), Some(forged));
        assert!(!agent.service().log()?.contains(&OURS[..16]), "the key is in the log");
    }
    lab.shutdown()
}

/// Requests on the wire to a node, and answers to anybody.
fn seen(frames: &[Frame], to: &Node) -> Result<[u64; 2]> {
    let address = to.ipv4().context("no address")?.octets();
    let mut counts = [0, 0];
    for frame in frames {
        let Some((_, [from, port], _)) = packet(&frame.bytes) else { continue };
        // The outer header says whose it is on both layers.
        let is_to = frame.bytes.get(DESTINATION) == Some(&address[..]);
        counts[0] += u64::from(port == REFLECTOR && is_to);
        counts[1] += u64::from(from == REFLECTOR);
    }
    Ok(counts)
}

/// What an agent on the second node with one key makes of one on the first with another: it answers nothing, and counts
/// each request under that name.
#[expect(clippy::print_stdout, reason = "the figures are worth reading")]
fn check_refused(lab: &Lab, keys: [Option<&str>; 2], result: &str) -> Result<()> {
    let [asks, answers] = [lab.node(1)?, lab.node(2)?];
    let answerer = Agent::start(answers, &options(lab, keys[1])?)?;
    // It knows the other node on both layers.
    answerer.wait_page("probes on both layers", LIMIT, "leadline_path_", |page| {
        LAYERS.iter().all(|layer| sent(page, layer).is_some())
    })?;
    let capture = Capture::start(answers, "eth0", PROBES)?;
    let asker = Agent::start(asks, &options(lab, keys[0])?)?;
    let (page, _) = asker.wait_page("no path", LIMIT, "leadline_path_", |page| {
        LAYERS.iter().all(|layer| page.count("leadline_path_reachable", &[("layer", layer)]) == Some(0))
    })?;
    asker.wait_support("path", "degraded", "no probe of another node was answered", LIMIT)?;
    assert_eq!(requests(&page, "answered"), Some(0));
    after(&asker, "overlay", 200)?;
    // Nothing more comes, so that the counts can be compared exactly.
    asker.sigterm()?;
    let [asked, answered] = seen(&capture.stop()?, answers)?;
    let (page, _) = answerer.wait_page("all requests", LIMIT, "leadline_path_", |page| {
        requests(page, result).is_some_and(|count| count >= asked)
    })?;
    println!("{keys:?}: {asked} requests, {answered} answers, {result} {:?}", requests(&page, result));
    ensure!(asked > 400 && answered == 0, "{asked} requests, {answered} answers");
    let others = ["answered", "unknown_sender", "unauthenticated", "malformed", "rate_limited", "failed"];
    for other in others {
        let expected = if other == result { asked } else { 0 };
        assert_eq!(requests(&page, other), Some(expected), "{other}");
    }
    answerer.sigterm().map(drop)
}

#[test]
fn without_the_same_key_nothing_is_answered_and_all_is_counted() -> Result<()> {
    let lab = start()?;
    for (keys, result) in [
        ([Some(OTHERS), Some(OURS)], "unauthenticated"),
        ([None, Some(OURS)], "unauthenticated"),
        ([Some(OURS), None], "malformed"),
    ] {
        check_refused(&lab, keys, result).with_context(|| format!("asks and answers with {keys:?}"))?;
    }
    lab.shutdown()
}

#[test]
fn a_key_that_cannot_be_used_is_no_reason_to_do_without() -> Result<()> {
    let lab = start()?;
    let file = key_file(&lab, OURS, 0o644)?;
    let arguments = |mode| {
        let arguments =
            vec![format!("--collector.path={mode}"), format!("--path.key-file={}", file.display())];
        AgentOptions { arguments, ..AgentOptions::default() }
    };
    let mut agent = Agent::start(lab.node(1)?, &arguments("auto"))?;
    agent.wait_support("path", "no", "the key file of the probes is open to everybody", LIMIT)?;
    let sockets = lab.node(1)?.proc_net("udp6")?;
    assert!(!sockets.contains(&format!(":{REFLECTOR:04X} ")), "the port is open: {sockets}");
    let page = agent.scrape()?;
    // What pods do is seen without probes.
    let is_probed = |name: &str| {
        let is_passive =
            ["leadline_path_pod_", "leadline_path_too_big_"].iter().any(|begin| name.starts_with(begin));
        name.starts_with("leadline_path_") && !is_passive
    };
    assert_eq!(page.all().iter().filter(|sample| is_probed(&sample.name)).count(), 0);
    let problem = format!("key file {}: is open to everybody (mode 0644): `chmod o=` it", file.display());
    let log = agent.service().log()?;
    assert!(log.contains(&problem) && !log.contains(&OURS[..16]), "{log}");
    agent.sigterm()?;
    let mut agent = Agent::spawn(lab.node(1)?, &arguments("on"))?;
    let status = agent.service().wait(Duration::from_secs(10))?;
    let log = agent.service().log()?;
    let whole = format!("collector path must run but cannot: {problem}");
    assert!(!status.success() && log.contains(&whole) && !log.contains(&OURS[..16]), "{status}: {log}");
    lab.shutdown()
}
