//! Whose path a message is about, what is remembered of it and for how long, and what is told.

use super::*;

const SECOND: Nanos = 1_000_000_000;
const LASTS: Nanos = 600 * SECOND;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// This node with a pod network, a node with a name, one of which only an address is known, one behind a tunnel.
fn registry() -> Registry {
    let local = Node { pods: vec!["10.42.1.0/24".parse().unwrap()], ..Node::default() };
    let mut registry = Registry { local, ..Registry::default() };
    let node = |name: Option<&str>, underlay: &str, pods: &str| Node {
        name: name.map(Into::into),
        underlay: vec![ip(underlay)],
        pods: vec![pods.parse().unwrap()],
        ..Node::default()
    };
    registry.merge(node(Some("b"), "192.0.2.2", "10.42.2.0/24"));
    registry.merge(node(None, "192.0.2.3", "2001:db8:3::/64"));
    let tunnel = Node { endpoint: Some(ip("203.0.113.4")), ..node(Some("d"), "192.0.2.4", "10.42.4.0/24") };
    registry.merge(tunnel);
    registry
}

fn peer(source: &str, destination: &str) -> Result<Arc<str>, Other> {
    let told =
        TooBig { router: ip("192.0.2.9"), mtu: None, source: ip(source), destination: ip(destination) };
    peer_of(&told, |address| address == ip("192.0.2.1"), &registry())
}

#[test]
fn a_message_is_about_the_node_that_the_packet_was_for() {
    for (destination, label) in [
        ("192.0.2.2", "b"),
        ("10.42.2.9", "b"),
        ("192.0.2.3", "192.0.2.3"),
        ("2001:db8:3::7", "192.0.2.3"),
        ("203.0.113.4", "d"),
    ] {
        assert_eq!(peer("192.0.2.1", destination), Ok(label.into()), "{destination}");
        assert_eq!(peer("10.42.1.7", destination), Ok(label.into()), "{destination} from a pod");
    }
}

#[test]
fn what_this_node_has_not_sent_is_nobodys_wherever_it_went() {
    for source in ["192.0.2.2", "10.42.2.7", "198.51.100.1", "2001:db8:3::7"] {
        assert_eq!(peer(source, "192.0.2.2"), Err(Other::Source), "{source}");
    }
    for destination in ["198.51.100.1", "10.42.1.9", "10.43.0.1", "2001:db8::1"] {
        assert_eq!(peer("192.0.2.1", destination), Err(Other::Destination), "{destination}");
    }
}

fn word(destination: &str, mtu: u32, seconds: u64) -> Word {
    let mtu = Some(mtu).filter(|mtu| *mtu != 0);
    Word { destination: ip(destination), mtu, time: seconds * SECOND, lasts: LASTS }
}

/// Takes words about node b; what changed by each.
fn hear(words: &mut Words, told: &[Word]) -> Vec<Option<(u32, Option<u32>)>> {
    let registry = registry();
    let mut hear = |word| words.hear(&"b".into(), word, &registry);
    told.iter().map(|word| hear(word).map(|change| (change.mtu, change.before))).collect()
}

/// Messages about node b, and its MTU.
fn of_b(words: &Words, seconds: u64) -> (u64, Option<u32>) {
    words.sums(&registry(), seconds * SECOND)["b"]
}

#[test]
fn a_smaller_mtu_is_told_once_and_the_same_one_is_not() {
    let mut words = Words::default();
    let told = [("192.0.2.2", 1_400, 1), ("192.0.2.2", 1_400, 2), ("10.42.2.9", 1_400, 3)]
        .map(|(destination, mtu, seconds)| word(destination, mtu, seconds));
    assert_eq!(hear(&mut words, &told), [Some((1_400, None)), None, None]);
    assert_eq!(hear(&mut words, &[word("192.0.2.2", 1_300, 4)]), [Some((1_300, Some(1_400)))]);
    assert_eq!(of_b(&words, 4), (4, Some(1_300)));
}

#[test]
fn a_larger_one_counts_only_once_the_smaller_one_is_forgotten() {
    let mut words = Words::default();
    hear(&mut words, &[word("192.0.2.2", 1_300, 0), word("192.0.2.2", 1_400, 599)]);
    assert_eq!((of_b(&words, 599), of_b(&words, 600)), ((2, Some(1_300)), (2, None)));
    assert_eq!(hear(&mut words, &[word("192.0.2.2", 1_400, 601)]), [None], "1300 is news for longer");
    assert_eq!(of_b(&words, 601), (3, Some(1_400)));
}

#[test]
fn of_several_addresses_the_least_counts_until_it_is_forgotten() {
    let mut words = Words::default();
    hear(&mut words, &[word("192.0.2.2", 1_300, 0), word("10.42.2.9", 1_400, 300)]);
    assert_eq!((of_b(&words, 599), of_b(&words, 600)), ((2, Some(1_300)), (2, Some(1_400))));
    assert_eq!(of_b(&words, 900), (2, None));
}

#[test]
fn what_is_said_again_right_after_it_was_forgotten_is_no_news_and_later_it_is() {
    let mut words = Words::default();
    let told = [0, 601, 1_202, 2_403].map(|seconds| word("192.0.2.2", 1_400, seconds));
    assert_eq!(hear(&mut words, &told), [Some((1_400, None)), None, None, Some((1_400, None))]);
}

#[test]
fn a_router_that_names_no_mtu_is_counted_and_says_nothing() {
    let mut words = Words::default();
    assert_eq!(hear(&mut words, &[word("192.0.2.2", 0, 1)]), [None]);
    assert_eq!(of_b(&words, 1), (1, None));
    hear(&mut words, &[word("192.0.2.2", 1_400, 2), word("192.0.2.2", 0, 3)]);
    assert_eq!(of_b(&words, 3), (3, Some(1_400)));
}

#[test]
fn addresses_beyond_the_limit_take_the_place_of_the_oldest() {
    let mut words = Words::default();
    let address = |number: u32| IpAddr::from((0x0a2a_0200 + number).to_be_bytes());
    let told = (0..=256).map(|number: u32| Word {
        destination: address(number),
        // The first one is the least.
        mtu: Some(1_300 + number),
        time: u64::from(number) * SECOND,
        lasts: LASTS,
    });
    hear(&mut words, &told.collect::<Vec<_>>());
    assert_eq!(of_b(&words, 256), (257, Some(1_301)));
    assert_eq!(words.peers["b"].paths.len(), MOST_PATHS);
}

#[test]
fn what_was_counted_by_an_address_is_that_of_the_node_that_has_it_and_a_node_that_is_gone_has_none() {
    let mut words = Words::default();
    let before = registry();
    for label in ["192.0.2.3", "b"] {
        words.hear(&label.into(), &word("192.0.2.3", 1_400, 1), &before);
    }
    let mut now = Registry::default();
    now.merge(Node { name: Some("c".into()), underlay: vec![ip("192.0.2.3")], ..Node::default() });
    words.hear(&"c".into(), &word("192.0.2.3", 1_350, 2), &now);
    let sums: Vec<_> = words.sums(&now, 3 * SECOND).into_iter().collect();
    assert_eq!(sums, [("c".into(), (2, Some(1_350)))]);
    assert!(!words.peers.contains_key("b"), "forgotten with the node");
}

#[test]
fn nodes_beyond_the_limit_are_counted_without_their_names() {
    let mut registry = Registry::default();
    let address = |number: usize| IpAddr::from(u32::try_from(0xc000_0200 + number).unwrap().to_be_bytes());
    registry.nodes =
        (0..=MOST_NODES).map(|number| Node { underlay: vec![address(number)], ..Node::default() }).collect();
    let mut words = Words::default();
    for number in 0..=MOST_NODES {
        words.hear(&address(number).to_string().into(), &word("192.0.2.2", 1_400, 1), &registry);
    }
    assert_eq!(words.peers.len(), MOST_NODES);
    assert_eq!(words.others().map(|(_, messages)| messages).collect::<Vec<_>>(), [1, 0, 0]);
}

#[test]
fn every_reason_has_a_place_of_its_own() {
    let mut words = Words::default();
    for (times, reason) in Other::ALL.into_iter().enumerate() {
        (0..=times).for_each(|_| words.count_other(reason));
    }
    let counted: Vec<_> = words.others().map(|(reason, messages)| (reason.as_str(), messages)).collect();
    assert_eq!(counted, [("destination", 1), ("source", 2), ("malformed", 3)]);
}
