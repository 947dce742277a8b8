//! Ports of this machine that lead to the agents inside their nodes, for browsers and Prometheus.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::place::Place;

/// Connections at the same time; further ones are closed at once.
const CONNECTIONS: usize = 16;

/// How long a connection may stay silent, and how long connecting may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// A forwarded port. Dropping it closes the port.
#[derive(Debug)]
pub(crate) struct Forward {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Forward {
    /// Forwards `127.0.0.1:port`, or another port if that one is in use, to an address as seen in the place.
    pub(crate) fn start<P: Place + Send + 'static>(place: P, target: SocketAddr, port: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .context("listen on 127.0.0.1")?;
        let address = listener.local_addr().context("read the address of a listener")?;
        let ended = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ended);
        let thread = thread::spawn(move || accept(&listener, &Arc::new(place), target, &flag));
        Ok(Self { address, ended, thread: Some(thread) })
    }

    /// Where the port is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // The connection only wakes the thread, which then sees the flag.
        drop(TcpStream::connect_timeout(&self.address, PATIENCE));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn accept<P: Place + Send + 'static>(
    listener: &TcpListener,
    place: &Arc<P>,
    target: SocketAddr,
    ended: &AtomicBool,
) {
    let open = Arc::new(());
    for client in listener.incoming() {
        if ended.load(Ordering::SeqCst) {
            return;
        }
        // Every connection holds a clone.
        if let Ok(client) = client
            && Arc::strong_count(&open) <= CONNECTIONS
        {
            let (place, guard) = (Arc::clone(place), Arc::clone(&open));
            thread::spawn(move || {
                // Nobody but the client cares, and it sees its connection closed.
                drop(join(&*place, target, &client));
                drop(guard);
            });
        }
    }
}

fn join(place: &impl Place, target: SocketAddr, client: &TcpStream) -> Result<()> {
    let server = place.net(|| TcpStream::connect_timeout(&target, PATIENCE))??;
    for stream in [client, &server] {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
    }
    thread::scope(|scope| {
        scope.spawn(|| copy(client, &server));
        copy(&server, client)
    })?;
    Ok(())
}

/// Copies until the end, which is passed on; an error ends both directions.
fn copy(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<u64> {
    let copied = io::copy(&mut from, &mut to);
    match &copied {
        Ok(_) => drop(to.shutdown(Shutdown::Write)),
        Err(_) => drop((from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both))),
    }
    copied
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::Ipv6Addr;
    use std::path::Path;

    use super::*;
    use crate::place::Namespaces;

    /// The network namespace of the test itself.
    #[derive(Default)]
    struct Here {
        name: String,
        namespaces: Namespaces,
    }

    impl Place for Here {
        fn name(&self) -> &str {
            &self.name
        }
        fn namespaces(&self) -> &Namespaces {
            &self.namespaces
        }
        fn cgroup(&self) -> &Path {
            Path::new("/")
        }
        fn ipv4(&self) -> Option<Ipv4Addr> {
            None
        }
        fn ipv6(&self) -> Option<Ipv6Addr> {
            None
        }
    }

    #[test]
    fn both_directions_are_copied_to_their_ends() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let forward = Forward::start(Here::default(), server.local_addr().unwrap(), 0).unwrap();
        let mut client = TcpStream::connect(forward.address()).unwrap();
        client.write_all(b"question").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let (mut inside, mut text) = (server.accept().unwrap().0, String::new());
        inside.read_to_string(&mut text).unwrap();
        assert_eq!(text, "question");
        inside.write_all(b"answer").unwrap();
        drop(inside);
        text.clear();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "answer");
    }

    #[test]
    fn a_port_in_use_is_replaced_and_a_dropped_one_closed() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let forward = Forward::start(Here::default(), taken.local_addr().unwrap(), port).unwrap();
        let address = forward.address();
        assert_ne!(address.port(), port);
        drop(forward);
        assert!(TcpStream::connect(address).is_err());
    }
}
