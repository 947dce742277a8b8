//! What servers show: real etcd, which wants to see a certificate of its clients and reads its own anew for each of
//! them, and openssl, which reads its own once, as most servers of Kubernetes do.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use lab::service::Service;
use lab::{Place as _, tools, wait_until};

use crate::authority::DAY;
use crate::stage::{
    Key, SOON, Stage, Times, events, key, s_client, shown, stale, wait_event, wait_shown, written,
};

const PKI: &str = "/etc/kubernetes/pki";
const START: Duration = Duration::from_secs(20);
/// Servers are asked once a minute.
const MINUTE: Duration = Duration::from_secs(85);

impl Stage {
    fn wait_accepts(&self, service: &mut Service, address: SocketAddr) -> Result<()> {
        let node = self.node()?;
        let accepts = || matches!(node.net(|| TcpStream::connect(address)), Ok(Ok(_)));
        service.wait_until("the server to accept", START, accepts)
    }

    /// A server with `NAME.crt` and `NAME.key` of the directory.
    fn server(&self, name: &str, port: u16, more: &[&str]) -> Result<Service> {
        let mut command = Command::new(tools::require("openssl")?);
        command.args(["s_server", "-4", "-accept", &port.to_string(), "-www", "-quiet"]).args(more);
        command.args(["-cert", &format!("{PKI}/{name}.crt"), "-key", &format!("{PKI}/{name}.key")]);
        let mut service = self.node()?.service(name, &mut command)?;
        self.wait_accepts(&mut service, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port))?;
        Ok(service)
    }

    /// A member of etcd as kubeadm starts it: clients on the loopback, peers on the node's address.
    fn etcd(&self, own: IpAddr, demands: &[&str]) -> Result<Service> {
        let peers = format!("https://{own}:2380");
        let mut command = Command::new(tools::require("etcd")?);
        command.args(["--name=one", "--data-dir=/var/lib/etcd"]).args(demands);
        command.args([
            "--listen-client-urls=https://127.0.0.1:2379",
            "--advertise-client-urls=https://127.0.0.1:2379",
        ]);
        command.arg(format!("--listen-peer-urls={peers}")).arg(format!("--initial-cluster=one={peers}"));
        command.arg(format!("--initial-advertise-peer-urls={peers}"));
        for (flag, name) in [("", "server"), ("peer-", "peer")] {
            command.arg(format!("--{flag}cert-file={PKI}/etcd/{name}.crt"));
            command.arg(format!("--{flag}key-file={PKI}/etcd/{name}.key"));
        }
        let mut service = self.node()?.service("etcd", &mut command)?;
        self.wait_accepts(&mut service, "127.0.0.1:2379".parse()?)?;
        Ok(service)
    }
}

/// Everything that is to be on the page, as openssl sees it now.
fn expected(stage: &Stage, files: &[(&str, &str)], servers: &[(&str, &str)]) -> Result<BTreeMap<Key, Times>> {
    let files = files.iter().map(|(purpose, name)| {
        let path = format!("{PKI}/{name}.crt");
        Ok((key(purpose, &path), stage.of_file(&path)?))
    });
    let servers =
        servers.iter().map(|(purpose, address)| Ok((key(purpose, address), stage.of_server(address)?)));
    files.chain(servers).collect()
}

const FILES: [(&str, &str); 5] = [
    ("etcd_ca", "etcd/ca"),
    ("etcd_server", "etcd/server"),
    ("etcd_peer", "etcd/peer"),
    ("apiserver", "apiserver"),
    ("other", "kubelet-own"),
];

/// The first certificates, a day old.
fn issue(stage: &Stage, own: IpAddr) -> Result<()> {
    stage.write(&format!("{PKI}/etcd/ca.crt"), &stage.authority.own()?)?;
    let names = format!("DNS:node1,IP:127.0.0.1,IP:{own}");
    for (at, name) in (1..).zip(["etcd/server", "etcd/peer", "apiserver", "kubelet-own"]) {
        let subject = if name == "apiserver" { "/CN=kube-apiserver" } else { "/CN=node1" };
        stage
            .write_pair(&format!("{PKI}/{name}"), &stage.authority.issue(subject, &names, -DAY, at * DAY)?)?;
    }
    Ok(())
}

/// Servers that show them.
fn start(stage: &Stage, own: IpAddr) -> Result<(Service, Service, Service)> {
    issue(stage, own)?;
    let ca = format!("{PKI}/etcd/ca.crt");
    let authorities = [format!("--trusted-ca-file={ca}"), format!("--peer-trusted-ca-file={ca}")];
    let demands = ["--client-cert-auth", "--peer-client-cert-auth", &authorities[0], &authorities[1]];
    let etcd = stage.etcd(own, &demands)?;
    // One refuses us within the handshake of TLS 1.2, etcd after that of TLS 1.3, the third not at all.
    let apiserver = stage.server("apiserver", 6443, &["-tls1_2", "-Verify", "1"])?;
    let kubelet = stage.server("kubelet-own", 10250, &[])?;
    Ok((etcd, apiserver, kubelet))
}

#[test]
fn a_renewed_certificate_is_stale_until_its_server_starts_again_and_never_with_etcd() -> Result<()> {
    let stage = Stage::new()?;
    let own = stage.node()?.address(false)?;
    let (etcd, mut apiserver, _kubelet) = start(&stage, own)?;
    let peer = format!("{own}:2380");
    let servers = [
        ("etcd_server", "127.0.0.1:2379"),
        ("etcd_peer", peer.as_str()),
        ("apiserver", "127.0.0.1:6443"),
        ("kubelet_server", "127.0.0.1:10250"),
    ];
    let agent = stage.agent(&[])?;
    wait_shown(&agent, &expected(&stage, &FILES, &servers)?, SOON)?;
    for (purpose, address) in servers {
        assert_eq!(stale(&agent, purpose, address)?, Some(0), "{address}");
    }
    let old = stage.of_server("127.0.0.1:6443")?;

    // `kubeadm certs renew`, and nobody restarts anything.
    let names = format!("DNS:node1,IP:127.0.0.1,IP:{own}");
    for (name, subject) in [("etcd/server", "/CN=node1"), ("apiserver", "/CN=kube-apiserver")] {
        stage.write_pair(&format!("{PKI}/{name}"), &stage.authority.issue(subject, &names, 0, 365 * DAY)?)?;
    }
    let renewed = Instant::now();
    wait_until("the gauge of the API server", SOON, || {
        stale(&agent, "apiserver", "127.0.0.1:6443").is_ok_and(|stale| stale == Some(1))
    })?;
    println!("stale after {:.1} s", renewed.elapsed().as_secs_f64());
    wait_shown(&agent, &expected(&stage, &FILES, &servers)?, MINUTE)?;
    let digests = |path: &str, address: &str| -> Result<bool> {
        Ok(stage.digest(&format!("cat {PKI}/{path}.crt"))? == stage.digest(&s_client(address))?)
    };
    assert!(!digests("apiserver", "127.0.0.1:6443")? && digests("etcd/server", "127.0.0.1:2379")?);

    let new = stage.of_file(&format!("{PKI}/apiserver.crt"))?;
    let event = wait_event(&agent, "certificate_rotated", &format!("{PKI}/apiserver.crt"), SOON)?;
    assert_eq!(event["details"]["old_not_after"], written(old.1)?);
    assert_eq!(event["details"]["new_not_after"], written(new.1)?);
    let event = wait_event(&agent, "certificate_renewed_not_served", "127.0.0.1:6443", MINUTE)?;
    println!("told after {:.1} s", renewed.elapsed().as_secs_f64());
    assert_eq!(event["details"]["file"], format!("{PKI}/apiserver.crt"));
    assert_eq!(event["details"]["served_not_after"], written(old.1)?);
    assert_eq!(event["details"]["file_not_after"], written(new.1)?);
    assert_eq!(stale(&agent, "etcd_server", "127.0.0.1:2379")?, Some(0));

    apiserver.kill()?;
    drop(apiserver);
    let _apiserver = stage.server("apiserver", 6443, &["-tls1_2", "-Verify", "1"])?;
    let event = wait_event(&agent, "certificate_renewed_served", "127.0.0.1:6443", MINUTE)?;
    assert_eq!(event["details"]["served_not_after"], written(new.1)?);
    assert_eq!(stale(&agent, "apiserver", "127.0.0.1:6443")?, Some(0));
    assert_eq!(shown(&agent)?, expected(&stage, &FILES, &servers)?);
    assert!(digests("apiserver", "127.0.0.1:6443")?);

    let told = events(&agent, "certificate_renewed_not_served")?;
    assert_eq!(told.len(), 1, "{told:#?}");
    let log = etcd.log()?;
    for line in log.lines().filter(|line| line.contains("rejected connection")) {
        println!("{line}");
    }
    stage.lab.shutdown().context("shut the lab down")
}

#[test]
fn a_server_that_takes_every_client_has_nothing_to_complain_of() -> Result<()> {
    let stage = Stage::new()?;
    let own = stage.node()?.address(false)?;
    issue(&stage, own)?;
    let etcd = stage.etcd(own, &[])?;
    let peer = format!("{own}:2380");
    let agent = stage.agent(&[])?;
    let servers = [("etcd_server", "127.0.0.1:2379"), ("etcd_peer", peer.as_str())];
    wait_shown(&agent, &expected(&stage, &FILES, &servers)?, SOON)?;
    // A second time, since a file has changed.
    stage.write_pair(
        &format!("{PKI}/apiserver"),
        &stage.authority.issue("/CN=kube-apiserver", "DNS:a", 0, DAY)?,
    )?;
    wait_event(&agent, "certificate_rotated", &format!("{PKI}/apiserver.crt"), SOON)?;
    wait_shown(&agent, &expected(&stage, &FILES, &servers)?, SOON)?;
    let log = etcd.log()?;
    // Who only looks whether somebody listens, as this test did, is an end of file.
    let complaints = log.lines().filter(|line| line.contains("rejected") && !line.contains("\"EOF\""));
    assert_eq!(complaints.collect::<Vec<_>>(), Vec::<&str>::new());
    stage.lab.shutdown().context("shut the lab down")
}
