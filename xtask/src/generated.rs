//! Files that are generated and committed: written, or compared with what is there.

use std::{fs, io::ErrorKind, path::Path};

use anyhow::{Context as _, Result, bail};

use crate::{process::repository, progress::say};

/// What to do with a generated file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Write it where it differs.
    Write,
    /// Fail where it differs.
    Check,
}

impl Mode {
    /// The mode of a command with a `--check` flag.
    pub(crate) fn from_check(check: bool) -> Self {
        if check { Self::Check } else { Self::Write }
    }
}

/// Brings a file of the repository to its text; `repair` is the command that does so.
pub(crate) fn settle(path: &str, text: &str, repair: &str, mode: Mode) -> Result<()> {
    let said = settle_in(&repository(), path, text, repair, mode)?;
    say(said);
    Ok(())
}

fn settle_in(root: &Path, path: &str, text: &str, repair: &str, mode: Mode) -> Result<String> {
    let file = root.join(path);
    let found = match fs::read_to_string(&file) {
        Ok(found) => Some(found),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("{path} cannot be read")),
    };
    match (found, mode) {
        (Some(found), _) if found == text => Ok(format!("{path} is up to date")),
        (None, Mode::Check) => bail!("{path} is missing; `{repair}` writes it"),
        (Some(found), Mode::Check) => {
            let line = first_difference(&found, text);
            bail!("{path} is out of date from line {line} on; `{repair}` repairs it")
        }
        (_, Mode::Write) => {
            if let Some(folder) = file.parent() {
                fs::create_dir_all(folder).with_context(|| format!("no folder for {path} can be made"))?;
            }
            fs::write(&file, text).with_context(|| format!("{path} cannot be written"))?;
            Ok(format!("{path} written"))
        }
    }
}

/// The first line, from 1, in which two different texts differ.
fn first_difference(a: &str, b: &str) -> usize {
    a.lines().zip(b.lines()).take_while(|(a, b)| a == b).count() + 1
}

#[cfg(test)]
mod tests {
    use std::{env, path::PathBuf, process};

    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = env::temp_dir().join(format!("xtask-{}-{name}", process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn settle(&self, text: &str, mode: Mode) -> Result<String> {
            settle_in(&self.0, "PAGE.md", text, "cargo xtask page", mode)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn a_check_names_the_place_and_the_repair() {
        let scratch = Scratch::new("check");
        let missing = scratch.settle("a\n", Mode::Check).unwrap_err().to_string();
        assert_eq!(missing, "PAGE.md is missing; `cargo xtask page` writes it");
        scratch.settle("a\nb\n", Mode::Write).unwrap();
        assert_eq!(scratch.settle("a\nb\n", Mode::Check).unwrap(), "PAGE.md is up to date");
        let differs = scratch.settle("a\nc\n", Mode::Check).unwrap_err().to_string();
        assert_eq!(differs, "PAGE.md is out of date from line 2 on; `cargo xtask page` repairs it");
    }

    #[test]
    fn what_is_up_to_date_is_not_written() {
        let scratch = Scratch::new("write");
        assert_eq!(scratch.settle("a\n", Mode::Write).unwrap(), "PAGE.md written");
        assert_eq!(scratch.settle("a\n", Mode::Write).unwrap(), "PAGE.md is up to date");
        assert_eq!(fs::read_to_string(scratch.0.join("PAGE.md")).unwrap(), "a\n");
    }

    #[test]
    fn a_folder_that_is_missing_is_made() {
        let scratch = Scratch::new("folder");
        let settle = |mode| settle_in(&scratch.0, "a/b/PAGE.md", "a\n", "cargo xtask page", mode);
        assert!(settle(Mode::Check).is_err());
        settle(Mode::Write).unwrap();
        assert_eq!(settle(Mode::Check).unwrap(), "a/b/PAGE.md is up to date");
    }

    #[test]
    fn texts_differ_where_one_of_them_ends() {
        assert_eq!(first_difference("a\nb\n", "a\n"), 2);
        assert_eq!(first_difference("", "a\n"), 1);
        assert_eq!(first_difference("a\n", "a"), 2);
    }
}
