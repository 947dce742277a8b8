//! The tap itself: which uplinks it listens on, and what came that nobody can use.

use super::vip::Heard;
use super::{CollectError, Collector, Support};
use crate::metric::sink::Sink;
use crate::metric::{Descriptor, Kind, Profile, Value};

const FRAMES: &str = "frames that the tap copied";

static ATTACHED: Descriptor = Descriptor {
    name: "leadline_tap_attached",
    kind: Kind::Gauge,
    unit: None,
    help: "Whether the tap listens on an uplink: an Ethernet device that leads to other nodes and clients.",
    labels: &["interface"],
    profile: Profile::Minimal,
    source: "BPF_LINK_CREATE, before Linux 6.6 RTM_NEWTFILTER",
    witness: "garbage sent to the device is counted",
};

static MALFORMED: Descriptor = Descriptor {
    name: "leadline_tap_malformed_frames_total",
    kind: Kind::Counter,
    unit: None,
    help: "Frames that claim to be ARP, a neighbour advertisement or VRRP and break the rules of their protocol.",
    labels: &["reason"],
    profile: Profile::Minimal,
    source: FRAMES,
    witness: "100,000 frames of garbage in 10 s: malformed and lost together, difference 0",
};

static IGNORED: Descriptor = Descriptor {
    name: "leadline_tap_ignored_frames_total",
    kind: Kind::Counter,
    unit: None,
    help: "Advertisements of routers and addresses beyond those that are told apart: 64 virtual routers with 16 routers each, and 1,024 addresses.",
    labels: &[],
    profile: Profile::Minimal,
    source: FRAMES,
    witness: "advertisements of a 65th virtual router in a unit test",
};

/// What the collector describes.
pub static DESCRIPTORS: &[&Descriptor] = &[&ATTACHED, &MALFORMED, &IGNORED];

/// The collector.
pub struct Tap {
    heard: Heard,
}

impl Tap {
    /// A collector of what was heard.
    #[must_use]
    pub fn new(heard: Heard) -> Self {
        Self { heard }
    }
}

impl Collector for Tap {
    fn name(&self) -> &'static str {
        "tap"
    }

    fn descriptors(&self) -> &'static [&'static Descriptor] {
        DESCRIPTORS
    }

    fn support(&self) -> Support {
        Support::Yes
    }

    fn collect(&self, sink: &mut Sink<'_>) -> Result<(), CollectError> {
        let state = self.heard.lock();
        let mut family = sink.family(&ATTACHED);
        for (interface, is_tapped) in state.uplinks() {
            family.value(&[interface], Value::Integer((*is_tapped).into()));
        }
        let mut family = sink.family(&MALFORMED);
        for (reason, frames) in state.malformed() {
            family.value(&[reason.as_str()], Value::Integer(frames));
        }
        sink.family(&IGNORED).value(&[], Value::Integer(state.limited()));
        Ok(())
    }
}
