//! The programs of others: on the node's cgroup root, the overlay device, the pod's device and the uplink.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::foreign::{self, Foreign, Hook};
use lab::{Place, Pod, wait_until};

use super::numbered::PAYLOAD;

/// `BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB`.
const CONNECTED: u32 = 4;
const PORT: u16 = 7778;
/// Bytes of a datagram at layer 3: IPv4 and UDP headers.
const LAYER3: u32 = PAYLOAD as u32 + 20 + 8;
/// On an Ethernet device.
const FRAME: u32 = LAYER3 + 14;
/// On the uplink: Ethernet, IPv4, UDP and VXLAN headers around the frame.
const TUNNELLED: u32 = FRAME + 14 + 20 + 8 + 8;
/// The time in which every program must have seen another datagram.
const LIMIT: Duration = Duration::from_secs(10);
const OVERLAY: &str = "flannel.1";
const UPLINK: &str = "eth0";

struct Neighbour {
    hook: Hook,
    /// None: the node's cgroup root.
    device: Option<String>,
    program: Foreign,
}

/// All neighbours of the agent on the client's node.
pub(crate) struct Neighbours<'a> {
    client: &'a Pod,
    target: SocketAddr,
    _listener: TcpListener,
    programs: Vec<Neighbour>,
    /// What hangs on clsact, which tc has attached: by direction, with the list that tc gave at first.
    filters: Vec<(&'static str, Foreign, String)>,
    pins: Vec<PathBuf>,
}

impl<'a> Neighbours<'a> {
    /// Attaches one program to each hook, and a filter to each direction of clsact on the overlay device.
    pub(crate) fn attach(client: &'a Pod, server: &Pod) -> Result<Self> {
        let listener = server.net(|| TcpListener::bind(("0.0.0.0", PORT)))?.context("listen")?;
        let target = SocketAddr::from((server.address(false)?, PORT));
        let mut all = Self {
            client,
            target,
            _listener: listener,
            programs: Vec::new(),
            filters: Vec::new(),
            pins: Vec::new(),
        };
        all.attach_more()?;
        let veth = client.host_device().context("the pod has no device")?.to_owned();
        for hook in [Hook::TcxIngress, Hook::TcxEgress] {
            all.attach_to_device(hook, UPLINK, TUNNELLED)?;
            all.attach_to_device(hook, &veth, FRAME)?;
        }
        client.node().run(&["tc", "qdisc", "add", "dev", OVERLAY, "clsact"])?;
        for direction in ["ingress", "egress"] {
            all.add_filter(direction)?;
        }
        Ok(all)
    }

    /// Attaches another program to each hook that the agent uses as well.
    pub(crate) fn attach_more(&mut self) -> Result<()> {
        let root = self.client.node().root().to_owned();
        for (hook, value) in
            [(Hook::CgroupIngress, LAYER3), (Hook::CgroupEgress, LAYER3), (Hook::SockOps, CONNECTED)]
        {
            let program = Foreign::on_cgroup(hook, &root, value)?;
            self.programs.push(Neighbour { hook, device: None, program });
        }
        for hook in [Hook::TcxIngress, Hook::TcxEgress] {
            self.attach_to_device(hook, OVERLAY, FRAME)?;
        }
        Ok(())
    }

    fn attach_to_device(&mut self, hook: Hook, device: &str, length: u32) -> Result<()> {
        let program = Foreign::on_device(hook, self.client.node(), device, length)?;
        self.programs.push(Neighbour { hook, device: Some(device.to_owned()), program });
        Ok(())
    }

    fn add_filter(&mut self, direction: &'static str) -> Result<()> {
        let node = self.client.node();
        let inside = format!("/sys/fs/bpf/foreign-{direction}");
        let outside = PathBuf::from(format!("/proc/{}/root{inside}", node.machine().holder_pid()));
        let program = Foreign::pinned(&outside, FRAME)?;
        self.pins.push(outside);
        let filter = ["tc", "filter", "add", "dev", OVERLAY, direction, "bpf", "direct-action"];
        node.run(&[&filter[..], &["object-pinned", &inside]].concat())?;
        let listed = self.list_filters(direction)?;
        self.filters.push((direction, program, listed));
        Ok(())
    }

    fn list_filters(&self, direction: &str) -> Result<String> {
        self.client.node().run(&["tc", "filter", "show", "dev", OVERLAY, direction])
    }

    /// Fails unless every neighbour is attached, in the old order, and runs.
    pub(crate) fn check(&self, when: &str) -> Result<()> {
        self.check_order().with_context(|| when.to_owned())?;
        self.check_packets().with_context(|| when.to_owned())?;
        self.check_connections().with_context(|| when.to_owned())
    }

    /// Those of ours are left out: they may stand anywhere, as long as the others keep their order.
    fn check_order(&self) -> Result<()> {
        let node = self.client.node();
        for neighbour in &self.programs {
            let alike = |other: &&Neighbour| other.hook == neighbour.hook && other.device == neighbour.device;
            let expected = self.programs.iter().filter(alike).map(|other| other.program.id());
            let expected = expected.collect::<Result<Vec<_>>>()?;
            let found = match &neighbour.device {
                None => foreign::order_on_cgroup(neighbour.hook, node.root())?,
                Some(device) => foreign::order_on_device(neighbour.hook, node, device)?,
            };
            let theirs: Vec<u32> = found.into_iter().filter(|id| expected.contains(id)).collect();
            assert_eq!(theirs, expected, "{:?} on {:?}", neighbour.hook, neighbour.device);
        }
        for (direction, _, before) in &self.filters {
            assert_eq!(&self.list_filters(direction)?, before);
        }
        Ok(())
    }

    fn packet_counts(&self) -> Result<Vec<u64>> {
        let packets = self.programs.iter().filter(|neighbour| neighbour.hook != Hook::SockOps);
        let filters = self.filters.iter().map(|(_, program, _)| program);
        packets.map(|neighbour| &neighbour.program).chain(filters).map(Foreign::count).collect()
    }

    fn check_packets(&self) -> Result<()> {
        let before = self.packet_counts()?;
        wait_until("every program to see another datagram", LIMIT, || {
            self.packet_counts().is_ok_and(|now| now.iter().zip(&before).all(|(now, before)| now > before))
        })
        .with_context(|| format!("before: {before:?}, now: {:?}", self.packet_counts()))
    }

    fn check_connections(&self) -> Result<()> {
        let connect = format!("exec 3<>/dev/tcp/{}/{}", self.target.ip(), self.target.port());
        let programs = || self.programs.iter().filter(|neighbour| neighbour.hook == Hook::SockOps);
        let counts = || programs().map(|neighbour| neighbour.program.count()).collect::<Result<Vec<_>>>();
        let before = counts()?;
        self.client.run(&["bash", "-c", &connect])?;
        let expected: Vec<u64> = before.iter().map(|count| count + 1).collect();
        assert_eq!(counts()?, expected);
        Ok(())
    }

    /// Fails unless each program has seen each of so many datagrams exactly once.
    pub(crate) fn check_totals(&self, datagrams: u64) -> Result<()> {
        let counts = self.packet_counts()?;
        assert!(counts.iter().all(|count| *count == datagrams), "{datagrams} datagrams, seen: {counts:?}");
        Ok(())
    }
}

impl Drop for Neighbours<'_> {
    fn drop(&mut self) {
        for pin in &self.pins {
            drop(std::fs::remove_file(Path::new(pin)));
        }
    }
}
