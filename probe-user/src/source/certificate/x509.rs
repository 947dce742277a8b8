//! What a certificate says of itself, as far as it is compared and shown.

use std::collections::BTreeSet;

use x509_cert::certificate::{CertificateInner, Raw, TbsCertificateInner};
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Encode as _};
use x509_cert::ext::pkix::{BasicConstraints, SubjectAltName};

/// No certificate is longer: TLS has 16 bits for what carries it, and each one is kept in memory.
const LONGEST: usize = 64 << 10;
/// The extension `basicConstraints`.
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
/// The extension `subjectAltName`.
const ALTERNATIVE_NAMES: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");

/// Why something is not a certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum X509Error {
    /// It is too long.
    #[error("a certificate of {0} bytes is longer than any server can show")]
    TooLong(usize),
    /// It is not X.509.
    #[error("no X.509 certificate: {0}")]
    Malformed(x509_cert::der::Error),
}

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    der: Box<[u8]>,
    /// From when it is good, in seconds since 1970.
    pub not_before: u64,
    /// Until when it is good, in seconds since 1970.
    pub not_after: u64,
    /// Whose it is, as RFC 4514 writes it.
    pub subject: String,
    /// Who issued it, as RFC 4514 writes it.
    pub issuer: String,
    /// The alternative names, each as it is encoded.
    pub names: BTreeSet<Box<[u8]>>,
    /// Whether it issues others.
    pub is_ca: bool,
}

impl Certificate {
    /// Reads a certificate. Those that break the rules of RFC 5280, such as a serial number of more than twenty bytes,
    /// are read like others; an extension that cannot be read is none.
    ///
    /// # Errors
    /// When it is none, or too long.
    pub fn read(der: &[u8]) -> Result<Self, X509Error> {
        if der.len() > LONGEST {
            return Err(X509Error::TooLong(der.len()));
        }
        let body = CertificateInner::<Raw>::from_der(der).map_err(X509Error::Malformed)?.tbs_certificate;
        let names = extension::<SubjectAltName>(&body, ALTERNATIVE_NAMES).map(|names| names.0);
        let encoded =
            names.unwrap_or_default().iter().filter_map(|name| name.to_der().ok()).collect::<Vec<_>>();
        Ok(Self {
            der: der.into(),
            not_before: body.validity.not_before.to_unix_duration().as_secs(),
            not_after: body.validity.not_after.to_unix_duration().as_secs(),
            subject: body.subject.to_string(),
            issuer: body.issuer.to_string(),
            names: encoded.into_iter().map(Vec::into_boxed_slice).collect(),
            is_ca: extension::<BasicConstraints>(&body, BASIC_CONSTRAINTS).is_some_and(|basic| basic.ca),
        })
    }

    /// Whether both are one and the same, byte by byte.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

fn extension<'a, T: Decode<'a>>(body: &'a TbsCertificateInner<Raw>, id: ObjectIdentifier) -> Option<T> {
    let found = body.extensions.as_ref()?.iter().find(|extension| extension.extn_id == id)?;
    T::from_der(found.extn_value.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_and_names_of_a_certificate_are_read() {
        let plain = Certificate::read(include_bytes!("../vip_probe/certificate.der")).unwrap();
        assert_eq!(plain.not_after, 1_798_859_045);
        assert!(plain.not_before < plain.not_after && plain.subject.starts_with("CN="), "{plain:?}");
        // From 2050 on times are written differently, and this one has a serial number of 24 bytes.
        let odd = Certificate::read(include_bytes!("../vip_probe/certificate-long-serial.der")).unwrap();
        assert_eq!(odd.not_after, 2_556_241_445);
        assert!(plain.is_same(&plain) && !plain.is_same(&odd));
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        for garbage in [&[][..], &[0x30, 0x03, 0x02, 0x01, 0x01], b"-----BEGIN CERTIFICATE-----"] {
            assert!(matches!(Certificate::read(garbage), Err(X509Error::Malformed(_))), "{garbage:?}");
        }
        assert_eq!(Certificate::read(&vec![0; LONGEST + 1]), Err(X509Error::TooLong(65_537)));
    }

    #[test]
    fn every_cut_of_a_certificate_is_refused() {
        let whole = include_bytes!("../vip_probe/certificate.der");
        for end in 0..whole.len() {
            assert!(Certificate::read(&whole[..end]).is_err(), "{end}");
        }
    }
}
