//! What is wrong with a configuration file: where, and what was probably meant.

use std::{
    cmp::Reverse,
    io,
    path::{Path, PathBuf},
};

use serde_yaml_ng::Value;

use super::DEFAULT_TEXT;

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A field does not exist, or its value does not fit.
    #[error("{}:{line}:{column}: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong and what would be right.
        problem: String,
    },
}

/// Turns the parser's error into one that names the place and the probable intention.
pub(super) fn explain(path: &Path, text: &str, error: serde_yaml_ng::Error) -> ConfigError {
    // Of a file that is no YAML the parser reports the first symptom, which may be a field before the mistake.
    let error = serde_yaml_ng::from_str::<Value>(text).err().unwrap_or(error);
    let (line, column) = error.location().map_or((1, 1), |place| (place.line(), place.column()));
    let whole = error.to_string();
    // The place is said once, in front; syntax errors give a second one for their context.
    let message = whole.split(" at line ").next().unwrap_or(&whole);
    let context = whole.find(", while ").map(|start| &whole[start..]);
    let context = context.and_then(|text| text.split(" at line ").next()).unwrap_or_default();
    let problem = match context {
        "" => rephrase(message),
        context if message.ends_with(context) => message.replace(", while", " while"),
        context => format!("{message}{}", context.replace(", while", " while")),
    };
    ConfigError::Invalid { path: path.to_owned(), line, column, problem }
}

fn rephrase(message: &str) -> String {
    if let Some((before, after)) = message.split_once("unknown field `") {
        return unknown_field(before.trim_end_matches(": "), after);
    }
    if let Some((before, after)) = message.split_once("unknown variant `") {
        return unknown_value(before, after);
    }
    match message.split_once(", expected struct ") {
        Some((what, _)) => format!("{what}, expected fields as `leadline config default` lists them"),
        None => message.to_owned(),
    }
}

fn unknown_field(section: &str, rest: &str) -> String {
    let mut names = quoted(rest);
    let name = names.next().unwrap_or_default();
    let siblings: Vec<&str> = names.collect();
    let full = join(section, name);
    let meant = nearest(name, siblings.iter().copied())
        .map(|sibling| join(section, sibling))
        .or_else(|| elsewhere(name, &known_fields()));
    match meant {
        Some(meant) => format!("unknown field `{full}`: did you mean `{meant}`?"),
        None => format!("unknown field `{full}`: known here are {}", enumerate(&siblings, "and")),
    }
}

fn unknown_value(place: &str, rest: &str) -> String {
    let mut names = quoted(rest);
    let name = names.next().unwrap_or_default();
    let known: Vec<&str> = names.collect();
    let takes = format!("takes {}", enumerate(&known, "or"));
    match nearest(name, known.iter().copied()) {
        Some(meant) => format!("{place}unknown value `{name}`: did you mean `{meant}`? It {takes}"),
        None => format!("{place}unknown value `{name}`: it {takes}"),
    }
}

/// The names between back quotes, the first of which lacks its opening one.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').step_by(2).filter(|part| !part.is_empty())
}

/// The candidate that is most like a name, if any is like it at all.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let tolerated = (name.chars().count() / 3).clamp(1, 3);
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= tolerated)
        // Of equally near ones the one that starts alike: `of` is a cut `off` rather than `on`.
        .min_by_key(|(distance, candidate)| (*distance, Reverse(common_prefix(name, candidate))))
        .map(|(_, candidate)| candidate)
}

fn common_prefix(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count()
}

/// A field of another section that has this name, as its whole path.
fn elsewhere(name: &str, known: &[String]) -> Option<String> {
    let leaf = |path: &str| path.rsplit('.').next().map(str::to_owned);
    known.iter().find(|path| leaf(path).as_deref() == Some(name)).cloned()
}

/// The path of every field, from the default text.
fn known_fields() -> Vec<String> {
    let mut found = Vec::new();
    // The default text is parsed by a test; were it broken, only this suggestion would be missing.
    let value: Value = serde_yaml_ng::from_str(DEFAULT_TEXT).unwrap_or_default();
    walk("", &value, &mut found);
    found
}

fn walk(prefix: &str, value: &Value, found: &mut Vec<String>) {
    let Value::Mapping(fields) = value else { return };
    for (key, value) in fields {
        let Some(key) = key.as_str() else { continue };
        let path = join(prefix, key);
        walk(&path, value, found);
        found.push(path);
    }
}

fn join(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

fn enumerate(names: &[&str], last: &str) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        None => "none".to_owned(),
        Some((only, [])) => only.clone(),
        Some((end, rest)) => format!("{} {last} {end}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_tolerates_slips_but_not_other_words() {
        let words = ["listen_address", "max_connections"];
        assert_eq!(nearest("listen_adress", words.into_iter()), Some("listen_address"));
        assert_eq!(nearest("max_connection", words.into_iter()), Some("max_connections"));
        assert_eq!(nearest("timeout", words.into_iter()), None);
        assert_eq!(nearest("", words.into_iter()), None);
    }

    #[test]
    fn of_equally_near_ones_the_one_that_starts_alike_is_meant() {
        assert_eq!(nearest("of", ["on", "off"].into_iter()), Some("off"));
    }

    #[test]
    fn known_fields_have_whole_paths() {
        let known = known_fields();
        for field in ["web", "web.listen_address", "collector.self", "peers.nodes", "slots"] {
            assert!(known.iter().any(|path| path == field), "{field} in {known:?}");
        }
    }
}
