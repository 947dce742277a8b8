//! tcpdump in a network namespace: which frames crossed a device, and when.

mod pcap;
mod vrrp;

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::Signal;

use crate::place::Place;
use crate::{process, tools};

pub use pcap::Frame;
pub use vrrp::{Advert, Answer, Claim, Sent, adverts, answers, claims, sent, within_vlan};

/// Frames after which a capture ends by itself, so that it can never fill the memory.
pub const MOST_FRAMES: usize = 100_000;

/// What a capture needs to let through for [`adverts`] and [`claims`].
pub const VRRP_FILTER: &str = "vrrp or ip6 proto 112 or arp or icmp6";

/// Bytes kept of a frame. A small number of them is what lets tcpdump's ring hold many frames.
const SNAPSHOT: &str = "512";

/// The time tcpdump may take to listen, and to end.
const LIMIT: Duration = Duration::from_secs(10);

/// A running tcpdump. Dropping it ends it; what it has captured lies in memory only.
#[derive(Debug)]
pub struct Capture {
    what: String,
    child: Child,
    packets: File,
    messages: File,
}

/// What a capture has brought in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// The frames in the order of their capture.
    pub frames: Vec<Frame>,
    /// Frames that the kernel dropped because tcpdump did not keep up.
    pub dropped: u64,
}

impl Capture {
    /// Starts tcpdump with a filter in its own language, and waits until it listens.
    pub fn start(place: &impl Place, device: &str, filter: &str) -> Result<Self> {
        Self::begin(place, device, filter, &["--immediate-mode"])
    }

    /// The same, but it is woken about once a second. To wake it takes the one who sends up to 15 us, after the time of
    /// the capture and before that of the driver: what compares both must not pay that.
    pub fn start_in_blocks(place: &impl Place, device: &str, filter: &str) -> Result<Self> {
        Self::begin(place, device, filter, &[])
    }

    fn begin(place: &impl Place, device: &str, filter: &str, mode: &[&str]) -> Result<Self> {
        tools::require("tcpdump")?;
        let what = format!("tcpdump -i {device} '{filter}' in {}", place.name());
        let (packets, messages) = (memory("packets")?, memory("messages")?);
        let mut command = place.command("tcpdump")?;
        // Without a buffer of its own and without giving up root, whose memory it writes to.
        command.args(["-i", device, "-n", "-U", "-Z", "root", "-s", SNAPSHOT]).args(mode);
        command.args(["--time-stamp-precision", "nano", "-c", &MOST_FRAMES.to_string(), "-w", "-", filter]);
        command.stdout(packets.try_clone().context("duplicate a descriptor")?);
        command.stderr(messages.try_clone().context("duplicate a descriptor")?);
        let mut capture = Self { child: process::spawn(&mut command)?, what, packets, messages };
        let what = format!("{} to listen", capture.what);
        capture.wait_for(&what, LIMIT, |capture| {
            let messages = capture.messages()?;
            Ok(messages.lines().any(|line| line.contains("listening on ")))
        })?;
        Ok(capture)
    }

    /// The frames so far.
    pub fn frames(&self) -> Result<Vec<Frame>> {
        Ok(pcap::read(&contents(&self.packets)?).with_context(|| self.what.clone())?.0)
    }

    /// The frames so far in tcpdump's own words: to compare with, and for messages.
    pub fn describe(&self) -> Result<String> {
        let file = format!("/proc/{}/fd/{}", std::process::id(), self.packets.as_raw_fd());
        let mut command = Command::new("tcpdump");
        command.args(["-r", &file, "-n", "-e", "-v", "-tt", "--nano", "-Z", "root"]);
        process::run(&mut command)
    }

    /// Waits until what has been captured fulfils the condition; the error shows what has been captured instead.
    pub fn wait_until(
        &mut self,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut(&[Frame]) -> bool,
    ) -> Result<()> {
        let waited = self.wait_for(what, limit, |capture| capture.frames().map(|frames| condition(&frames)));
        waited.with_context(|| self.describe().unwrap_or_else(|error| format!("{error:#}")))
    }

    /// Ends the capture; an error if the kernel dropped frames.
    pub fn stop(self) -> Result<Vec<Frame>> {
        let what = self.what.clone();
        let captured = self.finish()?;
        ensure!(captured.dropped == 0, "{what}: {} frames dropped by the kernel", captured.dropped);
        Ok(captured.frames)
    }

    /// Ends the capture and tells what was dropped.
    pub fn finish(mut self) -> Result<Captured> {
        process::signal(self.child.id(), Signal::SIGTERM)?;
        let status = process::wait_exit(&mut self.child, &self.what, LIMIT)?;
        let messages = self.messages()?;
        ensure!(status.success(), "{} failed ({status}): {messages}", self.what);
        let dropped = count(&messages, "dropped by kernel")
            .with_context(|| format!("{} does not tell what was dropped: {messages}", self.what))?;
        let (frames, rest) = pcap::read(&contents(&self.packets)?).with_context(|| self.what.clone())?;
        ensure!(rest == 0, "{}: the last frame is cut", self.what);
        ensure!(frames.len() < MOST_FRAMES, "{} ended after {MOST_FRAMES} frames", self.what);
        Ok(Captured { frames, dropped })
    }

    fn messages(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&contents(&self.messages)?).into_owned())
    }

    /// Waits for the condition; fails at once if it does or if tcpdump has ended.
    fn wait_for(
        &mut self,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut(&Self) -> Result<bool>,
    ) -> Result<()> {
        process::wait_for(what, limit, || match (condition(self), self.child.try_wait()) {
            (Ok(true), _) => Some(Ok(())),
            (Err(error), _) => Some(Err(error)),
            (_, Ok(None)) => None,
            (_, ended) => Some(self.failed(&format!("{ended:?}"))),
        })?
    }

    fn failed(&self, how: &str) -> Result<()> {
        bail!("{} ended ({how}): {}", self.what, self.messages()?.trim())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill().and_then(|()| self.child.wait()));
    }
}

/// A file that is nowhere in the file system, so that nothing of it can be left behind.
fn memory(name: &str) -> Result<File> {
    let descriptor = memfd_create(name, MFdFlags::MFD_CLOEXEC).context("make a file in memory")?;
    Ok(File::from(descriptor))
}

/// All of a file, at whose position its writer goes on undisturbed.
fn contents(file: &File) -> Result<Vec<u8>> {
    let length = file.metadata().context("length of a file in memory")?.len();
    let mut bytes = vec![0; usize::try_from(length).context("length of a file in memory")?];
    file.read_exact_at(&mut bytes, 0).context("read a file in memory")?;
    Ok(bytes)
}

/// The number in tcpdump's closing line with that end: `3 packets dropped by kernel`, `1 packet dropped by kernel`.
fn count(messages: &str, end: &str) -> Option<u64> {
    let line = messages.lines().find(|line| line.ends_with(end))?;
    line.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_counted_in_singular_and_plural() {
        let messages = "tcpdump: listening on br0\n7 packets captured\n8 packets received by filter\n\
                        1 packet dropped by kernel\n";
        assert_eq!(count(messages, "dropped by kernel"), Some(1));
        assert_eq!(count(messages, "captured"), Some(7));
        assert_eq!(count(messages, "dropped by interface"), None);
    }

    #[test]
    fn a_file_in_memory_is_read_beside_its_writer() {
        use std::io::Write as _;
        let mut file = memory("test").unwrap();
        file.write_all(b"one").unwrap();
        assert_eq!(contents(&file).unwrap(), b"one");
        file.write_all(b"two").unwrap();
        assert_eq!(contents(&file).unwrap(), b"onetwo");
    }
}
