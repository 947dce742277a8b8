//! An authority that issues certificates for any time: `openssl ca`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use lab::{process, tools};

pub(crate) const HOUR: i64 = 3_600;
pub(crate) const DAY: i64 = 24 * HOUR;

const CONFIG: &str = "
[ca]
default_ca = own
[own]
database = index.txt
new_certs_dir = .
certificate = ca.crt
private_key = ca.key
rand_serial = yes
default_md = sha256
unique_subject = no
policy = any
copy_extensions = copy
[any]
commonName = supplied
organizationName = optional
";

/// Seconds since 1970.
pub(crate) fn now() -> Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?)
}

/// A key and a certificate, as PEM.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

pub(crate) struct Authority {
    directory: PathBuf,
}

impl Authority {
    pub(crate) fn new(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        fs::write(directory.join("ca.cnf"), CONFIG)?;
        fs::write(directory.join("index.txt"), "")?;
        let authority = Self { directory: directory.to_owned() };
        let subject = ["-subj", "/CN=ca", "-days", "3650", "-out", "ca.crt", "-keyout", "ca.key"];
        authority.openssl(&[&["req", "-x509"], KEY, &subject].concat())?;
        Ok(authority)
    }

    fn openssl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(tools::require("openssl")?);
        process::run(command.args(arguments).current_dir(&self.directory))
    }

    fn read(&self, name: &str) -> Result<String> {
        fs::read_to_string(self.directory.join(name)).with_context(|| name.to_owned())
    }

    /// The authority's own certificate.
    pub(crate) fn own(&self) -> Result<String> {
        self.read("ca.crt")
    }

    /// A certificate that is good from that many seconds from now, to that many.
    pub(crate) fn issue(&self, subject: &str, names: &str, from: i64, to: i64) -> Result<Pair> {
        let names = format!("subjectAltName={names}");
        let request = ["-subj", subject, "-addext", &names, "-out", "one.csr", "-keyout", "one.key"];
        self.openssl(&[&["req"], KEY, &request].concat())?;
        let now = now()?;
        let date = |seconds: i64| {
            let date = process::run(Command::new("date").args([
                "-u",
                "-d",
                &format!("@{seconds}"),
                "+%Y%m%d%H%M%SZ",
            ]));
            date.map(|date| date.trim().to_owned())
        };
        let (from, to) = (date(now + from)?, date(now + to)?);
        let files = ["-in", "one.csr", "-out", "one.crt"];
        let times = ["-startdate", &from, "-enddate", &to];
        self.openssl(&[&["ca", "-batch", "-notext", "-config", "ca.cnf"], &files[..], &times].concat())?;
        Ok(Pair { certificate: self.read("one.crt")?, key: self.read("one.key")? })
    }
}

const KEY: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
