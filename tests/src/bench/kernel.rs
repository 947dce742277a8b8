//! What the kernel says of BPF programs and maps: run-time statistics, memory, entries.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result, ensure};

use super::statistics::number;
use crate::foreign::{Empty, Hook};
use crate::process;

/// Switches the statistics of all programs.
const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Runs of an empty program of ours.
pub(super) fn runs_of(program: &Empty) -> Result<Runs> {
    Fields::read(&format!("/proc/self/fdinfo/{}", program.descriptor().as_raw_fd()))?.runs()
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

    /// A number; the kernel writes some with a name behind them.
    fn get(&self, name: &str) -> Option<u64> {
        self.0.get(name)?.split(' ').next()?.parse().ok()
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
    /// Program numbers of links with their attach type.
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

    /// Runs of the program on that hook: of a cgroup, or of the only device that has one.
    pub(super) fn runs(&self, hook: Hook) -> Result<Runs> {
        let wanted = u64::from(hook.attach_type());
        let linked = self.links.iter().find(|(_, kind)| *kind == wanted).map(|(program, _)| program);
        let descriptor = linked.and_then(|program| self.programs.get(program));
        let descriptor =
            descriptor.with_context(|| format!("process {} has no {hook:?} program", self.pid))?;
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

/// Cgroups in the keys of the map of slots (`SlotKey`), one for each entry.
pub(super) fn cgroups(map: u64) -> Result<Vec<u64>> {
    let dump = bpftool(&["map", "dump", "id", &map.to_string()])?;
    let entries = dump.as_array().context("bpftool map dump gave no list")?;
    entries.iter().map(|entry| cgroup(entry).with_context(|| format!("key of {entry}"))).collect()
}

/// The first eight bytes of a key, which bpftool shows as hexadecimal texts.
fn cgroup(entry: &serde_json::Value) -> Option<u64> {
    let bytes = entry.get("key")?.as_array()?.iter().take(8).map(|byte| {
        let text = byte.as_str()?;
        u8::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
    });
    Some(u64::from_le_bytes(bytes.collect::<Option<Vec<u8>>>()?.try_into().ok()?))
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
    fn the_cgroup_of_a_key_is_its_first_word() {
        let entry = serde_json::json!({"key": ["0x05", "0x01", "0x00", "0x00", "0x00", "0x00", "0x00", "0x00", "0x07"]});
        assert_eq!(cgroup(&entry), Some(261));
        assert_eq!(cgroup(&serde_json::json!({"key": ["0x05"]})), None);
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
        assert!(holdings.runs(Hook::CgroupIngress).is_err());
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
