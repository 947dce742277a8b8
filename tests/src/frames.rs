//! Whole frames of a device: raw packet sockets, and a sender of what no program would send.

use std::mem::size_of_val;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send, setsockopt, sockopt};

use crate::place::Place;

/// Bytes that may wait in the kernel while a thread is not scheduled.
const BUFFER: usize = 8 << 20;
/// `PACKET_IGNORE_OUTGOING` of `linux/if_packet.h`: what the relay itself sends must not come back to it.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

/// Sends frames by a device.
#[derive(Debug)]
pub struct FrameSender(OwnedFd);

impl FrameSender {
    /// A sender for a device of the place.
    pub fn open(place: &impl Place, device: &str) -> Result<Self> {
        let socket = place.net(|| packet_socket(nix::net::if_::if_nametoindex(device)?))?;
        Ok(Self(socket.with_context(|| format!("send by {device} of {}", place.name()))?))
    }

    /// Sends one frame, from its Ethernet header on; waits while the device's queue is full.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        use std::os::fd::AsFd as _;
        loop {
            match send(self.0.as_raw_fd(), frame, MsgFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::EAGAIN | Errno::ENOBUFS) => {
                    poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLOUT)], PollTimeout::from(100_u8))?;
                }
                Err(errno) => return Err(errno).context("send a frame"),
            }
        }
    }
}

/// A raw packet socket of one device that receives what others send.
pub(crate) fn packet_socket(index: u32) -> Result<OwnedFd> {
    let flags = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    #[expect(unsafe_code, reason = "nix knows no packet socket that waits for its device")]
    // SAFETY: socket(2) takes three integers. Protocol 0 receives nothing before the bind, so that no frame of
    // another device can come in.
    let raw = unsafe { libc::socket(libc::AF_PACKET, flags, 0) };
    let raw = Errno::result(raw).context("open a packet socket (needs CAP_NET_RAW)")?;
    #[expect(unsafe_code, reason = "the descriptor of a system call that nix does not wrap")]
    // SAFETY: the descriptor has just been made and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    let ignore: libc::c_int = 1;
    let size = libc::socklen_t::try_from(size_of_val(&ignore))?;
    #[expect(unsafe_code, reason = "nix has no such option")]
    // SAFETY: the option is an int, which outlives the call, and the size is its own.
    let set = unsafe {
        libc::setsockopt(raw, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, (&raw const ignore).cast(), size)
    };
    Errno::result(set).context("set PACKET_IGNORE_OUTGOING (Linux 4.20)")?;
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).context("enlarge the receive buffer")?;
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET)?,
        sll_protocol: u16::try_from(libc::ETH_P_ALL)?.to_be(),
        sll_ifindex: i32::try_from(index)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let size = libc::socklen_t::try_from(size_of_val(&address))?;
    #[expect(unsafe_code, reason = "nix makes no link-layer addresses")]
    // SAFETY: the address is a whole sockaddr_ll, which outlives the call, and the size is its own.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) };
    Errno::result(bound).with_context(|| format!("bind to device {index}"))?;
    Ok(socket)
}
