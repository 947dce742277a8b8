//! Recorded probes in, series and changes out.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::plan::Layer;
use super::reflector::Answer;
use super::state::{Change, Heard};
use super::*;
use crate::metric::Format;
use crate::source::path::{Local, Received};
use crate::wire::stamp::{
    Authenticator, End, ErrorEstimate, FollowUp, Key, Mode, Reply, Request, Timestamp, tlvs,
};

const SECOND: u64 = 1_000_000_000;
const MILLISECOND: u64 = 1_000_000;
/// The wall clock here when the monotonic one is at 0, and what the peer's is ahead.
const EPOCH: u64 = 1_795_478_400 * SECOND;
const AHEAD: u64 = 77 * SECOND;
const PORT: u16 = 9862;
/// When an answer is taken, after its probe was sent.
const TAKEN: u64 = 50 * MILLISECOND;

/// A path with a peer that answers after 3 ms there, 5 ms residence, of which the last one in its kernel, 2 ms back.
struct Stage {
    paths: Paths,
    key: PathKey,
    now: u64,
    reflector: u32,
    follow_up: Option<(u32, u64)>,
    ahead: u64,
}

impl Stage {
    fn new() -> Self {
        let key = PathKey { peer: "node2".into(), layer: Layer::Underlay };
        let paths = Paths::new(Reflector::new(PORT, Authenticator::default()), Duration::from_secs(1));
        paths.lock().follow(&BTreeMap::from([(key.clone(), "192.0.2.2".parse().unwrap())]), true);
        Self { paths, key, now: 0, reflector: 0, follow_up: None, ahead: AHEAD }
    }

    /// Sends a probe a second after the last one; answers with its number.
    fn send(&mut self) -> u32 {
        self.now += SECOND;
        self.paths.lock().settle(self.now);
        let left = EPOCH + self.now;
        let mut state = self.paths.lock();
        let sequence = state.send(&self.key, self.now, left - 40_000).unwrap();
        state.transmitted(&self.key, sequence, left);
        sequence
    }

    /// What the peer makes of a probe that it got.
    fn reflect(&mut self, sequence: u32) -> Heard {
        let left = EPOCH + self.now;
        let received = (left + 3 * MILLISECOND).wrapping_add(self.ahead);
        let heard = Heard {
            sequence,
            reflector: self.reflector,
            is_counted: self.follow_up.is_some() || self.reflector != sequence,
            received,
            sent: received + 4 * MILLISECOND,
            arrived: left + 10 * MILLISECOND,
            follow_up: self.follow_up,
        };
        self.follow_up = Some((self.reflector, received + 5 * MILLISECOND));
        self.reflector = self.reflector.wrapping_add(1);
        heard
    }

    fn hear(&self, heard: &Heard) -> Option<Change> {
        self.paths.lock().hear(&self.key, heard, self.now + TAKEN)
    }

    /// Probes, each with what becomes of it: `.` answered, `>` lost there, `<` lost on the way back.
    fn run(&mut self, fates: &str) {
        for fate in fates.chars() {
            let sequence = self.send();
            if fate != '>' {
                let heard = self.reflect(sequence);
                if fate == '.' {
                    self.hear(&heard);
                }
            }
        }
    }

    fn wait(&mut self, seconds: u64) -> Vec<Change> {
        self.now += seconds * SECOND;
        self.paths.lock().settle(self.now)
    }

    /// The page without comments and buckets.
    fn page(&self) -> Vec<String> {
        let mut page = Vec::new();
        let mut sink = Sink::new(&mut page, Format::Text004);
        PathCollector::new(self.paths.clone()).collect(&mut sink).unwrap();
        drop(sink);
        let text = String::from_utf8(page).unwrap();
        text.lines()
            .filter(|line| !line.starts_with('#') && !line.contains("_bucket"))
            .map(str::to_owned)
            .collect()
    }

    fn value(&self, name: &str, more: &str) -> Option<f64> {
        let page = self.page();
        let of_name = |line: &&String| line.starts_with(&format!("leadline_path_{name}{{"));
        let line = page.iter().filter(of_name).find(|line| line.contains(more))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    fn lost(&self) -> [u64; 3] {
        self.told_lost().map(Option::unwrap)
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small counts")]
    fn told_lost(&self) -> [Option<u64>; 3] {
        ["forward", "reverse", "unknown"].map(|direction| {
            Some(self.value("probes_lost_total", &format!("direction=\"{direction}\""))? as u64)
        })
    }

    fn discarded(&self, reason: &str) -> Option<f64> {
        self.value("probes_discarded_total", reason)
    }
}

fn near(value: Option<f64>, expected: f64) -> bool {
    value.is_some_and(|value| (value - expected).abs() < 1e-9)
}

#[test]
fn a_round_trip_is_without_the_time_at_the_peer_and_in_its_kernel() {
    let mut stage = Stage::new();
    stage.run(".");
    // The next answer has to say when this one left.
    assert_eq!(
        (stage.value("rtt_seconds_count", ""), stage.value("rtt_median_seconds", "")),
        (Some(0.0), None)
    );
    stage.run("..");
    assert_eq!(stage.value("rtt_seconds_count", ""), Some(2.0));
    assert!(
        near(stage.value("rtt_seconds_sum", ""), 0.010) && near(stage.value("rtt_median_seconds", ""), 0.005)
    );
}

#[test]
fn without_its_word_the_time_in_the_peers_kernel_counts() {
    let mut stage = Stage::new();
    for _ in 0..5 {
        let sequence = stage.send();
        let heard = Heard { follow_up: None, ..stage.reflect(sequence) };
        stage.hear(&heard);
    }
    assert!(near(stage.value("rtt_seconds_sum", ""), 0.006));
    assert_eq!(stage.value("probes_sent_total", ""), Some(5.0));
}

#[test]
fn losses_have_the_direction_that_the_peers_numbers_tell() {
    for (fates, lost) in [
        (".>.", [1, 0, 0]),
        (".<.", [0, 1, 0]),
        (".><>.<<.>.", [3, 3, 0]),
        // Before the first answer nothing can be compared.
        (">.", [0, 0, 1]),
        ("<.>.", [1, 0, 1]),
    ] {
        let mut stage = Stage::new();
        stage.run(fates);
        stage.wait(2);
        assert_eq!(stage.lost(), lost, "{fates}");
    }
}

/// A stateless reflector repeats our numbers, however many it got.
#[test]
fn losses_at_a_reflector_that_does_not_count_have_no_direction() {
    let mut stage = Stage::new();
    for fate in "..>..<<.>.<.".chars() {
        let sequence = stage.send();
        stage.reflector = sequence;
        if fate == '.' {
            let heard = stage.reflect(sequence);
            stage.hear(&Heard { is_counted: false, follow_up: None, ..heard });
        }
    }
    stage.wait(2);
    assert_eq!(stage.told_lost(), [None, None, Some(5)]);
    assert_eq!(stage.value("rtt_seconds_count", ""), Some(3.0));
}

/// It says nothing of its packets, and its numbers are ours until it misses one.
#[test]
fn a_reflector_that_counts_shows_it_by_its_first_number_that_is_not_ours() {
    let mut stage = Stage::new();
    stage.follow_up = None;
    let mut run = |fates: &str| {
        for fate in fates.chars() {
            let sequence = stage.send();
            if fate == '>' {
                continue;
            }
            stage.follow_up = None;
            let heard = stage.reflect(sequence);
            if fate == '.' {
                stage.hear(&heard);
            }
        }
        stage.wait(2);
        stage.told_lost()
    };
    assert_eq!(run(".<."), [None, None, Some(1)]);
    assert_eq!(run(">."), [Some(1), Some(0), Some(1)]);
    assert_eq!(run("<.>."), [Some(2), Some(1), Some(1)]);
}

#[test]
fn a_peer_that_is_silent_for_long_is_lost_in_no_direction() {
    let mut stage = Stage::new();
    stage.run("..>>>>");
    stage.wait(2);
    assert_eq!(stage.lost(), [0; 3]);
    stage.wait(8);
    assert_eq!(stage.lost(), [0, 0, 4]);
    stage.run(".>.");
    stage.wait(2);
    assert_eq!(stage.lost(), [1, 0, 4]);
}

#[test]
fn an_agent_that_began_anew_numbers_anew() {
    let mut stage = Stage::new();
    stage.run(".....>");
    stage.reflector = 0;
    stage.run(".<.");
    stage.wait(2);
    assert_eq!(stage.lost(), [0, 1, 1]);
}

#[test]
fn three_silent_probes_are_a_lost_path_and_an_answer_brings_it_back() {
    let mut stage = Stage::new();
    assert_eq!(stage.value("reachable", ""), None);
    stage.run(".");
    assert_eq!(stage.value("reachable", ""), Some(1.0));
    stage.run(">>");
    assert_eq!((stage.wait(2), stage.value("reachable", "")), (Vec::new(), Some(1.0)));
    stage.run(">");
    let changes = stage.wait(2);
    let lost = Change { path: stage.key.clone(), lost_at: Some(2 * SECOND), lasted: None };
    assert_eq!((changes, stage.value("reachable", "")), (vec![lost], Some(0.0)));
    let sequence = stage.send();
    let heard = stage.reflect(sequence);
    let back = stage.hear(&heard).unwrap();
    assert_eq!((back.lost_at, back.lasted), (None, Some(stage.now + TAKEN - 2 * SECOND)));
    assert_eq!(stage.value("reachable", ""), Some(1.0));
}

/// As those are that were sent shortly before the other agent began.
#[test]
fn probes_that_are_missed_behind_an_answer_are_no_silence() {
    let mut stage = Stage::new();
    for _ in 0..5 {
        stage.send();
        stage.now -= SECOND * 9 / 10;
    }
    stage.run(".");
    assert_eq!((stage.wait(2), stage.value("reachable", "")), (Vec::new(), Some(1.0)));
    stage.run(">>>");
    assert_eq!(stage.wait(2).len(), 1);
}

#[test]
fn a_peer_that_never_answered_is_not_lost() {
    let mut stage = Stage::new();
    stage.run(">>>>");
    assert_eq!((stage.wait(2), stage.value("reachable", "")), (Vec::new(), Some(0.0)));
    assert_eq!(PathCollector::new(stage.paths.clone()).support(), Support::Degraded(NO_ANSWER));
    let sequence = stage.send();
    let heard = stage.reflect(sequence);
    assert_eq!(stage.hear(&heard), None);
    assert_eq!(PathCollector::new(stage.paths.clone()).support(), Support::Yes);
}

#[test]
fn a_peer_that_slept_and_answers_late_has_lost_nothing() {
    let mut stage = Stage::new();
    stage.run(".");
    let asked: Vec<Heard> = (0..6)
        .map(|_| {
            let sequence = stage.send();
            stage.reflect(sequence)
        })
        .collect();
    // It had them for seconds: none of that is the network's.
    let slept = 6 * SECOND;
    stage.now += slept;
    for heard in asked {
        stage.hear(&Heard {
            sent: heard.sent + slept,
            arrived: heard.arrived + slept,
            follow_up: None,
            ..heard
        });
    }
    stage.run(".....");
    stage.wait(2);
    assert_eq!(stage.lost(), [0; 3]);
    assert!(stage.value("rtt_median_seconds", "").is_some_and(|median| median < 0.007));
}

#[test]
fn probes_during_a_pause_are_not_lost() {
    let mut stage = Stage::new();
    stage.run("..");
    stage.send();
    stage.send();
    stage.paths.lock().excuse(Discard::Pause);
    stage.run("..");
    stage.wait(2);
    assert_eq!((stage.lost(), stage.discarded("pause")), ([0; 3], Some(2.0)));
}

#[test]
fn an_answer_that_came_during_a_pause_counts() {
    let mut stage = Stage::new();
    stage.run("..");
    let sequence = stage.send();
    let heard = stage.reflect(sequence);
    stage.paths.lock().excuse(Discard::Pause);
    stage.hear(&heard);
    stage.run(".");
    stage.wait(2);
    assert_eq!((stage.discarded("pause"), stage.value("rtt_seconds_count", "")), (Some(0.0), Some(3.0)));
}

#[test]
fn probes_that_span_a_step_of_this_clock_are_discarded() {
    for step in [SECOND * 3_600, 0_u64.wrapping_sub(SECOND * 3_600)] {
        let mut stage = Stage::new();
        stage.run("...");
        let sequence = stage.send();
        let heard = stage.reflect(sequence);
        stage.paths.lock().excuse(Discard::ClockStep);
        stage.hear(&Heard { arrived: heard.arrived.wrapping_add(step), ..heard });
        stage.run("....");
        stage.wait(2);
        assert_eq!((stage.lost(), stage.discarded("clock_step")), ([0; 3], Some(1.0)));
        assert_eq!(stage.value("rtt_seconds_count", ""), Some(6.0));
        assert!(near(stage.value("rtt_seconds_sum", ""), 0.030));
    }
}

/// The answer comes between the question whether a clock was set and the look at what came.
#[test]
fn a_step_of_this_clock_that_is_not_told_yet_is_seen() {
    for step in [SECOND * 3_600, 0_u64.wrapping_sub(SECOND * 3_600)] {
        let mut stage = Stage::new();
        stage.run("...");
        let sequence = stage.send();
        let heard = stage.reflect(sequence);
        stage.hear(&Heard { arrived: heard.arrived.wrapping_add(step), ..heard });
        stage.run("....");
        stage.wait(2);
        assert_eq!((stage.lost(), stage.discarded("clock_step")), ([0; 3], Some(1.0)), "{step}");
        assert!(near(stage.value("rtt_seconds_sum", ""), 0.030));
    }
}

#[test]
fn steps_of_the_peers_clock_are_seen_where_they_matter() {
    for step in [SECOND * 3_600, 0_u64.wrapping_sub(SECOND * 3_600)] {
        let mut stage = Stage::new();
        stage.run("....");
        // Between coming and leaving there.
        let sequence = stage.send();
        let heard = stage.reflect(sequence);
        stage.ahead = stage.ahead.wrapping_add(step);
        stage.follow_up = stage.follow_up.map(|(number, at)| (number, at.wrapping_add(step)));
        stage.hear(&Heard { sent: heard.sent.wrapping_add(step), ..heard });
        stage.run("....");
        stage.wait(2);
        assert_eq!((stage.lost(), stage.discarded("clock_step")), ([0; 3], Some(1.0)), "{step}");
        assert!(near(stage.value("rtt_median_seconds", ""), 0.005));
        assert!(stage.value("jitter_seconds", "forward").is_some_and(|jitter| jitter < 1e-9));
    }
}

#[test]
fn jitter_is_that_of_the_direction() {
    let mut stage = Stage::new();
    for late in [0, 16 * MILLISECOND, 0, 0] {
        let sequence = stage.send();
        let heard = stage.reflect(sequence);
        stage.follow_up = None;
        let [received, sent, arrived] = [heard.received, heard.sent, heard.arrived].map(|time| time + late);
        stage.hear(&Heard { received, sent, arrived, follow_up: None, ..heard });
    }
    // The first answers are complete once four wait behind them; three more have told by then when they left.
    stage.run("....");
    // RFC 3550: 16 ms of change twice, each a sixteenth of the way there: 1, then 1 + 15/16; then four without change.
    let expected = (0.001 + (0.016 - 0.001) / 16.0) * (15.0_f64 / 16.0).powi(4);
    let forward = stage.value("jitter_seconds", "forward").unwrap();
    assert!((forward - expected).abs() < 1e-9, "{forward} {expected}");
    assert!(stage.value("jitter_seconds", "reverse").unwrap() < 1e-4);
}

#[test]
fn overtaken_and_doubled_answers_are_counted_and_not_lost() {
    let mut stage = Stage::new();
    stage.run(".");
    let [first, second] = [0, 1].map(|_| {
        let sequence = stage.send();
        stage.reflect(sequence)
    });
    stage.hear(&second);
    stage.hear(&first);
    stage.hear(&first);
    stage.run(".");
    stage.wait(2);
    assert_eq!(stage.lost(), [0; 3]);
    assert_eq!(
        (stage.value("replies_reordered_total", ""), stage.value("replies_duplicate_total", "")),
        (Some(1.0), Some(1.0))
    );
}

#[test]
fn an_answer_to_nothing_is_ignored() {
    let mut stage = Stage::new();
    let heard = Heard { sequence: 99, ..stage.reflect(0) };
    assert_eq!(stage.hear(&heard), None);
    assert_eq!(stage.value("replies_ignored_total", "unexpected"), Some(1.0));
}

#[test]
fn numbers_go_on_behind_the_last() {
    let mut stage = Stage::new();
    stage.reflector = u32::MAX - 2;
    stage.run("..>.<..");
    stage.wait(2);
    assert_eq!(stage.lost(), [1, 1, 0]);
}

#[test]
fn nobody_else_is_a_reason_and_an_empty_page() {
    let paths = Paths::new(Reflector::new(PORT, Authenticator::default()), Duration::from_secs(1));
    assert_eq!(PathCollector::new(paths.clone()).support(), Support::No(NO_NODES));
    paths.lock().follow(&BTreeMap::new(), true);
    assert_eq!(PathCollector::new(paths).support(), Support::No(OTHERS));
}

const REQUEST: Request =
    Request { sequence: 40, timestamp: Timestamp(7), error: ErrorEstimate::UNSYNCHRONIZED, ssid: 1 };

fn request(ssid: u16, sequence: u32) -> Vec<u8> {
    Request { sequence, ssid, ..REQUEST }.encode(Mode::Unauthenticated)
}

fn came(from: &str) -> Received {
    let from: SocketAddr = from.parse().unwrap();
    let address: IpAddr = "192.0.2.1".parse().unwrap();
    let local = Some(Local { address, interface: 2 });
    Received { length: 0, from, local, at: Some(EPOCH), hop_limit: Some(63) }
}

fn ask(reflector: &mut Reflector, packet: &[u8], from: &str, now: u64) -> Result<Answer, Verdict> {
    let is_node = |address: IpAddr| address.to_string().starts_with("192.0.2.");
    reflector.answer(packet, &came(from), is_node, now, EPOCH + 5)
}

fn reply(answer: &Answer) -> Reply {
    Reply::parse(&answer.packet, Mode::Unauthenticated).unwrap()
}

#[test]
fn each_session_is_numbered_by_itself() {
    let mut reflector = Reflector::new(PORT, Authenticator::default());
    let asked = [("192.0.2.2:1000", 1), ("192.0.2.2:1000", 2), ("192.0.2.2:1000", 1), ("192.0.2.3:1000", 1)];
    let numbers: Vec<u32> = asked
        .iter()
        .map(|(from, ssid)| reply(&ask(&mut reflector, &request(*ssid, 40), from, 0).unwrap()).sequence)
        .collect();
    assert_eq!(numbers, [0, 0, 1, 0]);
}

#[test]
fn an_answer_repeats_the_question_and_follows_up_on_the_one_before() {
    let mut reflector = Reflector::new(PORT, Authenticator::default());
    let first = ask(&mut reflector, &request(9, 40), "192.0.2.2:1000", 0).unwrap();
    reflector.leaves(&first, 5);
    reflector.transmitted(5, EPOCH + 123);
    let packet = request(9, 41);
    let second = ask(&mut reflector, &packet, "192.0.2.2:1000", 0).unwrap();
    let read = reply(&second);
    assert_eq!(
        (read.sender_sequence, read.sender_timestamp, read.ssid, read.sender_ttl),
        (41, Timestamp(7), 9, 63)
    );
    assert_eq!((read.received.unix_nanos(), read.timestamp.unix_nanos()), (EPOCH, EPOCH + 5));
    assert_eq!(second.packet.len(), packet.len());
    let tlv = tlvs(&second.packet, Mode::Unauthenticated).next().unwrap().unwrap();
    assert_eq!(
        FollowUp::read(&tlv).map(|up| (up.sequence, up.timestamp.unix_nanos())),
        Some((0, EPOCH + 123))
    );
}

#[test]
fn a_kernel_that_never_says_when_an_answer_left_hides_no_numbers() {
    let mut reflector = Reflector::new(PORT, Authenticator::default());
    let mut told = || {
        let answer = ask(&mut reflector, &request(9, 40), "192.0.2.2:1000", 0).unwrap();
        FollowUp::read(&tlvs(&answer.packet, Mode::Unauthenticated).next().unwrap().unwrap())
    };
    let untimed = |sequence| Some(FollowUp { sequence, timestamp: Timestamp::default() });
    // That of the first is 0, like one that nobody filled in.
    assert_eq!([told(), told(), told(), told()], [None, None, untimed(1), untimed(2)]);
}

#[test]
fn who_is_no_node_or_another_reflector_gets_no_answer() {
    let mut reflector = Reflector::new(PORT, Authenticator::default());
    let packet = request(1, 0);
    assert_eq!(ask(&mut reflector, &packet, "198.51.100.9:1000", 0), Err(Verdict::UnknownSender));
    assert_eq!(ask(&mut reflector, &packet, "192.0.2.2:9862", 0), Err(Verdict::Malformed));
    assert_eq!(ask(&mut reflector, &packet[..43], "192.0.2.2:1000", 0), Err(Verdict::Malformed));
}

#[test]
fn who_has_no_key_gets_no_answer_and_uses_nothing_up() {
    let keys = [&[1; 16], &[2; 16]].map(|key| Authenticator::new(Some(Key::new(key))));
    let [ours, others] = &keys;
    let mut reflector = Reflector::new(PORT, ours.clone());
    let sealed = |authenticator: &Authenticator| {
        let mut packet = REQUEST.encode(Mode::Authenticated);
        authenticator.seal(&mut packet);
        packet
    };
    let answer = ask(&mut reflector, &sealed(ours), "192.0.2.2:1000", 0).unwrap().packet;
    assert!(ours.accepts(&answer, End::Reflector) && !others.accepts(&answer, End::Reflector));
    assert_eq!(Reply::parse(&answer, Mode::Authenticated).unwrap().sender_sequence, REQUEST.sequence);
    assert_eq!(answer.len(), sealed(ours).len());
    for forged in [sealed(others), REQUEST.encode(Mode::Authenticated), request(1, 0), Vec::new()] {
        for _ in 0..2_000 {
            let verdict = ask(&mut reflector, &forged, "192.0.2.2:1000", 0);
            assert_eq!(verdict, Err(Verdict::Unauthenticated));
        }
    }
    ask(&mut reflector, &sealed(ours), "192.0.2.2:1000", 0).unwrap();
    // The other way round: what has codes is nothing to a reflector that has no key.
    let mut open = Reflector::new(PORT, Authenticator::default());
    assert_eq!(ask(&mut open, &sealed(ours), "192.0.2.2:1000", 0), Err(Verdict::Malformed));
}

#[test]
fn who_asks_too_much_has_to_wait() {
    let mut reflector = Reflector::new(PORT, Authenticator::default());
    let packet = request(1, 0);
    let mut answered =
        |from: &str, now| (0..5_000).filter(|_| ask(&mut reflector, &packet, from, now).is_ok()).count();
    assert_eq!(answered("192.0.2.2:1000", 0), 1_500);
    assert_eq!(answered("192.0.2.3:1000", 0), 1_500);
    assert_eq!(answered("192.0.2.2:1000", SECOND / 10), 150);
    assert_eq!(answered("192.0.2.2:1000", SECOND * 60), 1_500);
}

#[test]
fn sessions_are_bounded_and_the_longest_unused_goes() {
    let mut reflector = Reflector::new(PORT, Authenticator::default());
    for ssid in 0..1_025_u16 {
        ask(&mut reflector, &request(ssid, 0), "192.0.2.2:1000", u64::from(ssid) * SECOND).unwrap();
    }
    let mut next = |ssid| {
        reply(&ask(&mut reflector, &request(ssid, 0), "192.0.2.2:1000", 2_000 * SECOND).unwrap()).sequence
    };
    assert_eq!([next(1_024), next(0)], [1, 0]);
}
