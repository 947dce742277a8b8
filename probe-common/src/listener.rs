//! Processes that accept TCP connections: what the iterator over open files writes, one record a file.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `AF_INET`.
pub const IPV4: u16 = 2;
/// `AF_INET6`.
pub const IPV6: u16 = 10;

/// Bit of [`ListenerRecord::flags`]: an IPv6 socket that takes no IPv4 (`IPV6_V6ONLY`).
pub const V6ONLY: u32 = 1;
/// Bit of [`ListenerRecord::flags`]: others may listen on the same address and port (`SO_REUSEPORT`).
pub const REUSEPORT: u32 = 1 << 1;

/// Bytes of a task's name.
pub const COMMAND_MAX: usize = 16;

/// One listening socket that one process has open. A socket is there once for each descriptor and process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ListenerRecord {
    /// Inode of the socket, the same in every process that has it.
    pub socket: u64,
    /// Process id in the initial namespace.
    pub process: u32,
    /// [`V6ONLY`] and [`REUSEPORT`].
    pub flags: u32,
    /// [`IPV4`] or [`IPV6`].
    pub family: u16,
    /// Local port, in host order.
    pub port: u16,
    /// Zero.
    pub padding: u32,
    /// Local address; of IPv4 the first four bytes. Zero is every address.
    pub address: [u8; 16],
    /// Name of the process's first thread, ended by zero.
    pub command: [u8; COMMAND_MAX],
}
const _: () = assert!(size_of::<ListenerRecord>() == 56);
