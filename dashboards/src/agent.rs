//! The agent itself: whether it can be scraped, and whether it sees what it should.

use leadline::metric::Descriptor;

use crate::expression::{Expression, Matcher, family, like};
use crate::rule::{Alert, Group, Severity};

const SUCCESS: &Descriptor = family("leadline_collector_success");
const SUPPORT: &Descriptor = family("leadline_collector_support");

/// The job of the shipped scrape configuration, and what the operator of Prometheus makes of the monitors' names.
const JOB: Matcher = like("job", "(.+/)?leadline");

/// Reasons that are a failure and not a property of the node. What is missing on a node, as HAProxy or a virtual
/// address, or is given up on purpose, as etcd's certificate, is none. Those of etcd are given where no member
/// answers: while one does the collector sees what there is to see.
pub(crate) const FAILURES: &str = "programs could not be loaded|support check failed|an uplink could not be tapped\
    |network state cannot be read.*|listeners could not be listed\
    |the UDP port of the probes is taken|the key file of the probes .*\
    |etcd does not run.*|etcd does not answer.*|etcd cannot be asked.*|no way leads to etcd.*|TLS with etcd fails.*\
    |etcd refuses the client certificate.*|the certificate of etcd .*|the client certificate of etcd .*";

/// The alerts.
#[must_use]
pub fn rules() -> Group {
    Group { subject: "agent", interval: 30, alerts: vec![down(), blind()] }
}

fn down() -> Alert {
    let unreached = Expression::up(&[JOB]).max_by(&["cluster", "instance", "node"]).equals(0);
    Alert {
        name: "LeadlineAgentDown",
        severity: Severity::Warning,
        expression: unreached.or_absent(&Expression::up(&[JOB])),
        hold: 120,
        keep: 0,
        summary: "An agent cannot be scraped, or none is a target.",
        description: "{{ with $labels.instance }}The agent at {{ . }} cannot be scraped{{ else }}No agent is a target of Prometheus{{ end }}: what it alone sees, no rule sees.",
    }
}

fn blind() -> Alert {
    let collector: &[&str] = &["cluster", "instance", "node", "collector"];
    let failing = Expression::of(SUCCESS, &[]).max_by(collector).equals(0);
    let unable = Expression::of(SUPPORT, &[like("reason", FAILURES)]);
    Alert {
        name: "LeadlineAgentBlind",
        severity: Severity::Warning,
        expression: failing.or(unable.max_by(collector).equals(1)),
        hold: 300,
        keep: 60,
        summary: "A collector of an agent does not do what it should.",
        description: "The collector {{ $labels.collector }} of the agent at {{ $labels.instance }} fails, or says that it cannot work: alerts over its metrics stay silent.",
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    fn sources(folder: &Path) -> String {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let read = |path: PathBuf| {
            let is_source = path.extension().is_some_and(|extension| extension == "rs");
            if path.is_dir() {
                sources(&path)
            } else if is_source {
                fs::read_to_string(&path).unwrap()
            } else {
                String::new()
            }
        };
        entries.map(read).collect()
    }

    #[test]
    fn every_reason_is_one_that_the_agent_gives() {
        let agent = Path::new(env!("CARGO_MANIFEST_DIR")).join("../probe-user/src");
        let all = ["agent", "collector", "source"].map(|folder| sources(&agent.join(folder))).concat();
        for reason in FAILURES.split('|') {
            let words = reason.trim_end_matches(".*");
            assert!(all.contains(&format!("\"{words}")), "no collector says: {words}");
        }
    }
}
