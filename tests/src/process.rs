//! Processes and conditions with a time limit: nothing in the lab waits for ever.

use std::fs;
use std::io::Write as _;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The time a short command may take.
pub const SHORT: Duration = Duration::from_secs(30);

/// Waits until the condition holds; the error names what was awaited.
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    wait_for(what, limit, || condition().then_some(()))
}

/// Waits until the closure has a value; the error names what was awaited.
pub fn wait_for<T>(what: &str, limit: Duration, mut value: impl FnMut() -> Option<T>) -> Result<T> {
    let end = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(value) = value() {
            return Ok(value);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("waited {limit:?} in vain for {what}");
        }
        thread::sleep(pause.min(left));
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Does what can be done again until it succeeds; the error is that of the last time.
pub fn insist<T>(what: &str, limit: Duration, mut work: impl FnMut() -> Result<T>) -> Result<T> {
    let mut last = None;
    let done = wait_for(what, limit, || match work() {
        Ok(done) => Some(done),
        Err(error) => {
            last = Some(error);
            None
        }
    });
    done.map_err(|waited| last.map_or(waited, |error| error.context(what.to_owned())))
}

/// Runs a short command and returns its standard output.
pub fn run(command: &mut Command) -> Result<String> {
    run_with_input(command, "")
}

/// Runs a short command with the text on its standard input (at most what a pipe holds) and returns its output.
pub fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    let output = capture(command, input, SHORT)?;
    successful(command, output)
}

/// Runs a command for at most `limit` and returns its standard output.
pub fn run_for(command: &mut Command, limit: Duration) -> Result<String> {
    let output = capture(command, "", limit)?;
    successful(command, output)
}

fn successful(command: &Command, output: Output) -> Result<String> {
    if output.status.success() {
        return String::from_utf8(output.stdout).with_context(|| format!("output of {}", line(command)));
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    bail!("{} failed ({}): {}", line(command), output.status, stderr.trim())
}

/// Runs a command to its end, whatever its exit status is; past `limit` it is killed and an error comes back.
pub fn capture(command: &mut Command, input: &str, limit: Duration) -> Result<Output> {
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn(command)?;
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(input.as_bytes()).with_context(|| format!("write to {}", line(command)))?;
    }
    finish(child, &line(command), limit)
}

/// Waits for a spawned child with piped output; past `limit` it is killed and an error comes back.
pub fn finish(child: Child, what: &str, limit: Duration) -> Result<Output> {
    let pid = child.id();
    let (sender, receiver) = mpsc::channel();
    let reader = thread::spawn(move || sender.send(child.wait_with_output()));
    let output = receiver.recv_timeout(limit);
    if output.is_err() {
        signal(pid, Signal::SIGKILL)?;
    }
    if reader.join().is_err() {
        bail!("the thread that waits for {what} panicked");
    }
    match output {
        Ok(output) => output.with_context(|| format!("wait for {what}")),
        Err(_) => bail!("{what} did not end within {limit:?}"),
    }
}

/// Starts a command; the error names it.
pub fn spawn(command: &mut Command) -> Result<Child> {
    command.spawn().with_context(|| format!("start {}", line(command)))
}

/// Sends a signal to one process of ours; one that has just ended is no error.
pub fn signal(pid: u32, signal: Signal) -> Result<()> {
    let raw = i32::try_from(pid).with_context(|| format!("process id {pid}"))?;
    match kill(Pid::from_raw(raw), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("send {signal} to process {pid}")),
    }
}

/// Stops a process of ours in its tracks and waits until it does stand still.
pub fn freeze(pid: u32) -> Result<()> {
    signal(pid, Signal::SIGSTOP)?;
    wait_until(&format!("process {pid} to stand still"), SHORT, || state(pid) == Some('T'))
}

fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Waits for the exit of a child.
pub fn wait_exit(child: &mut Child, what: &str, limit: Duration) -> Result<ExitStatus> {
    wait_for(&format!("the exit of {what}"), limit, || child.try_wait().transpose())?
        .with_context(|| format!("wait for {what}"))
}

/// The command as a line for messages.
#[must_use]
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// A process that keeps something alive, such as a namespace. It ends with this handle.
#[derive(Debug)]
pub struct Holder(Child);

impl Holder {
    /// Starts the holder.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        spawn(command).map(Self)
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// The exit status if the holder has ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().ok().flatten()
    }

    /// Kills the holder and takes its exit status; it may be dead already.
    pub fn end(&mut self) {
        drop(self.0.kill().and_then(|()| self.0.wait()));
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_at_first_is_done_again_and_the_last_failure_is_told() {
        let mut times = 0;
        let mut work = |needed: u8| {
            times += 1;
            anyhow::ensure!(times >= needed, "failure {times}");
            Ok(times)
        };
        assert_eq!(insist("work", Duration::from_secs(5), || work(2)).unwrap(), 2);
        let error = insist("rain", Duration::from_millis(5), || work(u8::MAX)).unwrap_err();
        assert!(format!("{error:#}").starts_with("rain: failure "), "{error:#}");
    }

    #[test]
    fn a_condition_that_never_holds_is_named() {
        let error = wait_until("rain", Duration::from_millis(5), || false).unwrap_err();
        assert_eq!(error.to_string(), "waited 5ms in vain for rain");
    }

    #[test]
    fn a_failing_command_shows_its_standard_error() {
        let error = run(Command::new("sh").args(["-c", "echo broken >&2; exit 7"])).unwrap_err().to_string();
        assert!(error.contains("exit status: 7") && error.contains("broken"), "{error}");
    }

    #[test]
    fn a_command_past_its_limit_is_killed() {
        let limit = Duration::from_millis(50);
        let start = Instant::now();
        let error = run_for(Command::new("sleep").arg("30"), limit).unwrap_err().to_string();
        assert!(error.contains("sleep 30 did not end within 50ms"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn input_reaches_the_command() {
        assert_eq!(run_with_input(&mut Command::new("cat"), "a\nb").unwrap(), "a\nb");
    }
}
