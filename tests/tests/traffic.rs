//! The traffic families against independent witnesses: difference 0 where the witness is exact.
#![expect(clippy::print_stdout, reason = "the log of a run shows what was counted")]

use anyhow::Result;

#[path = "traffic/bench.rs"]
mod bench;
#[path = "traffic/blind.rs"]
mod blind;
#[path = "traffic/gap.rs"]
mod gap;
#[path = "traffic/loss.rs"]
mod loss;
#[path = "traffic/owner.rs"]
mod owner;
#[path = "traffic/slots.rs"]
mod slots;
#[path = "traffic/tcp.rs"]
mod tcp;
#[path = "traffic/tun.rs"]
mod tun;
#[path = "traffic/udp.rs"]
mod udp;

/// Makes sockets that belong to the place in which it runs.
#[test]
#[ignore = "runs inside a pod"]
fn task_gives_sockets() -> Result<()> {
    lab::sockets::serve()
}
