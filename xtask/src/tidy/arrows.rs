//! Which module of the agent may use which: arrows point one way.

use super::{
    source::{Source, Token, follows},
    violation::Violation,
};

const ROOT: &str = "probe-user/src/";

/// The agent's modules from the leaves up. A module uses what stands on a lower line, or beside it; the leaves use
/// nothing of ours.
const LAYERS: &[&[&str]] = &[
    &["metric", "wire", "event", "config"],
    &["source", "telemetry"],
    &["host", "identity", "peer"],
    &["ledger"],
    &["kernel"],
    &["collector"],
    &["http"],
    &["agent"],
    &["cli"],
];

/// Readers give plain data; what becomes of it is a collector's business.
const FORBIDDEN: &[(&str, &str)] = &[("source", "metric"), ("kernel", "metric")];

/// Every use of a module that the layers do not allow.
pub(super) fn modules(source: &Source<'_>) -> Vec<Violation> {
    let Some(inside) = source.path.strip_prefix(ROOT) else { return Vec::new() };
    let parts: Vec<&str> = inside.trim_end_matches(".rs").split('/').collect();
    let module = parts[0];
    if parts == ["main"] || parts == ["lib"] {
        return Vec::new();
    }
    let Some(layer) = layer_of(module) else {
        let fix = format!("`{module}` has no layer: give it one in xtask/src/tidy/arrows.rs");
        return vec![Violation::new(source.path, 1, "arrow", fix)];
    };
    uses(&source.production(), parts.len())
        .into_iter()
        .filter(|used| used.text != module)
        .filter_map(|used| {
            refuse(module, layer, used.text).map(|fix| Violation::new(source.path, used.line, "arrow", fix))
        })
        .collect()
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// Why a module must not use another one, and what to do.
fn refuse(module: &str, layer: usize, used: &str) -> Option<String> {
    // What is no module is an item of the crate root, or a mistake that the compiler reports.
    let below = layer_of(used)?;
    if FORBIDDEN.contains(&(module, used)) {
        return Some(format!(
            "`{module}` must not use `{used}`: return plain data and let a collector use it"
        ));
    }
    let leaf = layer == 0;
    (below > layer || leaf && below == 0).then(|| {
        let kind = if leaf { "is a leaf and" } else { "is below it and" };
        format!("`{module}` must not use `{used}`: it {kind} takes what it needs as arguments")
    })
}

/// The top-level modules that are named through `crate::` or through enough `super::`.
fn uses<'a>(tokens: &[Token<'a>], depth: usize) -> Vec<Token<'a>> {
    let to_root: Vec<&str> = ["super", "::"].repeat(depth);
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        let after_super = at > 0 && tokens[at - 1].text == "::";
        if follows(tokens, at, &["crate", "::"]) {
            found.extend(names(&tokens[at + 2..]));
        } else if !after_super && follows(tokens, at, &to_root) {
            found.extend(names(&tokens[at + to_root.len()..]));
        }
    }
    found
}

/// The first names after a path prefix: one, or those of a group in braces.
fn names<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    let Some(first) = tokens.first() else { return Vec::new() };
    if first.text != "{" {
        return vec![*first];
    }
    let mut found = Vec::new();
    let mut depth = 0_usize;
    let mut begins = false;
    for token in tokens {
        match token.text {
            "{" => {
                depth += 1;
                begins = depth == 1;
            }
            "}" => {
                depth -= 1;
                if depth == 0 {
                    break;
                }
            }
            "," => begins = depth == 1,
            _ if begins => {
                found.push(*token);
                begins = false;
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(path: &str, code: &str) -> Vec<(usize, String)> {
        modules(&Source::new(path, code, &[]))
            .into_iter()
            .map(|violation| (violation.line, violation.fix))
            .collect()
    }

    fn lines(path: &str, code: &str) -> Vec<usize> {
        broken(path, code).into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn lower_layers_may_be_used() {
        let code = "use crate::{metric::Descriptor, source::procfs};\nfn a() { crate::kernel::load() }\n";
        assert_eq!(broken("probe-user/src/collector/tcp.rs", code), []);
        assert_eq!(broken("probe-user/src/agent.rs", "use crate::{collector, http, kernel};\n"), []);
    }

    #[test]
    fn higher_layers_may_not() {
        assert_eq!(
            broken("probe-user/src/collector/tcp.rs", "\nuse crate::http::Server;\n"),
            [(
                2,
                "`collector` must not use `http`: it is below it and takes what it needs as arguments"
                    .to_owned()
            )]
        );
        assert_eq!(lines("probe-user/src/http.rs", "fn a() { crate::agent::b() }\n"), [1]);
        assert_eq!(lines("probe-user/src/agent.rs", "use crate::cli::flags::Flags;\n"), [1]);
    }

    #[test]
    fn groups_are_looked_into_but_not_deeper() {
        let code = "use crate::{\n    metric::{agent, Sink},\n    agent::{self, Agent},\n    cli,\n};\n";
        assert_eq!(lines("probe-user/src/collector.rs", code), [3, 4]);
    }

    #[test]
    fn the_way_through_super_counts_as_well() {
        assert_eq!(lines("probe-user/src/metric.rs", "use super::agent;\n"), [1]);
        assert_eq!(lines("probe-user/src/metric/sink.rs", "use super::super::agent;\n"), [1]);
        assert_eq!(lines("probe-user/src/metric/sink.rs", "use super::agent;\n"), [0_usize; 0]);
    }

    #[test]
    fn leaves_use_nothing_of_ours() {
        assert_eq!(lines("probe-user/src/metric.rs", "use crate::event::Ring;\n"), [1]);
        assert_eq!(lines("probe-user/src/metric/sink.rs", "use crate::metric::Descriptor;\n"), [0_usize; 0]);
    }

    #[test]
    fn readers_do_not_know_metrics() {
        assert_eq!(lines("probe-user/src/source/procfs.rs", "use crate::metric::Sink;\n"), [1]);
        assert_eq!(lines("probe-user/src/kernel/map.rs", "use crate::metric::Sink;\n"), [1]);
    }

    #[test]
    fn a_new_module_needs_a_layer() {
        assert_eq!(
            broken("probe-user/src/novelty.rs", "fn a() {}\n"),
            [(1, "`novelty` has no layer: give it one in xtask/src/tidy/arrows.rs".to_owned())]
        );
    }

    #[test]
    fn tests_and_other_crates_may_use_everything() {
        assert_eq!(broken("probe-user/src/metric.rs", "#[cfg(test)]\nmod tests { use crate::agent; }\n"), []);
        assert_eq!(broken("tests/src/agent.rs", "use crate::agent;\n"), []);
        assert_eq!(broken("probe-user/src/main.rs", "use crate::agent;\n"), []);
    }
}
