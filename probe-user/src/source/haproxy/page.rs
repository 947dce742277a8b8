//! The page of HAProxy's own exporter, of which only the families that say the same as `show stat` are read.
//!
//! It says less: a server that is not checked is `UP` there like any other.

use super::fault::beginning;
use super::{CheckResult, ParseError, Reading, ServerName, ServerState};
use crate::source::exposition::Sample;

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

/// The state of a family that has one series for each, where it is this one.
fn state<'a>(sample: &'a Sample<'_>) -> Option<&'a str> {
    (sample.integer() == Some(1)).then(|| sample.label("state")).flatten()
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
        "current_sessions" => frontend.current_sessions = sample.integer(),
        _ => frontend.sessions = sample.integer(),
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
        "active_servers" => backend.active_servers = sample.integer(),
        "current_sessions" => backend.current_sessions = sample.integer(),
        "sessions_total" => backend.sessions = sample.integer(),
        _ => backend.changed_ago = sample.integer(),
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
            if let Some(state) = state(sample) {
                server.state = ServerState::parse(state);
            }
        }
        "check_status" => server.check = state(sample).and_then(CheckResult::parse).or(server.check),
        "check_code" => server.check_code = sample.integer().filter(|code| *code > 0),
        "check_up_down_total" => server.downs = sample.integer(),
        _ => server.changed_ago = sample.integer(),
    }
}

fn is_up(sample: &Sample<'_>) -> Option<bool> {
    match state(sample)? {
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
