//! The file system of a machine: busybox, programs of this one with their libraries, modules, and what runs first.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::VmOptions;
use super::architecture::Architecture;
use super::cpio::Archive;
use super::kernel::Kernel;
use crate::{process, tools};

/// What runs first: mounts, loads modules, and answers commands from the shell's serial port for ever.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/programs:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs trace /sys/kernel/tracing
hostname machine
ip link set lo up
stty -F /dev/@port raw -echo
exec < /dev/@port > /dev/@port 2>&1
# The shell prefers its own tools to what is in PATH.
for program in /programs/*; do
    name="${program##*/}"
    if [ -e "/bin/$name" ]; then eval "$name() { $program \"\$@\"; }"; fi
done
while read -r module; do insmod "/modules/$module.ko" || exit 1; done < /modules/order
echo '@@ready'
while read -r number line; do
    eval "$line" < /dev/null
    printf '\n@@answer %s %s\n' "$number" "$?"
done
"#;

/// Writes the archive.
pub(super) fn write(path: &Path, kernel: &Kernel, options: &VmOptions, scratch: &Path) -> Result<()> {
    let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    let mut archive = Archive::new(BufWriter::new(file));
    fill(&mut archive, kernel, options, scratch)?;
    archive.finish().with_context(|| format!("write {}", path.display()))
}

fn fill(
    archive: &mut Archive<BufWriter<File>>,
    kernel: &Kernel,
    options: &VmOptions,
    scratch: &Path,
) -> Result<()> {
    for directory in ["bin", "dev", "etc", "modules", "proc", "programs", "run", "sys", "tmp", "var"] {
        archive.directory(directory)?;
    }
    archive.link("var/run", "/run")?;
    let (architecture, [_, port]) = (options.architecture, options.architecture.ports());
    archive.file("init", INIT.replace("@port", port).as_bytes())?;
    let busybox = program(Path::new("busybox"), kernel, architecture)?;
    ensure!(
        libraries(&busybox, kernel, architecture)?.is_empty(),
        "{} is not linked statically: apt-get install busybox-static",
        busybox.display()
    );
    archive.file("bin/busybox", &read(&busybox)?)?;
    for module in options.modules {
        archive.file(&format!("modules/{module}.ko"), &kernel.module(module)?)?;
    }
    let order: String = options.modules.iter().flat_map(|module| [module, "\n"]).collect();
    archive.file("modules/order", order.as_bytes())?;
    let mut needed = BTreeSet::new();
    for wanted in &options.programs {
        let name = wanted.file_name().context("a program has no name")?;
        let program = program(wanted, kernel, architecture)?;
        needed.extend(libraries(&program, kernel, architecture)?);
        let stripped = scratch.join("stripped");
        // Symbols of the agent are seven times its code.
        process::run(Command::new(architecture.strip()?).arg("-o").arg(&stripped).arg(&program))?;
        archive.file(&format!("programs/{}", name.to_string_lossy()), &read(&stripped)?)?;
    }
    with_libraries(archive, &needed, root(kernel, architecture))
}

/// What programs of the architecture were installed below.
fn root(kernel: &Kernel, architecture: Architecture) -> &Path {
    if architecture.is_foreign() { &kernel.root } else { Path::new("/") }
}

/// A program by its path, or by its name among those that are installed.
fn program(wanted: &Path, kernel: &Kernel, architecture: Architecture) -> Result<PathBuf> {
    if wanted.is_absolute() {
        return Ok(wanted.to_owned());
    }
    if !architecture.is_foreign() {
        return tools::require(&wanted.to_string_lossy());
    }
    let places = ["bin", "sbin", "usr/bin", "usr/sbin"].map(|place| kernel.root.join(place).join(wanted));
    let found = places.into_iter().find(|path| path.is_file());
    found.with_context(|| format!("no {} is unpacked in {}", wanted.display(), kernel.root.display()))
}

/// Libraries stand where they stand below the root, since programs name their loader by its path.
fn with_libraries(
    archive: &mut Archive<BufWriter<File>>,
    libraries: &BTreeSet<PathBuf>,
    root: &Path,
) -> Result<()> {
    let mut directories = BTreeSet::new();
    for library in libraries {
        directories.extend(library.ancestors().skip(1).filter(|above| above.parent().is_some()));
    }
    for directory in directories {
        archive.directory(relative(directory)?)?;
    }
    for library in libraries {
        let path = relative(library)?;
        archive.file(path, &read(&root.join(path))?)?;
    }
    Ok(())
}

fn relative(path: &Path) -> Result<&str> {
    path.strip_prefix("/").ok().and_then(Path::to_str).with_context(|| format!("odd path {}", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

/// The shared libraries of a program, the loader among them; none of one that is linked statically.
fn libraries(program: &Path, kernel: &Kernel, architecture: Architecture) -> Result<Vec<PathBuf>> {
    let mut lister = architecture.lister(root(kernel, architecture))?;
    let output = process::capture(lister.arg(program), "", process::SHORT)?;
    // It fails for static programs.
    Ok(parse_libraries(&String::from_utf8_lossy(&output.stdout)))
}

fn parse_libraries(listing: &str) -> Vec<PathBuf> {
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    listing.lines().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_the_paths_of_the_listing() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibmnl.so.0 => /lib/libmnl.so.0 (0x00007f)\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let foreign = "\t (0x0000005502850000)\n\t/lib/ld-linux-aarch64.so.1 => /root/lib/ld-linux-aarch64.so.1 (0x5)\n";
        assert_eq!(parse_libraries(foreign), [Path::new("/lib/ld-linux-aarch64.so.1")]);
        let expected = ["/lib/libmnl.so.0", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(parse_libraries(listing), expected);
        assert!(parse_libraries("\tnot a dynamic executable\n").is_empty());
    }
}
