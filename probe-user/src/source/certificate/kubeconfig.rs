//! The client certificate of a kubeconfig: in it, or the path of its file.

use base64ct::{Base64, Encoding as _};
use serde::Deserialize;
use zeroize::Zeroizing;

/// Why it could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// It is no YAML, or not of that form.
    #[error("{0}")]
    Yaml(#[from] serde_yaml_ng::Error),
    /// The certificate in it is not base64.
    #[error("client-certificate-data is not base64")]
    Base64,
}

/// How whoever uses the file says who it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// By this certificate, as PEM.
    Pem(Zeroizing<Vec<u8>>),
    /// By the certificate in this file.
    At(String),
    /// By something else.
    None,
}

/// The parts that are needed. Keys and tokens are not kept.
#[derive(Deserialize)]
struct Kubeconfig {
    #[serde(default, rename = "current-context")]
    current: String,
    #[serde(default)]
    contexts: Vec<Context>,
    #[serde(default)]
    users: Vec<User>,
}

#[derive(Deserialize)]
struct Context {
    name: String,
    context: ContextBody,
}

#[derive(Deserialize)]
struct ContextBody {
    #[serde(default)]
    user: String,
}

#[derive(Deserialize)]
struct User {
    name: String,
    user: UserBody,
}

#[derive(Deserialize)]
struct UserBody {
    #[serde(default, rename = "client-certificate-data")]
    data: Option<String>,
    #[serde(default, rename = "client-certificate")]
    path: Option<String>,
}

/// The identity of the user of the current context; of the first one where that is not said. Data goes before a path,
/// as with every client of Kubernetes.
pub(super) fn identity(bytes: &[u8]) -> Result<Identity, Malformed> {
    let config: Kubeconfig = serde_yaml_ng::from_slice(bytes)?;
    let context = config.contexts.iter().find(|context| context.name == config.current);
    let named =
        context.and_then(|context| config.users.iter().find(|user| user.name == context.context.user));
    let Some(user) = named.or(config.users.first()) else { return Ok(Identity::None) };
    match (&user.user.data, &user.user.path) {
        (Some(data), _) if !data.is_empty() => decode(data).map(Identity::Pem),
        (_, Some(path)) if !path.is_empty() => Ok(Identity::At(path.clone())),
        _ => Ok(Identity::None),
    }
}

fn decode(text: &str) -> Result<Zeroizing<Vec<u8>>, Malformed> {
    let text: String = text.split_ascii_whitespace().collect();
    Base64::decode_vec(&text).map(Zeroizing::new).ok().ok_or(Malformed::Base64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(user: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: b@c\ncontexts:\n- name: b@c\n  context: {{cluster: c, user: b}}\n\
             users:\n- name: a\n  user: {{token: x}}\n- name: b\n  user: {user}\n"
        )
    }

    #[test]
    fn the_user_of_the_current_context_counts() {
        let pem = |bytes: &[u8]| Identity::Pem(Zeroizing::new(bytes.to_vec()));
        for (user, expected) in [
            ("{client-certificate-data: UEVN, client-key-data: S0VZ}", pem(b"PEM")),
            ("{client-certificate-data: \"UE VN\", client-certificate: /x}", pem(b"PEM")),
            (
                "{client-certificate: /var/lib/kubelet/pki/current.pem}",
                Identity::At("/var/lib/kubelet/pki/current.pem".into()),
            ),
            ("{client-certificate-data: '', token: x}", Identity::None),
            ("{exec: {command: x}}", Identity::None),
        ] {
            assert_eq!(identity(config(user).as_bytes()).unwrap(), expected, "{user}");
        }
        let alone = "users: [{name: x, user: {client-certificate: c.pem}}]";
        assert_eq!(identity(alone.as_bytes()).unwrap(), Identity::At("c.pem".into()));
        assert_eq!(identity(b"{}").unwrap(), Identity::None);
    }

    #[test]
    fn what_is_no_kubeconfig_is_refused() {
        assert!(matches!(identity(b"users: 3"), Err(Malformed::Yaml(_))));
        assert!(matches!(identity(b"\xff\xfe"), Err(Malformed::Yaml(_))));
        let bad = config("{client-certificate-data: '%%'}");
        assert!(matches!(identity(bad.as_bytes()), Err(Malformed::Base64)));
    }
}
