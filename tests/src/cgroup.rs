//! The machine's cgroup v2 hierarchy: where it is, and trees of directories below it.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::process::{wait_for, wait_until};

/// The time killed processes may take to leave their cgroup.
const LEAVE: Duration = Duration::from_secs(5);

/// Where the machine has cgroup v2 mounted: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` in the hybrid layout.
pub fn v2_root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    first_v2(&mounts)
        .context("no cgroup v2 hierarchy is mounted; mount one: mount -t cgroup2 cgroup2 /sys/fs/cgroup")
}

fn first_v2(mounts: &str) -> Option<PathBuf> {
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields
        .filter(|fields| fields.get(2) == Some(&"cgroup2"))
        .find_map(|fields| fields.get(1).map(PathBuf::from))
}

/// Where the machine has hierarchies of cgroup v1 mounted: nowhere, or beside v2 in the hybrid layout.
pub fn v1_roots() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    Ok(all_v1(&mounts))
}

fn all_v1(mounts: &str) -> Vec<PathBuf> {
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields
        .filter(|fields| fields.get(2) == Some(&"cgroup"))
        .filter_map(|fields| fields.get(1).map(PathBuf::from))
        .collect()
}

/// Makes a directory right below the root of a hierarchy of cgroup v1. One of cpuset takes processes only when it has been
/// given processors and memory; those below it get the same.
pub fn create_v1(path: &Path) -> Result<()> {
    create(path)?;
    let root = path.parent().context("a cgroup has a parent")?;
    for file in ["cpuset.cpus", "cpuset.mems"].iter().filter(|file| root.join(file).exists()) {
        let value =
            fs::read(root.join(file)).with_context(|| format!("read {file} of {}", root.display()))?;
        fs::write(path.join(file), value)
            .and_then(|()| fs::write(path.join("cgroup.clone_children"), "1"))
            .with_context(|| format!("write {file} of {}", path.display()))?;
    }
    Ok(())
}

/// Gives the cgroups right below a directory all controllers that it has itself; of version 2 alone, those are all that
/// containers need.
pub fn delegate(path: &Path) -> Result<()> {
    let file = path.join("cgroup.controllers");
    let controllers = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    for controller in controllers.split_whitespace() {
        fs::write(path.join("cgroup.subtree_control"), format!("+{controller}"))
            .with_context(|| format!("delegate {controller} below {}", path.display()))?;
    }
    Ok(())
}

/// Makes a cgroup directory with its parents.
pub fn create(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("create cgroup {}", path.display()))
}

/// Ends every process in the cgroup and below, and waits until they have left it. A missing cgroup is empty, and one of
/// version 1 is taken to be.
pub fn kill(path: &Path) -> Result<()> {
    let file = path.join("cgroup.kill");
    // There is none in version 1, and a file cannot be made there.
    let killed = if file.exists() { fs::write(&file, "1") } else { Ok(()) };
    if let Some(error) = killed.err().filter(|error| !is_gone(error)) {
        return Err(error).with_context(|| format!("kill cgroup {}", path.display()));
    }
    wait_until(&format!("cgroup {} to be empty", path.display()), LEAVE, || is_empty(path))
}

/// Whether no process is in the cgroup or below; zombies do not count.
#[must_use]
pub fn is_empty(path: &Path) -> bool {
    match fs::read_to_string(path.join("cgroup.events")) {
        Ok(events) => events.lines().any(|line| line == "populated 0"),
        Err(error) => is_gone(&error),
    }
}

/// Ends every process in the cgroup and below and removes the directories, deepest first.
pub fn remove(path: &Path) -> Result<()> {
    kill(path)?;
    // A process that has just left can keep its directory busy for a moment.
    let removed = wait_for(&format!("cgroup {} to go", path.display()), LEAVE, || match remove_dirs(path) {
        Err(error) if error.kind() == ErrorKind::ResourceBusy => None,
        // Another cleaner is at work on the same tree.
        Err(error) if is_gone(&error) => None,
        result => Some(result),
    })?;
    removed.with_context(|| format!("remove cgroup {}", path.display()))
}

fn remove_dirs(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Err(error) if is_gone(&error) => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_dirs(&entry.path())?;
        }
    }
    fs::remove_dir(path).or_else(|error| if is_gone(&error) { Ok(()) } else { Err(error) })
}

/// Whether the error says that the cgroup has been removed, before or after the file was opened.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

/// The names of the directories right below `path`.
pub fn children(path: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(path).with_context(|| format!("list {}", path.display()))?;
    let directories = entries.filter_map(io::Result::ok).filter(|entry| entry.path().is_dir());
    Ok(directories.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_layout() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
        assert_eq!(first_v2(mounts), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(all_v1(mounts), [PathBuf::from("/sys/fs/cgroup/cpu")]);
    }

    #[test]
    fn pure_layout() {
        let mounts = "cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n";
        assert_eq!(first_v2(mounts), Some(PathBuf::from("/sys/fs/cgroup")));
    }

    #[test]
    fn legacy_layout_has_none() {
        assert_eq!(first_v2("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\nshort\n"), None);
    }

    #[test]
    fn a_missing_cgroup_is_empty_and_removed() {
        let path = Path::new("/nonexistent/leadline");
        assert!(is_empty(path));
        remove(path).unwrap();
    }
}
