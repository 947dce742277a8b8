//! The lab: clusters of real components in network namespaces, shared by the tests and the demo.
//!
//! A [`Lab`] is a switch namespace with nodes hanging on it; a [`Node`] is a set of namespaces with its own cgroup
//! root and standard paths; a [`Pod`] is a network namespace and a cgroup shaped like the kubelet's. Everything a
//! lab makes carries its [`name`](Lab::name) and goes away with it, however the process ends.
#![expect(
    clippy::missing_errors_doc,
    reason = "every function here fails for one reason only: the machine refused, and the error names the object"
)]

pub mod acceptor;
pub mod agent;
pub mod alertmanager;
pub mod bench;
pub mod cgroup;
pub mod cilium;
pub mod cluster;
pub mod control_plane;
pub mod demo;
pub mod etcd;
pub mod exchange;
pub mod flannel;
pub mod foreign;
pub mod frames;
pub mod haproxy;
pub mod impair;
pub mod keepalived;
mod keeper;
pub mod kubectl;
pub mod kubelet;
pub mod kubernetes;
pub mod machine;
pub mod node;
pub mod owner;
pub mod place;
pub mod pod;
pub mod process;
pub mod prometheus;
pub mod scrape;
pub mod service;
pub mod showcase;
pub mod sockets;
pub mod stamp;
pub mod tailnet;
pub mod tls;
pub mod tools;
pub mod vm;
pub mod wireguard;
pub mod witness;

pub use acceptor::Acceptor;
pub use agent::{Agent, AgentOptions};
pub use alertmanager::Alertmanager;
pub use cluster::{Lab, LabOptions};
pub use control_plane::{ControlPlane, Part};
pub use etcd::{Etcd, EtcdOptions};
pub use flannel::{Backend, Flannel};
pub use haproxy::Haproxy;
pub use impair::{Delay, Disorder, Firewall};
pub use keepalived::{Keepalived, Trio};
pub use kubectl::Kubectl;
pub use kubelet::Kubelet;
pub use kubernetes::Kubernetes;
pub use machine::Machine;
pub use node::Node;
pub use owner::clean_stale;
pub use place::Place;
pub use pod::{Driver, Pod, PodSpec, Qos};
pub use process::{run, run_for, wait_until};
pub use prometheus::Prometheus;
pub use service::Service;
pub use showcase::Showcase;
pub use sockets::Sockets;
pub use tailnet::Tailnet;
pub use tls::{Certificate, TlsServer};
pub use vm::{Answer, Architecture, Vm, VmOptions};
