//! Which system this is, and whether packages can be installed on it.

use std::{fmt, fs};

use anyhow::{Result, bail};

use crate::process::{find, is_root};

/// This machine.
#[derive(Debug)]
pub(super) struct System {
    name: String,
    /// Debian, Ubuntu, or made from them.
    pub(super) has_apt: bool,
    root: bool,
}

impl System {
    /// Reads what the machine says about itself.
    pub(super) fn detect() -> Result<Self> {
        if cfg!(not(target_os = "linux")) {
            bail!("eBPF is Linux only: use a Linux machine, for example Debian 12");
        }
        let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let (name, debian) = parse_os_release(&text);
        let system = Self { name, has_apt: debian && find("apt-get").is_some(), root: is_root() };
        if !system.root && find("sudo").is_none() {
            bail!("tests need network namespaces and BPF: run as root, or install sudo");
        }
        Ok(system)
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let packages = if self.has_apt { "packages by apt-get" } else { "packages by hand" };
        let rights = if self.root { "root" } else { "through sudo" };
        write!(f, "{}, {packages}, {rights}", self.name)
    }
}

/// The name of the distribution, and whether it is Debian or made from it.
fn parse_os_release(text: &str) -> (String, bool) {
    let field = |name: &str| {
        text.lines()
            .filter_map(|line| line.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.trim_matches('"'))
    };
    let family = [field("ID"), field("ID_LIKE")].into_iter().flatten().flat_map(str::split_whitespace);
    let debian = family.into_iter().any(|id| matches!(id, "debian" | "ubuntu"));
    (field("PRETTY_NAME").unwrap_or("unknown Linux").to_owned(), debian)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_and_its_children_are_recognised() {
        let debian = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\n";
        assert_eq!(parse_os_release(debian), ("Debian GNU/Linux 12 (bookworm)".to_owned(), true));
        let mint = "PRETTY_NAME=\"Linux Mint 22\"\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\n";
        assert_eq!(parse_os_release(mint), ("Linux Mint 22".to_owned(), true));
    }

    #[test]
    fn others_are_not() {
        let fedora = "PRETTY_NAME=\"Fedora Linux 43\"\nID=fedora\nVERSION_CODENAME=debian\n";
        assert_eq!(parse_os_release(fedora), ("Fedora Linux 43".to_owned(), false));
        assert_eq!(parse_os_release(""), ("unknown Linux".to_owned(), false));
    }
}
