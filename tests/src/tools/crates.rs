//! The programs that are built from crates.

use std::path::Path;
use std::process::Command;

use std::path::PathBuf;

/// A program of a crate. Its registry never changes a version, and its own lock file pins what it is built of.
pub(super) struct CrateTool {
    /// Of the crate and of its program.
    pub(super) name: &'static str,
    version: &'static str,
    features: &'static str,
}

/// Sender and reflector of STAMP (RFC 8762, RFC 8972), MIT.
pub(super) const STAMP_SUITE: CrateTool = CrateTool {
    name: "stamp-suite",
    version: "1.0.0",
    // The kernel's times of datagrams, where it is told to take them; else it takes its own.
    features: "hwtstamp",
};

impl CrateTool {
    /// The folder that it is installed to.
    pub(super) fn folder(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }

    /// What installs it below that root.
    pub(super) fn command(&self, cargo: PathBuf, root: &Path) -> Command {
        let mut command = Command::new(cargo);
        command.args(["install", self.name, "--version", self.version, "--locked", "--no-track", "--force"]);
        command.args(["--features", self.features, "--root"]).arg(root);
        // Nothing of this workspace is for it; it is smaller and sooner built without what debuggers read.
        command
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("RUSTFLAGS")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0");
        command.current_dir("/");
        command
    }
}
