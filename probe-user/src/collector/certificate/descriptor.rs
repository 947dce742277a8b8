//! The families of certificates.

use crate::metric::{Descriptor, Kind, Profile};

/// Until when a certificate is good.
pub(super) static NOT_AFTER: Descriptor = Descriptor {
    name: "leadline_certificate_not_after_timestamp_seconds",
    kind: Kind::Gauge,
    unit: Some("seconds"),
    help: "Until when a certificate is good. The location is the path of a file, of which the first certificate counts, or the address of this node's server that shows it: the two differ from a renewal to the restart of a server that does not read its file again. Of the usual places of kubeadm, k3s, RKE2 and kubelets, and of certificate.paths and certificate.ports; purpose by the name of the file or the port, other where neither says it.",
    labels: &["purpose", "location"],
    profile: Profile::Minimal,
    source: "notAfter of RFC 5280 4.1.2.5, of files and of the TLS handshake",
    witness: "`openssl x509 -enddate` of the file, `openssl s_client` of the server: difference 0",
};

/// From when a certificate is good.
pub(super) static NOT_BEFORE: Descriptor = Descriptor {
    name: "leadline_certificate_not_before_timestamp_seconds",
    help: "From when a certificate is good, which is about when it was issued. Purpose and location as with leadline_certificate_not_after_timestamp_seconds.",
    source: "notBefore of RFC 5280 4.1.2.5, of files and of the TLS handshake",
    witness: "`openssl x509 -startdate` of the file, `openssl s_client` of the server: difference 0",
    ..NOT_AFTER
};

/// Whether a server shows an old certificate.
pub(super) static STALE: Descriptor = Descriptor {
    name: "leadline_certificate_served_stale",
    unit: None,
    help: "1 while a server of this node shows another certificate than its file has, and the one in the file was issued later: it was renewed, and the server needs a restart before the old one ends. 0 where they are the same, or the file has no later one. Compared are files of the same purpose (on other ports than those of Kubernetes and etcd, of the same issuer), of the same subject, that have all names of the served one; absent where there is none.",
    source: "certificates of files and of the TLS handshake, compared byte by byte",
    witness: "digest by `openssl x509 -fingerprint` of the file and of `openssl s_client`, before and after a restart",
    ..NOT_AFTER
};

/// Files that are left out.
pub(super) static OMITTED: Descriptor = Descriptor {
    name: "leadline_certificate_omitted",
    unit: None,
    help: "Files that may have a certificate and are not read, since there are more than 256 of them.",
    labels: &[],
    source: "directory listings",
    witness: "number of files that a test made: difference 0",
    ..NOT_AFTER
};

/// What the collector describes.
pub static DESCRIPTORS: &[&Descriptor] = &[&NOT_AFTER, &NOT_BEFORE, &STALE, &OMITTED];
