//! What the user sees: one line a step, with its time; colours only on a terminal.

use std::{
    env,
    fmt::Display,
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

/// A step that may take a while: announced when it starts, reported when it ends.
pub(crate) struct Step {
    name: String,
    started: Instant,
}

impl Step {
    /// Announces work that the user will have to wait for.
    pub(crate) fn start(name: &str, what: impl Display) -> Self {
        say(format_args!("  {} {name}: {what} ...", paint("33", "...")));
        Self::silent(name)
    }

    /// Starts the clock of something that usually takes no time.
    pub(crate) fn silent(name: &str) -> Self {
        Self { name: name.to_owned(), started: Instant::now() }
    }

    /// Reports the result.
    pub(crate) fn done(self, result: impl Display) {
        say(format_args!(
            "  {}  {}: {result} ({})",
            paint("32", "ok"),
            self.name,
            seconds(self.started.elapsed())
        ));
    }
}

/// The heading of a group of steps.
pub(crate) fn heading(text: impl Display) {
    say(format_args!("{}", paint("1", &format!("== {text}"))));
}

/// Something worth knowing that stops nothing.
pub(crate) fn note(text: impl Display) {
    say(format_args!("  {} {text}", paint("33", "note")));
}

/// The last line of a command that failed.
pub(crate) fn failure(error: &anyhow::Error) {
    say(format_args!("{} {error:#}", paint("31", "failed:")));
}

/// A time for people.
pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// Writes a line. That nobody reads it any more, as behind `| head`, stops no work.
pub(crate) fn say(line: impl Display) {
    drop(writeln!(io::stdout(), "{line}"));
}

fn paint(code: &str, text: &str) -> String {
    let plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || env::var("CARGO_TERM_COLOR").is_ok_and(|value| value == "never")
        || !io::stdout().is_terminal();
    if plain { text.to_owned() } else { format!("\x1b[{code}m{text}\x1b[0m") }
}
