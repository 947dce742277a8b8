//! The rendered rules and boards as Prometheus reads them, and what the rules fire for.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use dashboards::{boards, groups};
use serde_yaml_ng::Value;

/// The YAML files in a folder of the crate, in order.
fn files(folder: &str) -> Result<Vec<PathBuf>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
    let mut files: Vec<_> = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    ensure!(!files.is_empty(), "{} has no YAML files", folder.display());
    Ok(files)
}

/// Runs promtool, which must be content.
fn promtool(arguments: &[&str], files: &[PathBuf]) -> Result<()> {
    let output = Command::new("promtool").args(arguments).args(files).output().context("start promtool")?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    Ok(())
}

/// The expectations of all cases: an expression, and whether it has a result.
fn expectations() -> Result<Vec<(String, bool)>> {
    let mut found = Vec::new();
    for file in files("tests")? {
        let page: Value = serde_yaml_ng::from_str(&fs::read_to_string(&file)?)?;
        for case in page["tests"].as_sequence().context("no cases")? {
            for expected in case["promql_expr_test"].as_sequence().context("a case without expectations")? {
                let samples = expected["exp_samples"].as_sequence().context("no samples")?;
                let expression = expected["expr"].as_str().context("no expression")?;
                found.push((expression.to_owned(), !samples.is_empty()));
            }
        }
    }
    Ok(found)
}

#[test]
fn prometheus_takes_the_rules() -> Result<()> {
    promtool(&["check", "rules"], &files("rendered/rules")?)?;
    let config = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("prometheus.yaml");
    promtool(&["check", "config"], &[config])
}

/// Grafana puts times in; what stands for choices is a regular expression to Prometheus.
#[test]
fn prometheus_takes_what_boards_ask() -> Result<()> {
    let mut rules = Vec::new();
    for board in boards() {
        let queries = board.rows.iter().flat_map(|row| &row.panels).flat_map(|panel| &panel.queries);
        let asked =
            queries.map(|query| &query.expression).chain(board.annotations.iter().map(|one| &one.expression));
        for expression in asked {
            let text = expression.to_string().replace("$__rate_interval", "1m").replace("$__range", "3h");
            let record = format!("board:{}", rules.len());
            rules.push(serde_json::json!({"record": record, "expr": text}));
        }
    }
    ensure!(rules.len() > 60, "{} expressions", rules.len());
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("boards.yaml");
    fs::write(&file, serde_json::json!({"groups": [{"name": "boards", "rules": rules}]}).to_string())?;
    promtool(&["check", "rules"], &[file])
}

#[test]
fn alerts_fire_when_they_should_and_not_otherwise() -> Result<()> {
    promtool(&["test", "rules"], &files("tests")?)
}

#[test]
fn every_alert_has_a_firing_and_a_silent_case() -> Result<()> {
    let all = expectations()?;
    let of = |fires: bool| -> BTreeSet<&str> {
        let wanted = all.iter().filter(|(_, has)| *has == fires);
        let named = |expression: &'_ str| expression.find("ALERTS{alertname=\"").map(|at| at + 18);
        wanted.filter_map(|(expression, _)| expression[named(expression)?..].split('"').next()).collect()
    };
    let groups = groups();
    let alerts: BTreeSet<&str> =
        groups.iter().flat_map(|group| group.alerts.iter().map(|alert| alert.name)).collect();
    ensure!(of(true) == alerts, "firing cases: {:?}", of(true));
    ensure!(of(false) == alerts, "silent cases: {:?}", of(false));
    Ok(())
}

#[test]
fn every_group_has_a_file_of_cases() -> Result<()> {
    let names = |folder| -> Result<Vec<OsString>> {
        Ok(files(folder)?.iter().filter_map(|path| path.file_name().map(Into::into)).collect())
    };
    ensure!(names("tests")? == names("rendered/rules")?);
    Ok(())
}
