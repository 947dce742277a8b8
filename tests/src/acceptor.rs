//! A service of a place: accepts connections and says nothing, so that whoever asks whether it is there gets an answer.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::place::Place;

/// A listener with a thread that accepts. Dropping it closes it.
#[derive(Debug)]
pub struct Acceptor {
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Acceptor {
    /// Listens on that address, which may be the unspecified one, and port of the place.
    pub fn start(place: &impl Place, address: IpAddr, port: u16) -> Result<Self> {
        let at = SocketAddr::new(address, port);
        let listener = place
            .net(|| TcpListener::bind(at))?
            .with_context(|| format!("listen on {at} in {}", place.name()))?;
        listener.set_nonblocking(true).context("make a listener non-blocking")?;
        let (stop, accepted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = std::thread::spawn({
            let (stop, accepted) = (Arc::clone(&stop), Arc::clone(&accepted));
            move || accept(&listener, &stop, &accepted)
        });
        Ok(Self { stop, accepted, thread: Some(thread) })
    }

    /// Connections so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

fn accept(listener: &TcpListener, stop: &AtomicBool, accepted: &AtomicU64) {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok(_connection) => {
                accepted.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let mut readable = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
                // An interrupted wait is only one look more.
                let _woken = poll(&mut readable, PollTimeout::from(50_u8));
            }
            // A connection that was reset before it was accepted.
            Err(_) => {}
        }
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It cannot panic.
            drop(thread.join());
        }
    }
}
