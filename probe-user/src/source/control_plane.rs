//! The health endpoints of the Kubernetes control plane on this node: who may be here, and what it answers.
//!
//! `find` knows who may be here, `ask` puts one question, `checks` reads the list of checks that an answer has. Nothing
//! secret is sent and no certificate is refused: whether one is good is another subject. What an answer does not say is
//! `None`.

mod ask;
mod checks;
mod find;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

pub use ask::Asker;
pub use checks::{Checks, MOST_CHECKS};
pub use find::{Found, find};

/// A part of the control plane. A closed set: the `component` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// kube-apiserver.
    ApiServer,
    /// kube-controller-manager.
    ControllerManager,
    /// kube-scheduler.
    Scheduler,
    /// The kubelet, which starts the others where they are static pods.
    Kubelet,
}

impl Component {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::ApiServer, Self::ControllerManager, Self::Scheduler, Self::Kubelet];

    /// The value of the `component` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ApiServer => "kube_apiserver",
            Self::ControllerManager => "kube_controller_manager",
            Self::Scheduler => "kube_scheduler",
            Self::Kubelet => "kubelet",
        }
    }

    /// Whether it speaks TLS.
    #[must_use]
    pub const fn is_tls(self) -> bool {
        !matches!(self, Self::Kubelet)
    }
}

/// A component at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Who should answer.
    pub component: Component,
    /// Where.
    pub address: SocketAddr,
}

impl Target {
    /// The value of the `endpoint` label.
    #[must_use]
    pub fn endpoint(&self) -> String {
        let scheme = if self.component.is_tls() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }
}

/// Why a component is not what it should be. A closed set: the `reason` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nobody listens.
    Refused,
    /// No whole answer before the deadline.
    Late,
    /// There is no way to the address.
    Unreachable,
    /// The other end broke the connection off.
    Reset,
    /// What answers does not speak TLS, or not with us.
    Tls,
    /// What answers is no HTTP, or too long.
    Http,
    /// It says itself that it is not.
    Status,
    /// It lives and tells nothing to whoever does not log in.
    Forbidden,
}

impl Failure {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Refused,
        Self::Late,
        Self::Unreachable,
        Self::Reset,
        Self::Tls,
        Self::Http,
        Self::Status,
        Self::Forbidden,
    ];

    /// The value of the `reason` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Late => "late",
            Self::Unreachable => "unreachable",
            Self::Reset => "reset",
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Status => "status",
            Self::Forbidden => "forbidden",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What one question has brought.
pub type Outcome = Result<(), Failure>;

/// What a component has said at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether it is well, by its own word.
    pub health: Outcome,
    /// Whether it takes requests; none of a component that does not tell the two apart.
    pub readiness: Option<Outcome>,
    /// Its checks; none where it does not list them.
    pub checks: Option<Checks>,
    /// The checks of its health alone, which it lists when one fails.
    pub health_checks: Option<Checks>,
    /// The time of the answer about its health, from connect to end; none without an answer.
    pub took: Option<Duration>,
    /// Whether the answer is one of Kubernetes: what has a status of its own on such a path may be anybody.
    pub is_kubernetes: bool,
}

impl Report {
    /// Whether it lives; whoever keeps strangers out does.
    #[must_use]
    pub const fn is_alive(&self) -> bool {
        matches!(self.health, Ok(()) | Err(Failure::Forbidden))
    }

    /// Whether it is ready; none where that is not known.
    #[must_use]
    pub const fn is_ready(&self) -> Option<bool> {
        match self.readiness {
            None | Some(Err(Failure::Forbidden)) => None,
            Some(Ok(())) => Some(true),
            Some(Err(_)) => Some(false),
        }
    }

    /// Whether it answered anything about its health: then it runs, well or not.
    #[must_use]
    pub const fn has_answered(&self) -> bool {
        matches!(self.health, Ok(()) | Err(Failure::Forbidden | Failure::Status))
    }

    /// What is wrong, its health before its readiness.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        self.health.err().or_else(|| self.readiness.and_then(Result::err))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(health: Outcome, readiness: Option<Outcome>) -> Report {
        Report { health, readiness, checks: None, health_checks: None, took: None, is_kubernetes: true }
    }

    #[test]
    fn who_keeps_strangers_out_lives_and_may_be_ready() {
        let report = report(Err(Failure::Forbidden), Some(Err(Failure::Forbidden)));
        assert_eq!((report.is_alive(), report.is_ready()), (true, None));
        assert_eq!(report.failure(), Some(Failure::Forbidden));
    }

    #[test]
    fn a_component_may_live_without_being_ready() {
        let unready = report(Ok(()), Some(Err(Failure::Status)));
        assert_eq!((unready.is_alive(), unready.is_ready()), (true, Some(false)));
        assert_eq!(unready.failure(), Some(Failure::Status));
        let dead = report(Err(Failure::Refused), Some(Err(Failure::Late)));
        assert_eq!(
            (dead.is_alive(), dead.is_ready(), dead.failure()),
            (false, Some(false), Some(Failure::Refused))
        );
        assert_eq!(report(Ok(()), None).is_ready(), None);
    }

    #[test]
    fn an_endpoint_is_a_url_without_a_path() {
        let target = |component, address: &str| Target { component, address: address.parse().unwrap() };
        assert_eq!(target(Component::ApiServer, "[::1]:6443").endpoint(), "https://[::1]:6443");
        assert_eq!(target(Component::Kubelet, "127.0.0.1:10248").endpoint(), "http://127.0.0.1:10248");
    }
}
