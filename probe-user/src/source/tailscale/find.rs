//! Where tailscaled may be asked: the configured socket, and then nothing else, or its usual places.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

/// Below the root: packages of distributions, the snap, QNAP, Synology. `/var/run` is the same as `/run` on most systems, and on
/// others a directory of its own.
const USUAL: [&str; 5] = [
    "run/tailscale/tailscaled.sock",
    "var/run/tailscale/tailscaled.sock",
    "var/snap/tailscale/common/socket/tailscaled.sock",
    "tmp/tailscale/tailscaled.sock",
    "var/packages/Tailscale/var/tailscaled.sock",
];

/// Sockets that may be asked, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidates {
    /// All of them.
    pub sockets: Vec<PathBuf>,
    /// Whether the administrator gave it: then one that is not there is a fault.
    pub is_given: bool,
}

/// Everything that may be asked on this node.
#[must_use]
pub fn candidates(root: &Path, given: Option<&Path>) -> Candidates {
    if let Some(given) = given {
        return Candidates { sockets: vec![given.to_owned()], is_given: true };
    }
    let mut sockets: Vec<PathBuf> = Vec::new();
    for path in USUAL.iter().map(|path| root.join(path)).filter(|path| is_socket(path)) {
        // One socket by two names is one.
        let is_known = |known: &PathBuf| fs::canonicalize(known).ok() == fs::canonicalize(&path).ok();
        if !sockets.iter().any(is_known) {
            sockets.push(path);
        }
    }
    Candidates { sockets, is_given: false }
}

fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn usual_places_are_tried_once_each_and_what_is_given_alone() {
        let root = std::env::temp_dir().join(format!("leadline-tailscale-find-{}", std::process::id()));
        fs::create_dir_all(root.join("run/tailscale")).unwrap();
        fs::create_dir_all(root.join("var/snap/tailscale/common/socket")).unwrap();
        fs::create_dir_all(root.join("tmp/tailscale")).unwrap();
        symlink("../run", root.join("var/run")).unwrap();
        let _plain = UnixListener::bind(root.join(USUAL[0])).unwrap();
        let _snap = UnixListener::bind(root.join(USUAL[2])).unwrap();
        fs::write(root.join(USUAL[3]), "no socket").unwrap();
        let found = candidates(&root, None);
        let given = candidates(&root, Some(Path::new("/given.sock")));
        let expected = [USUAL[0], USUAL[2]].map(|path| root.join(path)).to_vec();
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(found, Candidates { sockets: expected, is_given: false });
        assert_eq!(given, Candidates { sockets: vec!["/given.sock".into()], is_given: true });
    }

    #[test]
    fn a_node_without_tailscale_has_nothing_to_try() {
        assert_eq!(candidates(Path::new("/nonexistent"), None), Candidates::default());
    }
}
