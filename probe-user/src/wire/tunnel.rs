//! Packets by which tunnels between hosts are kept up: disco and the handshake of `WireGuard`, bare or in the Geneve header
//! of a peer relay (RFC 8926, without options).

use std::net::SocketAddr;

use super::disco::{self, Disco};
use super::udp;
use super::wireguard::{self, Handshake};

/// The protocols that Tailscale carries in Geneve: disco, and `WireGuard`.
const RELAYED: [[u8; 2]; 2] = [[0x7a, 0x11], [0x7a, 0x12]];
/// The bit of a packet to or from the relay itself.
const CONTROL: u8 = 0x80;

/// What a packet says, and between whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Who sent it, or the relay that passes it on.
    pub source: SocketAddr,
    /// Whom it is for, or the relay.
    pub destination: SocketAddr,
    /// The number of the session on a relay.
    pub session: Option<u32>,
    /// What it says.
    pub message: Message,
}

/// What a packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Of tailscaled.
    Disco(Disco),
    /// Of `WireGuard`.
    Handshake(Handshake),
}

/// Reads the first bytes of a packet, from its IP header on; `None` where it is none of these. The first bytes of its
/// payload are what it was copied for, and others may use them too.
#[must_use]
pub fn observe(packet: &[u8]) -> Option<Observation> {
    let datagram = udp::parse(packet)?;
    let (session, payload, length) = match relayed(datagram.payload) {
        Some((session, inner)) => {
            let header = datagram.payload.len() - inner.len();
            (Some(session), inner, datagram.length.checked_sub(header)?)
        }
        None => (None, datagram.payload, datagram.length),
    };
    let message = if disco::is_one(payload) {
        Message::Disco(disco::parse(payload, length)?)
    } else {
        Message::Handshake(wireguard::parse(payload, length)?)
    };
    Some(Observation { source: datagram.source, destination: datagram.destination, session, message })
}

/// The session of a relay, and what it carries.
fn relayed(payload: &[u8]) -> Option<(u32, &[u8])> {
    let (&[first, control, p0, p1, v0, v1, v2, reserved], inner) = payload.split_first_chunk::<8>()?;
    let is_ours = first == 0 && control & !CONTROL == 0 && reserved == 0 && RELAYED.contains(&[p0, p1]);
    is_ours.then_some((u32::from_be_bytes([0, v0, v1, v2]), inner))
}

#[cfg(test)]
mod tests;
