//! The file system of a machine: busybox, programs of this one with their libraries, modules, and what runs first.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::VmOptions;
use super::cpio::Archive;
use super::kernel::Kernel;
use crate::{process, tools};

/// What runs first: mounts, loads modules, and answers commands from the second serial port for ever.
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
stty -F /dev/ttyS1 raw -echo
exec < /dev/ttyS1 > /dev/ttyS1 2>&1
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
    archive.file("init", INIT.as_bytes())?;
    let busybox = tools::require("busybox")?;
    ensure!(
        libraries(&busybox)?.is_empty(),
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
    for program in &options.programs {
        let name = program.file_name().context("a program has no name")?;
        let program =
            if program.is_absolute() { program.clone() } else { tools::require(&name.to_string_lossy())? };
        needed.extend(libraries(&program)?);
        let stripped = scratch.join("stripped");
        // Symbols of the agent are seven times its code.
        process::run(Command::new(tools::require("strip")?).arg("-o").arg(&stripped).arg(&program))?;
        archive.file(&format!("programs/{}", name.to_string_lossy()), &read(&stripped)?)?;
    }
    with_libraries(archive, &needed)
}

/// Libraries stand where they stand here, since programs name their loader by its path.
fn with_libraries(archive: &mut Archive<BufWriter<File>>, libraries: &BTreeSet<PathBuf>) -> Result<()> {
    let mut directories = BTreeSet::new();
    for library in libraries {
        directories.extend(library.ancestors().skip(1).filter(|above| above.parent().is_some()));
    }
    for directory in directories {
        archive.directory(relative(directory)?)?;
    }
    for library in libraries {
        archive.file(relative(library)?, &read(library)?)?;
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
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = process::capture(Command::new("ldd").arg(program), "", process::SHORT)?;
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
        let expected = ["/lib/libmnl.so.0", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(parse_libraries(listing), expected);
        assert!(parse_libraries("\tnot a dynamic executable\n").is_empty());
    }
}
