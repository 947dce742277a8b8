//! Looks after filters on clsact, which nothing ties to us: the kernel tells of changes, and is asked for ours.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rtnetlink::packet_core::{NLM_F_ECHO, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{TcAttribute, TcHandle, TcHeader, TcMessage};

/// From the last change of a device to the look at our filters: whoever makes a qdisc anew has finished by then, and
/// finds none of ours in his way.
const CALM: Duration = Duration::from_secs(1);
/// From the first one, where it never gets calm.
const LONGEST: Duration = Duration::from_secs(5);
/// `RTNLGRP_TC` as a bit of the groups that a socket binds to.
const CHANGES: u32 = 1 << 3;
/// The kernel's answers about one filter or qdisc take some hundred bytes.
const ANSWER: usize = 8_192;
/// Header of a netlink message; the type stands after its length.
const HEADER: usize = 16;
const TYPE: usize = 4;
const NEW_FILTER: u16 = 44;
const NEW_DISCIPLINE: u16 = 36;
/// `ETH_P_ALL` in network byte order.
const ALL_PROTOCOLS: u32 = 3_u16.to_be() as u32;

/// A filter of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    /// Interface index.
    pub(super) device: u32,
    /// What the device receives, else what it sends.
    pub(super) receive: bool,
    pub(super) priority: u16,
    pub(super) handle: u32,
}

impl Filter {
    /// Whether the kernel still has it.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub(super) fn exists(&self) -> io::Result<bool> {
        let minor = if self.receive { TcHandle::MIN_INGRESS } else { TcHandle::MIN_EGRESS };
        let header = TcHeader {
            index: self.device.cast_signed(),
            handle: TcHandle::from(self.handle),
            parent: TcHandle { major: TcHandle::CLSACT.major, minor },
            info: u32::from(self.priority) << 16 | ALL_PROTOCOLS,
            ..TcHeader::default()
        };
        let answer = ask(RouteNetlinkMessage::GetTrafficFilter(TcMessage::from_parts(header, Vec::new())))?;
        Ok(kind(&answer) == Some(NEW_FILTER))
    }
}

/// The kind of qdisc at a device's ingress; `None` without one.
///
/// # Errors
/// When the kernel cannot be asked, or answers something else.
pub(super) fn discipline(device: u32) -> io::Result<Option<String>> {
    let header = TcHeader { index: device.cast_signed(), parent: TcHandle::INGRESS, ..TcHeader::default() };
    let answer = ask(RouteNetlinkMessage::GetQueueDiscipline(TcMessage::from_parts(header, Vec::new())))?;
    if kind(&answer) != Some(NEW_DISCIPLINE) {
        return Ok(None);
    }
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?;
    let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewQueueDiscipline(message)) = message.payload
    else {
        return Ok(None);
    };
    Ok(message.attributes.into_iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind),
        _ => None,
    }))
}

/// Asks the kernel, which answers before it returns.
fn ask(question: RouteNetlinkMessage) -> io::Result<Vec<u8>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    // Without the echo what is said of a qdisc goes to those who listen to changes, and not to who asks.
    header.flags = NLM_F_REQUEST | NLM_F_ECHO;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(question));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut answer = Vec::with_capacity(ANSWER);
    socket.recv(&mut answer, libc::MSG_DONTWAIT)?;
    Ok(answer)
}

/// The type of a message.
fn kind(message: &[u8]) -> Option<u16> {
    let bytes = message.get(TYPE..TYPE + 2)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

/// The devices whose filters and qdiscs change, in the network namespace of the thread that subscribed.
pub(super) struct Changes {
    socket: Socket,
    changed: Changed,
}

impl Changes {
    pub(super) fn subscribe() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, CHANGES))?;
        Ok(Self { socket, changed: Changed::default() })
    }

    /// Takes in what has come, and hands out what is over.
    pub(super) fn take(&mut self, now: Instant) -> Option<Devices> {
        let mut buffer = Vec::with_capacity(ANSWER);
        loop {
            buffer.clear();
            match self.socket.recv(&mut buffer, libc::MSG_DONTWAIT) {
                Ok(0) => break,
                Ok(_) => self.changed.note(device(&buffer), now),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Some were lost.
                Err(_) => self.changed.note(None, now),
            }
        }
        self.changed.take(now)
    }

    /// How long to sleep until `take` has something, if nothing else comes.
    pub(super) fn due(&self, now: Instant) -> Option<Duration> {
        self.changed.due().map(|due| due.saturating_duration_since(now))
    }
}

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Devices by index, or all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Devices {
    All,
    These(BTreeSet<u32>),
}

impl Devices {
    pub(super) fn contain(&self, device: u32) -> bool {
        match self {
            Self::All => true,
            Self::These(devices) => devices.contains(&device),
        }
    }
}

/// Changes that are not over.
#[derive(Clone, Copy)]
struct Burst {
    first: Instant,
    last: Instant,
}

impl Burst {
    fn over(self) -> Instant {
        (self.last + CALM).min(self.first + LONGEST)
    }
}

/// Changes that wait for calm, by device; those of which the device is not known are under `None`.
#[derive(Default)]
struct Changed(BTreeMap<Option<u32>, Burst>);

impl Changed {
    fn note(&mut self, device: Option<u32>, now: Instant) {
        self.0.entry(device).or_insert(Burst { first: now, last: now }).last = now;
    }

    fn take(&mut self, now: Instant) -> Option<Devices> {
        let over: Vec<_> = self.0.extract_if(.., |_, burst| burst.over() <= now).collect();
        if over.is_empty() {
            return None;
        }
        // All or nothing: one unknown device may be any.
        let known: Option<BTreeSet<u32>> = over.into_iter().map(|(device, _)| device).collect();
        Some(known.map_or(Devices::All, Devices::These))
    }

    fn due(&self) -> Option<Instant> {
        self.0.values().map(|burst| burst.over()).min()
    }
}

/// The interface index of a notification: the second word of its body.
fn device(notification: &[u8]) -> Option<u32> {
    let bytes = notification.get(HEADER + 4..HEADER + 8)?;
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_handed_out_once_it_is_calm() {
        let start = Instant::now();
        let mut changed = Changed::default();
        assert_eq!((changed.take(start + CALM), changed.due()), (None, None));
        changed.note(Some(3), start);
        changed.note(Some(5), start + CALM / 2);
        changed.note(Some(5), start + CALM * 3 / 4);
        assert_eq!(changed.due(), Some(start + CALM));
        assert_eq!(changed.take(start + CALM / 2), None);
        assert_eq!(changed.take(start + CALM), Some(Devices::These([3].into())));
        assert_eq!(changed.take(start + CALM * 3 / 2), None, "the other one has changed again");
        let devices = changed.take(start + CALM * 2).unwrap();
        assert_eq!([3, 5].map(|device| devices.contain(device)), [false, true]);
        assert_eq!(changed.take(start + CALM * 3), None, "each is handed out once");
    }

    #[test]
    fn a_device_that_never_gets_calm_is_handed_out_all_the_same() {
        let start = Instant::now();
        let mut changed = Changed::default();
        for step in 0..20 {
            changed.note(Some(3), start + CALM * step / 4);
        }
        assert_eq!(changed.take(start + LONGEST), Some(Devices::These([3].into())));
    }

    #[test]
    fn a_change_that_was_lost_may_be_of_any_device() {
        let start = Instant::now();
        let mut changed = Changed::default();
        changed.note(Some(3), start);
        changed.note(device(&[0; 20]), start);
        assert_eq!(changed.take(start + CALM), Some(Devices::All));
    }

    #[test]
    fn a_notification_names_its_device() {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST;
        let body = RouteNetlinkMessage::DelTrafficFilter(TcMessage::with_index(7));
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(body));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        assert_eq!((device(&bytes), kind(&bytes)), (Some(7), Some(45)));
    }

    #[test]
    fn what_is_not_there_is_asked_for_without_an_error() {
        let nowhere = i32::MAX.cast_unsigned();
        let filter = Filter { device: nowhere, receive: true, priority: 1, handle: 1 };
        assert!(!filter.exists().unwrap());
        assert_eq!(discipline(nowhere).unwrap(), None);
    }
}
