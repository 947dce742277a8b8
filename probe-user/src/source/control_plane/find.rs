//! Which components may be on this node, by the paths of kubeadm, k3s and RKE2 below an injectable root.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::{Component, Target};
use crate::config;
use crate::source::etcd::find::{flag, read};

/// Where kubeadm keeps the manifests of static pods.
const MANIFESTS: &str = "etc/kubernetes/manifests";
/// Where the kubelet of kubeadm has its configuration.
const KUBELET: &str = "var/lib/kubelet/config.yaml";
/// Where the distributions of Rancher keep their data.
const RANCHER: [&str; 2] = ["var/lib/rancher/k3s", "var/lib/rancher/rke2"];

/// The components that may be here, and whether something speaks for each: a file of this node, or the configuration
/// of the agent. The others are tried where they usually listen.
pub type Found = BTreeMap<Target, bool>;

/// Looks at the files of this node.
#[must_use]
pub fn find(root: &Path, given: &config::ControlPlane) -> Found {
    let rancher = |part: &str| RANCHER.iter().any(|path| root.join(path).join(part).is_dir());
    let has_server = rancher("server");
    let mut found = Found::new();
    for component in Component::ALL {
        if component == Component::ApiServer && !given.endpoints.is_empty() {
            let targets = given.endpoints.iter().map(|address| Target { component, address: *address });
            found.extend(targets.map(|target| (target, true)));
            continue;
        }
        let told = match component {
            Component::Kubelet => read(&root.join(KUBELET)).map(|text| of_kubelet(&text)),
            _ => manifest(root, component).map(|text| of_manifest(component, &text)),
        };
        let is_rancher = if component == Component::Kubelet { rancher("agent") } else { has_server };
        let (address, speaks) = match told {
            // Told not to serve its health.
            Some(address) if address.port() == 0 => continue,
            Some(address) => (address, true),
            None => (usual(component), is_rancher),
        };
        found.insert(Target { component, address }, speaks);
    }
    found
}

fn manifest(root: &Path, component: Component) -> Option<String> {
    let name = match component {
        Component::ApiServer => "kube-apiserver.yaml",
        Component::ControllerManager => "kube-controller-manager.yaml",
        Component::Scheduler => "kube-scheduler.yaml",
        Component::Kubelet => return None,
    };
    read(&root.join(MANIFESTS).join(name))
}

/// Where a component listens unless it is told otherwise.
const fn usual(component: Component) -> SocketAddr {
    let port = match component {
        Component::ApiServer => config::API_PORT,
        Component::ControllerManager => 10_257,
        Component::Scheduler => 10_259,
        Component::Kubelet => 10_248,
    };
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

fn of_manifest(component: Component, text: &str) -> SocketAddr {
    let bound = flag(text, "bind-address").and_then(|address| address.parse().ok());
    let port = flag(text, "secure-port").and_then(|port| port.parse().ok());
    address(component, bound, port)
}

/// The two fields of a `KubeletConfiguration`, which are at its top level.
fn of_kubelet(text: &str) -> SocketAddr {
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(value.trim().trim_matches(['"', '\'']).to_owned())
    };
    let bound = field("healthzBindAddress").and_then(|address| address.parse().ok());
    let port = field("healthzPort").and_then(|port| port.parse().ok());
    address(Component::Kubelet, bound, port)
}

/// A component that listens on all addresses is asked on the loopback.
fn address(component: Component, bound: Option<IpAddr>, port: Option<u16>) -> SocketAddr {
    let usual = usual(component);
    let address = match bound {
        None => usual.ip(),
        Some(IpAddr::V4(address)) if address.is_unspecified() => usual.ip(),
        Some(IpAddr::V6(address)) if address.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        Some(address) => address,
    };
    SocketAddr::new(address, port.unwrap_or(usual.port()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    struct Root(PathBuf);

    impl Root {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("leadline-plane-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn with(self, file: &str, text: &str) -> Self {
            let path = self.0.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            self
        }

        fn find(&self, endpoints: &[&str]) -> Vec<(String, bool)> {
            let endpoints = endpoints.iter().map(|text| text.parse().unwrap()).collect();
            let given = config::ControlPlane { endpoints, ..config::ControlPlane::default() };
            let found = find(&self.0, &given);
            found.iter().map(|(target, speaks)| (target.endpoint(), *speaks)).collect()
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn list(expected: &[(&str, bool)]) -> Vec<(String, bool)> {
        expected.iter().map(|(endpoint, speaks)| ((*endpoint).to_owned(), *speaks)).collect()
    }

    #[test]
    fn without_files_the_usual_ports_are_tried() {
        let expected = [
            ("https://127.0.0.1:6443", false),
            ("https://127.0.0.1:10257", false),
            ("https://127.0.0.1:10259", false),
            ("http://127.0.0.1:10248", false),
        ];
        assert_eq!(Root::new("nothing").find(&[]), list(&expected));
    }

    #[test]
    fn the_manifests_of_kubeadm_say_where() {
        let root = Root::new("kubeadm")
            .with("etc/kubernetes/manifests/kube-apiserver.yaml", "    - --secure-port=16443\n")
            .with("etc/kubernetes/manifests/kube-controller-manager.yaml", "    - --bind-address=0.0.0.0\n")
            .with("etc/kubernetes/manifests/kube-scheduler.yaml", "    - --bind-address=::\n")
            .with(KUBELET, "kind: KubeletConfiguration\nhealthzBindAddress: 127.0.0.1\nhealthzPort: 10249\n");
        let expected = [
            ("https://127.0.0.1:16443", true),
            ("https://127.0.0.1:10257", true),
            ("https://[::1]:10259", true),
            ("http://127.0.0.1:10249", true),
        ];
        assert_eq!(root.find(&[]), list(&expected));
    }

    #[test]
    fn k3s_speaks_for_all_and_its_agent_for_the_kubelet() {
        let root = Root::new("k3s").with("var/lib/rancher/k3s/agent/x", "");
        let spoken: Vec<bool> = root.find(&[]).into_iter().map(|(_, speaks)| speaks).collect();
        assert_eq!(spoken, [false, false, false, true]);
        let root = root.with("var/lib/rancher/k3s/server/x", "");
        assert!(root.find(&[]).iter().all(|(_, speaks)| *speaks));
    }

    #[test]
    fn what_is_given_takes_the_place_of_the_api_server_that_would_be_tried() {
        let found = Root::new("given").find(&["192.0.2.1:16443", "127.0.0.1:16443"]);
        let api: Vec<_> = found.into_iter().filter(|(endpoint, _)| endpoint.ends_with("6443")).collect();
        assert_eq!(api, list(&[("https://127.0.0.1:16443", true), ("https://192.0.2.1:16443", true)]));
    }

    #[test]
    fn a_kubelet_that_serves_no_health_is_not_asked() {
        let root = Root::new("silent").with(KUBELET, "healthzPort: 0\n");
        assert!(root.find(&[]).iter().all(|(endpoint, _)| endpoint.starts_with("https")));
    }
}
