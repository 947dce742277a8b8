//! The rendered rules as Prometheus reads them, and what they fire for.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use dashboards::groups;
use serde_yaml_ng::Value;

/// Paths below the crate with this extension, in order.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(folder);
    let paths = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths.filter(|path| path.extension().is_some_and(|is| is == extension)).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files
}

/// Runs promtool, which must be content.
fn promtool(arguments: &[&str], files: &[PathBuf]) {
    let output = Command::new("promtool").args(arguments).args(files).output().expect("promtool starts");
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{said}");
}

/// The expectations of all cases: an expression, and whether it has a result.
fn expectations() -> Vec<(String, bool)> {
    let mut found = Vec::new();
    for file in files("tests", "yaml") {
        let page: Value = serde_yaml_ng::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        for case in page["tests"].as_sequence().unwrap() {
            for expected in case["promql_expr_test"].as_sequence().unwrap() {
                let fires = !expected["exp_samples"].as_sequence().unwrap().is_empty();
                found.push((expected["expr"].as_str().unwrap().to_owned(), fires));
            }
        }
    }
    found
}

#[test]
fn prometheus_takes_the_rules() {
    promtool(&["check", "rules"], &files("rendered/rules", "yaml"));
    let config = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("prometheus.yaml");
    promtool(&["check", "config"], &[config]);
}

#[test]
fn alerts_fire_when_they_should_and_not_otherwise() {
    promtool(&["test", "rules"], &files("tests", "yaml"));
}

#[test]
fn every_alert_has_a_firing_and_a_silent_case() {
    let all = expectations();
    let of = |fires: bool| -> BTreeSet<&str> {
        let wanted = all.iter().filter(|(_, has)| *has == fires);
        wanted
            .filter_map(|(expression, _)| expression.split("ALERTS{alertname=\"").nth(1)?.split('"').next())
            .collect()
    };
    let alerts: BTreeSet<&str> =
        groups().iter().flat_map(|group| group.alerts.iter().map(|alert| alert.name)).collect();
    assert_eq!(of(true), alerts, "firing");
    assert_eq!(of(false), alerts, "silent");
}

#[test]
fn every_group_has_a_file_of_cases() {
    let names = |folder, extension| -> Vec<_> {
        files(folder, extension).iter().map(|path| path.file_name().unwrap().to_owned()).collect()
    };
    assert_eq!(names("tests", "yaml"), names("rendered/rules", "yaml"));
}
