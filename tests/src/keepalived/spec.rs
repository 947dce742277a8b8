//! What one keepalived is to do, and its configuration file.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Result, ensure};

/// A virtual address of the underlay that no node has.
pub const VIP: Vip = Vip { address: IpAddr::V4(Ipv4Addr::new(192, 168, 56, 50)), prefix: 24 };

/// A virtual IPv6 address of the underlay that no node has.
pub const VIP6: Vip = Vip { address: IpAddr::V6(Ipv6Addr::new(0xfd56, 0, 0, 0, 0, 0, 0, 0x50)), prefix: 64 };

/// A virtual address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vip {
    /// The address.
    pub address: IpAddr,
    /// The length of its prefix.
    pub prefix: u8,
}

impl fmt::Display for Vip {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

/// The version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// RFC 3768: whole seconds, IPv4 only.
    V2,
    /// RFC 5798: hundredths of a second, both families.
    V3,
}

/// One VRRP instance, which is all that a keepalived of the lab has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The name of the instance.
    pub instance: String,
    /// The device on which it advertises.
    pub interface: String,
    /// The virtual router.
    pub vrid: u8,
    /// The priority, from 1.
    pub priority: u8,
    /// The version of the protocol.
    pub version: Version,
    /// The advertisement interval.
    pub interval: Duration,
    /// The simple password of version 2, at most 8 characters.
    pub password: Option<String>,
    /// To whom it advertises, if not to the multicast group.
    pub unicast_peers: Option<Vec<IpAddr>>,
    /// The virtual addresses, all of one family.
    pub addresses: Vec<Vip>,
    /// Whether the addresses go to a macvlan with the virtual router's own MAC address.
    pub use_vmac: bool,
    /// Whether it advertises from the device's own MAC address for all that.
    pub xmit_base: bool,
    /// Whether it leaves a master with a lower priority alone.
    pub nopreempt: bool,
    /// Without whose success it takes no part, if there is such a script.
    pub check: Option<Check>,
}

/// A script that keepalived runs to know whether its node can serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The program with its arguments.
    pub command: String,
    /// From one run to the next, in whole seconds.
    pub interval: u8,
    /// How many failures in a row count.
    pub fall: u8,
}

impl Check {
    /// The name of the script.
    pub const NAME: &str = "check";
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            instance: "VI_1".into(),
            interface: "eth0".into(),
            vrid: 51,
            priority: 100,
            version: Version::V3,
            interval: Duration::from_millis(100),
            password: None,
            unicast_peers: None,
            addresses: vec![VIP],
            use_vmac: false,
            xmit_base: false,
            nopreempt: false,
            check: None,
        }
    }
}

impl Spec {
    /// Version 2 with its shortest interval.
    #[must_use]
    pub fn v2() -> Self {
        Self { version: Version::V2, interval: Duration::from_secs(1), ..Self::default() }
    }

    /// How much longer than three intervals it waits for an advertisement, and all that it waits after a farewell.
    #[must_use]
    pub fn skew(&self) -> Duration {
        let unit = match self.version {
            Version::V2 => Duration::from_secs(1),
            Version::V3 => self.interval,
        };
        unit * (256 - u32::from(self.priority)) / 256
    }

    /// How long after the last advertisement of its master it becomes master itself.
    #[must_use]
    pub fn master_down(&self) -> Duration {
        self.interval * 3 + self.skew()
    }

    /// The device that keepalived makes for [`Spec::use_vmac`].
    #[must_use]
    pub fn vmac_device(&self) -> String {
        format!("vrrp.{}", self.vrid)
    }

    /// Whether its addresses are IPv6 ones.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        self.addresses.first().is_some_and(|vip| vip.address.is_ipv6())
    }

    /// keepalived ignores or rounds what does not fit; a test would measure something else than it says.
    fn check(&self) -> Result<()> {
        let ipv6 = self.is_ipv6();
        ensure!(!self.addresses.is_empty(), "{} has no virtual address", self.instance);
        ensure!(self.addresses.iter().all(|vip| vip.address.is_ipv6() == ipv6), "one family an instance");
        ensure!(self.vrid > 0 && self.priority > 0, "virtual router and priority count from 1");
        let (unit, most) = match self.version {
            Version::V2 => (1_000, 255_000),
            Version::V3 => (10, 40_950),
        };
        let interval = self.interval.as_millis();
        ensure!(
            interval.is_multiple_of(unit) && (unit..=most).contains(&interval),
            "{:?} advertises every {unit} to {most} ms in steps of {unit}, not every {:?}",
            self.version,
            self.interval
        );
        ensure!(self.version == Version::V3 || !ipv6, "version 2 has no IPv6");
        ensure!(self.version == Version::V2 || self.password.is_none(), "version 3 has no password");
        ensure!(
            self.password.as_ref().is_none_or(|password| password.len() <= 8),
            "a password has at most 8 bytes"
        );
        Ok(())
    }

    /// The configuration file. `source` is the sender of unicast advertisements.
    pub(super) fn config(&self, router: &str, source: IpAddr) -> Result<String> {
        self.check()?;
        let mut text = format!("global_defs {{\n  router_id {router}\n{GLOBAL}");
        let version = if self.version == Version::V2 { 2 } else { 3 };
        writeln!(text, "  vrrp_version {version}\n}}")?;
        if let Some(Check { command, interval, fall }) = &self.check {
            writeln!(text, "vrrp_script {} {{\n  script \"{command}\"", Check::NAME)?;
            writeln!(text, "  interval {interval}\n  fall {fall}\n  rise 1\n}}")?;
        }
        writeln!(text, "vrrp_instance {} {{", self.instance)?;
        writeln!(text, "  state BACKUP\n  interface {}", self.interface)?;
        writeln!(text, "  virtual_router_id {}\n  priority {}", self.vrid, self.priority)?;
        writeln!(text, "  advert_int {}", self.interval.as_secs_f64())?;
        if self.nopreempt {
            writeln!(text, "  nopreempt")?;
        }
        if self.use_vmac {
            writeln!(text, "  use_vmac {}", self.vmac_device())?;
            // Peers are reached from the device's own address, which the macvlan does not have.
            if self.xmit_base || self.unicast_peers.is_some() {
                writeln!(text, "  vmac_xmit_base")?;
            }
        }
        if let Some(password) = &self.password {
            writeln!(text, "  authentication {{\n    auth_type PASS\n    auth_pass {password}\n  }}")?;
        }
        if let Some(peers) = &self.unicast_peers {
            writeln!(text, "  unicast_src_ip {source}\n  unicast_peer {{{}\n  }}", list(peers))?;
        }
        if self.check.is_some() {
            writeln!(text, "  track_script {{\n    {}\n  }}", Check::NAME)?;
        }
        writeln!(text, "  virtual_ipaddress {{{}\n  }}\n}}", list(&self.addresses))?;
        Ok(text)
    }
}

/// Without real-time priority, which the lab may not take, and without bursts of ARP that no failover explains.
const GLOBAL: &str = "  process_names\n  enable_script_security\n  script_user root\n  max_auto_priority -1\n  \
                      vrrp_garp_master_refresh 0\n";

fn list(items: &[impl fmt::Display]) -> String {
    items.iter().fold(String::new(), |list, item| list + "\n    " + &item.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 56, 11));

    fn config(spec: &Spec) -> String {
        spec.config("node1", SOURCE).unwrap()
    }

    fn refusal(spec: &Spec) -> String {
        spec.config("node1", SOURCE).unwrap_err().to_string()
    }

    #[test]
    fn a_multicast_instance_of_version_3() {
        let expected = "global_defs {\n  router_id node1\n  process_names\n  enable_script_security\n  \
            script_user root\n  max_auto_priority -1\n  vrrp_garp_master_refresh 0\n  vrrp_version 3\n}\n\
            vrrp_instance VI_1 {\n  state BACKUP\n  interface eth0\n  virtual_router_id 51\n  priority 140\n  \
            advert_int 0.1\n  virtual_ipaddress {\n    192.168.56.50/24\n  }\n}\n";
        assert_eq!(config(&Spec { priority: 140, ..Spec::default() }), expected);
    }

    #[test]
    fn version_2_has_whole_seconds_and_a_password() {
        let text = config(&Spec { password: Some("lab12345".into()), ..Spec::v2() });
        assert!(text.contains("\n  vrrp_version 2\n") && text.contains("\n  advert_int 1\n"), "{text}");
        assert!(text.contains("\n  authentication {\n    auth_type PASS\n    auth_pass lab12345\n  }\n"));
    }

    #[test]
    fn unicast_names_source_and_peers() {
        let peers = ["192.168.56.12", "192.168.56.13"].map(|peer| peer.parse().unwrap());
        let spec = Spec { unicast_peers: Some(peers.into()), ..Spec::default() };
        let text = config(&spec);
        let expected =
            "\n  unicast_src_ip 192.168.56.11\n  unicast_peer {\n    192.168.56.12\n    192.168.56.13\n  }\n";
        assert!(text.contains(expected) && !text.contains("vmac"), "{text}");
        let with_vmac = Spec { use_vmac: true, ..spec };
        let own_sender = "\n  use_vmac vrrp.51\n  vmac_xmit_base\n";
        assert!(config(&with_vmac).contains(own_sender));
        let multicast = Spec { unicast_peers: None, ..with_vmac };
        assert!(!config(&multicast).contains("vmac_xmit_base"));
        assert!(config(&Spec { xmit_base: true, ..multicast }).contains(own_sender));
    }

    #[test]
    fn a_check_is_defined_before_the_instance_that_tracks_it() {
        let check = Check { command: "/bin/true".into(), interval: 2, fall: 5 };
        let text = config(&Spec { check: Some(check), ..Spec::default() });
        let defined = "\n}\nvrrp_script check {\n  script \"/bin/true\"\n  interval 2\n  fall 5\n  rise 1\n}\nvrrp_instance ";
        assert!(text.contains(defined), "{text}");
        assert!(text.contains("\n  track_script {\n    check\n  }\n  virtual_ipaddress {"), "{text}");
    }

    #[test]
    fn addresses_flags_and_names_are_taken_over() {
        let text = config(&Spec {
            instance: "VI_6".into(),
            interface: "eth7".into(),
            vrid: 7,
            addresses: vec![VIP6],
            use_vmac: true,
            nopreempt: true,
            ..Spec::default()
        });
        for line in [
            "vrrp_instance VI_6 {",
            "  interface eth7",
            "  virtual_router_id 7",
            "  nopreempt",
            "  use_vmac vrrp.7",
            "    fd56::50/64",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn what_keepalived_would_bend_is_refused() {
        let short = Spec { interval: Duration::from_millis(100), ..Spec::v2() };
        assert!(refusal(&short).contains("V2 advertises every 1000 to 255000 ms"), "{}", refusal(&short));
        let fine = Spec { interval: Duration::from_millis(15), ..Spec::default() };
        assert!(refusal(&fine).contains("not every 15ms"), "{}", refusal(&fine));
        assert_eq!(refusal(&Spec { addresses: vec![VIP6], ..Spec::v2() }), "version 2 has no IPv6");
        assert_eq!(
            refusal(&Spec { password: Some("x".into()), ..Spec::default() }),
            "version 3 has no password"
        );
        assert_eq!(
            refusal(&Spec { addresses: vec![VIP, VIP6], ..Spec::default() }),
            "one family an instance"
        );
        assert_eq!(refusal(&Spec { addresses: vec![], ..Spec::default() }), "VI_1 has no virtual address");
    }

    #[test]
    fn times_follow_the_standard() {
        let v2 = Spec { priority: 140, ..Spec::v2() };
        assert_eq!(v2.skew(), Duration::from_micros(453_125));
        assert_eq!(v2.master_down(), Duration::from_micros(3_453_125));
        let v3 = Spec { priority: 140, ..Spec::default() };
        assert_eq!(v3.skew(), Duration::from_nanos(45_312_500));
        assert_eq!(v3.master_down(), Duration::from_nanos(345_312_500));
    }
}
