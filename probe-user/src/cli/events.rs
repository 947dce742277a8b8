//! `leadline events`: the timeline of a running agent.

mod client;

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use clap::{Args, ValueEnum};
use serde::Deserialize;

pub use client::{Address, ClientError};

const PATH: &str = "/api/v1/events";

/// Arguments of `leadline events`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Only events after this sequence number
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub since: u64,

    /// Wait for further events, until interrupted
    #[arg(long)]
    pub follow: bool,

    /// Where the agent listens
    #[arg(long, value_name = "URL", env = "LEADLINE_ADDRESS", default_value = "http://localhost:9843")]
    #[arg(value_parser = Address::parse)]
    pub address: Address,

    /// How events are printed
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: Output,
}

/// How events are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// One line each, for people
    Text,
    /// One JSON object a line, for programs
    Json,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// An answer that is no page of events.
    #[error("the agent's answer is no page of events; is it another version than this program?")]
    Page(#[from] serde_json::Error),
    /// The output could not be written.
    #[error("standard output cannot be written")]
    Output(#[from] io::Error),
}

/// A page as the agent sends it.
#[derive(Debug, Deserialize)]
struct Page {
    events: Vec<serde_json::Value>,
    next: u64,
    lost: u64,
}

/// An event as it is shown.
#[derive(Debug, Deserialize)]
struct Event {
    time: String,
    kind: String,
    subject: String,
    #[serde(default)]
    details: BTreeMap<String, String>,
}

impl Arguments {
    /// Prints what there is, and with `--follow` what comes.
    ///
    /// # Errors
    /// When the agent does not answer, or the output cannot be written.
    pub fn run(&self, out: &mut impl Write) -> Result<(), Error> {
        let mut since = self.since;
        loop {
            let path = format!("{PATH}?since={since}&follow={}", self.follow);
            let page: Page = serde_json::from_str(&self.address.get(&path)?)?;
            print(&page, self.output, out)?;
            let done = page.events.is_empty() && !self.follow;
            // An agent that was restarted without an event file counts from 1 again, and answers with what it has.
            since = page.next;
            if done {
                return Ok(());
            }
        }
    }
}

fn print(page: &Page, output: Output, out: &mut impl Write) -> Result<(), Error> {
    if page.lost > 0 && output == Output::Text {
        writeln!(out, "({} older events are gone)", page.lost)?;
    }
    for event in &page.events {
        match output {
            Output::Json => writeln!(out, "{event}")?,
            Output::Text => writeln!(out, "{}", line(&Event::deserialize(event)?))?,
        }
    }
    Ok(out.flush()?)
}

fn line(event: &Event) -> String {
    let mut line = format!("{}  {}  {}", event.time, event.kind.replace('_', " "), event.subject);
    for (key, value) in &event.details {
        line.push_str("  ");
        line.push_str(key);
        line.push('=');
        line.push_str(value);
    }
    // Names come from the network and from pods: they must not steer the terminal.
    line.replace(char::is_control, "?")
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    const PAGE: &str = r#"{"events":[{"sequence":7,"time":"2026-01-02T03:04:05Z","kind":"overlay_device_added",
        "subject":"flannel.1","details":{"mtu":"1450","backend":"vxlan"}}],"next":7,"lost":0}"#;

    fn printed(page: &str, output: Output) -> String {
        let mut out = Vec::new();
        print(&serde_json::from_str(page).unwrap(), output, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_event_is_one_line() {
        assert_eq!(
            printed(PAGE, Output::Text),
            "2026-01-02T03:04:05Z  overlay device added  flannel.1  backend=vxlan  mtu=1450\n"
        );
    }

    #[test]
    fn json_loses_nothing() {
        let text = printed(PAGE, Output::Json);
        let page: serde_json::Value = serde_json::from_str(PAGE).unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), page["events"][0]);
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn lost_events_are_said_to_people() {
        let page = r#"{"events":[],"next":9,"lost":3}"#;
        assert_eq!(printed(page, Output::Text), "(3 older events are gone)\n");
        assert_eq!(printed(page, Output::Json), "");
    }

    #[test]
    fn a_subject_cannot_steer_the_terminal() {
        let page = PAGE.replace("flannel.1", "a\\u001b[31m\\nb");
        assert!(printed(&page, Output::Text).contains("a?[31m?b"));
    }

    #[test]
    fn a_page_of_something_else_is_refused() {
        let event = r#"{"events":[{"time":1}],"next":1,"lost":0}"#;
        let page = serde_json::from_str(event).unwrap();
        assert!(matches!(print(&page, Output::Text, &mut Vec::new()), Err(Error::Page(_))));
        assert!(serde_json::from_str::<Page>("{}").is_err());
    }

    #[test]
    fn arguments_have_defaults() {
        let line = ["leadline", "events", "--since=4", "-o", "json"];
        let Command::Events(arguments) = Cli::try_parse_from(line).unwrap().command else { panic!() };
        assert_eq!((arguments.since, arguments.follow, arguments.output), (4, false, Output::Json));
        assert_eq!(arguments.address, Address::parse("localhost:9843").unwrap());
    }
}
