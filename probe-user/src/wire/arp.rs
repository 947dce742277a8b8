//! ARP for IPv4 over Ethernet (RFC 826), and the forms in which an address announces itself (RFC 5227).

use std::net::Ipv4Addr;

use super::{
    fault::{Malformed, Protocol, Reason},
    frame::MacAddress,
};

/// Hardware types of Ethernet and of IEEE 802 networks, which hosts treat alike (RFC 1042).
const HARDWARE: [u16; 2] = [1, 6];
const IPV4: u16 = 0x0800;

/// What an ARP packet asks or says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has the sender's address.
    Reply,
}

/// What an ARP packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Is the target address in use? Asked before an address is taken (RFC 5227): the sender has none yet.
    Probe,
    /// The sender takes the address: a request for its own one. keepalived's form; kube-vip and `MetalLB` send it too.
    GratuitousRequest,
    /// The same as a reply that nobody asked for. kube-vip and `MetalLB` send it besides.
    GratuitousReply,
    /// An ordinary question.
    Request,
    /// An ordinary answer.
    Reply,
}

impl Kind {
    /// Whether the sender announces that an address is its own.
    #[must_use]
    pub const fn is_gratuitous(self) -> bool {
        matches!(self, Self::GratuitousRequest | Self::GratuitousReply)
    }
}

/// An ARP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Arp {
    /// Question or answer.
    pub operation: Operation,
    /// Who sends, by its own word; the frame's source may differ.
    pub sender_mac: MacAddress,
    /// The sender's address; 0.0.0.0 in a probe.
    pub sender: Ipv4Addr,
    /// In requests without meaning: zeros or broadcast.
    pub target_mac: MacAddress,
    /// The address asked for, or that of whoever asked.
    pub target: Ipv4Addr,
}

impl Arp {
    /// What the packet is for.
    #[must_use]
    pub fn kind(&self) -> Kind {
        let announces = self.sender == self.target && !self.sender.is_unspecified();
        match self.operation {
            Operation::Request if self.sender.is_unspecified() => Kind::Probe,
            Operation::Request if announces => Kind::GratuitousRequest,
            Operation::Reply if announces => Kind::GratuitousReply,
            Operation::Request => Kind::Request,
            Operation::Reply => Kind::Reply,
        }
    }
}

/// Reads an ARP packet; the frame's padding may follow it.
pub(super) fn parse(bytes: &[u8]) -> Result<Arp, Malformed> {
    fields(bytes).map_err(|reason| Malformed::new(Protocol::Arp, reason))
}

fn fields(bytes: &[u8]) -> Result<Arp, Reason> {
    let (
        &[hardware_high, hardware_low, protocol_high, protocol_low, mac_length, address_length, high, low],
        rest,
    ) = bytes.split_first_chunk::<8>().ok_or(Reason::Truncated)?;
    if !HARDWARE.contains(&u16::from_be_bytes([hardware_high, hardware_low])) {
        return Err(Reason::BadHardwareType);
    }
    if u16::from_be_bytes([protocol_high, protocol_low]) != IPV4 {
        return Err(Reason::BadProtocolType);
    }
    if (mac_length, address_length) != (6, 4) {
        return Err(Reason::BadLength);
    }
    let operation = match u16::from_be_bytes([high, low]) {
        1 => Operation::Request,
        2 => Operation::Reply,
        _ => return Err(Reason::BadOperation),
    };
    let (sender_mac, rest) = rest.split_first_chunk::<6>().ok_or(Reason::Truncated)?;
    let (sender, rest) = rest.split_first_chunk::<4>().ok_or(Reason::Truncated)?;
    let (target_mac, rest) = rest.split_first_chunk::<6>().ok_or(Reason::Truncated)?;
    let (target, _) = rest.split_first_chunk::<4>().ok_or(Reason::Truncated)?;
    Ok(Arp {
        operation,
        sender_mac: MacAddress(*sender_mac),
        sender: Ipv4Addr::from(*sender),
        target_mac: MacAddress(*target_mac),
        target: Ipv4Addr::from(*target),
    })
}

#[cfg(test)]
mod tests;
