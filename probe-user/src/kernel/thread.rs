//! The one thread that talks to bpf(2). It keeps BPF, PERFMON and `NET_ADMIN` to attach to devices that come and go;
//! every other thread has dropped everything. Others send it commands and read mapped memory.

use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use aya::maps::{HashMap, MapData, MapError, Queue, RingBuf};
use aya_log::EbpfLogger;
use caps::{CapSet, Capability, CapsHashSet};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use probe_common::traffic::{Cell, SlotKey};

use super::error::KernelError;
use super::load::{self, Loaded};
pub use super::overlay::OverlayTarget;
use super::overlay::Overlays;
use super::prefix::{NodeNumbers, Prefixes};
use super::record::{self, CgroupEvent};
use super::slots::Slots;
use super::wire::Wire;
use crate::ledger::SlotControl;
use crate::peer::PrefixClass;

/// What the kernel thread keeps.
const KEPT: [Capability; 3] = [Capability::CAP_BPF, Capability::CAP_PERFMON, Capability::CAP_NET_ADMIN];
/// Records that wait for the agent at most.
pub const EVENTS_WAITING: usize = 16_384;

/// What the kernel side needs to know.
#[derive(Clone, Debug)]
pub struct KernelOptions {
    /// Cgroup v2 directory to attach to: the root as this process sees it.
    pub cgroup_root: PathBuf,
    /// Slots.
    pub slots: u32,
    /// Level of the programs' own log records, 0 for none (`aya_log_common::Level`).
    pub log_level: u8,
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
    /// Overlay devices by row.
    pub overlay_rows: Vec<String>,
    /// The last refusals on overlay devices.
    pub overlay_errors: Vec<String>,
    /// Records that were none of ours, or found the agent's queue full.
    pub records_lost: u64,
}

enum Command {
    Prefixes(Vec<PrefixClass>),
    /// Keys, and the number of the batch.
    Retire(Vec<SlotKey>, u64),
    Release(Vec<u32>),
    Overlays(Vec<OverlayTarget>),
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
    pub fn start(
        options: KernelOptions,
        events: tokio::sync::mpsc::Sender<CgroupEvent>,
    ) -> Result<Self, KernelError> {
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
            events,
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

/// What the thread starts with.
struct Starting {
    wake: Arc<EventFd>,
    retired: Arc<AtomicU64>,
    nodes: NodeNumbers,
    status: Arc<Mutex<Status>>,
    inbox: Receiver<Command>,
    events: tokio::sync::mpsc::Sender<CgroupEvent>,
}

impl Starting {
    fn load(self, options: &KernelOptions) -> Result<(Worker, Arc<Slots>), KernelError> {
        keep_only_needed_capabilities();
        let mut loaded = load::load(&options.cgroup_root, options.slots, options.log_level)?;
        let logger =
            (options.log_level != 0).then(|| EbpfLogger::init(&mut loaded.ebpf)).and_then(Result::ok);
        let Loaded { ebpf, slots, trie, slot_of, free, devices, records, cgroup_tracking, socket_errors } =
            loaded;
        let worker = Worker {
            ebpf,
            slots: Arc::clone(&slots),
            prefixes: Prefixes::new(trie, self.nodes),
            slot_of,
            free,
            overlays: Overlays::new(devices),
            records,
            logger,
            wake: self.wake,
            retired: self.retired,
            status: self.status,
            inbox: self.inbox,
            events: self.events,
            cgroup_tracking: cgroup_tracking.err(),
            socket_errors,
            records_lost: 0,
            overlay_errors: Vec::new(),
        };
        worker.publish();
        Ok((worker, slots))
    }
}

/// Drops every capability but the three; those that are missing anyway are not asked for.
fn keep_only_needed_capabilities() {
    let permitted = caps::read(None, CapSet::Permitted).unwrap_or_default();
    let kept: CapsHashSet = KEPT.into_iter().filter(|capability| permitted.contains(capability)).collect();
    let none = CapsHashSet::new();
    for (set, value) in [(CapSet::Inheritable, &none), (CapSet::Effective, &kept), (CapSet::Permitted, &kept)]
    {
        if let Err(error) = caps::set(None, set, value) {
            tracing::warn!(%error, "capabilities of the kernel thread could not be reduced");
        }
    }
}

struct Worker {
    ebpf: aya::Ebpf,
    slots: Arc<Slots>,
    prefixes: Prefixes,
    slot_of: HashMap<MapData, Wire<SlotKey>, u32>,
    free: Queue<MapData, u32>,
    overlays: Overlays,
    records: RingBuf<MapData>,
    logger: Option<EbpfLogger<&'static dyn log::Log>>,
    wake: Arc<EventFd>,
    retired: Arc<AtomicU64>,
    status: Arc<Mutex<Status>>,
    inbox: Receiver<Command>,
    events: tokio::sync::mpsc::Sender<CgroupEvent>,
    cgroup_tracking: Option<String>,
    socket_errors: bool,
    records_lost: u64,
    overlay_errors: Vec<String>,
}

impl Worker {
    fn run(&mut self) {
        loop {
            self.drain_records();
            if let Some(logger) = &mut self.logger {
                logger.flush();
            }
            match self.next_command() {
                Next::Command(command) => {
                    if let Err(error) = self.execute(command) {
                        tracing::error!(%error, "kernel operation failed");
                    }
                }
                Next::Nothing => self.wait(),
                Next::Stop => return,
            }
        }
    }

    fn next_command(&self) -> Next {
        match self.inbox.try_recv() {
            Ok(Command::Stop) | Err(TryRecvError::Disconnected) => Next::Stop,
            Ok(command) => Next::Command(command),
            Err(TryRecvError::Empty) => Next::Nothing,
        }
    }

    /// Sleeps until a command or a record comes.
    fn wait(&self) {
        let mut descriptors = vec![
            PollFd::new(self.wake.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.records.as_fd(), PollFlags::POLLIN),
        ];
        descriptors.extend(self.logger.as_ref().map(|logger| PollFd::new(logger.as_fd(), PollFlags::POLLIN)));
        // EINTR only means one more look. The counter is cleared so that poll sleeps again.
        if poll(&mut descriptors, PollTimeout::NONE).is_ok() {
            let _cleared = self.wake.read();
        }
    }

    fn drain_records(&mut self) {
        let lost_before = self.records_lost;
        while let Some(item) = self.records.next() {
            let sent = record::decode(&item).is_some_and(|event| self.events.try_send(event).is_ok());
            self.records_lost += u64::from(!sent);
        }
        if self.records_lost != lost_before {
            self.publish();
        }
    }

    fn execute(&mut self, command: Command) -> Result<(), KernelError> {
        match command {
            Command::Prefixes(wanted) => {
                if self.prefixes.replace(&wanted)? {
                    self.slots.raise_generation();
                }
            }
            Command::Retire(keys, batch) => {
                for key in keys {
                    match self.slot_of.remove(&Wire(key)) {
                        Ok(()) | Err(MapError::KeyNotFound) => {}
                        Err(source) => return Err(KernelError::Map { map: "leadline_slots", source }),
                    }
                }
                self.slots.raise_generation();
                self.retired.store(batch, Ordering::Release);
            }
            Command::Release(slots) => {
                for slot in slots {
                    self.free
                        .push(slot, 0)
                        .map_err(|source| KernelError::Map { map: "leadline_free", source })?;
                }
            }
            Command::Overlays(targets) => {
                let errors = self.overlays.replace(&mut self.ebpf, &targets);
                for error in &errors {
                    tracing::warn!(%error, "overlay device is not counted");
                }
                self.overlay_errors = errors.iter().map(ToString::to_string).collect();
                self.publish();
            }
            Command::Stop => {}
        }
        Ok(())
    }

    fn publish(&self) {
        let overlays = self.overlays.any();
        let tracking = self.cgroup_tracking.is_none();
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = Status {
            programs: vec![
                ("leadline_rx", true),
                ("leadline_tx", true),
                ("leadline_tcp", true),
                ("leadline_mkdir", tracking),
                ("leadline_rmdir", tracking),
                ("leadline_ovrx", overlays),
                ("leadline_ovtx", overlays),
            ],
            cgroup_tracking: self.cgroup_tracking.clone(),
            socket_errors: self.socket_errors,
            overlay_rows: self.overlays.rows().to_vec(),
            overlay_errors: self.overlay_errors.clone(),
            records_lost: self.records_lost,
        };
    }
}

enum Next {
    Command(Command),
    Nothing,
    Stop,
}
