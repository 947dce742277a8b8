//! As much of HTTP/1.1 as one GET needs. HAProxy's exporter answers in chunks, also to HTTP/1.0.

use super::{Cause, ParseError};
use crate::config::MetricsUrl;

/// The head of a request for a page, after which the connection ends.
pub(super) fn request(url: &MetricsUrl) -> String {
    let MetricsUrl { authority, path } = url;
    format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nAccept: text/plain\r\nConnection: close\r\n\r\n")
}

/// The body of a successful answer that was read to the end of the connection.
///
/// # Errors
/// When it is no success, no HTTP, or not whole.
pub(super) fn body(answer: &[u8]) -> Result<Vec<u8>, Cause> {
    let end = find(answer, b"\r\n\r\n").ok_or(ParseError::NoHttp)?;
    let head = std::str::from_utf8(&answer[..end]).ok().ok_or(ParseError::NoHttp)?;
    let body = &answer[end + 4..];
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let code = status.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
    match code {
        None => return Err(ParseError::NoHttp.into()),
        Some("200") => {}
        Some(_) => return Err(Cause::Status(super::fault::beginning(status))),
    }
    let fields: Vec<(&str, &str)> =
        lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name, value.trim())).collect();
    let field = |wanted: &str| {
        fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| *value)
    };
    if field("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        return Ok(unchunk(body).ok_or(ParseError::Truncated)?);
    }
    match field("content-length").map(str::parse::<usize>) {
        Some(Ok(length)) if length == body.len() => Ok(body.to_vec()),
        // Without a length the answer ends with the connection.
        None => Ok(body.to_vec()),
        Some(_) => Err(ParseError::Truncated.into()),
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
    use super::*;

    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

    fn read(answer: &str) -> Result<String, String> {
        body(answer.as_bytes())
            .map(|body| String::from_utf8(body).unwrap())
            .map_err(|cause| format!("{cause}: {:?}", std::error::Error::source(&cause)))
    }

    #[test]
    fn chunks_are_joined() {
        let answer = format!("{CHUNKED}3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n");
        assert_eq!(read(&answer), Ok("abc0123456789".to_owned()));
    }

    #[test]
    fn an_answer_with_a_length_or_to_the_end_is_whole() {
        assert_eq!(read("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab"), Ok("ab".to_owned()));
        assert_eq!(read("HTTP/1.0 200 OK\r\n\r\nab"), Ok("ab".to_owned()));
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
    fn what_is_no_success_is_said() {
        let error = read("HTTP/1.1 503 Service Unavailable\r\n\r\n").unwrap_err();
        assert!(error.starts_with("it answered `HTTP/1.1 503 Service Unavailable`"), "{error}");
        assert!(read("SSH-2.0-OpenSSH\r\n\r\n").unwrap_err().contains("NoHttp"));
        assert!(read("").unwrap_err().contains("NoHttp"));
    }
}
