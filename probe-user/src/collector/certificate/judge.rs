//! Whether a server shows what its file has. Pure.

use std::borrow::Cow;

use crate::source::certificate::{Certificate, OnDisk, Purpose};

/// How a served certificate stands to the files of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// No file has one that it can be compared with.
    Unknown,
    /// A file has it, or none has a later one.
    Current,
    /// This file has a later one.
    Superseded {
        /// Its path.
        file: String,
        /// Until when the one in it is good, in seconds since 1970.
        not_after: u64,
    },
}

/// Compares what is shown on a port with the files for it; where there is none, with those of the same issuer of which
/// nobody knows what they are for.
pub(super) fn judge<'a>(
    port: u16,
    served: &Certificate,
    files: impl IntoIterator<Item = (&'a String, &'a OnDisk)>,
) -> Standing {
    let expected = Purpose::of_port(port);
    let files: Vec<_> =
        files.into_iter().filter(|(_, file)| may_be_renewed(served, &file.certificate)).collect();
    let for_port = files.iter().filter(|(_, file)| expected != Purpose::Other && file.purpose == expected);
    let standing = compare(served, for_port.copied());
    if standing != Standing::Unknown {
        return standing;
    }
    let is_known = |purpose| expected != Purpose::Other && purpose != Purpose::Other;
    let others = files.iter().filter(|(_, file)| {
        !is_known(file.purpose) && holder(&file.certificate.issuer) == holder(&served.issuer)
    });
    compare(served, others.copied())
}

fn compare<'a>(served: &Certificate, candidates: impl Iterator<Item = (&'a String, &'a OnDisk)>) -> Standing {
    let mut standing = Standing::Unknown;
    let mut latest = served.not_before;
    for (path, file) in candidates {
        if file.certificate.is_same(served) {
            return Standing::Current;
        }
        if file.certificate.not_before > latest {
            latest = file.certificate.not_before;
            standing = Standing::Superseded { file: path.clone(), not_after: file.certificate.not_after };
        } else if standing == Standing::Unknown {
            standing = Standing::Current;
        }
    }
    standing
}

/// Whether a certificate may be the same server's. A load balancer shows the certificates of other nodes under the same
/// subject, but not under the same names; a renewal may add names.
fn may_be_renewed(served: &Certificate, certificate: &Certificate) -> bool {
    holder(&certificate.subject) == holder(&served.subject) && served.names.is_subset(&certificate.names)
}

/// A name without the time at which a component that signs for itself did so: `CN=node1@1700000000`.
fn holder(name: &str) -> Cow<'_, str> {
    if !name.contains('@') {
        return Cow::Borrowed(name);
    }
    let parts = name.split(',').map(|part| match part.rsplit_once('@') {
        Some((holder, time)) if !time.is_empty() && time.bytes().all(|byte| byte.is_ascii_digit()) => holder,
        _ => part,
    });
    Cow::Owned(parts.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tests::{crafted, named};
    use super::*;

    fn file(purpose: Purpose, certificate: Certificate) -> OnDisk {
        OnDisk { purpose, certificate: Arc::new(certificate) }
    }

    fn stands(port: u16, served: &Certificate, files: &[OnDisk]) -> Standing {
        let files: Vec<(String, &OnDisk)> =
            files.iter().enumerate().map(|(at, file)| (format!("/{at}"), file)).collect();
        judge(port, served, files.iter().map(|(path, file)| (path, *file)))
    }

    fn superseded(file: &str, not_after: u64) -> Standing {
        Standing::Superseded { file: file.to_owned(), not_after }
    }

    #[test]
    fn a_later_certificate_in_the_file_supersedes_the_served_one() {
        let (old, new) = (crafted(1, "CN=a", "CN=ca", 100, 200), crafted(2, "CN=a", "CN=ca", 150, 300));
        let etcd = |certificate: &Certificate| file(Purpose::EtcdServer, certificate.clone());
        assert_eq!(stands(2379, &old, &[etcd(&new)]), superseded("/0", 300));
        assert_eq!(stands(2379, &old, &[etcd(&old)]), Standing::Current);
        assert_eq!(stands(2379, &new, &[etcd(&old)]), Standing::Current);
        assert_eq!(stands(2379, &old, &[etcd(&old), etcd(&new)]), Standing::Current);
        assert_eq!(stands(2379, &old, &[]), Standing::Unknown);
        // A new authority is no reason to take it for another server's.
        let other_ca = crafted(3, "CN=a", "CN=ca2", 160, 300);
        assert_eq!(stands(2379, &old, &[etcd(&new), etcd(&other_ca)]), superseded("/1", 300));
    }

    #[test]
    fn files_for_something_else_are_not_compared() {
        let (old, new) = (crafted(1, "CN=a", "CN=ca", 100, 200), crafted(2, "CN=a", "CN=ca", 150, 300));
        let of = |purpose, certificate: &Certificate| file(purpose, certificate.clone());
        // The same member of etcd towards others, and a server of k3s that shows a certificate of its own.
        assert_eq!(stands(2379, &old, &[of(Purpose::EtcdPeer, &new)]), Standing::Unknown);
        let own = crafted(3, "O=k3s,CN=k3s", "CN=ca", 100, 200);
        assert_eq!(stands(6443, &own, &[of(Purpose::Apiserver, &new)]), Standing::Unknown);
        // A copy of the old one elsewhere does not make it current.
        let files = [of(Purpose::EtcdPeer, &old), of(Purpose::EtcdServer, &new)];
        assert_eq!(stands(2379, &old, &files), superseded("/1", 300));
    }

    #[test]
    fn on_other_ports_and_from_other_files_subject_and_issuer_decide() {
        let (old, new) = (crafted(1, "CN=a", "CN=ca", 100, 200), crafted(2, "CN=a", "CN=ca", 150, 300));
        let other = file(Purpose::Other, new.clone());
        assert_eq!(stands(9345, &old, std::slice::from_ref(&other)), superseded("/0", 300));
        assert_eq!(stands(6443, &old, &[other]), superseded("/0", 300));
        assert_eq!(stands(9345, &old, &[file(Purpose::Apiserver, new)]), superseded("/0", 300));
        // What is known to be for the port goes before.
        let known = file(Purpose::Apiserver, old.clone());
        let later = file(Purpose::Other, crafted(4, "CN=a", "CN=ca", 160, 300));
        assert_eq!(stands(6443, &old, &[later, known]), Standing::Current);
        let stranger = crafted(3, "CN=a", "CN=ca2", 150, 300);
        assert_eq!(stands(9345, &old, &[file(Purpose::Other, stranger)]), Standing::Unknown);
    }

    #[test]
    fn another_node_behind_the_port_is_not_compared_and_more_names_are() {
        let apiserver = |serial, from, names: &[&str]| {
            named(crafted(serial, "CN=kube-apiserver", "CN=ca", from, 900), names)
        };
        let served = apiserver(1, 100, &["node2", "vip"]);
        let on = |certificate| [file(Purpose::Apiserver, certificate)];
        assert_eq!(stands(6443, &served, &on(apiserver(2, 150, &["node1", "vip"]))), Standing::Unknown);
        let more = apiserver(3, 150, &["node2", "vip", "vip2"]);
        assert_eq!(stands(6443, &served, &on(more)), superseded("/0", 900));
    }

    #[test]
    fn the_time_in_the_name_of_a_kubelet_is_no_name() {
        assert_eq!(holder("CN=node1@1700000000"), "CN=node1");
        assert_eq!(holder("O=a@b,CN=node1-ca@17"), "O=a@b,CN=node1-ca");
        assert_eq!(holder("CN=a@,O=b"), "CN=a@,O=b");
        let old = crafted(1, "CN=n@100", "CN=n-ca@100", 100, 200);
        let new = crafted(2, "CN=n@150", "CN=n-ca@150", 150, 300);
        assert_eq!(stands(10250, &old, &[file(Purpose::KubeletServer, new)]), superseded("/0", 300));
    }
}
