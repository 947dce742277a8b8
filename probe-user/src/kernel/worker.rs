//! What runs on the kernel thread: commands in, records out, and nothing else that could wait for anything.

use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use aya::maps::{HashMap, MapData, MapError, Queue};
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
use super::rings::Rings;
use super::served::Servers;
use super::slots::Slots;
use super::tap::{self, Taps, Uplink};
use super::thread::{Command, KernelOptions, OverlayTarget, Senders, Status};
use super::wire::Wire;
use super::{device, listener, path_pod};

/// What the kernel thread keeps.
const KEPT: [Capability; 3] = [Capability::CAP_BPF, Capability::CAP_PERFMON, Capability::CAP_NET_ADMIN];

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
        let worker = Worker {
            ebpf,
            slots: Arc::clone(&slots),
            prefixes: Prefixes::new(trie, self.nodes),
            slot_of,
            free,
            overlays: Overlays::new(devices),
            rings: Rings::new(loaded.buffers, self.senders),
            taps: Taps::default(),
            uplinks: Vec::new(),
            targets: Vec::new(),
            changes: changes_of_filters(),
            interruptions: 0,
            servers: loaded.servers,
            logger,
            wake: self.wake,
            retired: self.retired,
            status: self.status,
            inbox: self.inbox,
            cgroup_tracking: loaded.cgroup_tracking.err(),
            socket_errors: loaded.socket_errors,
            listeners: loaded.listeners.err(),
            resent: loaded.resent,
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
    servers: Servers,
    logger: Option<EbpfLogger<&'static dyn log::Log>>,
    wake: Arc<EventFd>,
    retired: Arc<AtomicU64>,
    status: Arc<Mutex<Status>>,
    inbox: Receiver<Command>,
    cgroup_tracking: Option<String>,
    socket_errors: bool,
    /// Why listeners cannot be listed.
    listeners: Option<String>,
    /// Whether segments that are sent again have a size.
    resent: bool,
    /// Keys that are still to be removed.
    retiring: Vec<SlotKey>,
}

impl Worker {
    pub(super) fn run(&mut self) {
        loop {
            if self.rings.drain() {
                self.publish();
            }
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
        let mut descriptors = vec![PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
        descriptors.extend(self.rings.descriptors().map(|ring| PollFd::new(ring, PollFlags::POLLIN)));
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
                (path_pod::RESENT, self.resent),
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
            resent: self.resent,
            overlay_rows: self.overlays.rows().to_vec(),
            records_lost: self.rings.events.lost(),
            frames_lost: self.rings.frames.lost(),
            served_lost: self.rings.served.lost(),
            tunnel_lost: self.rings.tunnel.lost(),
            too_big_lost: self.rings.too_big.lost(),
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
