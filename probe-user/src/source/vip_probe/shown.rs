//! The certificate that a server shows, also one that wants to see ours and gets none.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ProtocolVersion;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::tls::{self, Shown};
use super::{Prober, Verdict, connect};

/// How long a server may take for what it sends last.
const SETTLE: Duration = Duration::from_millis(200);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(5);

impl Prober {
    /// Reads the certificate that is shown at an address, as DER. A server that demands a certificate of its clients shows
    /// its own first: that counts, and not the refusal that follows.
    ///
    /// # Errors
    /// With what was seen instead of a certificate.
    pub async fn shown(&self, address: SocketAddr) -> Result<Vec<u8>, Verdict> {
        let shown = Shown::default();
        let done = timeout(self.limit, shake(address, &shown)).await;
        match (shown.get(), done) {
            (Some(certificate), _) => Ok(certificate.to_vec()),
            (None, Ok(Err(verdict))) => Err(verdict),
            (None, Ok(Ok(()))) => Err(Verdict::TlsFailed),
            (None, Err(_)) => Err(Verdict::Timeout),
        }
    }
}

/// Shakes hands, as far as that goes.
async fn shake(address: SocketAddr, shown: &Shown) -> Result<(), Verdict> {
    let config = tls::config(Some(Arc::clone(shown))).ok().ok_or(Verdict::LocalError)?;
    let stream = connect(address).await?;
    let shaken = TlsConnector::from(Arc::new(config)).connect(address.ip().into(), stream).await;
    let mut stream = shaken.map_err(|error| Verdict::of_io(&error, Verdict::TlsFailed))?;
    // What comes of it is of no interest.
    let _settled = timeout(SETTLE, settle(&mut stream)).await;
    Ok(())
}

/// Waits until the server is done with its side: in TLS 1.3 it refuses us, or sends tickets, only after we are done with
/// ours, and a reset before that would be an error in its log.
async fn settle(stream: &mut TlsStream<TcpStream>) {
    if stream.get_ref().1.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        return;
    }
    while stream.get_ref().1.tls13_tickets_received() == 0 {
        if timeout(LOOK, stream.read(&mut [0])).await.is_ok() {
            return;
        }
    }
}
