//! One probe of a service behind an address: TCP connect, TLS handshake, `GET /readyz`, with one deadline for all.
//!
//! A probe observes and does not trust: every certificate is accepted, since an expired or unknown one is news and no
//! reason to see nothing. Nothing secret is sent. The kernel chooses address and port of this end.

mod http;
mod shown;
pub(super) mod tls;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use self::http::ask;
use crate::config::ProbeKind;

/// What became of a probe. A closed set: the `result` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The service answered as its kind demands.
    Ok,
    /// Nobody listens.
    Refused,
    /// Nothing came before the deadline.
    Timeout,
    /// There is no way to the address, or nobody has it.
    Unreachable,
    /// The other end broke the connection off.
    Reset,
    /// What answered does not speak TLS, or not with us.
    TlsFailed,
    /// It answered with another HTTP status than it should.
    HttpStatus,
    /// It answered something that is no HTTP.
    HttpFailed,
    /// The probe could not be made: this says nothing about the service.
    LocalError,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Ok,
        Self::Refused,
        Self::Timeout,
        Self::Unreachable,
        Self::Reset,
        Self::TlsFailed,
        Self::HttpStatus,
        Self::HttpFailed,
        Self::LocalError,
    ];

    /// The value of the `result` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Reset => "reset",
            Self::TlsFailed => "tls_failed",
            Self::HttpStatus => "http_status",
            Self::HttpFailed => "http_failed",
            Self::LocalError => "local_error",
        }
    }

    /// Whether the service served; none where the probe says nothing about it.
    #[must_use]
    pub const fn is_served(self) -> Option<bool> {
        match self {
            Self::Ok => Some(true),
            Self::LocalError => None,
            _ => Some(false),
        }
    }

    /// What an error of a connection means; `other` where it is none of the kernel's or of TLS. A peer that ends the
    /// connection before it has answered, as a load balancer without backends does, has broken it.
    fn of_io(error: &io::Error, other: Self) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => Self::Reset,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::Unreachable,
            io::ErrorKind::TimedOut => Self::Timeout,
            _ if matches!(error.get_ref(), Some(inner) if inner.is::<rustls::Error>()) => Self::TlsFailed,
            _ => other,
        }
    }
}

/// A probe's verdict, and what was seen on the way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What became of it.
    pub verdict: Verdict,
    /// How long the TCP handshake took; none unless it was completed.
    pub connect: Option<Duration>,
    /// The same of the TLS handshake.
    pub tls: Option<Duration>,
    /// From the request to the status line.
    pub http: Option<Duration>,
    /// When the certificate that was served ends, in seconds since 1970; none unless one was, and could be read.
    pub not_after: Option<u64>,
}

/// Makes probes.
#[derive(Clone)]
pub struct Prober {
    connector: TlsConnector,
    limit: Duration,
}

impl Prober {
    /// A prober whose probes each have this long for everything.
    ///
    /// # Errors
    /// When the TLS library refuses its own defaults.
    pub fn new(limit: Duration) -> Result<Self, rustls::Error> {
        Ok(Self { connector: TlsConnector::from(Arc::new(tls::config(None)?)), limit })
    }

    /// Probes a service once.
    pub async fn probe(&self, address: SocketAddr, kind: ProbeKind) -> Outcome {
        let mut attempt = Attempt {
            outcome: Outcome {
                verdict: Verdict::Timeout,
                connect: None,
                tls: None,
                http: None,
                not_after: None,
            },
        };
        let deadline = Instant::now() + self.limit;
        // What was seen before the deadline stays.
        let done = timeout_at(deadline, attempt.run(&self.connector, address, kind)).await;
        Outcome {
            verdict: done.map_or(Verdict::Timeout, |done| done.err().unwrap_or(Verdict::Ok)),
            ..attempt.outcome
        }
    }
}

/// A probe in progress.
struct Attempt {
    outcome: Outcome,
}

impl Attempt {
    async fn run(
        &mut self,
        connector: &TlsConnector,
        address: SocketAddr,
        kind: ProbeKind,
    ) -> Result<(), Verdict> {
        let begun = Instant::now();
        let stream = connect(address).await?;
        self.outcome.connect = Some(begun.elapsed());
        if kind == ProbeKind::Tcp {
            return Ok(());
        }
        let begun = Instant::now();
        // An address is no name: no SNI is sent, and the server shows its default certificate.
        let name = address.ip().into();
        let mut stream = connector
            .connect(name, stream)
            .await
            .map_err(|error| Verdict::of_io(&error, Verdict::TlsFailed))?;
        self.outcome.tls = Some(begun.elapsed());
        self.outcome.not_after = tls::not_after(stream.get_ref().1);
        if kind == ProbeKind::Https {
            let begun = Instant::now();
            let status = ask(&mut stream, address).await;
            let status = status.map_err(|error| Verdict::of_io(&error, Verdict::HttpFailed))?;
            self.outcome.http = Some(begun.elapsed());
            return of_status(status);
        }
        Ok(())
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream, Verdict> {
    let local = |_| Verdict::LocalError;
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(local)?;
    // A probe a second must not leave sixty connections in TIME_WAIT, here or there: closing resets.
    socket.set_zero_linger().map_err(local)?;
    socket.set_nodelay(true).map_err(local)?;
    socket.connect(address).await.map_err(|error| Verdict::of_io(&error, Verdict::LocalError))
}

/// Who must log in first is told so by a server that works: `--anonymous-auth=false`.
const fn of_status(status: u16) -> Result<(), Verdict> {
    if matches!(status, 200 | 401 | 403) { Ok(()) } else { Err(Verdict::HttpStatus) }
}

#[cfg(test)]
mod tests;
