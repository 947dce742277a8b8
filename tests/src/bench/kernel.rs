//! What the kernel says of BPF programs and maps: run-time statistics, memory, entries. And the empty program, beside
//! which the agent's is measured.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::statistics::number;
use crate::process;

/// Commands of bpf(2), `enum bpf_cmd`.
const PROG_LOAD: i64 = 5;
const LINK_CREATE: i64 = 28;
const ENABLE_STATS: i64 = 32;
/// `BPF_PROG_TYPE_CGROUP_SKB`.
const CGROUP_SKB: u32 = 8;
/// `r0 = 1; exit`: let the packet pass.
const ALLOW: [u64; 2] = [0x0000_0001_0000_00b7, 0x95];
/// Switches the statistics of all programs.
const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Which packets a `cgroup_skb` program sees; the numbers are those of `enum bpf_attach_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// Received ones.
    Ingress = 0,
    /// Sent ones.
    Egress = 1,
}

/// `union bpf_attr` as words of 32 bits, as far as it is used here.
#[derive(Default)]
#[repr(C, align(8))]
struct Attribute([u32; 18]);

impl Attribute {
    fn pointer<T>(&mut self, word: usize, pointer: *const T) {
        let address = pointer.expose_provenance().to_ne_bytes();
        for (half, bytes) in address.chunks_exact(4).enumerate() {
            let mut value = [0; 4];
            value.copy_from_slice(bytes);
            self.0[word + half] = u32::from_ne_bytes(value);
        }
    }

    /// Calls a command that answers with a descriptor.
    fn call(&self, command: i64) -> io::Result<OwnedFd> {
        #[expect(unsafe_code, reason = "bpf(2) has no safe wrapper")]
        // SAFETY: the attribute is as long as is said, the kernel only reads it, and what its pointers lead to lives in
        // the caller.
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, self.0.as_ptr(), size_of_val(&self.0)) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        let descriptor = RawFd::try_from(result).map_err(io::Error::other)?;
        #[expect(unsafe_code, reason = "a descriptor that bpf(2) has returned belongs to nobody else")]
        // SAFETY: the kernel has just made it for this call.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
    }
}

fn word(descriptor: RawFd) -> Result<u32> {
    u32::try_from(descriptor).context("a negative descriptor")
}

/// A program that does nothing, attached to a cgroup. It goes with this handle.
#[derive(Debug)]
pub(super) struct EmptyProgram {
    program: OwnedFd,
    _link: OwnedFd,
}

impl EmptyProgram {
    pub(super) fn attach(cgroup: &Path, direction: Direction) -> Result<Self> {
        let mut attribute = Attribute::default();
        attribute.0[0] = CGROUP_SKB;
        attribute.0[1] = u32::try_from(ALLOW.len())?;
        attribute.pointer(2, ALLOW.as_ptr());
        attribute.pointer(4, c"GPL".as_ptr());
        // expected_attach_type
        attribute.0[17] = direction as u32;
        let program = attribute.call(PROG_LOAD).context("load an empty program")?;
        let target = File::open(cgroup).with_context(|| format!("open {}", cgroup.display()))?;
        let mut attribute = Attribute::default();
        attribute.0[0] = word(program.as_raw_fd())?;
        attribute.0[1] = word(target.as_raw_fd())?;
        attribute.0[2] = direction as u32;
        let link = attribute.call(LINK_CREATE);
        let link = link.with_context(|| format!("attach an empty program to {}", cgroup.display()))?;
        Ok(Self { program, _link: link })
    }

    pub(super) fn runs(&self) -> Result<Runs> {
        let fields = Fields::read(&format!("/proc/self/fdinfo/{}", self.program.as_raw_fd()))?;
        fields.runs()
    }
}

/// Run-time statistics for as long as this lives, however this process ends: the kernel counts the open handles.
pub(super) fn enable_statistics() -> Result<OwnedFd> {
    // BPF_STATS_RUN_TIME is 0.
    Attribute::default().call(ENABLE_STATS).context("switch BPF run-time statistics on")
}

/// Keeps run-time statistics off, which cost two readings of the clock at each run of each program.
#[derive(Debug)]
pub(super) struct StatisticsOff {
    before: String,
}

impl StatisticsOff {
    pub(super) fn begin() -> Result<Self> {
        let before = fs::read_to_string(SWITCH).with_context(|| format!("read {SWITCH}"))?;
        fs::write(SWITCH, "0").with_context(|| format!("write {SWITCH}"))?;
        Ok(Self { before })
    }
}

impl Drop for StatisticsOff {
    fn drop(&mut self) {
        // Off, which it stays if this fails, is what every machine starts with.
        drop(fs::write(SWITCH, self.before.trim()));
    }
}

/// Runs of a program and the time they took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Runs {
    pub(super) nanoseconds: u64,
    pub(super) count: u64,
}

impl Runs {
    pub(super) fn since(self, before: Self) -> Self {
        Self { nanoseconds: self.nanoseconds - before.nanoseconds, count: self.count - before.count }
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self { nanoseconds: self.nanoseconds + other.nanoseconds, count: self.count + other.count }
    }

    /// Nanoseconds a run; too few runs are no measurement.
    pub(super) fn mean(self) -> Result<f64> {
        ensure!(self.count >= 1_000, "only {} packets passed the program", self.count);
        Ok(number(self.nanoseconds) / number(self.count))
    }
}

/// `name: value` lines of `/proc/PID/fdinfo/N`.
struct Fields(BTreeMap<String, String>);

impl Fields {
    fn read(path: &str) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        Self(pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
    }

    fn get(&self, name: &str) -> Option<u64> {
        self.0.get(name)?.parse().ok()
    }

    fn runs(&self) -> Result<Runs> {
        let read = |name| self.get(name).with_context(|| format!("fdinfo of a program has no {name}"));
        Ok(Runs { nanoseconds: read("run_time_ns")?, count: read("run_cnt")? })
    }
}

/// What a process holds of BPF, by its descriptors: others on the machine may hold things of the same name.
#[derive(Debug)]
pub(super) struct Holdings {
    pid: u32,
    /// Descriptors of programs by the program's number.
    programs: BTreeMap<u64, String>,
    /// Bytes of maps by the map's number.
    maps: BTreeMap<u64, u64>,
    /// Program numbers of links to cgroups with their attach type.
    links: Vec<(u64, u64)>,
}

impl Holdings {
    pub(super) fn of(pid: u32) -> Result<Self> {
        let directory = format!("/proc/{pid}/fdinfo");
        let mut holdings = Self { pid, programs: BTreeMap::new(), maps: BTreeMap::new(), links: Vec::new() };
        for entry in fs::read_dir(&directory).with_context(|| format!("list {directory}"))? {
            let descriptor = entry?.file_name().to_string_lossy().into_owned();
            // A descriptor may have been closed since the listing; those of programs and maps stay.
            if let Ok(text) = fs::read_to_string(format!("{directory}/{descriptor}")) {
                holdings.take(&Fields::parse(&text), descriptor);
            }
        }
        ensure!(!holdings.maps.is_empty(), "process {pid} holds no BPF maps");
        Ok(holdings)
    }

    fn take(&mut self, fields: &Fields, descriptor: String) {
        if let (Some(map), Some(bytes)) = (fields.get("map_id"), fields.get("memlock")) {
            self.maps.insert(map, bytes);
        }
        let Some(program) = fields.get("prog_id") else { return };
        if fields.get("link_id").is_none() {
            self.programs.insert(program, descriptor);
        } else if let Some(kind) = fields.get("attach_type") {
            self.links.push((program, kind));
        }
    }

    /// Kernel memory of all maps.
    pub(super) fn map_bytes(&self) -> u64 {
        self.maps.values().sum()
    }

    /// Runs of the `cgroup_skb` program of that direction.
    pub(super) fn runs(&self, direction: Direction) -> Result<Runs> {
        let wanted = direction as u64;
        let linked = self.links.iter().find(|(_, kind)| *kind == wanted).map(|(program, _)| program);
        let descriptor = linked.and_then(|program| self.programs.get(program));
        let descriptor =
            descriptor.with_context(|| format!("process {} has no {direction:?} program", self.pid))?;
        Fields::read(&format!("/proc/{}/fdinfo/{descriptor}", self.pid))?.runs()
    }

    /// The number of the map with that name.
    pub(super) fn map(&self, name: &str) -> Result<u64> {
        for map in self.maps.keys() {
            if bpftool(&["map", "show", "id", &map.to_string()])?["name"] == name {
                return Ok(*map);
            }
        }
        anyhow::bail!("process {} has no map {name}", self.pid)
    }
}

/// Entries of a hash map.
pub(super) fn entries(map: u64) -> Result<usize> {
    let dump = bpftool(&["map", "dump", "id", &map.to_string()])?;
    dump.as_array().map(Vec::len).context("bpftool map dump gave no list")
}

fn bpftool(arguments: &[&str]) -> Result<serde_json::Value> {
    let mut command = std::process::Command::new("bpftool");
    let output = process::run(command.arg("--json").args(arguments))?;
    serde_json::from_str(&output).with_context(|| format!("output of bpftool {}", arguments.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holdings(texts: &[&str]) -> Holdings {
        let mut holdings =
            Holdings { pid: 1, programs: BTreeMap::new(), maps: BTreeMap::new(), links: Vec::new() };
        for (text, descriptor) in texts.iter().zip(3..) {
            holdings.take(&Fields::parse(text), descriptor.to_string());
        }
        holdings
    }

    #[test]
    fn a_map_held_twice_counts_once() {
        let map = "pos:\t0\nmap_type:\t2\nmemlock:\t4096\nmap_id:\t17\n";
        let other = "map_type:\t1\nmemlock:\t100\nmap_id:\t18\n";
        assert_eq!(holdings(&[map, other, map]).map_bytes(), 4196);
    }

    #[test]
    fn a_link_is_no_program() {
        let program = "prog_type:\t8\nprog_id:\t40\nrun_time_ns:\t70\nrun_cnt:\t7\n";
        let link = "link_type:\tcgroup\nlink_id:\t5\nprog_id:\t40\ncgroup_id:\t1\nattach_type:\t1\n";
        let holdings = holdings(&[program, link]);
        assert_eq!(holdings.programs, BTreeMap::from([(40, "3".to_owned())]));
        assert_eq!(holdings.links, [(40, 1)]);
        assert!(holdings.runs(Direction::Ingress).is_err());
    }

    #[test]
    fn statistics_that_are_missing_are_named() {
        let error = Fields::parse("prog_id:\t40\nrun_time_ns:\t70\n").runs().unwrap_err().to_string();
        assert!(error.contains("run_cnt"), "{error}");
    }

    #[test]
    fn a_mean_needs_runs() {
        assert!(Runs { nanoseconds: 100, count: 10 }.mean().is_err());
        let runs =
            Runs { nanoseconds: 90_000, count: 3_000 }.since(Runs { nanoseconds: 30_000, count: 1_000 });
        assert!((runs.mean().unwrap() - 30.0).abs() < 1e-9);
    }
}
