//! Somebody else's BPF programs: small hand-assembled ones that count, beside which the agent must run.
//!
//! They are loaded by raw bpf(2), so that nothing of the agent's own loader is behind what the agent is tested with.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::place::Place;

/// Commands of bpf(2), `enum bpf_cmd`.
mod command {
    pub(super) const MAP_CREATE: i64 = 0;
    pub(super) const MAP_LOOKUP: i64 = 1;
    pub(super) const PROG_LOAD: i64 = 5;
    pub(super) const OBJ_PIN: i64 = 6;
    pub(super) const OBJ_GET_INFO: i64 = 15;
    pub(super) const PROG_QUERY: i64 = 16;
    pub(super) const LINK_CREATE: i64 = 28;
    pub(super) const ENABLE_STATS: i64 = 32;
}

/// Programs that a query returns at most.
const QUERIED: u32 = 64;

/// Where a program hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// `cgroup_skb` for what sockets receive.
    CgroupIngress,
    /// `cgroup_skb` for what sockets send.
    CgroupEgress,
    /// `sock_ops` of a cgroup.
    SockOps,
    /// tcx for what a device receives.
    TcxIngress,
    /// tcx for what a device sends.
    TcxEgress,
}

impl Hook {
    /// `enum bpf_attach_type`.
    pub(crate) const fn attach_type(self) -> u32 {
        match self {
            Self::CgroupIngress => 0,
            Self::CgroupEgress => 1,
            Self::SockOps => 3,
            Self::TcxIngress => 46,
            Self::TcxEgress => 47,
        }
    }

    /// `enum bpf_prog_type`.
    const fn program_type(self) -> u32 {
        match self {
            Self::CgroupIngress | Self::CgroupEgress => 8,
            Self::SockOps => 13,
            Self::TcxIngress | Self::TcxEgress => 3,
        }
    }

    /// What lets the packet go on: cgroup programs allow it, tc programs leave it to the next one (`TCX_NEXT`).
    const fn verdict(self) -> i32 {
        match self {
            Self::CgroupIngress | Self::CgroupEgress | Self::SockOps => 1,
            Self::TcxIngress | Self::TcxEgress => -1,
        }
    }
}

/// A program that counts its runs with one value in the first word of its context: the length of a packet
/// (`__sk_buff.len`) or the operation (`bpf_sock_ops.op`). It goes with this handle.
#[derive(Debug)]
pub struct Foreign {
    counter: OwnedFd,
    program: OwnedFd,
    link: Option<OwnedFd>,
}

impl Foreign {
    /// Attaches to a cgroup.
    pub fn on_cgroup(hook: Hook, cgroup: &Path, value: u32) -> Result<Self> {
        let foreign = Self::load(hook, value)?;
        let target = File::open(cgroup).with_context(|| format!("open {}", cgroup.display()))?;
        foreign
            .linked(hook, word(target.as_raw_fd())?)
            .with_context(|| format!("attach {hook:?} to {}", cgroup.display()))
    }

    /// Attaches to a device of the place.
    pub fn on_device(hook: Hook, place: &impl Place, device: &str, value: u32) -> Result<Self> {
        let foreign = Self::load(hook, value)?;
        place
            .net(|| foreign.linked(hook, nix::net::if_::if_nametoindex(device)?))?
            .with_context(|| format!("attach {hook:?} to {device} of {}", place.name()))
    }

    /// A tc program that tc itself is to attach, from this path.
    pub fn pinned(path: &Path, length: u32) -> Result<Self> {
        let foreign = Self::load(Hook::TcxEgress, length)?;
        let name = CString::new(path.as_os_str().as_bytes()).context("the path has a zero byte")?;
        let mut attribute = Attribute::default();
        attribute.put_pointer(0, name.as_ptr());
        attribute.put(8, word(foreign.program.as_raw_fd())?);
        attribute.call(command::OBJ_PIN).with_context(|| format!("pin {}", path.display()))?;
        Ok(foreign)
    }

    fn load(hook: Hook, value: u32) -> Result<Self> {
        let counter = create_counter().context("create a map")?;
        let program = load(hook, &assemble(hook, value, counter.as_raw_fd()))
            .with_context(|| format!("load a {hook:?} program"))?;
        Ok(Self { counter, program, link: None })
    }

    fn linked(mut self, hook: Hook, target: u32) -> Result<Self> {
        self.link = Some(link(&self.program, hook, target)?);
        Ok(self)
    }

    /// How often the program has run with its value.
    pub fn count(&self) -> Result<u64> {
        let (key, mut value) = (0_u32, 0_u64);
        let mut attribute = Attribute::default();
        attribute.put(0, word(self.counter.as_raw_fd())?);
        attribute.put_pointer(8, &raw const key);
        attribute.put_pointer(16, &raw mut value);
        attribute.call(command::MAP_LOOKUP).context("read a map")?;
        // The kernel has written it behind the compiler's back.
        Ok(std::hint::black_box(value))
    }

    /// The kernel's number of the program.
    pub fn id(&self) -> Result<u32> {
        let mut info = [0_u32; 16];
        let mut attribute = Attribute::default();
        attribute.put(0, word(self.program.as_raw_fd())?);
        attribute.put(4, word(size_of_val(&info))?);
        attribute.put_pointer(8, info.as_mut_ptr());
        attribute.call(command::OBJ_GET_INFO).context("ask for the program's number")?;
        // struct bpf_prog_info: type, id.
        Ok(std::hint::black_box(info)[1])
    }
}

/// A program that does nothing but let everything pass: what the hook itself costs. It goes with this handle.
#[derive(Debug)]
pub struct Empty {
    program: OwnedFd,
    _link: OwnedFd,
}

impl Empty {
    /// Attaches to a cgroup.
    pub fn on_cgroup(hook: Hook, cgroup: &Path) -> Result<Self> {
        let program = Self::load(hook)?;
        let target = File::open(cgroup).with_context(|| format!("open {}", cgroup.display()))?;
        let link = link(&program, hook, word(target.as_raw_fd())?)
            .with_context(|| format!("attach an empty program to {}", cgroup.display()))?;
        Ok(Self { program, _link: link })
    }

    /// Attaches to a device of the place.
    pub fn on_device(hook: Hook, place: &impl Place, device: &str) -> Result<Self> {
        let program = Self::load(hook)?;
        let link = place
            .net(|| link(&program, hook, nix::net::if_::if_nametoindex(device)?))?
            .with_context(|| format!("attach an empty program to {device} of {}", place.name()))?;
        Ok(Self { program, _link: link })
    }

    fn load(hook: Hook) -> Result<OwnedFd> {
        let verdict = [instruction(0xb7, 0, 0, 0, hook.verdict()), instruction(0x95, 0, 0, 0, 0)];
        load(hook, &verdict).with_context(|| format!("load an empty {hook:?} program"))
    }

    /// The descriptor of the program, whose `/proc/self/fdinfo` has its run-time statistics.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }
}

/// Run-time statistics of all programs for as long as the handle lives, however this process ends: the kernel counts
/// the open ones.
pub fn enable_statistics() -> Result<OwnedFd> {
    // BPF_STATS_RUN_TIME is 0.
    let enabled = Attribute::default().call_for_descriptor(command::ENABLE_STATS);
    enabled.context("switch BPF run-time statistics on")
}

/// The numbers of the programs of a cgroup's hook, in the order in which they run.
pub fn order_on_cgroup(hook: Hook, cgroup: &Path) -> Result<Vec<u32>> {
    let target = File::open(cgroup).with_context(|| format!("open {}", cgroup.display()))?;
    query(hook, word(target.as_raw_fd())?)
        .with_context(|| format!("list {hook:?} programs of {}", cgroup.display()))
}

/// The numbers of the programs of a device's hook, in the order in which they run.
pub fn order_on_device(hook: Hook, place: &impl Place, device: &str) -> Result<Vec<u32>> {
    place
        .net(|| query(hook, nix::net::if_::if_nametoindex(device)?))?
        .with_context(|| format!("list {hook:?} programs of {device} of {}", place.name()))
}

fn link(program: &OwnedFd, hook: Hook, target: u32) -> Result<OwnedFd> {
    let mut attribute = Attribute::default();
    attribute.put(0, word(program.as_raw_fd())?);
    attribute.put(4, target);
    attribute.put(8, hook.attach_type());
    Ok(attribute.call_for_descriptor(command::LINK_CREATE)?)
}

fn query(hook: Hook, target: u32) -> Result<Vec<u32>> {
    let mut numbers = [0_u32; QUERIED as usize];
    let mut attribute = Attribute::default();
    attribute.put(0, target);
    attribute.put(4, hook.attach_type());
    attribute.put_pointer(16, numbers.as_mut_ptr());
    attribute.put(24, QUERIED);
    attribute.call(command::PROG_QUERY)?;
    let count = usize::try_from(attribute.get(24))?;
    Ok(std::hint::black_box(numbers)[..count].to_vec())
}

/// A descriptor or a size as a word of `union bpf_attr`.
fn word<T: TryInto<u32>>(value: T) -> Result<u32>
where
    T::Error: std::error::Error + Send + Sync + 'static,
{
    value.try_into().context("a value that does not fit into a word of bpf(2)")
}

/// `union bpf_attr`, as far as it is used here.
#[derive(Default)]
struct Attribute([u64; 19]);

impl Attribute {
    /// Writes a word at a byte offset.
    fn put(&mut self, offset: usize, value: u32) {
        let mut bytes = self.0[offset / 8].to_ne_bytes();
        bytes[offset % 8..][..4].copy_from_slice(&value.to_ne_bytes());
        self.0[offset / 8] = u64::from_ne_bytes(bytes);
    }

    fn put_pointer<T>(&mut self, offset: usize, pointer: *const T) {
        self.0[offset / 8] = pointer.expose_provenance() as u64;
    }

    fn get(&self, offset: usize) -> u32 {
        let bytes = self.0[offset / 8].to_ne_bytes();
        let mut word = [0; 4];
        word.copy_from_slice(&bytes[offset % 8..][..4]);
        u32::from_ne_bytes(word)
    }

    fn call(&mut self, command: i64) -> io::Result<RawFd> {
        let size = size_of_val(&self.0);
        #[expect(unsafe_code, reason = "bpf(2) has no safe wrapper")]
        // SAFETY: the attribute is as large as is said; what its pointers lead to lives in the caller, in the sizes
        // that the caller wrote beside them.
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, self.0.as_mut_ptr(), size) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        RawFd::try_from(result).map_err(io::Error::other)
    }

    fn call_for_descriptor(&mut self, command: i64) -> io::Result<OwnedFd> {
        let descriptor = self.call(command)?;
        #[expect(unsafe_code, reason = "a descriptor that bpf(2) has returned belongs to nobody else")]
        // SAFETY: the kernel has just made this descriptor for this call.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
    }
}

/// An array of one 64-bit counter.
fn create_counter() -> io::Result<OwnedFd> {
    let mut attribute = Attribute::default();
    for (offset, value) in [(0, 2), (4, 4), (8, 8), (12, 1)] {
        attribute.put(offset, value);
    }
    attribute.call_for_descriptor(command::MAP_CREATE)
}

const fn instruction(code: u8, target: u8, source: u8, offset: i16, immediate: i32) -> u64 {
    let ([o0, o1], [i0, i1, i2, i3]) = (offset.to_ne_bytes(), immediate.to_ne_bytes());
    u64::from_ne_bytes([code, target | source << 4, o0, o1, i0, i1, i2, i3])
}

/// `if (first word == value) counter[0] += 1; return verdict`
fn assemble(hook: Hook, value: u32, counter: RawFd) -> [u64; 13] {
    [
        instruction(0x61, 2, 1, 0, 0),                   // r2 = *(u32 *)(r1 + 0)
        instruction(0x55, 2, 0, 9, value.cast_signed()), // if r2 != value goto out
        instruction(0x62, 10, 0, -4, 0),                 // *(u32 *)(r10 - 4) = 0
        instruction(0xbf, 2, 10, 0, 0),                  // r2 = r10
        instruction(0x07, 2, 0, 0, -4),                  // r2 += -4
        instruction(0x18, 1, 1, 0, counter),             // r1 = the map
        instruction(0, 0, 0, 0, 0),                      //
        instruction(0x85, 0, 0, 0, 1),                   // r0 = bpf_map_lookup_elem(r1, r2)
        instruction(0x15, 0, 0, 2, 0),                   // if r0 == 0 goto out
        instruction(0xb7, 1, 0, 0, 1),                   // r1 = 1
        instruction(0xdb, 0, 1, 0, 0),                   // lock *(u64 *)(r0 + 0) += r1
        instruction(0xb7, 0, 0, 0, hook.verdict()),      // out: r0 = verdict
        instruction(0x95, 0, 0, 0, 0),                   // exit
    ]
}

fn load(hook: Hook, program: &[u64]) -> Result<OwnedFd> {
    let mut log = vec![0_u8; 1 << 16];
    let mut attribute = Attribute::default();
    attribute.put(0, hook.program_type());
    attribute.put(4, word(program.len())?);
    attribute.put_pointer(8, program.as_ptr());
    attribute.put_pointer(16, c"GPL".as_ptr());
    attribute.put(24, 1);
    attribute.put(28, word(log.len())?);
    attribute.put_pointer(32, log.as_mut_ptr());
    attribute.0[6] = u64::from_ne_bytes(*b"foreign\0");
    if matches!(hook, Hook::CgroupIngress | Hook::CgroupEgress) {
        attribute.put(68, hook.attach_type());
    }
    attribute.call_for_descriptor(command::PROG_LOAD).with_context(|| {
        let log = std::hint::black_box(log);
        let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
        String::from_utf8_lossy(&log[..end]).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_an_attribute_keep_apart() {
        let mut attribute = Attribute::default();
        attribute.put(24, 7);
        attribute.put(28, 9);
        assert_eq!(
            [attribute.get(20), attribute.get(24), attribute.get(28), attribute.get(32)],
            [0, 7, 9, 0]
        );
    }

    #[test]
    fn an_instruction_has_its_fields_in_order() {
        let expected = [0x55, 0x42, 9, 0, 1, 2, 0, 0];
        assert_eq!(instruction(0x55, 2, 4, 9, 0x0201).to_le_bytes(), expected);
    }
}
