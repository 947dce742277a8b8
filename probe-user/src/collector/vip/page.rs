//! What the page says of virtual addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::contest::Contest;
use super::descriptor;
use super::happening::{Announcer, Cause, Nanos};
use super::history::{History, PHASE_BOUNDS, Phase};
use super::place::{VirtualRouter, virtual_macs};
use super::router::{GAP_BOUNDS, Router};
use super::state::State;
use crate::metric::sink::Sink;
use crate::metric::{Buckets, Descriptor, Value};
use crate::source::netlink::{NetworkFacts, Resolution};
use crate::wire::MacAddress;

const VRRP: &str = "vrrp";

/// A family, and which part of a `T` it shows.
type Column<T> = (&'static Descriptor, fn(&T) -> Option<Value>);

/// The labels of a router as texts.
fn labels(virtual_router: &VirtualRouter, source: IpAddr) -> [String; 4] {
    let family = virtual_router.family.as_str().to_owned();
    [virtual_router.interface.to_string(), virtual_router.vrid.to_string(), family, source.to_string()]
}

pub(super) fn write_routers(sink: &mut Sink<'_>, state: &State, now: Nanos) {
    let routers: Vec<([String; 4], &Router)> = state
        .contests()
        .iter()
        .flat_map(|(virtual_router, contest)| {
            contest.routers().iter().map(|(source, router)| (labels(virtual_router, *source), router))
        })
        .collect();
    let values: [Column<Router>; 3] = [
        (&descriptor::ADVERTISEMENTS, |router| Some(Value::Integer(router.advertisements()))),
        (&descriptor::PRIORITY, |router| router.priority().map(|priority| Value::Integer(priority.into()))),
        (&descriptor::INTERVAL, |router| Some(Value::Float(router.interval().as_secs_f64()))),
    ];
    for (descriptor, read) in values {
        let mut family = sink.family(descriptor);
        for (labels, router) in &routers {
            if let Some(value) = read(router) {
                family.value(&labels.each_ref().map(String::as_str), value);
            }
        }
    }
    let mut family = sink.family(&descriptor::GAP);
    for (labels, router) in &routers {
        let gaps = router.gaps();
        let buckets = Buckets { bounds: &GAP_BOUNDS, counts: &gaps.buckets, sum: gaps.sum };
        family.histogram(&labels.each_ref().map(String::as_str), &buckets);
    }
    let mut family = sink.family(&descriptor::FOREIGN);
    for ((interface, vrid, address_family), routers) in state.foreign_routers(now) {
        let labels = [interface, &*vrid.to_string(), address_family.as_str()];
        family.value(&labels, Value::Integer(routers as u64));
    }
}

/// What is said of one address now.
#[derive(Default)]
struct Standing {
    /// Protocol, interface and number of the virtual router; the number is empty where there is none.
    places: BTreeSet<(&'static str, String, String)>,
    /// Whether each announcer, with its protocol, announces.
    announcers: BTreeMap<(Announcer, &'static str), bool>,
    conflict: bool,
    /// By interface the stations that the address is at.
    stations: BTreeMap<String, BTreeSet<MacAddress>>,
    /// The own addresses of routers that advertise it.
    routers: BTreeSet<IpAddr>,
    /// A node that does not hold it is not expected to.
    only_announced: bool,
}

fn standings(state: &State, now: Nanos) -> BTreeMap<IpAddr, Standing> {
    let mut standings: BTreeMap<IpAddr, Standing> = BTreeMap::new();
    for (place, contest) in state.contests() {
        for address in contest.addresses() {
            add_contest(standings.entry(address).or_default(), place, contest, address, now);
        }
    }
    for (place, claims) in state.claims() {
        let standing = standings.entry(place.address).or_default();
        let protocol = if place.address.is_ipv4() { "arp" } else { "ndp" };
        standing.places.insert((protocol, place.interface.to_string(), String::new()));
        standing.conflict |= claims.in_conflict();
        standing.only_announced = true;
        let stations = standing.stations.entry(place.interface.to_string()).or_default();
        for station in claims.stations().keys() {
            let announces = claims.is_announcing(*station, now);
            stations.extend(announces.then_some(*station));
            *standing.announcers.entry((Announcer::Station(*station), protocol)).or_default() |= announces;
        }
    }
    standings
}

fn add_contest(
    standing: &mut Standing,
    place: &VirtualRouter,
    contest: &Contest,
    address: IpAddr,
    now: Nanos,
) {
    standing.places.insert((VRRP, place.interface.to_string(), place.vrid.to_string()));
    standing.conflict |= contest.in_conflict();
    let stations = standing.stations.entry(place.interface.to_string()).or_default();
    for (source, router) in contest.routers() {
        let announces = router.is_announcing(now) && router.addresses().contains(&address);
        if announces {
            stations.extend(router.mac().into_iter().chain(virtual_macs(place.vrid)));
            standing.routers.insert(*source);
        }
        *standing.announcers.entry((Announcer::Router(*source), VRRP)).or_default() |= announces;
    }
}

/// Whether this node's neighbour table has the address at a station that does not announce it. A node that has the
/// address does not use an entry that it may have from before.
fn is_stale(facts: &NetworkFacts, held: &BTreeSet<IpAddr>, address: IpAddr, standing: &Standing) -> bool {
    if held.contains(&address) {
        return false;
    }
    standing.stations.iter().filter(|(_, stations)| !stations.is_empty()).any(|(interface, stations)| {
        let Some(device) = facts.link_named(interface).map(|link| link.index) else { return false };
        let known = facts.neighbours.iter().filter(|neighbour| {
            neighbour.device == device
                && matches!(neighbour.state, Resolution::Resolved | Resolution::Permanent)
        });
        // A router with a virtual MAC asks from the device below it, and neighbours learn the address from the question.
        let of_routers = known.clone().filter(|neighbour| standing.routers.contains(&neighbour.address));
        let own: BTreeSet<_> = of_routers.filter_map(|neighbour| neighbour.mac).collect();
        let mut entries = known.filter(|neighbour| neighbour.address == address);
        entries.any(|neighbour| {
            neighbour.mac.is_some_and(|mac| !stations.contains(&MacAddress(mac.0)) && !own.contains(&mac))
        })
    })
}

pub(super) fn write_vips(
    sink: &mut Sink<'_>,
    state: &State,
    network: Option<(&NetworkFacts, &BTreeSet<IpAddr>)>,
    now: Nanos,
) {
    let vips = standings(state, now);
    let mut family = sink.family(&descriptor::INFO);
    for (vip, standing) in &vips {
        for (protocol, interface, vrid) in &standing.places {
            family.value(&[&vip.to_string(), protocol, interface, vrid], Value::Integer(1));
        }
    }
    let mut family = sink.family(&descriptor::HELD);
    for (vip, standing) in &vips {
        let Some((_, held)) = network else { break };
        if !standing.only_announced || state.was_held(*vip) {
            family.value(&[&vip.to_string()], Value::Integer(held.contains(vip).into()));
        }
    }
    let mut family = sink.family(&descriptor::ANNOUNCER);
    for (vip, standing) in &vips {
        for ((source, protocol), announces) in &standing.announcers {
            let labels = [&*vip.to_string(), &*source.to_string(), protocol];
            family.value(&labels, Value::Integer((*announces).into()));
        }
    }
    let mut family = sink.family(&descriptor::CONFLICT);
    for (vip, standing) in &vips {
        family.value(&[&vip.to_string()], Value::Integer(standing.conflict.into()));
    }
    let mut family = sink.family(&descriptor::STALE);
    for (vip, standing) in &vips {
        let Some((facts, held)) = network else { break };
        family.value(&[&vip.to_string()], Value::Integer(is_stale(facts, held, *vip, standing).into()));
    }
}

pub(super) fn write_histories(sink: &mut Sink<'_>, histories: &BTreeMap<IpAddr, History>, now: Nanos) {
    let values: [Column<History>; 5] = [
        (&descriptor::ASKED, |history| Some(Value::Integer(history.asked))),
        (&descriptor::CONFLICTS, |history| Some(Value::Integer(history.conflicts))),
        (&descriptor::CONFLICT_SECONDS, |history| Some(Value::Float(history.conflict_seconds))),
        (&descriptor::BRIEF, |history| Some(Value::Integer(history.brief))),
        (&descriptor::DUPLICATES, |history| Some(Value::Integer(history.duplicates))),
    ];
    for (descriptor, read) in values {
        let mut family = sink.family(descriptor);
        for (vip, history) in histories {
            if let Some(value) = read(history) {
                family.value(&[&vip.to_string()], value);
            }
        }
    }
    let mut family = sink.family(&descriptor::DUPLICATED);
    for (vip, history) in histories {
        family.value(&[&vip.to_string()], Value::Integer(history.is_duplicated(now).into()));
    }
    let mut family = sink.family(&descriptor::FAILOVERS);
    for (vip, history) in histories {
        for (cause, count) in Cause::ALL.iter().zip(history.failovers) {
            family.value(&[&vip.to_string(), cause.as_str()], Value::Integer(count));
        }
    }
    let mut family = sink.family(&descriptor::FAILOVER);
    for (vip, history) in histories {
        for (name, phase) in phases(history) {
            let buckets = Buckets { bounds: &PHASE_BOUNDS, counts: &phase.buckets, sum: phase.sum };
            family.histogram(&[&vip.to_string(), name], &buckets);
        }
    }
    let mut family = sink.family(&descriptor::LAST);
    for (vip, history) in histories {
        for (name, phase) in phases(history) {
            if let Some(last) = phase.last {
                family.value(&[&vip.to_string(), name], Value::Float(last));
            }
        }
    }
}

fn phases(history: &History) -> [(&'static str, &Phase); 4] {
    [
        ("announce", &history.announce),
        ("converge", &history.converge),
        ("detect", &history.detect),
        ("total", &history.total),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::netlink::{Link, LinkKind, Mac, Neighbour};

    const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 56, 50));
    const VIRTUAL: [u8; 6] = [0, 0, 0x5e, 0, 1, 51];

    fn mac(last: u8) -> [u8; 6] {
        [2, 0, 0, 0, 0, last]
    }

    fn facts(entries: &[(IpAddr, [u8; 6])]) -> NetworkFacts {
        let neighbour = |(address, mac): &(IpAddr, [u8; 6])| Neighbour {
            device: 2,
            address: *address,
            mac: Some(Mac(*mac)),
            state: Resolution::Resolved,
        };
        let eth0 = Link {
            index: 2,
            name: "eth0".into(),
            kind: LinkKind::Device,
            mtu: None,
            mac: Some(Mac(mac(14))),
            up: true,
            carrier: true,
            ethernet: true,
            master: None,
            lower: None,
        };
        NetworkFacts {
            links: [eth0].into(),
            neighbours: entries.iter().map(neighbour).collect(),
            ..NetworkFacts::default()
        }
    }

    /// The router 192.168.56.12 advertises from the virtual MAC.
    fn standing() -> Standing {
        let mut standing = Standing::default();
        standing.stations.insert("eth0".into(), BTreeSet::from([MacAddress(VIRTUAL)]));
        standing.routers.insert(IpAddr::from([192, 168, 56, 12]));
        standing
    }

    #[test]
    fn an_entry_for_the_device_below_a_virtual_mac_is_not_stale() {
        let routers = [11, 12].map(|last| (IpAddr::from([192, 168, 56, last]), mac(last)));
        let facts = |at| facts(&[routers[0], routers[1], (VIP, at)]);
        let is_stale = |at| is_stale(&facts(at), &BTreeSet::new(), VIP, &standing());
        assert_eq!([VIRTUAL, mac(12), mac(11)].map(is_stale), [false, false, true]);
    }

    #[test]
    fn an_entry_from_before_this_node_had_the_address_is_not_stale() {
        let held = BTreeSet::from([VIP]);
        assert!(is_stale(&facts(&[(VIP, mac(11))]), &BTreeSet::new(), VIP, &standing()));
        assert!(!is_stale(&facts(&[(VIP, mac(11))]), &held, VIP, &standing()));
    }
}
