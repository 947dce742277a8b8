//! What can go wrong between the agent and tailscaled.

use std::io;
use std::path::PathBuf;

use crate::source::fetch::FetchError;

/// Why there is no reading: where was asked, and what happened.
#[derive(Debug, thiserror::Error)]
#[error("{}", socket.display())]
pub struct AskError {
    /// The socket.
    pub socket: PathBuf,
    /// What happened.
    #[source]
    pub cause: Cause,
}

/// What happened instead of a reading.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// No such socket.
    #[error("there is no such socket")]
    Missing,
    /// Whoever made the socket could tell anything.
    #[error("it belongs to user {0} and not to root")]
    Untrusted(u32),
    /// The permissions of the socket, or tailscaled itself, keep the agent out.
    #[error("the agent is kept out")]
    Denied,
    /// Nobody listens there.
    #[error("nobody listens")]
    Refused,
    /// No whole answer in time.
    #[error("no whole answer within {} s", super::ask::PATIENCE.as_secs())]
    Late,
    /// More than is read.
    #[error("the answer has more than {} bytes", super::ask::LONGEST)]
    TooLong,
    /// An answer that is no success.
    #[error("it answered with status {0}")]
    Status(u16),
    /// Not HTTP, or it breaks off.
    #[error("the answer is no HTTP")]
    NoHttp,
    /// Not JSON.
    #[error("the answer is no JSON")]
    NoJson(#[source] serde_json::Error),
    /// JSON of somebody else.
    #[error("the answer has no BackendState")]
    NoState,
    /// Anything else that the system says.
    #[error("the connection failed")]
    Io(#[source] io::Error),
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::PermissionDenied => Self::Denied,
            io::ErrorKind::ConnectionRefused => Self::Refused,
            // The queue of the socket is full: whoever listens takes nobody.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Late,
            _ => Self::Io(error),
        }
    }
}

impl From<FetchError> for Cause {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Refused => Self::Refused,
            FetchError::Late => Self::Late,
            FetchError::TooLong => Self::TooLong,
            FetchError::NoHttp | FetchError::Truncated => Self::NoHttp,
            FetchError::Io(error) => error.into(),
        }
    }
}
