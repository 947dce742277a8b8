//! What runs on the kernel thread: commands in, records out, and nothing else that could wait for anything.

use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use aya::maps::{HashMap, MapData, MapError, Queue, RingBuf};
use aya_log::EbpfLogger;
use caps::{CapSet, Capability, CapsHashSet};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use probe_common::traffic::SlotKey;

use super::error::KernelError;
use super::filters::Changes;
use super::load::{self, Loaded};
use super::overlay::Overlays;
use super::prefix::{NodeNumbers, Prefixes};
use super::record;
use super::served::{self, Servers};
use super::slots::Slots;
use super::tap::{self, Taps, Uplink};
use super::thread::{Command, KernelOptions, OverlayTarget, Senders, Status};
use super::wire::Wire;
use super::{device, listener, tunnel};

/// What the kernel thread keeps.
const KEPT: [Capability; 3] = [Capability::CAP_BPF, Capability::CAP_PERFMON, Capability::CAP_NET_ADMIN];

/// Frames of the tap handed on before commands and records have their turn: a flood must not cost a pod its name.
const FRAMES_AT_ONCE: usize = 1_024;

/// What the thread starts with.
pub(super) struct Starting {
    pub(super) wake: Arc<EventFd>,
    pub(super) retired: Arc<AtomicU64>,
    pub(super) nodes: NodeNumbers,
    pub(super) status: Arc<Mutex<Status>>,
    pub(super) inbox: Receiver<Command>,
    pub(super) senders: Senders,
}

impl Starting {
    pub(super) fn load(self, options: &KernelOptions) -> Result<(Worker, Arc<Slots>), KernelError> {
        keep_only_needed_capabilities();
        let mut loaded = load::load(options)?;
        let logger =
            (options.log_level != 0).then(|| EbpfLogger::init(&mut loaded.ebpf)).and_then(Result::ok);
        let Loaded { ebpf, slots, trie, slot_of, free, devices, .. } = loaded;
        let rings = Rings {
            records: loaded.records,
            frames: loaded.frames,
            served: loaded.served,
            tunnel: loaded.tunnel,
        };
        let worker = Worker {
            ebpf,
            slots: Arc::clone(&slots),
            prefixes: Prefixes::new(trie, self.nodes),
            slot_of,
            free,
            overlays: Overlays::new(devices),
            rings,
            taps: Taps::default(),
            uplinks: Vec::new(),
            targets: Vec::new(),
            changes: changes_of_filters(),
            interruptions: 0,
            frames_lost: 0,
            servers: loaded.servers,
            served_lost: 0,
            tunnel_lost: 0,
            logger,
            wake: self.wake,
            retired: self.retired,
            status: self.status,
            inbox: self.inbox,
            senders: self.senders,
            cgroup_tracking: loaded.cgroup_tracking.err(),
            socket_errors: loaded.socket_errors,
            listeners: loaded.listeners.err(),
            records_lost: 0,
            retiring: Vec::new(),
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

/// The ring buffers.
struct Rings {
    records: RingBuf<MapData>,
    frames: RingBuf<MapData>,
    served: RingBuf<MapData>,
    tunnel: RingBuf<MapData>,
}

pub(super) struct Worker {
    ebpf: aya::Ebpf,
    slots: Arc<Slots>,
    prefixes: Prefixes,
    slot_of: HashMap<MapData, Wire<SlotKey>, u32>,
    free: Queue<MapData, u32>,
    overlays: Overlays,
    rings: Rings,
    taps: Taps,
    /// Devices to tap.
    uplinks: Vec<Uplink>,
    /// Overlay devices to count on.
    targets: Vec<OverlayTarget>,
    /// Of devices' filters, where those are what our programs hang on.
    changes: Option<Changes>,
    interruptions: u64,
    /// Frames that were none of ours, or found the agent's queue full.
    frames_lost: u64,
    servers: Servers,
    /// The same of served packets.
    served_lost: u64,
    /// The same of packets of tunnels.
    tunnel_lost: u64,
    logger: Option<EbpfLogger<&'static dyn log::Log>>,
    wake: Arc<EventFd>,
    retired: Arc<AtomicU64>,
    status: Arc<Mutex<Status>>,
    inbox: Receiver<Command>,
    senders: Senders,
    cgroup_tracking: Option<String>,
    socket_errors: bool,
    /// Why listeners cannot be listed.
    listeners: Option<String>,
    records_lost: u64,
    /// Keys that are still to be removed.
    retiring: Vec<SlotKey>,
}

impl Worker {
    pub(super) fn run(&mut self) {
        loop {
            self.drain_records();
            self.drain_served();
            self.drain_tunnel();
            self.drain_frames();
            self.mend();
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
            PollFd::new(self.rings.records.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.rings.frames.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.rings.served.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.rings.tunnel.as_fd(), PollFlags::POLLIN),
        ];
        descriptors.extend(self.logger.as_ref().map(|logger| PollFd::new(logger.as_fd(), PollFlags::POLLIN)));
        let changes = self.changes.as_ref();
        descriptors.extend(changes.map(|changes| PollFd::new(changes.as_fd(), PollFlags::POLLIN)));
        let due = changes.and_then(|changes| changes.due(Instant::now()));
        // A millisecond more, since the rest of one is cut off.
        let due = due.and_then(|due| u16::try_from(due.as_millis() + 1).ok());
        // EINTR only means one more look. The counter is cleared so that poll sleeps again.
        if poll(&mut descriptors, due.map_or(PollTimeout::NONE, PollTimeout::from)).is_ok() {
            let _cleared = self.wake.read();
        }
    }

    fn drain_records(&mut self) {
        let lost_before = self.records_lost;
        while let Some(item) = self.rings.records.next() {
            let sent = record::decode(&item).is_some_and(|event| self.senders.events.try_send(event).is_ok());
            self.records_lost += u64::from(!sent);
        }
        if self.records_lost != lost_before {
            self.publish();
        }
    }

    fn drain_served(&mut self) {
        let lost_before = self.served_lost;
        while let Some(item) = self.rings.served.next() {
            let sent =
                served::decode(&item).is_some_and(|served| self.senders.served.try_send(served).is_ok());
            self.served_lost += u64::from(!sent);
        }
        if self.served_lost != lost_before {
            self.publish();
        }
    }

    /// As with frames, a flood of these has its turn and no more.
    fn drain_tunnel(&mut self) {
        let lost_before = self.tunnel_lost;
        for _ in 0..FRAMES_AT_ONCE {
            let Some(item) = self.rings.tunnel.next() else { break };
            let is_lost = tunnel::decode(&item)
                .is_none_or(|packet| tunnel::is_lost(&self.senders.tunnel.try_send(packet)));
            self.tunnel_lost += u64::from(is_lost);
        }
        if self.tunnel_lost != lost_before {
            self.publish();
        }
    }

    fn drain_frames(&mut self) {
        let lost_before = self.frames_lost;
        for _ in 0..FRAMES_AT_ONCE {
            let Some(item) = self.rings.frames.next() else { break };
            let sent = tap::decode(&item).is_some_and(|frame| self.senders.frames.try_send(frame).is_ok());
            self.frames_lost += u64::from(!sent);
        }
        if self.frames_lost != lost_before {
            self.publish();
        }
    }

    fn execute(&mut self, command: Command) -> Result<(), KernelError> {
        match command {
            Command::Prefixes(wanted) => {
                let outcome = self.prefixes.replace(&wanted);
                // Also after an error: part of it may have changed.
                if !matches!(outcome, Ok(false)) {
                    self.slots.raise_generation();
                }
                outcome?;
            }
            Command::Retire(keys, batch) => {
                self.retiring.extend(keys);
                self.retire(batch)?;
            }
            Command::Release(slots) => {
                for slot in slots {
                    self.free
                        .push(slot, 0)
                        .map_err(|source| KernelError::Map { map: "leadline_free", source })?;
                }
            }
            Command::Overlays(targets) => {
                self.targets = targets;
                self.attach_overlays();
                self.publish();
            }
            Command::Taps(uplinks) => {
                self.uplinks = uplinks;
                self.attach_taps();
                self.publish();
            }
            Command::Watch(addresses) => self.servers.replace(&addresses)?,
            Command::Listeners(answer) => {
                // Nobody waits any more when the agent stops.
                let _unheard = answer.send(listener::walk(&mut self.ebpf));
            }
            Command::Stop => {}
        }
        Ok(())
    }

    fn attach_overlays(&mut self) {
        for error in self.overlays.replace(&mut self.ebpf, &self.targets) {
            tracing::warn!(%error, "overlay device is not counted");
        }
    }

    fn attach_taps(&mut self) {
        for error in self.taps.replace(&mut self.ebpf, &self.uplinks) {
            tracing::warn!(%error, "uplink is not tapped");
        }
    }

    /// Attaches again where somebody has removed filters of ours.
    fn mend(&mut self) {
        let Some(changed) = self.changes.as_mut().and_then(|changes| changes.take(Instant::now())) else {
            return;
        };
        let mut robbed = self.taps.forget_robbed(&changed);
        robbed.extend(self.overlays.forget_robbed(&changed));
        if robbed.is_empty() {
            return;
        }
        for device in robbed {
            tracing::warn!(device, "somebody has removed filters of this agent: they are attached again");
        }
        self.attach_overlays();
        self.attach_taps();
        self.interruptions += 1;
        self.publish();
    }

    /// Removes every key that is to retire. A batch is done when all before it are: a key that stays would lead packets
    /// into a slot that is somebody else's by then.
    fn retire(&mut self, batch: u64) -> Result<(), KernelError> {
        let mut refusal = None;
        let slot_of = &mut self.slot_of;
        self.retiring.retain(|key| match slot_of.remove(&Wire(*key)) {
            Ok(()) | Err(MapError::KeyNotFound) => false,
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => {
                false
            }
            Err(source) => {
                refusal = Some(KernelError::Map { map: "leadline_slots", source });
                true
            }
        });
        self.slots.raise_generation();
        if let Some(error) = refusal {
            return Err(error);
        }
        self.retired.store(batch, Ordering::Release);
        Ok(())
    }

    fn publish(&self) {
        let overlays = self.overlays.any();
        let tracking = self.cgroup_tracking.is_none();
        let uplinks = self.taps.uplinks();
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = Status {
            programs: vec![
                ("leadline_rx", true),
                ("leadline_tx", true),
                ("leadline_tcp", true),
                ("leadline_mkdir", tracking),
                ("leadline_rmdir", tracking),
                ("leadline_ovrx", overlays),
                ("leadline_ovtx", overlays),
                (tap::PROGRAMS.receive, !uplinks.is_empty()),
                (tap::PROGRAMS.transmit, !uplinks.is_empty()),
            ],
            uplinks,
            interruptions: self.interruptions,
            cgroup_tracking: self.cgroup_tracking.clone(),
            socket_errors: self.socket_errors,
            listeners: self.listeners.clone(),
            overlay_rows: self.overlays.rows().to_vec(),
            records_lost: self.records_lost,
            frames_lost: self.frames_lost,
            served_lost: self.served_lost,
            tunnel_lost: self.tunnel_lost,
        };
    }
}

/// What tells of filters that others remove; links are nobody else's.
fn changes_of_filters() -> Option<Changes> {
    if device::tcx_available() {
        return None;
    }
    let refused = |error: &std::io::Error| {
        tracing::warn!(%error, "filters that somebody removes will not be attached again");
    };
    Changes::subscribe().inspect_err(refused).ok()
}

enum Next {
    Command(Command),
    Nothing,
    Stop,
}
