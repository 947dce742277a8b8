//! Membership in the multicast groups of VRRP: without a member on the link the network card and the switch may drop
//! what is sent to them before the tap sees it. Nothing is received from these sockets.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};

use rustix::net::sockopt;

/// RFC 9568, 5.1.1.2 and 5.1.2.2.
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);

/// Why the groups could not be joined.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// There is no socket to be a member with.
    #[error("no UDP socket for the multicast groups of VRRP: {0}")]
    Socket(#[source] io::Error),
    /// A device refuses; the kernel allows 20 IPv4 memberships of a socket (`net.ipv4.igmp_max_memberships`).
    #[error("cannot join {group} on interface {device}: {source}")]
    Join {
        /// The group.
        group: std::net::IpAddr,
        /// Interface index.
        device: u32,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// The memberships; they end with this.
#[derive(Debug)]
pub struct Memberships {
    v4: UdpSocket,
    /// Absent where the kernel has no IPv6.
    v6: Option<UdpSocket>,
    joined: BTreeSet<u32>,
}

impl Memberships {
    /// No membership yet.
    ///
    /// # Errors
    /// When the kernel gives no UDP socket.
    pub fn new() -> Result<Self, MembershipError> {
        let v4 = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(MembershipError::Socket)?;
        let v6 = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).ok();
        Ok(Self { v4, v6, joined: BTreeSet::new() })
    }

    /// Makes exactly these devices joined. The memberships of a device that is gone went with it. Answers with what
    /// was refused, which is tried again next time.
    pub fn keep(&mut self, devices: &BTreeSet<u32>) -> Vec<MembershipError> {
        for device in self.joined.difference(devices) {
            // Refused where the device is gone.
            let _gone = sockopt::set_ip_drop_membership_with_ifindex(
                &self.v4,
                &GROUP_V4,
                &Ipv4Addr::UNSPECIFIED,
                *device,
            );
            let _gone = self.v6.as_ref().map(|socket| socket.leave_multicast_v6(&GROUP_V6, *device));
        }
        let mut errors = Vec::new();
        let before = std::mem::take(&mut self.joined);
        for device in devices {
            let joined = before.contains(device)
                || match self.join(*device) {
                    Ok(()) => true,
                    Err(error) => {
                        errors.push(error);
                        false
                    }
                };
            if joined {
                self.joined.insert(*device);
            }
        }
        errors
    }

    fn join(&self, device: u32) -> Result<(), MembershipError> {
        match sockopt::set_ip_add_membership_with_ifindex(&self.v4, &GROUP_V4, &Ipv4Addr::UNSPECIFIED, device)
        {
            Ok(()) | Err(rustix::io::Errno::ADDRINUSE) => {}
            Err(errno) => {
                return Err(MembershipError::Join { group: GROUP_V4.into(), device, source: errno.into() });
            }
        }
        // A device without IPv6 hears none of it.
        let _disabled = self.v6.as_ref().map(|socket| socket.join_multicast_v6(&GROUP_V6, device));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What this process is a member of, by the kernel's own list.
    fn members(device: &str) -> usize {
        let list = std::fs::read_to_string("/proc/net/igmp").unwrap();
        let mut inside = false;
        let mut found = 0;
        for line in list.lines() {
            if !line.starts_with('\t') {
                inside = line.contains(device);
            } else if inside && line.contains("120000E0") {
                found += 1;
            }
        }
        found
    }

    #[test]
    fn a_membership_comes_and_goes_with_its_device() {
        let loopback = BTreeSet::from([1]);
        let mut memberships = Memberships::new().unwrap();
        assert_eq!(members("lo"), 0);
        assert!(memberships.keep(&loopback).is_empty());
        assert!(memberships.keep(&loopback).is_empty());
        assert_eq!(members("lo"), 1);
        assert!(memberships.keep(&BTreeSet::new()).is_empty());
        assert_eq!(members("lo"), 0);
    }

    #[test]
    fn a_device_that_does_not_exist_is_named() {
        let errors = Memberships::new().unwrap().keep(&BTreeSet::from([999_999]));
        let text = errors[0].to_string();
        assert!(text.starts_with("cannot join 224.0.0.18 on interface 999999: "), "{text}");
    }
}
