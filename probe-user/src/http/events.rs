//! The query of `/api/v1/events`.
//!
//! `since=N` asks for events after sequence N (default 0: all that are kept), `limit=N` for at most N of them. With
//! `follow=true` an answer without events is held back until there is one or the wait is over; a client follows by
//! asking again with the `next` it got.

use crate::event::timeline::DEFAULT_CAPACITY;

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) since: u64,
    pub(super) limit: usize,
    pub(super) follow: bool,
}

const DEFAULT_LIMIT: usize = 500;

/// Reads the query string. Numbers and words need no percent-decoding.
///
/// # Errors
/// Names the parameter and what it may be.
pub(super) fn parse_query(text: &str) -> Result<Query, String> {
    let mut query = Query { since: 0, limit: DEFAULT_LIMIT, follow: false };
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        match key {
            "since" => {
                query.since = value.parse().map_err(|_bad| explain(key, value, "a sequence number"))?;
            }
            "limit" => query.limit = parse_limit(value).ok_or_else(|| explain(key, value, "1 to 4096"))?,
            "follow" => query.follow = value.parse().map_err(|_bad| explain(key, value, "true or false"))?,
            _ => return Err(format!("unknown parameter {key:?}: there are since, limit and follow")),
        }
    }
    Ok(query)
}

fn parse_limit(text: &str) -> Option<usize> {
    text.parse().ok().filter(|limit| (1..=DEFAULT_CAPACITY).contains(limit))
}

fn explain(key: &str, value: &str, allowed: &str) -> String {
    format!("{key}={value:?} must be {allowed}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_has_a_default() {
        assert_eq!(parse_query(""), Ok(Query { since: 0, limit: 500, follow: false }));
    }

    #[test]
    fn parameters_are_read_in_any_order() {
        let query = Query { since: 17, limit: 20, follow: true };
        assert_eq!(parse_query("follow=true&limit=20&&since=17"), Ok(query));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("since=-1", "since=\"-1\" must be a sequence number"),
            ("limit=0", "limit=\"0\" must be 1 to 4096"),
            ("limit=4097", "limit=\"4097\" must be 1 to 4096"),
            ("follow=1", "follow=\"1\" must be true or false"),
            ("sinse=3", "unknown parameter \"sinse\": there are since, limit and follow"),
        ] {
            assert_eq!(parse_query(text), Err(expected.to_owned()));
        }
    }
}
