//! The kernel programs themselves: whether they are attached, what memory they take, what they could not count.

use probe_common::control::Control;

use super::{CollectError, Collector, Support};
use crate::metric::sink::Sink;
use crate::metric::{Descriptor, Kind, Profile, Value};

const CONTROL: &str = "the programs' control record";
const BPFTOOL: &str = "`bpftool prog` and `bpftool link` show the same programs and attachments";

static ATTACHED: Descriptor = Descriptor {
    name: "leadline_program_attached",
    kind: Kind::Gauge,
    unit: None,
    help: "Whether a kernel program of the agent is attached.",
    labels: &["program"],
    profile: Profile::Minimal,
    source: "BPF_LINK_CREATE, BPF_RAW_TRACEPOINT_OPEN",
    witness: BPFTOOL,
};

static MEMORY: Descriptor = Descriptor {
    name: "leadline_map_memory_bytes",
    kind: Kind::Gauge,
    unit: Some("bytes"),
    help: "Kernel memory of the counter arrays.",
    labels: &[],
    profile: Profile::Minimal,
    source: "sizes at creation",
    witness: "sizes of these arrays in `bpftool map show`: difference 0; the kernel charges less than two pages more for \
              each, its head and the rounding",
};

const fn loss(name: &'static str, help: &'static str, witness: &'static str) -> Descriptor {
    Descriptor {
        name,
        kind: Kind::Counter,
        unit: None,
        help,
        labels: &[],
        profile: Profile::Minimal,
        source: CONTROL,
        witness,
    }
}

/// A family, and which count it shows.
type Loss = (Descriptor, fn(&Control) -> u64);

static LOSSES: [Loss; 4] = [
    (
        loss(
            "leadline_slots_exhausted_total",
            "Look-ups that found no free slot; the packets are counted as namespace other, pod other.",
            "27 sockets beyond 64 slots: counted 27 times",
        ),
        |control| control.slots_exhausted,
    ),
    (
        loss(
            "leadline_socket_storage_refused_total",
            "Look-ups after which the kernel refused to remember the slot with the socket; the packets are counted.",
            "25 datagrams of a socket that net.core.optmem_max leaves no memory for options: counted 25 times",
        ),
        |control| control.storage_refused,
    ),
    (
        loss(
            "leadline_malformed_packets_total",
            "Packets whose headers could not be read; they are counted nowhere else.",
            "12 packets of raw sockets with IP version 0 or a cut-off IPv6 header: counted 12 times",
        ),
        |control| control.malformed,
    ),
    (
        loss(
            "leadline_tcp_unattributed_total",
            "TCP callbacks of sockets that had not sent a packet yet; their sample is dropped.",
            "30 accepted connections that the client reset before the first answer: counted 30 times, as EstabResets",
        ),
        |control| control.tcp_unattributed,
    ),
];

/// What the collector describes.
pub static DESCRIPTORS: &[&Descriptor] =
    &[&ATTACHED, &MEMORY, &LOSSES[0].0, &LOSSES[1].0, &LOSSES[2].0, &LOSSES[3].0];

/// What is known of the programs.
#[derive(Clone, Debug)]
pub struct ProgramFacts {
    /// Names, and whether they are attached.
    pub programs: Vec<(&'static str, bool)>,
    /// Losses.
    pub control: Control,
    /// Memory of the counter arrays.
    pub memory_bytes: u64,
}

/// The collector.
pub struct Program {
    read: Box<dyn Fn() -> Option<ProgramFacts> + Send + Sync>,
}

impl Program {
    /// A collector over what `read` gives; `None` where no programs are loaded.
    pub fn new(read: impl Fn() -> Option<ProgramFacts> + Send + Sync + 'static) -> Self {
        Self { read: Box::new(read) }
    }
}

impl Collector for Program {
    fn name(&self) -> &'static str {
        "program"
    }

    fn descriptors(&self) -> &'static [&'static Descriptor] {
        DESCRIPTORS
    }

    fn support(&self) -> Support {
        if (self.read)().is_some() { Support::Yes } else { Support::No("programs could not be loaded") }
    }

    fn collect(&self, sink: &mut Sink<'_>) -> Result<(), CollectError> {
        let Some(facts) = (self.read)() else { return Ok(()) };
        let mut attached = sink.family(&ATTACHED);
        for (program, is_attached) in &facts.programs {
            attached.value(&[program], Value::Integer((*is_attached).into()));
        }
        sink.family(&MEMORY).value(&[], Value::Integer(facts.memory_bytes));
        for (descriptor, read) in &LOSSES {
            sink.family(descriptor).value(&[], Value::Integer(read(&facts.control)));
        }
        Ok(())
    }
}
