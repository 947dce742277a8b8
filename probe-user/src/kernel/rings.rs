//! The ring buffers of the programs: their records, decoded and handed on, and how many were lost on the way.

use std::os::fd::{AsFd as _, BorrowedFd};

use aya::maps::{MapData, RingBuf};
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use super::record::{self, CgroupEvent};
use super::served::{self, Served};
use super::tap::{self, Frame};
use super::thread::Senders;
use super::too_big::{self, TooBigPacket};
use super::tunnel::{self, TunnelPacket};

/// Records of the tap handed on before commands and other records have their turn: a flood must not cost a pod its name.
const AT_ONCE: usize = 1_024;

/// The buffers as the object has them.
pub(super) struct Buffers {
    pub(super) events: RingBuf<MapData>,
    pub(super) frames: RingBuf<MapData>,
    pub(super) served: RingBuf<MapData>,
    pub(super) tunnel: RingBuf<MapData>,
    pub(super) too_big: RingBuf<MapData>,
}

/// The buffers, each with whoever takes its records.
pub(super) struct Rings {
    pub(super) events: Ring<CgroupEvent>,
    pub(super) frames: Ring<Frame>,
    pub(super) served: Ring<Served>,
    pub(super) tunnel: Ring<TunnelPacket>,
    pub(super) too_big: Ring<TooBigPacket>,
}

impl Rings {
    pub(super) fn new(buffers: Buffers, senders: Senders) -> Self {
        Self {
            events: Ring::new(buffers.events, record::decode, senders.events),
            frames: Ring::new(buffers.frames, tap::decode, senders.frames),
            served: Ring::new(buffers.served, served::decode, senders.served),
            tunnel: Ring::new(buffers.tunnel, tunnel::decode, senders.tunnel),
            too_big: Ring::new(buffers.too_big, too_big::decode, senders.too_big),
        }
    }

    /// Hands on what came; whether some of it was lost. Of cgroups and served packets there are never many.
    pub(super) fn drain(&mut self) -> bool {
        let lost = [
            self.events.drain(usize::MAX),
            self.served.drain(usize::MAX),
            self.tunnel.drain(AT_ONCE),
            self.too_big.drain(AT_ONCE),
            self.frames.drain(AT_ONCE),
        ];
        lost.contains(&true)
    }

    /// What is readable when there are records.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let Self { events, frames, served, tunnel, too_big } = self;
        [&events.buffer, &frames.buffer, &served.buffer, &tunnel.buffer, &too_big.buffer]
            .into_iter()
            .map(|buffer| buffer.as_fd())
    }
}

/// A buffer, and who takes its records.
pub(super) struct Ring<T> {
    buffer: RingBuf<MapData>,
    decode: fn(&[u8]) -> Option<T>,
    sender: Sender<T>,
    lost: u64,
}

impl<T> Ring<T> {
    fn new(buffer: RingBuf<MapData>, decode: fn(&[u8]) -> Option<T>, sender: Sender<T>) -> Self {
        Self { buffer, decode, sender, lost: 0 }
    }

    /// Hands on so many records at most; whether some of them were lost.
    fn drain(&mut self, most: usize) -> bool {
        let before = self.lost;
        for _ in 0..most {
            let Some(item) = self.buffer.next() else { break };
            let is_lost = (self.decode)(&item).is_none_or(|record| is_lost(&self.sender.try_send(record)));
            self.lost += u64::from(is_lost);
        }
        self.lost != before
    }

    /// Records that were none of ours, or found the agent's queue full.
    pub(super) const fn lost(&self) -> u64 {
        self.lost
    }
}

/// Whether a record is lost that could not be handed on: not where nobody wants any, as with a collector that is off.
const fn is_lost<T>(sent: &Result<(), TrySendError<T>>) -> bool {
    matches!(sent, Err(TrySendError::Full(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_wants_is_not_lost_and_what_finds_no_room_is() {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        assert!(!is_lost(&sender.try_send(1)));
        assert!(is_lost(&sender.try_send(2)));
        drop(receiver);
        assert!(!is_lost(&sender.try_send(3)));
    }
}
