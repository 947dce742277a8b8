//! Who listens on which TCP address and port of this network namespace, whichever user it belongs to: `/proc/PID/fd` of
//! others is closed to an agent without `CAP_SYS_PTRACE`, an iterator over open files is not. The program is loaded
//! once; each walk reads it from its beginning.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt as _;

use aya::programs::{Iter, ProgramError};
use aya::{Btf, Ebpf};
use probe_common::listener::{IPV4, IPV6, ListenerRecord, REUSEPORT, V6ONLY};
use zerocopy::FromBytes as _;

use super::btf::{self, BtfError};
use super::error::KernelError;
use super::load::program;

const PROGRAM: &str = "leadline_listen";

/// 18,000 sockets; a node has some dozens.
const MAX_BYTES: u64 = 1 << 20;

/// The kernel gives way after each million of open files that had nothing to tell (`bpf_seq_read`).
const MAX_PAUSES: u32 = 64;

/// Constants of the program that are offsets of members: their names, structure and member.
const OFFSETS: [(&str, &str, &str); 13] = [
    ("OFFSET_SOCKET_SK", "socket", "sk"),
    ("OFFSET_SK_PROTOCOL", "sock", "sk_protocol"),
    ("OFFSET_SKC_FAMILY", "sock_common", "skc_family"),
    ("OFFSET_SKC_NUM", "sock_common", "skc_num"),
    ("OFFSET_SKC_IPV4", "sock_common", "skc_rcv_saddr"),
    ("OFFSET_SKC_IPV6", "sock_common", "skc_v6_rcv_saddr"),
    ("OFFSET_SKC_NET", "sock_common", "skc_net"),
    ("OFFSET_NET_INUM", "net", "ns.inum"),
    ("OFFSET_FILE_INODE", "file", "f_inode"),
    ("OFFSET_INODE_INO", "inode", "i_ino"),
    ("OFFSET_TASK_TGID", "task_struct", "tgid"),
    ("OFFSET_TASK_LEADER", "task_struct", "group_leader"),
    ("OFFSET_TASK_COMM", "task_struct", "comm"),
];

/// The same for bits.
const BITS: [(&str, &str); 2] =
    [("BIT_SKC_IPV6ONLY", "skc_ipv6only"), ("BIT_SKC_REUSEPORT", "skc_reuseport")];

/// A listening socket and a process that has it open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listener {
    /// Local port.
    pub port: u16,
    /// Local address; unspecified for every address.
    pub address: IpAddr,
    /// Process id.
    pub process: u32,
    /// Name of the process.
    pub command: String,
    /// Inode of the socket: the same for processes that share it.
    pub socket: u64,
    /// Whether an IPv6 socket takes no IPv4.
    pub v6only: bool,
    /// Whether others may listen on the same address and port.
    pub reuseport: bool,
}

/// What the program needs to be told.
///
/// # Errors
/// When this kernel has no such member.
pub(super) fn constants(btf: &btf::Btf) -> Result<Vec<(&'static str, u32)>, BtfError> {
    let offsets =
        OFFSETS.iter().map(|(name, structure, member)| Ok((*name, btf.offset_of(structure, member)?)));
    let bits = BITS.iter().map(|(name, member)| Ok((*name, btf.bit_of("sock_common", member)?)));
    // Without its number no namespace is ours, and nothing is found.
    let namespace = fs::metadata("/proc/self/ns/net").map_or(0, |about| about.ino());
    let namespace = [Ok(("LISTENER_NETNS", u32::try_from(namespace).unwrap_or_default()))];
    offsets.chain(bits).chain(namespace).collect()
}

/// Loads the program.
///
/// # Errors
/// Without such iterators (before Linux 5.8), without `bpf_sock_from_file` (before 5.11), and where the verifier refuses
/// it.
pub(super) fn load(ebpf: &mut Ebpf, kernel: &Btf) -> Result<(), KernelError> {
    let iterator: &mut Iter = program(ebpf, PROGRAM)?;
    iterator.load("task_file", kernel).map_err(|source| KernelError::Program { program: PROGRAM, source })
}

/// Lists the listeners of this moment, each pair of socket and process once.
///
/// # Errors
/// When the kernel refuses to begin or to go on.
pub(super) fn walk(ebpf: &mut Ebpf) -> Result<Vec<Listener>, KernelError> {
    let iterator: &mut Iter = program(ebpf, PROGRAM)?;
    let files = open(iterator).map_err(|source| KernelError::Program { program: PROGRAM, source })?;
    let bytes = read(files).map_err(|source| KernelError::Iterator { program: PROGRAM, source })?;
    Ok(decode(&bytes))
}

fn open(iterator: &mut Iter) -> Result<File, ProgramError> {
    let link = iterator.attach()?;
    let file = iterator.take_link(link)?.into_file();
    file.map_err(|error| ProgramError::IOError(io::Error::other(error)))
}

fn read(files: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut files = files.take(MAX_BYTES);
    for _ in 0..MAX_PAUSES {
        match files.read_to_end(&mut bytes) {
            Ok(_) if files.limit() == 0 => return Err(io::Error::other("more sockets than can be told")),
            Ok(_) => return Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}

fn decode(bytes: &[u8]) -> Vec<Listener> {
    let (records, _rest) = bytes.as_chunks::<{ size_of::<ListenerRecord>() }>();
    let mut listeners: Vec<Listener> = records
        .iter()
        .filter_map(|record| listener(&ListenerRecord::read_from_bytes(record).ok()?))
        .collect();
    // A process may have several descriptors of a socket.
    listeners.sort_unstable();
    listeners.dedup();
    listeners
}

/// `None` for a family that the program never writes.
fn listener(record: &ListenerRecord) -> Option<Listener> {
    let [a, b, c, d, ..] = record.address;
    let address = match record.family {
        IPV4 => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        IPV6 => IpAddr::V6(Ipv6Addr::from(record.address)).to_canonical(),
        _ => return None,
    };
    let length = record.command.iter().position(|byte| *byte == 0).unwrap_or(record.command.len());
    Some(Listener {
        port: record.port,
        address,
        process: record.process,
        command: String::from_utf8_lossy(record.command.get(..length)?).into_owned(),
        socket: record.socket,
        v6only: record.family == IPV6 && record.flags & V6ONLY != 0,
        reuseport: record.flags & REUSEPORT != 0,
    })
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes as _;

    use super::*;

    fn record(family: u16, address: &[u8]) -> ListenerRecord {
        let mut record = ListenerRecord {
            socket: 77,
            process: 5,
            flags: V6ONLY,
            family,
            port: 6443,
            padding: 0,
            address: [0; 16],
            command: *b"kube-apiserver\0x",
        };
        record.address[..address.len()].copy_from_slice(address);
        record
    }

    #[test]
    fn a_record_is_read_field_by_field() {
        let expected = Listener {
            port: 6443,
            address: "192.0.2.7".parse().unwrap(),
            process: 5,
            command: "kube-apiserver".to_owned(),
            socket: 77,
            v6only: false,
            reuseport: false,
        };
        assert_eq!(decode(record(IPV4, &[192, 0, 2, 7]).as_bytes()), [expected]);
        let six = ListenerRecord { flags: V6ONLY | REUSEPORT, ..record(IPV6, &[0x20, 0x01, 0x0d, 0xb8]) };
        let six = &decode(six.as_bytes())[0];
        assert_eq!((six.address, six.v6only, six.reuseport), ("2001:db8::".parse().unwrap(), true, true));
    }

    #[test]
    fn an_ipv4_address_in_an_ipv6_socket_is_one_of_ipv4() {
        let mapped = "::ffff:192.0.2.7".parse::<Ipv6Addr>().unwrap().octets();
        let found = decode(record(IPV6, &mapped).as_bytes());
        assert_eq!(found[0].address, "192.0.2.7".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn descriptors_of_one_socket_are_one_listener_and_processes_are_several() {
        let one = record(IPV4, &[0; 4]);
        let other = ListenerRecord { process: 6, ..one };
        let bytes = [one.as_bytes(), other.as_bytes(), one.as_bytes()].concat();
        assert_eq!(decode(&bytes).iter().map(|found| found.process).collect::<Vec<_>>(), [5, 6]);
    }

    #[test]
    fn what_is_no_record_is_left_out() {
        assert_eq!(decode(record(1, &[]).as_bytes()), []);
        assert_eq!(decode(&record(IPV4, &[]).as_bytes()[..40]), []);
    }

    #[test]
    fn the_running_kernel_has_everything_that_is_needed() {
        let btf = btf::Btf::read("/sys/kernel/btf/vmlinux".as_ref()).unwrap();
        let constants = constants(&btf).unwrap();
        assert_eq!(constants.len(), OFFSETS.len() + BITS.len() + 1);
        assert!(constants.iter().any(|(name, value)| *name == "LISTENER_NETNS" && *value > 0));
    }
}
