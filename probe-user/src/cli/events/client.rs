//! One GET to an agent. HTTP/1.0 keeps it this small: the answer is not chunked, and ends with the connection.

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpStream, ToSocketAddrs as _},
    time::Duration,
};

/// Longer than an agent holds back the answer to a follower.
const PATIENCE: Duration = Duration::from_mins(1);

const CONNECT: Duration = Duration::from_secs(5);

/// More than the longest page of events.
const MAX_ANSWER: u64 = 16 << 20;

/// Where an agent listens, as `http://HOST:PORT` or `HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(String);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection.
    #[error(
        "no agent answers at {address}: is `leadline run` running there? Name another one with --address"
    )]
    Connect {
        /// Where.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to {address} broke")]
    Broken {
        /// Where.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The answer is none of an agent.
    #[error("what listens at {address} is no agent: {what}")]
    Foreign {
        /// Where.
        address: String,
        /// What it said.
        what: String,
    },
}

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// When it has no port, or is for another protocol.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let (host, port) = bare.rsplit_once(':').unwrap_or(("", ""));
        let plain =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']' | '%');
        if host.is_empty() || port.parse::<u16>().is_err() || !host.chars().all(plain) {
            return Err(format!("`{text}` is no address such as http://localhost:9843"));
        }
        Ok(Self(bare.to_owned()))
    }

    /// The body of what an agent has under a path.
    ///
    /// # Errors
    /// When nobody answers, or not as an agent would.
    pub fn get(&self, path: &str) -> Result<String, ClientError> {
        let broken = |source| ClientError::Broken { address: self.0.clone(), source };
        let mut stream =
            self.connect().map_err(|source| ClientError::Connect { address: self.0.clone(), source })?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(broken)?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\nAccept: application/json\r\n\r\n", self.0);
        stream.write_all(request.as_bytes()).map_err(broken)?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut answer).map_err(broken)?;
        body(&answer).map_err(|what| ClientError::Foreign { address: self.0.clone(), what })
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in self.0.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// The body of a successful answer; otherwise what was answered.
fn body(answer: &[u8]) -> Result<String, String> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").ok_or("no HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    let code = status.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)).ok_or("no HTTP")?;
    if code == "200" { Ok(body.to_owned()) } else { Err(format!("{status}: {}", body.trim())) }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    #[test]
    fn addresses_may_have_a_scheme_and_must_have_a_port() {
        for text in ["http://localhost:9843", "http://localhost:9843/", "localhost:9843"] {
            assert_eq!(Address::parse(text), Ok(Address("localhost:9843".to_owned())), "{text}");
        }
        assert!(Address::parse("[::1]:9843").is_ok());
        for text in
            ["localhost", "https://localhost:9843", "localhost:http", ":9843", "a/b:1", "a\r\nb:1", ""]
        {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_a_success_has_a_body() {
        assert_eq!(body(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\n{}"), Ok("{}".to_owned()));
        assert_eq!(
            body(b"HTTP/1.1 400 Bad Request\r\n\r\nsince=x\n"),
            Err("HTTP/1.1 400 Bad Request: since=x".to_owned())
        );
        for answer in ["", "SSH-2.0-OpenSSH\r\n", "HTTP/2 200\r\n\r\n", "HTTP/1.1\r\n\r\n"] {
            assert!(body(answer.as_bytes()).is_err(), "{answer}");
        }
    }

    #[test]
    fn a_server_is_asked_and_its_answer_read_to_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::parse(&listener.local_addr().unwrap().to_string()).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n{\"a\":").unwrap();
            stream.write_all(b"1}").unwrap();
            String::from_utf8(request).unwrap()
        });
        assert_eq!(address.get("/x?since=3").unwrap(), "{\"a\":1}");
        assert!(server.join().unwrap().starts_with("GET /x?since=3 HTTP/1.0\r\nHost: 127.0.0.1:"));
    }

    #[test]
    fn nobody_there_is_said_with_what_to_do() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let free = listener.local_addr().unwrap().to_string();
        drop(listener);
        let error = Address::parse(&free).unwrap().get("/").unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("no agent answers at {free}: is `leadline run` running")),
            "{error}"
        );
    }
}
