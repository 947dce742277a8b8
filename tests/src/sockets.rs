//! Sockets of a place in the hands of the test: the place's process makes them, so that they belong to its cgroup and
//! network namespace, and sends them here. What the test then does with them counts for the place.

use std::io::{IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketType, ipproto, recvmsg, sendmsg, socket,
};

use crate::process;

/// Connections that wait to be accepted at most.
const BACKLOG: i32 = 4096;
/// Bytes of one request: family, type, protocol.
const REQUEST: usize = 3;

/// What kind of socket to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A TCP socket.
    Tcp,
    /// A UDP socket.
    Udp,
    /// A raw socket of this protocol.
    Raw(u8),
}

/// The source of a place's sockets. Sockets outlive it.
#[derive(Debug)]
pub struct Sockets {
    link: UnixStream,
    child: Child,
}

impl Sockets {
    /// Starts a command of the place that calls [`serve`].
    pub fn start(command: &mut Command) -> Result<Self> {
        let (link, theirs) = UnixStream::pair().context("make a socket pair")?;
        command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null());
        let child = process::spawn(command)?;
        link.set_read_timeout(Some(Duration::from_secs(10))).context("set the read time-out")?;
        Ok(Self { link, child })
    }

    /// A new socket of the place.
    pub fn open(&self, kind: Kind, ipv6: bool) -> Result<OwnedFd> {
        let [kind, protocol] = match kind {
            Kind::Tcp => [b't', 0],
            Kind::Udp => [b'u', 0],
            Kind::Raw(protocol) => [b'r', protocol],
        };
        let request = [u8::from(ipv6), kind, protocol];
        let sent = sendmsg(
            &self.link,
            &[IoSlice::new(&request)],
            &mut SendAncillaryBuffer::new(&mut []),
            SendFlags::NOSIGNAL,
        );
        ensure!(sent.context("ask for a socket")? == REQUEST, "the request for a socket was cut off");
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let answer =
            recvmsg(&self.link, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC);
        ensure!(answer.context("wait for a socket")?.bytes == 1, "the process of the place has ended");
        let received = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        received.context("the place refused the socket: its process says why")
    }

    /// A TCP listener.
    pub fn listen(&self, address: SocketAddr) -> Result<TcpListener> {
        let socket = self.open(Kind::Tcp, address.is_ipv6())?;
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true).context("reuse the address")?;
        rustix::net::bind(&socket, &address).with_context(|| format!("bind to {address}"))?;
        rustix::net::listen(&socket, BACKLOG).with_context(|| format!("listen on {address}"))?;
        Ok(socket.into())
    }

    /// A TCP connection.
    pub fn connect(&self, address: SocketAddr) -> Result<TcpStream> {
        let socket = self.open(Kind::Tcp, address.is_ipv6())?;
        rustix::net::connect(&socket, &address).with_context(|| format!("connect to {address}"))?;
        Ok(socket.into())
    }

    /// A bound UDP socket.
    pub fn udp(&self, address: SocketAddr) -> Result<UdpSocket> {
        let socket = self.open(Kind::Udp, address.is_ipv6())?;
        rustix::net::bind(&socket, &address).with_context(|| format!("bind to {address}"))?;
        Ok(socket.into())
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        // The end of its input ends the process; killing it only spares the wait.
        drop(self.child.kill().and_then(|()| self.child.wait()));
    }
}

/// Makes sockets for the test at the other end of the standard input, until that is closed.
pub fn serve() -> Result<()> {
    let input = std::io::stdin();
    let mut requests = std::io::stdin().lock();
    let mut request = [0; REQUEST];
    while requests.read_exact(&mut request).is_ok() {
        let made = make(request);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors;
        match &made {
            Ok(made) => {
                descriptors = [made.as_fd()];
                ensure!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)), "no room for it");
            }
            Err(error) => {
                // The parent shows it when the answer comes without a socket.
                writeln!(std::io::stderr(), "socket {request:?}: {error:#}").context("report")?;
            }
        }
        sendmsg(&input, &[IoSlice::new(b"!")], &mut ancillary, SendFlags::NOSIGNAL)
            .context("send a socket")?;
    }
    Ok(())
}

fn make([ipv6, kind, protocol]: [u8; REQUEST]) -> Result<OwnedFd> {
    let family = if ipv6 == 0 { AddressFamily::INET } else { AddressFamily::INET6 };
    let (kind, protocol) = match kind {
        b't' => (SocketType::STREAM, ipproto::TCP),
        b'u' => (SocketType::DGRAM, ipproto::UDP),
        b'r' => {
            let number = std::num::NonZeroU32::new(protocol.into()).context("raw protocol 0")?;
            (SocketType::RAW, rustix::net::Protocol::from_raw(number))
        }
        other => bail!("no such kind of socket: {other}"),
    };
    Ok(socket(family, kind, Some(protocol))?)
}
