//! Loads the object, prepares its maps, attaches the programs.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{Array, HashMap, Map, MapData, Queue, RingBuf};
use aya::programs::links::CgroupAttachMode;
use aya::programs::{CgroupSkb, CgroupSkbAttachType, Program, ProgramError, RawTracePoint, SockOps};
use aya::{Ebpf, EbpfLoader};
use probe_common::overlay::{DEVICES_MAX, NODES_MAX, OverlayDevice};
use probe_common::prefix::PrefixValue;
use probe_common::traffic::{SLOTS_RESERVED, SlotKey};
use probe_common::{ABI_VERSION, SHARDS_MAX};

use super::btf::{Btf, BtfError};
use super::error::KernelError;
use super::mapped::Mapped;
use super::path_pod::{self, PodPaths};
use super::rings::Buffers;
use super::served::{self, Servers};
use super::slots::{Shape, Slots};
use super::tcp_port::{self, Ports};
use super::thread::KernelOptions;
use super::wire::Wire;
use super::{listener, older};

const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";
/// `OFFSET_SK_ERR` of a kernel without BTF.
const NO_OFFSET: u32 = u32::MAX;

/// Offsets that the programs need, all of a feature or none.
struct Offsets {
    sk_err: u32,
    skc_state: Option<u32>,
    cgroup: Result<CgroupOffsets, BtfError>,
    listener: Result<Vec<(&'static str, u32)>, BtfError>,
    resent: Result<[(&'static str, u32); 2], BtfError>,
}

struct CgroupOffsets {
    kn: u32,
    root: u32,
    level: u32,
    ancestors: u32,
    kn_id: u32,
    hierarchy: u32,
}

impl CgroupOffsets {
    fn of(btf: &Btf) -> Result<Self, BtfError> {
        Ok(Self {
            kn: btf.offset_of("cgroup", "kn")?,
            root: btf.offset_of("cgroup", "root")?,
            level: btf.offset_of("cgroup", "level")?,
            ancestors: btf.offset_of("cgroup", "ancestors")?,
            kn_id: btf.offset_of("kernfs_node", "id")?,
            hierarchy: btf.offset_of("cgroup_root", "hierarchy_id")?,
        })
    }
}

impl Offsets {
    fn read(path: &Path) -> Self {
        match Btf::read(path) {
            Ok(btf) => Self {
                sk_err: btf.offset_of("sock", "sk_err").unwrap_or(NO_OFFSET),
                skc_state: btf.offset_of("sock_common", "skc_state").ok(),
                cgroup: CgroupOffsets::of(&btf),
                listener: listener::constants(&btf),
                resent: path_pod::constants(&btf),
            },
            Err(error) => {
                let none = || BtfError::Absent("BTF".to_owned());
                let (listener, resent) = (Err(none()), Err(none()));
                Self { sk_err: NO_OFFSET, skc_state: None, cgroup: Err(error), listener, resent }
            }
        }
    }
}

/// A loaded object whose programs run.
pub(super) struct Loaded {
    /// Programs; the overlay ones are attached later, device by device.
    pub(super) ebpf: Ebpf,
    pub(super) slots: Arc<Slots>,
    pub(super) trie: LpmTrie<MapData, [u8; 16], Wire<PrefixValue>>,
    pub(super) slot_of: HashMap<MapData, Wire<SlotKey>, u32>,
    pub(super) free: Queue<MapData, u32>,
    pub(super) devices: HashMap<MapData, u32, Wire<OverlayDevice>>,
    pub(super) buffers: Buffers,
    pub(super) servers: Servers,
    /// Whether cgroups are followed by tracepoint; else why not.
    pub(super) cgroup_tracking: Result<(), String>,
    /// Whether connect failures have their reason.
    pub(super) socket_errors: bool,
    /// Whether listeners can be listed; else why not.
    pub(super) listeners: Result<(), String>,
    /// Whether it is known how large segments are that are sent again.
    pub(super) resent: bool,
}

/// The smallest power of two that has a shard for each CPU, up to the limit.
fn shards(processors: usize, limit: u32) -> u32 {
    u32::try_from(processors).unwrap_or(limit).clamp(1, limit).next_power_of_two().min(limit)
}

/// Loads everything and attaches what belongs to the cgroup root.
pub(super) fn load(options: &KernelOptions) -> Result<Loaded, KernelError> {
    let KernelOptions { cgroup_root, slots, listeners, ports, .. } = options;
    let slots = *slots;
    let root_error = |source| KernelError::CgroupRoot { path: cgroup_root.clone(), source };
    let root = File::open(cgroup_root).map_err(root_error)?;
    let root_id = root.metadata().map_err(root_error)?.ino();
    let processors = aya::util::nr_cpus().unwrap_or(SHARDS_MAX as usize);
    let shape = Shape {
        slots,
        shards: shards(processors, SHARDS_MAX),
        tcp_shards: shards(processors, probe_common::tcp::TCP_SHARDS_MAX),
    };
    let offsets = Offsets::read(Path::new(BTF_PATH));
    let mut ebpf = open(&shape, &offsets, root_id, options)?;
    let slots = Arc::new(map_counters(&mut ebpf, shape, tcp_port::slots(ports))?);
    // 0 means "never looked up" in a socket's storage.
    slots.raise_generation();
    let mut free = Queue::try_from(take(&mut ebpf, "leadline_free")?).map_err(map_error("leadline_free"))?;
    for slot in SLOTS_RESERVED..shape.slots {
        free.push(slot, 0).map_err(map_error("leadline_free"))?;
    }
    let trie = LpmTrie::try_from(take(&mut ebpf, "leadline_peers")?).map_err(map_error("leadline_peers"))?;
    let slot_of =
        HashMap::try_from(take(&mut ebpf, "leadline_slots")?).map_err(map_error("leadline_slots"))?;
    let devices =
        HashMap::try_from(take(&mut ebpf, "leadline_ovdev")?).map_err(map_error("leadline_ovdev"))?;
    let buffers = Buffers {
        events: ring(&mut ebpf, "leadline_events")?,
        frames: ring(&mut ebpf, "leadline_tap")?,
        served: ring(&mut ebpf, "leadline_served")?,
        tunnel: ring(&mut ebpf, "leadline_tunnel")?,
        too_big: ring(&mut ebpf, "leadline_toobig")?,
    };
    let servers = Servers::new(
        HashMap::try_from(take(&mut ebpf, served::SERVERS)?).map_err(map_error(served::SERVERS))?,
        Array::try_from(take(&mut ebpf, served::WATCHED)?).map_err(map_error(served::WATCHED))?,
    );
    let cgroup_tracking = follow_cgroups(&mut ebpf, &offsets);
    attach_tcp(&mut ebpf, &root, cgroup_root)?;
    // After the callbacks have their program, before the packets of older connections are counted.
    let (resent, listeners) = load_by_types(&mut ebpf, &offsets, *listeners);
    attach_packets(&mut ebpf, &root, cgroup_root)?;
    let socket_errors = offsets.sk_err != NO_OFFSET;
    Ok(Loaded {
        ebpf,
        slots,
        trie,
        slot_of,
        free,
        devices,
        buffers,
        servers,
        cgroup_tracking,
        socket_errors,
        listeners,
        resent,
    })
}

/// Creates the maps in their sizes and relocates the programs.
fn open(
    shape: &Shape,
    offsets: &Offsets,
    root_id: u64,
    options: &KernelOptions,
) -> Result<Ebpf, KernelError> {
    let (shard_mask, tcp_shard_mask) = (shape.shards - 1, shape.tcp_shards - 1);
    let skc_state = offsets.skc_state.unwrap_or_default();
    let (ports, port_slots) = (tcp_port::constant(&options.ports), tcp_port::slots(&options.ports));
    let mut loader = EbpfLoader::new();
    loader
        // The programs carry no relocations, and aya's copy of the kernel's types would take some 20 MB for good.
        .btf(None)
        .map_max_entries("leadline_keys", shape.slots)
        .map_max_entries("leadline_cells", shape.slots * shape.shards)
        .map_max_entries("leadline_tcells", shape.slots * shape.tcp_shards)
        .map_max_entries("leadline_slots", shape.slots)
        .map_max_entries("leadline_free", shape.slots)
        .map_max_entries("leadline_ovl", shape.shards * DEVICES_MAX * NODES_MAX)
        .map_max_entries(path_pod::CELLS, path_pod::entries(shape.tcp_shards))
        .map_max_entries("leadline_pkeys", port_slots)
        .map_max_entries("leadline_pcells", port_slots * shape.tcp_shards)
        .map_max_entries("leadline_pslots", port_slots)
        .map_max_entries("leadline_pfree", port_slots)
        .override_global("LEADLINE_ABI", &ABI_VERSION, true)
        .override_global("SLOTS", &shape.slots, true)
        .override_global("SHARD_MASK", &shard_mask, true)
        .override_global("TCP_SHARD_MASK", &tcp_shard_mask, true)
        .override_global("TCP_PORTS", &ports, true)
        .override_global("PORT_SLOT_COUNT", &port_slots, true)
        .override_global("OFFSET_SK_ERR", &offsets.sk_err, true)
        .override_global("OFFSET_SKC_STATE", &skc_state, true)
        .override_global("ROOT_CGROUP", &root_id, true)
        .override_global(aya_log::LEVEL, &options.log_level, false);
    if let Ok(cgroup) = &offsets.cgroup {
        loader
            .override_global("OFFSET_CGROUP_KN", &cgroup.kn, true)
            .override_global("OFFSET_CGROUP_ROOT", &cgroup.root, true)
            .override_global("OFFSET_CGROUP_LEVEL", &cgroup.level, true)
            .override_global("OFFSET_CGROUP_ANCESTORS", &cgroup.ancestors, true)
            .override_global("OFFSET_KN_ID", &cgroup.kn_id, true)
            .override_global("OFFSET_ROOT_HIERARCHY", &cgroup.hierarchy, true);
    }
    for (name, value) in offsets.listener.iter().flatten().chain(offsets.resent.iter().flatten()) {
        loader.override_global(name, value, true);
    }
    let object = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/leadline-probe"));
    Ok(loader.load(object)?)
}

pub(super) fn map_error(map: &'static str) -> impl Fn(aya::maps::MapError) -> KernelError {
    move |source| KernelError::Map { map, source }
}

pub(super) fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, KernelError> {
    ebpf.take_map(name).ok_or(KernelError::Missing { program: name })
}

fn ring(ebpf: &mut Ebpf, name: &'static str) -> Result<RingBuf<MapData>, KernelError> {
    RingBuf::try_from(take(ebpf, name)?).map_err(map_error(name))
}

/// Maps an array into memory.
pub(super) fn mapped<T>(ebpf: &mut Ebpf, name: &'static str, length: u32) -> Result<Mapped<T>, KernelError>
where
    T: zerocopy::FromBytes + zerocopy::IntoBytes + zerocopy::Immutable,
{
    match take(ebpf, name)? {
        Map::Array(data) => Mapped::new(data, name, length),
        _ => Err(KernelError::Missing { program: name }),
    }
}

fn map_counters(ebpf: &mut Ebpf, shape: Shape, port_slots: u32) -> Result<Slots, KernelError> {
    Ok(Slots {
        shape,
        control: mapped(ebpf, "leadline_ctl", 1)?,
        keys: mapped(ebpf, "leadline_keys", shape.slots)?,
        cells: mapped(ebpf, "leadline_cells", shape.slots * shape.shards)?,
        tcp_cells: mapped(ebpf, "leadline_tcells", shape.slots * shape.tcp_shards)?,
        overlay_cells: mapped(ebpf, "leadline_ovl", shape.shards * DEVICES_MAX * NODES_MAX)?,
        ports: Ports::new(ebpf, port_slots, shape.tcp_shards)?,
        pod_paths: PodPaths::new(ebpf, shape.tcp_shards)?,
    })
}

/// A program of the object, as the type that it must have.
pub(super) fn program<'a, T>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut T, KernelError>
where
    &'a mut T: TryFrom<&'a mut Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .ok_or(KernelError::Missing { program: name })?
        .try_into()
        .map_err(|_other_type: ProgramError| KernelError::Missing { program: name })
}

/// Follows cgroups by raw tracepoint; without it new pods are found by scanning, and short ones are missed.
fn follow_cgroups(ebpf: &mut Ebpf, offsets: &Offsets) -> Result<(), String> {
    offsets.cgroup.as_ref().map_err(ToString::to_string)?;
    for (name, tracepoint) in [("leadline_mkdir", "cgroup_mkdir"), ("leadline_rmdir", "cgroup_rmdir")] {
        attach_tracepoint(ebpf, name, tracepoint).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn attach_tracepoint(ebpf: &mut Ebpf, name: &'static str, tracepoint: &str) -> Result<(), KernelError> {
    let program: &mut RawTracePoint = program(ebpf, name)?;
    program.load().map_err(|source| KernelError::Program { program: name, source })?;
    let target = format!("tracepoint {tracepoint}");
    program.attach(tracepoint).map_err(|source| KernelError::Attach { program: name, target, source })?;
    Ok(())
}

/// Loads what needs the kernel's types: what is refused is done without. Whether segments that are sent again have a
/// size, and whether listeners can be listed.
fn load_by_types(ebpf: &mut Ebpf, offsets: &Offsets, wants_listeners: bool) -> (bool, Result<(), String>) {
    // Some 15 MB for the length of this function.
    let kernel = aya::Btf::from_sys_fs().map_err(|error| error.to_string());
    let watched = kernel
        .as_ref()
        .map_err(ToString::to_string)
        .and_then(|kernel| older::watch(ebpf, kernel).map_err(|error| error.to_string()));
    if let Err(error) = watched {
        tracing::info!(error, "older connections of this network namespace are sampled, without callbacks");
    }
    let resent = offsets.resent.as_ref().map_err(ToString::to_string).and_then(|_offsets| {
        let kernel = kernel.as_ref().map_err(ToString::to_string)?;
        path_pod::follow(ebpf, kernel).map_err(|error| error.to_string())
    });
    if let Err(error) = &resent {
        tracing::info!(error, "sizes of segments that are sent again are not told");
    }
    (resent.is_ok(), load_listeners(ebpf, offsets, kernel, wants_listeners))
}

fn load_listeners(
    ebpf: &mut Ebpf,
    offsets: &Offsets,
    kernel: Result<aya::Btf, String>,
    is_wanted: bool,
) -> Result<(), String> {
    if !is_wanted {
        return Err("not asked for".to_owned());
    }
    offsets.listener.as_ref().map_err(ToString::to_string)?;
    listener::load(ebpf, &kernel?).map_err(|error| error.to_string())
}

fn refused(program: &'static str, cgroup: &Path) -> impl Fn(ProgramError) -> KernelError {
    let target = format!("cgroup {}", cgroup.display());
    move |source| KernelError::Attach { program, target: target.clone(), source }
}

/// Attaches the TCP program to the cgroup root. Links are multi-attach whatever the mode says.
fn attach_tcp(ebpf: &mut Ebpf, root: &File, path: &Path) -> Result<(), KernelError> {
    let tcp: &mut SockOps = program(ebpf, "leadline_tcp")?;
    tcp.load().map_err(|source| KernelError::Program { program: "leadline_tcp", source })?;
    tcp.attach(root, CgroupAttachMode::Single).map_err(refused("leadline_tcp", path))?;
    Ok(())
}

/// The same for the packet programs.
fn attach_packets(ebpf: &mut Ebpf, root: &File, path: &Path) -> Result<(), KernelError> {
    for (name, direction) in
        [("leadline_tx", CgroupSkbAttachType::Egress), ("leadline_rx", CgroupSkbAttachType::Ingress)]
    {
        let packets: &mut CgroupSkb = program(ebpf, name)?;
        packets.load().map_err(|source| KernelError::Program { program: name, source })?;
        packets.attach(root, direction, CgroupAttachMode::Single).map_err(refused(name, path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_a_power_of_two_within_the_limit() {
        assert_eq!([1, 2, 3, 6, 16, 200].map(|n| shards(n, 16)), [1, 2, 4, 8, 16, 16]);
    }
}
