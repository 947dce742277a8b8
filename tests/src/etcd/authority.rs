//! Certificate authorities: openssl with a folder for each.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{process, tools};

/// When a certificate is good, in seconds from now on; both may lie in the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// When it begins.
    pub from: i64,
    /// When it ends.
    pub until: i64,
}

impl Validity {
    /// Ended an hour ago.
    pub const EXPIRED: Self = Self { from: -86_400, until: -3_600 };
    /// Begins in an hour.
    pub const FUTURE: Self = Self { from: 3_600, until: 86_400 };
}

impl Default for Validity {
    /// A year, as kubeadm and k3s have it, which began an hour ago.
    fn default() -> Self {
        Self { from: -3_600, until: 365 * 86_400 }
    }
}

/// Whom a certificate is for.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) name: String,
    /// What Kubernetes takes for its group.
    pub(crate) organization: Option<String>,
    pub(crate) dns: Vec<String>,
    pub(crate) addresses: Vec<IpAddr>,
}

impl Subject {
    /// Somebody who is known by that name, and at no address.
    pub(crate) fn client(name: &str) -> Self {
        Self { name: name.into(), organization: None, dns: Vec::new(), addresses: Vec::new() }
    }

    /// The same as one of a group.
    pub(crate) fn in_group(self, group: &str) -> Self {
        Self { organization: Some(group.into()), ..self }
    }

    /// Its distinguished name as openssl takes it.
    fn distinguished(&self) -> String {
        let group = self.organization.as_ref().map(|group| format!("/O={group}")).unwrap_or_default();
        format!("{group}/CN={}", self.name)
    }

    /// The extensions of its certificate in openssl's language. Each end of a peer connection is a client, too.
    fn extensions(&self) -> Result<String> {
        let mut text = "basicConstraints = critical, CA:FALSE\nkeyUsage = critical, digitalSignature\n\
            extendedKeyUsage = serverAuth, clientAuth\n"
            .to_owned();
        let dns = self.dns.iter().map(|name| format!("DNS:{name}"));
        let names: Vec<String> =
            dns.chain(self.addresses.iter().map(|address| format!("IP:{address}"))).collect();
        if !names.is_empty() {
            writeln!(text, "subjectAltName = {}", names.join(", "))?;
        }
        Ok(text)
    }
}

/// An authority. It is good for ten years.
#[derive(Clone, Debug)]
pub(crate) struct Authority {
    directory: PathBuf,
}

impl Authority {
    pub(crate) fn new(directory: PathBuf, name: &str) -> Result<Self> {
        fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        let authority = Self { directory };
        write(&authority.file("index.txt"), "")?;
        let mut command = openssl()?;
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
        command.args(["-subj", &format!("/CN={name}"), "-days", "3650"]);
        command.args(["-addext", "keyUsage=critical,digitalSignature,keyCertSign"]);
        command.arg("-out").arg(authority.certificate()).arg("-keyout").arg(authority.file("ca.key"));
        process::run(&mut command)?;
        Ok(authority)
    }

    /// Its own certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.file("ca.crt")
    }

    /// Writes a certificate for the key.
    pub(crate) fn sign(
        &self,
        subject: &Subject,
        key: &Path,
        validity: Validity,
        output: &Path,
    ) -> Result<()> {
        let request = self.file("request.csr");
        let mut command = openssl()?;
        command.args(["req", "-new", "-subj", &subject.distinguished(), "-key"]).arg(key);
        process::run(command.arg("-out").arg(&request))?;
        let config = self.file("openssl.cnf");
        write(&config, &self.config(subject)?)?;
        let mut command = openssl()?;
        command.args(["ca", "-batch", "-notext", "-config"]).arg(&config);
        command.args(["-startdate", &date(validity.from)?, "-enddate", &date(validity.until)?]);
        command.arg("-in").arg(&request).arg("-out").arg(output);
        process::run(&mut command).map(drop)
    }

    fn config(&self, subject: &Subject) -> Result<String> {
        Ok(format!(
            "[ca]\ndefault_ca = lab\n[lab]\ndir = {}\ndatabase = $dir/index.txt\nnew_certs_dir = $dir\n\
             certificate = $dir/ca.crt\nprivate_key = $dir/ca.key\nrand_serial = yes\nunique_subject = no\n\
             default_md = sha256\npolicy = names\nx509_extensions = leaf\n\
             [names]\norganizationName = optional\ncommonName = supplied\n[leaf]\n{}",
            self.directory.display(),
            subject.extensions()?
        ))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// Writes a new key.
pub(crate) fn new_key(output: &Path) -> Result<()> {
    let mut command = openssl()?;
    command.args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"]);
    process::run(command.arg(output)).map(drop)
}

fn openssl() -> Result<Command> {
    tools::require("openssl").map(Command::new)
}

/// A moment as openssl writes it.
fn date(from_now: i64) -> Result<String> {
    let moment = format!("{from_now} seconds");
    let said = process::run(Command::new("date").args(["--utc", "--date", &moment, "+%Y%m%d%H%M%SZ"]))?;
    Ok(said.trim().to_owned())
}

pub(crate) fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_without_names_has_no_alternative_names() {
        let mut subject = Subject::client("client");
        assert!(!subject.extensions().unwrap().contains("subjectAltName"));
        subject.dns.push("node1".into());
        subject.addresses.push("::1".parse().unwrap());
        assert!(subject.extensions().unwrap().ends_with("subjectAltName = DNS:node1, IP:::1\n"));
    }

    #[test]
    fn a_group_stands_before_the_name() {
        assert_eq!(Subject::client("node1").distinguished(), "/CN=node1");
        assert_eq!(Subject::client("node1").in_group("nodes").distinguished(), "/O=nodes/CN=node1");
    }

    #[test]
    fn moments_before_and_after_now_are_written_in_order() {
        let [past, future] = [-3_600, 3_600].map(|seconds| date(seconds).unwrap());
        assert!(past < future && past.len() == 15 && past.ends_with('Z'), "{past} {future}");
    }
}
