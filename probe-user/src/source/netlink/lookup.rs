//! Asks the kernel which device it would send a packet by: `RTM_GETROUTE`, with all its rules and tables.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use rtnetlink::Handle;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric};
use tokio::time::timeout;

use super::NetlinkError;

/// An answer takes microseconds.
const ANSWER: Duration = Duration::from_secs(2);

/// Where packets leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    /// Interface index.
    pub device: u32,
    /// The largest packet, where the route or what a router has told says less than the device.
    pub mtu: Option<u32>,
}

/// A socket for such questions, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct RouteLookup {
    handle: Handle,
    is_open: Arc<AtomicBool>,
}

impl RouteLookup {
    /// Opens the socket. Needs a tokio runtime.
    ///
    /// # Errors
    /// When there is none.
    pub fn open() -> Result<Self, NetlinkError> {
        let (mut connection, handle, _) = rtnetlink::new_connection()
            .map_err(|source| NetlinkError::Open { purpose: "route look-ups", source })?;
        let is_open = Arc::new(AtomicBool::new(true));
        let flag = Arc::clone(&is_open);
        tokio::spawn(async move {
            (&mut connection).await;
            flag.store(false, Ordering::Release);
        });
        Ok(Self { handle, is_open })
    }

    /// By which device packets to that address leave; none where no route leads there.
    ///
    /// # Errors
    /// When the socket is gone or the kernel does not answer: then another one is needed.
    pub async fn route(&self, to: IpAddr) -> Result<Option<Output>, NetlinkError> {
        let mut answers = self.handle.route().get(question(to)).execute();
        match timeout(ANSWER, answers.try_next()).await {
            Ok(Ok(Some(message))) => Ok(output(&message)),
            Ok(Ok(None)) if self.is_open.load(Ordering::Acquire) => Ok(None),
            // Unreachable, prohibited or thrown away: ENETUNREACH, EACCES, EHOSTUNREACH and their like.
            Ok(Err(rtnetlink::Error::NetlinkError(_))) => Ok(None),
            Ok(Err(source)) => Err(NetlinkError::Dump { table: "routes", source }),
            Ok(Ok(None)) => Err(NetlinkError::Closed { table: "routes" }),
            Err(_elapsed) => Err(NetlinkError::Silent(ANSWER)),
        }
    }
}

fn question(to: IpAddr) -> RouteMessage {
    let (family, length, address) = match to {
        IpAddr::V4(to) => (AddressFamily::Inet, 32, RouteAddress::Inet(to)),
        IpAddr::V6(to) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(to)),
    };
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.destination_prefix_length = length;
    message.attributes.push(RouteAttribute::Destination(address));
    message
}

fn output(message: &RouteMessage) -> Option<Output> {
    let device = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })?;
    let metrics = message.attributes.iter().filter_map(|attribute| match attribute {
        RouteAttribute::Metrics(metrics) => Some(metrics),
        _ => None,
    });
    let mtu = metrics.flatten().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    Some(Output { device, mtu: mtu.filter(|mtu| *mtu > 0) })
}

#[cfg(test)]
mod tests {
    use rtnetlink::LinkUnspec;

    use super::*;
    use crate::source::netlink::tests::{connect, in_namespace};

    #[test]
    fn the_kernel_names_the_device_or_none() {
        in_namespace(async || {
            let lookup = RouteLookup::open().unwrap();
            let device = async |to: &str| {
                let output = lookup.route(to.parse().unwrap()).await.unwrap();
                output.map(|output| output.device)
            };
            assert_eq!(device("192.0.2.1").await, None);
            assert_eq!(device("2001:db8::1").await, None);
            connect().link().set(LinkUnspec::new_with_index(1).up().build()).execute().await.unwrap();
            assert_eq!(device("127.0.0.1").await, Some(1));
            assert_eq!(device("::1").await, Some(1));
        });
    }
}
