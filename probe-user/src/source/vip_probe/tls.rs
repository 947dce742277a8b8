//! TLS as an observer wants it: whoever answers is listened to, and its certificate is read.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConnection, Resumption};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use crate::source::certificate::Certificate;

/// The certificate that a server has shown for itself, whatever becomes of the handshake after that.
pub(super) type Shown = Arc<OnceLock<CertificateDer<'static>>>;

/// Every certificate and every signature is accepted.
#[derive(Debug)]
struct AcceptAll {
    provider: CryptoProvider,
    /// Where the certificate is left, if somebody asks for it.
    shown: Option<Shown>,
}

impl ServerCertVerifier for AcceptAll {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(shown) = &self.shown {
            shown.get_or_init(|| end_entity.clone().into_owned());
        }
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
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// How a probe speaks TLS, and where it leaves the certificate that it is shown.
///
/// # Errors
/// When the library refuses its own defaults.
pub(in crate::source) fn config(shown: Option<Shown>) -> Result<ClientConfig, Error> {
    let provider = ring::default_provider();
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider.clone()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AcceptAll { provider, shown }))
        .with_no_client_auth();
    // A resumed session shows the certificate of the first one, however long ago that was.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// When the certificate ends that the server has shown for itself, in seconds since 1970.
pub(super) fn not_after(connection: &ClientConnection) -> Option<u64> {
    let shown = connection.peer_certificates()?.first()?;
    Certificate::read(shown).ok().map(|certificate| certificate.not_after)
}
