//! What an alert rule is.

use crate::expression::Expression;

/// Who is told, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Somebody is woken.
    Critical,
    /// Somebody looks at it on the next working day.
    Warning,
}

impl Severity {
    /// The value of the `severity` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
        }
    }
}

/// An alert. It is also the name of its runbook.
#[derive(Clone, Debug)]
pub struct Alert {
    /// Words in capitals, the subject first.
    pub name: &'static str,
    /// Who is told.
    pub severity: Severity,
    /// It is true while this has a result: one alert for each.
    pub expression: Expression,
    /// Seconds for which it must be true before anybody is told.
    pub hold: u32,
    /// Seconds for which it goes on after it was true last: a scrape that is missed ends no alert.
    pub keep: u32,
    /// One sentence without values.
    pub summary: &'static str,
    /// What happened to what, as a template of Prometheus.
    pub description: &'static str,
}

/// Alerts of one subject, evaluated together.
#[derive(Clone, Debug)]
pub struct Group {
    /// The subject; with a prefix the name of the group, and of its files.
    pub subject: &'static str,
    /// Seconds between two evaluations.
    pub interval: u32,
    /// The alerts.
    pub alerts: Vec<Alert>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use leadline::collector::CATALOGUE;

    use super::*;
    use crate::groups;

    fn alerts() -> Vec<Alert> {
        groups().into_iter().flat_map(|group| group.alerts).collect()
    }

    fn is_known(metric: &str) -> bool {
        CATALOGUE.iter().flat_map(|(_, descriptors)| *descriptors).any(|descriptor| descriptor.name == metric)
    }

    /// The labels that a template reads.
    fn read_labels(template: &str) -> BTreeSet<&str> {
        let rest = template.split("$labels.").skip(1);
        rest.map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap()).collect()
    }

    #[test]
    fn every_expression_asks_for_what_there_is() {
        for alert in alerts() {
            assert_eq!(alert.expression.faults(), &[] as &[String], "{}", alert.name);
        }
    }

    #[test]
    fn templates_read_labels_that_the_alert_has() {
        assert_eq!(read_labels("{{ $labels.vip }} {{ with $labels.cluster }}"), ["cluster", "vip"].into());
        for alert in alerts() {
            let has = alert.expression.labels();
            for label in read_labels(alert.description) {
                assert!(has.contains(label), "{}: {label} is none of {has:?}", alert.name);
            }
            assert!(!alert.summary.contains("{{"), "{}: the summary is the same each time", alert.name);
            assert!(alert.summary.ends_with('.') && alert.description.ends_with('.'), "{}", alert.name);
        }
    }

    #[test]
    fn names_begin_with_their_subject_and_are_given_once() {
        let all = alerts();
        let names: BTreeSet<_> = all.iter().map(|alert| alert.name).collect();
        assert_eq!(names.len(), all.len());
        for group in groups() {
            let subject = if group.subject == "agent" { "LeadlineAgent" } else { group.subject };
            for alert in group.alerts {
                let name = alert.name;
                assert!(name[..subject.len()].eq_ignore_ascii_case(subject), "{name} is not about {subject}");
            }
        }
    }

    #[test]
    fn a_page_outlives_a_missed_scrape() {
        for group in groups() {
            for alert in group.alerts.iter().filter(|alert| alert.severity == Severity::Critical) {
                assert!(alert.keep >= 2 * group.interval, "{}", alert.name);
            }
        }
    }

    #[test]
    fn every_alert_has_a_runbook_and_every_runbook_an_alert() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("runbooks");
        let found: BTreeSet<String> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let wanted = alerts().iter().map(|alert| format!("{}.md", alert.name)).collect();
        assert_eq!(found, wanted);
        for name in found {
            let text = fs::read_to_string(folder.join(&name)).unwrap();
            let headings: Vec<_> = text.lines().filter(|line| line.starts_with('#')).collect();
            let title = format!("# {}", name.trim_end_matches(".md"));
            assert_eq!(
                headings,
                [&*title, "## Meaning", "## Impact", "## Diagnosis", "## Mitigation"],
                "{name}"
            );
            for metric in text.split(|c: char| !c.is_alphanumeric() && c != '_') {
                let is_metric = metric.starts_with("leadline_");
                assert!(!is_metric || is_known(metric), "{name}: no metric has the name {metric}");
            }
        }
    }
}
