//! What a process takes: memory and processor time.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

/// A size of `/proc/PID/status` in bytes, such as `VmRSS` or `VmHWM`.
pub(super) fn memory(pid: u32, field: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    parse_memory(&status, field).with_context(|| format!("{path} has no {field}"))
}

fn parse_memory(status: &str, field: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kibibytes: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// Makes `VmHWM` start again at what is resident now.
pub(super) fn forget_peak(pid: u32) -> Result<()> {
    let path = format!("/proc/{pid}/clear_refs");
    fs::write(&path, "5").with_context(|| format!("write {path}"))
}

/// Processor time so far; threads that have ended are included, unlike in `/proc/PID/task/*/schedstat`.
pub(super) fn processor_time(pid: u32) -> Result<Duration> {
    let raw = i32::try_from(pid).with_context(|| format!("process id {pid}"))?;
    let time = clock_getcpuclockid(Pid::from_raw(raw)).and_then(nix::time::ClockId::now);
    time.map(Duration::from).with_context(|| format!("read the processor time of process {pid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes() {
        let status = "VmPeak:\t  900 kB\nVmHWM:\t     300 kB\nVmRSS:\t     20 kB\n";
        assert_eq!(parse_memory(status, "VmRSS"), Some(20 * 1024));
        assert_eq!(parse_memory(status, "VmHWM"), Some(300 * 1024));
    }

    #[test]
    fn a_kernel_thread_has_no_sizes() {
        assert_eq!(parse_memory("Name:\tkworker\n", "VmRSS"), None);
        assert_eq!(parse_memory("VmRSS:\t20\n", "VmRSS"), None);
    }

    #[test]
    fn our_own_processor_time_grows() {
        let before = processor_time(std::process::id()).unwrap();
        let end = std::time::Instant::now() + Duration::from_millis(5);
        while std::time::Instant::now() < end {}
        assert!(processor_time(std::process::id()).unwrap() > before);
    }
}
