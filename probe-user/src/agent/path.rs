//! The mesh: this node's probes, and the answers to those of others.

mod answerer;
mod device;
mod mtu;
mod sender;
mod too_big;

use std::io;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::sync::watch;

use self::answerer::Answerer;
use self::device::Devices;
use self::mtu::Sizes;
use self::sender::{Sender, Sessions};
use super::kernel_side::NOT_LOADED;
use super::network::OLD_CLASSES;
use super::serve::{Chosen, supervise};
use super::vip::monotonic;
use super::{Agent, Nodes};
use crate::collector::dependent::Dependent;
use crate::collector::path::reflector::Reflector;
use crate::collector::path::{PathCollector, Paths};
use crate::collector::path_pod::PathPod;
use crate::collector::too_big::{Told, TooBigs};
use crate::collector::unavailable::Unavailable;
use crate::config::{self, Mode};
use crate::source::netlink::NetworkState;
use crate::source::path::{ClockSteps, KeyError, PathSocket, SocketError, read_key};
use crate::telemetry::with_causes;
use crate::wire::stamp::Authenticator;

/// More than the largest packet of ours; a longer one is cut and then refused.
const PACKET_MAX: usize = 9_216;

/// Probes other nodes, once there are some, and answers them.
pub(super) fn start(
    agent: &Agent<'_>,
    network: &NetworkState,
    registry: &Nodes,
    chosen: &mut Chosen,
) -> Result<()> {
    let mode = agent.config.collector.path;
    if mode == Mode::Off {
        tracing::info!(collector = "path", "collector is off");
        return Ok(());
    }
    let config = &agent.config.path;
    let ends = match Ends::open(config) {
        Ok(ends) => ends,
        Err(error) if mode == Mode::On => return Err(error).context("collector path must run but cannot"),
        Err(error) => {
            tracing::warn!(collector = "path", cause = with_causes(&error), "paths are not probed");
            return chosen.add(mode, Arc::new(Unavailable::new("path", error.reason())));
        }
    };
    if let Some(file) = &config.key_file {
        tracing::info!(collector = "path", key_file = %file.display(), "probes are authenticated");
    }
    let paths = Paths::new(Reflector::new(config.port, ends.authenticator.clone()), config.interval);
    // It answers from here on; that there is nobody to probe yet is no failure.
    chosen.add(Mode::Auto, Arc::new(PathCollector::new(paths.clone())))?;
    let answerer = Answerer { socket: ends.reflector, paths: paths.clone(), registry: registry.clone() };
    let (plan, planned) = watch::channel(Arc::default());
    let devices = Devices {
        paths: paths.clone(),
        plan: planned.clone(),
        facts: network.facts(),
        timeline: Arc::clone(&agent.timeline),
    };
    let sizes = Sizes {
        socket: ends.sizes,
        paths: paths.clone(),
        authenticator: ends.authenticator.clone(),
        port: config.port,
        plan: planned,
        timeline: Arc::clone(&agent.timeline),
        sessions: mtu::Sessions::default(),
    };
    let sender = Sender {
        socket: ends.sender,
        steps: ends.steps,
        paths,
        authenticator: ends.authenticator,
        config: config.clone(),
        registry: registry.clone(),
        plan,
        timeline: Arc::clone(&agent.timeline),
        sessions: Sessions::default(),
    };
    supervise("path devices", agent.ended.clone(), devices.run());
    supervise("path sizes", agent.ended.clone(), sizes.run());
    supervise("path", agent.ended.clone(), sender.run());
    supervise("path reflector", agent.ended.clone(), answerer.run());
    Ok(())
}

/// Listens to the connections between pods, wherever those of TCP are counted: nothing is sent for it.
pub(super) fn listen_to_pods(
    agent: &Agent<'_>,
    network: &NetworkState,
    registry: &Nodes,
    chosen: &mut Chosen,
) -> Result<()> {
    // That there are no other pods yet is no failure of what must run.
    let mode = if agent.config.collector.tcp == Mode::Off { Mode::Off } else { Mode::Auto };
    let Some(kernel) = agent.kernel.handle() else {
        return chosen.add(mode, Arc::new(Unavailable::new("path_pod", NOT_LOADED)));
    };
    let has_sizes = kernel.status().resent;
    let pods = PathPod::new(move || kernel.pod_paths(monotonic()), has_sizes, registry.clone());
    chosen.add(mode, Arc::new(Dependent::new(pods, network.current(), OLD_CLASSES)))
}

/// Listens to what routers say of packets that were too big, wherever the uplinks are tapped.
pub(super) fn listen_to_routers(
    agent: &Agent<'_>,
    network: &NetworkState,
    registry: &Nodes,
    chosen: &mut Chosen,
) -> Result<()> {
    // The tap is that of virtual addresses. That there are no other nodes yet is no failure of what must run.
    let mode = if agent.config.collector.vip == Mode::Off { Mode::Off } else { Mode::Auto };
    // Taken in any case: nobody else wants them, and what nobody wants is not lost.
    let Some(packets) = agent.kernel.too_big() else {
        return chosen.add(mode, Arc::new(Unavailable::new("too_big", NOT_LOADED)));
    };
    let told = Told::default();
    let too_bigs = TooBigs::new(told.clone(), registry.clone(), monotonic);
    chosen.add(mode, Arc::new(Dependent::new(too_bigs, network.current(), OLD_CLASSES)))?;
    if mode != Mode::Off {
        let (facts, timeline) = (network.facts(), Arc::clone(&agent.timeline));
        let listener = too_big::Listener { packets, told, facts, registry: registry.clone(), timeline };
        supervise("too_big", agent.ended.clone(), listener.run());
    }
    Ok(())
}

/// The session after that one which is none yet; 0 would say that there are none.
fn next_session(mut last: u16, is_used: impl Fn(u16) -> bool) -> u16 {
    loop {
        last = last.checked_add(1).unwrap_or(1);
        if !is_used(last) {
            return last;
        }
    }
}

/// The only one of them; none where there are several. A reflector that knows no session identifiers leaves zeros in the
/// answer (RFC 8972, 3), whose session is then the one that asks at that address.
fn only<T>(mut found: impl Iterator<Item = T>) -> Option<T> {
    found.next().filter(|_| found.next().is_none())
}

/// What both ends need of the system.
struct Ends {
    authenticator: Authenticator,
    steps: ClockSteps,
    sender: PathSocket,
    sizes: PathSocket,
    reflector: PathSocket,
}

impl Ends {
    fn open(config: &config::Path) -> Result<Self, OpenError> {
        Ok(Self {
            // A key that was asked for and is not there is no reason to do without.
            authenticator: Authenticator::new(config.key_file.as_deref().map(read_key).transpose()?),
            steps: ClockSteps::watch().map_err(OpenError::Clock)?,
            sender: PathSocket::bind(0)?,
            sizes: PathSocket::bind(0)?,
            reflector: PathSocket::bind(config.port)?,
        })
    }
}

/// Why there are no probes.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    /// No key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The clock cannot be watched.
    #[error("no timer that tells when the clock is set: {0}")]
    Clock(#[source] io::Error),
}

impl OpenError {
    /// The `reason` of the collector.
    const fn reason(&self) -> &'static str {
        match self {
            Self::Key(error) => error.reason(),
            Self::Socket(SocketError::Bind { .. }) => "the UDP port of the probes is taken",
            Self::Socket(SocketError::Open(_)) => "no UDP socket with times of the kernel",
            Self::Clock(_) => "no timer that tells when the clock is set",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_sessions_none_is_the_only_one() {
        let found = [vec![], vec![7], vec![7, 7]].map(|sessions| only(sessions.into_iter()));
        assert_eq!(found, [None, Some(7), None]);
    }

    #[test]
    fn sessions_are_used_anew_after_the_last_and_none_is_0() {
        assert_eq!(next_session(0, |_| false), 1);
        assert_eq!(next_session(u16::MAX, |ssid| ssid < 3), 3);
    }
}
