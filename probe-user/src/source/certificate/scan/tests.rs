//! Scans of directories that look like those of nodes.

use std::fs;
use std::os::unix::fs::symlink;

use base64ct::{Base64, Encoding as _};

use super::*;

const PLAIN: &[u8] = include_bytes!("../../vip_probe/certificate.der");
const ODD: &[u8] = include_bytes!("../../vip_probe/certificate-long-serial.der");

/// A root directory that is removed in the end.
struct Root(PathBuf);

impl Root {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("leadline-certificate-{name}-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        Self(root)
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = below(&self.0, Path::new(path));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn reader(&self, given: &[&str]) -> Reader {
        Reader::new(self.0.clone(), given.iter().map(PathBuf::from).collect())
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = Base64::encode_string(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn kubeconfig(user: &str) -> String {
    format!(
        "current-context: c\ncontexts: [{{name: c, context: {{user: u}}}}]\nusers: [{{name: u, user: {user}}}]\n"
    )
}

/// Paths, purposes and ends of what was found.
fn found(scan: &Scan) -> Vec<(&str, &str, u64)> {
    scan.files
        .iter()
        .map(|(path, file)| (path.as_str(), file.purpose.as_str(), file.certificate.not_after))
        .collect()
}

fn faults(scan: &Scan) -> Vec<String> {
    scan.faults.iter().map(|fault| format!("{} {}", fault.path.display(), fault.fault)).collect()
}

const PLAIN_END: u64 = 1_798_859_045;
const ODD_END: u64 = 2_556_241_445;

#[test]
fn a_node_of_kubeadm_is_read() {
    let root = Root::new("kubeadm");
    root.write("/etc/kubernetes/pki/apiserver.crt", pem("CERTIFICATE", PLAIN));
    root.write("/etc/kubernetes/pki/apiserver.key", pem("EC PRIVATE KEY", b"secret"));
    root.write("/etc/kubernetes/pki/etcd/peer.crt", pem("CERTIFICATE", ODD) + &pem("CERTIFICATE", PLAIN));
    let data = Base64::encode_string(pem("CERTIFICATE", PLAIN).as_bytes());
    root.write(
        "/etc/kubernetes/admin.conf",
        kubeconfig(&format!("{{client-certificate-data: {data}, client-key-data: eA==}}")),
    );
    root.write("/etc/kubernetes/scheduler.conf", kubeconfig("{token: t}"));
    root.write(
        "/etc/kubernetes/kubelet.conf",
        kubeconfig("{client-certificate: /var/lib/kubelet/pki/kubelet-client-current.pem}"),
    );
    root.write("/etc/kubernetes/controller-manager.conf", kubeconfig("{client-certificate: own/cm.pem}"));
    root.write("/etc/kubernetes/own/cm.pem", pem("CERTIFICATE", PLAIN));
    root.write(
        "/var/lib/kubelet/pki/kubelet-client-1.pem",
        pem("EC PRIVATE KEY", b"secret") + &pem("CERTIFICATE", ODD),
    );
    let link = below(&root.0, Path::new("/var/lib/kubelet/pki/kubelet-client-current.pem"));
    symlink("kubelet-client-1.pem", link).unwrap();
    let scan = root.reader(&[]).scan();
    assert_eq!(faults(&scan), Vec::<String>::new());
    assert_eq!(
        found(&scan),
        [
            ("/etc/kubernetes/admin.conf", "admin", PLAIN_END),
            ("/etc/kubernetes/own/cm.pem", "controller_manager", PLAIN_END),
            ("/etc/kubernetes/pki/apiserver.crt", "apiserver", PLAIN_END),
            ("/etc/kubernetes/pki/etcd/peer.crt", "etcd_peer", ODD_END),
            ("/var/lib/kubelet/pki/kubelet-client-current.pem", "kubelet_client", ODD_END),
        ]
    );
}

#[test]
fn nodes_of_k3s_and_rke2_are_read() {
    let root = Root::new("k3s");
    root.write("/var/lib/rancher/k3s/server/tls/client-admin.crt", pem("CERTIFICATE", PLAIN));
    root.write("/var/lib/rancher/k3s/server/tls/etcd/server-client.crt", pem("CERTIFICATE", PLAIN));
    root.write("/var/lib/rancher/k3s/agent/serving-kubelet.crt", pem("CERTIFICATE", PLAIN));
    root.write(
        "/var/lib/rancher/rke2/server/tls/kube-scheduler/kube-scheduler.crt",
        pem("CERTIFICATE", PLAIN),
    );
    let scan = root.reader(&[]).scan();
    let purposes: Vec<&str> = found(&scan).iter().map(|(_, purpose, _)| *purpose).collect();
    assert_eq!(purposes, ["kubelet_server", "admin", "etcd_server", "scheduler_server"]);
}

#[test]
fn configured_files_and_directories_are_read_and_must_be_there() {
    let root = Root::new("given");
    root.write("/srv/own.pem", pem("CERTIFICATE", PLAIN));
    root.write("/srv/many/b.pem", pem("CERTIFICATE", PLAIN));
    root.write("/srv/many/a.crt", pem("CERTIFICATE", PLAIN));
    root.write("/srv/many/a.key", "no certificate");
    let scan = root.reader(&["/srv/own.pem", "/srv/many", "/srv/missing.pem"]).scan();
    let paths: Vec<&str> = found(&scan).iter().map(|(path, ..)| *path).collect();
    assert_eq!(paths, ["/srv/many/a.crt", "/srv/many/b.pem", "/srv/own.pem"]);
    assert_eq!(faults(&scan), ["/srv/missing.pem cannot be read: No such file or directory (os error 2)"]);
}

#[test]
fn every_fault_names_its_file_and_its_cause() {
    let root = Root::new("faults");
    let pki = "/etc/kubernetes/pki";
    root.write(&format!("{pki}/a-garbage.crt"), [0xff, 0x00, 0x17]);
    root.write(
        &format!("{pki}/b-broken.crt"),
        "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n",
    );
    root.write(&format!("{pki}/c-other.crt"), pem("CERTIFICATE", b"no DER"));
    root.write(&format!("{pki}/d-long.crt"), vec![b'x'; (1 << 20) + 1]);
    root.write(&format!("{pki}/e-key.crt"), pem("EC PRIVATE KEY", b"secret"));
    fs::create_dir(below(&root.0, Path::new(&format!("{pki}/f-directory.crt")))).unwrap();
    symlink("nowhere", below(&root.0, Path::new(&format!("{pki}/g-link.crt")))).unwrap();
    root.write("/etc/kubernetes/admin.conf", "users: 3");
    root.write("/etc/kubernetes/kubelet.conf", kubeconfig("{client-certificate: /missing.pem}"));
    let scan = root.reader(&[]).scan();
    assert!(scan.files.is_empty());
    let faults = faults(&scan);
    let expected = [
        "a-garbage.crt has no certificate",
        "b-broken.crt is not PEM: ",
        "c-other.crt no X.509 certificate: ",
        "d-long.crt is longer than 1 MiB",
        "e-key.crt has no certificate",
        "f-directory.crt is no regular file",
        "g-link.crt cannot be read: No such file",
        "admin.conf is no kubeconfig: users: invalid type",
        "/missing.pem cannot be read: No such file",
    ];
    assert_eq!(faults.len(), expected.len(), "{faults:#?}");
    for (fault, expected) in faults.iter().zip(expected) {
        assert!(fault.contains(expected), "{fault}: {expected}");
    }
}

#[test]
fn another_content_is_seen_and_a_fault_does_not_stay() {
    let root = Root::new("change");
    let path = "/etc/kubernetes/pki/apiserver.crt";
    let mut reader = root.reader(&[]);
    assert!(reader.scan().files.is_empty());
    root.write(path, pem("CERTIFICATE", PLAIN));
    assert_eq!(found(&reader.scan()), [(path, "apiserver", PLAIN_END)]);
    root.write(path, "half");
    assert_eq!(faults(&reader.scan()).len(), 1);
    root.write(path, pem("CERTIFICATE", ODD));
    let (first, second) = (reader.scan(), reader.scan());
    assert_eq!(found(&first), [(path, "apiserver", ODD_END)]);
    // The second time nothing was read again.
    assert!(Arc::ptr_eq(&first.files[path].certificate, &second.files[path].certificate));
    fs::remove_file(below(&root.0, Path::new(path))).unwrap();
    assert!(reader.scan().files.is_empty());
}

#[test]
fn beyond_the_limit_files_are_counted() {
    let root = Root::new("crowd");
    for number in 0..MOST + 9 {
        root.write(&format!("/etc/kubernetes/pki/{number:04}.crt"), pem("CERTIFICATE", PLAIN));
    }
    root.write("/etc/kubernetes/pki/0000.crt", "garbage");
    let scan = root.reader(&[]).scan();
    assert_eq!((scan.files.len(), scan.faults.len(), scan.omitted), (MOST - 1, 1, 9));
}
