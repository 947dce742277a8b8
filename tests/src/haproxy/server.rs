//! A server behind HAProxy: a thread of this process on a socket of the node, as healthy as it is told to be.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::node::Node;
use crate::place::Place as _;

/// The time to read a request.
const LIMIT: Duration = Duration::from_secs(10);

/// How a server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// 200.
    Ready,
    /// 500, as an API server whose etcd is gone.
    Sick,
    /// Connections are taken and never answered.
    Hung,
    /// Nobody listens.
    Dead,
}

/// What the thread and its owner share. None ends the thread.
type Shared = Arc<Mutex<Option<Health>>>;

/// A server. Dropping it is its death.
#[derive(Debug)]
pub struct Server {
    node: Node,
    address: SocketAddr,
    health: Shared,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server that is ready.
    pub fn start(node: &Node, address: SocketAddr) -> Result<Self> {
        let mut server = Self { node: node.clone(), address, health: Shared::default(), thread: None };
        server.set(Health::Ready)?;
        Ok(server)
    }

    /// Changes how it answers; a dead one is started again.
    pub fn set(&mut self, health: Health) -> Result<()> {
        if health == Health::Dead {
            return self.end();
        }
        *lock(&self.health) = Some(health);
        if self.thread.is_none() {
            let listener = self.node.net(|| TcpListener::bind(self.address))?;
            let listener = listener.with_context(|| format!("listen on {}", self.address))?;
            let health = Arc::clone(&self.health);
            self.thread = Some(thread::spawn(move || serve(&listener, &health)));
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        *lock(&self.health) = None;
        // A connection of our own wakes the thread up.
        let woken = self.node.net(|| TcpStream::connect(self.address))?;
        woken.with_context(|| format!("connect to {}", self.address))?;
        thread.join().ok().context("the thread of a server panicked")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nobody can be told here; what stays goes with the process.
        drop(self.end());
    }
}

fn lock(health: &Shared) -> std::sync::MutexGuard<'_, Option<Health>> {
    health.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(listener: &TcpListener, health: &Shared) {
    let mut held = Vec::new();
    for stream in listener.incoming().filter_map(Result::ok) {
        let now = *lock(health);
        match now {
            None | Some(Health::Dead) => return,
            Some(Health::Hung) => held.push(stream),
            Some(Health::Ready) => answer(stream, "200 OK"),
            Some(Health::Sick) => answer(stream, "500 Internal Server Error"),
        }
        if now != Some(Health::Hung) {
            held.clear();
        }
    }
}

/// Answers on a thread of its own: a client that says nothing must not keep checks waiting. Whoever hangs up before
/// the answer does not want it.
fn answer(mut stream: TcpStream, status: &'static str) {
    let exchange = move || {
        let mut request = [0; 1024];
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let read = stream.set_read_timeout(Some(LIMIT)).and_then(|()| stream.read(&mut request));
        drop(read.and_then(|_| stream.write_all(head.as_bytes())));
    };
    drop(thread::spawn(exchange));
}
