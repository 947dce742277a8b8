//! Container images from files of this machine, without a registry: archives as `docker save` writes them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::{process, tools};

/// What the lab's own image is called. A first part with a dot is the name of a registry, and nothing is added to it.
pub const BASE: &str = "lab.example/base:1";

/// The programs of the lab's own image.
const PROGRAMS: [&str; 12] =
    ["cat", "echo", "httpd", "id", "ip", "ls", "nc", "nslookup", "ping", "sh", "sleep", "wget"];

/// An image of one layer.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// Its name with its tag.
    pub reference: &'a str,
    /// What its containers run if nothing else is said.
    pub entrypoint: &'a [&'a str],
    /// Its programs: where each lies in the image, and where on this machine.
    pub programs: &'a [(&'a str, &'a Path)],
    /// Its symbolic links with their targets.
    pub links: &'a [(&'a str, &'a str)],
}

impl Image<'_> {
    /// Writes the archive below `directory`, and returns its path.
    pub fn write(&self, directory: &Path) -> Result<PathBuf> {
        let name = self.reference.replace(['/', ':'], "-");
        let stage = directory.join(&name);
        let root = stage.join("root");
        self.lay_out(&root).with_context(|| format!("lay out {}", self.reference))?;
        pack(&root, &stage.join("layer.tar"))?;
        let layer = digest(&stage.join("layer.tar"))?;
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": {"Entrypoint": self.entrypoint, "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]},
        });
        let manifest =
            json!([{"Config": "config.json", "RepoTags": [self.reference], "Layers": ["layer.tar"]}]);
        write(&stage.join("config.json"), &config.to_string())?;
        write(&stage.join("manifest.json"), &manifest.to_string())?;
        fs::remove_dir_all(&root).with_context(|| format!("remove {}", root.display()))?;
        let archive = directory.join(format!("{name}.tar"));
        pack(&stage, &archive)?;
        Ok(archive)
    }

    fn lay_out(&self, root: &Path) -> Result<()> {
        for directory in ["bin", "dev", "etc", "proc", "sys", "tmp", "www"] {
            create(&root.join(directory))?;
        }
        for (path, source) in self.programs {
            let file = root.join(path);
            create(file.parent().context("a program has a directory")?)?;
            fs::copy(source, &file).with_context(|| format!("copy {}", source.display()))?;
        }
        for (path, target) in self.links {
            symlink(target, root.join(path)).with_context(|| format!("link {path} to {target}"))?;
        }
        Ok(())
    }
}

/// The lab's own image: the programs of busybox. By itself it does nothing, which is what holds a pod together.
pub(super) fn base(directory: &Path) -> Result<PathBuf> {
    let busybox = tools::require("busybox")?;
    let links: Vec<_> = PROGRAMS.iter().map(|program| format!("bin/{program}")).collect();
    let links: Vec<_> = links.iter().map(|path| (path.as_str(), "busybox")).collect();
    let image = Image {
        reference: BASE,
        entrypoint: &["sleep", "infinity"],
        programs: &[("bin/busybox", &busybox)],
        links: &links,
    };
    image.write(directory)
}

/// Packs all that is in a directory, the same bytes for the same files.
fn pack(directory: &Path, archive: &Path) -> Result<()> {
    let mut names = fs::read_dir(directory)
        .with_context(|| format!("list {}", directory.display()))?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<std::io::Result<Vec<_>>>()
        .with_context(|| format!("list {}", directory.display()))?;
    names.sort();
    let mut command = Command::new(tools::require("tar")?);
    command.args(["--create", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"]);
    command.arg("--file").arg(archive).arg("--directory").arg(directory).args(names);
    process::run(&mut command).map(drop)
}

fn digest(file: &Path) -> Result<String> {
    let said = process::run(Command::new(tools::require("sha256sum")?).arg(file))?;
    said.split(' ').next().map(str::to_owned).with_context(|| format!("no digest in {said}"))
}

fn create(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("write {}", file.display()))
}
