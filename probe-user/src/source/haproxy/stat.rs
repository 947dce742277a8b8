//! The answer to `show stat`: comma-separated values under a first line that names the columns. Columns are found by
//! name, since every version of HAProxy has others.

use std::collections::HashMap;

use super::fault::beginning;
use super::{CheckResult, ParseError, Reading, ServerName, ServerState, Subject};

/// The columns that are read.
const COLUMNS: [&str; 11] = [
    "pxname",
    "svname",
    "type",
    "status",
    "act",
    "scur",
    "stot",
    "chkdown",
    "lastchg",
    "check_status",
    "check_code",
];

/// Without these nothing can be said.
const REQUIRED: [&str; 4] = ["pxname", "svname", "type", "status"];

/// Reads an answer.
///
/// # Errors
/// When it is another one, or broken.
pub(super) fn parse(text: &str) -> Result<Reading, ParseError> {
    let header = text.lines().next().unwrap_or_default();
    let Some(names) = header.strip_prefix("# ").filter(|names| names.starts_with("pxname,")) else {
        return Err(ParseError::NoHeader(beginning(header)));
    };
    // HAProxy ends every answer with an empty line: without it some of the answer is missing.
    let body = text.get(header.len()..).and_then(|rest| rest.strip_suffix("\n\n"));
    let body = body.ok_or(ParseError::Truncated)?;
    let columns: Vec<&str> = names.split(',').collect();
    let places = places(&columns)?;
    let mut reading = Reading::default();
    for (index, fields) in records(body.trim_start_matches('\n'))?.into_iter().enumerate() {
        let row = index + 1;
        if fields.len() != columns.len() {
            return Err(ParseError::Fields { row, fields: fields.len(), columns: columns.len() });
        }
        let row = Row { number: row, places: &places, fields: &fields };
        if let Some(subject) = row.subject() {
            row.add(subject, &mut reading)?;
        }
    }
    Ok(reading)
}

/// Where each column is.
fn places(columns: &[&str]) -> Result<HashMap<&'static str, usize>, ParseError> {
    let place = |name: &'static str| Some((name, columns.iter().position(|column| *column == name)?));
    let places: HashMap<_, _> = COLUMNS.into_iter().filter_map(place).collect();
    match REQUIRED.iter().find(|name| !places.contains_key(**name)) {
        Some(missing) => Err(ParseError::NoColumn(missing)),
        None => Ok(places),
    }
}

/// One line of the answer.
struct Row<'a> {
    number: usize,
    places: &'a HashMap<&'static str, usize>,
    fields: &'a [String],
}

impl Row<'_> {
    /// An absent column reads as an empty one.
    fn text(&self, column: &str) -> &str {
        self.places.get(column).and_then(|place| self.fields.get(*place)).map_or("", String::as_str)
    }

    fn count(&self, column: &'static str) -> Result<Option<u64>, ParseError> {
        let text = self.text(column);
        if text.is_empty() {
            return Ok(None);
        }
        let bad = || ParseError::Number { row: self.number, column, value: beginning(text) };
        text.parse().map(Some).ok().ok_or_else(bad)
    }

    /// Listeners have rows too where `option socket-stats` is set.
    fn subject(&self) -> Option<Subject> {
        let proxy = self.text("pxname").to_owned();
        match self.text("type") {
            "0" => Some(Subject::Frontend(proxy)),
            "1" => Some(Subject::Backend(proxy)),
            "2" => {
                Some(Subject::Server(ServerName { backend: proxy, server: self.text("svname").to_owned() }))
            }
            _ => None,
        }
    }

    fn add(&self, subject: Subject, reading: &mut Reading) -> Result<(), ParseError> {
        match subject {
            Subject::Frontend(name) => {
                let Some(frontend) = reading.frontend(name) else {
                    reading.omitted.frontends += 1;
                    return Ok(());
                };
                frontend.is_up = is_up(self.text("status"));
                frontend.current_sessions = self.count("scur")?;
                frontend.sessions = self.count("stot")?;
            }
            Subject::Backend(name) => {
                let Some(backend) = reading.backend(name) else {
                    reading.omitted.backends += 1;
                    return Ok(());
                };
                backend.is_up = is_up(self.text("status"));
                backend.active_servers = self.count("act")?;
                backend.current_sessions = self.count("scur")?;
                backend.sessions = self.count("stot")?;
                backend.changed_ago = self.count("lastchg")?;
            }
            Subject::Server(name) => {
                let Some(server) = reading.server(name) else {
                    reading.omitted.servers += 1;
                    return Ok(());
                };
                server.state = ServerState::parse(self.text("status"));
                server.tells_no_check = true;
                server.check = CheckResult::parse(self.text("check_status"));
                // A 0 stands for none while a check that has failed is not done yet.
                server.check_code = self.count("check_code")?.filter(|code| *code > 0);
                server.downs = self.count("chkdown")?;
                server.changed_ago = self.count("lastchg")?;
            }
        }
        Ok(())
    }
}

/// A frontend at its limit still takes connections, only later.
fn is_up(status: &str) -> Option<bool> {
    match status {
        "UP" | "OPEN" | "FULL" => Some(true),
        "DOWN" | "STOP" => Some(false),
        _ => None,
    }
}

/// Splits into records of fields. A field with commas, quotes or line ends stands in quotes, its own quotes doubled.
fn records(body: &str) -> Result<Vec<Vec<String>>, ParseError> {
    let mut records = Vec::new();
    let (mut fields, mut field, mut is_quoted) = (Vec::new(), String::new(), false);
    let mut chars = body.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if is_quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => fields.push(std::mem::take(&mut field)),
            '\n' if !is_quoted => {
                fields.push(std::mem::take(&mut field));
                records.push(std::mem::take(&mut fields));
            }
            c => field.push(c),
        }
    }
    if is_quoted {
        return Err(ParseError::Truncated);
    }
    if !field.is_empty() || !fields.is_empty() {
        fields.push(field);
        records.push(fields);
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::super::{Frontend, MOST, Server};
    use super::*;

    /// What HAProxy 2.6.12 of Debian 12 answered, with a server in every state.
    const RECORDED: &str = include_str!("testdata/stat.csv");

    fn server(reading: &Reading, backend: &str, server: &str) -> Server {
        let name = ServerName { backend: backend.to_owned(), server: server.to_owned() };
        reading.servers[&name].clone()
    }

    #[test]
    fn every_state_of_a_real_answer_is_read() {
        let reading = parse(RECORDED).unwrap();
        for (name, state, check, code, downs, ago) in [
            ("ready", ServerState::Up, Some(CheckResult::L7Ok), Some(200), Some(1), 10),
            ("refused", ServerState::Down, Some(CheckResult::L4Con), None, Some(1), 11),
            ("sick", ServerState::Down, Some(CheckResult::L7Sts), Some(500), Some(1), 11),
            ("hung", ServerState::Down, Some(CheckResult::L7Tout), None, Some(1), 10),
            ("silent", ServerState::Down, Some(CheckResult::L7Rsp), None, Some(1), 10),
            ("off", ServerState::Maintenance, None, None, Some(0), 11),
            ("drained", ServerState::Drain, Some(CheckResult::L7Ok), Some(200), Some(0), 5),
        ] {
            let expected = Server {
                state,
                tells_no_check: true,
                check,
                check_code: code,
                downs,
                changed_ago: Some(ago),
            };
            assert_eq!(server(&reading, "apiservers", name), expected, "{name}");
        }
        let states = ["nocheck", "falling", "followed", "resolving"]
            .map(|name| server(&reading, "layer4", name).state);
        let expected = [ServerState::NoCheck, ServerState::Up, ServerState::Up, ServerState::Maintenance];
        assert_eq!(states, expected);
        assert_eq!(server(&reading, "layer4", "nocheck").downs, None);
    }

    #[test]
    fn backends_and_frontends_of_a_real_answer_are_read() {
        let reading = parse(RECORDED).unwrap();
        let names: Vec<_> = reading.backends.keys().map(String::as_str).collect();
        assert_eq!(names, ["apiservers", "dead", "empty", "layer4"]);
        let active: Vec<_> = reading.backends.values().map(|backend| backend.active_servers).collect();
        assert_eq!(active, [Some(1), Some(0), Some(0), Some(3)]);
        let up: Vec<_> = reading.backends.values().map(|backend| backend.is_up).collect();
        assert_eq!(up, [Some(true), Some(false), Some(true), Some(true)]);
        let open = Frontend { is_up: Some(true), current_sessions: Some(0), sessions: Some(0) };
        assert_eq!(reading.frontends.get("k8s-api"), Some(&open));
        assert!(reading.omitted.is_empty());
    }

    #[test]
    fn columns_are_found_by_name_and_may_be_missing() {
        let text = "# pxname,type,news,svname,status\nbe,2,,one,UP\nbe,1,,BACKEND,DOWN\nbe,3,,sock,OPEN\n\n";
        let reading = parse(text).unwrap();
        let expected = Server { state: ServerState::Up, tells_no_check: true, ..Server::default() };
        assert_eq!(server(&reading, "be", "one"), expected);
        assert_eq!((reading.servers.len(), reading.backends["be"].is_up), (1, Some(false)));
        assert_eq!(reading.backends["be"].sessions, None);
        assert_eq!(parse("# pxname,svname,status\n\n"), Err(ParseError::NoColumn("type")));
    }

    #[test]
    fn a_check_without_a_status_has_no_code() {
        let text = "# pxname,svname,type,status,check_status,check_code\nbe,one,2,DOWN,L7STS,0\n\n";
        let server = server(&parse(text).unwrap(), "be", "one");
        assert_eq!((server.check, server.check_code), (Some(CheckResult::L7Sts), None));
    }

    #[test]
    fn quoted_fields_are_one_field() {
        let text =
            "# pxname,svname,type,status,last_chk\nbe,one,2,UP,\"a, \"\"b\"\"\nc\"\nbe,two,2,DOWN,\n\n";
        let reading = parse(text).unwrap();
        let states: Vec<_> = reading.servers.values().map(|server| server.state).collect();
        assert_eq!(states, [ServerState::Up, ServerState::Down]);
    }

    #[test]
    fn what_is_no_answer_is_refused_with_its_reason() {
        let other = "Unknown command, but maybe one of the following";
        assert_eq!(parse(other), Err(ParseError::NoHeader(other.to_owned())));
        assert!(matches!(parse(""), Err(ParseError::NoHeader(_))));
        assert_eq!(
            parse("# pxname,svname,type,status\nbe,one,2\n\n"),
            Err(ParseError::Fields { row: 1, fields: 3, columns: 4 })
        );
        let error = parse("# pxname,svname,type,status,lastchg\nbe,one,2,UP,-1\n\n").unwrap_err();
        assert_eq!(error.to_string(), r#"lastchg is "-1" in row 1, which is no number"#);
    }

    #[test]
    fn an_answer_that_breaks_off_anywhere_is_refused() {
        for end in (0..RECORDED.len()).filter(|end| RECORDED.is_char_boundary(*end)) {
            assert!(parse(&RECORDED[..end]).is_err(), "{end} bytes");
        }
        assert_eq!(parse("# pxname,svname,type,status\nbe,\"one,2,UP\n\n"), Err(ParseError::Truncated));
    }

    #[test]
    fn too_many_are_counted() {
        let rows: Vec<_> = (0..MOST + 7).map(|n| format!("be,s{n},2,UP")).collect();
        let reading = parse(&format!("# pxname,svname,type,status\n{}\n\n", rows.join("\n"))).unwrap();
        assert_eq!((reading.servers.len(), reading.omitted.servers), (MOST, 7));
    }
}
