//! Certificates of Kubernetes and etcd on this node: those in files, found by path below an injectable root.
//!
//! Everything is bounded, and of a file only its first certificate is kept: keys that share the file are wiped with what
//! was read of it. What servers show is read by the probe of `vip_probe`, and by the same parser.

mod file;
mod kubeconfig;
mod place;
mod purpose;
mod scan;
mod x509;

pub use file::Fault;
pub use purpose::Purpose;
pub use scan::{FileFault, OnDisk, Reader, Scan};
pub use x509::{Certificate, X509Error};
