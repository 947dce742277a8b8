//! Certificates in files of every layout, and their end.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::process;

use crate::authority::{DAY, HOUR, now};
use crate::stage::{SOON, Stage, events, key, shown, support, wait_event, wait_shown, written};

const PKI: &str = "/etc/kubernetes/pki";
const K3S: &str = "/var/lib/rancher/k3s";

/// As kubeadm writes it.
fn kubeconfig(user: &str) -> String {
    format!(
        "apiVersion: v1\nclusters:\n- cluster:\n    server: https://192.0.2.1:6443\n  name: kubernetes\ncontexts:\n\
         - context:\n    cluster: kubernetes\n    user: own\n  name: own@kubernetes\n\
         current-context: own@kubernetes\nkind: Config\nusers:\n- name: own\n  user:\n{user}"
    )
}

#[test]
fn files_of_kubeadm_k3s_and_kubelets_end_when_openssl_says() -> Result<()> {
    let stage = Stage::new()?;
    let pem = [
        ("apiserver", format!("{PKI}/apiserver.crt")),
        ("apiserver_etcd_client", format!("{PKI}/apiserver-etcd-client.crt")),
        ("etcd_server", format!("{PKI}/etcd/server.crt")),
        ("etcd_peer", format!("{PKI}/etcd/peer.crt")),
        ("kubelet_client", "/var/lib/kubelet/pki/kubelet-client-current.pem".to_owned()),
        ("kubelet_server", "/var/lib/kubelet/pki/kubelet.crt".to_owned()),
        ("apiserver", format!("{K3S}/server/tls/serving-kube-apiserver.crt")),
        ("admin", format!("{K3S}/server/tls/client-admin.crt")),
        ("etcd_server", format!("{K3S}/server/tls/etcd/server-client.crt")),
        ("kubelet_server", format!("{K3S}/agent/serving-kubelet.crt")),
        ("other", "/srv/own.pem".to_owned()),
    ];
    let mut expected = BTreeMap::new();
    let issued = (1..).zip(&pem);
    for (number, (purpose, path)) in issued {
        let pair = stage.authority.issue(&format!("/CN=c{number}"), "DNS:a", -DAY * number, DAY * number)?;
        // Behind the first certificate is the one that issued it, and its key, as kubelets write it.
        stage.write(path, &(pair.certificate + &stage.authority.own()? + &pair.key))?;
        expected.insert(key(purpose, path), stage.of_file(path)?);
    }
    let ca = format!("{PKI}/etcd/ca.crt");
    stage.write(&ca, &stage.authority.own()?)?;
    expected.insert(key("etcd_ca", &ca), stage.of_file(&ca)?);

    // In a kubeconfig, and in the file that it names.
    let pair = stage.authority.issue("/O=kubeadm:cluster-admins/CN=kubernetes-admin", "DNS:a", -HOUR, DAY)?;
    let mut encode = Command::new("base64");
    let data = process::run_with_input(encode.arg("-w0"), &pair.certificate)?;
    let path = "/etc/kubernetes/admin.conf";
    let user = format!("    client-certificate-data: {}\n    client-key-data: S0VZ\n", data.trim());
    stage.write(path, &kubeconfig(&user))?;
    let extract = format!("sed -n 's/.*client-certificate-data: //p' {path} | base64 -d");
    expected.insert(key("admin", path), stage.witness(&extract)?);
    let current = "/var/lib/kubelet/pki/kubelet-client-current.pem";
    let user = format!("    client-certificate: {current}\n    client-key: {current}\n");
    stage.write("/etc/kubernetes/kubelet.conf", &kubeconfig(&user))?;
    let scheduler = "/etc/kubernetes/own.pem";
    let pair = stage.authority.issue("/CN=system:kube-scheduler", "DNS:a", -HOUR, 2 * DAY)?;
    stage.write(scheduler, &pair.certificate)?;
    stage.write("/etc/kubernetes/scheduler.conf", &kubeconfig("    client-certificate: own.pem\n"))?;
    expected.insert(key("scheduler", scheduler), stage.of_file(scheduler)?);

    let agent = stage.agent(&["--certificate.paths=/srv/own.pem", "--collector.certificate=on"])?;
    wait_shown(&agent, &expected, SOON)?;
    println!("{} certificates like openssl", expected.len());
    assert_eq!(support(&agent)?, ("supported".to_owned(), String::new()));
    assert_eq!(agent.scrape()?.count("leadline_certificate_omitted", &[]), Some(0));
    stage.lab.shutdown()
}

#[test]
fn the_end_of_a_certificate_is_an_event_at_its_second() -> Result<()> {
    let stage = Stage::new()?;
    let (path, gone) = (format!("{PKI}/apiserver.crt"), format!("{PKI}/front-proxy-client.crt"));
    let expired = stage.authority.issue("/CN=front-proxy-client", "DNS:a", -DAY, -HOUR)?;
    stage.write(&gone, &expired.certificate)?;
    let agent = stage.agent(&[])?;
    let pair = stage.authority.issue("/CN=kube-apiserver", "DNS:a", -DAY, 18)?;
    stage.write(&path, &pair.certificate)?;
    let (end, expired_end) = (stage.of_file(&path)?.1, stage.of_file(&gone)?.1);
    let event = wait_event(&agent, "certificate_expired", &path, Duration::from_secs(40))?;
    let late = u64::try_from(now()?)? - end;
    println!("told {late} s after the second at which it ended");
    ensure!(late <= 3, "told {late} s late");
    assert_eq!(event["time"], written(end)?);
    assert_eq!(event["details"]["not_after"], written(end)?);
    assert_eq!(event["details"]["purpose"], "apiserver");
    // It stays on the page. One that had ended before the agent came is there as well, and no event.
    let shown = shown(&agent)?;
    let after = |purpose: &str, path: &str| shown.get(&key(purpose, path)).map(|times| times.1);
    assert_eq!(after("apiserver", &path), Some(end));
    assert_eq!(after("front_proxy_client", &gone), Some(expired_end));
    assert_eq!(events(&agent, "certificate_expired")?.len(), 1);
    stage.lab.shutdown().context("shut the lab down")
}
