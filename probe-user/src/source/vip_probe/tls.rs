//! TLS as an observer wants it: whoever answers is listened to, and its certificate is read.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConnection, Resumption};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::Decode as _;

/// Every certificate and every signature is accepted.
#[derive(Debug)]
struct AcceptAll(CryptoProvider);

impl ServerCertVerifier for AcceptAll {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// How a probe speaks TLS.
///
/// # Errors
/// When the library refuses its own defaults.
pub(in crate::source) fn config() -> Result<ClientConfig, Error> {
    let provider = ring::default_provider();
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider.clone()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AcceptAll(provider)))
        .with_no_client_auth();
    // A resumed session shows the certificate of the first one, however long ago that was.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// When the certificate ends that the server has shown for itself.
pub(super) fn not_after(connection: &ClientConnection) -> Option<u64> {
    read_not_after(connection.peer_certificates()?.first()?)
}

/// In seconds since 1970. Certificates that break the rules of RFC 5280, such as a serial number of more than twenty
/// bytes, end like others.
fn read_not_after(der: &[u8]) -> Option<u64> {
    let certificate = CertificateInner::<Raw>::from_der(der).ok()?;
    Some(certificate.tbs_certificate.validity.not_after.to_unix_duration().as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_read() {
        assert_eq!(read_not_after(include_bytes!("certificate.der")), Some(1_798_859_045));
        // From 2050 on times are written differently, and this one has a serial number of 24 bytes.
        assert_eq!(read_not_after(include_bytes!("certificate-long-serial.der")), Some(2_556_241_445));
    }

    #[test]
    fn what_is_no_certificate_has_no_end() {
        assert_eq!(read_not_after(&[]), None);
        assert_eq!(read_not_after(&[0x30, 0x03, 0x02, 0x01, 0x01]), None);
    }
}
