//! One GET over HTTP/1.1, bounded in time and bytes: what exporters and health checks on this machine need.
//!
//! The connection ends after the answer. Some answer in chunks, also to HTTP/1.0.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What came back, whatever its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The body, without its chunks.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody listens there.
    #[error("nobody listens")]
    Refused,
    /// No whole answer in time.
    #[error("no whole answer in time")]
    Late,
    /// More than is read.
    #[error("the answer is too long")]
    TooLong,
    /// Not HTTP.
    #[error("the answer is no HTTP")]
    NoHttp,
    /// It breaks off.
    #[error("the answer ends in the middle")]
    Truncated,
    /// Anything else that the system says.
    #[error("the connection failed")]
    Io(#[source] io::Error),
}

impl From<io::Error> for FetchError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut => Self::Late,
            _ => Self::Io(error),
        }
    }
}

/// Gets `path` from `authority` (HOST:PORT), within `patience` and `longest` bytes of answer.
///
/// # Errors
/// When there is no whole answer within these bounds. An answer that is no success is none of them.
pub async fn get(
    authority: &str,
    path: &str,
    patience: Duration,
    longest: usize,
) -> Result<Response, FetchError> {
    let exchange = async { converse(TcpStream::connect(authority).await?, authority, path, longest).await };
    timeout(patience, exchange).await.unwrap_or(Err(FetchError::Late))
}

/// The same over a connection that is there, without a limit of time.
///
/// # Errors
/// When there is no whole answer within these bounds.
pub(super) async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    authority: &str,
    path: &str,
    longest: usize,
) -> Result<Response, FetchError> {
    stream.write_all(request(authority, path).as_bytes()).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    let most = u64::try_from(longest).unwrap_or(u64::MAX).saturating_add(1);
    match stream.take(most).read_to_end(&mut answer).await {
        Err(error) if !may_be_whole(error.kind()) => Err(error.into()),
        _ if answer.len() > longest => Err(FetchError::TooLong),
        _ => parse(&answer),
    }
}

/// What ends with a reset, or without TLS's goodbye, may be whole; whether it is, its end says.
const fn may_be_whole(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof)
}

fn request(authority: &str, path: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: leadline/{version}\r\nAccept: text/plain\r\nConnection: close\r\n\r\n"
    )
}

/// An answer that was read to the end of the connection.
fn parse(answer: &[u8]) -> Result<Response, FetchError> {
    let end = find(answer, b"\r\n\r\n").ok_or(FetchError::NoHttp)?;
    let head = std::str::from_utf8(&answer[..end]).ok().ok_or(FetchError::NoHttp)?;
    let body = &answer[end + 4..];
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let code = status.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
    let status = code.and_then(|code| code.parse().ok()).ok_or(FetchError::NoHttp)?;
    let fields: Vec<(&str, &str)> =
        lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name, value.trim())).collect();
    let field = |wanted: &str| {
        fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| *value)
    };
    if field("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        return Ok(Response { status, body: unchunk(body).ok_or(FetchError::Truncated)? });
    }
    match field("content-length").map(str::parse::<usize>) {
        // Without a length the answer ends with the connection.
        None => Ok(Response { status, body: body.to_vec() }),
        Some(Ok(length)) if length == body.len() => Ok(Response { status, body: body.to_vec() }),
        Some(_) => Err(FetchError::Truncated),
    }
}

/// The chunks joined; nothing if they do not end with the empty one.
fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::with_capacity(rest.len());
    loop {
        let end = find(rest, b"\r\n")?;
        let line = std::str::from_utf8(&rest[..end]).ok()?;
        let digits = line.split(';').next()?.trim();
        let length = usize::from_str_radix(digits, 16).ok()?;
        if length == 0 {
            return Some(whole);
        }
        let chunk = rest.get(end + 2..)?;
        whole.extend_from_slice(chunk.get(..length)?);
        rest = chunk.get(length..)?.strip_prefix(b"\r\n")?;
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

    fn read(answer: &str) -> Result<(u16, String), String> {
        parse(answer.as_bytes())
            .map(|answer| (answer.status, String::from_utf8(answer.body).unwrap()))
            .map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn chunks_are_joined() {
        let answer = format!("{CHUNKED}3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n");
        assert_eq!(read(&answer), Ok((200, "abc0123456789".to_owned())));
    }

    #[test]
    fn an_answer_with_a_length_or_to_the_end_is_whole() {
        assert_eq!(read("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab"), Ok((200, "ab".to_owned())));
        assert_eq!(read("HTTP/1.0 503 No\r\n\r\nab"), Ok((503, "ab".to_owned())));
    }

    #[test]
    fn an_answer_that_breaks_off_is_refused() {
        let whole = format!("{CHUNKED}3\r\nabc\r\n0\r\n");
        assert!(read(&whole).is_ok());
        for end in 0..whole.len() - 1 {
            assert!(read(&whole[..end]).is_err(), "{end} bytes");
        }
        for chunks in ["x\r\nabc\r\n0\r\n\r\n", "3\r\nabcd\r\n0\r\n\r\n", "fffffffffffffffff\r\n", "-1\r\n"] {
            assert!(read(&format!("{CHUNKED}{chunks}")).is_err(), "{chunks}");
        }
        assert!(read("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab").is_err());
    }

    #[test]
    fn what_is_no_http_is_said() {
        assert_eq!(read("SSH-2.0-OpenSSH\r\n\r\n"), Err("NoHttp".to_owned()));
        assert_eq!(read("HTTP/1.1 abc\r\n\r\n"), Err("NoHttp".to_owned()));
        assert_eq!(read(""), Err("NoHttp".to_owned()));
    }

    #[tokio::test]
    async fn silence_and_endless_answers_are_cut_off() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let silent = get(&authority, "/", Duration::from_millis(50), 100).await;
        assert!(matches!(silent, Err(FetchError::Late)), "{silent:?}");
        let endless = tokio::spawn(async move {
            drop(listener.accept().await);
            let mut stream = listener.accept().await.unwrap().0;
            while stream.write_all(&[b'#'; 1 << 10]).await.is_ok() {}
        });
        let error = get(&authority, "/", Duration::from_secs(5), 100).await;
        assert!(matches!(error, Err(FetchError::TooLong)), "{error:?}");
        endless.await.unwrap();
        let refused = get(&authority, "/", Duration::from_secs(5), 100).await;
        assert!(matches!(refused, Err(FetchError::Refused)), "{refused:?}");
    }
}
