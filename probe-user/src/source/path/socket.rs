//! A UDP socket of both families that tells when the kernel took each datagram from the device and gave it to it.
//!
//! The times are those of the software, not of the card: they are of one clock on all devices, and every driver takes
//! the first kind. Where a driver does not say when it sent, the caller has its own time from before.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::sockopt::{
    Ipv4RecvTtl, Ipv6RecvHopLimit, Ipv6RecvPacketInfo, Ipv6V6Only, RcvBuf, Timestamping,
};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrIn6,
    TimestampingFlag, Timestamps, bind, recvmsg, sendmsg, setsockopt, socket,
};
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Datagrams wait here while the agent does not run: some hundred of them.
const RECEIVE_BUFFER: usize = 1 << 20;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The kernel gives none, or not with these options.
    #[error("no UDP socket with times of the kernel: {0}")]
    Open(#[source] io::Error),
    /// The port is taken.
    #[error("UDP port {port} cannot be bound: {source}")]
    Bind {
        /// The port.
        port: u16,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// The own end of a datagram's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// The address that it was sent to.
    pub address: IpAddr,
    /// Index of the interface that it came through.
    pub interface: u32,
}

/// A datagram that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its bytes, or the size of the buffer where there were more.
    pub length: usize,
    /// Who sent it.
    pub from: SocketAddr,
    /// Where it came to.
    pub local: Option<Local>,
    /// When the kernel took it, in nanoseconds since 1970.
    pub at: Option<u64>,
    /// TTL or hop limit that it came with.
    pub hop_limit: Option<u8>,
}

/// A datagram that left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmitted {
    /// The number that [`PathSocket::send`] gave it.
    pub id: u32,
    /// When the kernel gave it to the device, in nanoseconds since 1970.
    pub at: u64,
}

/// The socket.
#[derive(Debug)]
pub struct PathSocket {
    socket: UdpSocket,
    /// The kernel's number of the next datagram.
    next: AtomicU32,
}

impl PathSocket {
    /// A socket on that port of all addresses, on any port for 0. Needs a runtime.
    ///
    /// # Errors
    /// When the kernel refuses, or the port is taken.
    pub fn bind(port: u16) -> Result<Self, SocketError> {
        let socket = open().map_err(|errno| SocketError::Open(errno.into()))?;
        forbid_fragments(&socket).map_err(|errno| SocketError::Open(errno.into()))?;
        let any = SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0));
        bind(socket.as_raw_fd(), &any).map_err(|errno| SocketError::Bind { port, source: errno.into() })?;
        let socket = UdpSocket::from_std(socket.into()).map_err(SocketError::Open)?;
        Ok(Self { socket, next: AtomicU32::new(0) })
    }

    /// Waits until there is something to take: what came or what left.
    ///
    /// # Errors
    /// When the runtime ends.
    pub async fn wait(&self) -> io::Result<()> {
        self.socket.ready(Interest::READABLE | Interest::ERROR).await.map(drop)
    }

    /// Takes a datagram; none where none is left.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        some(self.socket.try_io(Interest::READABLE, || self.receive_now(buffer)))
    }

    fn receive_now(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut space = cmsg_space!(Timestamps, libc::in6_pktinfo, i32, i32);
        let mut slices = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let message = recvmsg::<SockaddrIn6>(self.fd(), &mut slices, Some(&mut space), flags)?;
        let from = message.address.map(SocketAddrV6::from).map(canonical);
        let from = from.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        let mut received = Received { length: message.bytes, from, local: None, at: None, hop_limit: None };
        for part in message.cmsgs()? {
            match part {
                ControlMessageOwned::ScmTimestampsns(times) => received.at = nanos(&times),
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    let address = Ipv6Addr::from(info.ipi6_addr.s6_addr).to_canonical();
                    received.local = Some(Local { address, interface: info.ipi6_ifindex });
                }
                ControlMessageOwned::Ipv4Ttl(limit) | ControlMessageOwned::Ipv6HopLimit(limit) => {
                    received.hop_limit = u8::try_from(limit).ok();
                }
                _ => {}
            }
        }
        Ok(received)
    }

    /// Takes the time of a datagram that left; none where none is left.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn transmitted(&self) -> io::Result<Option<Transmitted>> {
        some(self.socket.try_io(Interest::ERROR, || self.transmitted_now()))
    }

    fn transmitted_now(&self) -> io::Result<Transmitted> {
        loop {
            let mut space = cmsg_space!(Timestamps, [u8; 64]);
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_ERRQUEUE;
            let message = recvmsg::<()>(self.fd(), &mut [], Some(&mut space), flags)?;
            let (mut at, mut id) = (None, None);
            for part in message.cmsgs()? {
                match part {
                    ControlMessageOwned::ScmTimestampsns(times) => at = nanos(&times),
                    ControlMessageOwned::Ipv4RecvErr(error, _)
                    | ControlMessageOwned::Ipv6RecvErr(error, _) => id = Some(error.ee_data),
                    _ => {}
                }
            }
            // Anything else in this queue is no time of ours.
            if let (Some(at), Some(id)) = (at, id) {
                return Ok(Transmitted { id, at });
            }
        }
    }

    /// Sends a datagram, where given from this address through this interface, and tells its number.
    ///
    /// # Errors
    /// What the kernel says. Numbers begin anew then.
    pub fn send(&self, bytes: &[u8], to: SocketAddr, local: Option<Local>) -> io::Result<u32> {
        let info = local.map(|local| libc::in6_pktinfo {
            ipi6_addr: libc::in6_addr { s6_addr: mapped(local.address).octets() },
            ipi6_ifindex: local.interface,
        });
        let parts: Vec<_> = info.iter().map(ControlMessage::Ipv6PacketInfo).collect();
        let to = SockaddrIn6::from(SocketAddrV6::new(mapped(to.ip()), to.port(), 0, 0));
        match sendmsg(self.fd(), &[IoSlice::new(bytes)], &parts, MsgFlags::MSG_DONTWAIT, Some(&to)) {
            Ok(_) => Ok(self.next.fetch_add(1, Ordering::Relaxed)),
            Err(errno) => {
                // Whether the kernel has counted it depends on how far it came.
                self.next.store(0, Ordering::Relaxed);
                number_anew(&self.socket)?;
                Err(errno.into())
            }
        }
    }

    fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn open() -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet6, SockType::Datagram, flags, None)?;
    setsockopt(&socket, Ipv6V6Only, &false)?;
    setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
    setsockopt(&socket, Ipv4RecvTtl, &true)?;
    setsockopt(&socket, Ipv6RecvHopLimit, &true)?;
    // The kernel gives what `net.core.rmem_max` allows.
    setsockopt(&socket, RcvBuf, &RECEIVE_BUFFER)?;
    number_anew(&socket)?;
    Ok(socket)
}

/// No router may cut what is sent, and neither may the kernel by what it remembers of the path: a size either passes or it
/// does not.
fn forbid_fragments(socket: &OwnedFd) -> rustix::io::Result<()> {
    set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::PROBE)?;
    set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::PROBE)
}

/// None where nothing is left.
fn some<T>(taken: io::Result<T>) -> io::Result<Option<T>> {
    match taken {
        Ok(taken) => Ok(Some(taken)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Times of both directions, with numbers from 0 on; without the datagrams themselves, which not everybody may see again.
fn number_anew(socket: &impl AsFd) -> Result<(), Errno> {
    let plain = TimestampingFlag::SOF_TIMESTAMPING_SOFTWARE
        | TimestampingFlag::SOF_TIMESTAMPING_RX_SOFTWARE
        | TimestampingFlag::SOF_TIMESTAMPING_TX_SOFTWARE
        | TimestampingFlag::SOF_TIMESTAMPING_OPT_TSONLY;
    setsockopt(socket, Timestamping, &plain)?;
    setsockopt(socket, Timestamping, &(plain | TimestampingFlag::SOF_TIMESTAMPING_OPT_ID))
}

/// The software's time, where there is one.
fn nanos(times: &Timestamps) -> Option<u64> {
    let time = Duration::from(times.system);
    u64::try_from(time.as_nanos()).ok().filter(|nanos| *nanos > 0)
}

const fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

fn canonical(address: SocketAddrV6) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::path::realtime;

    /// A second: the kernel answers in microseconds.
    const LIMIT: Duration = Duration::from_secs(1);

    // Both queues wake: one that is not emptied would wake at once for ever.
    async fn received(socket: &PathSocket, buffer: &mut [u8]) -> Received {
        loop {
            while socket.transmitted().unwrap().is_some() {}
            if let Some(received) = socket.receive(buffer).unwrap() {
                return received;
            }
            tokio::time::timeout(LIMIT, socket.wait()).await.unwrap().unwrap();
        }
    }

    async fn transmitted(socket: &PathSocket) -> Transmitted {
        loop {
            if let Some(transmitted) = socket.transmitted().unwrap() {
                return transmitted;
            }
            assert_eq!(socket.receive(&mut []).unwrap(), None);
            tokio::time::timeout(LIMIT, socket.wait()).await.unwrap().unwrap();
        }
    }

    fn port(socket: &PathSocket) -> u16 {
        nix::sys::socket::getsockname::<SockaddrIn6>(socket.fd()).unwrap().port()
    }

    #[tokio::test]
    async fn the_kernel_tells_when_a_datagram_left_and_came() {
        for address in ["127.0.0.1", "::1"] {
            let address: IpAddr = address.parse().unwrap();
            let (here, there) = (PathSocket::bind(0).unwrap(), PathSocket::bind(0).unwrap());
            for round in 0..3 {
                let before = realtime();
                let id = here.send(b"ping", (address, port(&there)).into(), None).unwrap();
                let left = transmitted(&here).await;
                let mut buffer = [0; 16];
                let came = received(&there, &mut buffer).await;
                assert_eq!((id, left.id, &buffer[..came.length]), (round, round, &b"ping"[..]));
                let times = [before, left.at, came.at.unwrap(), realtime()];
                assert!(times.is_sorted(), "{times:?}");
                assert_eq!((came.from.ip(), came.local), (address, Some(Local { address, interface: 1 })));
                assert!(came.hop_limit.is_some_and(|limit| limit > 0));
                there.send(b"pong", came.from, came.local).unwrap();
                assert_eq!(received(&here, &mut buffer).await.from, (address, port(&there)).into());
            }
        }
    }

    /// What the loops of the agent rely on: who has emptied both queues sleeps until there is something again.
    #[tokio::test]
    async fn nothing_wakes_once_both_queues_are_empty() {
        const QUIET: Duration = Duration::from_millis(50);
        let socket = PathSocket::bind(0).unwrap();
        let own = SocketAddr::new("127.0.0.1".parse().unwrap(), port(&socket));
        for _ in 0..3 {
            socket.send(b"own", own, None).unwrap();
            tokio::time::timeout(LIMIT, socket.wait()).await.unwrap().unwrap();
            let mut buffer = [0; 16];
            let (mut left, mut came) = (0, 0);
            while tokio::time::timeout(QUIET, socket.wait()).await.is_ok() {
                while socket.transmitted().unwrap().is_some() {
                    left += 1;
                }
                while socket.receive(&mut buffer).unwrap().is_some() {
                    came += 1;
                }
            }
            assert_eq!((left, came), (1, 1));
        }
    }

    #[tokio::test]
    async fn after_a_refusal_numbers_begin_anew() {
        let (here, there) = (PathSocket::bind(0).unwrap(), PathSocket::bind(0).unwrap());
        let place = SocketAddr::new("127.0.0.1".parse().unwrap(), port(&there));
        assert_eq!(here.send(b"one", place, None).unwrap(), 0);
        assert_eq!(transmitted(&here).await.id, 0);
        let nowhere = Local { address: "192.0.2.1".parse().unwrap(), interface: 0 };
        assert!(here.send(b"two", place, Some(nowhere)).is_err());
        assert_eq!(here.send(b"three", place, None).unwrap(), 0);
        assert_eq!(transmitted(&here).await.id, 0);
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_named() {
        let socket = PathSocket::bind(0).unwrap();
        let error = PathSocket::bind(port(&socket)).unwrap_err().to_string();
        assert!(error.contains(&format!("UDP port {} cannot be bound", port(&socket))), "{error}");
    }
}
