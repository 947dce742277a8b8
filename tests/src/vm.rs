//! A virtual machine with a kernel of its own: what depends on the kernel's version is tried on more than this one.
//!
//! It is emulated, so that it runs wherever the tests do, and has no network but what it makes for itself. Its kernel
//! writes to one serial port, and a shell reads commands from another.

mod architecture;
mod cpio;
mod image;
mod kernel;

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::process::{SHORT, spawn};
use crate::{owner, tools};
pub use architecture::Architecture;
use kernel::Kernel;

/// Memory of a machine in MiB.
const MEMORY: u32 = 384;
/// What the shell writes before its answers; the number of the command and its exit status follow.
const MARK: &str = "@@answer ";
/// Lines of a machine's kernel in an error.
const TAIL: usize = 20;

/// What a machine is made of.
#[derive(Clone, Debug)]
pub struct VmOptions {
    /// What it is a machine of.
    pub architecture: Architecture,
    /// First numbers of the kernel's version.
    pub release: &'static str,
    /// Modules that are loaded at the start, in this order.
    pub modules: &'static [&'static str],
    /// Programs beside busybox: names of what is installed, or paths. Each is found by its name.
    pub programs: Vec<PathBuf>,
    /// The time that the machine has from its start to its end.
    pub limit: Duration,
}

/// What a command has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its exit status.
    pub status: i32,
    /// Both of its outputs.
    pub text: String,
}

/// A running machine. Dropping it ends it.
#[derive(Debug)]
pub struct Vm {
    emulator: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    scratch: PathBuf,
    end: Instant,
    commands: u32,
}

impl Vm {
    /// Boots a machine and waits until its shell answers.
    pub fn boot(options: &VmOptions) -> Result<Self> {
        let end = Instant::now() + options.limit;
        let kernel = Kernel::find(options.release, options.architecture)?;
        let qemu = tools::require(options.architecture.emulator())?;
        let scratch = std::env::temp_dir().join(owner::new_name()?);
        fs::create_dir_all(&scratch).with_context(|| format!("create {}", scratch.display()))?;
        let started = start(&qemu, &kernel, options, &scratch);
        let mut emulator = started.inspect_err(|_| drop(fs::remove_dir_all(&scratch)))?;
        let input = emulator.stdin.take().context("no pipe to the machine")?;
        let lines = read_lines(emulator.stdout.take().context("no pipe from the machine")?);
        let mut vm = Self { emulator, input, lines, scratch, end, commands: 0 };
        vm.await_mark("@@ready").context("the machine does not come up")?;
        let running = vm.run("uname -r")?;
        ensure!(running.starts_with(options.release), "Linux {running} runs in place of {}", options.release);
        Ok(vm)
    }

    /// Runs a line of shell; one that fails is an error.
    pub fn run(&mut self, line: &str) -> Result<String> {
        let Answer { status, text } = self.ask(line)?;
        ensure!(status == 0, "`{line}` in the machine ended with {status}: {text}");
        Ok(text)
    }

    /// Runs a line of shell, whatever its exit status is. All lines share one shell.
    pub fn ask(&mut self, line: &str) -> Result<Answer> {
        ensure!(!line.contains('\n'), "one line at a time: {line}");
        self.commands += 1;
        let number = self.commands;
        writeln!(self.input, "{number} {line}").context("write to the machine")?;
        let (said, status) =
            self.await_mark(&format!("{MARK}{number} ")).with_context(|| format!("run `{line}`"))?;
        let status = status.trim().parse().with_context(|| format!("exit status {status:?} of `{line}`"))?;
        // The mark begins a line of its own, whatever came before it.
        Ok(Answer { status, text: said.join("\n").trim_end_matches('\n').to_owned() })
    }

    /// Waits until a line of shell succeeds; the error names what was awaited and what the line said last.
    pub fn wait_until(&mut self, what: &str, line: &str, limit: Duration) -> Result<String> {
        let end = self.end.min(Instant::now() + limit);
        loop {
            let Answer { status, text } = self.ask(line)?;
            if status == 0 {
                return Ok(text);
            }
            if Instant::now() >= end {
                bail!("waited {limit:?} in vain for {what}: `{line}` ended with {status}: {text}");
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The lines before the one that begins with the mark, and the rest of that one.
    fn await_mark(&mut self, mark: &str) -> Result<(Vec<String>, String)> {
        let end = self.end.min(Instant::now() + SHORT);
        let mut before = Vec::new();
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => match line.strip_prefix(mark) {
                    Some(rest) => return Ok((before, rest.to_owned())),
                    None => before.push(line),
                },
                Err(reason) => {
                    let reason = match reason {
                        RecvTimeoutError::Timeout => "no answer in time",
                        RecvTimeoutError::Disconnected => "the machine has ended",
                    };
                    bail!("{reason}; it said {before:?}, and its kernel said last:\n{}", self.kernel_log());
                }
            }
        }
    }

    /// The end of what the kernel wrote.
    fn kernel_log(&self) -> String {
        let said = fs::read(self.scratch.join("kernel.log")).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let mut last = VecDeque::with_capacity(TAIL);
        for line in said.lines() {
            if last.len() == TAIL {
                last.pop_front();
            }
            last.push_back(line.trim_end());
        }
        Vec::from(last).join("\n")
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        drop(self.emulator.kill().and_then(|()| self.emulator.wait()));
        drop(fs::remove_dir_all(&self.scratch));
    }
}

/// Builds the file system and starts the emulator.
fn start(qemu: &Path, kernel: &Kernel, options: &VmOptions, scratch: &Path) -> Result<Child> {
    let image = scratch.join("initramfs");
    image::write(&image, kernel, options, scratch)?;
    let log = scratch.join("kernel.log");
    // However this thread ends, the machine ends with it.
    let mut command = Command::new(tools::require("setpriv")?);
    command.args(["--pdeathsig", "KILL"]).arg(qemu);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.args(["-accel", "tcg", "-smp", "1"]).args(options.architecture.machine());
    command.arg("-m").arg(MEMORY.to_string());
    command.arg("-serial").arg(format!("file:{}", log.display())).args(options.architecture.shell_port());
    command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(&image);
    let [console, _] = options.architecture.ports();
    command.args(["-append", &format!("console={console} loglevel=4 panic=-1 rdinit=/init")]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    spawn(&mut command)
}

fn read_lines(output: ChildStdout) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n') {
            let Ok(line) = line else { return };
            let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}
