//! The reflector of another implementation of STAMP (RFC 8762, RFC 8972), stamp-suite, against this agent's sender: round
//! trips, losses and reachability as with our own, whatever it knows of follow-ups, TLVs, formats of time and numbers.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::scrape::Samples;
use lab::stamp::{self, PORT};
use lab::witness::tcpdump::Capture;
use lab::witness::{ensure_precise, measured};
use lab::{Agent, Firewall, Lab, Node, Place as _, Service};
use serde_json::Value;

use super::key::{OTHERS, OURS, ignored, key_file, options};
use super::truth::{self, Place as Seen, Watch};
use crate::{LAYERS, LIMIT, STAMP, after, prober, sent, start};

/// How far a round trip may be from tcpdump's on average in seconds, where the reflector says when its answer really left.
const ERROR: f64 = 20e-6;
/// How much longer it may be where it only says when it was about to send it, by a time of the kernel when the probe came.
const UNTOLD: f64 = 100e-6;
/// How much longer it may be where both are times of its own: as long as a busy machine takes to wake it.
const OWN_TIMES: f64 = 5e-3;
/// The same in all modes.
const PLAIN: &[&str] = &["--output-format", "json"];
/// It numbers its answers.
const STATEFUL: &[&str] = &["--stateful-reflector"];

/// Seconds from 1900 to 1970.
const EPOCH: u64 = 2_208_988_800;

/// What the reflector does besides answering, and by how much that may make round trips longer.
const MODES: [(&str, &[&str], f64); 5] = [
    ("stateful, follow-ups by the kernel's times", STATEFUL, ERROR),
    ("the same with times of PTP", &["--stateful-reflector", "--clock-source", "PTP"], ERROR),
    ("stateless, the kernel's times of what comes", &[], UNTOLD),
    ("stateless, times of its own", &["--hwtstamp", "off"], OWN_TIMES),
    ("stateful, without any TLV", &["--stateful-reflector", "--tlv-mode", "ignore"], UNTOLD),
];

fn reflector(lab: &Lab, flags: &[&str]) -> Result<Service> {
    stamp::reflect(lab.node(2)?, &[PLAIN, flags].concat())
}

fn is_reachable(page: &Samples, wanted: u64) -> bool {
    LAYERS.iter().all(|layer| page.count("leadline_path_reachable", &[("layer", layer)]) == Some(wanted))
}

/// Waits until both layers are reachable or are not.
fn wait(agent: &Agent, wanted: u64) -> Result<Samples> {
    let what = format!("both layers to be reachable as {wanted}");
    Ok(agent.wait_page(&what, LIMIT, "leadline_path_", |page| is_reachable(page, wanted))?.0)
}

/// Losses forward, reverse and unknown, each where it is told.
type Lost = [Option<u64>; 3];

/// What nft has dropped forward and reverse, what the agent tells before and after, and of how many it says meanwhile that
/// it cannot tell, since it stood still.
struct Losses {
    dropped: [u64; 2],
    told: [Lost; 2],
    discarded: u64,
}

impl Losses {
    /// Whether so many of the dropped ones are told: all but those of which the agent says that it cannot.
    fn are(&self, told: Option<u64>, dropped: u64) -> bool {
        let missing = told.and_then(|told| dropped.checked_sub(told));
        missing.is_some_and(|missing| missing <= self.discarded.min(dropped / 2))
    }
}

fn lost(page: &Samples) -> Lost {
    crate::DIRECTIONS.map(|way| {
        page.count("leadline_path_probes_lost_total", &[("layer", "underlay"), ("direction", way)])
    })
}

/// The round trips are tcpdump's, but for so much on average, and as many.
#[expect(clippy::print_stdout, reason = "the figures are worth reading")]
fn compare(lab: &Lab, agent: &Agent, name: &str, more: f64) -> Result<()> {
    let watch = Watch::start(Seen::Underlay, lab.node(1)?, lab.node(2)?)?;
    after(agent, "underlay", 100)?;
    let (first, begin) = (agent.scrape()?, truth::now()?);
    after(agent, "underlay", 300)?;
    let (last, end) = (agent.scrape()?, truth::now()?);
    let truth = watch.stop()?;
    for layer in LAYERS {
        let seen = truth.arrived(layer, [begin, end]);
        let grown = |part: &str| {
            let name = format!("leadline_path_rtt_seconds_{part}");
            let told = |page: &Samples| page.value(&name, &[("layer", layer)]);
            Some(told(&last)? - told(&first)?)
        };
        let (count, sum) = grown("count").zip(grown("sum")).context("no round trips")?;
        let all = f64::from(u32::try_from(seen.len())?);
        ensure!(all > 250.0, "{layer}: tcpdump has only {all} round trips");
        let (told, mean) = (sum / count, seen.iter().sum::<f64>() / all);
        let error = told - mean;
        let figures = format!(
            "{name}, {layer}: {count} of {:.1} us, tcpdump {all} of {:.1} us, {:.1} us more",
            told * 1e6,
            mean * 1e6,
            error * 1e6
        );
        println!("{figures}");
        ensure_precise((count - all).abs() <= 5.0 && (-ERROR..more).contains(&error), || figures)?;
    }
    Ok(())
}

#[test]
fn round_trips_at_a_foreign_reflector_are_tcpdumps_but_for_what_it_does_not_say() -> Result<()> {
    let lab = start()?;
    for (name, flags, more) in MODES {
        let reflector = reflector(&lab, flags)?;
        let agent = prober(lab.node(1)?, 10)?;
        wait(&agent, 1)?;
        measured(|| compare(&lab, &agent, name, more))?;
        // Its answers are as long as what they answer.
        agent.wait_page("the MTU", LIMIT, "leadline_path_mtu", |page| {
            page.count("leadline_path_mtu_bytes", &[("layer", "underlay")]) == Some(1_500)
        })?;
        for reason in ["malformed", "unauthenticated"] {
            assert_eq!(ignored(&agent.scrape()?, reason), Some(0), "{name}: {reason}");
        }
        agent.sigterm()?;
        drop(reflector);
    }
    lab.shutdown()
}

/// Drops each tenth probe that enters a node from that side of the reflector; tells how many there were.
fn drop_some(agent: &Agent, place: &Node, side: &str) -> Result<u64> {
    let body = format!(
        "chain loss {{ type filter hook ingress device \"eth0\" priority 0;\n\
         ip protocol udp udp {side} {PORT} udp length < 200 numgen inc mod 10 == 3 counter drop\n}}\n"
    );
    let firewall = Firewall::add(place, "netdev", "loss", &body)?;
    after(agent, "underlay", 300)?;
    place.run(&["nft", "insert", "rule", "netdev", "loss", "loss", "accept"])?;
    let dropped = firewall.counted()?;
    // A loss is told after two seconds.
    after(agent, "underlay", 300)?;
    Ok(dropped)
}

/// Losses there and then on the way back, at a reflector with those flags.
#[expect(clippy::print_stdout, reason = "the figures are worth reading")]
fn losses(lab: &Lab, flags: &[&str]) -> Result<Losses> {
    let _reflector = reflector(lab, flags)?;
    let agent = prober(lab.node(1)?, 10)?;
    wait(&agent, 1)?;
    let before = after(&agent, "underlay", 300)?;
    let dropped = [drop_some(&agent, lab.node(2)?, "dport")?, drop_some(&agent, lab.node(1)?, "sport")?];
    let last = agent.scrape()?;
    let paused = |page: &Samples| {
        let labels = [("layer", "underlay"), ("reason", "pause")];
        page.count("leadline_path_probes_discarded_total", &labels).context("no count")
    };
    let (told, discarded) = ([lost(&before), lost(&last)], paused(&last)? - paused(&before)?);
    println!("{flags:?}: nft {dropped:?}, told {told:?}, {discarded} discarded");
    ensure!(dropped.iter().all(|count| *count > 20), "{dropped:?}");
    agent.sigterm()?;
    Ok(Losses { dropped, told, discarded })
}

#[test]
fn losses_at_a_foreign_reflector_have_a_direction_where_it_counts_and_none_where_it_does_not() -> Result<()> {
    let lab = start()?;
    let found = losses(&lab, STATEFUL)?;
    let [before, after] = found.told;
    let grown = [0, 1, 2].map(|way: usize| Some(after[way]? - before[way]?));
    ensure!(found.are(grown[0], found.dropped[0]) && found.are(grown[1], found.dropped[1]), "{grown:?}");
    assert_eq!(grown[2], Some(0));
    // Without follow-ups its first number that is not ours shows that it counts: from the first loss there on.
    let found = losses(&lab, &["--stateful-reflector", "--tlv-mode", "ignore"])?;
    let [before, after] = found.told;
    assert_eq!((before[0], before[1], before[2]), (None, None, after[2]));
    ensure!(found.are(after[0], found.dropped[0]) && found.are(after[1], found.dropped[1]), "{after:?}");
    // It repeats our numbers, which say nothing: none, not 0.
    let found = losses(&lab, &[])?;
    let [before, after] = found.told;
    assert_eq!([before[0], before[1], after[0], after[1]], [None; 4]);
    let unknown = Some(after[2].context("no losses")? - before[2].context("no losses")?);
    ensure!(found.are(unknown, found.dropped.iter().sum()), "{unknown:?}");
    lab.shutdown()
}

#[test]
fn a_foreign_reflector_that_ends_is_unreachable_until_it_is_back() -> Result<()> {
    let lab = start()?;
    let reflecting = reflector(&lab, &[])?;
    let agent = prober(lab.node(1)?, 10)?;
    wait(&agent, 1)?;
    drop(reflecting);
    wait(&agent, 0)?;
    let _reflecting = reflector(&lab, &[])?;
    wait(&agent, 1)?;
    for kind in ["path_lost", "path_back"] {
        let mut layers: Vec<Value> =
            agent.events(kind)?.into_iter().map(|event| event["details"]["layer"].clone()).collect();
        layers.sort_by_key(ToString::to_string);
        assert_eq!(layers, ["overlay", "underlay"], "{kind}");
    }
    lab.shutdown()
}

/// What their reflector says in the end: what came, what it answered.
fn summary(mut reflector: Service) -> Result<[u64; 2]> {
    reflector.terminate(Duration::from_secs(10))?;
    let log = reflector.log()?;
    let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let told = lines.rfind(Value::is_object).with_context(|| log.clone())?;
    let count = |name: &str| told[name].as_u64().with_context(|| format!("no {name} in {told}"));
    Ok([count("total_packets_received")?, count("total_packets_reflected")?])
}

/// Our sender with a key, and their reflector with another or the same: whether that answers, and with what extent.
#[expect(clippy::print_stdout, reason = "the figures are worth reading")]
fn check_key(lab: &Lab, theirs: &str, flags: &[&str], is_answered: bool) -> Result<()> {
    let file = key_file(lab, theirs, 0o400)?.display().to_string();
    let keyed = [&["--auth-mode", "A", "--hmac-key-file", &file], flags].concat();
    let reflecting = reflector(lab, &keyed)?;
    let capture = Capture::start(lab.node(2)?, "eth0", &format!("udp port {PORT} or udp port 8472"))?;
    let agent = Agent::start(lab.node(1)?, &options(lab, Some(OURS))?)?;
    wait(&agent, u64::from(is_answered))?;
    let page = after(&agent, "underlay", 200)?;
    let ignored = ["malformed", "unauthenticated"].map(|reason| ignored(&page, reason));
    let directions = lost(&page);
    let count = page.count("leadline_path_rtt_seconds_count", &[("layer", "underlay")]);
    // Nothing more comes, so that the counts can be compared exactly.
    agent.sigterm()?;
    let frames = capture.stop()?;
    let [received, reflected] = summary(reflecting)?;
    let seen = |of_answers: bool| {
        let packets = frames.iter().filter_map(|frame| truth::packet(&frame.bytes));
        packets.filter(|(_, [from, to], _)| if of_answers { *from == PORT } else { *to == PORT }).count()
    };
    let seen = [u64::try_from(seen(false))?, u64::try_from(seen(true))?];
    println!(
        "{keyed:?}: they {received} and {reflected}, tcpdump {seen:?}, ignored {ignored:?}, round trips {count:?}, \
         lost {directions:?}"
    );
    ensure!(
        received > 200 && [received, reflected] == seen,
        "they {received} and {reflected}, tcpdump {seen:?}"
    );
    assert_eq!((ignored, reflected > 200), ([Some(0), Some(0)], is_answered));
    ensure!(count.is_some_and(|count| (count > 100) == is_answered), "{count:?}");
    // Only what has a code is believed: without one, the follow-up is no sign that the reflector counts.
    let is_counted = is_answered && !flags.contains(&"ignore");
    assert_eq!([directions[0].is_some(), directions[1].is_some()], [is_counted; 2], "{directions:?}");
    ensure!(sent(&page, "underlay") > Some(200), "{page:?}");
    Ok(())
}

#[test]
fn a_foreign_reflector_answers_and_is_believed_with_the_same_key_alone() -> Result<()> {
    let lab = start()?;
    check_key(&lab, OURS, &["--stateful-reflector", "--verify-tlv-hmac"], true)?;
    // It makes a code of its packet, and gives back the TLVs with ours.
    check_key(&lab, OURS, &["--stateful-reflector", "--tlv-mode", "ignore"], true)?;
    check_key(&lab, OTHERS, STATEFUL, false)?;
    lab.shutdown()
}

/// The answer of a reflector that knows RFC 8762 alone: where later ones have the session identifier it has zeros, and it
/// gives back what follows the fields as it came.
fn base_answer(asked: &[u8]) -> Result<Vec<u8>> {
    let mut answer = asked.to_vec();
    let fields = answer.get_mut(..STAMP).context("a packet without its fields")?;
    let now = truth::now()?;
    let seconds = u32::try_from((now.as_secs() + EPOCH) & u64::from(u32::MAX))?.to_be_bytes();
    let fraction = u32::try_from((u64::from(now.subsec_nanos()) << 32) / 1_000_000_000)?.to_be_bytes();
    fields[4..].fill(0);
    for at in [4, 16] {
        fields[at..at + 4].copy_from_slice(&seconds);
        fields[at + 4..at + 8].copy_from_slice(&fraction);
    }
    // Its error estimate, and what the sender had said (4.3.1).
    fields[12..14].copy_from_slice(&[0, 1]);
    fields[24..28].copy_from_slice(&asked[..4]);
    fields[28..38].copy_from_slice(&asked[4..14]);
    Ok(answer)
}

/// Answers like that until it is told to stop; answers with how many it has answered.
fn answer_all(socket: &UdpSocket, is_over: &AtomicBool) -> Result<u64> {
    let (mut buffer, mut count) = ([0; 9_216], 0);
    while !is_over.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        socket.send_to(&base_answer(&buffer[..length])?, from).context("answer")?;
        count += 1;
    }
    Ok(count)
}

#[test]
fn a_reflector_that_knows_no_session_identifiers_is_understood() -> Result<()> {
    let lab = start()?;
    let socket = lab.node(2)?.net(|| UdpSocket::bind(("0.0.0.0", PORT)))?.context("bind")?;
    socket.set_read_timeout(Some(Duration::from_millis(100))).context("set the time-out")?;
    let is_over = AtomicBool::new(false);
    let found = thread::scope(|scope| {
        let answering = scope.spawn(|| answer_all(&socket, &is_over));
        let observed = observe_base(&lab);
        is_over.store(true, Ordering::Relaxed);
        Ok::<_, anyhow::Error>((observed?, answering.join().ok().context("the reflector panicked")??))
    });
    let ([sent, arrived], answered) = found?;
    println!("{sent} probes, {answered} answered by both layers, {arrived} round trips");
    ensure!(
        arrived + 10 >= sent && answered >= 2 * sent,
        "{sent} probes, {answered} answered, {arrived} arrived"
    );
    lab.shutdown()
}

/// What the agent makes of that reflector: probes and round trips on the underlay.
fn observe_base(lab: &Lab) -> Result<[u64; 2]> {
    let agent = prober(lab.node(1)?, 10)?;
    wait(&agent, 1)?;
    let page = after(&agent, "underlay", 300)?;
    assert_eq!(lost(&page)[..2], [None; 2]);
    for reason in ["malformed", "unexpected"] {
        assert_eq!(ignored(&page, reason), Some(0), "{reason}");
    }
    let arrived = page.count("leadline_path_rtt_seconds_count", &[("layer", "underlay")]);
    agent.sigterm()?;
    Ok([sent(&page, "underlay").context("nothing sent")?, arrived.context("no round trips")?])
}
