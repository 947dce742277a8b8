//! Paths between nodes as the agents probe them: round trips, losses by direction, pauses and strangers, against
//! tcpdump's times of the same probes and nftables' counts; and probes with codes, against those of openssl.

mod path {
    mod key;
    mod mtu;
    pub(crate) mod truth;
    mod tunnel;
}

use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::scrape::Samples;
use lab::witness::tcpdump::Capture;
use lab::witness::{ensure_precise, measured};
use lab::{Agent, AgentOptions, Delay, Disorder, Firewall, Flannel, Lab, LabOptions, Place, process};
use nix::sys::signal::Signal;
use path::truth::{self, Place as Seen, Truth, Watch};

const LIMIT: Duration = Duration::from_secs(20);
const PORT: u16 = 9862;
const LAYERS: [&str; 2] = ["underlay", "overlay"];
const DIRECTIONS: [&str; 3] = ["forward", "reverse", "unknown"];
/// Bytes of a plain STAMP packet (RFC 8762, 4.2.1).
const STAMP: usize = 44;
/// Answers after which the agent's jitter may have been told, and how far from tcpdump's it may be at least.
const JITTER_LAST: usize = 6;
const JITTER_ERROR: f64 = 10e-6;
/// Round trips in the agent's median.
const RECENT: usize = 64;

fn start() -> Result<Lab> {
    Lab::start(&LabOptions { nodes: 2, flannel: Some(Flannel::default()) })
}

/// Agents on both nodes, which have answers on both layers.
fn mesh(lab: &Lab) -> Result<[Agent; 2]> {
    let options = || {
        let arguments = vec!["--collector.path=on".into(), "--path.interval=10ms".into()];
        AgentOptions { arguments, ..AgentOptions::default() }
    };
    let agents = [Agent::start(lab.node(1)?, &options())?, Agent::start(lab.node(2)?, &options())?];
    for agent in &agents {
        agent.wait_page("answers on both layers", LIMIT, "leadline_path_", |page| {
            LAYERS.iter().all(|layer| page.count("leadline_path_reachable", &[("layer", layer)]) == Some(1))
        })?;
        // Probes from before the other agent began are told as lost two seconds after its first answer.
        after(agent, "overlay", 300)?;
    }
    Ok(agents)
}

fn sent(page: &Samples, layer: &str) -> Option<u64> {
    page.count("leadline_path_probes_sent_total", &[("layer", layer)])
}

fn lost(page: &Samples, layer: &str) -> Option<[u64; 3]> {
    let of = |way| page.count("leadline_path_probes_lost_total", &[("layer", layer), ("direction", way)]);
    let [forward, reverse, unknown] = DIRECTIONS.map(of);
    Some([forward?, reverse?, unknown?])
}

fn change(before: [u64; 3], after: [u64; 3]) -> [u64; 3] {
    [0, 1, 2].map(|way| after[way] - before[way])
}

/// The page once so many more probes were sent on that layer.
fn after(agent: &Agent, layer: &str, probes: u64) -> Result<Samples> {
    let goal = sent(&agent.scrape()?, layer).context("nothing sent")? + probes;
    let what = format!("{probes} more probes on {layer}");
    Ok(agent.wait_page(&what, LIMIT, "leadline_path_", |page| sent(page, layer) >= Some(goal))?.0)
}

/// The agent's jitter is tcpdump's after one of the last answers: the last ones may not be complete yet at a scrape.
#[expect(clippy::print_stdout, reason = "the figures are worth reading")]
fn check_jitter(page: &Samples, truth: &Truth, name: &str, layer: &str) -> Result<()> {
    let told = ["forward", "reverse"]
        .map(|way| page.value("leadline_path_jitter_seconds", &[("layer", layer), ("direction", way)]));
    for (way, told) in told.into_iter().enumerate() {
        let told = told.context("no jitter")?;
        let last: Vec<f64> = truth.jitter(layer, JITTER_LAST).iter().map(|ways| ways[way]).collect();
        let nearest = last.iter().copied().min_by(|a, b| (a - told).abs().total_cmp(&(b - told).abs()));
        let nearest = nearest.context("no round trips")?;
        println!(
            "{name} {layer} {}: jitter {:.1} us, tcpdump {:.1} us",
            DIRECTIONS[way],
            told * 1e6,
            nearest * 1e6
        );
        let is_near = (told - nearest).abs() < (0.2 * nearest).max(JITTER_ERROR);
        ensure_precise(is_near, || format!("{name} {layer}: jitter of {told} s, tcpdump has {last:?}"))?;
    }
    Ok(())
}

/// What the agent has sent between two scrapes is what tcpdump saw meanwhile, but for one about each scrape.
#[expect(clippy::print_stdout, reason = "the figures are worth reading")]
fn check_sent(pages: [&Samples; 2], times: [Duration; 2], truth: &Truth, layer: &str) -> Result<()> {
    let [before, after] = pages.map(|page| sent(page, layer));
    let told = after.context("nothing sent")? - before.context("nothing sent")?;
    let seen = truth.sent(layer, times) as u64;
    println!("{layer}: {told} probes sent, tcpdump saw {seen}");
    ensure!(told > 100, "{layer}: {told} probes sent");
    ensure_precise(told.abs_diff(seen) <= 2, || format!("{layer}: {told} probes sent, tcpdump saw {seen}"))
}

/// The round trips that the agent has counted between two scrapes are as many as tcpdump saw, and as long on average.
#[expect(clippy::print_stdout, reason = "the figures are worth reading")]
fn check_mean(
    pages: [&Samples; 2],
    times: [Duration; 2],
    truth: &Truth,
    (layer, error): (&str, f64),
) -> Result<()> {
    let part = |page: &Samples, part| {
        page.value(&format!("leadline_path_rtt_seconds_{part}"), &[("layer", layer)])
            .context("no round trips")
    };
    let grown = |name| Ok::<f64, anyhow::Error>(part(pages[1], name)? - part(pages[0], name)?);
    let (count, seen) = (grown("count")?, truth.arrived(layer, times));
    let told = grown("sum")? / count;
    let mean = seen.iter().sum::<f64>() / f64::from(u32::try_from(seen.len())?);
    println!(
        "{layer}: {count} round trips of {:.1} us, tcpdump {} of {:.1} us",
        told * 1e6,
        seen.len(),
        mean * 1e6
    );
    let is_near = (count - f64::from(u32::try_from(seen.len())?)).abs() <= 3.0 && (told - mean).abs() < error;
    ensure_precise(is_near, || {
        format!("{layer}: {count} round trips of {told} s, tcpdump {} of {mean} s", seen.len())
    })
}

/// The agent's median, jitter and number of probes and tcpdump's on each layer, as they are from now on.
#[expect(clippy::print_stdout, reason = "the figures are worth reading")]
fn compare(lab: &Lab, agent: &Agent, place: Seen, delay: &str, least: Duration) -> Result<()> {
    let watch = Watch::start(place, lab.node(1)?, lab.node(2)?)?;
    let (first, begin) = (agent.scrape()?, truth::now()?);
    let layers = place.layers();
    // The agent's median is then of captured probes alone.
    after(agent, layers[0], 2 * RECENT as u64)?;
    let (page, end) = (agent.scrape()?, truth::now()?);
    let seen = watch.stop()?;
    for layer in layers {
        check_sent([&first, &page], [begin, end], &seen, layer)?;
        check_mean([&first, &page], [begin, end], &seen, (layer, place.error()))?;
        check_jitter(&page, &seen, delay, layer)?;
        let median =
            page.value("leadline_path_rtt_median_seconds", &[("layer", layer)]).context("no median")?;
        let truth = seen.median(layer, RECENT)?;
        let error = median - truth.as_secs_f64();
        println!(
            "{delay} {layer}: agent {:.1} us, tcpdump {:.1} us, error {:.1} us",
            median * 1e6,
            truth.as_secs_f64() * 1e6,
            error * 1e6
        );
        ensure!(truth >= least, "{delay} {layer}: {truth:?} is less than the delay {least:?}");
        ensure_precise(error.abs() < place.error(), || {
            format!("{delay} {layer}: {median} s instead of {truth:?}")
        })?;
    }
    Ok(())
}

#[test]
fn the_median_round_trip_of_each_layer_is_tcpdumps() -> Result<()> {
    let lab = start()?;
    let [agent, _other] = mesh(&lab)?;
    measured(|| compare(&lab, &agent, Seen::Underlay, "no delay", Duration::ZERO))?;
    let ms = Duration::from_millis;
    for (name, delays) in [("5 ms each way", [ms(5), ms(5)]), ("2 ms there, 8 ms back", [ms(8), ms(2)])] {
        let _delay = Delay::insert_asymmetric(&lab, lab.node(2)?, delays)?;
        measured(|| compare(&lab, &agent, Seen::Underlay, name, ms(10)))?;
    }
    lab.shutdown()
}

/// One of seven datagrams comes three probes late and one of eleven twice, in each direction, for a while.
#[expect(clippy::print_stdout, reason = "the figures are worth reading")]
fn stir(lab: &Lab, agent: &Agent) -> Result<()> {
    let late_by = Duration::from_millis(35);
    let delay = Delay::disorder(lab, lab.node(2)?, Disorder { late_every: 7, late_by, twice_every: 11 })?;
    // What was lost while the cable was changed is told within two seconds.
    after(agent, "overlay", 300)?;
    let own = format!("({}) and dst host {}", truth::PROBES, lab.node(1)?.address(false)?);
    let capture = Capture::start_in_blocks(lab.node(1)?, "eth0", &own)?;
    let (first, begin) = (agent.scrape()?, truth::now()?);
    after(agent, "overlay", 500)?;
    delay.calm();
    // What is late has come, and what would be lost is told.
    let last = after(agent, "overlay", 300)?;
    let answers = truth::until_now(capture)?;
    for layer in LAYERS {
        let grown =
            |name| Some(last.count(name, &[("layer", layer)])? - first.count(name, &[("layer", layer)])?);
        let told =
            ["leadline_path_replies_reordered_total", "leadline_path_replies_duplicate_total"].map(grown);
        let seen = truth::disorder(&answers, layer, begin);
        println!("{layer}: {told:?} late and double answers, tcpdump saw {seen:?}");
        ensure!(seen.iter().all(|count| *count > 20), "{layer}: only {seen:?}");
        let is_near =
            told.iter().zip(seen).all(|(told, seen)| told.is_some_and(|told| told.abs_diff(seen) <= 1));
        ensure_precise(is_near, || format!("{layer}: {told:?}, tcpdump saw {seen:?}"))?;
        let losses = [lost(&first, layer), lost(&last, layer)];
        ensure!(losses[0].is_some() && losses[0] == losses[1], "{layer}: lost {losses:?}");
    }
    Ok(())
}

#[test]
fn late_and_double_answers_are_counted_and_are_no_losses() -> Result<()> {
    let lab = start()?;
    let [agent, _other] = mesh(&lab)?;
    measured(|| stir(&lab, &agent))?;
    lab.shutdown()
}

/// Drops a tenth of what enters that device of the place and fulfils the rule, until so many probes were sent; the
/// difference of the agent's losses, and nft's count.
fn lose(agent: &Agent, place: &impl Place, device: &str, rule: &str, layer: &str) -> Result<([u64; 3], u64)> {
    let before = lost(&agent.scrape()?, layer).context("no losses")?;
    let body = format!(
        "chain loss {{ type filter hook ingress device \"{device}\" priority 0;\n\
         {rule} numgen random mod 1000 < 100 counter drop\n}}\n"
    );
    let firewall = Firewall::add(place, "netdev", "path_loss", &body)?;
    after(agent, layer, 1_000)?;
    // From here on nothing is lost, and the count stands still.
    place.run(&["nft", "insert", "rule", "netdev", "path_loss", "loss", "accept"])?;
    let dropped = firewall.counted()?;
    // Losses are told two seconds later.
    let page = after(agent, layer, 300)?;
    Ok((change(before, lost(&page, layer).context("no losses")?), dropped))
}

#[test]
fn losses_are_counted_in_their_direction() -> Result<()> {
    let lab = start()?;
    let [agent, _other] = mesh(&lab)?;
    let [here, there] = [lab.node(1)?, lab.node(2)?];
    // Packets that look for the MTU are longer.
    let plain = "udp length < 200";
    for (layer, device) in [("underlay", "eth0"), ("overlay", "flannel.1")] {
        let (counted, dropped) = lose(&agent, there, device, &format!("udp dport {PORT} {plain}"), layer)?;
        println!("{layer} forward: nft {dropped}, agent {counted:?}");
        ensure!(dropped > 0 && counted == [dropped, 0, 0], "{layer}: {counted:?} of {dropped} forward");
        let (counted, dropped) = lose(&agent, here, device, &format!("udp sport {PORT} {plain}"), layer)?;
        println!("{layer} reverse: nft {dropped}, agent {counted:?}");
        ensure!(dropped > 0 && counted == [0, dropped, 0], "{layer}: {counted:?} of {dropped} in reverse");
    }
    lab.shutdown()
}

#[test]
fn an_agent_that_stood_still_has_lost_nothing() -> Result<()> {
    let lab = start()?;
    let [mut agent, other] = mesh(&lab)?;
    let before = LAYERS.map(|layer| agent.scrape().ok().and_then(|page| lost(&page, layer)));
    process::freeze(agent.service().pid())?;
    // Three seconds, by the probes of the other one.
    after(&other, "underlay", 300)?;
    agent.service().signal(Signal::SIGCONT)?;
    let page = after(&agent, "underlay", 400)?;
    for (layer, before) in LAYERS.into_iter().zip(before) {
        let before = before.context("no losses")?;
        assert_eq!(change(before, lost(&page, layer).context("no losses")?), [0; 3], "{layer}");
        assert_eq!(page.count("leadline_path_reachable", &[("layer", layer)]), Some(1), "{layer}");
    }
    assert_eq!(agent.events("path_lost")?, Vec::<serde_json::Value>::new());
    lab.shutdown()
}

#[test]
fn a_reflector_that_stood_still_has_lost_nothing_and_is_not_slow() -> Result<()> {
    let lab = start()?;
    let [agent, mut other] = mesh(&lab)?;
    let first = agent.scrape()?;
    process::freeze(other.service().pid())?;
    // Three seconds.
    after(&agent, "underlay", 300)?;
    other.service().signal(Signal::SIGCONT)?;
    let last = after(&agent, "underlay", 400)?;
    for layer in LAYERS {
        let [before, now] = [&first, &last].map(|page| lost(page, layer).context("no losses"));
        assert_eq!(change(before?, now?), [0; 3], "{layer}");
        let grown = |part: &str| {
            let of = |page: &Samples| {
                page.value(&format!("leadline_path_rtt_seconds_{part}"), &[("layer", layer)])
            };
            Some(of(&last)? - of(&first)?)
        };
        // The time that probes waited there is none of the network.
        let (count, sum) = grown("count").zip(grown("sum")).context("no round trips")?;
        println!("{layer}: {count} round trips of {:.1} us", sum / count * 1e6);
        ensure!(count > 600.0 && sum / count < 5e-3, "{layer}: {count} round trips of {} s", sum / count);
    }
    lab.shutdown()
}

/// Whether the reflector answers a plain packet from there, with as many bytes.
fn is_answered(from: &impl Place, to: Ipv4Addr) -> Result<bool> {
    from.net(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").context("bind")?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut packet = [0; STAMP];
        // An error estimate of nothing is none (RFC 4656, 4.1.2).
        packet[13] = 1;
        socket.send_to(&packet, (to, PORT)).context("send")?;
        match socket.recv(&mut [0; 512]) {
            Ok(length) => {
                ensure!(length == STAMP, "an answer of {length} bytes");
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error).context("receive"),
        }
    })?
}

#[test]
fn a_stranger_gets_no_answer_and_is_counted() -> Result<()> {
    let lab = start()?;
    let [agent, _other] = mesh(&lab)?;
    let strangers =
        |page: &Samples| page.count("leadline_path_requests_total", &[("result", "unknown_sender")]);
    let before = strangers(&agent.scrape()?).context("no count")?;
    let address = lab.node(1)?.ipv4().context("no address")?;
    ensure!(is_answered(lab.node(2)?, address)?, "a node gets no answer");
    assert_eq!(strangers(&agent.scrape()?), Some(before));
    ensure!(!is_answered(lab.switch()?, address)?, "a stranger got an answer");
    assert_eq!(strangers(&agent.scrape()?), Some(before + 1));
    lab.shutdown()
}
