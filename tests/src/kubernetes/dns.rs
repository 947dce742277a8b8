//! `CoreDNS`, by whose answers pods find services, as kubeadm installs it.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use super::{Image, Kubernetes};
use crate::tools;

/// Where kubelets tell pods that it is.
pub const ADDRESS: &str = "10.43.0.10";

/// kubeadm's manifest but for the tolerations and limits, and for names outside of the cluster, which are not asked for: no
/// resolver is in reach.
const MANIFEST: &str = r#"---
apiVersion: v1
kind: ServiceAccount
metadata: {name: coredns, namespace: kube-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: system:coredns}
rules:
- {apiGroups: [""], resources: [endpoints, services, pods, namespaces], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: system:coredns}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:coredns}
subjects: [{kind: ServiceAccount, name: coredns, namespace: kube-system}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: coredns, namespace: kube-system}
data:
  Corefile: |
    .:53 {
        errors
        health {
            lameduck 5s
        }
        ready
        kubernetes cluster.local in-addr.arpa ip6.arpa {
            pods insecure
            ttl 30
        }
        prometheus :9153
        cache 30
        reload
        loadbalance
    }
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns, kubernetes.io/name: CoreDNS}}
spec:
  clusterIP: 10.43.0.10
  selector: {k8s-app: kube-dns}
  ports:
  - {name: dns, port: 53, protocol: UDP}
  - {name: dns-tcp, port: 53, protocol: TCP}
  - {name: metrics, port: 9153, protocol: TCP}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: coredns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec:
  replicas: 2
  selector: {matchLabels: {k8s-app: kube-dns}}
  template:
    metadata: {labels: {k8s-app: kube-dns}}
    spec:
      serviceAccountName: coredns
      priorityClassName: system-cluster-critical
      dnsPolicy: Default
      affinity:
        podAntiAffinity:
          preferredDuringSchedulingIgnoredDuringExecution:
          - weight: 100
            podAffinityTerm: {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {k8s-app: kube-dns}}}
      containers:
      - name: coredns
        image: lab.example/coredns:1
        args: [-conf, /etc/coredns/Corefile]
        ports:
        - {name: dns, containerPort: 53, protocol: UDP}
        - {name: dns-tcp, containerPort: 53, protocol: TCP}
        - {name: metrics, containerPort: 9153, protocol: TCP}
        securityContext:
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}
        livenessProbe: {httpGet: {path: /health, port: 8080}, initialDelaySeconds: 60}
        readinessProbe: {httpGet: {path: /ready, port: 8181}, periodSeconds: 1}
        volumeMounts: [{name: config, mountPath: /etc/coredns, readOnly: true}]
      volumes: [{name: config, configMap: {name: coredns}}]
"#;

impl Kubernetes {
    /// Has the cluster's DNS run on two nodes, and waits until it is ready; answers with its pods. Archives of images are
    /// made below `directory`.
    pub fn start_dns(&self, directory: &Path) -> Result<Vec<Value>> {
        let coredns = tools::coredns()?;
        let image = Image {
            reference: "lab.example/coredns:1",
            entrypoint: &["/bin/coredns"],
            programs: &[("bin/coredns", &coredns)],
            links: &[],
        };
        let archive = image.write(directory)?;
        self.nodes.iter().try_for_each(|node| self.import(node, &archive))?;
        self.apply(MANIFEST)?;
        self.wait_pods("kube-system", "k8s-app=kube-dns", 2)
    }
}
