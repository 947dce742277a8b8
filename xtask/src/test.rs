//! `cargo xtask test`: every check and every test, cheapest first; the first failure ends it.

mod count;
mod failures;
mod lanes;

use std::{
    env,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;

use crate::{
    agent, dashboards,
    generated::Mode,
    image, metrics,
    process::{answer, cargo, is_root, loudly, repository, show},
    progress::{heading, say, seconds},
    setup, tidy,
};
use count::Count;
use failures::Failures;
use lanes::Lanes;

/// Arguments of `test`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Run only tests whose names contain one of these, and no other check
    filters: Vec<String>,
}

/// What a step does.
type Act<'a> = Box<dyn Fn(&mut Count) -> Result<()> + 'a>;

/// One step: its name, and what it does.
type Step<'a> = (&'static str, Act<'a>);

/// Runs the steps.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let started = Instant::now();
    setup::run()?;
    let filters = arguments.filters.as_slice();
    let mut steps = Vec::new();
    if filters.is_empty() {
        steps.extend(checks());
    }
    steps.push(("agent", step(image::for_tests)));
    if filters.is_empty() {
        steps.push(("generated files", step(generated_files)));
        steps.push(("agent for 64-bit Arm", step(agent::build_for_arm)));
    }
    steps.extend(tests(filters));
    let mut count = Count::default();
    let all = steps.len();
    for (index, (name, act)) in steps.iter().enumerate() {
        let began = Instant::now();
        heading(format_args!("{}/{all} {name}", index + 1));
        act(&mut count).with_context(|| format!("step {}/{all} ({name}); {count} so far", index + 1))?;
        heading(format_args!("{}/{all} {name}: ok ({})", index + 1, seconds(began.elapsed())));
    }
    if !filters.is_empty() && count.passed == 0 {
        bail!("no test has a name with {} in it", filters.join(" or "));
    }
    heading(format_args!("{count} ({})", seconds(started.elapsed())));
    Ok(())
}

fn checks<'a>() -> Vec<Step<'a>> {
    vec![
        (
            "format",
            step(|| loudly(cargo().args(["fmt", "--all", "--check"])).context("`cargo fmt` repairs it")),
        ),
        ("tidy", step(tidy::run)),
        (
            "clippy",
            step(|| loudly(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))),
        ),
    ]
}

fn generated_files() -> Result<()> {
    metrics::settle(Mode::Check)?;
    dashboards::settle(Mode::Check)
}

fn tests(filters: &[String]) -> Vec<Step<'_>> {
    vec![
        (
            "unit tests",
            Box::new(move |count| {
                let mut command = cargo();
                command.args(["test", "--no-fail-fast", "--workspace", "--exclude", "leadline-tests"]);
                counted(command.arg("--").args(filters), count)
            }),
        ),
        ("lab tests", Box::new(move |count| with_accidents(filters, count))),
    ]
}

fn step<'a>(act: impl Fn() -> Result<()> + 'a) -> Act<'a> {
    Box::new(move |_| act())
}

/// Runs the lab tests. They share real daemons, clocks and a machine that does other things as well: a few that fail are
/// run once more by themselves, and are told of if they pass then.
fn with_accidents(filters: &[String], count: &mut Count) -> Result<()> {
    let mut failures = Failures::default();
    let result = if filters.is_empty() {
        in_lanes(&lanes::read(&repository().join("tests/tests"))?, count, &mut failures)
    } else {
        watched(&mut lab_tests(&[], filters)?, |line| {
            say(line);
            count.add(line);
            failures.add(line);
        })
    };
    let Err(error) = result else { return Ok(()) };
    let Some(names) = failures.accidents() else { return Err(error) };
    heading(format_args!("once more: {}", names.join(", ")));
    let (failed, mut again) = (names.len() as u64, Count::default());
    counted(lab_tests(&[], names)?.arg("--exact"), &mut again)?;
    if again.passed < failed {
        return Err(error.context("not all that failed could be run again"));
    }
    count.forgive(failed);
    heading(format_args!("passed only when run again: {}", names.join(", ")));
    Ok(())
}

/// Runs all of them: first those that can be beside each other, then the others. A failure ends nothing but itself.
fn in_lanes(lanes: &Lanes, count: &mut Count, failures: &mut Failures) -> Result<()> {
    // Or one lane would wait for what the other one builds.
    loudly(cargo().args(["test", "--no-run", "--package", "leadline-tests"]))?;
    let shared = Mutex::new(&mut *count);
    let run = |targets: &[String], mark: &str| -> Result<Failures, (Failures, anyhow::Error)> {
        let mut failures = Failures::default();
        let mut command = lab_tests(targets, &[]).map_err(|error| (Failures::default(), error))?;
        let result = watched(&mut command, |line| {
            say(format_args!("{mark}{line}"));
            shared.lock().unwrap_or_else(PoisonError::into_inner).add(line);
            failures.add(line);
        });
        match result {
            Ok(()) => Ok(failures),
            Err(error) => Err((failures, error)),
        }
    };
    let mut results: Vec<_> = thread::scope(|scope| {
        let lanes = lanes.beside.iter().zip(["1| ", "2| "]);
        let lanes: Vec<_> = lanes.map(|(lane, mark)| scope.spawn(move || run(lane, mark))).collect();
        lanes.into_iter().filter_map(|lane| lane.join().ok()).collect()
    });
    let have_ended = results.len() == lanes.beside.len();
    results.push(run(&lanes.alone, ""));
    let mut first = if have_ended { Ok(()) } else { Err(anyhow!("a lane did not end")) };
    for result in results {
        match result {
            Ok(more) => failures.append(more),
            Err((more, error)) => {
                failures.append(more);
                first = first.and(Err(error));
            }
        }
    }
    first
}

/// The tests that need namespaces, run as root, one after the other since they share the machine: all, or those of the
/// targets.
fn lab_tests(targets: &[String], filters: &[String]) -> Result<Command> {
    let mut command = cargo();
    command.args(["test", "--no-fail-fast", "--package", "leadline-tests"]).args(targets);
    command.args(["--", "--test-threads=1"]).args(filters);
    if !is_root() {
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let version = answer(rustc, &["-vV"]).context("`rustc -vV` does not answer")?;
        let variable = runner_variable(&version).context("`rustc -vV` does not name its host")?;
        command.env(variable, "sudo --preserve-env");
    }
    Ok(command)
}

/// The variable by which cargo runs test binaries through another program.
fn runner_variable(rustc_version: &str) -> Option<String> {
    let host = rustc_version.lines().find_map(|line| line.strip_prefix("host: "))?;
    Some(format!("CARGO_TARGET_{}_RUNNER", host.to_uppercase().replace(['-', '.'], "_")))
}

/// Runs `cargo test`, passing its lines on and counting its results.
fn counted(command: &mut Command, count: &mut Count) -> Result<()> {
    watched(command, |line| {
        say(line);
        count.add(line);
    })
}

/// Runs a program and hands on every line of its output as it comes.
fn watched(command: &mut Command, mut each: impl FnMut(&str)) -> Result<()> {
    let shown = show(command);
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("`{shown}` cannot be started"))?;
    let output = child.stdout.take().context("no output to read")?;
    for line in BufReader::new(output).split(b'\n') {
        let line = line.with_context(|| format!("the output of `{shown}` cannot be read"))?;
        each(&String::from_utf8_lossy(&line));
    }
    let status = child.wait().with_context(|| format!("`{shown}` cannot be waited for"))?;
    if status.success() { Ok(()) } else { bail!("`{shown}` ended with {status}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runner_is_that_of_the_host() {
        let version = "rustc 1.95.0\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\n";
        assert_eq!(runner_variable(version).as_deref(), Some("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER"));
        assert_eq!(runner_variable("rustc 1.95.0\n"), None);
    }

    #[test]
    fn a_failing_program_is_watched_to_its_end() {
        let mut lines = Vec::new();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo one; echo two; exit 101"]);
        let error = watched(&mut command, |line| lines.push(line.to_owned())).unwrap_err().to_string();
        assert!(error.ends_with("ended with exit status: 101"), "{error}");
        assert_eq!(lines, ["one", "two"]);
    }

    #[test]
    fn filters_reach_both_kinds_of_tests() {
        let command = lab_tests(&[], &["traffic".to_owned()]).unwrap();
        assert!(show(&command).ends_with("-- --test-threads=1 traffic"), "{}", show(&command));
    }
}
