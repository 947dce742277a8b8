//! Reading back what earlier runs have written, whatever state a crash has left it in.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Seek as _, SeekFrom},
};

use crate::event::{Event, timeline::Earlier};

/// How each line that we write begins.
const HEAD: &[u8] = b"{\"sequence\":";

/// Integers beyond it are not the same in every reader of JSON, and no agent gets there.
const MAX_SEQUENCE: u64 = 1 << 53;

/// What was read so far; the older file comes first.
#[derive(Debug)]
pub(super) struct Past {
    capacity: usize,
    max_bytes: u64,
    earlier: Earlier,
    unreadable: u64,
}

impl Past {
    pub(super) fn new(capacity: usize, max_bytes: u64) -> Self {
        Self { capacity, max_bytes, earlier: Earlier::default(), unreadable: 0 }
    }

    /// Reads the end of a file; of one that is longer than ours can be, the rest is left alone.
    pub(super) fn read(&mut self, mut file: &File) -> io::Result<()> {
        let skipped = file.metadata()?.len().saturating_sub(self.max_bytes);
        file.seek(SeekFrom::Start(skipped))?;
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        if skipped > 0 {
            // The rest of a line whose beginning was skipped.
            reader.read_until(b'\n', &mut line)?;
            line.clear();
        }
        while reader.read_until(b'\n', &mut line)? > 0 {
            self.take(line.trim_ascii());
            line.clear();
        }
        Ok(())
    }

    fn take(&mut self, line: &[u8]) {
        if line.is_empty() {
            return;
        }
        match serde_json::from_slice::<Event>(line) {
            Ok(event) if (self.earlier.last + 1..=MAX_SEQUENCE).contains(&event.sequence) => self.push(event),
            _ => {
                self.unreadable += 1;
                // The number was given out, even if what it stood for is not known any more.
                let number = number_of(line).filter(|number| *number <= MAX_SEQUENCE).unwrap_or_default();
                self.earlier.last = self.earlier.last.max(number);
            }
        }
    }

    fn push(&mut self, event: Event) {
        self.earlier.last = event.sequence;
        if self.earlier.events.len() >= self.capacity {
            self.earlier.events.pop_front();
        }
        self.earlier.events.push_back(event);
    }

    /// What was read, and how many lines were no events that follow those before them.
    pub(super) fn into_parts(mut self) -> (Earlier, u64) {
        // A deque that was filled by pushing has up to twice the room it needs.
        self.earlier.events.shrink_to_fit();
        (self.earlier, self.unreadable)
    }
}

/// The number at the beginning of a line of ours, also of one that was cut or has an unknown kind.
fn number_of(line: &[u8]) -> Option<u64> {
    let rest = line.strip_prefix(HEAD)?;
    let end = rest.iter().position(|byte| *byte == b',')?;
    std::str::from_utf8(&rest[..end]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(lines: &[&str]) -> (Vec<u64>, u64, u64) {
        let mut past = Past::new(3, 1_000);
        for line in lines {
            past.take(line.as_bytes());
        }
        let (earlier, unreadable) = past.into_parts();
        (earlier.events.iter().map(|event| event.sequence).collect(), earlier.last, unreadable)
    }

    fn line(sequence: u64) -> String {
        format!(
            "{{\"sequence\":{sequence},\"time\":\"2026-01-02T03:04:05.000000006Z\",\"kind\":\"pod_started\",\
             \"subject\":\"a/b\",\"details\":{{}}}}"
        )
    }

    #[test]
    fn the_newest_are_kept() {
        let lines = [1, 2, 3, 4, 5].map(line);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        assert_eq!(past(&lines), (vec![3, 4, 5], 5, 0));
    }

    #[test]
    fn what_is_no_event_is_counted_and_its_number_stays_used() {
        let unknown = line(7).replace("pod_started", "pod_became_sentient");
        assert_eq!(past(&[&line(6), &unknown]), (vec![6], 7, 1));
        assert_eq!(past(&[&line(6), &line(9)[..40]]), (vec![6], 9, 1));
        // A number that is cut itself may have been a longer one.
        assert_eq!(past(&[&line(6), "{\"sequence\":7"]), (vec![6], 6, 1));
        assert_eq!(past(&["\0\0\0", "root:x:0:0", "{}", "", "[1]"]), (vec![], 0, 4));
    }

    #[test]
    fn numbers_only_ascend() {
        assert_eq!(past(&[&line(6), &line(6), &line(5), &line(7)]), (vec![6, 7], 7, 2));
        assert_eq!(past(&[&line(u64::MAX), &line(0), &line(1)]), (vec![1], 1, 2));
    }
}
