//! The agent's log: one record a line on standard error, as logfmt or JSON. Records of the `log` crate, which is what
//! the messages of the BPF programs arrive as, go the same way.

use std::{
    fmt,
    io::{self, IsTerminal as _},
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_log::NormalizeEvent as _;
use tracing_subscriber::{
    Layer,
    filter::Targets,
    fmt::{
        FmtContext, FormatEvent, FormatFields, MakeWriter,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

use crate::config::{Log, LogFormat};

/// An error with all that lies behind it, in one line; what the text before says already is not repeated.
#[must_use]
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level was refused.
    #[error("log.level `{level}` cannot be used")]
    Level {
        /// As configured.
        level: String,
        /// Why.
        source: tracing_subscriber::filter::ParseError,
    },
    /// It was set up already.
    #[error("logging is set up twice")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Starts logging, for the whole process.
///
/// # Errors
/// When the level cannot be used, or logging was started before.
pub fn init(log: &Log) -> Result<(), TelemetryError> {
    let coloured = io::stderr().is_terminal() && colours_wanted(std::env::var_os("NO_COLOR").as_deref());
    subscriber(log, coloured, io::stderr)?.try_init()?;
    Ok(())
}

/// <https://no-color.org>: set and not empty means none.
fn colours_wanted(no_color: Option<&std::ffi::OsStr>) -> bool {
    no_color.is_none_or(std::ffi::OsStr::is_empty)
}

fn subscriber<W>(
    log: &Log,
    coloured: bool,
    writer: W,
) -> Result<impl Subscriber + Send + Sync + use<W>, TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let level: Targets =
        log.level.parse().map_err(|source| TelemetryError::Level { level: log.level.clone(), source })?;
    let output = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(coloured);
    let output = match log.format {
        LogFormat::Logfmt => output.event_format(Logfmt).boxed(),
        LogFormat::Json => output.json().flatten_event(true).with_current_span(false).boxed(),
    };
    Ok(tracing_subscriber::registry().with(output.with_filter(level)))
}

/// `ts=… level=info target=leadline::agent msg="…" key=value`.
struct Logfmt;

impl<S, N> FormatEvent<S, N> for Logfmt
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        // Records of `log` carry their true target in fields.
        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        out.write_str("ts=")?;
        SystemTime.format_time(&mut out)?;
        write_level(&mut out, *metadata.level())?;
        write!(out, " target={}", metadata.target())?;
        let mut fields = Fields::default();
        event.record(&mut fields);
        if let Some(message) = &fields.message {
            out.write_str(" msg=")?;
            write_value(&mut out, message)?;
        }
        for (key, value) in &fields.others {
            write!(out, " {key}=")?;
            write_value(&mut out, value)?;
        }
        writeln!(out)
    }
}

fn write_level(out: &mut Writer<'_>, level: Level) -> fmt::Result {
    let (word, colour) = match level {
        Level::ERROR => ("error", 31),
        Level::WARN => ("warn", 33),
        Level::INFO => ("info", 32),
        Level::DEBUG => ("debug", 34),
        Level::TRACE => ("trace", 35),
    };
    if out.has_ansi_escapes() {
        write!(out, " level=\x1b[{colour}m{word}\x1b[0m")
    } else {
        write!(out, " level={word}")
    }
}

/// The fields of one record: the message first, the others in their order.
#[derive(Default)]
struct Fields {
    message: Option<String>,
    others: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = Some(value.to_owned()),
            // What the bridge from `log` adds; the target is written already.
            name if name.starts_with("log.") => {}
            name => self.others.push((name, value.to_owned())),
        }
    }

    fn record_error(&mut self, field: &Field, error: &(dyn std::error::Error + 'static)) {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            text.push_str(": ");
            text.push_str(&inner.to_string());
            cause = inner.source();
        }
        self.record_str(field, &text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// A value, in quotes where logfmt needs them; a control character never reaches the terminal or starts a line.
fn write_value(out: &mut Writer<'_>, value: &str) -> fmt::Result {
    let plain = |c: char| !c.is_control() && !c.is_whitespace() && !matches!(c, '"' | '=' | '\\');
    if !value.is_empty() && value.chars().all(plain) {
        return out.write_str(value);
    }
    out.write_char('"')?;
    for c in value.chars() {
        match c {
            '"' | '\\' => write!(out, "\\{c}")?,
            '\n' => out.write_str("\\n")?,
            c if c.is_control() => write!(out, "\\u{{{:x}}}", u32::from(c))?,
            c => out.write_char(c)?,
        }
    }
    out.write_char('"')
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::subscriber::with_default;
    use tracing_log::{LogTracer, log};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: &str, format: LogFormat, coloured: bool, emit: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let target = buffer.clone();
        let log = Log { level: level.to_owned(), format };
        with_default(subscriber(&log, coloured, move || target.clone()).unwrap(), emit);
        String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap()
    }

    /// Without the time, which is checked for its form.
    fn after_time(line: &str) -> &str {
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.starts_with("ts=20") && time.ends_with('Z'), "{time}");
        rest
    }

    #[test]
    fn a_record_is_one_line_of_logfmt() {
        let text = logged("info", LogFormat::Logfmt, false, || {
            tracing::info!(target: "leadline::agent", device = "flannel.1", mtu = 1450, "device is up");
        });
        assert_eq!(
            after_time(&text),
            "level=info target=leadline::agent msg=\"device is up\" device=flannel.1 mtu=1450\n"
        );
    }

    #[test]
    fn what_would_break_the_line_is_escaped() {
        let text = logged("info", LogFormat::Logfmt, false, || {
            tracing::info!(target: "t", name = "a\nlevel=error \x1b[31m\"\\", empty = "", "x");
        });
        assert_eq!(
            after_time(&text),
            "level=info target=t msg=x name=\"a\\nlevel=error \\u{1b}[31m\\\"\\\\\" empty=\"\"\n"
        );
    }

    #[test]
    fn an_error_brings_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("eth0")]
        struct Outer(#[source] io::Error);
        let error = Outer(io::Error::other("no such device"));
        let text = logged("info", LogFormat::Logfmt, false, || {
            tracing::warn!(target: "t", error = &error as &dyn std::error::Error, "attach");
        });
        assert_eq!(after_time(&text), "level=warn target=t msg=attach error=\"eth0: no such device\"\n");
    }

    #[test]
    fn levels_hold_per_module() {
        let text = logged("warn,leadline::kernel=debug", LogFormat::Logfmt, false, || {
            tracing::info!(target: "leadline::agent", "dropped");
            tracing::debug!(target: "leadline::kernel::load", "kept");
        });
        assert_eq!(after_time(&text), "level=debug target=leadline::kernel::load msg=kept\n");
    }

    #[test]
    fn records_of_the_log_crate_arrive_with_their_target() {
        // The bridge is global; another test of this process may have set it.
        drop(LogTracer::init());
        log::set_max_level(log::LevelFilter::Trace);
        let text = logged("leadline_probe=debug", LogFormat::Logfmt, false, || {
            log::debug!(target: "leadline_probe", "slot {} is full", 7);
            log::debug!(target: "other", "dropped");
        });
        assert_eq!(after_time(&text), "level=debug target=leadline_probe msg=\"slot 7 is full\"\n");
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = logged("info", LogFormat::Json, false, || {
            tracing::info!(target: "t", device = "flannel.1", "up");
        });
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&value["level"], &value["target"]), (&"INFO".into(), &"t".into()));
        assert_eq!((&value["message"], &value["device"]), (&"up".into(), &"flannel.1".into()));
    }

    #[test]
    fn colours_only_where_asked_for() {
        let emit = || tracing::error!(target: "t", "x");
        assert_eq!(
            after_time(&logged("info", LogFormat::Logfmt, true, emit)),
            "level=\x1b[31merror\x1b[0m target=t msg=x\n"
        );
        assert_eq!(
            after_time(&logged("info", LogFormat::Logfmt, false, emit)),
            "level=error target=t msg=x\n"
        );
    }

    #[test]
    fn no_color_is_honoured_unless_empty() {
        assert!(colours_wanted(None));
        assert!(colours_wanted(Some("".as_ref())));
        assert!(!colours_wanted(Some("1".as_ref())));
    }

    #[test]
    fn a_level_that_cannot_be_used_is_named() {
        let log = Log { level: "leadline=loud".to_owned(), format: LogFormat::Logfmt };
        let error = subscriber(&log, false, io::sink).map(drop).unwrap_err();
        assert_eq!(error.to_string(), "log.level `leadline=loud` cannot be used");
    }
}
