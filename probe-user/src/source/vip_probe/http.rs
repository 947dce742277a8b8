//! Just enough of HTTP/1.1 to learn the status of one answer: bounded, and without interest in the rest.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// What may come before the end of the status line.
const LINE_MAX: usize = 1_024;

/// Asks whether the server is ready, and reads the status of its answer.
///
/// # Errors
/// When the connection breaks, or what comes is no HTTP/1.
pub(super) async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    address: SocketAddr,
) -> io::Result<u16> {
    stream.write_all(request(address).as_bytes()).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    let mut part = [0; LINE_MAX];
    loop {
        let count = stream.read(&mut part).await?;
        if count == 0 && answer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(part.get(..count).unwrap_or_default());
        match read_status(&answer) {
            Status::Is(status) => return Ok(status),
            Status::Incomplete if count > 0 && answer.len() < LINE_MAX => {}
            Status::Incomplete | Status::NotHttp => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn request(address: SocketAddr) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "GET /readyz HTTP/1.1\r\nHost: {address}\r\nUser-Agent: leadline/{version}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
}

/// What the beginning of an answer is.
#[derive(Debug, PartialEq, Eq)]
enum Status {
    Is(u16),
    Incomplete,
    NotHttp,
}

fn read_status(answer: &[u8]) -> Status {
    const BEGIN: &[u8] = b"HTTP/1.";
    if !answer.iter().zip(BEGIN).all(|(is, must)| is == must) {
        return Status::NotHttp;
    }
    let Some(end) = answer.iter().position(|byte| *byte == b'\n') else { return Status::Incomplete };
    let line = answer.get(..end).and_then(|line| std::str::from_utf8(line).ok());
    let code = line.and_then(|line| line.split_ascii_whitespace().nth(1)).filter(|code| is_code(code));
    code.and_then(|code| code.parse().ok()).map_or(Status::NotHttp, Status::Is)
}

fn is_code(text: &str) -> bool {
    text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_as_soon_as_its_line_is_there() {
        for (answer, status) in [
            ("HTTP/1.1 200 OK\r\nDate: x", Status::Is(200)),
            ("HTTP/1.0 503 not yet\n", Status::Is(503)),
            ("HTTP/1.1 401\r\n", Status::Is(401)),
            ("", Status::Incomplete),
            ("HTT", Status::Incomplete),
            ("HTTP/1.1 200 OK\r", Status::Incomplete),
            ("HTTP/2 200\r\n", Status::NotHttp),
            ("SSH-2.0-OpenSSH", Status::NotHttp),
            ("HTTP/1.1 2000 OK\r\n", Status::NotHttp),
            ("HTTP/1.1 +20 OK\r\n", Status::NotHttp),
            ("HTTP/1.1\r\n", Status::NotHttp),
        ] {
            assert_eq!(read_status(answer.as_bytes()), status, "{answer:?}");
        }
    }

    #[test]
    fn an_address_of_either_family_is_a_host() {
        assert!(request("192.0.2.1:6443".parse().unwrap()).contains("\r\nHost: 192.0.2.1:6443\r\n"));
        assert!(request("[2001:db8::1]:6443".parse().unwrap()).contains("\r\nHost: [2001:db8::1]:6443\r\n"));
    }

    #[tokio::test]
    async fn an_endless_line_is_not_read_to_its_end() {
        let (mut here, mut there) = tokio::io::duplex(1 << 16);
        let endless = [b"HTTP/1.1 200 ".as_slice(), &[b'x'; 4 * LINE_MAX]].concat();
        there.write_all(&endless).await.unwrap();
        let error = ask(&mut here, "192.0.2.1:6443".parse().unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
