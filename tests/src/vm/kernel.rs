//! Where the kernels of machines are, and the programs of foreign ones: set-up unpacks packages of the distribution.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::{process, tools};

use super::architecture::Architecture;

/// An unpacked kernel.
pub(super) struct Kernel {
    /// What boots.
    pub(super) image: PathBuf,
    /// Where everything of it was unpacked.
    pub(super) root: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    /// The kernel of a release that set-up has unpacked.
    pub(super) fn find(release: &str, architecture: Architecture) -> Result<Self> {
        let name = architecture.name();
        let root = tools::target_dir().join("kernels").join(format!("{release}-{name}"));
        let missing = || {
            format!(
                "Linux {release} is not in {}: `cargo xtask setup` unpacks it from the package \
                 linux-image-{release}.*-cloud-{name} where the distribution has that (Debian 12 has 6.1); elsewhere \
                 unpack Debian's there by `dpkg-deb --extract`",
                root.display()
            )
        };
        let image = child(&root.join("boot"), "vmlinuz-").with_context(missing)?;
        let modules = child(&root.join("lib/modules"), "").with_context(missing)?.join("kernel");
        Ok(Self { image, root, modules })
    }

    /// The content of a module.
    pub(super) fn module(&self, name: &str) -> Result<Vec<u8>> {
        let mut command = std::process::Command::new(tools::require("find")?);
        command.arg(&self.modules).args(["-name", &format!("{name}.ko")]);
        let found = process::run(&mut command)?;
        let path = found.lines().next().with_context(|| {
            format!("module {name} is not in {}, or is compressed there", self.modules.display())
        })?;
        fs::read(path).with_context(|| format!("read {path}"))
    }
}

/// The one thing in a directory whose name begins so.
fn child(directory: &Path, prefix: &str) -> Option<PathBuf> {
    let mut entries = fs::read_dir(directory).ok()?.flatten();
    entries.find(|entry| entry.file_name().to_string_lossy().starts_with(prefix)).map(|entry| entry.path())
}
