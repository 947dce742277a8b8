//! Where etcd may be on this node, by the paths of kubeadm, k3s and RKE2 below an injectable root.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::Credentials;
use crate::config;

/// Where kubeadm keeps the manifests of static pods.
const MANIFESTS: &str = "etc/kubernetes/manifests";
/// Where kubeadm keeps the certificates of etcd.
const KUBEADM_PKI: &str = "etc/kubernetes/pki/etcd";
/// Where the distributions of Rancher keep a server's data.
const RANCHER: [&str; 2] = ["var/lib/rancher/k3s/server", "var/lib/rancher/rke2/server"];
/// The page of metrics of kubeadm and k3s.
const PAGE: &str = "http://127.0.0.1:2381/metrics";
/// The member of this node.
const LOCAL: &str = "https://127.0.0.1:2379";
/// What etcd takes where its command line does not say.
const ETCD_DEFAULT: Duration = Duration::from_secs(1);
/// No manifest is longer.
const LONGEST: u64 = 1 << 20;

/// Where to ask, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Endpoints of gRPC to begin with.
    pub endpoints: Vec<String>,
    /// The page of metrics of this node's member.
    pub page: config::MetricsUrl,
    /// The client certificate.
    pub credentials: Option<Credentials>,
    /// How long a member waits for its leader.
    pub election_timeout: Option<ElectionTimeout>,
    /// What speaks against etcd on this node.
    pub absence: Option<Absence>,
}

/// Why there is no etcd here, as far as files tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// Nothing speaks for it.
    Nothing,
    /// This server of k3s keeps its state in sqlite.
    Sqlite,
}

/// The election timeout of raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElectionTimeout {
    /// The time.
    pub length: Duration,
    /// Who says so.
    pub origin: Origin,
}

/// Who says what the election timeout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The agent's configuration.
    Configuration,
    /// The manifest of the static pod.
    Manifest,
    /// The configuration that k3s writes for its etcd.
    K3s,
    /// The manifest says nothing: the default of etcd.
    EtcdDefault,
}

impl Origin {
    /// The value of the `origin` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Manifest => "manifest",
            Self::K3s => "k3s",
            Self::EtcdDefault => "etcd_default",
        }
    }
}

/// Looks at the files of this node.
#[must_use]
pub fn find(root: &Path, given: &config::Etcd) -> Found {
    let manifest = read(&root.join(MANIFESTS).join("etcd.yaml"));
    let rancher = RANCHER.iter().map(|path| root.join(path)).find(|path| path.is_dir());
    let uses_sqlite = rancher
        .as_ref()
        .is_some_and(|server| server.join("db/state.db").exists() && !server.join("db/etcd").exists());
    let external =
        read(&root.join(MANIFESTS).join("kube-apiserver.yaml")).and_then(|text| external(root, &text));
    let (servers, api_credentials) = external.map_or((None, None), |(servers, files)| (Some(servers), files));
    let kubeadm = Credentials::in_directory(&root.join(KUBEADM_PKI), "ca.crt", "healthcheck-client");
    let ranchers = rancher
        .as_ref()
        .map(|server| Credentials::in_directory(&server.join("tls/etcd"), "server-ca.crt", "client"));
    let usual = [Some(kubeadm), ranchers.filter(|_| !uses_sqlite), api_credentials];
    let credentials = given.credentials.as_ref().map(|given| Credentials {
        ca: given.ca.clone(),
        certificate: given.certificate.clone(),
        key: given.key.clone(),
    });
    let credentials = credentials.or_else(|| usual.into_iter().flatten().find(Credentials::exist));
    let endpoints = if given.endpoints.is_empty() {
        servers.unwrap_or_else(|| vec![LOCAL.to_owned()])
    } else {
        given.endpoints.clone()
    };
    let speaks = manifest.is_some() || credentials.is_some() || !given.endpoints.is_empty();
    let absence = match (speaks, uses_sqlite && given.endpoints.is_empty()) {
        (_, true) => Some(Absence::Sqlite),
        (false, false) => Some(Absence::Nothing),
        (true, false) => None,
    };
    Found {
        endpoints,
        page: given.metrics_url.clone().or_else(|| config::metrics_url(PAGE).ok()).unwrap_or_else(unparsed),
        credentials,
        election_timeout: election_timeout(given, manifest.as_deref(), rancher.as_deref()),
        absence,
    }
}

/// The constant above, in parts: for the case that it could not be read, which a test rules out.
fn unparsed() -> config::MetricsUrl {
    config::MetricsUrl { authority: "127.0.0.1:2381".to_owned(), path: "/metrics".to_owned() }
}

/// The servers and the files that an API server is told.
fn external(root: &Path, manifest: &str) -> Option<(Vec<String>, Option<Credentials>)> {
    let servers = flag(manifest, "etcd-servers")?;
    let servers: Vec<String> = servers.split(',').map(|url| url.trim().to_owned()).collect();
    let file = |name| flag(manifest, name).map(|path| root.join(path.trim_start_matches('/')));
    let credentials = match (file("etcd-cafile"), file("etcd-certfile"), file("etcd-keyfile")) {
        (Some(ca), Some(certificate), Some(key)) => Some(Credentials { ca, certificate, key }),
        _ => None,
    };
    Some((servers, credentials))
}

fn election_timeout(
    given: &config::Etcd,
    manifest: Option<&str>,
    rancher: Option<&Path>,
) -> Option<ElectionTimeout> {
    if let Some(length) = given.election_timeout {
        return Some(ElectionTimeout { length, origin: Origin::Configuration });
    }
    let milliseconds = |text: String| text.parse().ok().map(Duration::from_millis);
    if let Some(manifest) = manifest {
        let told = flag(manifest, "election-timeout").and_then(milliseconds);
        return Some(match told {
            Some(length) => ElectionTimeout { length, origin: Origin::Manifest },
            None => ElectionTimeout { length: ETCD_DEFAULT, origin: Origin::EtcdDefault },
        });
    }
    let text = read(&rancher?.join("db/etcd/config"))?;
    let value = text.lines().find_map(|line| line.trim().strip_prefix("election-timeout:"))?;
    let length = milliseconds(value.trim().to_owned())?;
    Some(ElectionTimeout { length, origin: Origin::K3s })
}

/// The value of a flag in the list of arguments of a manifest: `- --name=value`.
pub(in crate::source) fn flag(manifest: &str, name: &str) -> Option<String> {
    manifest.lines().find_map(|line| {
        let argument = line.trim().trim_start_matches("- ").trim_matches(['"', '\'']);
        let value = argument.strip_prefix("--")?.strip_prefix(name)?.strip_prefix('=')?;
        Some(value.trim_matches(['"', '\'']).to_owned())
    })
}

/// A file of bounded length; nothing where there is none.
pub(in crate::source) fn read(path: &Path) -> Option<String> {
    let length = fs::metadata(path).ok()?.len();
    if length > LONGEST {
        return None;
    }
    fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    struct Root(PathBuf);

    impl Root {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("leadline-etcd-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn with(self, file: &str, text: &str) -> Self {
            let path = self.0.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            self
        }

        fn find(&self) -> Found {
            find(&self.0, &config::Etcd::default())
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn the_usual_page_can_be_read() {
        assert_eq!(config::metrics_url(PAGE), Ok(unparsed()));
    }

    #[test]
    fn a_node_without_etcd_has_nothing() {
        let found = Root::new("nothing").find();
        assert_eq!(
            (found.absence, found.credentials, found.election_timeout),
            (Some(Absence::Nothing), None, None)
        );
    }

    #[test]
    fn kubeadm_has_a_manifest_and_a_client_certificate() {
        let root = Root::new("kubeadm")
            .with("etc/kubernetes/manifests/etcd.yaml", "  - command:\n    - etcd\n    - --name=a\n")
            .with("etc/kubernetes/pki/etcd/healthcheck-client.crt", "x");
        let found = root.find();
        assert_eq!(found.absence, None);
        assert_eq!(found.endpoints, ["https://127.0.0.1:2379"]);
        let credentials = found.credentials.unwrap();
        assert!(credentials.key.ends_with("etc/kubernetes/pki/etcd/healthcheck-client.key"));
        assert!(credentials.ca.ends_with("etc/kubernetes/pki/etcd/ca.crt"));
        let timeout = ElectionTimeout { length: Duration::from_secs(1), origin: Origin::EtcdDefault };
        assert_eq!(found.election_timeout, Some(timeout));
    }

    #[test]
    fn an_api_server_names_an_etcd_elsewhere() {
        let root = Root::new("external").with(
            "etc/kubernetes/manifests/kube-apiserver.yaml",
            "    - --etcd-servers=https://192.0.2.1:2379,https://192.0.2.2:2379\n    - \"--etcd-cafile=/etc/e/ca.crt\"\n    - --etcd-certfile=/etc/e/c.crt\n    - --etcd-keyfile=/etc/e/c.key\n",
        );
        let root = root.with("etc/e/c.crt", "x");
        let found = root.find();
        assert_eq!(found.endpoints, ["https://192.0.2.1:2379", "https://192.0.2.2:2379"]);
        assert_eq!(found.credentials.unwrap().ca, root.0.join("etc/e/ca.crt"));
        assert_eq!((found.absence, found.election_timeout), (None, None));
    }

    #[test]
    fn k3s_has_etcd_or_sqlite() {
        let root = Root::new("k3s")
            .with("var/lib/rancher/k3s/server/tls/etcd/client.crt", "x")
            .with("var/lib/rancher/k3s/server/db/state.db", "");
        let found = root.find();
        assert_eq!((found.absence, found.credentials), (Some(Absence::Sqlite), None));
        let root = root.with("var/lib/rancher/k3s/server/db/etcd/config", "a: b\nelection-timeout: 5000\n");
        let found = root.find();
        assert_eq!(found.absence, None);
        assert!(found.credentials.unwrap().ca.ends_with("tls/etcd/server-ca.crt"));
        let timeout = ElectionTimeout { length: Duration::from_secs(5), origin: Origin::K3s };
        assert_eq!(found.election_timeout, Some(timeout));
    }

    #[test]
    fn what_is_configured_goes_first() {
        let root = Root::new("given")
            .with("etc/kubernetes/manifests/etcd.yaml", "- --election-timeout=2500\n")
            .with("etc/kubernetes/pki/etcd/healthcheck-client.crt", "x");
        let length = root.find().election_timeout.unwrap();
        assert_eq!(length, ElectionTimeout { length: Duration::from_millis(2500), origin: Origin::Manifest });
        let given = config::Etcd {
            endpoints: vec!["https://192.0.2.1:2379".to_owned()],
            credentials: Some(config::EtcdCredentials {
                ca: "/e/ca".into(),
                certificate: "/e/crt".into(),
                key: "/e/key".into(),
            }),
            election_timeout: Some(Duration::from_secs(3)),
            ..config::Etcd::default()
        };
        let found = find(&root.0, &given);
        assert_eq!(found.endpoints, given.endpoints);
        assert_eq!(found.credentials.unwrap().certificate, Path::new("/e/crt"));
        assert_eq!(found.election_timeout.unwrap().origin, Origin::Configuration);
    }
}
