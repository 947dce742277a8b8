//! Services behind virtual addresses, as the configuration names them.

use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;

/// The port of the Kubernetes API, which speaks HTTPS.
pub const API_PORT: u16 = 6443;

/// What a service must do to be called reachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProbeKind {
    /// Accept a connection.
    Tcp,
    /// Shake hands for TLS.
    Tls,
    /// Answer `GET /readyz`.
    Https,
}

impl ProbeKind {
    /// What is expected of a port of which nothing is said.
    #[must_use]
    pub const fn of_port(port: u16) -> Self {
        if port == API_PORT { Self::Https } else { Self::Tcp }
    }
}

/// A service to probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// The virtual address.
    pub address: IpAddr,
    /// The port. Default: 6443.
    #[serde(default = "api_port", deserialize_with = "super::value::read_port")]
    pub port: u16,
    /// What it must do. Default: https for port 6443, else tcp.
    #[serde(default)]
    pub kind: Option<ProbeKind>,
}

const fn api_port() -> u16 {
    API_PORT
}

impl Service {
    /// What it must do.
    #[must_use]
    pub fn kind(&self) -> ProbeKind {
        self.kind.unwrap_or(ProbeKind::of_port(self.port))
    }
}

/// A service as one word: `KIND://IP:PORT`.
///
/// # Errors
/// When it is not of that form.
pub fn service(text: &str) -> Result<Service, String> {
    let example = "write tcp, tls or https://IP:PORT such as https://192.0.2.1:6443";
    let (kind, place) = text.split_once("://").ok_or_else(|| format!("`{text}`: {example}"))?;
    let kind = match kind {
        "tcp" => ProbeKind::Tcp,
        "tls" => ProbeKind::Tls,
        "https" => ProbeKind::Https,
        _ => return Err(format!("`{kind}` is no kind of probe: {example}")),
    };
    let place: Option<SocketAddr> = place.parse().ok().filter(|place: &SocketAddr| place.port() > 0);
    let place = place.ok_or_else(|| format!("`{text}`: {example}"))?;
    Ok(Service { address: place.ip(), port: place.port(), kind: Some(kind) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_one_word() {
        let expected =
            Service { address: "2001:db8::1".parse().unwrap(), port: 443, kind: Some(ProbeKind::Tls) };
        assert_eq!(service("tls://[2001:db8::1]:443"), Ok(expected));
        for wrong in [
            "192.0.2.1:6443",
            "http://192.0.2.1:80",
            "https://host:6443",
            "https://192.0.2.1",
            "tcp://192.0.2.1:0",
        ] {
            assert!(service(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn port_0_is_none() {
        assert!(serde_yaml_ng::from_str::<Service>("{address: 192.0.2.1, port: 0}").is_err());
    }

    #[test]
    fn the_port_of_the_api_must_speak_https_and_others_accept() {
        let read = |text: &str| serde_yaml_ng::from_str::<Service>(text).unwrap().kind();
        assert_eq!(read("{address: 192.0.2.1}"), ProbeKind::Https);
        assert_eq!(read("{address: 192.0.2.1, port: 443}"), ProbeKind::Tcp);
        assert_eq!(read("{address: 192.0.2.1, port: 443, kind: tls}"), ProbeKind::Tls);
    }
}
