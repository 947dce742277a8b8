//! The programs in the pods: a server that does what the first byte of a connection asks for, and a client that takes
//! commands on its standard input. Both are ignored tests of this binary, so that their sockets are the pod's.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::panic::resume_unwind;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use lab::process::{SHORT, spawn, wait_exit};
use lab::{Place, Pod};
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};

/// Before every line that is meant for the test; the harness prints others.
const MARK: &str = "@@ ";

/// A program in a pod. Dropping it ends it.
pub(crate) struct Program {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Program {
    pub(crate) fn serve(place: &impl Place, port: u16, think: Duration) -> Result<Self> {
        let environment = [("LAB_PORT", port.to_string()), ("LAB_THINK_MS", think.as_millis().to_string())];
        let mut program = Self::start(place, "program::task_server", &environment)?;
        program.line()?;
        Ok(program)
    }

    pub(crate) fn client(pod: &Pod) -> Result<Self> {
        Self::start(pod, "program::task_client", &[])
    }

    pub(crate) fn start(place: &impl Place, task: &str, environment: &[(&str, String)]) -> Result<Self> {
        let mut command = place.test_command(task)?;
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn(&mut command)?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // The harness may have begun the line.
                if let Some((_, text)) = line.split_once(MARK) {
                    drop(sender.send(text.to_owned()));
                }
            }
        });
        Ok(Self { name: format!("{task} in {}", place.name()), input: child.stdin.take(), child, lines })
    }

    fn line(&mut self) -> Result<String> {
        self.lines.recv_timeout(SHORT).with_context(|| format!("no answer from {}", self.name))
    }

    /// Starts a command without waiting for its answer.
    pub(crate) fn say(&mut self, command: &str) -> Result<()> {
        let input = self.input.as_mut().context("the program is at its end")?;
        writeln!(input, "{command}").with_context(|| format!("tell {} to {command}", self.name))
    }

    /// Waits for the answer to a command.
    pub(crate) fn answer(&mut self) -> Result<String> {
        let answer = self.line()?;
        match answer.strip_prefix("failed ") {
            Some(error) => bail!("{}: {error}", self.name),
            None => Ok(answer),
        }
    }

    /// Has a command done and returns the answer.
    pub(crate) fn ask(&mut self, command: &str) -> Result<String> {
        self.say(command)?;
        self.answer().with_context(|| command.to_owned())
    }

    /// Has a command done and returns the numbers of the answer.
    pub(crate) fn numbers(&mut self, command: &str) -> Result<Vec<u64>> {
        let answer = self.ask(command)?;
        answer.split_whitespace().map(|word| word.parse().with_context(|| answer.clone())).collect()
    }

    /// Ends the program; the server answers with the number of connections it has accepted.
    pub(crate) fn finish(mut self) -> Result<Option<u64>> {
        drop(self.input.take());
        wait_exit(&mut self.child, &self.name, SHORT)?;
        // To the end of its output: the last line may still be on its way from the thread that reads it.
        Ok(self.lines.iter().last().and_then(|line| line.parse().ok()))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.input.take());
        drop(self.child.kill().and_then(|()| self.child.wait()));
    }
}

pub(crate) fn reply(text: &str) {
    println!("{MARK}{text}");
}

#[test]
#[ignore = "runs inside a pod"]
fn task_server() -> Result<()> {
    static ACCEPTED: AtomicU64 = AtomicU64::new(0);
    let port: u16 = std::env::var("LAB_PORT")?.parse()?;
    let think = Duration::from_millis(std::env::var("LAB_THINK_MS")?.parse()?);
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
    reply("listening");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            ACCEPTED.fetch_add(1, Ordering::Relaxed);
            thread::spawn(move || drop(serve(stream, think)));
        }
    });
    io::stdin().read_to_end(&mut Vec::new())?;
    reply(&ACCEPTED.load(Ordering::Relaxed).to_string());
    Ok(())
}

/// Closes with a RST.
fn reset(stream: TcpStream) -> io::Result<()> {
    setsockopt(&stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    drop(stream);
    Ok(())
}

/// Does what the first byte asks for.
fn serve(mut stream: TcpStream, think: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    match byte[0] {
        // Echo, after some thought.
        b'E' => {
            while stream.read(&mut byte)? > 0 {
                thread::sleep(think);
                stream.write_all(&byte)?;
            }
        }
        // Sink: says in the end how much came.
        b'S' => {
            let total = io::copy(&mut stream, &mut io::sink())?;
            stream.write_all(&total.to_be_bytes())?;
        }
        // Reset, once the client has answered.
        b'R' => {
            stream.write_all(&byte)?;
            stream.read_exact(&mut byte)?;
            reset(stream)?;
        }
        // Data that the client leaves unread.
        b'U' => {
            stream.write_all(&byte)?;
            io::copy(&mut stream, &mut io::sink()).ok();
        }
        // Data that comes when the client has closed.
        b'L' => {
            io::copy(&mut stream, &mut io::sink())?;
            stream.write_all(&byte)?;
            io::copy(&mut stream, &mut io::sink()).ok();
        }
        // Data again and again.
        b'F' => {
            for _ in 0..100 {
                stream.write_all(&byte)?;
                thread::sleep(Duration::from_millis(100));
            }
        }
        // Reset of a connection whose other direction has ended.
        b'H' => {
            io::copy(&mut stream, &mut io::sink())?;
            reset(stream)?;
        }
        other => return Err(io::Error::new(ErrorKind::InvalidData, format!("byte {other}"))),
    }
    Ok(())
}

#[test]
#[ignore = "runs inside a pod"]
fn task_client() {
    let mut streams = Vec::new();
    for line in io::stdin().lines().map_while(Result::ok) {
        match obey(&mut streams, &line) {
            Ok(answer) => reply(&answer),
            Err(error) => reply(&format!("failed {error:#}")),
        }
    }
}

/// Does one command.
fn obey(streams: &mut Vec<TcpStream>, line: &str) -> Result<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["open", address, kind, count] => open(streams, address.parse()?, kind, count.parse()?),
        ["try", address, count] => Ok(attempt(address.parse()?, count.parse()?)),
        ["abort", address, count] => abort(address.parse()?, count.parse()?),
        ["exchange", times] => exchange(streams, times.parse()?),
        ["send", bytes] => send(streams, bytes.parse()?),
        ["read"] => {
            streams.iter().try_for_each(|mut stream| stream.read_exact(&mut [0]))?;
            Ok("done".into())
        }
        ["finish"] => finish(streams),
        ["pending"] => pending(streams),
        ["half-close"] => {
            streams.iter().try_for_each(|stream| stream.shutdown(Shutdown::Write))?;
            Ok("done".into())
        }
        ["errors"] => Ok(errors(streams)),
        ["reset"] => {
            streams.drain(..).try_for_each(reset)?;
            Ok("done".into())
        }
        ["close"] => {
            streams.clear();
            Ok("done".into())
        }
        _ => bail!("unknown command {line}"),
    }
}

/// Connects and sends the byte that says what is wanted; answers with each connect's time in nanoseconds.
fn open(streams: &mut Vec<TcpStream>, address: SocketAddr, kind: &str, count: u32) -> Result<String> {
    let mut times = Vec::new();
    for _ in 0..count {
        let start = Instant::now();
        let mut stream = TcpStream::connect(address)?;
        times.push(start.elapsed().as_nanos().to_string());
        stream.set_nodelay(true)?;
        stream.write_all(kind.as_bytes())?;
        streams.push(stream);
    }
    Ok(times.join(" "))
}

fn code(error: &io::Error) -> String {
    error.raw_os_error().unwrap_or_default().to_string()
}

/// Connects one after the other; answers with the errno of each, 0 for success.
fn attempt(address: SocketAddr, count: u32) -> String {
    let connect = || TcpStream::connect(address).map_or_else(|error| code(&error), |_| "0".into());
    (0..count).map(|_| connect()).collect::<Vec<_>>().join(" ")
}

/// Begins to connect and gives up before an answer; answers with how often.
fn abort(address: SocketAddr, count: u32) -> Result<String> {
    for _ in 0..count {
        match TcpStream::connect_timeout(&address, Duration::from_millis(20)) {
            Err(error) if error.kind() == ErrorKind::TimedOut && error.raw_os_error().is_none() => {}
            other => bail!("the connection was not to be answered: {other:?}"),
        }
    }
    Ok(count.to_string())
}

/// Sends a byte and waits for the answer, on all connections at once.
fn exchange(streams: &[TcpStream], times: u32) -> Result<String> {
    let talk = |mut stream: &TcpStream| -> io::Result<()> {
        let mut byte = [7];
        for _ in 0..times {
            stream.write_all(&byte)?;
            stream.read_exact(&mut byte)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = streams.iter().map(|stream| scope.spawn(move || talk(stream))).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic)).map_err(Into::into)
        })
    })
    .map(|()| "done".into())
}

fn send(streams: &[TcpStream], bytes: usize) -> Result<String> {
    let data = vec![7; bytes];
    for mut stream in streams {
        stream.write_all(&data)?;
    }
    Ok("done".into())
}

/// Ends the sending direction of sinks; answers with what they received.
fn finish(streams: &mut Vec<TcpStream>) -> Result<String> {
    let mut totals = Vec::new();
    for mut stream in streams.drain(..) {
        stream.shutdown(Shutdown::Write)?;
        let mut total = [0; 8];
        stream.read_exact(&mut total)?;
        totals.push(u64::from_be_bytes(total).to_string());
    }
    Ok(totals.join(" "))
}

/// Waits until every connection has something to read, and leaves it there.
fn pending(streams: &[TcpStream]) -> Result<String> {
    for stream in streams {
        stream.peek(&mut [0])?;
    }
    Ok("done".into())
}

/// Reads each connection to its end; answers with the errno of each, 0 for an orderly end.
fn errors(streams: &mut Vec<TcpStream>) -> String {
    let end = |mut stream: TcpStream| {
        io::copy(&mut stream, &mut io::sink()).map_or_else(|error| code(&error), |_| "0".into())
    };
    streams.drain(..).map(end).collect::<Vec<_>>().join(" ")
}
