//! The client certificate of etcd: which files, and what is in them.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// No certificate or key is longer.
const LONGEST: u64 = 1 << 20;

/// The files that a client of etcd needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The CA that has signed the certificates of the members.
    pub ca: PathBuf,
    /// The client certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// What is in the files, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Material {
    pub(super) ca: Vec<u8>,
    pub(super) certificate: Vec<u8>,
    pub(super) key: Vec<u8>,
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key is secret.
        f.debug_struct("Material").finish_non_exhaustive()
    }
}

/// Why a certificate cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CredentialError {
    /// A file cannot be read.
    #[error("{path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Arc<io::Error>,
    },
    /// Certificate and key, or the CA, are no PEM, or do not belong together.
    #[error("CA, certificate and key cannot be used together: {0}")]
    Unusable(String),
}

impl Credentials {
    /// Where they lie in `directory` by these names.
    pub(super) fn in_directory(directory: &Path, ca: &str, name: &str) -> Self {
        let file = |file: String| directory.join(file);
        Self {
            ca: file(ca.to_owned()),
            certificate: file(format!("{name}.crt")),
            key: file(format!("{name}.key")),
        }
    }

    /// Reads the files.
    ///
    /// # Errors
    /// When one of them cannot be read; the error names it.
    pub fn read(&self) -> Result<Material, CredentialError> {
        Ok(Material { ca: read(&self.ca)?, certificate: read(&self.certificate)?, key: read(&self.key)? })
    }

    /// Whether the certificate is there.
    pub(super) fn exist(&self) -> bool {
        fs::metadata(&self.certificate).is_ok_and(|metadata| metadata.is_file())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CredentialError> {
    let failed = |error| CredentialError::Read { path: path.to_owned(), source: Arc::new(error) };
    let file = File::open(path).map_err(failed)?;
    let mut content = Vec::new();
    file.take(LONGEST).read_to_end(&mut content).map_err(failed)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let credentials = Credentials::in_directory(Path::new("/nonexistent"), "ca.crt", "client");
        assert_eq!(credentials.read().unwrap_err().to_string(), "/nonexistent/ca.crt cannot be read");
        assert!(!credentials.exist());
    }
}
