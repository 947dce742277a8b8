//! Installing Debian packages without starting the daemons that some of them bring.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    process::{answer, find, privileged, quietly},
    progress::{Step, note},
};

/// Asked by the installation scripts of packages whether they may start their daemon.
const POLICY: &str = "/usr/sbin/policy-rc.d";
const SAVED: &str = "/usr/sbin/policy-rc.d.before-leadline";
const DENY: &str =
    "#!/bin/sh\n# For the time of `cargo xtask setup`: installed daemons are not started.\nexit 101\n";

/// Daemons that come with programs we need; the lab starts its own.
const DAEMONS: [(&str, &str); 6] = [
    ("containerd", "containerd"),
    ("etcd-server", "etcd"),
    ("haproxy", "haproxy"),
    ("keepalived", "keepalived"),
    ("prometheus", "prometheus"),
    ("prometheus-alertmanager", "prometheus-alertmanager"),
];

/// Installs one package of each group: the first one that this release has.
pub(super) fn install(groups: impl IntoIterator<Item = &'static [&'static str]>) -> Result<()> {
    let groups: BTreeSet<_> = groups.into_iter().collect();
    let step = Step::start("apt", "reading the lists of packages");
    update()?;
    let chosen = choose(&groups, |package| candidate(package).is_some())?;
    step.done(format!("{} to install", chosen.len()));

    let step = Step::start("apt", format_args!("installing {}", chosen.join(" ")));
    let policy = Policy::deny()?;
    let installed = quietly(apt_get().args(["install", "--yes", "--no-install-recommends"]).args(&chosen));
    policy.restore()?;
    installed?;
    disable_daemons(&chosen)?;
    step.done("installed");
    Ok(())
}

/// Reads the lists of packages anew.
pub(super) fn update() -> Result<()> {
    quietly(apt_get().args(["update"]))
}

/// The version that this release would install.
pub(super) fn candidate(package: &str) -> Option<String> {
    parse_candidate(&answer("apt-cache", &["policy", package])?)
}

/// Where packages of one architecture come from: this machine's own lists, or, for another one, lists of our own beside
/// which nothing of this machine's changes.
pub(super) struct Source {
    /// Whether its packages are of another architecture.
    pub(super) is_foreign: bool,
    options: Vec<String>,
    directory: PathBuf,
}

impl Source {
    /// The packages of an architecture, in Debian's word for it. The directory is for lists and archives.
    pub(super) fn new(architecture: &str, directory: &Path) -> Result<Self> {
        let mut options = vec!["APT::Sandbox::User=root".to_owned()]; // its own user cannot write there
        let is_foreign = architecture != host()?;
        if is_foreign {
            let inside = |name: &str| directory.join(name).display().to_string();
            let status = directory.join("status");
            for folder in ["lists/partial", "archives/partial"] {
                let folder = directory.join(folder);
                fs::create_dir_all(&folder)
                    .with_context(|| format!("{} cannot be made", folder.display()))?;
            }
            // Nothing is installed, so that all that a package needs comes with it.
            fs::write(&status, "").with_context(|| format!("{} cannot be written", status.display()))?;
            options.extend([
                format!("APT::Architecture={architecture}"),
                format!("APT::Architectures={architecture}"),
                format!("Dir::State={}", directory.display()),
                format!("Dir::State::lists={}", inside("lists")),
                format!("Dir::State::status={}", status.display()),
                format!("Dir::Cache={}", directory.display()),
                format!("Dir::Cache::archives={}", inside("archives")),
            ]);
        }
        Ok(Self { is_foreign, options, directory: directory.to_owned() })
    }

    fn arguments<'a>(&'a self, rest: &[&'a str]) -> Vec<&'a str> {
        self.options.iter().flat_map(|option| ["-o", option]).chain(rest.iter().copied()).collect()
    }

    /// Reads the lists anew.
    pub(super) fn update(&self) -> Result<()> {
        if !self.is_foreign {
            return update();
        }
        quietly(Command::new("apt-get").args(self.arguments(&["--quiet", "update"])))
    }

    /// The names of packages that begin so, a line each.
    pub(super) fn names(&self, prefix: &str) -> Option<String> {
        answer("apt-cache", &self.arguments(&["pkgnames", prefix]))
    }

    /// Downloads a package, and nothing that it needs, into the directory.
    pub(super) fn download(&self, package: &str) -> Result<()> {
        let mut command = Command::new("apt-get");
        command.args(self.arguments(&["--quiet", "download", package])).current_dir(&self.directory);
        quietly(&mut command)
    }

    /// Downloads packages of another architecture with all that they need into `archives` in the directory.
    pub(super) fn download_whole(&self, packages: &[&str]) -> Result<()> {
        let install = ["--quiet", "--yes", "--no-install-recommends", "--download-only", "install"];
        quietly(Command::new("apt-get").args(self.arguments(&[&install, packages].concat())))
    }
}

/// This machine's architecture in Debian's word.
fn host() -> Result<String> {
    let said = answer("dpkg", &["--print-architecture"]).context("dpkg does not say the architecture")?;
    Ok(said.trim().to_owned())
}

/// Whether every package is installed.
pub(super) fn are_installed(packages: &[&str]) -> bool {
    let mut arguments = vec!["--show", "--showformat=${db:Status-Status}\\n"];
    arguments.extend(packages);
    answer("dpkg-query", &arguments).is_some_and(|states| states.lines().all(|state| state == "installed"))
}

fn parse_candidate(policy: &str) -> Option<String> {
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}

fn choose(groups: &BTreeSet<&[&'static str]>, exists: impl Fn(&str) -> bool) -> Result<Vec<&'static str>> {
    let mut chosen = Vec::new();
    for group in groups {
        match group.iter().find(|package| exists(package)) {
            Some(package) => chosen.push(*package),
            None => bail!("this release has no package {}: install it by hand", group.join(" or ")),
        }
    }
    Ok(chosen)
}

fn apt_get() -> Command {
    let mut command = privileged("env");
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet", "-o", "DPkg::Lock::Timeout=300"]);
    command
}

/// A daemon that was not there before does not start at the next boot either.
fn disable_daemons(chosen: &[&str]) -> Result<()> {
    for (package, unit) in DAEMONS {
        if chosen.contains(&package) && find("systemctl").is_some() {
            quietly(privileged("systemctl").args(["disable", unit]))?;
            note(format_args!("the {unit} daemon of the package stays off; the lab starts its own"));
        }
    }
    Ok(())
}

/// The denial, for as long as it holds. A killed set-up leaves it behind; the next one then puts things right.
#[must_use]
struct Policy {
    ours: bool,
}

impl Policy {
    fn deny() -> Result<Self> {
        let before = fs::read_to_string(POLICY).ok();
        if before.as_deref() != Some(DENY) && before.as_deref().is_some_and(denies_all) {
            return Ok(Self { ours: false });
        }
        if before.as_deref() != Some(DENY) && before.is_some() {
            quietly(privileged("mv").args([POLICY, SAVED]))?;
        }
        let text = scratch("policy-rc.d");
        fs::write(&text, DENY).with_context(|| format!("{} cannot be written", text.display()))?;
        quietly(privileged("install").args(["-m", "0755"]).arg(&text).arg(POLICY))?;
        fs::remove_file(&text).with_context(|| format!("{} cannot be removed", text.display()))?;
        Ok(Self { ours: true })
    }

    fn restore(self) -> Result<()> {
        match (self.ours, Path::new(SAVED).exists()) {
            (false, _) => Ok(()),
            (true, true) => quietly(privileged("mv").args([SAVED, POLICY])),
            (true, false) => quietly(privileged("rm").args(["-f", POLICY])),
        }
    }
}

/// Whether a policy does nothing but refuse.
fn denies_all(policy: &str) -> bool {
    let mut effective =
        policy.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    effective.next() == Some("exit 101")
}

fn scratch(name: &str) -> PathBuf {
    env::temp_dir().join(format!("leadline-{}-{name}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_package_that_exists_is_chosen() {
        let groups = BTreeSet::from([&["promtool", "prometheus"][..], &["iperf3"][..]]);
        assert_eq!(choose(&groups, |package| package != "promtool").unwrap(), ["iperf3", "prometheus"]);
        let error = choose(&groups, |package| package == "iperf3").unwrap_err().to_string();
        assert_eq!(error, "this release has no package promtool or prometheus: install it by hand");
    }

    #[test]
    fn a_package_without_candidate_does_not_exist() {
        assert_eq!(
            parse_candidate("etcd:\n  Installed: (none)\n  Candidate: 3.4.23-4\n"),
            Some("3.4.23-4".to_owned())
        );
        assert_eq!(parse_candidate("etcd:\n  Installed: 1\n  Candidate: (none)\n"), None);
        assert_eq!(parse_candidate(""), None);
    }

    #[test]
    fn a_package_that_is_not_there_is_not_installed() {
        assert!(!are_installed(&["no-such-package-at-all"]));
    }

    #[test]
    fn only_a_policy_that_refuses_everything_is_left_in_place() {
        assert!(denies_all(DENY));
        assert!(denies_all("#!/bin/sh\n\n# why\nexit 101\n"));
        assert!(!denies_all("#!/bin/sh\n[ \"$1\" = ssh ] && exit 0\nexit 101\n"));
        assert!(!denies_all(""));
    }
}
