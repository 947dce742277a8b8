//! Impairment of the underlay without netem: delay and disorder by a relay between a switch port and the bridge, loss and
//! refusal by nftables.

mod relay;

use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::net::if_::if_nametoindex;

use crate::cluster::Lab;
use crate::machine::Machine;
use crate::node::Node;
use crate::place::Place;
use crate::process;
use relay::Relay;

/// Offloads that would let a device hand frames to the relay that no wire carries: larger than its MTU, or without a
/// checksum.
const OFFLOADS: [&str; 10] = ["rx", "off", "tx", "off", "tso", "off", "gso", "off", "gro", "off"];

/// A delay of all frames between one node and the rest of the underlay. Dropping it restores the plain cable.
#[derive(Debug)]
pub struct Delay<'lab> {
    switch: &'lab Machine,
    port: String,
    relay: Option<Relay>,
}

/// What the relay did to the frames of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Frames that went on.
    pub frames: u64,
    /// How long they were held, in sum.
    pub held: Duration,
    /// Frames that did not go on: too large, or refused by the device.
    pub lost: u64,
}

impl Passed {
    /// The mean time a frame was held; none without frames.
    #[must_use]
    pub fn mean(&self) -> Option<Duration> {
        let frames = u32::try_from(self.frames).ok().filter(|frames| *frames > 0)?;
        Some(self.held / frames)
    }
}

/// Which of the frames of UDP over IPv4 lose their place, in each direction. Numbers without a common divisor with what
/// comes in turns hit all of it.
#[derive(Clone, Copy, Debug)]
pub struct Disorder {
    /// One of so many is late.
    pub late_every: u32,
    /// So much later than the others.
    pub late_by: Duration,
    /// One of so many comes twice.
    pub twice_every: u32,
}

/// What becomes of frames, with a delay for those from the node and one for those to it.
#[derive(Clone, Copy, Debug, Default)]
struct Treatment {
    delays: [Duration; 2],
    /// How much longer a frame is held at most.
    spread: Duration,
    disorder: Option<Disorder>,
}

impl<'lab> Delay<'lab> {
    /// Holds every frame from and to the node for `one_way`. Segmentation and checksum offloads of the underlay
    /// devices go off for good.
    pub fn insert(lab: &'lab Lab, node: &Node, one_way: Duration) -> Result<Self> {
        Self::insert_asymmetric(lab, node, [one_way; 2])
    }

    /// The same with a delay of its own for the frames from the node, and another one for those to it.
    pub fn insert_asymmetric(lab: &'lab Lab, node: &Node, delays: [Duration; 2]) -> Result<Self> {
        Self::insert_with(lab, node, Treatment { delays, ..Treatment::default() })
    }

    /// The same, and each frame is held for up to `spread` longer, evenly distributed. None overtakes another.
    pub fn insert_uneven(
        lab: &'lab Lab,
        node: &Node,
        delays: [Duration; 2],
        spread: Duration,
    ) -> Result<Self> {
        Self::insert_with(lab, node, Treatment { delays, spread, disorder: None })
    }

    /// Holds nothing but what is late, until [calm](Self::calm).
    pub fn disorder(lab: &'lab Lab, node: &Node, disorder: Disorder) -> Result<Self> {
        Self::insert_with(lab, node, Treatment { disorder: Some(disorder), ..Treatment::default() })
    }

    fn insert_with(lab: &'lab Lab, node: &Node, treatment: Treatment) -> Result<Self> {
        let switch = lab.switch()?;
        for other in lab.nodes() {
            offloads_off(other, "eth0")?;
            offloads_off(switch, other.name())?;
        }
        let port = node.name().to_owned();
        let mut delay = Self { switch, port, relay: None };
        delay.build(treatment).with_context(|| format!("delay the frames of {}", node.name()))?;
        Ok(delay)
    }

    fn build(&mut self, treatment: Treatment) -> Result<()> {
        let port = &self.port;
        let [outer, inner] = ends(port);
        // Neither end of the relay may answer ARP or announce itself: the switch has addresses on its bridge.
        self.switch.ip(&format!(
            "link add {outer} type veth peer name {inner}\n\
             link set {outer} addrgenmode none\nlink set {inner} addrgenmode none\n\
             link set {inner} arp off\nlink set {port} arp off\n\
             link set {outer} master br0 up\nlink set {inner} up\nlink set {port} nomaster\n"
        ))?;
        for device in [&outer, &inner] {
            offloads_off(self.switch, device)?;
        }
        let index = |device: &str| if_nametoindex(device).with_context(|| format!("find device {device}"));
        let start = || Relay::start(index(port)?, index(&inner)?, treatment);
        self.relay = Some(self.switch.net(start)??);
        Ok(())
    }

    /// From now on no frame loses its place; those that are held are not lost.
    pub fn calm(&self) {
        if let Some(relay) = &self.relay {
            relay.calm();
        }
    }

    /// What has passed so far, from the node and to it.
    #[must_use]
    pub fn passed(&self) -> [Passed; 2] {
        self.relay.as_ref().map(Relay::passed).unwrap_or_default()
    }
}

impl Drop for Delay<'_> {
    fn drop(&mut self) {
        self.relay = None;
        // Nobody can be told here; the lab takes the rest with it.
        let [outer, _] = ends(&self.port);
        drop(self.switch.ip(&format!("link del {outer}\nlink set {} arp on master br0\n", self.port)));
    }
}

/// The device that takes the place of the port at the bridge, and its peer behind which the relay is.
fn ends(port: &str) -> [String; 2] {
    [format!("delay-{port}"), format!("delayed-{port}")]
}

fn offloads_off(place: &impl Place, device: &str) -> Result<()> {
    let arguments: Vec<&str> = ["ethtool", "-K", device].into_iter().chain(OFFLOADS).collect();
    place.run(&arguments).with_context(|| format!("switch the offloads of {device} off")).map(drop)
}

/// A one-way cut: what one node sends to or from a range of TCP ports does not reach another one, while the other
/// direction stays. It is made where the switch hands frames to the receiver, whose devices never see what is lost.
pub fn cut_tcp<'lab>(
    lab: &'lab Lab,
    from: &Node,
    to: &Node,
    ports: RangeInclusive<u16>,
) -> Result<Firewall<'lab, Machine>> {
    let (device, low, high) = (to.name(), ports.start(), ports.end());
    let mut body = format!("chain cut {{ type filter hook egress device \"{device}\" priority 0;\n");
    for (family, address) in [("ip", from.address(false)?), ("ip6", from.address(true)?)] {
        for side in ["sport", "dport"] {
            writeln!(body, "{family} saddr {address} tcp {side} {low}-{high} counter drop")?;
        }
    }
    body += "}\n";
    Firewall::add(lab.switch()?, "netdev", &format!("cut_{}_{device}", from.name()), &body)
}

/// An nftables table in a place. Dropping it removes it.
#[derive(Debug)]
pub struct Firewall<'place, P: Place> {
    place: &'place P,
    table: String,
}

impl<'place, P: Place> Firewall<'place, P> {
    /// Adds a table of that family (`inet`, `netdev`…) with this body: chains and rules in nft's language.
    pub fn add(place: &'place P, family: &str, name: &str, body: &str) -> Result<Self> {
        let table = format!("{family} {name}");
        let mut command = place.command("nft")?;
        command.args(["-f", "-"]);
        let script = format!("table {table} {{\n{body}\n}}\n");
        process::run_with_input(&mut command, &script)
            .with_context(|| format!("nft in {}:\n{script}", place.name()))?;
        Ok(Self { place, table })
    }

    /// Drops the advertisements of VRRP that enter the place over IPv4, above the tap: its daemon hears no other one.
    pub fn deaf(place: &'place P) -> Result<Self> {
        let body = "chain i { type filter hook input priority -400; ip protocol 112 drop; }";
        Self::add(place, "inet", "deaf", body)
    }

    /// Drops this share of the overlay's packets that enter the place through any of the devices.
    pub fn lose_overlay(place: &'place P, devices: &[&str], per_mille: u16) -> Result<Self> {
        ensure!(per_mille <= 1_000, "{per_mille} of 1000 packets cannot be lost");
        // nft takes no share of all.
        let share = match per_mille {
            1_000 => String::new(),
            _ => format!("numgen random mod 1000 < {per_mille}"),
        };
        let chains = devices.iter().zip(0..).map(|(device, number)| {
            format!(
                "chain loss{number} {{ type filter hook ingress device \"{device}\" priority 0;\n\
                 udp dport 8472 {share} counter drop\n}}\n"
            )
        });
        Self::add(place, "netdev", "loss", &chains.collect::<String>())
    }

    /// Packets that all `counter` statements of the table have seen.
    pub fn counted(&self) -> Result<u64> {
        let mut command = self.place.command("nft")?;
        command.args(["list", "table"]).args(self.table.split(' '));
        Ok(counted(&process::run(&mut command)?))
    }
}

impl<P: Place> Drop for Firewall<'_, P> {
    fn drop(&mut self) {
        // Nobody can be told here; the table goes with the namespace.
        let delete = || -> Result<String> {
            process::run(self.place.command("nft")?.args(["delete", "table"]).args(self.table.split(' ')))
        };
        drop(delete());
    }
}

fn counted(listing: &str) -> u64 {
    let mut words = listing.split_whitespace();
    let mut sum = 0;
    while words.by_ref().any(|word| word == "packets") {
        sum += words.next().and_then(|count| count.parse::<u64>().ok()).unwrap_or_default();
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_a_table_are_summed() {
        let listing = "chain a { udp dport 1 counter packets 17 bytes 900 drop }\n\
            chain b { counter packets 4 bytes 3 drop }";
        assert_eq!(counted(listing), 21);
        assert_eq!(counted("table inet empty { }"), 0);
    }

    #[test]
    fn the_mean_of_nothing_is_none() {
        let passed = Passed { frames: 4, held: Duration::from_millis(10), lost: 1 };
        assert_eq!(passed.mean(), Some(Duration::from_micros(2_500)));
        assert_eq!(Passed::default().mean(), None);
    }
}
