//! What curl says of a health endpoint.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::node::Node;
use crate::place::Place as _;
use crate::{process, tools};

/// The time for an answer, in seconds.
const PATIENCE: &str = "8";

/// What came back, whatever its status.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The whole time from connect to end.
    pub took: Duration,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The checks that the body lists, and whether each passes.
    #[must_use]
    pub fn checks(&self) -> BTreeMap<String, bool> {
        let lines = self.body.lines().filter_map(|line| {
            let (mark, rest) = (line.get(..3)?, line.get(3..)?);
            let passes = ["[+]", "[-]"].iter().position(|known| *known == mark)? == 0;
            Some((rest.split_whitespace().next()?.to_owned(), passes))
        });
        lines.collect()
    }
}

/// Asks by curl from inside the node, as a client with those files or as nobody; an error where nothing answers.
pub(crate) fn ask(node: &Node, url: &str, client: Option<&[String; 2]>) -> Result<Answer> {
    let curl = tools::require("curl")?;
    let mut command = node.command(curl.to_str().context("the path of curl is no UTF-8")?)?;
    command.args(["--silent", "--show-error", "--insecure", "--http1.1", "--max-time", PATIENCE]);
    if let Some([certificate, key]) = client {
        command.args(["--cert", certificate, "--key", key]);
    }
    command.args(["--write-out", "\n%{http_code} %{time_total}", url]);
    parse(&process::run(&mut command)?)
}

fn parse(said: &str) -> Result<Answer> {
    let (body, figures) = said.rsplit_once('\n').with_context(|| said.to_owned())?;
    let (status, took) = figures.split_once(' ').with_context(|| figures.to_owned())?;
    Ok(Answer {
        status: status.parse().with_context(|| figures.to_owned())?,
        took: Duration::try_from_secs_f64(took.parse().with_context(|| figures.to_owned())?)?,
        body: body.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_curl_is_read() {
        let answer =
            parse("[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed\n\n500 0.25").unwrap();
        assert_eq!((answer.status, answer.took), (500, Duration::from_millis(250)));
        assert_eq!(answer.checks(), [("etcd".to_owned(), false), ("ping".to_owned(), true)].into());
        assert_eq!(parse("ok\n200 0.001").unwrap().body, "ok");
        assert!(parse("ok").is_err());
    }
}
