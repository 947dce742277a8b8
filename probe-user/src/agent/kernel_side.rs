//! The kernel side as the agent sees it: there, or not there with a reason, in which case what needs it is left out.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, bail};
use tokio::sync::mpsc::{Receiver, channel};

use super::vip::monotonic;
use crate::collector::Support;
use crate::collector::overlay::{OverlayCount, OverlayCounters};
use crate::collector::program::{Program, ProgramFacts};
use crate::collector::tcp_port::PortFacts;
use crate::config::{self, Config, Mode};
use crate::kernel::thread::{
    EVENTS_WAITING, FRAMES_WAITING, SERVED_WAITING, TOO_BIG_WAITING, TUNNEL_WAITING,
};
use crate::kernel::{
    CgroupEvent, Frame, KernelHandle, KernelOptions, Senders, Served, Slots, TooBigPacket, TunnelPacket,
};
use crate::ledger::Ledger;
use crate::metric::Profile;
use crate::source::cgroupfs::CgroupTree;

/// The `reason` label when nothing could be loaded; the log has the kernel's words.
pub(super) const NOT_LOADED: &str = "programs could not be loaded";
const NO_SOCKET_ERRORS: &str = "no BTF: connect failures have no reason, resets are not counted";
const NO_CGROUP_EVENTS: &str = "no cgroup tracepoints: pods that live less than a scan are missed";

/// The kernel thread, or why there is none.
pub(super) struct KernelSide {
    handle: Option<Arc<KernelHandle>>,
    events: Mutex<Option<Receiver<CgroupEvent>>>,
    tapped: Mutex<Option<Tapped>>,
    tunnel: Mutex<Option<Receiver<TunnelPacket>>>,
    too_big: Mutex<Option<Receiver<TooBigPacket>>>,
}

/// What the tap tells.
pub(super) struct Tapped {
    pub(super) frames: Receiver<Frame>,
    pub(super) served: Receiver<Served>,
}

/// What the observers of the node need.
pub(super) struct Books {
    pub(super) ledger: Arc<Ledger<Arc<Slots>>>,
    pub(super) kernel: Arc<KernelHandle>,
    pub(super) events: Receiver<CgroupEvent>,
    pub(super) profile: Profile,
}

impl KernelSide {
    /// Loads and attaches. A refusal ends the agent only if a collector that needs the programs must run.
    pub(super) fn start(config: &Config, tree: &CgroupTree) -> Result<Self> {
        let (to_events, events) = channel(EVENTS_WAITING);
        let (to_frames, frames) = channel(FRAMES_WAITING);
        let (to_served, served) = channel(SERVED_WAITING);
        let (to_tunnel, tunnel) = channel(TUNNEL_WAITING);
        let (to_too_big, too_big) = channel(TOO_BIG_WAITING);
        let senders = Senders {
            events: to_events,
            frames: to_frames,
            served: to_served,
            tunnel: to_tunnel,
            too_big: to_too_big,
        };
        let options = KernelOptions {
            cgroup_root: tree.root().to_owned(),
            slots: config.slots,
            log_level: log_level(&config.log.level),
            ports: if config.collector.tcp_port == Mode::Off {
                Vec::new()
            } else {
                config.tcp_port.ports.clone()
            },
            listeners: config.collector.vip_listener != Mode::Off && config.collector.vip != Mode::Off,
        };
        let handle = match KernelHandle::start(options, senders) {
            Ok(handle) => Some(Arc::new(handle)),
            Err(error) => {
                let collectors = [
                    ("traffic", config.collector.traffic),
                    ("tcp", config.collector.tcp),
                    ("tcp_port", config.collector.tcp_port),
                ];
                if let Some((name, _)) = collectors.iter().find(|(_, mode)| *mode == Mode::On) {
                    bail!("collector {name} must run but cannot: {error}");
                }
                tracing::error!(%error, "kernel programs are not running: traffic, tcp and tcp_port are left out");
                None
            }
        };
        let tapped = Some(Tapped { frames, served });
        Ok(Self {
            handle,
            events: Mutex::new(Some(events)),
            tapped: Mutex::new(tapped),
            tunnel: Mutex::new(Some(tunnel)),
            too_big: Mutex::new(Some(too_big)),
        })
    }

    pub(super) fn handle(&self) -> Option<Arc<KernelHandle>> {
        self.handle.clone()
    }

    /// The books over the counters, once.
    pub(super) fn books(&self, config: &Config) -> Option<Books> {
        let kernel = self.handle()?;
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let profile = match config.profile {
            config::Profile::Minimal => Profile::Minimal,
            config::Profile::Standard => Profile::Standard,
            config::Profile::Detailed => Profile::Detailed,
        };
        Some(Books { ledger: Arc::new(Ledger::new(kernel.slots())), kernel, events, profile })
    }

    /// What the tap sees, once; none without the programs.
    pub(super) fn tapped(&self) -> Option<Tapped> {
        self.handle.as_ref()?;
        self.tapped.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Packets of tunnels that the tap sees, once; none without the programs.
    pub(super) fn tunnel(&self) -> Option<Receiver<TunnelPacket>> {
        self.handle.as_ref()?;
        self.tunnel.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Messages of routers that the tap sees, once; none without the programs.
    pub(super) fn too_big(&self) -> Option<Receiver<TooBigPacket>> {
        self.handle.as_ref()?;
        self.too_big.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn traffic_support(&self) -> Support {
        match self.handle.as_ref().map(|handle| handle.status()) {
            None => Support::No(NOT_LOADED),
            Some(status) if status.cgroup_tracking.is_some() => Support::Degraded(NO_CGROUP_EVENTS),
            Some(_) => Support::Yes,
        }
    }

    pub(super) fn tcp_support(&self) -> Support {
        match self.handle.as_ref().map(|handle| handle.status()) {
            None => Support::No(NOT_LOADED),
            Some(status) if !status.socket_errors => Support::Degraded(NO_SOCKET_ERRORS),
            Some(_) => Support::Yes,
        }
    }

    /// What watched ports have counted, whenever asked; `None` without the programs.
    pub(super) fn ports(&self) -> Option<impl Fn() -> PortFacts + Send + Sync + use<>> {
        let slots = self.handle()?.slots();
        Some(move || PortFacts {
            counts: slots.ports(monotonic()),
            slots_exhausted: slots.control().port_slots_exhausted,
        })
    }

    pub(super) fn overlay_counters(&self) -> Arc<dyn OverlayCounters> {
        match &self.handle {
            Some(handle) => Arc::new(Counters(Arc::clone(handle))),
            None => Arc::new(NoCounters),
        }
    }

    /// The collector of the programs themselves.
    pub(super) fn collector(&self) -> Program {
        let handle = self.handle();
        Program::new(move || handle.as_ref().map(|handle| facts(handle)))
    }

    pub(super) fn stop(&self) {
        if let Some(handle) = &self.handle {
            handle.stop();
        }
    }
}

fn facts(handle: &KernelHandle) -> ProgramFacts {
    let slots = handle.slots();
    ProgramFacts {
        programs: handle.status().programs,
        control: slots.control(),
        memory_bytes: slots.memory_bytes(),
    }
}

/// The kernel side's overlay traffic as the collector takes it.
struct Counters(Arc<KernelHandle>);

impl OverlayCounters for Counters {
    fn read(&self) -> Vec<OverlayCount> {
        let traffic = self.0.overlay_traffic().into_iter();
        traffic
            .map(|traffic| OverlayCount {
                device: traffic.device,
                peer_node: traffic.node,
                receive_packets: traffic.cell.receive_packets,
                receive_bytes: traffic.cell.receive_bytes,
                transmit_packets: traffic.cell.transmit_packets,
                transmit_bytes: traffic.cell.transmit_bytes,
            })
            .collect()
    }

    fn counts_on(&self, device: &str) -> bool {
        self.0.status().overlay_rows.iter().any(|counted| counted == device)
    }
}

/// No programs, no counts.
struct NoCounters;

impl OverlayCounters for NoCounters {
    fn read(&self) -> Vec<OverlayCount> {
        Vec::new()
    }

    fn counts_on(&self, _device: &str) -> bool {
        false
    }
}

/// The programs' own records are few and for debugging: on from `debug`, for all or for the kernel side.
fn log_level(directives: &str) -> u8 {
    // Numbers of aya-log: 4 debug, 5 trace; 0 compiles them out at load.
    let of_kernel = directives.split(',').rev().find_map(|directive| match directive.split_once('=') {
        None => Some(directive),
        Some((target, level)) if target.starts_with("leadline") => Some(level),
        Some(_) => None,
    });
    match of_kernel.unwrap_or_default().to_ascii_lowercase().as_str() {
        "debug" => 4,
        "trace" => 5,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_records_are_off_below_debug() {
        assert_eq!(["info", "warn", "", "hyper=debug,info"].map(log_level), [0, 0, 0, 0]);
        assert_eq!(["debug", "trace", "info,leadline::kernel=debug"].map(log_level), [4, 5, 4]);
    }
}
