//! Builds the BPF object with whichever installed compiler can: the host crates need only stable Rust, the BPF crate
//! needs the source of `core`.

use std::env;
use std::path::Path;
use std::process::Command;

use aya_build::{Package, Toolchain};

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

/// `-Z build-std` and aya-ebpf's `asm_experimental_arch` need the first on a stable compiler; the host crates never
/// see it. Without the second every line of the nested cargo's progress becomes a warning of this package.
#[expect(unsafe_code, reason = "env::set_var is unsafe; this is a build script with one thread")]
fn prepare_nested_cargo() {
    for (name, value) in [("RUSTC_BOOTSTRAP", "1"), ("CARGO_TERM_QUIET", "true")] {
        // SAFETY: no other thread runs.
        unsafe { env::set_var(name, value) };
    }
}

fn main() -> anyhow::Result<()> {
    println!("cargo::rerun-if-env-changed=EBPF_TOOLCHAIN");
    println!("cargo::rerun-if-changed=../probe-common/src");
    let chosen = env::var("EBPF_TOOLCHAIN")
        .ok()
        .or_else(|| CANDIDATES.iter().find(|name| has_library_source(name)).map(|name| (*name).to_owned()));
    prepare_nested_cargo();
    let toolchain = chosen.as_deref().map_or(Toolchain::Nightly, Toolchain::Custom);
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../probe-ebpf");
    aya_build::build_ebpf([Package { name: "probe-ebpf", root_dir: root, ..Default::default() }], toolchain)
}
