//! Builds the BPF object with whichever installed compiler can: the host crates need only stable Rust, the BPF crate
//! needs the source of `core`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::Context as _;
use aya_build::{Package, Toolchain};

/// The binary of `probe-ebpf`.
const OBJECT: &str = "leadline-probe";

/// Candidate toolchains; the first whose sysroot has the library's source wins. `/usr` is a distribution's.
const CANDIDATES: [&str; 3] = ["nightly", "stable", "/usr"];

fn has_library_source(toolchain: &str) -> bool {
    Command::new("rustup")
        .args(["run", toolchain, "rustc", "--print", "sysroot"])
        .env("RUSTUP_AUTO_INSTALL", "0")
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .is_some_and(|root| {
            Path::new(root.trim()).join("lib/rustlib/src/rust/library/core/Cargo.toml").exists()
        })
}

/// Prepares the environment of the nested cargo.
///
/// `-Z build-std` and aya-ebpf's `asm_experimental_arch` need the first on a stable compiler; the host crates never
/// see it. Without the second every line of the nested cargo's progress becomes a warning of this package. The third is
/// where aya-build works: the object is the same for every profile and for checks, so that one build serves all.
#[expect(unsafe_code, reason = "env::set_var is unsafe; this is a build script with one thread")]
fn prepare_nested_cargo(workplace: &Path) {
    let values = [("RUSTC_BOOTSTRAP", "1".as_ref()), ("CARGO_TERM_QUIET", "true".as_ref())];
    for (name, value) in values.into_iter().chain([("OUT_DIR", workplace.as_os_str())]) {
        // SAFETY: no other thread runs.
        unsafe { env::set_var(name, value) };
    }
}

/// A folder for the object of this architecture, beside the folders of the profiles.
fn workplace(out: &Path) -> anyhow::Result<PathBuf> {
    let target = out.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    let architecture = env::var("CARGO_CFG_TARGET_ARCH")?;
    Ok(target.unwrap_or(out).join("bpf").join(architecture))
}

fn main() -> anyhow::Result<()> {
    println!("cargo::rerun-if-env-changed=EBPF_TOOLCHAIN");
    println!("cargo::rerun-if-changed=../probe-common/src");
    let chosen = env::var("EBPF_TOOLCHAIN")
        .ok()
        .or_else(|| CANDIDATES.iter().find(|name| has_library_source(name)).map(|name| (*name).to_owned()));
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set: run by cargo only")?);
    let workplace = workplace(&out)?;
    fs::create_dir_all(&workplace).with_context(|| format!("create {}", workplace.display()))?;
    prepare_nested_cargo(&workplace);
    let toolchain = chosen.as_deref().map_or(Toolchain::Nightly, Toolchain::Custom);
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../probe-ebpf");
    aya_build::build_ebpf([Package { name: "probe-ebpf", root_dir: root, ..Default::default() }], toolchain)?;
    let object = workplace.join(OBJECT);
    fs::copy(&object, out.join(OBJECT)).with_context(|| format!("copy {}", object.display()))?;
    Ok(())
}
