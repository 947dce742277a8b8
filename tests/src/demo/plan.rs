//! What runs in the demo: which pods on which nodes, and who exchanges what with whom.

/// A pod of the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PodPlan {
    pub(crate) node: u8,
    pub(crate) namespace: &'static str,
    pub(crate) name: &'static str,
}

impl PodPlan {
    /// `namespace/name`.
    pub(crate) fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

const fn pod(node: u8, namespace: &'static str, name: &'static str) -> PodPlan {
    PodPlan { node, namespace, name }
}

/// All pods in the order of the table.
pub(crate) const PODS: [PodPlan; 9] = [
    pod(1, "default", "crawler"),
    pod(1, "media", "camera"),
    pod(1, "shop", "web"),
    pod(2, "backup", "store"),
    pod(2, "media", "screen"),
    pod(2, "shop", "cart"),
    pod(3, "backup", "dump"),
    pod(3, "dns", "resolver"),
    pod(3, "shop", "db"),
];

/// The kind of traffic, with rates that leave a laptop cool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// iperf3 over TCP, bits per second.
    Stream(u64),
    /// iperf3 over UDP, bits per second.
    Datagrams(u64),
    /// Requests over TCP.
    Requests { per_second: u32, answer: u32, per_connection: u32 },
    /// Requests over UDP.
    Queries { per_second: u32, answer: u32 },
}

/// Traffic between two pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) client: &'static str,
    pub(crate) server: &'static str,
    pub(crate) kind: Kind,
}

/// All traffic; most of it crosses nodes.
pub(crate) const FLOWS: [Flow; 6] = [
    Flow { client: "dump", server: "store", kind: Kind::Stream(20_000_000) },
    Flow { client: "camera", server: "screen", kind: Kind::Datagrams(6_000_000) },
    Flow {
        client: "crawler",
        server: "web",
        kind: Kind::Requests { per_second: 20, answer: 40_000, per_connection: 1 },
    },
    Flow {
        client: "web",
        server: "cart",
        kind: Kind::Requests { per_second: 50, answer: 4_000, per_connection: 100 },
    },
    Flow {
        client: "cart",
        server: "db",
        kind: Kind::Requests { per_second: 100, answer: 1_500, per_connection: 1_000 },
    },
    Flow { client: "web", server: "resolver", kind: Kind::Queries { per_second: 40, answer: 200 } },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_flow_joins_two_pods_and_every_pod_has_one() {
        let pods: BTreeSet<&str> = PODS.iter().map(|pod| pod.name).collect();
        let busy: BTreeSet<&str> = FLOWS.iter().flat_map(|flow| [flow.client, flow.server]).collect();
        assert_eq!(pods.len(), PODS.len());
        assert_eq!(pods, busy);
        assert!(FLOWS.iter().all(|flow| flow.client != flow.server));
    }
}
