//! What can go wrong between the agent and etcd, and how a failure inside the client library is told apart.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::Error as ClientError;
use rustls::CertificateError;

use super::CredentialError;

/// gRPC's code of a call that ran out of time (`DEADLINE_EXCEEDED`).
const DEADLINE_EXCEEDED: i32 = 4;
/// gRPC's code of a call that the user may not make (`PERMISSION_DENIED`).
const PERMISSION_DENIED: i32 = 7;
/// gRPC's code of a call that cannot be served now (`UNAVAILABLE`).
const UNAVAILABLE: i32 = 14;
/// gRPC's code of a call without a user (`UNAUTHENTICATED`).
const UNAUTHENTICATED: i32 = 16;

/// How the TLS library begins when the other side ends a connection with an alert.
const ALERT: &str = "received fatal alert: ";

/// Why there is no answer: who was asked, and what happened.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{endpoint}")]
pub struct AskError {
    /// Who was asked.
    pub endpoint: String,
    /// What happened.
    #[source]
    pub cause: Cause,
}

/// What happened instead of an answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Cause {
    /// Nobody listens there.
    #[error("nobody listens")]
    Refused,
    /// No answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
    /// The name has no address, or no way leads there.
    #[error("there is no way to it")]
    Unreachable(#[source] Arc<io::Error>),
    /// Its certificate was not signed by the CA of the agent.
    #[error("its certificate was signed by another CA than that of the agent's client certificate")]
    OtherCa,
    /// Its certificate does not name this address.
    #[error("its certificate is not for this address")]
    OtherName,
    /// Its certificate is not valid now.
    #[error("its certificate has expired or is not valid yet")]
    ServerExpired,
    /// It does not accept the client certificate.
    #[error("it refuses the agent's client certificate ({0}): it has expired, or another CA has signed it")]
    ClientRefused(String),
    /// It closes the connection: it has just ended, or it does not take the client certificate and says no more.
    #[error("it closes the connection")]
    Closed,
    /// The certificate or the key cannot be used.
    #[error("the client certificate cannot be used")]
    Credentials(#[from] CredentialError),
    /// Any other failure of TLS.
    #[error("TLS failed")]
    Tls(#[source] rustls::Error),
    /// Another member than the list says answers here.
    #[error("another member answers here")]
    OtherMember,
    /// A learner, or a member without a quorum, does not serve this.
    #[error("it does not serve this now: {0}")]
    Unserved(String),
    /// The user of the certificate may not do this.
    #[error("the user of the certificate may not read")]
    Denied,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl Cause {
    /// What an error of the client library means.
    #[must_use]
    pub fn of(error: &ClientError, patience: Duration) -> Self {
        let (root, code, message): (&(dyn Error + 'static), _, _) = match error {
            ClientError::GRpcStatus(status) => (status, Some(i32::from(status.code())), status.message()),
            ClientError::TransportError(error) => (error, None, ""),
            ClientError::IoError(error) => return Self::of_io(error),
            other => return Self::Other(other.to_string()),
        };
        let found = causes(root).find_map(|cause| Self::of_cause(cause, patience));
        match (found, code) {
            (Some(cause), _) => cause,
            (None, Some(DEADLINE_EXCEEDED)) => Self::Late(patience),
            (None, Some(PERMISSION_DENIED | UNAUTHENTICATED)) => Self::Denied,
            (None, Some(UNAVAILABLE)) if message.starts_with("etcdserver: ") => {
                Self::Unserved(message.to_owned())
            }
            (None, Some(_)) if message.contains("learner") || message.starts_with("etcdserver: ") => {
                Self::Unserved(message.to_owned())
            }
            _ => Self::Other(causes(root).map(ToString::to_string).collect::<Vec<_>>().join(": ")),
        }
    }

    fn of_cause(cause: &(dyn Error + 'static), patience: Duration) -> Option<Self> {
        if let Some(error) = cause.downcast_ref::<rustls::Error>() {
            return Some(Self::of_tls(error));
        }
        let error = cause.downcast_ref::<io::Error>()?;
        if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Some(Self::of_tls(error));
        }
        Some(match error.kind() {
            io::ErrorKind::TimedOut => Self::Late(patience),
            // Below HTTP/2 only the words of the error are left.
            io::ErrorKind::InvalidData => Self::of_words(&error.to_string()),
            _ => Self::of_io(error),
        })
    }

    fn of_words(words: &str) -> Self {
        match words.split_once(ALERT) {
            Some((_, alert)) => Self::ClientRefused(alert.to_owned()),
            None => Self::Other(words.to_owned()),
        }
    }

    fn of_io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionAborted => Self::Closed,
            // What lies in the chain is borrowed, and an error of the system cannot be cloned.
            _ => Self::Unreachable(Arc::new(match error.raw_os_error() {
                Some(number) => io::Error::from_raw_os_error(number),
                None => io::Error::new(error.kind(), error.to_string()),
            })),
        }
    }

    fn of_tls(error: &rustls::Error) -> Self {
        use rustls::Error as Tls;
        match error {
            Tls::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
                Self::OtherCa
            }
            Tls::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => Self::OtherName,
            Tls::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            ) => Self::ServerExpired,
            Tls::AlertReceived(alert) => Self::ClientRefused(format!("{alert:?}")),
            other => Self::Tls(other.clone()),
        }
    }

    /// A short fixed phrase, the value of the `reason` label.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Late(_) => "late",
            Self::Unreachable(_) => "unreachable",
            Self::OtherCa => "other_ca",
            Self::OtherName => "other_name",
            Self::ServerExpired => "server_certificate_expired",
            Self::ClientRefused(_) => "client_certificate_refused",
            Self::Closed => "closed",
            Self::Credentials(_) => "client_certificate_unusable",
            Self::Tls(_) => "tls",
            Self::OtherMember => "other_member",
            Self::Unserved(_) => "unserved",
            Self::Denied => "denied",
            Self::Other(_) => "other",
        }
    }

    /// Every value that [`Cause::as_str`] has.
    pub const REASONS: [&str; 14] = [
        "refused",
        "late",
        "unreachable",
        "other_ca",
        "other_name",
        "server_certificate_expired",
        "client_certificate_refused",
        "closed",
        "client_certificate_unusable",
        "tls",
        "other_member",
        "unserved",
        "denied",
        "other",
    ];

    /// Whether asking again soon is no use: nothing changes before somebody changes a certificate.
    #[must_use]
    pub const fn is_lasting(&self) -> bool {
        matches!(
            self,
            Self::OtherCa
                | Self::OtherName
                | Self::ServerExpired
                | Self::ClientRefused(_)
                | Self::Credentials(_)
                | Self::Tls(_)
        )
    }
}

/// An error and all that lies behind it.
fn causes<'a>(root: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(root), |&error| error.source())
}

#[cfg(test)]
mod tests {
    use rustls::AlertDescription;

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(500);

    fn of(error: impl Into<io::Error>) -> Cause {
        Cause::of_cause(&error.into(), PATIENCE).unwrap()
    }

    #[test]
    fn what_tls_says_is_told_apart() {
        use rustls::Error as Tls;
        let cause = |error: Tls| of(io::Error::new(io::ErrorKind::InvalidData, error)).as_str();
        assert_eq!(cause(Tls::InvalidCertificate(CertificateError::UnknownIssuer)), "other_ca");
        assert_eq!(cause(Tls::InvalidCertificate(CertificateError::NotValidForName)), "other_name");
        assert_eq!(cause(Tls::InvalidCertificate(CertificateError::Expired)), "server_certificate_expired");
        let alert = Tls::AlertReceived(AlertDescription::CertificateExpired);
        assert_eq!(cause(alert.clone()), "client_certificate_refused");
        // As it comes through HTTP/2: what the library writes must still be what is looked for.
        let words = io::Error::new(io::ErrorKind::InvalidData, alert.to_string());
        assert_eq!(of(words).as_str(), "client_certificate_refused");
        assert_eq!(of(io::Error::new(io::ErrorKind::InvalidData, "x")).as_str(), "other");
        assert_eq!(cause(Tls::DecryptError), "tls");
    }

    #[test]
    fn what_the_system_says_is_told_apart() {
        let cause = |kind: io::ErrorKind| of(kind).as_str();
        assert_eq!(cause(io::ErrorKind::ConnectionRefused), "refused");
        assert_eq!(cause(io::ErrorKind::TimedOut), "late");
        assert_eq!(cause(io::ErrorKind::BrokenPipe), "closed");
        let error = of(io::Error::from_raw_os_error(101));
        assert_eq!(error.as_str(), "unreachable");
        assert!(error.source().unwrap().to_string().contains("unreachable"));
    }

    #[test]
    fn only_certificates_are_waited_for() {
        assert!(Cause::OtherCa.is_lasting() && Cause::ServerExpired.is_lasting());
        assert!(!Cause::Refused.is_lasting() && !Cause::Late(PATIENCE).is_lasting());
    }
}
