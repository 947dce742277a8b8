//! What Pod Security Admission has against the pods, and why each of it is accepted.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};

/// The profiles that are below `privileged`.
pub(crate) const PROFILES: [&str; 2] = ["baseline", "restricted"];

/// One thing that a profile forbids: the name of the check, and what it found.
pub(crate) type Objection = (String, String);

/// What the base brings to both sets of pods.
pub(crate) const AGENT: &str = "agent";

/// An objection that is accepted.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// The base, or the component, that brings it.
    pub(crate) from: &'static str,
    /// Whether only the pods of the control plane have it.
    pub(crate) is_for_control_plane: bool,
    /// The name of the check in each profile; a profile without it has none.
    checks: [Option<&'static str>; 2],
    found: &'static str,
    /// Why there is no way without it.
    pub(crate) reason: &'static str,
}

impl Accepted {
    /// The objection of a profile, by its place among them.
    pub(crate) fn objection(&self, profile: usize) -> Option<Objection> {
        Some((self.checks[profile]?.to_owned(), self.found.to_owned()))
    }
}

const NAMESPACES: [Option<&str>; 2] = [Some("host namespaces"); 2];
const PORT: [Option<&str>; 2] = [Some("hostPort"); 2];
const PROBE: [Option<&str>; 2] = [Some("probe or lifecycle host"); 2];
const CAPABILITY: [Option<&str>; 2] = [Some("non-default capabilities"), Some("unrestricted capabilities")];
const VOLUME: [Option<&str>; 2] = [Some("hostPath volumes"), Some("restricted volume types")];

const fn everywhere(
    from: &'static str,
    checks: [Option<&'static str>; 2],
    found: &'static str,
    reason: &'static str,
) -> Accepted {
    Accepted { from, is_for_control_plane: false, checks, found, reason }
}

const fn control_plane(
    from: &'static str,
    checks: [Option<&'static str>; 2],
    found: &'static str,
    reason: &'static str,
) -> Accepted {
    Accepted { from, is_for_control_plane: true, checks, found, reason }
}

/// All that is accepted. Every row must be reported for what brings it, and nothing else may be.
pub(crate) const ACCEPTED: &[Accepted] = &[
    everywhere(
        AGENT,
        NAMESPACES,
        "hostNetwork=true",
        "links, routes, neighbours and sockets of the node are measured",
    ),
    everywhere(
        AGENT,
        PORT,
        r#"container "leadline" uses hostPort 9843"#,
        "in the node's network every port is one of the host",
    ),
    everywhere(
        AGENT,
        PROBE,
        r#"container "leadline" uses probe or lifecycle host "127.0.0.1""#,
        "the kubelet asks over the loopback of the node, whatever its firewall lets in",
    ),
    everywhere(AGENT, CAPABILITY, "BPF", "creates maps and loads programs"),
    everywhere(AGENT, CAPABILITY, "PERFMON", "loads tracing programs"),
    everywhere(AGENT, CAPABILITY, "NET_ADMIN", "attaches programs to cgroups and devices"),
    everywhere(AGENT, VOLUME, "cgroup", "programs are attached to the root of cgroup v2 (read-only)"),
    everywhere(AGENT, VOLUME, "pod-logs", "names of pods where the API is away (read-only)"),
    everywhere(
        AGENT,
        [None, Some("runAsNonRoot != true")],
        r#"pod or container "leadline" must set securityContext.runAsNonRoot=true"#,
        "a runtime gives added capabilities to nobody but root",
    ),
    everywhere(
        AGENT,
        [None, Some("runAsUser=0")],
        r#"container "leadline" must not set runAsUser=0"#,
        "a runtime gives added capabilities to nobody but root",
    ),
    everywhere("flannel", VOLUME, "flannel", "pod networks and MTU as Flannel wrote them (read-only)"),
    everywhere("tailscale-socket", VOLUME, "tailscale", "tailscaled answers over its socket only"),
    control_plane(
        "vip-listener",
        NAMESPACES,
        "hostPID=true",
        "which process listens on a virtual address is in its open files, seen in the host's process namespace only",
    ),
    control_plane("haproxy-config", VOLUME, "haproxy-config", "says where HAProxy answers (read-only)"),
    control_plane("haproxy-socket", VOLUME, "haproxy-socket", "HAProxy tells statistics over its socket"),
    control_plane("etcd-certs", VOLUME, "etcd-ca", "whom to trust as etcd (read-only)"),
    control_plane("etcd-certs", VOLUME, "etcd-client", "etcd answers only who has a certificate (read-only)"),
    control_plane("etcd-certs", VOLUME, "etcd-client-key", "the key of that certificate (read-only)"),
    control_plane("etcd-certs", VOLUME, "etcd-server", "until when the certificate is good (read-only)"),
    control_plane("etcd-certs", VOLUME, "etcd-peer", "until when the certificate is good (read-only)"),
    control_plane("etcd-certs", VOLUME, "manifests", "election timeout of etcd, ports of the control plane"),
    control_plane("k3s-etcd-certs", VOLUME, "etcd-ca", "whom to trust as etcd (read-only)"),
    control_plane(
        "k3s-etcd-certs",
        VOLUME,
        "etcd-client",
        "etcd answers only who has a certificate (read-only)",
    ),
    control_plane("k3s-etcd-certs", VOLUME, "etcd-client-key", "the key of that certificate (read-only)"),
    control_plane("k3s-etcd-certs", VOLUME, "etcd-server", "until when the certificate is good (read-only)"),
    control_plane("k3s-etcd-certs", VOLUME, "etcd-peer", "until when the certificate is good (read-only)"),
    control_plane("k3s-etcd-certs", VOLUME, "etcd-config", "election timeout of etcd (read-only)"),
];

/// The objections in a warning of Pod Security Admission, each thing by itself.
pub(crate) fn objections(warning: &str, profile: &str) -> Result<BTreeSet<Objection>> {
    let start = format!("would violate PodSecurity \"{profile}:latest\": ");
    let list = warning.strip_prefix(&start).with_context(|| format!("another warning: {warning}"))?;
    let mut found = BTreeSet::new();
    for check in split(list) {
        let parts = check.strip_suffix(')').and_then(|check| check.split_once(" ("));
        let (name, detail) = parts.with_context(|| format!("no check with what it found: {check}"))?;
        let things = things(name, detail);
        ensure!(!things.is_empty(), "{name} found nothing: {warning}");
        found.extend(things.into_iter().map(|thing| (name.to_owned(), thing)));
    }
    Ok(found)
}

/// Splits at commas that are in no parentheses.
fn split(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0_u32, 0, Vec::new());
    for (at, character) in list.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(list[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(list[start..].trim());
    parts
}

/// What a check found. A text of another form than is known stays whole, and so is no accepted thing.
fn things(check: &str, detail: &str) -> Vec<String> {
    let between = |starts: &[&str], ends: &[&str]| {
        let rest = starts.iter().find_map(|start| detail.strip_prefix(start))?;
        ends.iter().find_map(|end| rest.strip_suffix(end))
    };
    let list = match check {
        "host namespaces" => Some(detail),
        "hostPath volumes" => between(&["volume ", "volumes "], &[""]),
        "restricted volume types" => between(
            &["volume ", "volumes "],
            &[r#" uses restricted volume type "hostPath""#, r#" use restricted volume type "hostPath""#],
        ),
        "non-default capabilities" | "unrestricted capabilities" => {
            between(&[r#"container "leadline" must not include "#], &[" in securityContext.capabilities.add"])
        }
        _ => None,
    };
    let Some(list) = list else { return vec![detail.to_owned()] };
    list.split(", ").map(|thing| thing.trim_matches('"').to_owned()).collect()
}

#[test]
fn a_warning_is_taken_apart_into_single_things() -> Result<()> {
    let warning = "would violate PodSecurity \"restricted:latest\": host namespaces (hostNetwork=true, hostPID=true), \
        unrestricted capabilities (container \"leadline\" must not include \"BPF\", \"NET_ADMIN\" in \
        securityContext.capabilities.add), restricted volume types (volume \"cgroup\" uses restricted volume type \
        \"hostPath\"), runAsUser=0 (container \"leadline\" must not set runAsUser=0)";
    let expected = [
        ("host namespaces", "hostNetwork=true"),
        ("host namespaces", "hostPID=true"),
        ("restricted volume types", "cgroup"),
        ("runAsUser=0", "container \"leadline\" must not set runAsUser=0"),
        ("unrestricted capabilities", "BPF"),
        ("unrestricted capabilities", "NET_ADMIN"),
    ];
    let expected = expected.map(|(check, thing)| (check.to_owned(), thing.to_owned()));
    ensure!(objections(warning, "restricted")? == BTreeSet::from(expected), "{warning}");
    ensure!(objections(warning, "baseline").is_err(), "a warning of another profile is taken");
    Ok(())
}

#[test]
fn what_is_written_in_another_way_is_accepted_by_no_row() -> Result<()> {
    for detail in [
        r#"container "leadline" must set securityContext.capabilities.drop=["ALL"]; container "leadline" must not include "BPF" in securityContext.capabilities.add"#,
        r#"containers "leadline", "other" must not include "BPF" in securityContext.capabilities.add"#,
    ] {
        let things = things("unrestricted capabilities", detail);
        ensure!(things == [detail], "{things:?}");
        ensure!(ACCEPTED.iter().all(|row| row.found != detail), "{detail}");
    }
    Ok(())
}
