//! The one thread that talks to bpf(2). It keeps BPF, PERFMON and `NET_ADMIN` to attach to devices that come and go;
//! every other thread has dropped everything. Others send it commands and read mapped memory. What runs on it is in
//! `worker`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use nix::sys::eventfd::{EfdFlags, EventFd};
use probe_common::traffic::{Cell, SlotKey};
use tokio::sync::oneshot;

use super::error::KernelError;
use super::listener::Listener;
pub use super::overlay::OverlayTarget;
use super::path_pod::PodPath;
use super::prefix::NodeNumbers;
use super::record::CgroupEvent;
use super::served::Served;
use super::slots::Slots;
use super::tap::{Frame, Uplink};
use super::too_big::TooBigPacket;
use super::tunnel::TunnelPacket;
use super::worker::Starting;
use crate::ledger::SlotControl;
use crate::peer::PrefixClass;

/// Records that wait for the agent at most.
pub const EVENTS_WAITING: usize = 16_384;

/// Frames of the tap that wait for the agent at most.
pub const FRAMES_WAITING: usize = 16_384;

/// Records of served packets that wait for the agent at most.
pub const SERVED_WAITING: usize = 4_096;

/// Packets of tunnels that wait for the agent at most.
pub const TUNNEL_WAITING: usize = 4_096;

/// Messages of routers that wait for the agent at most.
pub const TOO_BIG_WAITING: usize = 4_096;

/// Where the kernel side's records go.
#[derive(Debug)]
pub struct Senders {
    /// Cgroups that come and go.
    pub events: tokio::sync::mpsc::Sender<CgroupEvent>,
    /// Frames of the tap.
    pub frames: tokio::sync::mpsc::Sender<Frame>,
    /// Packets of watched addresses.
    pub served: tokio::sync::mpsc::Sender<Served>,
    /// Packets of tunnels.
    pub tunnel: tokio::sync::mpsc::Sender<TunnelPacket>,
    /// Messages of routers.
    pub too_big: tokio::sync::mpsc::Sender<TooBigPacket>,
}

/// What the kernel side needs to know.
#[derive(Clone, Debug)]
pub struct KernelOptions {
    /// Cgroup v2 directory to attach to: the root as this process sees it.
    pub cgroup_root: PathBuf,
    /// Slots.
    pub slots: u32,
    /// Level of the programs' own log records, 0 for none (`aya_log_common::Level`).
    pub log_level: u8,
    /// Whether [`KernelHandle::listeners`] will be asked for.
    pub listeners: bool,
    /// Ports whose TCP connections are counted by peer, [`probe_common::tcp_port::PORTS_MAX`] at most.
    pub ports: Vec<u16>,
}

/// What passed an overlay device from and to one peer node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayTraffic {
    /// The device.
    pub device: String,
    /// The value of the `peer_node` label.
    pub node: Arc<str>,
    /// Packets and layer 3 bytes of inner packets.
    pub cell: Cell,
}

/// What is attached.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Programs and whether they are attached, for `leadline_program_attached`.
    pub programs: Vec<(&'static str, bool)>,
    /// Why cgroups are not followed by tracepoint.
    pub cgroup_tracking: Option<String>,
    /// Whether connect failures have their reason (BTF).
    pub socket_errors: bool,
    /// Why listeners cannot be listed.
    pub listeners: Option<String>,
    /// Whether segments that are sent again have a size (BTF, Linux 5.11).
    pub resent: bool,
    /// Overlay devices by row.
    pub overlay_rows: Vec<String>,
    /// Records that were none of ours, or found the agent's queue full.
    pub records_lost: u64,
    /// Devices that are tapped.
    pub uplinks: Vec<Uplink>,
    /// How often devices went without their programs until we attached them again.
    pub interruptions: u64,
    /// Frames of the tap that were none of ours, or found the agent's queue full.
    pub frames_lost: u64,
    /// The same of served packets.
    pub served_lost: u64,
    /// The same of packets of tunnels.
    pub tunnel_lost: u64,
    /// The same of messages of routers.
    pub too_big_lost: u64,
}

pub(super) enum Command {
    Prefixes(Vec<PrefixClass>),
    /// Keys, and the number of the batch.
    Retire(Vec<SlotKey>, u64),
    Release(Vec<u32>),
    Overlays(Vec<OverlayTarget>),
    Taps(Vec<Uplink>),
    Watch(BTreeSet<IpAddr>),
    Listeners(oneshot::Sender<Result<Vec<Listener>, KernelError>>),
    Stop,
}

/// The agent's end of the kernel thread.
pub struct KernelHandle {
    commands: Sender<Command>,
    wake: Arc<EventFd>,
    slots: Arc<Slots>,
    nodes: NodeNumbers,
    status: Arc<Mutex<Status>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    batches: AtomicU64,
    retired: Arc<AtomicU64>,
}

impl KernelHandle {
    /// Starts the thread, which loads and attaches everything before this returns.
    ///
    /// # Errors
    /// When the object, a program or an attachment is refused.
    pub fn start(options: KernelOptions, senders: Senders) -> Result<Self, KernelError> {
        let wake = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)
            .map(Arc::new)
            .map_err(|errno| KernelError::Thread(errno.into()))?;
        let (commands, inbox) = channel();
        let (ready, answer) = channel();
        let nodes = NodeNumbers::default();
        let retired = Arc::new(AtomicU64::new(0));
        let status = Arc::new(Mutex::new(Status::default()));
        let worker = Starting {
            wake: Arc::clone(&wake),
            retired: Arc::clone(&retired),
            nodes: nodes.clone(),
            status: Arc::clone(&status),
            inbox,
            senders,
        };
        let thread = std::thread::Builder::new()
            .name("kernel".into())
            .spawn(move || match worker.load(&options) {
                Ok((mut worker, slots)) => {
                    if ready.send(Ok(slots)).is_ok() {
                        worker.run();
                    }
                }
                Err(error) => drop(ready.send(Err(error))),
            })
            .map_err(KernelError::Thread)?;
        let slots = answer.recv().map_err(|_gone| KernelError::ThreadGone)??;
        let (thread, batches) = (Mutex::new(Some(thread)), AtomicU64::new(0));
        Ok(Self { commands, wake, slots, nodes, status, thread, batches, retired })
    }

    fn send(&self, command: Command) {
        // A thread that is gone is seen by `status`; there is nothing to tell it any more.
        if self.commands.send(command).is_ok()
            && let Err(errno) = self.wake.write(1)
        {
            tracing::warn!(%errno, "kernel thread could not be woken");
        }
    }

    /// Replaces the prefix trie; sockets look up again if that changed anything.
    pub fn set_prefixes(&self, prefixes: Vec<PrefixClass>) {
        self.send(Command::Prefixes(prefixes));
    }

    /// Makes exactly these overlay devices counted.
    pub fn set_overlays(&self, targets: Vec<OverlayTarget>) {
        self.send(Command::Overlays(targets));
    }

    /// Makes exactly these devices tapped.
    pub fn set_taps(&self, uplinks: Vec<Uplink>) {
        self.send(Command::Taps(uplinks));
    }

    /// Has the tap note who serves exactly these addresses.
    pub fn set_watched(&self, addresses: BTreeSet<IpAddr>) {
        self.send(Command::Watch(addresses));
    }

    /// Lists the TCP listeners of this network namespace. It goes through the open files of all processes, which takes
    /// the thread some milliseconds on a crowded node.
    ///
    /// # Errors
    /// When the kernel refuses, or the thread is gone.
    pub async fn listeners(&self) -> Result<Vec<Listener>, KernelError> {
        let (answer, answered) = oneshot::channel();
        self.send(Command::Listeners(answer));
        answered.await.map_err(|_gone| KernelError::ThreadGone)?
    }

    /// Traffic of every overlay device and peer node that has any.
    #[must_use]
    pub fn overlay_traffic(&self) -> Vec<OverlayTraffic> {
        let rows = self.status().overlay_rows;
        let nodes = self.nodes.names();
        let mut found = Vec::new();
        for (row, device) in (0..).zip(&rows) {
            for (number, node) in (1..).zip(&nodes) {
                let cell = self.slots.overlay(row, number);
                if cell != Cell::default() {
                    found.push(OverlayTraffic { device: device.clone(), node: Arc::clone(node), cell });
                }
            }
        }
        found
    }

    /// Round trips between pods of this node and those of every other one that was ever known; `now` is
    /// `CLOCK_MONOTONIC` nanoseconds.
    #[must_use]
    pub fn pod_paths(&self, now: u64) -> Vec<PodPath> {
        let nodes = self.nodes.names();
        (1..).zip(&nodes).map(|(number, node)| self.slots.pod_paths.read(number, node, now)).collect()
    }

    /// The mapped counters.
    #[must_use]
    pub fn slots(&self) -> Arc<Slots> {
        Arc::clone(&self.slots)
    }

    /// What is attached as of now.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Detaches everything and waits for the thread.
    pub fn stop(&self) {
        self.send(Command::Stop);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("kernel thread panicked");
        }
    }
}

impl SlotControl for KernelHandle {
    fn retire(&self, keys: Vec<SlotKey>) -> u64 {
        let batch = self.batches.fetch_add(1, Ordering::Relaxed) + 1;
        self.send(Command::Retire(keys, batch));
        batch
    }

    fn retired(&self) -> u64 {
        self.retired.load(Ordering::Acquire)
    }

    fn release(&self, slots: Vec<u32>) {
        self.send(Command::Release(slots));
    }
}
