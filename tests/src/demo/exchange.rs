//! Requests and answers over TCP and UDP, as programs that run inside pods.
//!
//! A request is [`REQUEST`] bytes that begin with the length of the wanted answer, 4 bytes, most significant first.
//! A client that meets an error begins again: losing packets is part of the demo.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

const REQUEST: usize = 200;

/// More than any answer of the demo: a server must not allocate what a stranger asks for.
const LARGEST: usize = 1 << 20;

/// Connections that a server keeps at the same time.
const CONNECTIONS: usize = 64;

/// A client waits this long for an answer over TCP.
const PATIENCE: Duration = Duration::from_secs(2);

/// A client waits this long for an answer over UDP, where nothing is sent again.
const DATAGRAM_PATIENCE: Duration = Duration::from_millis(100);

/// Runs `serve tcp|udp PORT` or `request tcp|udp ADDRESS PER_SECOND ANSWER PER_CONNECTION` until it is killed.
pub fn run(words: &[&str]) -> Result<()> {
    match *words {
        ["serve", "tcp", port] => serve_tcp(parse(port, "a port")?),
        ["serve", "udp", port] => serve_udp(parse(port, "a port")?),
        ["request", protocol @ ("tcp" | "udp"), address, per_second, answer, per_connection] => {
            let client = Client {
                address: parse(address, "an address with port")?,
                pause: pause(parse(per_second, "requests per second")?)?,
                answer: parse(answer, "bytes of an answer")?,
                per_connection: parse(per_connection, "requests per connection")?,
            };
            if protocol == "tcp" { client.tcp() } else { client.udp() }
        }
        _ => bail!("unknown exchange: {}", words.join(" ")),
    }
}

fn parse<T: std::str::FromStr>(word: &str, what: &str) -> Result<T> {
    word.parse().ok().with_context(|| format!("`{word}` is not {what}"))
}

fn pause(per_second: u32) -> Result<Duration> {
    ensure!(per_second > 0, "requests per second must not be 0");
    Ok(Duration::from_secs(1) / per_second)
}

fn request(answer: u32) -> [u8; REQUEST] {
    let mut bytes = [0; REQUEST];
    bytes[..4].copy_from_slice(&answer.to_be_bytes());
    bytes
}

/// The length that a request asks for, at most `limit`; none for a request that is too short.
fn wanted(request: &[u8], limit: usize) -> Option<usize> {
    let length = u32::from_be_bytes(request.get(..4)?.try_into().ok()?);
    Some(usize::try_from(length).unwrap_or(limit).min(limit))
}

fn serve_tcp(port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).context("listen")?;
    let served = Arc::new(());
    loop {
        let (stream, _) = listener.accept().context("accept")?;
        // Every connection holds a clone; one too many is closed at once.
        if Arc::strong_count(&served) <= CONNECTIONS {
            let guard = Arc::clone(&served);
            thread::spawn(move || {
                drop(answer_all(stream));
                drop(guard);
            });
        }
    }
}

fn answer_all(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = [0; REQUEST];
    loop {
        stream.read_exact(&mut request)?;
        stream.write_all(&vec![0; wanted(&request, LARGEST).unwrap_or_default()])?;
    }
}

fn serve_udp(port: u16) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).context("bind")?;
    let (mut request, answer) = ([0; REQUEST], [0; 1_200]);
    loop {
        let (length, peer) = socket.recv_from(&mut request).context("receive")?;
        if let Some(length) = wanted(&request[..length], answer.len()) {
            // A peer that is gone needs no answer.
            drop(socket.send_to(&answer[..length], peer));
        }
    }
}

struct Client {
    address: SocketAddr,
    pause: Duration,
    answer: u32,
    per_connection: u32,
}

impl Client {
    fn tcp(&self) -> Result<()> {
        loop {
            if self.connection().is_err() {
                thread::sleep(self.pause);
            }
        }
    }

    fn connection(&self) -> io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut answer = vec![0; usize::try_from(self.answer).unwrap_or(LARGEST).min(LARGEST)];
        for _ in 0..self.per_connection {
            let began = Instant::now();
            stream.write_all(&request(self.answer))?;
            stream.read_exact(&mut answer)?;
            thread::sleep(self.pause.saturating_sub(began.elapsed()));
        }
        Ok(())
    }

    fn udp(&self) -> Result<()> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("bind")?;
        socket.connect(self.address).context("connect")?;
        socket.set_read_timeout(Some(DATAGRAM_PATIENCE)).context("set the read time-out")?;
        let mut answer = [0; 1_200];
        loop {
            let began = Instant::now();
            // After a lost datagram the next one is sent.
            drop(socket.send(&request(self.answer)).and_then(|_| socket.recv(&mut answer)));
            thread::sleep(self.pause.saturating_sub(began.elapsed()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_how_long_the_answer_is() {
        assert_eq!(wanted(&request(1_234), LARGEST), Some(1_234));
        assert_eq!(wanted(&request(u32::MAX), 17), Some(17));
        assert_eq!(wanted(&[0, 0, 1], 17), None);
    }

    #[test]
    fn wrong_words_are_named() {
        let error = |words: &[&str]| run(words).unwrap_err().to_string();
        assert_eq!(error(&["serve", "tcp", "x"]), "`x` is not a port");
        assert_eq!(error(&["serve", "sctp", "1"]), "unknown exchange: serve sctp 1");
        assert_eq!(
            error(&["request", "udp", "127.0.0.1:1", "0", "1", "1"]),
            "requests per second must not be 0"
        );
    }

    #[test]
    fn an_answer_has_the_wanted_length() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || answer_all(listener.accept().unwrap().0));
        let client = Client { address, pause: Duration::ZERO, answer: 70_000, per_connection: 3 };
        client.connection().unwrap();
        assert_eq!(server.join().unwrap().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
