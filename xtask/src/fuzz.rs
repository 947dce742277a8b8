//! `cargo xtask fuzz`: the packet parsers against libFuzzer, from the corpus of real frames.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};

use crate::{
    process::{answer, cargo, loudly, repository, show, target_directory},
    progress::{Step, heading, say},
};

/// What cargo-fuzz gives to rustc too, so that libFuzzer learns which input reached what. All of it is stable.
const FLAGS: [&str; 7] = [
    "--cfg=fuzzing",
    "-Ccodegen-units=1",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// Between the flags of `CARGO_ENCODED_RUSTFLAGS`.
const SEPARATOR: &str = "\u{1f}";

/// Twice what the tap captures: inputs of the structured targets are longer than the frames made from them.
const MAX_LENGTH: usize = 512;

/// Arguments of `fuzz`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Inputs for each target
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    inputs: u64,
    /// Only this target
    #[arg(long)]
    target: Option<Target>,
}

/// The programs of the `fuzz` crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Target {
    Frame,
    Arp,
    Ndp,
    Vrrp,
    Stamp,
    Tunnel,
    TooBig,
}

impl Target {
    const fn name(self) -> &'static str {
        match self {
            Self::Frame => "frame",
            Self::Arp => "arp",
            Self::Ndp => "ndp",
            Self::Vrrp => "vrrp",
            Self::Stamp => "stamp",
            Self::Tunnel => "tunnel",
            Self::TooBig => "too_big",
        }
    }

    /// Where it begins: real frames and packets, or packets after the figures of the RFCs.
    const fn seeds(self) -> &'static str {
        match self {
            Self::Frame | Self::Arp | Self::Ndp | Self::Vrrp => "probe-user/src/wire/corpus",
            Self::Stamp => "probe-user/src/wire/stamp/corpus",
            Self::Tunnel => "probe-user/src/wire/tunnel/corpus",
            Self::TooBig => "probe-user/src/wire/too_big/corpus",
        }
    }
}

/// Builds the targets and runs them one after the other, each on one core.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let host = host()?;
    heading("build");
    loudly(&mut build(&host)).context("libFuzzer is C++: is a compiler for it installed?")?;
    heading("fuzz");
    let chosen = arguments.target.map_or_else(|| Target::value_variants().to_vec(), |target| vec![target]);
    for target in chosen {
        let step = Step::start(target.name(), format_args!("{} inputs", arguments.inputs));
        let began = Instant::now();
        let inputs = fuzz(target, &host, arguments.inputs)?;
        step.done(format_args!("{inputs} inputs, {} a second", rate(inputs, began.elapsed())));
    }
    Ok(())
}

fn rate(inputs: u64, time: Duration) -> u128 {
    u128::from(inputs) * 1000 / time.as_millis().max(1)
}

fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = answer(rustc, &["-vV"]).context("`rustc -vV` does not answer")?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("`rustc -vV` does not name its host")?.to_owned())
}

/// Apart from everything else that is built. With a target named, build scripts are not instrumented.
fn build(host: &str) -> Command {
    let mut command = cargo();
    command.args(["build", "--quiet", "--locked", "--release", "--manifest-path", "fuzz/Cargo.toml"]);
    command.args(["--target", host, "--target-dir"]).arg(directory());
    command.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join(SEPARATOR));
    command
}

fn directory() -> PathBuf {
    target_directory().join("fuzz")
}

/// How many inputs ran. What the fuzzer learns is kept below `target/`; an input that fails is saved there too.
fn fuzz(target: Target, host: &str, inputs: u64) -> Result<u64> {
    let learned = directory().join("corpus").join(target.name());
    fs::create_dir_all(&learned).with_context(|| format!("{} cannot be created", learned.display()))?;
    let mut command = Command::new(directory().join(host).join("release").join(target.name()));
    command
        .arg(format!("-runs={inputs}"))
        .arg(format!("-max_len={MAX_LENGTH}"))
        .arg("-print_final_stats=1")
        .arg("-verbosity=0");
    command.arg(format!("-artifact_prefix={}/{}-", directory().display(), target.name()));
    command.arg(&learned).arg(repository().join(target.seeds()));
    let shown = show(&command);
    let Output { status, stderr, .. } =
        command.output().with_context(|| format!("`{shown}` cannot be started"))?;
    let log = String::from_utf8_lossy(&stderr);
    if !status.success() {
        say(log.trim_end());
        bail!("`{shown}` ended with {status}; the last lines name the input");
    }
    executed(&log).with_context(|| format!("`{shown}` does not say how many inputs it ran"))
}

fn executed(log: &str) -> Option<u64> {
    log.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_inputs_is_read_from_the_log() {
        let log = "Done 300000 runs in 1 second(s)\nstat::number_of_executed_units: 300000\nstat::peak_rss_mb: 28\n";
        assert_eq!(executed(log), Some(300_000));
        assert_eq!(executed("Done 300000 runs in 1 second(s)\n"), None);
    }

    #[test]
    fn the_rate_counts_parts_of_a_second() {
        assert_eq!(rate(3_000, Duration::from_millis(1_500)), 2_000);
        assert_eq!(rate(3, Duration::ZERO), 3_000);
    }

    #[test]
    fn every_target_is_a_program_of_the_fuzz_crate() {
        let manifest = fs::read_to_string(repository().join("fuzz/Cargo.toml")).unwrap();
        assert_eq!(manifest.matches("[[bin]]").count(), Target::value_variants().len());
        for target in Target::value_variants() {
            let file = format!("fuzz_targets/{}.rs", target.name());
            assert!(manifest.contains(&format!("path = \"{file}\"")), "{file}");
            assert!(repository().join("fuzz").join(&file).exists(), "{file}");
        }
    }

    #[test]
    fn only_the_parsers_are_instrumented() {
        let command = build("x86_64-unknown-linux-gnu");
        assert!(show(&command).contains("--target x86_64-unknown-linux-gnu"));
        let flags = command.get_envs().find(|(name, _)| *name == "CARGO_ENCODED_RUSTFLAGS");
        let flags = flags.and_then(|(_, value)| value).unwrap().to_string_lossy().into_owned();
        assert_eq!(flags.split(SEPARATOR).count(), FLAGS.len());
    }

    #[test]
    fn there_are_real_frames_to_start_from() {
        for (target, least) in [(Target::Frame, 20), (Target::Stamp, 4), (Target::Tunnel, 9)] {
            assert!(fs::read_dir(repository().join(target.seeds())).unwrap().count() >= least);
        }
    }
}
