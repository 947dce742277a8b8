//! What probes of paths between nodes are made with: sockets that tell when the kernel took and gave a datagram, and a
//! watch over the clock that those times are of, and the key that the agents of a cluster share.

mod clock;
mod key;
mod socket;

pub use clock::{ClockSteps, realtime};
pub use key::{KeyError, KeyFault, read_key};
pub use socket::{Local, PathSocket, Received, SocketError, Transmitted};
