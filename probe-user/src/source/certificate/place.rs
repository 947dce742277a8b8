//! Where certificates of Kubernetes and etcd lie.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::file::{Fault, Form};
use super::purpose::Purpose;
use super::scan::FileFault;

/// Directories whose `*.crt` are read, below the root.
const DIRECTORIES: [&str; 12] = [
    "etc/kubernetes/pki",
    "etc/kubernetes/pki/etcd",
    "var/lib/rancher/k3s/server/tls",
    "var/lib/rancher/k3s/server/tls/etcd",
    "var/lib/rancher/k3s/server/tls/kube-controller-manager",
    "var/lib/rancher/k3s/server/tls/kube-scheduler",
    "var/lib/rancher/k3s/agent",
    "var/lib/rancher/rke2/server/tls",
    "var/lib/rancher/rke2/server/tls/etcd",
    "var/lib/rancher/rke2/server/tls/kube-controller-manager",
    "var/lib/rancher/rke2/server/tls/kube-scheduler",
    "var/lib/rancher/rke2/agent",
];
/// Files of kubelets that kubeadm has set up.
const FILES: [&str; 3] = [
    "var/lib/kubelet/pki/kubelet-client-current.pem",
    "var/lib/kubelet/pki/kubelet.crt",
    "var/lib/kubelet/pki/kubelet-server-current.pem",
];
/// Kubeconfigs of kubeadm, and whose certificate each has.
const KUBECONFIGS: [(&str, Purpose); 5] = [
    ("etc/kubernetes/admin.conf", Purpose::Admin),
    ("etc/kubernetes/super-admin.conf", Purpose::SuperAdmin),
    ("etc/kubernetes/controller-manager.conf", Purpose::ControllerManager),
    ("etc/kubernetes/scheduler.conf", Purpose::Scheduler),
    ("etc/kubernetes/kubelet.conf", Purpose::KubeletClient),
];
/// Entries that are looked at in one directory.
const ENTRIES: usize = 4_096;

/// A file that may have a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// As the node sees it.
    pub(super) path: PathBuf,
    pub(super) form: Form,
    pub(super) purpose: Purpose,
    /// Whether somebody said that it is there.
    pub(super) is_named: bool,
}

impl Place {
    /// A file of certificates, whose name says what it is for.
    pub(super) fn pem(path: PathBuf, is_named: bool) -> Self {
        Self { purpose: Purpose::of_path(&path), path, form: Form::Pem, is_named }
    }
}

/// A path of the node as it is opened.
pub(super) fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Everything that may be on this node and everything that is configured, and the directories that cannot be listed.
pub(super) fn places(root: &Path, given: &[PathBuf]) -> (Vec<Place>, Vec<FileFault>) {
    let (mut places, mut faults) = (Vec::new(), Vec::new());
    let mut list = |directory: &Path, ends: &[&str]| match entries(root, directory, ends) {
        Ok(paths) => places.extend(paths.into_iter().map(|path| Place::pem(path, false))),
        Err(error) => faults.push(FileFault { path: directory.to_owned(), fault: Fault::Io(error) }),
    };
    for directory in DIRECTORIES {
        list(&Path::new("/").join(directory), &["crt"]);
    }
    let mut named = Vec::new();
    for path in given {
        if fs::metadata(below(root, path)).is_ok_and(|found| found.is_dir()) {
            list(path, &["crt", "pem"]);
        } else {
            named.push(Place::pem(path.clone(), true));
        }
    }
    let absolute = |path: &str| Path::new("/").join(path);
    places.extend(FILES.iter().map(|path| Place::pem(absolute(path), false)));
    places.extend(KUBECONFIGS.iter().map(|(path, purpose)| Place {
        path: absolute(path),
        form: Form::Kubeconfig,
        purpose: *purpose,
        is_named: false,
    }));
    places.extend(named);
    (places, faults)
}

/// Files of a directory with one of these ends, sorted; none where there is no such directory.
fn entries(root: &Path, directory: &Path, ends: &[&str]) -> io::Result<Vec<PathBuf>> {
    let found = match fs::read_dir(below(root, directory)) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        found => found?,
    };
    let mut paths = Vec::new();
    for entry in found.take(ENTRIES) {
        let path = directory.join(entry?.file_name());
        if path.extension().and_then(|end| end.to_str()).is_some_and(|end| ends.contains(&end)) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
