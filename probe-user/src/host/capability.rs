//! The capabilities the agent needs: what this thread has, what is missing, and how to get it. Pure.

use std::fmt;

use super::HostFacts;

/// A set of capabilities, one bit each, as `/proc/PID/status` writes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(pub u64);

/// A capability that the agent cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// `CAP_NET_ADMIN`: attach programs to cgroups and devices.
    NetAdmin,
    /// `CAP_PERFMON`: load tracing programs.
    Perfmon,
    /// `CAP_BPF`: create maps, load programs.
    Bpf,
}

impl Capability {
    /// All that are needed, in the order in which messages name them.
    pub const NEEDED: [Self; 3] = [Self::Bpf, Self::Perfmon, Self::NetAdmin];

    /// The kernel's number.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::NetAdmin => 12,
            Self::Perfmon => 38,
            Self::Bpf => 39,
        }
    }

    /// The name without `CAP_`, as Kubernetes wants it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NetAdmin => "NET_ADMIN",
            Self::Perfmon => "PERFMON",
            Self::Bpf => "BPF",
        }
    }

    /// What fails without it.
    #[must_use]
    pub const fn purpose(self) -> &'static str {
        match self {
            Self::NetAdmin => "attach programs to cgroups and devices",
            Self::Perfmon => "load tracing programs",
            Self::Bpf => "create maps and load programs",
        }
    }
}

impl Capabilities {
    /// The effective set in the text of `/proc/PID/status`; `None` when there is no such line.
    #[must_use]
    pub fn parse_status(text: &str) -> Option<Self> {
        let value = text.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(value.trim(), 16).ok().map(Self)
    }

    /// Whether the set holds a capability.
    #[must_use]
    pub const fn has(self, capability: Capability) -> bool {
        self.0 >> capability.number() & 1 == 1
    }
}

/// The needed capabilities that this process does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingCapabilities(pub Vec<Capability>);

impl fmt::Display for MissingCapabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |separator: &str, prefix: &str| {
            let names = Capability::NEEDED.map(|needed| format!("{prefix}{}", needed.name()));
            names.join(separator)
        };
        let missing: Vec<String> = self
            .0
            .iter()
            .map(|missing| format!("CAP_{} (to {})", missing.name(), missing.purpose()))
            .collect();
        writeln!(f, "missing capabilities: {}", missing.join(", "))?;
        writeln!(f, "start the agent in one of these ways:")?;
        writeln!(f, "  by hand:   as root (sudo leadline run)")?;
        writeln!(f, "  systemd:   AmbientCapabilities={}", list(" ", "CAP_"))?;
        // The container runtime drops names with CAP_ without a word, and all of them for other users than root.
        write!(
            f,
            "  container: securityContext: {{runAsUser: 0, capabilities: {{add: [{}]}}}}, names without CAP_",
            list(", ", "")
        )
    }
}

impl std::error::Error for MissingCapabilities {}

/// Whether this process may do what the agent does.
///
/// # Errors
/// With the capabilities that are missing, and how to get them.
pub fn check_capabilities(facts: &HostFacts) -> Result<(), MissingCapabilities> {
    let missing: Vec<Capability> =
        Capability::NEEDED.into_iter().filter(|needed| !facts.capabilities.has(*needed)).collect();
    if missing.is_empty() { Ok(()) } else { Err(MissingCapabilities(missing)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The three, as a pod with exactly them has it.
    const THREE: u64 = 0xc0_0000_1000;

    fn check(bits: u64) -> Result<(), MissingCapabilities> {
        check_capabilities(&HostFacts {
            kernel_release: String::new(),
            has_btf: true,
            cgroup_root: None,
            capabilities: Capabilities(bits),
        })
    }

    #[test]
    fn the_three_are_enough() {
        assert_eq!(check(THREE), Ok(()));
    }

    #[test]
    fn each_missing_one_is_named() {
        for needed in Capability::NEEDED {
            let error = check(THREE & !(1 << needed.number())).unwrap_err();
            assert_eq!(error.0, [needed]);
        }
    }

    #[test]
    fn the_message_names_what_is_missing_and_the_fix() {
        let message = check(0).unwrap_err().to_string();
        assert_eq!(
            message,
            "missing capabilities: CAP_BPF (to create maps and load programs), CAP_PERFMON (to load tracing programs), CAP_NET_ADMIN (to attach programs to cgroups and devices)\n\
             start the agent in one of these ways:\n  \
               by hand:   as root (sudo leadline run)\n  \
               systemd:   AmbientCapabilities=CAP_BPF CAP_PERFMON CAP_NET_ADMIN\n  \
               container: securityContext: {runAsUser: 0, capabilities: {add: [BPF, PERFMON, NET_ADMIN]}}, names without CAP_"
        );
    }

    #[test]
    fn a_status_without_the_line_is_unknown_not_empty() {
        assert_eq!(Capabilities::parse_status("CapEff:\t000000c000001000\n"), Some(Capabilities(THREE)));
        assert_eq!(Capabilities::parse_status("CapPrm:\t00\n"), None);
        assert_eq!(Capabilities::parse_status("CapEff:\txyz\n"), None);
    }
}
