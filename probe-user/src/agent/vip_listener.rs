//! Asks who listens, as long as this node holds a virtual address, and tells the timeline when a port becomes shared.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::{MissedTickBehavior, interval};

use super::Agent;
use super::kernel_side::NOT_LOADED;
use super::serve::{Chosen, supervise};
use crate::collector::unavailable::Unavailable;
use crate::collector::vip::{Heard, held};
use crate::collector::vip_listener::{Listening, Port, Table, VipListener};
use crate::config::Mode;
use crate::event::{Kind, Occurrence, Timeline};
use crate::kernel::{KernelError, KernelHandle};
use crate::source::netlink::NetworkState;

/// How often it is looked whether there is an address to ask for.
const LOOK: Duration = Duration::from_secs(1);
/// How often the kernel is asked at most: it goes through the open files of all processes.
const PERIOD: Duration = Duration::from_secs(10);

/// The `reason` where the kernel refused; the log has its words.
const REFUSED: &str = "kernel cannot list listeners";
/// The `reason` where virtual addresses are not known.
const NO_VIPS: &str = "collector vip does not run";

/// What the task works with.
struct Watch {
    kernel: Arc<KernelHandle>,
    heard: Heard,
    network: NetworkState,
    listening: Listening,
    timeline: Arc<Timeline>,
}

impl Agent<'_> {
    /// Processes behind virtual addresses; `heard` has the addresses if they are listened for.
    pub(super) fn observe_listeners(
        &self,
        network: &NetworkState,
        heard: Option<Heard>,
        chosen: &mut Chosen,
    ) -> Result<()> {
        let mode = self.config.collector.vip_listener;
        if mode == Mode::Off {
            tracing::info!(collector = "vip_listener", "collector is off");
            return Ok(());
        }
        let missing = |reason| Arc::new(Unavailable::new("vip_listener", reason));
        let Some(kernel) = self.kernel.handle() else { return chosen.add(mode, missing(NOT_LOADED)) };
        let Some(heard) = heard else { return chosen.add(mode, missing(NO_VIPS)) };
        if let Some(reason) = kernel.status().listeners {
            tracing::warn!(reason, "processes behind virtual addresses cannot be found");
            return chosen.add(mode, missing(REFUSED));
        }
        let listening = Listening::default();
        let timeline = Arc::clone(&self.timeline);
        let watch = Watch { kernel, heard, network: network.clone(), listening: listening.clone(), timeline };
        supervise("vip listener", self.ended.clone(), watch.run());
        // The iterator sees the PID namespace of whoever reads it. The first process of one is not the agent on a node.
        let sees_all = std::process::id() != 1;
        // That there is no virtual address yet is no failure of a collector that must run.
        chosen.add(Mode::Auto, Arc::new(VipListener::new(listening, sees_all)))
    }
}

impl Watch {
    async fn run(self) -> Result<()> {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asked: Option<Instant> = None;
        let mut shared = BTreeSet::new();
        let mut is_failing = false;
        loop {
            looks.tick().await;
            let vips = self.vips();
            if vips.is_empty() {
                shared.clear();
                self.listening.clear();
                continue;
            }
            if asked.is_some_and(|asked| asked.elapsed() < PERIOD) {
                continue;
            }
            asked = Some(Instant::now());
            let begun = Instant::now();
            match self.kernel.listeners().await {
                Ok(listeners) => {
                    let table = Table::of(&vips, &listeners);
                    tracing::debug!(listeners = listeners.len(), took = ?begun.elapsed(), "listeners were listed");
                    shared = self.tell(&table, &shared);
                    self.listening.set(table);
                    is_failing = false;
                }
                Err(error @ KernelError::ThreadGone) => return Err(error.into()),
                Err(error) => {
                    if !std::mem::replace(&mut is_failing, true) {
                        tracing::warn!(%error, "listeners could not be listed");
                    }
                    self.listening.fail();
                }
            }
        }
    }

    /// The virtual addresses that are known and that this node holds; none while the latter is not known.
    fn vips(&self) -> BTreeSet<IpAddr> {
        if !*self.network.current().borrow() {
            return BTreeSet::new();
        }
        let known = self.heard.lock().addresses();
        if known.is_empty() {
            return known;
        }
        let held = held(&self.network.facts().borrow());
        known.intersection(&held).copied().collect()
    }

    /// Records the ports that are shared now and were not before; returns all that are.
    fn tell(&self, table: &Table, before: &BTreeSet<Port>) -> BTreeSet<Port> {
        for ((vip, port), programs) in table.shared().filter(|(port, _)| !before.contains(port)) {
            let programs = programs.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            self.timeline.record(
                Occurrence::now(Kind::VipPortShared, vip.to_string())
                    .with("port", port.to_string())
                    .with("programs", programs),
            );
        }
        table.shared().map(|(port, _)| port).collect()
    }
}
