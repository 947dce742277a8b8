//! A machine that is a node: an uplink to a neighbour, a device of Flannel, filters of others, and the agent.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::{Architecture, Vm, VmOptions};

use super::foreign::{self, Filters};

/// For what takes a second or two, on an emulated processor.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
/// The neighbour's address.
pub(crate) const PEER: &str = "192.0.2.2";
/// An address that the neighbour announces.
pub(crate) const VIRTUAL: &str = "192.0.2.100";
/// From the start of the machine to the end of the last check.
const WHOLE: Duration = Duration::from_mins(2);

const MODULES: &[&str] = &[
    "sch_ingress",
    "sch_netem",
    "cls_bpf",
    "cls_matchall",
    "act_gact",
    "veth",
    "udp_tunnel",
    "ip6_udp_tunnel",
    "vxlan",
];

/// What the machine is made into before the agent starts.
const NODE: &[&str] = &[
    "ip netns add peer",
    "ip link add eth0 type veth peer name peer0 netns peer",
    "ip address add 192.0.2.1/24 dev eth0 && ip link set eth0 up",
    "ip -n peer address add 192.0.2.2/24 dev peer0 && ip -n peer link set peer0 up",
    // What nobody has cannot be announced.
    "ip -n peer address add 192.0.2.100/32 dev peer0",
    "ip link add flannel.1 type vxlan id 1 local 192.0.2.1 dstport 8472 nolearning",
    "ip address add 10.42.0.0/32 dev flannel.1 && ip link set flannel.1 up",
    "tc qdisc add dev eth0 clsact",
];

pub(crate) struct Stage {
    pub(crate) vm: Vm,
    /// Hardware addresses that the neighbour has had.
    stations: u8,
}

impl Stage {
    pub(crate) fn boot(architecture: Architecture) -> Result<Self> {
        let options = VmOptions {
            architecture,
            release: "6.1",
            modules: MODULES,
            programs: vec!["ip".into(), "tc".into(), lab::agent::binary_for(architecture)?],
            limit: WHOLE,
        };
        let mut vm = Vm::boot(&options)?;
        for line in NODE {
            vm.run(line)?;
        }
        foreign::attach(&mut vm)?;
        Ok(Self { vm, stations: 0 })
    }

    /// Starts the agent and waits until it is ready.
    pub(crate) fn start_agent(&mut self) -> Result<()> {
        self.start_agent_with("")
    }

    /// The same with arguments.
    pub(crate) fn start_agent_with(&mut self, arguments: &str) -> Result<()> {
        self.vm.run(&format!("leadline run {arguments} > /tmp/log 2>&1 & agent=$!"))?;
        let ready = "wget -q -O- http://127.0.0.1:9843/readyz";
        self.vm.wait_until("the agent to be ready", ready, LIMIT).map(drop)
    }

    /// Ends the agent and returns its exit status.
    pub(crate) fn end_agent(&mut self, signal: &str) -> Result<i32> {
        self.vm.run(&format!("kill -{signal} $agent"))?;
        Ok(self.vm.ask("wait $agent")?.status)
    }

    /// What the agent has written since its start.
    pub(crate) fn log(&mut self) -> String {
        self.vm.run("cat /tmp/log").unwrap_or_else(|error| format!("{error:#}"))
    }

    /// The samples of a family.
    pub(crate) fn metrics(&mut self, family: &str) -> Result<String> {
        self.vm.run(&format!("wget -q -O- http://127.0.0.1:9843/metrics | grep '^{family}[{{ ]'"))
    }

    /// Waits for a sample that matches the expression.
    pub(crate) fn wait_metric(&mut self, what: &str, expression: &str) -> Result<()> {
        let line = format!("wget -q -O- http://127.0.0.1:9843/metrics | grep '^{expression}$'");
        self.vm.wait_until(what, &line, LIMIT).map(drop)
    }

    pub(crate) fn wait_tapped(&mut self, device: &str, is_tapped: bool) -> Result<()> {
        let sample = format!("leadline_tap_attached{{interface=\"{device}\"}} {}", u8::from(is_tapped));
        self.wait_metric(&sample, &sample)
    }

    /// Packets received from and sent to addresses outside.
    pub(crate) fn external_packets(&mut self) -> Result<[u64; 2]> {
        let mut packets = [0; 2];
        for (packets, direction) in packets.iter_mut().zip(["receive", "transmit"]) {
            let family = format!("leadline_node_{direction}_packets_total");
            let text = self.metrics(&family)?;
            let value = text.lines().find_map(|line| line.split_once("{peer_class=\"external\"} "));
            let (_, value) = value.with_context(|| format!("no class external in\n{text}"))?;
            *packets = value.parse().with_context(|| format!("{family} {value}"))?;
        }
        Ok(packets)
    }

    /// The filters of one direction of a device.
    pub(crate) fn filters(&mut self, device: &str, direction: &str) -> Result<Filters> {
        let text = self.vm.run(&format!("tc filter show dev {device} {direction}"))?;
        foreign::parse(&text).with_context(|| format!("unknown form:\n{text}"))
    }

    /// Waits until each direction has so many filters of ours.
    pub(crate) fn wait_filters(&mut self, device: &str, count: usize) -> Result<()> {
        for direction in ["ingress", "egress"] {
            let line =
                format!("test $(tc filter show dev {device} {direction} | grep -c 0x4c440001) = {count}");
            self.vm.wait_until(&format!("our filters at {direction} of {device}"), &line, LIMIT)?;
        }
        Ok(())
    }

    /// Announces the virtual address as a station that has not had it before, and returns its hardware address.
    pub(crate) fn announce(&mut self) -> Result<String> {
        self.stations += 1;
        let station = format!("02:00:00:00:00:{:02x}", self.stations);
        self.vm.run(&format!("ip -n peer link set peer0 address {station} && ip neigh flush dev eth0"))?;
        let line = format!("ip netns exec peer arping -A -c 1 -I peer0 {VIRTUAL}");
        let said = self.vm.run(&line)?;
        ensure!(said.contains("Sent 1 probe"), "{said}");
        Ok(station)
    }
}
