//! The state of the network namespace, kept current by rtnetlink notifications.
//!
//! Subscribe first, then dump; a notification only marks its table as stale, and stale tables are dumped again
//! after a few milliseconds. Applying the notifications themselves would be cheaper and wrong: the kernel removes
//! IPv4 routes of a device or address that goes away without notifying them, `NLM_F_REPLACE` and IPv6 multipath
//! change entries by rules of their own, and a bridge port's leaving looks like a removed link. A dump is right by
//! construction, also when it was interrupted by a change: that change was notified on the other socket and
//! causes the next dump. Dumps are bounded: a pause of `PAUSE_FACTOR` times their own duration follows each.
//!
//! A feed that fails in any way is replaced by `keeper`; meanwhile the last snapshot is marked as not current.
//!
//! Sockets belong to the network namespace of the thread that calls [`NetworkFeed::open`]. No capability is needed.

mod decode;
mod dump;
mod facts;
mod keeper;
mod lookup;
mod state;
mod tables;
#[cfg(test)]
pub(crate) mod tests;

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::time::Duration;

use netlink_sys::{AsyncSocket as _, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use rtnetlink::MulticastGroup;
use tokio::time::{Instant, sleep_until};

use dump::Dumper;
pub use facts::{
    Address, FdbEntry, Link, LinkKind, Mac, Neighbour, NetworkFacts, Resolution, Route, RouteKind, Scope,
    Vxlan,
};
pub use keeper::keep_network;
pub use lookup::{Output, RouteLookup};
pub use state::NetworkState;
use tables::{Tables, stale_tables};

/// How long a burst of notifications is collected before tables are dumped.
const COALESCE: Duration = Duration::from_millis(5);
/// Shortest pause between two rounds of dumps.
const PAUSE: Duration = Duration::from_millis(50);
/// Pause after a round as a multiple of its duration: dumping takes at most one part in this many of a core.
const PAUSE_FACTOR: u32 = 50;
/// Receive buffer of the subscription; the kernel caps it at `net.core.rmem_max`.
const RECEIVE_BUFFER: usize = 1 << 20;
/// Notifications are at most a page or two; a longer datagram is cut and stales every table.
const DATAGRAM: usize = 32 << 10;

const GROUPS: [MulticastGroup; 6] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Neigh,
];

/// Why the network's state could not be read.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// A socket could not be made or bound.
    #[error("cannot open the rtnetlink socket for {purpose}")]
    Open {
        /// What the socket is for.
        purpose: &'static str,
        /// Cause.
        source: io::Error,
    },
    /// The subscription broke for a reason other than an overrun.
    #[error("cannot receive rtnetlink notifications")]
    Receive(#[source] io::Error),
    /// A table could not be dumped.
    #[error("cannot read the kernel's table of {table}")]
    Dump {
        /// Which table.
        table: &'static str,
        /// Cause.
        source: rtnetlink::Error,
    },
    /// The socket failed while a table was dumped.
    #[error("the rtnetlink socket failed while the table of {table} was read")]
    Closed {
        /// Which table.
        table: &'static str,
    },
    /// A dump did not end.
    #[error("the kernel did not answer a dump within {} s", .0.as_secs())]
    Silent(Duration),
}

/// The subscription and the socket for dumps.
pub struct NetworkFeed {
    notifications: TokioSocket,
    dumper: Dumper,
    state: NetworkState,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for NetworkFeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetworkFeed").field("state", &self.state).finish_non_exhaustive()
    }
}

impl NetworkFeed {
    /// Subscribes in the network namespace of the calling thread, then reads every table once: from here on `state` is
    /// current. Needs a tokio runtime.
    ///
    /// # Errors
    /// When a socket cannot be opened or a table cannot be read.
    pub async fn open(state: &NetworkState) -> Result<Self, NetlinkError> {
        Self::open_with_buffer(state, RECEIVE_BUFFER).await
    }

    async fn open_with_buffer(state: &NetworkState, receive_buffer: usize) -> Result<Self, NetlinkError> {
        let notifications = subscribe(receive_buffer)
            .map_err(|source| NetlinkError::Open { purpose: "notifications", source })?;
        let dumper = Dumper::open()?;
        let feed = Self { notifications, dumper, state: state.clone(), buffer: Vec::with_capacity(DATAGRAM) };
        feed.refresh(Tables::ALL).await?;
        state.followed();
        Ok(feed)
    }

    /// Keeps the state current for as long as that is possible, and says why it no longer is.
    pub async fn run(mut self) -> NetlinkError {
        match self.follow().await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn follow(&mut self) -> Result<Infallible, NetlinkError> {
        let mut stale = Tables::NONE;
        let mut earliest = Instant::now();
        loop {
            if stale.is_empty() {
                stale = self.receive().await?;
            }
            stale |= self.receive_until(earliest.max(Instant::now() + COALESCE)).await?;
            let started = Instant::now();
            self.refresh(stale).await?;
            stale = Tables::NONE;
            earliest = Instant::now() + PAUSE.max(started.elapsed() * PAUSE_FACTOR);
        }
    }

    async fn refresh(&self, stale: Tables) -> Result<(), NetlinkError> {
        let mut facts = self.state.copy();
        self.dumper.read(stale, &mut facts).await?;
        self.state.publish(facts);
        Ok(())
    }

    async fn receive_until(&mut self, deadline: Instant) -> Result<Tables, NetlinkError> {
        let mut stale = Tables::NONE;
        loop {
            tokio::select! {
                // The deadline first: a storm of notifications must not put it off.
                biased;
                () = sleep_until(deadline) => return Ok(stale),
                tables = self.receive() => stale |= tables?,
            }
        }
    }

    async fn receive(&mut self) -> Result<Tables, NetlinkError> {
        loop {
            self.buffer.clear();
            let Self { notifications, buffer, .. } = self;
            match poll_fn(|context| notifications.poll_recv(context, buffer)).await {
                Ok(()) => {
                    let stale = stale_tables(buffer);
                    if !stale.is_empty() {
                        return Ok(stale);
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.state.resynced();
                    return Ok(Tables::ALL);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(NetlinkError::Receive(error)),
            }
        }
    }
}

fn subscribe(receive_buffer: usize) -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    let groups = GROUPS.iter().fold(0, |bits, group| bits | 1 << (*group as u32 - 1));
    socket.socket_ref().set_rx_buf_sz(libc::c_int::try_from(receive_buffer).unwrap_or(libc::c_int::MAX))?;
    socket.socket_mut().bind(&SocketAddr::new(0, groups))?;
    Ok(socket)
}
