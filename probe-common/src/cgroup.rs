//! Records of cgroups that come and go, so that a pod that lives one second has a name.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Longest path that fits; pod cgroups of systemd nodes have about 190 bytes.
pub const PATH_MAX: usize = 488;

/// [`CgroupRecord::kind`] of a new cgroup.
pub const CREATED: u32 = 1;
/// [`CgroupRecord::kind`] of a removed one.
pub const REMOVED: u32 = 2;

/// One record of the ring buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CgroupRecord {
    /// [`CREATED`] or [`REMOVED`].
    pub kind: u32,
    /// Components of `path` that lead to the agent's own cgroup root, which is what it shows paths relative to.
    pub root_level: u32,
    /// Id of the cgroup: the inode of its directory (`kernfs_node.id`).
    pub id: u64,
    /// `bpf_ktime_get_ns`.
    pub time: u64,
    /// Bytes of `path` in use, without a terminator; a longer path is cut.
    pub path_length: u32,
    /// Zero.
    pub padding: u32,
    /// Path in the whole hierarchy, as the tracepoint gives it.
    pub path: [u8; PATH_MAX],
}
const _: () = assert!(size_of::<CgroupRecord>() == 520);
