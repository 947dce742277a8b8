//! The families of virtual addresses.

use crate::metric::{Descriptor, Kind, Profile};

const TAP: &str = "VRRP advertisements that passed the tap (tcx on the uplinks), kernel time of the tap";
const ROUTER: &[&str] = &["interface", "vrid", "family", "source"];
const VIP: &[&str] = &["vip"];
const TCPDUMP_ADVERTS: &str = "advertisements in tcpdump's record of the same device: difference 0";
const TCPDUMP_PHASES: &str = "tcpdump's times of the same frames at the same observer";

const fn of_router(
    name: &'static str,
    kind: Kind,
    unit: Option<&'static str>,
    help: &'static str,
) -> Descriptor {
    Descriptor {
        name,
        kind,
        unit,
        help,
        labels: ROUTER,
        source: TAP,
        profile: Profile::Minimal,
        witness: TCPDUMP_ADVERTS,
    }
}

const fn of_vip(
    name: &'static str,
    kind: Kind,
    unit: Option<&'static str>,
    labels: &'static [&'static str],
    help: &'static str,
    witness: &'static str,
) -> Descriptor {
    Descriptor { name, kind, unit, help, labels, profile: Profile::Minimal, source: TAP, witness }
}

pub(super) static ADVERTISEMENTS: Descriptor = of_router(
    "leadline_vrrp_advertisements_total",
    Kind::Counter,
    None,
    "VRRP advertisements of a router, goodbyes included, as this node heard or sent them.",
);

pub(super) static PRIORITY: Descriptor = of_router(
    "leadline_vrrp_priority",
    Kind::Gauge,
    None,
    "Priority that a router advertised last; a goodbye does not change it.",
);

pub(super) static INTERVAL: Descriptor = of_router(
    "leadline_vrrp_advertisement_interval_seconds",
    Kind::Gauge,
    Some("seconds"),
    "Interval that a router advertises.",
);

pub(super) static GAP: Descriptor = of_router(
    "leadline_vrrp_advertisement_gap_ratio",
    Kind::Histogram,
    Some("ratio"),
    "Time between two advertisements of an active router over its interval. A backup takes over at 3 and a little; 2 and more warns before it does.",
);

pub(super) static FOREIGN: Descriptor = Descriptor {
    name: "leadline_vrrp_foreign_routers",
    kind: Kind::Gauge,
    unit: None,
    help: "Routers that use the number of a virtual router now for addresses of which those who had it first have none: two clusters on one link have chosen one number. Every observer says it: max by, never sum.",
    labels: &["interface", "vrid", "family"],
    profile: Profile::Minimal,
    source: TAP,
    witness: "configurations of two keepalived clusters on one link, exact",
};

pub(super) static INFO: Descriptor = of_vip(
    "leadline_vip_info",
    Kind::Gauge,
    None,
    &["vip", "protocol", "interface", "vrid"],
    "A virtual address, how it is announced (vrrp, or arp and ndp without a virtual router), where it is and the number of its virtual router; 1. An address that is only announced becomes a virtual one when a second station announces it, or by configuration.",
    "keepalived's configuration",
);

pub(super) static HELD: Descriptor = Descriptor {
    name: "leadline_vip_held",
    kind: Kind::Gauge,
    unit: None,
    help: "Whether this node has the virtual address on a device. Addresses on lo, dummy and IPVS devices are not held; an address that is only announced (arp, ndp) has no series until this node has had it.",
    labels: VIP,
    profile: Profile::Minimal,
    source: "rtnetlink RTM_GETADDR",
    witness: "`ip -j addr`, exact",
};

pub(super) static ANNOUNCER: Descriptor = of_vip(
    "leadline_vip_announcer",
    Kind::Gauge,
    None,
    &["vip", "source", "protocol"],
    "Whether a router (by its address) or a station (by its hardware address, for arp and ndp) announces the virtual address now. vrrp: its last advertisement was no goodbye and is younger than four intervals. arp, ndp: it announced the address last, and if it repeats that for ever (kube-vip) it has not missed two periods; MetalLB announces once and is taken at its word.",
    TCPDUMP_ADVERTS,
);

pub(super) static CONFLICT: Descriptor = of_vip(
    "leadline_vip_conflict",
    Kind::Gauge,
    None,
    VIP,
    "Whether two routers hold on to the virtual address, each having heard the other: split brain. Every observer says it: max by, never sum.",
    "tcpdump's record of both routers",
);

pub(super) static CONFLICTS: Descriptor = of_vip(
    "leadline_vip_conflicts_total",
    Kind::Counter,
    None,
    VIP,
    "Conflicts that were opened. Every observer counts them: max by, never sum.",
    "tcpdump's record of both routers",
);

pub(super) static CONFLICT_SECONDS: Descriptor = of_vip(
    "leadline_vip_conflict_seconds_total",
    Kind::Counter,
    Some("seconds"),
    VIP,
    "Seconds that closed conflicts lasted, from the rival's first advertisement to the last of whoever gave up.",
    "tcpdump's record of both routers",
);

pub(super) static BRIEF: Descriptor = of_vip(
    "leadline_vip_brief_doubles_total",
    Kind::Counter,
    None,
    VIP,
    "Times that a second router advertised and gave up when it heard the owner; not a conflict.",
    "replay of recorded advertisements",
);

pub(super) static STALE: Descriptor = Descriptor {
    name: "leadline_vip_neighbour_stale",
    kind: Kind::Gauge,
    unit: None,
    help: "Whether this node's neighbour table has the virtual address at a hardware address of nobody who announces it: what this node sends goes to where the address was. 0 without an entry, and on a node that has the address.",
    labels: VIP,
    profile: Profile::Minimal,
    source: "rtnetlink RTM_GETNEIGH, tcx on the uplinks",
    witness: "`ip neigh` against the owner's `ip link`, exact",
};

pub(super) static ASKED: Descriptor = Descriptor {
    name: "leadline_vip_failover_probes_total",
    kind: Kind::Counter,
    unit: None,
    help: "Connections that this node began to a virtual address while it moved, a hundred a second for as long as the new owner had not answered, to see when it does; 0 on nodes that are not chosen for it.",
    labels: VIP,
    profile: Profile::Minimal,
    source: "connect(2)",
    witness: "SYNs in tcpdump's record of the same device",
};

pub(super) static DUPLICATES: Descriptor = of_vip(
    "leadline_vip_duplicate_answers_total",
    Kind::Counter,
    None,
    VIP,
    "ARP or neighbour discovery messages by which a station that does not announce the virtual address said that it has it. This node hears its own questions answered, and announcements to all.",
    "ARP replies in tcpdump's record of the same device: difference 0",
);

pub(super) static DUPLICATED: Descriptor = of_vip(
    "leadline_vip_duplicate",
    Kind::Gauge,
    None,
    VIP,
    "Whether a station that does not announce the virtual address said within the last minute that it has it: an address left behind, or set on another host.",
    "an address set on another node of the lab",
);

pub(super) static FAILOVERS: Descriptor = of_vip(
    "leadline_vip_failovers_total",
    Kind::Counter,
    None,
    &["vip", "cause"],
    "Moves of a virtual address. shutdown: the owner said goodbye; address_removed: it did, and was back before a restart could be; timeout: it fell silent; preempted: it gave way to another; link: it was this node, whose link had gone; unknown: this node could not hear the others meanwhile, or the address is only announced (arp, ndp) and was handed over. Every observer counts them: max by, never sum.",
    "failovers in tcpdump's record: difference 0",
);

pub(super) static FAILOVER: Descriptor = of_vip(
    "leadline_vip_failover_seconds",
    Kind::Histogram,
    Some("seconds"),
    &["vip", "phase"],
    "Phases of the moves of a virtual address. detect: from the last advertisement of the old owner to the first of the new one; announce: from there to its first gratuitous ARP or neighbour advertisement; converge: from there to the first packet that the new owner sends from the address (resets are no service) past this node's tap; total: to that packet from the last sign of the old owner, which is its last advertisement or packet from the address. Where nothing is sent past this node converge and total are not observed; a few nodes ask the address a hundred times a second during a failover, so that they are exact to 10 ms there.",
    TCPDUMP_PHASES,
);

pub(super) static LAST: Descriptor = of_vip(
    "leadline_vip_last_failover_seconds",
    Kind::Gauge,
    Some("seconds"),
    &["vip", "phase"],
    "The same phases of the last move; absent before the first one.",
    TCPDUMP_PHASES,
);

/// What the collector describes.
pub static DESCRIPTORS: &[&Descriptor] = &[
    &ADVERTISEMENTS,
    &PRIORITY,
    &INTERVAL,
    &GAP,
    &FOREIGN,
    &INFO,
    &HELD,
    &ANNOUNCER,
    &CONFLICT,
    &STALE,
    &CONFLICTS,
    &CONFLICT_SECONDS,
    &BRIEF,
    &ASKED,
    &DUPLICATES,
    &DUPLICATED,
    &FAILOVERS,
    &FAILOVER,
    &LAST,
];
