//! Servers that speak TLS and are not ready, or not for everybody: real etcd, whose TLS and HTTP are those of the API
//! server.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use lab::keepalived::Spec;
use lab::{Certificate, Node, Place as _, Service, tools};

use crate::stage::{LIMIT, PORT, Stage};

/// An etcd that serves clients over TLS on all addresses of the node; the first one demands no certificate of them.
fn start_etcd(node: &Node, certificate: &Certificate, arguments: &[&str]) -> Result<Service> {
    let url = format!("https://0.0.0.0:{PORT}");
    let data = node.machine().scratch().join(format!("etcd-{}", arguments.len()));
    let mut command = Command::new(tools::require("etcd")?);
    command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
    command.arg("--data-dir").arg(data);
    command.arg("--cert-file").arg(certificate.certificate()).arg("--key-file").arg(certificate.key());
    command.args(arguments);
    let mut service = node.service("etcd", &mut command)?;
    let accepts = || status(node, certificate).is_ok() || arguments.len() > 1;
    service.wait_until("etcd to answer", LIMIT, accepts)?;
    Ok(service)
}

/// The status that openssl is answered with, which is told to make do with this certificate.
fn status(node: &Node, certificate: &Certificate) -> Result<u16> {
    let path = |path: &Path| path.to_str().map(str::to_owned).context("a path is no UTF-8");
    let client = format!(
        "printf 'GET /readyz HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n' |
         openssl s_client -quiet -ign_eof -connect {}:{PORT} -CAfile {} 2>/dev/null",
        node.address(false)?,
        path(certificate.certificate())?
    );
    let answer = node.run(&["sh", "-c", &client])?;
    let status =
        answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).with_context(|| answer.clone())?;
    status.parse().with_context(|| answer.clone())
}

#[test]
fn what_etcd_answers_is_told_by_its_status_and_its_refusal_by_tls() -> Result<()> {
    let lab = Stage::lab()?;
    let mut stage = Stage::new(&lab, &Spec::default())?;
    let node = lab.node(1)?;
    let certificate = Certificate::new(node, 30)?;
    let mut etcd = start_etcd(node, &certificate, &[])?;
    let status = status(node, &certificate)?;
    // Newer ones know the path, older ones do not.
    let result = if status == 200 { "ok" } else { "http_status" };
    println!("etcd answers {status}: {result}");
    stage.start_agents(&lab, &[])?;
    stage.wait("its answer", |_, page| {
        page.probes(result) >= Some(3) && page.reachable() == Some(u64::from(status == 200))
    })?;
    for index in 1..=4 {
        let page = stage.page(index)?;
        ensure!(page.not_after() == Some(certificate.not_after()?), "node{index}: {:?}", page.not_after());
        ensure!(
            page.phase("http").is_some_and(|(count, _)| count >= 3),
            "node{index}: {:?}",
            page.phase("http")
        );
    }
    etcd.kill()?;
    drop(etcd);
    let ca = certificate.certificate().to_str().context("a path is no UTF-8")?;
    let _etcd = start_etcd(node, &certificate, &["--client-cert-auth", "--trusted-ca-file", ca])?;
    stage
        .wait("its refusal", |_, page| page.probes("tls_failed") >= Some(3) && page.reachable() == Some(0))?;
    lab.shutdown()
}
