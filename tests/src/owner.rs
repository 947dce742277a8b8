//! Who owns a lab: its name carries the process, so that what a killed run left is told from what is in use.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};

use crate::cgroup;

/// What every name of the lab starts with.
pub const PREFIX: &str = "leadline-lab-";

static SEQUENCE: AtomicU32 = AtomicU32::new(1);

/// The process that made a lab. The start time guards against a reused process id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    pid: u32,
    started: u64,
}

/// A new name for a lab of this process: `leadline-lab-PID-STARTTIME-N`.
pub(crate) fn new_name() -> Result<String> {
    let pid = std::process::id();
    let started = start_time(pid).with_context(|| format!("no start time in /proc/{pid}/stat"))?;
    let number = SEQUENCE.fetch_add(1, Ordering::Relaxed);
    Ok(format!("{PREFIX}{pid}-{started}-{number}"))
}

fn parse(name: &str) -> Option<Owner> {
    let mut parts = name.strip_prefix(PREFIX)?.split('-');
    let owner = Owner { pid: parts.next()?.parse().ok()?, started: parts.next()?.parse().ok()? };
    parts.next()?.parse::<u32>().ok()?;
    parts.next().is_none().then_some(owner)
}

/// The start time of a live process in clock ticks since boot; none for one that has ended.
fn start_time(pid: u32) -> Option<u64> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The command name may contain spaces and parentheses: the fields count from the last one.
fn parse_stat(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(started)
}

fn is_stale(name: &str) -> bool {
    parse(name).is_some_and(|owner| start_time(owner.pid) != Some(owner.started))
}

/// Removes what labs of dead processes left: processes, cgroups and scratch directories. Returns their names.
pub fn clean_stale() -> Result<Vec<String>> {
    let mut cleaned = Vec::new();
    // Version 2 first: only there can processes be killed.
    for root in [cgroup::v2_root()?].into_iter().chain(cgroup::v1_roots()?) {
        for name in stale_below(&root)? {
            cgroup::remove(&root.join(&name))?;
            cleaned.push(name);
        }
    }
    let scratch = std::env::temp_dir();
    for name in stale_below(&scratch)? {
        remove_scratch(&scratch.join(&name))?;
        cleaned.push(name);
    }
    cleaned.sort();
    cleaned.dedup();
    Ok(cleaned)
}

fn stale_below(directory: &Path) -> Result<Vec<String>> {
    Ok(cgroup::children(directory)?.into_iter().filter(|name| is_stale(name)).collect())
}

/// Removes a scratch directory; one that another cleaner removes at the same time is no error.
pub(crate) fn remove_scratch(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_this_process_is_not_stale() {
        let name = new_name().unwrap();
        assert!(parse(&name).is_some_and(|owner| owner.pid == std::process::id()));
        assert!(!is_stale(&name));
    }

    #[test]
    fn names_differ_within_a_process() {
        assert_ne!(new_name().unwrap(), new_name().unwrap());
    }

    #[test]
    fn a_reused_process_id_is_stale() {
        assert!(is_stale(&format!("{PREFIX}{}-17-1", std::process::id())));
    }

    #[test]
    fn foreign_names_are_left_alone() {
        for name in
            ["leadline-lab-", "leadline-lab-x-1-1", "leadline-lab-1-2", "leadline-lab-1-2-3-4", "user.slice"]
        {
            assert!(!is_stale(name), "{name}");
        }
    }

    #[test]
    fn a_command_name_with_parentheses() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
        assert_eq!(parse_stat(stat), Some(4711));
    }

    #[test]
    fn a_zombie_has_ended() {
        assert_eq!(parse_stat("7 (x) Z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20"), None);
        assert_eq!(parse_stat("7 (x"), None);
    }
}
