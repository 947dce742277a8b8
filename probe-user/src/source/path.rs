//! What probes of paths between nodes are made with: sockets that tell when the kernel took and gave a datagram, and a
//! watch over the clock that those times are of.

mod clock;
mod socket;

pub use clock::{ClockSteps, realtime};
pub use socket::{Local, PathSocket, Received, SocketError, Transmitted};
