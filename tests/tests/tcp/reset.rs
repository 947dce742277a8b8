//! Resets, received and sent, against the kernel's own counts of the pods' network namespaces.
//!
//! `EstabResets` counts connections that go from ESTABLISHED or CLOSE-WAIT to CLOSED whichever side sent the RST, and
//! `OutRsts` every RST sent; the program knows which side it was.

use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::witness::{Nstat, nstat};
use lab::{Firewall, Pod, wait_until};

use crate::Stage;
use crate::program::Program;

/// Connections of each kind.
const COUNT: u64 = 5;

/// Protocol counters of a pod from one reading on.
struct Witness<'pod> {
    pod: &'pod Pod,
    before: Nstat,
}

impl<'pod> Witness<'pod> {
    fn new(pod: &'pod Pod) -> Result<Self> {
        Ok(Self { pod, before: nstat(pod)? })
    }

    fn added(&self, name: &str) -> Result<u64> {
        Ok(nstat(self.pod)?[name] - self.before[name])
    }

    /// Waits until the kernel has counted what the programs did.
    fn expect(&self, expected: &[(&str, u64)]) -> Result<()> {
        let counted =
            || expected.iter().all(|(name, count)| self.added(name).is_ok_and(|added| added == *count));
        wait_until(&format!("{expected:?}"), Duration::from_secs(5), counted)
    }
}

struct Play<'stage> {
    stage: &'stage Stage,
    client: Program,
}

impl Play<'_> {
    /// Has connections of a kind end by `commands`, and compares what both ends counted.
    /// `client` and `server` are (received, sent) of a single connection.
    fn check(&mut self, kind: &str, commands: &[&str], client: (u64, u64), server: (u64, u64)) -> Result<()> {
        let stage = self.stage;
        let (health, server_health) = (stage.client_health()?, stage.server_health()?);
        let (near, far) = (Witness::new(&stage.client)?, Witness::new(&stage.server)?);
        self.client.ask(&format!("open {} {kind} {COUNT}", stage.target(false)?))?;
        for command in commands {
            self.client.ask(command)?;
        }
        let sides = [
            (&stage.agents[0], "client", &health, near, client),
            (&stage.agents[1], "server", &server_health, far, server),
        ];
        for (agent, pod, health, witness, (received, sent)) in sides {
            // Late data is refused with a RST, too, but by a connection that this end had closed.
            let late = if matches!((pod, kind), ("client", "L" | "F")) { COUNT } else { 0 };
            let resets = [("TcpEstabResets", (received + sent) * COUNT), ("TcpOutRsts", sent * COUNT + late)];
            witness.expect(&resets).with_context(|| format!("{kind}: {pod}"))?;
            let expected = [("resets_received_total", received * COUNT), ("resets_sent_total", sent * COUNT)];
            health.expect(agent, pod, &expected)?;
            witness.expect(&resets).with_context(|| format!("{kind}: {pod}"))?;
        }
        Ok(())
    }
}

#[test]
fn resets_are_counted_on_the_side_that_sent_them() -> Result<()> {
    let lab = Stage::lab(false)?;
    let stage = Stage::new(&lab)?;
    let (server, client) = stage.start_programs(false, Duration::ZERO)?;
    let mut play = Play { stage: &stage, client };
    // The client gives up an idle connection with SO_LINGER 0.
    play.check("E", &["exchange 1", "reset"], (0, 1), (1, 0))?;
    // The client closes with data unread.
    play.check("U", &["pending", "close"], (0, 1), (1, 0))?;
    // The server gives up with SO_LINGER 0.
    play.check("R", &["pending", "send 1", "errors"], (1, 0), (0, 1))?;
    // The client closes in order; what the server sends afterwards is answered with a RST. The client's connection
    // was no longer established; the server's was in CLOSE-WAIT.
    play.check("L", &["close"], (0, 0), (1, 0))?;
    // The server resets what the client had half closed: only the server's end was still established.
    play.check("H", &["half-close", "errors"], (0, 0), (0, 1))?;
    // The client's FIN is lost and data comes meanwhile (TCPAbortOnData): the client sends the RST.
    let fins =
        "chain pods { type filter hook forward priority 0;\ntcp dport 7000 tcp flags & fin == fin drop\n}";
    let fins = Firewall::add(lab.node(1)?, "inet", "fins", fins)?;
    let aborts = Witness::new(&stage.client)?;
    play.check("F", &["read", "close"], (0, 0), (1, 0))?;
    assert_eq!(aborts.added("TcpExtTCPAbortOnData")?, COUNT);
    drop(fins);
    drop(play);
    drop(server);
    Ok(())
}
