//! Reads whole tables from the kernel.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{Stream, TryStreamExt as _};
use rtnetlink::Handle;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::RouteMessage;
use tokio::time::timeout;

use super::facts::{NetworkFacts, Route};
use super::tables::Tables;
use super::{NetlinkError, decode};

/// A dump takes milliseconds, and longer while others hold the kernel's lock. One that the kernel gave up (`ENOBUFS`,
/// for want of memory) never ends.
const ANSWER: Duration = Duration::from_secs(10);

/// The socket for dumps.
pub(super) struct Dumper {
    handle: Handle,
    is_open: Arc<AtomicBool>,
}

impl Dumper {
    pub(super) fn open() -> Result<Self, NetlinkError> {
        let (mut connection, handle, _) =
            rtnetlink::new_connection().map_err(|source| NetlinkError::Open { purpose: "dumps", source })?;
        let is_open = Arc::new(AtomicBool::new(true));
        let flag = Arc::clone(&is_open);
        // Ends when the last handle is dropped or the socket fails. Answers that are still awaited then end as if they
        // were whole, so the flag falls before they do.
        tokio::spawn(async move {
            (&mut connection).await;
            flag.store(false, Ordering::Release);
            drop(connection);
        });
        Ok(Self { handle, is_open })
    }

    /// Reads these tables into `facts`; what it holds after an error is not to be used.
    pub(super) async fn read(&self, stale: Tables, facts: &mut NetworkFacts) -> Result<(), NetlinkError> {
        timeout(ANSWER, self.read_all(stale, facts)).await.map_err(|_elapsed| NetlinkError::Silent(ANSWER))?
    }

    async fn read_all(&self, stale: Tables, facts: &mut NetworkFacts) -> Result<(), NetlinkError> {
        let handle = &self.handle;
        if stale.contains(Tables::LINKS) {
            let messages = handle.link().get().execute();
            facts.links = self.collect("links", messages, |m| decode::decode_link(&m)).await?;
        }
        if stale.contains(Tables::ADDRESSES) {
            let messages = handle.address().get().execute();
            facts.addresses = self.collect("addresses", messages, |m| decode::decode_address(&m)).await?;
        }
        if stale.contains(Tables::ROUTES) {
            facts.routes = self.routes().await?;
        }
        if stale.contains(Tables::NEIGHBOURS) {
            let messages = handle.neighbours().get().execute();
            facts.neighbours = self.collect("neighbours", messages, |m| decode::decode_neighbour(&m)).await?;
        }
        if stale.contains(Tables::FDB) {
            let messages = handle.neighbours().get().set_address_family(AddressFamily::Bridge).execute();
            facts.fdb = self.collect("forwarding entries", messages, |m| decode::decode_fdb(&m)).await?;
        }
        Ok(())
    }

    async fn routes(&self) -> Result<Arc<[Route]>, NetlinkError> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            let messages = self.handle.route().get(request).execute();
            let table = self.collect("routes", messages, |message| decode::decode_routes(&message)).await?;
            routes.extend_from_slice(&table);
        }
        Ok(routes.into())
    }

    async fn collect<M, F: Ord, I: IntoIterator<Item = F>>(
        &self,
        table: &'static str,
        messages: impl Stream<Item = Result<M, rtnetlink::Error>>,
        decode: impl Fn(M) -> I,
    ) -> Result<Arc<[F]>, NetlinkError> {
        let decoded = messages.try_fold(Vec::new(), |mut facts, message| {
            facts.extend(decode(message));
            std::future::ready(Ok(facts))
        });
        let mut facts = decoded.await.map_err(|source| NetlinkError::Dump { table, source })?;
        if !self.is_open.load(Ordering::Acquire) {
            return Err(NetlinkError::Closed { table });
        }
        facts.sort_unstable();
        Ok(facts.into())
    }
}
