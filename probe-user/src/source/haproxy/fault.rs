//! What can go wrong between the agent and HAProxy.

use std::io;

use super::Address;
use crate::source::fetch::FetchError;

/// Why there is no reading: where was asked, and what happened.
#[derive(Debug, thiserror::Error)]
#[error("{address}")]
pub struct AskError {
    /// Where was asked.
    pub address: Address,
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
    /// The permissions of the socket keep the agent out.
    #[error(
        "its permissions keep the agent out, which is root without capabilities: give the line `stats socket` in \
         haproxy.cfg `user root`"
    )]
    Denied,
    /// Nobody listens there.
    #[error("nobody listens")]
    Refused,
    /// Anything else that the system says.
    #[error("the connection failed")]
    Io(#[source] io::Error),
    /// No whole answer in time.
    #[error("no whole answer within {} s", super::ask::PATIENCE.as_secs())]
    Late,
    /// More than is read.
    #[error("the answer has more than {} bytes", super::ask::LONGEST)]
    TooLong,
    /// An HTTP answer that is no success.
    #[error("it answered with status {0}")]
    Status(u16),
    /// An answer of somebody else, or a broken one.
    #[error("the answer is none of HAProxy")]
    Parse(#[from] ParseError),
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::PermissionDenied => Self::Denied,
            io::ErrorKind::ConnectionRefused => Self::Refused,
            // The queue of a socket in the file system is full: whoever listens takes nobody.
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
            FetchError::NoHttp => Self::Parse(ParseError::NoHttp),
            FetchError::Truncated => Self::Parse(ParseError::Truncated),
            FetchError::Io(error) => error.into(),
        }
    }
}

/// Where an answer is not what HAProxy writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not text.
    #[error("it is no UTF-8 text")]
    Encoding,
    /// The first line is not the list of columns.
    #[error("it begins with {0:?} and not with the names of columns")]
    NoHeader(String),
    /// A column that cannot be done without.
    #[error("it has no column {0}")]
    NoColumn(&'static str),
    /// It breaks off.
    #[error("it ends in the middle")]
    Truncated,
    /// A row with another number of fields than there are columns.
    #[error("row {row} has {fields} fields for {columns} columns")]
    Fields {
        /// From 1, without the header.
        row: usize,
        /// What it has.
        fields: usize,
        /// What it should have.
        columns: usize,
    },
    /// A number that is none.
    #[error("{column} is {value:?} in row {row}, which is no number")]
    Number {
        /// From 1, without the header.
        row: usize,
        /// The column.
        column: &'static str,
        /// Its text.
        value: String,
    },
    /// Not HTTP.
    #[error("it is no HTTP")]
    NoHttp,
    /// A page without a line of HAProxy.
    #[error("it has no metric of HAProxy")]
    NoMetric,
    /// A line of the page that cannot be read.
    #[error("line {line} is no sample: {text:?}")]
    Sample {
        /// From 1.
        line: usize,
        /// How it begins.
        text: String,
    },
}

/// The beginning of a text, for messages: what answers may be anything.
pub(super) fn beginning(text: &str) -> String {
    const LONGEST: usize = 60;
    text.chars().take(LONGEST).collect()
}
