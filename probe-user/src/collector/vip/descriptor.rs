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

pub(super) static INFO: Descriptor = of_vip(
    "leadline_vip_info",
    Kind::Gauge,
    None,
    &["vip", "protocol", "interface", "vrid"],
    "A virtual address, the protocol that moves it, where it is and the number of its virtual router; 1.",
    "keepalived's configuration",
);

pub(super) static HELD: Descriptor = Descriptor {
    name: "leadline_vip_held",
    kind: Kind::Gauge,
    unit: None,
    help: "Whether this node has the virtual address on a device. Addresses on lo, dummy and IPVS devices are not held.",
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
    "Whether a router advertises the virtual address now: its last advertisement was no goodbye and is younger than four intervals.",
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

pub(super) static FAILOVERS: Descriptor = of_vip(
    "leadline_vip_failovers_total",
    Kind::Counter,
    None,
    &["vip", "cause"],
    "Moves of a virtual address. shutdown: the owner said goodbye; timeout: it fell silent; preempted: it gave way to another; link: it was this node, whose link had gone. Every observer counts them: max by, never sum.",
    "failovers in tcpdump's record: difference 0",
);

pub(super) static FAILOVER: Descriptor = of_vip(
    "leadline_vip_failover_seconds",
    Kind::Histogram,
    Some("seconds"),
    &["vip", "phase"],
    "Phases of the moves of a virtual address. detect: from the last advertisement of the old owner to the first of the new one; announce: from there to its first gratuitous ARP or neighbour advertisement.",
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

pub(super) static MALFORMED: Descriptor = Descriptor {
    name: "leadline_tap_malformed_frames_total",
    kind: Kind::Counter,
    unit: None,
    help: "Frames that claim to be ARP, a neighbour advertisement or VRRP and break the rules of their protocol.",
    labels: &["reason"],
    profile: Profile::Minimal,
    source: "frames that the tap copied",
    witness: "100,000 frames of garbage in 10 s: malformed and lost together, difference 0",
};

pub(super) static LIMITED: Descriptor = Descriptor {
    name: "leadline_vrrp_advertisements_ignored_total",
    kind: Kind::Counter,
    unit: None,
    help: "Advertisements of routers beyond the 64 virtual routers and 16 routers each that are told apart.",
    labels: &[],
    profile: Profile::Minimal,
    source: "frames that the tap copied",
    witness: "a 17th router in a unit test",
};

/// What the collector describes.
pub static DESCRIPTORS: &[&Descriptor] = &[
    &ADVERTISEMENTS,
    &PRIORITY,
    &INTERVAL,
    &GAP,
    &INFO,
    &HELD,
    &ANNOUNCER,
    &CONFLICT,
    &CONFLICTS,
    &CONFLICT_SECONDS,
    &BRIEF,
    &FAILOVERS,
    &FAILOVER,
    &LAST,
    &MALFORMED,
    &LIMITED,
];
