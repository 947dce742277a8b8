//! Replays: rounds as they come when members fail, and what is shown and told of them.

use std::collections::BTreeMap;
use std::time::Duration;

use probe_common::tcp::TcpCell;

use super::fixture::{member, status};
use super::round::Round;
use super::state::State;
use super::{Etcd, Known};
use crate::collector::{Collector as _, Support};
use crate::event::{Kind, Timestamp};
use crate::kernel::PortCount;
use crate::metric::Format;
use crate::metric::sink::Sink;
use crate::source::etcd::{
    Alarm, Answer, AskError, Cause, CredentialError, ElectionTimeout, Member, MemberId, Origin, Page, Peer,
    Status,
};

/// What a member does in a round.
#[derive(Clone, Debug)]
enum Does {
    /// It answers and follows this one.
    Follow(u64),
    /// It answers and knows no leader.
    Search,
    /// It says this of itself.
    Say(Box<Status>),
    Refuse,
    Hang,
}

use Does::{Follow, Hang, Refuse, Search};

fn failed(cause: Cause) -> Answer {
    let error = AskError { endpoint: "https://192.0.2.1:2379".to_owned(), cause };
    Answer { status: Err(error.clone()), list: Err(error) }
}

fn answer(id: u64, does: &Does, list: &[Member]) -> Answer {
    let told = match does {
        Follow(leader) => Status { leader: Some(MemberId(*leader)), ..status(id) },
        Search => Status { leader: None, ..status(id) },
        Does::Say(status) => (**status).clone(),
        Refuse => return failed(Cause::Refused),
        Hang => return failed(Cause::Late(Duration::from_millis(500))),
    };
    Answer { status: Ok(told), list: Ok(list.to_vec()) }
}

/// A cluster that is watched once a second.
struct Replay {
    known: Known,
    list: Vec<Member>,
    seconds: u64,
}

impl Replay {
    fn new(members: u64) -> Self {
        Self { known: Known::default(), list: (1..=members).map(member).collect(), seconds: 0 }
    }

    fn round(&self, answers: BTreeMap<MemberId, Answer>) -> Round {
        Round {
            now: Duration::from_secs(self.seconds),
            time: Timestamp::from_unix_nanos((1_700_000_000 + self.seconds) * 1_000_000_000),
            page: Err("no page"),
            health: None,
            expects_page: true,
            answers,
            strangers: Vec::new(),
            reads: BTreeMap::new(),
            is_client: true,
            election_timeout: Some(ElectionTimeout {
                length: Duration::from_secs(1),
                origin: Origin::Manifest,
            }),
        }
    }

    /// One second later: what the members do, in the order of the list.
    fn step(&mut self, does: &[Does]) -> Vec<(Kind, String)> {
        self.seconds += 1;
        let answers = self.list.iter().zip(does);
        let answers =
            answers.map(|(member, does)| (member.id, answer(member.id.0, does, &self.list))).collect();
        self.take(self.round(answers))
    }

    fn take(&self, round: Round) -> Vec<(Kind, String)> {
        let events = self.known.lock().observe(round);
        events.into_iter().map(|event| (event.kind, event.subject)).collect()
    }

    fn page(&self) -> String {
        let mut out = Vec::new();
        let mut sink = Sink::new(&mut out, Format::Text004);
        Etcd::new(self.known.clone(), None).collect(&mut sink).unwrap();
        sink.finish();
        String::from_utf8(out).unwrap()
    }

    /// The value of a series, as text.
    fn value(&self, series: &str) -> Option<String> {
        let page = self.page();
        page.lines().find_map(|line| {
            line.strip_prefix("leadline_etcd_")?.strip_prefix(series)?.strip_prefix(' ').map(str::to_owned)
        })
    }

    fn margin(&self) -> String {
        self.value("quorum_margin").unwrap()
    }

    fn has_quorum(&self) -> bool {
        self.value("has_quorum").unwrap() == "1"
    }
}

fn told(kind: Kind, subject: &str) -> Vec<(Kind, String)> {
    vec![(kind, subject.to_owned())]
}

#[test]
fn two_of_three_are_lost_one_after_the_other() {
    let mut replay = Replay::new(3);
    assert_eq!(replay.step(&[Follow(1), Follow(1), Follow(1)]), []);
    assert_eq!((replay.margin().as_str(), replay.has_quorum()), ("1", true));
    // The leader goes, and the others elect.
    assert_eq!(replay.step(&[Refuse, Search, Search]), told(Kind::EtcdMemberLost, "node1"));
    assert_eq!((replay.margin().as_str(), replay.has_quorum()), ("0", true));
    assert_eq!(replay.step(&[Refuse, Search, Follow(3)]), told(Kind::EtcdLeaderChanged, "node3"));
    assert_eq!((replay.margin().as_str(), replay.has_quorum()), ("0", true));
    assert_eq!(replay.step(&[Refuse, Follow(3), Follow(3)]), []);
    // The second: now it is lost.
    let events = replay.step(&[Refuse, Follow(3), Refuse]);
    let lost = [(Kind::EtcdMemberLost, "node3".to_owned()), (Kind::EtcdQuorumLost, "etcd".to_owned())];
    assert_eq!(events, lost);
    assert_eq!((replay.margin().as_str(), replay.has_quorum()), ("-1", false));
    assert_eq!(replay.value("term{member=\"3\"}"), None);
    assert_eq!(replay.value("member_failure{member=\"3\",reason=\"refused\"}").unwrap(), "1");
    let events = replay.step(&[Follow(1), Follow(1), Follow(1)]);
    let kinds: Vec<Kind> = events.into_iter().map(|(kind, _)| kind).collect();
    let back = [Kind::EtcdMemberBack, Kind::EtcdMemberBack, Kind::EtcdLeaderChanged, Kind::EtcdQuorumBack];
    assert_eq!(kinds, back);
    assert_eq!((replay.margin().as_str(), replay.has_quorum()), ("1", true));
}

#[test]
fn members_that_were_not_asked_yet_are_not_missed() {
    let mut replay = Replay::new(3);
    // The list comes with the first answer, and the others are asked only then.
    let first = [(MemberId(1), answer(1, &Follow(1), &replay.list))];
    assert_eq!(replay.take(replay.round(first.into())), []);
    assert_eq!((replay.value("quorum_margin"), replay.value("has_quorum")), (None, None));
    assert_eq!(replay.step(&[Follow(1), Follow(1), Follow(1)]), []);
    assert_eq!((replay.margin().as_str(), replay.has_quorum()), ("1", true));
    // So it is with one that joins as a voter.
    let asked = replay.list.clone();
    replay.list.push(member(4));
    let answers = asked.iter().map(|member| (member.id, answer(member.id.0, &Follow(1), &replay.list)));
    let round = replay.round(answers.collect());
    assert_eq!(replay.take(round), told(Kind::EtcdMemberAdded, "node4"));
    assert_eq!((replay.margin().as_str(), replay.has_quorum()), ("1", true));
    // Once it was asked, it counts.
    assert_eq!(replay.step(&[Follow(1), Follow(1), Follow(1), Refuse]), []);
    assert_eq!(replay.margin(), "0");
}

#[test]
fn one_late_answer_shows_and_is_not_told() {
    let mut replay = Replay::new(3);
    replay.step(&[Follow(1), Follow(1), Follow(1)]);
    assert_eq!(replay.step(&[Follow(1), Hang, Hang]), []);
    assert_eq!((replay.margin().as_str(), replay.has_quorum()), ("-1", false));
    assert_eq!(replay.step(&[Follow(1), Follow(1), Follow(1)]), []);
    replay.step(&[Follow(1), Hang, Hang]);
    let kinds: Vec<Kind> = replay.step(&[Follow(1), Hang, Hang]).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, [Kind::EtcdMemberLost, Kind::EtcdMemberLost, Kind::EtcdQuorumLost]);
}

#[test]
fn an_election_that_does_not_end_is_a_loss() {
    let mut replay = Replay::new(3);
    replay.step(&[Follow(1), Follow(1), Follow(1)]);
    for _ in 0..2 {
        assert_eq!(replay.step(&[Search, Search, Search]), []);
        assert!(replay.has_quorum());
    }
    assert_eq!(replay.step(&[Search, Search, Search]), told(Kind::EtcdQuorumLost, "etcd"));
    assert_eq!((replay.margin().as_str(), replay.has_quorum()), ("1", false));
    assert_eq!(replay.step(&[Follow(2), Follow(2), Follow(2)]).len(), 2);
}

#[test]
fn a_member_that_is_cut_off_does_not_count_for_long() {
    let mut replay = Replay::new(3);
    replay.step(&[Follow(1), Follow(1), Follow(1)]);
    for _ in 0..3 {
        replay.step(&[Follow(1), Follow(1), Search]);
        assert_eq!(replay.margin(), "1");
    }
    replay.step(&[Follow(1), Follow(1), Search]);
    assert_eq!((replay.margin().as_str(), replay.has_quorum()), ("0", true));
    assert_eq!(replay.value("member_healthy{member=\"3\"}").unwrap(), "0");
    replay.step(&[Follow(1), Follow(1), Follow(1)]);
    assert_eq!(replay.margin(), "1");
}

#[test]
fn the_last_list_stays_and_answers_do_not() {
    let mut replay = Replay::new(3);
    replay.step(&[Follow(1), Follow(1), Follow(1)]);
    let read = replay.value("member_list_timestamp_seconds").unwrap();
    replay.step(&[Hang, Hang, Hang]);
    assert_eq!(replay.margin(), "-2");
    assert_eq!(replay.value("member_list_timestamp_seconds").unwrap(), read);
    assert_eq!(replay.value("members{role=\"voter\"}").unwrap(), "3");
    assert_eq!(replay.value("member_last_answer_timestamp_seconds{member=\"2\"}").unwrap(), read);
    for gone in ["term{", "raft_index{", "leader{", "database_bytes{", "alarm{"] {
        assert!(!replay.page().contains(&format!("leadline_etcd_{gone}")), "{gone}");
    }
}

#[test]
fn only_a_difference_that_lasts_is_shown() {
    let mut replay = Replay::new(3);
    replay.step(&[Follow(1), Follow(1), Follow(1)]);
    replay.step(&[Follow(1), Follow(2), Follow(2)]);
    assert_eq!(replay.value("disagreement{subject=\"leader\"}").unwrap(), "0");
    replay.step(&[Follow(1), Follow(2), Follow(2)]);
    assert_eq!(replay.value("disagreement{subject=\"leader\"}").unwrap(), "1");
    replay.step(&[Follow(2), Follow(2), Follow(2)]);
    assert_eq!(replay.value("disagreement{subject=\"leader\"}").unwrap(), "0");
}

#[test]
fn who_joins_is_promoted_and_leaves_is_told() {
    let mut replay = Replay::new(3);
    replay.step(&[Follow(1), Follow(1), Follow(1)]);
    replay.list.push(Member { is_learner: true, name: String::new(), ..member(4) });
    let well = [Follow(1), Follow(1), Follow(1), Refuse];
    assert_eq!(replay.step(&well), told(Kind::EtcdMemberAdded, "4"));
    assert_eq!(
        (replay.margin().as_str(), replay.value("members{role=\"learner\"}").unwrap().as_str()),
        ("1", "1")
    );
    assert_eq!(replay.value("member_learner_since_timestamp_seconds{member=\"4\"}").unwrap(), "1700000002");
    // What has never answered is not lost.
    assert_eq!(replay.step(&well), []);
    replay.list[3] = member(4);
    let well = [Follow(1), Follow(1), Follow(1), Follow(1)];
    assert_eq!(replay.step(&well), told(Kind::EtcdMemberPromoted, "node4"));
    assert_eq!((replay.margin().as_str(), replay.value("voters_even").unwrap().as_str()), ("1", "1"));
    assert_eq!(replay.value("member_learner_since_timestamp_seconds{member=\"4\"}"), None);
    replay.list.pop();
    assert_eq!(replay.step(&well), told(Kind::EtcdMemberRemoved, "node4"));
    assert_eq!(replay.value("member_healthy{member=\"4\"}"), None);
}

#[test]
fn an_alarm_is_told_when_it_is_raised_and_when_it_is_cleared() {
    let mut replay = Replay::new(1);
    replay.step(&[Follow(1)]);
    assert_eq!(replay.value("alarm{member=\"1\",alarm=\"nospace\"}").unwrap(), "0");
    let full = Status { alarms: [(MemberId(1), Alarm::NoSpace)].into(), ..status(1) };
    assert_eq!(replay.step(&[Does::Say(Box::new(full))]), told(Kind::EtcdAlarmRaised, "node1"));
    assert_eq!(replay.value("alarm{member=\"1\",alarm=\"nospace\"}").unwrap(), "1");
    // Who does not answer does not say that it is over.
    replay.step(&[Refuse]);
    let events = replay.step(&[Follow(1)]);
    assert!(events.contains(&(Kind::EtcdAlarmCleared, "node1".to_owned())), "{events:?}");
}

#[test]
fn the_page_alone_tells_of_a_leader_and_not_of_a_margin() {
    let mut replay = Replay::new(0);
    let mut look = |has_leader, changes| {
        replay.seconds += 1;
        let peers =
            [(MemberId(2), Peer { is_active: Some(true), send_failures: None, round_trips: Some((3, 0.3)) })];
        let page = Page {
            member: Some(MemberId(1)),
            has_leader: Some(has_leader),
            leader_changes: Some(changes),
            peers: peers.into(),
            ..Page::default()
        };
        let health = Some(has_leader);
        let round = Round { page: Ok(page), health, is_client: false, ..replay.round(BTreeMap::new()) };
        let events = replay.take(round);
        (events, replay.value("has_quorum"), replay.value("has_leader{member=\"1\"}"))
    };
    let flag = |is: &str| Some(is.to_owned());
    assert_eq!(look(true, 1), (vec![], flag("1"), flag("1")));
    assert_eq!(look(false, 1), (told(Kind::EtcdQuorumLost, "etcd"), flag("0"), flag("0")));
    let (events, ..) = look(true, 2);
    let back = [(Kind::EtcdLeaderChanged, "etcd".to_owned()), (Kind::EtcdQuorumBack, "etcd".to_owned())];
    assert_eq!(events, back);
    assert_eq!(replay.value("health{member=\"1\"}"), flag("1"));
    for unknown in ["quorum_margin", "members{", "member_healthy{", "quorum "] {
        assert!(!replay.page().contains(&format!("leadline_etcd_{unknown}")), "{unknown}");
    }
    assert_eq!(replay.value("peer_send_failures_total{member=\"1\",peer_member=\"2\"}").unwrap(), "0");
}

#[test]
fn a_smoothed_round_trip_is_the_last_one_that_came() {
    let replay = Replay::new(0);
    let seen = [(3, 0.3), (3, 0.3), (4, 0.5), (4, 0.5), (6, 0.6)].map(|round_trips| {
        let peer = Peer { is_active: Some(true), send_failures: None, round_trips: Some(round_trips) };
        let page = Page { member: Some(MemberId(1)), peers: [(MemberId(2), peer)].into(), ..Page::default() };
        replay.take(Round { page: Ok(page), ..replay.round(BTreeMap::new()) });
        let value = replay.value("peer_smoothed_rtt_seconds{member=\"1\",peer_member=\"2\"}");
        value.map(|value| (value.parse::<f64>().unwrap() * 1e6).round())
    });
    assert_eq!(seen, [None, None, Some(200_000.0), Some(200_000.0), Some(50_000.0)]);
}

#[test]
fn what_keeps_the_agent_out_is_the_reason() {
    let replay = Replay::new(1);
    let support = |round| {
        replay.take(round);
        Etcd::new(replay.known.clone(), None).support()
    };
    assert_eq!(
        Etcd::new(replay.known.clone(), None).support(),
        Support::No("etcd is still being looked for")
    );
    let of = |cause| {
        let stranger = AskError { endpoint: "https://127.0.0.1:2379".to_owned(), cause };
        Round { strangers: vec![stranger], ..replay.round(BTreeMap::new()) }
    };
    let unusable = Cause::Credentials(CredentialError::Unusable("x".to_owned()));
    for (cause, reason) in [
        (Cause::Refused, "etcd does not run, or does not listen where it should"),
        (Cause::OtherCa, "the certificate of etcd was signed by another CA"),
        (unusable, "the client certificate of etcd cannot be used, see the log"),
    ] {
        assert_eq!(support(of(cause)), Support::Degraded(reason));
    }
    let page = Page { member: Some(MemberId(1)), ..Page::default() };
    let alone = Round { page: Ok(page), is_client: false, ..replay.round(BTreeMap::new()) };
    assert!(
        matches!(support(alone), Support::Degraded(reason) if reason.starts_with("no client certificate"))
    );
    let answers = [(MemberId(1), answer(1, &Follow(1), &replay.list))].into();
    assert_eq!(support(replay.round(answers)), Support::Degraded("no page"));
    // All members are elsewhere.
    let answers = [(MemberId(1), answer(1, &Follow(1), &replay.list))].into();
    assert_eq!(support(Round { expects_page: false, ..replay.round(answers) }), Support::Yes);
}

#[test]
fn a_node_that_loses_its_etcd_forgets_it() {
    let mut replay = Replay::new(3);
    replay.step(&[Follow(1), Follow(1), Follow(1)]);
    replay.known.lock().miss("no etcd on this node");
    assert!(!replay.page().contains("leadline_etcd_"));
    assert!(State::default().members().is_empty() && replay.known.lock().members().is_empty());
}

#[test]
fn the_farthest_peer_takes_its_part_of_the_election_timeout() {
    let mut replay = Replay::new(3);
    replay.step(&[Follow(1), Follow(1), Follow(1)]);
    let count = |port, peer: &str, least_microseconds| PortCount {
        port,
        peer: peer.parse().unwrap(),
        tcp: TcpCell::default(),
        transmit_segments: 0,
        least_microseconds,
    };
    let counts = vec![
        count(2380, "192.0.2.2", Some(2_000)),
        count(2380, "192.0.2.3", Some(150_000)),
        count(2380, "192.0.2.4", None),
        count(2379, "192.0.2.5", Some(900_000)),
    ];
    let mut out = Vec::new();
    let mut sink = Sink::new(&mut out, Format::Text004);
    let ports: super::Ports = Box::new(move || counts.clone());
    Etcd::new(replay.known.clone(), Some(ports)).collect(&mut sink).unwrap();
    sink.finish();
    let page = String::from_utf8(out).unwrap();
    assert!(page.contains("leadline_etcd_election_budget_ratio{part=\"round_trip\"} 0.15\n"), "{page}");
    assert!(!replay.page().contains("round_trip"), "nothing is said of a wire that is not watched");
}
