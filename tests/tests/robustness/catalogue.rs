//! Families of metrics as the page, the catalogue and METRICS.md name them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use lab::scrape;

/// A family: its type, the names of its labels, and the smallest profile that has it, which a page does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) labels: BTreeSet<String>,
    pub(crate) profile: String,
}

/// Families by name.
pub(crate) type Families = BTreeMap<String, Family>;

/// What the page declares and exports. A family without samples, or samples without a family, are errors.
pub(crate) fn of_page(text: &str) -> Result<Families> {
    let mut families = Families::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').with_context(|| line.to_owned())?;
            let family = Family { kind: kind.to_owned(), ..Family::default() };
            ensure!(families.insert(name.to_owned(), family).is_none(), "{name} is declared twice");
        }
    }
    let mut seen = BTreeSet::new();
    for sample in scrape::parse(text)?.all() {
        let name = family_name(&families, &sample.name).with_context(|| format!("{sample:?} has no type"))?;
        let labels = sample.labels.keys().filter(|label| *label != "le").cloned();
        let family = families.get_mut(&name).with_context(|| name.clone())?;
        family.labels.extend(labels);
        seen.insert(name);
    }
    let empty: Vec<&String> = families.keys().filter(|name| !seen.contains(*name)).collect();
    ensure!(empty.is_empty(), "declared without a sample: {empty:?}");
    Ok(families)
}

fn family_name(families: &Families, sample: &str) -> Option<String> {
    if families.contains_key(sample) {
        return Some(sample.to_owned());
    }
    let bases = ["_bucket", "_sum", "_count"].iter().filter_map(|suffix| sample.strip_suffix(suffix));
    bases
        .into_iter()
        .find(|base| families.get(*base).is_some_and(|family| family.kind == "histogram"))
        .map(str::to_owned)
}

/// What `leadline metrics` lists: `  name{label,label}  kind`, and `  from profile NAME on` unless every profile has it.
pub(crate) fn of_list(text: &str) -> Result<Families> {
    let lines = text.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let families = lines.map(|line| {
        let (series, rest) = line.trim().split_once("  ").with_context(|| line.to_owned())?;
        let (kind, note) = rest.split_once("  ").unwrap_or((rest, "from profile minimal on"));
        let profile = note.split(' ').nth(2).with_context(|| line.to_owned())?.to_owned();
        let (name, labels) = series.trim_end_matches('}').split_once('{').unwrap_or((series, ""));
        let labels = labels.split(',').filter(|label| !label.is_empty()).map(str::to_owned).collect();
        Ok((name.to_owned(), Family { kind: kind.to_owned(), labels, profile }))
    });
    unique(families.collect::<Result<_>>()?)
}

/// What METRICS.md describes: rows of tables that begin with a name.
pub(crate) fn of_markdown(text: &str) -> Result<Families> {
    let rows =
        text.lines().filter(|line| line.starts_with("| `leadline_") || line.starts_with("| `process_"));
    let families = rows.map(|row| {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [name, kind, _, labels, profile, ..] = cells[..] else { anyhow::bail!("malformed row {row}") };
        let words = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        let name = words(name).into_iter().next().with_context(|| row.to_owned())?;
        let labels = words(labels).into_iter().collect();
        Ok((name, Family { kind: kind.to_owned(), labels, profile: profile.to_owned() }))
    });
    unique(families.collect::<Result<_>>()?)
}

fn unique(list: Vec<(String, Family)>) -> Result<Families> {
    let count = list.len();
    let families: Families = list.into_iter().collect();
    ensure!(families.len() == count && count > 0, "{count} families, of which {} differ", families.len());
    Ok(families)
}
