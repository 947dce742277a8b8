//! The page of HAProxy's own exporter, of which only the families that say the same as `show stat` are read.
//!
//! It says less: a server that is not checked is `UP` there like any other.

use std::borrow::Cow;
use std::num::ParseFloatError;

use super::fault::beginning;
use super::{CheckResult, ParseError, Reading, ServerName, ServerState};

/// Reads a page.
///
/// # Errors
/// When it is none of HAProxy, or a line of interest is broken.
pub(super) fn parse(text: &str) -> Result<Reading, ParseError> {
    let mut reading = Reading::default();
    let mut is_haproxy = false;
    for (index, line) in text.lines().enumerate() {
        let Some(name) = line.strip_prefix("haproxy_") else { continue };
        is_haproxy = true;
        if !name.starts_with("frontend_") && !name.starts_with("backend_") && !name.starts_with("server_") {
            continue;
        }
        let sample = Sample::parse(name);
        let sample = sample.ok_or_else(|| ParseError::Sample { line: index + 1, text: beginning(line) })?;
        add(&sample, &mut reading);
    }
    if is_haproxy { Ok(reading) } else { Err(ParseError::NoMetric) }
}

/// One line, without the first word of its name.
struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, Cow<'a, str>)>,
    /// None for NaN, which stands for a number that HAProxy does not have.
    value: Option<u64>,
}

impl<'a> Sample<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (name, rest) = line.split_once('{')?;
        let mut labels = Vec::new();
        let mut rest = rest;
        loop {
            if let Some(after) = rest.strip_prefix('}') {
                let value = read_value(after.split_whitespace().next()?).ok()?;
                return Some(Self { name, labels, value });
            }
            let (label, quoted) = rest.split_once("=\"")?;
            let end = closing_quote(quoted)?;
            labels.push((label, unescape(&quoted[..end])));
            rest = quoted[end + 1..].trim_start_matches(',');
        }
    }

    fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| *label == name).map(|(_, value)| value.as_ref())
    }

    /// The state of a family that has one series for each, where it is this one.
    fn state(&self) -> Option<&str> {
        (self.value == Some(1)).then(|| self.label("state")).flatten()
    }
}

/// The value as a whole number, where HAProxy has one.
fn read_value(text: &str) -> Result<Option<u64>, ParseFloatError> {
    if let Ok(whole) = text.parse() {
        return Ok(Some(whole));
    }
    let number: f64 = text.parse()?;
    Ok((number >= 0.0 && number.is_finite()).then(|| format!("{number:.0}").parse().ok()).flatten())
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let closes = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        closes.then_some(at)
    })
}

fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, chars.clone().next()) {
            ('\\', Some(next)) => {
                plain.push(if next == 'n' { '\n' } else { next });
                chars.next();
            }
            _ => plain.push(c),
        }
    }
    Cow::Owned(plain)
}

fn add(sample: &Sample<'_>, reading: &mut Reading) {
    let Some(proxy) = sample.label("proxy") else { return };
    if let Some(name) = sample.name.strip_prefix("frontend_") {
        add_frontend(sample, name, proxy, reading);
    } else if let Some(name) = sample.name.strip_prefix("backend_") {
        add_backend(sample, name, proxy, reading);
    } else if let (Some(name), Some(server)) = (sample.name.strip_prefix("server_"), sample.label("server")) {
        let server = ServerName { backend: proxy.to_owned(), server: server.to_owned() };
        add_server(sample, name, server, reading);
    }
}

/// Of what finds no room one family is counted: the one that has a single line for each.
fn add_frontend(sample: &Sample<'_>, name: &str, proxy: &str, reading: &mut Reading) {
    if !matches!(name, "status" | "current_sessions" | "sessions_total") {
        return;
    }
    let Some(frontend) = reading.frontend(proxy.to_owned()) else {
        reading.omitted.frontends += u64::from(name == "current_sessions");
        return;
    };
    match name {
        "status" => frontend.is_up = is_up(sample).or(frontend.is_up),
        "current_sessions" => frontend.current_sessions = sample.value,
        _ => frontend.sessions = sample.value,
    }
}

fn add_backend(sample: &Sample<'_>, name: &str, proxy: &str, reading: &mut Reading) {
    if !matches!(
        name,
        "status" | "active_servers" | "current_sessions" | "sessions_total" | "check_last_change_seconds"
    ) {
        return;
    }
    let Some(backend) = reading.backend(proxy.to_owned()) else {
        reading.omitted.backends += u64::from(name == "current_sessions");
        return;
    };
    match name {
        "status" => backend.is_up = is_up(sample).or(backend.is_up),
        "active_servers" => backend.active_servers = sample.value,
        "current_sessions" => backend.current_sessions = sample.value,
        "sessions_total" => backend.sessions = sample.value,
        _ => backend.changed_ago = sample.value,
    }
}

fn add_server(sample: &Sample<'_>, name: &str, server: ServerName, reading: &mut Reading) {
    if !matches!(
        name,
        "status" | "check_status" | "check_code" | "check_up_down_total" | "check_last_change_seconds"
    ) {
        return;
    }
    let Some(server) = reading.server(server) else {
        reading.omitted.servers += u64::from(name == "check_last_change_seconds");
        return;
    };
    match name {
        "status" => {
            if let Some(state) = sample.state() {
                server.state = ServerState::parse(state);
            }
        }
        "check_status" => server.check = sample.state().and_then(CheckResult::parse).or(server.check),
        "check_code" => server.check_code = sample.value.filter(|code| *code > 0),
        "check_up_down_total" => server.downs = sample.value,
        _ => server.changed_ago = sample.value,
    }
}

fn is_up(sample: &Sample<'_>) -> Option<bool> {
    match sample.state()? {
        "UP" => Some(true),
        "DOWN" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{MOST, Server, stat};
    use super::*;

    /// What the exporter of HAProxy 2.6.12 showed in the moment of the recorded `show stat`, without its comments.
    const RECORDED: &str = include_str!("testdata/metrics.prom");

    #[test]
    fn both_interfaces_say_the_same() {
        let mut page = parse(RECORDED).unwrap();
        let mut stat = stat::parse(include_str!("testdata/stat.csv")).unwrap();
        for (name, server) in &mut stat.servers {
            server.tells_no_check = false;
            if server.state == ServerState::NoCheck {
                assert_eq!(name.server, "nocheck");
                server.state = ServerState::Up;
            }
        }
        // Reading the page was a session of its own.
        for reading in [&mut page, &mut stat] {
            reading.frontends.remove("metrics").unwrap();
        }
        assert_eq!(page, stat);
    }

    #[test]
    fn names_may_hold_what_must_be_escaped() {
        let text = "haproxy_server_status{proxy=\"a\\\"}\\\\\",server=\"b\\nc\",state=\"DOWN\"} 1\n";
        let reading = parse(text).unwrap();
        let name = ServerName { backend: "a\"}\\".to_owned(), server: "b\nc".to_owned() };
        let down = Server { state: ServerState::Down, ..Server::default() };
        assert_eq!(reading.servers.get(&name), Some(&down));
    }

    #[test]
    fn numbers_that_haproxy_does_not_have_are_absent() {
        assert_eq!(read_value("7"), Ok(Some(7)));
        assert_eq!(read_value("1e3"), Ok(Some(1000)));
        assert_eq!(read_value("NaN"), Ok(None));
        assert_eq!(read_value("-1"), Ok(None));
        assert!(read_value("many").is_err());
    }

    #[test]
    fn too_many_are_counted_once_each() {
        let families = ["status", "check_last_change_seconds", "check_code"];
        let mut lines = Vec::new();
        for family in families {
            let of_server = |n| format!("haproxy_server_{family}{{proxy=\"be\",server=\"s{n}\"}} 1");
            lines.extend((0..MOST + 7).map(of_server));
        }
        let reading = parse(&lines.join("\n")).unwrap();
        assert_eq!((reading.servers.len(), reading.omitted.servers), (MOST, 7));
    }

    #[test]
    fn a_page_of_somebody_else_is_refused() {
        assert_eq!(parse("up 1\n"), Err(ParseError::NoMetric));
        assert_eq!(parse(""), Err(ParseError::NoMetric));
    }

    #[test]
    fn a_broken_line_is_named() {
        for line in [
            "haproxy_server_status",
            "haproxy_server_status{",
            "haproxy_server_status{proxy=\"a} 1",
            "haproxy_server_status{proxy=\"a\"}",
            "haproxy_server_status{proxy=\"a\"} x",
        ] {
            let text = format!("haproxy_process_uptime_seconds 1\n{line}\n");
            assert_eq!(parse(&text), Err(ParseError::Sample { line: 2, text: line.to_owned() }));
        }
    }
}
