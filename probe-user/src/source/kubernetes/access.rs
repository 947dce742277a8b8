//! Where the Kubernetes API is, and with which credentials it is asked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

/// Set by the kubelet in every container.
const IN_CLUSTER: &str = "KUBERNETES_SERVICE_HOST";
/// Time to connect, TLS not included.
const CONNECT: Duration = Duration::from_secs(5);

/// A client of the API.
#[derive(Clone)]
pub struct Access {
    /// The client.
    pub client: Client,
    /// Where it asks: `https://10.43.0.1/`.
    pub server: String,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The kubeconfig cannot be used.
    #[error("{}: {source}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<KubeconfigError>,
    },
    /// The service account of the pod cannot be used.
    #[error("the service account of the pod: {0}")]
    ServiceAccount(#[source] InClusterError),
    /// The client refuses its configuration.
    #[error("{server}: {source}")]
    Client {
        /// Where the API would be.
        server: String,
        /// What is wrong.
        #[source]
        source: Box<kube::Error>,
    },
}

/// A client of the API that the kubeconfig names, else of the one that this process is a pod of; `None` where it is no
/// pod either. Nothing is sent.
///
/// # Errors
/// When one of them is there and cannot be used.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Option<Access>, AccessError> {
    let mut config = match kubeconfig {
        Some(path) => from_file(path).await?,
        None if std::env::var_os(IN_CLUSTER).is_some() => {
            Config::incluster_env().map_err(AccessError::ServiceAccount)?
        }
        None => return Ok(None),
    };
    config.connect_timeout = Some(CONNECT);
    let server = config.cluster_url.to_string();
    match Client::try_from(config) {
        Ok(client) => Ok(Some(Access { client, server })),
        Err(source) => Err(AccessError::Client { server, source: Box::new(source) }),
    }
}

async fn from_file(path: &Path) -> Result<Config, AccessError> {
    let refused = |source| AccessError::Kubeconfig { path: path.to_owned(), source: Box::new(source) };
    let file = Kubeconfig::read_from(path).map_err(refused)?;
    Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(refused)
}
