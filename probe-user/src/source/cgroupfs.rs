//! The cgroup v2 tree: where it is mounted, which directories it has, and their ids (the inode numbers, which are
//! what `bpf_skb_cgroup_id` and the `cgroup_mkdir` tracepoint report). Reads only; no capability needed.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Deepest directory that is followed; real trees stay below ten levels.
const MAX_DEPTH: usize = 32;

/// Why the tree could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The list of mounts could not be read.
    #[error("cannot read {}", path.display())]
    Mounts {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// No cgroup v2 hierarchy is mounted.
    #[error(
        "no cgroup v2 hierarchy is mounted; mount one (mount -t cgroup2 none /sys/fs/cgroup) or boot with systemd.unified_cgroup_hierarchy=1"
    )]
    NotMounted,
    /// A directory of the tree could not be read.
    #[error("cannot read the cgroup directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

/// The mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupTree {
    root: PathBuf,
}

/// One directory of the tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CgroupDirectory {
    /// Its cgroup id.
    pub id: u64,
    /// Its path below the root, without a leading slash; empty for the root itself.
    pub path: PathBuf,
}

impl CgroupTree {
    /// The hierarchy that this process sees, by its own list of mounts.
    ///
    /// # Errors
    /// When the list cannot be read or names no cgroup v2 mount.
    pub fn find() -> Result<Self, CgroupError> {
        Self::find_below(Path::new("/"))
    }

    /// The same in a tree that stands for the file system's root.
    ///
    /// # Errors
    /// As [`CgroupTree::find`].
    pub fn find_below(root: &Path) -> Result<Self, CgroupError> {
        let path = root.join("proc/self/mountinfo");
        let mounts = match fs::read_to_string(&path) {
            Ok(mounts) => mounts,
            Err(source) => return Err(CgroupError::Mounts { path, source }),
        };
        let mount = parse_mountinfo(&mounts).ok_or(CgroupError::NotMounted)?;
        Ok(Self { root: root.join(mount.strip_prefix("/").unwrap_or(&mount)) })
    }

    /// The hierarchy below a directory that is known already.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where it is mounted.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The root directory, opened for attaching programs to it.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open_root(&self) -> Result<File, CgroupError> {
        File::open(&self.root).map_err(|source| CgroupError::Directory { path: self.root.clone(), source })
    }

    /// Id of the root.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn root_id(&self) -> Result<u64, CgroupError> {
        self.id_of(Path::new(""))
    }

    /// Id of a directory given by its path below the root; a leading slash, as the kernel's own paths have it, is
    /// taken as the root's.
    ///
    /// # Errors
    /// When there is no such directory.
    pub fn id_of(&self, path: &Path) -> Result<u64, CgroupError> {
        let path = self.root.join(path.strip_prefix("/").unwrap_or(path));
        match fs::metadata(&path) {
            Ok(metadata) => Ok(metadata.ino()),
            Err(source) => Err(CgroupError::Directory { path, source }),
        }
    }

    /// All directories, the root first, parents before their children. Directories that vanish while the tree is
    /// read are left out.
    ///
    /// # Errors
    /// When the root or an existing directory cannot be read.
    pub fn scan(&self) -> Result<Vec<CgroupDirectory>, CgroupError> {
        let mut found = vec![CgroupDirectory { id: self.root_id()?, path: PathBuf::new() }];
        let mut next = 0;
        while let Some(parent) = found.get(next).map(|directory| directory.path.clone()) {
            if parent.components().count() < MAX_DEPTH {
                found.extend(self.children(&parent)?);
            }
            next += 1;
        }
        Ok(found)
    }

    fn children(&self, parent: &Path) -> Result<Vec<CgroupDirectory>, CgroupError> {
        let path = self.root.join(parent);
        let list = || -> io::Result<Vec<CgroupDirectory>> {
            let mut children = Vec::new();
            for entry in fs::read_dir(&path)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    children.push(CgroupDirectory { id: entry.ino(), path: parent.join(entry.file_name()) });
                }
            }
            Ok(children)
        };
        match list() {
            Ok(children) => Ok(children),
            Err(error) if is_gone(&error) => Ok(Vec::new()),
            Err(source) => Err(CgroupError::Directory { path, source }),
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    // A cgroup that is removed while its directory is open answers ENODEV.
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

/// The first cgroup v2 mount point of `/proc/PID/mountinfo`: `/sys/fs/cgroup` on a unified system,
/// `/sys/fs/cgroup/unified` on a hybrid one, anything else where the administrator chose so.
#[must_use]
pub fn parse_mountinfo(text: &str) -> Option<PathBuf> {
    text.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let kind = filesystem.split(' ').next()?;
        let point = mount.split(' ').nth(4)?;
        (kind == "cgroup2").then(|| PathBuf::from(OsString::from_vec(unescape(point))))
    })
}

/// Space, tab, line feed and backslash are written as three octal digits.
fn unescape(field: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let octal = (first == b'\\').then(|| parse_octal(tail)).flatten();
        bytes.push(octal.unwrap_or(first));
        rest = if octal.is_some() { tail.get(3..).unwrap_or_default() } else { tail };
    }
    bytes
}

fn parse_octal(tail: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(tail.get(..3)?).ok()?;
    u8::from_str_radix(digits, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
31 22 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755
32 31 0:27 / /sys/fs/cgroup/unified rw,nosuid,nodev,noexec,relatime shared:10 - cgroup2 cgroup2 rw,nsdelegate
33 31 0:28 / /sys/fs/cgroup/cpu rw,nosuid,nodev,noexec,relatime shared:11 - cgroup cgroup rw,cpu
";
    const UNIFIED: &str = "\
24 30 0:21 / /sys rw,nosuid shared:7 - sysfs sysfs rw
29 24 0:25 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
";

    #[test]
    fn the_mount_is_found_on_hybrid_and_unified_systems() {
        assert_eq!(parse_mountinfo(HYBRID), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(parse_mountinfo(UNIFIED), Some("/sys/fs/cgroup".into()));
    }

    #[test]
    fn cgroup_v1_alone_is_no_mount() {
        assert_eq!(parse_mountinfo("33 31 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"), None);
        assert_eq!(parse_mountinfo("not a mount\n\n - cgroup2\n"), None);
    }

    #[test]
    fn escaped_mount_points_are_read() {
        let line = r"29 24 0:25 / /mnt/my\040cgroup\134x\0 rw - cgroup2 none rw";
        assert_eq!(parse_mountinfo(line), Some(r"/mnt/my cgroup\x\0".into()));
    }

    #[test]
    fn the_tree_is_listed_with_parents_first() {
        let root = tempfile("scan");
        fs::create_dir_all(root.join("kubepods/burstable/podA")).unwrap();
        fs::create_dir_all(root.join("system.slice")).unwrap();
        fs::write(root.join("cgroup.procs"), "").unwrap();
        let tree = CgroupTree::at(&root);
        let found = tree.scan().unwrap();
        assert_eq!(found.len(), 5);
        assert_eq!((found[0].id, found[0].path.as_os_str().len()), (tree.root_id().unwrap(), 0));
        let pod = found.iter().position(|d| d.path.ends_with("podA")).unwrap();
        let parent = found.iter().position(|d| d.path.ends_with("burstable")).unwrap();
        assert!(parent < pod);
        assert_eq!(found[pod].id, tree.id_of(Path::new("/kubepods/burstable/podA")).unwrap());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_missing_directory_is_named_in_the_error() {
        let error = CgroupTree::at("/nonexistent/tree").id_of(Path::new("/a")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read the cgroup directory /nonexistent/tree/a");
    }

    fn tempfile(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("leadline-cgroupfs-{name}-{}", std::process::id()))
    }
}
