//! A board as it is shipped, asked as Grafana asks it with nothing chosen.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::{Prometheus, tools};
use serde_json::Value;

/// What Grafana puts in for a scrape interval of five seconds, and what for the time that a board shows.
const RATE_INTERVAL: (&str, &str) = ("$__rate_interval", "30s");
const RANGE: &str = "$__range";

/// A board and its choices.
pub(crate) struct Board {
    json: Value,
    /// What stands for all of each choice.
    all: BTreeMap<String, String>,
}

/// What a panel or an annotation asks.
#[derive(Clone)]
pub(crate) struct Asked {
    /// Board, panel and query.
    pub(crate) name: String,
    pub(crate) expression: String,
    legend: String,
    is_instant: bool,
    /// An empty cell of a table says something, an empty word in a name does not.
    is_table: bool,
}

fn text<'a>(of: &'a Value, key: &str) -> Result<&'a str> {
    of[key].as_str().with_context(|| format!("no {key} in {of:#}"))
}

fn list<'a>(of: &'a Value, pointer: &str) -> Result<&'a Vec<Value>> {
    of.pointer(pointer).and_then(Value::as_array).with_context(|| format!("no list {pointer}"))
}

impl Board {
    pub(crate) fn read(uid: &str) -> Result<Self> {
        let path = tools::workspace().join(format!("dashboards/rendered/boards/{uid}.json"));
        let json = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let json: Value = serde_json::from_str(&json).with_context(|| format!("{}", path.display()))?;
        let mut all = BTreeMap::new();
        for variable in list(&json, "/templating/list")?.iter().filter(|one| one["type"] == "query") {
            all.insert(text(variable, "name")?.to_owned(), text(variable, "allValue")?.to_owned());
        }
        Ok(Self { json, all })
    }

    fn filled(&self, expression: &str) -> String {
        let expression = expression.replace(RATE_INTERVAL.0, RATE_INTERVAL.1);
        self.all.iter().fold(expression, |text, (name, all)| text.replace(&format!("${name}"), all))
    }

    /// All that it asks.
    pub(crate) fn asked(&self) -> Result<Vec<Asked>> {
        let (uid, mut found) = (text(&self.json, "uid")?, Vec::new());
        for panel in list(&self.json, "/panels")?.iter().filter(|panel| panel["type"] != "row") {
            for target in list(panel, "/targets")? {
                found.push(Asked {
                    name: format!("{uid}, {}, {}", text(panel, "title")?, text(target, "refId")?),
                    expression: self.filled(text(target, "expr")?),
                    legend: text(target, "legendFormat")?.to_owned(),
                    is_instant: target["instant"] == true,
                    is_table: panel["type"] == "table",
                });
            }
        }
        for annotation in list(&self.json, "/annotations/list")? {
            found.push(Asked {
                name: format!("{uid}, {}", text(annotation, "name")?),
                expression: self.filled(text(annotation, "expr")?),
                legend: String::new(),
                is_instant: false,
                is_table: false,
            });
        }
        Ok(found)
    }

    /// What asks for the annotations.
    pub(crate) fn marks(&self) -> Result<Vec<String>> {
        let marks = list(&self.json, "/annotations/list")?.iter();
        marks.map(|one| Ok(self.filled(text(one, "expr")?))).collect()
    }

    /// The values that can be chosen, by the names of the choices.
    pub(crate) fn choices(&self, prometheus: &Prometheus) -> Result<BTreeMap<String, Vec<String>>> {
        let mut found = BTreeMap::new();
        for variable in list(&self.json, "/templating/list")?.iter().filter(|one| one["type"] == "query") {
            let query = self.filled(text(&variable["query"], "query")?);
            let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
            let (selector, label) =
                inner.and_then(|inner| inner.rsplit_once(", ")).context("no label_values")?;
            found.insert(text(variable, "name")?.to_owned(), prometheus.label_values(selector, label)?);
        }
        Ok(found)
    }

    /// The word that a panel shows now.
    pub(crate) fn word(&self, prometheus: &Prometheus, title: &str) -> Result<String> {
        let panel = list(&self.json, "/panels")?.iter().find(|panel| panel["title"] == title);
        let panel = panel.with_context(|| format!("no panel {title}"))?;
        let defaults = &panel["fieldConfig"]["defaults"];
        let expression = self.filled(text(&panel["targets"][0], "expr")?);
        let series = prometheus.query(&expression)?;
        ensure!(series.len() <= 1, "{title}: {series:#?}");
        let Some(series) = series.first() else { return Ok(text(defaults, "noValue")?.to_owned()) };
        let value = series["value"][1].as_str().with_context(|| format!("no value in {series:#}"))?;
        let word = &defaults["mappings"][0]["options"][value]["text"];
        Ok(word.as_str().with_context(|| format!("{title}: no word for {value}"))?.to_owned())
    }
}

impl Asked {
    /// How many series it has on a board that shows so much of the past; each of them has a name of its own and a number.
    pub(crate) fn series(&self, prometheus: &Prometheus, back: Duration) -> Result<usize> {
        let expression = self.expression.replace(RANGE, &format!("{}s", back.as_secs()));
        let series = if self.is_instant {
            prometheus.query(&expression)
        } else {
            prometheus.query_range(&expression, back)
        };
        let series = series.with_context(|| self.name.clone())?;
        let mut names = BTreeSet::new();
        for one in series.iter().filter(|one| has_number(one)) {
            let name = self.series_name(&one["metric"])?;
            ensure!(names.insert(name.clone()), "{}: two series are called {name}", self.name);
        }
        Ok(names.len())
    }

    /// The legend with its labels filled in.
    fn series_name(&self, labels: &Value) -> Result<String> {
        let mut name = if self.legend.is_empty() { labels.to_string() } else { self.legend.clone() };
        for label in self.legend.split("{{").skip(1).filter_map(|rest| rest.split("}}").next()) {
            let value = labels[label].as_str().unwrap_or_default();
            ensure!(self.is_table || !value.is_empty(), "{}: {labels} has no {label}", self.name);
            name = name.replace(&format!("{{{{{label}}}}}"), value);
        }
        Ok(name)
    }
}

fn has_number(series: &Value) -> bool {
    let values = series["values"].as_array().cloned().unwrap_or_else(|| vec![series["value"].clone()]);
    let is_number =
        |value: &Value| value[1].as_str().and_then(|text| text.parse().ok()).is_some_and(f64::is_finite);
    values.iter().any(is_number)
}
