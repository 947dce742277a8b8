//! The answers of the `LocalAPI`: JSON to facts. Pure.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::{Backend, Cause, Own, Peer, PeerPath, Reading};
use crate::event::Timestamp;

/// Bytes of a name that are kept: a name in DNS has no more.
const LONGEST_NAME: usize = 253;

/// `ipnstate.Status`, as far as it is read.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct RawStatus {
    #[serde(deserialize_with = "lenient")]
    version: Option<String>,
    #[serde(deserialize_with = "lenient")]
    backend_state: Option<String>,
    #[serde(deserialize_with = "lenient")]
    health: Option<Vec<IgnoredAny>>,
    #[serde(rename = "MagicDNSSuffix", deserialize_with = "lenient")]
    suffix: Option<String>,
    #[serde(rename = "Self", deserialize_with = "lenient")]
    own: Option<RawPeer>,
    #[serde(deserialize_with = "lenient")]
    peer: Option<HashMap<String, Lenient<RawPeer>>>,
}

/// `ipnstate.PeerStatus`, as far as it is read.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RawPeer {
    #[serde(rename = "ID", deserialize_with = "lenient")]
    id: Option<String>,
    #[serde(deserialize_with = "lenient")]
    host_name: Option<String>,
    #[serde(rename = "DNSName", deserialize_with = "lenient")]
    dns_name: Option<String>,
    #[serde(deserialize_with = "lenient")]
    active: Option<bool>,
    #[serde(deserialize_with = "lenient")]
    cur_addr: Option<String>,
    #[serde(deserialize_with = "lenient")]
    peer_relay: Option<String>,
    #[serde(deserialize_with = "lenient")]
    relay: Option<String>,
    #[serde(deserialize_with = "lenient")]
    online: Option<bool>,
    #[serde(deserialize_with = "lenient")]
    expired: Option<bool>,
    #[serde(deserialize_with = "lenient")]
    sharee_node: Option<bool>,
    #[serde(deserialize_with = "lenient")]
    key_expiry: Option<String>,
    #[serde(deserialize_with = "lenient")]
    last_handshake: Option<String>,
    #[serde(deserialize_with = "lenient")]
    rx_bytes: Option<u64>,
    #[serde(deserialize_with = "lenient")]
    tx_bytes: Option<u64>,
    #[serde(rename = "TailscaleIPs", deserialize_with = "lenient")]
    addresses: Option<Vec<Lenient<IpAddr>>>,
    #[serde(rename = "AllowedIPs", deserialize_with = "lenient")]
    allowed: Option<Vec<Lenient<IpNet>>>,
}

/// `ipn.Prefs`, as far as it is read. Without routes the field is null.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawPrefs {
    advertise_routes: Option<Vec<Lenient<IpNet>>>,
}

/// A value, or one of another type than is known.
#[derive(Deserialize)]
#[serde(untagged)]
enum Lenient<T> {
    Known(T),
    Other(IgnoredAny),
}

impl<T> Lenient<T> {
    fn known(self) -> Option<T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Other(_) => None,
        }
    }
}

fn lenient<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    Lenient::deserialize(from).map(Lenient::known)
}

/// Reads the answer about the status.
///
/// # Errors
/// When it is no JSON, or none of tailscaled.
pub(super) fn parse(answer: &[u8]) -> Result<Reading, Cause> {
    let raw: RawStatus = serde_json::from_slice(answer).map_err(Cause::NoJson)?;
    let backend = raw.backend_state.as_deref().map(read_backend).ok_or(Cause::NoState)?;
    let suffix = raw.suffix.unwrap_or_default();
    Ok(Reading {
        process: None,
        version: raw.version,
        backend,
        health: raw.health.and_then(|health| u64::try_from(health.len()).ok()),
        own: raw.own.map(|own| read_own(own, &suffix)).unwrap_or_default(),
        advertised: None,
        peers: read_peers(raw.peer.unwrap_or_default(), &suffix),
    })
}

/// Reads the offered routes from the answer about the preferences; none where it is not such an answer.
pub(super) fn parse_advertised(answer: &[u8]) -> Option<Vec<IpNet>> {
    let prefs: RawPrefs = serde_json::from_slice(answer).ok()?;
    Some(known(prefs.advertise_routes.unwrap_or_default()))
}

fn known<T>(values: Vec<Lenient<T>>) -> Vec<T> {
    values.into_iter().filter_map(Lenient::known).collect()
}

fn read_backend(word: &str) -> Backend {
    match word {
        "NoState" => Backend::NoState,
        "NeedsLogin" => Backend::NeedsLogin,
        "NeedsMachineAuth" => Backend::NeedsMachineAuth,
        "Stopped" => Backend::Stopped,
        "Starting" => Backend::Starting,
        "Running" => Backend::Running,
        _ => Backend::Other,
    }
}

fn read_own(raw: RawPeer, suffix: &str) -> Own {
    Own {
        name: name(&raw, suffix),
        is_online: raw.online,
        home_relay: raw.relay.filter(|relay| !relay.is_empty()),
        key_expiry: time(raw.key_expiry.as_deref()),
        addresses: known(raw.addresses.unwrap_or_default()),
        allowed: known(raw.allowed.unwrap_or_default()),
    }
}

/// Peers by name. Those that `tailscale status` hides, since they are only shared with, are left out. Where two have one
/// name the later one by its number is called by that too.
fn read_peers(raw: HashMap<String, Lenient<RawPeer>>, suffix: &str) -> BTreeMap<String, Peer> {
    let mut all: Vec<RawPeer> = raw.into_values().filter_map(Lenient::known).collect();
    all.retain(|peer| peer.sharee_node != Some(true));
    all.sort_by(|a, b| a.id.cmp(&b.id));
    let mut peers = BTreeMap::new();
    for raw in all {
        let id = raw.id.clone().unwrap_or_default();
        let Some(mut name) = name(&raw, suffix) else { continue };
        if peers.contains_key(&name) {
            name = format!("{name} {id}");
        }
        peers.insert(name, read_peer(raw));
    }
    peers
}

/// The name without the suffix of this tailnet; where there is none that of the host, which need not be the only one.
fn name(raw: &RawPeer, suffix: &str) -> Option<String> {
    let dns = raw.dns_name.as_deref().map(|name| name.trim_end_matches('.'));
    let short = dns.map(|name| {
        let of_ours = name.strip_suffix(suffix.trim_end_matches('.'));
        of_ours.and_then(|rest| rest.strip_suffix('.')).unwrap_or(name)
    });
    let names = [short, raw.host_name.as_deref(), raw.id.as_deref()];
    let name = names.into_iter().flatten().find(|name| !name.is_empty())?;
    Some(
        name.chars()
            .scan(0, |bytes, c| {
                *bytes += c.len_utf8();
                (*bytes <= LONGEST_NAME).then_some(c)
            })
            .collect(),
    )
}

fn read_peer(raw: RawPeer) -> Peer {
    let path = decide_path(raw.active, raw.cur_addr.as_deref(), raw.peer_relay.as_deref());
    let (endpoint, session) = match (path, raw.cur_addr.as_deref(), raw.peer_relay.as_deref()) {
        (Some(PeerPath::Direct), address, _) => (address, None),
        (Some(PeerPath::PeerRelay), _, Some(relay)) => match relay.split_once(":vni:") {
            Some((address, session)) => (Some(address), session.parse().ok()),
            None => (Some(relay), None),
        },
        _ => (None, None),
    };
    Peer {
        path,
        endpoint: endpoint.and_then(|endpoint| endpoint.parse().ok()),
        session,
        addresses: known(raw.addresses.unwrap_or_default()),
        allowed: known(raw.allowed.unwrap_or_default()),
        is_online: raw.online,
        is_expired: raw.expired == Some(true),
        key_expiry: time(raw.key_expiry.as_deref()),
        received: raw.rx_bytes,
        transmitted: raw.tx_bytes,
        handshake: time(raw.last_handshake.as_deref()),
    }
}

/// The home relay of a peer is always named and says nothing. An idle peer may still have an address for some seconds,
/// and one that is spoken to has none on either kind of relay.
fn decide_path(is_active: Option<bool>, address: Option<&str>, relay: Option<&str>) -> Option<PeerPath> {
    match (is_active?, address?, relay.unwrap_or_default()) {
        (false, ..) => Some(PeerPath::Idle),
        (true, "", "") => Some(PeerPath::Derp),
        (true, "", _) => Some(PeerPath::PeerRelay),
        (true, ..) => Some(PeerPath::Direct),
    }
}

/// Go's zero time is before 1970 and means that there is none.
fn time(text: Option<&str>) -> Option<Timestamp> {
    text.and_then(Timestamp::from_rfc3339)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDED: &[u8] = include_bytes!("testdata/status.json");

    #[test]
    fn a_recorded_status_is_read() {
        let reading = parse(RECORDED).unwrap();
        assert_eq!((reading.backend, reading.health), (Backend::Running, Some(0)));
        assert_eq!(reading.own.name.as_deref(), Some("node1"));
        assert_eq!(reading.own.is_online, Some(true));
        assert_eq!(reading.own.home_relay.as_deref(), Some("lab"));
        let addresses = |addresses: &[IpAddr]| addresses.first().map(ToString::to_string);
        assert_eq!(addresses(&reading.own.addresses).as_deref(), Some("100.64.0.1"));
        assert_eq!(addresses(&reading.peers["node2"].addresses).as_deref(), Some("100.64.0.2"));
        let names: Vec<_> = reading.peers.keys().map(String::as_str).collect();
        assert_eq!(names, ["node2", "node3"]);
        let direct = &reading.peers["node2"];
        assert_eq!(direct.path, Some(PeerPath::Direct));
        assert_eq!(direct.endpoint, Some("192.168.56.12:41641".parse().unwrap()));
        assert!(direct.handshake.is_some() && direct.received > Some(0) && direct.transmitted > Some(0));
        let idle = &reading.peers["node3"];
        assert_eq!((idle.path, idle.endpoint, idle.handshake), (Some(PeerPath::Idle), None, None));
        assert_eq!((idle.is_online, idle.is_expired, idle.key_expiry), (Some(true), false, None));
    }

    #[test]
    fn the_path_is_one_of_four_and_never_from_the_home_relay() {
        let of = |active, address: &str, relay: &str| {
            let json = format!(
                r#"{{"BackendState":"Running","Peer":{{"k":{{"HostName":"a","Relay":"lab","Active":{active},"CurAddr":"{address}","PeerRelay":"{relay}"}}}}}}"#
            );
            let peer = parse(json.as_bytes()).unwrap().peers.remove("a").unwrap();
            (peer.path, peer.endpoint.map(|endpoint| endpoint.to_string()))
        };
        let session = |relay: &str| {
            let json = format!(
                r#"{{"BackendState":"Running","Peer":{{"k":{{"HostName":"a","Active":true,"CurAddr":"","PeerRelay":"{relay}"}}}}}}"#
            );
            parse(json.as_bytes()).unwrap().peers.remove("a").unwrap().session
        };
        let relay = "192.0.2.3:40000:vni:3";
        assert_eq!([session(relay), session("192.0.2.3:40000")], [Some(3), None]);
        assert_eq!(
            of(true, "192.0.2.2:41641", relay),
            (Some(PeerPath::Direct), Some("192.0.2.2:41641".into()))
        );
        assert_eq!(of(true, "[2001:db8::2]:1", ""), (Some(PeerPath::Direct), Some("[2001:db8::2]:1".into())));
        assert_eq!(of(true, "", relay), (Some(PeerPath::PeerRelay), Some("192.0.2.3:40000".into())));
        assert_eq!(of(true, "", ""), (Some(PeerPath::Derp), None));
        assert_eq!(of(false, "192.0.2.2:41641", relay), (Some(PeerPath::Idle), None));
    }

    #[test]
    fn what_is_missing_or_of_another_type_is_absent_and_the_rest_stays() {
        let json = br#"{"BackendState":"Dreaming","Health":7,"Version":null,"Future":{"x":[1]},"Self":"gone","Peer":{
            "a":{"HostName":"one","Active":"yes","CurAddr":"","RxBytes":-1,"TxBytes":3,"LastHandshake":12,"Online":null},
            "b":5}}"#;
        let reading = parse(json).unwrap();
        assert_eq!((reading.backend, reading.health, reading.version), (Backend::Other, None, None));
        assert_eq!(reading.own, Own::default());
        let expected = Peer { transmitted: Some(3), ..Peer::default() };
        assert_eq!(reading.peers, BTreeMap::from([("one".to_owned(), expected)]));
        let none = parse(br#"{"BackendState":"NoState","Peer":null,"Self":null,"Health":null}"#).unwrap();
        assert_eq!(none, Reading { backend: Backend::NoState, ..Reading::default() });
    }

    #[test]
    fn what_is_not_tailscaleds_is_refused() {
        assert!(matches!(parse(b"{}"), Err(Cause::NoState)));
        assert!(matches!(parse(b"[1]"), Err(Cause::NoState)));
        for text in [&b"tailscaled\n"[..], b"", b"{\"BackendState\":"] {
            assert!(matches!(parse(text), Err(Cause::NoJson(_))), "{text:?}");
        }
    }

    #[test]
    fn names_are_those_of_tailscale_status() {
        let json = br#"{"BackendState":"Running","MagicDNSSuffix":"lab.ts.net","Peer":{
            "a":{"ID":"n1","HostName":"x","DNSName":"edge.lab.ts.net."},
            "b":{"ID":"n2","HostName":"x","DNSName":"edge.other.ts.net."},
            "c":{"ID":"n3","HostName":"edge","DNSName":""},
            "d":{"ID":"n4","HostName":"guest","DNSName":"guest.lab.ts.net.","ShareeNode":true},
            "e":{"ID":"n5"}}}"#;
        let names: Vec<_> = parse(json).unwrap().peers.into_keys().collect();
        assert_eq!(names, ["edge", "edge n3", "edge.other.ts.net", "n5"]);
        let long =
            format!(r#"{{"BackendState":"Running","Peer":{{"a":{{"HostName":"{}"}}}}}}"#, "é".repeat(300));
        let peers = parse(long.as_bytes()).unwrap().peers;
        assert_eq!(peers.keys().next().map(String::len), Some(252));
    }

    #[test]
    fn offered_routes_are_read_and_nothing_else_is_taken_for_none() {
        let routes = |text: &[u8]| parse_advertised(text).map(|routes| routes.len());
        assert_eq!(routes(br#"{"AdvertiseRoutes":["10.42.3.0/24","fd00:42::/56","nonsense"]}"#), Some(2));
        assert_eq!(routes(br#"{"AdvertiseRoutes":null,"WantRunning":true}"#), Some(0));
        assert_eq!(routes(b"{}"), Some(0));
        assert_eq!(routes(b"prefs access denied"), None);
    }

    #[test]
    fn a_key_that_expires_has_a_time() {
        let json = br#"{"BackendState":"NeedsLogin","Self":{"KeyExpiry":"2026-11-24T10:00:00Z","AllowedIPs":["100.64.0.1/32","10.42.3.0/24"]},
            "Peer":{"a":{"HostName":"one","KeyExpiry":"2026-11-24T10:00:00Z","Expired":true}}}"#;
        let reading = parse(json).unwrap();
        assert_eq!(reading.own.key_expiry, Timestamp::from_rfc3339("2026-11-24T10:00:00Z"));
        assert_eq!(reading.own.allowed.len(), 2);
        let peer = &reading.peers["one"];
        assert_eq!((peer.is_expired, peer.key_expiry), (true, reading.own.key_expiry));
    }
}
