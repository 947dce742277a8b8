//! Facts about this node, and pure decisions from them.

mod capability;
mod uplink;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use capability::{Capabilities, Capability, MissingCapabilities, check_capabilities};
pub use uplink::uplinks;

use crate::source::cgroupfs::CgroupTree;

/// What the agent found on this node when it started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// Kernel release, as `uname -r` prints it.
    pub kernel_release: String,
    /// The kernel carries its own type information (`/sys/kernel/btf/vmlinux`).
    pub has_btf: bool,
    /// Mount point of the cgroup v2 hierarchy.
    pub cgroup_root: Option<PathBuf>,
    /// Effective capabilities of the thread that read this.
    pub capabilities: Capabilities,
}

/// Why a fact could not be read.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// `/proc/…/status` has no usable capability line.
    #[error("{} has no readable CapEff line", path.display())]
    Capabilities {
        /// The file.
        path: PathBuf,
    },
}

/// Reads the facts below `root` (`/` but in tests). The cgroup mount is that of this process; where it cannot be
/// found the fact is absent.
///
/// # Errors
/// When the kernel's release or this thread's capabilities cannot be read.
pub fn read_host(root: &Path) -> Result<HostFacts, HostError> {
    let release = read(root.join("proc/sys/kernel/osrelease"))?;
    let status = root.join("proc/thread-self/status");
    let capabilities =
        Capabilities::parse_status(&read(status.clone())?).ok_or(HostError::Capabilities { path: status })?;
    Ok(HostFacts {
        kernel_release: release.trim_end().to_owned(),
        has_btf: root.join("sys/kernel/btf/vmlinux").exists(),
        cgroup_root: CgroupTree::find_below(root).ok().map(|tree| tree.root().to_owned()),
        capabilities,
    })
}

fn read(path: PathBuf) -> Result<String, HostError> {
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text),
        Err(source) => Err(HostError::Read { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_facts_of_this_machine_can_be_read() {
        let facts = read_host(Path::new("/")).unwrap();
        let uname = nix::sys::utsname::uname().unwrap();
        assert_eq!(facts.kernel_release, uname.release().to_str().unwrap());
    }

    #[test]
    fn a_tree_of_its_own_is_read() {
        let root = std::env::temp_dir().join(format!("leadline-host-{}", std::process::id()));
        for directory in ["proc/sys/kernel", "proc/thread-self", "proc/self", "sys/kernel/btf"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        fs::write(root.join("proc/sys/kernel/osrelease"), "6.1.0-44-amd64\n").unwrap();
        fs::write(root.join("proc/thread-self/status"), "Name:\tx\nCapEff:\t000000c000001000\n").unwrap();
        fs::write(root.join("proc/self/mountinfo"), "29 24 0:25 / /sys/fs/cgroup rw - cgroup2 none rw\n")
            .unwrap();
        let facts = read_host(&root).unwrap();
        assert_eq!(facts.kernel_release, "6.1.0-44-amd64");
        assert!(!facts.has_btf);
        assert_eq!(facts.cgroup_root, Some(root.join("sys/fs/cgroup")));
        assert_eq!(facts.capabilities, Capabilities(0xc0_0000_1000));
        fs::write(root.join("proc/thread-self/status"), "Name:\tx\n").unwrap();
        assert!(matches!(read_host(&root), Err(HostError::Capabilities { .. })));
        fs::remove_dir_all(root).unwrap();
    }
}
