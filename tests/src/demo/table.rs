//! What the demo shows: a table in place on a terminal, a line for each pod and second elsewhere.

use std::io::{self, IsTerminal as _, Write as _};

use crate::demo::figures::Rates;
use crate::demo::plan::PodPlan;

/// What stands for a value that is not there.
const NONE: &str = "-";

/// How standard output can be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Style {
    /// A table in place.
    pub(crate) in_place: bool,
    /// Bold and coloured text.
    pub(crate) coloured: bool,
}

impl Style {
    /// What standard output can do and the environment wants.
    pub(crate) fn detect() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        let in_place = io::stdout().is_terminal() && !dumb;
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { in_place, coloured: in_place && !refused }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// One second of the demo.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frame {
    /// What is above the table, and stays as it is.
    pub(crate) heading: Vec<String>,
    /// Seconds since the start.
    pub(crate) second: u64,
    /// What the time is out of.
    pub(crate) of: Option<u64>,
    /// The rows.
    pub(crate) rows: Vec<(PodPlan, Rates)>,
    /// The disturbance in words.
    pub(crate) disturbance: String,
    /// Whether it is disturbed now.
    pub(crate) disturbed: bool,
}

/// The whole text of a frame.
pub(crate) fn render(frame: &Frame, style: Style) -> String {
    if style.in_place { in_place(frame, style) } else { lines(frame) }
}

fn in_place(frame: &Frame, style: Style) -> String {
    let of = frame.of.map_or_else(String::new, |seconds| format!(" of {seconds} s"));
    let mut text = frame.heading.clone();
    text.push(format!("second {}{of}, Ctrl-C ends", frame.second));
    text.push(String::new());
    text.push(style.paint("1", &columns()));
    text.extend(frame.rows.iter().map(|(pod, rates)| {
        let line = row(pod, rates);
        let busy = rates.retransmits.is_some_and(|rate| rate > 0.0);
        if busy { style.paint("33", &line) } else { line }
    }));
    text.push(String::new());
    text.push(style.paint(if frame.disturbed { "31" } else { "2" }, &frame.disturbance));
    // Home, every line cleared to its end, and what is below cleared: nothing flickers.
    format!("\x1b[H{}\x1b[K\n\x1b[J", text.join("\x1b[K\n"))
}

fn columns() -> String {
    format!(
        "{:<6} {:<16} {:>13} {:>13} {:>10} {:>14}",
        "NODE", "POD", "RECEIVE", "TRANSMIT", "RTT", "RETRANSMITS/S"
    )
}

fn row(pod: &PodPlan, rates: &Rates) -> String {
    format!(
        "node{:<2} {:<16} {:>13} {:>13} {:>10} {:>14}",
        pod.node,
        pod.full_name(),
        show(rates.receive, bits),
        show(rates.transmit, bits),
        show(rates.rtt, milliseconds),
        show(rates.retransmits, |rate| format!("{rate:.1}")),
    )
}

/// One line for each pod, which begins with the second it is about.
fn lines(frame: &Frame) -> String {
    let rows = frame.rows.iter().map(|(pod, rates)| row(pod, rates));
    let all = rows.chain(frame.disturbed.then(|| frame.disturbance.clone()));
    let lines: Vec<String> = all.map(|line| format!("{:>4} s  {line}", frame.second)).collect();
    lines.join("\n") + "\n"
}

/// The line that names the columns of [`lines`].
pub(crate) fn line_columns() -> String {
    format!("{:>6}  {}", "TIME", columns())
}

/// A value or what stands for none.
pub(crate) fn show<T>(value: Option<T>, text: impl Fn(T) -> String) -> String {
    value.map_or_else(|| NONE.to_owned(), text)
}

fn bits(rate: f64) -> String {
    match rate {
        rate if rate >= 1e6 => format!("{:.2} Mbit/s", rate / 1e6),
        rate if rate >= 1e3 => format!("{:.1} kbit/s", rate / 1e3),
        rate => format!("{rate:.0} bit/s"),
    }
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.3} ms", seconds * 1e3)
}

/// Writes text; false when nobody reads it any more, as behind `| head`.
pub(crate) fn write(text: &str) -> io::Result<bool> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        done => done.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        let pod = PodPlan { node: 3, namespace: "shop", name: "db" };
        let rates = Rates {
            receive: Some(7_654_321.0),
            transmit: Some(12_345.0),
            rtt: Some(0.000_123),
            retransmits: Some(4.0),
        };
        let quiet = (PodPlan { node: 1, namespace: "media", name: "camera" }, Rates::default());
        Frame {
            heading: vec!["heading".into()],
            second: 12,
            of: Some(60),
            rows: vec![(pod, rates), quiet],
            disturbance: "node3 drops".into(),
            disturbed: false,
        }
    }

    const PLAIN: Style = Style { in_place: false, coloured: false };

    #[test]
    fn each_pod_has_a_line_and_missing_values_a_dash() {
        let expected = "  12 s  node3  shop/db            7.65 Mbit/s   12.3 kbit/s   0.123 ms            4.0\n  \
                        12 s  node1  media/camera                 -             -          -              -\n";
        assert_eq!(render(&frame(), PLAIN), expected);
    }

    #[test]
    fn lines_tell_of_the_disturbance_while_it_lasts() {
        let disturbed = Frame { disturbed: true, ..frame() };
        assert!(render(&disturbed, PLAIN).ends_with("\n  12 s  node3 drops\n"));
    }

    #[test]
    fn a_terminal_is_drawn_from_its_corner() {
        let text = render(&frame(), Style { in_place: true, coloured: false });
        assert!(text.starts_with("\x1b[Hheading\x1b[K\nsecond 12 of 60 s, Ctrl-C ends\x1b[K\n"), "{text:?}");
        assert!(text.ends_with("node3 drops\x1b[K\n\x1b[J"), "{text:?}");
        assert!(!text.contains("\x1b[0m"), "{text:?}");
    }

    #[test]
    fn colours_mark_retransmitting_pods() {
        let text = render(&frame(), Style { in_place: true, coloured: true });
        assert!(text.contains("\x1b[33mnode3  shop/db") && text.contains("\nnode1  media"), "{text:?}");
    }

    #[test]
    fn small_rates_keep_their_unit() {
        assert_eq!([bits(0.0), bits(999.4), bits(1000.0)], ["0 bit/s", "999 bit/s", "1.0 kbit/s"]);
    }
}
