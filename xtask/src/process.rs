//! Running other programs.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// Directories that are not in the `PATH` of ordinary users but hold what we need.
const MORE_DIRECTORIES: [&str; 4] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/go/bin"];

/// How much of the output of a failed program is shown.
const SHOWN_LINES: usize = 30;

/// The root of the repository.
pub(crate) fn repository() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// Where builds end up.
pub(crate) fn target_directory() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from)
}

/// The cargo that runs us, in the root of the repository.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(repository());
    command
}

/// A program that needs root: itself, or through sudo.
pub(crate) fn privileged(program: &str) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    command
}

/// Whether this process may do everything.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|us| us.uid() == 0)
}

/// Where a program is; also looks where only root's `PATH` leads.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    directories().map(|directory| directory.join(program)).find(|file| is_program(file))
}

/// A `PATH` for children by which they find what [`find`] finds.
pub(crate) fn search_path() -> Result<OsString> {
    env::join_paths(directories()).context("PATH is malformed")
}

fn directories() -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories: Vec<PathBuf> = env::split_paths(&path).collect();
    directories.into_iter().chain(MORE_DIRECTORIES.iter().map(PathBuf::from))
}

fn is_program(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// What a program prints, if it is there and succeeds.
pub(crate) fn answer(program: impl AsRef<OsStr>, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs a program to its end without showing its output, unless it fails.
pub(crate) fn quietly(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let Output { status, stdout, stderr } =
        command.output().with_context(|| format!("`{shown}` cannot be started"))?;
    if status.success() {
        return Ok(());
    }
    let text = [stdout, stderr].concat();
    bail!("`{shown}` ended with {status}:\n{}", tail(&String::from_utf8_lossy(&text)));
}

/// Runs a program to its end with its output shown.
pub(crate) fn loudly(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command.status().with_context(|| format!("`{shown}` cannot be started"))?;
    if status.success() { Ok(()) } else { bail!("`{shown}` ended with {status}") }
}

/// A command as one would type it.
pub(crate) fn show(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    let words: Vec<_> =
        std::iter::once(program).chain(command.get_args()).map(OsStr::to_string_lossy).collect();
    words.join(" ")
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_shows_its_words_and_its_end() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo cause >&2; exit 3"]);
        let error = quietly(&mut command).unwrap_err().to_string();
        assert_eq!(error, "`sh -c echo cause >&2; exit 3` ended with exit status: 3:\ncause");
    }

    #[test]
    fn only_the_end_of_a_long_output_is_shown() {
        let long: Vec<String> = (0..100).map(|n| format!("line {n}")).collect();
        let shown = tail(&long.join("\n"));
        assert!(shown.starts_with("line 70\n") && shown.ends_with("line 99"), "{shown}");
    }

    #[test]
    fn programs_are_found_and_directories_are_not() {
        assert!(find("sh").is_some());
        assert_eq!(find("no-such-program"), None);
        assert!(!is_program(Path::new("/bin")));
    }

    #[test]
    fn children_search_where_we_do() {
        let path = search_path().unwrap();
        let directories: Vec<PathBuf> = env::split_paths(&path).collect();
        assert!(MORE_DIRECTORIES.iter().all(|more| directories.contains(&PathBuf::from(more))));
        assert!(directories.iter().any(|directory| is_program(&directory.join("sh"))));
    }

    #[test]
    fn a_failing_or_missing_program_has_no_answer() {
        assert_eq!(answer("echo", &["word"]).as_deref(), Some("word"));
        assert_eq!(answer("false", &[]), None);
        assert_eq!(answer("no-such-program", &[]), None);
    }
}
