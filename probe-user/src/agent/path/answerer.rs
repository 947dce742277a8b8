//! Answers the probes of other nodes.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::sync::watch;

use super::PACKET_MAX;
use crate::agent::vip::monotonic;
use crate::collector::path::Paths;
use crate::collector::path::reflector::Verdict;
use crate::peer::Registry;
use crate::source::path::{PathSocket, Received, realtime};

/// Answers the probes of others.
pub(super) struct Answerer {
    pub(super) socket: PathSocket,
    pub(super) paths: Paths,
    pub(super) registry: watch::Receiver<Arc<Registry>>,
}

impl Answerer {
    pub(super) async fn run(self) -> Result<()> {
        loop {
            self.socket.wait().await.context("the socket of the reflector is gone")?;
            self.take();
        }
    }

    fn take(&self) {
        while let Ok(Some(transmitted)) = self.socket.transmitted() {
            self.paths.reflector().transmitted(transmitted.id, transmitted.at);
        }
        let mut buffer = [0; PACKET_MAX];
        match self.socket.receive(&mut buffer) {
            Ok(Some(received)) => {
                let packet = buffer.get(..received.length).unwrap_or_default();
                let verdict = self.answer(packet, &received);
                self.paths.reflector().count(verdict);
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "a datagram could not be taken"),
        }
    }

    fn answer(&self, packet: &[u8], received: &Received) -> Verdict {
        let registry = Arc::clone(&self.registry.borrow());
        let is_node = |address| registry.node_of(address).is_some();
        // Before the lock is taken: that is time that the packet spends here.
        let answer = self.paths.reflector().answer(packet, received, is_node, monotonic(), realtime());
        let answer = match answer {
            Ok(answer) => answer,
            Err(verdict) => return verdict,
        };
        match self.socket.send(&answer.packet, received.from, received.local) {
            Ok(id) => {
                self.paths.reflector().leaves(&answer, id);
                Verdict::Answered
            }
            Err(error) => {
                tracing::debug!(%error, to = %received.from, "an answer could not be sent");
                self.paths.reflector().forget_leaving();
                Verdict::Failed
            }
        }
    }
}
