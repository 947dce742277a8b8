//! Rules about one file.

use super::{
    source::{Source, Token, follows},
    violation::Violation,
};

/// Lines of a file that are not tests.
const MAX_LINES: usize = 400;

/// Words of work that is not done. Written in pieces, since this file follows the rule too.
const UNFINISHED: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];

/// Crates that only one part of the agent may name: rule, crates, where, what to do elsewhere.
const FENCED: [(&str, &[&str], &str, &str); 2] = [
    (
        "aya-outside-kernel",
        &["aya", "aya_log", "aya_obj"],
        "probe-user/src/kernel",
        "only probe-user/src/kernel/ names aya: add a typed function there and call it",
    ),
    (
        "hyper-outside-http",
        &["hyper", "hyper_util", "http_body_util"],
        "probe-user/src/http",
        "only probe-user/src/http/ names hyper: add a plain type or function there and use it",
    ),
];

/// Where the compiler's guarantees may be given up: a path, and whether the file must say why at its head.
const UNSAFE_PLACES: [(&str, bool); 5] = [
    ("probe-ebpf/src/", false),
    ("probe-user/src/kernel/", false),
    ("probe-user/src/kernel.rs", false),
    ("probe-user/build.rs", true),
    ("tests/", true),
];

/// All rules about Rust files.
pub(super) fn all(source: &Source<'_>) -> Vec<Violation> {
    let mut found = Vec::from_iter(module_doc(source));
    found.extend(length(source));
    found.extend(fenced(source));
    found.extend(spawn(source));
    found.extend(unwrap(source));
    found.extend(unsafe_code(source));
    found
}

/// Work that is not done belongs into an issue.
pub(super) fn unfinished(path: &str, text: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        for word in words.filter(|word| UNFINISHED.contains(word)) {
            let fix = format!("do it, or write an issue and delete the {word}");
            found.push(Violation::new(path, number + 1, "unfinished", fix));
        }
    }
    found
}

fn module_doc(source: &Source<'_>) -> Option<Violation> {
    let documented =
        source.text.lines().next().is_some_and(|line| line.len() > 4 && line.starts_with("//! "));
    let fix = "begin the file with a line `//! What this is.`";
    (!documented).then(|| Violation::new(source.path, 1, "module-doc", fix))
}

fn length(source: &Source<'_>) -> Option<Violation> {
    let lines = source.production_lines();
    let fix = format!("{lines} lines besides tests, at most {MAX_LINES}: split it by subject");
    (lines > MAX_LINES).then(|| Violation::new(source.path, MAX_LINES + 1, "file-length", fix))
}

fn is_agent(source: &Source<'_>) -> bool {
    source.path.starts_with("probe-user/src/")
}

/// A folder and the file of its module.
fn is_in(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
}

fn fenced(source: &Source<'_>) -> Vec<Violation> {
    if !is_agent(source) {
        return Vec::new();
    }
    let mut found = Vec::new();
    let tokens = source.tokens();
    for (rule, crates, place, fix) in FENCED {
        if is_in(source.path, place) {
            continue;
        }
        for (at, token) in tokens.iter().enumerate() {
            if crates.contains(&token.text) && is_crate_name(&tokens, at) {
                found.push(Violation::new(source.path, token.line, rule, fix));
            }
        }
    }
    found
}

/// Whether a word names a crate, and no field, variable or module of that name: it begins a path or an import.
fn is_crate_name(tokens: &[Token<'_>], at: usize) -> bool {
    let text =
        |index: Option<usize>| index.and_then(|index| tokens.get(index)).map_or("", |token| token.text);
    let before = text(at.checked_sub(1));
    let after = text(Some(at + 1));
    let two_before = text(at.checked_sub(2));
    let continues = before == "::" && two_before != "use" && two_before.starts_with(char::is_alphanumeric);
    !continues && (after == "::" || matches!(before, "use" | "crate") && matches!(after, ";" | "as"))
}

fn spawn(source: &Source<'_>) -> Vec<Violation> {
    if !is_agent(source) {
        return Vec::new();
    }
    let tokens = source.production();
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let forks = matches!(
            token.text,
            "execv" | "execve" | "execvp" | "execvpe" | "fexecve" | "fork" | "posix_spawn" | "posix_spawnp"
        ) && tokens.get(at + 1).is_some_and(|next| matches!(next.text, "(" | "," | "}" | ";"));
        if forks || names_command(&tokens, at) || follows(&tokens, at, &["libc", "::", "system"]) {
            let fix = "the agent starts no programs: read the kernel, a socket or a file instead";
            found.push(Violation::new(source.path, token.line, "process-spawn", fix));
        }
    }
    found
}

/// `process::Command`, also within braces.
fn names_command(tokens: &[Token<'_>], at: usize) -> bool {
    if !follows(tokens, at, &["process", "::"]) {
        return false;
    }
    let rest = &tokens[at + 2..];
    match rest.first().map(|token| token.text) {
        Some("Command" | "*") => true,
        Some("{") => rest.iter().take_while(|token| token.text != "}").any(|token| token.text == "Command"),
        _ => false,
    }
}

fn unwrap(source: &Source<'_>) -> Vec<Violation> {
    if !is_agent(source) {
        return Vec::new();
    }
    let tokens = source.production();
    let calls = |at: usize| ["unwrap", "expect"].iter().any(|name| follows(&tokens, at, &[".", name, "("]));
    (0..tokens.len())
        .filter(|at| calls(*at))
        .map(|at| {
            let fix = "return the error with its object, or give the value that is right without it";
            Violation::new(source.path, tokens[at + 1].line, "unwrap", fix)
        })
        .collect()
}

fn unsafe_code(source: &Source<'_>) -> Vec<Violation> {
    let tokens = source.tokens();
    let mut uses = tokens.iter().filter(|token| token.text == "unsafe").peekable();
    if uses.peek().is_none() {
        return Vec::new();
    }
    let place = UNSAFE_PLACES.iter().find(|(place, _)| source.path.starts_with(place));
    let fix = match place {
        Some((_, false)) => return Vec::new(),
        Some((_, true)) if expects_unsafe(&tokens) => return Vec::new(),
        Some((_, true)) => "say why: #[expect(unsafe_code, reason = \"...\")]",
        None => {
            "unsafe code lives in probe-ebpf/ and probe-user/src/kernel/ only: use a safe wrapper (nix) or move it"
        }
    };
    uses.map(|token| Violation::new(source.path, token.line, "unsafe", fix)).collect()
}

fn expects_unsafe(tokens: &[Token<'_>]) -> bool {
    (0..tokens.len()).any(|at| follows(tokens, at, &["expect", "(", "unsafe_code"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGENT: &str = "probe-user/src/agent.rs";

    /// Rule and line of every violation of a documented file.
    fn broken(path: &str, code: &str) -> Vec<(&'static str, usize)> {
        let text = format!("//! Doc.\n{code}");
        all(&Source::new(path, &text, &[])).iter().map(|violation| (violation.rule, violation.line)).collect()
    }

    #[test]
    fn a_file_says_what_it_is() {
        for text in ["", "use a;\n", "//!\n", "// Doc.\n", "\n//! Doc.\n"] {
            let rules: Vec<_> =
                all(&Source::new("xtask/src/x.rs", text, &[])).iter().map(|found| found.rule).collect();
            assert_eq!(rules, ["module-doc"], "{text:?}");
        }
        assert_eq!(broken("xtask/src/x.rs", "use a;\n"), []);
    }

    #[test]
    fn long_files_are_split_and_tests_do_not_count() {
        let code = "fn a() {}\n".repeat(MAX_LINES);
        assert_eq!(broken(AGENT, &code), [("file-length", MAX_LINES + 1)]);
        assert_eq!(broken(AGENT, &code[10..]), []);
        assert_eq!(broken(AGENT, &format!("#[cfg(test)]\nmod tests {{\n{code}}}\n")), []);
    }

    #[test]
    fn aya_stays_in_the_kernel_module() {
        for code in [
            "use aya::Ebpf;\n",
            "use aya_log::EbpfLogger;\n",
            "fn a(e: &aya::Ebpf) {}\n",
            "use ::aya::maps;\n",
            "use aya as b;\n",
        ] {
            assert_eq!(broken(AGENT, code), [("aya-outside-kernel", 2)], "{code}");
            assert_eq!(broken("probe-user/src/kernel/load.rs", code), []);
            assert_eq!(broken("probe-user/src/kernel.rs", code), []);
        }
        assert_eq!(broken("probe-user/src/kernel_facts.rs", "use aya::Ebpf;\n"), [("aya-outside-kernel", 2)]);
        assert_eq!(broken(AGENT, "// use aya::Ebpf;\nconst A: &str = \"aya::Ebpf\";\nlet aya = 1;\n"), []);
    }

    #[test]
    fn hyper_stays_in_the_http_module() {
        let code = "use hyper::Request;\nuse hyper_util::rt::TokioIo;\nuse http_body_util::Full;\n";
        assert_eq!(broken(AGENT, code), [2, 3, 4].map(|line| ("hyper-outside-http", line)));
        assert_eq!(broken("probe-user/src/http/server.rs", code), []);
    }

    #[test]
    fn the_agent_starts_no_programs() {
        for code in [
            "use std::process::Command;\n",
            "use std::process::{ExitCode, Command};\n",
            "fn a() { tokio::process::Command::new(\"ip\"); }\n",
            "use nix::unistd::fork;\n",
            "fn a() { nix::unistd::execve(b, c, d); }\n",
            "fn a() { libc::system(b) }\n",
        ] {
            assert_eq!(broken(AGENT, code), [("process-spawn", 2)], "{code}");
            assert_eq!(broken("xtask/src/x.rs", code), [], "{code}");
        }
        let allowed = "use std::process::{ExitCode, id};\nuse clap::Command;\n#[cfg(test)]\nuse std::process::Command;\n";
        assert_eq!(broken(AGENT, allowed), []);
    }

    #[test]
    fn the_agent_does_not_unwrap() {
        assert_eq!(broken(AGENT, "fn a() { b\n.unwrap() }\n"), [("unwrap", 3)]);
        assert_eq!(broken(AGENT, "fn a() { b.expect(\"c\") }\n"), [("unwrap", 2)]);
        let allowed = "#[expect(dead_code)]\nfn a() { b.unwrap_or(1) }\n#[cfg(test)]\nmod tests { fn c() { d.unwrap() } }\n";
        assert_eq!(broken(AGENT, allowed), []);
    }

    #[test]
    fn unsafe_code_has_its_places() {
        let code = "fn a() { unsafe { b() } }\n";
        assert_eq!(broken(AGENT, code), [("unsafe", 2)]);
        assert_eq!(broken("probe-common/src/lib.rs", code), [("unsafe", 2)]);
        assert_eq!(broken("probe-user/src/kernel/map.rs", code), []);
        assert_eq!(broken("probe-ebpf/src/main.rs", code), []);
        assert_eq!(broken(AGENT, "#![expect(unsafe_code)] // unsafe\n"), []);
    }

    #[test]
    fn the_lab_says_why_it_is_unsafe() {
        let code = "fn a() { unsafe { b() } }\n";
        assert_eq!(broken("tests/src/node.rs", code), [("unsafe", 2)]);
        assert_eq!(
            broken("tests/src/node.rs", &format!("#[expect(unsafe_code, reason = \"fork\")]\n{code}")),
            []
        );
    }

    #[test]
    fn unfinished_work_is_found_in_any_text() {
        for word in UNFINISHED {
            let text = format!("one\n# {word}: two\n{word}S are fine\n");
            let found = unfinished("a.yaml", &text);
            assert_eq!(found.len(), 1, "{word}");
            assert_eq!((found[0].line, found[0].rule), (2, "unfinished"));
        }
    }
}
