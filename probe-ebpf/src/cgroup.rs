//! Cgroups that come and go, from the raw tracepoints `cgroup_mkdir` and `cgroup_rmdir` (kernel/cgroup/cgroup.c).
//! Raw ones need no tracefs. Kernel structures are read at offsets that the agent took from BTF.

use aya_ebpf::Global;
use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_probe_read_kernel, bpf_probe_read_kernel_str_bytes};
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use aya_log_ebpf::debug;
use probe_common::cgroup::{CREATED, CgroupRecord, PATH_MAX, REMOVED};

use crate::maps::{RECORDS, count_loss};

/// Ancestors looked at for the agent's root; systemd nests about six levels.
const LEVELS_MAX: u32 = 16;

/// Offsets from BTF.
#[unsafe(no_mangle)]
static OFFSET_CGROUP_KN: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static OFFSET_CGROUP_ROOT: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static OFFSET_CGROUP_LEVEL: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static OFFSET_CGROUP_ANCESTORS: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static OFFSET_KN_ID: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static OFFSET_ROOT_HIERARCHY: Global<u32> = Global::new(0);
/// Id of the cgroup that the agent is attached to; only what is below it is reported.
#[unsafe(no_mangle)]
static ROOT_CGROUP: Global<u64> = Global::new(1);

/// A new cgroup.
#[raw_tracepoint(tracepoint = "cgroup_mkdir")]
pub(crate) fn leadline_mkdir(ctx: RawTracePointContext) -> i32 {
    report(&ctx, CREATED);
    0
}

/// A removed one.
#[raw_tracepoint(tracepoint = "cgroup_rmdir")]
pub(crate) fn leadline_rmdir(ctx: RawTracePointContext) -> i32 {
    report(&ctx, REMOVED);
    0
}

/// Reads a `T` at `base + offset`.
#[inline(always)]
fn read<T>(base: *const u8, offset: u32) -> Option<T> {
    // SAFETY: bpf_probe_read_kernel checks the address and fails on a bad one.
    unsafe { bpf_probe_read_kernel(base.add(offset as usize).cast::<T>()) }.ok()
}

/// Id of a `struct cgroup`: that of its kernfs node.
#[inline(always)]
fn id_of(cgroup: *const u8) -> Option<u64> {
    let node: *const u8 = read(cgroup, OFFSET_CGROUP_KN.load())?;
    read(node, OFFSET_KN_ID.load())
}

/// Levels between the hierarchy's root and the agent's; `None` for a cgroup elsewhere.
#[inline(always)]
fn root_level(cgroup: *const u8) -> Option<u32> {
    let own_level: u32 = read(cgroup, OFFSET_CGROUP_LEVEL.load())?;
    for level in 0..LEVELS_MAX {
        if level >= own_level {
            return None;
        }
        let ancestor: *const u8 = read(cgroup, OFFSET_CGROUP_ANCESTORS.load() + level * 8)?;
        if id_of(ancestor)? == ROOT_CGROUP.load() {
            return Some(level);
        }
    }
    None
}

#[inline(always)]
fn report(ctx: &RawTracePointContext, kind: u32) -> Option<()> {
    let cgroup: *const u8 = ctx.arg(0);
    let path: *const u8 = ctx.arg(1);
    let root: *const u8 = read(cgroup, OFFSET_CGROUP_ROOT.load())?;
    // Hierarchy 0 is cgroup v2; version 1 hierarchies number their directories on their own.
    if read::<u32>(root, OFFSET_ROOT_HIERARCHY.load())? != 0 {
        return None;
    }
    let root_level = root_level(cgroup)?;
    let id = id_of(cgroup)?;
    let Some(mut entry) = RECORDS.reserve::<CgroupRecord>(0) else {
        count_loss(|control| {
            // SAFETY: a projection into the map value.
            unsafe { &raw mut (*control).records_lost }
        });
        return None;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the reserved record is ours until it is submitted; every field is written.
    unsafe {
        (*record).kind = kind;
        (*record).root_level = root_level;
        (*record).id = id;
        (*record).time = bpf_ktime_get_ns();
        (*record).padding = 0;
        let buffer = &mut *(&raw mut (*record).path).cast::<[u8; PATH_MAX]>();
        (*record).path_length = match bpf_probe_read_kernel_str_bytes(path, buffer) {
            Ok(text) => text.len() as u32,
            Err(_) => 0,
        };
    }
    entry.submit(0);
    debug!(ctx, "cgroup {} kind {} level {}", id, kind, root_level);
    Some(())
}
