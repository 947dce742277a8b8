//! HTTP/1.1 GET, one connection per request.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::place::Place;

/// The time to connect, and the time between two reads.
const LIMIT: Duration = Duration::from_secs(10);

/// The answer to a GET.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The header fields by lower-case name.
    pub headers: BTreeMap<String, String>,
    /// The body, without transfer coding.
    pub body: Vec<u8>,
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> Result<&str> {
        std::str::from_utf8(&self.body).context("the body is no UTF-8 text")
    }
}

/// Gets a path from an address as seen in the place.
pub fn get(
    place: &impl Place,
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Response> {
    let mut request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        write!(request, "{name}: {value}\r\n")?;
    }
    request += "\r\n";
    let answer = place.net(|| exchange(address, &request))?;
    answer
        .and_then(|bytes| parse(&bytes).context("malformed HTTP response"))
        .with_context(|| format!("get http://{address}{path} in {}", place.name()))
}

fn exchange(address: SocketAddr, request: &str) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT).context("connect")?;
    stream.set_read_timeout(Some(LIMIT)).context("set the read time-out")?;
    stream.write_all(request.as_bytes()).context("send the request")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("read the response")?;
    Ok(answer)
}

fn parse(answer: &[u8]) -> Option<Response> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let (head, body) = (std::str::from_utf8(&answer[..end]).ok()?, &answer[end + 4..]);
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let headers: Option<BTreeMap<String, String>> = lines
        .map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        })
        .collect();
    let headers = headers?;
    let body = if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
        join_chunks(body)?
    } else {
        body.to_vec()
    };
    let whole = headers.get("content-length").is_none_or(|length| length.parse() == Ok(body.len()));
    whole.then_some(Response { status, headers, body })
}

fn join_chunks(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..end]).ok()?.split(';').next()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_response() {
        let response =
            parse(b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\n\r\nnot yet").unwrap();
        assert_eq!((response.status, response.text().unwrap()), (503, "not yet"));
        assert_eq!(response.headers["content-type"], "text/plain");
    }

    #[test]
    fn a_chunked_response() {
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        let response = parse(&[head, b"4\r\nlead\r\n4;x=1\r\nline\r\n0\r\n\r\n".to_vec()].concat()).unwrap();
        assert_eq!(response.text().unwrap(), "leadline");
    }

    #[test]
    fn a_truncated_response_is_an_error() {
        assert!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort").is_none());
        assert!(parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nlead").is_none());
        assert!(parse(b"HTTP/1.1 200 OK\r\n").is_none());
    }

    #[test]
    fn another_protocol_is_an_error() {
        assert!(parse(b"SSH-2.0-x\r\n\r\n").is_none());
    }
}
