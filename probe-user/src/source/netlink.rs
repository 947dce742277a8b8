//! The state of the network namespace, kept current by rtnetlink notifications.
//!
//! Subscribe first, then dump; a notification only marks its table as stale, and stale tables are dumped again
//! after a few milliseconds. Applying the notifications themselves would be cheaper and wrong: the kernel removes
//! IPv4 routes of a device or address that goes away without notifying them, `NLM_F_REPLACE` and IPv6 multipath
//! change entries by rules of their own, and a bridge port's leaving looks like a removed link. A dump is right by
//! construction, also when it was interrupted by a change: that change was notified on the other socket and
//! causes the next dump. Dumps are bounded: a pause of `PAUSE_FACTOR` times their own duration follows each.
//!
//! Sockets belong to the network namespace of the thread that calls [`NetworkFeed::open`]. No capability is needed.

mod decode;
mod facts;
mod tables;
#[cfg(test)]
pub(crate) mod tests;

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{Stream, TryStreamExt as _};
use netlink_sys::{AsyncSocket as _, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::{Handle, MulticastGroup};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

pub use facts::{
    Address, FdbEntry, Link, LinkKind, Mac, Neighbour, NetworkFacts, Resolution, Route, RouteKind, Scope,
    Vxlan,
};
use tables::{Tables, stale_tables};

/// How long a burst of notifications is collected before tables are dumped.
const COALESCE: Duration = Duration::from_millis(5);
/// Shortest pause between two rounds of dumps.
const PAUSE: Duration = Duration::from_millis(50);
/// Pause after a round as a multiple of its duration: dumping takes at most one part in this many of a core.
const PAUSE_FACTOR: u32 = 50;
/// Pause after a dump that failed.
const RETRY: Duration = Duration::from_secs(1);
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
}

/// The subscription and the snapshot it keeps.
pub struct NetworkFeed {
    notifications: TokioSocket,
    handle: Handle,
    facts: watch::Sender<Arc<NetworkFacts>>,
    resyncs: Arc<AtomicU64>,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for NetworkFeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetworkFeed").field("resyncs", &self.resyncs).finish_non_exhaustive()
    }
}

impl NetworkFeed {
    /// Subscribes in the network namespace of the calling thread, then reads every table once, so that receivers
    /// never see an empty snapshot. Needs a tokio runtime.
    ///
    /// # Errors
    /// When a socket cannot be opened or a table cannot be read.
    pub async fn open() -> Result<Self, NetlinkError> {
        Self::open_with_buffer(RECEIVE_BUFFER).await
    }

    async fn open_with_buffer(receive_buffer: usize) -> Result<Self, NetlinkError> {
        let notifications = subscribe(receive_buffer)
            .map_err(|source| NetlinkError::Open { purpose: "notifications", source })?;
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|source| NetlinkError::Open { purpose: "dumps", source })?;
        // Ends by itself when the last handle is dropped.
        tokio::spawn(connection);
        let mut facts = NetworkFacts::default();
        dump(&handle, Tables::ALL, &mut facts).await?;
        Ok(Self {
            notifications,
            handle,
            facts: watch::Sender::new(Arc::new(facts)),
            resyncs: Arc::default(),
            buffer: Vec::with_capacity(DATAGRAM),
        })
    }

    /// The snapshot, now and whenever it changes.
    #[must_use]
    pub fn receiver(&self) -> watch::Receiver<Arc<NetworkFacts>> {
        self.facts.subscribe()
    }

    /// How often notifications were lost (`ENOBUFS`) and every table was read again.
    #[must_use]
    pub fn resyncs(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.resyncs)
    }

    /// Keeps the snapshot current; returns only when the subscription breaks.
    ///
    /// # Errors
    /// When notifications cannot be received any more. A failed dump is logged and tried again.
    pub async fn run(mut self) -> Result<(), NetlinkError> {
        let mut stale = Tables::NONE;
        let mut earliest = Instant::now();
        loop {
            if stale.is_empty() {
                stale = self.receive().await?;
            }
            stale |= self.receive_until(earliest.max(Instant::now() + COALESCE)).await?;
            let started = Instant::now();
            let pause = match self.refresh(stale).await {
                Ok(()) => {
                    stale = Tables::NONE;
                    PAUSE.max(started.elapsed() * PAUSE_FACTOR)
                }
                Err(error) => {
                    tracing::warn!(err = &error as &dyn std::error::Error, "network table not read");
                    RETRY
                }
            };
            earliest = Instant::now() + pause;
        }
    }

    async fn refresh(&self, stale: Tables) -> Result<(), NetlinkError> {
        let mut facts = NetworkFacts::clone(&self.facts.borrow());
        dump(&self.handle, stale, &mut facts).await?;
        self.facts.send_if_modified(|current| {
            let changed = **current != facts;
            if changed {
                *current = Arc::new(facts);
            }
            changed
        });
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
                    self.resyncs.fetch_add(1, Ordering::Relaxed);
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

async fn dump(handle: &Handle, stale: Tables, facts: &mut NetworkFacts) -> Result<(), NetlinkError> {
    if stale.contains(Tables::LINKS) {
        facts.links = collect("links", handle.link().get().execute(), |m| decode::decode_link(&m)).await?;
    }
    if stale.contains(Tables::ADDRESSES) {
        let messages = handle.address().get().execute();
        facts.addresses = collect("addresses", messages, |m| decode::decode_address(&m)).await?;
    }
    if stale.contains(Tables::ROUTES) {
        facts.routes = dump_routes(handle).await?;
    }
    if stale.contains(Tables::NEIGHBOURS) {
        let messages = handle.neighbours().get().execute();
        facts.neighbours = collect("neighbours", messages, |m| decode::decode_neighbour(&m)).await?;
    }
    if stale.contains(Tables::FDB) {
        let messages = handle.neighbours().get().set_address_family(AddressFamily::Bridge).execute();
        facts.fdb = collect("forwarding entries", messages, |m| decode::decode_fdb(&m)).await?;
    }
    Ok(())
}

async fn dump_routes(handle: &Handle) -> Result<Arc<[Route]>, NetlinkError> {
    let mut routes = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        let messages = handle.route().get(request).execute();
        let table = collect("routes", messages, |message| decode::decode_routes(&message)).await?;
        routes.extend_from_slice(&table);
    }
    Ok(routes.into())
}

async fn collect<M, F: Ord, I: IntoIterator<Item = F>>(
    table: &'static str,
    messages: impl Stream<Item = Result<M, rtnetlink::Error>>,
    decode: impl Fn(M) -> I,
) -> Result<Arc<[F]>, NetlinkError> {
    let decoded = messages.try_fold(Vec::new(), |mut facts, message| {
        facts.extend(decode(message));
        std::future::ready(Ok(facts))
    });
    let mut facts = decoded.await.map_err(|source| NetlinkError::Dump { table, source })?;
    facts.sort_unstable();
    Ok(facts.into())
}
