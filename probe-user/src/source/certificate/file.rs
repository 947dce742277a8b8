//! Reads one file with certificates, and no more of it than is needed.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject as _};
use zeroize::Zeroizing;

use super::kubeconfig::{self, Identity};
use super::x509::{Certificate, X509Error};

/// What is read of a file.
const LONGEST: u64 = 1 << 20;

/// Why a file gave no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The system refuses.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is a directory, a device or a pipe.
    #[error("is no regular file")]
    NotAFile,
    /// It is too long.
    #[error("is longer than 1 MiB")]
    TooLong,
    /// It is no text of that form.
    #[error("is not PEM: {0}")]
    Pem(pem::Error),
    /// There is none in it.
    #[error("has no certificate")]
    Empty,
    /// What it has is none.
    #[error(transparent)]
    X509(#[from] X509Error),
    /// It is no kubeconfig.
    #[error("is no kubeconfig: {0}")]
    Kubeconfig(#[from] kubeconfig::Malformed),
}

/// How a file holds its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// PEM, the certificate first.
    Pem,
    /// A kubeconfig.
    Kubeconfig,
}

/// What a file was when it was read: another file, or another content, is told by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp([i128; 7]);

impl Stamp {
    /// Of what is at the end of all links.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let found = std::fs::metadata(path)?;
        Ok(Self([
            found.dev().into(),
            found.ino().into(),
            found.size().into(),
            found.mtime().into(),
            found.mtime_nsec().into(),
            found.ctime().into(),
            found.ctime_nsec().into(),
        ]))
    }
}

/// What a file holds.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// A certificate.
    Here(Arc<Certificate>),
    /// The path of a file that does.
    At(String),
    /// Another way to log in.
    Nothing,
}

/// Reads a file.
pub(super) fn read(path: &Path, form: Form) -> Result<Content, Fault> {
    let bytes = read_bytes(path)?;
    match form {
        Form::Pem => first(&bytes),
        Form::Kubeconfig => match kubeconfig::identity(&bytes)? {
            Identity::Pem(pem) => first(&pem),
            Identity::At(path) => Ok(Content::At(path)),
            Identity::None => Ok(Content::Nothing),
        },
    }
}

/// The first certificate: the others of a file are those that issued it. What comes before it is passed over.
fn first(bytes: &[u8]) -> Result<Content, Fault> {
    let first = CertificateDer::pem_slice_iter(bytes).next();
    let der = first.ok_or(Fault::Empty)?.map_err(Fault::Pem)?;
    Ok(Content::Here(Arc::new(Certificate::read(&der)?)))
}

/// The bytes of a regular file, which may have a key among them.
fn read_bytes(path: &Path) -> Result<Zeroizing<Vec<u8>>, Fault> {
    // Opening a pipe would wait for somebody to write to it.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(Fault::NotAFile);
    }
    if found.len() > LONGEST {
        return Err(Fault::TooLong);
    }
    // A buffer that grew would leave a copy behind that is not wiped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(found.len()).unwrap_or(0) + 64));
    file.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST {
        return Err(Fault::TooLong);
    }
    Ok(bytes)
}
